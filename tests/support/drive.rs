//! Puts all decoders behind one interface, [`Decoding`], and runs scripts through it.

#[cfg(feature = "tokio")]
use asynchat::{CodecError, TerminatorCodec};
use asynchat::{Event, FrameError, Framer, Limit, Step, Terminator};
#[cfg(feature = "tokio")]
use bytes::{Bytes, BytesMut};
#[cfg(feature = "tokio")]
use tokio_util::codec::{Decoder, FramedRead};

use super::model::Returned;
use super::{End, Log, Script, Turn, push};

/// What an application can set on a decoder, and ask it.
pub trait Control {
    fn set_terminator(&mut self, terminator: Terminator);
    fn set_limit(&mut self, limit: Limit);
    fn resume(&mut self);
    fn set_whole_frames(&mut self, whole: bool);
    fn limit(&self) -> Limit;
    fn whole_frames(&self) -> bool;
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
            fn set_whole_frames(&mut self, whole: bool) {
                self.set_whole_frames(whole);
            }
            fn limit(&self) -> Limit {
                self.limit()
            }
            fn whole_frames(&self) -> bool {
                self.whole_frames()
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
#[cfg(feature = "tokio")]
control!(TerminatorCodec<Step<Bytes>>);

/// A decoder with its read buffer.
pub trait Decoding {
    fn name(&self) -> &'static str;
    fn control(&mut self) -> &mut dyn Control;
    fn feed(&mut self, bytes: &[u8]);
    fn call(&mut self, eof: bool) -> Returned;
    /// Whether the next call returns the second half of a step, which has been decided already. Nothing else may be
    /// done before that call.
    fn owes(&self) -> bool {
        false
    }
    /// What is in the buffer. After a call that wanted more input, these are the withheld bytes.
    fn buffered(&self) -> &[u8];
    fn discard(&mut self);
    /// Takes another buffer, with these bytes. Returns whether the decoder was told.
    fn replace(&mut self, bytes: &[u8]) -> bool;
}

/// How a decoder is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// By `next`. What is consumed is taken once per read.
    Events,
    /// By `next`. What is consumed is taken after each event.
    Eager,
    Steps,
    /// By `next` and `step` in turn.
    Mixed,
}

/// A `Framer` with its buffer.
pub struct Lent {
    pub framer: Framer,
    pub buffer: Vec<u8>,
    pub how: How,
    calls: usize,
    owed: Option<asynchat::End>,
}

impl Lent {
    pub fn new(terminator: Terminator, limit: Limit, how: How) -> Self {
        let framer = Framer::new(terminator).with_limit(limit);
        Lent { framer, buffer: Vec::new(), how, calls: 0, owed: None }
    }
}

impl Decoding for Lent {
    fn name(&self) -> &'static str {
        match self.how {
            How::Events => "Framer",
            How::Eager => "Framer, taking after each event",
            How::Steps => "Framer, in steps",
            How::Mixed => "Framer, in steps and events",
        }
    }

    fn control(&mut self) -> &mut dyn Control {
        &mut self.framer
    }

