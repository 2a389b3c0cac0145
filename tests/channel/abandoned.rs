//! Messages whose ends the application finds, and which are given up before they are complete: the future is dropped,
//! the bytes are discarded, another terminator is set, or another handler takes over.

use std::convert::Infallible;
use std::time::Duration;

use asynchat::{Channel, Chunk, Control, Event, Handler, Timeouts};
use tokio::time::{sleep, timeout};

use crate::support::{patient, pipe};

const SECOND: Duration = Duration::from_secs(1);

/// Finds the end of a message, whose first byte is a digit that says how many bytes follow.
fn find(input: &[u8]) -> Option<usize> {
    input.first().map(|digit| usize::from(digit - b'0') + 1)
}

#[tokio::test(start_paused = true)]
async fn a_terminator_that_is_set_behind_it_gives_pieces_as_before() {
    let (socket, peer) = pipe();
    peer.send("9x");
    let mut channel = Channel::builder(b"\n").timeouts(patient()).build(socket);
    assert!(timeout(SECOND, channel.message(find)).await.is_err());
    channel.set_terminator(b"\n");
    let event = timeout(SECOND, channel.next()).await.expect("a piece is there");
    assert_eq!(event.unwrap().unwrap(), Event::Chunk("9x".into()));
}

#[tokio::test(start_paused = true)]
async fn another_call_asks_its_own_function() {
    let (socket, peer) = pipe();
    peer.send("9xyz");
    let mut channel = Channel::builder(None).timeouts(patient()).build(socket);
    assert!(timeout(SECOND, channel.message(find)).await.is_err());
    let pulled = timeout(SECOND, channel.message(|_| Some(2))).await.expect("it is there");
    assert_eq!(&pulled.unwrap().unwrap().0.payload[..], b"9x");
}

#[tokio::test(start_paused = true)]
async fn a_discard_is_a_discard_of_its_length_too() {
    let (socket, peer) = pipe();
    peer.send("9ab");
    let mut channel = Channel::builder(None).timeouts(patient()).build(socket);
    assert!(timeout(SECOND, channel.message(find)).await.is_err());
    channel.discard_buffers();
    peer.send("1x");
    let pulled = timeout(SECOND, channel.message(find)).await.expect("it is there");
    assert_eq!(&pulled.unwrap().unwrap().0.payload[..], b"1x");
}

/// A handler that records what it is shown and what it collects.
struct Digits {
    shown: Vec<String>,
    collected: Vec<String>,
    /// What it does when the peer is quiet in the middle of a message.
    at_quiet: fn(&mut Control<'_>),
}

impl Digits {
    fn new(at_quiet: fn(&mut Control<'_>)) -> Self {
        Digits { shown: Vec::new(), collected: Vec::new(), at_quiet }
    }
}

impl Handler for Digits {
    type Error = Infallible;

    fn find_end(&mut self, input: &[u8], _: &mut Control<'_>) -> Result<Option<usize>, Infallible> {
        self.shown.push(String::from_utf8(input.to_vec()).unwrap());
        Ok(find(input))
    }

    fn collect_incoming_data(
        &mut self,
        data: Chunk<'_>,
        _: &mut Control<'_>,
    ) -> Result<(), Infallible> {
        self.collected.push(String::from_utf8(data.to_vec()).unwrap());
        Ok(())
    }

    fn quiet(&mut self, control: &mut Control<'_>) -> Result<(), Infallible> {
        (self.at_quiet)(control);
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn another_handler_is_asked_itself() {
    let (socket, peer) = pipe();
    peer.send("3x");
    let mut channel = Channel::builder(None).own_end(true).timeouts(patient()).build(socket);
    assert!(timeout(SECOND, channel.run(Digits::new(|_| {}))).await.is_err());
    peer.send("yz1a");
    peer.close();
    let (handler, _) = channel.run(Digits::new(|_| {})).await;
    assert_eq!(handler.collected, ["3xyz", "1a"]);
    assert_eq!(handler.shown, ["3x", "1a"]);
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_discards_it_is_asked_about_what_comes_next() {
    let (socket, peer) = pipe();
    peer.send("9ab");
    let timeouts = Timeouts::NONE.quiet(5 * SECOND);
    let mut channel = Channel::builder(None).own_end(true).timeouts(timeouts).build(socket);
    let running = tokio::spawn(async move {
        channel.run(Digits::new(|control| control.discard_buffers())).await.0
    });
    sleep(10 * SECOND).await;
    peer.send("1x1y");
    sleep(SECOND).await;
    peer.close();
    let handler = running.await.unwrap();
    assert_eq!(handler.collected, ["1x", "1y"], "{:?}", handler.shown);
}

#[tokio::test(start_paused = true)]
async fn lines_behind_it_come_in_pieces_whatever_is_set_first() {
    let at_quiet: [fn(&mut Control<'_>); 2] = [
        |control| {
            control.set_own_end(false);
            control.set_terminator(b"\n");
        },
        |control| {
            control.set_terminator(b"\n");
            control.set_own_end(false);
        },
    ];
    for (way, at_quiet) in at_quiet.into_iter().enumerate() {
        let (socket, peer) = pipe();
        peer.send("9ab");
        let timeouts = Timeouts::NONE.quiet(5 * SECOND);
        let mut channel = Channel::builder(None).own_end(true).timeouts(timeouts).build(socket);
        let running = tokio::spawn(async move { channel.run(Digits::new(at_quiet)).await.0 });
        sleep(7 * SECOND).await;
        peer.send("c");
        sleep(SECOND).await;
        peer.send("d\ne\n");
        peer.close();
        let handler = running.await.unwrap();
        assert_eq!(handler.collected, ["9ab", "c", "d", "e"], "{way}");
    }
}
