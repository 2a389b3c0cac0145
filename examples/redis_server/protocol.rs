//! RESP2: where a command ends, what its words are, and how an answer is written (no I/O of its own).
//!
//! A command is an array of bulk strings, `*2\r\n$4\r\nECHO\r\n$2\r\nhi\r\n`, or, for people with `nc`, a
//! line of words: `ECHO "hi there"`.

use std::borrow::Cow;
use std::mem;

use bytes::{BufMut, Bytes, BytesMut};

use crate::waiting::SHORT;

/// The longest command, in bytes. It is held in memory until its last byte has come.
pub(crate) const COMMAND: usize = 64 << 20;
/// The longest bulk string that may be announced, as in Redis. One that does not fit into [`COMMAND`] is refused too,
/// with another error.
const BULK: i64 = 512 << 20;
/// The most words that may be announced, as in Redis. [`COMMAND`] has room for fewer: some eleven million, and
/// 8 bytes are noted for each.
const WORDS: i64 = i32::MAX as i64;
/// The longest line, be it of words or of a number, in bytes, as in Redis.
const LINE: usize = 64 << 10;
/// The longest answer that is put together from several values, in bytes.
const ANSWER: usize = 64 << 20;
/// The memory for up to so many words is kept for the next command.
const KEPT_WORDS: usize = 64;
/// The same for the bytes of a line.
const KEPT_BYTES: usize = 1 << 10;

/// Why something is not done, as a text for the client: what follows the `-` of an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal(pub(crate) Cow<'static, str>);

impl Refusal {
    pub(crate) const fn new(text: &'static str) -> Self {
        Refusal(Cow::Borrowed(text))
    }
}

pub(crate) const TOO_LONG: Refusal =
    Refusal::new("ERR Protocol error: command is longer than 64 MiB");
pub(crate) const NOT_AN_INTEGER: Refusal =
    Refusal::new("ERR value is not an integer or out of range");
const BAD_ARRAY: &str = "ERR Protocol error: invalid multibulk length";
const LONG_ARRAY: &str = "ERR Protocol error: too big mbulk count string";
const BAD_BULK: &str = "ERR Protocol error: invalid bulk length";
const LONG_BULK: &str = "ERR Protocol error: too big bulk count string";
const BAD_END: Refusal = Refusal::new("ERR Protocol error: expected CRLF behind a bulk string");
const BAD_LINE: Refusal = Refusal::new("ERR Protocol error: too big inline request");
const BAD_QUOTES: Refusal = Refusal::new("ERR Protocol error: unbalanced quotes in request");
const LONG_ANSWER: Refusal = Refusal::new("ERR the answer is longer than 64 MiB");
/// Redis has no such error: it goes on until there is no memory.
pub(crate) const CROWDED: Refusal =
    Refusal::new("OOM too much waits to be sent to clients, try again later");
pub(crate) const CROWDED_IN: Refusal =
    Refusal::new("OOM too many long commands are on their way, try again later");

/// Finds the end of a command, and remembers how far it has looked, so that each byte is looked at once however the
/// command was cut into reads.
#[derive(Debug, Default)]
pub(crate) struct Parser {
    at: At,
    /// How many bytes of the command are parsed.
    done: usize,
    /// The position before which the line of a number does not end.
    looked: usize,
    /// The positions of the words: in the command, or in `unquoted` if it is a line.
    words: Vec<Word>,
    unquoted: Vec<u8>,
    is_line: bool,
}

/// Where a word begins and ends.
type Word = (u32, u32);

#[derive(Debug, Default)]
enum At {
    #[default]
    Start,
    Line,
    /// This many words are to come. The next thing is the line with the length of a word.
    Length(usize),
    /// This many words are to come. The next thing is a word of this length.
    Word(usize, usize),
    Complete,
    Broken(Refusal),
}

impl Parser {
    /// The length of the command that begins with these bytes, or the position at which they turn out to be none.
    /// `None` if more is wanted. The length may be more than the input has, and more than [`COMMAND`].
    pub(crate) fn find_end(&mut self, input: &[u8]) -> Option<usize> {
        loop {
            match self.at {
                At::Start => self.start(input)?,
                At::Line => self.line(input)?,
                At::Length(left) => self.length(input, left)?,
                At::Word(left, length) => {
                    let end = self.done + length;
                    if end + 2 > COMMAND {
                        return Some(end + 2);
                    }
                    let behind = input.get(end..end + 2)?;
                    if behind != b"\r\n" {
                        self.at = At::Broken(BAD_END);
                        return Some(end + 2);
                    }
                    // Both positions are at most COMMAND, so they fit.
                    self.words.push((self.done as u32, end as u32));
                    self.done = end + 2;
                    self.at = if left == 1 { At::Complete } else { At::Length(left - 1) };
                }
                At::Complete | At::Broken(_) => return Some(self.done),
            }
        }
    }

