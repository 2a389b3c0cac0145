//! Random mixtures of `next`, `step` and `message`, each dropped at random polls, messages that are given up in
//! favour of frames, flushes and pushes between them: every frame is what was sent, all output is in order, and
//! nothing is ready without a wake.
//!
//! `RUNS` sets the number of runs, `SEED` the first seed. A failure names its seed.
#![cfg(feature = "tokio")]
#![allow(clippy::unwrap_used)]

#[path = "support/channel.rs"]
mod support;

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::task::{Context, Poll, Wake, Waker};

use asynchat::{Channel, End, Event, Limit, Timeouts};
use support::pipe;

struct R(u64);
impl R {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
    fn below(&mut self, n: usize) -> usize {
        (self.next() >> 11) as usize % n
    }
    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

#[derive(Default)]
struct Count(AtomicUsize);
impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, SeqCst);
    }
}

#[derive(Clone, Debug)]
enum Kind {
    Line(String),
    Count(String),
    Msg(String),
}

/// Four digits say how many bytes follow behind a colon.
fn find(input: &[u8]) -> Option<usize> {
    let head = input.get(..5)?;
    std::str::from_utf8(&head[..4]).unwrap().parse::<usize>().ok().map(|n| n + 5)
}

fn text(r: &mut R, most: usize) -> String {
    let n = r.below(most + 1);
    (0..n).map(|_| (b'a' + r.below(26) as u8) as char).collect()
}

/// Polls, with input and room coming meanwhile. `None` if it was dropped while it was pending.
fn pull<'c, T, F: Future<Output = T> + 'c>(
    fut: F,
    r: &mut R,
    count: &Arc<Count>,
    feed: &mut dyn FnMut(&mut R) -> bool,
    stuck: &mut usize,
) -> Option<T> {
    let waker = Waker::from(count.clone());
    let mut cx = Context::from_waker(&waker);
    let mut fut = pin!(fut);
    let polls = if r.one_in(2) { 100_000 } else { r.below(4) };
    let mut before = count.0.load(SeqCst);
    for poll in 0..polls {
        let start = count.0.load(SeqCst);
        match fut.as_mut().poll(&mut cx) {
            Poll::Ready(v) => {
                assert!(poll == 0 || start > before, "ready without a wake");
                *stuck = 0;
                return Some(v);
            }
            Poll::Pending => {}
        }
        before = start;
        if count.0.load(SeqCst) == start {
            if !feed(r) {
                *stuck += 1;
                assert!(*stuck < 50, "stuck");
            }
        } else {
            *stuck += 1;
            assert!(*stuck < 5000, "spins");
        }
    }
    None
}

