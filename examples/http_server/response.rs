//! What the server says: heads of responses, and refusals.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use httpdate::HttpDate;

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
        let mut head = Head { text: String::with_capacity(256), length };
        head.text.push_str("HTTP/1.1 ");
        head.text.push_str(phrase(status));
        head.text.push_str("\r\nDate: ");
        push_date(&mut head.text);
        head.text.push_str("\r\n");
        head.field("Content-Type", content_type);
        head.field("X-Content-Type-Options", "nosniff");
        match length {
            Length::Known(length) => {
                // Writing to a String does not fail.
                let _ = write!(head.text, "Content-Length: {length}\r\n");
            }
            Length::Chunked => head.field("Transfer-Encoding", "chunked"),
            Length::Connection => {}
        }
        head
    }

    /// Adds a field. Its value must come from the server, not from the peer.
    pub(crate) fn field(&mut self, name: &str, value: &str) {
        for part in [name, ": ", value, "\r\n"] {
            self.text.push_str(part);
        }
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

/// Appends the date, which is put into words once a second.
fn push_date(text: &mut String) {
    thread_local! {
        static WORDS: RefCell<(u64, String)> = const { RefCell::new((0, String::new())) };
    }
    let now = SystemTime::now();
    let second = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    WORDS.with_borrow_mut(|(of, words)| {
        if *of != second || words.is_empty() {
            *words = HttpDate::from(now).to_string();
            *of = second;
        }
        text.push_str(words);
    });
}

/// The status as it stands in the first line.
fn phrase(status: u16) -> &'static str {
    match status {
        200 => "200 OK",
        301 => "301 Moved Permanently",
        400 => "400 Bad Request",
        404 => "404 Not Found",
        405 => "405 Method Not Allowed",
        408 => "408 Request Timeout",
        413 => "413 Content Too Large",
        417 => "417 Expectation Failed",
        431 => "431 Request Header Fields Too Large",
        501 => "501 Not Implemented",
        503 => "503 Service Unavailable",
        505 => "505 HTTP Version Not Supported",
        _ => "500 Internal Server Error",
    }
}
