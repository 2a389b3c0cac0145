//! Pipelined RESP commands: `*3`, and three times a length, that many bytes, and a line's end; what a
//! user makes of them with this crate, and those who read them otherwise.

use std::convert::Infallible;
use std::io;
use std::ops::Range;

use asynchat::{ChannelBuilder, Chunk, Control, Handler, Limit, Terminator};
use bytes::{Bytes, BytesMut};
use redis_protocol::codec::Resp2;
use redis_protocol::resp2::types::BytesFrame;
use tokio_util::codec::{Decoder, FramedRead};

use crate::input::{self, Shape};
use crate::io::{READ, Reader, Window, complete, drain};
use crate::ours::{self, Aim, Connection, Protocol, Sum};
use crate::{Row, Tally};

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

/// What is done with commands: told of each argument, in pieces.
pub trait Arguments: Default {
    fn chunk(&mut self, chunk: &[u8]);

    /// The end of an argument, and whether it is the command's last.
    fn end(&mut self, last: bool);
}

impl Arguments for Tally {
    #[inline]
    fn chunk(&mut self, chunk: &[u8]) {
        self.chunk(chunk);
    }

    #[inline]
    fn end(&mut self, _: bool) {
        self.end();
    }
}

/// Where in a command we are. Every piece may come in pieces.
#[derive(Debug, Default)]
struct Commands<T> {
    to: T,
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

impl<T: Arguments> Commands<T> {
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

    #[inline]
    fn array_end(&mut self) {
        self.arguments = self.line_end(b'*');
        self.at = At::Length;
    }

    /// An argument has ended.
    #[inline]
    fn argument_end(&mut self) {
        self.arguments -= 1;
        self.to.end(self.arguments == 0);
        self.at = if self.arguments == 0 { At::Array } else { At::Length };
    }
}

/// Commands whose arguments are counts of two bytes more: those are looked at by hand.
#[derive(Debug, Default)]
pub struct CountedIn<T = Tally>(Commands<T>);

impl<T> CountedIn<T> {
    /// What the arguments went to.
    pub fn to(&mut self) -> &mut T {
        &mut self.0.to
    }
}

impl Sum for CountedIn {
    fn sum(&self) -> u64 {
        self.0.to.sum()
    }
}

impl<T: Arguments> Protocol for CountedIn<T> {
    #[inline]
    fn chunk(&mut self, chunk: &[u8]) {
        let commands = &mut self.0;
        if commands.at != At::Argument {
            return commands.line(chunk);
        }
        let n = commands.number.min(chunk.len());
        let (argument, mut end) = chunk.split_at(n);
        commands.number -= n;
        if n > 0 {
            commands.to.chunk(argument);
        }
        if end == CRLF {
            return;
        }
        while let [byte, rest @ ..] = end {
            assert_eq!(*byte, CRLF[usize::from(commands.kind)]);
            commands.kind += 1;
            end = rest;
        }
    }

    #[inline]
    fn end(&mut self, aim: &mut impl Aim) {
        let commands = &mut self.0;
        match commands.at {
            At::Array => commands.array_end(),
            At::Length => {
                commands.number = commands.line_end(b'$');
                commands.at = At::Argument;
                aim.set_terminator(commands.number as u64 + 2);
            }
            At::Argument | At::End => {
                commands.kind = 0;
                commands.argument_end();
                aim.set_terminator(CRLF);
            }
        }
    }
}

/// Commands whose arguments end at a terminator of its own, before which nothing may stand.
#[derive(Debug, Default)]
pub struct Verified<T = Tally>(Commands<T>);

impl<T> Verified<T> {
    /// What the arguments went to.
    pub fn to(&mut self) -> &mut T {
        &mut self.0.to
    }
}

impl Sum for Verified {
    fn sum(&self) -> u64 {
        self.0.to.sum()
    }
}

impl<T: Arguments> Protocol for Verified<T> {
    #[inline]
    fn chunk(&mut self, chunk: &[u8]) {
        if self.0.at == At::Argument {
            self.0.to.chunk(chunk);
        } else {
            self.0.line(chunk);
        }
    }

    #[inline]
    fn end(&mut self, aim: &mut impl Aim) {
        let commands = &mut self.0;
        match commands.at {
            At::Array => commands.array_end(),
            At::Length => {
                let number = commands.line_end(b'$');
                commands.at = At::Argument;
                aim.set_terminator(number as u64);
            }
            At::Argument => {
                commands.at = At::End;
                aim.set_limit(Limit::Fail(0));
                aim.set_terminator(CRLF);
            }
            At::End => {
                commands.argument_end();
                aim.set_limit(Limit::Unlimited);
            }
        }
    }
}

/// Commands whose arguments are counted frames with their end, which the framer looks at.
#[derive(Debug, Default)]
pub struct Counted<T = Tally>(Commands<T>);

impl<T> Counted<T> {
    /// What the arguments went to.
    pub fn to(&mut self) -> &mut T {
        &mut self.0.to
    }
}

impl Sum for Counted {
    fn sum(&self) -> u64 {
        self.0.to.sum()
    }
}

impl<T: Arguments> Protocol for Counted<T> {
    #[inline]
    fn chunk(&mut self, chunk: &[u8]) {
        if self.0.at == At::Argument {
            self.0.to.chunk(chunk);
        } else {
            self.0.line(chunk);
        }
    }

