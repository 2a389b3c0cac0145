//! The IRC example on a simulated network: people in one channel, some of whom lose their connection and come again.
//! What each of them was told must agree with what the others did.

#![cfg(feature = "serve")]
#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

#[path = "../examples/irc_server/commands.rs"]
mod commands;
#[path = "../examples/irc_server/message.rs"]
mod message;
#[path = "../examples/irc_server/network.rs"]
mod network;
#[allow(dead_code)] // There is no real listener here.
#[path = "../examples/irc_server/session.rs"]
mod session;
#[path = "support/simulation.rs"]
mod simulation;

use std::cell::RefMut;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::time::Duration;

use futures::{SinkExt, StreamExt};
use rand::Rng;
use rand::rngs::SmallRng;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::codec::{Framed, LinesCodec, LinesCodecError};
use tokio_util::sync::CancellationToken;
use turmoil::Sim;
use turmoil::net::TcpStream;

use simulation::{Faults, SERVER, for_each_seed, now, random, until};

const TICK: Duration = Duration::from_millis(200);
const LATENCY: Duration = Duration::from_millis(600);
const ROOM: &str = "#room";
/// Until this time the links are disturbed.
const FAULTS: Duration = seconds(600);
/// At this time the server has dropped everybody who has disappeared.
const SETTLED: Duration = seconds(FAULTS.as_secs() + GONE.as_secs());
/// At this time everybody leaves.
const END: Duration = seconds(SETTLED.as_secs() + 20);
/// Within this time after somebody was last heard, the others are told that he is gone. The server asks after 120
/// seconds, and waits 240 seconds for the answer. The rest is for what is under way.
const GONE: Duration = seconds(120 + 240 + 10);
/// A client that hears nothing for this long gives up its connection and comes again. The server sends something after
/// 120 seconds.
const SILENCE: Duration = seconds(150);
/// A message between two people who are not disturbed takes no longer, whatever happens to others.
const PROMPT: Duration = seconds(4);

const STEADY: [&str; 2] = ["anna", "ben"];
const DISTURBED: [&str; 3] = ["carl", "dora", "emil"];

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn what_people_on_a_disturbed_network_were_told_is_true() {
    for_each_seed(4, |seed| {
        let (mut sim, stop) = start(seed);
        let history = History::default();
        for (part, name) in (1..).zip(STEADY) {
            let (history, mut random) = (history.clone(), random(seed, part));
            sim.client(name, async move { Ok(history.visit(name, &mut random, END).await?) });
        }
        for (part, name) in (10..).zip(DISTURBED) {
            let (history, mut random) = (history.clone(), random(seed, part));
            sim.client(name, async move {
                while now() < FAULTS {
                    let visited = history.visit(name, &mut random, FAULTS).await;
                    history.trace.note(visited.err().map(|error| error.kind()));
                    sleep(seconds(random.random_range(1..5))).await;
                }
                // The links are not disturbed any more, so whoever comes now may stay.
                Ok(history.visit(name, &mut random, END).await?)
            });
        }
        let judge = history.clone();
        sim.client("judge", async move { Ok(judge.judge().await?) });

        let faults = Faults::new(random(seed, 20), &DISTURBED, LATENCY, [10, 10]);
        faults.run(&mut sim, seconds(10), FAULTS);
        simulation::end(sim, &stop);
        history.facts().check();
        history.trace.number()
    });
}

#[test]
fn who_is_cut_off_times_out_and_the_others_are_told() {
    for_each_seed(4, |seed| {
        let (mut sim, stop) = start(seed);
        let history = History::default();
        let cut = seconds(100 + seed % 60);
        for (part, name) in (1..).zip([STEADY[0], STEADY[1], "carl"]) {
            let (history, mut random) = (history.clone(), random(seed, part));
            sim.client(name, async move {
                let end = if name == "carl" { cut } else { cut + GONE };
                Ok(history.visit(name, &mut random, end).await?)
            });
        }
        let mut is_cut = false;
        simulation::run(&mut sim, TICK, |sim| {
            if !is_cut && sim.elapsed() + TICK >= cut {
                // He closes his connection, but the network is cut, and nobody learns of it.
                sim.partition("carl", SERVER);
                is_cut = true;
            }
        });
        let facts = history.facts();
        facts.check();
        let carl = facts.people.iter().find(|person| person.nick.starts_with("carl")).unwrap();
        for observer in facts.people.iter().filter(|person| person.steady) {
            let gone = observer.lines.iter().filter_map(|(at, line)| match line {
                Line::Gone(nick, why) if *nick == carl.nick => Some((at, why.as_str())),
                _ => None,
            });
            let gone: Vec<_> = gone.collect();
            let [(at, "Ping timeout: 240 seconds")] = gone[..] else { panic!("{gone:?}") };
            assert!(*at > carl.last_sent + seconds(240), "{at:?}, last sent {:?}", carl.last_sent);
        }
        drop(facts);
        simulation::end(sim, &stop);
        history.trace.number()
    });
}

