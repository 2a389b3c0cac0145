//! What the server says: heads of responses, and refusals.

use std::borrow::Cow;
use std::cell::RefCell;
use std::ops::Range;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use asynchat::Control;
use bytes::{BufMut, BytesMut};
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

/// The head of a response: what it says, and how that is put into words.
#[derive(Debug)]
pub(crate) struct Head {
    status: u16,
    content_type: Cow<'static, str>,
    length: Length,
    /// A field that only some responses have, and its value.
    extra: Option<(&'static str, Cow<'static, str>)>,
    connection: Option<&'static str>,
}

impl Head {
    /// A head with the fields every response has.
    pub(crate) fn new(
        status: u16,
        content_type: impl Into<Cow<'static, str>>,
        length: Length,
    ) -> Self {
        let content_type = content_type.into();
        Head { status, content_type, length, extra: None, connection: None }
    }

    /// The same with one more field. Its value must come from the server, not from the peer.
    pub(crate) fn with(mut self, name: &'static str, value: impl Into<Cow<'static, str>>) -> Self {
        self.extra = Some((name, value.into()));
        self
    }

    /// Whether the end of the body can be found without closing, so that another response may follow.
    pub(crate) fn tells_its_end(&self) -> bool {
        !matches!(self.length, Length::Connection)
    }

    /// Adds a field that says whether the connection goes on, if the client could not tell from the version.
    pub(crate) fn connection(&mut self, request: &Request<'_>, keep_alive: bool) {
        self.connection = match (keep_alive, request.is_1_1) {
            (true, true) => None,
            (true, false) => Some("keep-alive"),
            (false, _) => Some("close"),
        };
    }

    /// Queues the head.
    pub(crate) fn push(&self, control: &mut Control<'_>) {
        // It is written directly to the output queue, so that it is not copied.
        control.push_with(|output| self.write(output));
    }

    fn write(&self, output: &mut BytesMut) {
        output.put_slice(b"HTTP/1.1 ");
        output.put_slice(phrase(self.status).as_bytes());
        output.put_slice(b"\r\nDate: ");
        put_date(output);
        output.put_slice(b"\r\nContent-Type: ");
        output.put_slice(self.content_type.as_bytes());
        output.put_slice(b"\r\nX-Content-Type-Options: nosniff\r\n");
        match self.length {
            Length::Known(length) => {
                let mut digits = itoa::Buffer::new();
                put_field(output, "Content-Length", digits.format(length));
            }
            Length::Chunked => put_field(output, "Transfer-Encoding", "chunked"),
            Length::Connection => {}
        }
        if let Some((name, value)) = &self.extra {
            put_field(output, name, value);
        }
        if let Some(value) = self.connection {
            put_field(output, "Connection", value);
        }
        output.put_slice(b"\r\n");
    }
}

fn put_field(output: &mut BytesMut, name: &str, value: &str) {
    for part in [name, ": ", value, "\r\n"] {
        output.put_slice(part.as_bytes());
    }
}

/// Appends the date, which is formatted once a second.
fn put_date(output: &mut BytesMut) {
    thread_local! {
        /// The formatted date, and the time in which it is right.
        static WORDS: RefCell<(String, Range<SystemTime>)> =
            const { RefCell::new((String::new(), UNIX_EPOCH..UNIX_EPOCH)) };
    }
    let now = SystemTime::now();
    WORDS.with_borrow_mut(|(words, second)| {
        if !second.contains(&now) {
            let date = HttpDate::from(now);
            let start = SystemTime::from(date);
            *words = date.to_string();
            *second = start..start + Duration::from_secs(1);
        }
        output.put_slice(words.as_bytes());
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
