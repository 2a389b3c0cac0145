//! One connection: what is answered, limits, deadlines.
//!
//! A command is a line, handed over whole. Behind DATA the terminator is `.CRLF` with a limit of 0 bytes, which looks
//! at the first bytes and consumes none unless the message is empty; then it is `CRLF.CRLF`. Behind BDAT it is a count.
//! The message is written to the disk as it comes: the channel reads on when [`Handler::collected`] has returned.

use std::convert::Infallible;
use std::io;
use std::mem;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use asynchat::{
    Channel, ChannelBuilder, Chunk, CloseReason, Control, Handler, Limit, Terminator, Timeout,
    Timeouts,
};
use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_util::sync::CancellationToken;

use crate::command::{Command, Reply, parse};
use crate::maildir::{Draft, Store};
use crate::text::Text;

/// The most bytes of a command. RFC 5321 requires 510, and some more for the parameters of extensions.
pub(crate) const MAX_LINE: u64 = 2046;
/// The most recipients of a message: as many as RFC 5321 requires at least.
pub(crate) const MAX_RECIPIENTS: usize = 100;
/// How many recipients of a message may be refused because there are too many, before each further one counts towards
/// [`MAX_FRUITLESS`]: a client with a long list may try all of it, and sends the message again to the rest. Postfix
/// tolerates as many.
pub(crate) const MAX_EXCESS: usize = 1000;
/// The most bytes of a message.
pub(crate) const MAX_SIZE: u64 = 25 << 20;
/// The most bytes of a message that is refused. It is read to its end and dropped; if it has more, the connection ends.
const MAX_DROPPED: u64 = 2 * MAX_SIZE;
/// How many commands may be no step towards a message before the connection ends: those that are refused, and NOOP,
/// RSET, EHLO and the like. With them a peer that sends no mail could occupy a connection for ever. The count begins
/// anew after each message that is accepted. Postfix has the same limit.
pub(crate) const MAX_FRUITLESS: u32 = 100;
/// How many bytes a chunk of BDAT must have to be such a step, unless it is the last: otherwise empty chunks would
/// serve a peer as NOOP does.
pub(crate) const MIN_CHUNK: u64 = 1024;

/// RFC 5321 4.5.3.2.7 requires five minutes for the next command, and as much for each part of it.
const WAIT: Duration = Duration::from_secs(5 * 60);
/// While more than half of the connections are taken, a peer that has no message under way has only this long. The five
/// minutes are for peers that are slow, but peers that only hold a connection would leave none for the others; a peer
/// that is slow for a reason is told to come back later. Postfix does the same under stress. A peer that was already
/// waited for when there were fewer connections keeps its five minutes. That is at most half of all.
const HURRY: Duration = Duration::from_secs(10);
/// For each so many bytes of a message one more second is allowed, so that a slow but honest one arrives.
const MIN_RATE: u32 = 256;
const HANDSHAKE: Duration = Duration::from_secs(30);
/// How long a message that has begun may take to its end once the server is to stop.
const SHUTDOWN: Duration = Duration::from_secs(5);

/// What all connections share.
#[derive(Debug)]
pub(crate) struct Host {
    store: Store,
    tls: Arc<ServerConfig>,
    /// A permit for each connection that may be served.
    slots: Semaphore,
    connections: usize,
}

/// Both ends of a connection, as they are named in replies and messages.
#[derive(Clone, Debug)]
pub(crate) struct Ends {
    pub(crate) local: String,
    pub(crate) peer: String,
}

impl Host {
    pub(crate) fn new(store: Store, tls: Arc<ServerConfig>, connections: usize) -> Self {
        Host { store, tls, slots: Semaphore::new(connections), connections }
    }

    /// Whether more than half of the connections are taken.
    fn is_crowded(&self) -> bool {
        self.slots.available_permits() < self.connections / 2
    }
}

/// The settings of all channels. The first frame is a command.
pub(crate) fn channels() -> ChannelBuilder {
    Channel::builder(b"\r\n")
        .limit(Limit::Skip(MAX_LINE))
        .whole_frames(true)
        .timeouts(timeouts(WAIT))
}

fn timeouts(wait: Duration) -> Timeouts {
    Timeouts::default()
        .idle(wait)
        .frame(wait)
        .min_rate(MIN_RATE)
        .write_stall(WAIT)
        .shutdown(SHUTDOWN)
}

