//! Drivers: the decoders behind one interface.

#[cfg(feature = "tokio")]
use asynchat::{CodecError, TerminatorCodec};
use asynchat::{Event, FrameError, Framer, Limit, Terminator};
#[cfg(feature = "tokio")]
use bytes::{Bytes, BytesMut};
#[cfg(feature = "tokio")]
use tokio_util::codec::{Decoder, FramedRead};

use super::model::Returned;
use super::{End, Log, Script, Turn, push};

/// What an application can set and ask.
pub trait Control {
    fn set_terminator(&mut self, terminator: Terminator);
    fn set_limit(&mut self, limit: Limit);
    fn resume(&mut self);
    fn terminator(&self) -> Terminator;
    fn is_mid_frame(&self) -> bool;
    fn matched(&self) -> usize;
}

macro_rules! control {
    ($decoder:ty) => {
        impl Control for $decoder {
            fn set_terminator(&mut self, terminator: Terminator) {
                self.set_terminator(terminator);
            }
            fn set_limit(&mut self, limit: Limit) {
                self.set_limit(limit);
            }
            fn resume(&mut self) {
                self.resume();
            }
            fn terminator(&self) -> Terminator {
                self.terminator()
            }
            fn is_mid_frame(&self) -> bool {
                self.is_mid_frame()
            }
            fn matched(&self) -> usize {
                self.matched()
            }
        }
    };
}

control!(Framer);
#[cfg(feature = "tokio")]
control!(TerminatorCodec);

/// A decoder with its read buffer.
pub trait Decoding {
    fn name(&self) -> &'static str;
    fn control(&mut self) -> &mut dyn Control;
    fn feed(&mut self, bytes: &[u8]);
    fn call(&mut self, eof: bool) -> Returned;
    /// What is in the buffer: after a call that wanted more, what is withheld.
    fn buffered(&self) -> &[u8];
    fn discard(&mut self);
}

/// A `Framer`, used as documented: what is consumed is taken once per read.
pub struct Lent {
    pub framer: Framer,
    pub buffer: Vec<u8>,
    /// Takes it after each event instead.
    pub eager: bool,
}

impl Lent {
    pub fn new(terminator: Terminator, limit: Limit, eager: bool) -> Self {
        let framer = Framer::new(terminator).with_limit(limit);
        Lent { framer, buffer: Vec::new(), eager }
    }
}

impl Decoding for Lent {
    fn name(&self) -> &'static str {
        if self.eager { "Framer, taking after each event" } else { "Framer" }
    }

    fn control(&mut self) -> &mut dyn Control {
        &mut self.framer
    }

    fn feed(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    fn call(&mut self, eof: bool) -> Returned {
        let event =
            if eof { self.framer.next_eof(&self.buffer) } else { self.framer.next(&self.buffer) };
        let event = event.map_err(failed)?.map(|event| event.map(<[u8]>::to_vec));
        if event.is_none() || self.eager {
            self.buffer.drain(..self.framer.take_consumed());
        }
        Ok(event)
    }

    fn buffered(&self) -> &[u8] {
        &self.buffer
    }

    fn discard(&mut self) {
        self.buffer.clear();
        self.framer.discard();
    }
}

/// A `TerminatorCodec` used as a `Decoder`.
#[cfg(feature = "tokio")]
pub struct Owned {
    pub codec: TerminatorCodec,
    pub buffer: BytesMut,
}

#[cfg(feature = "tokio")]
impl Owned {
    pub fn new(terminator: Terminator, limit: Limit) -> Self {
        let codec = TerminatorCodec::new(terminator).with_limit(limit);
        Owned { codec, buffer: BytesMut::new() }
    }
}

#[cfg(feature = "tokio")]
impl Decoding for Owned {
    fn name(&self) -> &'static str {
        "TerminatorCodec"
    }

    fn control(&mut self) -> &mut dyn Control {
        &mut self.codec
    }

    fn feed(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    fn call(&mut self, eof: bool) -> Returned {
        let event = if eof {
            self.codec.decode_eof(&mut self.buffer)
        } else {
            self.codec.decode(&mut self.buffer)
        };
        owned(event)
    }

    fn buffered(&self) -> &[u8] {
        &self.buffer
    }

    fn discard(&mut self) {
        self.codec.discard(&mut self.buffer);
    }
}

/// The limit that was passed.
fn failed(error: FrameError) -> u64 {
    match error {
        FrameError::Overlong(max) => max,
        other => panic!("{other}"),
    }
}

#[cfg(feature = "tokio")]
fn owned(event: Result<Option<Event<Bytes>>, CodecError>) -> Returned {
    match event {
        Ok(event) => Ok(event.map(|event| event.map(|bytes| bytes.to_vec()))),
        Err(CodecError::Frame(error)) => Err(failed(error)),
        Err(other) => panic!("{other}"),
    }
}

