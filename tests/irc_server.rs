//! The IRC server of `examples/`: its parts in this process, and its binary in another.
//!
//! Tests that depend on time have a paused clock. All others wait for lines, or for the end of a connection.

#![cfg(all(feature = "serve", unix))]
#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

#[path = "../examples/irc_server/commands.rs"]
mod commands;
#[path = "../examples/irc_server/message.rs"]
mod message;
#[path = "../examples/irc_server/network.rs"]
mod network;
#[path = "support/process.rs"]
mod process;
#[path = "../examples/irc_server/session.rs"]
mod session;

use std::io::{self, BufRead as _, Read as _, Write as _};
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use asynchat::verify::Verifier;
use asynchat::{CloseReason, Served};
use futures::future::join_all;
use proptest::prelude::*;
use tokio::io::{
    AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader,
    DuplexStream, ReadHalf, Sink, WriteHalf,
};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::message::{LINE, Message, fitting};
use crate::network::{CHANNELS, JOINS, Network};
use crate::process::example;
use crate::session::Session;

struct Server {
    addr: SocketAddr,
    stop: CancellationToken,
    serving: JoinHandle<io::Result<Served>>,
}

impl Server {
    async fn start() -> Self {
        Server::start_with(false).await
    }

    async fn start_with(flood_control: bool) -> Self {
        let listener = session::listen("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let serving = tokio::spawn(session::serve(listener, stop.clone(), flood_control));
        Server { addr, stop, serving }
    }

    async fn connect(&self) -> TcpClient {
        let stream = TcpStream::connect(self.addr).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (input, output) = stream.into_split();
        Client { input: BufReader::new(input), output }
    }

    /// Connects, registers, and reads the welcome.
    async fn join(&self, nick: &str) -> TcpClient {
        let mut client = self.connect().await;
        client.register(nick).await;
        client
    }

    /// Connects, joins a channel, and reads its list of names.
    async fn join_channel(&self, nick: &str, channel: &str) -> TcpClient {
        let mut client = self.join(nick).await;
        client.send(format!("JOIN {channel}\r\n")).await;
        client.until(" 366 ").await;
        client
    }

    async fn stop(self) -> Served {
        self.stop.cancel();
        self.serving.await.unwrap().unwrap()
    }
}

type TcpClient = Client<BufReader<OwnedReadHalf>, OwnedWriteHalf>;
type MemoryClient = Client<BufReader<ReadHalf<DuplexStream>>, WriteHalf<DuplexStream>>;

struct Client<R, W> {
    input: R,
    output: W,
}

impl<R: AsyncBufRead + Unpin, W: AsyncWrite + Unpin> Client<R, W> {
    async fn register(&mut self, nick: &str) {
        self.send(format!("NICK {nick}\r\nUSER {nick} 0 * :{nick} itself\r\n")).await;
        self.until(" 376 ").await;
    }

    async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.output.write_all(bytes.as_ref()).await.unwrap();
    }

    /// Reads the next line, without its end. At the end of the connection it is empty.
    async fn bytes(&mut self) -> Vec<u8> {
        let mut line = Vec::new();
        self.input.read_until(b'\n', &mut line).await.unwrap();
        assert!(
            line.is_empty() || line.ends_with(b"\r\n"),
            "{:?}",
            line.escape_ascii().to_string()
        );
        assert!(line.len() <= 512, "{}", line.len());
        line.truncate(line.len().saturating_sub(2));
        line
    }

    async fn line(&mut self) -> String {
        String::from_utf8(self.bytes().await).unwrap()
    }

    /// Reads lines until one contains this, and returns that one.
    async fn until(&mut self, part: &str) -> String {
        loop {
            let line = self.line().await;
            assert!(!line.is_empty(), "the end, before {part:?}");
            if line.contains(part) {
                return line;
            }
        }
    }

    /// Sends a command, and checks that exactly these answers come.
    async fn ask(&mut self, command: &str, answers: &[&str]) {
        self.send(format!("{command}\r\n")).await;
        for answer in answers {
            assert_eq!(self.line().await, *answer, "{command}");
        }
        // No more lines come before the answer to this.
        self.send("PING end\r\n").await;
        assert_eq!(self.line().await, ":irc.localhost PONG irc.localhost :end", "{command}");
    }
}

/// A client whose connection is in memory, and the future of its session.
fn in_memory(
    network: &Network,
    flood_control: bool,
) -> (MemoryClient, JoinHandle<CloseReason<std::convert::Infallible>>) {
    let (client, server) = tokio::io::duplex(64 * 1024);
    let session = Session::new(network.clone(), &"[::1]:1".parse().unwrap(), flood_control);
    let serving =
        tokio::spawn(async move { session::channels().build(server).run(session).await.1 });
    let (input, output) = tokio::io::split(client);
    (Client { input: BufReader::new(input), output }, serving)
}

// ---------------------------------------------------------------------------------------------
// Lines

#[test]
fn a_line_is_cut_into_words() {
    let parsed = |line: &'static str| {
        let message = Message::parse(line.as_bytes())?;
        let params =
            message.params().iter().map(|param| std::str::from_utf8(param).unwrap().to_owned());
        let name = String::from_utf8(message.name().to_vec()).unwrap();
        Some((name, params.collect::<Vec<_>>()))
    };
    for (line, name, params) in [
        ("nick x", "NICK", &["x"][..]),
        (":who@ever PRIVMSG  #a   :b  :c ", "PRIVMSG", &["#a", "b  :c "]),
        ("  JOIN #a ", "JOIN", &["#a"]),
        ("TOPIC #a :", "TOPIC", &["#a", ""]),
        ("A b:c :d", "A", &["b:c", "d"]),
        ("TOOLONGACOMMAND x", "", &["x"]),
        (
            "x 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16",
            "X",
            &["1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15 16"],
        ),
    ] {
        let params = params.iter().map(|param| (*param).to_owned()).collect();
        assert_eq!(parsed(line), Some((name.to_owned(), params)), "{line}");
    }
    for line in ["", "   ", ":prefix", ":prefix  ", "PRIVMSG #a :x\0y"] {
        assert!(parsed(line).is_none(), "{line:?}");
    }
}

