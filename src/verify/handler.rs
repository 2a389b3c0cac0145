use std::fmt::Debug;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};

use super::stream::{Stop, connect, lock, until_rest};
use super::{Delivery, Outcomes, Verifier};
use crate::handler::Handler;
use crate::session::{ChannelBuilder, Chunk, CloseReason, Control, Timeout};

/// What a [`Handler`] has made of an input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered {
    /// All that was written to the peer.
    pub output: Vec<u8>,
    /// Why the connection was closed, in the words of the reason's `Debug`. `None` if it was not.
    pub closed: Option<String>,
}

impl Verifier {
    /// Verifies a [`Handler`] on a [`Channel`](crate::Channel) whose peer sends the input. `make` makes a new
    /// handler for each delivery. What is written to the peer and why the connection is closed must be the
    /// same for all. Returns what came of the whole input with its end.
    ///
    /// In the random ways the peer also makes pauses and reads slowly, little by little, so that the output
    /// fills up, and the channel's `run` is dropped now and then while it waits for the peer, and called
    /// again with the same handler.
    ///
    /// ```
    /// use std::convert::Infallible;
    ///
    /// use asynchat::verify::Verifier;
    /// use asynchat::{Channel, Chunk, Control, Handler};
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
    ///         control.push(data.to_ascii_uppercase());
    ///         Ok(())
    ///     }
    ///
    ///     async fn found_terminator(&mut self, control: &mut Control<'_>) -> Result<(), Infallible> {
    ///         control.push("!\n");
    ///         Ok(())
    ///     }
    /// }
    ///
    /// // In a test: #[tokio::test(start_paused = true)]
    /// #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// async fn main() {
    ///     let channel = Channel::builder(b"\n");
    ///     let answered = Verifier::new().handler(&channel, b"hello\nworld\n", || Shout).await;
    ///     assert_eq!(answered.output, b"HELLO!\nWORLD!\n");
    ///     assert_eq!(answered.closed.as_deref(), Some("PeerClosed"));
    /// }
    /// ```
    ///
    /// It needs a runtime with tokio's clock, and that should be paused, as above (tokio's feature `test-util`): the
    /// verifier waits after every input without an end, and on a clock that runs each wait takes real time. See
    /// [`patience`](Self::patience).
    ///
    /// # Panics
    ///
    /// If what is written or the reason depends on how the input is cut, or if the handler panics.
    ///
    /// # Cancellation safety
    ///
    /// It can be dropped at any time.
    pub async fn handler<H>(
        &self,
        channel: &ChannelBuilder,
        input: &[u8],
        make: impl FnMut() -> H,
    ) -> Answered
    where
        H: Handler,
        H::Error: Debug,
    {
        self.handler_state(channel, input, make, drop).await.0
    }

    /// As [`handler`](Self::handler), and what `state` makes of the handler at the end must be the same too: the
    /// mails that it has stored, say, of which its peer learns nothing.
    ///
    /// ```
    /// use std::convert::Infallible;
    ///
    /// use asynchat::verify::Verifier;
    /// use asynchat::{Channel, Chunk, Control, Handler};
    ///
    /// /// Keeps lines, and answers nothing.
    /// #[derive(Default)]
    /// struct Lines {
    ///     line: Vec<u8>,
    ///     all: Vec<Vec<u8>>,
    /// }
    ///
    /// impl Handler for Lines {
    ///     type Error = Infallible;
    ///
    ///     fn collect_incoming_data(
    ///         &mut self,
    ///         data: Chunk<'_>,
    ///         _: &mut Control<'_>,
    ///     ) -> Result<(), Infallible> {
    ///         self.line.extend_from_slice(&data);
    ///         Ok(())
    ///     }
    ///
    ///     async fn found_terminator(&mut self, _: &mut Control<'_>) -> Result<(), Infallible> {
    ///         self.all.push(std::mem::take(&mut self.line));
    ///         Ok(())
    ///     }
    /// }
    ///
    /// // In a test: #[tokio::test(start_paused = true)]
    /// #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// async fn main() {
    ///     let channel = Channel::builder(b"\n");
    ///     let (_, lines) = Verifier::new()
    ///         .handler_state(&channel, b"one\ntwo\n", Lines::default, |handler| handler.all)
    ///         .await;
    ///     assert_eq!(lines, [b"one", b"two"]);
    /// }
    /// ```
    ///
    /// # Panics
    ///
    /// As [`handler`](Self::handler), and if the state depends on how the input is cut.
    ///
    /// # Cancellation safety
    ///
    /// It can be dropped at any time.
    pub async fn handler_state<H, T>(
        &self,
        channel: &ChannelBuilder,
        input: &[u8],
        mut make: impl FnMut() -> H,
        mut state: impl FnMut(H) -> T,
    ) -> (Answered, T)
    where
        H: Handler,
        H::Error: Debug,
        T: PartialEq + Debug,
    {
        let mut outcomes = Outcomes::default();
        for delivery in self.deliveries(input) {
            let outcome = {
                let _named = delivery.named_in_panics();
                let mut handler = make();
                let answered = self.answer(channel, &delivery, &mut handler).await;
                (answered, state(handler))
            };
            outcomes.compare(&delivery, outcome);
        }
        outcomes.of_whole()
    }

