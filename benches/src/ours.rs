//! A function for every way in which this crate frames, written as users of the crate would write it. Each delivers
//! the same frames to a [`Protocol`], so that a workload is written once for all of them.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use asynchat::{
    Channel, ChannelBuilder, Chunk, CloseReason, Control, End, Event, Frame, FrameCodec, Framer,
    Handler, Limit, Step, Terminator, TerminatorCodec, Timeouts,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::codec::FramedRead;

use crate::io::{READ, Reader, Window, complete, drain, drain_with};
use crate::tally::Tally;

/// Anything with a terminator and a limit that can be set in mid-stream.
pub trait Aim {
    fn set_terminator(&mut self, terminator: impl Into<Terminator>);
    fn set_limit(&mut self, limit: Limit);
}

// Always inlined, so that a call costs what a call of the method itself does.
macro_rules! aim {
    ($([$($generic:ident)?] $type:ty;)*) => {$(
        impl$(<$generic>)? Aim for $type {
            #[inline(always)]
            fn set_terminator(&mut self, terminator: impl Into<Terminator>) {
                <$type>::set_terminator(self, terminator);
            }

            #[inline(always)]
            fn set_limit(&mut self, limit: Limit) {
                <$type>::set_limit(self, limit);
            }
        }
    )*};
}

aim! {
    [] Framer;
    [I] TerminatorCodec<I>;
    [] Control<'_>;
    [S] Channel<S>;
}

/// What an application does with the frames, whichever way they are found.
pub trait Protocol {
    /// Takes a piece of a frame.
    fn chunk(&mut self, chunk: &[u8]);

    /// Takes the end of a frame. Another terminator may be set here.
    fn end(&mut self, aim: &mut impl Aim);

    /// Takes a whole frame, where frames are handed over whole.
    #[inline]
    fn frame(&mut self, frame: &[u8], aim: &mut impl Aim) {
        self.chunk(frame);
        self.end(aim);
    }

    /// Is told that the input has ended within a frame, which is a mistake unless the protocol overrides this.
    fn truncated(&self) {
        panic!("whole frames");
    }
}

/// Returns a checksum of what a protocol was told.
pub trait Sum {
    fn sum(&self) -> u64;
}

/// A protocol whose frames all have the same terminator.
#[derive(Debug, Default)]
pub struct Frames(Tally);

impl Protocol for Frames {
    #[inline]
    fn chunk(&mut self, chunk: &[u8]) {
        self.0.chunk(chunk);
    }

    #[inline]
    fn end(&mut self, _: &mut impl Aim) {
        self.0.end();
    }
}

impl Sum for Frames {
    fn sum(&self) -> u64 {
        self.0.sum()
    }
}

/// A delimiter as a terminator.
pub fn delimiter(bytes: &[u8]) -> Terminator {
    Terminator::try_from(bytes).expect("not empty")
}

/// A way to ask a [`Framer`] for what it finds.
pub trait Ask {
    const WHOLE: bool = false;

    /// Asks until nothing more is found in the input.
    fn ask(framer: &mut Framer, input: &[u8], protocol: &mut impl Protocol);
}

/// Event by event.
#[derive(Debug)]
pub struct Events;

impl Ask for Events {
    #[inline]
    fn ask(framer: &mut Framer, input: &[u8], protocol: &mut impl Protocol) {
        while let Some(event) = framer.next(input).expect("no limit") {
            match event {
                Event::Chunk(chunk) => protocol.chunk(chunk),
                Event::Terminator => protocol.end(framer),
                _ => unreachable!("no limit, no end of the input"),
            }
        }
    }
}

/// Step by step: a chunk and the end that follows it come together.
#[derive(Debug)]
pub struct Steps;

impl Ask for Steps {
    #[inline]
    fn ask(framer: &mut Framer, input: &[u8], protocol: &mut impl Protocol) {
        while let Some(Step { payload, end }) = framer.step(input).expect("no limit") {
            if !payload.is_empty() {
                protocol.chunk(payload);
            }
            match end {
                Some(End::Terminator) => protocol.end(framer),
                Some(_) => unreachable!("no limit, no end of the input"),
                None => {}
            }
        }
    }
}

/// Frame by frame: each stays in the buffer until it is complete.
#[derive(Debug)]
pub struct Whole;

impl Ask for Whole {
    const WHOLE: bool = true;

