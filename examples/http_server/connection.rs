//! One connection: the handler that takes heads and bodies in, and queues responses.
//!
//! The terminator is the end of the head, then whatever the body's framing asks for, then the end of the next head.
//! Responses are pushed in the order of the requests; a file or a stream is pushed as a producer, and asked for more
//! when the peer has read what came before. The channel does the rest: it writes when there is nothing more to read,
//! reads no further while a peer does not read its answers, and keeps the deadlines.

use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use asynchat::producer::Producer;
use asynchat::{
    Channel, ChannelBuilder, Chunk, Connection, Control, Event, Handler, Limit, Terminator,
    Timeout, Timeouts,
};
use bytes::Bytes;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::body::{Aim, Body, Step};
use crate::crowd::Member;
use crate::files::{Found, Site};
use crate::head::{Framing, Head, Method, Request};
use crate::producers::{Chunked, Exact, Watched, ticks};
use crate::response::{self, Length, Refusal};

/// The largest head of a request, in bytes, without the empty line at its end.
const MAX_HEAD: u64 = 16 * 1024;
/// The largest body that is echoed, in bytes.
const MAX_BODY: u64 = 1 << 30;
/// The largest body that is read only to get to the next request, in bytes. After a larger one the
/// connection ends.
const MAX_SKIPPED: u64 = 64 * 1024;
/// The most lines of a `/stream`, and how many there are if the request does not say.
const MAX_TICKS: u32 = 100;
const TICKS: u32 = 10;

/// How long a connection may be silent between requests.
const IDLE: Duration = Duration::from_secs(30);
/// How long a head may take from its first byte to its last.
const HEAD: Duration = Duration::from_secs(10);
/// How long a body may take, to which its bytes add: see [`MIN_RATE`].
const BODY: Duration = Duration::from_secs(20);
/// For each so many bytes of a body one more second is allowed, so that a slow but honest upload succeeds, and one that
/// sends single bytes to hold the connection does not.
const MIN_RATE: u32 = 1024;
/// How long the peer may read nothing of what is there for it.
const WRITE: Duration = Duration::from_secs(30);

/// The bytes of output above which nothing is read, and below which it goes on.
const HIGH_WATER: usize = 64 * 1024;
const LOW_WATER: usize = 16 * 1024;

/// The settings of all channels. The first frame is a head.
pub(crate) fn channels() -> ChannelBuilder {
    Channel::builder(b"\r\n\r\n")
        .limit(Limit::Skip(MAX_HEAD))
        .timeouts(timeouts(IDLE, HEAD))
        .high_water_mark(HIGH_WATER)
        .low_water_mark(LOW_WATER)
}

fn timeouts(idle: Duration, frame: Duration) -> Timeouts {
    Timeouts::default()
        .idle(idle)
        .frame(frame)
        .min_rate(MIN_RATE)
        .write_stall(WRITE)
        // `Session::shutdown` knows what is worth waiting for.
        .shutdown(Duration::ZERO)
}

/// Serves one connection to its end.
pub(crate) async fn serve<A>(
    connection: Connection<TcpStream, A>,
    member: Member,
    channels: ChannelBuilder,
    site: Arc<Site>,
) {
    // Whole responses are written at a time. To wait for more (Nagle's algorithm) would only delay them.
    let _ = connection.io.set_nodelay(true);
    let shutdown = connection.shutdown;
    let session = Session {
        site,
        member,
        shutdown: shutdown.clone(),
        head: Head::default(),
        upload: None,
        producing: None,
    };
    channels.build(connection.io).run_until(session, shutdown.cancelled()).await;
}

/// What is known of a connection.
#[derive(Debug)]
struct Session {
    site: Arc<Site>,
    member: Member,
    /// Cancelled when the current request is to be the last.
    shutdown: CancellationToken,
    head: Head,
    /// The body that is being read, or `None` while a head is.
    upload: Option<Upload>,
    /// It is ready when the producer that was pushed last has ended, or is dropped.
    producing: Option<oneshot::Receiver<()>>,
}

/// A body that is being read.
#[derive(Debug)]
struct Upload {
    body: Body,
    /// How the body is sent back. If `None`, the body is dropped, since its request has been answered.
    echo: Option<Echo>,
    keep_alive: bool,
}

