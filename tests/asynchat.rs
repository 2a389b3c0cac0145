//! The cases of CPython's own tests of asynchat, and those of asyncore that still mean something, over
//! real sockets.
//!
//! A client sends its data, and then `QUIT`. The server sends the data back, in pieces of a given size. The client
//! collects it, frame by frame.
#![cfg(feature = "tokio")]
#![allow(clippy::unwrap_used)]

use std::convert::Infallible;
use std::io;

use asynchat::{
    Channel, Chunk, CloseReason, Control, Handler, Limit, Terminator, Timeouts, producer,
};
use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

const QUIT: &[u8] = b"QUIT\n";

/// Collects frames, closes at the end of the input, and never sets another terminator.
#[derive(Debug, Default)]
struct Collector {
    frame: Vec<u8>,
    frames: Vec<String>,
    /// Data outside of frames, and data of a frame that the end of the input has cut off.
    rest: String,
}

impl Handler for Collector {
    type Error = Infallible;

    fn collect_incoming_data(
        &mut self,
        data: Chunk<'_>,
        _: &mut Control<'_>,
    ) -> Result<(), Infallible> {
        self.frame.extend_from_slice(&data);
        Ok(())
    }

    async fn found_terminator(&mut self, _: &mut Control<'_>) -> Result<(), Infallible> {
        self.frames.push(String::from_utf8(std::mem::take(&mut self.frame)).unwrap());
        Ok(())
    }

    async fn eof(&mut self, _: bool, _: &mut Control<'_>) -> Result<(), Infallible> {
        self.rest = String::from_utf8(std::mem::take(&mut self.frame)).unwrap();
        Ok(())
    }
}

/// Reads up to `QUIT`, and sends what came before it back in pieces of `piece` bytes.
async fn serve(mut stream: TcpStream, piece: usize) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut all = BytesMut::new();
    while !all.ends_with(QUIT) {
        if stream.read_buf(&mut all).await? == 0 {
            return Ok(());
        }
    }
    all.truncate(all.len() - QUIT.len());
    for piece in all.chunks(piece) {
        stream.write_all(piece).await?;
        tokio::task::yield_now().await;
    }
    stream.shutdown().await
}

async fn connect(
    terminator: impl Into<Terminator>,
    piece: usize,
) -> (Channel<TcpStream>, JoinHandle<io::Result<()>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn(async move { serve(listener.accept().await?.0, piece).await });
    let stream = TcpStream::connect(address).await.unwrap();
    let channel =
        Channel::builder(terminator).limit(Limit::Unlimited).timeouts(Timeouts::NONE).build(stream);
    (channel, serving)
}

async fn echoed(terminator: impl Into<Terminator>, piece: usize, said: &[&str]) -> Collector {
    let (mut channel, serving) = connect(terminator, piece).await;
    for said in said {
        channel.push(said).unwrap();
    }
    channel.push(QUIT).unwrap();
    let (collector, reason) = channel.run(Collector::default()).await;
    let at_end = matches!(reason, CloseReason::PeerClosed | CloseReason::Truncated);
    assert!(at_end, "{reason:?}");
    serving.await.unwrap().unwrap();
    collector
}

async fn lines_end_at(terminator: &str) {
    for piece in 1..=3 {
        let said = ["hello ", "world", terminator, "I'm not dead yet!", terminator];
        let delimiter = Terminator::try_from(terminator).unwrap();
        let collector = echoed(delimiter, piece, &said).await;
        assert_eq!(collector.frames, ["hello world", "I'm not dead yet!"], "pieces of {piece}");
        assert_eq!(collector.rest, "");
    }
}

#[tokio::test]
async fn a_terminator_of_1_byte_is_found_in_pieces_of_1_2_and_3() {
    lines_end_at("\n").await;
}

#[tokio::test]
async fn a_terminator_of_2_bytes_is_found_in_pieces_of_1_2_and_3() {
    lines_end_at("\r\n").await;
}

