//! Compares random connections with a naive model. A handler, or code that pulls and drops `next` at random, does
//! random things at the ends of frames, while input comes and output goes in random pieces at random times, and another
//! task pushes. There are also random conversations with a handler that finds the ends of its messages itself, changes
//! to lines and back, waits in the middle of a line, and sends a question to a quiet peer. `mixtures` and `handles`
//! have more random tests.
//!
//! `STORM_RUNS` sets the number of runs, `STORM_SEED` the first seed, `STORM_STEPS` the most pieces that the
//! input of a connection is made of; for `handles` they are `HANDLES_RUNS` and `HANDLES_SEED`. A failure names its
//! seed.
#![cfg(feature = "tokio")]
#![allow(clippy::unwrap_used)]

use std::convert::Infallible;
use std::env;
use std::task::Poll;
use std::time::Duration;

use asynchat::{
    Channel, ChannelError, Chunk, CloseReason, Control, Event, Handle, HandleError, Handler, Limit,
    Terminator, Timeouts, producer,
};
use bytes::Bytes;
use tokio::runtime::Runtime;

use support::{Log, Peer, Scripted, Seen, Socket, Then, patient, pipe, seconds, seen, wait};

mod handles;
mod mixtures;
#[path = "../support/channel.rs"]
mod support;

/// A generator of random numbers (xorshift64*). The seed is mixed first, since neighbouring seeds would yield similar
/// numbers.
#[derive(Clone)]
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        let mut mixed = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        for _ in 0..2 {
            mixed = (mixed ^ mixed >> 32).wrapping_mul(0xD6E8_FEB8_6659_FD93);
        }
        Random(mixed ^ mixed >> 32 | 1)
    }

    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % limit
    }

    fn one_in(&mut self, chances: usize) -> bool {
        self.below(chances) == 0
    }

    fn pick<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())].clone()
    }
}

/// How many runs there are, unless `STORM_RUNS` is set.
const RUNS: u64 = 1500;

/// The most pieces of an input, unless `STORM_STEPS` is set for a long run.
const STEPS: usize = 150;

#[derive(Clone, Debug)]
enum Aim {
    Any(&'static [&'static str]),
    Count(usize),
    None,
}

const LONG: &str = "ab\r\n.\r\nabababababababababab";

const AIMS: &[&[&str]] = &[&["\n"], &["\r\n"], &["aab"], &["abab"], &["\r\n", "\n"], &[LONG]];

impl Aim {
    /// A random terminator. In a long run it is rarely `None`, after which there are no more frames.
    fn random(random: &mut Random, steps: usize) -> Aim {
        match random.below(12) {
            0..9 => Aim::Any(random.pick(AIMS)),
            9 | 10 => Aim::Count(random.below(40)),
            _ if steps > STEPS && !random.one_in(steps / STEPS) => Aim::Count(random.below(400)),
            _ => Aim::None,
        }
    }

    fn terminator(&self) -> Terminator {
        match self {
            Aim::Any([one]) => Terminator::try_from(*one).unwrap(),
            Aim::Any(all) => Terminator::any_of(*all).unwrap(),
            Aim::Count(count) => Terminator::Count(*count as u64),
            Aim::None => Terminator::None,
        }
    }
}

/// What the application does at the end of a frame.
#[derive(Clone, Debug)]
struct Actions {
    switch: Option<Aim>,
    push: Vec<Push>,
    discard: bool,
    yields: usize,
    end: Option<End>,
}