#[derive(Debug)]
struct Echo {
    /// The head of the response, until the first bytes of the body have come. Till then the request can still be
    /// refused.
    head: Option<Box<response::Head>>,
    chunked: bool,
}

/// What a response has behind its head: bytes that are in memory, which count towards the high-water mark, and a
/// producer of the rest, which has a file open. A small file has no rest, so that a peer that pipelines requests does
/// not have many files open.
#[derive(Default)]
struct Content {
    start: Bytes,
    rest: Option<Pin<Box<dyn Producer + Send>>>,
}

impl From<Bytes> for Content {
    fn from(start: Bytes) -> Self {
        Content { start, rest: None }
    }
}

/// An error ends the connection, once what was pushed before is written.
impl Handler for Session {
    type Error = Refusal;

    fn collect_incoming_data(
        &mut self,
        data: Chunk<'_>,
        control: &mut Control<'_>,
    ) -> Result<(), Refusal> {
        let taken = match self.upload {
            None => {
                if !self.head.has_begun() {
                    self.member.awaited();
                }
                self.head.push(&data)
            }
            Some(_) => self.body_event(Event::Chunk(data.to_bytes()), control),
        };
        taken.or_else(|refusal| self.refuse(refusal, control))
    }

    async fn found_terminator(&mut self, control: &mut Control<'_>) -> Result<(), Refusal> {
        let answered = match self.upload {
            None => {
                self.member.busy();
                // The head is taken out because the request borrows from it.
                let mut head = mem::take(&mut self.head);
                let answered = match head.finish() {
                    Ok(request) => self.answer(&request, control).await,
                    Err(refusal) => Err(refusal),
                };
                head.clear();
                self.head = head;
                answered
            }
            Some(_) => self.body_event(Event::Terminator, control),
        };
        if self.upload.is_none() {
            self.member.awaited();
        }
        answered.or_else(|refusal| self.refuse(refusal, control))
    }

    async fn overlong(&mut self, control: &mut Control<'_>) -> Result<(), Refusal> {
        let refused = match self.upload {
            None => Err(Refusal::new(431, "the head is too large")),
            Some(_) => self.body_event(Event::Overlong, control),
        };
        refused.or_else(|refusal| self.refuse(refusal, control))
    }

    async fn eof(&mut self, truncated: bool, control: &mut Control<'_>) -> Result<(), Refusal> {
        let refused = match self.upload {
            None if truncated => Err(Refusal::new(400, "the head is incomplete")),
            None => Ok(()),
            Some(_) => self.body_event(Event::Truncated, control),
        };
        refused.or_else(|refusal| self.refuse(refusal, control))
    }

    fn timed_out(&mut self, timeout: Timeout, control: &mut Control<'_>) -> Result<(), Refusal> {
        match (&self.upload, timeout) {
            // There is no request to refuse.
            (None, Timeout::Idle) => Ok(()),
            (None, _) => self.refuse(Refusal::new(408, "the request took too long"), control),
            (Some(_), _) => self.refuse(Upload::TOO_SLOW, control),
        }
    }

    async fn shutdown(&mut self, control: &mut Control<'_>) -> Result<(), Refusal> {
        // A request that has begun is still answered, unless the connection has to make room for others.
        let begun = self.upload.is_some() || self.head.has_begun();
        if begun && !self.member.is_evicted() {
            return Ok(());
        }
        if control.queued_bytes() == 0 {
            // No output is queued that a reset could destroy. Nor does the server wait until the peer has read that its
            // body is refused: a peer that does not close would keep its place meanwhile.
            control.set_timeouts(timeouts(IDLE, HEAD).linger(None));
        }
        if self.upload.is_some() {
            return self.refuse(Upload::CROWDED, control);
        }
        control.close_when_done();
        Ok(())
    }
}

impl Session {
    /// Tells the peer why the connection ends, unless a response has begun. That response is incomplete then, which its
    /// framing shows.
    fn refuse(&mut self, refusal: Refusal, control: &mut Control<'_>) -> Result<(), Refusal> {
        let unanswered = match &self.upload {
            None => true,
            Some(upload) => upload.echo.as_ref().is_some_and(|echo| echo.head.is_some()),
        };
        if unanswered {
            let text = format!("{}\n", refusal.reason);
            let length = Length::Known(text.len() as u64);
            response::Head::new(refusal.status, TEXT, length)
                .with("Connection", "close")
                .push(control);
            control.push(text);
        }
        Err(refusal)
    }

