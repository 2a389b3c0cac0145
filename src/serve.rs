use std::collections::VecDeque;
use std::future::{self, Future};
use std::pin::pin;
use std::task::{Context, Poll};
use std::time::Duration;
use std::{error, fmt, io};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::task::{AbortHandle, JoinError, JoinSet, yield_now};
use tokio::time::{sleep, timeout};
use tokio_util::net::Listener;
use tokio_util::sync::CancellationToken;

use crate::trace;

/// An accept loop: a task for each connection, up to a limit at a time, until it is told to stop.
///
/// It serves anything that is a [`Listener`]: a `TcpListener`, a `UnixListener`, or one's own, which has to accept
/// and to tell its address. What is done with a connection is a function's business: it can let a
/// [`Channel`](crate::Channel) run a handler, pull events from one, or go without.
///
/// ```
/// use asynchat::{Channel, Chunk, Control, Handler, Server};
/// use std::convert::Infallible;
/// use tokio::io::{AsyncReadExt, AsyncWriteExt};
/// use tokio::net::{TcpListener, TcpStream};
/// use tokio_util::sync::CancellationToken;
///
/// struct Echo;
///
/// impl Handler for Echo {
///     type Error = Infallible;
///
///     fn collect_incoming_data(
///         &mut self,
///         data: Chunk<'_>,
///         control: &mut Control<'_>,
///     ) -> Result<(), Infallible> {
///         control.push(data);
///         Ok(())
///     }
///
///     async fn found_terminator(&mut self, control: &mut Control<'_>) -> Result<(), Infallible> {
///         control.push("\r\n");
///         Ok(())
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let listener = TcpListener::bind("127.0.0.1:0").await?;
/// let addr = listener.local_addr()?;
/// let stop = CancellationToken::new();
/// let server = Server::new().max_connections(100);
/// let serving = tokio::spawn(server.serve(listener, stop.clone(), |connection| async move {
///     let mut channel = Channel::new(connection.io, b"\r\n");
///     channel.run_until(Echo, connection.shutdown.cancelled()).await
/// }));
///
/// let mut client = TcpStream::connect(addr).await?;
/// client.write_all(b"hello\r\n").await?;
/// let mut answer = [0; 7];
/// client.read_exact(&mut answer).await?;
/// assert_eq!(&answer, b"hello\r\n");
///
/// // The client is idle, so it is closed at once.
/// stop.cancel();
/// assert_eq!(client.read(&mut answer).await?, 0);
/// drop(client);
/// let served = serving.await??;
/// assert_eq!((served.accepted, served.peak, served.aborted), (1, 1, 0));
/// # Ok(())
/// # }
/// ```
///
/// # Defaults
///
/// | what | default |
/// |---|---|
/// | connections at a time | 1000; further ones wait |
/// | time to finish after the shutdown | 30 seconds |
///
/// # Not in scope
///
/// Binding sockets and their options (`connection.io.set_nodelay(true)` is often wise), limits by
/// address, and signals: cancel the token from wherever the decision is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// `1 <= max_connections`
    max_connections: usize,
    /// What is sent to connections beyond the limit. Without it they wait.
    refusal: Option<Bytes>,
    shutdown_timeout: Duration,
}

impl Server {
    /// A server with the defaults.
    pub fn new() -> Self {
        Server {
            max_connections: MAX_CONNECTIONS,
            refusal: None,
            shutdown_timeout: SHUTDOWN_TIMEOUT,
        }
    }

    /// How many connections are served at a time: 1000 by default, at least 1.
    ///
    /// At the limit nothing is accepted until one ends. Further ones wait in the listener's backlog, and beyond
    /// that it is the operating system that refuses them. Or they are sent a refusal: see
    /// [`refuse_with`](Self::refuse_with).
    #[must_use]
    pub fn max_connections(mut self, connections: usize) -> Self {
        self.max_connections = connections.max(1);
        self
    }

