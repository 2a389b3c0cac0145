//! The server's side of the PROXY protocol, versions 1 and 2.
//!
//! A proxy such as HAProxy connects in the place of its clients, so that a server sees one peer only. With this
//! protocol the proxy says for which client it connects, in a head before everything else:
//!
//! ```text
//! version 1   PROXY TCP4 192.0.2.1 192.0.2.9 56324 443 CR LF           a line of at most 107 bytes
//! version 2   12 bytes that begin no other protocol | 4 bytes: what, and how much follows | that much
//! ```
//!
//! [`accept`] reads the head, and gives back the stream with what has been read behind it, for
//! [`ChannelBuilder::build_with_input`](asynchat::ChannelBuilder::build_with_input). It is meant for
//! [`Connection::handshake`](asynchat::Connection::handshake), which has the deadline: [`DEADLINE`] is a good
//! one.
//!
//! A head is never optional, and is believed: whoever can connect can claim to be any client. So a server expects one
//! only when it is told to (`--proxy-protocol`), and then only its proxies should be able to reach it.
//!
//! Anything else is refused, and the connection ends without an answer: bytes that are no head, at the first that
//! cannot be of one; a head longer than its limit; invalid addresses; datagrams. Addresses of Unix sockets, and what
//! version 2 may have behind the addresses (TLVs), with its checksum, are read but not used.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str;
use std::time::Duration;

use asynchat::{Channel, End, Limit, Timeouts};
use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};

/// How long the head may take. A proxy sends it at once.
pub(crate) const DEADLINE: Duration = Duration::from_secs(5);
/// The most bytes of a head of version 2 behind its first 16. There is room for the name in a client's certificate.
pub(crate) const MAX_LENGTH: u16 = 4096;

/// The first bytes of a head of version 2.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// The first bytes of a head of version 1. No such head is shorter than the signature of version 2.
const PROXY: &[u8] = b"PROXY ";
/// The most bytes of a head of version 1, without its line end.
const MAX_LINE: usize = 105;

/// A connection whose head has been read.
#[derive(Debug)]
pub(crate) struct Accepted<S> {
    pub(crate) io: S,
    /// What has been read behind the head.
    pub(crate) input: Bytes,
    /// What the head says.
    pub(crate) origin: Origin,
}

/// Who connects to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The proxy itself, which checks whether the server is up, or a client whose address the proxy does not tell
    /// (`LOCAL`, `UNKNOWN`, Unix sockets): the addresses are those of the connection.
    Unknown,
    /// A client of the proxy, and the address that it has connected to.
    Client { source: SocketAddr, destination: SocketAddr },
}

/// Reads the head of a connection, if the proxies of this server send one.
///
/// # Errors
///
/// `InvalidData` if there is none, or it is not right; `UnexpectedEof` if the connection ends before; that of
/// the stream.
///
/// # Cancellation safety
///
/// If the future is dropped, so is the stream.
pub(crate) async fn accept<S>(io: S, expected: bool) -> io::Result<Accepted<S>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    if !expected {
        return Ok(Accepted { io, input: Bytes::new(), origin: Origin::Unknown });
    }
    // There is nothing to write, and the caller has the deadline, so the channel needs no timeouts.
    let first = SIGNATURE.len() as u64;
    let mut channel = Channel::builder(first).timeouts(Timeouts::NONE).build(io);
    let origin = read_head(&mut channel).await?;
    let (io, input) = channel.into_parts();
    Ok(Accepted { io, input, origin })
}

async fn read_head<S>(channel: &mut Channel<S>) -> io::Result<Origin>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    // This is read in pieces, so that what cannot be a head is refused at its first wrong byte.
    let mut first = Vec::with_capacity(MAX_LINE);
    while first.len() < SIGNATURE.len() {
        let Some((step, _)) = channel.step().await? else { return Err(cut_short()) };
        first.extend_from_slice(&step.payload);
        let begins = |with: &[u8]| first.iter().zip(with).all(|(is, should)| is == should);
        if !begins(SIGNATURE) && !begins(PROXY) {
            return Err(bad("no head"));
        }
    }
    channel.set_whole_frames(true);
    if first == SIGNATURE {
        return read_version_2(channel).await;
    }
    if first.contains(&b'\r') {
        return Err(bad("a line that ends too early"));
    }
    channel.set_terminator(b"\r\n");
    channel.set_limit(Limit::Fail((MAX_LINE - first.len()) as u64));
    first.extend(frame(channel).await?);
    version_1(&first).ok_or_else(|| bad("a line that is none of version 1"))
}

