//! Other threads use handles all the time, while the channel writes, waits, is closed, aborted, upgraded, taken apart
//! or dropped. How the threads run does not follow from the seed, so a failure may not repeat.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::mpsc;
use std::task::{Context, Poll};
use std::thread;
use std::time::Duration;

use asynchat::{Channel, Chunk, Control, Handle, HandleError, Handler, Timeouts};
use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf};
use tokio::runtime::{Builder, Runtime};
use tokio::time::{sleep, timeout};

use crate::{Random, each_seed};

/// Runs something in a thread of its own, and checks that it ends.
fn ends(run: impl FnOnce() + Send + 'static) {
    let (done, is_done) = mpsc::channel();
    thread::spawn(move || {
        run();
        done.send(()).unwrap();
    });
    // An `Err` that says `Disconnected` means that the thread has panicked.
    assert_eq!(is_done.recv_timeout(Duration::from_secs(30)), Ok(()), "it does not end");
}

/// A runtime with a clock: in this thread if `threads` is 0, or else with so many threads.
fn runtime(threads: usize) -> Runtime {
    let mut builder = match threads {
        0 => Builder::new_current_thread(),
        _ => Builder::new_multi_thread(),
    };
    builder.worker_threads(threads.max(1)).enable_time().build().unwrap()
}

// ---------------------------------------------------------------------------------------------
// Other threads never stop pushing

/// A stream that never has input, and takes everything at once. It does not use tokio's budget, which would make the
/// task let others run.
#[derive(Debug)]
struct Bottomless;

impl AsyncRead for Bottomless {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Poll::Pending
    }
}

impl AsyncWrite for Bottomless {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Calls `go` with a channel that has read a line, while two threads push without a pause, and checks that it ends.
fn ends_among_pushers(go: impl AsyncFnOnce(Channel<Bottomless>) + Send + 'static) {
    ends(move || {
        let mut channel = Channel::builder(b"\n")
            .timeouts(Timeouts::NONE)
            .build_with_input(Bottomless, Bytes::from("\n"));
        for _ in 0..2 {
            let handle = channel.handle();
            thread::spawn(move || {
                while !matches!(handle.push("some bytes\n"), Err(HandleError::Closed(_))) {}
            });
        }
        runtime(0).block_on(async {
            sleep(Duration::from_millis(50)).await;
            go(channel).await;
        });
    });
}

#[test]
fn a_flush_ends_though_others_push_all_the_time() {
    ends_among_pushers(async |mut channel: Channel<Bottomless>| {
        for _ in 0..20 {
            channel.flush().await.unwrap();
        }
    });
}

#[test]
fn an_upgrade_ends_though_others_push_all_the_time() {
    ends_among_pushers(async |mut channel: Channel<Bottomless>| {
        channel.next().await.unwrap().unwrap();
        assert!(channel.upgrade().await.is_ok());
    });
}

#[test]
fn next_can_be_given_up_though_others_push_all_the_time() {
    ends_among_pushers(async |mut channel: Channel<Bottomless>| {
        channel.next().await.unwrap().unwrap();
        for _ in 0..20 {
            assert!(timeout(Duration::from_millis(10), channel.next()).await.is_err());
        }
    });
}

/// A handler that waits in a callback for a while, then closes.
struct Waiting;

impl Handler for Waiting {
    type Error = Infallible;

    fn collect_incoming_data(
        &mut self,
        _: Chunk<'_>,
        _: &mut Control<'_>,
    ) -> Result<(), Infallible> {
        Ok(())
    }

    async fn found_terminator(&mut self, control: &mut Control<'_>) -> Result<(), Infallible> {
        sleep(Duration::from_millis(200)).await;
        control.close_when_done();
        Ok(())
    }
}

#[test]
fn a_callback_goes_on_though_others_push_all_the_time() {
    ends_among_pushers(async |mut channel: Channel<Bottomless>| {
        channel.run(Waiting).await;
    });
}

/// Sends an item that is larger than the capacity, while others never stop sending.
async fn send_much() {
    let (mut client, server) = tokio::io::duplex(4096);
    let mut channel =
        Channel::builder(b"\n").handle_capacity(64).timeouts(Timeouts::NONE).build(server);
    let handle = channel.handle();
    tokio::spawn(async move { channel.next().await.is_none() });
    tokio::spawn(async move { tokio::io::copy(&mut client, &mut tokio::io::sink()).await });
    for _ in 0..8 {
        let handle = handle.clone();
        tokio::spawn(async move { while handle.send("ten bytes\n").await.is_ok() {} });
    }
    sleep(Duration::from_millis(20)).await;
    assert_eq!(handle.send(vec![b'x'; 100]).await, Ok(()));
    handle.abort();
}

#[test]
fn whoever_sends_much_is_let_in_among_many_who_send_little() {
    for threads in [0, 4] {
        ends(move || runtime(threads).block_on(send_much()));
    }
}

// ---------------------------------------------------------------------------------------------
// The channel ends while others push

/// How a channel ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Close,
    CloseByHandle,
    /// By the first sender, after its last line.
    CloseBySender,
    AbortByHandle,
    Upgrade,
    TakeApart,
    Drop,
}