    /// Says these bytes to connections beyond [`max_connections`](Self::max_connections) and closes them,
    /// rather than let them wait: `421 too many connections\r\n`, say.
    ///
    /// Each has 2 seconds to read them and to close. Up to 64 are refused at a time; one more takes the place of
    /// the one that has had the longest time. Those that are still being refused when [`serve`](Self::serve)
    /// returns are dropped.
    ///
    /// ```
    /// use asynchat::Server;
    /// # use tokio::io::AsyncReadExt;
    /// # use tokio::net::{TcpListener, TcpStream};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let listener = TcpListener::bind("127.0.0.1:0").await?;
    /// # let addr = listener.local_addr()?;
    /// # let stop = tokio_util::sync::CancellationToken::new();
    /// let server = Server::new().max_connections(1).refuse_with("421 busy\r\n");
    /// let service = |connection: asynchat::Connection<TcpStream, _>| async move {
    ///     connection.shutdown.cancelled().await;
    /// };
    /// # let serving = tokio::spawn(server.serve(listener, stop.clone(), service));
    /// # let _first = TcpStream::connect(addr).await?;
    /// # let mut second = TcpStream::connect(addr).await?;
    /// # let mut answer = String::new();
    /// # second.read_to_string(&mut answer).await?;
    /// # assert_eq!(answer, "421 busy\r\n");
    /// # stop.cancel();
    /// # assert_eq!(serving.await??.refused, 1);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn refuse_with(mut self, word: impl Into<Bytes>) -> Self {
        self.refusal = Some(word.into());
        self
    }

    /// How long connections may take to end once the server is told to stop: 30 seconds by default. Then
    /// they are aborted.
    ///
    /// It should be longer than [`Timeouts::shutdown`](field@crate::Timeouts::shutdown) and
    /// [`linger`](field@crate::Timeouts::linger) together, or a connection whose peer has sent half a message is
    /// aborted before its handler is told.
    #[must_use]
    pub fn shutdown_timeout(mut self, timeout: Duration) -> Self {
        self.shutdown_timeout = timeout;
        self
    }

    /// Accepts connections, and calls `service` with each for a future that is spawned, until `shutdown`
    /// is cancelled. Returns a count of what was done.
    ///
    /// What a future returns is dropped. If it panics, that is counted, and the others go on.
    ///
    /// ```text
    ///  accepting -- at the limit --> paused -- one has ended --> accepting
    ///      |  `---- an error ------> waiting -- delay, or one has ended --> accepting
    ///      | cancelled, or the listener failed for good
    ///      v
    ///  draining -- all have ended, or the deadline: the rest are aborted --> returns
    /// ```
    ///
    /// # Shutdown
    ///
    /// The listener is closed first, so that nobody is left waiting in its backlog. The token in each
    /// [`Connection`] is cancelled with `shutdown`, and
    /// [`Channel::run_until`](crate::Channel::run_until) makes an orderly end of that: at once if the
    /// connection is idle, else when its message is complete and answered. Whatever is still there at the
    /// deadline is dropped.
    ///
    /// # Errors of accept
    ///
    /// An error that concerns only the connection that was to be accepted (it was aborted, say) is passed over at
    /// once. While resources are exhausted (file descriptors, memory), after errors not known here, and after more
    /// than 64 errors in a row, accept is tried again when a connection ends or after a delay, whichever is first.
    /// The delay grows from 5 milliseconds to one second.
    ///
    /// # Errors
    ///
    /// [`ServeError`] if accept fails for good: the socket is closed or not listening (`EBADF`, `EINVAL`), or a
    /// listener of one's own returns an error of the kind `BrokenPipe`, `InvalidInput`, `NotConnected` or
    /// `UnexpectedEof`. The connections end first, as in a shutdown.
    ///
    /// # Panics
    ///
    /// If it is polled outside a Tokio runtime with time, and if `service` panics before it returns a
    /// future.
    ///
    /// # Cancellation safety
    ///
    /// If the future is dropped, all connections are aborted.
    pub fn serve<L, F, C>(
        self,
        listener: L,
        shutdown: CancellationToken,
        service: F,
    ) -> impl Future<Output = Result<Served, ServeError>> + use<L, F, C>
    where
        L: Listener,
        L::Io: Send + 'static,
        L::Addr: fmt::Debug,
        F: FnMut(Connection<L::Io, L::Addr>) -> C,
        C: Future + Send + 'static,
    {
        // The connections' token is cancelled also when the listener fails. It is a child, so that the caller's
        // token is not cancelled with it.
        let shutdown = shutdown.child_token();
        Accepting {
            max_connections: self.max_connections,
            refusal: self.refusal,
            refused: JoinSet::new(),
            told: VecDeque::new(),
            listener,
            shutdown,
            service,
            connections: JoinSet::new(),
            served: Served::default(),
        }
        .serve(self.shutdown_timeout)
    }
}

impl Default for Server {
    fn default() -> Self {
        Server::new()
    }
}