    fn feed(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    fn call(&mut self, eof: bool) -> Returned {
        if let Some(end) = self.owed.take() {
            return Ok(Some(end.into()));
        }
        self.calls += 1;
        let steps = match self.how {
            How::Events | How::Eager => false,
            How::Steps => true,
            How::Mixed => self.calls % 3 == 0,
        };
        let event = if steps {
            let step = match eof {
                false => self.framer.step(&self.buffer)?,
                true => self.framer.step_eof(&self.buffer)?,
            };
            step.map(|step| split(step.map(<[u8]>::to_vec), &mut self.owed))
        } else {
            let event = match eof {
                false => self.framer.next(&self.buffer)?,
                true => self.framer.next_eof(&self.buffer)?,
            };
            event.map(|event| event.map(<[u8]>::to_vec))
        };
        if event.is_none() || self.how != How::Events {
            self.buffer.drain(..self.framer.take_consumed());
        }
        Ok(event)
    }

    fn owes(&self) -> bool {
        self.owed.is_some()
    }

    fn buffered(&self) -> &[u8] {
        &self.buffer
    }

    fn discard(&mut self) {
        self.buffer.clear();
        self.framer.discard();
    }

    fn replace(&mut self, bytes: &[u8]) -> bool {
        // The docs of `Framer` require that it is told.
        self.discard();
        self.feed(bytes);
        true
    }
}

/// A step as two events, of which the second is kept.
fn split(step: Step<Vec<u8>>, owed: &mut Option<asynchat::End>) -> Event<Vec<u8>> {
    match step.end {
        Some(end) if step.payload.is_empty() => end.into(),
        end => {
            *owed = end;
            Event::Chunk(step.payload)
        }
    }
}

/// A `TerminatorCodec` used as a `Decoder`.
#[cfg(feature = "tokio")]
pub struct Owned<I = Event<Bytes>> {
    pub codec: TerminatorCodec<I>,
    pub buffer: BytesMut,
    /// The buffers before this one. They are kept because the codec would have to be told if other bytes took the exact
    /// place of one in memory.
    gone: Vec<BytesMut>,
    owed: Option<asynchat::End>,
}

#[cfg(feature = "tokio")]
impl Owned {
    pub fn new(terminator: Terminator, limit: Limit) -> Self {
        let codec = TerminatorCodec::new(terminator).with_limit(limit);
        Owned { codec, buffer: BytesMut::new(), gone: Vec::new(), owed: None }
    }

    pub fn steps(self) -> Owned<Step<Bytes>> {
        Owned { codec: self.codec.steps(), buffer: self.buffer, gone: self.gone, owed: None }
    }
}

#[cfg(feature = "tokio")]
impl<I> Owned<I> {
    /// Takes another buffer, with these bytes and room for some more.
    fn go_on_with(&mut self, bytes: &[u8]) {
        let mut buffer = BytesMut::with_capacity(bytes.len() + 64);
        buffer.extend_from_slice(bytes);
        self.gone.push(std::mem::replace(&mut self.buffer, buffer));
    }

    fn put(&mut self, bytes: &[u8]) {
        if self.buffer.capacity() - self.buffer.len() < bytes.len() {
            let all = [&self.buffer[..], bytes].concat();
            self.go_on_with(&all);
        } else {
            self.buffer.extend_from_slice(bytes);
        }
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
        self.put(bytes);
    }

    fn call(&mut self, eof: bool) -> Returned {
        let event = if eof {
            self.codec.decode_eof(&mut self.buffer)
        } else {
            self.codec.decode(&mut self.buffer)
        };
        Ok(event.map_err(failed)?.map(|event| event.map(|bytes| bytes.to_vec())))
    }

    fn buffered(&self) -> &[u8] {
        &self.buffer
    }

    fn discard(&mut self) {
        self.codec.discard(&mut self.buffer);
    }

    fn replace(&mut self, bytes: &[u8]) -> bool {
        self.go_on_with(bytes);
        false
    }
}

#[cfg(feature = "tokio")]
impl Decoding for Owned<Step<Bytes>> {
    fn name(&self) -> &'static str {
        "TerminatorCodec, in steps"
    }

    fn control(&mut self) -> &mut dyn Control {
        &mut self.codec
    }

    fn feed(&mut self, bytes: &[u8]) {
        self.put(bytes);
    }

    fn call(&mut self, eof: bool) -> Returned {
        if let Some(end) = self.owed.take() {
            return Ok(Some(end.into()));
        }
        let step = if eof {
            self.codec.decode_eof(&mut self.buffer)
        } else {
            self.codec.decode(&mut self.buffer)
        };
        let step = step.map_err(failed)?;
        Ok(step.map(|step| split(step.map(|bytes| bytes.to_vec()), &mut self.owed)))
    }

