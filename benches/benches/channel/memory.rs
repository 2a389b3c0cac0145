//! From memory: what the session costs on top of the framing.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use asynchat::{
    Channel, ChannelBuilder, Chunk, CloseReason, Control, Event, Framer, Handler, Limit, Timeouts,
};
use asynchat_benches::io::{READ, Reader, Window, complete, drain};
use asynchat_benches::lines::{Lines, any_delimiter_codec, lines_codec, read_until};
use asynchat_benches::resp::{CRLF, Commands, Next, Sets, key_and_value};
use asynchat_benches::{Bench, Tally};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Reads from memory, and has nothing written to it.
struct Connection<'a>(Reader<'a>);

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

/// Counts frames that all end alike.
#[derive(Default)]
pub struct Count {
    pub tally: Tally,
}

impl Handler for Count {
    type Error = Infallible;

    #[inline]
    fn collect_incoming_data(
        &mut self,
        data: Chunk<'_>,
        _: &mut Control<'_>,
    ) -> Result<(), Infallible> {
        self.tally.chunk(&data);
        Ok(())
    }

    #[inline]
    async fn found_terminator(&mut self, _: &mut Control<'_>) -> Result<(), Infallible> {
        self.tally.end();
        Ok(())
    }
}

/// Commands, with the end of each argument counted in.
#[derive(Default)]
struct Counted(Commands);

impl Handler for Counted {
    type Error = Infallible;

    #[inline]
    fn collect_incoming_data(
        &mut self,
        data: Chunk<'_>,
        _: &mut Control<'_>,
    ) -> Result<(), Infallible> {
        self.0.counted_chunk(&data);
        Ok(())
    }

    #[inline]
    async fn found_terminator(&mut self, control: &mut Control<'_>) -> Result<(), Infallible> {
        match self.0.counted_end() {
            Some(Next::Count(n)) => control.set_terminator(n),
            Some(Next::Line | Next::End) => control.set_terminator(CRLF),
            None => {}
        }
        Ok(())
    }
}

/// Commands, with the end of each argument a terminator of its own.
#[derive(Default)]
struct Verified(Commands);

impl Handler for Verified {
    type Error = Infallible;

    #[inline]
    fn collect_incoming_data(
        &mut self,
        data: Chunk<'_>,
        _: &mut Control<'_>,
    ) -> Result<(), Infallible> {
        self.0.checked_chunk(&data);
        Ok(())
    }

    #[inline]
    async fn found_terminator(&mut self, control: &mut Control<'_>) -> Result<(), Infallible> {
        match self.0.checked_end() {
            Some(Next::Count(n)) => control.set_terminator(n),
            Some(Next::End) => {
                control.set_limit(Limit::Fail(0));
                control.set_terminator(CRLF);
            }
            Some(Next::Line) => control.set_limit(Limit::Unlimited),
            None => {}
        }
        Ok(())
    }
}

/// Without limit and deadlines, as the peers.
fn plain(end: &[u8]) -> ChannelBuilder {
    let end = asynchat::Terminator::try_from(end).expect("not empty");
    Channel::builder(end).limit(Limit::Unlimited).timeouts(Timeouts::NONE)
}

fn run<H: Handler>(builder: &ChannelBuilder, input: &[u8], handler: H) -> H {
    let mut channel = builder.build(Connection(Reader::new(input)));
    let (handler, reason) = complete(channel.run(handler));
    assert!(matches!(reason, CloseReason::PeerClosed), "whole frames");
    handler
}

fn count(builder: &ChannelBuilder, input: &[u8]) -> u64 {
    run(builder, input, Count::default()).tally.sum()
}

/// The events of a channel, pulled: each chunk is a `Bytes`.
fn pull(builder: &ChannelBuilder, input: &[u8]) -> u64 {
    let mut tally = Tally::default();
    drain(builder.build(Connection(Reader::new(input))), |event| {
        match event.expect("well-formed") {
            Event::Chunk(chunk) => tally.chunk(&chunk),
            Event::Terminator => tally.end(),
            Event::Overlong | Event::WrongEnd | Event::Truncated => {
                unreachable!("short and whole frames")
            }
        }
    });
    tally.sum()
}

/// The same without a session.
fn framer(end: &[u8], input: &[u8], window: &mut Window) -> u64 {
    let mut framer = Framer::new(asynchat::Terminator::try_from(end).expect("not empty"));
    let mut tally = Tally::default();
    window.clear();
    for read in input.chunks(READ) {
        window.fill(read);
        while let Some(event) = framer.next(window.filled()).expect("no limit") {
            match event {
                Event::Chunk(chunk) => tally.chunk(chunk),
                Event::Terminator => tally.end(),
                Event::Overlong | Event::WrongEnd | Event::Truncated => {
                    unreachable!("no limit, no end")
                }
            }
        }
        window.consume(framer.take_consumed());
    }
    tally.sum()
}

pub fn lines(bench: &mut Bench) {
    let size = bench.size(4 << 20, 1 << 18);
    for (name, end, defaults) in [
        ("lines, Handler, no deadlines", &b"\n"[..], false),
        ("lines, Handler, defaults", b"\n", true),
        ("CRLF lines, Handler, no deadlines", b"\r\n", false),
        ("CRLF lines, Handler, defaults", b"\r\n", true),
    ] {
        let Some(row) = bench.row(name) else { continue };
        let lines = Lines::new(size, end);
        let input = &*lines.input;
        let mut builder = plain(end);
        if defaults {
            builder = Channel::builder(asynchat::Terminator::try_from(end).expect("not empty"));
        }
        let mut window = Window::new(2 * READ);
        let row = lines.work(row).with("Channel::run", || count(&builder, input)).against(
            "LinesCodec",
            0.165,
            0.13,
            || lines_codec(Reader::new(input), READ),
        );
        let row = if end == b"\n" {
            row.against("AnyDelimiterCodec", 0.25, 0.20, || any_delimiter_codec(Reader::new(input)))
        } else {
            row
        };
        row.against("read_until", 0.40, 0.33, || read_until(Reader::new(input), end.len()))
            .beside("Framer", || framer(end, input, &mut window))
            .beside("Channel::next", || pull(&builder, input))
            .run();
    }
}

pub fn resp(bench: &mut Bench) {
    let count = bench.size(40_000, 2000);
    for (name, verified) in
        [("RESP SET, Handler, CRLF counted in", false), ("RESP SET, Handler, CRLF verified", true)]
    {
        let Some(row) = bench.row(name) else { continue };
        let sets = Sets::new(count);
        let input = &*sets.input;
        let (plain, defaults) = (plain(CRLF), Channel::builder(CRLF));
        let ours = |builder: &ChannelBuilder| {
            if verified {
                run(builder, input, Verified::default()).0.tally.sum()
            } else {
                run(builder, input, Counted::default()).0.tally.sum()
            }
        };
        sets.work(row)
            .with("Channel::run", || ours(&plain))
            .against("memchr Decoder, key and value", 0.74, 0.50, || {
                key_and_value(Reader::new(input))
            })
            .beside("Channel::run, defaults", || ours(&defaults))
            .run();
    }
}
