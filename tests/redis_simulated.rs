//! The Redis example on a simulated network, with clients that are disturbed and clients that are not. What both were
//! told must be true.

#![cfg(feature = "serve")]
#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

#[path = "../examples/redis_server/commands.rs"]
mod commands;
#[path = "../examples/redis_server/protocol.rs"]
mod protocol;
#[allow(dead_code)]
#[path = "../examples/support/proxy_protocol.rs"]
mod proxy_protocol;
#[path = "../examples/redis_server/pubsub.rs"]
mod pubsub;
#[path = "../examples/redis_server/session.rs"]
mod session;
#[path = "support/simulation.rs"]
mod simulation;
#[path = "../examples/redis_server/store.rs"]
mod store;
#[path = "../examples/redis_server/waiting.rs"]
mod waiting;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::time::Duration;

use rand::Rng;
use rand::rngs::SmallRng;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::time::{sleep, timeout};
use turmoil::net::TcpStream;

use simulation::{Faults, for_each_seed, now, random, until};

const TICK: Duration = Duration::from_millis(10);
const LATENCY: Duration = Duration::from_millis(60);
/// Until this time the links are disturbed.
const FAULTS: Duration = Duration::from_secs(10);
/// At this time every client that was disturbed has noticed it.
const SETTLED: Duration = Duration::from_secs(15);
/// A client that receives no answer for this long connects anew.
const PATIENCE: Duration = Duration::from_secs(2);
/// A subscriber that receives nothing for this long connects anew, too. Until [`SETTLED`] something is published in
/// each second.
const SILENCE: Duration = Duration::from_secs(3);
/// A client that is not disturbed is answered within this time, whatever happens to others.
const PROMPT: Duration = Duration::from_secs(1);

const WORKERS: [&str; 3] = ["worker0", "worker1", "worker2"];
const HEARERS: [&str; 2] = ["hearer0", "hearer1"];

#[test]
fn what_clients_of_a_disturbed_network_were_told_is_true() {
    for_each_seed(8, run);
}

fn run(seed: u64) -> u64 {
    let serve = |listener, stop| session::serve(listener, stop, false);
    let (mut sim, stop) = simulation::start(seed, TICK, LATENCY, serve);
    let history = History::default();
    for (part, name) in (1..).zip(WORKERS) {
        let (history, random) = (history.clone(), random(seed, part));
        sim.client(name, async move { Ok(work(random, history, FAULTS, None).await?) });
    }
    let (steady, chance) = (history.clone(), random(seed, 10));
    sim.client("steady", async move {
        work(chance, steady, SETTLED, Some(Duration::from_millis(200))).await?;
        Ok(())
    });
    for name in HEARERS {
        let history = history.clone();
        sim.client(name, async move { Ok(hear(history).await?) });
    }
    let deaf = history.clone();
    sim.client("deaf", async move { Ok(hear_late(deaf).await?) });
    let judge = history.clone();
    sim.client("judge", async move { Ok(judge.judge().await?) });

    let disturbed: Vec<_> = WORKERS.into_iter().chain(HEARERS).collect();
    let faults = Faults::new(random(seed, 11), &disturbed, LATENCY, [12, 8]);
    faults.run(&mut sim, Duration::from_millis(100), FAULTS);
    simulation::end(sim, &stop);
    history.trace.number()
}

// --- What is known -----------------------------------------------------------------------------------

type History = simulation::History<Facts>;

#[derive(Default)]
struct Facts {
    conversations: Vec<Conversation>,
    hearings: Vec<Hearing>,
    /// Whether the end of the conversations was published.
    over: bool,
}

/// The commands that were sent on one connection, in order, and their answers.
#[derive(Default)]
struct Conversation {
    pushes: Vec<Asked>,
    increments: Vec<Asked>,
    published: Vec<Asked>,
}

/// A command that was sent, and its answer, which is always a number.
struct Asked {
    at: Duration,
    answer: Option<(Duration, i64)>,
}

