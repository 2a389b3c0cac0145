//! Handles that are used by real threads, and all the time, while their channel is closed, aborted, upgraded,
//! taken apart or dropped: nobody waits for ever, what was accepted is sent in order, and nothing is torn.
//!
//! `RUNS` sets the number of runs.
#![cfg(feature = "tokio")]
#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll};
use std::time::Duration;

use asynchat::{Channel, Handle, HandleError, Timeouts};
use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::timeout;

/// Takes everything at once; never has input.
struct Hole(Arc<AtomicUsize>);
impl AsyncRead for Hole {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Poll::Pending
    }
}
impl AsyncWrite for Hole {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, b: &[u8]) -> Poll<io::Result<usize>> {
        self.0.fetch_add(b.len(), SeqCst);
        Poll::Ready(Ok(b.len()))
    }
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

fn pushers(handle: &Handle, threads: usize, stop: &Arc<AtomicBool>) {
    for _ in 0..threads {
        let (handle, stop) = (handle.clone(), stop.clone());
        std::thread::spawn(move || {
            while !stop.load(SeqCst) {
                match handle.push("some bytes for the hole\n") {
                    Err(HandleError::Closed(_)) => break,
                    _ => std::hint::spin_loop(),
                }
            }
        });
    }
}

fn busy(what: &'static str, go: impl AsyncFnOnce(Channel<Hole>) + Send + 'static) {
    let stop = Arc::new(AtomicBool::new(false));
    let stopping = stop.clone();
    let (done, is_done) = mpsc::channel();
    std::thread::spawn(move || {
        let rt = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        rt.block_on(async move {
            let mut channel =
                Channel::builder(b"\n").timeouts(Timeouts::NONE).build(Hole(Arc::default()));
            let handle = channel.handle();
            pushers(&handle, 2, &stop);
            tokio::time::sleep(Duration::from_millis(50)).await;
            go(channel).await;
        });
        let _ = done.send(());
    });
    let waited = is_done.recv_timeout(Duration::from_secs(8));
    stopping.store(true, SeqCst);
    assert!(waited.is_ok(), "{what}");
}

#[test]
fn a_flush_ends_though_others_push_all_the_time() {
    busy("flush does not end", async |mut channel: Channel<Hole>| {
        for _ in 0..20 {
            channel.flush().await.unwrap();
        }
    });
}

#[test]
fn a_flush_can_be_given_up_though_others_push_all_the_time() {
    busy("flush holds the thread", async |mut channel: Channel<Hole>| {
        for _ in 0..20 {
            let _ = timeout(Duration::from_millis(100), channel.flush()).await;
        }
    });
}

#[test]
fn an_upgrade_ends_though_others_push_all_the_time() {
    busy("upgrade does not end", async |channel: Channel<Hole>| {
        assert!(channel.upgrade().await.is_ok());
    });
}

#[test]
fn next_can_be_given_up_though_others_push_all_the_time() {
    busy("next holds the thread", async |mut channel: Channel<Hole>| {
        for _ in 0..20 {
            let _ = timeout(Duration::from_millis(100), channel.next()).await;
        }
    });
}

struct Waits;
impl asynchat::Handler for Waits {
    type Error = std::convert::Infallible;
    fn collect_incoming_data(
        &mut self,
        _: asynchat::Chunk<'_>,
        _: &mut asynchat::Control<'_>,
    ) -> Result<(), Self::Error> {
        Ok(())
    }
    async fn found_terminator(&mut self, c: &mut asynchat::Control<'_>) -> Result<(), Self::Error> {
        tokio::time::sleep(Duration::from_millis(200)).await;
        c.close_when_done();
        Ok(())
    }
}

#[test]
fn a_callback_goes_on_though_others_push_all_the_time() {
    busy("the callback is not polled", async |channel: Channel<Hole>| {
        drop(channel);
        let hole = Hole(Arc::default());
        let mut channel = Channel::builder(b"\n")
            .timeouts(Timeouts::NONE)
            .build_with_input(hole, Bytes::from_static(b"x\n"));
        let handle = channel.handle();
        let stop = Arc::new(AtomicBool::new(false));
        pushers(&handle, 2, &stop);
        let _ = channel.run(Waits).await;
    });
}

#[test]
fn storm() {
    let rt =
        tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build().unwrap();
    let runs: usize = std::env::var("RUNS").ok().map_or(60, |s| s.parse().unwrap());
    rt.block_on(async {
        for run in 0..runs {
            let what = run % 6;
            let done = timeout(Duration::from_secs(20), one(run, what)).await;
            assert!(done.is_ok(), "run {run} ({what}) hangs");
        }
    });
}