proptest! {
    #[test]
    fn any_line_is_parsed_without_a_panic(line: Vec<u8>) {
        if let Some(message) = Message::parse(&line) {
            prop_assert!(message.params().len() <= 15);
            prop_assert!(message.name().len() <= 8);
        }
    }

    #[test]
    fn what_is_cut_off_is_no_more_than_a_character(text: String, most in 0..50_usize) {
        let cut = fitting(text.as_bytes(), most);
        let mut whole = most.min(text.len());
        while !text.is_char_boundary(whole) {
            whole -= 1;
        }
        prop_assert_eq!(cut, &text.as_bytes()[..whole]);
    }

    #[test]
    fn what_is_no_text_is_cut_too(bytes: Vec<u8>, most in 0..50_usize) {
        let cut = fitting(&bytes, most);
        prop_assert!(bytes.starts_with(cut) && cut.len() <= most);
        prop_assert!(cut.len() + 3 >= most.min(bytes.len()));
    }
}

#[tokio::test(start_paused = true)]
async fn answers_depend_on_no_cut() {
    let long = format!("PRIVMSG me :{}\nPING x\r\n", "\u{e4}".repeat(300));
    for input in [
        "CAP LS 302\r\nNICK me\r\nUSER me 0 * :I\r\nCAP REQ :a b\r\nCAP END\r\nJOIN #a\nPART #a\rQUIT :x\r\nPING\r\n",
        "JOIN #a\r\nNICK 1\r\nNICK\r\nUSER x\r\nUSER me 0 *\r\r\n\nPING :a b\r\nQUIT\r\n",
        &format!("NICK me\rUSER me 0 * :I\rNICK you\rPRIVMSG you :hi\rMODE you\r{long}"),
    ] {
        let verifier = Verifier::new().without_trailing().three_reads_up_to(0).random_reads(10);
        let make = || Session::new(Network::default(), &"127.0.0.1:1".parse().unwrap(), true);
        let answered = verifier.handler(&session::channels(), input.as_bytes(), make).await;
        assert!(!answered.output.is_empty());
    }
}

// ---------------------------------------------------------------------------------------------
// A few clients

#[tokio::test]
async fn a_client_registers_in_whatever_order_and_is_welcomed() {
    let server = Server::start().await;
    let mut ann = server.connect().await;
    ann.send("JOIN #a\r\nPASS secret\r\nNICK 1ann\r\nCAP LS 302\r\nUSER ann 0 *\r\n").await;
    assert_eq!(ann.line().await, ":irc.localhost 451 * :You have not registered");
    assert_eq!(ann.line().await, ":irc.localhost 432 * 1ann :Erroneous nickname");
    assert_eq!(ann.line().await, ":irc.localhost CAP * LS :");
    assert_eq!(ann.line().await, ":irc.localhost 461 * USER :Not enough parameters");
    ann.send("USER an@n! 0 * :Ann B.\r\nNICK ann\r\nCAP REQ :sasl\r\nPING 1\r\n").await;
    assert_eq!(ann.line().await, ":irc.localhost CAP ann NAK :sasl");
    assert_eq!(ann.line().await, ":irc.localhost PONG irc.localhost :1", "not before CAP END");
    ann.send("CAP END\r\n").await;
    assert_eq!(
        ann.line().await,
        ":irc.localhost 001 ann :Welcome to the network, ann!~ann@127.0.0.1"
    );
    for code in
        ["002", "003", "004", "005", "005", "251", "254", "255", "375", "372", "372", "372", "376"]
    {
        assert!(ann.line().await.starts_with(&format!(":irc.localhost {code} ann ")), "{code}");
    }
    ann.ask("USER x 0 * :y", &[":irc.localhost 462 ann :You may not reregister"]).await;
    ann.ask("CAP LIST", &[":irc.localhost CAP ann LIST :"]).await;
    ann.ask("CAP X", &[":irc.localhost 410 ann X :Invalid CAP command"]).await;
    ann.ask("DANCE now", &[":irc.localhost 421 ann DANCE :Unknown command"]).await;

    let mut bob = server.connect().await;
    bob.send("QUIT :never mind\r\nNICK bob\r\n").await;
    assert_eq!(bob.line().await, "ERROR :Closing Link: 127.0.0.1 (Client Quit)");
    assert_eq!(bob.line().await, "");
    drop((ann, bob));
    server.stop().await;
}

#[tokio::test]
async fn two_clients_never_have_the_same_nickname() {
    let server = Server::start().await;
    let mut ann = server.join("ann[]").await;
    let mut bob = server.connect().await;
    bob.send("USER bob 0 * :Bob\r\nNICK ANN{}\r\n").await;
    assert_eq!(bob.line().await, ":irc.localhost 433 * ANN{} :Nickname is already in use");
    bob.send("NICK bob\r\n").await;
    bob.until(" 376 ").await;
    bob.ask("NICK Ann{]", &[":irc.localhost 433 bob Ann{] :Nickname is already in use"]).await;
    for bad in ["1x", "-x", "a b", "a!b", "ännchen", &"x".repeat(31), "x@y", "#x"] {
        let said = bad.split(' ').next().unwrap();
        if said == bad {
            let answer = format!(":irc.localhost 432 bob {bad} :Erroneous nickname");
            bob.ask(&format!("NICK {bad}"), &[&answer]).await;
        }
    }
    bob.ask("NICK", &[":irc.localhost 431 bob :No nickname given"]).await;
    ann.ask("NICK ANN{}", &[":ann[]!~ann@127.0.0.1 NICK :ANN{}"]).await;
    ann.send("QUIT\r\n").await;
    assert_eq!(ann.line().await, "ERROR :Closing Link: 127.0.0.1 (Quit: leaving)");
    bob.ask("NICK ann[]", &[":bob!~bob@127.0.0.1 NICK :ann[]"]).await;
    drop((ann, bob));
    server.stop().await;
}

