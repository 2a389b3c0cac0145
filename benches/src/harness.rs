//! The harness. It measures the ratio of competitors to one another, within one run.
//!
//! Every competitor of a row does the same work on the same input and returns a checksum of the frames that it
//! got, which must be the expected one. The competitors of a row take turns: in each round every one of them
//! runs once, in a newly shuffled order, and a ratio is taken within the round. The medians over the rounds are
//! printed. So a busy neighbour or a change of clock speed in the middle of a run affects all competitors alike
//! and not the ratio.

use std::fmt;
use std::fs::OpenOptions;
use std::hint::black_box;
use std::io::Write;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use crate::input::Random;
use crate::record::{Figure, Goal};

const BUDGET: Duration = Duration::from_millis(1500);
const LEAST_ROUNDS: usize = 15;
const MOST_ROUNDS: usize = 301;

/// One run of a bench, which prints its rows as they are measured.
///
/// Command line of each bench: `[ROW]... [OPTION]...`. Rows whose names contain none of the words given
/// are left out.
///
/// - `--quick` runs small inputs a few times, only to check the checksums. A run that `cargo bench` has not started
///   does so, too.
/// - `--row=ROW` runs only the row of that name, `--only=COMPETITOR` only that competitor of each row: for a
///   profiler.
/// - `--record=FILE` also appends each figure to a file, one on each line: see [`Figure`].
/// - `--list` runs nothing and prints what `--count` can count.
/// - `--count` runs each competitor on small inputs, once to warm up and once inside [`counted`], for a tool that
///   counts the instructions of that function.
pub struct Bench {
    mode: Mode,
    filters: Vec<String>,
    exactly: Option<String>,
    only: Option<String>,
    record: Option<String>,
    random: Random,
    rows: usize,
    goals: [usize; 2],
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Measure,
    Quick,
    List,
    Count,
}

impl Bench {
    /// Reads the command line.
    pub fn from_args() -> Bench {
        let mut bench = Bench {
            mode: Mode::Quick,
            filters: Vec::new(),
            exactly: None,
            only: None,
            record: None,
            random: Random::new(1),
            rows: 0,
            goals: [0; 2],
        };
        let mut wanted = None;
        for argument in std::env::args().skip(1) {
            match (&*argument, argument.split_once('=')) {
                ("--bench", _) => bench.mode = Mode::Measure,
                ("--quick", _) => wanted = Some(Mode::Quick),
                ("--list", _) => wanted = Some(Mode::List),
                ("--count", _) => wanted = Some(Mode::Count),
                (_, Some(("--row", name))) => bench.exactly = Some(name.to_owned()),
                (_, Some(("--only", name))) => bench.only = Some(name.to_owned()),
                (_, Some(("--record", file))) => bench.record = Some(file.to_owned()),
                (flag, _) if flag.starts_with('-') => {}
                (filter, _) => bench.filters.push(filter.to_owned()),
            }
        }
        bench.mode = wanted.unwrap_or(bench.mode);
        // glibc's allocator first gives each large block back to the system when it is freed, and has its pages
        // faulted in again for the next frame. Once a large block has been freed it keeps them, as in a program
        // that has run for a while. That helps the peers.
        drop(black_box(Vec::<u8>::with_capacity(31 << 20)));
        bench
    }

    /// Whether inputs shall be small and rounds few.
    pub fn quick(&self) -> bool {
        self.mode != Mode::Measure
    }

    /// `full` in a run that measures times, and `quick` in all others.
    pub fn size(&self, full: usize, quick: usize) -> usize {
        if self.quick() { quick } else { full }
    }

