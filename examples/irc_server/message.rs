//! A line → its words, and words → a line (no I/O).
//!
//! A line is bytes: what people say may be UTF-8 or not, and is passed on as it came. Names are text.

use std::fmt::{self, Write as _};
use std::str;

use bytes::BytesMut;

/// The most bytes of a line, without its end. With CR and LF they are the 512 of RFC 1459.
pub(crate) const LINE: usize = 510;
pub(crate) const NICK_LENGTH: usize = 30;
pub(crate) const USER_LENGTH: usize = 10;
pub(crate) const CHANNEL_LENGTH: usize = 50;
/// The most words of a line behind its command. Whatever is behind the last belongs to it.
const PARAMS: usize = 15;
/// The length of the longest command, USERHOST.
const COMMAND: usize = 8;

/// What a peer has sent: `[:prefix] COMMAND word word :words to the end`.
#[derive(Debug)]
pub(crate) struct Message<'a> {
    /// The command in capitals. If it is longer than all that there are, its beginning.
    name: [u8; COMMAND],
    command: &'a [u8],
    params: [&'a [u8]; PARAMS],
    len: usize,
}

impl<'a> Message<'a> {
    /// `None` if the line is empty, or has a NUL in it, which no line may have. A prefix is dropped: it says who the
    /// peer is, which the server knows.
    pub(crate) fn parse(line: &'a [u8]) -> Option<Self> {
        if line.contains(&0) {
            return None;
        }
        let mut rest = line.trim_ascii_start();
        if rest.first() == Some(&b':') {
            (_, rest) = word(rest);
        }
        let (command, mut rest) = word(rest);
        if command.is_empty() {
            return None;
        }
        let mut message = Message { name: [0; COMMAND], command, params: [&[]; PARAMS], len: 0 };
        if command.len() <= COMMAND {
            message.name[..command.len()].copy_from_slice(command);
            message.name.make_ascii_uppercase();
        }
        while !rest.is_empty() && message.len < PARAMS {
            let param;
            (param, rest) = match rest {
                [b':', text @ ..] => (text, &[][..]),
                _ if message.len == PARAMS - 1 => (rest, &[][..]),
                _ => word(rest),
            };
            message.params[message.len] = param;
            message.len += 1;
        }
        Some(message)
    }

    /// The command in capitals; empty if it is longer than all that there are.
    pub(crate) fn name(&self) -> &[u8] {
        let len = if self.command.len() <= COMMAND { self.command.len() } else { 0 };
        &self.name[..len]
    }

    /// The command as the client wrote it.
    pub(crate) fn command(&self) -> &'a [u8] {
        self.command
    }

    pub(crate) fn params(&self) -> &[&'a [u8]] {
        &self.params[..self.len]
    }

    /// A parameter that is not empty.
    pub(crate) fn param(&self, index: usize) -> Option<&'a [u8]> {
        self.params().get(index).copied().filter(|param| !param.is_empty())
    }
}

/// The first word, and the rest behind it without the spaces between.
fn word(line: &[u8]) -> (&[u8], &[u8]) {
    let end = line.iter().position(|byte| *byte == b' ').unwrap_or(line.len());
    let (word, rest) = line.split_at(end);
    let begin = rest.iter().position(|byte| *byte != b' ').unwrap_or(rest.len());
    (word, &rest[begin..])
}

/// The name of a client or a channel in lower case, by which it is found: `[]\~` are the capitals of `{}|^`, as
/// Scandinavian keyboards once had it (`CASEMAPPING=rfc1459`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Folded(Box<str>);

impl Folded {
    pub(crate) fn new(name: &str) -> Self {
        let fold = |c| match c {
            '[' => '{',
            ']' => '}',
            '\\' => '|',
            '~' => '^',
            c => c.to_ascii_lowercase(),
        };
        Folded(name.chars().map(fold).collect())
    }
}

/// The bytes as a nickname, if they are a valid one.
pub(crate) fn nick(bytes: &[u8]) -> Option<&str> {
    let special = |byte: u8| byte.is_ascii_alphabetic() || b"[]\\`_^{|}".contains(&byte);
    let (first, rest) = bytes.split_first()?;
    let valid = special(*first)
        && rest.iter().all(|byte| special(*byte) || byte.is_ascii_digit() || *byte == b'-');
    if valid && bytes.len() <= NICK_LENGTH { str::from_utf8(bytes).ok() } else { None }
}

/// The bytes as the name of a channel, if they are a valid one. It has no characters that control a terminal or the
/// direction of text.
pub(crate) fn channel(bytes: &[u8]) -> Option<&str> {
    let name = str::from_utf8(bytes).ok().filter(|name| name.len() <= CHANNEL_LENGTH)?;
    let rest = name.strip_prefix('#')?;
    let bad = |c: char| {
        c.is_control()
            || matches!(c, ' ' | ',' | ':')
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    if rest.is_empty() || rest.contains(bad) { None } else { Some(name) }
}

/// What a client calls its user, without the characters that have a meaning in `nick!user@host`. The tilde says that
/// nobody has checked it.
pub(crate) fn user(bytes: &[u8]) -> String {
    let valid = |byte: &&u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
    let name = bytes.iter().filter(valid).take(USER_LENGTH).map(|byte| char::from(*byte));
    format!("~{}", name.collect::<String>())
}

/// The first `most` bytes at most, without half a character at the end.
pub(crate) fn fitting(bytes: &[u8], most: usize) -> &[u8] {
    let Some(cut) = bytes.get(..most).filter(|cut| cut.len() < bytes.len()) else { return bytes };
    // A character has at most three bytes behind its first.
    let first = cut.iter().rev().take(4).position(|byte| byte & 0xc0 != 0x80);
    let Some(behind) = first else { return cut };
    let start = cut.len() - 1 - behind;
    let width = match cut[start] {
        0xc0..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xf7 => 4,
        _ => 1,
    };
    if behind + 1 < width { &cut[..start] } else { cut }
}

/// Writes a line: its head, and behind a colon the text that may have spaces in it. What does not fit is
/// cut off.
pub(crate) fn write(out: &mut BytesMut, head: fmt::Arguments<'_>, text: Option<&[u8]>) {
    let start = out.len();
    // The buffer grows as needed, so this cannot fail.
    let _ = out.write_fmt(head);
    if let Some(text) = text {
        out.extend_from_slice(b" :");
        out.extend_from_slice(text);
    }
    end(out, start);
}

/// Ends the line that begins at `start`, and cuts it if it is too long.
pub(crate) fn end(out: &mut BytesMut, start: usize) {
    let len = fitting(&out[start..], LINE).len();
    out.truncate(start + len);
    out.extend_from_slice(b"\r\n");
}