/// Serves one connection to its end. `input` is what has been read from it before.
pub(crate) async fn serve<S>(
    host: Arc<Host>,
    io: S,
    input: Bytes,
    ends: Ends,
    stop: CancellationToken,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut channel = channels().build_with_input(io, input);
    let Ok(_slot) = host.slots.try_acquire() else {
        let _ = channel.push("421 4.3.2 too many connections, come back later\r\n");
        // The server does not wait for the peer to close too: peers that do not would keep others from being told. A
        // peer sends nothing before it is greeted, so there is no unread input that would turn the close into a reset,
        // which could destroy the reply.
        channel.set_timeouts(Timeouts::default().linger(None));
        let _ = channel.close().await;
        return;
    };
    let _ = write!(channel, "220 {} ESMTP\r\n", ends.local);
    let session = Session::new(host.clone(), ends.clone(), false);
    channel.set_timeouts(session.timeouts());
    let (_, reason) = channel.run_until(session, stop.cancelled()).await;
    if !matches!(reason, CloseReason::Upgrade) {
        return;
    }
    // After STARTTLS. A TLS session takes much memory, which a connection without it does not need.
    if let Ok(io) = channel.upgrade().await {
        Box::pin(serve_secured(host.clone(), io, ends, stop)).await;
    }
}

/// Serves a connection after STARTTLS. Nothing that was sent before counts any more, so the session is a new one.
async fn serve_secured<S>(host: Arc<Host>, io: S, ends: Ends, stop: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let handshake = timeout(HANDSHAKE, TlsAcceptor::from(host.tls.clone()).accept(io));
    let Some(Ok(Ok(io))) = stop.run_until_cancelled(handshake).await else { return };
    let session = Session::new(host, ends, true);
    let channels = channels().timeouts(session.timeouts());
    channels.build(io).run_until(session, stop.cancelled()).await;
}

/// What is known of a connection.
#[derive(Debug)]
pub(crate) struct Session {
    host: Arc<Host>,
    ends: Ends,
    secure: bool,
    /// Who the peer says it is.
    greeting: Option<Greeting>,
    /// The message that has begun with MAIL.
    mail: Option<Mail>,
    reading: Reading,
    /// How many commands since the last accepted message were no step towards another.
    fruitless: u32,
}

#[derive(Debug)]
struct Greeting {
    name: String,
    extended: bool,
}

/// A message and its envelope.
#[derive(Debug)]
struct Mail {
    from: String,
    utf8: bool,
    recipients: Vec<String>,
    /// How many more were refused because there were too many.
    excess: usize,
    /// Between two BDATs, the part of the message that has come.
    body: Option<Body>,
}

/// What is read now, and so which terminator is set.
#[derive(Debug)]
enum Reading {
    /// A command line, and what it says once it has come.
    Line(Result<Command, Reply>),
    /// The first bytes behind DATA: is the message empty?
    Start(Body),
    /// The text of a message behind DATA.
    Text(Text, Body),
    /// A chunk behind BDAT.
    Chunk { size: u64, last: bool, body: Body },
}

impl Reading {
    /// A line that has not come yet.
    const LINE: Reading = Reading::Line(Ok(Command::Noop));
}

impl Handler for Session {
    type Error = Infallible;

    fn collect_incoming_data(
        &mut self,
        data: Chunk<'_>,
        control: &mut Control<'_>,
    ) -> Result<(), Infallible> {
        let body = match &mut self.reading {
            Reading::Line(command) => {
                *command = parse(&data);
                return Ok(());
            }
            // The limit is 0, so there is no data.
            Reading::Start(body) => body,
            Reading::Text(text, body) => {
                body.push_text(text, &data);
                body
            }
            Reading::Chunk { body, .. } => {
                body.push(&data);
                body
            }
        };
        if let (Err(reply), true) = (&body.draft, body.size > MAX_DROPPED) {
            write!(control, "{reply}\r\n");
            control.close_when_done();
        }
        Ok(())
    }

    async fn collected(&mut self, _: &mut Control<'_>) -> Result<(), Infallible> {
        match &mut self.reading {
            Reading::Line(_) | Reading::Start(_) => {}
            Reading::Text(_, body) | Reading::Chunk { body, .. } => body.settle().await,
        }
        Ok(())
    }

