//! Who is in which room, and who is told what.
//!
//! Everything happens under one lock, which is never held across an await: pushing through a
//! [`Handle`] does not wait. So all members of a room see the same lines in the same order.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use asynchat::{Handle, HandleError};
use bytes::Bytes;

/// Characters of a name, of members and of rooms.
pub(crate) const NAME_LENGTH: usize = 16;
const ROOMS: usize = 100;
const ROOM_MEMBERS: usize = 1500;
/// Names that `/who` lists; of more it says how many there are.
const NAMES_LISTED: usize = 50;
const LOBBY: &str = "lobby";

/// All rooms. Clones are the same rooms.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rooms(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    members: HashMap<u64, Member>,
    /// The names of all members, in lower case.
    names: BTreeSet<String>,
    /// Who is in each room. No room is empty.
    rooms: BTreeMap<String, BTreeSet<u64>>,
    /// How many there have ever been.
    last: u64,
    /// Who leaves now is not announced.
    closing: bool,
}

#[derive(Debug)]
struct Member {
    name: String,
    room: String,
    handle: Handle,
}

/// A member's place. It is given up when it is dropped, however that comes about.
#[derive(Debug)]
pub(crate) struct Seat {
    rooms: Rooms,
    id: u64,
}

/// Why something was not done, in words for the member.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    BadName,
    NameTaken,
    TooManyRooms,
    RoomFull,
    /// The member was dropped.
    Gone,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::BadName => {
                write!(f, "a name has 1 to {NAME_LENGTH} letters, digits, '-' or '_' (ASCII)")
            }
            Refusal::NameTaken => f.write_str("somebody has that name"),
            Refusal::TooManyRooms => f.write_str("there are too many rooms"),
            Refusal::RoomFull => f.write_str("the room is full"),
            Refusal::Gone => f.write_str("you are not here any more"),
        }
    }
}

impl Rooms {
    /// Seats a newcomer in the lobby, under a name that is free.
    pub(crate) fn enter(&self, handle: Handle) -> Result<Seat, Refusal> {
        let mut state = self.lock();
        state.check_room(LOBBY)?;
        state.last += 1;
        let id = state.last;
        // Nobody can choose this name: guests are numbered once.
        let name = format!("guest{id}");
        // Before the room knows of the member: what others say comes behind it. It is the first, so it fits.
        let _ = handle.push(format!("* welcome to {LOBBY}, {name}; try /help\r\n"));
        state.names.insert(name.clone());
        state.members.insert(id, Member { name, room: String::new(), handle });
        state.sit(id, LOBBY);
        Ok(Seat { rooms: self.clone(), id })
    }

    /// From now on nobody is told who leaves.
    pub(crate) fn close(&self) {
        self.lock().closing = true;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    /// All the rooms.
    pub(crate) fn rooms(&self) -> &Rooms {
        &self.rooms
    }

    /// Tells everybody else in the room.
    pub(crate) fn say(&self, text: &str) {
        let mut state = self.rooms.lock();
        let Some(Member { name, room, .. }) = state.members.get(&self.id) else { return };
        let (line, room) = (format!("{name}: {text}\r\n"), room.clone());
        state.tell(&room, line, Some(self.id));
    }

    /// Changes the member's name.
    pub(crate) fn rename(&self, new: &str) -> Result<(), Refusal> {
        check_name(new)?;
        let mut state = self.rooms.lock();
        let State { members, names, .. } = &mut *state;
        let member = members.get_mut(&self.id).ok_or(Refusal::Gone)?;
        let (old_key, new_key) = (member.name.to_ascii_lowercase(), new.to_ascii_lowercase());
        // The names of guests to come are not to be had.
        let reserved = new_key.starts_with("guest");
        if new_key != old_key && (reserved || names.contains(&new_key)) {
            return Err(Refusal::NameTaken);
        }
        names.remove(&old_key);
        names.insert(new_key);
        let old = std::mem::replace(&mut member.name, new.to_owned());
        let room = member.room.clone();
        state.tell(&room, format!("* {old} is now {new}\r\n"), None);
        Ok(())
    }

    /// Goes to another room, which comes to be if need be.
    pub(crate) fn join(&self, room: &str) -> Result<(), Refusal> {
        check_name(room)?;
        let room = room.to_ascii_lowercase();
        let mut state = self.rooms.lock();
        let member = state.members.get(&self.id).ok_or(Refusal::Gone)?;
        if member.room == room {
            return Ok(());
        }
        let name = member.name.clone();
        state.check_room(&room)?;
        if let Some(old) = state.stand_up(self.id) {
            state.tell(&old, format!("* {name} went to {room}\r\n"), None);
        }
        state.sit(self.id, &room);
        Ok(())
    }

    /// Who is in the room, in lines for the member.
    pub(crate) fn who(&self) -> String {
        let state = self.rooms.lock();
        let Some(Member { room, .. }) = state.members.get(&self.id) else { return String::new() };
        let ids = &state.rooms[room];
        let mut text = format!("* {} in {room}:", ids.len());
        for member in ids.iter().take(NAMES_LISTED).filter_map(|id| state.members.get(id)) {
            text.push(' ');
            text.push_str(&member.name);
        }
        if ids.len() > NAMES_LISTED {
            text.push_str(" ...");
        }
        text + "\r\n"
    }

    /// Which rooms there are, in lines for the member.
    pub(crate) fn list(&self) -> String {
        let state = self.rooms.lock();
        state.rooms.iter().map(|(room, ids)| format!("* {room}: {}\r\n", ids.len())).collect()
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.rooms.lock().remove(self.id, "left");
    }
}

impl State {
    fn check_room(&self, room: &str) -> Result<(), Refusal> {
        match self.rooms.get(room) {
            Some(ids) if ids.len() >= ROOM_MEMBERS => Err(Refusal::RoomFull),
            None if self.rooms.len() >= ROOMS => Err(Refusal::TooManyRooms),
            _ => Ok(()),
        }
    }