    /// The words of the command whose end was found, or why it is none. `None` if the input ended in the middle of it.
    /// The parser is then ready for the next command.
    pub(crate) fn take<'a>(&'a mut self, command: &'a [u8]) -> Option<Result<Words<'a>, Refusal>> {
        (self.done, self.looked) = (0, 0);
        match mem::take(&mut self.at) {
            At::Complete => {
                let text = if self.is_line { &self.unquoted } else { command };
                Some(Ok(Words { text, words: &self.words }))
            }
            At::Broken(refusal) => Some(Err(refusal)),
            _ => None,
        }
    }

    /// How many bytes of memory the parser uses for the command.
    pub(crate) fn noted(&self) -> usize {
        self.words.capacity() * size_of::<Word>() + self.unquoted.capacity()
    }

    /// Called when the command is done: frees the memory that a long one took.
    pub(crate) fn release(&mut self) {
        if self.words.capacity() > KEPT_WORDS {
            self.words = Vec::new();
        }
        if self.unquoted.capacity() > KEPT_BYTES {
            self.unquoted = Vec::new();
        }
    }

    fn start(&mut self, input: &[u8]) -> Option<()> {
        self.words.clear();
        self.is_line = input.first()? != &b'*';
        if self.is_line {
            self.at = At::Line;
            return Some(());
        }
        self.at = match self.number(input, BAD_ARRAY, LONG_ARRAY)? {
            Ok(count @ 1..=WORDS) => At::Length(count as usize),
            Ok(..=0) => At::Complete,
            Ok(_) => At::Broken(Refusal::new(BAD_ARRAY)),
            Err(why) => At::Broken(Refusal::new(why)),
        };
        Some(())
    }

    fn length(&mut self, input: &[u8], left: usize) -> Option<()> {
        let kind = *input.get(self.done)?;
        if kind != b'$' {
            let kind = if kind.is_ascii_graphic() { char::from(kind) } else { ' ' };
            let text = format!("ERR Protocol error: expected '$', got '{kind}'");
            self.done += 1;
            self.at = At::Broken(Refusal(text.into()));
            return Some(());
        }
        self.at = match self.number(input, BAD_BULK, LONG_BULK)? {
            Ok(length @ 0..=BULK) => At::Word(left, length as usize),
            Ok(_) => At::Broken(Refusal::new(BAD_BULK)),
            Err(why) => At::Broken(Refusal::new(why)),
        };
        Some(())
    }

    /// Reads the next line without its first byte: a decimal number, without needless zeros or signs, and CRLF. Returns
    /// `bad` if it is no such number, and `long` if the line is too long. The line is parsed then.
    #[inline]
    fn number(
        &mut self,
        input: &[u8],
        bad: &'static str,
        long: &'static str,
    ) -> Option<Result<i64, &'static str>> {
        // A short way for numbers of one and two digits, which most are.
        let (value, length) = match input.get(self.done + 1..)? {
            [a @ b'0'..=b'9', b'\r', b'\n', ..] => (a - b'0', 4),
            [a @ b'1'..=b'9', b @ b'0'..=b'9', b'\r', b'\n', ..] => {
                ((a - b'0') * 10 + (b - b'0'), 5)
            }
            _ => return self.any_number(input, bad, long),
        };
        self.done += length;
        Some(Ok(value.into()))
    }

    #[inline(never)]
    fn any_number(
        &mut self,
        input: &[u8],
        bad: &'static str,
        long: &'static str,
    ) -> Option<Result<i64, &'static str>> {
        let most = input.len().min(self.done + LINE + 1);
        let start = self.looked.max(self.done);
        let Some(found) = memchr::memchr(b'\r', &input[start..most]) else {
            self.looked = most;
            if most - self.done <= LINE {
                return None;
            }
            self.done = most;
            return Some(Err(long));
        };
        self.looked = start + found;
        let behind = *input.get(self.looked + 1)?;
        let digits = &input[self.done + 1..self.looked];
        self.done = self.looked + 2;
        let number = if behind == b'\n' { integer(digits).ok() } else { None };
        Some(number.ok_or(bad))
    }

    /// Reads a line of words. As in Redis, a line with a NUL never ends.
    fn line(&mut self, input: &[u8]) -> Option<()> {
        let most = input.len().min(LINE + 1);
        let found = memchr::memchr2(b'\n', 0, &input[self.done..most]);
        // The search stops at a NUL, and finds it again when more has come.
        self.done = found.map_or(most, |found| self.done + found);
        if input[..most].get(self.done) != Some(&b'\n') {
            if most <= LINE {
                return None;
            }
            self.done = most;
            self.at = At::Broken(BAD_LINE);
            return Some(());
        }
        self.unquoted.clear();
        self.at = match split(&input[..self.done], &mut self.unquoted, &mut self.words) {
            Some(()) => At::Complete,
            None => At::Broken(BAD_QUOTES),
        };
        self.done += 1;
        Some(())
    }
}

