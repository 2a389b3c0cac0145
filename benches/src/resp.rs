//! Pipelined RESP commands: `*3`, and three times a length, that many bytes, and a line's end.

use std::io;
use std::ops::Range;

use bytes::{Bytes, BytesMut};
use tokio_util::codec::{Decoder, FramedRead};

use crate::io::{READ, Reader, drain};
use crate::{Row, Tally, input};

/// What ends a line.
pub const CRLF: &[u8; 2] = b"\r\n";

/// Goes on reading a decimal number: the same for everybody who parses one.
#[inline]
fn number(so_far: usize, digits: &[u8]) -> Option<usize> {
    digits.iter().try_fold(so_far, |n, &digit| {
        let digit = digit.wrapping_sub(b'0');
        (digit < 10).then_some(())?;
        n.checked_mul(10)?.checked_add(digit.into())
    })
}

/// What a command is at, told event by event. Every piece may come in pieces.
#[derive(Debug, Default)]
pub struct Commands {
    pub tally: Tally,
    at: At,
    arguments: usize,
    number: usize,
    /// The first byte of the line, once it is there.
    kind: u8,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum At {
    #[default]
    Array,
    Length,
    Argument,
    End,
}

/// What comes next.
#[derive(Debug)]
pub enum Next {
    Count(u64),
    End,
    Line,
}

impl Commands {
    #[inline]
    fn line(&mut self, mut chunk: &[u8]) {
        if self.kind == 0 {
            self.kind = chunk[0];
            chunk = &chunk[1..];
        }
        self.number = number(self.number, chunk).expect("a number");
    }

    /// A line has ended: the number that it held.
    #[inline]
    fn line_end(&mut self, kind: u8) -> usize {
        assert_eq!(self.kind, kind);
        self.kind = 0;
        std::mem::take(&mut self.number)
    }

    /// An argument has ended.
    #[inline]
    fn next(&mut self) {
        self.tally.end();
        self.arguments -= 1;
        self.at = if self.arguments == 0 { At::Array } else { At::Length };
    }

    /// The argument's end is counted in, and checked by hand.
    #[inline]
    pub fn counted_chunk(&mut self, chunk: &[u8]) {
        if self.at == At::Argument {
            let n = self.number.min(chunk.len());
            let (argument, mut end) = chunk.split_at(n);
            self.number -= n;
            if n > 0 {
                self.tally.chunk(argument);
            }
            if end != CRLF {
                while let [byte, rest @ ..] = end {
                    assert_eq!(*byte, CRLF[usize::from(self.kind)]);
                    self.kind += 1;
                    end = rest;
                }
            }
        } else {
            self.line(chunk);
        }
    }

    #[inline]
    pub fn counted_end(&mut self) -> Option<Next> {
        match self.at {
            At::Array => {
                self.arguments = self.line_end(b'*');
                self.at = At::Length;
                None
            }
            At::Length => {
                self.number = self.line_end(b'$');
                self.at = At::Argument;
                Some(Next::Count(self.number as u64 + 2))
            }
            At::Argument | At::End => {
                self.kind = 0;
                self.next();
                Some(Next::Line)
            }
        }
    }

    /// The argument's end is a terminator of its own, before which nothing may stand.
    #[inline]
    pub fn checked_chunk(&mut self, chunk: &[u8]) {
        if self.at == At::Argument {
            self.tally.chunk(chunk);
        } else {
            self.line(chunk);
        }
    }

    #[inline]
    pub fn checked_end(&mut self) -> Option<Next> {
        match self.at {
            At::Array => {
                self.arguments = self.line_end(b'*');
                self.at = At::Length;
                None
            }
            At::Length => {
                let number = self.line_end(b'$');
                self.at = At::Argument;
                Some(Next::Count(number as u64))
            }
            At::Argument => {
                self.at = At::End;
                Some(Next::End)
            }
            At::End => {
                self.next();
                Some(Next::Line)
            }
        }
    }
}

/// Reads `kind`, a number and a line's end from `at` on: the number, and where the next line begins.
#[inline]
fn header(src: &[u8], at: usize, kind: u8) -> io::Result<Option<(usize, usize)>> {
    let Some(end) = memchr::memchr(b'\r', &src[at..]) else {
        return Ok(None);
    };
    let end = at + end;
    let Some(&last) = src.get(end + 1) else {
        return Ok(None);
    };
    match src[at..end].split_first() {
        Some((&first, digits)) if first == kind && last == b'\n' => match number(0, digits) {
            Some(number) => Ok(Some((number, end + 2))),
            None => Err(io::ErrorKind::InvalidData.into()),
        },
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// Finds a whole command, calls back for each argument's place, and returns where it ends.
#[inline]
pub fn command(src: &[u8], mut argument: impl FnMut(Range<usize>)) -> io::Result<Option<usize>> {
    let Some((arguments, mut at)) = header(src, 0, b'*')? else {
        return Ok(None);
    };
    for _ in 0..arguments {
        let Some((length, start)) = header(src, at, b'$')? else {
            return Ok(None);
        };
        let end = start + length;
        match src.get(end..end + 2) {
            None => return Ok(None),
            Some(b"\r\n") => {}
            Some(_) => return Err(io::ErrorKind::InvalidData.into()),
        }
        argument(start..end);
        at = end + 2;
    }
    Ok(Some(at))
}

/// A `Bytes` for the key and one for the value, of the one command that it knows.
struct KeyAndValue;

struct Set {
    key: Bytes,
    value: Bytes,
}

impl Decoder for KeyAndValue {
    type Item = Set;
    type Error = io::Error;

    fn decode(&mut self, src: &mut BytesMut) -> io::Result<Option<Set>> {
        let (mut arguments, mut count) = ([const { 0..0 }; 3], 0);
        let end = command(src, |range| {
            if let Some(argument) = arguments.get_mut(count) {
                *argument = range;
            }
            count += 1;
        })?;
        let Some(end) = end else { return Ok(None) };
        let [name, key, value] = arguments;
        if count != 3 || src[name] != *b"SET" {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let command = src.split_to(end).freeze();
        Ok(Some(Set { key: command.slice(key), value: command.slice(value) }))
    }
}

pub fn key_and_value(reader: Reader<'_>) -> u64 {
    let mut tally = Tally::default();
    drain(FramedRead::with_capacity(reader, KeyAndValue, READ), |set| {
        let set = set.expect("well-formed");
        tally.frame(b"SET");
        tally.frame(&set.key);
        tally.frame(&set.value);
    });
    tally.sum()
}

pub struct Sets {
    pub input: Vec<u8>,
    pub count: usize,
}

impl Sets {
    pub fn new(count: usize) -> Sets {
        Sets { input: input::sets(count), count }
    }

    pub fn work<'a>(&self, row: Row<'a>) -> Row<'a> {
        let mut tally = Tally::default();
        let mut rest = &*self.input;
        while !rest.is_empty() {
            let end = command(rest, |argument| tally.frame(&rest[argument]));
            rest = &rest[end.expect("well-formed").expect("whole")..];
        }
        row.work(self.count, self.input.len()).expect(tally.sum())
    }
}
