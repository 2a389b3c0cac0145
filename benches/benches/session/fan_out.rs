//! One message for a thousand connections, as in a chat room: one task has a `Handle` of each connection, and pushes
//! the same `Bytes` into all of them.
//!
//! For each message that a connection gets, this measures the CPU time of the thread that sends and serves, how often
//! the connection's task is woken, and how often it makes a system call to write.

use std::convert::Infallible;
use std::io::{self, IoSlice, Read};
use std::net::{TcpListener, TcpStream as Socket};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll};

use asynchat::{Channel, Chunk, Control, Handle, Handler};
use asynchat_benches::harness::Outcome;
use asynchat_benches::server::runtime;
use asynchat_benches::{Bench, nanoseconds, thread_time};
use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc};

const MESSAGE: &[u8] = b"a line that somebody has said in a room of a thousand people\r\n";

/// Counts what the tasks of the connections do.
#[derive(Debug, Default)]
struct Counts {
    polls: AtomicUsize,
    writes: AtomicUsize,
    bytes: AtomicUsize,
    /// How many bytes have to be written until `written` is notified.
    wanted: AtomicUsize,
    written: Notify,
}

/// A socket whose writes are counted.
struct Counted {
    stream: TcpStream,
    counts: Arc<Counts>,
}

impl Counted {
    fn count(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        let counts = &*self.counts;
        counts.writes.fetch_add(1, Relaxed);
        if let Poll::Ready(Ok(n)) = written {
            let bytes = counts.bytes.fetch_add(n, Relaxed) + n;
            if bytes == counts.wanted.load(Relaxed) {
                counts.written.notify_one();
            }
        }
        written
    }
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.count(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.count(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Spawns a task, and counts how often it is polled.
fn spawn(counts: &Arc<Counts>, task: impl Future<Output = ()> + Send + 'static) {
    let counts = Arc::clone(counts);
    tokio::spawn(async move {
        let mut task = pin!(task);
        std::future::poll_fn(|cx| {
            counts.polls.fetch_add(1, Relaxed);
            task.as_mut().poll(cx)
        })
        .await;
    });
}

/// A handler that only receives messages.
struct Listener;

impl Handler for Listener {
    type Error = Infallible;

    fn collect_incoming_data(
        &mut self,
        _: Chunk<'_>,
        _: &mut Control<'_>,
    ) -> Result<(), Infallible> {
        Ok(())
    }
}

/// How another task reaches a connection that is served by a task of its own.
trait Member: Sized {
    fn join(stream: Counted, counts: &Arc<Counts>) -> Self;
    fn say(&self, message: Bytes);
}

impl Member for Handle {
    fn join(stream: Counted, counts: &Arc<Counts>) -> Handle {
        let mut channel = Channel::new(stream, b"\r\n");
        let handle = channel.handle();
        spawn(counts, async move { drop(channel.run(Listener).await) });
        handle
    }

    fn say(&self, message: Bytes) {
        self.push(message).expect("it is open and has room");
    }
}

/// One of tokio's queues, from which a task writes message by message.
struct Queue(mpsc::Sender<Bytes>);

impl Member for Queue {
    fn join(mut stream: Counted, counts: &Arc<Counts>) -> Queue {
        let (sender, mut receiver) = mpsc::channel::<Bytes>(1024);
        spawn(counts, async move {
            while let Some(message) = receiver.recv().await {
                stream.write_all(&message).await.expect("a connection");
            }
        });
        Queue(sender)
    }

    fn say(&self, message: Bytes) {
        self.0.try_send(message).expect("it has room");
    }
}

/// As [`Queue`], but the task writes all messages that are in the queue at once.
struct GatheringQueue(mpsc::Sender<Bytes>);

impl Member for GatheringQueue {
    fn join(mut stream: Counted, counts: &Arc<Counts>) -> GatheringQueue {
        let (sender, mut receiver) = mpsc::channel::<Bytes>(1024);
        spawn(counts, async move {
            let mut output = Vec::new();
            while let Some(message) = receiver.recv().await {
                output.extend_from_slice(&message);
                while let Ok(message) = receiver.try_recv() {
                    output.extend_from_slice(&message);
                }
                stream.write_all(&output).await.expect("a connection");
                output.clear();
            }
        });
        GatheringQueue(sender)
    }

    fn say(&self, message: Bytes) {
        self.0.try_send(message).expect("it has room");
    }
}

/// Sends `burst` messages to so many members, and waits until all are written; and this `rounds` times. The checksum is
/// the number of bytes that have arrived.
fn talk<M: Member>(members: usize, rounds: usize, burst: usize) -> Outcome {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    let total = members * rounds * burst * MESSAGE.len();
    let (connected, mut sockets) = (0..members)
        .map(|_| {
            let there = Socket::connect(address).expect("it listens");
            let (here, _) = listener.accept().expect("it connects");
            here.set_nonblocking(true).expect("a socket");
            here.set_nodelay(true).expect("a socket");
            (here, there)
        })
        .collect::<(Vec<_>, Vec<_>)>();
    let counts = Arc::new(Counts::default());
    let values = runtime().block_on(async {
        let members: Vec<M> = (connected.into_iter())
            .map(|stream| {
                let stream = TcpStream::from_std(stream).expect("a socket");
                M::join(Counted { stream, counts: Arc::clone(&counts) }, &counts)
            })
            .collect();
        // First every task is polled once, until it waits.
        while counts.polls.load(Relaxed) < members.len() {
            tokio::task::yield_now().await;
        }
        counts.polls.store(0, Relaxed);
        let message = Bytes::from(MESSAGE.to_vec());
        let start = thread_time();
        for round in 1..=rounds {
            counts.wanted.store(round * burst * MESSAGE.len() * members.len(), Relaxed);
            for _ in 0..burst {
                members.iter().for_each(|member| member.say(message.clone()));
            }
            counts.written.notified().await;
        }
        let time = thread_time() - start;
        vec![
            nanoseconds(time),
            counts.polls.load(Relaxed) as f64,
            counts.writes.load(Relaxed) as f64,
        ]
    });
    // What was written is still in the peers' sockets, followed by the end of the input.
    let mut arrived = Vec::new();
    for socket in &mut sockets {
        arrived.clear();
        socket.read_to_end(&mut arrived).expect("a connection");
        assert!(arrived.chunks(MESSAGE.len()).all(|message| message == MESSAGE), "not the message");
        assert_eq!(arrived.len(), total / members);
    }
    (values, total as u64)
}

pub fn fan_out(bench: &mut Bench) {
    let members = bench.size(1000, 50);
    let rounds = bench.size(16, 2);
    for (called, burst) in [("one message", 1), ("16 messages", 16)] {
        let Some(row) = bench.row(&format!("{called} at a time to 1 000 connections")) else {
            continue;
        };
        row.work(members * rounds * burst, "message", 0)
            .measures(&[("CPU time", "ns"), ("wake-ups", "wake-ups"), ("writes", "writes")])
            .ours_measured("Handle of a Channel", || talk::<Handle>(members, rounds, burst))
            .peer_measured("mpsc and write_all", || talk::<Queue>(members, rounds, burst))
            .peer_measured("mpsc, gathered, and write_all", || {
                talk::<GatheringQueue>(members, rounds, burst)
            })
            .run();
    }
}
