//! The attacks, each of which is a function, and the table of them with their bounds.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use tokio::net::TcpSocket;

use super::bystander::ping;
use super::server::{BLOCK, FRAME, LINE, MARK, NEEDLE, Process, SESSION, STALL};
use super::{Bound, Done, Time, until};

const MIB: usize = 1 << 20;
/// The memory that any attack may take, for a buffer to read into and what the allocator keeps.
const LITTLE: usize = 4 * MIB;
/// The memory of an idle connection: its task, its channel and what that holds.
const IDLE: usize = 8 << 10;
/// The memory of a connection whose peer does not read: the queue up to its mark, a block beyond it, and the buffer
/// that they are gathered in to be written.
const STUCK: usize = 2 * (MARK + BLOCK);

pub(super) struct Attack {
    pub name: &'static str,
    /// How many file descriptors the server may have, if the attack needs that to be few.
    pub files: Option<u64>,
    pub bound: Bound,
    /// Attacks this server; with `true`, with less load, for a short run.
    pub run: fn(&Process, bool) -> io::Result<Done>,
}

const fn flood(
    name: &'static str,
    times: f64,
    run: fn(&Process, bool) -> io::Result<Done>,
) -> Attack {
    Attack { name, files: None, bound: Bound { memory: LITTLE, time: Time::PerByte(times) }, run }
}

const fn holding(
    name: &'static str,
    connections: usize,
    memory: usize,
    time: Duration,
    run: fn(&Process, bool) -> io::Result<Done>,
) -> Attack {
    let memory = LITTLE + connections * memory;
    Attack { name, files: None, bound: Bound { memory, time: Time::Total(time) }, run }
}

const DRIBBLERS: usize = 500;
const STUCK_PEERS: usize = 100;
const CONNECTIONS: usize = 10_000;
/// How many connections are opened before one of them is dropped.
const AT_ONCE: usize = 100;
const FILES: u64 = 64;

/// The honest lines come first, since the CPU time of the others is compared to theirs.
pub(super) const ALL: &[Attack] = &[
    flood("none: lines of 64 bytes", 1.0, |to, short| {
        send(to, b"", &[&[b'x'; 63][..], b"\n"].concat(), size(256, short))
    }),
    // Each byte or two is a frame, and so a call of the handler.
    flood("empty frames", 120.0, |to, short| send(to, b"", b"\n", size(128, short))),
    flood("frames of a byte", 60.0, |to, short| send(to, b"", b"x\n", size(128, short))),
    flood("over-long frames", 2.0, |to, short| {
        send(to, b"", &[&vec![b'x'; 8 * LINE as usize][..], b"\n"].concat(), size(1024, short))
    }),
    flood("one frame without an end", 2.0, |to, short| {
        send(to, b"", &[b'x'; 4096], size(1024, short))
    }),
    flood("CR for ever, under CRLF", 4.0, |to, short| {
        send(to, b"aim crlf\n", &[b'\r'; 4096], size(1024, short))
    }),
    flood("63 of 64 bytes of a delimiter, for ever", 8.0, |to, short| {
        send(to, b"aim\n", &[b'a'; 4096], size(1024, short))
    }),
    flood("63 of 64 bytes of a delimiter, again and again", 8.0, |to, short| {
        let piece = [&[b'a'; NEEDLE - 1][..], b"c"].concat();
        send(to, b"aim\n", &piece, size(1024, short))
    }),
    Attack {
        name: "bytes that come alone",
        files: None,
        // Each byte costs a wake-up and a read.
        bound: Bound { memory: LITTLE, time: Time::Each(Duration::from_micros(50)) },
        run: bytes_alone,
    },
    holding("slow-loris by bytes", DRIBBLERS, IDLE, Duration::from_secs(2), dribble),
    holding("slow-loris by windows", STUCK_PEERS, STUCK, Duration::from_secs(4), small_windows),
    holding("a peer that never reads", STUCK_PEERS, STUCK, Duration::from_secs(2), never_read),
    Attack {
        name: "connections opened and dropped",
        files: None,
        bound: Bound {
            memory: LITTLE + 2 * AT_ONCE * IDLE,
            time: Time::Each(Duration::from_micros(400)),
        },
        run: open_and_drop,
    },
    Attack {
        name: "no file descriptors left",
        files: Some(FILES),
        bound: Bound {
            memory: LITTLE + FILES as usize * IDLE,
            time: Time::Total(Duration::from_millis(500)),
        },
        run: no_descriptors,
    },
];

const fn size(mib: usize, short: bool) -> usize {
    if short { mib * MIB / 16 } else { mib * MIB }
}

/// Sends `first`, and then `bytes` bytes of the repeated pattern. Then it waits until the server has read them all, has
/// seen the end of the input and closes.
fn send(to: &Process, first: &[u8], pattern: &[u8], bytes: usize) -> io::Result<Done> {
    let block = pattern.repeat((256 << 10) / pattern.len());
    let mut stream = TcpStream::connect(&to.address)?;
    stream.write_all(first)?;
    let mut sent = 0;
    while sent < bytes {
        match stream.write_all(&block) {
            Ok(()) => sent += block.len(),
            // The server cuts off a peer whose frame lasts too long. It connects again and goes on.
            Err(error) if is_cut_off(&error) => {
                stream = TcpStream::connect(&to.address)?;
                stream.write_all(first)?;
            }
            Err(error) => return Err(error),
        }
    }
    stream.shutdown(std::net::Shutdown::Write)?;
    match stream.read(&mut [0]) {
        Ok(0) => {}
        Ok(_) => return Err(io::Error::other("it answered")),
        Err(error) if is_cut_off(&error) => {}
        Err(error) => return Err(error),
    }
    Ok(Done { count: sent as u64, of: "bytes", note: String::new() })
}