/// A network with the server on it.
fn start<'a>(seed: u64) -> (Sim<'a>, CancellationToken) {
    simulation::start(seed, TICK, LATENCY, |listener, stop| session::serve(listener, stop, true))
}

// --- What is known -----------------------------------------------------------------------------------

type History = simulation::History<Facts>;

#[derive(Default)]
struct Facts {
    people: Vec<Person>,
    /// Who is in the channel in the end, as the judge was told by the server.
    names: BTreeSet<String>,
}

/// A person, from the time he connects until he gives up the connection.
struct Person {
    /// The nickname, which nobody else has ever had.
    nick: String,
    steady: bool,
    joined: Option<Duration>,
    left: Option<Duration>,
    last_sent: Duration,
    /// The times at which he has sent his messages.
    said: Vec<Duration>,
    lines: Vec<(Duration, Line)>,
}

#[derive(Debug, Hash)]
enum Line {
    Names(Vec<String>),
    Joined(String),
    Said(String, usize),
    Gone(String, String),
}

impl Line {
    /// Parses a line that is about the channel, and returns `None` for others.
    fn parse(line: &str) -> Option<Line> {
        let (source, rest) = line.strip_prefix(':')?.split_once(' ')?;
        let (command, rest) = rest.split_once(' ')?;
        let nick = source.split('!').next()?.to_owned();
        let text = rest.split_once(':').map_or(rest, |(_, text)| text);
        Some(match command {
            "JOIN" => Line::Joined(nick),
            "QUIT" => Line::Gone(nick, text.to_owned()),
            "PRIVMSG" => Line::Said(nick, text.parse().unwrap()),
            "353" => Line::Names(
                text.split(' ').map(|name| name.trim_start_matches('@').to_owned()).collect(),
            ),
            "433" => panic!("{line}"),
            _ => return None,
        })
    }
}

type Lines = Framed<TcpStream, LinesCodec>;

fn failed(error: LinesCodecError) -> io::Error {
    match error {
        LinesCodecError::Io(error) => error,
        error => panic!("{error}"),
    }
}

async fn send(io: &mut Lines, line: impl AsRef<str>) -> io::Result<()> {
    timeout(seconds(30), io.send(line)).await?.map_err(failed)
}

impl History {
    fn person(&self, id: usize) -> RefMut<'_, Person> {
        RefMut::map(self.facts(), |facts| &mut facts.people[id])
    }

    /// Connects, and sends and receives messages for a while.
    async fn visit(&self, name: &str, random: &mut SmallRng, end: Duration) -> io::Result<()> {
        let io = timeout(seconds(10), simulation::connect()).await??;
        let io = Framed::new(io, LinesCodec::new());
        let id = self.facts().people.len();
        let nick = format!("{name}{id}");
        self.facts().people.push(Person {
            nick: nick.clone(),
            steady: STEADY.contains(&name),
            joined: None,
            left: None,
            last_sent: now(),
            said: Vec::new(),
            lines: Vec::new(),
        });
        let visited = self.stay(io, id, &nick, random, end).await;
        // The connection is closed now.
        self.person(id).left = Some(now());
        self.trace.note((id, visited.as_ref().err().map(io::Error::kind)));
        visited
    }

    async fn stay(
        &self,
        mut io: Lines,
        id: usize,
        nick: &str,
        random: &mut SmallRng,
        end: Duration,
    ) -> io::Result<()> {
        for line in
            [format!("NICK {nick}"), format!("USER {nick} 0 * :{nick}"), format!("JOIN {ROOM}")]
        {
            send(&mut io, line).await?;
        }
        let steady = self.person(id).steady;
        let pause =
            |random: &mut SmallRng| seconds(random.random_range(5..if steady { 20 } else { 60 }));
        let mut next = now() + pause(random);
        let mut heard = now();
        while now() < end {
            let deadline = next.min(heard + SILENCE).min(end);
            let line = timeout_at(Instant::now() + deadline.saturating_sub(now()), io.next()).await;
            if let Ok(line) = line {
                let line = line.ok_or(io::ErrorKind::UnexpectedEof)?.map_err(failed)?;
                heard = now();
                self.trace.note((id, &line));
                if let Some(token) = line.strip_prefix("PING ") {
                    self.person(id).last_sent = now();
                    send(&mut io, format!("PONG {token}")).await?;
                } else if line.contains(" 366 ") {
                    self.person(id).joined = Some(now());
                } else if let Some(line) = Line::parse(&line) {
                    self.person(id).lines.push((now(), line));
                }
            }
            if now() >= heard + SILENCE {
                return Err(io::ErrorKind::TimedOut.into());
            }
            if now() >= next {
                next = now() + pause(random);
                if self.person(id).joined.is_none() {
                    continue;
                }
                match random.random_range(0..24) {
                    0 if !steady && end == FAULTS => return send(&mut io, "QUIT :bye").await,
                    // He leaves without `QUIT`.
                    1 if !steady && end == FAULTS => return Ok(()),
                    _ => {}
                }
                let number = {
                    let mut person = self.person(id);
                    person.last_sent = now();
                    person.said.push(now());
                    person.said.len() - 1
                };
                send(&mut io, format!("PRIVMSG {ROOM} :{number}")).await?;
            }
        }
        Ok(())
    }

    /// Asks the server who is there when all is over.
    async fn judge(&self) -> io::Result<()> {
        until(SETTLED + seconds(10)).await;
        let mut io = Framed::new(simulation::connect().await?, LinesCodec::new());
        for line in ["NICK judge", "USER judge 0 * :judge", &format!("JOIN {ROOM}")] {
            send(&mut io, line).await?;
        }
        let told = async {
            loop {
                let line = io.next().await.ok_or(io::ErrorKind::UnexpectedEof)?.map_err(failed)?;
                if let Some(Line::Names(names)) = Line::parse(&line) {
                    self.facts().names.extend(names);
                } else if line.contains(" 366 ") {
                    return Ok(());
                }
            }
        };
        timeout(PROMPT, told).await?
    }
}

