//! Two naive models, written from the contract.
//!
//! [`cut`] has the whole input at once and cuts it. [`Follower`] watches a decoder call by call: it knows
//! what each call may return and what must be withheld, and leaves to the decoder only how it divides
//! payload into chunks.

use asynchat::{Event, Limit};

use super::{End, Log, Script, Show, Spec, push};

/// The delimiter that ends first, of those that end together the longest: `(start, end, member)`.
pub fn find(delimiters: &[Vec<u8>], input: &[u8]) -> Option<(usize, usize, usize)> {
    (1..=input.len()).find_map(|end| {
        let ends_here = |(_, delimiter): &(usize, &Vec<u8>)| input[..end].ends_with(delimiter);
        let (member, delimiter) =
            delimiters.iter().enumerate().filter(ends_here).max_by_key(|(_, d)| d.len())?;
        Some((end - delimiter.len(), end, member))
    })
}

/// The length of the longest suffix of the input that is a proper prefix of a delimiter.
pub fn partial(delimiters: &[Vec<u8>], input: &[u8]) -> usize {
    let proper = delimiters.iter().flat_map(|d| (0..d.len()).map(move |len| &d[..len]));
    proper.filter(|prefix| input.ends_with(prefix)).map(<[u8]>::len).max().unwrap_or(0)
}

fn max(limit: Limit) -> u128 {
    match limit {
        Limit::Fail(max) | Limit::Skip(max) => u128::from(max),
        // More than any input has.
        _ => u128::MAX,
    }
}

/// What a script makes of an input, and how much of its end is withheld.
pub fn cut(script: &Script, input: &[u8], end: End) -> (Vec<Log>, usize) {
    let mut log = Vec::new();
    let mut terminator = script.terminator.clone();
    let mut limit = script.limit;
    let mut turns = script.turns.iter();
    let mut rest = input;
    let mut length: u128 = 0;
    let mut skipping = false;
    loop {
        let ended = match &mut terminator {
            Spec::Count(remaining) => {
                let take = rest.len().min(usize::try_from(*remaining).unwrap_or(usize::MAX));
                if take > 0 {
                    push(&mut log, Log::Data(rest[..take].to_vec()));
                }
                rest = &rest[take..];
                *remaining -= take as u64;
                if *remaining > 0 {
                    if end == End::Eof {
                        push(&mut log, Log::Truncated);
                    }
                    return (log, 0);
                }
                terminator = Spec::None;
                Log::Terminator(0)
            }
            Spec::None => {
                if !rest.is_empty() {
                    push(&mut log, Log::Data(rest.to_vec()));
                }
                return (log, 0);
            }
            delimited => {
                let delimiters = delimited.delimiters();
                let found = find(delimiters, rest);
                let withheld = if end == End::Eof { 0 } else { partial(delimiters, rest) };
                let payload = found.map_or(rest.len() - withheld, |(start, ..)| start);
                if skipping {
                    let Some((_, next, _)) = found else {
                        if end == End::Eof {
                            push(&mut log, Log::Truncated);
                        }
                        return (log, withheld);
                    };
                    skipping = false;
                    rest = &rest[next..];
                    continue;
                }
                if length + payload as u128 > max(limit) {
                    let room = max(limit).saturating_sub(length) as usize;
                    if room > 0 {
                        push(&mut log, Log::Data(rest[..room].to_vec()));
                    }
                    rest = &rest[room..];
                    Log::Overlong
                } else {
                    if payload > 0 {
                        push(&mut log, Log::Data(rest[..payload].to_vec()));
                    }
                    length += payload as u128;
                    match found {
                        Some((_, next, member)) => {
                            rest = &rest[next..];
                            Log::Terminator(member)
                        }
                        None => {
                            if end == End::Eof && length > 0 {
                                push(&mut log, Log::Truncated);
                            }
                            return (log, withheld);
                        }
                    }
                }
            }
        };
        length = 0;
        let overlong = ended == Log::Overlong;
        push(&mut log, ended);
        let turn = turns.next().cloned().unwrap_or_default();
        // What happens to an overlong frame was decided by the limit it was longer than.
        // To set what is in force changes nothing.
        let switched = turn.terminator.as_ref().is_some_and(|switched| *switched != terminator);
        match (overlong, switched, limit) {
            (true, false, Limit::Fail(max)) => {
                push(&mut log, Log::Failed(max));
                return (log, 0);
            }
            (true, false, _) => skipping = true,
            _ => {}
        }
        terminator = turn.terminator.unwrap_or(terminator);
        limit = turn.limit.unwrap_or(limit);
    }
}

