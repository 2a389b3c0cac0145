//! The accept loop, with scripted listeners and with real sockets.
//!
//! Where time matters, the clock is paused: a sleep then ends when nothing else can happen any more.

#![cfg(feature = "serve")]
#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

use std::collections::VecDeque;
use std::convert::Infallible;
use std::error::Error as _;
use std::future::{self, Future};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use asynchat::{
    Channel, Chunk, CloseReason, Connection, Control, Handler, ServeError, Served, Server,
    Terminator, Timeouts,
};
use futures::FutureExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::net::Listener;
use tokio_util::sync::CancellationToken;

// ---------------------------------------------------------------------------------------------
// A scripted listener

/// A listener that first fails as the script says, and then accepts the connections that come.
struct Scripted {
    errors: Box<dyn Iterator<Item = io::Error> + Send>,
    peers: mpsc::UnboundedReceiver<DuplexStream>,
    accepted: u32,
    calls: Arc<AtomicUsize>,
}

impl Listener for Scripted {
    type Io = DuplexStream;
    type Addr = u32;

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(DuplexStream, u32)>> {
        self.calls.fetch_add(1, SeqCst);
        if let Some(error) = self.errors.next() {
            return Poll::Ready(Err(error));
        }
        match ready!(self.peers.poll_recv(cx)) {
            Some(peer) => {
                self.accepted += 1;
                Poll::Ready(Ok((peer, self.accepted)))
            }
            None => Poll::Pending,
        }
    }

    fn local_addr(&self) -> io::Result<u32> {
        Ok(0)
    }
}

/// The clients of a scripted listener.
struct Network {
    connect: mpsc::UnboundedSender<DuplexStream>,
    calls: Arc<AtomicUsize>,
}

impl Network {
    fn new(errors: impl Iterator<Item = io::Error> + Send + 'static) -> (Self, Scripted) {
        let (connect, peers) = mpsc::unbounded_channel();
        let calls = Arc::new(AtomicUsize::new(0));
        let listener =
            Scripted { errors: Box::new(errors), peers, accepted: 0, calls: calls.clone() };
        (Network { connect, calls }, listener)
    }

    /// A listener that never fails.
    fn sound() -> (Self, Scripted) {
        Network::new(std::iter::empty())
    }

    fn connect(&self) -> DuplexStream {
        let (client, server) = duplex(64);
        self.connect.send(server).unwrap();
        client
    }

    fn calls(&self) -> usize {
        self.calls.load(SeqCst)
    }
}

/// Waits, while the clock is paused, until nothing more can happen before the next timer.
async fn settle() {
    sleep(Duration::from_micros(1)).await;
}

fn errno(code: i32) -> io::Error {
    io::Error::from_raw_os_error(code)
}

const EMFILE: i32 = 24;

type Serving = JoinHandle<Result<Served, ServeError>>;

fn spawn<F, C>(server: Server, listener: Scripted, stop: &CancellationToken, service: F) -> Serving
where
    F: FnMut(Connection<DuplexStream, u32>) -> C + Send + 'static,
    C: Future + Send + 'static,
{
    tokio::spawn(server.serve(listener, stop.clone(), service))
}

// ---------------------------------------------------------------------------------------------
// The limit

#[tokio::test(start_paused = true)]
async fn at_the_limit_nothing_is_accepted_until_one_ends() {
    let (network, listener) = Network::sound();
    let stop = CancellationToken::new();
    let (started, mut running) = mpsc::unbounded_channel();
    let server = Server::new().max_connections(2);
    let serving = spawn(server, listener, &stop, move |mut connection| {
        started.send(connection.peer).unwrap();
        async move { connection.io.read_u8().await }
    });

    let first = network.connect();
    let _second = network.connect();
    let mut third = network.connect();
    assert_eq!(running.recv().await, Some(1));
    assert_eq!(running.recv().await, Some(2));
    settle().await;
    assert_eq!(network.calls(), 2, "it does not even ask");
    assert!(running.is_empty());

    drop(first);
    assert_eq!(running.recv().await, Some(3));
    third.write_all(b"x").await.unwrap();

    stop.cancel();
    let served = serving.await.unwrap().unwrap();
    assert_eq!((served.accepted, served.peak), (3, 2));
    assert_eq!(served.aborted, 1, "the second, at the deadline");
}