/// The messages that a subscriber has received on one connection.
#[derive(Default)]
struct Hearing {
    since: Duration,
    /// For each conversation, the number of its first message, and how many came.
    heard: BTreeMap<usize, (usize, usize)>,
    /// Whether the end was received.
    complete: bool,
}

/// A message to publish. It can be told from everything else, and its length depends on its numbers.
fn message(conversation: usize, number: usize) -> Vec<u8> {
    let most = if number % 4 == 3 { 120_000 } else { 2000 };
    let length = (conversation * 7919 + number * 104_729) % most;
    let mut message = format!("{conversation}:{number}:").into_bytes();
    message.resize(message.len() + length, b'a' + (number % 26) as u8);
    message
}

// --- Clients -------------------------------------------------------------------------------------------

#[derive(Debug, PartialEq, Eq, Hash)]
enum Reply {
    Simple(String),
    Error(String),
    Integer(i64),
    Bulk(Option<Vec<u8>>),
    Array(Vec<Reply>),
}

struct Client(BufReader<TcpStream>);

impl Client {
    async fn connect() -> io::Result<Self> {
        let connected = timeout(PATIENCE, simulation::connect()).await?;
        Ok(Client(BufReader::new(connected?)))
    }

    async fn send(&mut self, commands: &[Vec<Vec<u8>>]) -> io::Result<()> {
        let mut bytes = Vec::new();
        for words in commands {
            bytes.extend(format!("*{}\r\n", words.len()).bytes());
            for word in words {
                bytes.extend(format!("${}\r\n", word.len()).bytes());
                bytes.extend(word);
                bytes.extend(b"\r\n");
            }
        }
        timeout(PATIENCE, self.0.write_all(&bytes)).await?
    }

    async fn reply(&mut self, patience: Duration) -> io::Result<Reply> {
        timeout(patience, self.read()).await?
    }

    async fn read(&mut self) -> io::Result<Reply> {
        let (kind, text) = self.line().await?;
        let Ok(number) = text.parse::<i64>() else {
            return Ok(match kind {
                b'+' => Reply::Simple(text),
                b'-' => Reply::Error(text),
                _ => panic!("no reply: {text:?}"),
            });
        };
        Ok(match kind {
            b':' => Reply::Integer(number),
            b'$' => Reply::Bulk(self.bulk(number).await?),
            b'*' => {
                let mut items = Vec::new();
                for _ in 0..number {
                    let (kind, text) = self.line().await?;
                    items.push(match kind {
                        b'$' => Reply::Bulk(self.bulk(text.parse().unwrap()).await?),
                        b':' => Reply::Integer(text.parse().unwrap()),
                        _ => panic!("no item: {text:?}"),
                    });
                }
                Reply::Array(items)
            }
            _ => panic!("no reply: {text:?}"),
        })
    }

