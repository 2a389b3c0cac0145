//! The data: keys, their values, and when they expire (no I/O of its own).

use std::collections::{BTreeSet, HashMap, VecDeque};

use bytes::{Bytes, BytesMut};
use tokio::time::Instant;

use crate::protocol::{Refusal, integer};

/// The most bytes that all data may take, counted as [`Store::used`] counts. Above that, commands that add data are
/// refused.
pub(crate) const MEMORY: usize = 512 << 20;
/// About how much memory a key takes besides its bytes and those of its value.
const KEY: usize = 128;
/// About how much memory an element of a list or hash takes besides its bytes.
const ELEMENT: usize = 64;

const WRONG_TYPE: Refusal =
    Refusal::new("WRONGTYPE Operation against a key holding the wrong kind of value");
const OVERFLOW: Refusal = Refusal::new("ERR increment or decrement would overflow");

/// All keys.
#[derive(Debug, Default)]
pub(crate) struct Store {
    entries: HashMap<Bytes, Entry>,
    /// The keys that expire, and when.
    deadlines: BTreeSet<(Instant, Bytes)>,
    used: usize,
}

#[derive(Debug)]
struct Entry {
    value: Value,
    deadline: Option<Instant>,
}

/// A value. A list or a hash in here is never empty.
#[derive(Debug)]
enum Value {
    Text(Bytes),
    List(VecDeque<Bytes>),
    Hash(HashMap<Bytes, Bytes>),
}

/// An end of a list.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Side {
    Left,
    Right,
}

impl Store {
    /// Removes the keys that have expired. This is called before each look at the data.
    pub(crate) fn expire(&mut self) {
        if self.deadlines.is_empty() {
            return;
        }
        let now = Instant::now();
        while self.deadlines.first().is_some_and(|(deadline, _)| *deadline <= now) {
            if let Some((_, key)) = self.deadlines.pop_first() {
                self.remove(&key);
            }
        }
    }

    /// How many keys there are.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// How many of the keys expire.
    pub(crate) fn mortal(&self) -> usize {
        self.deadlines.len()
    }

    /// About how many bytes the data takes.
    pub(crate) fn used(&self) -> usize {
        self.used
    }

    pub(crate) fn clear(&mut self) {
        *self = Store::default();
    }

    pub(crate) fn contains(&self, key: &[u8]) -> bool {
        self.entries.contains_key(key)
    }

    /// Removes a key. Returns whether it was there.
    pub(crate) fn remove(&mut self, key: &[u8]) -> bool {
        let Some((key, entry)) = self.entries.remove_entry(key) else { return false };
        self.used -= KEY + key.len() + entry.value.size();
        if let Some(deadline) = entry.deadline {
            self.deadlines.remove(&(deadline, key));
        }
        true
    }

    /// When a key expires, if it does; `None` if there is no such key.
    pub(crate) fn deadline(&self, key: &[u8]) -> Option<Option<Instant>> {
        self.entries.get(key).map(|entry| entry.deadline)
    }

    /// Sets when a key expires. Returns whether the key is there.
    pub(crate) fn set_deadline(&mut self, key: &[u8], deadline: Option<Instant>) -> bool {
        let Some((kept, entry)) = self.entries.get_key_value(key) else { return false };
        if entry.deadline == deadline {
            return true;
        }
        let kept = kept.clone();
        if let Some(old) = entry.deadline {
            self.deadlines.remove(&(old, kept.clone()));
        }
        if let Some(entry) = self.entries.get_mut(key) {
            entry.deadline = deadline;
        }
        self.deadlines.extend(deadline.map(|deadline| (deadline, kept)));
        true
    }

    // --- Strings ---

    pub(crate) fn text(&self, key: &[u8]) -> Result<Option<&Bytes>, Refusal> {
        match self.entries.get(key).map(|entry| &entry.value) {
            None => Ok(None),
            Some(Value::Text(text)) => Ok(Some(text)),
            Some(_) => Err(WRONG_TYPE),
        }
    }

    /// Sets a key to a text, whatever it was before. It does not expire.
    pub(crate) fn set(&mut self, key: &[u8], text: &[u8]) {
        let value = Value::Text(Bytes::copy_from_slice(text));
        let Some(entry) = self.entries.get_mut(key) else {
            self.insert(key, value);
            return;
        };
        self.used = self.used + text.len() - entry.value.size();
        entry.value = value;
        if entry.deadline.is_some() {
            self.set_deadline(key, None);
        }
    }

    /// Adds to the number that the text is, or to 0 if there is none. Returns the sum. When the key expires stays the
    /// same.
    pub(crate) fn add(&mut self, key: &[u8], by: i64) -> Result<i64, Refusal> {
        let entry = self.entries.get_mut(key);
        let old = match entry.as_ref().map(|entry| &entry.value) {
            None => 0,
            Some(Value::Text(text)) => integer(text)?,
            Some(_) => return Err(WRONG_TYPE),
        };
        let sum = old.checked_add(by).ok_or(OVERFLOW)?;
        let value = Value::Text(Bytes::copy_from_slice(sum.to_string().as_bytes()));
        match entry {
            None => {
                self.insert(key, value);
            }
            Some(entry) => {
                self.used = self.used + value.size() - entry.value.size();
                entry.value = value;
            }
        }
        Ok(sum)
    }

