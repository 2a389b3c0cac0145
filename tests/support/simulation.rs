//! A simulated network between the servers of `examples/` and clients, on one thread and on its own clock: messages are
//! delayed, held, or lost; connections are cut; tasks are woken in a random order. All random choices follow from a
//! seed.
//!
//! What is lost stays lost, with all that is sent behind it on the same connection: the simulation does not retransmit.
//! This is like a partition of the network that lasts longer than all timeouts.
//!
//! `SIMULATION_RUNS` sets how many seeds are run, `SIMULATION_SEED` the first. A failure names its seed.
#![allow(dead_code, unreachable_pub)]

use std::cell::{RefCell, RefMut};
use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;
use std::panic::resume_unwind;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, UNIX_EPOCH};
use std::{env, io, thread};

use asynchat::Served;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};
use tokio_util::sync::CancellationToken;
use turmoil::Sim;
use turmoil::net::{TcpListener, TcpStream};

/// The name of the server's host.
pub const SERVER: &str = "server";
pub const PORT: u16 = 4000;

/// Calls `run` for each seed, of which there are `runs` unless the environment says otherwise. The first two are run
/// twice each, and must return the same.
pub fn for_each_seed(runs: u64, run: fn(u64) -> u64) {
    let number = |name: &str| env::var(name).ok().map(|text| text.parse().expect("a number"));
    let first = number("SIMULATION_SEED").unwrap_or(0);
    for seed in first..first + number("SIMULATION_RUNS").unwrap_or(runs) {
        // Each run has a thread of its own, so that it finds no buffers that another has left in the pool.
        let once = || {
            thread::spawn(move || run(seed)).join().unwrap_or_else(|panic| {
                eprintln!("to run it again: SIMULATION_SEED={seed} SIMULATION_RUNS=1");
                resume_unwind(panic)
            })
        };
        let trace = once();
        if seed < first + 2 {
            assert_eq!(trace, once(), "seed {seed} does not repeat");
        }
    }
}

/// A random generator for one part of a run, which other parts do not influence.
pub fn random(seed: u64, part: u64) -> SmallRng {
    SmallRng::seed_from_u64(seed << 8 | part)
}

/// Starts a network with the server on it. Returns it and the token that stops the server. On a healthy link a message
/// takes `latency` at most, and is delivered at the next tick.
pub fn start<'a, S>(
    seed: u64,
    tick: Duration,
    latency: Duration,
    serve: impl Fn(Listener, CancellationToken) -> S + Clone + 'static,
) -> (Sim<'a>, CancellationToken)
where
    S: Future<Output = io::Result<Served>> + 'static,
{
    let mut sim = turmoil::Builder::new()
        .rng_seed(seed)
        .epoch(UNIX_EPOCH + Duration::from_secs(1_700_000_000))
        .tick_duration(tick)
        .simulation_duration(Duration::from_secs(100_000))
        .min_message_latency(Duration::from_millis(1))
        .max_message_latency(latency)
        .enable_random_order()
        .build();
    let stop = CancellationToken::new();
    let told = stop.clone();
    sim.host(SERVER, move || {
        let (serve, stop) = (serve.clone(), told.clone());
        async move {
            let listener = Listener::bind(random(seed, 0)).await?;
            let served = serve(listener, stop).await?;
            assert_eq!((served.panicked, served.accept_errors), (0, 0), "{served:?}");
            Ok(())
        }
    });
    (sim, stop)
}

/// Runs until all clients have left, and calls `look` at regular intervals.
pub fn run(sim: &mut Sim<'_>, interval: Duration, mut look: impl FnMut(&Sim<'_>)) {
    let mut next = Duration::ZERO;
    while !sim.step().expect("no client fails") {
        if sim.elapsed() >= next {
            look(sim);
            next += interval;
        }
    }
}