#[tokio::test(start_paused = true)]
async fn a_limit_of_zero_is_one() {
    let (network, listener) = Network::sound();
    let stop = CancellationToken::new();
    let server = Server::new().max_connections(0);
    let serving = spawn(server, listener, &stop, |_| async {});
    let mut client = network.connect();
    assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
    stop.cancel();
    assert_eq!(serving.await.unwrap().unwrap().accepted, 1);
}

// ---------------------------------------------------------------------------------------------
// Errors of accept

#[tokio::test(start_paused = true)]
async fn without_descriptors_accept_is_tried_again_after_growing_delays() {
    let (network, listener) = Network::new((0..10).map(|_| errno(EMFILE)));
    let stop = CancellationToken::new();
    let began = Instant::now();
    let serving = spawn(Server::new(), listener, &stop, |_| async {});
    let mut client = network.connect();
    assert_eq!(client.read(&mut [0]).await.unwrap(), 0);

    let delays: u64 = [5, 10, 20, 40, 80, 160, 320, 640, 1000, 1000].iter().sum();
    let elapsed = began.elapsed().as_millis() as u64;
    assert!((delays..delays + 20).contains(&elapsed), "{elapsed} ms");
    settle().await;
    // Ten failed calls, one for the connection, one that waits for the next, and one when the first connection has
    // ended.
    assert!(network.calls() <= 13, "{} calls", network.calls());

    stop.cancel();
    let served = serving.await.unwrap().unwrap();
    assert_eq!((served.accepted, served.accept_errors), (1, 10));
}

#[tokio::test(start_paused = true)]
async fn after_a_success_the_delays_begin_anew() {
    let (network, listener) = Network::sound();
    let errors = Arc::new(std::sync::Mutex::new(VecDeque::new()));
    let script = errors.clone();
    let listener = Scripted {
        errors: Box::new(std::iter::from_fn(move || script.lock().unwrap().pop_front())),
        ..listener
    };
    errors.lock().unwrap().extend((0..8).map(|_| errno(EMFILE)));
    let stop = CancellationToken::new();
    let serving = spawn(Server::new(), listener, &stop, |_| async {});
    assert_eq!(network.connect().read(&mut [0]).await.unwrap(), 0);

    errors.lock().unwrap().push_back(errno(EMFILE));
    let began = Instant::now();
    // The waiting call accepts the first connection, the next call fails, and the one after it accepts the second.
    assert_eq!(network.connect().read(&mut [0]).await.unwrap(), 0);
    assert_eq!(network.connect().read(&mut [0]).await.unwrap(), 0);
    assert!(began.elapsed() < Duration::from_millis(10), "{:?}", began.elapsed());
    stop.cancel();
    assert_eq!(serving.await.unwrap().unwrap().accept_errors, 9);
}

#[tokio::test(start_paused = true)]
async fn an_aborted_connection_is_passed_over_at_once() {
    let aborted = || io::Error::from(io::ErrorKind::ConnectionAborted);
    let (network, listener) = Network::new((0..50).map(move |_| aborted()));
    let stop = CancellationToken::new();
    let began = Instant::now();
    let serving = spawn(Server::new(), listener, &stop, |_| async {});
    assert_eq!(network.connect().read(&mut [0]).await.unwrap(), 0);
    assert_eq!(began.elapsed(), Duration::ZERO);
    stop.cancel();
    assert_eq!(serving.await.unwrap().unwrap().accept_errors, 50);
}

