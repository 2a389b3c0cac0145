use std::pin::pin;
use std::sync::{Arc, Mutex};

use arbitrary::Unstructured;
use asynchat::{
    Channel, ChannelBuilder, ChannelError, Chunk, CloseReason, Control, Event, FrameError, Handler,
    Timeouts, producer,
};

use crate::io::{Io, Peer, Step, Unfinished, drive, drive_until, step};
use crate::plan::{self, below, flag, many};
use crate::support::model::cut;
use crate::support::{End, Log, Show, Turn, push};

/// What the application pushes at the end of a frame.
#[derive(Clone, Debug)]
struct Answer {
    len: usize,
    producer: bool,
    /// How often the callback yields before it pushes.
    yields: usize,
}

fn answer(u: &mut Unstructured<'_>) -> Answer {
    Answer {
        len: [0, 1, 10, 100, 2000][below(u, 5)],
        producer: below(u, 4) == 0,
        yields: below(u, 3),
    }
}

impl Answer {
    /// The bytes of the answer: `len` letters, the first of which depends on the number of the frame.
    fn text(&self, frame: usize) -> Vec<u8> {
        (0..self.len).map(|n| b'a' + ((frame + n) % 26) as u8).collect()
    }
}

/// A whole connection, pulled or with a handler, whose I/O comes in pieces, waits and fails. The events are those of
/// the model, and what was pushed arrives once and in order.
pub fn channel(data: &[u8]) {
    let u = &mut Unstructured::new(data);
    let (script, input) = plan::script(u);
    let end = if flag(u) { End::Eof } else { End::Open };
    let mut reads: Vec<Vec<u8>> = plan::reads(u, &input).iter().map(|read| read.to_vec()).collect();
    if flag(u) {
        reads = reads.into_iter().flat_map(|read| [Vec::new(), read]).collect();
    }
    let mut steps = many(u, 100, step);
    if below(u, 4) > 0 {
        steps.retain(|step| *step != Step::Fail);
    }
    let answers = many(u, 12, answer);
    let whole = flag(u);
    let builder = Channel::builder(script.terminator.terminator())
        .limit(script.limit)
        .timeouts(Timeouts::NONE)
        .high_water_mark([1, 50, 600, 262_144][below(u, 4)])
        .low_water_mark([0, 20, 300, 65_536][below(u, 4)])
        .read_size([1, 3, 64, 65_536][below(u, 4)])
        .whole_frames(whole);
    let pulled = flag(u);
    let cancels = flag(u);
    plan::show(&(&script, Show(&input), end, &reads, &steps, &answers, &builder, pulled, cancels));

    let io = Io::new(Peer {
        reads: reads.into(),
        ends: end == End::Eof,
        steps: steps.into(),
        ..Peer::default()
    });
    let app = App { turns: script.turns.clone().into_iter(), answers, frame: 0 };
    let mut heard = if pulled {
        pull(&builder, io.clone(), app, cancels)
    } else {
        handle(&builder, io.clone(), app, whole)
    };

    let (mut expected, _) = cut(&script, &input, end);
    if whole && end == End::Open {
        // The model has the beginning of the last frame. A whole frame is not handed over before it has ended.
        for log in [&mut expected, &mut heard.log] {
            if matches!(log.last(), Some(Log::Data(_))) {
                log.pop();
            }
        }
    }
    let peer = io.peer();
    if peer.failed {
        assert!(starts_with(&expected, &heard.log), "{script:?}: {:?}\nof {expected:?}", heard.log);
        assert!(heard.pushed.starts_with(&peer.wire));
        return;
    }
    assert_eq!(heard.log, expected, "{script:?} {}", Show(&input));
    if matches!(expected.last(), Some(Log::Failed(_) | Log::FailedWrongEnd)) {
        assert!(heard.pushed.starts_with(&peer.wire));
    } else {
        assert!(peer.wire == heard.pushed, "what was pushed arrives");
        assert_eq!(peer.flushed, peer.wire.len(), "and is flushed");
    }
    assert_eq!(
        peer.shut_down,
        end == End::Eof || matches!(expected.last(), Some(Log::Failed(_) | Log::FailedWrongEnd))
    );
}

/// Whether a log is the beginning of another. The last data of `part` may be the beginning of longer data in `all`.
fn starts_with(all: &[Log], part: &[Log]) -> bool {
    let Some((last, before)) = part.split_last() else { return true };
    all.starts_with(before)
        && match (all.get(before.len()), last) {
            (Some(Log::Data(all)), Log::Data(part)) => all.starts_with(part),
            (entry, last) => entry == Some(last),
        }
}

fn failed(error: FrameError) -> Log {
    match error {
        FrameError::Overlong(max) => Log::Failed(max),
        FrameError::WrongEnd => Log::FailedWrongEnd,
        other => panic!("{other}"),
    }
}

/// What the application was told, and what it has pushed.
#[derive(Debug, Default)]
struct Heard {
    log: Vec<Log>,
    pushed: Vec<u8>,
}

/// What the application does at the end of each frame.
struct App {
    turns: std::vec::IntoIter<Turn>,
    answers: Vec<Answer>,
    frame: usize,
}

impl App {
    fn next(&mut self) -> (Turn, Option<Answer>) {
        let answer = self.answers.get(self.frame).cloned();
        self.frame += 1;
        (self.turns.next().unwrap_or_default(), answer)
    }
}

