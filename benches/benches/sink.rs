//! Output: a `ProducerSink` beside a `FramedWrite` of `BytesCodec`.
//!
//! `cargo bench -p asynchat-benches --bench sink [-- [ROW]... [--quick]]`
//!
//! Each writes the same items, to a socket that another thread reads, or to a writer that takes all at once. The CPU
//! time of the thread that writes is measured, and the wall clock. The checksum is how many bytes have arrived at the
//! other thread, or were given to that writer.

#![forbid(unsafe_code)]

use std::hint::black_box;
use std::io::{self, IoSlice, Read};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::thread;
use std::time::Instant;

use asynchat::ProducerSink;
use asynchat_benches::harness::Outcome;
use asynchat_benches::io::complete;
use asynchat_benches::server::runtime;
use asynchat_benches::{Bench, nanoseconds, thread_time};
use bytes::Bytes;
use futures::{Sink, SinkExt};
use tokio::io::AsyncWrite;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio_util::codec::{BytesCodec, FramedWrite};

const PEER: &str = "FramedWrite";

fn main() {
    let mut bench = Bench::from_args();
    over_tcp(&mut bench);
    all_taken(&mut bench);
    calls(&mut bench);
    bench.finish();
}

fn over_tcp(bench: &mut Bench) {
    let runtime = &runtime();
    for (called, size, mib, goal) in [
        ("64 B", 64, 32, Some(0.38)),
        ("1 KiB", 1 << 10, 128, None),
        ("4 KiB", 4 << 10, 256, Some(0.40)),
    ] {
        let total = bench.size(mib << 20, 1 << 20);
        let Some(row) = bench.row(&format!("items of {called} over TCP")) else { continue };
        let items = &*items(size, total);
        let bytes = items.len() * size;
        let measures = [("CPU time of the writer", "ns"), ("wall clock", "ns")];
        let mut row = row.work(items.len(), "item", bytes).expect(bytes as u64).measures(&measures);
        for (way, called) in Way::OURS {
            row = row.ours_measured(called, move || tcp(runtime, way, items));
            if let (Way::Push, Some(goal)) = (way, goal) {
                row = row.goal(PEER, goal);
            }
        }
        row.peer_measured(PEER, || tcp(runtime, Way::FramedWrite, items)).run();
    }
}

fn all_taken(bench: &mut Bench) {
    for (called, size, mib, goals) in [
        ("64 B", 64, 32, [None, Some(1.0), Some(2.0)]),
        ("1 KiB", 1 << 10, 128, [None; 3]),
        ("4 KiB", 4 << 10, 512, [Some(0.07), Some(1.0), None]),
        ("1 MiB", 1 << 20, 1 << 10, [Some(0.002), None, None]),
    ] {
        let total = bench.size(mib << 20, 1 << 20);
        let Some(row) = bench.row(&format!("items of {called}, all taken")) else { continue };
        let items = &*items(size, total);
        let bytes = items.len() * size;
        let mut row = row.work(items.len(), "item", bytes).expect(bytes as u64).not_counted();
        for ((way, called), goal) in Way::OURS.into_iter().zip(goals) {
            row = row.ours(called, move || null(way, items).bytes).goal(PEER, goal);
        }
        row.peer(PEER, || null(Way::FramedWrite, items).bytes).run();
    }
}

fn calls(bench: &mut Bench) {
    let total = bench.size(16 << 20, 1 << 20);
    let Some(row) = bench.row("write calls, items of 64 B") else { return };
    let items = &*items(64, total);
    let bytes = (items.len() * 64) as u64;
    let run = |way| {
        let Null { calls, bytes } = null(way, items);
        (vec![calls as f64], bytes)
    };
    row.work((bytes / 1_000_000) as usize, "MB", 0)
        .expect(bytes)
        .measures(&[("", "calls")])
        .rounds(1)
        .ours_measured("ProducerSink, push", || run(Way::Push))
        .peer_measured(PEER, || run(Way::FramedWrite))
        .run();
}

/// Items cut from a buffer of at most 8 MiB, which is used again and again.
fn items(size: usize, total: usize) -> Vec<Bytes> {
    let buffer: Vec<u8> =
        (0..(8 << 20).min(total.max(size))).map(|n: usize| (n * 31 + n / 251) as u8).collect();
    let buffer = Bytes::from(buffer);
    let cut = (0..buffer.len() / size).map(|n| buffer.slice(n * size..(n + 1) * size));
    let cut: Vec<_> = cut.collect();
    cut.iter().cycle().take((total / size).max(1)).cloned().collect()
}

#[derive(Clone, Copy)]
enum Way {
    /// A plain `FramedWrite`: feed, then flush.
    FramedWrite,
    Push,
    /// Each item is produced by a boxed producer.
    Produce,
    /// A `ProducerSink` as a `Sink`, through the encoder of its `FramedWrite`.
    Feed,
}

impl Way {
    const OURS: [(Way, &str); 3] = [
        (Way::Push, "ProducerSink, push"),
        (Way::Feed, "ProducerSink, as a Sink"),
        (Way::Produce, "ProducerSink, a boxed producer each"),
    ];
}

async fn feed<S>(mut sink: S, items: &[Bytes]) -> io::Result<()>
where
    S: Sink<Bytes> + Unpin,
    io::Error: From<S::Error>,
{
    for item in items {
        sink.feed(item.clone()).await?;
    }
    Ok(sink.flush().await?)
}

async fn write<T: AsyncWrite + Unpin>(way: Way, io: &mut T, items: &[Bytes]) -> io::Result<()> {
    let framed = FramedWrite::new(io, BytesCodec::new());
    if let Way::FramedWrite = way {
        return feed(framed, items).await;
    }
    let mut sink = ProducerSink::new(framed);
    if let Way::Feed = way {
        return feed(sink, items).await;
    }
    for item in items {
        sink.ready().await?;
        match way {
            Way::Produce => sink.push_with_producer(item.clone())?,
            _ => sink.push(item.clone())?,
        }
    }
    Ok(sink.flush().await?)
}

fn null(way: Way, items: &[Bytes]) -> Null {
    let mut null = Null::default();
    complete(write(way, &mut null, items)).expect("it takes all");
    null
}

fn tcp(runtime: &Runtime, way: Way, items: &[Bytes]) -> Outcome {
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let reader = thread::spawn(move || {
            let mut stream = std::net::TcpStream::connect(address).expect("it listens");
            let mut buffer = vec![0; 256 << 10];
            let mut arrived = 0;
            loop {
                match stream.read(&mut buffer).expect("a connection") {
                    0 => return arrived,
                    count => arrived += count as u64,
                }
            }
        });
        let (mut stream, _) = listener.accept().await.expect("it connects");
        let (start, cpu) = (Instant::now(), thread_time());
        write(way, &mut stream, items).await.expect("a connection");
        let cpu = thread_time() - cpu;
        drop::<TcpStream>(stream);
        let arrived = reader.join().expect("it does not panic");
        (vec![nanoseconds(cpu), nanoseconds(start.elapsed())], arrived)
    })
}

/// A writer that takes all bytes at once, and counts them.
#[derive(Default)]
struct Null {
    bytes: u64,
    calls: u64,
}

impl AsyncWrite for Null {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let bytes = black_box(bytes);
        self.bytes += bytes.len() as u64;
        self.calls += 1;
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let bytes = black_box(slices).iter().map(|slice| slice.len()).sum();
        self.bytes += bytes as u64;
        self.calls += 1;
        Poll::Ready(Ok(bytes))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
