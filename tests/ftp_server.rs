//! The FTP server of `examples/`: how it reads names and commands, and its binary with hostile clients. It is tested
//! with real clients in `.ci/clients`.
//!
//! No test depends on how long something takes.

#![cfg(all(feature = "serve", unix))]
#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

#[path = "../examples/ftp_server/command.rs"]
mod command;
#[path = "../examples/ftp_server/data.rs"]
mod data;
#[path = "../examples/ftp_server/files.rs"]
mod files;
#[path = "../examples/ftp_server/listing.rs"]
mod listing;
#[path = "../examples/ftp_server/pace.rs"]
mod pace;
#[path = "../examples/ftp_server/path.rs"]
mod path;
#[path = "support/process.rs"]
mod process;
#[cfg(target_os = "linux")]
#[path = "../examples/ftp_server/sendfile.rs"]
mod sendfile;
#[path = "../examples/ftp_server/session.rs"]
mod session;

use std::fs;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command as Process;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex, split};
use tokio_util::sync::CancellationToken;
use tokio_util::task::LocalPoolHandle;

use crate::command::{Command, Epsv, Facts, Reply, Style, parse};
use crate::data::{Terms, Transfers};
use crate::files::Files;
use crate::path::VirtualPath;
use crate::process::example;
use crate::session::{Host, Session};

// ---------------------------------------------------------------------------------------------
// Facts