#[derive(Clone, Debug)]
enum Push {
    Bytes(String),
    /// The items of a producer, and how often it is pending before each.
    Producer(Vec<String>, usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Close,
    Abort,
    Fail,
    Handle,
}

/// One run. All that is random in it follows from the seed.
#[derive(Debug)]
struct Plan {
    seed: u64,
    steps: usize,
    input: String,
    aim: Aim,
    limit: Limit,
    /// Whether frames are handed over whole.
    whole: bool,
    /// Whether bytes that are pulled are lent.
    lent: bool,
    high: usize,
    low: usize,
    read_size: usize,
    /// Whether input is handed over although the output is full.
    reads_when_full: bool,
    /// Whether input is discarded at random. It is not known then which bytes are dropped, and less is checked.
    discards: bool,
}

impl Plan {
    fn new(seed: u64, steps: usize) -> Self {
        let mut random = Random::new(seed);
        let pieces = ["a", "b", "ab", "aab", "\r", "\n", "\r\n", "x", "xyz", "aa"];
        let length = random.below(steps);
        let mut piece = |_| match random.pick(&pieces) {
            // In a long run the long delimiter occurs often. Otherwise no more frames would end once it is set.
            "xyz" if steps > STEPS && random.one_in(4) => LONG,
            piece => piece,
        };
        let mut input: String = (0..length).map(&mut piece).collect();
        if random.one_in(4) {
            input.insert_str(input.len() / 2, LONG);
        }
        let max = random.below(20) as u64;
        Plan {
            seed,
            steps,
            input,
            aim: Aim::random(&mut random, steps),
            limit: random.pick(&[
                Limit::Unlimited,
                Limit::Unlimited,
                Limit::Skip(max),
                if steps > STEPS { Limit::Skip(max) } else { Limit::Fail(max) },
            ]),
            high: 1 + random.below(600),
            low: random.below(300),
            read_size: 1 + random.below(100),
            discards: random.one_in(5),
            whole: random.one_in(3),
            lent: random.one_in(2),
            reads_when_full: random.one_in(4),
        }
    }

    /// What the application does at the end of frame number `frame`.
    fn actions(&self, frame: usize) -> Actions {
        let mut random = Random::new(self.seed ^ (frame as u64 + 1) << 32);
        let mut push = Vec::new();
        for _ in 0..random.below(3) {
            let text = |random: &mut Random| {
                let length = random.pick(&[0, 1, 10, 100, 1200]);
                let length = random.below(length + 1);
                (0..length).map(|n| char::from(b'a' + ((frame + n) % 26) as u8)).collect()
            };
            push.push(if random.one_in(3) {
                let items = (0..random.below(4)).map(|_| text(&mut random)).collect();
                Push::Producer(items, random.below(3))
            } else {
                Push::Bytes(text(&mut random))
            });
        }
        // After a count there are no frames unless another terminator is set, and so a long run sets one.
        let spent = |frame| !matches!(self.actions(frame).switch, None | Some(Aim::Any(_)));
        let stays = random.one_in(3)
            && (self.steps == STEPS || frame.checked_sub(1).is_some_and(|last| !spent(last)));
        Actions {
            switch: (!stays).then(|| Aim::random(&mut random, self.steps)),
            push,
            discard: self.discards && random.one_in(4),
            yields: if random.one_in(3) { random.below(6) } else { 0 },
            end: match random.below(self.steps.max(STEPS)) {
                0 | 1 => Some(End::Close),
                2 => Some(End::Abort),
                3 => Some(End::Fail),
                4 => Some(End::Handle),
                _ => None,
            },
        }
    }

    fn channel(&self, socket: Socket) -> Channel<Socket> {
        Channel::builder(self.aim.terminator())
            .limit(self.limit)
            .whole_frames(self.whole)
            .timeouts(patient())
            .high_water_mark(self.high)
            .low_water_mark(self.low)
            .read_size(self.read_size)
            .read_when_full(self.reads_when_full)
            .handle_capacity(20)
            .build(socket)
    }
}

/// The expected result of a run.
#[derive(Debug, Default)]
struct Model {
    log: Log,
    output: String,
    ending: &'static str,
}

impl Model {
    /// Cuts the whole input by a naive search, which tries the terminator at every position.
    fn of(plan: &Plan) -> Self {
        let mut model = Model::default();
        let mut rest = plan.input.as_str();
        let mut aim = plan.aim.clone();
        let mut frame = 0;
        loop {
            let (payload, next, mid_frame) = match &aim {
                Aim::None => (rest, None, false),
                Aim::Count(count) if *count <= rest.len() => (&rest[..*count], Some(*count), false),
                Aim::Count(_) => (rest, None, true),
                Aim::Any(members) => match first(rest, members) {
                    Some((start, end)) => (&rest[..start], Some(end), false),
                    None => (rest, None, !rest.is_empty()),
                },
            };
            let max = match (&aim, plan.limit) {
                (Aim::Any(_), Limit::Skip(max) | Limit::Fail(max)) => max as usize,
                _ => usize::MAX,
            };
            if payload.len() > max {
                model.data(&payload[..max]);
                model.log.note(Seen::Overlong);
                if matches!(plan.limit, Limit::Fail(_)) {
                    model.ending = "overlong";
                    return model;
                }
            } else {
                model.data(payload);
            }
            let Some(next) = next else {
                model.log.note(if mid_frame { Seen::Truncated } else { Seen::Eof });
                model.ending = if mid_frame { "truncated" } else { "closed by the peer" };
                return model;
            };
            rest = &rest[next..];
            if payload.len() > max {
                continue;
            }
            if matches!(aim, Aim::Count(_)) {
                aim = Aim::None;
            }
            model.log.note(Seen::End);
            let actions = plan.actions(frame);
            frame += 1;
            if let Some(switch) = actions.switch {
                aim = switch;
            }
            for push in actions.push {
                match push {
                    Push::Bytes(text) => model.output.push_str(&text),
                    Push::Producer(items, _) => model.output.push_str(&items.concat()),
                }
            }
            model.ending = match actions.end {
                None => continue,
                Some(End::Close | End::Handle) => "closed",
                Some(End::Abort) => "aborted",
                Some(End::Fail) => "failed",
            };
            return model;
        }
    }

