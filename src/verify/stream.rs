use std::collections::VecDeque;
use std::fmt::Debug;
use std::future::{self, Future};
use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, sleep};

use super::delivery::Random;
use super::{Delivery, Outcomes, Verifier};

/// What a function has made of a stream: see [`Verifier::stream`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Streamed<T> {
    /// All that was written to the peer.
    pub output: Vec<u8>,
    /// What the function returned. `None` if it waited for more input, or for a time beyond the verifier's
    /// [patience](Verifier::patience).
    pub returned: Option<T>,
}

impl Verifier {
    /// Verifies an async function that is given the stream to a peer which sends the input: a client, a pulled
    /// [`Channel`](crate::Channel), a `Framed`. What it writes to the peer and what it returns must be the same for
    /// all deliveries. Returns what came of the whole input with its end.
    ///
    /// In the random ways the peer also makes pauses and reads slowly, little by little.
    ///
    /// ```
    /// use asynchat::Channel;
    /// use asynchat::verify::{DeliveryStream, Verifier};
    ///
    /// /// Asks for a name.
    /// async fn name(stream: DeliveryStream) -> Option<String> {
    ///     let mut channel = Channel::builder(b"\n").whole_frames(true).build(stream);
    ///     channel.push("who?\n").ok()?;
    ///     channel.flush().await.ok()?;
    ///     let (line, _) = channel.step().await.ok()??;
    ///     String::from_utf8(line.payload.to_vec()).ok()
    /// }
    ///
    /// // In a test: #[tokio::test(start_paused = true)]
    /// #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// async fn main() {
    ///     let streamed = Verifier::new().stream(b"Ann\n", name).await;
    ///     assert_eq!(streamed.output, b"who?\n");
    ///     assert_eq!(streamed.returned, Some(Some("Ann".into())));
    /// }
    /// ```
    ///
    /// It needs a runtime with tokio's clock, which should be paused: see [`handler`](Self::handler).
    ///
    /// # Panics
    ///
    /// If what is written or returned depends on how the input is cut, or if the function panics.
    ///
    /// # Cancellation safety
    ///
    /// It can be dropped at any time.
    pub async fn stream<T>(
        &self,
        input: &[u8],
        mut function: impl AsyncFnMut(DeliveryStream) -> T,
    ) -> Streamed<T>
    where
        T: PartialEq + Debug,
    {
        let mut outcomes = Outcomes::default();
        for delivery in self.deliveries(input) {
            let outcome = {
                let _named = delivery.named_in_panics();
                let (stream, peer) = connect(&delivery);
                let returned = match until_rest(function(stream), self.patience, || false).await {
                    Stop::Returned(value) => Some(value),
                    Stop::AtRest | Stop::Cancelled => None,
                };
                let output = std::mem::take(&mut lock(&peer).output);
                Streamed { output, returned }
            };
            outcomes.compare(&delivery, outcome);
        }
        outcomes.of_whole()
    }
}

/// Why a future is not polled any more.
pub(super) enum Stop<T> {
    Returned(T),
    /// It has done nothing for as long as there is patience.
    AtRest,
    /// It was cancelled.
    Cancelled,
}

/// Polls a future until it is ready, has done nothing for as long as there is patience, or is cancelled: `is_cancelled`
/// is called each time that the future is pending.
pub(super) async fn until_rest<F: Future>(
    future: F,
    patience: Duration,
    mut is_cancelled: impl FnMut() -> bool,
) -> Stop<F::Output> {
    let mut future = pin!(future);
    let mut rest = pin!(sleep(patience));
    let woken = Arc::new(Woken::default());
    future::poll_fn(|cx| {
        if woken.take(cx) {
            rest.as_mut().reset(Instant::now() + patience);
            let waker = Waker::from(woken.clone());
            if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
                return Poll::Ready(Stop::Returned(output));
            }
            if is_cancelled() {
                return Poll::Ready(Stop::Cancelled);
            }
        }
        rest.as_mut().poll(cx).map(|()| Stop::AtRest)
    })
    .await
}

