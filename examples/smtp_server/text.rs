//! The text of a message as DATA sends it → as it was before (no I/O).
//!
//! A dot at the start of a line is one too many, or the line would have been taken for the end. Lines end
//! with CRLF: a CR or LF alone refuses the message. Servers have disagreed about whether `LF . CR LF` and
//! the like end a message, and a mail whose text goes on behind what its next reader takes for the end
//! smuggles commands to him.

use memchr::memchr2;

/// Where in the text we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Text {
    LineStart,
    Line,
    AfterCr,
}

/// A CR or LF stands alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BareNewline;

impl Text {
    pub(crate) fn new() -> Self {
        Text::LineStart
    }

    /// Calls `keep` with the pieces of the next bytes that belong to the message.
    pub(crate) fn feed(
        &mut self,
        bytes: &[u8],
        mut keep: impl FnMut(&[u8]),
    ) -> Result<(), BareNewline> {
        let (mut at, mut kept) = (0, 0);
        while at < bytes.len() {
            match self {
                Text::LineStart => {
                    if bytes[at] == b'.' {
                        keep(&bytes[kept..at]);
                        at += 1;
                        kept = at;
                    }
                    *self = Text::Line;
                }
                Text::Line => match memchr2(b'\r', b'\n', &bytes[at..]) {
                    None => break,
                    Some(line) if bytes[at + line] == b'\n' => return Err(BareNewline),
                    Some(line) => {
                        at += line + 1;
                        *self = Text::AfterCr;
                    }
                },
                Text::AfterCr if bytes[at] == b'\n' => {
                    at += 1;
                    *self = Text::LineStart;
                }
                Text::AfterCr => return Err(BareNewline),
            }
        }
        keep(&bytes[kept..]);
        Ok(())
    }
}