    async fn answer(
        &mut self,
        request: &Request<'_>,
        control: &mut Control<'_>,
    ) -> Result<(), Refusal> {
        match (request.method, request.path) {
            (Method::Other, _) => Err(Refusal::new(501, "GET, HEAD and POST are spoken here")),
            (Method::Post, "/echo") => self.echo(request, control),
            (_, "/echo") => {
                let (head, text) = text(405, "only POST works here\n");
                self.respond(request, head.with("Allow", "POST"), text, control)
            }
            (Method::Post, _) => {
                let (head, text) = text(405, "only GET and HEAD work here\n");
                self.respond(request, head.with("Allow", "GET, HEAD"), text, control)
            }
            (_, "/hello") => {
                let (head, text) = text(200, "hello, world\n");
                self.respond(request, head, text, control)
            }
            (_, "/stream") => {
                self.produced().await;
                self.stream(request, control)
            }
            _ => {
                self.produced().await;
                let (head, content) = self.find(request).await;
                self.respond(request, head, content, control)
            }
        }
    }

    /// Waits until the producer of the response before has ended, so that a peer that asks for many files and reads
    /// none has only one of them open.
    async fn produced(&mut self) {
        if let Some(producing) = &mut self.producing {
            // The sender is dropped and sends nothing.
            let _ = producing.await;
            self.producing = None;
        }
    }

    /// The file, or whatever else there is, under the request's path.
    async fn find(&self, request: &Request<'_>) -> (response::Head, Content) {
        let (site, path) = (self.site.clone(), request.path.to_owned());
        let found = tokio::task::spawn_blocking(move || site.find(&path)).await;
        match found.unwrap_or(Found::Unavailable) {
            Found::File(opened) => {
                let length = Length::Known(opened.length);
                let head = response::Head::new(200, opened.content_type, length);
                let mut content = Content::from(Bytes::from(opened.start));
                // The head states the length, so just as many bytes are sent, even if the file changes.
                let left = opened.length - content.start.len() as u64;
                if left > 0 {
                    let file = tokio::fs::File::from_std(opened.file);
                    content.rest = Some(Box::pin(Exact::new(file, left)));
                }
                (head, content)
            }
            Found::Page(page) => {
                let length = Length::Known(page.len() as u64);
                let head = response::Head::new(200, "text/html; charset=utf-8", length);
                (head, Bytes::from_static(page.as_bytes()).into())
            }
            Found::Moved(location) => {
                let (head, text) = text(301, "it is a directory\n");
                (head.with("Location", location), text)
            }
            Found::Unavailable => text(503, "try again later\n"),
            Found::Nothing => text(404, "there is nothing here\n"),
        }
    }

    /// Sends lines, one at a time, in chunks: how many bytes there will be is not known. HTTP/1.0 has no
    /// chunks, and the end of the connection is that of the answer.
    fn stream(&mut self, request: &Request<'_>, control: &mut Control<'_>) -> Result<(), Refusal> {
        let count = match request.query.strip_prefix("n=") {
            None => Some(TICKS),
            Some(count) => count.parse().ok().filter(|count| *count <= MAX_TICKS),
        };
        let ticks = ticks(count.ok_or(Refusal::new(400, "n must be 100 at most"))?);
        let (length, ticks): (_, Pin<Box<dyn Producer + Send>>) = match request.is_1_1 {
            true => (Length::Chunked, Box::pin(Chunked::new(ticks))),
            false => (Length::Connection, Box::pin(ticks)),
        };
        let head = response::Head::new(200, TEXT, length);
        let content = Content { start: Bytes::new(), rest: Some(ticks) };
        self.respond(request, head, content, control)
    }