#[test]
fn only_the_facts_that_are_known_can_be_asked_for() {
    let said = |line: &str| match parse(line.as_bytes()) {
        Ok(Command::Facts(facts)) => {
            facts.each().filter_map(|(name, told)| told.then_some(name)).collect::<Vec<_>>()
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(said("OPTS MLST Size;colour;type;"), ["type", "size"]);
    assert_eq!(said("opts mlst"), Vec::<&str>::new());
    let all = Facts::ALL.each().collect::<Vec<_>>();
    assert_eq!(all, [("type", true), ("size", true), ("modify", true), ("perm", true)]);
}

// ---------------------------------------------------------------------------------------------
// Names

fn resolved(working: &str, name: &str) -> String {
    let working = VirtualPath::default().resolve(working).unwrap();
    working.resolve(name).unwrap().to_string()
}

#[test]
fn a_name_leads_nowhere_but_below_the_root() {
    for (working, name, path) in [
        ("/", "a", "/a"),
        ("/a", "b", "/a/b"),
        ("/a", "/b", "/b"),
        ("/a/b", "..", "/a"),
        ("/a/b", "../..", "/"),
        ("/a/b", "../../../..", "/"),
        ("/a", "/../../etc/passwd", "/etc/passwd"),
        ("/a", "../../../etc/passwd", "/etc/passwd"),
        ("/", "..", "/"),
        ("/", "./././.", "/"),
        ("/", "//etc//passwd//", "/etc/passwd"),
        ("/", "a/./b/../c", "/a/c"),
        ("/", "a/..", "/"),
        ("/", "...", "/..."),
        ("/", ".. ", "/.. "),
        ("/", " ..", "/ .."),
        ("/", "..\\..\\etc", "/..\\..\\etc"),
        ("/", "%2e%2e/x", "/%2e%2e/x"),
        ("/", "~root", "/~root"),
        ("/a", "", "/a"),
        ("/", "-rf", "/-rf"),
        ("/", " ", "/ "),
    ] {
        assert_eq!(resolved(working, name), path, "{name:?} in {working:?}");
    }
    let root = VirtualPath::default();
    assert_eq!(root.below_root(), Path::new("."));
    let path = root.resolve("/a \"b\"/c").unwrap();
    assert_eq!(path.below_root(), Path::new("a \"b\"/c"));
    assert_eq!((path.name(), path.quoted()), ("c", "\"/a \"\"b\"\"/c\"".to_owned()));
    assert_eq!(path.entry("d").to_string(), "/a \"b\"/c/d");
    assert_eq!(root.entry("d").to_string(), "/d");
    assert!(root.is_root() && !path.is_root());
}

#[test]
fn a_path_does_not_grow_for_ever() {
    let mut path = VirtualPath::default();
    let name = "x".repeat(1000);
    for _ in 0..4 {
        path = path.resolve(&name).unwrap();
    }
    assert_eq!(path.resolve(&name), Err("550 the path is too long".into()));
}

proptest! {
    #[test]
    fn no_name_has_a_way_out_of_it(names in prop::collection::vec("[./a\\\\ ~-]{0,12}", 0..6)) {
        let mut path = VirtualPath::default();
        for name in names {
            path = path.resolve(&name).unwrap();
            let below = path.below_root();
            prop_assert!(below.is_relative());
            prop_assert!(below == Path::new(".") || below.components().all(|part| {
                matches!(part, std::path::Component::Normal(_))
            }), "{below:?}");
        }
    }

    #[test]
    fn no_line_makes_it_panic(line in prop::collection::vec(any::<u8>(), 0..64), verb in "[A-Z]{4} ") {
        let _ = parse(&line);
        let _ = parse(&[verb.as_bytes(), &line].concat());
    }
}

// ---------------------------------------------------------------------------------------------
// Commands

#[test]
fn lines_are_commands() {
    for (line, command) in [
        (&b"USER me"[..], Command::User("me".into())),
        (b"pass ", Command::Pass("".into())),
        (b"RETR  a ", Command::Retr(" a ".into())),
        (b"Stor -x", Command::Stor("-x".into())),
        (b"LIST", Command::List(Style::Long, None)),
        (b"LIST -la", Command::List(Style::Long, None)),
        (b"LIST -a -l dir", Command::List(Style::Long, Some("dir".into()))),
        (b"NLST -x", Command::List(Style::Names, Some("-x".into()))),
        (b"MLSD -a", Command::List(Style::Facts, Some("-a".into()))),
        (b"MLST", Command::Mlst(None)),
        (b"CDUP", Command::Cwd("..".into())),
        (b"EPSV", Command::Epsv(Epsv::Any)),
        (b"EPSV all", Command::Epsv(Epsv::All)),
        (b"EPSV 1", Command::Epsv(Epsv::V4)),
        (b"EPSV 2", Command::Epsv(Epsv::V6)),
        (b"REST 12", Command::Rest(12)),
        (b"\xff\xf4\xff\xf2ABOR", Command::Abor),
        (b"\xff\xfb\x01QU\xff\xf1IT", Command::Quit),
    ] {
        assert_eq!(parse(line), Ok(command), "{}", line.escape_ascii());
    }
    for (line, code) in [
        (&b""[..], "500"),
        (b"NONE", "500"),
        // The data mark without its second byte takes the first letter instead.
        (b"\xff\xf4\xffABOR", "500"),
        (b"RETR", "501"),
        (b"REST -1", "501"),
        (b"REST ", "501"),
        (b"REST 99999999999999999999", "501"),
        (b"RETR a\rb", "501"),
        (b"RETR a\nb", "501"),
        (b"RETR a\0b", "501"),
        (b"RETR \xff\xff", "501"),
        (b"RETR \xfe", "501"),
        (b"TYPE E", "504"),
        (b"MODE Z", "504"),
        (b"EPSV 3", "522"),
        (b"PORT 127,0,0,1,0,22", "502"),
        (b"EPRT |1|127.0.0.1|22|", "502"),
        (b"SITE CHMOD 777 x", "502"),
    ] {
        let refusal = parse(line).unwrap_err().to_string();
        assert!(refusal.starts_with(code), "{}: {refusal}", line.escape_ascii());
    }
    assert!(Command::Pwd.needs_login() && !Command::Quit.needs_login());
    assert!(Reply::from("530 no").is_offence() && !Reply::from("550 no").is_offence());
}

#[test]
fn a_full_disk_is_told_from_other_errors() {
    for (kind, code) in [
        (io::ErrorKind::StorageFull, "452 "),
        (io::ErrorKind::QuotaExceeded, "552 "),
        (io::ErrorKind::NotFound, "550 "),
        (io::ErrorKind::PermissionDenied, "550 "),
        (io::ErrorKind::Other, "451 "),
    ] {
        let reply = Reply::from(io::Error::from(kind)).to_string();
        assert!(reply.starts_with(code), "{kind:?}: {reply}");
    }
}

// ---------------------------------------------------------------------------------------------
// Waiting

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_log_in_does_not_stay() {
    let files = Files::open(Path::new(env!("CARGO_TARGET_TMPDIR")), false).unwrap();
    let terms = Terms { wait: Duration::from_secs(60), rate: None };
    let transfers = Transfers { terms, threads: LocalPoolHandle::new(1) };
    let host = Host { files, transfers, login: Some(("me".to_owned(), "it".to_owned())) };
    let addr: SocketAddr = "127.0.0.1:21".parse().unwrap();
    for (said, then, wait) in [
        ("", "", 60),
        ("", "NOOP\r\n", 60),
        ("USER me\r\n", "N", 60),
        ("USER me\r\nPASS what\r\n", "", 60),
        ("USER me\r\nPASS it\r\n", "", 300),
        ("USER me\r\nPASS it\r\nUSER me\r\n", "", 300),
    ] {
        let (client, server) = duplex(4096);
        let (mut input, mut output) = split(client);
        let began = tokio::time::Instant::now();
        let stop = CancellationToken::new();
        let control = session::channels().build(server);
        let serving = Session::new(&host, addr, addr.ip()).serve(control, &stop);
        let mut replies = String::new();
        let talking = async {
            let saying = async {
                output.write_all(said.as_bytes()).await.unwrap();
                loop {
                    tokio::time::sleep(Duration::from_secs(8)).await;
                    output.write_all(then.as_bytes()).await.unwrap();
                }
            };
            tokio::select! {
                () = saying => {}
                end = input.read_to_string(&mut replies) => drop(end.unwrap()),
            }
            began.elapsed().as_secs()
        };
        let (waited, _) = tokio::join!(talking, serving);
        assert!((wait..wait + 2).contains(&waited), "{said:?}, {then:?}: {waited} seconds");
        assert!(replies.ends_with("421 that has taken too long\r\n"), "{replies}");
    }
}

// ---------------------------------------------------------------------------------------------
// The process

/// A server, and the directory that it serves, of one test.
struct Server {
    process: process::Server,
    addr: SocketAddr,
    dir: PathBuf,
}

impl Server {
    fn start(test: &str, options: &[&str]) -> Self {
        let outer = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("ftp_server-{test}"));
        let _ = fs::remove_dir_all(&outer);
        let dir = outer.join("root");
        fs::create_dir_all(&dir).unwrap();
        fs::write(outer.join("secret"), "secret").unwrap();
        let mut command = Process::new(example("ftp_server"));
        let process = process::Server::start(command.arg("127.0.0.1:0").arg(&dir).args(options));
        let addr = process.addr.parse().unwrap();
        Server { process, addr, dir }
    }

    /// A client that has logged in.
    fn client(&self) -> Client {
        let mut client = self.stranger();
        client.expect("USER me", "331");
        client.expect("PASS it", "230");
        client
    }

    fn stranger(&self) -> Client {
        let control = TcpStream::connect(self.addr).unwrap();
        control.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let mut client = Client { control: BufReader::new(control), addr: self.addr };
        client.read("220");
        client
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.dir.join(name), content).unwrap();
    }

    fn content(&self, name: &str) -> Vec<u8> {
        fs::read(self.dir.join(name)).unwrap()
    }
}