    /// Appends to the text, or to an empty one if there is none. Returns how long it is then. When the key expires
    /// stays the same.
    pub(crate) fn append(&mut self, key: &[u8], more: &[u8]) -> Result<usize, Refusal> {
        let Some(entry) = self.entries.get_mut(key) else {
            self.insert(key, Value::Text(Bytes::copy_from_slice(more)));
            return Ok(more.len());
        };
        let Value::Text(text) = &mut entry.value else { return Err(WRONG_TYPE) };
        // Nothing is copied unless the text is being sent to somebody.
        let mut longer = BytesMut::from(std::mem::take(text));
        longer.extend_from_slice(more);
        *text = longer.freeze();
        self.used += more.len();
        Ok(text.len())
    }

    /// Inserts a key that is not there.
    fn insert(&mut self, key: &[u8], value: Value) -> &mut Entry {
        self.used += KEY + key.len() + value.size();
        let entry = Entry { value, deadline: None };
        self.entries.entry(Bytes::copy_from_slice(key)).or_insert(entry)
    }

    // --- Lists ---

    pub(crate) fn list(&self, key: &[u8]) -> Result<Option<&VecDeque<Bytes>>, Refusal> {
        match self.entries.get(key).map(|entry| &entry.value) {
            None => Ok(None),
            Some(Value::List(list)) => Ok(Some(list)),
            Some(_) => Err(WRONG_TYPE),
        }
    }

    /// Pushes elements to a list. Returns how long it is then.
    pub(crate) fn push<'a>(
        &mut self,
        key: &[u8],
        side: Side,
        elements: impl Iterator<Item = &'a [u8]>,
    ) -> Result<usize, Refusal> {
        let entry = match self.entries.get_mut(key) {
            Some(entry) => entry,
            None => self.insert(key, Value::List(VecDeque::new())),
        };
        let Value::List(list) = &mut entry.value else { return Err(WRONG_TYPE) };
        let mut more = 0;
        for element in elements.map(Bytes::copy_from_slice) {
            more += ELEMENT + element.len();
            match side {
                Side::Left => list.push_front(element),
                Side::Right => list.push_back(element),
            }
        }
        let length = list.len();
        self.used += more;
        Ok(length)
    }

    pub(crate) fn pop(&mut self, key: &[u8], side: Side) -> Result<Option<Bytes>, Refusal> {
        let list = match self.entries.get_mut(key).map(|entry| &mut entry.value) {
            None => return Ok(None),
            Some(Value::List(list)) => list,
            Some(_) => return Err(WRONG_TYPE),
        };
        let popped = match side {
            Side::Left => list.pop_front(),
            Side::Right => list.pop_back(),
        };
        self.used -= popped.as_ref().map_or(0, |element| ELEMENT + element.len());
        if list.is_empty() {
            self.remove(key);
        }
        Ok(popped)
    }

    // --- Hashes ---

    pub(crate) fn hash(&self, key: &[u8]) -> Result<Option<&HashMap<Bytes, Bytes>>, Refusal> {
        match self.entries.get(key).map(|entry| &entry.value) {
            None => Ok(None),
            Some(Value::Hash(hash)) => Ok(Some(hash)),
            Some(_) => Err(WRONG_TYPE),
        }
    }

    /// Sets fields of a hash. Returns how many are new.
    pub(crate) fn set_fields<'a>(
        &mut self,
        key: &[u8],
        fields: impl Iterator<Item = (&'a [u8], &'a [u8])>,
    ) -> Result<usize, Refusal> {
        let entry = match self.entries.get_mut(key) {
            Some(entry) => entry,
            None => self.insert(key, Value::Hash(HashMap::new())),
        };
        let Value::Hash(hash) = &mut entry.value else { return Err(WRONG_TYPE) };
        let before = hash.len();
        let (mut more, mut less) = (0, 0);
        for (field, text) in fields {
            more += text.len();
            match hash.get_mut(field) {
                Some(old) => {
                    less += old.len();
                    *old = Bytes::copy_from_slice(text);
                }
                None => {
                    more += 2 * ELEMENT + field.len();
                    hash.insert(Bytes::copy_from_slice(field), Bytes::copy_from_slice(text));
                }
            }
        }
        let new = hash.len() - before;
        self.used = self.used + more - less;
        Ok(new)
    }
}

impl Value {
    /// About how many bytes the value takes, without its key.
    fn size(&self) -> usize {
        match self {
            Value::Text(text) => text.len(),
            Value::List(list) => list.iter().map(|element| ELEMENT + element.len()).sum(),
            Value::Hash(hash) => {
                hash.iter().map(|(field, text)| 2 * ELEMENT + field.len() + text.len()).sum()
            }
        }
    }
}
