//! A server of Redis commands with 50 connections, each of which sends 64 PINGs or SETs and waits for the
//! answers.
//!
//! redis-server is a peer, if it is installed. It does much more than these servers do.

use std::cell::RefCell;
use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::{TcpListener, TcpStream as Socket};
use std::ops::Range;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use asynchat::{
    Channel, Chunk, CloseReason, Control, End, Event, Framer, Handler, Step, TerminatorCodec,
};
use asynchat_benches::Bench;
use asynchat_benches::client::{Exchange, MEASURES, ROUNDS};
use asynchat_benches::input::{self, Shape};
use asynchat_benches::io::READ;
use asynchat_benches::ours::Protocol;
use asynchat_benches::resp::{Arguments, CRLF, Counted, VecOfBytes, command};
use asynchat_benches::server::{Server, Way};
use bytes::{Buf, Bytes, BytesMut};
use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::codec::{Decoder, Encoder, Framed};

const CONNECTIONS: usize = 50;
const PIPELINED: usize = 64;

const HANDLER: &str = "Handler";
const WHOLE: &str = "Handler, whole frames";
const OWN_END: &str = "Handler, end found by hand";
const PULLED: &str = "Channel, next";
const MESSAGES: &str = "Channel, message, end found by hand";
const FRAMER: &str = "Framer, a loop, whole frames";
const CODEC: &str = "TerminatorCodec, Framed";
const DECODER: &str = "Decoder by hand, Framed";
const LOOP: &str = "a loop by hand";
const REDIS: &str = "redis-server";

pub const WAYS: [Way; 9] = [
    Way::new(HANDLER, |stream| drop(tokio::spawn(handler(stream)))),
    Way::new(WHOLE, |stream| drop(tokio::spawn(whole_handler(stream)))),
    Way::new(OWN_END, |stream| drop(tokio::spawn(own_end(stream)))),
    Way::new(MESSAGES, |stream| drop(tokio::spawn(messages(stream)))),
    Way::new(PULLED, |stream| drop(tokio::spawn(pulled(stream)))),
    Way::new(FRAMER, |stream| drop(tokio::spawn(framer(stream)))),
    Way::new(CODEC, |stream| drop(tokio::spawn(terminator_codec(stream)))),
    Way::new(DECODER, |stream| drop(tokio::spawn(decoder(stream)))),
    Way::new(LOOP, |stream| drop(tokio::spawn(by_hand(stream)))),
];

thread_local! {
    /// The values that all connections share. One thread serves them, as in redis-server.
    static STORE: RefCell<HashMap<Vec<u8>, Vec<u8>>> = RefCell::default();
}

/// Executes a command, and returns the answer. All competitors use this function.
fn execute(arguments: &[&[u8]]) -> &'static [u8] {
    match arguments {
        [b"PING"] => b"+PONG\r\n",
        [b"SET", key, value] => {
            STORE.with_borrow_mut(|store| match store.get_mut(*key) {
                Some(stored) => {
                    stored.clear();
                    stored.extend_from_slice(value);
                }
                None => drop(store.insert(key.to_vec(), value.to_vec())),
            });
            b"+OK\r\n"
        }
        _ => b"-ERR\r\n",
    }
}

/// Gathers the arguments of a command, and then executes it. It has one buffer for all arguments, and the position
/// where each ends.
#[derive(Default)]
struct Gathered {
    bytes: Vec<u8>,
    ends: Vec<usize>,
    answer: Option<&'static [u8]>,
}

impl Arguments for Gathered {
    #[inline]
    fn chunk(&mut self, chunk: &[u8]) {
        self.bytes.extend_from_slice(chunk);
    }

    #[inline]
    fn end(&mut self, last: bool) {
        self.ends.push(self.bytes.len());
        if last {
            let mut arguments = [&[][..]; 4];
            let (mut start, count) = (0, self.ends.len().min(arguments.len()));
            for (argument, &end) in arguments.iter_mut().zip(&self.ends) {
                *argument = &self.bytes[start..end];
                start = end;
            }
            self.answer = Some(execute(&arguments[..count]));
            self.bytes.clear();
            self.ends.clear();
        }
    }
}

type Session = Counted<Gathered>;

#[derive(Default)]
struct Redis(Session);

impl Handler for Redis {
    type Error = Infallible;

    fn collect_incoming_data(
        &mut self,
        data: Chunk<'_>,
        _: &mut Control<'_>,
    ) -> Result<(), Infallible> {
        self.0.chunk(&data);
        Ok(())
    }

    async fn found_terminator(&mut self, control: &mut Control<'_>) -> Result<(), Infallible> {
        self.0.end(control);
        if let Some(answer) = self.0.to().answer.take() {
            control.push(answer);
        }
        Ok(())
    }
}

async fn handler(stream: TcpStream) {
    let (_, reason) = Channel::new(stream, CRLF).run(Redis::default()).await;
    assert!(matches!(reason, CloseReason::PeerClosed), "whole commands");
}