/// Follows a decoder through any sequence of calls, switches and discards.
#[derive(Clone, Debug)]
pub struct Follower {
    pub terminator: Spec,
    pub limit: Limit,
    /// Input that has been neither delivered nor dropped.
    pub input: Vec<u8>,
    length: u128,
    fate: Fate,
    /// The frame's last chunk has been returned, and how it ended not yet.
    owed: Option<Owed>,
    /// Whether the last call wanted more, and none has come.
    settled: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Frame,
    Skipping,
    Failed(u64),
    Finished,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owed {
    Terminator(usize),
    Truncated,
}

/// What a call must do.
#[derive(Debug)]
enum Plan {
    /// Return some of so many bytes. If all, then go on after them, and owe what the frame ends with.
    Chunk {
        len: usize,
        then: Option<(usize, Owed)>,
    },
    Terminator(usize),
    Overlong,
    Truncated,
    Failed(u64),
    Nothing,
}

pub type Returned = Result<Option<Event<Vec<u8>>>, u64>;

impl Follower {
    pub fn new(terminator: Spec, limit: Limit) -> Self {
        Follower {
            terminator,
            limit,
            input: Vec::new(),
            length: 0,
            fate: Fate::Frame,
            owed: None,
            settled: true,
        }
    }

    pub fn feed(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
        self.settled &= bytes.is_empty();
    }

    pub fn set_terminator(&mut self, terminator: Spec) {
        if terminator == self.terminator {
            return;
        }
        if terminator == Spec::None {
            self.length = 0;
        }
        self.terminator = terminator;
        self.fate = Fate::Frame;
    }

    pub fn discard(&mut self) {
        self.input.clear();
    }

    /// Whether the end of the input here would cut a frame, where the contract says so.
    pub fn mid_frame(&self) -> Option<bool> {
        if self.owed == Some(Owed::Truncated) {
            return Some(true);
        }
        if self.fate == Fate::Finished {
            return Some(false);
        }
        match self.terminator {
            Spec::Count(remaining) => Some(remaining > 0),
            Spec::None => Some(false),
            _ if self.fate != Fate::Frame || self.length > 0 => Some(true),
            _ if self.input.is_empty() => Some(false),
            // What has been seen and withheld is of the frame; what has not been looked at may be.
            _ => self.settled.then_some(true),
        }
    }