const ENDINGS: &[Ending] = &[
    Ending::Close,
    Ending::CloseByHandle,
    Ending::CloseBySender,
    Ending::AbortByHandle,
    Ending::Upgrade,
    Ending::TakeApart,
    Ending::Drop,
];

/// How many tasks send, and how many lines each of them sends.
const SENDERS: usize = 6;
const LINES: usize = 40;

/// A line of a sender. The last ones are too long to be copied.
fn line(sender: usize, number: usize) -> String {
    format!("{sender} {number} {}\n", "x".repeat(number * 40))
}

/// Sends lines in every way in turn, until one is refused. Returns how many were accepted.
async fn send_lines(handle: Handle, sender: usize, ending: Ending) -> usize {
    for number in 0..LINES {
        let mut line = line(sender, number);
        let accepted = match number % 3 {
            0 => {
                let words: Vec<_> = line.split_inclusive(' ').map(str::to_owned).collect();
                handle.send_all(words).await.is_ok()
            }
            1 => handle.send(line).await.is_ok(),
            _ => loop {
                line = match handle.push(line) {
                    Err(HandleError::Full(line)) => line,
                    pushed => break pushed.is_ok(),
                };
                tokio::task::yield_now().await;
            },
        };
        if !accepted {
            return number;
        }
    }
    if (sender, ending) == (0, Ending::CloseBySender) {
        handle.close_when_done();
    }
    LINES
}

/// Ends the channel after some time. Returns the channel if it has only been closed and still exists.
async fn end(
    mut channel: Channel<DuplexStream>,
    ending: Ending,
    after: Duration,
) -> Option<Channel<DuplexStream>> {
    let handle = channel.handle();
    let asking = tokio::spawn(async move {
        sleep(after).await;
        match ending {
            Ending::CloseByHandle => handle.close_when_done(),
            Ending::AbortByHandle => handle.abort(),
            _ => {}
        }
    });
    match ending {
        Ending::CloseByHandle | Ending::CloseBySender | Ending::AbortByHandle => {
            assert!(channel.next().await.is_none());
            let _ = channel.close().await;
        }
        _ => assert!(timeout(after, channel.next()).await.is_err()),
    }
    asking.await.unwrap();
    match ending {
        Ending::Close => {
            channel.close().await.unwrap();
            return Some(channel);
        }
        Ending::Upgrade => {
            let Ok(mut stream) = channel.upgrade().await else { panic!("it is refused") };
            stream.write_all(b"upgraded\n").await.unwrap();
        }
        Ending::TakeApart => drop(channel.into_parts()),
        _ => {}
    }
    None
}

async fn run(seed: u64) {
    let mut random = Random::new(seed);
    let ending = random.pick(ENDINGS);
    let (mut client, server) = tokio::io::duplex(1 + random.below(97));
    let mut channel =
        Channel::builder(b"\n").handle_capacity(64).timeouts(Timeouts::NONE).build(server);
    let handle = channel.handle();
    let senders: Vec<_> = (0..SENDERS)
        .map(|sender| tokio::spawn(send_lines(handle.clone(), sender, ending)))
        .collect();
    let listener = handle.clone();
    let listening = tokio::spawn(async move { listener.closed().await });
    let after = Duration::from_micros(random.below(3000) as u64);
    let owner = tokio::spawn(end(channel, ending, after));
    let mut output = String::new();
    client.read_to_string(&mut output).await.unwrap();
    drop(client);

    // The channel is kept until all is checked.
    let _channel = owner.await.unwrap();
    listening.await.unwrap();
    let mut accepted = Vec::new();
    for sender in senders {
        accepted.push(sender.await.unwrap());
    }
    assert!(handle.is_closed());
    assert_eq!(handle.queued_bytes(), 0);

    let mut heard = vec![0; SENDERS];
    let mut rest = match ending {
        Ending::Upgrade => output.strip_suffix("upgraded\n").unwrap(),
        _ => &output,
    };
    while let Some((next, behind)) = rest.split_once('\n') {
        let sender: usize = next[..1].parse().unwrap();
        assert_eq!(format!("{next}\n"), line(sender, heard[sender]), "{ending:?}");
        heard[sender] += 1;
        rest = behind;
    }
    match ending {
        Ending::Close | Ending::CloseByHandle | Ending::CloseBySender | Ending::Upgrade => {
            assert_eq!((heard, rest), (accepted, ""), "{ending:?}");
        }
        // The last line may be incomplete.
        Ending::AbortByHandle | Ending::TakeApart | Ending::Drop => {
            assert!(heard.iter().zip(&accepted).all(|(heard, accepted)| heard <= accepted));
        }
    }
}

#[test]
fn what_handles_push_is_sent_whole_and_in_order_and_nobody_waits_for_ever_however_it_ends() {
    each_seed("HANDLES", 30, |seed| ends(move || runtime(4).block_on(run(seed))));
}