    fn data(&self, payload: &str) {
        if !payload.is_empty() {
            self.log.note(Seen::Data(payload.into()));
        }
    }
}

/// The position of the member that ends first, and of several that end there, that of the longest.
fn first(rest: &str, members: &[&str]) -> Option<(usize, usize)> {
    (1..=rest.len()).find_map(|end| {
        let longest = members.iter().filter(|member| rest[..end].ends_with(**member));
        longest.map(|member| member.len()).max().map(|length| (end - length, end))
    })
}

/// Does to a `Control` or a `Channel` what the plan says.
macro_rules! act {
    ($on:expr, $push:ident, $push_with_producer:ident, $handle:expr, $actions:expr) => {{
        let actions: &Actions = $actions;
        if let Some(aim) = &actions.switch {
            $on.set_terminator(aim.terminator());
        }
        for push in &actions.push {
            match push {
                Push::Bytes(text) => $on.$push(text.clone()).unwrap(),
                Push::Producer(items, pending) => {
                    $on.$push_with_producer(slow(items.clone(), *pending)).unwrap();
                }
            }
        }
        if actions.discard {
            $on.discard_buffers();
        }
        match actions.end {
            Some(End::Close) => $on.close_when_done(),
            Some(End::Abort) => $on.abort(),
            Some(End::Handle) => $handle.close_when_done(),
            Some(End::Fail) | None => {}
        }
    }};
}

fn slow(items: Vec<String>, pending: usize) -> impl producer::Producer + Send + 'static {
    let mut items = items.into_iter();
    let mut left = pending;
    producer::poll_fn(move |cx| {
        if left > 0 {
            left -= 1;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        left = pending;
        Poll::Ready(items.next().map(|item| Ok(Bytes::from(item))))
    })
}

async fn yields(count: usize) {
    for _ in 0..count {
        tokio::task::yield_now().await;
    }
}

/// Yields so often, or for ever if there is no number.
async fn impatience(count: Option<usize>) {
    match count {
        Some(count) => yields(count).await,
        None => std::future::pending().await,
    }
}

/// Sends the input and takes the output, in random pieces at random times, and pushes digits through a
/// handle. Returns those that were accepted.
async fn peer(seed: u64, input: String, peer: Peer, handle: Handle) -> String {
    let mut random = Random::new(!seed);
    let mut left = input.as_bytes();
    let mut accepted = String::new();
    peer.take(random.below(100));
    while !left.is_empty() {
        match random.below(8) {
            0..3 => {
                let piece = left.len().min(1 + random.below(12));
                peer.send(&left[..piece]);
                left = &left[piece..];
            }
            3 | 4 => {
                let most = random.pick(&[5, 50, 3000]);
                peer.take_more(random.below(most));
            }
            5 => peer.chop(1 + random.below(10)),
            6 => {
                let length = random.below(4);
                let digits: Vec<_> = (0..length).map(|n| n.to_string()).collect();
                let text = digits.concat();
                let refused = match random.below(2) {
                    0 => handle.push(text.clone()).map_err(HandleError::into_inner),
                    _ => handle.push_all(digits).map_err(|error| error.into_inner().concat()),
                };
                match refused {
                    Ok(()) => accepted.push_str(&text),
                    Err(back) => assert_eq!(back, text),
                }
            }
            _ => yields(random.below(4)).await,
        }
    }
    peer.close();
    yields(random.below(10)).await;
    peer.take(usize::MAX);
    accepted
}

/// Runs a handler. Returns what it saw and how it ended.
async fn handled(
    plan: &'static Plan,
    mut channel: Channel<Socket>,
    far: Peer,
) -> (Vec<Seen>, &'static str) {
    let mut frame = 0;
    let handle = channel.handle();
    let handler = Scripted::new(move |seen, control| {
        if *seen != Seen::End {
            return Then::Go;
        }
        let actions = plan.actions(frame);
        frame += 1;
        act!(control, try_push, try_push_with_producer, handle, &actions);
        match actions.end {
            Some(End::Fail) => Then::Fail("failed"),
            Some(End::Handle) => {
                // A close or abort by a handle takes effect when there is room for what the handle has pushed before:
                // while the callback waits, or after it, when input is awaited. Here it is while the callback waits.
                far.take(usize::MAX);
                wait(yields(100))
            }
            _ => wait(yields(actions.yields)),
        }
    });
    let (handler, reason) = channel.run(handler.whole(plan.whole)).await;
    let ending = match reason {
        CloseReason::PeerClosed => "closed by the peer",
        CloseReason::Truncated => "truncated",
        CloseReason::Done => "closed",
        CloseReason::Aborted => "aborted",
        CloseReason::Handler("failed") => "failed",
        CloseReason::Frame(_) => "overlong",
        other => panic!("{other:?}"),
    };
    let mut log = handler.log.seen();
    assert!(matches!(log.pop(), Some(Seen::Closed(_))));
    (log, ending)
}

/// Pulls, and drops the future of `next` at random.
async fn pulled(plan: &'static Plan, mut channel: Channel<Socket>) -> (Vec<Seen>, &'static str) {
    let mut random = Random::new(plan.seed ^ 0xFF);
    let handle = channel.handle();
    let log = Log::default();
    let mut frame = 0;
    let mut ending = "closed by the peer";
    loop {
        let patience = random.one_in(2).then(|| random.below(4));
        let event = if plan.lent {
            tokio::select! {
                biased;
                step = channel.step() => match step {
                    Ok(Some((step, _))) => {
                        // The log has an entry of its own for the payload of a step that ends a frame.
                        if !step.payload.is_empty() {
                            log.note(seen(Event::Chunk(step.payload.to_bytes())));
                        }
                        match step.end {
                            Some(end) => Some(Ok(Event::from(end))),
                            None => continue,
                        }
                    }
                    Ok(None) => None,
                    Err(error) => Some(Err(error)),
                },
                () = impatience(patience) => continue,
            }
        } else {
            tokio::select! {
                biased;
                event = channel.next() => event,
                () = impatience(patience) => continue,
            }
        };
        match event {
            Some(Ok(event)) => {
                if event == Event::Truncated {
                    ending = "truncated";
                }
                let end = event == Event::Terminator;
                log.note(seen(event));
                if !end {
                    continue;
                }
            }
            Some(Err(ChannelError::Frame(_))) => {
                ending = "overlong";
                continue;
            }
            Some(Err(error)) => panic!("{error:?}"),
            None => break,
        }
        let actions = plan.actions(frame);
        frame += 1;
        act!(channel, push, push_with_producer, handle, &actions);
        match actions.end {
            None => continue,
            Some(End::Abort) => ending = "aborted",
            Some(End::Close) => ending = "closed",
            Some(End::Handle) => {
                ending = "closed";
                // A close or abort by a handle takes effect when output is written or input is awaited.
                let _ = channel.flush().await;
            }
            Some(End::Fail) => {
                ending = "failed";
                break;
            }
        }
        assert!(channel.next().await.is_none(), "nothing comes after the end");
        break;
    }
    if ending == "closed by the peer" && log.seen().last() != Some(&Seen::Truncated) {
        log.note(Seen::Eof);
    }
    assert_eq!(channel.close().await.is_ok(), ending != "aborted");
    (log.seen(), ending)
}

async fn run(seed: u64, steps: usize) {
    let plan: &'static Plan = Box::leak(Box::new(Plan::new(seed, steps)));
    for pull in [false, true] {
        let model = Model::of(plan);
        let (socket, far) = pipe();
        let mut channel = plan.channel(socket);
        let handle = channel.handle();
        let peering = tokio::spawn(peer(seed, plan.input.clone(), far.clone(), handle.clone()));
        let (log, ending) = if pull {
            pulled(plan, channel).await
        } else {
            handled(plan, channel, far.clone()).await
        };
        assert!(handle.is_closed());
        let accepted = peering.await.unwrap();
        let output = far.output();
        let (digits, letters): (String, String) = output.chars().partition(char::is_ascii_digit);
        assert!(far.wire().dropped && far.wire().shutdowns <= 1);

        if plan.discards {
            assert!(is_subsequence(&accepted, &digits) && !log.is_empty(), "{ending}");
            continue;
        }
        assert_eq!(log, model.log.seen(), "pulled: {pull}, {plan:?}");
        assert_eq!(ending, model.ending, "pulled: {pull}, {plan:?}");
        if ending == "aborted" {
            assert!(model.output.starts_with(&letters) && accepted.starts_with(&digits));
        } else {
            assert_eq!(letters, model.output, "pulled: {pull}, {plan:?}");
            assert_eq!(digits, accepted, "pulled: {pull}, {plan:?}");
            assert_eq!(far.wire().shutdowns, 1);
            assert_eq!(far.wire().flushed, output.len());
        }
    }
}

fn is_subsequence(of: &str, part: &str) -> bool {
    let mut of = of.chars();
    part.chars().all(|c| of.any(|o| o == c))
}

/// A handler of two kinds of input: messages that begin with their length as a digit, whose ends it finds itself, and
/// lines. An `L` in place of a message changes to lines, and the line `own` changes back. The lines `begin` and `end`
/// mark messages of several frames.
struct Bilingual {
    random: Random,
    own: bool,
    line: String,
    heard: Vec<String>,
    /// How often it was told that the peer is quiet, and that a part of a line has been collected.
    quiet: usize,
    collected: usize,
}

impl Bilingual {
    fn heard(&mut self, what: String, control: &mut Control<'_>) {
        write!(control, "[{what}]");
        self.heard.push(what);
    }
}

impl Handler for Bilingual {
    type Error = Infallible;

