use arbitrary::Unstructured;
use asynchat::{BatchCodec, CodecError, Delimiter, Frame, FrameCodec, FrameError, TerminatorCodec};
use bytes::BytesMut;
use tokio_util::codec::{Decoder, Encoder};

use crate::framing::{follow_through, whole};
use crate::plan::{self, below, flag, many};
use crate::support::drive::{Owned, run_framed};
use crate::support::follow::spell;
use crate::support::model::find;
use crate::support::{End, Log, Script, Show, Spec, model};

/// Compares a `TerminatorCodec` with the model: call by call, or by a script through `decode` or a `FramedRead`.
pub fn terminator_codec(data: &[u8]) {
    let u = &mut Unstructured::new(data);
    match below(u, 3) {
        0 => {
            let pool = plan::pool(u);
            let limit = plan::limit(u);
            let ops = many(u, 60, plan::op);
            plan::show(&(&pool, limit, &ops));
            let steps = flag(u);
            let mut owned = Owned::new(pool[0].terminator(), limit);
            match steps {
                true => follow_through(&mut owned.steps(), &pool, limit, &ops),
                false => follow_through(&mut owned, &pool, limit, &ops),
            }
        }
        1 => {
            let (script, input) = plan::script(u);
            plan::show(&(&script, Show(&input)));
            let mut owned = Owned::new(script.terminator.terminator(), script.limit);
            whole(&mut owned, u, &script, &input);
        }
        _ => {
            let (script, input) = plan::script(u);
            plan::show(&(&script, Show(&input)));
            let end = if flag(u) || input.is_empty() { End::Eof } else { End::Open };
            let reads = plan::reads(u, &input);
            let (expected, _) = model::cut(&script, &input, end);
            let log = run_framed(&script, &reads, end);
            assert!(log == expected, "{script:?}\n  gave {log:?}\nwanted {expected:?}");
        }
    }
}

/// A frame of `FrameCodec` or of `BatchCodec`.
#[derive(Debug, PartialEq, Eq)]
enum Out {
    Complete(Vec<u8>),
    Overlong(Vec<u8>),
    Truncated(Vec<u8>),
    Failed(u64),
}

/// Compares the frames of `FrameCodec` and `BatchCodec` with the model's, however the input is cut into reads.
pub fn frame_codec(data: &[u8]) {
    let u = &mut Unstructured::new(data);
    let spec = match below(u, 4) {
        0 => crate::support::any(["\r\n", "\n"]),
        _ => Spec::Bytes(plan::delimiter(u)),
    };
    let limit = plan::limit(u);
    let batched = flag(u);
    let end = if flag(u) { End::Eof } else { End::Open };
    let input = spell(&many(u, 40, plan::piece), spec.delimiters());
    let reads = plan::reads(u, &input);
    plan::show(&(&spec, limit, batched, Show(&input), &reads));

    let mut expected = Vec::new();
    let mut payload = Vec::new();
    for entry in model::cut(&Script::new(spec.clone()).limit(limit), &input, end).0 {
        expected.push(match entry {
            Log::Data(data) => {
                payload = data;
                continue;
            }
            Log::Terminator(_) => Out::Complete(std::mem::take(&mut payload)),
            Log::Overlong => Out::Overlong(std::mem::take(&mut payload)),
            Log::Truncated => Out::Truncated(std::mem::take(&mut payload)),
            Log::Failed(max) => Out::Failed(max),
            Log::WrongEnd | Log::FailedWrongEnd => unreachable!("there are no counts"),
        });
    }
    let codec = match &spec {
        Spec::Bytes(delimiter) => FrameCodec::new(Delimiter::new(delimiter).unwrap()),
        _ => FrameCodec::crlf_or_lf(),
    }
    .with_limit(limit);
    let out = if batched {
        decode(codec.batched(), &reads, end, write_batch)
    } else {
        decode(codec, &reads, end, write_frame)
    };
    assert_eq!(out, expected, "{spec:?} {limit:?} batched: {batched}");
}

