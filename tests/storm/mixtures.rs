//! Random mixtures of `next`, `step` and `message`, whose futures are dropped at random. Messages are given up, and the
//! input is taken as frames instead. Pushes and flushes come between the calls.

use std::future::Future;
use std::task::Poll;

use asynchat::{Channel, End, Event, Limit, Terminator, Timeouts};
use tokio_test::task;

use crate::support::{Peer, Socket, pipe};
use crate::{RUNS, Random, each_seed};

/// How the end of a frame is found.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Line,
    Counted,
    /// By the function [`find_end`].
    Message,
}

#[derive(Clone, Debug)]
struct Frame {
    kind: Kind,
    payload: String,
}

impl Frame {
    fn random(random: &mut Random, longest: usize) -> Frame {
        let kind = random.pick(&[Kind::Line, Kind::Counted, Kind::Message]);
        let length = match kind {
            Kind::Message => random.below(longest.min(9999) + 1),
            Kind::Line | Kind::Counted => random.below(longest + 1),
        };
        let letters = (0..length).map(|_| char::from(b'a' + random.below(26) as u8)).collect();
        let payload = match kind {
            Kind::Message => format!("{length:04}:{letters}"),
            Kind::Line | Kind::Counted => letters,
        };
        Frame { kind, payload }
    }

    /// The terminator, or `None` for a message, which needs none.
    fn terminator(&self) -> Option<Terminator> {
        match self.kind {
            Kind::Line => Some(Terminator::from(b"\n")),
            Kind::Counted => Some(Terminator::Count(self.payload.len() as u64)),
            Kind::Message => None,
        }
    }
}

/// Finds the end of a message: four digits, which say how many bytes follow, a colon, and these bytes.
fn find_end(input: &[u8]) -> Option<usize> {
    let head = std::str::from_utf8(input.get(..5)?).unwrap();
    Some(5 + head[..4].parse::<usize>().unwrap())
}

/// The peer of a channel, which sends and takes bytes only while the channel waits for it.
struct Far<'a> {
    random: Random,
    peer: Peer,
    /// What is still to be sent, and how many bytes of it at most at a time.
    unsent: &'a str,
    most: usize,
    /// Whether it takes output only in small pieces.
    reluctant: bool,
    has_closed: bool,
    /// How many polls have had no result since the last one that had: those that asked to be polled again at once, and
    /// those after which there was nothing left to do.
    spins: usize,
    stops: usize,
    /// All that was pushed, and how many pushes there were.
    pushed: String,
    pushes: usize,
}

impl Far<'_> {
    /// The text to push next.
    fn text(&mut self) -> String {
        self.pushes += 1;
        let text = format!("<{}>", self.pushes);
        self.pushed.push_str(&text);
        text
    }

    /// Polls a future until it is ready, or drops it after some polls.
    fn pull<T>(&mut self, future: impl Future<Output = T>) -> Option<T> {
        let mut task = task::spawn(future);
        let polls = if self.random.one_in(2) { usize::MAX } else { self.random.below(4) };
        for poll in 0..polls {
            let woken = task.is_woken();
            if let Poll::Ready(output) = task.poll() {
                assert!(poll == 0 || woken, "it is ready without a wake");
                (self.spins, self.stops) = (0, 0);
                return Some(output);
            }
            if task.is_woken() {
                self.spins += 1;
                assert!(self.spins < 5000, "it spins");
            } else if !self.go_on() {
                self.stops += 1;
                assert!(self.stops < 50, "it waits for ever");
            }
        }
        None
    }

    /// Takes or sends something. Returns `false` if there is nothing left to do.
    fn go_on(&mut self) -> bool {
        let takes = self.reluctant && self.random.one_in(2);
        if takes {
            self.peer.take_more(1 + self.random.below(50));
        }
        if self.unsent.is_empty() {
            return takes;
        }
        let length = self.unsent.len().min(1 + self.random.below(self.most));
        let (now, later) = self.unsent.split_at(length);
        self.peer.send(now);
        self.unsent = later;
        if later.is_empty() && self.random.one_in(2) {
            self.peer.close();
            self.has_closed = true;
        }
        true
    }
}

/// Pushes something, or waits for the output, in random ways.
fn write(channel: &mut Channel<Socket>, far: &mut Far<'_>) {
    while far.random.one_in(3) {
        match far.random.below(5) {
            0 | 1 => channel.push(far.text()).unwrap(),
            2 => channel.handle().push(far.text()).unwrap(),
            3 => far.pull(channel.flush()).into_iter().for_each(|done| done.unwrap()),
            _ => far.pull(channel.ready()).into_iter().for_each(|done| done.unwrap()),
        }
    }
}