/// A handler that does the same with whole frames.
#[derive(Default)]
struct WholeRedis(Session);

impl Handler for WholeRedis {
    type Error = Infallible;

    fn collect_incoming_data(
        &mut self,
        data: Chunk<'_>,
        control: &mut Control<'_>,
    ) -> Result<(), Infallible> {
        self.0.frame(&data, control);
        if let Some(answer) = self.0.to().answer.take() {
            control.push(answer);
        }
        Ok(())
    }
}

async fn whole_handler(stream: TcpStream) {
    let mut channel = Channel::builder(CRLF).whole_frames(true).build(stream);
    let (_, reason) = channel.run(WholeRedis::default()).await;
    assert!(matches!(reason, CloseReason::PeerClosed), "whole commands");
}

/// A handler that finds the end of each command itself, and remembers where its arguments are.
#[derive(Default)]
struct OwnEnd {
    places: [Range<usize>; 4],
    count: usize,
}

impl OwnEnd {
    fn find(&mut self, input: &[u8]) -> Option<usize> {
        self.count = 0;
        let end = command(input, |place| {
            if let Some(argument) = self.places.get_mut(self.count) {
                *argument = place;
                self.count += 1;
            }
        });
        end.expect("well-formed")
    }

    fn answer(&self, command: &[u8]) -> &'static [u8] {
        let mut arguments = [&[][..]; 4];
        for (argument, place) in arguments.iter_mut().zip(&self.places[..self.count]) {
            *argument = &command[place.clone()];
        }
        execute(&arguments[..self.count])
    }
}

impl Handler for OwnEnd {
    type Error = Infallible;

    fn find_end(&mut self, input: &[u8], _: &mut Control<'_>) -> Result<Option<usize>, Infallible> {
        Ok(self.find(input))
    }

    fn collect_incoming_data(
        &mut self,
        data: Chunk<'_>,
        control: &mut Control<'_>,
    ) -> Result<(), Infallible> {
        control.push(self.answer(&data));
        Ok(())
    }
}

async fn own_end(stream: TcpStream) {
    let mut channel = Channel::builder(None).own_end(true).build(stream);
    let (_, reason) = channel.run(OwnEnd::default()).await;
    assert!(matches!(reason, CloseReason::PeerClosed), "whole commands");
}

async fn messages(stream: TcpStream) {
    let mut channel = Channel::new(stream, None);
    let mut commands = OwnEnd::default();
    while let Some((step, mut control)) =
        channel.message(|input| commands.find(input)).await.expect("a connection")
    {
        control.push(commands.answer(&step.payload));
    }
}

async fn pulled(stream: TcpStream) {
    let mut channel = Channel::new(stream, CRLF);
    let mut session = Session::default();
    while let Some(event) = channel.next().await {
        match event.expect("a connection") {
            Event::Chunk(chunk) => session.chunk(&chunk),
            Event::Terminator => {
                session.end(&mut channel);
                if let Some(answer) = session.to().answer.take() {
                    let _ = channel.push(answer);
                }
            }
            Event::Overlong | Event::WrongEnd | Event::Truncated => {
                unreachable!("short and whole frames")
            }
        }
    }
}

/// Serves with a `Framer`, without a channel: it reads and writes itself, and answers all commands of one read at once.
async fn framer(mut stream: TcpStream) {
    let mut framer = Framer::new(CRLF);
    framer.set_whole_frames(true);
    let mut session = Session::default();
    let mut input = BytesMut::with_capacity(READ);
    let mut output = Vec::new();
    loop {
        input.reserve(READ / 2);
        if stream.read_buf(&mut input).await.expect("a connection") == 0 {
            return;
        }
        while let Some(Step { payload, end }) = framer.step(&input).expect("no limit") {
            assert_eq!(end, Some(End::Terminator), "whole frames");
            session.frame(payload, &mut framer);
            if let Some(answer) = session.to().answer.take() {
                output.extend_from_slice(answer);
            }
        }
        input.advance(framer.take_consumed());
        stream.write_all(&output).await.expect("a connection");
        output.clear();
    }
}

/// A decoder, with an encoder that writes answers unchanged.
struct Answering<D>(D);

impl<D: Decoder> Decoder for Answering<D> {
    type Item = D::Item;
    type Error = D::Error;

    fn decode(&mut self, src: &mut BytesMut) -> Result<Option<D::Item>, D::Error> {
        self.0.decode(src)
    }
}

impl<D> Encoder<&[u8]> for Answering<D> {
    type Error = io::Error;

    fn encode(&mut self, answer: &[u8], dst: &mut BytesMut) -> io::Result<()> {
        dst.extend_from_slice(answer);
        Ok(())
    }
}

