//! Frames that are handed over whole, counted frames with their own end, messages of several frames, and messages whose
//! ends the application finds. Each is tested with a handler and by pulling.

use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use asynchat::{
    Channel, ChannelError, Chunk, CloseReason, Control, End, Event, FrameError, Handler, Limit,
    Terminator, Timeout, Timeouts,
};

use crate::support::{
    Peer, Scripted, Seen, Socket, Then, data, patient, pipe, seconds, secs, settle,
};

/// A handler that records what it is called with, an entry for each call.
#[derive(Default)]
struct Noting {
    calls: Vec<String>,
    /// Whether it finds the ends of messages, whose first byte says how long they are.
    own: bool,
    asked: Vec<usize>,
}

impl Handler for Noting {
    type Error = Infallible;

    fn collect_incoming_data(
        &mut self,
        data: Chunk<'_>,
        control: &mut Control<'_>,
    ) -> Result<(), Infallible> {
        self.calls.push(String::from_utf8(data.to_vec()).unwrap());
        if self.own && data.starts_with(b"1!") {
            control.set_own_end(false);
            control.set_whole_frames(true);
            control.set_terminator(b"\n");
        }
        Ok(())
    }

    async fn found_terminator(&mut self, _: &mut Control<'_>) -> Result<(), Infallible> {
        self.calls.push("end".into());
        Ok(())
    }

    fn find_end(
        &mut self,
        input: &[u8],
        control: &mut Control<'_>,
    ) -> Result<Option<usize>, Infallible> {
        self.asked.push(input.len());
        Ok(match input[0] {
            b'z' => Some(0),
            b'?' => {
                control.push("what?");
                control.close_when_done();
                Some(1)
            }
            b'a'..=b'y' => {
                control.set_own_end(false);
                control.set_terminator(b"\n");
                control.set_whole_frames(true);
                None
            }
            digit => Some(usize::from(digit - b'0') + 1),
        })
    }

    async fn overlong(&mut self, control: &mut Control<'_>) -> Result<(), Infallible> {
        self.calls.push("overlong".into());
        control.push("too long");
        Ok(())
    }

    async fn wrong_end(&mut self, _: &mut Control<'_>) -> Result<(), Infallible> {
        self.calls.push("wrong end".into());
        Ok(())
    }

    async fn eof(&mut self, truncated: bool, _: &mut Control<'_>) -> Result<(), Infallible> {
        self.calls.push(if truncated { "truncated" } else { "eof" }.into());
        Ok(())
    }
}

type Reason = CloseReason<Infallible>;

/// Runs the handler over an input that is cut into pieces of every size, and checks that the result is always the same.
#[track_caller]
fn noted(
    input: &str,
    own: bool,
    make: impl Fn(Socket) -> Channel<Socket>,
) -> (Vec<String>, String, Reason) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    let mut all: Option<(Vec<String>, String, Reason)> = None;
    for piece in 1..=input.len().max(1) {
        let (socket, peer) = pipe();
        peer.chop(piece);
        peer.send(input);
        peer.close();
        let mut channel = make(socket);
        let handler = Noting { own, ..Noting::default() };
        let (handler, reason) = runtime.block_on(channel.run(handler));
        let this = (handler.calls, peer.output(), reason);
        if let Some(all) = &all {
            assert_eq!((&this.0, &this.1), (&all.0, &all.1), "in pieces of {piece}");
            assert_eq!(this.2.to_string(), all.2.to_string(), "in pieces of {piece}");
        }
        all = Some(this);
    }
    all.unwrap()
}

fn whole(socket: Socket) -> Channel<Socket> {
    Channel::builder(b"\r\n").whole_frames(true).timeouts(patient()).build(socket)
}

#[test]
fn a_whole_frame_is_collected_once_also_if_it_is_empty() {
    let (calls, _, reason) = noted("one\r\n\r\n\rtwo\r\n", false, whole);
    assert_eq!(calls, ["one", "end", "", "end", "\rtwo", "end", "eof"]);
    assert!(matches!(reason, CloseReason::PeerClosed));
}

#[test]
fn what_there_is_of_a_whole_frame_comes_before_the_end_of_the_input() {
    let (calls, _, reason) = noted("one\r\ntwo\r", false, whole);
    assert_eq!(calls, ["one", "end", "two\r", "truncated"]);
    assert!(matches!(reason, CloseReason::Truncated));
}

#[test]
fn a_whole_frame_has_its_limit() {
    let make = |socket| {
        let builder = Channel::builder(b"\n").whole_frames(true).limit(Limit::Skip(3));
        builder.timeouts(patient()).build(socket)
    };
    let (calls, output, _) = noted("four\nabc\nlonger\nd\n", false, make);
    assert_eq!(calls, ["fou", "overlong", "abc", "end", "lon", "overlong", "d", "end", "eof"]);
    assert_eq!(output, "too longtoo long");
}

