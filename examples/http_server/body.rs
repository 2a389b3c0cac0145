//! The body of a request: which terminator comes next, and which of the bytes are payload.
//!
//! No I/O here: [`Body::step`] is told each event of the channel and answers with what to do. A body of
//! known length is one `Count`. A chunked one is lines and counts in turn:
//!
//! ```text
//!           "5;ext" CRLF            5 bytes             CRLF
//!   ┌────────────────────┐   ┌──────────────────┐   ┌────────────────────────┐
//!   │ Size: Bytes(CRLF)  ├──▶│ Data: Count(5)   ├──▶│ DataEnd: Bytes(CRLF)   ├──▶ Size
//!   └─────────┬──────────┘   └──────────────────┘   │ with a limit of 0      │
//!             │ "0" CRLF                            └────────────────────────┘
//!             ▼
//!   ┌────────────────────┐  an empty line
//!   │ Trailer: lines     ├──────────────────▶ the end
//!   └────────────────────┘
//! ```

use asynchat::{Control, Event, Limit, Terminator};
use bytes::Bytes;

use crate::head::Framing;
use crate::response::Refusal;

/// The longest line that states the size of a chunk.
const MAX_SIZE_LINE: u64 = 256;
/// The bytes that the extensions of all chunks of a body may have: a body with an extension of 200 bytes for each byte
/// of payload would cost the server far more than the client.
const MAX_EXTENSIONS: usize = 16 * 1024;
/// The bytes that all trailer fields of a body may have.
const MAX_TRAILERS: usize = 8 * 1024;

/// Where in the body the connection is.
#[derive(Debug)]
pub(crate) struct Body {
    state: State,
    /// The bytes of payload announced so far.
    announced: u64,
    max: u64,
    /// The bytes of extensions seen so far.
    extensions: usize,
}

#[derive(Debug)]
enum State {
    /// All of a body of known length.
    Length,
    /// A line with the size of the next chunk, as much as has come of it.
    Size(Vec<u8>),
    /// The payload of a chunk.
    Data,
    /// The line end after the payload of a chunk.
    DataEnd,
    /// A line after the last chunk, as much as has come of it, and the room left for further ones.
    Trailer(Vec<u8>, usize),
}

/// What an event means.
#[derive(Debug)]
pub(crate) enum Step {
    /// Nothing yet.
    More,
    /// These bytes belong to the body.
    Data(Bytes),
    /// Go on with this terminator.
    Aim(Aim),
    /// The body is complete.
    End,
}

/// A terminator, and the limit of the frame that it ends.
#[derive(Debug)]
pub(crate) struct Aim(pub Terminator, pub Limit);

impl Aim {
    fn line(max: u64) -> Self {
        Aim(Terminator::from(b"\r\n"), Limit::Skip(max))
    }

    fn count(length: u64) -> Self {
        Aim(Terminator::Count(length), Limit::Unlimited)
    }

    pub(crate) fn take(self, control: &mut Control<'_>) {
        control.set_terminator(self.0);
        control.set_limit(self.1);
    }
}

impl Body {
    /// Begins a body of at most `max` bytes, if there is one. The second value says where its first part
    /// ends.
    pub(crate) fn new(framing: Framing, max: u64) -> Result<Option<(Self, Aim)>, Refusal> {
        let (state, announced, aim) = match framing {
            Framing::Empty => return Ok(None),
            Framing::Length(length) => (State::Length, length, Aim::count(length)),
            Framing::Chunked => (State::Size(Vec::new()), 0, Aim::line(MAX_SIZE_LINE)),
        };
        if announced > max {
            return Err(too_large());
        }
        Ok(Some((Body { state, announced, max, extensions: 0 }, aim)))
    }

