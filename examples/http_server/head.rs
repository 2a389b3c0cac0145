//! The head of a request: from its bytes to a [`Request`], or to the [`Refusal`] that answers it.
//!
//! Splitting the head into lines and fields is `httparse`'s work. What is decided here is what the
//! fields mean for this connection, above all where the body ends, and everything is refused that
//! some other server, or a proxy in front of this one, could read in another way:
//!
//! | in the head | answer |
//! |---|---|
//! | a bare LF or CR, a folded line, a space before a colon, a NUL | 400 |
//! | `Content-Length` twice, even if equal, or anything but digits | 400 |
//! | `Content-Length` and `Transfer-Encoding` | 400 |
//! | `Transfer-Encoding` twice, or in HTTP/1.0 | 400 |
//! | any transfer coding but `chunked` | 501 |
//! | no `Host` in HTTP/1.1, or more than one, or one that is no host | 400 |
//! | more fields than [`MAX_FIELDS`] | 431 |

use std::mem::MaybeUninit;

use crate::response::Refusal;

/// The fields one head may have.
pub(crate) const MAX_FIELDS: usize = 100;

/// What the server needs to know of a request before its body.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Request<'a> {
    pub(crate) method: Method,
    /// The path of the target, still percent-encoded, without a query. It begins with `/`.
    pub(crate) path: &'a str,
    /// What follows the path's `?`.
    pub(crate) query: &'a str,
    /// HTTP/1.1 or later, not HTTP/1.0.
    pub(crate) is_1_1: bool,
    pub(crate) body: Framing,
    /// Whether the client would like to go on using the connection.
    pub(crate) keep_alive: bool,
    /// Whether the client waits for `100 Continue` before it sends the body.
    pub(crate) expects_continue: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Method {
    Get,
    Head,
    Post,
    Other,
}

/// How the end of a body is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// There is no body.
    Empty,
    /// The number of its bytes, at least one.
    Length(u64),
    /// Chunks that each state their length.
    Chunked,
}

/// The bytes of a head while they arrive.
#[derive(Debug, Default)]
pub(crate) struct Head {
    bytes: Vec<u8>,
}

impl Head {
    /// Adds some of the head, refusing a bare LF as soon as it comes: a client that ends its lines
    /// with LF alone would wait for an answer, and the server for a CRLF, until a timeout.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        let before = self.bytes.len();
        self.bytes.reserve(bytes.len() + END.len());
        self.bytes.extend_from_slice(bytes);
        // A CR may have come with the bytes before.
        let new = &self.bytes[before.saturating_sub(1)..];
        if self.bytes.starts_with(b"\n") || has_bare_lf(new) {
            return Err(Refusal::new(400, "a line ends with LF alone"));
        }
        Ok(())
    }

    /// Whether any of it has come.
    pub(crate) fn has_begun(&self) -> bool {
        !self.bytes.is_empty()
    }

    /// Parses the head, once its terminator has been found.
    pub(crate) fn finish(&mut self) -> Result<Request<'_>, Refusal> {
        self.bytes.extend_from_slice(END);
        parse(&self.bytes)
    }

    /// Makes room for the next one.
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        // A connection that is idle now does not keep the room that a long head took.
        if self.bytes.capacity() > KEPT {
            self.bytes = Vec::new();
        }
    }
}

/// What a head ends with, which is not handed over.
const END: &[u8] = b"\r\n\r\n";

/// The room, in bytes, that is kept for the next head.
const KEPT: usize = 128;

/// Whether an LF comes behind anything but a CR.
fn has_bare_lf(bytes: &[u8]) -> bool {
    // It does not stop at the first one, which lets the compiler look at many bytes at a time.
    let is_bare = |pair: &[u8]| (pair[0] != b'\r') & (pair[1] == b'\n');
    bytes.windows(2).fold(false, |found, pair| found | is_bare(pair))
}