/// A connection that was accepted.
#[derive(Debug)]
#[non_exhaustive]
pub struct Connection<S, A> {
    /// The stream.
    pub io: S,
    /// The peer's address.
    pub peer: A,
    /// Cancelled when the server is told to stop. Cancelled by anybody else, it ends this connection in
    /// the same orderly way, and no other.
    pub shutdown: CancellationToken,
}

impl<S, A> Connection<S, A> {
    /// Makes a connection that no server has accepted, as for a test of the function that serves one.
    ///
    /// ```
    /// use asynchat::{Channel, Connection};
    /// use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
    /// use tokio_util::sync::CancellationToken;
    ///
    /// /// Greets whoever connects, and closes.
    /// async fn greet<S: AsyncRead + AsyncWrite + Unpin>(connection: Connection<S, &str>) {
    ///     let mut channel = Channel::new(connection.io, b"\n");
    ///     let greeting = format!("hello {}\n", connection.peer);
    ///     if channel.push(greeting).is_ok() {
    ///         let _ = channel.close().await;
    ///     }
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> std::io::Result<()> {
    /// let (mut client, server) = tokio::io::duplex(64);
    /// greet(Connection::new(server, "Ann", CancellationToken::new())).await;
    /// let mut said = String::new();
    /// client.read_to_string(&mut said).await?;
    /// assert_eq!(said, "hello Ann\n");
    /// # Ok(())
    /// # }
    /// ```
    pub fn new(io: S, peer: A, shutdown: CancellationToken) -> Self {
        Connection { io, peer, shutdown }
    }

    /// Makes another stream of this one, by a handshake that must not take longer than `limit`.
    ///
    /// It runs in the connection's own task: a slow peer holds up nobody else.
    ///
    /// ```
    /// # use asynchat::{Connection, Server};
    /// use std::{io, time::Duration};
    /// use tokio::io::{AsyncReadExt, AsyncWriteExt};
    /// use tokio::net::{TcpListener, TcpStream};
    ///
    /// // In place of a TLS acceptor.
    /// async fn accept(mut io: TcpStream) -> io::Result<TcpStream> {
    ///     match io.read_u8().await? {
    ///         b'?' => io.write_all(b"!").await.map(|()| io),
    ///         _ => Err(io::ErrorKind::InvalidData.into()),
    ///     }
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let listener = TcpListener::bind("127.0.0.1:0").await?;
    /// # let addr = listener.local_addr()?;
    /// # let stop = tokio_util::sync::CancellationToken::new();
    /// let service = |connection: Connection<TcpStream, _>| async {
    ///     let mut connection = connection.handshake(Duration::from_secs(10), accept).await?;
    ///     connection.io.write_all(b"hello").await
    /// };
    /// # let serving = tokio::spawn(Server::new().serve(listener, stop.clone(), service));
    /// # let mut client = TcpStream::connect(addr).await?;
    /// # client.write_all(b"?").await?;
    /// # let mut answer = String::new();
    /// # client.read_to_string(&mut answer).await?;
    /// # assert_eq!(answer, "!hello");
    /// # stop.cancel();
    /// # serving.await??;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// The handshake's own; `TimedOut` at the limit; `ConnectionAborted` if the server is told to stop.
    ///
    /// # Cancellation safety
    ///
    /// If the future is dropped, the stream is dropped with it.
    pub async fn handshake<T, F, C>(
        self,
        limit: Duration,
        handshake: F,
    ) -> io::Result<Connection<T, A>>
    where
        F: FnOnce(S) -> C,
        C: Future<Output = io::Result<T>>,
    {
        let Connection { io, peer, shutdown } = self;
        let io = match shutdown.run_until_cancelled(timeout(limit, handshake(io))).await {
            Some(Ok(result)) => result?,
            Some(Err(elapsed)) => return Err(elapsed.into()),
            None => {
                return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "server shutdown"));
            }
        };
        Ok(Connection { io, peer, shutdown })
    }
}

/// What a [`Server`] has done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Served {
    /// Connections that were accepted and served. All of them have ended.
    pub accepted: u64,
    /// The most connections there were at a time.
    pub peak: usize,
    /// Connections beyond the limit that were told so and closed: [`Server::refuse_with`].
    pub refused: u64,
    /// Errors of accept.
    pub accept_errors: u64,
    /// Connections that ended by a panic.
    pub panicked: u64,
    /// Connections that were aborted at the deadline of the shutdown.
    pub aborted: u64,
}