/// Does to a `Control` or a `Channel` what the plan says for the end of a frame.
macro_rules! act {
    ($on:ident.$push:ident, $push_with_producer:ident, $turn:expr, $answer:expr, $frame:expr, $pushed:expr) => {{
        if $turn.resume {
            $on.resume();
        }
        if let Some(terminator) = $turn.terminator {
            $on.set_terminator(terminator.terminator());
        }
        if let Some(limit) = $turn.limit {
            $on.set_limit(limit);
        }
        if let Some(answer) = $answer {
            let text = answer.text($frame);
            let pushed = match answer.producer {
                true => {
                    let items: Vec<Vec<u8>> = text.chunks(300).map(<[u8]>::to_vec).collect();
                    $on.$push_with_producer(producer::iter(items)).is_ok()
                }
                false => $on.$push(text.clone()).is_ok(),
            };
            if pushed {
                $pushed.extend(text);
            }
        }
    }};
}

fn pull(builder: &ChannelBuilder, io: Io, mut app: App, cancels: bool) -> Heard {
    let mut heard = Heard::default();
    let mut channel = builder.build(io.clone());
    loop {
        // The future is dropped at every pending poll, or never.
        let next = drive_until(pin!(channel.next()), || cancels);
        let entry = match next {
            Ok(Some(Ok(Event::Chunk(bytes)))) => {
                assert!(!bytes.is_empty());
                Log::Data(bytes.to_vec())
            }
            Ok(Some(Ok(Event::Terminator))) => Log::Terminator(channel.matched()),
            Ok(Some(Ok(Event::Overlong))) => Log::Overlong,
            Ok(Some(Ok(Event::WrongEnd))) => Log::WrongEnd,
            Ok(Some(Ok(Event::Truncated))) => Log::Truncated,
            Ok(Some(Err(ChannelError::Frame(error)))) => failed(error),
            Ok(Some(Err(error))) => {
                assert!(io.has_failed(), "{error:?}");
                return heard;
            }
            Ok(None) => break,
            Err(Unfinished::Stopped) => continue,
            Err(Unfinished::Asleep) => {
                assert!(io.is_at_rest(), "it waits for nothing");
                break;
            }
        };
        let ended = matches!(entry, Log::Terminator(_) | Log::Overlong | Log::WrongEnd);
        push(&mut heard.log, entry);
        if ended {
            let frame = app.frame;
            let (turn, answer) = app.next();
            act!(channel.push, push_with_producer, turn, answer, frame, heard.pushed);
        }
    }
    if io.peer().ends || matches!(heard.log.last(), Some(Log::Failed(_) | Log::FailedWrongEnd)) {
        let closed = drive(pin!(channel.close())).expect("the close comes to an end");
        assert!(
            closed.is_ok()
                || io.has_failed()
                || matches!(heard.log.last(), Some(Log::Failed(_) | Log::FailedWrongEnd)),
            "{closed:?}"
        );
    } else {
        let flushed = drive(pin!(channel.flush())).expect("the flush comes to an end");
        assert!(flushed.is_ok() || io.has_failed(), "{flushed:?}");
    }
    heard
}

struct Noting {
    whole: bool,
    app: App,
    heard: Arc<Mutex<Heard>>,
}

impl Noting {
    async fn ended(&mut self, entry: Log, control: &mut Control<'_>) {
        push(&mut self.heard.lock().unwrap().log, entry);
        let frame = self.app.frame;
        let (turn, answer) = self.app.next();
        for _ in 0..answer.as_ref().map_or(0, |answer| answer.yields) {
            tokio::task::yield_now().await;
        }
        let mut pushed = Vec::new();
        act!(control.try_push, try_push_with_producer, turn, answer, frame, pushed);
        self.heard.lock().unwrap().pushed.extend(pushed);
    }
}

impl Handler for Noting {
    type Error = std::convert::Infallible;

    fn collect_incoming_data(
        &mut self,
        data: Chunk<'_>,
        _: &mut Control<'_>,
    ) -> Result<(), Self::Error> {
        // A whole frame may be empty, a chunk may not.
        assert!(self.whole || !data.is_empty());
        if !data.is_empty() {
            push(&mut self.heard.lock().unwrap().log, Log::Data(data.to_vec()));
        }
        Ok(())
    }

    async fn found_terminator(&mut self, control: &mut Control<'_>) -> Result<(), Self::Error> {
        let member = control.matched();
        self.ended(Log::Terminator(member), control).await;
        Ok(())
    }

    async fn overlong(&mut self, control: &mut Control<'_>) -> Result<(), Self::Error> {
        self.ended(Log::Overlong, control).await;
        Ok(())
    }

    async fn wrong_end(&mut self, control: &mut Control<'_>) -> Result<(), Self::Error> {
        self.ended(Log::WrongEnd, control).await;
        Ok(())
    }

    async fn eof(&mut self, truncated: bool, _: &mut Control<'_>) -> Result<(), Self::Error> {
        if truncated {
            push(&mut self.heard.lock().unwrap().log, Log::Truncated);
        }
        Ok(())
    }
}

fn handle(builder: &ChannelBuilder, io: Io, app: App, whole: bool) -> Heard {
    let heard = Arc::new(Mutex::new(Heard::default()));
    let mut channel = builder.build(io.clone());
    let ended = drive(pin!(channel.run(Noting { whole, app, heard: heard.clone() })));
    let mut heard = std::mem::take(&mut *heard.lock().unwrap());
    match ended {
        None => assert!(io.is_at_rest(), "it waits for nothing"),
        Some((_, CloseReason::PeerClosed)) => assert!(heard.log.last() != Some(&Log::Truncated)),
        Some((_, CloseReason::Truncated)) => assert!(heard.log.last() == Some(&Log::Truncated)),
        Some((_, CloseReason::Frame(error))) => {
            heard.log.push(failed(error));
        }
        Some((_, reason)) => assert!(io.has_failed(), "{reason:?}"),
    }
    heard
}