    fn find_end(
        &mut self,
        input: &[u8],
        control: &mut Control<'_>,
    ) -> Result<Option<usize>, Infallible> {
        assert!(self.own, "it was not asked to ask");
        if input[0] == b'L' {
            self.own = false;
            control.set_own_end(false);
            control.set_terminator(b"\r\n");
            return Ok(None);
        }
        // A parser may wait until it has seen the whole message, or return the end when it knows the length.
        let length = 1 + usize::from(input[0] - b'0');
        Ok((self.random.one_in(2) || input.len() >= length).then_some(length))
    }

    fn collect_incoming_data(
        &mut self,
        data: Chunk<'_>,
        control: &mut Control<'_>,
    ) -> Result<(), Infallible> {
        let data = std::str::from_utf8(&data).unwrap();
        match self.own {
            true => self.heard(data.into(), control),
            false => self.line.push_str(data),
        }
        Ok(())
    }

    async fn collected(&mut self, _: &mut Control<'_>) -> Result<(), Infallible> {
        assert!(!self.line.is_empty(), "there is something of a line, and messages are whole");
        self.collected += 1;
        yields(self.random.below(4)).await;
        Ok(())
    }

    async fn found_terminator(&mut self, control: &mut Control<'_>) -> Result<(), Infallible> {
        if !self.own {
            let line = std::mem::take(&mut self.line);
            match &*line {
                "own" => {
                    self.own = true;
                    control.set_own_end(true);
                }
                "begin" => control.begin_message(),
                "end" => control.end_message(),
                _ => {}
            }
            self.heard(line, control);
        }
        yields(self.random.below(4)).await;
        Ok(())
    }

