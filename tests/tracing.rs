//! Which events are sent to `tracing`, and what is never in them.

#![cfg(all(feature = "tracing", feature = "serve"))]
#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

use std::convert::Infallible;
use std::fmt::Write as _;
use std::io;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use asynchat::{Channel, Chunk, Control, Handler, Limit, Server, Timeouts};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio_util::net::Listener;
use tokio_util::sync::CancellationToken;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// A subscriber that records a line for each new span and for each event. The line of an event begins with the number
/// of its span.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Lines>>);

#[derive(Default)]
struct Lines {
    lines: Vec<String>,
    spans: u64,
    entered: Vec<Id>,
}

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "asynchat"
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut line = format!("{} span {}", span.metadata().level(), span.metadata().name());
        span.record(&mut Fields(&mut line));
        let mut log = self.0.lock().unwrap();
        log.lines.push(line);
        log.spans += 1;
        Id::from_u64(log.spans)
    }

    fn event(&self, event: &Event<'_>) {
        let mut log = self.0.lock().unwrap();
        let span = log.entered.last().map_or("-".to_owned(), |span| span.into_u64().to_string());
        let mut line = format!("{span} {}", event.metadata().level());
        event.record(&mut Fields(&mut line));
        log.lines.push(line);
    }

    fn enter(&self, span: &Id) {
        self.0.lock().unwrap().entered.push(span.clone());
    }

    fn exit(&self, span: &Id) {
        assert_eq!(self.0.lock().unwrap().entered.pop().as_ref(), Some(span));
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
}

struct Fields<'a>(&'a mut String);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        write!(self.0, " {field}={value:?}").unwrap();
    }
}

struct Ignore;

impl Handler for Ignore {
    type Error = Infallible;

    fn collect_incoming_data(
        &mut self,
        _: Chunk<'_>,
        _: &mut Control<'_>,
    ) -> Result<(), Infallible> {
        Ok(())
    }
}

/// A listener that fails once, accepts the connections that it has, and is then pending for ever.
struct Few(Vec<DuplexStream>, bool);

impl Listener for Few {
    type Io = DuplexStream;
    type Addr = &'static str;

    fn poll_accept(
        &mut self,
        _: &mut Context<'_>,
    ) -> Poll<io::Result<(DuplexStream, &'static str)>> {
        if std::mem::take(&mut self.1) {
            return Poll::Ready(Err(io::ErrorKind::OutOfMemory.into()));
        }
        self.0.pop().map_or(Poll::Pending, |io| Poll::Ready(Ok((io, "somewhere"))))
    }

    fn local_addr(&self) -> io::Result<&'static str> {
        Ok("here")
    }
}

#[tokio::test(start_paused = true)]
async fn connections_limits_and_deadlines_are_told_and_no_bytes_of_peers() {
    let log = Log::default();
    let _guard = tracing::subscriber::set_default(log.clone());
    let (mut client, server) = duplex(64);
    let stop = CancellationToken::new();
    let server = Server::new().max_connections(1).serve(
        Few(vec![server], true),
        stop.clone(),
        |connection| async move {
            let mut timeouts = Timeouts::NONE;
            timeouts.idle = Some(Duration::from_secs(10));
            let mut channel = Channel::builder(b"\n")
                .limit(Limit::Skip(4))
                .timeouts(timeouts)
                .build(connection.io);
            channel.run_until(Ignore, connection.shutdown.cancelled()).await
        },
    );
    let serving = tokio::spawn(server);
    client.write_all(b"SECRET, and long\nshort\n").await.unwrap();
    assert_eq!(client.read(&mut [0]).await.unwrap(), 0, "idle for too long");
    stop.cancel();
    serving.await.unwrap().unwrap();

    assert_eq!(
        log.0.lock().unwrap().lines,
        [
            r#"- WARN message=accept failed error=out of memory"#,
            r#"INFO span connection number=1 peer="somewhere""#,
            r#"1 DEBUG message=connection accepted"#,
            r#"- DEBUG message=connection limit reached connections=1"#,
            r#"1 DEBUG message=channel opened"#,
            r#"1 DEBUG message=frame longer than its limit limit=4"#,
            r#"1 DEBUG message=frame longer than its limit limit=4"#,
            r#"1 DEBUG message=deadline passed deadline=Idle"#,
            r#"1 DEBUG message=channel closed reason=connection idle for too long read=23 written=0"#,
            r#"- INFO message=server shutting down connections=0"#,
        ]
    );
}