    async fn line(&mut self) -> io::Result<(u8, String)> {
        let mut line = Vec::new();
        self.0.read_until(b'\n', &mut line).await?;
        if !line.ends_with(b"\n") {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        assert!(line.len() > 2 && line.ends_with(b"\r\n"), "{:?}", line.escape_ascii().to_string());
        Ok((line[0], String::from_utf8(line[1..line.len() - 2].to_vec()).unwrap()))
    }

    async fn bulk(&mut self, length: i64) -> io::Result<Option<Vec<u8>>> {
        let Ok(length) = usize::try_from(length) else { return Ok(None) };
        let mut bytes = vec![0; length + 2];
        self.0.read_exact(&mut bytes).await?;
        assert!(bytes.ends_with(b"\r\n"));
        bytes.truncate(length);
        Ok(Some(bytes))
    }
}

fn words(words: &[&str]) -> Vec<Vec<u8>> {
    words.iter().map(|word| word.as_bytes().to_vec()).collect()
}

/// A client that sends random commands until the end. With `steady`, which is the pause between commands, it is never
/// disturbed.
async fn work(
    mut random: SmallRng,
    history: History,
    end: Duration,
    steady: Option<Duration>,
) -> io::Result<()> {
    while now() < end {
        let conversed = converse(&mut random, &history, end, steady).await;
        history.trace.note(conversed.as_ref().err().map(io::Error::kind));
        if steady.is_some() {
            conversed?;
        } else {
            sleep(Duration::from_millis(50)).await;
        }
    }
    // The links are not disturbed any more, so whoever connects now is served.
    until(end + Duration::from_millis(500)).await;
    let mut client = Client::connect().await?;
    client.send(&[words(&["PING"])]).await?;
    assert_eq!(client.reply(PROMPT).await?, Reply::Simple("PONG".into()));
    Ok(())
}

/// Sends commands on one connection.
async fn converse(
    random: &mut SmallRng,
    history: &History,
    end: Duration,
    steady: Option<Duration>,
) -> io::Result<()> {
    let mut client = Client::connect().await?;
    let id = history.facts().conversations.len();
    history.facts().conversations.push(Conversation::default());
    // No other connection uses this key.
    let key = format!("key{id}");
    let mut value = None;
    while now() < end {
        let mut commands = Vec::new();
        let mut wanted = Vec::new();
        for _ in 0..random.random_range(1..8) {
            let at = now();
            let asked = Asked { at, answer: None };
            let conversation = &mut history.facts().conversations[id];
            let chance = random.random_range(0..12);
            // A steady client always sends something.
            let chance = if steady.is_some() && commands.is_empty() { 5 } else { chance };
            let (command, want) = match chance {
                0..3 => {
                    conversation.pushes.push(asked);
                    let token = format!("{id}:{}", conversation.pushes.len() - 1);
                    (words(&["RPUSH", "log", &token]), Want::Push)
                }
                3..5 => {
                    conversation.increments.push(asked);
                    (words(&["INCR", "counter"]), Want::Increment)
                }
                5..7 => {
                    conversation.published.push(asked);
                    let text = message(id, conversation.published.len() - 1);
                    (vec![b"PUBLISH".into(), b"news".into(), text], Want::Publish)
                }
                7 => {
                    let text = vec![b'x'; random.random_range(0..40_000)];
                    value = Some(text.clone());
                    (
                        vec![b"SET".into(), key.clone().into(), text],
                        Want::Reply(Reply::Simple("OK".into())),
                    )
                }
                8 | 9 => (words(&["GET", &key]), Want::Reply(Reply::Bulk(value.clone()))),
                10 => (words(&["NONE"]), Want::Error),
                _ => {
                    let text = random.random_range(0..u64::MAX).to_string();
                    (words(&["ECHO", &text]), Want::Reply(Reply::Bulk(Some(text.into()))))
                }
            };
            commands.push(command);
            wanted.push(want);
        }
        client.send(&commands).await?;
        for want in wanted {
            let patience = if steady.is_some() { PROMPT } else { PATIENCE };
            let reply = client.reply(patience).await?;
            history.trace.note((id, &reply));
            let conversation = &mut history.facts().conversations[id];
            let asked = match want {
                Want::Reply(wanted) => {
                    assert!(reply == wanted, "{reply:?} for {wanted:?}");
                    continue;
                }
                Want::Error => {
                    assert!(matches!(reply, Reply::Error(_)), "{reply:?}");
                    continue;
                }
                Want::Push => &mut conversation.pushes,
                Want::Increment => &mut conversation.increments,
                Want::Publish => &mut conversation.published,
            };
            let Reply::Integer(number) = reply else { panic!("{reply:?}") };
            let asked = asked.iter_mut().find(|asked| asked.answer.is_none()).unwrap();
            asked.answer = Some((now(), number));
        }
        if let Some(pause) = steady {
            sleep(pause).await;
        } else if random.random_ratio(1, 12) {
            // The client leaves without `QUIT`, and without reading the answer.
            client.send(&[words(&["GET", &key])]).await?;
            return Ok(());
        } else {
            sleep(Duration::from_millis(random.random_range(0..100))).await;
        }
    }
    Ok(())
}

enum Want {
    Reply(Reply),
    Error,
    Push,
    Increment,
    Publish,
}

/// Subscribes again and again, until it has received the end.
async fn hear(history: History) -> io::Result<()> {
    loop {
        let heard = async {
            let mut client = Client::connect().await?;
            let id = subscribe(&mut client, &history).await?;
            while !history.listen(id, client.reply(SILENCE).await?) {}
            Ok(())
        };
        let heard: io::Result<()> = heard.await;
        history.trace.note(heard.as_ref().err().map(io::Error::kind));
        if heard.is_ok() {
            return Ok(());
        }
        assert!(!history.facts().over, "a hearer missed the end, though all was well: {heard:?}");
        sleep(Duration::from_millis(50)).await;
    }
}

/// Subscribes, and reads only when all is over. It then receives all messages; or only the first ones, if the server
/// has disconnected it because more would have to be kept for it than allowed.
async fn hear_late(history: History) -> io::Result<()> {
    let mut client = Client::connect().await?;
    let id = subscribe(&mut client, &history).await?;
    until(SETTLED + Duration::from_secs(2)).await;
    let mut asked = false;
    loop {
        match client.reply(PATIENCE).await {
            Ok(reply) => {
                if history.listen(id, reply) {
                    return Ok(());
                }
            }
            // The simulation loses the close of the peer if as many bytes are in front of it as it can hold. So this
            // sends a command, and learns of the close by that.
            Err(error) if error.kind() == io::ErrorKind::TimedOut && !asked => {
                asked = true;
                let _ = client.send(&[words(&["PING"])]).await;
            }
            Err(error) => {
                history.trace.note(error.kind());
                assert_ne!(
                    error.kind(),
                    io::ErrorKind::TimedOut,
                    "it was neither told nor dropped"
                );
                assert!(!history.facts().hearings[id].heard.is_empty(), "{error}");
                return Ok(());
            }
        }
    }
}

async fn subscribe(client: &mut Client, history: &History) -> io::Result<usize> {
    client.send(&[words(&["SUBSCRIBE", "news"])]).await?;
    let reply = client.reply(PATIENCE).await?;
    let wanted = [b"subscribe", &b"news"[..]].map(|word| Reply::Bulk(Some(word.into())));
    assert_eq!(reply, Reply::Array(wanted.into_iter().chain([Reply::Integer(1)]).collect()));
    let mut facts = history.facts();
    facts.hearings.push(Hearing { since: now(), ..Hearing::default() });
    Ok(facts.hearings.len() - 1)
}

impl History {
    /// Records a message. Returns whether it was the last.
    fn listen(&self, id: usize, reply: Reply) -> bool {
        self.trace.note((id, &reply));
        let hearing = &mut self.facts().hearings[id];
        let Reply::Array(parts) = reply else { panic!("{reply:?}") };
        let [Reply::Bulk(Some(kind)), Reply::Bulk(Some(channel)), Reply::Bulk(Some(text))] =
            &parts[..]
        else {
            panic!("{parts:?}")
        };
        assert_eq!((&kind[..], &channel[..]), (&b"message"[..], &b"news"[..]));
        if text == b"the end" {
            hearing.complete = true;
            return true;
        }
        let mut words = text.split(|byte| *byte == b':');
        let mut number = || {
            let word = words.next().unwrap();
            std::str::from_utf8(word).unwrap().parse::<usize>().unwrap()
        };
        let (from, number) = (number(), number());
        assert!(*text == message(from, number), "this was not said: {from}:{number}");
        let (first, count) = hearing.heard.entry(from).or_insert((number, 0));
        assert_eq!(*first + *count, number, "of {from} something is missing, or out of order");
        *count += 1;
        false
    }