/// An integer as Redis reads it: no sign but a minus, no zeros in front.
pub(crate) fn integer(word: &[u8]) -> Result<i64, Refusal> {
    let strict = match word {
        [b'0'] | [b'1'..=b'9', ..] | [b'-', b'1'..=b'9', ..] => std::str::from_utf8(word).ok(),
        _ => None,
    };
    strict.and_then(|digits| digits.parse().ok()).ok_or(NOT_AN_INTEGER)
}

/// Splits a line into words. A word may be in quotes: in double ones with escapes as in C, in single ones with `\'`
/// only. `None` if a quote is not closed, or is followed by anything but a space.
fn split(line: &[u8], text: &mut Vec<u8>, words: &mut Vec<Word>) -> Option<()> {
    let mut line = line.iter().copied().peekable();
    loop {
        while line.next_if(u8::is_ascii_whitespace).is_some() {}
        if line.peek().is_none() {
            return Some(());
        }
        let start = text.len() as u32;
        while let Some(byte) = line.next_if(|byte| !matches!(byte, b' ' | b'\t' | b'\r')) {
            if byte != b'"' && byte != b'\'' {
                text.push(byte);
                continue;
            }
            loop {
                match line.next()? {
                    end if end == byte => break,
                    b'\\' if byte == b'"' => escape(&mut line, text)?,
                    b'\\' if line.next_if_eq(&b'\'').is_some() => text.push(b'\''),
                    other => text.push(other),
                }
            }
            if line.peek().is_some_and(|next| !next.is_ascii_whitespace()) {
                return None;
            }
        }
        words.push((start, text.len() as u32));
    }
}

fn escape(
    line: &mut std::iter::Peekable<impl Iterator<Item = u8> + Clone>,
    text: &mut Vec<u8>,
) -> Option<()> {
    let byte = line.next()?;
    let hex = |byte: u8| char::from(byte).to_digit(16);
    if byte == b'x' {
        let mut ahead = line.clone();
        let digits = (ahead.next().and_then(hex), ahead.next().and_then(hex));
        if let (Some(high), Some(low)) = digits {
            *line = ahead;
            text.push((high * 16 + low) as u8);
            return Some(());
        }
    }
    text.push(match byte {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'b' => 8,
        b'a' => 7,
        other => other,
    });
    Some(())
}

/// The words of a command, borrowed from it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Words<'a> {
    text: &'a [u8],
    words: &'a [Word],
}

impl<'a> Words<'a> {
    pub(crate) fn len(&self) -> usize {
        self.words.len()
    }

    /// A word, empty if there is none at that place.
    #[inline]
    pub(crate) fn get(&self, index: usize) -> &'a [u8] {
        self.words.get(index).map_or(&[], |word| self.of(*word))
    }

    /// The words from a place on.
    pub(crate) fn from(&self, index: usize) -> impl Iterator<Item = &'a [u8]> + Clone + use<'a> {
        let words = *self;
        self.words.get(index..).unwrap_or_default().iter().map(move |word| words.of(*word))
    }

    /// The words from a place on, two by two.
    pub(crate) fn pairs(
        &self,
        index: usize,
    ) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + use<'a> {
        self.from(index).step_by(2).zip(self.from(index + 1).step_by(2))
    }

    fn of(&self, (start, end): Word) -> &'a [u8] {
        &self.text[start as usize..end as usize]
    }
}