async fn one(run: usize, what: usize) {
    let (mut client, server) = tokio::io::duplex(1 + run % 97);
    let mut channel =
        Channel::builder(b"\n").handle_capacity(64).timeouts(Timeouts::NONE).build(server);
    let handle = channel.handle();
    let weak_probe = Arc::new(());
    let accepted: Arc<Mutex<HashMap<usize, usize>>> = Arc::default();
    let mut senders = vec![];
    for id in 0..6 {
        let handle = handle.clone();
        let accepted = accepted.clone();
        let probe = weak_probe.clone();
        senders.push(tokio::spawn(async move {
            let _probe = probe;
            for n in 0..40usize {
                let ok = if n % 3 == 0 {
                    handle
                        .send_all([format!("{id} {n} "), "b ".to_string(), "c\n".to_string()])
                        .await
                        .is_ok()
                } else if n % 3 == 1 {
                    handle.send(format!("{id} {n} {}\n", "x".repeat(n * 40))).await.is_ok()
                } else {
                    let mut item = format!("{id} {n} p\n");
                    loop {
                        match handle.push(item) {
                            Ok(()) => break true,
                            Err(HandleError::Full(back)) => item = back,
                            _ => break false,
                        }
                        tokio::task::yield_now().await;
                    }
                };
                if !ok {
                    return;
                }
                *accepted.lock().unwrap().entry(id).or_default() = n + 1;
            }
        }));
    }
    let closing = {
        let handle = handle.clone();
        tokio::spawn(async move { handle.closed().await })
    };
    let killer = {
        let handle = handle.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_micros((run as u64 * 37) % 3000)).await;
            match what {
                0 => handle.close_when_done(),
                1 => handle.abort(),
                _ => {}
            }
        })
    };
    let owner = tokio::spawn(async move {
        match what {
            2 => {
                let _ =
                    timeout(Duration::from_micros((run as u64 * 53) % 3000), channel.next()).await;
                drop(channel);
                None
            }
            3 => {
                let _ =
                    timeout(Duration::from_micros((run as u64 * 53) % 3000), channel.next()).await;
                let io = channel.upgrade().await.ok();
                if let Some(mut io) = io {
                    let _ = io.write_all(b"TLS\n").await;
                    let _ = io.shutdown().await;
                }
                None
            }
            4 => {
                let _ =
                    timeout(Duration::from_micros((run as u64 * 53) % 3000), channel.next()).await;
                let _ = channel.close().await;
                Some(channel)
            }
            5 => {
                let _ =
                    timeout(Duration::from_micros((run as u64 * 53) % 3000), channel.next()).await;
                drop(channel.into_parts());
                None
            }
            _ => {
                while let Some(Ok(_)) = channel.next().await {}
                let _ = channel.close().await;
                None
            }
        }
    });
    let mut heard = vec![];
    let mut buffer = [0; 50];
    while let Ok(n @ 1..) = client.read(&mut buffer).await {
        heard.extend_from_slice(&buffer[..n]);
    }
    drop(client);
    let channel = owner.await.unwrap();
    for s in senders {
        s.await.unwrap();
    }
    closing.await.unwrap();
    killer.await.unwrap();
    assert_eq!(Arc::strong_count(&weak_probe), 1);
    assert_eq!(handle.queued_bytes(), 0);
    assert!(handle.is_closed());
    let heard = String::from_utf8(heard).unwrap();
    let whole = matches!(what, 0 | 3 | 4);
    let mut last: HashMap<usize, usize> = HashMap::new();
    for line in heard.split_inclusive('\n') {
        if !line.ends_with('\n') {
            assert!(!whole, "run {run} ({what}): {line:?}");
            continue;
        }
        if line == "TLS\n" {
            continue;
        }
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let (id, n): (usize, usize) = (words[0].parse().unwrap(), words[1].parse().unwrap());
        if n % 3 == 0 {
            assert_eq!(words[2..], ["b", "c"], "torn: {line:?}");
        }
        let next = last.entry(id).or_default();
        assert_eq!(*next, n, "run {run} ({what}) sender {id} out of order");
        *next += 1;
    }
    if whole {
        assert_eq!(
            last.iter().filter(|l| *l.1 > 0).collect::<HashMap<_, _>>(),
            accepted.lock().unwrap().iter().filter(|l| *l.1 > 0).collect::<HashMap<_, _>>(),
            "run {run} ({what})"
        );
    }
    drop(channel);
}

/// One whose item is larger than the capacity, among others that never stop.
async fn starved() -> usize {
    let (mut client, server) = tokio::io::duplex(4096);
    let mut channel =
        Channel::builder(b"\n").handle_capacity(64).timeouts(Timeouts::NONE).build(server);
    let handle = channel.handle();
    tokio::spawn(async move { channel.next().await.is_none() });
    tokio::spawn(async move {
        let mut sink = [0; 1000];
        while let Ok(1..) = client.read(&mut sink).await {}
    });
    let sent = Arc::new(AtomicUsize::new(0));
    for _ in 0..8 {
        let (handle, sent) = (handle.clone(), sent.clone());
        tokio::spawn(async move {
            while handle.send("ten bytes\n").await.is_ok() {
                sent.fetch_add(1, SeqCst);
            }
        });
    }
    tokio::time::sleep(Duration::from_millis(20)).await;
    let before = sent.load(SeqCst);
    let big = timeout(Duration::from_secs(5), handle.send(vec![b'x'; 100])).await;
    let after = sent.load(SeqCst) - before;
    handle.abort();
    assert!(big.is_ok(), "not in 5 seconds, in which others have sent {after}");
    after
}

#[tokio::test]
async fn whoever_sends_much_is_let_in_among_many_who_send_little() {
    println!("after {}", starved().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whoever_sends_much_is_let_in_among_many_who_send_little_in_threads() {
    println!("after {}", starved().await);
}
