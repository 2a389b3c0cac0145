//! One member: a line is a command, or is said to the room.

use std::convert::Infallible;
use std::io;
use std::time::Duration;

use asynchat::{
    Channel, ChannelBuilder, Chunk, Control, DelimiterSetError, Handler, Limit, Served, Server,
    Terminator, Timeouts,
};
use tokio::net::{TcpListener, TcpSocket, lookup_host};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::rooms::{Rooms, Seat};

const CONNECTIONS: usize = 2000;
/// How long farewells may take.
const GRACE: Duration = Duration::from_secs(5);
/// Bytes of a line.
const LINE_LENGTH: u64 = 1000;
/// Bytes that may wait for one member: in the room's hands, in its channel, and in its socket, each.
const BACKLOG: u32 = 32 * 1024;
/// Nobody says or hears anything for so long without being cut off.
const IDLE: Duration = Duration::from_secs(30 * 60);
/// A member may send so many lines at once, and after that one in each interval.
const BURST: u32 = 20;
const INTERVAL: Duration = Duration::from_millis(100);

const HELP: &str = "\
* /nick NAME   to be called that\r\n\
* /join ROOM   to go to a room\r\n\
* /who         is here?\r\n\
* /rooms       there are\r\n\
* /quit        to leave\r\n\
* anything else is said to the room\r\n";

/// Listens, with send buffers that do not hide a member who does not read.
pub(crate) async fn listen(addr: &str) -> io::Result<TcpListener> {
    let addr = lookup_host(addr).await?.next().ok_or(io::ErrorKind::NotFound)?;
    let socket = if addr.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    #[cfg(unix)]
    socket.set_reuseaddr(true)?;
    socket.set_send_buffer_size(BACKLOG)?;
    socket.bind(addr)?;
    socket.listen(1024)
}

/// Serves members until it is told to stop.
pub(crate) async fn serve(listener: TcpListener, stop: CancellationToken) -> io::Result<Served> {
    let rooms = Rooms::default();
    let builder = channels().map_err(io::Error::other)?;
    let server = Server::new().max_connections(CONNECTIONS).shutdown_timeout(GRACE);
    let served = server
        .serve(listener, stop, move |connection| {
            let (rooms, builder) = (rooms.clone(), builder.clone());
            async move {
                let _ = connection.io.set_nodelay(true);
                let mut channel = builder.build(connection.io);
                match rooms.enter(channel.handle()) {
                    Ok(seat) => {
                        let session = Session::new(seat);
                        channel.run_until(session, connection.shutdown.cancelled()).await;
                    }
                    Err(refusal) => {
                        let _ = channel.push(format!("* {refusal}\r\n"));
                        let _ = channel.close().await;
                    }
                }
            }
        })
        .await;
    Ok(served?)
}

/// What all channels have in common: lines as `nc` and `telnet` end them.
fn channels() -> Result<ChannelBuilder, DelimiterSetError> {
    let mut timeouts = Timeouts::default();
    timeouts.idle = Some(IDLE);
    Ok(Channel::builder(Terminator::any_of(["\r\n", "\n"])?)
        .limit(Limit::Skip(LINE_LENGTH))
        .timeouts(timeouts)
        .high_water_mark(BACKLOG as usize)
        .low_water_mark(BACKLOG as usize / 2)
        .handle_capacity(BACKLOG as usize))
}

#[derive(Debug)]
struct Session {
    seat: Seat,
    line: Vec<u8>,
    pace: Pace,
}

impl Session {
    fn new(seat: Seat) -> Self {
        Session { seat, line: Vec::new(), pace: Pace::new() }
    }

    /// Carries out a command. Returns what the member is told.
    fn command(&self, command: &str, control: &mut Control<'_>) -> String {
        let (verb, argument) = command.split_once(' ').unwrap_or((command, ""));
        let argument = argument.trim();
        let done = match verb {
            "nick" => self.seat.rename(argument).map(|()| String::new()),
            "join" => self.seat.join(argument).map(|()| format!("* you are in {argument}\r\n")),
            "who" => Ok(self.seat.who()),
            "rooms" => Ok(self.seat.list()),
            "help" => Ok(HELP.to_owned()),
            "quit" => {
                control.push("* bye\r\n");
                control.close_when_done();
                Ok(String::new())
            }
            _ => Ok("* there is no such command; try /help\r\n".to_owned()),
        };
        done.unwrap_or_else(|refusal| format!("* {refusal}\r\n"))
    }
}

impl Handler for Session {
    type Error = Infallible;

    fn collect_incoming_data(
        &mut self,
        data: Chunk<'_>,
        _: &mut Control<'_>,
    ) -> Result<(), Infallible> {
        // No more than the limit of a line.
        self.line.extend_from_slice(&data);
        Ok(())
    }

    async fn found_terminator(&mut self, control: &mut Control<'_>) -> Result<(), Infallible> {
        self.pace.keep().await;
        let line = printable(&std::mem::take(&mut self.line));
        match line.trim() {
            "" => {}
            line => match line.strip_prefix('/') {
                Some(command) => {
                    let told = self.command(command, control);
                    // Refused only behind /quit.
                    control.push(told);
                }
                None => self.seat.say(line),
            },
        }
        Ok(())
    }

    async fn overlong(&mut self, control: &mut Control<'_>) -> Result<(), Infallible> {
        self.line = Vec::new();
        self.pace.keep().await;
        control.push(format!("* not said: it is longer than {LINE_LENGTH} bytes\r\n"));
        Ok(())
    }

    async fn shutdown(&mut self, control: &mut Control<'_>) -> Result<(), Infallible> {
        self.seat.rooms().close();
        control.push("* the server is shutting down\r\n");
        control.close_when_done();
        Ok(())
    }
}

/// The text of a line, without anything that a terminal would obey: control characters, and those that
/// turn the direction of writing.
fn printable(line: &[u8]) -> String {
    let shown = |c: &char| {
        !c.is_control()
            && !matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    String::from_utf8_lossy(line).replace('\t', " ").chars().filter(shown).collect()
}

/// How fast a member may send.
#[derive(Debug)]
struct Pace {
    /// When all that has been sent would have been sent, one line in each interval.
    due: Instant,
}

impl Pace {
    fn new() -> Self {
        Pace { due: Instant::now() }
    }

    /// Waits until one more line may be said. Meanwhile the member's input stays where it is, and its
    /// output goes on.
    async fn keep(&mut self) {
        let now = Instant::now();
        self.due = self.due.max(now) + INTERVAL;
        if self.due > now + INTERVAL * BURST {
            sleep_until(self.due - INTERVAL * BURST).await;
        }
    }
}