#[tokio::test]
async fn what_is_said_is_heard_by_the_others_in_the_channel_only() {
    let server = Server::start().await;
    let mut ann = server.join_channel("ann", "#Lobby[x]").await;
    let mut bob = server.join("bob").await;
    bob.ask(
        "JOIN #lobby{X}",
        &[
            ":bob!~bob@127.0.0.1 JOIN #Lobby[x]",
            ":irc.localhost 353 bob = #Lobby[x] :@ann bob",
            ":irc.localhost 366 bob #Lobby[x] :End of /NAMES list",
        ],
    )
    .await;
    assert_eq!(ann.line().await, ":bob!~bob@127.0.0.1 JOIN #Lobby[x]");
    let mut cleo = server.join_channel("cleo", "#attic").await;

    ann.send("PRIVMSG #lobby[x] :hello\r\nprivmsg #lobby[x] LF\n:x NOTICE #lobby[x],cleo :CR alone\r\n\n").await;
    assert_eq!(bob.line().await, ":ann!~ann@127.0.0.1 PRIVMSG #Lobby[x] :hello");
    assert_eq!(bob.line().await, ":ann!~ann@127.0.0.1 PRIVMSG #Lobby[x] :LF");
    assert_eq!(bob.line().await, ":ann!~ann@127.0.0.1 NOTICE #Lobby[x] :CR alone");
    assert_eq!(cleo.line().await, ":ann!~ann@127.0.0.1 NOTICE cleo :CR alone");
    ann.ask("PRIVMSG ann :me", &[":ann!~ann@127.0.0.1 PRIVMSG ann :me"]).await;

    ann.ask("PRIVMSG", &[":irc.localhost 411 ann :No recipient given"]).await;
    ann.ask("PRIVMSG #lobby[x]", &[":irc.localhost 412 ann :No text to send"]).await;
    ann.ask(
        "PRIVMSG dora,#cellar,#attic :x",
        &[
            ":irc.localhost 401 ann dora :No such nick/channel",
            ":irc.localhost 403 ann #cellar :No such channel",
            ":irc.localhost 404 ann #attic :Cannot send to channel",
        ],
    )
    .await;
    ann.ask(
        "PRIVMSG cleo,cleo,cleo,cleo,cleo :x",
        &[":irc.localhost 407 ann cleo :Too many recipients"],
    )
    .await;
    for _ in 0..4 {
        assert_eq!(cleo.line().await, ":ann!~ann@127.0.0.1 PRIVMSG cleo :x");
    }
    ann.ask("NOTICE dora,#cellar,#attic :nothing comes back", &[]).await;
    ann.ask("NOTICE", &[]).await;

    bob.ask("PART #lobby[x] :so long", &[":bob!~bob@127.0.0.1 PART #Lobby[x] :so long"]).await;
    assert_eq!(ann.line().await, ":bob!~bob@127.0.0.1 PART #Lobby[x] :so long");
    bob.ask("PART #lobby[x]", &[":irc.localhost 442 bob #lobby[x] :You're not on that channel"])
        .await;
    cleo.send("JOIN #lobby[x]\r\n").await;
    cleo.until(" 366 ").await;
    assert_eq!(ann.line().await, ":cleo!~cleo@127.0.0.1 JOIN #Lobby[x]");
    cleo.send("JOIN 0\r\nQUIT :gone\r\nPRIVMSG #lobby[x] :ignored\r\n").await;
    cleo.until("ERROR :Closing Link: 127.0.0.1 (Quit: gone)").await;
    assert_eq!(cleo.line().await, "");
    assert_eq!(ann.line().await, ":cleo!~cleo@127.0.0.1 PART #Lobby[x]");
    bob.send("JOIN #lobby[x]\r\nNICK rob\r\nQUIT\r\n").await;
    assert_eq!(ann.line().await, ":bob!~bob@127.0.0.1 JOIN #Lobby[x]");
    assert_eq!(ann.line().await, ":bob!~bob@127.0.0.1 NICK :rob");
    assert_eq!(ann.line().await, ":rob!~bob@127.0.0.1 QUIT :Quit: leaving");
    let dora = server.join_channel("dora", "#lobby[x]").await;
    ann.until("JOIN").await;
    drop(dora);
    assert_eq!(ann.line().await, ":dora!~dora@127.0.0.1 QUIT :Remote host closed the connection");
    drop((ann, bob, cleo));
    assert_eq!(server.stop().await.panicked, 0);
}