/// Stops the server, and checks that it ends although there are clients that it will never hear of again.
pub fn end(mut sim: Sim<'_>, stop: &CancellationToken) {
    stop.cancel();
    let end = sim.elapsed() + Duration::from_secs(8);
    while sim.is_host_running(SERVER) {
        assert!(sim.elapsed() < end, "the server does not end");
        sim.step().expect("the server does not fail");
    }
}

/// How long the simulation has been running.
pub fn now() -> Duration {
    turmoil::sim_elapsed().expect("in the simulation")
}

/// Waits until the simulation has been running for this time.
pub async fn until(time: Duration) {
    sleep(time.saturating_sub(now())).await;
}

pub async fn connect() -> io::Result<TcpStream> {
    TcpStream::connect((SERVER, PORT)).await
}

/// A hash of all that has happened in a run, to compare it with a repetition.
#[derive(Clone, Default)]
pub struct Trace(Rc<RefCell<DefaultHasher>>);

impl Trace {
    pub fn note(&self, what: impl Hash) {
        (now(), what).hash(&mut *self.0.borrow_mut());
    }

    pub fn number(&self) -> u64 {
        self.0.borrow().finish()
    }
}

/// What all clients did, and were told. All clones share it.
#[derive(Default)]
pub struct History<F> {
    facts: Rc<RefCell<F>>,
    pub trace: Trace,
}

impl<F> History<F> {
    pub fn facts(&self) -> RefMut<'_, F> {
        self.facts.borrow_mut()
    }
}

impl<F> Clone for History<F> {
    fn clone(&self) -> Self {
        History { facts: self.facts.clone(), trace: self.trace.clone() }
    }
}

// --- The server's end --------------------------------------------------------------------------------

/// The listener of the server. Its connections are [`Rough`].
pub struct Listener {
    listener: Arc<TcpListener>,
    accepting: Option<Accepting>,
    random: SmallRng,
}

type Accepting = Pin<Box<dyn Future<Output = io::Result<(TcpStream, SocketAddr)>>>>;

impl Listener {
    pub async fn bind(random: SmallRng) -> io::Result<Self> {
        let listener = Arc::new(TcpListener::bind(("0.0.0.0", PORT)).await?);
        Ok(Listener { listener, accepting: None, random })
    }
}

impl tokio_util::net::Listener for Listener {
    type Io = Rough<TcpStream>;
    type Addr = SocketAddr;

