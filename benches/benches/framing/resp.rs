//! Pipelined RESP commands: `*3`, and three times a length, that many bytes, and a line's end.

use std::io;
use std::ops::Range;

use asynchat::{Event, Framer, Limit, TerminatorCodec};
use asynchat_benches::io::{READ, Reader, Window, drain, drain_with};
use asynchat_benches::resp::{CRLF, Commands, Next, Sets, command, key_and_value};
use asynchat_benches::{Bench, Tally};
use bytes::{Bytes, BytesMut};
use redis_protocol::codec::Resp2;
use redis_protocol::resp2::types::BytesFrame;
use tokio_util::codec::{Decoder, FramedRead};

fn framer_counted(input: &[u8], window: &mut Window) -> u64 {
    let mut framer = Framer::new(CRLF);
    let mut commands = Commands::default();
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
    let mut commands = Commands::default();
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
    let mut commands = Commands::default();
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
    let mut commands = Commands::default();
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