    #[inline]
    fn ask(framer: &mut Framer, input: &[u8], protocol: &mut impl Protocol) {
        while let Some(Step { payload, end }) = framer.step(input).expect("no limit") {
            match end {
                Some(End::Terminator) => protocol.frame(payload, framer),
                _ => unreachable!("whole frames"),
            }
        }
    }
}

/// A [`Framer`] that is given a buffer, which is filled `read` bytes at a time.
pub fn framer<A: Ask, P: Protocol + Sum>(
    mut protocol: P,
    terminator: Terminator,
    input: &[u8],
    read: usize,
    window: &mut Window,
) -> u64 {
    let mut framer = Framer::new(terminator);
    framer.set_whole_frames(A::WHOLE);
    window.clear();
    for read in input.chunks(read) {
        window.fill(read);
        A::ask(&mut framer, window.filled(), &mut protocol);
        window.consume(framer.take_consumed());
    }
    protocol.sum()
}

/// A [`Framer`], event by event, that is given the whole input where it lies in memory. Nothing is copied.
pub fn framer_in_place<P: Protocol + Sum>(
    mut protocol: P,
    terminator: Terminator,
    input: &[u8],
    read: usize,
) -> u64 {
    let mut framer = Framer::new(terminator);
    let (mut start, mut end) = (0, 0);
    while end < input.len() {
        end = input.len().min(end + read);
        Events::ask(&mut framer, &input[start..end], &mut protocol);
        start += framer.take_consumed();
    }
    protocol.sum()
}

/// A [`TerminatorCodec`] through `FramedRead`: each chunk is a `Bytes`.
pub fn terminator_codec<P: Protocol + Sum>(
    mut protocol: P,
    terminator: Terminator,
    reader: Reader<'_>,
) -> u64 {
    let framed = FramedRead::with_capacity(reader, TerminatorCodec::new(terminator), READ);
    drain_with(framed, |framed, event| match event.expect("no limit") {
        Event::Chunk(chunk) => protocol.chunk(&chunk),
        Event::Terminator => protocol.end(framed.decoder_mut()),
        Event::Truncated => protocol.truncated(),
        Event::Overlong | Event::WrongEnd => unreachable!("no limit"),
    });
    protocol.sum()
}

/// A [`TerminatorCodec`], step by step: each piece of payload is a `Bytes`, or each frame if they come `whole`.
pub fn stepping_codec<P: Protocol + Sum>(
    mut protocol: P,
    terminator: Terminator,
    whole: bool,
    reader: Reader<'_>,
) -> u64 {
    let mut codec = TerminatorCodec::new(terminator).steps();
    codec.set_whole_frames(whole);
    drain_with(FramedRead::with_capacity(reader, codec, READ), |framed, step| {
        let Step { payload, end } = step.expect("no limit");
        let is_end = match end {
            Some(End::Terminator) => true,
            Some(End::Truncated) => return protocol.truncated(),
            Some(End::Overlong | End::WrongEnd) => unreachable!("no limit"),
            None => false,
        };
        if whole && is_end {
            return protocol.frame(&payload, framed.decoder_mut());
        }
        if !payload.is_empty() {
            protocol.chunk(&payload);
        }
        if is_end {
            protocol.end(framed.decoder_mut());
        }
    });
    protocol.sum()
}

/// A [`FrameCodec`] through `FramedRead`: each frame is a `Bytes`.
pub fn frame_codec(codec: FrameCodec, reader: Reader<'_>) -> u64 {
    let mut tally = Tally::default();
    drain(FramedRead::with_capacity(reader, codec, READ), |frame| {
        match frame.expect("well-formed") {
            Frame::Complete(frame) => tally.frame(&frame),
            Frame::Overlong(_) | Frame::Truncated(_) => unreachable!("short and whole frames"),
        }
    });
    tally.sum()
}

/// A `BatchCodec` through `FramedRead`: all complete frames of a read are one item.
pub fn batch_codec(codec: FrameCodec, reader: Reader<'_>) -> u64 {
    let mut tally = Tally::default();
    drain(FramedRead::with_capacity(reader, codec.batched(), READ), |frames| {
        match frames.expect("well-formed") {
            Frame::Complete(batch) => batch.iter().for_each(|frame| tally.frame(frame)),
            Frame::Overlong(_) | Frame::Truncated(_) => unreachable!("short and whole frames"),
        }
    });
    tally.sum()
}

/// A connection that reads from memory and is not written to.
#[derive(Clone, Debug)]
pub struct Connection<'a>(pub Reader<'a>);