fn run(seed: u64) {
    let mut r = R(seed.wrapping_mul(0x9E3779B97F4A7C15) | 1);
    for _ in 0..10 {
        r.next();
    }
    let n = 1 + r.below(12);
    let big = if r.one_in(4) { 40_000 } else { 30 };
    let kinds: Vec<Kind> = (0..n)
        .map(|_| match r.below(3) {
            0 => Kind::Line(text(&mut r, big)),
            1 => Kind::Count(text(&mut r, big)),
            _ => {
                let t = text(&mut r, big.min(9999));
                Kind::Msg(format!("{:04}:{t}", t.len()))
            }
        })
        .collect();
    let mut input = String::new();
    for k in &kinds {
        match k {
            Kind::Line(t) => {
                input += t;
                input += "\n";
            }
            Kind::Count(t) | Kind::Msg(t) => input += t,
        }
    }
    let (socket, peer) = pipe();
    let chop = [1, 2, 3, 7, 100, 1000, usize::MAX][r.below(7)];
    if big < 100 || chop > 50 {
        peer.chop(chop);
    }
    let whole = r.one_in(2);
    let mut channel = Channel::builder(b"\n")
        .limit(Limit::Fail(100_000))
        .whole_frames(whole)
        .high_water_mark(64)
        .low_water_mark(16)
        .read_size([1, 16, 64, 4096, 65536][r.below(5)].max(if big > 100 { 4096 } else { 1 }))
        .timeouts(Timeouts::NONE)
        .build(socket);
    let handle = channel.handle();
    let mut rest: &str = &input;
    let tight = r.one_in(2);
    if tight {
        peer.take(0);
    }
    let step = if big > 100 { 5000 } else { 1 + r.below(20) };
    let eof = std::rc::Rc::new(std::cell::Cell::new(false));
    let eof2 = eof.clone();
    let feeder = peer.clone();
    let mut feed = move |r: &mut R| -> bool {
        let mut did = false;
        if tight && r.one_in(2) {
            feeder.take_more(1 + r.below(50));
            did = true;
        }
        if !rest.is_empty() {
            let k = rest.len().min(1 + r.below(step));
            feeder.send(&rest[..k]);
            rest = &rest[k..];
            if rest.is_empty() && r.one_in(2) {
                feeder.close();
                eof2.set(true);
            }
            did = true;
        }
        did
    };
    let count = Arc::new(Count::default());
    let mut stuck = 0;
    let mut pushed = String::new();
    let mut tag = 0;
    for (i, kind) in kinds.iter().enumerate() {
        let mut got = String::new();
        let (want, is_msg) = match kind {
            Kind::Line(t) => {
                channel.set_terminator(b"\n");
                (t, false)
            }
            Kind::Count(t) => {
                channel.set_terminator(t.len() as u64);
                (t, false)
            }
            Kind::Msg(t) => (t, true),
        };
        if r.one_in(3) {
            channel.begin_message();
        }
        loop {
            while r.one_in(3) {
                match r.below(5) {
                    0 | 1 => {
                        tag += 1;
                        let s = format!("<{tag}>");
                        channel.push(s.clone()).unwrap();
                        pushed += &s;
                    }
                    2 => {
                        tag += 1;
                        let s = format!("<{tag}>");
                        if handle.push(s.clone()).is_ok() {
                            pushed += &s;
                        }
                    }
                    3 => {
                        if let Some(done) =
                            pull(channel.flush(), &mut r, &count, &mut feed, &mut stuck)
                        {
                            done.unwrap();
                        }
                    }
                    _ => {
                        if let Some(done) =
                            pull(channel.ready(), &mut r, &count, &mut feed, &mut stuck)
                        {
                            done.unwrap();
                        }
                    }
                }
            }
            // A message that is given up in favour of a frame.
            if !eof.get() && got.is_empty() && r.one_in(3) {
                let most = [None, Some(99_000)][r.below(2)];
                let waker = Waker::from(count.clone());
                let mut cx = Context::from_waker(&waker);
                let mut ready = None;
                {
                    let mut fut = pin!(channel.message(|_| most));
                    for _ in 0..1 + r.below(3) {
                        if let Poll::Ready(v) = fut.as_mut().poll(&mut cx) {
                            let (step, _) = v.unwrap().unwrap();
                            ready = Some((step.payload.to_vec(), step.end));
                            break;
                        }
                    }
                }
                if let Some((payload, end)) = ready {
                    got += std::str::from_utf8(&payload).unwrap();
                    assert!(want.starts_with(&got), "seed {seed} frame {i} given up: {got:?}");
                    assert!(!is_msg, "seed {seed} frame {i}: it was no frame {got:?}");
                    if end.is_some() {
                        assert_eq!(
                            (&got, end),
                            (want, Some(End::Terminator)),
                            "seed {seed} frame {i}"
                        );
                        break;
                    }
                } else {
                    match kind {
                        Kind::Line(_) => channel.set_terminator(b"\n"),
                        Kind::Count(t) => channel.set_terminator(t.len() as u64),
                        Kind::Msg(_) if r.one_in(2) => channel.set_terminator(None),
                        Kind::Msg(_) => {}
                    }
                }
            }
            let ended = if is_msg {
                match pull(channel.message(find), &mut r, &count, &mut feed, &mut stuck) {
                    None => None,
                    Some(v) => {
                        let (step, mut control) = v.unwrap().expect("there is more");
                        got += std::str::from_utf8(&step.payload).unwrap();
                        if r.one_in(3) {
                            tag += 1;
                            let s = format!("<{tag}>");
                            control.push(s.clone());
                            pushed += &s;
                        }
                        assert_eq!(step.end, Some(End::Terminator), "seed {seed} frame {i}");
                        step.end
                    }
                }
            } else if r.one_in(2) {
                match pull(channel.step(), &mut r, &count, &mut feed, &mut stuck) {
                    None => None,
                    Some(v) => {
                        let (step, mut control) = v.unwrap().expect("there is more");
                        got += std::str::from_utf8(&step.payload).unwrap();
                        if r.one_in(3) {
                            tag += 1;
                            let s = format!("<{tag}>");
                            control.push(s.clone());
                            pushed += &s;
                        }
                        step.end
                    }
                }
            } else {
                match pull(channel.next(), &mut r, &count, &mut feed, &mut stuck) {
                    None => None,
                    Some(v) => match v.expect("there is more").unwrap() {
                        Event::Chunk(b) => {
                            got += std::str::from_utf8(&b).unwrap();
                            None
                        }
                        Event::Terminator => Some(End::Terminator),
                        other => panic!("seed {seed} frame {i}: {other:?}"),
                    },
                }
            };
            assert!(want.starts_with(&got), "seed {seed} frame {i} {kind:?}: got {got:?}");
            if let Some(end) = ended {
                assert_eq!(end, End::Terminator, "seed {seed}");
                assert_eq!(&got, want, "seed {seed} frame {i}");
                break;
            }
        }
        channel.end_message();
    }
    peer.close();
    channel.set_terminator(b"\n");
    peer.take(usize::MAX);
    let waker = Waker::from(count.clone());
    let mut cx = Context::from_waker(&waker);
    {
        let mut fut = pin!(channel.next());
        let mut n = 0;
        loop {
            match fut.as_mut().poll(&mut cx) {
                Poll::Ready(v) => {
                    assert!(v.is_none(), "seed {seed}: {v:?}");
                    break;
                }
                Poll::Pending => n += 1,
            }
            assert!(n < 100);
        }
    }
    let mut fut = pin!(channel.close());
    let mut n = 0;
    while fut.as_mut().poll(&mut cx).is_pending() {
        n += 1;
        assert!(n < 100, "seed {seed}");
    }
    assert_eq!(peer.output(), pushed, "seed {seed}");
}

#[test]
fn mixtures() {
    let from = std::env::var("SEED").ok().map_or(0, |s| s.parse().unwrap());
    let n = std::env::var("RUNS").ok().map_or(1000, |s| s.parse().unwrap());
    for seed in from..from + n {
        let done = std::panic::catch_unwind(|| run(seed));
        if done.is_err() {
            panic!("seed {seed}");
        }
    }
}