#[tokio::test]
async fn operators_have_their_say() {
    let server = Server::start().await;
    let mut ann = server.join_channel("ann", "#a").await;
    let mut bob = server.join_channel("bob", "#a").await;
    let mut cleo = server.join("cleo").await;
    ann.until("JOIN").await;
    let denied = ":irc.localhost 482 bob #a :You're not channel operator";
    bob.ask("TOPIC #a :mine", &[denied]).await;
    bob.ask("KICK #a ann", &[denied]).await;
    bob.ask("MODE #a +o bob", &[denied]).await;
    cleo.ask("TOPIC #a x", &[":irc.localhost 442 cleo #a :You're not on that channel"]).await;
    cleo.ask("TOPIC #a", &[":irc.localhost 331 cleo #a :No topic is set"]).await;

    ann.ask("TOPIC #a :what it is", &[":ann!~ann@127.0.0.1 TOPIC #a :what it is"]).await;
    assert_eq!(bob.line().await, ":ann!~ann@127.0.0.1 TOPIC #a :what it is");
    cleo.send("TOPIC #a\r\n").await;
    assert_eq!(cleo.line().await, ":irc.localhost 332 cleo #a :what it is");
    assert!(cleo.line().await.starts_with(":irc.localhost 333 cleo #a ann!~ann@127.0.0.1 1"));

    ann.ask("MODE #a b", &[":irc.localhost 368 ann #a :End of channel ban list"]).await;
    ann.ask(
        "MODE #a +mk-tx+v-k+kl sesame bob * key 2",
        &[
            ":irc.localhost 472 ann x :is unknown mode char to me",
            ":ann!~ann@127.0.0.1 MODE #a +mk-t+v-k+k sesame bob * key",
        ],
    )
    .await;
    bob.until("+mk-t+v-k+k").await;
    ann.ask("MODE #a +l 2", &[":ann!~ann@127.0.0.1 MODE #a +l 2"]).await;
    bob.until("MODE").await;
    bob.send("MODE #a\r\nPRIVMSG #a :I have a voice\r\n").await;
    assert_eq!(bob.line().await, ":irc.localhost 324 bob #a +nmkl key 2");
    assert!(bob.line().await.starts_with(":irc.localhost 329 bob #a 1"));
    ann.until(":I have a voice").await;
    cleo.send("MODE #a\r\n").await;
    assert_eq!(cleo.line().await, ":irc.localhost 324 cleo #a +nmkl * 2");
    cleo.line().await;
    cleo.ask("JOIN #a", &[":irc.localhost 475 cleo #a :Cannot join channel (+k)"]).await;
    cleo.ask(
        "JOIN #b,#a x,key",
        &[
            ":cleo!~cleo@127.0.0.1 JOIN #b",
            ":irc.localhost 353 cleo = #b :@cleo",
            ":irc.localhost 366 cleo #b :End of /NAMES list",
            ":irc.localhost 471 cleo #a :Cannot join channel (+l)",
        ],
    )
    .await;
    ann.ask(
        "MODE #a -v-l+o bob dora",
        &[
            ":irc.localhost 401 ann dora :No such nick/channel",
            ":ann!~ann@127.0.0.1 MODE #a -vl bob",
        ],
    )
    .await;
    bob.until("MODE").await;
    bob.ask("PRIVMSG #a :x", &[":irc.localhost 404 bob #a :Cannot send to channel"]).await;
    cleo.send("JOIN #a key\r\n").await;
    assert_eq!(cleo.line().await, ":cleo!~cleo@127.0.0.1 JOIN #a");
    assert_eq!(cleo.line().await, ":irc.localhost 332 cleo #a :what it is");
    cleo.until(" 366 ").await;
    bob.until("JOIN").await;
    ann.until("JOIN").await;

    ann.ask("KICK #a dora", &[":irc.localhost 401 ann dora :No such nick/channel"]).await;
    ann.ask(
        "KICK #a bob :out\r\nKICK #a bob",
        &[
            ":ann!~ann@127.0.0.1 KICK #a bob :out",
            ":irc.localhost 441 ann bob #a :They aren't on that channel",
        ],
    )
    .await;
    assert_eq!(bob.line().await, ":ann!~ann@127.0.0.1 KICK #a bob :out");
    assert_eq!(cleo.line().await, ":ann!~ann@127.0.0.1 KICK #a bob :out");
    ann.ask("MODE #a -nm", &[":ann!~ann@127.0.0.1 MODE #a -nm"]).await;
    bob.send("PRIVMSG #a :from without\r\n").await;
    ann.until("PRIVMSG #a :from without").await;
    ann.ask("MODE ann", &[":irc.localhost 221 ann +i"]).await;
    ann.ask("MODE ann +i", &[]).await;
    ann.ask("MODE ann +x", &[":irc.localhost 501 ann :Unknown MODE flag"]).await;
    ann.ask("MODE bob +i", &[":irc.localhost 502 ann :Can't change mode for other users"]).await;
    drop((ann, bob, cleo));
    server.stop().await;
}

#[tokio::test]
async fn who_is_there_can_be_asked() {
    let server = Server::start().await;
    let mut ann = server.join_channel("ann", "#a").await;
    let mut bob = server.join_channel("bob", "#a,#b").await;
    bob.until(" 366 ").await;
    ann.until("JOIN").await;
    bob.ask("AWAY :at lunch", &[":irc.localhost 306 bob :You have been marked as being away"])
        .await;
    ann.ask("PRIVMSG bob :there?", &[":irc.localhost 301 ann bob :at lunch"]).await;
    ann.ask("NOTICE bob :there?", &[]).await;
    ann.ask(
        "WHO #A",
        &[
            ":irc.localhost 352 ann #a ~ann 127.0.0.1 irc.localhost ann H@ :0 ann itself",
            ":irc.localhost 352 ann #a ~bob 127.0.0.1 irc.localhost bob G :0 bob itself",
            ":irc.localhost 315 ann #A :End of /WHO list",
        ],
    )
    .await;
    ann.ask(
        "WHO Bob",
        &[
            ":irc.localhost 352 ann * ~bob 127.0.0.1 irc.localhost bob G :0 bob itself",
            ":irc.localhost 315 ann Bob :End of /WHO list",
        ],
    )
    .await;
    ann.ask("WHO", &[":irc.localhost 315 ann * :End of /WHO list"]).await;
    ann.send("WHOIS irc.localhost BOB\r\n").await;
    assert_eq!(ann.line().await, ":irc.localhost 311 ann bob ~bob 127.0.0.1 * :bob itself");
    assert_eq!(ann.line().await, ":irc.localhost 319 ann bob :#a @#b");
    assert!(ann.line().await.starts_with(":irc.localhost 312 ann bob irc.localhost :"));
    assert_eq!(ann.line().await, ":irc.localhost 301 ann bob :at lunch");
    assert!(ann.line().await.starts_with(":irc.localhost 317 ann bob 0 1"));
    assert_eq!(ann.line().await, ":irc.localhost 318 ann BOB :End of /WHOIS list");
    ann.ask(
        "WHOIS dora",
        &[
            ":irc.localhost 401 ann dora :No such nick/channel",
            ":irc.localhost 318 ann dora :End of /WHOIS list",
        ],
    )
    .await;
    ann.ask("ISON bob dora :ann x", &[":irc.localhost 303 ann :bob ann"]).await;
    ann.ask(
        "USERHOST bob dora ann",
        &[":irc.localhost 302 ann :bob=-~bob@127.0.0.1 ann=+~ann@127.0.0.1"],
    )
    .await;
    ann.ask(
        "LIST",
        &[
            ":irc.localhost 321 ann Channel :Users  Name",
            ":irc.localhost 322 ann #a 2 :",
            ":irc.localhost 322 ann #b 1 :",
            ":irc.localhost 323 ann :End of /LIST",
        ],
    )
    .await;
    ann.ask(
        "LIST #b,#c",
        &[
            ":irc.localhost 321 ann Channel :Users  Name",
            ":irc.localhost 322 ann #b 1 :",
            ":irc.localhost 323 ann :End of /LIST",
        ],
    )
    .await;
    ann.ask(
        "NAMES #b",
        &[":irc.localhost 353 ann = #b :@bob", ":irc.localhost 366 ann #b :End of /NAMES list"],
    )
    .await;
    ann.ask("NAMES #c", &[":irc.localhost 366 ann #c :End of /NAMES list"]).await;
    bob.ask(
        "AWAY",
        &[
            ":ann!~ann@127.0.0.1 PRIVMSG bob :there?",
            ":ann!~ann@127.0.0.1 NOTICE bob :there?",
            ":irc.localhost 305 bob :You are no longer marked as being away",
        ],
    )
    .await;
    drop((ann, bob));
    server.stop().await;
}

