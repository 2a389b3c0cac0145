use std::future;
use std::mem;
use std::pin::{Pin, pin};
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_core::Stream;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::codec::FramedRead;

use crate::codec::{CodecError, TerminatorCodec};
use crate::framing::event::Event;
use crate::handler::control::{Access, Chunk, Control};
use crate::handler::handler::{Callback, Handler, attend};
use crate::output::{Output, ProducerSink};
use crate::session::channel::{HANDLE_CAPACITY, Shared, lock, poll_outgoing, take_pushed};
use crate::session::close::{ChannelError, CloseReason};
use crate::session::handle::HandleState;
use crate::session::timer::{Timeouts, Timer};

/// Drives a handler from the two halves of a connection that a service already has: the events of a
/// `FramedRead`, and a [`ProducerSink`] for what the handler pushes.
///
/// It is [`Channel::run`](crate::Channel::run) without a channel: no deadlines, and at the end the sink
/// is flushed but closed only if the handler or a handle asked for it.
///
/// ```
/// use asynchat::{Chunk, CloseReason, Control, Handler, ProducerSink, TerminatorCodec};
/// use std::convert::Infallible;
/// use tokio_util::codec::{BytesCodec, FramedRead, FramedWrite};
///
/// struct Shout;
///
/// impl Handler for Shout {
///     type Error = Infallible;
///
///     fn collect_incoming_data(
///         &mut self,
///         data: Chunk<'_>,
///         control: &mut Control<'_>,
///     ) -> Result<(), Infallible> {
///         let _ = control.push(data.to_ascii_uppercase());
///         Ok(())
///     }
///
///     async fn found_terminator(&mut self, control: &mut Control<'_>) -> Result<(), Infallible> {
///         let _ = control.push("!\n");
///         Ok(())
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let mut reader = FramedRead::new(&b"hello\nworld\n"[..], TerminatorCodec::new(b"\n"));
/// let mut sink = ProducerSink::new(FramedWrite::new(Vec::new(), BytesCodec::new()));
/// let (_, reason) = asynchat::drive(&mut reader, &mut sink, Shout).await;
/// assert!(matches!(reason, CloseReason::PeerClosed));
/// assert_eq!(sink.get_ref().get_ref(), b"HELLO!\nWORLD!\n");
/// # }
/// ```
///
/// # Cancellation safety
///
/// If the future is dropped, the handler is dropped with it, and a callback that was waiting. Reader and
/// sink can go on: no other input is lost, nor output.
pub async fn drive<R, W, E, H>(
    reader: &mut FramedRead<R, TerminatorCodec>,
    sink: &mut ProducerSink<W, E>,
    mut handler: H,
) -> (H, CloseReason<H::Error>)
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
    H: Handler,
{
    let (writer, output) = sink.parts();
    let mut driver = Driver {
        reader,
        writer,
        lent: Lent::new(output),
        timer: Timer::new(&Timeouts::NONE.into()),
    };
    let reason = match driver.dispatch(&mut handler).await {
        Ok(reason) | Err(reason) => driver.wind_up(reason).await,
    };
    drop(driver);
    handler.closed(&reason);
    (handler, reason)
}

