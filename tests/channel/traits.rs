//! Traits that the types must implement.

use asynchat::{
    Channel, ChannelBuilder, ChannelError, CloseReason, Control, Handle, Handler, Timeouts,
    UpgradeError,
};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::support::{Scripted, Then, pipe};

fn is_send<T: Send>(value: T) -> T {
    value
}

#[test]
fn the_types_are_send_sync_unpin_and_debug() {
    fn all<T: Send + Sync + Unpin + std::fmt::Debug>() {}
    all::<Channel<tokio::net::TcpStream>>();
    all::<Channel<tokio::io::DuplexStream>>();
    all::<ChannelBuilder>();
    all::<ChannelError>();
    all::<CloseReason<std::io::Error>>();
    all::<Handle>();
    all::<Timeouts>();
    all::<UpgradeError<Channel<tokio::net::TcpStream>>>();
    fn sent<T: Send + std::fmt::Debug>() {}
    sent::<Control<'_>>();
}

#[tokio::test]
async fn a_run_can_be_spawned_whatever_the_stream_and_the_handler() {
    async fn serve<S, H>(stream: S, handler: H) -> bool
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        H: Handler<Error: Send> + Send + 'static,
    {
        let serving = tokio::spawn(async move {
            let mut channel = Channel::builder(b"\n").timeouts(Timeouts::NONE).build(stream);
            matches!(channel.run(handler).await.1, CloseReason::PeerClosed)
        });
        serving.await.unwrap()
    }
    let (socket, peer) = pipe();
    peer.close();
    assert!(serve(socket, Scripted::new(|_, _| Then::Go)).await);
}

#[test]
fn the_futures_of_a_channel_are_send() {
    let (socket, _peer) = pipe();
    let mut channel = Channel::builder(b"\n").timeouts(Timeouts::NONE).build(socket);
    drop(is_send(channel.next()));
    drop(is_send(channel.flush()));
    drop(is_send(channel.close()));
    drop(is_send(channel.run(Scripted::new(|_, _| Then::Go))));
    drop(is_send(channel.upgrade()));
}

#[test]
fn a_channel_says_what_it_is_in_debug() {
    let (socket, _peer) = pipe();
    let mut channel = Channel::builder(b"\n").timeouts(Timeouts::NONE).build(socket);
    channel.push("x").unwrap();
    let handle = channel.handle();
    let text = format!("{channel:?} {handle:?}");
    assert!(text.contains("Open") && text.contains("Delimiter"), "{text}");
}