    fn poll_accept(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<(Rough<TcpStream>, SocketAddr)>> {
        let accepting = self.accepting.get_or_insert_with(|| {
            let listener = self.listener.clone();
            Box::pin(async move { listener.accept().await })
        });
        let accepted = ready!(accepting.as_mut().poll(cx));
        self.accepting = None;
        let random = SmallRng::from_rng(&mut self.random);
        Poll::Ready(accepted.map(|(io, peer)| (Rough { io, random, pause: None }, peer)))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A stream that is sometimes not ready until everybody else has had a turn, or for some milliseconds, and that
/// sometimes reads and writes less than it could.
pub struct Rough<S> {
    io: S,
    random: SmallRng,
    pause: Option<Pin<Box<Sleep>>>,
}

/// The most bytes of a read or write that is cut short.
const PIECE: usize = 300;

impl<S> Rough<S> {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.pause.is_none() {
            match self.random.random_range(0..64) {
                0..8 => {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                8 => {
                    let time = Duration::from_millis(self.random.random_range(1..10));
                    self.pause = Some(Box::pin(sleep(time)));
                }
                _ => {}
            }
        }
        if let Some(pause) = &mut self.pause {
            ready!(pause.as_mut().poll(cx));
            self.pause = None;
        }
        Poll::Ready(())
    }

    fn piece(&mut self) -> Option<usize> {
        self.random.random_ratio(1, 4).then(|| self.random.random_range(1..=PIECE))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Rough<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_ready(cx));
        let Some(most) = self.piece() else { return Pin::new(&mut self.io).poll_read(cx, buf) };
        let mut piece = [0; PIECE];
        let mut piece = ReadBuf::new(&mut piece[..most.min(buf.remaining())]);
        ready!(Pin::new(&mut self.io).poll_read(cx, &mut piece))?;
        buf.put_slice(piece.filled());
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Rough<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_ready(cx));
        let most = self.piece().unwrap_or(usize::MAX).min(buf.len());
        Pin::new(&mut self.io).poll_write(cx, &buf[..most])
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

// --- What goes wrong ---------------------------------------------------------------------------------

/// Disturbs the links between some clients and the server, each independently.
pub struct Faults {
    random: SmallRng,
    links: Vec<(&'static str, State)>,
    /// The most time that a message takes on a healthy link.
    latency: Duration,
    /// About how many looks a link is healthy, and how many it is disturbed.
    looks: [u32; 2],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    Well,
    /// Messages take up to ten times as long.
    Slow,
    /// Messages are held, and delivered when this is over.
    Held,
    /// Messages are lost, in both directions.
    Cut,
    /// Messages to the client are lost.
    Deaf,
    /// Messages to the server are lost.
    Mute,
}

impl Faults {
    pub fn new(
        random: SmallRng,
        clients: &[&'static str],
        latency: Duration,
        looks: [u32; 2],
    ) -> Self {
        let links = clients.iter().map(|client| (*client, State::Well)).collect();
        Faults { random, links, latency, looks }
    }

    /// Runs until all clients have left, and until `end` disturbs the links at regular intervals.
    pub fn run(self, sim: &mut Sim<'_>, interval: Duration, end: Duration) {
        let mut faults = Some(self);
        let mut seen = BTreeSet::new();
        run(sim, interval, |sim| match &mut faults {
            Some(faults) if sim.elapsed() < end => seen.extend(faults.look(sim)),
            _ => {
                if let Some(faults) = faults.take() {
                    faults.heal(sim);
                }
            }
        });
        assert!(seen.len() > 1, "nothing was disturbed");
    }

    /// Changes some of the links at random. Returns the states of all.
    fn look(&mut self, sim: &Sim<'_>) -> impl Iterator<Item = State> + use<'_> {
        use State::*;
        let [well, ill] = self.looks;
        for (client, state) in &mut self.links {
            match state {
                Well if self.random.random_ratio(1, well) => {
                    let faults = [Slow, Held, Cut, Deaf, Mute];
                    *state = *faults.choose(&mut self.random).expect("some");
                    state.begin(sim, client, self.latency);
                }
                Well => {}
                _ if self.random.random_ratio(1, ill) => {
                    state.end(sim, client, self.latency);
                    *state = Well;
                }
                _ => {}
            }
        }
        self.links.iter().map(|(_, state)| *state)
    }

    /// Repairs all links.
    fn heal(self, sim: &Sim<'_>) {
        for (client, state) in self.links {
            state.end(sim, client, self.latency);
        }
    }
}

impl State {
    fn begin(self, sim: &Sim<'_>, client: &str, latency: Duration) {
        match self {
            State::Well => {}
            State::Slow => sim.set_link_max_message_latency(client, SERVER, 10 * latency),
            State::Held => sim.hold(client, SERVER),
            State::Cut => sim.partition(client, SERVER),
            State::Deaf => sim.partition_oneway(SERVER, client),
            State::Mute => sim.partition_oneway(client, SERVER),
        }
    }

    fn end(self, sim: &Sim<'_>, client: &str, latency: Duration) {
        match self {
            State::Well => {}
            State::Slow => sim.set_link_max_message_latency(client, SERVER, latency),
            State::Held => sim.release(client, SERVER),
            State::Cut => sim.repair(client, SERVER),
            State::Deaf => sim.repair_oneway(SERVER, client),
            State::Mute => sim.repair_oneway(client, SERVER),
        }
    }
}