    /// Puts a member who is nowhere into a room, and tells the others.
    fn sit(&mut self, id: u64, room: &str) {
        let Some(member) = self.members.get_mut(&id) else { return };
        member.room = room.to_owned();
        let line = format!("* {} joined {room}\r\n", member.name);
        self.rooms.entry(room.to_owned()).or_default().insert(id);
        self.tell(room, line, Some(id));
    }

    /// Takes a member out of the room, which is returned. One that is empty is no more.
    fn stand_up(&mut self, id: u64) -> Option<String> {
        let room = self.members.get(&id)?.room.clone();
        let ids = self.rooms.get_mut(&room)?;
        ids.remove(&id);
        if ids.is_empty() {
            self.rooms.remove(&room);
        }
        Some(room)
    }

    /// Removes a member, if it is still there, and tells the room why.
    fn remove(&mut self, id: u64, why: &str) {
        let Some((name, room)) = self.forget(id) else { return };
        if !self.closing {
            self.tell(&room, format!("* {name} {why}\r\n"), None);
        }
    }

    /// Removes a member. Returns its name, and the room in which it was.
    fn forget(&mut self, id: u64) -> Option<(String, String)> {
        let room = self.stand_up(id)?;
        let name = self.members.remove(&id)?.name;
        self.names.remove(&name.to_ascii_lowercase());
        Some((name, room))
    }

    /// Gives a line to all in a room but one. It is there once, however many there are.
    ///
    /// Who has not kept up is dropped, and the room told: it must cost the others neither time nor
    /// memory.
    fn tell(&mut self, room: &str, line: String, except: Option<u64>) {
        let mut lines = VecDeque::from([(line, except)]);
        while let Some((line, except)) = lines.pop_front() {
            let line = Bytes::from(line);
            let mut slow = Vec::new();
            for id in self.rooms.get(room).into_iter().flatten().filter(|id| Some(**id) != except) {
                let Some(member) = self.members.get(id) else { continue };
                match member.handle.push(line.clone()) {
                    // One that is closed gives up its seat itself.
                    Ok(()) | Err(HandleError::Closed(_)) => {}
                    Err(_) => {
                        member.handle.abort();
                        slow.push(*id);
                    }
                }
            }
            for id in slow {
                if let Some((name, _)) = self.forget(id) {
                    let notice = format!("* {name} was too slow and has been dropped\r\n");
                    lines.push_back((notice, None));
                }
            }
        }
    }
}

fn check_name(name: &str) -> Result<(), Refusal> {
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if (1..=NAME_LENGTH).contains(&name.len()) && name.bytes().all(valid) {
        Ok(())
    } else {
        Err(Refusal::BadName)
    }
}
