//! The memory of input: where it stays while more is awaited, and which chunks share it.

use asynchat::{Channel, End, Event, Limit};
use bytes::Bytes;

use crate::support::{Peer, Socket, patient, pipe, settle};

/// A part of the input that has this many bytes or more is shared and not copied.
const SHARED: usize = 16 * 1024;

fn whole_lines() -> (Channel<Socket>, Peer) {
    let (socket, peer) = pipe();
    (Channel::builder(b"\n").whole_frames(true).timeouts(patient()).build(socket), peer)
}

#[tokio::test(start_paused = true)]
async fn what_is_left_of_long_input_is_there_when_more_comes() {
    for keeps in [false, true] {
        let (mut channel, peer) = whole_lines();
        let long = "x".repeat(SHARED);
        peer.send(format!("{long}\npar"));
        let mut kept = None;
        if let Event::Chunk(line) = channel.next().await.unwrap().unwrap() {
            kept = Some(line).filter(|_| keeps);
        }
        assert_eq!(channel.next().await.unwrap().unwrap(), Event::Terminator);
        let pulling = tokio::spawn(async move { channel.next().await.unwrap().unwrap() });
        settle().await;
        peer.send("tial\n");
        assert_eq!(pulling.await.unwrap(), Event::Chunk("partial".into()), "keeps: {keeps}");
        assert!(kept.is_none_or(|line| line == long));
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_kept_of_long_input_does_not_hinder_small_reads() {
    let (socket, peer) = pipe();
    let mut read = "x".repeat(SHARED).into_bytes();
    read.extend_from_slice(b"\nand more than one read brings");
    let mut channel = Channel::builder(b"\n")
        .whole_frames(true)
        .read_size(10)
        .timeouts(patient())
        .build_with_input(socket, Bytes::from(read));
    peer.send(", and what it brings\n");
    let kept = channel.next().await.unwrap().unwrap();
    assert_eq!(channel.next().await.unwrap().unwrap(), Event::Terminator);
    let line = "and more than one read brings, and what it brings";
    assert_eq!(channel.next().await.unwrap().unwrap(), Event::Chunk(line.into()));
    assert_eq!(kept, Event::Chunk("x".repeat(SHARED).into()));
}

#[tokio::test(start_paused = true)]
async fn a_large_part_is_shared_and_a_small_one_is_a_copy() {
    let (mut channel, peer) = whole_lines();
    channel.set_limit(Limit::Unlimited);
    for length in [SHARED, SHARED - 1, 1, SHARED + 1] {
        peer.send("x".repeat(length));
        peer.send("\n");
    }
    for shared in [true, false, false, true] {
        let (step, _) = channel.step().await.unwrap().unwrap();
        assert_eq!(step.end, Some(End::Terminator));
        let kept = step.payload.to_bytes();
        assert_eq!(kept.as_ptr() == step.payload.as_ptr(), shared, "{} bytes", kept.len());
        assert_eq!(kept, step.payload.as_ref());
    }
}