struct Driver<'a, R, W> {
    reader: &'a mut FramedRead<R, TerminatorCodec>,
    writer: &'a mut W,
    lent: Lent<'a>,
    timer: Timer,
}

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> Driver<'_, R, W> {
    async fn dispatch<H: Handler>(
        &mut self,
        handler: &mut H,
    ) -> Result<CloseReason<H::Error>, CloseReason<H::Error>> {
        let mut truncated = false;
        loop {
            match future::poll_fn(|cx| self.poll_event(cx)).await? {
                Some(Event::Chunk(bytes)) => {
                    self.collect(handler, &bytes)?;
                    if self.reader.decoder_mut().framer_mut().has_owed()
                        && self.shared().output.is_open()
                    {
                        // The end of the frame comes before all else.
                        continue;
                    }
                }
                Some(Event::Terminator) => self.call(handler, Callback::FoundTerminator).await?,
                Some(Event::Overlong | Event::WrongEnd) => {
                    self.call(handler, Callback::Overlong).await?
                }
                Some(Event::Truncated) => truncated = true,
                None => {
                    self.call(handler, Callback::Eof { truncated }).await?;
                    self.shared().take_wish()?;
                    return Ok(match truncated {
                        _ if !self.shared().output.is_open() => CloseReason::Done,
                        true => CloseReason::Truncated,
                        false => CloseReason::PeerClosed,
                    });
                }
            }
            self.shared().take_wish()?;
        }
    }

    fn shared(&mut self) -> &mut Shared {
        self.lent.shared.get_mut().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next event, unless the output is too full for one.
    fn poll_event<E>(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Event<Bytes>>, CloseReason<E>>> {
        let shared = self.lent.shared.get_mut().unwrap_or_else(PoisonError::into_inner);
        let failed = |error: ChannelError| CloseReason::Error(error);
        loop {
            if take_pushed(shared, cx) == HandleState::Aborted {
                return Poll::Ready(Err(CloseReason::Aborted));
            }
            if !shared.output.is_open() {
                return Poll::Ready(Err(CloseReason::Done));
            }
            if !shared.output.is_full() {
                break;
            }
            // What other tasks push then waits, and is looked at again.
            let writer = Pin::new(&mut *self.writer);
            ready!(shared.output.poll_ready(cx, writer)).map_err(|error| failed(error.into()))?;
        }
        match Pin::new(&mut *self.reader).poll_next(cx) {
            Poll::Ready(Some(Ok(event))) => Poll::Ready(Ok(Some(event))),
            Poll::Ready(Some(Err(CodecError::Frame(error)))) => {
                Poll::Ready(Err(failed(ChannelError::Frame(error))))
            }
            Poll::Ready(Some(Err(error))) => {
                Poll::Ready(Err(failed(ChannelError::Io(error.into()))))
            }
            Poll::Ready(None) => Poll::Ready(Ok(None)),
            Poll::Pending => {
                // The input is drained: now is the time to flush.
                match poll_outgoing(self.writer, &mut self.timer, shared, cx) {
                    Err(stop) => Poll::Ready(Err(stop.into())),
                    Ok(_) if !shared.output.is_open() => Poll::Ready(Err(CloseReason::Done)),
                    Ok(_) => Poll::Pending,
                }
            }
        }
    }

    fn collect<H: Handler>(
        &mut self,
        handler: &mut H,
        bytes: &Bytes,
    ) -> Result<(), CloseReason<H::Error>> {
        let buffered = self.reader.read_buffer().len();
        let framer = self.reader.decoder_mut().framer_mut();
        let shared = self.lent.shared.get_mut().unwrap_or_else(PoisonError::into_inner);
        let mut control = Control::new(framer, Access::Alone(shared), buffered);
        let collected =
            handler.collect_incoming_data(Chunk::new(bytes, 0, bytes.len()), &mut control);
        let discard = control.discard;
        self.discard_if(discard);
        collected.map_err(CloseReason::Handler)
    }

    async fn call<H: Handler>(
        &mut self,
        handler: &mut H,
        callback: Callback,
    ) -> Result<(), CloseReason<H::Error>> {
        let buffered = self.reader.read_buffer().len();
        let framer = self.reader.decoder_mut().framer_mut();
        let shared = &self.lent.shared;
        let (writer, timer) = (&mut *self.writer, &mut self.timer);
        let mut control = Control::new(framer, Access::Shared(shared), buffered);
        attend(pin!(callback.call(handler, &mut control)), |cx| {
            match poll_outgoing(writer, timer, &mut lock(shared), cx) {
                Err(stop) => Poll::Ready(stop),
                Ok(_) => Poll::Pending,
            }
        })
        .await?;
        let discard = control.discard;
        self.discard_if(discard);
        Ok(())
    }

    fn discard_if(&mut self, discard: bool) {
        if discard {
            let mut buffer = mem::take(self.reader.read_buffer_mut());
            self.reader.decoder_mut().discard(&mut buffer);
            *self.reader.read_buffer_mut() = buffer;
        }
    }

    /// Writes what the handler has pushed, and closes if it asked for that.
    async fn wind_up<E>(&mut self, reason: CloseReason<E>) -> CloseReason<E> {
        let shared = self.lent.shared.get_mut().unwrap_or_else(PoisonError::into_inner);
        shared.take_last();
        let mut aborted = matches!(reason, CloseReason::Aborted) || shared.is_aborted();
        let written = future::poll_fn(|cx| {
            aborted |= shared.poll_aborted(cx);
            if aborted {
                shared.output.abort();
            }
            match shared.output.poll_flush(cx, Pin::new(&mut *self.writer)) {
                // The shutdown is not waited for.
                Poll::Pending if aborted => Poll::Ready(Ok(())),
                written => written,
            }
        })
        .await;
        match reason {
            CloseReason::PeerClosed
            | CloseReason::Truncated
            | CloseReason::Done
            | CloseReason::Upgrade => match written {
                _ if aborted => CloseReason::Aborted,
                Ok(()) => reason,
                Err(error) => CloseReason::Error(error.into()),
            },
            _ => reason,
        }
    }
}

/// A sink's queue, lent to where a waiting callback can reach it too, and given back when dropped.
struct Lent<'a> {
    owner: &'a mut Output,
    shared: Mutex<Shared>,
}

impl<'a> Lent<'a> {
    fn new(owner: &'a mut Output) -> Self {
        let output = mem::replace(owner, Output::new());
        let shared = Shared::new(output, Timeouts::NONE, HANDLE_CAPACITY);
        Lent { owner, shared: Mutex::new(shared) }
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        let shared = self.shared.get_mut().unwrap_or_else(PoisonError::into_inner);
        shared.take_last();
        mem::swap(self.owner, &mut shared.output);
    }
}