/// The listener failed for good.
///
/// ```
/// use asynchat::Server;
/// use std::{io, task::{Context, Poll}};
/// use tokio::net::TcpStream;
/// use tokio_util::{net::Listener, sync::CancellationToken};
///
/// /// Out of order.
/// struct Broken;
///
/// impl Listener for Broken {
///     type Io = TcpStream;
///     type Addr = ();
///
///     fn poll_accept(&mut self, _: &mut Context<'_>) -> Poll<io::Result<(TcpStream, ())>> {
///         Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
///     }
///
///     fn local_addr(&self) -> io::Result<()> {
///         Ok(())
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let stop = CancellationToken::new(); // which is not needed here
/// let failed = Server::new().serve(Broken, stop, |_| async {}).await.unwrap_err();
/// assert_eq!(failed.served().accepted, 0);
/// assert_eq!(failed.served().accept_errors, 1);
/// # }
/// ```
#[derive(Debug)]
pub struct ServeError {
    error: io::Error,
    served: Served,
}

impl ServeError {
    /// What was done until then, and while the last connections ended.
    pub fn served(&self) -> &Served {
        &self.served
    }
}

impl fmt::Display for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("accepting connections failed")
    }
}

impl error::Error for ServeError {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        Some(&self.error)
    }
}

impl From<ServeError> for io::Error {
    fn from(error: ServeError) -> Self {
        error.error
    }
}

/// A server at work.
struct Accepting<L, F> {
    max_connections: usize,
    refusal: Option<Bytes>,
    /// The tasks that send the refusal to connections beyond the limit, those that have ended and are not reaped
    /// yet included.
    refused: JoinSet<()>,
    /// The handles of these tasks, the oldest in front. `len <= MAX_REFUSED`
    told: VecDeque<AbortHandle>,
    listener: L,
    /// The parent of the connections' tokens.
    shutdown: CancellationToken,
    service: F,
    /// `len <= max_connections`
    connections: JoinSet<()>,
    served: Served,
}

impl<L, F, C> Accepting<L, F>
where
    L: Listener,
    L::Io: Send + 'static,
    L::Addr: fmt::Debug,
    F: FnMut(Connection<L::Io, L::Addr>) -> C,
    C: Future + Send + 'static,
{
    async fn serve(mut self, shutdown_timeout: Duration) -> Result<Served, ServeError> {
        let result = self.accept().await;
        let Accepting { listener, shutdown, mut connections, mut served, .. } = self;
        drop(listener);
        shutdown.cancel();
        trace::shutdown(connections.len());
        drain(&mut connections, &mut served, shutdown_timeout).await;
        match result {
            Ok(()) => Ok(served),
            Err(error) => Err(ServeError { error, served }),
        }
    }

    /// Accepts until the shutdown, or an error that is final.
    async fn accept(&mut self) -> io::Result<()> {
        let shutdown = self.shutdown.clone();
        let mut cancelled = pin!(shutdown.cancelled());
        // How many times accept has failed in a row.
        let mut failures = 0;
        loop {
            let mut delay = pin!(back_off(failures).map(sleep));
            let accepted = future::poll_fn(|cx| {
                if cancelled.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(None);
                }
                let ended = self.reap(cx);
                if let Some(sleep) = delay.as_mut().as_pin_mut() {
                    // If a connection has ended, accept is tried at once: that may have freed the file descriptor
                    // that was missing.
                    if !ended && sleep.poll(cx).is_pending() {
                        return Poll::Pending;
                    }
                    delay.set(None);
                }
                if self.is_full() && self.refusal.is_none() {
                    return Poll::Pending;
                }
                self.listener.poll_accept(cx).map(Some)
            })
            .await;
            match accepted {
                None => return Ok(()),
                Some(Ok((io, peer))) => {
                    failures = 0;
                    match &self.refusal {
                        Some(word) if self.is_full() => {
                            let refusal = refuse(io, word.clone());
                            self.refuse(refusal);
                            // The new task sends the refusal before further connections can take its place.
                            yield_now().await;
                        }
                        _ => self.spawn(io, peer),
                    }
                }
                Some(Err(error)) => {
                    self.served.accept_errors += 1;
                    let severity = Severity::of(&error);
                    trace::accept_failed(&error, severity != Severity::Passing);
                    failures = match severity {
                        Severity::Passing => failures.saturating_add(1),
                        Severity::Wanting => failures.max(FREE_FAILURES).saturating_add(1),
                        Severity::Final => return Err(error),
                    };
                }
            }
        }
    }

    fn is_full(&self) -> bool {
        self.connections.len() >= self.max_connections
    }

    /// Spawns the refusal of one more connection. If too many are under way, the oldest is aborted.
    fn refuse(&mut self, refusal: impl Future<Output = ()> + Send + 'static) {
        self.served.refused += 1;
        self.told.retain(|told| !told.is_finished());
        if self.told.len() == MAX_REFUSED {
            if let Some(first) = self.told.pop_front() {
                first.abort();
            }
        }
        self.told.push_back(self.refused.spawn(refusal));
    }

    fn spawn(&mut self, io: L::Io, peer: L::Addr) {
        self.served.accepted += 1;
        let span = trace::Connection::accepted(self.served.accepted, &peer);
        let shutdown = self.shutdown.child_token();
        let serving = (self.service)(Connection { io, peer, shutdown });
        self.connections.spawn(span.around(async move {
            drop(serving.await);
        }));
        self.served.peak = self.served.peak.max(self.connections.len());
        if self.connections.len() == self.max_connections {
            trace::at_connection_limit(self.max_connections);
        }
    }

    /// Forgets connections that have ended, and says whether there were any.
    fn reap(&mut self, cx: &mut Context<'_>) -> bool {
        let before = self.connections.len();
        while let Poll::Ready(Some(ended)) = self.connections.poll_join_next(cx) {
            self.served.count(&ended);
        }
        while let Poll::Ready(Some(_)) = self.refused.poll_join_next(cx) {}
        self.connections.len() < before
    }
}