    /// Reads the data from the server when all is over, and compares them with what clients were told.
    async fn judge(&self) -> io::Result<()> {
        until(SETTLED + Duration::from_secs(1)).await;
        self.facts().over = true;
        let mut client = Client::connect().await?;
        let commands = [
            words(&["PUBLISH", "news", "the end"]),
            words(&["LRANGE", "log", "0", "-1"]),
            words(&["GET", "counter"]),
        ];
        client.send(&commands).await?;
        let Reply::Integer(_) = client.reply(PROMPT).await? else { panic!() };
        let Reply::Array(log) = client.reply(PROMPT).await? else { panic!() };
        let Reply::Bulk(Some(counter)) = client.reply(PROMPT).await? else { panic!() };
        // All subscribers receive it, and so does the one that reads late.
        until(SETTLED + Duration::from_secs(8)).await;
        let facts = self.facts();
        let log: Vec<String> = log
            .into_iter()
            .map(|token| match token {
                Reply::Bulk(Some(token)) => String::from_utf8(token).unwrap(),
                token => panic!("{token:?}"),
            })
            .collect();
        facts.check_log(&log);
        facts.check_counter(String::from_utf8(counter).unwrap().parse().unwrap());
        facts.check_published();
        Ok(())
    }
}

impl Facts {
    /// Checks that each push that was answered is at the position of its answer; that none is there twice, or was never
    /// sent; that those of a connection are its first ones, in order; and that a push that was answered before another
    /// was sent is in front of it.
    fn check_log(&self, log: &[String]) {
        let mut next = vec![0; self.conversations.len()];
        let mut latest_sent = Duration::ZERO;
        for (place, token) in (1..).zip(log) {
            let (id, number) = token.split_once(':').unwrap();
            let (id, number): (usize, usize) = (id.parse().unwrap(), number.parse().unwrap());
            assert_eq!(number, next[id], "{token} is out of order");
            next[id] += 1;
            let asked = &self.conversations[id].pushes[number];
            if let Some((at, answer)) = asked.answer {
                assert_eq!(answer, place, "{token}");
                assert!(
                    at >= latest_sent,
                    "{token} was answered before one that is before it was sent"
                );
            }
            latest_sent = latest_sent.max(asked.at);
        }
        for (id, conversation) in self.conversations.iter().enumerate() {
            let answered =
                conversation.pushes.iter().filter(|asked| asked.answer.is_some()).count();
            assert!(
                next[id] >= answered,
                "of {id} {answered} were answered, {} are there",
                next[id]
            );
        }
        assert!(log.len() > 50, "{}", log.len());
    }