struct Client {
    control: BufReader<TcpStream>,
    addr: SocketAddr,
}

impl Client {
    fn send(&mut self, text: impl AsRef<[u8]>) {
        self.control.get_mut().write_all(text.as_ref()).unwrap();
    }

    /// Reads the next reply, which must begin with this, and returns all of its lines.
    #[track_caller]
    fn read(&mut self, code: &str) -> String {
        let mut reply = String::new();
        loop {
            let start = reply.len();
            if self.control.read_line(&mut reply).unwrap() == 0 {
                break;
            }
            if reply.as_bytes()[start..].get(3) == Some(&b' ') {
                break;
            }
        }
        assert!(reply.starts_with(code), "instead of {code}: {reply:?}");
        reply
    }

    /// Sends a line, and reads a reply that must begin with this.
    #[track_caller]
    fn expect(&mut self, line: &str, code: &str) -> String {
        self.send(format!("{line}\r\n"));
        self.read(code)
    }

    fn ends(&mut self) -> bool {
        let mut rest = Vec::new();
        self.control.read_to_end(&mut rest).unwrap();
        rest.is_empty()
    }

    /// Asks for the address to open a data connection to.
    #[track_caller]
    fn port(&mut self) -> SocketAddr {
        let reply = self.expect("EPSV", "229");
        let port = reply.split('|').nth(3).unwrap().parse().unwrap();
        SocketAddr::new(self.addr.ip(), port)
    }

    #[track_caller]
    fn data(&mut self) -> TcpStream {
        let data = TcpStream::connect(self.port()).unwrap();
        data.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        data
    }

    #[track_caller]
    fn get(&mut self, line: &str) -> Vec<u8> {
        let mut data = self.data();
        self.expect(line, "150");
        let mut content = Vec::new();
        data.read_to_end(&mut content).unwrap();
        self.read("226");
        content
    }

    #[track_caller]
    fn put(&mut self, line: &str, content: &[u8]) {
        let mut data = self.data();
        self.expect(line, "150");
        data.write_all(content).unwrap();
        drop(data);
        self.read("226");
    }
}