    /// Takes one event of the channel, which has been aimed as the step before said.
    pub(crate) fn step(&mut self, event: Event<Bytes>) -> Result<Step, Refusal> {
        match (&mut self.state, event) {
            (State::Length | State::Data, Event::Chunk(bytes)) => Ok(Step::Data(bytes)),
            (State::Length, Event::Terminator) => Ok(Step::End),

            (State::Size(line), Event::Chunk(bytes)) => {
                line.extend_from_slice(&bytes);
                Ok(Step::More)
            }
            (State::Size(line), Event::Terminator) => {
                let (size, extension) = parse_size(line)?;
                self.extensions += extension;
                if self.extensions > MAX_EXTENSIONS {
                    return Err(Refusal::new(400, "too many chunk extensions"));
                }
                self.announced = match self.announced.checked_add(size) {
                    Some(sum) if sum <= self.max => sum,
                    _ => return Err(too_large()),
                };
                Ok(Step::Aim(if size == 0 {
                    self.state = State::Trailer(Vec::new(), MAX_TRAILERS);
                    Aim::line(MAX_TRAILERS as u64)
                } else {
                    self.state = State::Data;
                    Aim::count(size)
                }))
            }
            (State::Data, Event::Terminator) => {
                self.state = State::DataEnd;
                Ok(Step::Aim(Aim::line(0)))
            }
            (State::DataEnd, Event::Terminator) => {
                self.state = State::Size(Vec::new());
                Ok(Step::Aim(Aim::line(MAX_SIZE_LINE)))
            }

            (State::Trailer(line, _), Event::Chunk(bytes)) => {
                line.extend_from_slice(&bytes);
                Ok(Step::More)
            }
            (State::Trailer(line, _), Event::Terminator) if line.is_empty() => Ok(Step::End),
            (State::Trailer(line, room), Event::Terminator) => {
                // Trailer fields are checked and dropped: nobody here asked for any, and one that
                // says how the body is framed must not be believed.
                check_trailer(line)?;
                *room = room.saturating_sub(line.len() + 2);
                line.clear();
                Ok(Step::Aim(Aim::line(*room as u64)))
            }

            (State::Size(_), Event::Overlong) => Err(Refusal::new(400, "chunk size line too long")),
            (State::Trailer(..), Event::Overlong) => Err(Refusal::new(431, "trailers too large")),
            (State::DataEnd, Event::Overlong | Event::Chunk(_)) => {
                Err(Refusal::new(400, "a chunk is longer than its size"))
            }
            // These cannot happen: a count has no limit, and no end that could be wrong.
            (_, Event::WrongEnd) | (State::Length | State::Data, Event::Overlong) => {
                Err(too_large())
            }
            (_, Event::Truncated) => Err(Refusal::new(400, "the body is incomplete")),
        }
    }
}

fn too_large() -> Refusal {
    Refusal::new(413, "the body is too large")
}

/// Reads a line that states a chunk's size; the second value is the length of its extension.
///
/// The size is hexadecimal digits and nothing else. White space after it, which the grammar frowns
/// on but allows before an extension, is refused: servers have disagreed about it.
fn parse_size(line: &[u8]) -> Result<(u64, usize), Refusal> {
    let malformed = Refusal::new(400, "malformed chunk size");
    let end = line.iter().position(|byte| !byte.is_ascii_hexdigit()).unwrap_or(line.len());
    let (digits, extension) = line.split_at(end);
    if digits.is_empty() || extension.first().is_some_and(|&byte| byte != b';') {
        return Err(malformed);
    }
    if extension.iter().any(|&byte| byte.is_ascii_control() && byte != b'\t') {
        return Err(malformed);
    }
    let size = std::str::from_utf8(digits)
        .ok()
        .and_then(|digits| u64::from_str_radix(digits, 16).ok())
        .ok_or_else(too_large)?; // all digits, so it can only be too many
    Ok((size, extension.len()))
}

/// Refuses a trailer line that would not do in a head.
fn check_trailer(line: &[u8]) -> Result<(), Refusal> {
    let malformed = Refusal::new(400, "malformed trailer");
    if line.contains(&b'\n') {
        return Err(malformed);
    }
    let field = [line, b"\r\n\r\n"].concat();
    match httparse::parse_headers(&field, &mut [httparse::EMPTY_HEADER; 1]) {
        Ok(httparse::Status::Complete(_)) => Ok(()),
        _ => Err(malformed),
    }
}