    fn plan(&mut self, eof: bool) -> Plan {
        match self.owed.take() {
            Some(Owed::Terminator(member)) => return Plan::Terminator(member),
            Some(Owed::Truncated) => return Plan::Truncated,
            None => {}
        }
        match self.fate {
            Fate::Failed(max) => return Plan::Failed(max),
            Fate::Finished if self.input.is_empty() => return Plan::Nothing,
            Fate::Finished => self.fate = Fate::Frame,
            Fate::Frame | Fate::Skipping => {}
        }
        let available = self.input.len();
        let cut = eof.then_some((available, Owed::Truncated));
        match &self.terminator {
            Spec::Count(0) => {
                self.terminator = Spec::None;
                self.length = 0;
                Plan::Terminator(0)
            }
            Spec::Count(_) if available == 0 && eof => self.finish(),
            Spec::Count(_) | Spec::None if available == 0 => Plan::Nothing,
            Spec::Count(n) if *n <= available as u64 => {
                Plan::Chunk { len: *n as usize, then: Some((*n as usize, Owed::Terminator(0))) }
            }
            Spec::Count(_) => Plan::Chunk { len: available, then: cut },
            Spec::None => Plan::Chunk { len: available, then: None },
            delimited => {
                let delimiters = delimited.delimiters();
                let found = find(delimiters, &self.input);
                let withheld = if eof { 0 } else { partial(delimiters, &self.input) };
                let payload = found.map_or(available - withheld, |(start, ..)| start);
                if self.fate == Fate::Skipping {
                    let Some((_, next, _)) = found else {
                        self.input.drain(..payload);
                        return if eof { self.finish() } else { Plan::Nothing };
                    };
                    self.input.drain(..next);
                    self.fate = Fate::Frame;
                    return self.plan(eof);
                }
                if self.length + payload as u128 > max(self.limit) {
                    let room = max(self.limit).saturating_sub(self.length) as usize;
                    if room > 0 {
                        return Plan::Chunk { len: room, then: None };
                    }
                    self.length = 0;
                    self.fate = match self.limit {
                        Limit::Fail(max) => Fate::Failed(max),
                        _ => Fate::Skipping,
                    };
                    return Plan::Overlong;
                }
                match found {
                    Some((0, next, member)) => {
                        self.input.drain(..next);
                        self.length = 0;
                        Plan::Terminator(member)
                    }
                    Some((start, next, member)) => {
                        Plan::Chunk { len: start, then: Some((next, Owed::Terminator(member))) }
                    }
                    None if payload > 0 => Plan::Chunk { len: payload, then: cut },
                    None if eof && self.length > 0 => self.finish(),
                    None => Plan::Nothing,
                }
            }
        }
    }

    fn finish(&mut self) -> Plan {
        self.length = 0;
        self.fate = Fate::Finished;
        Plan::Truncated
    }

    /// Checks what a call has returned and goes on from there.
    pub fn observe(
        &mut self,
        eof: bool,
        returned: &Returned,
        matched: usize,
    ) -> Result<(), String> {
        let plan = self.plan(eof);
        // After Truncated, the end of the input is not looked at.
        self.settled = matches!(plan, Plan::Nothing) && self.fate != Fate::Finished;
        match (&plan, returned) {
            (Plan::Chunk { len, then }, Ok(Some(Event::Chunk(chunk)))) => {
                if chunk.is_empty() || !self.input[..*len].starts_with(chunk) {
                    return Err(format!(
                        "chunk {} is not of {}",
                        Show(chunk),
                        Show(&self.input[..*len])
                    ));
                }
                let mut consumed = chunk.len();
                match &mut self.terminator {
                    Spec::None => {}
                    Spec::Count(remaining) => {
                        *remaining -= consumed as u64;
                        self.length += consumed as u128;
                    }
                    _ => self.length += consumed as u128,
                }
                if consumed == *len {
                    if let Some((next, owed)) = then {
                        consumed = *next;
                        self.length = 0;
                        self.owed = Some(*owed);
                        match owed {
                            Owed::Truncated => self.fate = Fate::Finished,
                            Owed::Terminator(_) if matches!(self.terminator, Spec::Count(_)) => {
                                self.terminator = Spec::None;
                            }
                            Owed::Terminator(_) => {}
                        }
                    }
                }
                self.input.drain(..consumed);
                Ok(())
            }
            (Plan::Terminator(member), Ok(Some(Event::Terminator))) if *member == matched => Ok(()),
            (Plan::Overlong, Ok(Some(Event::Overlong)))
            | (Plan::Truncated, Ok(Some(Event::Truncated)))
            | (Plan::Nothing, Ok(None)) => Ok(()),
            (Plan::Failed(max), Err(named)) if max == named => Ok(()),
            _ => Err(format!("wanted {plan:?} (eof {eof}), got {returned:?} (matched {matched})")),
        }
    }
}