fn is_cut_off(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe)
}

fn bytes_alone(to: &Process, short: bool) -> io::Result<Done> {
    let mut stream = TcpStream::connect(&to.address)?;
    stream.set_nodelay(true)?;
    let count = if short { 20_000 } else { 200_000 };
    for n in 0..count {
        // Leave the server time to read this byte before the next one is sent.
        stream.write_all(if n % 64 == 63 { b"\n" } else { b"x" })?;
        std::hint::spin_loop();
    }
    stream.write_all(b"\n")?;
    ping(&mut stream).map(|()| Done { count, of: "bytes", note: String::new() })
}

fn connect_all(to: &str, count: usize) -> io::Result<Vec<TcpStream>> {
    (0..count)
        .map(|_| {
            let stream = TcpStream::connect(to)?;
            stream.set_nonblocking(true)?;
            Ok(stream)
        })
        .collect()
}

/// Each connection sends a byte of a line now and then.
fn dribble(to: &Process, _: bool) -> io::Result<Done> {
    let streams = connect_all(&to.address, DRIBBLERS)?;
    hold(to, streams, FRAME * 3, |stream| stream.write(b"x").map(drop))
}

/// Does something with each connection five times a second, until the server has closed all of them. Only the server's
/// side counts: the peer may still read for a long time what was written to it.
fn hold(
    server: &Process,
    mut streams: Vec<TcpStream>,
    limit: Duration,
    mut act: impl FnMut(&mut TcpStream) -> io::Result<()>,
) -> io::Result<Done> {
    let took = until(limit, || {
        for stream in &mut streams {
            // This fails when the connection is closed, or when nothing can be read or written now.
            let _ = act(stream);
        }
        std::thread::sleep(Duration::from_millis(200));
        // What remains are the bystander's socket, one that it is closing, and those of the server itself.
        Ok(server.sockets()? < 5)
    })?;
    let note = format!("let go within {:.1} s", took.as_secs_f64());
    Ok(Done { count: streams.len() as u64, of: "connections", note })
}

/// Asks for an answer without end, with the smallest receive buffer that there is.
fn producing(to: &str) -> io::Result<TcpStream> {
    let address: SocketAddr = to.parse().map_err(io::Error::other)?;
    let runtime = asynchat_benches::server::runtime();
    let mut stream = runtime.block_on(async {
        let socket = TcpSocket::new_v4()?;
        socket.set_recv_buffer_size(1)?;
        socket.connect(address).await?.into_std()
    })?;
    stream.set_nonblocking(true)?;
    stream.write_all(b"produce\n")?;
    Ok(stream)
}

/// Each connection reads its answer in small pieces. Whether the server can write in between depends on the kernel. If
/// it can, the deadline for the session closes the connection, and if not, the one for a stall.
fn small_windows(to: &Process, _: bool) -> io::Result<Done> {
    let streams = (0..STUCK_PEERS).map(|_| producing(&to.address)).collect::<io::Result<_>>()?;
    hold(to, streams, SESSION * 3, |stream| stream.read(&mut [0; 1000]).map(drop))
}

fn never_read(to: &Process, _: bool) -> io::Result<Done> {
    let streams = (0..STUCK_PEERS).map(|_| producing(&to.address)).collect::<io::Result<_>>()?;
    hold(to, streams, STALL * 4, |_| Ok(()))
}

/// Opens connections and drops them after nothing, half a line or a question was sent. They are closed or reset.
fn open_and_drop(to: &Process, short: bool) -> io::Result<Done> {
    let count = if short { CONNECTIONS / 10 } else { CONNECTIONS };
    let mut open = std::collections::VecDeque::new();
    for n in 0..count {
        let mut stream = TcpStream::connect(&to.address)?;
        match n % 4 {
            0 => {}
            1 => stream.write_all(b"half a li")?,
            // A connection that is dropped with an unread answer is reset.
            _ => stream.write_all(b"ping\n")?,
        }
        open.push_back(stream);
        if open.len() > AT_ONCE {
            open.pop_front();
        }
    }
    Ok(Done { count: count as u64, of: "connections", note: String::new() })
}

/// Opens more connections than the server has descriptors. Those that were accepted go on being served, the rest wait,
/// and are served when the first are closed.
fn no_descriptors(to: &Process, short: bool) -> io::Result<Done> {
    let mut streams: Vec<_> =
        (0..2 * FILES).map(|_| TcpStream::connect(&to.address)).collect::<io::Result<_>>()?;
    std::thread::sleep(Duration::from_secs(if short { 1 } else { 5 }));
    let mut last = streams.pop().expect("there are many");
    drop(streams);
    let begun = Instant::now();
    ping(&mut last)?;
    let note = format!("accepted {} ms after there were some again", begun.elapsed().as_millis());
    Ok(Done { count: 2 * FILES, of: "connections", note })
}