#[test]
fn files_come_and_go() {
    let server = Server::start("files", &["--writable"]);
    let mut client = server.client();
    for length in [0, 1, 1000, 3_000_000] {
        let content: Vec<u8> = (0..length).map(|i: u32| (i / 7) as u8).collect();
        client.put("STOR x", &content);
        assert!(server.content("x") == content);
        assert_eq!(client.expect("SIZE x", "213"), format!("213 {length}\r\n"));
        assert!(client.get("RETR x") == content);
    }
    client.expect("TYPE A", "200");
    client.put("STOR text", b"a\r\nb\nc\r");
    assert_eq!(client.get("RETR text"), b"a\r\nb\nc\r");
    client.put("APPE text", b"!");
    assert_eq!(server.content("text"), b"a\r\nb\nc\r!");

    client.expect("MKD d", "257 \"/d\"");
    client.expect("MKD d", "550");
    client.expect("CWD d", "250");
    client.expect("PWD", "257 \"/d\"");
    client.expect("RNFR /text", "350");
    client.expect("RNTO new", "250");
    client.expect("RNTO again", "503");
    assert_eq!(client.get("NLST"), b"new\r\n");
    let listed = String::from_utf8(client.get("LIST")).unwrap();
    assert!(listed.starts_with("-rw-r--r-- 1 ftp ftp            8 "), "{listed:?}");
    let facts = String::from_utf8(client.get("MLSD /")).unwrap();
    assert!(facts.contains("type=dir;modify=20"), "{facts:?}");
    assert!(facts.contains(";perm=elcdfmp; d\r\n"), "{facts:?}");
    let facts = client.expect("MLST new", "250");
    assert!(facts.contains("\r\n type=file;size=8;modify=20"), "{facts:?}");
    assert!(facts.contains(" /d/new\r\n250 "), "{facts:?}");
    let modified = client.expect("MDTM new", "213")[4..18].to_owned();
    assert!(facts.contains(&modified));
    client.expect("RMD /d", "550");
    client.expect("DELE new", "250");
    client.expect("CDUP", "250");
    client.expect("RMD d", "250");
    client.expect("SIZE d", "550");
    client.expect("RMD /", "550");
    client.expect("DELE .", "550");
    let features = client.expect("FEAT", "211");
    assert!(features.contains("\r\n REST STREAM\r\n") && features.contains("\r\n UTF8\r\n"));
    for line in ["NOOP", "OPTS UTF8 ON", "TYPE I", "TYPE L 8", "MODE S", "STRU F"] {
        client.expect(line, "200");
    }
    // The client chooses some facts, and one that does not exist.
    assert_eq!(
        client.expect("OPTS MLST size;unix.mode;TYPE;", "200"),
        "200 MLST OPTS type;size;\r\n"
    );
    client.expect(
        "FEAT",
        "211-these are spoken:\r\n EPSV\r\n MDTM\r\n MLST type*;size*;modify;perm;\r\n",
    );
    assert!(client.expect("MLST /", "250").contains("\r\n type=dir; /\r\n"));
    client.expect("OPTS MLST", "200 MLST OPTS \r\n");
    assert!(client.expect("MLST /", "250").contains("\r\n  /\r\n"));
    client.expect("OPTS NLST", "504");
    client.expect("SYST", "215 UNIX Type: L8");
    client.expect("ALLO 5", "202");
    client.expect("STAT", "211");
    client.expect("QUIT", "221");
    assert!(client.ends());
}

#[test]
fn there_is_no_way_out() {
    let server = Server::start("out", &["--writable"]);
    server.write("mine", "mine");
    fs::create_dir(server.dir.join("d")).unwrap();
    for (target, link) in [
        ("..", "up"),
        ("../secret", "secret"),
        ("/etc", "etc"),
        ("d/../../secret", "round"),
        ("/", "root"),
        ("new", "dangling"),
        ("mine", "inside"),
        ("loop", "loop"),
    ] {
        symlink(target, server.dir.join(link)).unwrap();
    }
    symlink("../..", server.dir.join("d/up")).unwrap();
    let mut client = server.client();
    let ways = [
        "../secret",
        "/../secret",
        "up/secret",
        "d/up/secret",
        "d/../up/secret",
        "secret",
        "round",
        "etc/passwd",
        "root/etc/passwd",
        "loop",
        "up",
        "etc",
    ];
    for way in ways {
        client.port();
        for verb in ["RETR", "SIZE", "MDTM", "MLST", "CWD", "LIST", "NLST"] {
            client.expect(&format!("{verb} {way}"), "550");
        }
        client.expect(&format!("MLSD {way}"), "550");
        // `..` at the root is the root, so the server may create something there.
        if !way.starts_with("..") && !way.starts_with("/..") {
            client.expect(&format!("STOR {way}"), "550");
            client.expect(&format!("APPE {way}"), "550");
            client.expect(&format!("MKD {way}/new"), "550");
            client.expect("RNFR mine", "350");
            client.expect(&format!("RNTO {way}/new"), "550");
        }
    }
    // Commands that remove or rename apply to the link.
    client.expect("RNFR secret", "350");
    client.expect("RNTO d/renamed", "250");
    client.expect("DELE d/renamed", "250");
    client.expect("DELE up/secret", "550");
    client.expect("DELE up", "250");
    let outer = server.dir.parent().unwrap();
    assert_eq!(fs::read(outer.join("secret")).unwrap(), b"secret");
    assert_eq!(fs::read_dir(outer).unwrap().count(), 2);
    // A link to something inside the root is followed.
    assert_eq!(client.get("RETR inside"), b"mine");
    client.put("STOR dangling", b"new");
    assert_eq!(server.content("new"), b"new");
    let names = String::from_utf8(client.get("NLST")).unwrap();
    let mut names: Vec<&str> = names.lines().collect();
    names.sort_unstable();
    assert_eq!(names, ["d", "dangling", "inside", "mine", "new"]);
}

