//! What the server says: heads of responses, and refusals.

use std::fmt::Write as _;
use std::time::SystemTime;

use crate::head::Request;

/// A request that is answered with a status and a sentence, after which the connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) status: u16,
    pub(crate) reason: &'static str,
}

impl Refusal {
    pub(crate) const fn new(status: u16, reason: &'static str) -> Self {
        Refusal { status, reason }
    }
}

/// How a response's body is framed.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Length {
    Known(u64),
    Chunked,
    /// The body ends with the connection.
    Connection,
}

/// The head of a response.
#[derive(Debug)]
pub(crate) struct Head {
    text: String,
    length: Length,
}

impl Head {
    /// Begins a head with the fields every response has.
    pub(crate) fn new(status: u16, content_type: &str, length: Length) -> Self {
        let mut head = Head { text: format!("HTTP/1.1 {status} {}\r\n", phrase(status)), length };
        head.field("Date", httpdate::HttpDate::from(SystemTime::now()));
        head.field("Content-Type", content_type);
        head.field("X-Content-Type-Options", "nosniff");
        match length {
            Length::Known(length) => head.field("Content-Length", length),
            Length::Chunked => head.field("Transfer-Encoding", "chunked"),
            Length::Connection => {}
        }
        head
    }

    /// Adds a field. Its value must come from the server, not from the peer.
    pub(crate) fn field(&mut self, name: &str, value: impl std::fmt::Display) {
        // Writing to a String does not fail.
        let _ = write!(self.text, "{name}: {value}\r\n");
    }

    /// Whether another response may follow.
    pub(crate) fn tells_its_end(&self) -> bool {
        !matches!(self.length, Length::Connection)
    }

    /// Says whether the connection goes on, where the request would not know.
    pub(crate) fn connection(&mut self, request: &Request, keep_alive: bool) {
        match (keep_alive, request.is_1_1) {
            (true, true) => {}
            (true, false) => self.field("Connection", "keep-alive"),
            (false, _) => self.field("Connection", "close"),
        }
    }

    /// The bytes to send.
    pub(crate) fn finish(mut self) -> String {
        self.text.push_str("\r\n");
        self.text
    }
}

fn phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        301 => "Moved Permanently",
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        413 => "Content Too Large",
        417 => "Expectation Failed",
        431 => "Request Header Fields Too Large",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        _ => "Internal Server Error",
    }
}