    /// Starts a row, unless the command line leaves it out.
    pub fn row<'a>(&'a mut self, name: &str) -> Option<Row<'a>> {
        let wanted = match &self.exactly {
            Some(exactly) => name == exactly,
            None => {
                self.filters.is_empty() || self.filters.iter().any(|part| name.contains(&**part))
            }
        };
        wanted.then(|| Row {
            bench: self,
            name: name.to_owned(),
            item: "item",
            items: 1,
            bytes: 0,
            checksum: None,
            measures: vec![("", "ns")],
            countable: true,
            rounds: MOST_ROUNDS,
            budget: BUDGET,
            competitors: Vec::new(),
        })
    }

    /// Prints how many rows there were, and that all checksums were right.
    pub fn finish(self) {
        if self.mode == Mode::List {
            return;
        }
        println!("{} rows, all checksums as expected", self.rows);
        let [met, missed] = self.goals;
        if met + missed > 0 {
            println!("{met} goals met, {missed} missed");
        }
    }
}

impl fmt::Debug for Bench {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bench").field("filters", &self.filters).finish_non_exhaustive()
    }
}

/// The result of one run of a competitor: a value for each of the row's measures, and the checksum.
pub type Outcome = (Vec<f64>, u64);

struct Competitor<'a> {
    name: String,
    ours: bool,
    run: Box<dyn FnMut() -> Outcome + 'a>,
    checksum: Option<u64>,
    /// How many items and bytes it goes through, if they are not those of the row.
    work: Option<(usize, usize)>,
    /// Goals: the index of a measure, a peer, and the ratio to that peer that is wanted.
    goals: Vec<(usize, String, f64)>,
}

/// One workload, and the competitors that do it.
///
/// The ratio that is printed is that to the row's first peer: below 1, the competitor needs less.
#[must_use = "a row measures nothing until it is run"]
pub struct Row<'a> {
    bench: &'a mut Bench,
    name: String,
    item: &'static str,
    items: usize,
    bytes: usize,
    checksum: Option<u64>,
    /// The name (empty if there is only one) and the unit of each value that a run measures.
    measures: Vec<(&'static str, &'static str)>,
    countable: bool,
    rounds: usize,
    budget: Duration,
    competitors: Vec<Competitor<'a>>,
}

impl<'a> Row<'a> {
    /// How many items of what kind, and how many bytes in all, one run of a competitor goes through.
    pub fn work(mut self, items: usize, item: &'static str, bytes: usize) -> Self {
        (self.items, self.item, self.bytes) = (items, item, bytes);
        self
    }

    /// The checksum that every run of every competitor must return. Without this call, they only have to agree.
    pub fn expect(mut self, checksum: u64) -> Self {
        self.checksum = Some(checksum);
        self
    }

    /// How long to go on with rounds, if the least number of them has not taken longer.
    pub fn budget(mut self, budget: Duration) -> Self {
        self.budget = budget;
        self
    }

    /// At most this many rounds, for work that takes long. If it is one round there is none to warm up, which is
    /// for values that are the same each time.
    pub fn rounds(mut self, rounds: usize) -> Self {
        self.rounds = rounds;
        self
    }

    /// The names and units of the values that a run measures, if it is not only the time. Such competitors are added
    /// by [`ours_measured`](Row::ours_measured) and [`peer_measured`](Row::peer_measured).
    pub fn measures(mut self, measures: &[(&'static str, &'static str)]) -> Self {
        self.measures = measures.to_vec();
        self.countable = false;
        self
    }

    /// Leaves the row out where instructions are counted.
    pub fn not_counted(mut self) -> Self {
        self.countable = false;
        self
    }

    /// Adds a competitor that uses this crate; it is timed, and returns its checksum.
    pub fn ours(self, name: &str, run: impl FnMut() -> u64 + 'a) -> Self {
        self.push(name, true, timed(run))
    }

    /// Adds a competitor that does the same without this crate. All others are compared to the first.
    pub fn peer(self, name: &str, run: impl FnMut() -> u64 + 'a) -> Self {
        self.push(name, false, timed(run))
    }