#[test]
fn a_pipe_is_no_file_and_holds_nobody_up() {
    let server = Server::start("pipe", &["--writable"]);
    let fifo = server.dir.join("fifo");
    assert!(Process::new("mkfifo").arg(&fifo).status().unwrap().success());
    let mut client = server.client();
    client.port();
    client.expect("RETR fifo", "550");
    client.expect("STOR fifo", "550");
    client.expect("RETR .", "550");
    client.expect("STOR /", "550");
}

#[test]
fn nothing_is_changed_unless_it_is_allowed() {
    let server = Server::start("reading", &[]);
    server.write("x", "x");
    fs::create_dir(server.dir.join("d")).unwrap();
    let mut client = server.client();
    client.port();
    for line in ["STOR x", "APPE x", "STOR y", "DELE x", "MKD e", "RMD d", "RNFR x"] {
        client.expect(line, "550");
    }
    client.expect("RNTO y", "503");
    assert_eq!(server.content("x"), b"x");
    assert_eq!(fs::read_dir(&server.dir).unwrap().count(), 2);
    assert!(client.expect("MLST x", "250").contains(";perm=r;"));
}

#[test]
fn rest_says_where_a_transfer_begins() {
    let server = Server::start("rest", &["--writable"]);
    server.write("x", "0123456789");
    let mut client = server.client();
    client.expect("REST 7", "350");
    assert_eq!(client.get("RETR x"), b"789");
    assert_eq!(client.get("RETR x"), b"0123456789", "it is said for one transfer");
    client.expect("REST 10", "350");
    assert_eq!(client.get("RETR x"), b"");
    for verb in ["RETR", "STOR"] {
        client.expect("REST 11", "350");
        client.port();
        client.expect(&format!("{verb} x"), "554");
    }
    client.expect(&format!("REST {}", u64::MAX), "350");
    client.expect("RETR x", "554");
    assert_eq!(server.content("x"), b"0123456789");
    client.expect("REST 4", "350");
    client.put("STOR x", b"abc");
    assert_eq!(server.content("x"), b"0123abc");
    client.put("STOR x", b"new");
    assert_eq!(server.content("x"), b"new");
}

#[test]
fn without_a_port_nothing_is_destroyed() {
    let server = Server::start("noport", &["--writable"]);
    server.write("x", "x");
    let mut client = server.client();
    for line in ["STOR x", "RETR x", "LIST"] {
        client.expect(line, "425");
    }
    assert_eq!(server.content("x"), b"x");
}

#[test]
fn a_refused_command_leaves_the_data_connection_to_the_next() {
    let server = Server::start("refused", &[]);
    server.write("x", "here");
    let mut client = server.client();
    let mut data = client.data();
    client.expect("RETR none", "550");
    client.expect("RETR x", "150");
    let mut content = String::new();
    data.read_to_string(&mut content).unwrap();
    assert_eq!(content, "here");
    client.read("226");
}

// ---------------------------------------------------------------------------------------------
// Hostile clients

/// Connects from another address than the other clients.
fn from_elsewhere(to: SocketAddr) -> TcpStream {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let connected = runtime.block_on(async {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
        socket.connect(to).await.unwrap().into_std().unwrap()
    });
    connected.set_nonblocking(false).unwrap();
    connected.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    connected
}

#[test]
#[cfg(target_os = "linux")] // where all of 127.0.0.0/8 is at hand
fn a_stolen_port_gives_nothing_away() {
    let server = Server::start("stolen", &["--writable"]);
    server.write("x", "for you only");
    let mut client = server.client();
    for line in ["EPSV", "PASV"] {
        let reply = client.expect(line, "22");
        let port = if line == "EPSV" {
            reply.split('|').nth(3).unwrap().parse().unwrap()
        } else {
            assert!(reply.contains("(127,0,0,1,"), "{reply}");
            let numbers = reply.split(['(', ')']).nth(1).unwrap();
            let numbers: Vec<u16> = numbers.split(',').map(|n| n.parse().unwrap()).collect();
            numbers[4] * 256 + numbers[5]
        };
        let port = SocketAddr::new(client.addr.ip(), port);
        let mut thieves = [from_elsewhere(port), from_elsewhere(port)];
        client.expect("RETR x", "150");
        for thief in &mut thieves {
            let mut stolen = Vec::new();
            let _ = thief.read_to_end(&mut stolen);
            assert!(stolen.is_empty());
        }
        // The server still waits for the right client.
        let mut content = String::new();
        TcpStream::connect(port).unwrap().read_to_string(&mut content).unwrap();
        assert_eq!(content, "for you only");
        client.read("226");
    }
    let port = client.port();
    let mut thief = from_elsewhere(port);
    client.expect("STOR y", "150");
    let _ = thief.write_all(b"forged");
    let mut mine = TcpStream::connect(port).unwrap();
    mine.write_all(b"mine").unwrap();
    drop(mine);
    client.read("226");
    assert_eq!(server.content("y"), b"mine");
}

