//! A small harness for comparing: what is measured is a ratio, in one run.
//!
//! Every competitor of a row does the same work on the same input and returns a checksum of what it
//! was handed, which must be the expected one. The competitors of a row take turns: in each round
//! every one of them runs once, in an order that is shuffled anew, and the ratio is taken within the
//! round. What is printed is the median over the rounds, so that a busy neighbour or a change of
//! clock speed in the middle of a run moves all the competitors and not the ratio.

#![forbid(unsafe_code)]

pub mod input;
pub mod io;
pub mod lines;
pub mod resp;

use std::fmt;
use std::hint::black_box;
use std::time::{Duration, Instant};

use input::Random;
use rustix::time::{ClockId, clock_gettime};

const BUDGET: Duration = Duration::from_millis(1500);
const LEAST_ROUNDS: usize = 15;
const MOST_ROUNDS: usize = 301;

/// A table of rows, printed as they are measured.
///
/// Command line: `[ROW]... [--quick] [--only=COMPETITOR]`. Rows whose names contain none of the words
/// given are left out; `--quick` runs small inputs a few times only, for the sake of the checksums. So
/// does a run that is not `cargo bench`'s. With `--only` one competitor runs alone, for a profiler.
pub struct Bench {
    quick: bool,
    filters: Vec<String>,
    only: Option<String>,
    random: Random,
    rows: usize,
    verdicts: [usize; 3],
}

impl Bench {
    /// Reads the command line and prints the table's head.
    pub fn from_args() -> Bench {
        let mut bench = Bench {
            quick: true,
            filters: Vec::new(),
            only: None,
            random: Random::new(1),
            rows: 0,
            verdicts: [0; 3],
        };
        let mut quick = false;
        for argument in std::env::args().skip(1) {
            match &*argument {
                "--bench" => bench.quick = false,
                "--quick" => quick = true,
                flag if flag.starts_with("--only=") => {
                    bench.only = flag.split_once('=').map(|(_, only)| only.to_owned());
                }
                flag if flag.starts_with('-') => {}
                filter => bench.filters.push(filter.to_owned()),
            }
        }
        bench.quick |= quick;
        // The allocator of a program that has run for a while: it no longer gives large blocks back to
        // the system at once, to fault them in again for the next frame. That helps the peers.
        drop(black_box(vec![1_u8; 31 << 20]));
        println!(
            "{:<52} {:<38} {:>11} {:>7} {:>7} {:>6} {:>6}",
            "row", "competitor", "ns/item", "MB/s", "ratio", "floor", "goal"
        );
        bench
    }

    /// Whether inputs are to be small and rounds few.
    pub fn quick(&self) -> bool {
        self.quick
    }

    /// `full`, or `quick` in a quick run.
    pub fn size(&self, full: usize, quick: usize) -> usize {
        if self.quick { quick } else { full }
    }

    /// Whether the command line does not leave the row out.
    pub fn wants(&self, name: &str) -> bool {
        self.filters.is_empty() || self.filters.iter().any(|filter| name.contains(filter))
    }

    /// Starts a row, unless the command line leaves it out.
    pub fn row<'a>(&'a mut self, name: &str) -> Option<Row<'a>> {
        if !self.wants(name) {
            return None;
        }
        Some(Row {
            bench: self,
            name: name.to_owned(),
            items: 1,
            bytes: 0,
            checksum: None,
            budget: BUDGET,
            competitors: Vec::new(),
        })
    }

    /// Prints what there was to see in all.
    pub fn finish(self) {
        let [goal, floor, behind] = self.verdicts;
        println!("{} rows, all checksums as expected", self.rows);
        if !self.quick && goal + floor + behind > 0 {
            println!("{goal} ratios at their goal, {floor} at their floor, {behind} behind");
        }
    }
}

impl fmt::Debug for Bench {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bench")
            .field("quick", &self.quick)
            .field("filters", &self.filters)
            .finish_non_exhaustive()
    }
}

type Run<'a> = Box<dyn FnMut() -> (Duration, u64) + 'a>;

