//! Who is in which channel, and who is told what (no I/O of its own).
//!
//! Everything happens under one lock, which is never held across an await: pushing through a [`Handle`] does not wait.
//! What a client does is announced to the others by their handles and to itself by its own output, both under that
//! lock, so that all see the same in the same order.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use asynchat::{Handle, HandleError};
use bytes::{Bytes, BytesMut};

use crate::message::{self, Folded};

/// The most channels that there may be.
pub(crate) const CHANNELS: usize = 2000;
/// The most channels that one client may be in.
pub(crate) const JOINS: usize = 20;

/// All clients and channels. All clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Network(Arc<Mutex<State>>);

#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) users: HashMap<u64, User>,
    nicks: HashMap<Folded, u64>,
    /// The channels, none of which is empty.
    pub(crate) channels: BTreeMap<Folded, Channel>,
    /// How many clients there have been so far: the id of the last.
    last: u64,
    /// Clients that have not kept up, and are to be dropped before the lock is released.
    slow: Vec<u64>,
    /// Whether the server is closing: clients that leave are not announced then.
    closing: bool,
}

#[derive(Debug)]
pub(crate) struct User {
    pub(crate) nick: Arc<str>,
    pub(crate) name: Arc<str>,
    pub(crate) host: Arc<str>,
    /// `nick!user@host`, the client's name in the lines that the others receive.
    pub(crate) source: Arc<str>,
    pub(crate) real: Bytes,
    pub(crate) away: Option<Bytes>,
    pub(crate) channels: BTreeSet<Folded>,
    pub(crate) since: SystemTime,
    pub(crate) spoke: Instant,
    handle: Handle,
}

#[derive(Debug)]
pub(crate) struct Channel {
    pub(crate) name: Arc<str>,
    pub(crate) since: SystemTime,
    pub(crate) topic: Option<Topic>,
    pub(crate) members: BTreeMap<u64, Member>,
    pub(crate) modes: Modes,
}

#[derive(Debug)]
pub(crate) struct Topic {
    pub(crate) text: Bytes,
    pub(crate) by: Arc<str>,
    pub(crate) at: SystemTime,
}

#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) operator: bool,
    pub(crate) voice: bool,
    handle: Handle,
}

impl Member {
    pub(crate) fn sign(&self) -> &'static str {
        match (self.operator, self.voice) {
            (true, _) => "@",
            (false, true) => "+",
            (false, false) => "",
        }
    }
}

/// The modes of a channel.
#[derive(Debug)]
pub(crate) struct Modes {
    /// `n`: only members may send to the channel.
    pub(crate) no_outsiders: bool,
    /// `t`: only operators set the topic.
    pub(crate) topic_by_operators: bool,
    /// `m`: only operators, and members with a voice, may send to the channel.
    pub(crate) moderated: bool,
    /// `k`: the key that is needed to join.
    pub(crate) key: Option<String>,
    /// `l`: the most members.
    pub(crate) limit: Option<usize>,
}

/// A client's place in the network. The client leaves when this is dropped, for whatever reason.
#[derive(Debug)]
pub(crate) struct Seat {
    network: Network,
    id: u64,
}

impl Network {
    pub(crate) fn lock(&self) -> Locked<'_> {
        Locked { network: self, state: self.0.lock().unwrap_or_else(PoisonError::into_inner) }
    }

    /// From now on clients that leave are not announced.
    pub(crate) fn close(&self) {
        self.lock().closing = true;
    }
}

/// The locked network. Before the lock is released, the clients that were found too slow are dropped.
pub(crate) struct Locked<'a> {
    network: &'a Network,
    state: MutexGuard<'a, State>,
}

impl Locked<'_> {
    /// Adds a client, if the nickname is free.
    pub(crate) fn enter(
        &mut self,
        nick: &str,
        name: &str,
        host: Arc<str>,
        real: Bytes,
        handle: Handle,
    ) -> Option<Seat> {
        if self.find(nick.as_bytes()).is_some() {
            return None;
        }
        self.last += 1;
        let id = self.last;
        self.nicks.insert(Folded::new(nick), id);
        let user = User {
            nick: nick.into(),
            source: format!("{nick}!{name}@{host}").into(),
            name: name.into(),
            host,
            real,
            away: None,
            channels: BTreeSet::new(),
            since: SystemTime::now(),
            spoke: Instant::now(),
            handle,
        };
        self.users.insert(id, user);
        Some(Seat { network: self.network.clone(), id })
    }
}

impl std::ops::Deref for Locked<'_> {
    type Target = State;

    fn deref(&self) -> &State {
        &self.state
    }
}

impl std::ops::DerefMut for Locked<'_> {
    fn deref_mut(&mut self) -> &mut State {
        &mut self.state
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        // While this is announced, more clients may turn out to be too slow.
        while let Some(id) = self.state.slow.pop() {
            self.state.quit(id, b"SendQ exceeded");
        }
    }
}

impl fmt::Debug for Locked<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.state.fmt(f)
    }
}

impl Seat {
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// The nickname; `*` if the client has been dropped.
    pub(crate) fn nick(&self) -> Arc<str> {
        let network = self.network.lock();
        network.users.get(&self.id).map_or_else(|| "*".into(), |user| user.nick.clone())
    }

