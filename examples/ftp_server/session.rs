//! One control connection: what is answered, limits, deadlines.
//!
//! The channel is pulled: the next event is a line, the end of the transfer that is under way, or the signal to stop. A
//! transfer is a future that this task polls beside its control connection. While there is one, ABOR and STAT are
//! obeyed at once; all other commands wait for its end, or a client that sends many at a time could not tell the
//! replies apart.

use std::collections::VecDeque;
use std::future;
use std::mem;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::time::Duration;

use asynchat::{Channel, ChannelBuilder, ChannelError, End, Limit, Timeout, Timeouts};
use cap_std::fs::Dir;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::command::{Command, Epsv, Facts, Reply, Style, parse};
use crate::data::{self, Port, Transfers, unless};
use crate::files::{Files, Start};
use crate::listing;
use crate::path::VirtualPath;

/// The most bytes of a command.
pub(crate) const MAX_LINE: u64 = 4096;
/// How many commands may wait for the end of a transfer.
pub(crate) const MAX_WAITING: usize = 16;
/// How many commands in a row may be wrong in themselves before the connection ends.
pub(crate) const MAX_OFFENCES: u32 = 20;
/// How many wrong passwords may be given before the connection ends.
pub(crate) const MAX_GUESSES: u32 = 3;
/// How long the reply to a wrong password is delayed.
const GUESS: Duration = Duration::from_secs(1);
/// How long it may take to log in, from the connection on: time for somebody who types, and looks a password up first.
/// A client that has not logged in can hold its connection no longer than that.
const LOGIN: Duration = Duration::from_secs(60);
/// How long the next command may take, from nothing to its end.
const WAIT: Duration = Duration::from_secs(5 * 60);
/// The high-water mark: above so many bytes of queued replies no more commands are read.
const REPLIES: usize = 16 * 1024;
/// How long a transfer may go on once the server is to stop.
const SHUTDOWN: Duration = Duration::from_secs(5);

/// What all connections share.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) files: Files,
    pub(crate) transfers: Transfers,
    /// A name and its password. Without them everybody is let in.
    pub(crate) login: Option<(String, String)>,
}

/// The settings of all control connections, as they are before the login.
pub(crate) fn channels() -> ChannelBuilder {
    let timeouts = Timeouts::default().idle(WAIT).session(LOGIN);
    Channel::builder(b"\r\n")
        .limit(Limit::Skip(MAX_LINE))
        .whole_frames(true)
        .timeouts(timeouts)
        .high_water_mark(REPLIES)
        .low_water_mark(REPLIES / 2)
}

/// What is known of a connection.
pub(crate) struct Session<'a> {
    host: &'a Host,
    /// The server's address of the control connection.
    local: SocketAddr,
    peer: IpAddr,
    login: Login,
    guesses: u32,
    offences: u32,
    working: VirtualPath,
    /// The facts of files that the client has asked for.
    facts: Facts,
    /// Whether the client has sent EPSV ALL.
    extended: bool,
    /// Where the next data connection is expected.
    port: Option<Port>,
    /// Where the next transfer begins.
    restart: u64,
    /// The file to be renamed, after RNFR.
    renamed: Option<VirtualPath>,
    transfer: Option<Transfer>,
    /// Commands that have come since the transfer began.
    waiting: VecDeque<Result<Command, Reply>>,
}

struct Transfer {
    /// The transfer, which returns its reply.
    over: Pin<Box<dyn Future<Output = Reply> + Send>>,
    /// When this is dropped, the transfer is aborted, and ends soon.
    abort: DropGuard,
}

impl Transfer {
    async fn abort(self) -> Reply {
        drop(self.abort);
        self.over.await
    }
}

enum Login {
    Unknown,
    /// After USER, with its name.
    Named(String),
    In,
}

/// What happens next.
enum Event {
    Line(Result<Command, Reply>),
    Transferred(Reply),
    /// The server is to stop, or has waited long enough for the end of a transfer.
    Stop,
    /// The client has let a deadline pass.
    TooLate,
    End,
}

impl<'a> Session<'a> {
    pub(crate) fn new(host: &'a Host, local: SocketAddr, peer: IpAddr) -> Self {
        Session {
            host,
            local,
            peer,
            login: Login::Unknown,
            guesses: 0,
            offences: 0,
            working: VirtualPath::default(),
            facts: Facts::ALL,
            extended: false,
            port: None,
            restart: 0,
            renamed: None,
            transfer: None,
            waiting: VecDeque::new(),
        }
    }