#[tokio::test(start_paused = true)]
async fn the_mode_is_switched_at_the_end_of_a_frame() {
    let (socket, peer) = pipe();
    peer.chop(2);
    peer.send("abcd\nefgh\nijkl\n");
    peer.close();
    let mut channel = Channel::builder(b"\n").timeouts(patient()).build(socket);
    let mut calls = Vec::new();
    let mut frames = 0;
    while let Some((step, mut control)) = channel.step().await.unwrap() {
        calls.push((String::from_utf8(step.payload.to_vec()).unwrap(), step.end));
        if step.end == Some(End::Terminator) {
            frames += 1;
            control.set_whole_frames(frames == 1);
            control.push(".");
        }
    }
    assert_eq!(calls.iter().filter(|(text, _)| text == "efgh").count(), 1, "{calls:?}");
    assert!(calls.iter().all(|(text, _)| text != "abcd" && text != "ijkl"), "{calls:?}");
    channel.close().await.unwrap();
    assert_eq!(peer.output(), "...");
}

/// A channel that reads `$4\r\ndata\r\n`, as in RESP.
fn counted(socket: Socket) -> Channel<Socket> {
    let terminator = Terminator::count_then(4, b"\r\n");
    Channel::builder(terminator).timeouts(patient()).whole_frames(true).build(socket)
}

#[test]
fn a_counted_frame_ends_with_its_end() {
    let (calls, _, _) = noted("da\r\n\r\n", false, counted);
    assert_eq!(calls[..2], ["da\r\n", "end"]);
}

#[test]
fn a_wrong_end_is_told_and_closes() {
    let (calls, _, reason) = noted("dataXY", false, counted);
    assert_eq!(calls, ["data", "wrong end"]);
    assert!(matches!(reason, CloseReason::Frame(FrameError::WrongEnd)), "{reason:?}");
}

#[test]
fn a_counted_frame_without_its_end_is_truncated() {
    let (calls, _, reason) = noted("data\r", false, counted);
    assert_eq!(calls, ["data", "truncated"]);
    assert!(matches!(reason, CloseReason::Truncated));
}

// Ends that the application finds.

fn own(socket: Socket) -> Channel<Socket> {
    let builder = Channel::builder(None).own_end(true).limit(Limit::Fail(8));
    builder.timeouts(patient()).build(socket)
}

#[test]
fn messages_whose_ends_the_handler_finds_are_handed_over_whole() {
    let (calls, _, reason) = noted("3abc02xy", true, own);
    assert_eq!(calls, ["3abc", "end", "0", "end", "2xy", "end", "eof"]);
    assert!(matches!(reason, CloseReason::PeerClosed));
}

#[test]
fn the_beginning_of_a_message_is_handed_over_at_the_end_of_the_input() {
    let (calls, _, reason) = noted("3abc4xy", true, own);
    assert_eq!(calls, ["3abc", "end", "4xy", "truncated"]);
    assert!(matches!(reason, CloseReason::Truncated));
    // The same where its length was not known from the beginning.
    let (calls, _, reason) = noted("1az..", true, own);
    assert_eq!(calls, ["1a", "end", "z..", "truncated"]);
    assert!(matches!(reason, CloseReason::Truncated));
}

#[test]
fn a_message_whose_end_is_beyond_the_limit_is_told_and_closes() {
    for input in ["3abc9xyxyxyxyx", "3abczxyxyxyxyx"] {
        let (calls, output, reason) = noted(input, true, own);
        assert_eq!(calls, ["3abc", "end", "overlong"]);
        assert_eq!(output, "too long");
        assert!(matches!(reason, CloseReason::Frame(FrameError::Overlong(8))), "{reason:?}");
    }
}

#[test]
fn bytes_that_are_no_message_are_answered_where_they_are_seen() {
    let (calls, output, reason) = noted("3abc?xy", true, own);
    assert_eq!(calls, ["3abc", "end"]);
    assert_eq!(output, "what?");
    assert!(matches!(reason, CloseReason::Done), "{reason:?}");
}

#[test]
fn a_protocol_is_detected_where_its_first_bytes_are_seen() {
    let (calls, _, reason) = noted("1aline\nx\n", true, own);
    assert_eq!(calls, ["1a", "end", "line", "end", "x", "end", "eof"]);
    assert!(matches!(reason, CloseReason::PeerClosed), "{reason:?}");
}