async fn terminator_codec(stream: TcpStream) {
    let codec = Answering(TerminatorCodec::new(CRLF));
    let mut framed = Framed::with_capacity(stream, codec, READ);
    let mut session = Session::default();
    while let Some(event) = framed.next().await {
        match event.expect("a connection") {
            Event::Chunk(chunk) => session.chunk(&chunk),
            Event::Terminator => {
                session.end(&mut framed.codec_mut().0);
                if let Some(answer) = session.to().answer.take() {
                    framed.feed(answer).await.expect("a connection");
                    if framed.read_buffer().is_empty() {
                        SinkExt::<&[u8]>::flush(&mut framed).await.expect("a connection");
                    }
                }
            }
            Event::Overlong | Event::WrongEnd | Event::Truncated => {
                unreachable!("no limit, whole frames")
            }
        }
    }
}

async fn decoder(stream: TcpStream) {
    let codec = Answering(VecOfBytes::default());
    let mut framed = Framed::with_capacity(stream, codec, READ);
    while let Some(arguments) = framed.next().await {
        let arguments: Vec<Bytes> = arguments.expect("well-formed");
        let mut lent = [&[][..]; 4];
        for (lent, argument) in lent.iter_mut().zip(&arguments) {
            *lent = argument;
        }
        let answer = execute(&lent[..arguments.len().min(lent.len())]);
        framed.feed(answer).await.expect("a connection");
        if framed.read_buffer().is_empty() {
            SinkExt::<&[u8]>::flush(&mut framed).await.expect("a connection");
        }
    }
}

async fn by_hand(mut stream: TcpStream) {
    let mut input = BytesMut::with_capacity(READ);
    let mut output = Vec::new();
    loop {
        input.reserve(READ / 2);
        if stream.read_buf(&mut input).await.expect("a connection") == 0 {
            return;
        }
        let mut at = 0;
        loop {
            let rest = &input[at..];
            let (mut arguments, mut count) = ([&[][..]; 4], 0);
            let end = command(rest, |range| {
                if let Some(argument) = arguments.get_mut(count) {
                    *argument = &rest[range];
                    count += 1;
                }
            });
            let Some(end) = end.expect("well-formed") else { break };
            output.extend_from_slice(execute(&arguments[..count]));
            at += end;
        }
        input.advance(at);
        stream.write_all(&output).await.expect("a connection");
        output.clear();
    }
}

/// Starts redis-server on a port that was free a moment ago. It stores nothing on disk.
fn start_redis() -> io::Result<Server> {
    let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let child = Command::new("redis-server")
        .args(["--bind", "127.0.0.1", "--port", &address.port().to_string()])
        .args(["--save", "", "--appendonly", "no", "--daemonize", "no"])
        .current_dir(std::env::temp_dir())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()?;
    let server = Server::from_child(child, address.to_string());
    for _ in 0..500 {
        if Socket::connect(address).is_ok() {
            return Ok(server);
        }
        thread::sleep(Duration::from_millis(10));
    }
    Err(io::ErrorKind::TimedOut.into())
}

pub fn redis(bench: &mut Bench) {
    let times = bench.size(200, 2);
    let has_redis = Command::new("redis-server").arg("--version").output().is_ok();
    let pings = b"*1\r\n$4\r\nPING\r\n".repeat(PIPELINED);
    let commands: [(&str, Vec<u8>, &[u8], f64); 2] = [
        ("PING", pings, b"+PONG\r\n", 0.45),
        ("SET", input::sets(PIPELINED, Shape::Random), b"+OK\r\n", 0.80),
    ];
    for (called, request, answer, goal) in commands {
        let Some(row) = bench.row(&format!("RESP server, 64 {called} at a time, 50 connections"))
        else {
            continue;
        };
        let answer = answer.repeat(PIPELINED);
        let exchange =
            Exchange { connections: CONNECTIONS, times, request: &request, answer: &answer };
        let run = |way| exchange.measure(Server::start("redis", way));
        let row = row
            .work(CONNECTIONS * times * PIPELINED, "command", CONNECTIONS * times * request.len())
            .expect(exchange.bytes())
            .measures(&MEASURES)
            .rounds(ROUNDS)
            .ours_measured(HANDLER, || run(HANDLER))
            .goal(REDIS, goal)
            .ours_measured(WHOLE, || run(WHOLE))
            .goal(REDIS, goal)
            .ours_measured(OWN_END, || run(OWN_END))
            .goal(REDIS, goal)
            .ours_measured(PULLED, || run(PULLED))
            .ours_measured(MESSAGES, || run(MESSAGES))
            .ours_measured(FRAMER, || run(FRAMER))
            .ours_measured(CODEC, || run(CODEC))
            .peer_measured(DECODER, || run(DECODER))
            .peer_measured(LOOP, || run(LOOP));
        if has_redis {
            row.peer_measured(REDIS, || exchange.measure(start_redis())).run();
        } else {
            row.run();
            println!("    not measured: redis-server, which is not installed");
        }
    }
}
