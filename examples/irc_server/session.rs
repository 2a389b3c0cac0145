//! One connection: lines, registration, flood control, deadlines.

use std::convert::Infallible;
use std::io;
use std::iter;
use std::mem;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use asynchat::{
    Channel, ChannelBuilder, Chunk, CloseReason, Control, Handler, Limit, Served, Server,
    Terminator, Timeout, Timeouts, producer,
};
use bytes::Bytes;
use tokio::net::{TcpListener, TcpSocket, lookup_host};
use tokio::time::{Instant, sleep};
use tokio_util::net::Listener;
use tokio_util::sync::CancellationToken;

use crate::commands::{self, Reply, SERVER, Then};
use crate::message::{self, LINE, Message};
use crate::network::{Network, Seat};

const CONNECTIONS: usize = 2000;
/// How long the last lines may take to be sent when the server stops.
const GRACE: Duration = Duration::from_secs(5);
/// How long a connection may take to register.
const REGISTRATION: Duration = Duration::from_secs(30);
/// A client that has been silent for so long is sent a PING,
const QUIET: Duration = Duration::from_secs(120);
/// and one that has been silent for so long is disconnected.
const IDLE: Duration = Duration::from_secs(240);
/// How many bytes pushed by others may wait for a client: its "SendQ".
const BACKLOG: usize = 64 * 1024;
/// How many bytes may be queued in its channel, and about as many in its socket.
const QUEUE: u32 = 32 * 1024;
/// A client may send so many lines at once, and after that one in each interval.
const BURST: u32 = 20;
const INTERVAL: Duration = Duration::from_millis(250);
/// How many bytes a client that has to wait may have sent ahead.
const AHEAD: usize = 8 * 1024;

/// Listens, with send buffers that do not hide a client that does not read.
pub(crate) async fn listen(addr: &str) -> io::Result<TcpListener> {
    let addr = lookup_host(addr).await?.next().ok_or(io::ErrorKind::NotFound)?;
    let socket = if addr.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    #[cfg(unix)]
    socket.set_reuseaddr(true)?;
    socket.set_send_buffer_size(QUEUE)?;
    socket.bind(addr)?;
    socket.listen(1024)
}

/// Serves clients, from wherever they connect, until it is told to stop.
pub(crate) async fn serve<L>(
    listener: L,
    stop: CancellationToken,
    flood_control: bool,
) -> io::Result<Served>
where
    L: Listener<Io: Unpin + Send + 'static, Addr = SocketAddr>,
{
    let network = Network::default();
    let builder = channels();
    let server = Server::new()
        .max_connections(CONNECTIONS)
        .refuse_with("ERROR :Closing Link: the server is full\r\n")
        .shutdown_timeout(GRACE);
    let served = server
        .serve(listener, stop, move |connection| {
            let session = Session::new(network.clone(), &connection.peer, flood_control);
            let builder = builder.clone();
            async move {
                builder
                    .build(connection.io)
                    .run_until(session, connection.shutdown.cancelled())
                    .await;
            }
        })
        .await;
    Ok(served?)
}

/// The settings of all channels, as they are before the client has registered.
pub(crate) fn channels() -> ChannelBuilder {
    Channel::builder(Terminator::Newline)
        .limit(Limit::Skip(LINE as u64))
        .whole_frames(true)
        .timeouts(timeouts().session(REGISTRATION))
        .read_size(2 * AHEAD)
        .high_water_mark(QUEUE as usize)
        .low_water_mark(QUEUE as usize / 2)
        .handle_capacity(BACKLOG)
}

fn timeouts() -> Timeouts {
    Timeouts::default().quiet(QUIET).idle(IDLE)
}

#[derive(Debug)]
pub(crate) struct Session {
    network: Network,
    /// The peer's address, in a form that may be a word of a line.
    host: Arc<str>,
    line: Vec<u8>,
    /// The flood control, or `None` without it.
    pace: Option<Pace>,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    Registering(Registration),
    Registered(Seat),
}

/// What is known of a client so far.
#[derive(Debug, Default)]
struct Registration {
    nick: Option<String>,
    /// What it calls its user, and its real name.
    user: Option<(String, Bytes)>,
    /// Whether it has asked for capabilities, and has not ended that with `CAP END`.
    negotiating: bool,
}