    /// As [`Row::ours`], for a run that measures itself, because it has to be set up anew each time or needs another
    /// clock. Times are in nanoseconds.
    pub fn ours_measured(mut self, name: &str, run: impl FnMut() -> Outcome + 'a) -> Self {
        self.countable = false;
        self.push(name, true, Box::new(run))
    }

    /// As [`Row::peer`], for a run that measures itself.
    pub fn peer_measured(mut self, name: &str, run: impl FnMut() -> Outcome + 'a) -> Self {
        self.countable = false;
        self.push(name, false, Box::new(run))
    }

    fn push(mut self, name: &str, ours: bool, run: Box<dyn FnMut() -> Outcome + 'a>) -> Self {
        let (checksum, work, goals) = (None, None, Vec::new());
        self.competitors.push(Competitor { name: name.into(), ours, run, checksum, work, goals });
        self
    }

    /// Sets a goal for the competitor added last, if one is given: the ratio of its first measure to that of a peer.
    pub fn goal(self, peer: &str, ratio: impl Into<Option<f64>>) -> Self {
        match ratio.into() {
            Some(ratio) => self.goal_of(0, peer, ratio),
            None => self,
        }
    }

    /// As [`goal`](Row::goal), for the measure with this index.
    pub fn goal_of(self, measure: usize, peer: &str, ratio: f64) -> Self {
        self.last(|last| last.goals.push((measure, peer.to_owned(), ratio)))
    }

    /// Sets the checksum of the competitor added last, if it differs from that of the row.
    pub fn expecting(self, checksum: u64) -> Self {
        self.last(|last| last.checksum = Some(checksum))
    }

    /// Sets the items and bytes of the competitor added last, if they differ from those of the row.
    pub fn working(self, items: usize, bytes: usize) -> Self {
        self.last(|last| last.work = Some((items, bytes)))
    }

