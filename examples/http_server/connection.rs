//! One connection: requests in, responses out, and a limit on how long anything may take.
//!
//! The codec is aimed at the end of the head, then at whatever the body's framing asks for, then at
//! the next head. Responses gather in the write buffer while further requests are already there, and
//! are sent when the connection would have to wait for input, or when [`GATHER`] bytes have come
//! together: pipelined requests share a write, and a peer that doesn't read its answers is not read
//! from either.

use std::sync::Arc;
use std::time::Duration;

use asynchat::{Event, Limit, Terminator, TerminatorCodec};
use bytes::{Bytes, BytesMut};
use futures::{FutureExt, SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::codec::Framed;

use crate::body::{Aim, Body, Step};
use crate::files::{BLOCK, Found, Opened, Site};
use crate::head::{Framing, Head, Method, Request};
use crate::response::{self, Length, Refusal};

/// The size of a request's head, without the empty line at its end.
const MAX_HEAD: u64 = 16 * 1024;
/// The size of a body that is echoed.
const MAX_BODY: u64 = 1 << 30;
/// The size of a body that is read only to get to the next request. After a larger one the
/// connection ends.
const MAX_SKIPPED: u64 = 64 * 1024;

/// How long a connection may be silent between requests.
const IDLE: Duration = Duration::from_secs(30);
/// How long a head may take from its first byte to its last.
const HEAD: Duration = Duration::from_secs(10);
/// How long a body may keep the server waiting before it must have earned more, see [`MIN_RATE`].
const BODY: Duration = Duration::from_secs(20);
/// The bytes of a body that earn one more second of waiting, so that a slow but honest upload lives,
/// and one that trickles to hold the connection does not.
const MIN_RATE: u32 = 1024;
/// How long the peer may take to read at most [`GATHER`] bytes and a block.
const WRITE: Duration = Duration::from_secs(30);
/// How long, and over how many bytes, a peer that is still sending is listened to after the last
/// answer: closing at once would reset the connection, and the answer might be lost with it.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: u64 = 1 << 20;

/// The bytes of output that are gathered before they are sent.
const GATHER: usize = 64 * 1024;

/// Why a connection ends before its peer closes it.
#[derive(Debug)]
enum Failure {
    /// The peer is told why.
    Refused(Refusal),
    /// The answer has begun, or is complete, and there cannot be another. What has been said is
    /// still sent; that an answer is incomplete can be told from its framing.
    Cut,
    /// There is nobody to talk to any more.
    Lost,
}

impl Failure {
    /// What is left of a failure once the request has been answered.
    fn once_answered(self) -> Self {
        match self {
            Failure::Refused(_) => Failure::Cut,
            failure => failure,
        }
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Failure::Refused(refusal)
    }
}

/// Serves one connection to its end.
///
/// Once `stop` is true, a request that has begun is still answered, and the connection then closed.
pub(crate) async fn serve(stream: TcpStream, site: Arc<Site>, stop: watch::Receiver<bool>) {
    // Whole responses are written at a time; waiting for more would only delay them.
    let _ = stream.set_nodelay(true);
    let mut framed = Framed::new(stream, TerminatorCodec::new(b"\r\n\r\n"));
    framed.set_backpressure_boundary(GATHER);
    let mut connection = Connection { framed, site, stop, head: Head::default() };
    let ended = match connection.run().await {
        Ok(()) => Ok(()),
        Err(Failure::Refused(refusal)) => connection.refuse(refusal).await,
        Err(Failure::Cut) => Ok(()),
        Err(Failure::Lost) => Err(Failure::Lost),
    };
    if ended.is_ok() {
        connection.close().await;
    }
}

#[derive(Debug)]
struct Connection {
    framed: Framed<TcpStream, TerminatorCodec>,
    site: Arc<Site>,
    stop: watch::Receiver<bool>,
    head: Head,
}

impl Connection {
    async fn run(&mut self) -> Result<(), Failure> {
        while let Some(request) = self.request().await? {
            if !self.answer(&request).await? {
                break;
            }
        }
        Ok(())
    }

    /// Reads the head of the next request. There is none if the peer is done, or silent for too
    /// long, or if the server is to stop.
    async fn request(&mut self) -> Result<Option<Request>, Failure> {
        self.aim(Aim(Terminator::from(b"\r\n\r\n"), Limit::Skip(MAX_HEAD)));
        let mut deadline = Instant::now() + IDLE;
        loop {
            let began = !self.head.is_empty() || self.framed.codec().is_mid_frame();
            let event = match self.framed.next().now_or_never() {
                Some(event) => event,
                None => {
                    self.flush().await?;
                    tokio::select! {
                        event = self.framed.next() => event,
                        () = sleep_until(deadline) => match began {
                            true => return Err(Refusal::new(408, "the request took too long").into()),
                            false => return Ok(None),
                        },
                        _ = self.stop.wait_for(|stop| *stop), if !began => return Ok(None),
                    }
                }
            };
            match event.transpose().map_err(lost)? {
                Some(Event::Chunk(bytes)) => {
                    if self.head.is_empty() {
                        deadline = Instant::now() + HEAD;
                    }
                    self.head.push(&bytes)?;
                }
                Some(Event::Terminator) => return Ok(Some(self.head.finish()?)),
                Some(Event::Overlong) => {
                    return Err(Refusal::new(431, "the head is too large").into());
                }
                Some(Event::Truncated) => {
                    return Err(Refusal::new(400, "the head is incomplete").into());
                }
                None => return Ok(None),
            }
        }
    }

    /// Answers a request; whether another one may follow.
    async fn answer(&mut self, request: &Request) -> Result<bool, Failure> {
        let skippable = match request.body {
            Framing::Empty => true,
            // If the answer comes without a 100 before it, the body may come or may not.
            Framing::Length(length) => length <= MAX_SKIPPED && !request.expects_continue,
            Framing::Chunked => false,
        };
        let keep_alive = request.keep_alive && !*self.stop.borrow();
        match (request.method, request.path.as_str()) {
            (Method::Other, _) => {
                return Err(Refusal::new(501, "GET, HEAD and POST are spoken here").into());
            }
            (Method::Post, "/echo") => {
                self.echo(request, keep_alive).await?;
                return Ok(keep_alive);
            }
            (_, "/echo") => {
                self.text(
                    request,
                    keep_alive && skippable,
                    405,
                    "only POST works here\n",
                    |head| {
                        head.field("Allow", "POST");
                    },
                )
                .await?;
            }
            (Method::Post, _) => {
                self.text(
                    request,
                    keep_alive && skippable,
                    405,
                    "only GET and HEAD work here\n",
                    |head| {
                        head.field("Allow", "GET, HEAD");
                    },
                )
                .await?;
            }
            (Method::Get | Method::Head, _) => {
                self.find(request, keep_alive && skippable).await?;
            }
        }
        if keep_alive && skippable {
            self.skip_body(request.body).await?;
        }
        Ok(keep_alive && skippable)
    }

    /// Sends the file, or whatever else there is, under the request's path.
    async fn find(&mut self, request: &Request, keep_alive: bool) -> Result<(), Failure> {
        let (site, path) = (self.site.clone(), request.path.clone());
        let found = tokio::task::spawn_blocking(move || site.find(&path)).await.map_err(lost)?;
        match found {
            Found::File(opened) => self.file(request, keep_alive, opened).await,
            Found::Page(page) => {
                let length = Length::Known(page.len() as u64);
                let head = response::Head::new(200, "text/html; charset=utf-8", length);
                self.respond(request, keep_alive, head, page.as_bytes()).await
            }
            Found::Moved(location) => {
                self.text(request, keep_alive, 301, "it is a directory\n", |head| {
                    head.field("Location", location);
                })
                .await
            }
            Found::Unavailable => {
                self.text(request, keep_alive, 503, "try again later\n", |_| ()).await
            }
            Found::Nothing => {
                self.text(request, keep_alive, 404, "there is nothing here\n", |_| ()).await
            }
        }
    }

    async fn file(
        &mut self,
        request: &Request,
        keep_alive: bool,
        opened: Opened,
    ) -> Result<(), Failure> {
        let head = response::Head::new(200, &opened.content_type, Length::Known(opened.length));
        self.respond(request, keep_alive, head, b"").await?;
        if request.method == Method::Head {
            return Ok(());
        }
        self.send(&opened.start).await?;
        // No more than was promised, even if the file has grown; if it has shrunk, the connection
        // is cut, which is how the peer can tell.
        let mut left = opened.length - opened.start.len() as u64;
        let mut file = tokio::fs::File::from_std(opened.file).take(left);
        let mut block = BytesMut::new();
        while left > 0 {
            block.reserve(left.min(BLOCK) as usize);
            let read = file.read_buf(&mut block).await.unwrap_or(0);
            if read == 0 {
                return Err(Failure::Cut);
            }
            self.send(&block).await?;
            left -= read as u64;
            block.clear();
        }
        Ok(())
    }

    /// Sends the body of the request back as it comes: with its length if that was stated, in chunks
    /// if it comes in chunks.
    async fn echo(&mut self, request: &Request, keep_alive: bool) -> Result<(), Failure> {
        let (mut body, aim) = Body::new(request.body, MAX_BODY)?;
        if request.expects_continue {
            self.send(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
        }
        let length = match request.body {
            Framing::Empty => Length::Known(0),
            Framing::Length(length) => Length::Known(length),
            Framing::Chunked => Length::Chunked,
        };
        // Not the type the request stated: a page echoed as a page would run its scripts here.
        let head = response::Head::new(200, "application/octet-stream", length);
        let Some(aim) = aim else {
            return self.respond(request, keep_alive, head, b"").await;
        };
        self.aim(aim);

        // The head waits for the first bytes: until then the request can still be refused.
        let mut head = Some(head);
        let mut patience = BODY;
        loop {
            let event = self.body_event(&mut patience).await;
            let step = event.and_then(|event| Ok(body.step(event)?));
            match step {
                Ok(Step::More) => {}
                Ok(Step::Aim(aim)) => self.aim(aim),
                Ok(Step::Data(bytes)) => {
                    if let Some(head) = head.take() {
                        self.respond(request, keep_alive, head, b"").await?;
                    }
                    if request.body == Framing::Chunked {
                        self.send(format!("{:x}\r\n", bytes.len()).as_bytes()).await?;
                        self.send(&bytes).await?;
                        self.send(b"\r\n").await?;
                    } else {
                        self.send(&bytes).await?;
                    }
                }
                Ok(Step::End) => break,
                Err(failure) if head.is_some() => return Err(failure),
                Err(failure) => return Err(failure.once_answered()),
            }
        }
        if let Some(head) = head.take() {
            self.respond(request, keep_alive, head, b"").await?;
        }
        if request.body == Framing::Chunked {
            self.send(b"0\r\n\r\n").await?;
        }
        Ok(())
    }

    /// Reads a body nobody wants, to get to the request after it.
    async fn skip_body(&mut self, framing: Framing) -> Result<(), Failure> {
        let (mut body, Some(aim)) = Body::new(framing, MAX_SKIPPED)? else {
            return Ok(());
        };
        self.aim(aim);
        let mut patience = BODY;
        loop {
            let event = self.body_event(&mut patience).await;
            match event.and_then(|event| Ok(body.step(event)?)) {
                Ok(Step::More | Step::Data(_)) => {}
                Ok(Step::Aim(aim)) => self.aim(aim),
                Ok(Step::End) => return Ok(()),
                Err(failure) => return Err(failure.once_answered()),
            }
        }
    }

    /// Sends a short answer in words.
    async fn text(
        &mut self,
        request: &Request,
        keep_alive: bool,
        status: u16,
        text: &str,
        fields: impl FnOnce(&mut response::Head),
    ) -> Result<(), Failure> {
        let length = Length::Known(text.len() as u64);
        let mut head = response::Head::new(status, "text/plain; charset=utf-8", length);
        fields(&mut head);
        self.respond(request, keep_alive, head, text.as_bytes()).await
    }

    /// Sends a head, and a body unless the request was HEAD.
    async fn respond(
        &mut self,
        request: &Request,
        keep_alive: bool,
        mut head: response::Head,
        body: &[u8],
    ) -> Result<(), Failure> {
        match (keep_alive, request.is_1_1) {
            (true, true) => {}
            (true, false) => head.field("Connection", "keep-alive"),
            (false, _) => head.field("Connection", "close"),
        }
        self.send(head.finish().as_bytes()).await?;
        if request.method != Method::Head && !body.is_empty() {
            self.send(body).await?;
        }
        Ok(())
    }

    /// Tells the peer why this is the end.
    async fn refuse(&mut self, refusal: Refusal) -> Result<(), Failure> {
        let text = format!("{}\n", refusal.reason);
        let length = Length::Known(text.len() as u64);
        let mut head = response::Head::new(refusal.status, "text/plain; charset=utf-8", length);
        head.field("Connection", "close");
        self.send(head.finish().as_bytes()).await?;
        self.send(text.as_bytes()).await
    }

    fn aim(&mut self, Aim(terminator, limit): Aim) {
        let codec = self.framed.codec_mut();
        codec.set_terminator(terminator);
        codec.set_limit(limit);
    }

    /// The next event of a body. What the peer lets the server wait is taken off `patience`, what it
    /// sends is added.
    async fn body_event(&mut self, patience: &mut Duration) -> Result<Event<Bytes>, Failure> {
        let event = match self.framed.next().now_or_never() {
            Some(event) => event,
            None => {
                self.flush().await?;
                let since = Instant::now();
                let event = timeout(*patience, self.framed.next())
                    .await
                    .map_err(|_| Refusal::new(408, "the body took too long"))?;
                *patience = patience.saturating_sub(since.elapsed());
                event
            }
        };
        // Between two lines of a chunked body the input ends without the codec minding.
        let event = event.unwrap_or(Ok(Event::Truncated)).map_err(lost)?;
        if let Event::Chunk(bytes) = &event {
            let earned = Duration::from_secs(bytes.len() as u64) / MIN_RATE;
            *patience = BODY.min(*patience + earned);
        }
        Ok(event)
    }

    /// Adds to the write buffer, sending what is there when it is full.
    async fn send(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        if self.framed.write_buffer().len() >= GATHER {
            self.flush().await?;
        }
        // There is room now, so this does not wait.
        self.framed.feed(bytes).await.map_err(lost)
    }

    /// Sends what is in the write buffer.
    async fn flush(&mut self) -> Result<(), Failure> {
        match timeout(WRITE, SinkExt::<&[u8]>::flush(&mut self.framed)).await {
            Ok(flushed) => flushed.map_err(lost),
            Err(_) => Err(Failure::Lost),
        }
    }

    /// Ends the connection so that what has been said arrives.
    async fn close(mut self) {
        if self.flush().await.is_err() {
            return;
        }
        let mut stream = self.framed.into_inner();
        if stream.shutdown().await.is_err() {
            return;
        }
        let mut rest = stream.take(LINGER_BYTES);
        let mut nowhere = tokio::io::sink();
        let _ = timeout(LINGER, tokio::io::copy(&mut rest, &mut nowhere)).await;
    }
}

/// Every other failure of a connection: there is nothing to be done about it but to let go.
fn lost<E>(_: E) -> Failure {
    Failure::Lost
}