/// Writes an answer.
#[derive(Debug)]
pub(crate) struct Reply<'a> {
    out: &'a mut BytesMut,
    start: usize,
    room: usize,
}

impl<'a> Reply<'a> {
    pub(crate) fn new(out: &'a mut BytesMut) -> Self {
        Reply::with_room(out, usize::MAX)
    }

    /// An answer that is not short may have at most `room` bytes.
    pub(crate) fn with_room(out: &'a mut BytesMut, room: usize) -> Self {
        Reply { start: out.len(), out, room: room.max(SHORT) }
    }

    /// Returns an error if the answer is too long by now.
    #[inline]
    pub(crate) fn check(&self) -> Result<(), Refusal> {
        if self.is_short() { Ok(()) } else { self.check_long() }
    }

    #[inline]
    pub(crate) fn is_short(&self) -> bool {
        self.out.len() - self.start <= SHORT
    }

    fn check_long(&self) -> Result<(), Refusal> {
        let length = self.out.len() - self.start;
        if length > ANSWER {
            return Err(LONG_ANSWER);
        }
        self.check_room(length)
    }

    /// Returns an error if there is no room for this many bytes.
    pub(crate) fn check_room(&self, length: usize) -> Result<(), Refusal> {
        if length > self.room { Err(CROWDED) } else { Ok(()) }
    }

    /// Takes the answer out of the buffer, if it is not short.
    pub(crate) fn take_long(&mut self) -> Option<Bytes> {
        (!self.is_short()).then(|| self.out.split_off(self.start).freeze())
    }

    pub(crate) fn simple(&mut self, text: &str) {
        self.out.reserve(text.len() + 3);
        self.out.put_u8(b'+');
        self.out.put_slice(text.as_bytes());
        self.out.put_slice(b"\r\n");
    }

    pub(crate) fn ok(&mut self) {
        self.out.extend_from_slice(b"+OK\r\n");
    }

    pub(crate) fn error(&mut self, refusal: &Refusal) {
        self.out.put_u8(b'-');
        // The text may quote the client, which must not be able to end the line by a CR or LF.
        self.out.extend(
            refusal.0.bytes().map(|byte| if byte.is_ascii_control() { b' ' } else { byte }),
        );
        self.out.put_slice(b"\r\n");
    }

    pub(crate) fn integer(&mut self, value: i64) {
        if value < 0 {
            self.out.put_slice(b":-");
            self.digits(value.unsigned_abs());
        } else {
            self.head(b':', value as u64);
        }
    }

    pub(crate) fn count(&mut self, value: usize) {
        self.head(b':', value as u64);
    }

    pub(crate) fn bulk(&mut self, bytes: &[u8]) {
        self.out.reserve(bytes.len() + 26);
        self.bulk_head(bytes.len());
        self.out.put_slice(bytes);
        self.out.put_slice(b"\r\n");
    }

    /// Writes the head of a bulk string. The caller sends its bytes, and CRLF behind them.
    pub(crate) fn bulk_head(&mut self, length: usize) {
        self.head(b'$', length as u64);
    }

    pub(crate) fn nil(&mut self) {
        self.out.extend_from_slice(b"$-1\r\n");
    }

    pub(crate) fn nil_array(&mut self) {
        self.out.extend_from_slice(b"*-1\r\n");
    }

    /// Writes the head of an array, behind which so many values follow.
    pub(crate) fn array(&mut self, count: usize) {
        self.head(b'*', count as u64);
    }

    #[inline]
    fn head(&mut self, kind: u8, value: u64) {
        if value < 10 {
            self.out.extend_from_slice(&[kind, b'0' + value as u8, b'\r', b'\n']);
        } else {
            self.out.put_u8(kind);
            self.digits(value);
        }
    }

    fn digits(&mut self, mut value: u64) {
        // A u64 has 20 digits at most.
        let mut digits = [0; 22];
        let mut start = 20;
        digits[20..].copy_from_slice(b"\r\n");
        loop {
            start -= 1;
            digits[start] = b'0' + (value % 10) as u8;
            value /= 10;
            if value == 0 {
                break;
            }
        }
        self.out.extend_from_slice(&digits[start..]);
    }
}
