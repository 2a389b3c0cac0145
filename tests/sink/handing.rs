//! What is handed to a sink, and what it hands back: large payloads, errors, sizes, and the writer with the output that
//! is not written yet.

use std::borrow::Cow;
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use asynchat::{Producer, ProducerSink, SinkError, producer};
use bytes::Bytes;
use futures::SinkExt;
use tokio::io::{AsyncRead, ReadBuf};
use tokio_util::codec::{BytesCodec, FramedWrite};

use crate::support::{More, Script, Step, Wakes, drive, poll_once, scripted, sink};

#[test]
fn large_text_and_bytes_go_out_as_they_are_whoever_owns_them() {
    let text = "lärge ".repeat(500);
    let bytes = text.as_bytes();
    let mut sink = sink(Script::new([]));
    sink.push(Cow::Borrowed(text.as_str())).unwrap();
    sink.push(Cow::<str>::Owned(text.clone())).unwrap();
    sink.push(Cow::Borrowed(bytes)).unwrap();
    sink.push(Cow::<[u8]>::Owned(bytes.to_vec())).unwrap();
    assert_eq!(sink.queued_bytes(), 4 * bytes.len());
    drive!(sink.flush()).0.unwrap();
    assert_eq!(sink.get_ref().get_ref().wire, bytes.repeat(4));
}

#[test]
fn what_is_left_of_small_items_is_handed_back_without_what_was_written() {
    let mut sink = sink(Script::new([Step::Take(4), Step::Stuck]));
    sink.push("one ").unwrap();
    sink.push("two ").unwrap();
    assert!(poll_once(&Arc::new(Wakes::default()), sink.flush()).is_pending());
    let framed = sink.into_inner();
    assert_eq!(framed.get_ref().wire, b"one ");
    assert_eq!(framed.write_buffer(), "two ");
}

#[test]
fn a_sink_that_closes_hands_back_what_it_has_not_written() {
    let mut sink = sink(Script::new([]));
    sink.push("last words").unwrap();
    sink.close_when_done();
    assert_eq!(sink.into_inner().write_buffer(), "last words");
}

#[test]
fn a_sink_that_was_aborted_or_has_failed_hands_back_nothing() {
    let mut aborted = sink(Script::new([]));
    aborted.push("dropped").unwrap();
    aborted.abort();
    assert_eq!(aborted.into_inner().write_buffer(), "");

    let mut failed = sink(Script::new([Step::Fail(ErrorKind::BrokenPipe)]));
    failed.push("dropped").unwrap();
    drive!(failed.flush()).0.unwrap_err();
    assert_eq!(failed.into_inner().write_buffer(), "");

    let mut closed = sink(Script::new([]));
    closed.push("written").unwrap();
    drive!(closed.close()).0.unwrap();
    let framed = closed.into_inner();
    assert_eq!(
        (framed.get_ref().wire.as_slice(), framed.write_buffer().len()),
        (&b"written"[..], 0)
    );
}

#[test]
fn a_discard_of_what_the_framed_write_holds_leaves_the_writer_alone() {
    let mut sink = sink(Script::new([]));
    sink.get_mut().write_buffer_mut().extend_from_slice(b"never sent");
    sink.discard_buffers();
    // To discard an empty queue does nothing, in any state, and as often as one likes.
    sink.discard_buffers();
    drive!(sink.flush()).0.unwrap();
    assert_eq!(sink.get_ref().get_ref().polls, 0);
    sink.abort();
    sink.discard_buffers();
    drive!(sink.close()).0.unwrap();
    sink.discard_buffers();
    assert!(sink.is_closed() && sink.is_empty());
    assert_eq!(sink.get_ref().get_ref().polls, 1);
}

/// A reader of a file that yields some bytes and then fails.
struct Disk(&'static [u8]);

impl AsyncRead for Disk {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match std::mem::take(&mut self.0) {
            b"" => Poll::Ready(Err(io::Error::new(ErrorKind::StorageFull, "disk"))),
            bytes => {
                buffer.put_slice(bytes);
                Poll::Ready(Ok(()))
            }
        }
    }
}

#[test]
fn a_reader_that_fails_fails_the_sink() {
    let mut sink = sink(Script::new([]));
    sink.push_with_producer(producer::reader(Disk(b"half a file"))).unwrap();
    sink.push("and what is behind it").unwrap();
    match drive!(sink.flush()).0 {
        Err(SinkError::Producer(error)) => assert_eq!(error.to_string(), "disk"),
        other => panic!("{other:?}"),
    }
    assert!(sink.is_closed() && sink.is_empty());
}

