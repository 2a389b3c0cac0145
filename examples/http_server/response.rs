//! What the server says: heads of responses, and refusals.

use std::fmt::Write as _;
use std::time::SystemTime;

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
}

/// The head of a response.
#[derive(Debug)]
pub(crate) struct Head {
    text: String,
}

impl Head {
    /// Begins a head with the fields every response has.
    pub(crate) fn new(status: u16, content_type: &str, length: Length) -> Self {
        let mut head = Head { text: format!("HTTP/1.1 {status} {}\r\n", phrase(status)) };
        head.field("Date", httpdate::HttpDate::from(SystemTime::now()));
        head.field("Content-Type", content_type);
        head.field("X-Content-Type-Options", "nosniff");
        match length {
            Length::Known(length) => head.field("Content-Length", length),
            Length::Chunked => head.field("Transfer-Encoding", "chunked"),
        }
        head
    }

    /// Adds a field. Its value must come from the server, not from the peer.
    pub(crate) fn field(&mut self, name: &str, value: impl std::fmt::Display) {
        // Writing to a String does not fail.
        let _ = write!(self.text, "{name}: {value}\r\n");
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
