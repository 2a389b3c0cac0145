//! `ProducerSink` beside a `FramedWrite` of `BytesCodec`, as it comes: feed, then flush.
//!
//! Each round runs both, in turn first; printed are the medians and the median of the rounds' ratios:
//! of the wall clock and, where the system tells, of the CPU time of the thread that writes.
//! Every run is checked by the bytes that arrived and their sum.

use std::hint::black_box;
use std::io::{self, IoSlice, Read};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::thread;
use std::time::Instant;

use asynchat::ProducerSink;
use bytes::Bytes;
use futures::SinkExt;
use tokio::io::AsyncWrite;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio_util::codec::{BytesCodec, FramedWrite};

const ROUNDS: usize = 15;

fn main() {
    let quick = std::env::args().any(|arg| arg == "--test") || cfg!(debug_assertions);
    let scale = if quick { 64 } else { 1 };
    let runtime = Builder::new_current_thread().enable_io().build().unwrap();

    println!("{:<42} {:>10} {:>10} {:>8}", "row", "ours", "theirs", "ratio");
    for (name, way, size, total) in [
        ("10  64 B over TCP", Way::Push, 64, 64 << 20),
        ("10  512 B over TCP", Way::Push, 512, 256 << 20),
        ("10  1 KiB over TCP", Way::Push, 1 << 10, 256 << 20),
        ("10  2 KiB over TCP", Way::Push, 2 << 10, 512 << 20),
        ("10  4 KiB over TCP", Way::Push, 4 << 10, 512 << 20),
        ("10  64 B by a boxed producer over TCP", Way::Produce, 64, 64 << 20),
    ] {
        let items = items(size, total / scale);
        compare(name, &items, |ours| {
            over_tcp(&runtime, if ours { way } else { Way::Feed }, &items)
        });
    }
    for (name, way, size, total) in [
        ("10b 64 B by a boxed producer, all taken", Way::Produce, 64, 64 << 20),
        ("10b 64 B, all taken", Way::Push, 64, 64 << 20),
        ("10b 512 B, all taken", Way::Push, 512, 128 << 20),
        ("10b 1 KiB, all taken", Way::Push, 1 << 10, 128 << 20),
        ("10b 4 KiB, all taken", Way::Push, 4 << 10, 512 << 20),
        ("10b 1 MiB, all taken", Way::Push, 1 << 20, 1 << 30),
    ] {
        let items = items(size, total / scale);
        compare(name, &items, |ours| {
            into_null(&runtime, if ours { way } else { Way::Feed }, &items)
        });
    }

    let items = items(64, 16 << 20);
    let mut null = Null::default();
    runtime.block_on(write(Way::Push, &mut null, &items)).unwrap();
    let per_mb = null.calls as f64 / (null.bytes as f64 / 1e6);
    println!("10c write calls per MB of 64 B items: {per_mb:.1}");
}

/// Items cut from a buffer of at most 8 MiB, over and over.
fn items(size: usize, total: usize) -> Vec<Bytes> {
    let buffer: Vec<u8> =
        (0..(8 << 20).min(total.max(size))).map(|n: usize| (n * 31 + n / 251) as u8).collect();
    let buffer = Bytes::from(buffer);
    let cut = (0..buffer.len() / size).map(|n| buffer.slice(n * size..(n + 1) * size));
    let cut: Vec<_> = cut.collect();
    cut.iter().cycle().take((total / size).max(1)).cloned().collect()
}

/// Times both and prints them; `run` says how many bytes arrived.
fn compare(name: &str, items: &[Bytes], mut run: impl FnMut(bool) -> u64) {
    // Arguments that are not options say which rows are wanted.
    let mut wanted = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).peekable();
    if wanted.peek().is_some() && !wanted.any(|part| name.contains(&part)) {
        return;
    }
    let expected: u64 = items.iter().map(|item| item.len() as u64).sum();
    let mut times = [Vec::new(), Vec::new()];
    let mut ratios = [Vec::new(), Vec::new()];
    for round in 0..=ROUNDS {
        let mut took = [[0.0; 2]; 2];
        for turn in 0..2 {
            let ours = (round + turn) % 2 == 0;
            let (wall, cpu) = (Instant::now(), cpu_time());
            assert_eq!(run(ours), expected, "{name}");
            took[usize::from(!ours)] = [wall.elapsed().as_secs_f64(), cpu_time() - cpu];
        }
        // The first round warms up.
        if round > 0 {
            for i in 0..2 {
                times[i].push(took[i][0]);
                ratios[i].push(took[0][i] / took[1][i]);
            }
        }
    }
    let [ours, theirs] = times.map(|times| median(times) * 1e9 / items.len() as f64);
    let [wall, cpu] = ratios.map(median);
    let rate = expected as f64 / items.len() as f64 / ours;
    println!("{name:<42} {ours:>7.1} ns {theirs:>7.1} ns {wall:>8.4} {cpu:>8.4}   {rate:.2} GB/s");
}

/// Seconds that this thread has been running, or `NaN`.
fn cpu_time() -> f64 {
    std::fs::read_to_string("/proc/thread-self/schedstat")
        .ok()
        .and_then(|stat| stat.split(' ').next()?.parse::<f64>().ok())
        .map_or(f64::NAN, |nanoseconds| nanoseconds / 1e9)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[derive(Clone, Copy)]
enum Way {
    Feed,
    Push,
    Produce,
}

async fn write<T: AsyncWrite + Unpin>(way: Way, io: &mut T, items: &[Bytes]) -> io::Result<()> {
    let mut framed = FramedWrite::new(io, BytesCodec::new());
    if let Way::Feed = way {
        for item in items {
            framed.feed(item.clone()).await?;
        }
        return SinkExt::<Bytes>::flush(&mut framed).await;
    }
    let mut sink = ProducerSink::new(framed);
    for item in items {
        sink.ready().await?;
        match way {
            Way::Produce => sink.push_with_producer(item.clone())?,
            _ => sink.push(item.clone())?,
        }
    }
    Ok(sink.flush().await?)
}

fn into_null(runtime: &Runtime, way: Way, items: &[Bytes]) -> u64 {
    let mut null = Null::default();
    runtime.block_on(write(way, &mut null, items)).unwrap();
    black_box(null.bytes)
}

fn over_tcp(runtime: &Runtime, way: Way, items: &[Bytes]) -> u64 {
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let reader = thread::spawn(move || {
            let mut stream = std::net::TcpStream::connect(address).unwrap();
            let mut buffer = vec![0; 256 << 10];
            let mut arrived = 0;
            loop {
                match stream.read(&mut buffer).unwrap() {
                    0 => return arrived,
                    count => arrived += count as u64,
                }
            }
        });
        let (mut stream, _) = listener.accept().await.unwrap();
        write(way, &mut stream, items).await.unwrap();
        drop::<TcpStream>(stream);
        reader.join().unwrap()
    })
}

/// Takes all, at once, and counts.
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