impl Session {
    pub(crate) fn new(network: Network, peer: &SocketAddr, flood_control: bool) -> Self {
        let host = match peer.ip().to_canonical() {
            // A word must not begin with a colon.
            IpAddr::V6(ip) if ip.to_string().starts_with(':') => format!("0{ip}"),
            ip => ip.to_string(),
        };
        let pace = flood_control.then(Pace::new);
        let stage = Stage::Registering(Registration::default());
        Session { network, host: host.into(), line: Vec::new(), pace, stage }
    }

    fn nick(&self) -> Arc<str> {
        match &self.stage {
            Stage::Registering(known) => known.nick(),
            Stage::Registered(seat) => seat.nick(),
        }
    }

    /// Waits until one more line may be taken. Returns `false` if the client is disconnected, for sending too far
    /// ahead.
    async fn keep_pace(&mut self, control: &mut Control<'_>) -> bool {
        let Some(wait) = self.pace.as_mut().and_then(Pace::take) else { return true };
        if control.pending_input() > AHEAD {
            self.bid_farewell(b"Excess Flood", control);
            return false;
        }
        // While this waits, the client's input stays in the buffer, and its output is written.
        sleep(wait).await;
        true
    }

    /// Tells the client, and the others, why it is disconnected.
    fn bid_farewell(&self, why: &[u8], control: &mut Control<'_>) {
        if let Stage::Registered(seat) = &self.stage {
            seat.leave(why);
        }
        let why = [b"Closing Link: ", self.host.as_bytes(), b" (", why, b")"].concat();
        control.push_with(|out| message::write(out, format_args!("ERROR"), Some(&why)));
        control.close_when_done();
    }

    fn obey(&mut self, message: &Message<'_>, control: &mut Control<'_>) {
        let Stage::Registered(seat) = &self.stage else { return self.register(message, control) };
        let then = {
            // The network is locked before the output is borrowed: what others have pushed to this client until now
            // comes first, and they cannot push more until the reply is written.
            let mut network = self.network.lock();
            control.push_with(|out| commands::run(&mut network, seat.id(), message, out))
        };
        match then {
            None | Some(Then::Go) => {}
            Some(Then::Quit(why)) => self.bid_farewell(&why, control),
            Some(Then::List(mut list)) => {
                let network = self.network.clone();
                let pieces = iter::from_fn(move || list.piece(&network));
                control.push_with_producer(producer::iter(pieces));
            }
        }
    }

    /// A line of a client that has not registered yet.
    fn register(&mut self, message: &Message<'_>, control: &mut Control<'_>) {
        let Stage::Registering(known) = &mut self.stage else { return };
        let quits =
            control.push_with(|out| known.take(message, &mut Reply { out, nick: known.nick() }));
        if quits == Some(true) {
            return self.bid_farewell(b"Client Quit", control);
        }
        let Registration { nick: Some(nick), user: Some((user, real)), negotiating: false } = known
        else {
            return;
        };
        let handle = control.handle();
        // The network is locked first, as in `obey`: what others send to this client from now on comes behind the
        // welcome.
        let mut network = self.network.lock();
        let seat = network.enter(nick, user, self.host.clone(), real.clone(), handle);
        control.push_with(|out| match &seat {
            Some(seat) => {
                Reply { out, nick: nick.as_str().into() }.welcome(&network, seat.id());
            }
            // The nickname belongs to another client, so it cannot be used here.
            None => Reply { out, nick: "*".into() }.about(
                "433",
                nick.as_bytes(),
                "Nickname is already in use",
            ),
        });
        drop(network);
        match seat {
            Some(seat) => {
                self.stage = Stage::Registered(seat);
                control.set_timeouts(timeouts());
            }
            None => known.nick = None,
        }
    }
}

impl Registration {
    /// The nickname; `*` before it is known.
    fn nick(&self) -> Arc<str> {
        self.nick.as_deref().unwrap_or("*").into()
    }

