//! Compares the framer and the codec with recorded logs of CPython's asynchat. They do the same with the same reads,
//! except for the differences that are listed here with their reasons.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;

use asynchat::{Event, Limit, Terminator};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;
use support::drive::{How, Lent};
use support::{Decoding, Log, T, data, push};

/// Cases that cannot be expressed with types, or that are not about framing, and why.
const NOT_RUN: &[(&str, &str)] = &[
    ("count -1 raises ValueError, terminator unset", "a count is a u64"),
    ("GUARD raw -1 reinstalled (bpo-11259) loops", "a count is a u64"),
    ("never set: AttributeError -> error+close", "a framer has a terminator from the start"),
    ("str terminator: TypeError -> error+close", "text is converted to bytes, or does not compile"),
    ("empty bytes acts as None", "an empty delimiter is refused by its constructor"),
    ("empty bytes reinstalled", "an empty delimiter is refused by its constructor"),
    ("ECONNRESET = close", "the transport's errors are the transport's"),
    ("EIO = error+close", "the transport's errors are the transport's"),
    ("raise in found_terminator: rest of buffer held", "a framer calls nobody, who could raise"),
];

/// Cases whose result differs on purpose, with the result that is expected here, and why.
fn different() -> BTreeMap<&'static str, (Vec<Log>, &'static str)> {
    let t = || T;
    let zero = "a count of zero fires once";
    let eof = "the end of the input delivers what was withheld, then says that a frame was cut";
    let stands =
        "a terminator set while a chunk is collected stands, and counts from the next byte";
    BTreeMap::from([
        ("count 0 acts as None, no term", (vec![t(), data("abc\r\n")], zero)),
        (
            "switch to 0-length body swallows next request",
            (vec![data("H"), t(), t(), data("GET /"), t()], zero),
        ),
        ("EOF with unterminated data: no term", (vec![data("abc"), Log::Truncated], eof)),
        ("EOF with held prefix: prefix lost", (vec![data("abc\r"), Log::Truncated], eof)),
        ("EOF mid-count", (vec![data("abc"), Log::Truncated], eof)),
        (
            "set in collect during full count: overwritten by 0",
            (vec![data("ab"), t(), data("cd"), t()], stands),
        ),
        ("set bytes in collect during partial count: TypeError", (vec![data("ab")], stands)),
        (
            "set count in collect during partial count: off by lb",
            (vec![data("abcdef"), t(), data("gh")], stands),
        ),
    ])
}

/// Final states that differ for the same reasons, or because a count that has ended is `None` here.
fn different_state(name: &str) -> Option<Terminator> {
    match name {
        "count across chunks then spent=None"
        | "count 0 acts as None, no term"
        | "discard between reads keeps remaining count"
        | "set count in collect during partial count: off by lb" => Some(Terminator::None),
        "set in collect during full count: overwritten by 0" => Some(Terminator::from(b"\r\n")),
        _ => None,
    }
}

/// In this case asynchat delivers what it held after it has closed. Here it is delivered before the end.
const AFTER_CLOSE: &str = "EOF after out-of-band switch: held bytes delivered AFTER close";

fn decode(base64: &Value) -> Vec<u8> {
    BASE64_STANDARD.decode(base64.as_str().unwrap()).unwrap()
}

/// A terminator as it is recorded. `None` means that the one in force is kept.
fn terminator(value: &Value) -> Option<Terminator> {
    if value.is_null() {
        return Some(Terminator::None);
    }
    let object = value.as_object().unwrap();
    let (kind, value) = object.iter().next().unwrap();
    match kind.as_str() {
        "bytes" => Some(decode(value).try_into().unwrap()),
        "count" => Some(value.as_u64().unwrap().into()),
        "keep" => None,
        other => panic!("a terminator of kind {other}"),
    }
}

fn list<'a>(case: &'a Value, key: &str) -> &'a [Value] {
    case.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The application of a case.
struct Chat<'a> {
    case: &'a Value,
    terminators: std::slice::Iter<'a, Value>,
    last: Option<Terminator>,
    collected: usize,
    found: usize,
    log: Vec<Log>,
}

impl Chat<'_> {
    /// Calls the decoder until it wants more input.
    fn drain(&mut self, decoder: &mut dyn Decoding, eof: bool) {
        while let Some(event) = decoder.call(eof).unwrap() {
            match event {
                Event::Chunk(chunk) => {
                    push(&mut self.log, Log::Data(chunk));
                    let set = list(self.case, "on_collect").get(self.collected);
                    if let Some(terminator) = set.and_then(terminator) {
                        decoder.control().set_terminator(terminator);
                    }
                    self.collected += 1;
                }
                Event::Terminator => {
                    push(&mut self.log, T);
                    self.found_terminator(decoder);
                }
                Event::Overlong | Event::WrongEnd => push(&mut self.log, Log::Overlong),
                Event::Truncated => push(&mut self.log, Log::Truncated),
            }
        }
    }

    fn found_terminator(&mut self, decoder: &mut dyn Decoding) {
        match list(self.case, "on_term").get(self.found).and_then(Value::as_str) {
            Some("discard") => decoder.discard(),
            // A decoder does not know of a close. The caller decides whether callbacks go on after it.
            Some("close") | None => {}
            Some(other) => panic!("an action {other}"),
        }
        self.found += 1;
        let next = match self.terminators.next() {
            Some(value) => terminator(value),
            None if self.case.get("reinstall") == Some(&Value::Bool(true)) => self.last.clone(),
            None => None,
        };
        if let Some(terminator) = next {
            self.last = Some(terminator.clone());
            decoder.control().set_terminator(terminator);
        }
    }
}