#[test]
fn a_client_that_never_connects_is_not_waited_for() {
    let server = Server::start("never", &["--wait", "1", "--writable"]);
    server.write("x", "x");
    let mut client = server.client();
    let mut late = client.port();
    for line in ["RETR x", "STOR y", "LIST"] {
        client.expect(line, "150");
        client.read("425");
        assert!(TcpStream::connect(late).is_err(), "the port is closed");
        late = client.port();
    }
    client.expect("NOOP", "200");
}

#[test]
fn a_client_that_never_reads_or_sends_is_not_waited_for() {
    let server = Server::start("stall", &["--wait", "1", "--writable"]);
    let file = fs::File::create(server.dir.join("x")).unwrap();
    file.set_len(1 << 30).unwrap();
    let mut client = server.client();
    let data = client.data();
    client.expect("RETR x", "150");
    client.read("426");
    drop(data);
    let mut data = client.data();
    client.expect("STOR y", "150");
    data.write_all(b"and now").unwrap();
    client.read("426");
    assert_eq!(server.content("y"), b"and now");
    client.expect("NOOP", "200");
}

#[test]
fn a_client_that_reads_no_replies_is_not_read() {
    let server = Server::start("replies", &[]);
    let mut client = server.client();
    client.control.get_mut().set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    // The answer to each of these commands is many times as long as the command.
    let commands = "FEAT\r\n".repeat(1000);
    let refused = (0..10_000).any(|_| {
        let written = client.control.get_mut().write_all(commands.as_bytes());
        written.is_err()
    });
    assert!(refused, "60 MB of commands were taken");
    let mut other = server.client();
    other.expect("NOOP", "200");
}

#[test]
fn a_long_line_is_refused_and_the_session_goes_on() {
    let server = Server::start("long", &[]);
    let mut client = server.client();
    client.expect(&"x".repeat(64 * 1024), "500");
    client.expect(&format!("CWD {}", "x".repeat(4096 - 4)), "550");
    client.expect(&format!("CWD {}", "x/../".repeat(900)), "500");
    client.expect("PWD", "257 \"/\"");
}

#[test]
fn commands_that_come_in_one_piece_or_byte_by_byte_are_answered_in_turn() {
    let server = Server::start("pieces", &[]);
    server.write("x", "x");
    let mut client = server.client();
    let lines = "PWD\r\nSIZE x\r\nNONE\r\nCWD none\r\nNOOP\r\n";
    client.send(lines);
    for code in ["257", "213", "500", "550", "200"] {
        client.read(code);
    }
    client.control.get_mut().set_nodelay(true).unwrap();
    for byte in lines.as_bytes() {
        client.send([*byte]);
    }
    for code in ["257", "213", "500", "550", "200"] {
        client.read(code);
    }
}

#[test]
fn commands_behind_a_transfer_wait_for_its_end() {
    let server = Server::start("waiting", &[]);
    server.write("x", vec![7; 10_000_000]);
    let mut client = server.client();
    let mut data = client.data();
    client.send("RETR x\r\nPWD\r\nNONE\r\nSTAT\r\nSIZE x\r\nQUIT\r\n");
    client.read("150");
    client.read("211 a transfer is under way");
    let mut content = Vec::new();
    data.read_to_end(&mut content).unwrap();
    assert_eq!(content.len(), 10_000_000);
    for code in ["226", "257", "500", "213 10000000", "221"] {
        client.read(code);
    }
    assert!(client.ends());

    let mut client = server.client();
    let _data = client.data();
    client.send(format!("RETR x\r\n{}", "NOOP\r\n".repeat(17)));
    client.read("150");
    client.read("421");
    assert!(client.ends());
}