    #[inline]
    fn end(&mut self, aim: &mut impl Aim) {
        let commands = &mut self.0;
        match commands.at {
            At::Array => commands.array_end(),
            At::Length => {
                let number = commands.line_end(b'$');
                commands.at = At::Argument;
                aim.set_terminator(Terminator::count_then(number as u64, CRLF));
            }
            // Behind it is a line again, without a word of ours.
            At::Argument | At::End => commands.argument_end(),
        }
    }

    /// Whoever has the frame whole needs to remember less.
    #[inline]
    fn frame(&mut self, frame: &[u8], aim: &mut impl Aim) {
        let commands = &mut self.0;
        if commands.at == At::Argument {
            commands.to.chunk(frame);
            return commands.argument_end();
        }
        let (&kind, digits) = frame.split_first().expect("a line");
        let number = number(0, digits).expect("a number");
        match (commands.at, kind) {
            (At::Array, b'*') => {
                commands.arguments = number;
                commands.at = At::Length;
            }
            (At::Length, b'$') => {
                commands.at = At::Argument;
                aim.set_terminator(Terminator::count_then(number as u64, CRLF));
            }
            _ => panic!("not a command"),
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

/// Commands whose end is found by the search of the loop by hand, which remembers where the arguments
/// are: a handler with an end of its own.
#[derive(Debug, Default)]
pub struct OwnEnd {
    places: Vec<Range<usize>>,
    tally: Tally,
}

impl OwnEnd {
    #[inline]
    fn find(&mut self, input: &[u8]) -> Option<usize> {
        self.places.clear();
        command(input, |place| self.places.push(place)).expect("well-formed")
    }

    #[inline]
    fn take(&mut self, command: &[u8]) {
        for place in &self.places {
            self.tally.frame(&command[place.clone()]);
        }
    }
}

impl Handler for OwnEnd {
    type Error = Infallible;

    #[inline]
    fn find_end(&mut self, input: &[u8], _: &mut Control<'_>) -> Result<Option<usize>, Infallible> {
        Ok(self.find(input))
    }

    #[inline]
    fn collect_incoming_data(
        &mut self,
        data: Chunk<'_>,
        _: &mut Control<'_>,
    ) -> Result<(), Infallible> {
        self.take(&data);
        Ok(())
    }
}

/// A `Channel` that runs a handler with an end of its own.
pub fn own_end_handler(builder: &ChannelBuilder, reader: Reader<'_>) -> u64 {
    let builder = builder.clone().own_end(true);
    ours::run(OwnEnd::default(), &builder, reader, |_| panic!("whole commands")).tally.sum()
}

/// A `Channel` that is asked for messages with an end of its own.
pub fn own_end_messages(builder: &ChannelBuilder, reader: Reader<'_>) -> u64 {
    let mut channel = builder.build(Connection(reader));
    let mut commands = OwnEnd::default();
    complete(async {
        while let Some((step, _)) =
            channel.message(|input| commands.find(input)).await.expect("well-formed")
        {
            commands.take(&step.payload);
        }
    });
    commands.tally.sum()
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

/// The decoder that somebody who needs this command would write, through `FramedRead`.
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

/// A `Bytes` for each argument, in a `Vec`.
#[derive(Debug, Default)]
pub struct VecOfBytes {
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

/// A decoder of any command, through `FramedRead`.
pub fn vec_of_bytes(reader: Reader<'_>) -> u64 {
    let mut tally = Tally::default();
    drain(FramedRead::with_capacity(reader, VecOfBytes::default(), READ), |command| {
        for argument in command.expect("well-formed") {
            tally.frame(&argument);
        }
    });
    tally.sum()
}

/// The same search in a loop of its own: lends whole commands out of the buffer, and looks at one from
/// its beginning again when more of it has come.
pub fn by_hand(input: &[u8], window: &mut Window) -> u64 {
    let mut tally = Tally::default();
    window.clear();
    for read in input.chunks(READ) {
        window.fill(read);
        let (filled, mut at) = (window.filled(), 0);
        loop {
            let (mut arguments, mut count) = ([const { 0..0 }; 4], 0);
            let rest = &filled[at..];
            let end = command(rest, |range| {
                arguments[count] = range;
                count += 1;
            });
            let Some(end) = end.expect("well-formed") else {
                break;
            };
            for argument in &arguments[..count] {
                tally.frame(&rest[argument.clone()]);
            }
            at += end;
        }
        window.consume(at);
    }
    tally.sum()
}

/// Knows all of RESP2, and makes a `Bytes` of each argument.
pub fn redis_protocol(reader: Reader<'_>) -> u64 {
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

/// Commands, and what is to come of them.
#[derive(Debug)]
pub struct Sets {
    pub input: Vec<u8>,
    pub count: usize,
    pub checksum: u64,
}

impl Sets {
    pub fn new(count: usize, shape: Shape) -> Sets {
        let input = input::sets(count, shape);
        let mut tally = Tally::default();
        let mut rest = &*input;
        while !rest.is_empty() {
            let end = command(rest, |argument| tally.frame(&rest[argument]));
            rest = &rest[end.expect("well-formed").expect("whole")..];
        }
        Sets { input, count, checksum: tally.sum() }
    }

    pub fn work<'a>(&self, row: Row<'a>) -> Row<'a> {
        row.work(self.count, "command", self.input.len()).expect(self.checksum)
    }
}