    /// Runs one connection until it is closed or has done nothing for a while.
    async fn answer<H>(
        &self,
        channel: &ChannelBuilder,
        delivery: &Delivery,
        handler: &mut H,
    ) -> Answered
    where
        H: Handler,
        H::Error: Debug,
    {
        let (stream, peer) = connect(delivery);
        let mut channel = channel.build(stream);
        let closed = loop {
            let waits = AtomicBool::new(false);
            let run = channel.run(Watched { handler: &mut *handler, waits: &waits });
            let cancels = || !waits.load(Ordering::Relaxed) && lock(&peer).wants_cancellation();
            match until_rest(run, self.patience, cancels).await {
                Stop::Returned((_, reason)) => break Some(format!("{reason:?}")),
                Stop::AtRest => break None,
                Stop::Cancelled => {}
            }
        };
        let output = std::mem::take(&mut lock(&peer).output);
        Answered { output, closed }
    }
}

/// A borrowed handler that notes whether one of its callbacks is waiting. The run is not dropped then, since the
/// callback would be lost.
///
/// A method that is added to [`Handler`] has to be passed on here too.
struct Watched<'a, H> {
    handler: &'a mut H,
    waits: &'a AtomicBool,
}

impl<H: Handler> Handler for Watched<'_, H> {
    type Error = H::Error;

    fn collect_incoming_data(
        &mut self,
        data: Chunk<'_>,
        control: &mut Control<'_>,
    ) -> Result<(), H::Error> {
        self.handler.collect_incoming_data(data, control)
    }

    fn found_terminator(
        &mut self,
        control: &mut Control<'_>,
    ) -> impl Future<Output = Result<(), H::Error>> + Send {
        watch(self.waits, self.handler.found_terminator(control))
    }

    fn overlong(
        &mut self,
        control: &mut Control<'_>,
    ) -> impl Future<Output = Result<(), H::Error>> + Send {
        watch(self.waits, self.handler.overlong(control))
    }

    fn find_end(
        &mut self,
        input: &[u8],
        control: &mut Control<'_>,
    ) -> Result<Option<usize>, H::Error> {
        self.handler.find_end(input, control)
    }

    fn collected(
        &mut self,
        control: &mut Control<'_>,
    ) -> impl Future<Output = Result<(), H::Error>> + Send {
        watch(self.waits, self.handler.collected(control))
    }

    fn wrong_end(
        &mut self,
        control: &mut Control<'_>,
    ) -> impl Future<Output = Result<(), H::Error>> + Send {
        watch(self.waits, self.handler.wrong_end(control))
    }

    fn quiet(&mut self, control: &mut Control<'_>) -> Result<(), H::Error> {
        self.handler.quiet(control)
    }

    fn eof(
        &mut self,
        truncated: bool,
        control: &mut Control<'_>,
    ) -> impl Future<Output = Result<(), H::Error>> + Send {
        watch(self.waits, self.handler.eof(truncated, control))
    }

    fn timed_out(&mut self, timeout: Timeout, control: &mut Control<'_>) -> Result<(), H::Error> {
        self.handler.timed_out(timeout, control)
    }

    fn shutdown(
        &mut self,
        control: &mut Control<'_>,
    ) -> impl Future<Output = Result<(), H::Error>> + Send {
        watch(self.waits, self.handler.shutdown(control))
    }

    fn closed(&mut self, reason: &CloseReason<H::Error>) {
        self.handler.closed(reason);
    }
}

/// Runs a callback, and notes when it has begun and when it has returned.
async fn watch<F: Future>(waits: &AtomicBool, callback: F) -> F::Output {
    waits.store(true, Ordering::Relaxed);
    let output = callback.await;
    waits.store(false, Ordering::Relaxed);
    output
}
