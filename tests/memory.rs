//! What connections leave behind in memory: nothing.
#![cfg(feature = "tokio")]
#![allow(clippy::unwrap_used)]

use std::convert::Infallible;
use std::iter::repeat_n;

use allocation_counter::measure;
use asynchat::{Channel, Chunk, CloseReason, Control, Handler, producer};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;
use tokio::task::JoinSet;

/// Answers a line with more than a socket takes, and then waits for a time that does not come.
#[derive(Default)]
struct Slow(Vec<u8>);

impl Handler for Slow {
    type Error = Infallible;

    fn collect_incoming_data(
        &mut self,
        data: Chunk<'_>,
        _: &mut Control<'_>,
    ) -> Result<(), Infallible> {
        self.0.extend_from_slice(&data);
        Ok(())
    }

    async fn found_terminator(&mut self, control: &mut Control<'_>) -> Result<(), Infallible> {
        let _handle = control.handle();
        let blocks = repeat_n([b'x'; 16 * 1024], 256);
        control.push(vec![b'x'; 16 * 1024]);
        control.push_with_producer(producer::iter(blocks));
        if self.0 == b"wait" {
            std::future::pending().await
        }
        Ok(())
    }
}

/// So many connections at once, broken off in every state.
async fn storm(connections: usize) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut serving = JoinSet::new();
    let mut clients = Vec::new();
    for start in
        ["", "no line", "line\n", "wait\n", "wait\nmore\nlines"].iter().cycle().take(connections)
    {
        let mut client = TcpStream::connect(address).await.unwrap();
        client.set_zero_linger().unwrap();
        client.write_all(start.as_bytes()).await.unwrap();
        clients.push(client);
        let (stream, _) = listener.accept().await.unwrap();
        serving.spawn(async move { Channel::new(stream, b"\n").run(Slow::default()).await.1 });
    }
    // All are where they will not get on.
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    drop(clients);
    while let Some(reason) = serving.join_next().await {
        assert!(matches!(reason.unwrap(), CloseReason::Io(_)));
    }
}

#[test]
fn two_hundred_resets_at_once_leave_no_memory_behind() {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    // What a runtime and a thread keep, buffers among it, is there after the first time.
    runtime.block_on(storm(200));
    let left = measure(|| runtime.block_on(storm(200)));
    assert!(left.bytes_max > 200 * 1024, "{left:?}");
    assert!(left.bytes_current < 4096, "{left:?}");
}
