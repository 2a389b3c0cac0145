//! Pipelined RESP commands, that is, Redis's: a line `*3`, and three times a line with a length, that many bytes, and a
//! line end. There are several ways to read them with this crate, and the peers.

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

/// Continues a decimal number with more digits. All competitors that parse one use this function.
#[inline]
fn number(so_far: usize, digits: &[u8]) -> Option<usize> {
    digits.iter().try_fold(so_far, |n, &digit| {
        let digit = digit.wrapping_sub(b'0');
        (digit < 10).then_some(())?;
        n.checked_mul(10)?.checked_add(digit.into())
    })
}

/// Receives the arguments of commands, in pieces.
pub trait Arguments: Default {
    fn chunk(&mut self, chunk: &[u8]);

    /// Takes the end of an argument, and whether it is the last of its command.
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

/// How far a command has come. A line, too, may come in several chunks.
#[derive(Debug, Default)]
struct Commands<T> {
    to: T,
    at: At,
    arguments: usize,
    number: usize,
    /// The first byte of the line, once it has come.
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

    /// Ends a line, and returns the number that it held.
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

    /// Ends an argument.
    #[inline]
    fn argument_end(&mut self) {
        self.arguments -= 1;
        self.to.end(self.arguments == 0);
        self.at = if self.arguments == 0 { At::Array } else { At::Length };
    }
}

/// Reads each argument and its line end as one count, two bytes longer than the argument, and checks the line end
/// itself.
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

/// Reads each argument as a count, and its line end as another frame, which must be empty: the limit is 0 bytes.
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

/// Reads each argument as a count with an end of its own, which the framer checks: `Terminator::count_then`.
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
            // After the count the delimiter is in force again by itself, for the line that comes next.
            At::Argument | At::End => commands.argument_end(),
        }
    }

    /// Reads a whole frame, for which less has to be remembered between calls.
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

/// Reads `kind`, a number and a line end from `at` on. Returns the number, and where the next line begins.
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

/// Finds a whole command, calls `argument` with the position of each argument, and returns where the command ends.
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

/// A handler that finds the end of each command itself, with the same [`command`] as the hand-written loop, and
/// remembers where the arguments are.
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

/// A `Channel` that runs a handler which finds the ends itself.
pub fn own_end_handler(builder: &ChannelBuilder, reader: Reader<'_>) -> u64 {
    let builder = builder.clone().own_end(true);
    ours::run(OwnEnd::default(), &builder, reader, |_| panic!("whole commands")).tally.sum()
}

/// A `Channel` from which messages are pulled, whose ends are found by a function of the application.
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

/// A decoder that knows only one command, and makes a `Bytes` of its key and one of its value.
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

/// A decoder of any command, which makes a `Vec` with a `Bytes` for each argument.
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

/// [`VecOfBytes`] through `FramedRead`.
pub fn vec_of_bytes(reader: Reader<'_>) -> u64 {
    let mut tally = Tally::default();
    drain(FramedRead::with_capacity(reader, VecOfBytes::default(), READ), |command| {
        for argument in command.expect("well-formed") {
            tally.frame(&argument);
        }
    });
    tally.sum()
}

/// A hand-written loop over [`command`]: lends whole commands out of the buffer, and searches an incomplete one from
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

/// The crate redis-protocol, which knows all of RESP2 and makes a `Bytes` of each argument.
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

/// Commands, and the checksum that competitors have to return for them.
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