/// The next frame, whole.
async fn frame<S>(channel: &mut Channel<S>) -> io::Result<Vec<u8>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    match channel.step().await? {
        Some((step, _)) if step.end == Some(End::Terminator) => Ok(step.payload.to_vec()),
        Some((step, _)) if step.end == Some(End::Overlong) => Err(bad("a line that is too long")),
        _ => Err(cut_short()),
    }
}

/// `PROXY TCP4 source destination port port`, and nothing else: a head with any mistake is refused.
fn version_1(line: &[u8]) -> Option<Origin> {
    let rest = str::from_utf8(line).ok()?.strip_prefix("PROXY ")?;
    // The protocol says that whatever is behind `UNKNOWN` is to be ignored.
    if rest == "UNKNOWN" || rest.starts_with("UNKNOWN ") {
        return Some(Origin::Unknown);
    }
    let words: Vec<&str> = rest.split(' ').collect();
    let [family, source, destination, source_port, destination_port] = words[..] else {
        return None;
    };
    let address = |word: &str| -> Option<IpAddr> {
        match family {
            "TCP4" => Some(word.parse::<Ipv4Addr>().ok()?.into()),
            "TCP6" => Some(word.parse::<Ipv6Addr>().ok()?.into()),
            _ => None,
        }
    };
    let port = |word: &str| -> Option<u16> {
        let digits = word.bytes().all(|byte| byte.is_ascii_digit());
        let plain = digits && (word == "0" || !word.starts_with('0'));
        word.parse().ok().filter(|_| plain)
    };
    Some(Origin::Client {
        source: SocketAddr::new(address(source)?, port(source_port)?),
        destination: SocketAddr::new(address(destination)?, port(destination_port)?),
    })
}

async fn read_version_2<S>(channel: &mut Channel<S>) -> io::Result<Origin>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    channel.set_terminator(4);
    let fixed = frame(channel).await?;
    let [command, family, high, low] = fixed[..] else { return Err(cut_short()) };
    let length = u16::from_be_bytes([high, low]);
    // The rest of the head is read only if its length is allowed.
    if length > MAX_LENGTH {
        return Err(bad("a head that is too long"));
    }
    let wanted = match (command, family) {
        (0x20, _) => None,
        // The address family is unspecified, or that of Unix sockets.
        (0x21, 0x00 | 0x31) => None,
        (0x21, 0x11) => Some(Family::V4),
        (0x21, 0x21) => Some(Family::V6),
        (0x20..=0x2f, _) => return Err(bad("a command or a family that is none")),
        _ => return Err(bad("another version")),
    };
    let taken = wanted.as_ref().map_or(0, Family::length);
    let rest = length.checked_sub(taken).ok_or_else(|| bad("addresses that are too short"))?;
    channel.set_terminator(u64::from(taken));
    let addresses = frame(channel).await?;
    // What is behind the addresses is dropped as it comes.
    channel.set_whole_frames(false);
    channel.set_terminator(u64::from(rest));
    loop {
        match channel.step().await? {
            Some((step, _)) if step.end == Some(End::Terminator) => break,
            Some((step, _)) if step.end.is_none() => {}
            _ => return Err(cut_short()),
        }
    }
    match wanted {
        Some(family) => family.origin(&addresses).ok_or_else(cut_short),
        None => Ok(Origin::Unknown),
    }
}

/// How addresses are written in version 2: both, and then both ports, in network order.
#[derive(Clone, Copy, Debug)]
enum Family {
    V4,
    V6,
}

impl Family {
    /// The length of the addresses and ports, in bytes.
    fn length(&self) -> u16 {
        match self {
            Family::V4 => 12,
            Family::V6 => 36,
        }
    }

    fn origin(self, bytes: &[u8]) -> Option<Origin> {
        let (addresses, ports) = bytes.split_at_checked(bytes.len().checked_sub(4)?)?;
        let (source, destination) = addresses.split_at(addresses.len() / 2);
        let address = |bytes: &[u8]| -> Option<IpAddr> {
            match self {
                Family::V4 => Some(<[u8; 4]>::try_from(bytes).ok()?.into()),
                Family::V6 => Some(<[u8; 16]>::try_from(bytes).ok()?.into()),
            }
        };
        let [a, b, c, d] = *ports else { return None };
        Some(Origin::Client {
            source: SocketAddr::new(address(source)?, u16::from_be_bytes([a, b])),
            destination: SocketAddr::new(address(destination)?, u16::from_be_bytes([c, d])),
        })
    }
}

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("PROXY protocol: {what}"))
}

fn cut_short() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "PROXY protocol: the head ends too early")
}
