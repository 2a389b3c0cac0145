//! What is told to `tracing`, and what is not.

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

/// Writes everything down, a line for each event and each new span.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<String>>);

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("asynchat")
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut line = format!("{} span {}", span.metadata().level(), span.metadata().name());
        span.record(&mut Fields(&mut line));
        self.0.lock().unwrap().push_str(&(line + "\n"));
        Id::from_u64(1)
    }

    fn event(&self, event: &Event<'_>) {
        let mut line = event.metadata().level().to_string();
        event.record(&mut Fields(&mut line));
        self.0.lock().unwrap().push_str(&(line + "\n"));
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
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

/// Fails once, accepts what it has, and then nothing.
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

    let log = log.0.lock().unwrap();
    let lines: Vec<_> = log.lines().collect();
    assert_eq!(
        lines,
        [
            r#"WARN message=accept failed error=out of memory"#,
            r#"DEBUG span connection number=1 peer="somewhere""#,
            r#"DEBUG message=connection accepted"#,
            r#"DEBUG message=connection limit reached connections=1"#,
            r#"DEBUG message=channel opened"#,
            r#"DEBUG message=frame longer than its limit limit=4"#,
            r#"DEBUG message=frame longer than its limit limit=4"#,
            r#"DEBUG message=deadline passed deadline=Idle"#,
            r#"DEBUG message=channel closed reason="deadline passed" read=23 written=0"#,
            r#"INFO message=server shutting down connections=0"#,
        ]
    );
}