impl Facts {
    fn check(&self) {
        for observer in &self.people {
            self.check_lines(observer);
        }
        let steady: Vec<_> = self.people.iter().filter(|person| person.steady).collect();
        assert_eq!(steady.len(), STEADY.len(), "one who was not disturbed had to come again");
        for observer in steady {
            self.check_gone(observer);
        }
        if !self.names.is_empty() {
            let stayed =
                self.people.iter().filter(|person| person.left.is_some_and(|at| at >= END));
            let stayed = stayed.map(|person| person.nick.clone());
            assert_eq!(self.names, stayed.chain(["judge".into()]).collect());
        }
    }

    /// Checks that an observer hears of a person from the time that the person is there until he is gone, and not
    /// afterwards; and that he hears all that the person says, in order, and nothing else.
    fn check_lines(&self, observer: &Person) {
        // The number of the message that each person says next, once that is known.
        let mut there: BTreeMap<&str, Option<usize>> = BTreeMap::new();
        let mut gone = BTreeSet::new();
        for (at, line) in &observer.lines {
            let about = || format!("{} at {at:?}: {line:?}", observer.nick);
            match line {
                Line::Names(names) => {
                    there.extend(names.iter().map(|name| (name.as_str(), None)));
                }
                Line::Joined(nick) if *nick == observer.nick => {}
                Line::Joined(nick) => {
                    assert!(there.insert(nick, Some(0)).is_none(), "{}", about());
                    assert!(!gone.contains(nick), "{}", about());
                }
                Line::Said(nick, number) => {
                    let next =
                        there.get_mut(nick.as_str()).unwrap_or_else(|| panic!("{}", about()));
                    assert!(next.is_none_or(|next| next == *number), "{} {next:?}", about());
                    *next = Some(number + 1);
                    let said = self.find(nick).said.get(*number);
                    assert!(said.is_some_and(|said| said < at), "{}", about());
                }
                Line::Gone(nick, _) => {
                    assert!(there.remove(nick.as_str()).is_some(), "{}", about());
                    gone.insert(nick);
                }
            }
        }
    }

    /// Checks that an observer who was not disturbed is told in time of everybody who left, and is told promptly what
    /// others say who were not disturbed, either.
    fn check_gone(&self, observer: &Person) {
        let (joined, end) = (observer.joined.unwrap(), observer.left.unwrap());
        let heard = |wanted: &dyn Fn(&Line) -> bool| {
            observer.lines.iter().find(|(_, line)| wanted(line)).map(|(at, _)| *at)
        };
        for person in &self.people {
            let nick = &person.nick;
            if person.steady && person.nick != observer.nick {
                for (number, said) in person.said.iter().enumerate() {
                    if *said > joined + PROMPT && *said + PROMPT < end {
                        let at = heard(
                            &|line| matches!(line, Line::Said(who, what) if who == nick && *what == number),
                        );
                        assert!(
                            at.is_some_and(|at| at <= *said + PROMPT),
                            "{nick} {number}: {at:?}"
                        );
                    }
                }
            }
            let gone = heard(&|line| matches!(line, Line::Gone(who, _) if who == nick));
            let left = person.left.unwrap();
            let seen = heard(&|line| matches!(line, Line::Joined(who) if who == nick));
            if person.steady {
                assert!(gone.is_none_or(|at| at >= left), "{nick} is gone at {gone:?}");
            } else if seen.is_some() && left + GONE < end {
                assert!(
                    gone.is_some_and(|at| at <= left + GONE),
                    "{nick} left at {left:?}, is gone at {gone:?}"
                );
            }
        }
    }

    fn find(&self, nick: &str) -> &Person {
        self.people.iter().find(|person| person.nick == nick).unwrap()
    }
}