#[tokio::test]
async fn a_terminator_of_3_bytes_is_found_in_pieces_of_1_2_and_3() {
    lines_end_at("qqq").await;
}

#[tokio::test]
async fn a_count_ends_after_so_many_bytes_and_once() {
    for count in [1, 6] {
        let said = "hello world, I'm not dead yet!\n";
        let collector = echoed(count, 1, &[said]).await;
        let (frame, rest) = said.split_at(usize::try_from(count).unwrap());
        assert_eq!(collector.frames, [frame]);
        assert_eq!(collector.rest, rest);
    }
}

#[tokio::test]
async fn without_a_terminator_everything_is_data() {
    let said = ["hello world, ", "I'm not dead yet!\n"];
    let collector = echoed(None, 3, &said).await;
    assert!(collector.frames.is_empty());
    assert_eq!(collector.rest, said.concat());
}

#[tokio::test]
async fn a_simple_producer_gives_its_data_in_blocks() {
    let (mut channel, serving) = connect(b"\n", 5).await;
    let data: &[u8] = b"hello world\nI'm not dead yet!\n";
    channel.push_with_producer(producer::reader(data).with_block_size(8)).unwrap();
    channel.push(QUIT).unwrap();
    let (collector, _) = channel.run(Collector::default()).await;
    assert_eq!(collector.frames, ["hello world", "I'm not dead yet!"]);
    serving.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_string_is_a_producer() {
    let (mut channel, serving) = connect(b"\n", 5).await;
    let data = Bytes::from("hello world\nI'm not dead yet!\n");
    channel.push_with_producer(data).unwrap();
    channel.push(QUIT).unwrap();
    let (collector, _) = channel.run(Collector::default()).await;
    assert_eq!(collector.frames, ["hello world", "I'm not dead yet!"]);
    serving.await.unwrap().unwrap();
}

#[tokio::test]
async fn an_empty_line_is_a_frame() {
    let collector = echoed(b"\n", 1, &["hello world\n\nI'm not dead yet!\n"]).await;
    assert_eq!(collector.frames, ["hello world", "", "I'm not dead yet!"]);
}

#[tokio::test]
async fn close_when_done_sends_everything_first() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let hearing = tokio::spawn(async move {
        let mut all = String::new();
        listener.accept().await.unwrap().0.read_to_string(&mut all).await.unwrap();
        all
    });
    let stream = TcpStream::connect(address).await.unwrap();
    let mut channel = Channel::builder(b"\n").timeouts(Timeouts::NONE).build(stream);
    channel.push("hello world\nI'm not dead yet!\n").unwrap();
    channel.push(QUIT).unwrap();
    channel.close_when_done();
    let (collector, reason) = channel.run(Collector::default()).await;
    assert!(matches!(reason, CloseReason::Done));
    assert!(collector.frames.is_empty());
    assert_eq!(hearing.await.unwrap(), "hello world\nI'm not dead yet!\nQUIT\n");
}

