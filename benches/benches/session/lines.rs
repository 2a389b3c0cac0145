//! Lines over loopback TCP: the CPU time of the thread that reads them.

use std::io::Write;
use std::net::{TcpListener, TcpStream as Socket};
use std::thread;
use std::time::Duration;

use asynchat::{Channel, ChannelBuilder, CloseReason};
use asynchat_benches::harness::Outcome;
use asynchat_benches::input::Shape;
use asynchat_benches::io::READ;
use asynchat_benches::lines::Lines;
use asynchat_benches::ours::{self, Frames, Handled, Sum, delimiter};
use asynchat_benches::server::runtime;
use asynchat_benches::{Bench, Tally, nanoseconds, thread_time};
use futures::StreamExt;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio_util::codec::{FramedRead, LinesCodec};

/// Reads the input, which another thread writes as fast as it can, so many times.
fn receive<F>(
    runtime: &Runtime,
    input: &[u8],
    times: usize,
    read: impl FnOnce(TcpStream) -> F,
) -> Outcome
where
    F: Future<Output = u64>,
{
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    thread::scope(|scope| {
        scope.spawn(move || {
            let mut socket = Socket::connect(address).expect("it listens");
            for _ in 0..times {
                socket.write_all(input).expect("it reads to the end");
            }
        });
        let (socket, _) = listener.accept().expect("it connects");
        socket.set_nonblocking(true).expect("a socket");
        let start = thread_time();
        let sum =
            runtime.block_on(async { read(TcpStream::from_std(socket).expect("a socket")).await });
        (vec![nanoseconds(thread_time() - start)], sum)
    })
}

async fn handler(builder: &ChannelBuilder, stream: TcpStream) -> u64 {
    let (handler, reason) = builder.build(stream).run(Handled(Frames::default())).await;
    assert!(matches!(reason, CloseReason::PeerClosed), "whole lines");
    handler.0.sum()
}

async fn lines_codec(capacity: usize, stream: TcpStream) -> u64 {
    let mut tally = Tally::default();
    let mut lines = FramedRead::with_capacity(stream, LinesCodec::new(), capacity);
    while let Some(line) = lines.next().await {
        tally.frame(line.expect("well-formed").as_bytes());
    }
    tally.sum()
}

async fn bare(mut stream: TcpStream) -> u64 {
    let mut tally = Tally::default();
    let mut buffer = vec![0; READ];
    loop {
        match stream.read(&mut buffer).await.expect("a connection") {
            0 => return tally.sum(),
            n => tally.chunk(&buffer[..n]),
        }
    }
}

pub fn lines(bench: &mut Bench) {
    let times = bench.size(6, 1);
    let size = bench.size(4 << 20, 1 << 18);
    let Some(row) = bench.row("lines over TCP") else { return };
    let runtime = runtime();
    let lines = Lines::new(size, b"\n", Shape::Random);
    let input = &*lines.input;
    let total = times * input.len();
    let (defaults, plain) = (Channel::builder(b"\n"), ours::plain(delimiter(b"\n")));
    row.work(times * lines.count, "line", total)
        .expect(times as u64 * lines.checksum)
        .budget(Duration::from_secs(4))
        .ours_measured("Handler", || {
            receive(&runtime, input, times, |stream| handler(&defaults, stream))
        })
        .goal("LinesCodec", 0.24)
        .goal("a loop of bare 64 KiB reads", 1.9)
        .ours_measured("Handler, no deadlines", || {
            receive(&runtime, input, times, |stream| handler(&plain, stream))
        })
        .peer_measured("LinesCodec", || {
            receive(&runtime, input, times, |stream| lines_codec(8 * 1024, stream))
        })
        .peer_measured("LinesCodec, 64 KiB of buffer", || {
            receive(&runtime, input, times, |stream| lines_codec(READ, stream))
        })
        .peer_measured("a loop of bare 64 KiB reads", || receive(&runtime, input, times, bare))
        .expecting(total as u64)
        .run();
}
