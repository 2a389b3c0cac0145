//! Pipelined RESP commands: `*3`, and three times a length, that many bytes, and a line's end.

use std::io;
use std::ops::Range;

use asynchat::{Event, Framer, Limit, TerminatorCodec};
use asynchat_benches::io::{READ, Reader, Window, drain, drain_with};
use asynchat_benches::{Bench, Row, Tally, input};
use bytes::{Bytes, BytesMut};
use redis_protocol::codec::Resp2;
use redis_protocol::resp2::types::BytesFrame;
use tokio_util::codec::{Decoder, FramedRead};

const CRLF: &[u8; 2] = b"\r\n";

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
struct Commands {
    tally: Tally,
    at: At,
    arguments: usize,
    number: usize,
    /// The first byte of the line, once it is there.
    kind: u8,
}

#[derive(Clone, Copy, PartialEq)]
enum At {
    Array,
    Length,
    Argument,
    End,
}

/// What comes next.
enum Next {
    Count(u64),
    End,
    Line,
}

impl Commands {
    fn new() -> Commands {
        Commands { tally: Tally::default(), at: At::Array, arguments: 0, number: 0, kind: 0 }
    }

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
    fn counted_chunk(&mut self, chunk: &[u8]) {
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
    fn counted_end(&mut self) -> Option<Next> {
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
    fn checked_chunk(&mut self, chunk: &[u8]) {
        if self.at == At::Argument {
            self.tally.chunk(chunk);
        } else {
            self.line(chunk);
        }
    }

    #[inline]
    fn checked_end(&mut self) -> Option<Next> {
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

fn framer_counted(input: &[u8], window: &mut Window) -> u64 {
    let mut framer = Framer::new(CRLF);
    let mut commands = Commands::new();
    window.clear();
    for read in input.chunks(READ) {
        window.fill(read);
        while let Some(event) = framer.next(window.filled()).expect("no limit") {
            match event {
                Event::Chunk(chunk) => commands.counted_chunk(chunk),
                Event::Terminator => match commands.counted_end() {
                    Some(Next::Count(n)) => framer.set_terminator(n),
                    Some(Next::Line | Next::End) => framer.set_terminator(CRLF),
                    None => {}
                },
                Event::Overlong | Event::Truncated => unreachable!("no limit, no end"),
            }
        }
        window.consume(framer.take_consumed());
    }
    commands.tally.sum()
}

fn framer_checked(input: &[u8], window: &mut Window) -> u64 {
    let mut framer = Framer::new(CRLF);
    let mut commands = Commands::new();
    window.clear();
    for read in input.chunks(READ) {
        window.fill(read);
        while let Some(event) = framer.next(window.filled()).expect("well-formed") {
            match event {
                Event::Chunk(chunk) => commands.checked_chunk(chunk),
                Event::Terminator => match commands.checked_end() {
                    Some(Next::Count(n)) => framer.set_terminator(n),
                    Some(Next::End) => {
                        framer.set_limit(Limit::Fail(0));
                        framer.set_terminator(CRLF);
                    }
                    Some(Next::Line) => framer.set_limit(Limit::Unlimited),
                    None => {}
                },
                Event::Overlong | Event::Truncated => unreachable!("well-formed, no end"),
            }
        }
        window.consume(framer.take_consumed());
    }
    commands.tally.sum()
}

fn codec_counted(reader: Reader<'_>) -> u64 {
    let mut commands = Commands::new();
    let framed = FramedRead::with_capacity(reader, TerminatorCodec::new(CRLF), READ);
    drain_with(framed, |framed, event| match event.expect("no limit") {
        Event::Chunk(chunk) => commands.counted_chunk(&chunk),
        Event::Terminator => match commands.counted_end() {
            Some(Next::Count(n)) => framed.decoder_mut().set_terminator(n),
            Some(Next::Line | Next::End) => framed.decoder_mut().set_terminator(CRLF),
            None => {}
        },
        Event::Overlong | Event::Truncated => unreachable!("no limit, whole frames"),
    });
    commands.tally.sum()
}

fn codec_checked(reader: Reader<'_>) -> u64 {
    let mut commands = Commands::new();
    let framed = FramedRead::with_capacity(reader, TerminatorCodec::new(CRLF), READ);
    drain_with(framed, |framed, event| match event.expect("well-formed") {
        Event::Chunk(chunk) => commands.checked_chunk(&chunk),
        Event::Terminator => match commands.checked_end() {
            Some(Next::Count(n)) => framed.decoder_mut().set_terminator(n),
            Some(Next::End) => {
                framed.decoder_mut().set_limit(Limit::Fail(0));
                framed.decoder_mut().set_terminator(CRLF);
            }
            Some(Next::Line) => framed.decoder_mut().set_limit(Limit::Unlimited),
            None => {}
        },
        Event::Overlong | Event::Truncated => unreachable!("well-formed, whole frames"),
    });
    commands.tally.sum()
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
fn command(src: &[u8], mut argument: impl FnMut(Range<usize>)) -> io::Result<Option<usize>> {
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

/// Hands out whole commands only: looks at one from its beginning again when more of it came.
struct OneBytes;

/// One `Bytes` for the command, and where in it the arguments are: up to four of them.
struct Command {
    frame: Bytes,
    arguments: [(u32, u32); 4],
    count: usize,
}

impl Decoder for OneBytes {
    type Item = Command;
    type Error = io::Error;

    fn decode(&mut self, src: &mut BytesMut) -> io::Result<Option<Command>> {
        let (mut arguments, mut count) = ([(0, 0); 4], 0);
        let end = command(src, |range| {
            arguments[count] = (range.start as u32, range.end as u32);
            count += 1;
        })?;
        Ok(end.map(|end| Command { frame: src.split_to(end).freeze(), arguments, count }))
    }
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

/// A `Bytes` for each argument, in a `Vec`.
#[derive(Default)]
struct VecOfBytes {
    places: Vec<Range<usize>>,
}

impl Decoder for VecOfBytes {
    type Item = Vec<Bytes>;
    type Error = io::Error;

    fn decode(&mut self, src: &mut BytesMut) -> io::Result<Option<Vec<Bytes>>> {
        self.places.clear();
        Ok(command(src, |range| self.places.push(range))?.map(|end| {
            let frame = src.split_to(end).freeze();
            let places = self.places.drain(..);
            places.map(|place| frame.slice(place)).collect()
        }))
    }
}

fn one_bytes(reader: Reader<'_>) -> u64 {
    let mut tally = Tally::default();
    drain(FramedRead::with_capacity(reader, OneBytes, READ), |command| {
        let command = command.expect("well-formed");
        for &(start, end) in &command.arguments[..command.count] {
            tally.frame(&command.frame[start as usize..end as usize]);
        }
    });
    tally.sum()
}

fn key_and_value(reader: Reader<'_>) -> u64 {
    let mut tally = Tally::default();
    drain(FramedRead::with_capacity(reader, KeyAndValue, READ), |set| {
        let set = set.expect("well-formed");
        tally.frame(b"SET");
        tally.frame(&set.key);
        tally.frame(&set.value);
    });
    tally.sum()
}

fn vec_of_bytes(reader: Reader<'_>) -> u64 {
    let mut tally = Tally::default();
    drain(FramedRead::with_capacity(reader, VecOfBytes::default(), READ), |command| {
        for argument in command.expect("well-formed") {
            tally.frame(&argument);
        }
    });
    tally.sum()
}

/// Not a `Decoder`: lends whole commands out of the buffer.
fn by_hand_lent(input: &[u8], window: &mut Window) -> u64 {
    let mut tally = Tally::default();
    window.clear();
    for read in input.chunks(READ) {
        window.fill(read);
        let (filled, mut at) = (window.filled(), 0);
        loop {
            let (mut arguments, mut count) = ([(0, 0); 4], 0);
            let rest = &filled[at..];
            let end = command(rest, |range| {
                arguments[count] = (range.start, range.end);
                count += 1;
            });
            let Some(end) = end.expect("well-formed") else {
                break;
            };
            for &(start, end) in &arguments[..count] {
                tally.frame(&rest[start..end]);
            }
            at += end;
        }
        window.consume(at);
    }
    tally.sum()
}

/// Knows all of RESP2, and makes a `Bytes` of each argument.
fn redis_protocol(reader: Reader<'_>) -> u64 {
    let mut tally = Tally::default();
    drain(FramedRead::with_capacity(reader, Resp2::default(), READ), |frame| {
        match frame.expect("well-formed") {
            BytesFrame::Array(arguments) => {
                for argument in &arguments {
                    match argument {
                        BytesFrame::BulkString(argument) => tally.frame(argument),
                        _ => unreachable!("commands are arrays of bulk strings"),
                    }
                }
            }
            _ => unreachable!("commands are arrays"),
        }
    });
    tally.sum()
}

struct Sets {
    input: Vec<u8>,
    count: usize,
}

impl Sets {
    fn new(count: usize) -> Sets {
        Sets { input: input::sets(count), count }
    }

    fn work<'a>(&self, row: Row<'a>) -> Row<'a> {
        let mut tally = Tally::default();
        let mut rest = &*self.input;
        while !rest.is_empty() {
            let end = command(rest, |argument| tally.frame(&rest[argument]));
            rest = &rest[end.expect("well-formed").expect("whole")..];
        }
        row.work(self.count, self.input.len()).expect(tally.sum())
    }
}

pub fn lent(bench: &mut Bench) {
    let count = bench.size(40_000, 2000);
    type Ours = fn(&[u8], &mut Window) -> u64;
    for (name, ours) in [
        ("RESP SET, lent, CRLF counted in", framer_counted as Ours),
        ("RESP SET, lent, CRLF verified", framer_checked),
    ] {
        let Some(row) = bench.row(name) else { continue };
        let sets = Sets::new(count);
        let (mut window, mut other) = (Window::new(2 * READ), Window::new(2 * READ));
        sets.work(row)
            .with("Framer", || ours(&sets.input, &mut window))
            .against("memchr Decoder, key and value", 0.74, 0.50, || {
                key_and_value(Reader::new(&sets.input))
            })
            .beside("memchr Decoder, one Bytes", || one_bytes(Reader::new(&sets.input)))
            .beside("memchr Decoder, a Vec<Bytes>", || vec_of_bytes(Reader::new(&sets.input)))
            .beside("memchr by hand, lent, whole commands", || {
                by_hand_lent(&sets.input, &mut other)
            })
            .run();
    }
}

pub fn owned(bench: &mut Bench) {
    let count = bench.size(40_000, 2000);
    type Ours = fn(Reader<'_>) -> u64;
    for (name, ours) in [
        ("RESP SET, owned, CRLF counted in", codec_counted as Ours),
        ("RESP SET, owned, CRLF verified", codec_checked),
    ] {
        let Some(row) = bench.row(name) else { continue };
        let sets = Sets::new(count);
        sets.work(row)
            .with("TerminatorCodec", || ours(Reader::new(&sets.input)))
            .against("memchr Decoder, key and value", 2.2, 1.6, || {
                key_and_value(Reader::new(&sets.input))
            })
            .beside("memchr Decoder, one Bytes", || one_bytes(Reader::new(&sets.input)))
            .beside("memchr Decoder, a Vec<Bytes>", || vec_of_bytes(Reader::new(&sets.input)))
            .against("redis-protocol", 0.80, 0.55, || redis_protocol(Reader::new(&sets.input)))
            .run();
    }
}
