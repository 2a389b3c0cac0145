//! The two framings, and their limits.
//!
//! Both begin with a line, handed over whole. In MCP's framing each line is a message. In LSP's the lines are the head
//! of one: behind the empty line the terminator is a count, and then the end of a line again. A message that is too
//! long is not collected: a line is skipped by the limit, and a counted message is read in pieces, which are dropped.

use std::convert::Infallible;
use std::mem;
use std::time::Duration;

use asynchat::{Channel, ChannelBuilder, Chunk, Control, Handler, Limit, Timeouts};
use bytes::Bytes;
use serde_json::Value;

use crate::head::{Head, MAX_HEAD};
use crate::lsp::Lsp;
use crate::mcp::Mcp;
use crate::rpc::{self, Failure, INVALID_REQUEST, PARSE_ERROR, Service};

/// How long the client may read nothing. It has started this process, so it may be silent for as long as it likes.
const WRITE_STALL: Duration = Duration::from_secs(60);
/// How long a message that has begun may take to its end once the server is to stop.
const SHUTDOWN: Duration = Duration::from_secs(1);

/// The settings of the channel, which begins with a line. A message may have `max_message` bytes.
pub(crate) fn channels(max_message: u64) -> ChannelBuilder {
    let timeouts = Timeouts::NONE.write_stall(WRITE_STALL).shutdown(SHUTDOWN);
    Channel::builder(b"\n").limit(Limit::Skip(max_message)).whole_frames(true).timeouts(timeouts)
}

/// What is known of the client.
#[derive(Debug)]
pub(crate) struct Session {
    max_message: u64,
    /// The frame that was handed over last.
    frame: Bytes,
    reading: Reading,
    client: Option<Client>,
    /// Whether the client has sent something behind which the next message cannot be found.
    broken: bool,
}

/// What is read now, and so which terminator is set.
#[derive(Debug)]
enum Reading {
    /// A line. If the head is not empty, the line is part of a head.
    Line(Head),
    /// The message behind a head.
    Message,
    /// The same, but the message is dropped.
    Unwanted,
}

/// A client whose first byte has come.
#[derive(Debug)]
struct Client {
    framing: Framing,
    service: Box<dyn Service>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    Heads,
    Lines,
}

impl Handler for Session {
    type Error = Infallible;

    fn collect_incoming_data(
        &mut self,
        data: Chunk<'_>,
        _: &mut Control<'_>,
    ) -> Result<(), Infallible> {
        match self.reading {
            Reading::Line(_) | Reading::Message => self.frame = data.to_bytes(),
            Reading::Unwanted => {}
        }
        Ok(())
    }

    async fn found_terminator(&mut self, control: &mut Control<'_>) -> Result<(), Infallible> {
        let frame = mem::take(&mut self.frame);
        match mem::replace(&mut self.reading, Reading::Line(Head::default())) {
            Reading::Line(head) => self.line(head, &frame, control),
            Reading::Message => {
                expect_head(control);
                self.answer(&frame, control);
            }
            Reading::Unwanted => expect_head(control),
        }
        Ok(())
    }

    async fn overlong(&mut self, control: &mut Control<'_>) -> Result<(), Infallible> {
        let beginning = mem::take(&mut self.frame);
        match self.client(&beginning).framing {
            Framing::Heads => self.refuse("the head is longer than 8 KiB", control),
            Framing::Lines => self.say(self.too_long(), control),
        }
        Ok(())
    }
}

impl Session {
    pub(crate) fn new(max_message: u64) -> Self {
        let reading = Reading::Line(Head::default());
        Session { max_message, frame: Bytes::new(), reading, client: None, broken: false }
    }

    /// The exit code: 1 if the session is broken, or else what the client has asked for, or 0.
    pub(crate) fn exit_code(&self) -> i32 {
        let asked = self.client.as_ref().and_then(|client| client.service.exit_code());
        if self.broken { 1 } else { asked.unwrap_or(0) }
    }

    /// The client. If `line` is its first line, the first byte of it decides which protocol the client speaks.
    fn client(&mut self, line: &[u8]) -> &mut Client {
        self.client.get_or_insert_with(|| match line.trim_ascii_start().first() {
            Some(byte) if byte.is_ascii_alphabetic() => {
                Client { framing: Framing::Heads, service: Box::new(Lsp::default()) }
            }
            _ => Client { framing: Framing::Lines, service: Box::new(Mcp::default()) },
        })
    }

    fn line(&mut self, mut head: Head, line: &[u8], control: &mut Control<'_>) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.trim_ascii().is_empty() && head.is_empty() {
            return;
        }
        if self.client(line).framing == Framing::Lines {
            return self.answer(line, control);
        }
        if !line.is_empty() {
            if let Err(reason) = head.add(line) {
                return self.refuse(reason, control);
            }
            control.begin_message();
            control.set_limit(Limit::Skip(MAX_HEAD));
            self.reading = Reading::Line(head);
            return;
        }
        let length = match head.length() {
            Ok(length) => length,
            Err(reason) => return self.refuse(reason, control),
        };
        control.set_terminator(length);
        let unwanted = if length > self.max_message {
            Some(self.too_long())
        } else if head.is_foreign() {
            Some(Failure::new(PARSE_ERROR, "the charset is not UTF-8"))
        } else {
            None
        };
        self.reading = match unwanted {
            None => Reading::Message,
            Some(failure) => {
                control.set_whole_frames(false);
                self.say(failure, control);
                Reading::Unwanted
            }
        };
    }

    /// Answers a message, if there is anything to answer.
    fn answer(&mut self, text: &[u8], control: &mut Control<'_>) {
        let client = self.client(text);
        if let Some(answer) = rpc::answer(&mut *client.service, text) {
            write(client.framing, &answer, control);
        }
        if client.service.exit_code().is_some() {
            control.close_when_done();
        }
    }

    /// Answers something that is no message.
    fn say(&mut self, failure: Failure, control: &mut Control<'_>) {
        let framing = self.client(b"").framing;
        write(framing, &rpc::failure(Value::Null, failure), control);
    }

    /// Answers an error behind which the next message cannot be found, and closes.
    fn refuse(&mut self, reason: &'static str, control: &mut Control<'_>) {
        self.say(Failure::new(PARSE_ERROR, reason), control);
        self.broken = true;
        control.close_when_done();
    }

    fn too_long(&self) -> Failure {
        let text = format!("the message is longer than {} bytes", self.max_message);
        Failure::new(INVALID_REQUEST, text)
    }
}

/// After a message with a head: sets the terminator to the end of a line again.
fn expect_head(control: &mut Control<'_>) {
    control.end_message();
    control.set_whole_frames(true);
    control.set_terminator(b"\n");
}

fn write(framing: Framing, answer: &Value, control: &mut Control<'_>) {
    // A line break in a text is written `\n`: the message itself has none.
    let text = answer.to_string();
    match framing {
        Framing::Heads => {
            write!(control, "Content-Length: {}\r\n\r\n", text.len());
            control.push(text);
        }
        Framing::Lines => {
            control.push(text);
            control.push("\n");
        }
    }
}