#[test]
fn a_terminator_takes_over_from_the_handlers_own_ends() {
    let (calls, _, _) = noted("2xy1!line\n\n", true, own);
    assert_eq!(calls, ["2xy", "end", "1!", "end", "line", "end", "", "end", "eof"]);
    // The handler is not asked about bytes that would be a message.
    let (calls, _, _) = noted("1!3\n\n", true, own);
    assert_eq!(calls, ["1!", "end", "3", "end", "", "end", "eof"]);
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_finds_no_ends_has_all_of_the_input_for_one_message() {
    let (socket, peer) = pipe();
    peer.send("abc");
    peer.close();
    let (handler, reason) = own(socket).run(Scripted::new(|_, _| Then::Go)).await;
    let closed = Seen::Closed(reason.to_string());
    assert_eq!(handler.log.seen(), [data("abc"), Seen::Truncated, closed]);
}

/// A handler that finds ends by one function, and calls another where it collects. When the peer is quiet, it discards
/// the input.
pub(crate) struct Finding<F, C> {
    find: F,
    collect: C,
    shown: Vec<String>,
    pub(crate) collected: Vec<String>,
}

pub(crate) fn finding<F, C>(find: F, collect: C) -> Finding<F, C>
where
    F: FnMut(&[u8], &mut Control<'_>) -> Option<usize>,
    C: FnMut(&mut Control<'_>),
{
    Finding { find, collect, shown: Vec::new(), collected: Vec::new() }
}

impl<F, C> Handler for Finding<F, C>
where
    F: FnMut(&[u8], &mut Control<'_>) -> Option<usize> + Send,
    C: FnMut(&mut Control<'_>) + Send,
{
    type Error = Infallible;

    fn collect_incoming_data(
        &mut self,
        data: Chunk<'_>,
        control: &mut Control<'_>,
    ) -> Result<(), Infallible> {
        self.collected.push(String::from_utf8(data.to_vec()).unwrap());
        (self.collect)(control);
        Ok(())
    }

    fn find_end(
        &mut self,
        input: &[u8],
        control: &mut Control<'_>,
    ) -> Result<Option<usize>, Infallible> {
        self.shown.push(String::from_utf8(input.to_vec()).unwrap());
        Ok((self.find)(input, control))
    }

    fn quiet(&mut self, control: &mut Control<'_>) -> Result<(), Infallible> {
        control.discard_buffers();
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_finds_ends_may_say_so_again() {
    for piece in 1..=6 {
        let (socket, peer) = pipe();
        peer.chop(piece);
        peer.send("abcdef");
        peer.close();
        let insisting = finding(|_, _| Some(2), |control| control.set_own_end(true));
        let (handler, reason) = own(socket).run(insisting).await;
        assert_eq!(handler.collected, ["ab", "cd", "ef"]);
        assert!(matches!(reason, CloseReason::PeerClosed), "{reason:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_is_not_looked_for_in_what_was_discarded() {
    let (socket, peer) = pipe();
    peer.send("garbage");
    let mut channel = own(socket);
    let mut wanted = false;
    let picky = move |_: &[u8], control: &mut Control<'_>| {
        if !std::mem::replace(&mut wanted, true) {
            control.discard_buffers();
            return Some(3);
        }
        Some(2)
    };
    let running = tokio::spawn(async move { channel.run(finding(picky, |_| ())).await.0 });
    settle().await;
    peer.send("abcd");
    peer.close();
    let handler = running.await.unwrap();
    assert_eq!(handler.shown, ["garbage", "abcd", "cd"]);
    assert_eq!(handler.collected, ["ab", "cd"]);
}

#[tokio::test(start_paused = true)]
async fn behind_a_handlers_own_ends_frames_come_in_pieces_as_before() {
    let (socket, peer) = pipe();
    let mut channel = own(socket);
    let mut first = true;
    let head = move |control: &mut Control<'_>| {
        if std::mem::take(&mut first) {
            control.set_own_end(false);
            control.set_terminator(b"\n");
        }
    };
    let running = tokio::spawn(async move { channel.run(finding(|_, _| Some(3), head)).await.0 });
    for piece in ["abcbe", "gi", "n\n"] {
        peer.send(piece);
        settle().await;
    }
    peer.close();
    assert_eq!(running.await.unwrap().collected, ["abc", "be", "gi", "n"]);
}

#[tokio::test(start_paused = true)]
async fn the_line_feed_of_a_newline_is_no_part_of_the_message_behind_it() {
    let send = |piece| {
        let (socket, peer) = pipe();
        peer.chop(piece);
        peer.send("a\r\n1b0");
        peer.close();
        Channel::builder(Terminator::Newline).whole_frames(true).build(socket)
    };
    let find = |input: &[u8]| Some(usize::from(input[0] - b'0') + 1);
    for piece in 1..8 {
        let handler = finding(
            move |input, _| find(input),
            |control: &mut Control<'_>| control.set_own_end(true),
        );
        let (handler, _) = send(piece).run(handler).await;
        assert_eq!(handler.collected, ["a", "1b", "0"], "pieces of {piece}");

        let mut channel = send(piece);
        let (step, _) = channel.step().await.unwrap().unwrap();
        assert_eq!(*step.payload, *b"a");
        for wanted in ["1b", "0"] {
            let (step, _) = channel.message(find).await.unwrap().unwrap();
            assert_eq!(*step.payload, *wanted.as_bytes(), "pieces of {piece}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_rest_of_an_overlong_frame_is_no_part_of_the_message_behind_it() {
    let send = |piece| {
        let (socket, peer) = pipe();
        peer.chop(piece);
        peer.send("too long\n1b2c\n0");
        peer.close();
        Channel::builder(b"\n").whole_frames(true).limit(Limit::Skip(3)).build(socket)
    };
    let find = |input: &[u8]| Some(usize::from(input[0] - b'0') + 1);
    for piece in 1..16 {
        let handler = finding(
            move |input, _| find(input),
            |control: &mut Control<'_>| control.set_own_end(true),
        );
        let (handler, _) = send(piece).run(handler).await;
        assert_eq!(handler.collected, ["too", "1b", "2c\n", "0"], "pieces of {piece}");

        let mut channel = send(piece);
        let (step, _) = channel.step().await.unwrap().unwrap();
        assert_eq!((&*step.payload, step.end), (&b"too"[..], Some(End::Overlong)));
        for wanted in ["1b", "2c\n", "0"] {
            let (step, _) = channel.message(find).await.unwrap().unwrap();
            assert_eq!(*step.payload, *wanted.as_bytes(), "pieces of {piece}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn other_tasks_have_their_turn_between_many_messages() {
    let (socket, peer) = pipe();
    peer.send("0".repeat(3_000));
    peer.close();
    let count = AtomicUsize::new(0);
    let collect = |_: &mut Control<'_>| {
        count.fetch_add(1, Relaxed);
    };
    let mut channel = own(socket);
    let mut running = Box::pin(channel.run(finding(|_, _| Some(1), collect)));
    assert!(futures::poll!(&mut running).is_pending());
    let in_a_poll = count.load(Relaxed);
    assert!(in_a_poll > 0 && in_a_poll <= 1_024, "{in_a_poll}");
    running.await;
    assert_eq!(count.load(Relaxed), 3_000);
}

#[tokio::test(start_paused = true)]
async fn other_tasks_have_their_turn_while_a_message_comes_byte_by_byte() {
    let (socket, peer) = pipe();
    peer.chop(1);
    peer.send("x".repeat(10_000));
    let mut channel = own(socket);
    channel.set_limit(Limit::Unlimited);
    let mut running = Box::pin(channel.run(finding(|_, _| None, |_: &mut Control<'_>| ())));
    assert!(futures::poll!(&mut running).is_pending());
    let in_a_poll = peer.wire().reads;
    assert!(in_a_poll > 0 && in_a_poll <= 1_024, "{in_a_poll}");
}

#[tokio::test(start_paused = true)]
async fn a_handler_is_asked_anew_about_what_comes_behind_a_discard() {
    let (socket, peer) = pipe();
    let mut channel = Channel::builder(None)
        .own_end(true)
        .timeouts(Timeouts::NONE.quiet(Duration::from_secs(10)))
        .build(socket);
    peer.send("garbage");
    let pair = |input: &[u8], _: &mut Control<'_>| (input.len() == 2).then_some(2);
    let running = tokio::spawn(async move { channel.run(finding(pair, |_| ())).await });
    seconds(11).await;
    peer.send("ab");
    settle().await;
    peer.close();
    let (handler, reason) = running.await.unwrap();
    assert_eq!(handler.collected, ["ab"]);
    assert!(matches!(reason, CloseReason::PeerClosed), "{reason:?}");
}

#[tokio::test(start_paused = true)]
async fn a_handler_is_not_asked_again_because_the_peer_is_quiet() {
    let (socket, peer) = pipe();
    let mut channel = Channel::builder(None)
        .own_end(true)
        .timeouts(Timeouts::NONE.quiet(Duration::from_secs(10)))
        .build(socket);
    peer.send("z");
    let running = tokio::spawn(async move { channel.run(Noting::default()).await.0.asked });
    seconds(100).await;
    peer.close();
    assert_eq!(running.await.unwrap(), [1]);
}

#[tokio::test(start_paused = true)]
async fn a_handler_is_asked_only_when_there_is_more() {
    let (socket, peer) = pipe();
    peer.send("z");
    let mut channel = own(socket);
    let handle = channel.handle();
    let running = tokio::spawn(async move { channel.run(Noting::default()).await.0.asked });
    for push in ["a", "b"] {
        settle().await;
        handle.push(push).unwrap();
    }
    settle().await;
    peer.send("z");
    settle().await;
    handle.close_when_done();
    assert_eq!(running.await.unwrap(), [1, 2]);
}

#[tokio::test(start_paused = true)]
async fn a_message_whose_end_is_not_found_has_the_frame_deadline() {
    let (socket, peer) = pipe();
    let mut channel = Channel::builder(None)
        .own_end(true)
        .timeouts(Timeouts::NONE.frame(Duration::from_secs(10)))
        .build(socket);
    let running = tokio::spawn(async move { channel.run(Noting::default()).await.1 });
    seconds(100).await;
    peer.send("z");
    seconds(9).await;
    assert!(!running.is_finished());
    seconds(2).await;
    assert!(matches!(running.await.unwrap(), CloseReason::Timeout(Timeout::Frame)));
}

#[tokio::test(start_paused = true)]
async fn a_message_is_pulled_by_a_function_that_finds_its_end() {
    let (socket, peer) = pipe();
    peer.send("2ab3x");
    let mut channel = Channel::builder(b"\n").timeouts(patient()).build(socket);
    let find = |input: &[u8]| input.first().map(|digit| usize::from(digit - b'0') + 1);
    let (step, mut control) = channel.message(find).await.unwrap().unwrap();
    assert_eq!((&step.payload[..], step.end), (&b"2ab"[..], Some(End::Terminator)));
    control.push("answer");
    // The future may be dropped.
    assert!(tokio::time::timeout(Duration::from_secs(1), channel.message(find)).await.is_err());
    assert_eq!(peer.output(), "answer");
    peer.send("yz");
    let (step, _) = channel.message(find).await.unwrap().unwrap();
    assert_eq!(&step.payload[..], b"3xyz");
    channel.set_terminator(b"\n");
    peer.send("line\n");
    let (step, _) = channel.step().await.unwrap().unwrap();
    assert_eq!(&step.payload[..], b"line");
    peer.send("9");
    peer.close();
    let (step, _) = channel.message(find).await.unwrap().unwrap();
    assert_eq!((&step.payload[..], step.end), (&b"9"[..], Some(End::Truncated)));
    assert!(channel.message(find).await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_message_that_was_pulled_leaves_what_was_set_for_others() {
    // The end of the message is known, and the future is dropped before that has come.
    let (socket, peer) = pipe();
    peer.send("3x");
    let mut channel = Channel::builder(None).own_end(true).timeouts(patient()).build(socket);
    let find = |input: &[u8]| input.first().map(|digit| usize::from(digit - b'0') + 1);
    assert!(tokio::time::timeout(Duration::from_secs(1), channel.message(find)).await.is_err());
    peer.send("yz");
    let (step, mut control) = channel.step().await.unwrap().unwrap();
    assert_eq!((&step.payload[..], step.end), (&b"3xyz"[..], Some(End::Terminator)));
    // Other frames are not handed over whole.
    control.set_terminator(b"\n");
    peer.send("ab");
    let (step, _) = channel.step().await.unwrap().unwrap();
    assert_eq!((&step.payload[..], step.end), (&b"ab"[..], None));
    peer.send("\n");
    assert_eq!(channel.step().await.unwrap().unwrap().0.end, Some(End::Terminator));
    // A handler is asked for ends, as was set in the builder.
    peer.send("1!2");
    peer.close();
    let (handler, _) = channel.run(Noting::default()).await;
    assert_eq!(handler.asked[0], 3);
    assert_eq!(handler.calls[..2], ["1!", "end"]);
}

#[tokio::test(start_paused = true)]
async fn chunks_that_were_handed_over_before_are_no_beginning_of_a_message() {
    let (socket, peer) = pipe();
    peer.send("abc");
    let mut timeouts = Timeouts::NONE;
    timeouts.frame = secs(10);
    let mut channel = Channel::builder(None).timeouts(timeouts).build(socket);
    assert_eq!(channel.next().await.unwrap().unwrap(), Event::Chunk("abc".into()));
    // Nothing of the message has come, and so its deadline does not run.
    let message = channel.message(|_| None);
    assert!(tokio::time::timeout(Duration::from_secs(60), message).await.is_err());
    peer.send("x");
    let late = channel.message(|_| None).await.map(drop);
    assert!(matches!(late, Err(ChannelError::Timeout(Timeout::Frame))), "{late:?}");
}

#[tokio::test(start_paused = true)]
async fn a_handler_is_not_asked_because_a_message_was_pulled() {
    let (socket, peer) = pipe();
    peer.send("1!");
    let mut channel = Channel::builder(None).timeouts(patient()).build(socket);
    assert_eq!(&channel.message(|_| Some(2)).await.unwrap().unwrap().0.payload[..], b"1!");
    channel.set_terminator(b"\n");
    assert!(tokio::time::timeout(Duration::from_secs(1), channel.message(|_| None)).await.is_err());
    peer.send("2ab\n");
    peer.close();
    let (handler, _) = channel.run(Noting::default()).await;
    assert!(handler.asked.is_empty());
    assert_eq!(handler.calls, ["2ab", "end", "eof"]);
}

#[tokio::test(start_paused = true)]
async fn a_message_is_looked_for_when_the_end_before_it_has_been_told() {
    let (socket, peer) = pipe();
    peer.send("ab\n3xyzlong\n");
    let builder = Channel::builder(b"\n").limit(Limit::Skip(4)).timeouts(patient());
    let mut channel = builder.build(socket);
    let asked = std::cell::Cell::new(0);
    let find = |input: &[u8]| {
        asked.set(asked.get() + 1);
        input.first().map(|digit| usize::from(digit - b'0') + 1)
    };
    assert!(matches!(channel.next().await.unwrap().unwrap(), Event::Chunk(_)));
    let (step, _) = channel.message(find).await.unwrap().unwrap();
    assert_eq!((&step.payload[..], step.end), (&b""[..], Some(End::Terminator)));
    assert_eq!(asked.get(), 0);
    let (step, _) = channel.message(find).await.unwrap().unwrap();
    assert_eq!((&step.payload[..], step.end), (&b"3xyz"[..], Some(End::Terminator)));
    // A frame that was too long stays overlong.
    channel.set_terminator(b"\n");
    channel.set_limit(Limit::Skip(2));
    assert!(matches!(channel.next().await.unwrap().unwrap(), Event::Chunk(_)));
    let (step, _) = channel.message(find).await.unwrap().unwrap();
    assert_eq!((step.payload.len(), step.end), (0, Some(End::Overlong)));
    assert_eq!(asked.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_message_that_is_pulled_has_the_limit() {
    let (socket, peer) = pipe();
    peer.send("0123456789");
    let mut channel =
        Channel::builder(b"\n").limit(Limit::Fail(8)).timeouts(patient()).build(socket);
    let error = channel.message(|_| None).await.unwrap_err();
    assert!(matches!(error, ChannelError::Frame(FrameError::Overlong(8))), "{error:?}");
    assert!(channel.message(|_| None).await.unwrap().is_none());
}

/// A handler that records its data, and `Chunk::end` of each.
#[derive(Default)]
struct Ends(Vec<(String, Option<End>)>);

impl Handler for Ends {
    type Error = Infallible;

    fn collect_incoming_data(
        &mut self,
        data: Chunk<'_>,
        control: &mut Control<'_>,
    ) -> Result<(), Infallible> {
        self.0.push((String::from_utf8(data.to_vec()).unwrap(), data.end()));
        if data[..] == *b"5" {
            control.set_terminator(Terminator::count_then(2, b"!\n"));
        }
        Ok(())
    }

    async fn wrong_end(&mut self, control: &mut Control<'_>) -> Result<(), Infallible> {
        control.set_terminator(b"\n");
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_whole_frame_says_whether_it_is_complete() {
    let input = "one\n\nlonger\n5\nab!\n5\nab?\ncut";
    let complete = |text: &str| (text.to_owned(), Some(End::Terminator));
    for piece in 1..=input.len() {
        let (socket, peer) = pipe();
        peer.chop(piece);
        peer.send(input);
        peer.close();
        let builder = Channel::builder(b"\n").limit(Limit::Skip(5)).timeouts(patient());
        let (handler, _) = builder.whole_frames(true).build(socket).run(Ends::default()).await;
        let frames = [
            complete("one"),
            complete(""),
            ("longe".into(), Some(End::Overlong)),
            complete("5"),
            complete("ab"),
            complete("5"),
            ("ab".into(), Some(End::WrongEnd)),
            ("cut".into(), Some(End::Truncated)),
        ];
        assert_eq!(handler.0, frames, "by {piece}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_piece_of_a_frame_does_not_say_how_it_ends() {
    let (socket, peer) = pipe();
    peer.send("one\n");
    peer.close();
    let mut channel = Channel::builder(b"\n").timeouts(patient()).build(socket);
    assert_eq!(channel.run(Ends::default()).await.0.0, [("one".into(), None)]);
}

/// A handler that sets whether frames are whole when one is too long: with its last piece, or in `overlong`.
struct Rethinking {
    to: bool,
    early: bool,
    /// What is handed over after it.
    behind: Option<Vec<(String, Option<End>)>>,
}

impl Handler for Rethinking {
    type Error = Infallible;

    fn collect_incoming_data(
        &mut self,
        data: Chunk<'_>,
        control: &mut Control<'_>,
    ) -> Result<(), Infallible> {
        let text = String::from_utf8(data.to_vec()).unwrap();
        match &mut self.behind {
            Some(behind) => behind.push((text, data.end())),
            None if self.early => control.set_whole_frames(self.to),
            None => {}
        }
        Ok(())
    }

    async fn overlong(&mut self, control: &mut Control<'_>) -> Result<(), Infallible> {
        control.set_whole_frames(self.to);
        self.behind = Some(Vec::new());
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn whole_frames_set_at_an_overlong_one_are_those_behind_what_is_skipped() {
    let input = "too long\nab\n\ncd\n";
    for (to, early, piece) in [true, false]
        .into_iter()
        .flat_map(|to| [true, false].map(|early| (to, early)))
        .flat_map(|(to, early)| (1..=input.len()).map(move |piece| (to, early, piece)))
    {
        let (socket, peer) = pipe();
        peer.chop(piece);
        peer.send(input);
        peer.close();
        let builder = Channel::builder(b"\n").limit(Limit::Skip(3)).timeouts(patient());
        let mut channel = builder.whole_frames(!to).build(socket);
        let behind = channel.run(Rethinking { to, early, behind: None }).await.0.behind.unwrap();
        let what = format!("to {to}, early {early}, by {piece}");
        if to {
            let frames = ["ab", "", "cd"].map(|text| (text.into(), Some(End::Terminator)));
            assert_eq!(behind, frames, "{what}");
        } else {
            let text: String = behind.iter().map(|(text, _)| &text[..]).collect();
            assert_eq!(text, "abcd", "{what}");
            assert!(behind.iter().all(|(_, end)| end.is_none()), "{what}: {behind:?}");
        }
    }
}

// Messages of several frames.

/// A handler of messages, each of which is a head that says how many lines follow, and these lines.
fn lines_behind_heads() -> Scripted<impl FnMut(&Seen, &mut Control<'_>) -> Then + Send> {
    let mut left = 0;
    let mut line = String::new();
    Scripted::new(move |seen, control| {
        match seen {
            Seen::Data(text) => line.push_str(text),
            Seen::End => {
                let line = std::mem::take(&mut line);
                if left == 0 {
                    left = line.parse().unwrap_or(0);
                    if left > 0 {
                        control.begin_message();
                    }
                } else {
                    left -= 1;
                    if left == 0 {
                        control.end_message();
                        control.push("answer");
                    }
                }
            }
            _ => {}
        }
        Then::Go
    })
}

fn lines(timeouts: Timeouts) -> (Channel<Socket>, Peer) {
    let (socket, peer) = pipe();
    (Channel::builder(b"\n").timeouts(timeouts).build(socket), peer)
}

#[tokio::test(start_paused = true)]
async fn the_input_that_ends_between_the_frames_of_a_message_is_truncated() {
    for (input, truncated) in [("2\na\n", true), ("2\na\nb\n", false), ("0\n", false)] {
        let (mut channel, peer) = lines(patient());
        peer.send(input);
        peer.close();
        let (handler, reason) = channel.run(lines_behind_heads()).await;
        assert_eq!(matches!(reason, CloseReason::Truncated), truncated, "{input:?} {reason:?}");
        assert_eq!(handler.log.seen().contains(&Seen::Truncated), truncated);
    }
    // The same by pulling.
    let (mut channel, peer) = lines(patient());
    peer.send("2\n");
    peer.close();
    for _ in 0..2 {
        channel.next().await.unwrap().unwrap();
    }
    channel.begin_message();
    assert_eq!(channel.next().await.unwrap().unwrap(), Event::Truncated);
    assert!(channel.next().await.is_none());
    let (_, reason) = channel.run(lines_behind_heads()).await;
    assert!(matches!(reason, CloseReason::Truncated), "{reason:?}");
}

#[tokio::test(start_paused = true)]
async fn a_message_that_is_cut_in_a_frame_is_said_to_be_truncated_once() {
    let (mut channel, peer) = lines(patient());
    peer.send("2\na");
    peer.close();
    for _ in 0..2 {
        channel.next().await.unwrap().unwrap();
    }
    channel.begin_message();
    assert_eq!(channel.next().await.unwrap().unwrap(), Event::Chunk("a".into()));
    assert_eq!(channel.next().await.unwrap().unwrap(), Event::Truncated);
    assert!(channel.next().await.is_none());
    // The same in whole frames, which are lent.
    let (mut channel, peer) = lines(patient());
    peer.send("2\n");
    peer.close();
    channel.set_whole_frames(true);
    let (step, mut control) = channel.step().await.unwrap().unwrap();
    assert_eq!(step.end, Some(End::Terminator));
    control.begin_message();
    let (step, _) = channel.step().await.unwrap().unwrap();
    assert_eq!((&step.payload[..], step.end), (&b""[..], Some(End::Truncated)));
    assert!(channel.step().await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn the_frame_deadline_is_over_the_whole_of_a_message() {
    let (mut channel, peer) = lines(Timeouts::NONE.frame(Duration::from_secs(10)));
    let running = tokio::spawn(async move { channel.run(lines_behind_heads()).await.1 });
    // Each message takes 9 seconds, which is in time, and between messages no deadline runs.
    for _ in 0..3 {
        peer.send("0\n1\n");
        seconds(9).await;
        peer.send("a\n");
        seconds(1000).await;
    }
    peer.send("9\n");
    for _ in 0..3 {
        seconds(3).await;
        peer.send("a\n");
    }
    settle().await;
    assert!(!running.is_finished());
    seconds(2).await;
    assert!(running.is_finished());
    assert!(matches!(running.await.unwrap(), CloseReason::Timeout(Timeout::Frame)));
    assert_eq!(peer.output(), "answeransweranswer");
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_waits_for_the_end_of_a_message() {
    let (mut channel, peer) = lines(patient());
    peer.send("2\na\n");
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn(async move {
        let signal = async { drop(stopped.await) };
        channel.run_until(lines_behind_heads(), signal).await.1
    });
    settle().await;
    stop.send(()).unwrap();
    settle().await;
    assert!(!peer.is_shut_down());
    peer.send("b\n9\n");
    assert!(matches!(running.await.unwrap(), CloseReason::Done));
    assert_eq!(peer.output(), "answer");
}

// A place to wait.

/// A handler that writes what it collects to a disk, which takes a second for that.
#[derive(Default)]
struct Disk {
    buffer: Vec<u8>,
    written: Vec<Vec<u8>>,
}

impl Handler for Disk {
    type Error = Infallible;

    fn collect_incoming_data(
        &mut self,
        data: Chunk<'_>,
        _: &mut Control<'_>,
    ) -> Result<(), Infallible> {
        self.buffer.extend_from_slice(&data);
        Ok(())
    }

    async fn collected(&mut self, control: &mut Control<'_>) -> Result<(), Infallible> {
        tokio::time::sleep(Duration::from_secs(1)).await;
        control.push(".");
        self.written.push(std::mem::take(&mut self.buffer));
        Ok(())
    }

    async fn found_terminator(&mut self, control: &mut Control<'_>) -> Result<(), Infallible> {
        self.written.push(std::mem::take(&mut self.buffer));
        control.push("!");
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_can_be_waited_for_after_each_read() {
    let (socket, peer) = pipe();
    let mut timeouts = patient();
    // These deadlines do not run while the handler waits.
    (timeouts.idle, timeouts.frame) = (secs(1), secs(1));
    let mut channel = Channel::builder(b"\n.\n").read_size(10).timeouts(timeouts).build(socket);
    peer.send("0123456789abcdefghijklm\n.\n");
    peer.close();
    let running = tokio::spawn(async move { channel.run(Disk::default()).await });
    tokio::time::sleep(Duration::from_millis(500)).await;
    settle().await;
    // Nothing is read beyond what the handler has taken.
    assert_eq!(peer.unread(), 16);
    let (handler, reason) = running.await.unwrap();
    assert!(matches!(reason, CloseReason::PeerClosed), "{reason:?}");
    assert_eq!(handler.written, [&b"0123456789"[..], b"abcdefghij", b"klm"]);
    assert_eq!(peer.output(), "..!");
}

#[tokio::test(start_paused = true)]
async fn traffic_and_pending_input_are_counted() {
    let (mut channel, peer) = lines(patient());
    peer.send("one\ntwo\n");
    peer.take(3);
    assert_eq!(channel.next().await.unwrap().map(crate::support::seen).unwrap(), data("one"));
    assert_eq!(channel.pending_input(), 4);
    channel.push("hello").unwrap();
    for _ in 0..3 {
        channel.next().await.unwrap().unwrap();
    }
    let _ = tokio::time::timeout(Duration::from_secs(1), channel.next()).await;
    let traffic = channel.traffic();
    assert_eq!((traffic.read, traffic.written, channel.pending_input()), (8, 3, 0));
    assert!(!channel.is_closed());
    peer.take(usize::MAX);
    channel.close().await.unwrap();
    assert_eq!(channel.traffic().written, 5);
    assert!(channel.is_closed());
}

#[tokio::test(start_paused = true)]
async fn a_message_earns_time_by_its_own_bytes() {
    // Much has been read before the message begins, which earns it no time. Then no more comes.
    let (mut channel, peer) = lines(Timeouts::NONE.frame(Duration::from_secs(60)).min_rate(1024));
    let running = tokio::spawn(async move { channel.run(lines_behind_heads()).await.1 });
    for _ in 0..100 {
        peer.send("0\n".repeat(1024));
        settle().await;
    }
    peer.send("2\na\n");
    seconds(59).await;
    assert!(!running.is_finished());
    seconds(2).await;
    assert!(running.is_finished());

    // The frame comes at the minimum rate.
    let (mut channel, peer) = lines(Timeouts::NONE.frame(Duration::from_secs(60)).min_rate(10));
    let running = tokio::spawn(async move { channel.run(lines_behind_heads()).await.1 });
    peer.send("0\n".repeat(100));
    settle().await;
    peer.send("101\n");
    for _ in 0..101 {
        seconds(1).await;
        peer.send("123456789\n");
    }
    settle().await;
    assert_eq!(peer.output(), "answer");
    assert!(!running.is_finished());
}

#[tokio::test(start_paused = true)]
async fn a_message_that_is_ended_late_leaves_the_next_all_its_time() {
    let (mut channel, peer) = lines(Timeouts::NONE.frame(Duration::from_secs(60)));
    channel.set_whole_frames(true);
    peer.send("head\n");
    assert_eq!(channel.next().await.unwrap().unwrap(), Event::Chunk("head".into()));
    channel.begin_message();
    assert_eq!(channel.next().await.unwrap().unwrap(), Event::Terminator);
    peer.send("par");
    tokio::time::timeout(Duration::from_secs(40), channel.next()).await.unwrap_err();
    channel.end_message();
    let start = tokio::time::Instant::now();
    channel.next().await.unwrap().unwrap_err();
    assert_eq!(start.elapsed().as_secs(), 60);
}

/// A handler that closes in the middle of a frame, and counts how often `collected` is called.
struct Closing(u32);

impl Handler for Closing {
    type Error = Infallible;

    fn collect_incoming_data(
        &mut self,
        _: Chunk<'_>,
        control: &mut Control<'_>,
    ) -> Result<(), Infallible> {
        control.close_when_done();
        Ok(())
    }

    async fn collected(&mut self, _: &mut Control<'_>) -> Result<(), Infallible> {
        self.0 += 1;
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn there_is_no_place_to_wait_behind_a_close() {
    let (mut channel, peer) = lines(patient());
    peer.send("the beginning of a line");
    let (handler, reason) = channel.run(Closing(0)).await;
    assert_eq!(handler.0, 0);
    assert!(matches!(reason, CloseReason::Done), "{reason:?}");
}

/// A handler that sets LF as the terminator at the first piece of a line, and pushes more than the high-water mark. It
/// records the pieces, and the calls of `collected`.
#[derive(Default)]
struct Switching(Vec<String>);

impl Handler for Switching {
    type Error = Infallible;

    fn collect_incoming_data(
        &mut self,
        data: Chunk<'_>,
        control: &mut Control<'_>,
    ) -> Result<(), Infallible> {
        if self.0.is_empty() {
            control.set_terminator(b"\n");
            control.push("x".repeat(100));
        }
        self.0.push(String::from_utf8(data.to_vec()).unwrap());
        Ok(())
    }

    async fn collected(&mut self, _: &mut Control<'_>) -> Result<(), Infallible> {
        self.0.push("collected".into());
        Ok(())
    }

    async fn found_terminator(&mut self, _: &mut Control<'_>) -> Result<(), Infallible> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn the_place_to_wait_is_behind_all_that_was_read_though_the_queue_was_full() {
    let (socket, peer) = pipe();
    peer.take(0);
    peer.send("ab\r");
    let builder = Channel::builder(b"\r\n").high_water_mark(10).low_water_mark(0);
    let mut channel = builder.timeouts(patient()).build(socket);
    let running = tokio::spawn(async move { channel.run(Switching::default()).await.0 });
    settle().await;
    peer.take(usize::MAX);
    settle().await;
    peer.close();
    assert_eq!(running.await.unwrap().0, ["ab", "\r", "collected"]);
}

#[tokio::test(start_paused = true)]
async fn a_signal_that_wakes_gives_no_place_to_wait_before_all_that_was_read() {
    let (socket, peer) = pipe();
    peer.take(0);
    peer.send("ab\r");
    let builder = Channel::builder(b"\r\n").high_water_mark(10).low_water_mark(0);
    let mut channel = builder.timeouts(patient()).build(socket);
    // The signal never comes, but wakes the task at each poll.
    let signal = std::future::poll_fn(|cx| {
        cx.waker().wake_by_ref();
        std::task::Poll::<()>::Pending
    });
    let running =
        tokio::spawn(async move { channel.run_until(Switching::default(), signal).await.0 });
    settle().await;
    peer.take(usize::MAX);
    settle().await;
    peer.close();
    assert_eq!(running.await.unwrap().0, ["ab", "\r", "collected"]);
}