#[tokio::test]
async fn a_line_that_is_too_long_is_refused_and_what_does_not_fit_cut_off() {
    let server = Server::start().await;
    let mut ann = server.join_channel("ann", "#a").await;
    let mut bob = server.join_channel("bob", "#a").await;
    ann.until("JOIN").await;
    let head = "PRIVMSG #a :";
    let source = ":bob!~bob@127.0.0.1 PRIVMSG #a :";
    // The line is as long as it may be, and the prefix that the server puts before it makes it too long.
    bob.send(format!("{head}{}\r\n", "x".repeat(LINE - head.len()))).await;
    assert_eq!(ann.line().await, format!("{source}{}", "x".repeat(LINE - source.len())));
    for odd in ["", "x", "xx", "xxx"] {
        let text = odd.to_owned() + &"\u{1f600}".repeat((LINE - head.len() - 3) / 4);
        bob.send(format!("{head}{text}\n")).await;
        let line = ann.line().await;
        assert!(format!("{source}{text}").starts_with(&line), "{line}");
        assert!((LINE - 3..=LINE).contains(&line.len()), "{}", line.len());
    }
    // Bytes that are no UTF-8 are passed on.
    bob.send(b"PRIVMSG #a :gr\xfc\xdf\x02e\x1b[2J\xff\n").await;
    assert_eq!(ann.bytes().await, [source.as_bytes(), b"gr\xfc\xdf\x02e\x1b[2J\xff"].concat());
    bob.send(b"PRIVMSG #a :a\0b\nPRIVMSG #a :next\n").await;
    assert_eq!(ann.line().await, format!("{source}next"), "and nothing with a NUL");

    let refused = ":irc.localhost 417 bob :Input line was too long";
    bob.ask(&format!("{head}{}", "x".repeat(LINE - head.len() + 1)), &[refused]).await;
    bob.ask(&format!("{head}{}", "PRIVMSG #a :x ".repeat(10_000)), &[refused]).await;
    bob.send("PRIVMSG #a :still here\n").await;
    assert_eq!(ann.line().await, format!("{source}still here"), "and nothing of what was too long");
    drop((ann, bob));
    server.stop().await;
}

#[tokio::test]
async fn there_are_so_many_channels_and_an_empty_one_is_no_more() {
    let server = Server::start().await;
    let mut clients = Vec::new();
    for n in 0..CHANNELS / JOINS {
        let mut client = server.join(&format!("c{n}")).await;
        for m in 0..JOINS {
            client.send(format!("JOIN #{n}-{m}\r\n")).await;
            client.until(" 366 ").await;
        }
        clients.push(client);
    }
    let mut last = server.join("last").await;
    last.ask("JOIN #more", &[":irc.localhost 437 last #more :There are too many channels"]).await;
    for bad in ["more", "#", "&x", "#a:b", "#\x01", &format!("#{}", "x".repeat(50)), "#\u{202e}x"] {
        last.send(format!("JOIN {bad}\r\n")).await;
        assert!(last.line().await.starts_with(":irc.localhost 403 last "), "{bad}");
    }
    clients[0]
        .ask("JOIN #1-1", &[":irc.localhost 405 c0 #1-1 :You have joined too many channels"])
        .await;

    // The list is longer than what may be queued for a client at once, and is sent as the client reads it.
    last.send("LIST\r\nPING end\r\n").await;
    assert!(last.line().await.contains(" 321 "));
    let mut names = Vec::new();
    loop {
        let line = last.line().await;
        let mut words = line.split(' ').skip(1);
        match words.next().unwrap() {
            "322" => names.push(words.nth(1).unwrap().to_owned()),
            "323" => break,
            _ => panic!("{line}"),
        }
    }
    assert!(last.line().await.ends_with("PONG irc.localhost :end"));
    assert_eq!(names.len(), CHANNELS);
    assert!(names.is_sorted());

    clients[0].send("PART #0-0,#0-1\r\n").await;
    clients[0].until("PART #0-1").await;
    last.send("JOIN #more\r\n").await;
    last.until(" 366 ").await;
    drop((clients, last));
    server.stop().await;
}

// ---------------------------------------------------------------------------------------------
// Clients that send too fast, or nothing

