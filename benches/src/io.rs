//! Reading from memory as from a socket, alike for everybody.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll, Wake, Waker, ready};

use futures::Stream;
use tokio::io::{AsyncRead, ReadBuf};

/// How much one read brings, where nothing else is said.
pub const READ: usize = 64 * 1024;

/// What is copied at once. Large copies may be left to the processor's string instructions, and their
/// speed then hangs on how the two addresses happen to lie, which would differ between competitors.
const PIECE: usize = 3 * 1024;

/// Reads from a slice, at most so many bytes at a time.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    input: &'a [u8],
    most: usize,
    /// What follows the input, so many times.
    again: (&'a [u8], usize),
}

impl<'a> Reader<'a> {
    /// Reads `input`, at most [`READ`] bytes at a time.
    pub fn new(input: &'a [u8]) -> Reader<'a> {
        Reader::dribbling(input, READ)
    }

    /// Reads `input`, at most `most` bytes at a time.
    pub fn dribbling(input: &'a [u8], most: usize) -> Reader<'a> {
        Reader { input, most, again: (&[], 0) }
    }

    /// Reads the same input several times: more than a cache holds, out of one.
    pub fn repeating(input: &'a [u8], times: usize) -> Reader<'a> {
        Reader { input: &[], most: READ, again: (input, times) }
    }
}

impl AsyncRead for Reader<'_> {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let reader = self.get_mut();
        if reader.input.is_empty() && reader.again.1 > 0 {
            reader.again.1 -= 1;
            reader.input = reader.again.0;
        }
        let n = reader.most.min(buf.remaining()).min(reader.input.len());
        let (now, later) = reader.input.split_at(n);
        for piece in now.chunks(PIECE) {
            buf.put_slice(piece);
        }
        reader.input = later;
        Poll::Ready(Ok(()))
    }
}

/// What a caller without a runtime keeps its input in: reads go onto the end, what is done with
/// leaves at the front, and what remains moves to the front when there is no more room behind it.
#[derive(Clone, Debug)]
pub struct Window {
    data: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Window {
    /// Room for so many bytes.
    pub fn new(capacity: usize) -> Window {
        Window { data: vec![0; capacity].into_boxed_slice(), start: 0, end: 0 }
    }

    /// Copies a read in, as a socket would.
    ///
    /// # Panics
    ///
    /// Panics if it doesn't fit beside what remains.
    #[inline]
    pub fn fill(&mut self, read: &[u8]) {
        if self.data.len() - self.end < read.len() {
            self.data.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        for piece in read.chunks(PIECE) {
            let end = self.end + piece.len();
            self.data[self.end..end].copy_from_slice(piece);
            self.end = end;
        }
    }

    /// What came in and is not yet done with.
    #[inline]
    pub fn filled(&self) -> &[u8] {
        &self.data[self.start..self.end]
    }

    /// The first `n` bytes are done with.
    #[inline]
    pub fn consume(&mut self, n: usize) {
        self.start += n;
        assert!(self.start <= self.end, "consumed more than there was");
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
        }
    }

    /// Nothing is there any more.
    pub fn clear(&mut self) {
        self.start = 0;
        self.end = 0;
    }
}

/// Takes every item from a stream that waits for nothing.
///
/// # Panics
///
/// Panics if it does.
#[inline]
pub fn drain<S: Stream>(stream: S, mut each: impl FnMut(S::Item)) {
    let mut stream = pin!(stream);
    poll_on(|cx| {
        while let Some(item) = ready!(stream.as_mut().poll_next(cx)) {
            each(item);
        }
        Poll::Ready(())
    });
}

/// Takes every item from a stream that waits for nothing, and may tell the stream how to go on.
///
/// # Panics
///
/// Panics if it does wait.
#[inline]
pub fn drain_with<S: Stream + Unpin>(mut stream: S, mut each: impl FnMut(&mut S, S::Item)) {
    poll_on(|cx| {
        while let Some(item) = ready!(Pin::new(&mut stream).poll_next(cx)) {
            each(&mut stream, item);
        }
        Poll::Ready(())
    });
}

/// Runs a future that waits for nothing.
///
/// # Panics
///
/// Panics if it does.
pub fn complete<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    poll_on(|cx| future.as_mut().poll(cx))
}

/// Whether a task was woken.
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Relaxed);
    }
}

/// Polls again and again what does not wait, but may let others have their turn: then it is woken.
#[inline]
fn poll_on<T>(mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>) -> T {
    let woken = Arc::new(Woken(AtomicBool::new(false)));
    let waker = Waker::from(Arc::clone(&woken));
    let mut cx = Context::from_waker(&waker);
    loop {
        match poll(&mut cx) {
            Poll::Ready(value) => return value,
            Poll::Pending => assert!(woken.0.swap(false, Relaxed), "it waits, and is not woken"),
        }
    }
}