    async fn found_terminator(&mut self, control: &mut Control<'_>) -> Result<(), Infallible> {
        match mem::replace(&mut self.reading, Reading::LINE) {
            Reading::Line(Ok(command)) => self.obey(command, control),
            Reading::Line(Err(reply)) => self.reply(reply, control),
            Reading::Start(body) => {
                expect_line(control);
                self.deliver(body, control).await;
            }
            Reading::Text(text, mut body) => {
                expect_line(control);
                body.end_text(text);
                self.deliver(body, control).await;
            }
            Reading::Chunk { size, last, body } => {
                expect_line(control);
                if last || body.draft.is_err() {
                    self.deliver(body, control).await;
                } else {
                    write!(control, "250 2.0.0 {} bytes so far\r\n", body.size);
                    if let Some(mail) = &mut self.mail {
                        mail.body = Some(body);
                    }
                    if size < MIN_CHUNK {
                        self.count_fruitless(control);
                    }
                }
            }
        }
        control.set_timeouts(self.timeouts());
        Ok(())
    }

    async fn overlong(&mut self, control: &mut Control<'_>) -> Result<(), Infallible> {
        self.reading = match mem::replace(&mut self.reading, Reading::LINE) {
            // The message is not empty, and none of it has been consumed.
            Reading::Start(body) => {
                control.set_terminator(b"\r\n.\r\n");
                control.set_limit(Limit::Unlimited);
                Reading::Text(Text::new(), body)
            }
            reading => {
                self.reply("500 5.5.2 the line is too long", control);
                reading
            }
        };
        Ok(())
    }

    fn timed_out(&mut self, _: Timeout, control: &mut Control<'_>) -> Result<(), Infallible> {
        write!(control, "421 4.4.2 {} has waited long enough\r\n", self.ends.local);
        Ok(())
    }

    async fn shutdown(&mut self, control: &mut Control<'_>) -> Result<(), Infallible> {
        write!(control, "421 4.3.2 {} is shutting down\r\n", self.ends.local);
        control.close_when_done();
        Ok(())
    }
}

impl Session {
    pub(crate) fn new(host: Arc<Host>, ends: Ends, secure: bool) -> Self {
        let reading = Reading::LINE;
        Session { host, ends, secure, greeting: None, mail: None, reading, fruitless: 0 }
    }

    /// How long to wait for the peer from now on.
    fn timeouts(&self) -> Timeouts {
        let hurry = self.mail.is_none() && self.host.is_crowded();
        timeouts(if hurry { HURRY } else { WAIT })
    }

    /// Answers a command, and counts it unless it was a step towards a message.
    fn reply(&mut self, reply: Reply, control: &mut Control<'_>) {
        write!(control, "{reply}\r\n");
        if !matches!(reply, SENDER_OK | RECIPIENT_OK | TOO_MANY | SEND_TEXT) {
            self.count_fruitless(control);
        }
    }

    /// Counts a command that was no step towards a message, and closes if there were too many.
    fn count_fruitless(&mut self, control: &mut Control<'_>) {
        self.fruitless += 1;
        if self.fruitless >= MAX_FRUITLESS {
            control.push("421 4.7.0 too many commands without a message\r\n");
            control.close_when_done();
        }
    }

    fn obey(&mut self, command: Command, control: &mut Control<'_>) {
        let reply = match command {
            Command::Helo(name) => {
                write!(control, "250 {}\r\n", self.ends.local);
                self.mail = None;
                self.greeting = Some(Greeting { name, extended: false });
                return self.count_fruitless(control);
            }
            Command::Ehlo(name) => {
                write!(control, "250-{}\r\n250-PIPELINING\r\n", self.ends.local);
                write!(control, "250-SIZE {MAX_SIZE}\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n");
                if !self.secure {
                    control.push("250-STARTTLS\r\n");
                }
                control.push("250-CHUNKING\r\n250 ENHANCEDSTATUSCODES\r\n");
                self.mail = None;
                self.greeting = Some(Greeting { name, extended: true });
                return self.count_fruitless(control);
            }
            Command::Mail { from, size, utf8 } => self.mail(from, size, utf8),
            Command::Rcpt(to) => self.rcpt(to),
            Command::Data => self.data(control),
            Command::Bdat { size: Some(size), last } if size <= MAX_DROPPED => {
                return self.bdat(size, last, control);
            }
            // The message that follows is not read, and its bytes cannot be told from commands.
            Command::Bdat { size, .. } => {
                let reason = if size.is_some() { TOO_LARGE } else { "501 5.5.4 BDAT how many?" };
                write!(control, "{reason}\r\n");
                control.close_when_done();
                return;
            }
            Command::Rset => {
                self.mail = None;
                "250 2.0.0 reset"
            }
            Command::Noop => "250 2.0.0 done",
            Command::Vrfy => "252 2.5.2 send it, and it is taken",
            Command::Help => "214 2.0.0 see RFC 5321",
            Command::StartTls => return self.start_tls(control),
            Command::Quit => {
                control.push("221 2.0.0 goodbye\r\n");
                control.close_when_done();
                return;
            }
            Command::Http => {
                control.push("421 4.7.0 this is SMTP, not HTTP\r\n");
                control.close_when_done();
                return;
            }
        };
        self.reply(reply, control);
    }