/// All of them, at the beginning of a script.
pub fn decoders(script: &Script) -> Vec<Box<dyn Decoding>> {
    let terminator = || script.terminator.terminator();
    vec![
        Box::new(Lent::new(terminator(), script.limit, false)),
        Box::new(Lent::new(terminator(), script.limit, true)),
        #[cfg(feature = "tokio")]
        Box::new(Owned::new(terminator(), script.limit)),
    ]
}

/// Does what the script says at an event, and writes it down.
struct Actor<'a> {
    turns: std::slice::Iter<'a, Turn>,
    log: Vec<Log>,
    /// A decoder that goes on forever fails the test.
    fuel: usize,
}

impl<'a> Actor<'a> {
    fn new(script: &'a Script, input: usize) -> Self {
        let fuel = 4 * input + 4 * script.turns.len() + 64;
        Actor { turns: script.turns.iter(), log: Vec::new(), fuel }
    }

    /// False when the stream has failed.
    fn act(&mut self, returned: Result<Event<Vec<u8>>, u64>, control: &mut dyn Control) -> bool {
        self.fuel = self.fuel.checked_sub(1).expect("an end of the events");
        let entry = match returned {
            Ok(Event::Chunk(chunk)) => {
                assert!(!chunk.is_empty(), "a chunk is never empty");
                Log::Data(chunk)
            }
            Ok(Event::Terminator) => Log::Terminator(control.matched()),
            Ok(Event::Overlong) => Log::Overlong,
            Ok(Event::Truncated) => Log::Truncated,
            Ok(Event::WrongEnd) => panic!("there is no counted frame with an end"),
            Err(max) => Log::Failed(max),
        };
        let failed = matches!(entry, Log::Failed(_));
        if matches!(entry, Log::Terminator(_) | Log::Overlong) {
            let turn = self.turns.next().cloned().unwrap_or_default();
            if let Some(terminator) = turn.terminator {
                control.set_terminator(terminator.terminator());
            }
            if let Some(limit) = turn.limit {
                control.set_limit(limit);
            }
        }
        push(&mut self.log, entry);
        !failed
    }
}

/// Runs a script through a decoder with these reads.
pub fn run(decoder: &mut dyn Decoding, script: &Script, reads: &[&[u8]], end: End) -> Vec<Log> {
    let mut actor = Actor::new(script, reads.iter().map(|read| read.len()).sum());
    let ends = (end == End::Eof).then_some((&b""[..], true));
    for (read, eof) in reads.iter().map(|read| (*read, false)).chain(ends) {
        decoder.feed(read);
        while let Some(returned) = decoder.call(eof).transpose() {
            if !actor.act(returned, decoder.control()) {
                assert!(decoder.call(eof).is_err(), "a failure stays");
                return actor.log;
            }
        }
    }
    actor.log
}

/// As [`run`], through a `FramedRead` over a scripted peer.
#[cfg(feature = "tokio")]
pub fn run_framed(script: &Script, reads: &[&[u8]], end: End) -> Vec<Log> {
    use std::task::Poll;
    let mut actor = Actor::new(script, reads.iter().map(|read| read.len()).sum());
    let mut builder = tokio_test::io::Builder::new();
    for read in reads.iter().filter(|read| !read.is_empty()) {
        builder.read(read);
    }
    let (io, handle) = builder.build_with_handle();
    // The peer stays for as long as it has a handle.
    let mut handle = (end == End::Open).then_some(handle);
    let codec = TerminatorCodec::new(script.terminator.terminator()).with_limit(script.limit);
    let mut framed = tokio_test::task::spawn(FramedRead::new(io, codec));
    while let Poll::Ready(Some(returned)) = framed.poll_next() {
        let returned = owned(returned.map(Some)).map(|event| event.unwrap());
        if !actor.act(returned, framed.decoder_mut()) {
            drain(&mut framed);
            break;
        }
    }
    handle.take();
    actor.log
}

/// Reads what a failed stream has left: a scripted peer insists.
#[cfg(feature = "tokio")]
fn drain(framed: &mut tokio_test::task::Spawn<FramedRead<tokio_test::io::Mock, TerminatorCodec>>) {
    framed.enter(|cx, mut framed| {
        let mut room = [0; 1024];
        loop {
            let mut read = tokio::io::ReadBuf::new(&mut room);
            let io = std::pin::Pin::new(framed.as_mut().get_mut().get_mut());
            let poll = tokio::io::AsyncRead::poll_read(io, cx, &mut read);
            if poll.is_pending() || read.filled().is_empty() {
                return;
            }
        }
    });
}