/// Parses a head that ends with its empty line.
fn parse(bytes: &[u8]) -> Result<Request<'_>, Refusal> {
    let mut fields = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut parsed = httparse::Request::new(&mut []);
    match parsed.parse_with_uninit_headers(bytes, &mut fields) {
        Ok(httparse::Status::Complete(length)) if length == bytes.len() => {}
        Ok(_) => return Err(Refusal::new(400, "this is not a request")),
        Err(httparse::Error::TooManyHeaders) => return Err(Refusal::new(431, "too many fields")),
        Err(httparse::Error::Version) if is_other_version(bytes) => {
            return Err(Refusal::new(505, "HTTP/1.1 is spoken here"));
        }
        Err(_) => return Err(Refusal::new(400, "malformed request")),
    }
    let (Some(method), Some(target), Some(minor)) = (parsed.method, parsed.path, parsed.version)
    else {
        return Err(Refusal::new(400, "malformed request"));
    };
    let is_1_1 = minor >= 1;

    let mut hosts = 0;
    let mut length = None;
    let mut chunked = false;
    let mut close = false;
    let mut keep_alive = false;
    let mut expects_continue = false;
    for field in parsed.headers.iter() {
        let (name, value) = (field.name, field.value);
        if name.eq_ignore_ascii_case("host") {
            hosts += 1;
            if !is_host(value) {
                return Err(Refusal::new(400, "malformed Host"));
            }
        } else if name.eq_ignore_ascii_case("content-length") {
            if length.replace(parse_length(value)?).is_some() {
                return Err(Refusal::new(400, "more than one Content-Length"));
            }
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            if chunked {
                return Err(Refusal::new(400, "more than one Transfer-Encoding"));
            }
            if !value.eq_ignore_ascii_case(b"chunked") {
                return Err(Refusal::new(501, "the only transfer coding is chunked"));
            }
            chunked = true;
        } else if name.eq_ignore_ascii_case("connection") {
            for option in value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii) {
                close |= option.eq_ignore_ascii_case(b"close");
                keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
            }
        } else if name.eq_ignore_ascii_case("expect") && is_1_1 {
            if !value.eq_ignore_ascii_case(b"100-continue") {
                return Err(Refusal::new(417, "the only expectation is 100-continue"));
            }
            expects_continue = true;
        }
    }
    if hosts > 1 || (hosts == 0 && is_1_1) {
        return Err(Refusal::new(400, "one Host is needed"));
    }
    let body = match (length, chunked) {
        (Some(_), true) => {
            return Err(Refusal::new(400, "Content-Length and Transfer-Encoding"));
        }
        (None, true) if !is_1_1 => {
            return Err(Refusal::new(400, "Transfer-Encoding in HTTP/1.0"));
        }
        (None, true) => Framing::Chunked,
        (None | Some(0), false) => Framing::Empty,
        (Some(length), false) => Framing::Length(length),
    };
    let (path, query) = parse_target(target)?;
    Ok(Request {
        method: match method {
            "GET" => Method::Get,
            "HEAD" => Method::Head,
            "POST" => Method::Post,
            _ => Method::Other,
        },
        path,
        query,
        is_1_1,
        body,
        keep_alive: !close && (is_1_1 || keep_alive),
        expects_continue: expects_continue && body != Framing::Empty,
    })
}

/// Whether the first line ends with a version that exists, or may one day.
fn is_other_version(bytes: &[u8]) -> bool {
    let mut lines = bytes.split(|&byte| byte == b'\r');
    let line = lines.next().unwrap_or_default();
    match line.rsplit(|&byte| byte == b' ').next() {
        Some([b'H', b'T', b'T', b'P', b'/', major, b'.', minor]) => {
            *major != b'1' && major.is_ascii_digit() && minor.is_ascii_digit()
        }
        _ => false,
    }
}

/// Reads a `Content-Length`: digits and nothing else, no sign, no list, no white space.
fn parse_length(value: &[u8]) -> Result<u64, Refusal> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(Refusal::new(400, "malformed Content-Length"));
    }
    value
        .iter()
        .try_fold(0u64, |sum, digit| sum.checked_mul(10)?.checked_add(u64::from(digit - b'0')))
        .ok_or(Refusal::new(413, "the body is too large"))
}

/// Whether `value` is made of what a host and a port are made of. It may be empty.
fn is_host(value: &[u8]) -> bool {
    value.iter().all(|&byte| HOST[usize::from(byte)])
}

/// The bytes of hosts and ports.
const HOST: [bool; 256] = {
    let bytes =
        b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~%!$&'()*+,;=:[]";
    let mut table = [false; 256];
    let mut n = 0;
    while n < bytes.len() {
        table[bytes[n] as usize] = true;
        n += 1;
    }
    table
};

/// The path and the query of a request's target, given as `/path?query` or as `http://host/path?query`.
fn parse_target(target: &str) -> Result<(&str, &str), Refusal> {
    let malformed = Refusal::new(400, "malformed target");
    if !target.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#') {
        return Err(malformed);
    }
    let origin = match target.get(..7) {
        Some(scheme) if scheme.eq_ignore_ascii_case("http://") => {
            let rest = &target[7..];
            let (host, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
            if host.is_empty() || !is_host(host.as_bytes()) {
                return Err(malformed);
            }
            path
        }
        _ if target.starts_with('/') => target,
        _ => return Err(malformed),
    };
    let (path, query) = origin.split_once('?').unwrap_or((origin, ""));
    Ok((if path.is_empty() { "/" } else { path }, query))
}