    /// Serves the connection to its end.
    pub(crate) async fn serve<S>(
        mut self,
        mut control: Channel<S>,
        stop: &CancellationToken,
    ) -> Result<(), ChannelError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        control.push("220 ready\r\n")?;
        // Until when the end of a transfer is waited for, once the server is to stop.
        let mut deadline = None;
        // Whether the client has ever logged in. If so, another login has no deadline of its own.
        let mut admitted = false;
        while !control.is_closed() {
            let event = self.next(&mut control, stop, deadline).await;
            let before = (admitted, self.transfer.is_some());
            match event {
                Event::Line(line) => self.take(line, &mut control).await?,
                Event::Transferred(reply) => {
                    self.transfer = None;
                    write!(control, "{reply}\r\n")?;
                }
                Event::Stop if self.transfer.is_some() && deadline.is_none() => {
                    deadline = Some(Instant::now() + SHUTDOWN);
                }
                Event::Stop => {
                    if let Some(transfer) = self.transfer.take() {
                        write!(control, "{}\r\n", transfer.abort().await)?;
                    }
                    control.push("421 the server is shutting down\r\n")?;
                    control.close_when_done();
                }
                Event::TooLate => {
                    control.push("421 that has taken too long\r\n")?;
                    control.close_when_done();
                }
                Event::End => break,
            }
            admitted |= matches!(self.login, Login::In);
            let transferring = self.transfer.is_some();
            if (admitted, transferring) != before {
                // A transfer may take as long as it needs. The deadline of the whole session is only for the first
                // login.
                let wait = (!transferring).then_some(WAIT);
                control.set_timeouts(Timeouts::default().idle(wait));
            }
        }
        control.close().await
    }

    async fn next<S>(
        &mut self,
        control: &mut Channel<S>,
        stop: &CancellationToken,
        deadline: Option<Instant>,
    ) -> Event
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let transferring = self.transfer.is_some();
        if !transferring && !stop.is_cancelled() {
            if let Some(line) = self.waiting.pop_front() {
                return Event::Line(line);
            }
        }
        let stopping = async {
            match deadline {
                Some(deadline) if transferring => sleep_until(deadline).await,
                _ => stop.cancelled().await,
            }
        };
        let transferred = async {
            match &mut self.transfer {
                Some(transfer) => (&mut transfer.over).await,
                None => future::pending().await,
            }
        };
        tokio::select! {
            biased;
            reply = transferred => Event::Transferred(reply),
            () = stopping => Event::Stop,
            event = line(control) => event,
        }
    }

    /// Obeys a line, or keeps it until the transfer is over.
    async fn take<S>(
        &mut self,
        line: Result<Command, Reply>,
        control: &mut Channel<S>,
    ) -> Result<(), ChannelError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        if let Some(transfer) = self.transfer.take() {
            match line {
                Ok(Command::Stat) => self.transfer = Some(transfer),
                Ok(Command::Abor) => write!(control, "{}\r\n", transfer.abort().await)?,
                line => {
                    self.transfer = Some(transfer);
                    self.waiting.push_back(line);
                    if self.waiting.len() > MAX_WAITING {
                        control.push("421 too many commands at a time\r\n")?;
                        control.close_when_done();
                    }
                    return Ok(());
                }
            }
        }
        let quits = matches!(line, Ok(Command::Quit | Command::Http));
        let reply = match line {
            Ok(command) => self.obey(command).await.unwrap_or_else(|refusal| refusal),
            Err(refusal) => refusal,
        };
        write!(control, "{reply}\r\n")?;
        self.offences = if reply.is_offence() { self.offences + 1 } else { 0 };
        if self.offences >= MAX_OFFENCES || self.guesses >= MAX_GUESSES {
            control.push("421 that is enough\r\n")?;
            control.close_when_done();
        }
        if quits {
            control.close_when_done();
        }
        Ok(())
    }

    async fn obey(&mut self, command: Command) -> Result<Reply, Reply> {
        let renamed = self.renamed.take();
        if !matches!(self.login, Login::In) && command.needs_login() {
            return Err("530 say USER and PASS".into());
        }
        let files = &self.host.files;
        match command {
            Command::User(name) => {
                self.login = Login::Named(name);
                Ok("331 and the password?".into())
            }
            Command::Pass(password) => self.pass(&password).await,
            Command::Quit => Ok("221 goodbye".into()),
            Command::Http => Ok("421 this is FTP, not HTTP".into()),
            Command::Noop => Ok("200 done".into()),
            Command::Syst => Ok("215 UNIX Type: L8".into()),
            Command::Feat => Ok(self.features()),
            Command::Help => Ok("214 see RFC 959 and RFC 3659".into()),
            Command::Stat => Ok(self.status()),
            Command::Agree(reply) => Ok(reply.into()),
            Command::Abor => {
                self.port = None;
                Ok("226 nothing is being transferred".into())
            }
            Command::Epsv(epsv) => self.epsv(epsv),
            Command::Pasv => self.pasv(),
            Command::Rest(offset) => {
                self.restart = offset;
                Ok(format!("350 the next transfer begins at {offset}").into())
            }
            Command::Retr(name) => self.retr(&name).await,
            Command::Stor(name) => {
                let start = match self.restart {
                    0 => Start::Anew,
                    offset => Start::At(offset),
                };
                self.stor(&name, start).await
            }
            Command::Appe(name) => self.stor(&name, Start::Append).await,
            Command::List(style, name) => self.list(style, name).await,
            Command::Mlst(name) => {
                let path = self.resolve(name.as_deref())?;
                let metadata = files.metadata(&path).await?;
                let facts = listing::facts(&metadata, files.are_writable(), self.facts);
                Ok(format!("250-it is\r\n {facts} {path}\r\n250 that is all").into())
            }
            Command::Facts(facts) => {
                self.facts = facts;
                let wanted = facts.each().filter(|(_, wanted)| *wanted);
                let names: String = wanted.map(|(fact, _)| format!("{fact};")).collect();
                Ok(format!("200 MLST OPTS {names}").into())
            }
            Command::Size(name) => {
                let metadata = files.metadata(&self.working.resolve(&name)?).await?;
                if !metadata.is_file() {
                    return Err("550 it is not a file".into());
                }
                Ok(format!("213 {}", metadata.len()).into())
            }
            Command::Mdtm(name) => {
                let metadata = files.metadata(&self.working.resolve(&name)?).await?;
                Ok(format!("213 {}", listing::modified(&metadata).in_digits()).into())
            }
            Command::Cwd(name) => {
                let path = self.working.resolve(&name)?;
                let dir = path.clone();
                files.with(move |root| root.open_dir(dir.below_root())).await?;
                self.working = path;
                Ok(format!("250 you are in {}", self.working.quoted()).into())
            }
            Command::Pwd => Ok(format!("257 {}", self.working.quoted()).into()),
            Command::Mkd(name) => {
                let path = self.working.resolve(&name)?;
                let made = path.quoted();
                files.change(move |root| root.create_dir(path.below_root())).await?;
                Ok(format!("257 {made}").into())
            }
            Command::Rmd(name) => {
                let path = self.below_root(&name)?;
                files.change(move |root| root.remove_dir(path.below_root())).await?;
                Ok("250 it is removed".into())
            }
            Command::Dele(name) => {
                let path = self.below_root(&name)?;
                files.change(move |root| root.remove_file(path.below_root())).await?;
                Ok("250 it is removed".into())
            }
            Command::Rnfr(name) => {
                let path = self.below_root(&name)?;
                let from = path.clone();
                files.change(move |root| root.symlink_metadata(from.below_root())).await?;
                self.renamed = Some(path);
                Ok("350 and its new name?".into())
            }
            Command::Rnto(name) => {
                let from = renamed.ok_or("503 say RNFR first")?;
                let to = self.below_root(&name)?;
                let rename =
                    move |root: &Dir| root.rename(from.below_root(), root, to.below_root());
                files.change(rename).await?;
                Ok("250 it is renamed".into())
            }
        }
    }

    async fn pass(&mut self, password: &str) -> Result<Reply, Reply> {
        let Login::Named(name) = mem::replace(&mut self.login, Login::Unknown) else {
            return Err("503 say USER first".into());
        };
        if let Some((right_name, right_password)) = &self.host.login {
            if name != *right_name || password != right_password {
                sleep(GUESS).await;
                self.guesses += 1;
                return Err("530 that is wrong".into());
            }
        }
        self.login = Login::In;
        self.guesses = 0;
        Ok("230 welcome".into())
    }

    fn epsv(&mut self, epsv: Epsv) -> Result<Reply, Reply> {
        let v4 = self.local.ip().to_canonical().is_ipv4();
        match epsv {
            Epsv::All => {
                self.extended = true;
                return Ok("200 no PASV then".into());
            }
            Epsv::V4 if !v4 => return Err("522 not here, use (2)".into()),
            Epsv::V6 if v4 => return Err("522 not here, use (1)".into()),
            _ => {}
        }
        let port = self.open_port()?;
        Ok(format!("229 connect (|||{port}|)").into())
    }

    fn pasv(&mut self) -> Result<Reply, Reply> {
        if self.extended {
            return Err("503 you have said EPSV ALL".into());
        }
        let IpAddr::V4(local) = self.local.ip().to_canonical() else {
            return Err("425 this is IPv6: say EPSV".into());
        };
        let [a, b, c, d] = local.octets();
        let [high, low] = self.open_port()?.to_be_bytes();
        Ok(format!("227 connect ({a},{b},{c},{d},{high},{low})").into())
    }

    /// Opens a port, in place of the one before if that was not used.
    fn open_port(&mut self) -> Result<u16, Reply> {
        let opened = Port::open(self.local, self.peer);
        let numbered = opened.and_then(|port| Ok((port.number()?, port)));
        let (number, port) = numbered.map_err(|_| "425 no port is to be had")?;
        self.port = Some(port);
        Ok(number)
    }

    async fn retr(&mut self, name: &str) -> Result<Reply, Reply> {
        let offset = mem::take(&mut self.restart);
        let path = self.working.resolve(name)?;
        let file = self.host.files.download(path, offset).await?;
        let transfers = self.host.transfers.clone();
        self.begin(|port, abort| transfers.send_file(port, file, abort))
    }

    async fn stor(&mut self, name: &str, start: Start) -> Result<Reply, Reply> {
        self.restart = 0;
        let path = self.below_root(name)?;
        if self.port.is_none() {
            // The file is not opened, so what is in it stays.
            return Err(NO_PORT.into());
        }
        let file = self.host.files.upload(path, start).await?;
        let transfers = self.host.transfers.clone();
        self.begin(|port, abort| transfers.receive(port, file, abort))
    }

    async fn list(&mut self, style: Style, name: Option<String>) -> Result<Reply, Reply> {
        self.restart = 0;
        let path = self.resolve(name.as_deref())?;
        let lines = listing::list(&self.host.files, style, path, self.facts).await?;
        let terms = self.host.transfers.terms;
        self.begin(|port, abort| unless(abort, data::send(port, lines, terms)))
    }

    /// The port is used up only now: a client whose command is refused may have connected already, and would
    /// take it for an error of the network if that were closed before it has read the reply.
    fn begin<T>(
        &mut self,
        transfer: impl FnOnce(Port, CancellationToken) -> T,
    ) -> Result<Reply, Reply>
    where
        T: Future<Output = Reply> + Send + 'static,
    {
        let port = self.port.take().ok_or(NO_PORT)?;
        let abort = CancellationToken::new();
        let over = Box::pin(transfer(port, abort.clone()));
        self.transfer = Some(Transfer { over, abort: abort.drop_guard() });
        Ok("150 here it comes".into())
    }

    fn resolve(&self, name: Option<&str>) -> Result<VirtualPath, Reply> {
        self.working.resolve(name.unwrap_or("."))
    }

    /// The path of `name`, which must not be the root itself.
    fn below_root(&self, name: &str) -> Result<VirtualPath, Reply> {
        let path = self.working.resolve(name)?;
        if path.is_root() { Err("550 not the root".into()) } else { Ok(path) }
    }

    /// The reply to FEAT. Each line begins with a space (RFC 2389), and a star marks the facts that are told (RFC
    /// 3659).
    fn features(&self) -> Reply {
        let mark = |(fact, told)| format!("{fact}{};", if told { "*" } else { "" });
        let facts: String = self.facts.each().map(mark).collect();
        format!(
            "211-these are spoken:\r\n EPSV\r\n MDTM\r\n MLST {facts}\r\n REST STREAM\r\n SIZE\r\n \
             TVFS\r\n UTF8\r\n211 that is all"
        )
        .into()
    }

    fn status(&self) -> Reply {
        match (&self.transfer, &self.login) {
            (Some(_), _) => "211 a transfer is under way",
            (None, Login::In) => "211 nothing is being transferred",
            (None, _) => "211 nobody is logged in",
        }
        .into()
    }
}

/// The next line of a control connection, or its end.
async fn line<S>(control: &mut Channel<S>) -> Event
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    match control.step().await {
        Ok(Some((step, _))) => Event::Line(match step.end {
            Some(End::Terminator) => parse(&step.payload),
            _ => Err("500 the line is too long".into()),
        }),
        Err(ChannelError::Timeout(Timeout::Idle | Timeout::Frame | Timeout::Session)) => {
            Event::TooLate
        }
        Ok(None) | Err(_) => Event::End,
    }
}

const NO_PORT: &str = "425 say EPSV or PASV first";