    async fn eof(&mut self, truncated: bool, control: &mut Control<'_>) -> Result<(), Infallible> {
        if !self.line.is_empty() {
            let line = std::mem::take(&mut self.line);
            self.heard(line, control);
        }
        self.heard(if truncated { "truncated" } else { "eof" }.into(), control);
        Ok(())
    }

    fn quiet(&mut self, control: &mut Control<'_>) -> Result<(), Infallible> {
        control.push("?");
        self.quiet += 1;
        Ok(())
    }
}

/// The input that a peer sends, and what the handler has to record of it.
fn conversation(random: &mut Random) -> (String, Vec<String>) {
    let (mut said, mut heard) = (String::new(), Vec::new());
    let (mut own, mut in_message) = (true, false);
    for _ in 0..random.below(40) {
        let what = match (own, random.below(8)) {
            (true, 0) => "L".to_owned() + random.pick(&["", "x", "\r", "a line"]),
            (true, _) => {
                let length = random.below(10);
                format!("{length}{}", &"L\r\n-xyz.."[..length])
            }
            (false, 0 | 1) => "own".into(),
            (false, 2) => "begin".into(),
            (false, 3) => "end".into(),
            (false, _) => random.pick(&["", "a", "\r", "L", "3abc", "some line"]).into(),
        };
        own = own && !what.starts_with('L');
        said.push_str(&what);
        if !own {
            said.push_str("\r\n");
            in_message = what == "begin" || (in_message && what != "end");
            own = what == "own";
        }
        heard.push(what);
    }
    // The input may end with an incomplete message or line.
    let rest = match (own, random.one_in(3)) {
        (_, false) => "",
        (true, true) => "7L\r\n",
        (false, true) => "half a li",
    };
    said.push_str(rest);
    heard.extend((!rest.is_empty()).then(|| rest.to_owned()));
    heard.push(if in_message || !rest.is_empty() { "truncated" } else { "eof" }.into());
    (said, heard)
}

async fn converse(seed: u64) -> (usize, usize) {
    let mut random = Random::new(seed);
    let (said, heard) = conversation(&mut random);
    let (socket, peer) = pipe();
    peer.chop(1 + random.below(30));
    let mut channel = Channel::builder(None)
        .own_end(true)
        .read_size(1 + random.below(60))
        .high_water_mark(1 + random.below(50))
        .low_water_mark(random.below(20))
        .timeouts(Timeouts::NONE.quiet(Duration::from_secs(2)))
        .build(socket);
    let handler = Bilingual {
        random: random.clone(),
        own: true,
        line: String::new(),
        heard: Vec::new(),
        quiet: 0,
        collected: 0,
    };
    let running = tokio::spawn(async move { channel.run(handler).await });
    let mut rest = said.as_str();
    while !rest.is_empty() {
        let (now, later) = rest.split_at((1 + random.below(20)).min(rest.len()));
        peer.send(now);
        rest = later;
        if random.one_in(10) {
            seconds(random.below(6) as u64).await;
        }
        yields(random.below(10)).await;
    }
    peer.close();
    let (handler, reason) = running.await.unwrap();
    assert_eq!(handler.heard, heard, "of {said:?}");
    let truncated = heard.last().is_some_and(|last| last == "truncated");
    match reason {
        CloseReason::Truncated => assert!(truncated),
        CloseReason::PeerClosed => assert!(!truncated),
        other => panic!("{other:?}"),
    }
    // The question to a quiet peer may come at any time. All other output is in order.
    let answers: String = heard.iter().map(|what| format!("[{what}]")).collect();
    assert_eq!(peer.output().replace('?', ""), answers);
    assert_eq!(peer.output().matches('?').count(), handler.quiet);
    (handler.quiet, handler.collected)
}

#[test]
fn random_conversations_are_heard_as_they_are_said() {
    let (mut quiet, mut collected) = (0, 0);
    let runtime = runtime();
    each_seed("STORM", RUNS, |seed| {
        let (quieter, more) = runtime.block_on(converse(seed));
        quiet += quieter;
        collected += more;
    });
    if number("STORM_RUNS").is_none() {
        assert!(quiet > 0 && collected > 0, "{quiet} {collected}");
    }
}

#[test]
fn random_connections_do_what_the_model_says() {
    let steps = number("STORM_STEPS").map_or(STEPS, |steps| steps as usize);
    let runtime = runtime();
    each_seed("STORM", RUNS, |seed| runtime.block_on(run(seed, steps)));
}

/// A runtime with a paused clock, which goes on to the next timer when nothing else can happen.
fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap()
}

fn number(name: &str) -> Option<u64> {
    env::var(name).ok().map(|text| text.parse().unwrap())
}

/// Calls `each` with so many seeds, or as many as the environment says.
fn each_seed(storm: &str, runs: u64, mut each: impl FnMut(u64)) {
    let runs = number(&format!("{storm}_RUNS")).unwrap_or(runs);
    let first = number(&format!("{storm}_SEED")).unwrap_or(1);
    for seed in first..first + runs {
        let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| each(seed)));
        if let Err(panic) = ran {
            eprintln!("{storm}_SEED={seed} {storm}_RUNS=1 repeats it, with the same STORM_STEPS");
            std::panic::resume_unwind(panic);
        }
    }
}