    /// Sends the body of the request back as it comes: with its length if that was stated, in chunks
    /// if it comes in chunks.
    fn echo(&mut self, request: &Request<'_>, control: &mut Control<'_>) -> Result<(), Refusal> {
        let body = Body::new(request.body, MAX_BODY)?;
        let length = match request.body {
            Framing::Empty => Length::Known(0),
            Framing::Length(length) => Length::Known(length),
            Framing::Chunked => Length::Chunked,
        };
        // This is not the type that the request stated: an HTML page that is echoed as such would run its scripts.
        let mut head = response::Head::new(200, "application/octet-stream", length);
        let Some((body, aim)) = body else {
            return self.respond(request, head, Content::default(), control);
        };
        if request.expects_continue {
            control.push("HTTP/1.1 100 Continue\r\n\r\n");
        }
        let keep_alive = self.keeps_alive(request);
        head.connection(request, keep_alive);
        let chunked = request.body == Framing::Chunked;
        let echo = Echo { head: Some(Box::new(head)), chunked };
        self.receive(Upload { body, echo: Some(echo), keep_alive }, aim, control);
        Ok(())
    }

    /// Goes on with the body of a request.
    fn receive(&mut self, upload: Upload, aim: Aim, control: &mut Control<'_>) {
        self.upload = Some(upload);
        self.member.awaited_for_body();
        control.begin_message();
        control.set_timeouts(timeouts(BODY, BODY));
        aim.take(control);
    }

    /// Queues a response, its body unless the request was HEAD, and the close if the connection does not go on. A body
    /// of the request is skipped.
    fn respond(
        &mut self,
        request: &Request<'_>,
        mut head: response::Head,
        content: Content,
        control: &mut Control<'_>,
    ) -> Result<(), Refusal> {
        let skippable = match request.body {
            Framing::Empty => true,
            // If the client waits for `100 Continue` and is answered without, its body may come or may not.
            Framing::Length(length) => length <= MAX_SKIPPED && !request.expects_continue,
            Framing::Chunked => false,
        };
        let keep_alive = self.keeps_alive(request) && skippable && head.tells_its_end();
        head.connection(request, keep_alive);
        head.push(control);
        if request.method != Method::Head {
            control.push(content.start);
            if let Some(rest) = content.rest {
                let (producing, produced) = oneshot::channel();
                self.producing = Some(produced);
                control.push_with_producer(Watched::new(rest, producing));
            }
        }
        if !keep_alive {
            control.close_when_done();
        } else if let Some((body, aim)) = Body::new(request.body, MAX_SKIPPED)? {
            self.receive(Upload { body, echo: None, keep_alive }, aim, control);
        }
        Ok(())
    }

    fn keeps_alive(&self, request: &Request<'_>) -> bool {
        request.keep_alive && !self.shutdown.is_cancelled()
    }

    /// Takes an event of a body.
    fn body_event(
        &mut self,
        event: Event<Bytes>,
        control: &mut Control<'_>,
    ) -> Result<(), Refusal> {
        let Some(upload) = &mut self.upload else {
            return Ok(());
        };
        match upload.body.step(event)? {
            Step::More => {}
            Step::Data(bytes) => {
                if let Some(echo) = &mut upload.echo {
                    echo.push(bytes, control);
                }
            }
            Step::Aim(aim) => aim.take(control),
            Step::End => {
                if let Some(echo) = &mut upload.echo {
                    echo.finish(control);
                }
                if !upload.keep_alive || self.shutdown.is_cancelled() {
                    control.close_when_done();
                }
                self.upload = None;
                control.end_message();
                control.set_timeouts(timeouts(IDLE, HEAD));
                Aim(Terminator::from(b"\r\n\r\n"), Limit::Skip(MAX_HEAD)).take(control);
            }
        }
        Ok(())
    }
}

impl Upload {
    const TOO_SLOW: Refusal = Refusal::new(408, "the body took too long");
    const CROWDED: Refusal = Refusal::new(503, "there is no room left to wait for the body");
}

impl Echo {
    fn push(&mut self, bytes: Bytes, control: &mut Control<'_>) {
        if let Some(head) = self.head.take() {
            head.push(control);
        }
        if self.chunked {
            write!(control, "{:x}\r\n", bytes.len());
        }
        control.push(bytes);
        if self.chunked {
            control.push("\r\n");
        }
    }

    fn finish(&mut self, control: &mut Control<'_>) {
        if let Some(head) = self.head.take() {
            head.push(control);
        }
        if self.chunked {
            control.push("0\r\n\r\n");
        }
    }
}

/// A short answer in words.
fn text(status: u16, text: &'static str) -> (response::Head, Content) {
    let head = response::Head::new(status, TEXT, Length::Known(text.len() as u64));
    (head, Bytes::from_static(text.as_bytes()).into())
}

const TEXT: &str = "text/plain; charset=utf-8";