fn write_frame(frame: Frame, out: &mut Vec<Out>) {
    out.push(match frame {
        Frame::Complete(payload) => Out::Complete(payload.to_vec()),
        Frame::Overlong(payload) => Out::Overlong(payload.to_vec()),
        Frame::Truncated(payload) => Out::Truncated(payload.to_vec()),
    });
}

fn write_batch(frame: <BatchCodec as Decoder>::Item, out: &mut Vec<Out>) {
    match frame {
        Frame::Complete(batch) => {
            assert_ne!(batch.len(), 0, "a batch is never empty");
            out.extend(batch.iter().map(|payload| Out::Complete(payload.to_vec())));
        }
        Frame::Overlong(payload) => out.push(Out::Overlong(payload.to_vec())),
        Frame::Truncated(payload) => out.push(Out::Truncated(payload.to_vec())),
    }
}

fn decode<C: Decoder<Error = CodecError>>(
    mut codec: C,
    reads: &[&[u8]],
    end: End,
    write: fn(C::Item, &mut Vec<Out>),
) -> Vec<Out> {
    let (mut buffer, mut out) = (BytesMut::new(), Vec::new());
    let eof = (end == End::Eof).then_some((&b""[..], true));
    let mut fuel = 64 + 4 * reads.iter().map(|read| 1 + read.len()).sum::<usize>();
    for (read, eof) in reads.iter().map(|read| (*read, false)).chain(eof) {
        buffer.extend_from_slice(read);
        loop {
            fuel = fuel.checked_sub(1).expect("an end of the frames");
            let item = if eof { codec.decode_eof(&mut buffer) } else { codec.decode(&mut buffer) };
            match item {
                Ok(Some(item)) => write(item, &mut out),
                Ok(None) => break,
                Err(CodecError::Frame(FrameError::Overlong(max))) => {
                    out.push(Out::Failed(max));
                    return out;
                }
                Err(other) => panic!("{other}"),
            }
        }
    }
    out
}

/// What an encoder writes, its decoder reads again. A payload that it refuses contains the delimiter.
pub fn encoders(data: &[u8]) {
    let u = &mut Unstructured::new(data);
    let spec = Spec::Bytes(plan::delimiter(u));
    let payloads = many(u, 8, |u| spell(&many(u, 4, plan::piece), spec.delimiters()));
    plan::show(&(&spec, &payloads));
    let delimiter = Delimiter::new(&spec.delimiters()[0]).unwrap();

    let mut codec = FrameCodec::new(delimiter).with_limit(asynchat::Limit::Unlimited);
    let mut events = TerminatorCodec::new(spec.terminator());
    let (mut wire, mut raw) = (BytesMut::new(), BytesMut::new());
    let mut accepted = Vec::new();
    for payload in payloads {
        // `TerminatorCodec` writes only what it is given, and adds no delimiter.
        events.encode(&payload[..], &mut raw).unwrap();
        assert!(raw.ends_with(&payload));

        let together = [&payload[..], spec.delimiters()[0].as_slice()].concat();
        let (start, ..) = find(spec.delimiters(), &together).unwrap();
        let before = wire.clone();
        match codec.encode(&payload, &mut wire) {
            Ok(()) => {
                assert_eq!(start, payload.len(), "{spec:?} would be found in {}", Show(&payload));
                assert_eq!(wire[before.len()..], together);
                accepted.push(payload);
            }
            Err(CodecError::Injection) => {
                assert!(start < payload.len(), "{spec:?} is not in {}", Show(&payload));
                assert_eq!(wire, before, "nothing of it is written");
            }
            Err(other) => panic!("{other}"),
        }
    }
    for payload in accepted {
        assert_eq!(codec.decode(&mut wire).unwrap(), Some(Frame::Complete(payload.into())));
    }
    assert_eq!(codec.decode(&mut wire).unwrap(), None);
    assert!(wire.is_empty());
}