    fn mail(&mut self, from: String, size: u64, utf8: bool) -> Reply {
        if self.greeting.is_none() {
            return "503 5.5.1 say EHLO first";
        }
        if self.mail.is_some() {
            return "503 5.5.1 there is a message already";
        }
        if !utf8 && !from.is_ascii() {
            return NOT_ASCII;
        }
        if size > MAX_SIZE {
            return TOO_LARGE;
        }
        self.mail = Some(Mail { from, utf8, recipients: Vec::new(), excess: 0, body: None });
        SENDER_OK
    }

    fn rcpt(&mut self, to: String) -> Reply {
        match &mut self.mail {
            None => NO_MAIL,
            Some(mail) if mail.body.is_some() => WITHIN_BDAT,
            Some(mail) if !mail.utf8 && !to.is_ascii() => NOT_ASCII,
            Some(mail) if mail.recipients.len() == MAX_RECIPIENTS => {
                mail.excess += 1;
                if mail.excess > MAX_EXCESS { TOO_MANY_BY_FAR } else { TOO_MANY }
            }
            Some(mail) => {
                mail.recipients.push(to);
                RECIPIENT_OK
            }
        }
    }

    fn data(&mut self, control: &mut Control<'_>) -> Reply {
        match self.body() {
            Ok(_) if self.mail.as_ref().is_some_and(|mail| mail.body.is_some()) => WITHIN_BDAT,
            Err(reply) => reply,
            Ok(body) => {
                expect_body(b".\r\n", control);
                control.set_limit(Limit::Skip(0));
                self.reading = Reading::Start(body);
                SEND_TEXT
            }
        }
    }

    /// Begins a chunk. The bytes of a refused one come all the same, and are dropped.
    fn bdat(&mut self, size: u64, last: bool, control: &mut Control<'_>) {
        let begun = self.mail.as_mut().and_then(|mail| mail.body.take());
        let mut body = begun.map_or_else(|| self.body(), Ok).unwrap_or_else(Body::refused);
        if body.size.saturating_add(size) > MAX_SIZE {
            body.refuse(TOO_LARGE);
        }
        expect_body(size, control);
        self.reading = Reading::Chunk { size, last, body };
    }

    /// Begins a message, with the lines that RFC 5321 4.4 requires before it.
    fn body(&self) -> Result<Body, Reply> {
        let (Some(mail), Some(greeting)) = (&self.mail, &self.greeting) else {
            return Err(NO_MAIL);
        };
        if mail.recipients.is_empty() {
            return Err("554 5.5.1 for whom? There is no recipient");
        }
        let protocol = match (greeting.extended, mail.utf8) {
            (false, _) => "SMTP",
            (true, false) => "ESMTP",
            (true, true) => "UTF8SMTP",
        };
        let secured = if self.secure { "S" } else { "" };
        let draft = self.host.store.begin(|id| {
            let mut head = format!("Return-Path: <{}>\r\n", mail.from);
            for recipient in &mail.recipients {
                head += &format!("Delivered-To: {recipient}\r\n");
            }
            let date = httpdate::fmt_http_date(SystemTime::now()).replace("GMT", "+0000");
            let (Greeting { name, .. }, Ends { local, peer }) = (greeting, &self.ends);
            head += &format!("Received: from {name} ({peer}) by {local}\r\n");
            head += &format!("\twith {protocol}{secured} id {id}; {date}\r\n");
            head
        });
        Ok(Body { draft: Ok(draft), size: 0 })
    }