/// Asks a few times for a message that does not come, and then for the frame again. If a part of the frame was already
/// decided, that may come instead of the message.
fn give_up_a_message(
    channel: &mut Channel<Socket>,
    far: &mut Far<'_>,
    frame: &Frame,
) -> Option<(String, Option<End>)> {
    let length = far.random.pick(&[None, Some(99_000)]);
    let mut task = task::spawn(channel.message(|_| length));
    for _ in 0..1 + far.random.below(3) {
        if let Poll::Ready(message) = task.poll() {
            let (step, _) = message.unwrap().unwrap();
            assert!(!matches!(frame.kind, Kind::Message), "it is no piece of a frame");
            return Some((text_of(&step.payload), step.end));
        }
    }
    drop(task);
    match frame.terminator() {
        Some(terminator) => channel.set_terminator(terminator),
        None if far.random.one_in(2) => channel.set_terminator(None),
        None => {}
    }
    None
}

/// Pulls a piece of a frame in one of the ways to pull it, or gives up.
fn pull(
    channel: &mut Channel<Socket>,
    far: &mut Far<'_>,
    kind: Kind,
) -> Option<(String, Option<End>)> {
    let lent = match kind {
        Kind::Message => far.pull(channel.message(find_end))?,
        Kind::Line | Kind::Counted if far.random.one_in(2) => far.pull(channel.step())?,
        Kind::Line | Kind::Counted => {
            return Some(match far.pull(channel.next())?.unwrap().unwrap() {
                Event::Chunk(bytes) => (text_of(&bytes), None),
                Event::Terminator => (String::new(), Some(End::Terminator)),
                other => panic!("{other:?}"),
            });
        }
    };
    let (step, mut control) = lent.unwrap().unwrap();
    if far.random.one_in(3) {
        control.push(far.text());
    }
    Some((text_of(&step.payload), step.end))
}

fn text_of(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn run(seed: u64) {
    let mut random = Random::new(seed);
    let longest = random.pick(&[30, 30, 30, 40_000]);
    let frames: Vec<_> =
        (0..1 + random.below(12)).map(|_| Frame::random(&mut random, longest)).collect();
    let input: String = frames
        .iter()
        .map(|frame| match frame.kind {
            Kind::Line => format!("{}\n", frame.payload),
            Kind::Counted | Kind::Message => frame.payload.clone(),
        })
        .collect();
    let (socket, peer) = pipe();
    // Long frames in short reads would take too long.
    let (least, most) = if longest > 30 { (100, 5000) } else { (1, 1 + random.below(20)) };
    peer.chop(least.max(random.pick(&[1, 2, 3, 7, 100, 1000, usize::MAX])));
    let read_size = random.pick(&[1, 16, 64, 4096, 65536]);
    let mut channel = Channel::builder(b"\n")
        .limit(Limit::Fail(100_000))
        .whole_frames(random.one_in(2))
        .high_water_mark(64)
        .low_water_mark(16)
        .read_size(if longest > 30 { read_size.max(4096) } else { read_size })
        .timeouts(Timeouts::NONE)
        .build(socket);
    let reluctant = random.one_in(2);
    if reluctant {
        peer.take(0);
    }
    let mut far = Far {
        random,
        peer: peer.clone(),
        unsent: &input,
        most,
        reluctant,
        has_closed: false,
        spins: 0,
        stops: 0,
        pushed: String::new(),
        pushes: 0,
    };
    for frame in &frames {
        if let Some(terminator) = frame.terminator() {
            channel.set_terminator(terminator);
        }
        if far.random.one_in(3) {
            channel.begin_message();
        }
        let mut heard = String::new();
        loop {
            write(&mut channel, &mut far);
            let mut piece = None;
            if !far.has_closed && heard.is_empty() && far.random.one_in(3) {
                piece = give_up_a_message(&mut channel, &mut far, frame);
            }
            let piece = piece.or_else(|| pull(&mut channel, &mut far, frame.kind));
            let Some((payload, end)) = piece else { continue };
            heard.push_str(&payload);
            assert!(frame.payload.starts_with(&heard), "{heard:?} is no beginning of {frame:?}");
            if end.is_some() {
                assert_eq!((heard, end), (frame.payload.clone(), Some(End::Terminator)));
                break;
            }
        }
        channel.end_message();
    }
    peer.close();
    peer.take(usize::MAX);
    channel.set_terminator(b"\n");
    let mut pulled = task::spawn(async {
        assert!(channel.next().await.is_none(), "there is no more");
        channel.close().await.unwrap();
    });
    assert!((0..100).any(|_| pulled.poll().is_ready()), "it does not end");
    assert_eq!(peer.output(), far.pushed);
}

#[test]
fn however_frames_and_messages_are_pulled_they_are_what_was_sent() {
    each_seed("STORM", RUNS, run);
}
