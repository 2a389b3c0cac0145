//! The clients: many connections on one thread, each of which sends a request and waits for the answer.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::harness::{Outcome, nanoseconds};
use crate::server::{Server, runtime};

/// How many times each server is started anew, since one start of a program differs from another in speed.
pub const ROUNDS: usize = 11;

/// What [`Exchange::measure`] measures, for [`Row::measures`](crate::Row::measures).
pub const MEASURES: [(&str, &str); 2] = [("CPU time of the server", "ns"), ("wall clock", "ns")];

/// A request and its answer, exchanged `times` times on each of so many connections.
#[derive(Clone, Debug)]
pub struct Exchange<'a> {
    pub connections: usize,
    pub times: usize,
    pub request: &'a [u8],
    pub answer: &'a [u8],
}

impl Exchange<'_> {
    /// Measures a server that has just started, after a tenth as many exchanges to warm it up. The checksum is the
    /// number of bytes that were answered, each of which has been compared.
    pub fn measure(&self, server: io::Result<Server>) -> Outcome {
        let server = server.expect("it starts");
        let (cpu, wall, bytes) = runtime().block_on(async {
            let mut streams = Vec::new();
            for _ in 0..self.connections {
                let stream = TcpStream::connect(&server.address).await.expect("it listens");
                stream.set_nodelay(true).expect("a socket");
                streams.push(stream);
            }
            let (streams, _) = self.exchange(streams, self.times.div_ceil(10)).await;
            let before = server.time().expect("it runs");
            let start = Instant::now();
            let (_, bytes) = self.exchange(streams, self.times).await;
            let wall = start.elapsed();
            (server.time().expect("it runs") - before, wall, bytes)
        });
        (vec![nanoseconds(cpu), nanoseconds(wall)], bytes)
    }

    async fn exchange(&self, streams: Vec<TcpStream>, times: usize) -> (Vec<TcpStream>, u64) {
        let mut tasks = JoinSet::new();
        let (request, answer): (Arc<[u8]>, Arc<[u8]>) = (self.request.into(), self.answer.into());
        for mut stream in streams {
            let (request, answer) = (Arc::clone(&request), Arc::clone(&answer));
            tasks.spawn(async move {
                let mut back = vec![0; answer.len()];
                for _ in 0..times {
                    stream.write_all(&request).await.expect("a connection");
                    stream.read_exact(&mut back).await.expect("a connection");
                    assert!(is_alike(&back, &answer), "{}", back.escape_ascii());
                }
                (stream, (times * back.len()) as u64)
            });
        }
        let done = tasks.join_all().await;
        let bytes = done.iter().map(|(_, bytes)| bytes).sum();
        (done.into_iter().map(|(stream, _)| stream).collect(), bytes)
    }

    /// How many bytes of answers all connections receive together.
    pub fn bytes(&self) -> u64 {
        (self.connections * self.times * self.answer.len()) as u64
    }
}

/// Whether two answers are the same except for digits, since a date may be among them.
fn is_alike(one: &[u8], other: &[u8]) -> bool {
    let differ = |(a, b): (&u8, &u8)| a != b && !(a.is_ascii_digit() && b.is_ascii_digit());
    one == other || (one.len() == other.len() && !one.iter().zip(other).any(differ))
}