#[tokio::test(start_paused = true)]
async fn errors_without_end_do_not_spin() {
    for code in [EMFILE, 23 /* ENFILE */, 103 /* ECONNABORTED on Linux */, 12345] {
        let (network, listener) = Network::new(std::iter::repeat_with(move || errno(code)));
        let stop = CancellationToken::new();
        let serving = spawn(Server::new(), listener, &stop, |_| async {});
        sleep(Duration::from_secs(60)).await;
        let calls = network.calls();
        assert!((60..150).contains(&calls), "error {code}: {calls} calls in a minute");
        stop.cancel();
        assert_eq!(serving.await.unwrap().unwrap().accept_errors, calls as u64);
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_ends_cuts_the_delay_short() {
    let (network, listener) = Network::sound();
    let errors = Arc::new(std::sync::Mutex::new(VecDeque::new()));
    let script = errors.clone();
    let listener = Scripted {
        errors: Box::new(std::iter::from_fn(move || script.lock().unwrap().pop_front())),
        ..listener
    };
    let stop = CancellationToken::new();
    let (started, mut running) = mpsc::unbounded_channel();
    let serving = spawn(Server::new(), listener, &stop, move |mut connection| {
        started.send(connection.peer).unwrap();
        async move { connection.io.read_u8().await }
    });
    let first = network.connect();
    assert_eq!(running.recv().await, Some(1));
    // The second connection wakes the waiting accept, which then fails.
    errors.lock().unwrap().extend((0..30).map(|_| errno(EMFILE)));
    let second = network.connect();
    sleep(Duration::from_secs(10)).await;
    errors.lock().unwrap().clear();
    settle().await;
    assert!(running.is_empty(), "it waits for a second");
    let before = Instant::now();
    drop(first);
    assert_eq!(running.recv().await, Some(2));
    assert!(before.elapsed() < Duration::from_millis(2), "{:?}", before.elapsed());

    drop(second);
    stop.cancel();
    serving.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_final_error_is_returned_when_the_connections_have_ended() {
    let (network, listener) = Network::sound();
    let gone = Arc::new(std::sync::Mutex::new(None));
    let script = gone.clone();
    let listener = Scripted {
        errors: Box::new(std::iter::from_fn(move || script.lock().unwrap().take())),
        ..listener
    };
    let stop = CancellationToken::new();
    let serving = spawn(Server::default(), listener, &stop, |mut connection| async move {
        connection.shutdown.cancelled().await;
        connection.io.write_all(b"bye").await
    });
    let mut first = network.connect();
    settle().await;
    *gone.lock().unwrap() = Some(io::ErrorKind::BrokenPipe.into());
    let mut second = network.connect(); // which wakes the accept that is waiting

    let mut farewell = String::new();
    first.read_to_string(&mut farewell).await.unwrap();
    second.read_to_string(&mut farewell).await.unwrap();
    assert_eq!(farewell, "bye", "only the first was accepted");
    let error = serving.await.unwrap().unwrap_err();
    assert_eq!((error.served().accepted, error.served().accept_errors), (1, 1));
    assert_eq!(error.to_string(), "accepting connections failed");
    assert!(error.source().is_some());
    assert_eq!(error.to_string(), "accepting connections failed");
    assert_eq!(io::Error::from(error).kind(), io::ErrorKind::BrokenPipe);
    assert!(!stop.is_cancelled(), "it is the caller's");
}

// ---------------------------------------------------------------------------------------------
// Shutdown, with a channel in each of its states

/// A handler that answers each line with itself and `!`, and waits for the gate before each answer.
struct Shout {
    line: Vec<u8>,
    gate: Arc<Semaphore>,
    waiting: Arc<Notify>,
}

impl Handler for Shout {
    type Error = Infallible;

    fn collect_incoming_data(
        &mut self,
        data: Chunk<'_>,
        _: &mut Control<'_>,
    ) -> Result<(), Infallible> {
        self.line.extend_from_slice(&data);
        Ok(())
    }

    async fn found_terminator(&mut self, control: &mut Control<'_>) -> Result<(), Infallible> {
        self.waiting.notify_one();
        self.gate.acquire().await.unwrap().forget();
        self.line.extend_from_slice(b"!\n");
        control.push(std::mem::take(&mut self.line));
        Ok(())
    }
}

/// A server of `Shout`s, with a client.
struct Fixture {
    client: DuplexStream,
    gate: Arc<Semaphore>,
    waiting: Arc<Notify>,
    stop: CancellationToken,
    serving: Serving,
    reasons: mpsc::UnboundedReceiver<CloseReason<Infallible>>,
    alive: usize,
}

impl Fixture {
    fn new(terminator: impl Into<Terminator>, answers: usize) -> Self {
        let terminator = terminator.into();
        let (network, listener) = Network::sound();
        let (gate, waiting) = (Arc::new(Semaphore::new(answers)), Arc::new(Notify::new()));
        let (shared, stop) = ((gate.clone(), waiting.clone()), CancellationToken::new());
        let (ended, reasons) = mpsc::unbounded_channel();
        let alive = Handle::current().metrics().num_alive_tasks();
        let server = Server::new().shutdown_timeout(Duration::from_secs(10));
        let serving = spawn(server, listener, &stop, move |connection| {
            let ((gate, waiting), ended) = (shared.clone(), ended.clone());
            let builder = Channel::builder(terminator.clone()).timeouts(Timeouts::NONE);
            async move {
                let mut channel = builder.build(connection.io);
                let shout = Shout { line: Vec::new(), gate, waiting };
                let shutdown = connection.shutdown.cancelled();
                ended.send(channel.run_until(shout, shutdown).await.1).unwrap();
            }
        });
        let client = network.connect();
        Fixture { client, gate, waiting, stop, serving, reasons, alive }
    }

    async fn send(&mut self, bytes: &[u8]) {
        self.client.write_all(bytes).await.unwrap();
    }

    /// Reads the output to its end. Returns it, what the server has returned, and why the connection ended.
    async fn end(mut self) -> (String, Served, Option<CloseReason<Infallible>>) {
        let mut answers = String::new();
        self.client.read_to_string(&mut answers).await.unwrap();
        let served = self.serving.await.unwrap().unwrap();
        assert_eq!(Handle::current().metrics().num_alive_tasks(), self.alive, "tasks are left");
        (answers, served, self.reasons.recv().await)
    }
}

#[tokio::test(start_paused = true)]
async fn at_shutdown_an_idle_connection_is_closed_at_once() {
    for input in [&b""[..], b"one\n"] {
        let mut fixture = Fixture::new(b"\n", 1);
        fixture.send(input).await;
        settle().await;
        let began = Instant::now();
        fixture.stop.cancel();
        let (answers, served, reason) = fixture.end().await;
        assert_eq!(answers.len(), if input.is_empty() { 0 } else { 5 });
        assert!(matches!(reason, Some(CloseReason::Done)), "{reason:?}");
        assert_eq!((served.accepted, served.aborted), (1, 0));
        assert!(began.elapsed() < Duration::from_millis(2));
    }
}

#[tokio::test(start_paused = true)]
async fn at_shutdown_a_counted_frame_that_has_not_begun_is_idle() {
    let fixture = Fixture::new(4, 1);
    settle().await;
    fixture.stop.cancel();
    let (answers, served, reason) = fixture.end().await;
    assert!(matches!(reason, Some(CloseReason::Done)), "{reason:?}");
    assert_eq!((answers.as_str(), served.aborted), ("", 0));
}

#[tokio::test(start_paused = true)]
async fn at_shutdown_a_frame_that_has_begun_is_answered() {
    for terminator in [Terminator::from(b"\r\n"), Terminator::from(7)] {
        for begun in [&b"h"[..], b"hello", b"hello\r"] {
            let mut fixture = Fixture::new(terminator.clone(), 9);
            fixture.send(begun).await;
            settle().await;
            fixture.stop.cancel();
            sleep(Duration::from_secs(5)).await;
            assert!(!fixture.serving.is_finished());
            fixture.send(&b"hello\r\nignored\r\n"[begun.len()..]).await;
            let (answers, served, reason) = fixture.end().await;
            assert!(answers.starts_with("hello"), "{answers:?}");
            assert_eq!(answers.matches('!').count(), 1, "{answers:?}");
            assert!(matches!(reason, Some(CloseReason::Done)), "{reason:?}");
            assert_eq!(served.aborted, 0);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn at_shutdown_a_callback_that_waits_is_let_finish() {
    let mut fixture = Fixture::new(b"\n", 0);
    fixture.send(b"hello\nignored\n").await;
    fixture.waiting.notified().await;
    fixture.stop.cancel();
    sleep(Duration::from_secs(5)).await;
    assert!(!fixture.serving.is_finished());
    fixture.gate.add_permits(9);
    let (answers, served, reason) = fixture.end().await;
    assert_eq!(answers, "hello!\n");
    assert!(matches!(reason, Some(CloseReason::Done)), "{reason:?}");
    assert_eq!(served.aborted, 0);
}

#[tokio::test(start_paused = true)]
async fn at_the_deadline_who_is_not_done_is_aborted() {
    // Within a frame, within a callback, and with a peer that does not read.
    for (input, answers) in [(&b"hel"[..], 9), (b"hello\n", 0), (&[b'x'; 63], 9)] {
        let mut fixture = Fixture::new(b"\n", answers);
        fixture.send(input).await;
        if input.len() == 63 {
            fixture.send(b"xxx\n").await; // an answer longer than the pipe is
        }
        settle().await;
        let began = Instant::now();
        fixture.stop.cancel();
        let served = (&mut fixture.serving).await.unwrap().unwrap();
        assert_eq!((served.accepted, served.aborted, served.panicked), (1, 1, 0));
        assert!(began.elapsed() >= Duration::from_secs(10));
        assert!(began.elapsed() < Duration::from_secs(11));
        assert!(fixture.reasons.recv().await.is_none());
        assert_eq!(Handle::current().metrics().num_alive_tasks(), fixture.alive);
        assert_eq!(Arc::strong_count(&fixture.gate), 1, "its handler is still there");
    }
}

#[tokio::test(start_paused = true)]
async fn a_handler_may_go_on_for_some_frames_after_the_signal() {
    /// A handler that records lines and the shutdown, and closes at the line `end`.
    struct Stubborn(Vec<String>);

    impl Handler for Stubborn {
        type Error = Infallible;

        fn collect_incoming_data(
            &mut self,
            data: Chunk<'_>,
            _: &mut Control<'_>,
        ) -> Result<(), Infallible> {
            self.0.push(String::from_utf8_lossy(&data).into_owned());
            Ok(())
        }

        async fn found_terminator(&mut self, control: &mut Control<'_>) -> Result<(), Infallible> {
            if self.0.last().is_some_and(|line| line == "end") {
                control.close_when_done();
            }
            Ok(())
        }

        async fn shutdown(&mut self, control: &mut Control<'_>) -> Result<(), Infallible> {
            self.0.push("shutdown".into());
            control.push("soon\n");
            Ok(())
        }
    }

    let (mut client, server) = duplex(64);
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn(async move {
        let mut channel = Channel::new(server, b"\n");
        let signal = async { drop(stopped.await) };
        channel.run_until(Stubborn(Vec::new()), signal).await
    });
    client.write_all(b"one\n").await.unwrap();
    settle().await;
    drop(stop);
    let mut soon = [0; 5];
    client.read_exact(&mut soon).await.unwrap();
    client.write_all(b"two\nend\nlost\n").await.unwrap();
    assert_eq!(client.read(&mut soon).await.unwrap(), 0);
    drop(client);
    let (handler, reason) = running.await.unwrap();
    assert_eq!(handler.0, ["one", "shutdown", "two", "end"]);
    assert!(matches!(reason, CloseReason::Done), "{reason:?}");
}

#[tokio::test(start_paused = true)]
async fn a_signal_that_has_come_before_closes_before_anything_is_dispatched() {
    let (mut client, server) = duplex(64);
    client.write_all(b"one\n").await.unwrap();
    let (gate, waiting) = (Arc::new(Semaphore::new(9)), Arc::new(Notify::new()));
    let shout = Shout { line: Vec::new(), gate, waiting };
    let mut channel = Channel::new(server, b"\n");
    let running = tokio::spawn(async move { channel.run_until(shout, async {}).await.1 });
    assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
    drop(client);
    assert!(matches!(running.await.unwrap(), CloseReason::Done));
}

#[tokio::test(start_paused = true)]
async fn a_handshake_is_cut_by_its_deadline_and_by_the_shutdown() {
    let (network, listener) = Network::sound();
    let stop = CancellationToken::new();
    let (ended, mut errors) = mpsc::unbounded_channel();
    let serving = spawn(Server::new(), listener, &stop, move |connection| {
        let ended = ended.clone();
        async move {
            let handshake = |mut io: DuplexStream| async { io.read_u8().await.map(|_| io) };
            let error = connection.handshake(Duration::from_secs(7), handshake).await.err();
            ended.send(error.map(|error| error.kind())).unwrap();
        }
    });
    let began = Instant::now();
    let _dawdler = network.connect();
    let mut honest = network.connect();
    honest.write_all(b"x").await.unwrap();
    assert_eq!(errors.recv().await, Some(None));
    assert_eq!(began.elapsed(), Duration::ZERO, "one waits for the other");
    assert_eq!(errors.recv().await, Some(Some(io::ErrorKind::TimedOut)));
    assert!(began.elapsed() >= Duration::from_secs(7));

    let _dawdler = network.connect();
    settle().await;
    stop.cancel();
    assert_eq!(errors.recv().await, Some(Some(io::ErrorKind::ConnectionAborted)));
    assert_eq!(serving.await.unwrap().unwrap().aborted, 0);
}

#[tokio::test(start_paused = true)]
async fn a_connections_own_token_ends_that_connection_only() {
    let (network, listener) = Network::sound();
    let stop = CancellationToken::new();
    let (started, mut tokens) = mpsc::unbounded_channel();
    let serving = spawn(Server::new(), listener, &stop, move |connection| {
        started.send(connection.shutdown.clone()).unwrap();
        async move {
            let _io = connection.io;
            connection.shutdown.cancelled().await;
        }
    });
    let (mut first, mut second) = (network.connect(), network.connect());
    tokens.recv().await.unwrap().cancel();
    assert_eq!(first.read(&mut [0]).await.unwrap(), 0);
    assert!(!tokens.recv().await.unwrap().is_cancelled());
    assert!(!stop.is_cancelled());
    stop.cancel();
    assert_eq!(second.read(&mut [0]).await.unwrap(), 0);
    serving.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_panic_ends_its_own_connection_only() {
    let (network, listener) = Network::sound();
    let stop = CancellationToken::new();
    let serving = spawn(Server::new(), listener, &stop, |mut connection| async move {
        assert_ne!(connection.io.read_u8().await.unwrap(), b'!', "as the test wants it");
        connection.io.write_all(b"fine").await.unwrap();
    });
    let (mut bad, mut good) = (network.connect(), network.connect());
    bad.write_all(b"!").await.unwrap();
    assert_eq!(bad.read(&mut [0]).await.unwrap(), 0);
    good.write_all(b"?").await.unwrap();
    let mut answer = String::new();
    good.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "fine");
    stop.cancel();
    let served = serving.await.unwrap().unwrap();
    assert_eq!((served.accepted, served.panicked, served.aborted), (2, 1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_dropped_aborts_its_connections() {
    let (network, listener) = Network::sound();
    let stop = CancellationToken::new();
    let serving = spawn(Server::new(), listener, &stop, |connection| async move {
        let _io = connection.io;
        future::pending::<()>().await;
    });
    let mut client = network.connect();
    settle().await;
    serving.abort();
    assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
    assert!(network.connect.is_closed(), "the listener is dropped too");
}

#[test]
fn the_servers_future_is_send() {
    fn send<T: Send>(value: T) -> T {
        value
    }
    let (_network, listener) = Network::sound();
    drop(send(Server::new().serve(listener, CancellationToken::new(), |_| async {})));
}

// ---------------------------------------------------------------------------------------------
// Real sockets

#[tokio::test]
async fn a_thousand_connects_and_resets_at_once_leave_nothing_behind() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let (gate, waiting) = (Arc::new(Semaphore::new(9999)), Arc::new(Notify::new()));
    let shared = (gate.clone(), waiting);
    let alive = Handle::current().metrics().num_alive_tasks();
    let server = Server::new().max_connections(100);
    let serving = tokio::spawn(server.serve(listener, stop.clone(), move |connection| {
        let (gate, waiting) = shared.clone();
        async move {
            let shout = Shout { line: Vec::new(), gate, waiting };
            let mut channel = Channel::new(connection.io, b"\n");
            channel.run_until(shout, connection.shutdown.cancelled()).await
        }
    }));

    // Fifty clients at a time, so that the test needs few descriptors. They close at once, within a frame, or after an
    // answer.
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..1000 {
        if tasks.len() == 50 {
            tasks.join_next().await.unwrap().unwrap();
        }
        tasks.spawn(async move {
            let mut stream = TcpStream::connect(addr).await.unwrap();
            let input: &[u8] = [&b""[..], b"hel", b"hello\nhel"][n % 3];
            stream.write_all(input).await.unwrap();
            stream.set_zero_linger().unwrap();
        });
    }
    tasks.join_all().await;

    let mut client = TcpStream::connect(addr).await.unwrap();
    client.write_all(b"hello\n").await.unwrap();
    let mut answer = [0; 7];
    client.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"hello!\n");
    stop.cancel();
    assert_eq!(client.read(&mut answer).await.unwrap(), 0);
    drop(client);
    let served = serving.await.unwrap().unwrap();
    assert_eq!((served.panicked, served.aborted), (0, 0));
    assert!(served.accepted + served.accept_errors >= 1001, "{served:?}");
    assert!(served.peak <= 100);
    assert_eq!(Handle::current().metrics().num_alive_tasks(), alive);
    assert_eq!(Arc::strong_count(&gate), 1, "a handler is left");
    assert!(TcpStream::connect(addr).await.is_err(), "nobody listens any more");
}

#[cfg(unix)]
#[tokio::test]
async fn unix_sockets_are_served_too() {
    use tokio::net::{UnixListener, UnixStream};

    let path = std::env::temp_dir().join(format!("asynchat-serve-{}", std::process::id()));
    let _ = std::fs::remove_file(&path);
    let listener = UnixListener::bind(&path).unwrap();
    let stop = CancellationToken::new();
    let serving =
        tokio::spawn(Server::new().serve(listener, stop.clone(), |mut connection| async move {
            connection.io.write_all(b"hello").await
        }));
    let mut answer = String::new();
    let mut client = UnixStream::connect(&path).await.unwrap();
    client.read_to_string(&mut answer).await.unwrap();
    std::fs::remove_file(&path).unwrap();
    assert_eq!(answer, "hello");
    stop.cancel();
    assert_eq!(serving.await.unwrap().unwrap().accepted, 1);
}

#[tokio::test(start_paused = true)]
async fn a_connection_beyond_the_limit_is_told_so_if_that_is_wanted() {
    let (network, listener) = Network::sound();
    let stop = CancellationToken::new();
    let server = Server::new().max_connections(1).refuse_with("421 busy\r\n");
    let serving =
        spawn(
            server,
            listener,
            &stop,
            |mut connection| async move { connection.io.read_u8().await },
        );
    let first = network.connect();
    for _ in 0..3 {
        let mut refused = network.connect();
        refused.write_all(b"EHLO\r\n").await.unwrap();
        let mut word = String::new();
        refused.read_to_string(&mut word).await.unwrap();
        assert_eq!(word, "421 busy\r\n");
        // Input that they still send does not cause a reset of their connections.
        for _ in 0..10 {
            refused.write_all(b"MAIL\r\n").await.unwrap();
            settle().await;
        }
    }
    // The server does not wait for refused peers that neither read nor close, and keeps only a few of them. All are
    // sent the message, and the last ones have time to read it.
    let mut stuck: Vec<_> = (0..100).map(|_| network.connect()).collect();
    settle().await;
    settle().await;
    for (number, client) in stuck.iter_mut().enumerate() {
        // Without this, the task would use up Tokio's budget for one turn.
        tokio::task::yield_now().await;
        let mut word = [0; 10];
        assert_eq!(client.read_exact(&mut word).now_or_never().unwrap().unwrap(), 10);
        assert_eq!(&word, b"421 busy\r\n");
        let is_waited_for = !matches!(client.write(b"x").now_or_never(), Some(Err(_)));
        assert_eq!(is_waited_for, number >= 36, "{number}");
    }
    drop((first, stuck));
    settle().await;
    let mut next = network.connect();
    next.write_all(b"x").await.unwrap();
    assert_eq!(next.read(&mut [0]).await.unwrap(), 0);
    stop.cancel();
    let served = serving.await.unwrap().unwrap();
    assert_eq!((served.accepted, served.refused, served.peak), (2, 103, 1));
}

#[cfg(unix)]
#[tokio::test(start_paused = true)]
async fn a_listener_whose_descriptor_is_closed_is_asked_no_more() {
    const EBADF: i32 = 9;
    let (network, listener) = Network::new(std::iter::once(errno(EBADF)));
    let serving = spawn(Server::new(), listener, &CancellationToken::new(), |_| async {});
    let served = tokio::time::timeout(Duration::from_secs(100), serving).await;
    let error = served.expect("it goes on").unwrap().unwrap_err();
    assert_eq!(io::Error::from(error).raw_os_error(), Some(EBADF));
    assert_eq!(network.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn at_shutdown_nobody_is_let_in_and_who_ends_in_it_is_counted() {
    let (network, listener) = Network::sound();
    let stop = CancellationToken::new();
    let serving = spawn(Server::new(), listener, &stop, |connection| async move {
        connection.shutdown.cancelled().await;
        sleep(Duration::from_secs(1)).await;
        assert_eq!(connection.peer, 1, "as the test wants it");
    });
    let _clients = [network.connect(), network.connect()];
    settle().await;
    stop.cancel();
    settle().await;
    assert!(network.connect.is_closed() && !serving.is_finished());
    let served = serving.await.unwrap().unwrap();
    assert_eq!((served.accepted, served.panicked, served.aborted), (2, 1, 0));
}
