//! Reads from memory as from a socket, in the same way for all competitors.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll, Wake, Waker, ready};

use futures::Stream;
use tokio::io::{AsyncRead, ReadBuf};

/// How many bytes one read returns, where nothing else is said.
pub const READ: usize = 64 * 1024;

/// How many bytes are copied at once. `memcpy` may leave larger copies to the processor's string instructions, whose
/// speed depends on the two addresses, and these differ between competitors by chance.
const PIECE: usize = 3 * 1024;

/// Reads from a slice, with a limit on the bytes of one read.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    input: &'a [u8],
    most: usize,
    /// The input to begin anew with when `input` is used up, and how many more times.
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

    /// Reads the same input several times. So an input larger than the processor's cache is read out of the cache.
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

/// The input buffer of a caller without a runtime: reads are appended, consumed bytes are taken off the front, and
/// when there is no more room behind the rest, it is moved to the front.
#[derive(Clone, Debug)]
pub struct Window {
    data: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Window {
    /// A buffer with room for so many bytes.
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

    /// The bytes that were read and are not consumed yet.
    #[inline]
    pub fn filled(&self) -> &[u8] {
        &self.data[self.start..self.end]
    }

    /// Takes `n` bytes off the front.
    #[inline]
    pub fn consume(&mut self, n: usize) {
        self.start += n;
        assert!(self.start <= self.end, "consumed more than there was");
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
        }
    }

    /// Drops all bytes.
    pub fn clear(&mut self) {
        self.start = 0;
        self.end = 0;
    }
}

/// Takes every item from a stream that never has to wait.
///
/// # Panics
///
/// Panics if it does wait.
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

/// Takes every item from a stream that never has to wait. `each` also gets the stream, to set its terminator, say.
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

/// Runs a future that never has to wait.
///
/// # Panics
///
/// Panics if it does wait.
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

/// Polls until the result is there. What is polled may return `Pending` only to yield, and then must wake its task.
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