#[test]
fn an_abort_is_heard_during_a_transfer() {
    let server = Server::start("abort", &["--writable"]);
    let file = fs::File::create(server.dir.join("x")).unwrap();
    file.set_len(1 << 30).unwrap();
    let mut client = server.client();
    client.expect("ABOR", "226");

    let mut data = client.data();
    client.expect("RETR x", "150");
    data.read_exact(&mut [0; 1000]).unwrap();
    client.expect("ABOR", "426");
    client.read("226");
    drop(data);

    // As Telnet defines it: an interrupt, then the data mark, which is urgent data.
    let mut data = client.data();
    client.expect("STOR y", "150");
    data.write_all(b"so far").unwrap();
    client.send(b"\xff\xf4\xff");
    urgent(client.control.get_ref(), b"\xf2");
    client.send("ABOR\r\n");
    client.read("426");
    client.read("226");

    // As ftplib does it: it sends all as urgent data, of which TCP marks only the last byte.
    let _data = client.data();
    client.expect("RETR x", "150");
    urgent(client.control.get_ref(), b"ABOR\r\n");
    client.read("426");
    client.read("226");
    client.expect("NOOP", "200");
}

#[test]
fn an_upload_that_is_aborted_is_not_written_any_more() {
    let server = Server::start("aborted", &["--writable"]);
    let mut client = server.client();
    let content: Vec<u8> = (0..4_000_000_u32).map(|i| (i / 3) as u8).collect();
    for _ in 0..20 {
        let mut data = client.data();
        client.expect("STOR x", "150");
        data.write_all(&content[..3_000_000]).unwrap();
        client.expect("ABOR", "426");
        client.read("226");
        drop(data);
        let size = client.expect("SIZE x", "213");
        let size: usize = size[4..].trim_end().parse().unwrap();
        client.put("APPE x", &content[size..]);
        assert!(server.content("x") == content, "{size}");
    }
}

fn urgent(socket: &TcpStream, bytes: &[u8]) {
    rustix::net::send(socket, bytes, rustix::net::SendFlags::OOB).unwrap();
}

#[test]
fn what_has_come_of_an_upload_that_is_cut_stays() {
    let server = Server::start("cut", &["--writable"]);
    server.write("x", "what was there before, and longer");
    let mut client = server.client();
    let mut data = client.data();
    client.expect("STOR x", "150");
    let content: Vec<u8> = (0..2_000_000_u32).map(|i| (i / 3) as u8).collect();
    data.write_all(&content[..1_500_000]).unwrap();
    // Wait until the server has read this, since the reset destroys unread bytes.
    let arrived = || fs::metadata(server.dir.join("x")).unwrap().len() >= 1_000_000;
    let began = Instant::now();
    while !arrived() {
        assert!(began.elapsed() < Duration::from_secs(60));
        std::thread::sleep(Duration::from_millis(10));
    }
    rustix::net::sockopt::set_socket_linger(&data, Some(Duration::ZERO)).unwrap();
    drop(data);
    client.read("426");
    let size = client.expect("SIZE x", "213");
    let size: usize = size[4..].trim_end().parse().unwrap();
    assert!((1_000_000..=1_500_000).contains(&size), "{size}");
    assert!(server.content("x") == content[..size]);
    client.put("APPE x", &content[size..]);
    assert!(server.content("x") == content);
}

#[test]
fn who_leaves_during_a_transfer_ends_it() {
    let server = Server::start("leaves", &["--writable"]);
    let mut client = server.client();
    let mut data = client.data();
    client.expect("STOR x", "150");
    data.write_all(b"x").unwrap();
    client.control.get_ref().shutdown(Shutdown::Both).unwrap();
    // The connection ends, or is reset.
    let _ = data.read(&mut [0]);
    server.client().expect("NOOP", "200");
}

#[test]
fn a_download_cut_by_the_client_is_no_harm() {
    let server = Server::start("cutdown", &[]);
    let file = fs::File::create(server.dir.join("x")).unwrap();
    file.set_len(1 << 30).unwrap();
    let mut client = server.client();
    let mut data = client.data();
    client.expect("RETR x", "150");
    data.read_exact(&mut [0; 1000]).unwrap();
    drop(data);
    client.read("426");
    client.expect("NOOP", "200");
}

#[test]
fn a_login_is_asked_for() {
    let server = Server::start("login", &["--login", "me:it"]);
    let mut client = server.stranger();
    for line in ["PWD", "RETR x", "EPSV", "STOR x", "ABOR", "CWD .", "DELE x", "REST 1"] {
        client.expect(line, "530");
    }
    client.expect("PASS it", "503");
    client.expect("USER you", "331");
    client.expect("PASS it", "530");
    client.expect("USER me", "331");
    client.expect("PASS it", "230");
    client.expect("PWD", "257");
    client.expect("USER me", "331");
    client.expect("PWD", "530");
    // A client that guesses passwords is cut off.
    let mut client = server.stranger();
    for _ in 0..3 {
        client.expect("USER me", "331");
        client.expect("PASS what", "530");
    }
    client.read("421");
    assert!(client.ends());
}