type Make = dyn Fn(Terminator) -> Box<dyn Decoding>;

/// Runs a case and returns what came out.
fn play(case: &Value, make: &Make) -> (Vec<Log>, Box<dyn Decoding>) {
    let mut terminators = list(case, "terminators").iter();
    let first = terminators.next().and_then(terminator).unwrap();
    let mut decoder = make(first.clone());
    let mut chat =
        Chat { case, terminators, last: Some(first), collected: 0, found: 0, log: Vec::new() };
    let most = case.get("recv_max").and_then(Value::as_u64).unwrap_or(u64::MAX) as usize;
    for chunk in list(case, "chunks") {
        if let Some(object) = chunk.as_object() {
            if let Some(set) = object.get("set").and_then(terminator) {
                decoder.control().set_terminator(set);
            } else if object.contains_key("discard") {
                decoder.discard();
            } else if object.contains_key("eof") {
                chat.drain(&mut *decoder, true);
            } else {
                // This is a read that would have blocked.
                assert_eq!(object.get("errno").and_then(Value::as_i64), Some(11), "{chunk}");
                chat.drain(&mut *decoder, false);
            }
            continue;
        }
        for read in decode(chunk).chunks(most) {
            decoder.feed(read);
            chat.drain(&mut *decoder, false);
        }
    }
    (chat.log, decoder)
}

/// The recorded events, and the final state. The close at the end of the input is left out, as it is no event of a
/// framer.
fn recorded(events: &[Value]) -> (Vec<Log>, Option<&Value>) {
    let mut log = Vec::new();
    let mut state = None;
    for event in events {
        match event[0].as_str().unwrap() {
            "chunk" => push(&mut log, Log::Data(decode(&event[1]))),
            "term" => push(&mut log, T),
            "close" => {}
            "state" => state = Some(&event[1]),
            // This occurs only in cases whose log is expected to differ.
            "error" => {}
            other => panic!("an event {other}"),
        }
    }
    (log, state)
}

#[test]
fn every_recorded_read_is_framed_alike_or_differs_by_name() {
    let makers: Vec<Box<Make>> = vec![
        Box::new(|first| Box::new(Lent::new(first, Limit::Unlimited, How::Events))),
        Box::new(|first| Box::new(Lent::new(first, Limit::Unlimited, How::Eager))),
        #[cfg(feature = "tokio")]
        Box::new(|first| Box::new(support::drive::Owned::new(first, Limit::Unlimited))),
    ];
    let mut different = different();
    let mut not_run: BTreeMap<_, _> = NOT_RUN.iter().copied().collect();
    let mut run = 0;
    for line in include_str!("data/asynchat-cases.jsonl").lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let name = line["name"].as_str().unwrap();
        let case = &line["case"];
        if case.get("chunks").is_none() || not_run.remove(name).is_some() {
            continue;
        }
        let events = list(&line, "events");
        let (mut expected, state) = recorded(events);
        let after_close = events
            .iter()
            .skip_while(|event| event[0] != "close")
            .any(|event| event[0] == "chunk" || event[0] == "term");
        assert_eq!(after_close, name == AFTER_CLOSE, "{name}");
        if let Some((changed, reason)) = different.remove(name) {
            assert_ne!(changed, expected, "{name}: no difference, though {reason}");
            expected = changed;
        } else {
            let failed = events.iter().any(|event| event[0] == "error");
            assert!(!failed, "{name}: an error is not a framer's");
        }
        for make in &makers {
            let (log, mut decoder) = play(case, make);
            let driver = decoder.name();
            assert_eq!(log, expected, "{driver}: {name}");
            let Some(state) = state else { continue };
            let terminator = different_state(name).or_else(|| terminator(&state["terminator"]));
            assert_eq!(Some(decoder.control().terminator()), terminator, "{driver}: {name}");
            let held = match list(case, "chunks").iter().any(|chunk| chunk.get("eof").is_some()) {
                true => Vec::new(),
                false => decode(&state["held"]),
            };
            assert_eq!(decoder.buffered(), held, "{driver}: {name}");
        }
        run += 1;
    }
    assert!(different.is_empty(), "not in the data: {different:?}");
    assert!(not_run.is_empty(), "not in the data: {not_run:?}");
    assert!(run >= 40, "only {run}");
}