    /// Tells the others why the client leaves, if it has not left before.
    pub(crate) fn leave(&self, why: &[u8]) {
        self.network.lock().quit(self.id, why);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.leave(b"Connection lost");
    }
}

impl State {
    /// The client that has this nickname, in whatever case.
    pub(crate) fn find(&self, nick: &[u8]) -> Option<u64> {
        self.nicks.get(&Folded::new(message::nick(nick)?)).copied()
    }

    /// Sends a line to a client other than the one that causes it.
    pub(crate) fn tell(&mut self, id: u64, line: Bytes) {
        if let Some(user) = self.users.get(&id) {
            deliver(&mut self.slow, id, &user.handle, &line);
        }
    }

    /// Sends a line to all in a channel but one.
    pub(crate) fn tell_channel(&mut self, key: &Folded, except: u64, line: &Bytes) {
        let Some(channel) = self.channels.get(key) else { return };
        for (id, member) in &channel.members {
            if *id != except {
                deliver(&mut self.slow, *id, &member.handle, line);
            }
        }
    }

    /// Sends a line to all that share a channel with a client, once each, and not to the client itself.
    pub(crate) fn tell_neighbours(&mut self, id: u64, line: &Bytes) {
        let Some(user) = self.users.get(&id) else { return };
        let channels = user.channels.iter().filter_map(|key| self.channels.get(key));
        let neighbours: BTreeMap<u64, &Member> = channels
            .flat_map(|channel| &channel.members)
            .map(|(id, member)| (*id, member))
            .collect();
        for (neighbour, member) in neighbours {
            if neighbour != id {
                deliver(&mut self.slow, neighbour, &member.handle, line);
            }
        }
    }

    /// Changes a client's nickname. `None` if it is another's.
    pub(crate) fn rename(&mut self, id: u64, nick: &str) -> Option<()> {
        if self.find(nick.as_bytes()).is_some_and(|holder| holder != id) {
            return None;
        }
        let user = self.users.get_mut(&id)?;
        self.nicks.remove(&Folded::new(&user.nick));
        self.nicks.insert(Folded::new(nick), id);
        user.nick = nick.into();
        user.source = format!("{nick}!{}@{}", user.name, user.host).into();
        Some(())
    }

    /// Puts a client into a channel, which is made if there is none. The first member is its operator.
    pub(crate) fn seat(&mut self, id: u64, name: &str) {
        let Some(user) = self.users.get_mut(&id) else { return };
        let key = Folded::new(name);
        user.channels.insert(key.clone());
        let channel = self.channels.entry(key).or_insert_with(|| Channel {
            name: name.into(),
            since: SystemTime::now(),
            topic: None,
            members: BTreeMap::new(),
            modes: Modes {
                no_outsiders: true,
                topic_by_operators: true,
                moderated: false,
                key: None,
                limit: None,
            },
        });
        let operator = channel.members.is_empty();
        let handle = user.handle.clone();
        channel.members.insert(id, Member { operator, voice: false, handle });
    }

    /// Takes a client out of a channel, which is removed if it is empty then.
    pub(crate) fn unseat(&mut self, id: u64, key: &Folded) {
        if let Some(user) = self.users.get_mut(&id) {
            user.channels.remove(key);
        }
        if let Some(channel) = self.channels.get_mut(key) {
            channel.members.remove(&id);
            if channel.members.is_empty() {
                self.channels.remove(key);
            }
        }
    }

    /// Removes a client, if it is still there, and tells its neighbours why.
    pub(crate) fn quit(&mut self, id: u64, why: &[u8]) {
        let Some(user) = self.users.get(&id) else { return };
        if !self.closing {
            let mut line = BytesMut::new();
            message::write(&mut line, format_args!(":{} QUIT", user.source), Some(why));
            self.tell_neighbours(id, &line.freeze());
        }
        let Some(user) = self.users.get(&id) else { return };
        for key in user.channels.clone() {
            self.unseat(id, &key);
        }
        if let Some(user) = self.users.remove(&id) {
            self.nicks.remove(&Folded::new(&user.nick));
        }
    }

    /// The next channels behind one, in the order of their names.
    pub(crate) fn channels_behind<'a>(
        &'a self,
        key: Option<&Folded>,
    ) -> impl Iterator<Item = (&'a Folded, &'a Channel)> + use<'a> {
        let begin = key.map_or(Bound::Unbounded, |key| Bound::Excluded(key.clone()));
        self.channels.range((begin, Bound::Unbounded))
    }
}

/// Sends a line to one client. All that it is sent to share its bytes.
///
/// A client that has not kept up is dropped: it must cost the others neither time nor memory.
fn deliver(slow: &mut Vec<u64>, id: u64, handle: &Handle, line: &Bytes) {
    match handle.push(line.clone()) {
        // A client whose connection is closed leaves by itself.
        Ok(()) | Err(HandleError::Closed(_)) => {}
        Err(_) => {
            handle.abort();
            slow.push(id);
        }
    }
}

/// The time in seconds since 1970.
pub(crate) fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}
