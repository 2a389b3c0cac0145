//! The message of each error, its source, and the error that it is converted into. Users depend on these by `?` and in
//! their logs.
#![cfg(feature = "tokio")]
#![allow(clippy::unwrap_used)]

use std::error::Error;
use std::io::{self, ErrorKind};

use asynchat::{
    Channel, ChannelError, CodecError, Ending, FrameError, HandleError, ProducerSink, PushError,
    SinkError, Timeout, Timeouts,
};
use tokio::io::duplex;
use tokio_util::codec::{BytesCodec, FramedWrite};

fn disk() -> io::Error {
    io::Error::new(ErrorKind::StorageFull, "disk")
}

/// The message of an error, and those of all its sources.
fn told(error: &dyn Error) -> String {
    let cause = error.source().map(|cause| format!(": {}", told(cause)));
    error.to_string() + &cause.unwrap_or_default()
}

/// Checks that `text` has the messages of the error and its sources, and that it converts into an [`io::Error`] of this
/// kind.
#[track_caller]
fn check<E>(error: E, text: &str, kind: ErrorKind)
where
    E: Error + Into<io::Error>,
{
    assert_eq!(told(&error), text);
    let error: io::Error = error.into();
    assert_eq!(error.kind(), kind, "{text}");
}

#[test]
fn a_channels_error_says_why_and_has_a_kind() {
    check(ChannelError::Io(disk()), "the stream failed: disk", ErrorKind::StorageFull);
    check(ChannelError::Producer(disk()), "a producer failed: disk", ErrorKind::StorageFull);
    let frame = "a frame is not as it should be: frame longer than the limit of 8 bytes";
    check(ChannelError::Frame(FrameError::Overlong(8)), frame, ErrorKind::InvalidData);
    let late = "a deadline has passed: connection idle for too long";
    check(ChannelError::Timeout(Timeout::Idle), late, ErrorKind::TimedOut);
    check(ChannelError::Closed, "the channel is closed", ErrorKind::BrokenPipe);
}

#[test]
fn a_sinks_error_says_why_and_has_a_kind() {
    check(SinkError::Write(disk()), "writing failed: disk", ErrorKind::StorageFull);
    check(SinkError::Producer(disk()), "a producer failed: disk", ErrorKind::StorageFull);
    check(SinkError::Closed, "the sink is closed", ErrorKind::BrokenPipe);
}

#[test]
fn a_codecs_error_says_why_and_has_a_kind() {
    let frame = CodecError::from(FrameError::WrongEnd);
    check(frame, "invalid frame: counted frame without its end", ErrorKind::InvalidData);
    check(CodecError::from(disk()), "transport failed: disk", ErrorKind::StorageFull);
    let text = String::from_utf8(vec![b'a', 0xff]).unwrap_err().utf8_error();
    let utf8 = format!("frame is not UTF-8: {text}");
    check(CodecError::from(text), &utf8, ErrorKind::InvalidData);
    check(CodecError::Injection, "payload contains the delimiter", ErrorKind::InvalidData);
}

#[test]
fn an_error_of_the_stream_is_not_wrapped_and_another_is_found_inside() {
    let turned = [
        io::Error::from(ChannelError::Io(disk())),
        SinkError::Write(disk()).into(),
        CodecError::Io(disk()).into(),
    ];
    for error in turned {
        assert_eq!((error.to_string(), error.kind()), ("disk".into(), ErrorKind::StorageFull));
    }
    let error = io::Error::from(ChannelError::Timeout(Timeout::Frame));
    let inside = error.get_ref().unwrap().downcast_ref();
    assert!(matches!(inside, Some(ChannelError::Timeout(Timeout::Frame))));
    let error = io::Error::from(SinkError::Producer(disk()));
    assert!(matches!(error.get_ref().unwrap().downcast_ref(), Some(SinkError::Producer(_))));
    let error = io::Error::from(CodecError::Injection);
    assert!(matches!(error.get_ref().unwrap().downcast_ref(), Some(CodecError::Injection)));
}

#[test]
fn a_push_that_is_refused_is_whatever_error_the_caller_has() {
    let refused = || -> PushError<&str> {
        let mut sink = ProducerSink::new(FramedWrite::new(Vec::<u8>::new(), BytesCodec::new()));
        sink.close_when_done();
        sink.push("late").unwrap_err()
    };
    assert_eq!((told(&refused()), refused().into_inner()), ("push after close".into(), "late"));
    assert!(matches!(SinkError::from(refused()), SinkError::Closed));
    assert!(matches!(ChannelError::from(refused()), ChannelError::Closed));
    assert_eq!(io::Error::from(refused()).kind(), ErrorKind::BrokenPipe);
    // The item must not be printed, since it may be secret.
    assert_eq!(format!("{:?}", refused()), "PushError { .. }");
    assert_eq!(format!("{:?}", HandleError::Full("secret")), "Full(..)");
    assert_eq!(format!("{:?}", HandleError::Closed("secret")), "Closed(..)");
    assert_eq!(told(&HandleError::Full(())), "the receiver does not keep up");
    assert_eq!(told(&HandleError::Closed(())), "the channel is closed");
}

#[test]
fn each_deadline_has_its_own_words() {
    let all = [
        (Timeout::Idle, "connection idle for too long"),
        (Timeout::Quiet, "peer is quiet"),
        (Timeout::Frame, "frame took too long to arrive"),
        (Timeout::WriteStall, "peer took too long to read"),
        (Timeout::Session, "connection open for too long"),
    ];
    for (timeout, text) in all {
        assert_eq!(told(&timeout), text);
    }
    assert_eq!(
        Ending::new("123456789").unwrap_err().to_string(),
        "the end of a counted frame has 1 to 8 bytes"
    );
}

#[tokio::test(start_paused = true)]
async fn an_upgrade_that_is_refused_says_why_but_not_what_is_pending() {
    let (mut client, server) = duplex(64);
    tokio::io::AsyncWriteExt::write_all(&mut client, b"GO\nsecret").await.unwrap();
    let mut channel = Channel::builder(b"\n").timeouts(Timeouts::NONE).build(server);
    channel.next().await.unwrap().unwrap();
    channel.next().await.unwrap().unwrap();
    let error = channel.upgrade().await.unwrap_err();
    assert_eq!(format!("{error:?}"), "UpgradeError { reason: Pending(6), .. }");
}