struct Competitor<'a> {
    name: String,
    run: Run<'a>,
    against: Against,
    checksum: Option<u64>,
    items: Option<usize>,
    bytes: Option<usize>,
}

enum Against {
    /// Only shown.
    Nothing,
    /// The row's first competitor is to be this much faster (or slower) than this one.
    Bounds { floor: f64, goal: f64 },
    /// The ratio of the first competitor to this one is shown, but bound by nothing.
    Unbound,
}

/// One workload, and those who do it.
///
/// The first competitor is ours; the ratio printed beside each of the others is the first one's time
/// divided by theirs, so smaller is better.
#[must_use = "a row measures nothing until it is run"]
pub struct Row<'a> {
    bench: &'a mut Bench,
    name: String,
    items: usize,
    bytes: usize,
    checksum: Option<u64>,
    budget: Duration,
    competitors: Vec<Competitor<'a>>,
}

impl<'a> Row<'a> {
    /// How many items, and how many bytes in all, one run of a competitor goes through.
    pub fn work(mut self, items: usize, bytes: usize) -> Self {
        self.items = items;
        self.bytes = bytes;
        self
    }

    /// What every run of every competitor is to return. Without it, they are to agree.
    pub fn expect(mut self, checksum: u64) -> Self {
        self.checksum = Some(checksum);
        self
    }

    /// How long to go on with rounds, once there are enough of them.
    pub fn budget(mut self, budget: Duration) -> Self {
        self.budget = budget;
        self
    }

    /// Adds a competitor with no ratio: the first one, or one that is only shown.
    pub fn with(self, name: &str, run: impl FnMut() -> u64 + 'a) -> Self {
        self.push(name, Against::Nothing, timed(run))
    }

    /// Adds a peer, with the ratio we reached and the one we want.
    pub fn against(self, name: &str, floor: f64, goal: f64, run: impl FnMut() -> u64 + 'a) -> Self {
        self.push(name, Against::Bounds { floor, goal }, timed(run))
    }

    /// Adds a peer whose ratio is shown, and nothing more.
    pub fn beside(self, name: &str, run: impl FnMut() -> u64 + 'a) -> Self {
        self.push(name, Against::Unbound, timed(run))
    }

    /// Adds a competitor that measures itself, and returns its time beside its checksum: for what
    /// has to be set up anew each time, or goes by another clock. The first of a row is shown as
    /// with [`Row::with`]; others stand against `bounds`, a floor and a goal, if there are any.
    pub fn self_timed(
        self,
        name: &str,
        bounds: Option<(f64, f64)>,
        run: impl FnMut() -> (Duration, u64) + 'a,
    ) -> Self {
        let against = match bounds {
            Some((floor, goal)) => Against::Bounds { floor, goal },
            None if self.competitors.is_empty() => Against::Nothing,
            None => Against::Unbound,
        };
        self.push(name, against, Box::new(run))
    }

    fn push(mut self, name: &str, against: Against, run: Run<'a>) -> Self {
        self.competitors.push(Competitor {
            name: name.to_owned(),
            run,
            against,
            checksum: None,
            items: None,
            bytes: None,
        });
        self
    }

    /// Gives the competitor added last a checksum of its own.
    pub fn expecting(mut self, checksum: u64) -> Self {
        if let Some(competitor) = self.competitors.last_mut() {
            competitor.checksum = Some(checksum);
        }
        self
    }

    /// Gives the competitor added last an amount of work of its own.
    pub fn working(mut self, items: usize, bytes: usize) -> Self {
        if let Some(competitor) = self.competitors.last_mut() {
            competitor.items = Some(items);
            competitor.bytes = Some(bytes);
        }
        self
    }

