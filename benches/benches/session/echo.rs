//! An echo server with 50 connections, each of which sends 64 lines, or one, and waits until they have come
//! back.

use std::convert::Infallible;

use asynchat::{Channel, Chunk, CloseReason, Control, Handler, Timeouts};
use asynchat_benches::Bench;
use asynchat_benches::client::{Exchange, MEASURES, ROUNDS};
use asynchat_benches::input::{self, Shape};
use asynchat_benches::io::READ;
use asynchat_benches::server::{Server, Way};
use futures::StreamExt;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, BufWriter};
use tokio::net::TcpStream;
use tokio_util::codec::{Framed, LinesCodec};

const CONNECTIONS: usize = 50;

const HANDLER: &str = "Handler";
const WHOLE_LINES: &str = "Handler, whole lines";
const STEPS: &str = "Channel, step, whole lines";
const NO_DEADLINES: &str = "Handler, no deadlines";
const BARE: &str = "a bare loop of reads and writes";
const BUFFERED: &str = "BufReader::read_until and BufWriter";
const LINES_CODEC: &str = "LinesCodec, forward";

pub const WAYS: [Way; 7] = [
    Way::new(HANDLER, |stream| drop(tokio::spawn(handler(stream)))),
    Way::new(WHOLE_LINES, |stream| drop(tokio::spawn(whole_lines(stream)))),
    Way::new(STEPS, |stream| drop(tokio::spawn(steps(stream)))),
    Way::new(NO_DEADLINES, |stream| drop(tokio::spawn(without_deadlines(stream)))),
    Way::new(BARE, |stream| drop(tokio::spawn(bare(stream)))),
    Way::new(BUFFERED, |stream| drop(tokio::spawn(buffered(stream)))),
    Way::new(LINES_CODEC, |stream| drop(tokio::spawn(lines_codec(stream)))),
];

struct Echo;

impl Handler for Echo {
    type Error = Infallible;

    fn collect_incoming_data(
        &mut self,
        data: Chunk<'_>,
        control: &mut Control<'_>,
    ) -> Result<(), Infallible> {
        control.push(&*data);
        Ok(())
    }

    async fn found_terminator(&mut self, control: &mut Control<'_>) -> Result<(), Infallible> {
        control.push("\n");
        Ok(())
    }
}

/// Echoes each line when it has come as a whole.
struct WholeLines;

impl Handler for WholeLines {
    type Error = Infallible;

    fn collect_incoming_data(
        &mut self,
        data: Chunk<'_>,
        control: &mut Control<'_>,
    ) -> Result<(), Infallible> {
        control.push_with(|out| {
            out.extend_from_slice(&data);
            out.extend_from_slice(b"\n");
        });
        Ok(())
    }
}

/// Does the same without a handler: pulls line after line from a channel.
async fn steps(stream: TcpStream) {
    let mut channel = Channel::builder(b"\n").whole_frames(true).build(stream);
    while let Some((line, mut control)) = channel.step().await.expect("whole lines") {
        control.push(&*line.payload);
        control.push("\n");
    }
}

async fn handler(stream: TcpStream) {
    let (_, reason) = Channel::new(stream, b"\n").run(Echo).await;
    assert!(matches!(reason, CloseReason::PeerClosed), "whole lines");
}

async fn without_deadlines(stream: TcpStream) {
    let builder = Channel::builder(b"\n").timeouts(Timeouts::NONE);
    let (_, reason) = builder.build(stream).run(Echo).await;
    assert!(matches!(reason, CloseReason::PeerClosed), "whole lines");
}

async fn whole_lines(stream: TcpStream) {
    let mut channel = Channel::builder(b"\n").whole_frames(true).build(stream);
    let (_, reason) = channel.run(WholeLines).await;
    assert!(matches!(reason, CloseReason::PeerClosed), "whole lines");
}

async fn bare(mut stream: TcpStream) {
    let mut buffer = vec![0; READ];
    loop {
        match stream.read(&mut buffer).await.expect("a connection") {
            0 => return,
            n => stream.write_all(&buffer[..n]).await.expect("a connection"),
        }
    }
}

/// What one would write with tokio alone. It flushes when all lines that have come are answered.
async fn buffered(mut stream: TcpStream) {
    let (reader, writer) = stream.split();
    let (mut reader, mut writer) = (BufReader::new(reader), BufWriter::new(writer));
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line).await.expect("a connection") > 0 {
        writer.write_all(&line).await.expect("a connection");
        line.clear();
        if reader.buffer().is_empty() {
            writer.flush().await.expect("a connection");
        }
    }
}

async fn lines_codec(stream: TcpStream) {
    let (sink, lines) = Framed::new(stream, LinesCodec::new()).split();
    lines.forward(sink).await.expect("well-formed");
}

pub fn echo(bench: &mut Bench) {
    for (called, lines, times) in
        [("64 lines", 64, bench.size(200, 2)), ("one line", 1, bench.size(400, 4))]
    {
        let Some(row) = bench.row(&format!("echo, {called} at a time, 50 connections")) else {
            continue;
        };
        let text = input::lines(64 * lines + 64, b"\n", Shape::Random);
        let text = text.split_inclusive(|&b| b == b'\n').take(lines).collect::<Vec<_>>().concat();
        assert_eq!(text.iter().filter(|&&b| b == b'\n').count(), lines);
        let exchange = Exchange { connections: CONNECTIONS, times, request: &text, answer: &text };
        let run = |way| exchange.measure(Server::start("echo", way));
        let row = row
            .work(CONNECTIONS * times * lines, "line", CONNECTIONS * times * text.len())
            .expect(exchange.bytes())
            .measures(&MEASURES)
            .rounds(ROUNDS)
            .ours_measured(HANDLER, || run(HANDLER));
        // The goals of 64 lines are for the wall clock: 0.92 and 1.05 times the rate of the peers, so 1 / 0.92 and 1 /
        // 1.05 of their time. The goal of one line is for CPU time.
        let row = match lines {
            1 => row.goal(BARE, 1.03),
            _ => row.goal_of(1, BARE, 1.087).goal_of(1, BUFFERED, 0.952),
        };
        row.ours_measured(WHOLE_LINES, || run(WHOLE_LINES))
            .ours_measured(STEPS, || run(STEPS))
            .ours_measured(NO_DEADLINES, || run(NO_DEADLINES))
            .peer_measured(BARE, || run(BARE))
            .peer_measured(BUFFERED, || run(BUFFERED))
            .peer_measured(LINES_CODEC, || run(LINES_CODEC))
            .run();
    }
}
