//! Drives a decoder and a [`Follower`] side by side through any sequence of calls, feeds and switches.

use asynchat::Limit;

use super::model::Follower;
use super::{Decoding, Show, Spec};

/// Picks one of several things, whatever their number.
#[derive(Clone, Copy, Debug)]
pub struct Pick(pub u16);

impl Pick {
    pub fn index(self, len: usize) -> usize {
        usize::from(self.0) % len
    }

    pub fn get<T>(self, of: &[T]) -> &T {
        &of[self.index(of.len())]
    }
}

/// A part of the input: letters, or a delimiter or a part of one.
#[derive(Clone, Debug)]
pub enum Piece {
    Letters(Vec<u8>),
    Delimiter(Pick),
    Beginning(Pick, Pick),
    Ending(Pick, Pick),
    Run(u8, usize),
}

pub fn spell(pieces: &[Piece], delimiters: &[Vec<u8>]) -> Vec<u8> {
    let empty = Vec::new();
    let pick = |which: &Pick| match delimiters {
        [] => &empty,
        _ => which.get(delimiters),
    };
    let mut input = Vec::new();
    for piece in pieces {
        match piece {
            Piece::Letters(letters) => input.extend(letters),
            Piece::Delimiter(which) => input.extend(pick(which)),
            Piece::Beginning(which, len) => {
                let delimiter = pick(which);
                input.extend(&delimiter[..len.index(delimiter.len() + 1)]);
            }
            Piece::Ending(which, at) => {
                let delimiter = pick(which);
                input.extend(&delimiter[at.index(delimiter.len() + 1)..]);
            }
            Piece::Run(letter, len) => input.extend(std::iter::repeat_n(*letter, *len)),
        }
    }
    input
}

pub fn delimiters<'a>(specs: impl IntoIterator<Item = &'a Spec>) -> Vec<Vec<u8>> {
    let mut known = Vec::new();
    for spec in specs {
        known.extend_from_slice(spec.delimiters());
        if let Spec::CountThen(_, end) = spec {
            known.push(end.clone());
        }
    }
    known
}

/// A call of the decoder, or something that happens between two calls.
#[derive(Clone, Debug)]
pub enum Op {
    Feed(Vec<Piece>),
    Call,
    /// Calls until more is wanted.
    Drain,
    CallEof,
    DrainEof,
    Switch(Pick),
    Limit(Limit),
    Resume,
    Whole(bool),
    Discard,
    /// Go on with another buffer, which has these bytes.
    Replace(Vec<Piece>),
}

/// Carries out all operations, then drains. Returns the first difference from the model.
pub fn follow(
    decoder: &mut dyn Decoding,
    mut follower: Follower,
    pool: &[Spec],
    ops: &[Op],
) -> Result<(), String> {
    let known = delimiters(pool);
    agree(decoder, &follower)?;
    for op in ops.iter().chain([&Op::Drain, &Op::DrainEof]) {
        match op {
            Op::Feed(pieces) => {
                let bytes = spell(pieces, &known);
                decoder.feed(&bytes);
                follower.feed(&bytes);
            }
            Op::Call => drop(call(decoder, &mut follower, false)?),
            Op::CallEof => drop(call(decoder, &mut follower, true)?),
            Op::Drain => while call(decoder, &mut follower, false)? {},
            Op::DrainEof => while call(decoder, &mut follower, true)? {},
            Op::Switch(which) => {
                let spec = which.get(pool);
                decoder.control().set_terminator(spec.terminator());
                follower.set_terminator(spec.clone());
            }
            Op::Limit(limit) => {
                decoder.control().set_limit(*limit);
                follower.set_limit(*limit);
            }
            Op::Resume => {
                decoder.control().resume();
                follower.resume();
            }
            Op::Whole(whole) => {
                // The model has to know whether the decoder has seen bytes of the frame, so it looks at them now.
                while follower.replaced {
                    call(decoder, &mut follower, false)?;
                }
                decoder.control().set_whole_frames(*whole);
                follower.set_whole_frames(*whole);
            }
            Op::Discard => {
                decoder.discard();
                follower.discard();
            }
            Op::Replace(pieces) => {
                if follower.is_at_limit() {
                    call(decoder, &mut follower, false)?;
                }
                let bytes = spell(pieces, &known);
                if decoder.replace(&bytes) {
                    follower.discard();
                    follower.feed(&bytes);
                } else {
                    follower.replace(&bytes);
                }
            }
        }
        agree(decoder, &follower)?;
    }
    Ok(())
}

/// Makes one call, and checks what it returns and, if it wants more input, what is withheld.
pub fn call(
    decoder: &mut dyn Decoding,
    follower: &mut Follower,
    eof: bool,
) -> Result<bool, String> {
    let returned = decoder.call(eof);
    let matched = decoder.control().matched();
    let before = follower.clone();
    if let Err(message) = follower.observe(eof, &returned, matched) {
        let name = decoder.name();
        return Err(format!("{name}: {message}\nafter {before:?}"));
    }
    if returned == Ok(None) && !eof && decoder.buffered() != follower.input {
        return Err(format!(
            "{}: withheld {}, to be withheld {}",
            decoder.name(),
            Show(decoder.buffered()),
            Show(&follower.input)
        ));
    }
    if decoder.owes() {
        return call(decoder, follower, eof);
    }
    agree(decoder, follower)?;
    Ok(matches!(returned, Ok(Some(_))))
}

/// Checks that the decoder's answers are those of the model.
fn agree(decoder: &mut dyn Decoding, follower: &Follower) -> Result<(), String> {
    let name = decoder.name();
    let control = decoder.control();
    let terminator = follower.terminator.terminator();
    if control.terminator() != terminator {
        return Err(format!("{name}: {:?}, to be {terminator:?}", control.terminator()));
    }
    match follower.mid_frame() {
        Some(mid_frame) if control.is_mid_frame() != mid_frame => {
            Err(format!("{name}: in mid-frame is to be {mid_frame}, at {follower:?}"))
        }
        _ => Ok(()),
    }
}