    /// Measures the row, and prints it.
    ///
    /// # Panics
    ///
    /// Panics if a competitor comes to another checksum than it should.
    pub fn run(mut self) {
        if let Some(only) = &self.bench.only {
            self.competitors.retain(|competitor| competitor.name == *only);
            let Some(competitor) = self.competitors.first_mut() else {
                return;
            };
            competitor.against = Against::Nothing;
        }
        // A first round warms up, and settles what is expected of the others.
        let mut expected = self.checksum;
        for competitor in &mut self.competitors {
            let (_, checksum) = (competitor.run)();
            let wanted = match competitor.checksum {
                Some(own) => own,
                None => *expected.get_or_insert(checksum),
            };
            assert_eq!(
                checksum, wanted,
                "{}: {} came to another checksum",
                self.name, competitor.name
            );
            competitor.checksum = Some(wanted);
        }

        let mut times = vec![Vec::new(); self.competitors.len()];
        let mut order: Vec<usize> = (0..self.competitors.len()).collect();
        let start = Instant::now();
        let mut rounds = 0;
        while if self.bench.quick {
            rounds < 1
        } else {
            rounds < LEAST_ROUNDS || (rounds < MOST_ROUNDS && start.elapsed() < self.budget)
        } {
            self.bench.random.shuffle(&mut order);
            for &i in &order {
                let competitor = &mut self.competitors[i];
                let (time, checksum) = (competitor.run)();
                assert_eq!(
                    Some(checksum),
                    competitor.checksum,
                    "{}: {} came to another checksum",
                    self.name,
                    competitor.name
                );
                times[i].push(time.as_secs_f64() * 1e9);
            }
            rounds += 1;
        }
        self.print(&times);
        self.bench.rows += 1;
    }

    fn print(&mut self, times: &[Vec<f64>]) {
        for (i, competitor) in self.competitors.iter().enumerate() {
            let time = median(times[i].clone());
            let items = competitor.items.unwrap_or(self.items);
            let bytes = competitor.bytes.unwrap_or(self.bytes);
            let row = if i == 0 { &*self.name } else { "" };
            let per_item = time / items.max(1) as f64;
            let rate = bytes as f64 / time * 1e3;
            print!("{row:<52} {:<38} {per_item:>11.2} {rate:>7.0}", competitor.name);
            let ratio = || {
                let rounds = times[0].iter().zip(&times[i]);
                median(rounds.map(|(ours, theirs)| ours / theirs).collect())
            };
            match competitor.against {
                Against::Nothing => println!(),
                Against::Unbound => println!(" {:>7.3}", ratio()),
                Against::Bounds { floor, goal } if self.bench.quick => {
                    println!(" {:>7.3} {floor:>6} {goal:>6}", ratio());
                }
                Against::Bounds { floor, goal } => {
                    let ratio = ratio();
                    let (verdict, said) = if ratio <= goal {
                        (0, "goal")
                    } else if ratio <= floor {
                        (1, "floor")
                    } else {
                        (2, "behind")
                    };
                    self.bench.verdicts[verdict] += 1;
                    println!(" {ratio:>7.3} {floor:>6} {goal:>6} {said}");
                }
            }
        }
    }
}

impl fmt::Debug for Row<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Row")
            .field("name", &self.name)
            .field("items", &self.items)
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

fn timed<'a>(mut run: impl FnMut() -> u64 + 'a) -> Run<'a> {
    Box::new(move || {
        let start = thread_time();
        let checksum = black_box(run());
        (thread_time() - start, checksum)
    })
}

/// How long this thread has run: what a busy neighbour takes does not count.
pub fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

/// The middle one; the upper middle one of an even number.
///
/// # Panics
///
/// Panics if there is none.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// A checksum of frames, that costs the one who takes it next to nothing: how many there were, how
/// long they were in all, and the last byte of each.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    sum: u64,
    last: u8,
}

impl Tally {
    /// Takes a piece of a frame.
    #[inline]
    pub fn chunk(&mut self, chunk: &[u8]) {
        self.sum += chunk.len() as u64;
        if let Some(&last) = chunk.last() {
            self.last = last;
        }
    }

    /// Takes the end of a frame.
    #[inline]
    pub fn end(&mut self) {
        self.sum += (1 << 40) + u64::from(self.last);
        self.last = 0;
    }

    /// Takes a whole frame.
    #[inline]
    pub fn frame(&mut self, frame: &[u8]) {
        self.sum += (1 << 40) + frame.len() as u64 + u64::from(frame.last().copied().unwrap_or(0));
    }

    /// What it comes to.
    #[inline]
    pub fn sum(&self) -> u64 {
        self.sum
    }
}