#[test]
fn nonsense_is_not_listened_to_for_ever() {
    let server = Server::start("nonsense", &[]);
    let mut client = server.stranger();
    client.send("WHAT is this\r\n".repeat(30));
    for _ in 0..20 {
        client.read("500");
    }
    client.read("421");
    assert!(client.ends());
}

#[test]
fn what_a_web_page_makes_a_browser_send_is_not_obeyed() {
    let server = Server::start("http", &["--writable"]);
    server.write("kept", "");
    let long = "x".repeat(10_000);
    for (head, wanted) in [
        ("GET / HTTP/1.1\r\n".to_owned(), &["421"][..]),
        ("POST / HTTP/1.1\r\nHost: here\r\n\r\n".to_owned(), &["421"]),
        (format!("POST /{long} HTTP/1.1\r\nHost: here\r\n\r\n"), &["500", "421"]),
    ] {
        let mut client = server.stranger();
        client.send(format!("{head}USER me\r\nPASS x\r\nDELE kept\r\n"));
        for code in wanted {
            client.read(code);
        }
        assert!(client.ends(), "{head}");
        assert_eq!(server.content("kept"), b"");
    }
}

#[test]
fn lists_are_as_long_as_directories_and_show_what_can_be_said() {
    let server = Server::start("list", &[]);
    for i in 0..1000 {
        server.write(&format!("file {i}"), "");
        server.write(&format!("cannot\nbe said {i}"), "");
    }
    use std::os::unix::ffi::OsStrExt as _;
    fs::write(server.dir.join(std::ffi::OsStr::from_bytes(b"\xff")), "").unwrap();
    let old = fs::File::create(server.dir.join("old")).unwrap();
    old.set_modified(std::time::SystemTime::UNIX_EPOCH - Duration::from_secs(1_000_000)).unwrap();
    let mut client = server.client();
    for line in ["LIST", "NLST", "MLSD"] {
        let list = String::from_utf8(client.get(line)).unwrap();
        let names = list.split_terminator("\r\n");
        assert_eq!(names.clone().count(), 1001, "{line}");
        assert!(names.clone().all(|line| line.contains("file ") || line.ends_with("old")));
    }
    assert_eq!(client.expect("MDTM old", "213"), "213 19700101000000\r\n");
    fs::create_dir(server.dir.join("empty")).unwrap();
    assert_eq!(client.get("MLSD empty"), b"");
    assert_eq!(client.get("NLST file 7"), b"file 7\r\n");
    client.expect("MLSD file 7", "501");
}

#[test]
fn a_rate_is_kept_both_ways() {
    let server = Server::start("rate", &["--rate", "40000", "--writable"]);
    let content = vec![5; 50_000];
    let mut client = server.client();
    for line in ["STOR x", "RETR x"] {
        let began = Instant::now();
        if line == "STOR x" {
            client.put(line, &content);
        } else {
            assert!(client.get(line) == content);
        }
        // The rate does not delay the first part, and nothing follows the last.
        let took = began.elapsed();
        assert!(took > Duration::from_millis(700), "{line}: {took:?}");
    }
}

#[test]
fn too_many_clients_are_told_so() {
    let server = Server::start("many", &[]);
    let mut clients: Vec<Client> = (0..300).map(|_| server.stranger()).collect();
    let mut control = BufReader::new(TcpStream::connect(server.addr).unwrap());
    let mut word = String::new();
    control.read_line(&mut word).unwrap();
    assert!(word.starts_with("421 "), "{word}");
    clients.pop();
    clients[0].expect("NOOP", "200");
}

#[test]
fn the_server_ends_cleanly_at_a_signal() {
    for signal in ["INT", "TERM"] {
        let mut server = Server::start(&format!("signal-{signal}"), &["--writable"]);
        let mut idle = server.client();
        let mut busy = server.client();
        let mut data = busy.data();
        busy.expect("STOR x", "150");
        data.write_all(b"to the ").unwrap();
        server.process.signal(signal);
        idle.read("421");
        assert!(idle.ends());
        // A transfer that has begun is completed.
        data.write_all(b"end").unwrap();
        drop(data);
        busy.read("226");
        busy.read("421");
        assert!(busy.ends());
        drop((idle, busy));
        assert!(server.process.process.wait().unwrap().success());
        assert_eq!(server.content("x"), b"to the end");
    }
}

#[test]
fn a_transfer_that_takes_too_long_does_not_hold_up_the_end() {
    let mut server = Server::start("stuck", &["--writable"]);
    let mut client = server.client();
    let _data = client.data();
    client.expect("STOR x", "150");
    client.send("NOOP\r\n");
    server.process.signal("TERM");
    client.read("426");
    client.read("421");
    assert!(client.ends());
    drop(client);
    assert!(server.process.process.wait().unwrap().success());
}