#[tokio::test(start_paused = true)]
async fn who_sends_too_fast_is_let_wait() {
    let (mut ann, _) = in_memory(&Network::default(), true);
    ann.register("ann").await;
    let began = Instant::now();
    // Registration has used up two of the twenty lines.
    ann.send("PING x\r\n".repeat(18)).await;
    for _ in 0..18 {
        ann.line().await;
    }
    assert_eq!(began.elapsed(), Duration::ZERO);
    ann.send("PING x\r\n".repeat(40)).await;
    for _ in 0..40 {
        ann.line().await;
    }
    let took = began.elapsed();
    assert!(
        (Duration::from_millis(9900)..=Duration::from_millis(10_100)).contains(&took),
        "{took:?}"
    );
    // While the client sends nothing, it earns the right to send lines again.
    tokio::time::sleep(Duration::from_secs(60)).await;
    let began = Instant::now();
    ann.send("PING x\r\n".repeat(20)).await;
    for _ in 0..20 {
        ann.line().await;
    }
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn who_sends_far_ahead_is_cut_off() {
    let network = Network::default();
    let (mut bob, _) = in_memory(&network, true);
    bob.register("bob").await;
    bob.send("JOIN #a\r\n").await;
    bob.until(" 366 ").await;
    let (mut ann, serving) = in_memory(&network, true);
    ann.register("ann").await;
    ann.send("JOIN #a\r\n").await;
    ann.until(" 366 ").await;
    bob.until("JOIN").await;
    // At most 20 of these lines of 400 bytes are handled, and those behind them are more than 8 KiB.
    ann.send(format!("PRIVMSG #a :{}\r\n", "x".repeat(400)).repeat(60)).await;
    assert_eq!(ann.line().await, "ERROR :Closing Link: 0::1 (Excess Flood)");
    assert_eq!(ann.line().await, "");
    let mut heard = 0;
    while !bob.until(":ann!~ann@0::1 ").await.ends_with("QUIT :Excess Flood") {
        heard += 1;
    }
    assert!(heard <= 20, "{heard}");
    drop(ann);
    assert!(matches!(serving.await.unwrap(), CloseReason::Done));
}

#[tokio::test(start_paused = true)]
async fn who_is_silent_is_asked_and_then_gone() {
    let network = Network::default();
    let (mut ann, serving) = in_memory(&network, true);
    let (mut bob, _) = in_memory(&network, true);
    for (client, nick) in [(&mut ann, "ann"), (&mut bob, "bob")] {
        client.register(nick).await;
        client.send("JOIN #a\r\n").await;
        client.until(" 366 ").await;
    }
    assert_eq!(ann.line().await, ":bob!~bob@0::1 JOIN #a");
    let began = Instant::now();
    let quit = loop {
        let line = bob.line().await;
        if line == "PING :irc.localhost" {
            // Lines of bob do not keep ann's connection open.
            bob.send("PONG irc.localhost\r\nPRIVMSG #a :still here\r\n").await;
        } else {
            break line;
        }
    };
    assert_eq!(quit, ":ann!~ann@0::1 QUIT :Ping timeout: 240 seconds");
    let took = began.elapsed();
    assert!((Duration::from_secs(239)..Duration::from_secs(250)).contains(&took), "{took:?}");
    assert_eq!(ann.line().await, "PING :irc.localhost");
    let mut line = ann.line().await;
    while line.contains("still here") || line.contains("PING") {
        line = ann.line().await;
    }
    assert_eq!(line, "ERROR :Closing Link: 0::1 (Ping timeout: 240 seconds)");
    assert_eq!(ann.line().await, "");
    assert!(matches!(serving.await.unwrap(), CloseReason::Timeout(_)));
}

#[tokio::test(start_paused = true)]
async fn who_does_not_register_is_cut_off() {
    let (mut client, serving) = in_memory(&Network::default(), true);
    client.send("NICK x\r\n").await;
    let began = Instant::now();
    // Bytes that come slowly do not keep a connection open.
    let mut pings = tokio::time::interval(Duration::from_secs(7));
    let line = loop {
        tokio::select! {
            line = client.input.fill_buf() => break String::from_utf8(line.unwrap().to_vec()).unwrap(),
            _ = pings.tick() => client.output.write_all(b"NICK x\r\n").await.unwrap(),
        }
    };
    assert_eq!(line, "ERROR :Closing Link: 0::1 (Registration timed out)\r\n");
    assert!((30..37).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
    drop(client);
    assert!(matches!(serving.await.unwrap(), CloseReason::Timeout(_)));
}

// ---------------------------------------------------------------------------------------------
// Many clients

/// A random thing that a client does.
#[derive(Clone, Debug)]
enum Deed {
    Say(u8),
    Notice,
    Leave,
    Come,
    Topic,
    Rename,
    Voice(u8),
    Ask,
}

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        6 => any::<u8>().prop_map(Deed::Say),
        1 => Just(Deed::Notice),
        1 => Just(Deed::Leave),
        2 => Just(Deed::Come),
        1 => Just(Deed::Topic),
        1 => Just(Deed::Rename),
        1 => any::<u8>().prop_map(Deed::Voice),
        1 => Just(Deed::Ask),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// A client that is there all the time and says nothing hears everything. While the others are there, they hear the
    /// same in the same order, except for what they said themselves.
    #[test]
    fn all_members_see_the_same_in_the_same_order(
        deeds in prop::collection::vec(prop::collection::vec(deed(), 20..60), 2..7)
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(3).enable_all().build();
        runtime.unwrap().block_on(async {
            let server = Server::start().await;
            let mut witness = server.join_channel("witness", "#a").await;
            witness.send("MODE #a -t\r\n").await;
            witness.until("MODE").await;
            let talking = deeds.into_iter().enumerate().map(|(n, deeds)| {
                let connecting = server.join_channel(Box::leak(format!("c{n}x").into_boxed_str()), "#a");
                async move { talk(n, connecting.await, deeds).await }
            });
            let heard = join_all(talking).await;
            witness.send("QUIT\r\n").await;
            let mut all = Vec::new();
            loop {
                let line = witness.line().await;
                if line.starts_with("ERROR") {
                    break;
                }
                all.push(line);
            }
            for (n, heard) in heard.into_iter().enumerate() {
                check(n, &all, &heard);
            }
            server.stop().await;
        });
    }
}

/// Does these things, and returns all lines that the client has received.
async fn talk(n: usize, client: TcpClient, deeds: Vec<Deed>) -> Vec<String> {
    let Client { input, mut output } = client;
    let hearing = tokio::spawn(async move {
        let (mut client, mut heard) = (Client { input, output: tokio::io::sink() }, Vec::new());
        loop {
            let line = client.line().await;
            if line.starts_with("ERROR") {
                return heard;
            }
            heard.push(line);
        }
    });
    for (count, deed) in deeds.into_iter().enumerate() {
        let line = match deed {
            Deed::Say(length) => format!("PRIVMSG #a :{count} {}", "x".repeat(length.into())),
            Deed::Notice => format!("NOTICE #a :{count}"),
            Deed::Leave => format!("PART #a :{count}"),
            Deed::Come => "JOIN #a".to_owned(),
            Deed::Topic => format!("TOPIC #a :{n} {count}"),
            Deed::Rename => format!("NICK c{n}x{count}"),
            Deed::Voice(whom) => format!("MODE #a +v c{}x", whom % 7),
            Deed::Ask => "NAMES #a\r\nMODE #a\r\nLIST\r\nWHO #a".to_owned(),
        };
        output.write_all(format!("{line}\r\n").as_bytes()).await.unwrap();
    }
    output.write_all(b"JOIN #a\r\nQUIT\r\n").await.unwrap();
    hearing.await.unwrap()
}

fn check(n: usize, all: &[String], heard: &[String]) {
    let own = format!(":c{n}x");
    let events = heard.iter().filter(|line| !line.starts_with(":irc.localhost "));
    let mut all = all.iter().filter(|line| !line.starts_with(":irc.localhost "));
    // The recording begins after the client's own first JOIN.
    let mut here = true;
    let first = all.by_ref().find(|line| line.starts_with(&own) && line.contains(" JOIN "));
    assert!(first.is_some());
    for event in events {
        // A client always hears the change of its own nickname, but the observer hears it only if the client is in the
        // channel.
        if !here && event.starts_with(&own) && event.contains(" NICK ") {
            continue;
        }
        loop {
            let Some(next) = all.next() else {
                panic!("{n} heard what nobody said, or twice: {event}")
            };
            if next == event {
                break;
            }
            let said =
                next.starts_with(&own) && (next.contains(" PRIVMSG ") || next.contains(" NOTICE "));
            assert!(!here || said, "{n} did not hear {next:?}, but then {event:?}");
        }
        if event.starts_with(&own) && event.contains(" PART ") {
            here = false;
        }
        if event.starts_with(&own) && event.contains(" JOIN ") {
            here = true;
        }
    }
}

const MEMBERS: usize = 1000;
const SPEAKERS: usize = 20;
const ROUNDS: usize = 30;
const PADDING: usize = 450;

/// Reads all that the speakers say in all rounds. Returns how many members it has seen leave because they were too
/// slow.
async fn listen(
    mut client: Client<BufReader<OwnedReadHalf>, Sink>,
    speaks: bool,
    round: mpsc::UnboundedSender<()>,
) -> (Client<BufReader<OwnedReadHalf>, Sink>, usize) {
    let others = if speaks { SPEAKERS - 1 } else { SPEAKERS };
    let (mut lines, mut dropped) = (0, 0);
    let mut said = [0; SPEAKERS];
    while lines < others * ROUNDS {
        let line = client.line().await;
        assert!(!line.is_empty(), "cut off after {lines} lines");
        if line.ends_with(" QUIT :SendQ exceeded") {
            assert!(line.starts_with(":stuck!"), "{line}");
            dropped += 1;
        }
        let Some((head, text)) = line.split_once(" PRIVMSG #a :") else { continue };
        let speaker: usize = head[2..].split('!').next().unwrap().parse().unwrap();
        let (number, padding) = text.split_once(' ').unwrap();
        assert_eq!(number.parse(), Ok(said[speaker]), "{speaker} out of order");
        assert_eq!(padding.len(), PADDING);
        said[speaker] += 1;
        lines += 1;
        if lines % others == 0 {
            round.send(()).unwrap();
        }
    }
    (client, dropped)
}

#[test]
fn of_a_thousand_members_the_one_that_never_reads_is_dropped_and_the_others_hear_all() {
    let name = "of_a_thousand_members_the_one_that_never_reads_is_dropped_and_the_others_hear_all";
    with_descriptors(4096, name, || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(a_thousand_members());
    });
}