    fn owes(&self) -> bool {
        self.owed.is_some()
    }

    fn buffered(&self) -> &[u8] {
        &self.buffer
    }

    fn discard(&mut self) {
        self.codec.discard(&mut self.buffer);
    }

    fn replace(&mut self, bytes: &[u8]) -> bool {
        self.go_on_with(bytes);
        false
    }
}

#[cfg(feature = "tokio")]
fn failed(error: CodecError) -> FrameError {
    match error {
        CodecError::Frame(error) => error,
        other => panic!("{other}"),
    }
}

/// All decoders, set up for the beginning of a script.
pub fn decoders(script: &Script) -> Vec<Box<dyn Decoding>> {
    let terminator = || script.terminator.terminator();
    let mut decoders = event_decoders(script);
    decoders.push(Box::new(Lent::new(terminator(), script.limit, How::Steps)));
    #[cfg(feature = "tokio")]
    decoders.push(Box::new(Owned::new(terminator(), script.limit).steps()));
    decoders
}

/// The decoders that decide nothing before they return it, so that anything can be done between any two events.
pub fn event_decoders(script: &Script) -> Vec<Box<dyn Decoding>> {
    let terminator = || script.terminator.terminator();
    vec![
        Box::new(Lent::new(terminator(), script.limit, How::Events)),
        Box::new(Lent::new(terminator(), script.limit, How::Eager)),
        #[cfg(feature = "tokio")]
        Box::new(Owned::new(terminator(), script.limit)),
    ]
}

/// Does what the script says at an event, and records the event.
struct Actor<'a> {
    turns: std::slice::Iter<'a, Turn>,
    log: Vec<Log>,
    /// How many more events may come. A decoder that yields events for ever fails the test.
    fuel: usize,
}

impl<'a> Actor<'a> {
    fn new(script: &'a Script, input: usize) -> Self {
        let fuel = 4 * input + 4 * script.turns.len() + 64;
        Actor { turns: script.turns.iter(), log: Vec::new(), fuel }
    }

    /// Returns false when the stream has failed.
    fn act(
        &mut self,
        returned: Result<Event<Vec<u8>>, FrameError>,
        control: &mut dyn Control,
    ) -> bool {
        self.fuel = self.fuel.checked_sub(1).expect("an end of the events");
        let entry = match returned {
            Ok(Event::Chunk(chunk)) => {
                assert!(!chunk.is_empty(), "a chunk is never empty");
                Log::Data(chunk)
            }
            Ok(Event::Terminator) => Log::Terminator(control.matched()),
            Ok(Event::Overlong) => Log::Overlong,
            Ok(Event::Truncated) => Log::Truncated,
            Ok(Event::WrongEnd) => Log::WrongEnd,
            Err(FrameError::Overlong(max)) => Log::Failed(max),
            Err(FrameError::WrongEnd) => Log::FailedWrongEnd,
            Err(other) => panic!("{other}"),
        };
        let failed = matches!(entry, Log::Failed(_) | Log::FailedWrongEnd);
        if matches!(entry, Log::Terminator(_) | Log::Overlong | Log::WrongEnd) {
            let turn = self.turns.next().cloned().unwrap_or_default();
            if turn.resume {
                control.resume();
            }
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
    // The peer's end stays open for as long as there is a handle.
    let mut handle = (end == End::Open).then_some(handle);
    let codec = TerminatorCodec::new(script.terminator.terminator()).with_limit(script.limit);
    let mut framed = tokio_test::task::spawn(FramedRead::new(io, codec));
    while let Poll::Ready(Some(returned)) = framed.poll_next() {
        let event = returned.map(|event| event.map(|bytes| bytes.to_vec()));
        let returned = event.map_err(failed);
        if !actor.act(returned, framed.decoder_mut()) {
            drain(&mut framed);
            break;
        }
    }
    handle.take();
    actor.log
}

/// Reads what is left after a failure, because the mock panics if something is not read.
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