/// A handler that fails with an error that quotes the peer, or waits for ever.
struct Quotes(Vec<u8>);

impl Handler for Quotes {
    type Error = String;

    fn collect_incoming_data(
        &mut self,
        data: Chunk<'_>,
        _: &mut Control<'_>,
    ) -> Result<(), String> {
        self.0.extend_from_slice(&data);
        Ok(())
    }

    async fn found_terminator(&mut self, _: &mut Control<'_>) -> Result<(), String> {
        Err(String::from_utf8_lossy(&self.0).into_owned())
    }
}

#[tokio::test]
async fn why_a_channel_is_closed_is_told_without_the_text_of_errors() {
    let log = Log::default();
    let _guard = tracing::subscriber::set_default(log.clone());
    let reason = || log.0.lock().unwrap().lines.pop().unwrap();

    let (mut client, server) = duplex(64);
    client.write_all(b"SECRET\n").await.unwrap();
    drop(client);
    let (_, closed) = Channel::new(server, b"\n").run(Quotes(Vec::new())).await;
    assert_eq!(closed.to_string(), "SECRET");
    assert_eq!(
        reason(),
        "- DEBUG message=channel closed reason=the handler failed read=7 written=0"
    );

    let (client, server) = duplex(64);
    drop(client);
    let mut channel = Channel::new(server, b"\n");
    channel.push("hello").unwrap();
    let (_, closed) = channel.run(Ignore).await;
    assert_eq!(closed.to_string(), "the stream failed: broken pipe");
    assert_eq!(
        reason(),
        "- DEBUG message=channel closed reason=the stream failed error=BrokenPipe read=0 written=0"
    );

    let (mut client, server) = duplex(64);
    client.write_all(b"SECRET, and long").await.unwrap();
    drop(client);
    let mut channel = Channel::builder(b"\n").limit(Limit::Fail(4)).build(server);
    let (_, closed) = channel.run(Ignore).await;
    assert_eq!(closed.to_string(), "frame longer than the limit of 4 bytes");
    assert_eq!(
        reason(),
        "- DEBUG message=channel closed reason=frame longer than the limit of 4 bytes read=16 written=0"
    );
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_does_not_end_by_itself_is_told_with_its_peer() {
    let log = Log::default();
    let _guard = tracing::subscriber::set_default(log.clone());
    let stop = CancellationToken::new();
    let few = Few((0..3).map(|_| duplex(64).1).collect(), false);
    let mut number = 0;
    let server = Server::new().serve(few, stop.clone(), move |_| {
        number += 1;
        let number = number;
        async move {
            match number {
                1 => panic!("on purpose"),
                2 => std::future::pending().await,
                _ => {}
            }
        }
    });
    let serving = tokio::spawn(server);
    tokio::time::sleep(Duration::from_secs(1)).await;
    stop.cancel();
    let served = serving.await.unwrap().unwrap();
    assert_eq!((served.accepted, served.panicked, served.aborted), (3, 1, 1));

    let mut lines = std::mem::take(&mut log.0.lock().unwrap().lines);
    lines.retain(|line| !line.contains(" span ") && !line.contains("connection accepted"));
    assert_eq!(
        lines,
        [
            "1 WARN message=connection panicked",
            "- INFO message=server shutting down connections=1",
            "- WARN message=aborting connections at the shutdown deadline connections=1",
            "2 INFO message=connection aborted",
        ]
    );
}