#[tokio::test]
async fn bytes_of_every_kind_are_pushed_and_nothing_else_compiles() {
    let (mut channel, serving) = connect(b"\n", 100).await;
    channel.push("str\n").unwrap();
    channel.push(String::from("String\n")).unwrap();
    channel.push(&String::from("&String\n")).unwrap();
    channel.push(b"array\n").unwrap();
    channel.push(*b"owned array\n").unwrap();
    channel.push(&b"slice\n"[..]).unwrap();
    channel.push(b"Vec\n".to_vec()).unwrap();
    channel.push(Bytes::from_static(b"Bytes\n")).unwrap();
    channel.push(BytesMut::from("BytesMut\n")).unwrap();
    channel.push(b"Box\n".to_vec().into_boxed_slice()).unwrap();
    channel.push("").unwrap();
    channel.push(QUIT).unwrap();
    let (collector, _) = channel.run(Collector::default()).await;
    let expected = [
        "str",
        "String",
        "&String",
        "array",
        "owned array",
        "slice",
        "Vec",
        "Bytes",
        "BytesMut",
        "Box",
    ];
    assert_eq!(collector.frames, expected);
    serving.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_read_that_would_block_is_no_error() {
    let (channel, _serving) = connect(b"\n", 1).await;
    let mut channel = channel;
    tokio::select! {
        biased;
        event = channel.next() => panic!("{event:?}"),
        () = tokio::task::yield_now() => {}
    }
    channel.push("still there\n").unwrap();
    channel.push(QUIT).unwrap();
    let (collector, _) = channel.run(Collector::default()).await;
    assert_eq!(collector.frames, ["still there"]);
}

#[tokio::test]
async fn a_prefix_of_the_terminator_at_the_end_is_data() {
    // The input ends with a byte that is withheld, or not.
    for (said, rest) in [("qwerty\r", "qwerty\r"), ("qwertydkjf", "qwertydkjf")] {
        let collector = echoed(b"\r\n", 2, &[said]).await;
        assert!(collector.frames.is_empty());
        assert_eq!(collector.rest, rest);
    }
}

#[tokio::test]
async fn a_connection_reset_is_an_error_and_ends_the_channel() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (client, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
    let mut channel = Channel::builder(b"\n").timeouts(Timeouts::NONE).build(accepted.unwrap().0);
    let handle = channel.handle();
    let client = client.unwrap();
    // A socket that is closed with unread input is reset.
    channel.push("never read\n").unwrap();
    channel.flush().await.unwrap();
    client.readable().await.unwrap();
    drop(client);
    let (_, reason) = channel.run(Collector::default()).await;
    match reason {
        CloseReason::Io(error) => {
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        }
        other => panic!("{other:?}"),
    }
    assert!(handle.is_closed());
}

#[tokio::test]
async fn connecting_and_closing_at_once_is_survived() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    for reset in [false, true].repeat(20) {
        let client = TcpStream::connect(address).await.unwrap();
        let (mut stream, _) = listener.accept().await.unwrap();
        if reset {
            // A socket that is closed with unread input is reset.
            stream.write_all(b"never read").await.unwrap();
            client.readable().await.unwrap();
        }
        drop(client);
        let mut channel = Channel::builder(b"\n").timeouts(Timeouts::NONE).build(stream);
        let (collector, reason) = channel.run(Collector::default()).await;
        assert!(collector.frames.is_empty());
        let ended = matches!(reason, CloseReason::PeerClosed | CloseReason::Io(_));
        assert!(ended, "{reason:?}");
    }
}

#[tokio::test]
async fn a_thousand_connects_and_resets_leave_no_task_behind() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let metrics = tokio::runtime::Handle::current().metrics();
    let before = metrics.num_alive_tasks();
    let mut handles = Vec::new();
    for batch in 0..10 {
        let mut serving = tokio::task::JoinSet::new();
        let mut clients = Vec::new();
        for n in 0..100 {
            let mut client = TcpStream::connect(address).await.unwrap();
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(b"never read").await.unwrap();
            client.readable().await.unwrap();
            let mut channel = Channel::builder(b"\n").timeouts(Timeouts::NONE).build(stream);
            handles.push(channel.handle());
            serving.spawn(async move { channel.run(Collector::default()).await.0.frames });
            // Some clients stop within a frame, some have sent nothing.
            let said: &[u8] = [&b""[..], b"li", b"line\n", b"line\nli"][(batch + n) % 4];
            client.write_all(said).await.unwrap();
            clients.push(client);
        }
        assert_eq!(metrics.num_alive_tasks(), before + 100);
        drop(clients);
        while let Some(ended) = serving.join_next().await {
            ended.unwrap();
        }
    }
    assert_eq!(metrics.num_alive_tasks(), before);
    assert!(handles.iter().all(asynchat::Handle::is_closed));
}