/// Sends the refusal and closes, in a way that lets the peer read it.
async fn refuse(io: impl AsyncRead + AsyncWrite, word: Bytes) {
    let mut io = pin!(io);
    let refusing = async {
        io.write_all(&word).await?;
        io.shutdown().await?;
        // To close with unread input would be a reset, which may destroy what was sent: up to 64 KiB of input are
        // read and dropped before.
        let mut dropped = [0; 1024];
        for _ in 0..64 {
            if io.read(&mut dropped).await? == 0 {
                break;
            }
        }
        io::Result::Ok(())
    };
    let _ = timeout(REFUSAL_TIMEOUT, refusing).await;
}

impl Served {
    fn count(&mut self, ended: &Result<(), JoinError>) {
        match ended {
            Ok(()) => {}
            Err(error) if error.is_panic() => self.panicked += 1,
            Err(_) => self.aborted += 1,
        }
    }
}

/// What an error of accept means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Severity {
    /// It concerns one connection, which is gone.
    Passing,
    /// A resource is missing that may become free, or the error is not known here.
    Wanting,
    /// Nothing will ever be accepted again.
    Final,
}

impl Severity {
    fn of(error: &io::Error) -> Self {
        use io::ErrorKind::*;
        match error.kind() {
            ConnectionAborted | ConnectionRefused | ConnectionReset | HostUnreachable
            | Interrupted | NetworkDown | NetworkUnreachable | TimedOut => Severity::Passing,
            BrokenPipe | InvalidInput | NotConnected | UnexpectedEof => Severity::Final,
            _ if cfg!(unix) && error.raw_os_error() == Some(EBADF) => Severity::Final,
            _ => Severity::Wanting,
        }
    }
}

/// How long to wait after so many failures in a row.
fn back_off(failures: u32) -> Option<Duration> {
    let doublings = failures.checked_sub(FREE_FAILURES + 1)?;
    Some(FIRST_DELAY.saturating_mul(1 << doublings.min(16)).min(LAST_DELAY))
}

/// Waits for the connections to end, and aborts them at the deadline.
async fn drain(connections: &mut JoinSet<()>, served: &mut Served, limit: Duration) {
    let ending = async {
        while let Some(ended) = connections.join_next().await {
            served.count(&ended);
        }
    };
    if timeout(limit, ending).await.is_err() {
        trace::aborting(connections.len());
        connections.abort_all();
        while let Some(ended) = connections.join_next().await {
            served.count(&ended);
        }
    }
}

/// Below the usual limit of 1024 file descriptors, with some to spare for everything else.
const MAX_CONNECTIONS: usize = 1000;
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(30);
/// How many connections beyond the limit are sent the refusal at a time.
const MAX_REFUSED: usize = 64;
/// How long one of them may take.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(2);
/// Errors in a row after which accept is tried again at once, if they are of the passing kind.
const FREE_FAILURES: u32 = 64;
/// The delay after the first failure that asks for one. Each further one doubles it.
const FIRST_DELAY: Duration = Duration::from_millis(5);
const LAST_DELAY: Duration = Duration::from_secs(1);
/// The same number on every Unix.
const EBADF: i32 = 9;