#[test]
fn a_producer_says_what_is_left_of_it() {
    fn next(producer: &mut (impl Producer + Unpin)) -> Option<Bytes> {
        match Pin::new(producer).poll_more(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(item) => item.transpose().unwrap(),
            Poll::Pending => panic!("it has all that there is"),
        }
    }
    let mut joined = Bytes::from("head").chain(Bytes::from("body!").chain(Bytes::from("foot")));
    for (left, item) in [(13, Some("head")), (9, Some("body!")), (4, Some("foot")), (0, None)] {
        assert_eq!(joined.size_hint(), (left, Some(left)));
        let pinned = Pin::new(&mut joined);
        assert_eq!(Producer::size_hint(&pinned), (left, Some(left)), "through a pointer");
        assert_eq!(next(&mut joined), item.map(Bytes::from));
    }
    let mut cut = Bytes::from("abcdef").take(4);
    for (left, item) in [(4, Some("abcd")), (0, None)] {
        assert_eq!(cut.size_hint(), (left, Some(left)));
        assert_eq!(next(&mut cut), item.map(Bytes::from));
    }
    // If the size is not known, no upper bound is made up, and large bounds do not overflow.
    let endless = producer::iter(std::iter::repeat("x")).take(7);
    assert_eq!(endless.size_hint(), (0, Some(7)));
    let largest = Huge.chain(Huge);
    assert_eq!(largest.size_hint(), (u64::MAX, None));
}

/// A producer with the largest size hint.
struct Huge;

impl Producer for Huge {
    fn poll_more(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        Poll::Ready(None)
    }

    fn size_hint(&self) -> (u64, Option<u64>) {
        (u64::MAX, Some(u64::MAX))
    }
}

#[test]
fn as_a_sink_it_returns_errors_of_the_encoders_type() {
    let item = || Bytes::from_static(b"x");
    let mut failing = sink(Script::new([Step::Fail(ErrorKind::ConnectionReset)]));
    failing.start_send_unpin(item()).unwrap();
    let error = drive!(failing.flush_sink()).0.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset, "as the writer made it");
    let error = drive!(failing.close_sink()).0.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BrokenPipe);
    let error = poll_once(&Arc::default(), failing.feed(item()));
    assert!(matches!(error, Poll::Ready(Err(error)) if error.kind() == ErrorKind::BrokenPipe));

    let mut sink = sink(Script::new([]));
    sink.push_with_producer(scripted([More::Fail(ErrorKind::NotFound)])).unwrap();
    let error = drive!(sink.flush_sink()).0.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(matches!(error.get_ref().unwrap().downcast_ref(), Some(SinkError::Producer(_))));
}

/// Calls the methods of `Sink`, which have the same names as methods of the type itself.
trait AsSink {
    async fn flush_sink(&mut self) -> io::Result<()>;
    async fn close_sink(&mut self) -> io::Result<()>;
}

impl AsSink for ProducerSink<Script, BytesCodec> {
    async fn flush_sink(&mut self) -> io::Result<()> {
        SinkExt::<Bytes>::flush(self).await
    }

    async fn close_sink(&mut self) -> io::Result<()> {
        SinkExt::<Bytes>::close(self).await
    }
}

#[test]
fn what_it_is_and_holds_is_in_debug() {
    let mut sink = ProducerSink::new(FramedWrite::new(Vec::new(), BytesCodec::new()));
    let state = |sink: &ProducerSink<Vec<u8>, BytesCodec>| {
        let text = format!("{sink:?}");
        let state = text.split_once("Output { state: ").unwrap().1;
        state.split_once(" }").unwrap().0.trim_end_matches(", ..").to_owned()
    };
    sink.push("secret").unwrap();
    assert!(!format!("{sink:?}").contains("secret"));
    assert_eq!(state(&sink), "Open, queued_bytes: 6, len: 1, written: 0");
    sink.close_when_done();
    assert_eq!(state(&sink), "Closing, queued_bytes: 6, len: 1, written: 0");
    sink.abort();
    assert_eq!(state(&sink), "ShuttingDown, queued_bytes: 0, len: 0, written: 0");
    drive!(sink.close()).0.unwrap();
    assert_eq!(state(&sink), "Closed, queued_bytes: 0, len: 0, written: 0");
    let failing = producer::poll_fn(|_| Poll::Ready(Some(Err(ErrorKind::Other.into()))));
    let mut sink = ProducerSink::new(FramedWrite::new(Vec::new(), BytesCodec::new()));
    assert_eq!(format!("{failing:?}"), "PollFn { .. }");
    sink.push_with_producer(failing).unwrap();
    drive!(sink.flush()).0.unwrap_err();
    assert_eq!(state(&sink), "Failed, queued_bytes: 0, len: 0, written: 0");
}