async fn a_thousand_members() {
    let server = Server::start().await;
    let alive = Handle::current().metrics().num_alive_tasks();

    let mut first = server.join_channel("s0", "#a").await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stuck = socket.connect(server.addr).await.unwrap();
    stuck.write_all(b"NICK stuck\r\nUSER x 0 * :x\r\nJOIN #a\r\n").await.unwrap();
    first.until(":stuck!~x@127.0.0.1 JOIN #a").await;

    let (done, mut round) = mpsc::unbounded_channel();
    let mut clients = vec![first];
    while clients.len() < MEMBERS - 1 {
        let count = clients.len();
        let more = (MEMBERS - 1 - count).min(50);
        let names: Vec<String> = (count..count + more).map(|n| format!("s{n}")).collect();
        clients.extend(join_all(names.iter().map(|nick| server.join_channel(nick, "#a"))).await);
    }
    let mut outputs = Vec::new();
    let mut listeners = JoinSet::new();
    for (n, client) in clients.into_iter().enumerate() {
        let Client { input, output } = client;
        outputs.push(output);
        let client = Client { input, output: tokio::io::sink() };
        listeners.spawn(listen(client, n < SPEAKERS, done.clone()));
    }

    for number in 0..ROUNDS {
        let line = format!("PRIVMSG #a :{number} {}\r\n", "x".repeat(PADDING));
        for output in &mut outputs[..SPEAKERS] {
            output.write_all(line.as_bytes()).await.unwrap();
        }
        // Wait until every member that reads has heard this round, so that none of them falls behind by chance.
        for _ in 1..MEMBERS {
            round.recv().await.unwrap();
        }
    }

    let mut clients = Vec::new();
    while let Some(listener) = listeners.join_next().await {
        let (client, dropped) = listener.unwrap();
        clients.push((client, dropped));
    }
    assert_eq!(clients.len(), MEMBERS - 1);

    // The server has closed its connection, and not only removed it from the channel: after the output that was under
    // way the connection ends.
    let mut late = Vec::new();
    let reading = tokio::time::timeout(Duration::from_secs(30), stuck.read_to_end(&mut late));
    let _ = reading.await.expect("it is cut off");
    server.stop.cancel();
    for (client, dropped) in &mut clients {
        let mut line = client.line().await;
        if line.ends_with(" QUIT :SendQ exceeded") {
            *dropped += 1;
            line = client.line().await;
        }
        assert_eq!(line, "ERROR :Closing Link: 127.0.0.1 (Server shutting down)");
        assert_eq!(client.line().await, "");
        assert_eq!(*dropped, 1, "all are told, and once");
    }
    drop((outputs, stuck, clients));
    let served = server.stop().await;
    assert_eq!((served.aborted, served.panicked), (0, 0));
    assert!(
        Handle::current().metrics().num_alive_tasks() < alive,
        "the server's own has ended too"
    );
}