    /// Checks that no number was answered twice, and that the counter is not less than the number of answers, and not
    /// more than the number of commands that were sent.
    fn check_counter(&self, counter: i64) {
        let mut told = BTreeSet::new();
        let mut sent = 0;
        for conversation in &self.conversations {
            let answers = conversation.increments.iter().filter_map(|asked| asked.answer);
            let answers: Vec<i64> = answers.map(|(_, answer)| answer).collect();
            assert!(answers.is_sorted());
            assert!(answers.iter().all(|answer| told.insert(*answer)), "told twice");
            sent += conversation.increments.len() as i64;
        }
        assert!(told.len() as i64 <= counter && counter <= sent);
        assert!(told.last().is_none_or(|last| *last <= counter));
    }

    /// Checks that no more subscribers have received a message than its answer said, and that those who have received
    /// the end have received all messages since they subscribed.
    fn check_published(&self) {
        let mut complete = 0;
        for hearing in &self.hearings {
            complete += usize::from(hearing.complete);
            if !hearing.complete {
                continue;
            }
            for (id, conversation) in self.conversations.iter().enumerate() {
                for (number, asked) in conversation.published.iter().enumerate() {
                    if asked.answer.is_some() && asked.at > hearing.since {
                        assert!(hearing.has(id, number), "{id}:{number} was not heard");
                    }
                }
            }
        }
        assert!(complete >= HEARERS.len());
        for (id, conversation) in self.conversations.iter().enumerate() {
            for (number, asked) in conversation.published.iter().enumerate() {
                let heard = self.hearings.iter().filter(|hearing| hearing.has(id, number)).count();
                if let Some((_, answer)) = asked.answer {
                    assert!(heard as i64 <= answer, "{heard} have heard what {answer} should");
                }
            }
        }
    }
}

impl Hearing {
    fn has(&self, conversation: usize, number: usize) -> bool {
        self.heard
            .get(&conversation)
            .is_some_and(|(first, count)| (*first..first + count).contains(&number))
    }
}
