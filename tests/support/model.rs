//! Two naive models, written from the contract.
//!
//! [`cut`] has the whole input at once and cuts it. [`Follower`] watches a decoder call by call: it knows
//! what each call may return and what must be withheld, and leaves to the decoder only how it divides
//! payload into chunks.

use asynchat::{Event, FrameError, Limit};

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

/// Where this terminator ends the frame: `(end of the payload, beginning of the next frame, member)`. A CR with an LF
/// behind it is one newline.
pub fn end(terminator: &Spec, input: &[u8]) -> Option<(usize, usize, usize)> {
    let (start, end, member) = find(terminator.delimiters(), input)?;
    if *terminator == Spec::Newline {
        let crlf = input[start..].starts_with(b"\r\n");
        return Some((start, end + usize::from(crlf), 0));
    }
    Some((start, end, member))
}

/// The length of the longest suffix of the input that is a proper prefix of a delimiter.
pub fn partial(delimiters: &[Vec<u8>], input: &[u8]) -> usize {
    let proper = delimiters.iter().flat_map(|d| (0..d.len()).map(move |len| &d[..len]));
    proper.filter(|prefix| input.ends_with(prefix)).map(<[u8]>::len).max().unwrap_or(0)
}

fn max(limit: Limit) -> u128 {
    match limit {
        Limit::Fail(max) | Limit::Skip(max) => u128::from(max),
        // This is more than any input has.
        _ => u128::MAX,
    }
}

/// What a script makes of an input, and how much of its end is withheld.
pub fn cut(script: &Script, input: &[u8], eof: End) -> (Vec<Log>, usize) {
    let mut log = Vec::new();
    let mut terminator = script.terminator.clone();
    // The terminator that is in force after a counted frame with a right end.
    let mut armed = if terminator.is_delimiter() { terminator.clone() } else { Spec::None };
    let mut limit = script.limit;
    let mut turns = script.turns.iter();
    let mut rest = input;
    let mut length: u128 = 0;
    let mut skipping = false;
    let mut after_cr = false;
    let eof = eof == End::Eof;
    loop {
        if std::mem::take(&mut after_cr) {
            rest = rest.strip_prefix(b"\n").unwrap_or(rest);
        }
        let ended = match &mut terminator {
            Spec::Count(remaining) | Spec::CountThen(remaining, _)
                if *remaining > rest.len() as u64 =>
            {
                if !rest.is_empty() {
                    push(&mut log, Log::Data(rest.to_vec()));
                }
                if eof {
                    push(&mut log, Log::Truncated);
                }
                return (log, 0);
            }
            Spec::Count(count) => {
                let (payload, behind) = rest.split_at(*count as usize);
                if !payload.is_empty() {
                    push(&mut log, Log::Data(payload.to_vec()));
                }
                rest = behind;
                terminator = Spec::None;
                Log::Terminator(0)
            }
            Spec::CountThen(count, wanted) => {
                let (payload, behind) = rest.split_at(*count as usize);
                if !payload.is_empty() {
                    push(&mut log, Log::Data(payload.to_vec()));
                }
                rest = behind;
                if let Some(behind) = rest.strip_prefix(&wanted[..]) {
                    rest = behind;
                    terminator = armed.clone();
                    Log::Terminator(0)
                } else if wanted.starts_with(rest) {
                    if eof {
                        push(&mut log, Log::Truncated);
                    }
                    return (log, if eof { 0 } else { rest.len() });
                } else {
                    terminator = armed.clone();
                    Log::WrongEnd
                }
            }
            Spec::None => {
                if !rest.is_empty() {
                    push(&mut log, Log::Data(rest.to_vec()));
                }
                return (log, 0);
            }
            delimited => {
                let found = end(delimited, rest);
                let withheld = if eof { 0 } else { partial(delimited.delimiters(), rest) };
                let payload = found.map_or(rest.len() - withheld, |(start, ..)| start);
                if skipping {
                    let Some((_, next, _)) = found else {
                        if eof {
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
                            if eof && length > 0 {
                                push(&mut log, Log::Truncated);
                            }
                            return (log, withheld);
                        }
                    }
                }
            }
        };
        length = 0;
        let early = match ended {
            Log::Overlong => Some(Log::Failed(max(limit) as u64)),
            Log::WrongEnd => Some(Log::FailedWrongEnd),
            _ => None,
        };
        push(&mut log, ended);
        let turn = turns.next().cloned().unwrap_or_default();
        // The limit that was in force when a frame ended early has decided what happens to the rest. To set the
        // terminator that is in force changes nothing.
        let switched = turn.terminator.as_ref().is_some_and(|switched| *switched != terminator);
        if let Some(failed) = early.filter(|_| !switched && !turn.resume) {
            match limit {
                Limit::Skip(_) if terminator != Spec::None => skipping = true,
                _ => {
                    push(&mut log, failed);
                    return (log, 0);
                }
            }
        }
        if let Some(switched) = turn.terminator {
            if switched.is_delimiter() {
                armed = switched.clone();
            }
            terminator = switched;
        }
        limit = turn.limit.unwrap_or(limit);
    }
}