impl AsyncRead for Connection<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection<'_> {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        unreachable!("nothing is pushed")
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// A channel without limit and deadlines, as the peers have none.
pub fn plain(terminator: Terminator) -> ChannelBuilder {
    Channel::builder(terminator).limit(Limit::Unlimited).timeouts(Timeouts::NONE)
}

/// A [`Channel`] from which events are pulled with `next`: each chunk is a `Bytes`.
pub fn pulled<P: Protocol + Sum>(
    mut protocol: P,
    builder: &ChannelBuilder,
    reader: Reader<'_>,
) -> u64 {
    drain_with(builder.build(Connection(reader)), |channel, event| {
        match event.expect("well-formed") {
            Event::Chunk(chunk) => protocol.chunk(&chunk),
            Event::Terminator => protocol.end(channel),
            Event::Truncated => protocol.truncated(),
            Event::Overlong | Event::WrongEnd => unreachable!("short frames"),
        }
    });
    protocol.sum()
}

/// A [`Channel`] from which steps are pulled: each piece of payload is lent, or each frame if they come `whole`.
pub fn stepping_channel<P: Protocol + Sum>(
    mut protocol: P,
    builder: &ChannelBuilder,
    whole: bool,
    reader: Reader<'_>,
) -> u64 {
    let mut channel = builder.clone().whole_frames(whole).build(Connection(reader));
    complete(async {
        while let Some((step, mut control)) = channel.step().await.expect("well-formed") {
            let Step { payload, end } = step;
            let is_end = match end {
                Some(End::Terminator) => true,
                Some(End::Truncated) => {
                    protocol.truncated();
                    continue;
                }
                Some(End::Overlong | End::WrongEnd) => unreachable!("short frames"),
                None => false,
            };
            if whole && is_end {
                protocol.frame(&payload, &mut control);
                continue;
            }
            if !payload.is_empty() {
                protocol.chunk(&payload);
            }
            if is_end {
                protocol.end(&mut control);
            }
        }
    });
    protocol.sum()
}

/// A protocol as a [`Handler`].
#[derive(Debug, Default)]
pub struct Handled<P>(pub P);

impl<P: Protocol + Send> Handler for Handled<P> {
    type Error = Infallible;

    #[inline]
    fn collect_incoming_data(
        &mut self,
        data: Chunk<'_>,
        _: &mut Control<'_>,
    ) -> Result<(), Infallible> {
        self.0.chunk(&data);
        Ok(())
    }

    #[inline]
    async fn found_terminator(&mut self, control: &mut Control<'_>) -> Result<(), Infallible> {
        self.0.end(control);
        Ok(())
    }
}

/// A protocol of whole frames as a [`Handler`].
#[derive(Debug, Default)]
pub struct HandledWhole<P>(pub P);

impl<P: Protocol + Send> Handler for HandledWhole<P> {
    type Error = Infallible;

    #[inline]
    fn collect_incoming_data(
        &mut self,
        data: Chunk<'_>,
        control: &mut Control<'_>,
    ) -> Result<(), Infallible> {
        self.0.frame(&data, control);
        Ok(())
    }
}

/// A [`Channel`] that runs a [`Handler`].
pub fn handler<P: Protocol + Sum + Send>(
    protocol: P,
    builder: &ChannelBuilder,
    reader: Reader<'_>,
) -> u64 {
    let Handled(protocol) = run(Handled(protocol), builder, reader, |it| it.0.truncated());
    protocol.sum()
}

/// A [`Channel`] that runs a [`Handler`] of whole frames.
pub fn whole_handler<P: Protocol + Sum + Send>(
    protocol: P,
    builder: &ChannelBuilder,
    reader: Reader<'_>,
) -> u64 {
    let builder = builder.clone().whole_frames(true);
    let HandledWhole(protocol) =
        run(HandledWhole(protocol), &builder, reader, |it| it.0.truncated());
    protocol.sum()
}

/// Runs a handler to the end of the input, and returns it.
pub fn run<H: Handler<Error = Infallible>>(
    handler: H,
    builder: &ChannelBuilder,
    reader: Reader<'_>,
    truncated: impl FnOnce(&H),
) -> H {
    let mut channel = builder.build(Connection(reader));
    let (handler, reason) = complete(channel.run(handler));
    match reason {
        CloseReason::PeerClosed => {}
        CloseReason::Truncated => truncated(&handler),
        other => panic!("{other}"),
    }
    handler
}