    /// The message is complete, and so is the transaction.
    async fn deliver(&mut self, body: Body, control: &mut Control<'_>) {
        self.mail = None;
        let delivered = match body.draft {
            Ok(draft) => draft.deliver().await.map_err(|error| disk_reply(&error)),
            Err(reply) => Err(reply),
        };
        match delivered {
            Ok(Some(name)) => write!(control, "250 2.0.0 stored as {name}\r\n"),
            Ok(None) => control.push("250 2.0.0 discarded\r\n"),
            Err(reply) => return self.reply(reply, control),
        }
        self.fruitless = 0;
    }

    fn start_tls(&mut self, control: &mut Control<'_>) {
        if self.secure {
            return self.reply("503 5.5.1 TLS is in use already", control);
        }
        // Input that was sent in the clear must not be taken for input over TLS.
        if control.upgrade().is_err() {
            control.push("501 5.5.4 nothing may follow STARTTLS before its answer\r\n");
            control.close_when_done();
            return;
        }
        control.push("220 2.0.0 go ahead\r\n");
    }
}

/// The bytes of a message, on their way to the store.
#[derive(Debug)]
struct Body {
    /// The message, or once it is refused the reply, which waits for the end of the message.
    draft: Result<Draft, Reply>,
    /// How many bytes have come, whether they are kept or not.
    size: u64,
}

impl Body {
    fn refused(reply: Reply) -> Self {
        Body { draft: Err(reply), size: 0 }
    }

    /// Refuses the message. If it is refused already, the first reason stays.
    fn refuse(&mut self, reply: Reply) {
        if self.draft.is_ok() {
            self.draft = Err(reply);
        }
    }

    fn count(&mut self, bytes: usize) {
        self.size = self.size.saturating_add(bytes as u64);
        if self.size > MAX_SIZE {
            self.refuse(TOO_LARGE);
        }
    }

    fn push(&mut self, bytes: &[u8]) {
        self.count(bytes.len());
        if let Ok(draft) = &mut self.draft {
            draft.push(bytes);
        }
    }

    fn push_text(&mut self, text: &mut Text, bytes: &[u8]) {
        self.count(bytes.len());
        let fed = match &mut self.draft {
            Ok(draft) => text.feed(bytes, |piece| draft.push(piece)),
            Err(_) => Ok(()),
        };
        if fed.is_err() {
            self.refuse(BARE_NEWLINE);
        }
    }

    fn end_text(&mut self, mut text: Text) {
        // The CRLF of the last line is part of the terminator, so it is added here.
        self.push_text(&mut text, b"\r\n");
    }

    async fn settle(&mut self) {
        if let Ok(draft) = &mut self.draft {
            if let Err(error) = draft.settle().await {
                self.refuse(disk_reply(&error));
            }
        }
    }
}

fn expect_line(control: &mut Control<'_>) {
    control.set_terminator(b"\r\n");
    control.set_limit(Limit::Skip(MAX_LINE));
    control.set_whole_frames(true);
    control.end_message();
}

/// Expects the body of a message. It belongs to the command before it, so that no shutdown comes between them.
fn expect_body(end: impl Into<Terminator>, control: &mut Control<'_>) {
    control.set_terminator(end);
    control.set_whole_frames(false);
    control.begin_message();
}

fn disk_reply(error: &io::Error) -> Reply {
    eprintln!("smtp_server: {error}");
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "452 4.3.1 the disk is full",
        _ => "451 4.3.0 it could not be stored",
    }
}

/// The replies to commands that are steps towards a message.
const SENDER_OK: Reply = "250 2.1.0 sender ok";
const RECIPIENT_OK: Reply = "250 2.1.5 recipient ok";
const TOO_MANY: Reply = "452 4.5.3 too many recipients";
const SEND_TEXT: Reply = "354 end with <CRLF>.<CRLF>";

const TOO_MANY_BY_FAR: Reply = "452 4.5.3 far too many recipients";
const NO_MAIL: Reply = "503 5.5.1 say MAIL first";
const NOT_ASCII: Reply = "553 5.6.7 such an address needs SMTPUTF8";
const TOO_LARGE: Reply = "552 5.3.4 the message is too large";
const WITHIN_BDAT: Reply = "503 5.5.1 the message has begun with BDAT, and goes on so";
const BARE_NEWLINE: Reply = "550 5.5.2 lines end with CRLF, and neither is anywhere else";
