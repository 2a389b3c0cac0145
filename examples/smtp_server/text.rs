//! The text of a message as DATA sends it → as it was before (no I/O).
//!
//! A dot at the start of a line was added by the sender, so that the line is not taken for the end, and is removed
//! here. Lines end with CRLF: a message with a CR or LF alone is refused. Servers have disagreed on what ends a
//! message, `LF . CR LF` and the like. If the next server takes that for the end, what follows in the text is smuggled
//! to it as commands.

use memchr::memchr2;

/// The position in the text, as far as the next byte depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Text {
    LineStart,
    Line,
    AfterCr,
}

/// The text has a CR or LF that stands alone.
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