    /// Takes what a line says for the registration. Returns whether the client leaves.
    fn take(&mut self, message: &Message<'_>, reply: &mut Reply<'_>) -> bool {
        match message.name() {
            b"CAP" => {
                let subcommand = message.param(0).unwrap_or_default().to_ascii_uppercase();
                self.negotiating = match subcommand.as_slice() {
                    b"LS" | b"REQ" => true,
                    b"END" => false,
                    _ => self.negotiating,
                };
                reply.capabilities(message);
            }
            b"NICK" => match message.param(0).map(|wanted| (wanted, message::nick(wanted))) {
                Some((_, Some(nick))) => self.nick = Some(nick.to_owned()),
                Some((wanted, None)) => reply.about("432", wanted, "Erroneous nickname"),
                None => reply.text("431", format_args!(""), "No nickname given"),
            },
            b"USER" => match (message.param(0), message.params().get(3)) {
                (Some(name), Some(real)) => {
                    self.user = Some((message::user(name), Bytes::copy_from_slice(real)));
                }
                _ => reply.too_few(b"USER"),
            },
            b"PING" => reply.pong(message),
            // There are no passwords, so PASS is ignored.
            b"PONG" | b"PASS" => {}
            b"QUIT" => return true,
            _ => reply.text("451", format_args!(""), "You have not registered"),
        }
        false
    }
}

impl Handler for Session {
    type Error = Infallible;

    /// A line, or as much as the limit allows of one that is too long.
    fn collect_incoming_data(
        &mut self,
        data: Chunk<'_>,
        _: &mut Control<'_>,
    ) -> Result<(), Infallible> {
        self.line.clear();
        self.line.extend_from_slice(&data);
        Ok(())
    }

    async fn found_terminator(&mut self, control: &mut Control<'_>) -> Result<(), Infallible> {
        let line = mem::take(&mut self.line);
        // Empty lines count too, since they also take time.
        if self.keep_pace(control).await {
            if let Some(message) = Message::parse(&line) {
                self.obey(&message, control);
            }
        }
        // The buffer is kept for the next line.
        self.line = line;
        Ok(())
    }

    async fn overlong(&mut self, control: &mut Control<'_>) -> Result<(), Infallible> {
        if self.keep_pace(control).await {
            let nick = self.nick();
            control.push(format!(":{SERVER} 417 {nick} :Input line was too long\r\n"));
        }
        Ok(())
    }

    fn quiet(&mut self, control: &mut Control<'_>) -> Result<(), Infallible> {
        control.push(format!("PING :{SERVER}\r\n"));
        Ok(())
    }

    fn timed_out(&mut self, timeout: Timeout, control: &mut Control<'_>) -> Result<(), Infallible> {
        let why = timeout_text(timeout);
        self.bid_farewell(why.as_bytes(), control);
        Ok(())
    }

    async fn shutdown(&mut self, control: &mut Control<'_>) -> Result<(), Infallible> {
        self.network.close();
        self.bid_farewell(b"Server shutting down", control);
        Ok(())
    }

    fn closed(&mut self, reason: &CloseReason<Infallible>) {
        if let Stage::Registered(seat) = &self.stage {
            match reason {
                CloseReason::Timeout(timeout) => seat.leave(timeout_text(*timeout).as_bytes()),
                CloseReason::Io(error) => {
                    seat.leave(format!("Read error: {}", error.kind()).as_bytes())
                }
                _ => seat.leave(b"Remote host closed the connection"),
            }
        }
    }
}

fn timeout_text(timeout: Timeout) -> String {
    match timeout {
        Timeout::Idle => format!("Ping timeout: {} seconds", IDLE.as_secs()),
        Timeout::Session => "Registration timed out".to_owned(),
        timeout => timeout.to_string(),
    }
}

/// A bucket of tokens, one for each line. What is stored is when it would be full again.
#[derive(Debug)]
struct Pace {
    full: Instant,
}

impl Pace {
    fn new() -> Self {
        Pace { full: Instant::now() }
    }

    /// Takes a token. If there is none, returns how long it takes until there is.
    fn take(&mut self) -> Option<Duration> {
        let now = Instant::now();
        self.full = self.full.max(now) + INTERVAL;
        let wait = self.full.duration_since(now).saturating_sub(INTERVAL * BURST);
        (!wait.is_zero()).then_some(wait)
    }
}
