//! Replays recorded cases of CPython's asynchat, and compares what is sent.

use std::io;
use std::sync::Arc;
use std::task::Poll;

use asynchat::{PushError, SinkError, producer};
use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::Value;

use crate::support::{Did, More, Script, Step, Wakes, drive, poll_once, scripted, sink};

/// Cases whose result differs on purpose, with what is sent here, whether the sink closes, and why.
const DIFFERENT: &[(&str, &[u8], bool, &str)] = &[
    (
        "producer returns b'' first = finished",
        b"never",
        false,
        "an empty item is skipped, it does not end the producer",
    ),
    (
        "falsy producer pops the wrong entry",
        b"abcdzz",
        false,
        "a producer has no truth value: the rest of it is not lost",
    ),
    ("discard cancels a scheduled close", b"", true, "a scheduled close stays"),
];

/// Cases that cannot be expressed here, and why.
const SKIPPED: &[(&str, &str)] =
    &[("push str / None-like TypeError", "what is not bytes does not compile")];

#[test]
fn write_cases_send_the_same_bytes_in_the_same_order_and_end_the_same() {
    let mut seen = 0;
    let mut named = 0;
    for line in include_str!("../data/asynchat-cases.jsonl").lines() {
        let case: Value = serde_json::from_str(line).unwrap();
        let name = case["name"].as_str().unwrap();
        if case["case"].get("out").is_none() {
            continue;
        }
        seen += 1;
        if SKIPPED.iter().any(|(skipped, _)| *skipped == name) {
            named += 1;
            continue;
        }
        let mut expected = recorded(&case["events"]);
        if let Some((_, wire, closed, _)) = DIFFERENT.iter().find(|different| different.0 == name) {
            named += 1;
            let different = (wire.to_vec(), *closed);
            assert_ne!((expected.wire, expected.closed), different, "{name}");
            (expected.wire, expected.closed) = different;
        }
        assert_eq!(replay(&case["case"]), expected, "{name}");
    }
    assert_eq!(seen, 20);
    assert_eq!(named, DIFFERENT.len() + SKIPPED.len());
}

#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    wire: Vec<u8>,
    /// Whether the sink was closed, or has failed.
    closed: bool,
    /// The errno of a failed write.
    errno: Option<i32>,
}

fn recorded(events: &Value) -> Outcome {
    let mut outcome = Outcome { wire: Vec::new(), closed: false, errno: None };
    for event in events.as_array().unwrap() {
        match event[0].as_str().unwrap() {
            "send" => match event[2].as_i64().unwrap() {
                count @ 0.. => {
                    let offered = decode(&event[1]);
                    outcome.wire.extend(&offered[..count as usize]);
                }
                errno => outcome.errno = Some(-errno as i32),
            },
            "close" => outcome.closed = true,
            // "more" records that a producer was asked, "state" what was left, "raise" the IndexError of the falsy
            // producer, "error" the log entry of a failed send.
            _ => {}
        }
    }
    outcome
}

fn replay(case: &Value) -> Outcome {
    let accept = case["accept"].as_array().into_iter().flatten();
    let steps = accept.map(|count| match count.as_i64().unwrap() {
        0 => Step::Pending,
        count @ 1.. => Step::Take(count as usize),
        errno => Step::Fail(io::Error::from_raw_os_error(-errno as i32).kind()),
    });
    let errno = case["accept"].as_array().and_then(|accept| {
        let errno = accept.iter().find_map(|n| n.as_i64().filter(|n| *n < 0));
        errno.map(|errno| -errno as i32)
    });
    let mut sink = sink(Script::new(steps));
    if let Some(size) = case["out_size"].as_u64() {
        sink.set_block_size(size as usize);
    }
    let wakes = Arc::new(Wakes::default());
    let mut connected = true;
    let mut failure = None;
    for op in case["out"].as_array().unwrap() {
        let mut sends = true;
        match op[0].as_str().unwrap() {
            "push" => {
                let item = decode(&op[1]);
                let pushed = sink.push(item.clone());
                // A push after the close is handed back, not lost.
                let refused = sink.is_closed().then_some(item);
                assert_eq!(pushed.err().map(PushError::into_inner), refused);
            }
            "producer" | "producer_falsy" => {
                let items = op[1].as_array().unwrap().iter().map(decode);
                sink.push_with_producer(scripted(items.map(More::Item))).unwrap();
            }
            "simple" => {
                let data = decode(&op[1]);
                let size = op[2].as_u64().unwrap() as usize;
                let reader = producer::reader(io::Cursor::new(data)).with_block_size(size);
                sink.push_with_producer(reader).unwrap();
            }
            "close_when_done" | "producer_none" => {
                sink.close_when_done();
                // As in the recording, the close waits until there is something else to do.
                sends = op[0] == "producer_none";
            }
            "discard" => {
                sink.discard_buffers();
                sends = false;
            }
            "start_disconnected" => connected = false,
            "connect" => connected = true,
            "write" => {}
            "drain" => {
                if let Err(error) = drive!(sink.flush()).0 {
                    failure.get_or_insert(error);
                }
            }
            odd => panic!("unknown operation {odd}"),
        }
        if sends && connected {
            if let Poll::Ready(Err(error)) = poll_once(&wakes, sink.flush()) {
                failure.get_or_insert(error);
            }
        }
    }
    let failed = match &failure {
        None => None,
        Some(SinkError::Write(error)) => {
            assert!(sink.is_empty() && sink.is_closed());
            assert_eq!(io::Error::from_raw_os_error(errno.unwrap()).kind(), error.kind());
            errno
        }
        Some(other) => panic!("{other:?}"),
    };
    let script = sink.get_ref().get_ref();
    Outcome {
        wire: script.wire.clone(),
        closed: script.log.contains(&Did::Shutdown) || failure.is_some(),
        errno: failed,
    }
}

fn decode(text: &Value) -> Vec<u8> {
    BASE64_STANDARD.decode(text.as_str().unwrap()).unwrap()
}