/// Runs a test in another process that may open so many descriptors. It is this program, started again by a shell.
#[track_caller]
fn with_descriptors(descriptors: usize, test: &str, run: impl FnOnce()) {
    const AGAIN: &str = "IRC_TEST_STARTED_AGAIN";
    if std::env::var_os(AGAIN).is_some() {
        return run();
    }
    let script = format!("ulimit -n {descriptors}; exec \"$0\" \"$@\"");
    let status = Command::new("sh")
        .args(["-c", &script])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(AGAIN, "1")
        .status();
    assert!(status.unwrap().success());
}

// ---------------------------------------------------------------------------------------------
// The binary

fn start(mut command: Command) -> process::Server {
    process::Server::start(command.arg("127.0.0.1:0"))
}

fn blocking_client(server: &process::Server) -> std::io::BufReader<std::net::TcpStream> {
    std::io::BufReader::new(std::net::TcpStream::connect(&server.addr).unwrap())
}

fn blocking_line(client: &mut std::io::BufReader<std::net::TcpStream>) -> String {
    let mut line = String::new();
    client.read_line(&mut line).unwrap();
    line
}

#[test]
fn the_server_ends_cleanly_at_a_signal() {
    for signal in ["INT", "TERM"] {
        let mut server = start(Command::new(example("irc_server")));
        let mut client = blocking_client(&server);
        client.get_mut().write_all(b"NICK ann\nUSER ann 0 * :x\nPING 1\nhalf a li").unwrap();
        while !blocking_line(&mut client).ends_with("PONG irc.localhost :1\r\n") {}
        let mut other = blocking_client(&server);
        other.get_mut().write_all(b"PING 1\n").unwrap();
        assert_eq!(blocking_line(&mut other), ":irc.localhost PONG irc.localhost :1\r\n");
        server.signal(signal);
        let farewell = "ERROR :Closing Link: 127.0.0.1 (Server shutting down)\r\n";
        assert_eq!(blocking_line(&mut other), farewell);
        assert_eq!(blocking_line(&mut other), "");
        // A client that has begun a line may finish it.
        client.get_mut().write_all(b"ne\n").unwrap();
        assert_eq!(blocking_line(&mut client), ":irc.localhost 421 ann half :Unknown command\r\n");
        let mut rest = String::new();
        client.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, farewell);
        drop((client, other));
        assert!(server.process.wait().unwrap().success());
        let mut rest = String::new();
        server.stdout.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "served 2 connections, 2 at most at a time\n");
    }
}

#[test]
fn without_descriptors_the_server_waits_and_then_goes_on() {
    let mut shell = Command::new("sh");
    shell.args(["-c", "ulimit -n 20; exec \"$0\" \"$@\""]).arg(example("irc_server"));
    let mut server = start(shell);
    // These are more connections than it has descriptors for. The rest wait in the backlog.
    let mut clients: Vec<_> = (0..40).map(|_| blocking_client(&server)).collect();
    // Each client that leaves makes room for the next.
    for mut client in clients.drain(..) {
        client.get_mut().write_all(b"PING 1\n").unwrap();
        assert_eq!(blocking_line(&mut client), ":irc.localhost PONG irc.localhost :1\r\n");
    }
    server.signal("TERM");
    assert!(server.process.wait().unwrap().success());
    let mut rest = String::new();
    server.stdout.read_to_string(&mut rest).unwrap();
    let peak = rest.strip_prefix("served 40 connections, ").and_then(|rest| rest.split(' ').next());
    let peak: usize = peak.unwrap().parse().unwrap();
    assert!((2..20).contains(&peak), "{rest}");
}

#[test]
fn hostile_peers_harm_nobody_else() {
    let server = start(Command::new(example("irc_server")));
    let mut ann = blocking_client(&server);
    ann.get_mut().write_all(b"NICK ann\r\nUSER ann 0 * :x\r\nJOIN #a\r\n").unwrap();
    while !blocking_line(&mut ann).contains(" 366 ") {}
    // A line without an end, a flood of lines, random bytes, a request of HTTP, and connections that are reset.
    let mut endless = blocking_client(&server);
    endless.get_mut().write_all(&vec![b'x'; 3 << 20]).unwrap();
    let mut flood = blocking_client(&server);
    let mut lines = b"NICK flood\r\nUSER x 0 * :x\r\nJOIN #a\r\n".to_vec();
    lines.extend(b"PRIVMSG #a :aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n".repeat(20_000));
    // The client may be cut off while it still sends.
    let _ = flood.get_mut().write_all(&lines);
    let mut noise = blocking_client(&server);
    let bytes: Vec<u8> =
        (0..200_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let _ = noise.get_mut().write_all(&bytes);
    let mut web = blocking_client(&server);
    web.get_mut().write_all(b"GET / HTTP/1.1\r\nHost: irc\r\n\r\n").unwrap();
    assert_eq!(blocking_line(&mut web), ":irc.localhost 451 * :You have not registered\r\n");
    drop((endless, web));
    assert!(blocking_line(&mut ann).contains(" JOIN #a"));
    let mut heard = 0;
    loop {
        let line = blocking_line(&mut ann);
        if line.contains(" QUIT :Excess Flood") {
            break;
        }
        assert!(line.contains(" PRIVMSG #a :aaaa"), "{line}");
        heard += 1;
    }
    assert!(heard <= 20, "{heard}");
    ann.get_mut().write_all(b"PING still\r\n").unwrap();
    assert_eq!(blocking_line(&mut ann), ":irc.localhost PONG irc.localhost :still\r\n");
}
