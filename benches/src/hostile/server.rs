//! The server that is attacked. It is this program started again, as a process of its own.

use std::convert::Infallible;
use std::process::Command;
use std::time::Duration;
use std::{fs, io, iter};

use asynchat::{Channel, Chunk, Control, Handler, Limit, Server, Terminator, Timeouts, producer};
use bytes::Bytes;
use tokio::net::TcpSocket;
use tokio_util::sync::CancellationToken;

/// The limit of the length of a line, in bytes.
pub(super) const LINE: u64 = 1024;
/// The deadlines for a frame, for a stall, and for a session once it has asked for an answer without end.
pub(super) const FRAME: Duration = Duration::from_secs(2);
pub(super) const STALL: Duration = Duration::from_secs(2);
pub(super) const SESSION: Duration = Duration::from_secs(5);
/// The mark of the output queue, and the size of a block of the answer without end.
pub(super) const MARK: usize = 64 << 10;
pub(super) const BLOCK: usize = 16 << 10;
/// The length of a delimiter that attacks send almost all of, again and again.
pub(super) const NEEDLE: usize = 64;

/// The handler of the attacked server. It answers `ping` by `pong`, and `produce` by an answer without end. `aim` sets
/// a long delimiter, of which input can have nearly all without being one, and `aim crlf` sets CRLF. Any other line is
/// ignored.
#[derive(Default)]
struct Target {
    line: [u8; 8],
    len: usize,
}

impl Handler for Target {
    type Error = Infallible;

    fn collect_incoming_data(
        &mut self,
        data: Chunk<'_>,
        _: &mut Control<'_>,
    ) -> Result<(), Infallible> {
        let take = data.len().min(self.line.len() - self.len);
        self.line[self.len..self.len + take].copy_from_slice(&data[..take]);
        self.len += take;
        Ok(())
    }

    async fn found_terminator(&mut self, control: &mut Control<'_>) -> Result<(), Infallible> {
        match &self.line[..std::mem::take(&mut self.len)] {
            b"ping" => control.push(&b"pong\n"[..]),
            b"produce" => {
                control.set_timeouts(control.timeouts().session(SESSION));
                let block = Bytes::from(vec![b'x'; BLOCK]);
                control
                    .push_with_producer(producer::iter(iter::repeat_with(move || block.clone())));
            }
            b"aim" => {
                let mut needle = vec![b'a'; NEEDLE - 1];
                needle.push(b'b');
                control.set_terminator(Terminator::try_from(needle).expect("it is not empty"));
            }
            b"aim crlf" => control.set_terminator(b"\r\n"),
            _ => {}
        }
        Ok(())
    }

    async fn overlong(&mut self, _: &mut Control<'_>) -> Result<(), Infallible> {
        self.len = 0;
        Ok(())
    }
}

/// Serves until the process is killed. It has one thread, so that an attack that keeps it busy would starve all
/// connections.
pub fn serve() -> io::Result<()> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let socket = TcpSocket::new_v4()?;
        socket.bind(([127, 0, 0, 1], 0).into())?;
        // With a long backlog, no client that is not accepted at once has to repeat its request a second later.
        let listener = socket.listen(4096)?;
        println!("listening on {}", listener.local_addr()?);
        let timeouts = Timeouts::default().frame(FRAME).write_stall(STALL).linger(None);
        let builder = Channel::builder(b"\n")
            .limit(Limit::Skip(LINE))
            .high_water_mark(MARK)
            .low_water_mark(MARK / 2)
            .timeouts(timeouts);
        let served = Server::new().max_connections(100_000).serve(
            listener,
            CancellationToken::new(),
            move |connection| {
                let mut channel = builder.build(connection.io);
                async move { channel.run(Target::default()).await.1 }
            },
        );
        served.await.map(drop).map_err(io::Error::other)
    })
}

/// The process of the server.
pub(super) struct Process {
    server: asynchat_benches::server::Server,
    id: u32,
    pub address: String,
}

impl Process {
    /// Starts it, with at most so many file descriptors if a number is given.
    pub fn start(files: Option<u64>) -> io::Result<Process> {
        let mut command = Command::new(std::env::current_exe()?);
        if let Some(files) = files {
            command = Command::new("prlimit");
            command.arg(format!("--nofile={files}:{files}")).arg(std::env::current_exe()?);
        }
        let server =
            asynchat_benches::server::Server::start_program(command.arg("hostile-server"))?;
        let (id, address) = (server.id(), server.address.clone());
        Ok(Process { server, id, address })
    }

    pub fn time(&self) -> io::Result<Duration> {
        self.server.time()
    }

    /// How many sockets the process has open.
    pub fn sockets(&self) -> io::Result<usize> {
        let files = fs::read_dir(format!("/proc/{}/fd", self.id))?;
        let links = files.filter_map(|file| fs::read_link(file.ok()?.path()).ok());
        Ok(links.filter(|link| link.to_string_lossy().starts_with("socket:")).count())
    }

    fn status(&self, name: &str) -> io::Result<usize> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id))?;
        let kib = status.lines().find_map(|line| {
            line.strip_prefix(name)?.trim().strip_suffix(" kB")?.parse::<usize>().ok()
        });
        kib.map(|kib| kib * 1024).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    pub fn resident(&self) -> io::Result<usize> {
        self.status("VmRSS:")
    }

    /// The most resident memory in bytes that it has had since [`forget_peak`](Self::forget_peak).
    pub fn peak(&self) -> io::Result<usize> {
        self.status("VmHWM:")
    }

    pub fn forget_peak(&self) -> io::Result<()> {
        fs::write(format!("/proc/{}/clear_refs", self.id), "5")
    }
}