/// Follows a decoder through any sequence of calls, switches and discards.
#[derive(Clone, Debug)]
pub struct Follower {
    pub terminator: Spec,
    /// The delimiter that was set last, or `None`.
    armed: Spec,
    pub limit: Limit,
    /// Input that has been neither delivered nor dropped.
    pub input: Vec<u8>,
    length: u128,
    fate: Fate,
    /// How the frame ended whose last chunk has been returned, if that is still to be returned.
    owed: Option<Owed>,
    /// Whether the last call wanted more input, and none has come since.
    settled: bool,
    /// Whether bytes have been seen and withheld, and nothing was returned since.
    withheld: bool,
    /// Whether the current frame is delivered whole; `whole_next` says so of the next one.
    whole: bool,
    pub whole_next: bool,
    /// Whether the last byte seen was a CR that ended a line.
    after_cr: bool,
    /// Whether the buffer is another than at the last call, and the decoder has not looked at it.
    pub replaced: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Frame,
    Skipping,
    Failed(FrameError),
    Finished,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owed {
    Terminator(usize),
    /// This is only used at the end of the input, where withheld bytes become payload. Otherwise the next look at the
    /// input finds it.
    Overlong,
    WrongEnd,
    Truncated,
}

/// What a call must do.
#[derive(Debug)]
enum Plan {
    /// Return some of the next `len` bytes, or all of them if frames are whole. If it was all, and `then` is set, the
    /// input goes on at that position, and the next call has to return this end.
    Chunk {
        len: usize,
        then: Option<(usize, Owed)>,
    },
    Terminator(usize),
    Overlong,
    WrongEnd,
    Truncated,
    Failed(FrameError),
    Nothing,
}

pub type Returned = Result<Option<Event<Vec<u8>>>, FrameError>;

impl Follower {
    pub fn new(terminator: Spec, limit: Limit) -> Self {
        let armed = if terminator.is_delimiter() { terminator.clone() } else { Spec::None };
        Follower {
            terminator,
            armed,
            limit,
            input: Vec::new(),
            length: 0,
            fate: Fate::Frame,
            owed: None,
            settled: true,
            withheld: false,
            whole: false,
            whole_next: false,
            after_cr: false,
            replaced: false,
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
        self.unsay_overlong();
        if terminator == Spec::None || self.terminator == Spec::None || self.fate != Fate::Frame {
            self.end();
        }
        if terminator.is_delimiter() {
            self.armed = terminator.clone();
        }
        self.terminator = terminator;
        self.fate = Fate::Frame;
    }

    pub fn set_limit(&mut self, limit: Limit) {
        self.unsay_overlong();
        self.limit = limit;
    }

    fn unsay_overlong(&mut self) {
        self.owed = self.owed.filter(|owed| *owed != Owed::Overlong);
    }

    pub fn resume(&mut self) {
        self.unsay_overlong();
        if matches!(self.fate, Fate::Skipping | Fate::Failed(_)) {
            self.end();
            self.fate = Fate::Frame;
        }
    }

    pub fn set_whole_frames(&mut self, whole: bool) {
        self.whole_next = whole;
        if !self.withheld && self.length == 0 {
            self.whole = whole;
        }
    }

    pub fn discard(&mut self) {
        self.unsay_overlong();
        self.input.clear();
        self.after_cr = false;
        self.withheld = false;
    }

    /// Whether all has been delivered that the limit allows, so that it may have been decided already that the
    /// frame is overlong.
    pub fn is_at_limit(&self) -> bool {
        self.length == max(self.limit)
    }

    /// Puts other bytes in the buffer, of which the decoder was not told.
    pub fn replace(&mut self, bytes: &[u8]) {
        self.input = bytes.to_vec();
        self.settled = false;
        self.replaced = true;
    }

    /// Whether the end of the input here would cut a frame, or `None` where the contract leaves it open.
    pub fn mid_frame(&self) -> Option<bool> {
        if self.replaced {
            return None;
        }
        if self.owed == Some(Owed::Truncated) {
            return Some(true);
        }
        match self.fate {
            Fate::Finished => return Some(false),
            Fate::Skipping | Fate::Failed(_) => return Some(true),
            Fate::Frame => {}
        }
        match &self.terminator {
            Spec::Count(remaining) => Some(*remaining > 0),
            Spec::CountThen(..) => Some(true),
            Spec::None => Some(false),
            _ if self.length > 0 => Some(true),
            _ if self.input.is_empty() => Some(false),
            // Bytes that were seen and withheld are of the frame. Bytes that were not looked at may be or not.
            _ => self.settled.then_some(true),
        }
    }

    fn plan(&mut self, eof: bool) -> Plan {
        match self.owed.take() {
            Some(Owed::Terminator(member)) => return Plan::Terminator(member),
            Some(Owed::Overlong) => {
                self.end_early(FrameError::Overlong(max(self.limit) as u64));
                return Plan::Overlong;
            }
            Some(Owed::WrongEnd) => return Plan::WrongEnd,
            Some(Owed::Truncated) => return Plan::Truncated,
            None => {}
        }
        if self.after_cr && !self.input.is_empty() {
            self.after_cr = false;
            if self.input[0] == b'\n' {
                self.input.remove(0);
            }
        }
        match self.fate {
            Fate::Failed(error) => return Plan::Failed(error),
            Fate::Finished if self.input.is_empty() => return Plan::Nothing,
            Fate::Finished => self.fate = Fate::Frame,
            Fate::Frame | Fate::Skipping => {}
        }
        let available = self.input.len();
        let cut = eof.then_some((available, Owed::Truncated));
        match &self.terminator {
            Spec::Count(0) => {
                self.terminator = Spec::None;
                self.end();
                Plan::Terminator(0)
            }
            Spec::Count(_) if available == 0 && eof => self.finish(),
            Spec::Count(_) | Spec::None if available == 0 => Plan::Nothing,
            Spec::Count(n) if *n <= available as u64 => {
                Plan::Chunk { len: *n as usize, then: Some((*n as usize, Owed::Terminator(0))) }
            }
            Spec::CountThen(n, _) if available == 0 && eof && *n > 0 => self.finish(),
            Spec::CountThen(n, wanted) if *n <= available as u64 => {
                let (len, wanted) = (*n as usize, wanted.clone());
                let behind = &self.input[len..];
                if behind.starts_with(&wanted) {
                    if len > 0 {
                        let then = Some((len + wanted.len(), Owed::Terminator(0)));
                        return Plan::Chunk { len, then };
                    }
                    self.input.drain(..wanted.len());
                    self.terminator = self.armed.clone();
                    self.end();
                    Plan::Terminator(0)
                } else if !wanted.starts_with(behind) {
                    if len > 0 {
                        return Plan::Chunk { len, then: Some((len, Owed::WrongEnd)) };
                    }
                    self.wrong_end();
                    Plan::WrongEnd
                } else if len > 0 {
                    match self.whole && !eof {
                        true => Plan::Nothing,
                        false => Plan::Chunk { len, then: cut },
                    }
                } else if eof {
                    self.input.clear();
                    self.finish()
                } else {
                    Plan::Nothing
                }
            }
            Spec::Count(_) | Spec::CountThen(..) if self.whole && !eof => Plan::Nothing,
            Spec::CountThen(..) if available == 0 => Plan::Nothing,
            Spec::Count(_) | Spec::CountThen(..) => Plan::Chunk { len: available, then: cut },
            Spec::None => Plan::Chunk { len: available, then: None },
            delimited => {
                let found = end(delimited, &self.input);
                let withheld = if eof { 0 } else { partial(delimited.delimiters(), &self.input) };
                let payload = found.map_or(available - withheld, |(start, ..)| start);
                if self.fate == Fate::Skipping {
                    let Some((_, next, _)) = found else {
                        self.input.drain(..payload);
                        return if eof { self.finish() } else { Plan::Nothing };
                    };
                    self.pass(next);
                    self.fate = Fate::Frame;
                    self.end();
                    return self.plan(eof);
                }
                if self.length + payload as u128 > max(self.limit) {
                    let room = max(self.limit).saturating_sub(self.length) as usize;
                    if room > 0 {
                        let then = eof.then_some((room, Owed::Overlong));
                        return Plan::Chunk { len: room, then };
                    }
                    self.end_early(FrameError::Overlong(max(self.limit) as u64));
                    return Plan::Overlong;
                }
                match found {
                    Some((0, next, member)) => {
                        self.pass(next);
                        self.end();
                        Plan::Terminator(member)
                    }
                    Some((start, next, member)) => {
                        Plan::Chunk { len: start, then: Some((next, Owed::Terminator(member))) }
                    }
                    None if payload > 0 && (eof || !self.whole) => {
                        Plan::Chunk { len: payload, then: cut }
                    }
                    None if eof && self.length > 0 => self.finish(),
                    None => Plan::Nothing,
                }
            }
        }
    }

    /// Drops the input before this position, which is behind a terminator.
    fn pass(&mut self, next: usize) {
        let newline = self.terminator == Spec::Newline;
        self.after_cr = newline && next == self.input.len() && self.input.ends_with(b"\r");
        self.input.drain(..next);
    }

    /// A frame has ended.
    fn end(&mut self) {
        self.length = 0;
        self.whole = self.whole_next;
    }

    fn finish(&mut self) -> Plan {
        self.end();
        self.fate = Fate::Finished;
        Plan::Truncated
    }

    fn wrong_end(&mut self) {
        self.terminator = self.armed.clone();
        self.end_early(FrameError::WrongEnd);
    }

    fn end_early(&mut self, error: FrameError) {
        self.end();
        self.fate = match self.limit {
            Limit::Skip(_) if self.terminator != Spec::None => Fate::Skipping,
            _ => Fate::Failed(error),
        };
    }

    /// Checks what a call has returned and goes on from there.
    pub fn observe(
        &mut self,
        eof: bool,
        returned: &Returned,
        matched: usize,
    ) -> Result<(), String> {
        // An end that is still to be returned is returned without a look at the buffer.
        self.replaced &= self.owed.is_some();
        let plan = self.plan(eof);
        // After `Truncated` the decoder has not looked at the input again.
        self.settled = matches!(plan, Plan::Nothing) && self.fate != Fate::Finished;
        self.withheld = self.settled && !self.input.is_empty();
        match (&plan, returned) {
            (Plan::Chunk { len, then }, Ok(Some(Event::Chunk(chunk)))) => {
                let whole = self.whole && self.terminator != Spec::None;
                if chunk.is_empty()
                    || !self.input[..*len].starts_with(chunk)
                    || (whole && chunk.len() < *len)
                {
                    return Err(format!(
                        "chunk {} is not of {}, whole: {whole}",
                        Show(chunk),
                        Show(&self.input[..*len])
                    ));
                }
                let mut consumed = chunk.len();
                match &mut self.terminator {
                    Spec::None => {}
                    Spec::Count(remaining) | Spec::CountThen(remaining, _) => {
                        *remaining -= consumed as u64;
                        self.length += consumed as u128;
                    }
                    _ => self.length += consumed as u128,
                }
                if consumed == *len {
                    if let Some((next, owed)) = then {
                        consumed = *next;
                        self.owed = Some(*owed);
                        match (owed, &self.terminator) {
                            (Owed::Truncated, _) => {
                                self.end();
                                self.fate = Fate::Finished;
                            }
                            (Owed::Overlong, _) => {}
                            (Owed::WrongEnd, _) => self.wrong_end(),
                            (Owed::Terminator(_), Spec::Count(_)) => {
                                self.terminator = Spec::None;
                                self.end();
                            }
                            (Owed::Terminator(_), Spec::CountThen(..)) => {
                                self.terminator = self.armed.clone();
                                self.end();
                            }
                            (Owed::Terminator(_), _) => {
                                self.pass(consumed);
                                self.end();
                                return Ok(());
                            }
                        }
                    }
                }
                self.input.drain(..consumed);
                Ok(())
            }
            (Plan::Terminator(member), Ok(Some(Event::Terminator))) if *member == matched => Ok(()),
            (Plan::Overlong, Ok(Some(Event::Overlong)))
            | (Plan::WrongEnd, Ok(Some(Event::WrongEnd)))
            | (Plan::Truncated, Ok(Some(Event::Truncated)))
            | (Plan::Nothing, Ok(None)) => Ok(()),
            (Plan::Failed(wanted), Err(error)) if wanted == error => Ok(()),
            _ => Err(format!("wanted {plan:?} (eof {eof}), got {returned:?} (matched {matched})")),
        }
    }
}