/// Whether a future was woken since it was last polled, and who polls it.
struct Woken {
    woken: AtomicBool,
    task: Mutex<Option<Waker>>,
}

impl Default for Woken {
    fn default() -> Self {
        Woken { woken: AtomicBool::new(true), task: Mutex::new(None) }
    }
}

impl Woken {
    fn take(&self, cx: &Context<'_>) -> bool {
        *lock(&self.task) = Some(cx.waker().clone());
        self.woken.swap(false, Ordering::AcqRel)
    }
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.woken.store(true, Ordering::Release);
        if let Some(task) = lock(&self.task).take() {
            task.wake();
        }
    }
}

/// The other end of the connection.
#[derive(Debug)]
pub(super) struct Peer {
    reads: VecDeque<Vec<u8>>,
    ends: bool,
    pub(super) output: Vec<u8>,
    /// The source of its random choices, in a random delivery.
    random: Option<Random>,
    /// Whether there was a pause before the next read.
    paused: bool,
    /// Whether the last write, flush or shutdown was pending.
    refused: bool,
    /// Whether the run is to be dropped.
    cancels: bool,
}

impl Peer {
    fn new(delivery: &Delivery) -> Self {
        Peer {
            reads: delivery.reads().map(<[u8]>::to_vec).collect(),
            ends: delivery.ends(),
            output: Vec::new(),
            random: delivery.random(),
            paused: false,
            refused: false,
            cancels: false,
        }
    }

    fn one_in(&mut self, chances: usize) -> bool {
        self.random.as_mut().is_some_and(|random| random.below(chances) == 0)
    }

    /// A pause between two reads; in a random delivery only between some.
    fn pauses(&mut self) -> bool {
        let pauses = !self.paused && (self.random.is_none() || !self.one_in(3));
        self.paused = pauses;
        pauses
    }

    /// Whether a write is to be pending, never twice in a row.
    fn refuses(&mut self) -> bool {
        self.refused = !self.refused && self.one_in(3);
        self.refused
    }

    pub(super) fn wants_cancellation(&mut self) -> bool {
        std::mem::take(&mut self.cancels)
    }
}

/// The stream to a peer that sends a [`Delivery`], read by read: see [`Verifier::stream`].
///
/// What is written to it is kept. If the delivery ends, a read finds the end of the input behind it; if not, it waits
/// for ever. In the random ways there are pauses between reads, and writes take few bytes at a time.
#[derive(Debug)]
pub struct DeliveryStream(Arc<Mutex<Peer>>);

/// Makes a stream from which this delivery is read, and its other end.
pub(super) fn connect(delivery: &Delivery) -> (DeliveryStream, Arc<Mutex<Peer>>) {
    let peer = Arc::new(Mutex::new(Peer::new(delivery)));
    (DeliveryStream(peer.clone()), peer)
}

impl AsyncRead for DeliveryStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        room: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut peer = lock(&self.0);
        // An empty read would be the end of the input, so it is left out.
        while peer.reads.front().is_some_and(Vec::is_empty) {
            peer.reads.pop_front();
        }
        if peer.reads.is_empty() && !peer.ends {
            return Poll::Pending;
        }
        if peer.pauses() {
            peer.cancels = peer.one_in(3);
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if let Some(mut read) = peer.reads.pop_front() {
            let rest = read.split_off(read.len().min(room.remaining()));
            room.put_slice(&read);
            if !rest.is_empty() {
                peer.reads.push_front(rest);
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for DeliveryStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut peer = lock(&self.0);
        if peer.refuses() {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let taken = match &mut peer.random {
            Some(random) => 1 + random.below(bytes.len().min(100)),
            None => bytes.len(),
        };
        let taken = taken.min(bytes.len());
        peer.output.extend_from_slice(&bytes[..taken]);
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if lock(&self.0).refuses() {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(cx)
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