    fn last(mut self, change: impl FnOnce(&mut Competitor<'a>)) -> Self {
        change(self.competitors.last_mut().expect("it follows a competitor"));
        self
    }

    /// Measures the row, and prints it.
    ///
    /// # Panics
    ///
    /// Panics if a competitor returns another checksum than the expected one.
    pub fn run(mut self) {
        if let Some(only) = &self.bench.only {
            self.competitors.retain(|competitor| competitor.name == *only);
        }
        if self.competitors.is_empty() {
            return;
        }
        if self.bench.mode == Mode::List {
            if self.countable {
                for competitor in &self.competitors {
                    let items = competitor.work.map_or(self.items, |(items, _)| items);
                    let (name, ours) = (&competitor.name, competitor.ours);
                    println!("{}\t{name}\t{ours}\t{items}\t{}", self.name, self.item);
                }
            }
            return;
        }
        // The first round warms up, and its checksum is what is expected of the others if none was given.
        let competitors = self.competitors.len();
        let first: Vec<_> = (0..competitors).map(|i| self.measure(i)).collect();
        if self.bench.mode == Mode::Count {
            for i in 0..competitors {
                counted(&mut || drop(self.measure(i)));
            }
            return;
        }

        let mut values = vec![vec![Vec::new(); competitors]; self.measures.len()];
        let mut record = |i: usize, measured: Vec<f64>| {
            for (values, value) in values.iter_mut().zip(measured) {
                values[i].push(value);
            }
        };
        if self.rounds == 1 {
            first.into_iter().enumerate().for_each(|(i, measured)| record(i, measured));
        } else {
            let mut order: Vec<usize> = (0..competitors).collect();
            let start = Instant::now();
            let (least, most) =
                if self.bench.quick() { (1, 1) } else { (LEAST_ROUNDS, self.rounds) };
            let mut round = 0;
            while round < most && (round < least || start.elapsed() < self.budget) {
                self.bench.random.shuffle(&mut order);
                for &i in &order {
                    record(i, self.measure(i));
                }
                round += 1;
            }
        }
        for (measure, values) in values.iter().enumerate() {
            self.report(measure, values);
        }
        self.bench.rows += 1;
    }

    /// Runs one competitor once, and checks its checksum.
    fn measure(&mut self, i: usize) -> Vec<f64> {
        let competitor = &mut self.competitors[i];
        let (values, checksum) = (competitor.run)();
        let expected = match competitor.checksum {
            Some(own) => own,
            None => *self.checksum.get_or_insert(checksum),
        };
        let (row, name) = (&self.name, &competitor.name);
        assert_eq!(checksum, expected, "{row}: {name} came to another checksum");
        values
    }

    /// Prints the medians of one measure, given the values of each competitor round by round.
    fn report(&mut self, measure: usize, values: &[Vec<f64>]) {
        let (name, unit) = self.measures[measure];
        let row = match name {
            "" => self.name.clone(),
            name => format!("{}: {name}", self.name),
        };
        let reference = self.competitors.iter().position(|competitor| !competitor.ours);
        let ratio = |i: usize, peer: usize| {
            median(values[i].iter().zip(&values[peer]).map(|(a, b)| a / b).collect())
        };
        let per_item = format!("{unit}/{}", self.item);
        let of = reference.map_or("", |peer| &self.competitors[peer].name);
        let ratios = if reference.is_some() { format!("  ratio of {of}") } else { String::new() };
        println!("\n{row:<58} {per_item:>20} {:>7}{ratios}", "MB/s");
        for (i, competitor) in self.competitors.iter().enumerate() {
            let (items, bytes) = competitor.work.unwrap_or((self.items, self.bytes));
            let total = median(values[i].clone());
            let value = total / items.max(1) as f64;
            let rate = (unit == "ns" && bytes > 0).then(|| bytes as f64 / total * 1e3);
            let figure = Figure {
                row: row.clone(),
                competitor: competitor.name.clone(),
                ours: competitor.ours,
                unit: per_item.clone(),
                value,
                rate,
                reference: of.to_owned(),
                ratio: reference.map(|peer| ratio(i, peer)),
                goals: (competitor.goals.iter())
                    .filter(|(of, ..)| *of == measure)
                    .filter_map(|(_, peer, wanted)| {
                        let at = self.competitors.iter().position(|other| other.name == *peer)?;
                        Some(Goal { peer: peer.clone(), reached: ratio(i, at), wanted: *wanted })
                    })
                    .collect(),
            };
            print!(
                "{} {:<56} {value:>20.3}",
                if figure.ours { '*' } else { ' ' },
                figure.competitor
            );
            print!(" {:>7}", rate.map(|rate| format!("{rate:.0}")).unwrap_or_default());
            println!(" {:>7}", figure.ratio.map(|ratio| format!("{ratio:.3}")).unwrap_or_default());
            if !self.bench.quick() {
                for goal in &figure.goals {
                    self.bench.goals[usize::from(!goal.is_met())] += 1;
                    println!("    {goal}");
                }
            }
            if let Some(file) = &self.bench.record {
                let mut file = OpenOptions::new().append(true).create(true).open(file);
                let file = file.as_mut().expect("the file to record in can be opened");
                writeln!(file, "{}", figure.to_line()).expect("it can be written to");
            }
        }
    }
}

impl fmt::Debug for Row<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Row").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Tools that count instructions are told to count those of this function and of all that it calls.
#[inline(never)]
pub fn counted(run: &mut dyn FnMut()) {
    run();
    black_box(());
}

fn timed<'a>(mut run: impl FnMut() -> u64 + 'a) -> Box<dyn FnMut() -> Outcome + 'a> {
    Box::new(move || {
        let start = thread_time();
        let checksum = black_box(run());
        (vec![nanoseconds(thread_time() - start)], checksum)
    })
}

/// The CPU time of this thread, in which the time that other processes take is not included.
pub fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

/// A duration in nanoseconds, as a measured value.
pub fn nanoseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e9
}

/// The median: of an even number of values, the upper one in the middle.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
