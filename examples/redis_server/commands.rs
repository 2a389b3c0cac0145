//! What each command does (no I/O of its own).
//!
//! To add a command, add a function and a line in [`COMMANDS`].

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use tokio::time::Instant;

use crate::protocol::{Refusal, Reply, Words, integer};
use crate::pubsub::{Hub, Subscriptions};
use crate::store::{MEMORY, Side, Store};
use crate::waiting::{SHORT, Waiting};

/// The most bytes of answers and messages that may wait for all clients together. Short ones do not count. A value
/// counts each time it is sent, because after a change the old value stays in memory only for the client that it is
/// being sent to.
const ANSWERS: usize = 256 << 20;
/// The same for commands that are not complete yet.
const COMMANDS_BEGUN: usize = 256 << 20;
/// The longest name that a client may give itself, in bytes.
const NAME: usize = 1 << 10;

const SYNTAX: Refusal = Refusal::new("ERR syntax error");
const OUT_OF_MEMORY: Refusal =
    Refusal::new("OOM command not allowed when used memory > 'maxmemory'.");

/// What all clients share. All clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Shared {
    store: Arc<Mutex<Store>>,
    pub(crate) hub: Hub,
    pub(crate) answers: Waiting,
    pub(crate) begun: Waiting,
}

impl Default for Shared {
    fn default() -> Self {
        Shared {
            store: Arc::default(),
            hub: Hub::default(),
            answers: Waiting::new(ANSWERS),
            begun: Waiting::new(COMMANDS_BEGUN),
        }
    }
}

impl Shared {
    /// The data, without expired keys. The lock is held for one command, so that others see all of its effect or none.
    fn store(&self) -> MutexGuard<'_, Store> {
        let mut store = self.store.lock().unwrap_or_else(PoisonError::into_inner);
        store.expire();
        store
    }
}

/// What is known of one client.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) id: u64,
    pub(crate) shared: Shared,
    name: Vec<u8>,
    /// `None` before the client's first SUBSCRIBE.
    pub(crate) subscriptions: Option<Subscriptions>,
}

impl Client {
    pub(crate) fn new(id: u64, shared: Shared) -> Self {
        Client { id, shared, name: Vec::new(), subscriptions: None }
    }

    pub(crate) fn is_subscribed(&self) -> bool {
        self.subscriptions.as_ref().is_some_and(|names| !names.is_empty())
    }
}

/// What is to be done after a command, besides sending what was written.
#[derive(Debug)]
pub(crate) enum Then {
    Go,
    /// Let other clients have their turn before the next command.
    GiveWay,
    Close,
    /// Abort the connection, without sending what was written before.
    Abort,
    /// Send this answer, which was not written to the output.
    SendLong(Bytes),
    /// Send what was written, then these bytes, and CRLF.
    SendValue(Bytes),
    /// Call [`confirm_subscriptions`].
    Subscribe,
}

/// A command that is being carried out.
struct Call<'a, 'r> {
    client: &'a mut Client,
    words: Words<'a>,
    reply: Reply<'r>,
}

type Done = Result<Then, Refusal>;

pub(crate) struct Command {
    /// The name in lower case.
    name: &'static str,
    /// How many words it has with its name; if negative, it may have more.
    words: i8,
    run: fn(&mut Call<'_, '_>) -> Done,
    keys: Keys,
    when: When,
}

/// Which words are keys.
#[derive(Clone, Copy)]
enum Keys {
    No,
    First,
    All,
    /// Every second word, beginning with the first.
    Pairs,
}

/// When a command may be given.
#[derive(Clone, Copy, PartialEq, Eq)]
enum When {
    /// It may not be given by a subscriber.
    Usual,
    /// It may not be given by a subscriber, nor when there is no memory left.
    Grows,
    Always,
}

/// All commands, in the order of their names.
const COMMANDS: &[Command] = {
    use {Keys::*, When::*};
    const fn command(
        name: &'static str,
        words: i8,
        run: fn(&mut Call<'_, '_>) -> Done,
        keys: Keys,
        when: When,
    ) -> Command {
        Command { name, words, run, keys, when }
    }
    &[
        command("append", 3, append, First, Grows),
        command("client", -2, client, No, Usual),
        command("command", -1, command_, No, Usual),
        command("config", -2, config, No, Usual),
        command("dbsize", 1, dbsize, No, Usual),
        command("decr", 2, |call| add(call, -1), First, Grows),
        command("decrby", 3, decrby, First, Grows),
        command("del", -2, del, All, Usual),
        command("echo", 2, echo, No, Usual),
        command("exists", -2, exists, All, Usual),
        command("expire", 3, expire, First, Usual),
        command("flushall", -1, flushall, No, Usual),
        command("get", 2, get, First, Usual),
        command("getset", 3, getset, First, Grows),
        command("hello", -1, hello, No, Usual),
        command("hget", 3, hget, First, Usual),
        command("hgetall", 2, hgetall, First, Usual),
        command("hset", -4, hset, First, Grows),
        command("incr", 2, |call| add(call, 1), First, Grows),
        command("incrby", 3, incrby, First, Grows),
        command("info", -1, info, No, Usual),
        command("llen", 2, llen, First, Usual),
        command("lpop", -2, |call| pop(call, Side::Left), First, Usual),
        command("lpush", -3, |call| push(call, Side::Left), First, Grows),
        command("lrange", 4, lrange, First, Usual),
        command("mget", -2, mget, All, Usual),
        command("mset", -3, mset, Pairs, Grows),
        command("ping", -1, ping, No, Always),
        command("publish", 3, publish, No, Usual),
        command("quit", -1, quit, No, Always),
        command("reset", 1, reset, No, Always),
        command("rpop", -2, |call| pop(call, Side::Right), First, Usual),
        command("rpush", -3, |call| push(call, Side::Right), First, Grows),
        command("select", 2, select, No, Usual),
        command("set", -3, set, First, Grows),
        command("strlen", 2, strlen, First, Usual),
        command("subscribe", -2, subscribe, No, Always),
        command("ttl", 2, ttl, First, Usual),
        command("unsubscribe", -1, unsubscribe, No, Always),
    ]
};

/// A name in lower case and its length, as a number. The numbers of [`COMMANDS`] are in order, so that a command is
/// found by comparing numbers and not bytes.
#[inline]
const fn number(name: &[u8]) -> Option<u128> {
    let mut bytes = [0; 16];
    if name.len() >= bytes.len() {
        return None;
    }
    let mut index = 0;
    while index < name.len() {
        bytes[index] = name[index].to_ascii_lowercase();
        index += 1;
    }
    bytes[15] = name.len() as u8;
    Some(u128::from_be_bytes(bytes))
}

/// The number of each command.
const NUMBERS: [u128; COMMANDS.len()] = {
    let mut numbers = [0; COMMANDS.len()];
    let mut index = 0;
    while index < numbers.len() {
        numbers[index] = number(COMMANDS[index].name.as_bytes()).expect("a short name");
        assert!(index == 0 || numbers[index - 1] < numbers[index], "not in order");
        index += 1;
    }
    numbers
};

impl Command {
    pub(crate) fn find(name: &[u8]) -> Option<&'static Command> {
        let index = NUMBERS.binary_search(&number(name)?).ok()?;
        COMMANDS.get(index)
    }

    /// Carries out the command.
    pub(crate) fn run(&self, client: &mut Client, words: Words<'_>, reply: Reply<'_>) -> Done {
        let enough = usize::from(self.words.unsigned_abs());
        if words.len() < enough || (self.words > 0 && words.len() > enough) {
            return Err(self.wrong_number());
        }
        if self.when != When::Always && client.is_subscribed() {
            return Err(Refusal(
                format!(
                    "ERR Can't execute '{}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / \
                     RESET are allowed in this context",
                    self.name
                )
                .into(),
            ));
        }
        if self.when == When::Grows && client.shared.store().used() > MEMORY {
            return Err(OUT_OF_MEMORY);
        }
        let mut call = Call { client, words, reply };
        let done = (self.run)(&mut call);
        if call.reply.is_short() { done } else { call.end_long(done) }
    }

    fn wrong_number(&self) -> Refusal {
        Refusal(format!("ERR wrong number of arguments for '{}' command", self.name).into())
    }
}

/// The answer to a command that does not exist.
pub(crate) fn unknown(words: &Words<'_>) -> Done {
    let name = words.get(0);
    if name.eq_ignore_ascii_case(b"post") || name.eq_ignore_ascii_case(b"host:") {
        // A browser was made to send an HTTP request here. Commands in it must not be obeyed.
        return Ok(Then::Abort);
    }
    let shown = |bytes: &[u8], most: usize| {
        String::from_utf8_lossy(&bytes[..bytes.len().min(most)]).into_owned()
    };
    let mut arguments = String::new();
    for word in words.from(1) {
        let Some(most) = 128_usize.checked_sub(arguments.len()).filter(|most| *most > 0) else {
            break;
        };
        arguments = arguments + "'" + &shown(word, most) + "' ";
    }
    let name = shown(name, 128);
    Err(Refusal(
        format!("ERR unknown command '{name}', with args beginning with: {arguments}").into(),
    ))
}

impl Call<'_, '_> {
    /// Ends a command whose answer is not short: takes the answer out, so that its bytes are counted.
    #[cold]
    fn end_long(&mut self, done: Done) -> Done {
        let then = done?;
        self.reply.check()?;
        Ok(match then {
            Then::Go => self.reply.take_long().map_or(Then::Go, Then::SendLong),
            then => then,
        })
    }

    fn option(&self, index: usize) -> String {
        String::from_utf8_lossy(self.words.get(index)).to_ascii_lowercase()
    }

    fn wrong_number(&self) -> Refusal {
        let name = self.option(0);
        Refusal(format!("ERR wrong number of arguments for '{name}' command").into())
    }

    fn wrong_number_behind_subcommand(&self) -> Refusal {
        let (name, subcommand) = (self.option(0), self.option(1));
        let text = format!("ERR wrong number of arguments for '{name}|{subcommand}' command");
        Refusal(text.into())
    }

    fn unknown_subcommand(&self) -> Refusal {
        let shown = self.words.get(1);
        let shown = String::from_utf8_lossy(&shown[..shown.len().min(128)]);
        let name = self.option(0).to_ascii_uppercase();
        Refusal(format!("ERR unknown subcommand '{shown}'. Try {name} HELP.").into())
    }
}

fn answer_text(reply: &mut Reply<'_>, text: Option<&Bytes>) -> Done {
    match text {
        None => reply.nil(),
        Some(text) if text.len() <= SHORT => reply.bulk(text),
        Some(text) => {
            reply.check_room(text.len())?;
            reply.bulk_head(text.len());
            return Ok(Then::SendValue(text.clone()));
        }
    }
    Ok(Then::Go)
}

// --- The connection ------------------------------------------------------------------------------

fn ping(call: &mut Call<'_, '_>) -> Done {
    match (call.words.len(), call.client.is_subscribed()) {
        (1 | 2, true) => {
            call.reply.array(2);
            call.reply.bulk(b"pong");
            call.reply.bulk(call.words.get(1));
        }
        (1, false) => call.reply.simple("PONG"),
        (2, false) => call.reply.bulk(call.words.get(1)),
        _ => return Err(call.wrong_number()),
    }
    Ok(Then::Go)
}

fn echo(call: &mut Call<'_, '_>) -> Done {
    call.reply.bulk(call.words.get(1));
    Ok(Then::Go)
}

fn quit(call: &mut Call<'_, '_>) -> Done {
    call.reply.ok();
    Ok(Then::Close)
}

fn select(call: &mut Call<'_, '_>) -> Done {
    if integer(call.words.get(1))? != 0 {
        return Err(Refusal::new("ERR DB index is out of range"));
    }
    call.reply.ok();
    Ok(Then::Go)
}

fn reset(call: &mut Call<'_, '_>) -> Done {
    call.client.name.clear();
    call.client.subscriptions = None;
    call.reply.simple("RESET");
    Ok(Then::Go)
}

fn set_name(client: &mut Client, name: &[u8]) -> Result<(), Refusal> {
    if name.len() > NAME || !name.iter().all(u8::is_ascii_graphic) {
        return Err(Refusal::new(
            "ERR Client names cannot contain spaces, newlines or special characters.",
        ));
    }
    client.name = name.to_vec();
    Ok(())
}

fn hello(call: &mut Call<'_, '_>) -> Done {
    if call.words.len() > 1 {
        let version = integer(call.words.get(1))
            .map_err(|_| Refusal::new("ERR Protocol version is not an integer or out of range"))?;
        if version != 2 {
            return Err(Refusal::new("NOPROTO unsupported protocol version"));
        }
    }
    match (call.words.len(), call.option(2).as_str()) {
        (0..=2, _) => {}
        (4, "setname") => set_name(call.client, call.words.get(3))?,
        _ => {
            let option = String::from_utf8_lossy(call.words.get(2));
            let option: String = option.chars().take(128).collect();
            return Err(Refusal(format!("ERR Syntax error in HELLO option '{option}'").into()));
        }
    }
    let reply = &mut call.reply;
    reply.array(14);
    reply.bulk(b"server");
    reply.bulk(b"redis");
    reply.bulk(b"version");
    reply.bulk(VERSION.as_bytes());
    reply.bulk(b"proto");
    reply.integer(2);
    reply.bulk(b"id");
    reply.count(call.client.id as usize);
    reply.bulk(b"mode");
    reply.bulk(b"standalone");
    reply.bulk(b"role");
    reply.bulk(b"master");
    reply.bulk(b"modules");
    reply.array(0);
    Ok(Then::Go)
}

fn client(call: &mut Call<'_, '_>) -> Done {
    match (call.option(1).as_str(), call.words.len()) {
        ("id", 2) => call.reply.count(call.client.id as usize),
        ("getname", 2) if call.client.name.is_empty() => call.reply.nil(),
        ("getname", 2) => call.reply.bulk(&call.client.name),
        ("setname", 3) => {
            set_name(call.client, call.words.get(2))?;
            call.reply.ok();
        }
        // The name of the client's library. It is accepted and not kept.
        ("setinfo", 4) => call.reply.ok(),
        ("id" | "getname" | "setname" | "setinfo", _) => {
            return Err(call.wrong_number_behind_subcommand());
        }
        _ => return Err(call.unknown_subcommand()),
    }
    Ok(Then::Go)
}

// --- The server ------------------------------------------------------------------------------------

/// The version of Redis whose answers these are: clients look at it.
const VERSION: &str = "7.0.0";

fn config(call: &mut Call<'_, '_>) -> Done {
    let memory = MEMORY.to_string();
    let settings = [
        ("appendonly", "no"),
        ("databases", "1"),
        ("maxmemory", memory.as_str()),
        ("maxmemory-policy", "noeviction"),
        ("proto-max-bulk-len", "536870912"),
        ("save", ""),
    ];
    match (call.option(1).as_str(), call.words.len()) {
        ("get", 3..) => {
            let wanted = |name: &str| {
                call.words
                    .from(2)
                    .any(|word| word == b"*" || word.eq_ignore_ascii_case(name.as_bytes()))
            };
            let found: Vec<_> = settings.iter().filter(|(name, _)| wanted(name)).collect();
            call.reply.array(found.len() * 2);
            for (name, value) in found {
                call.reply.bulk(name.as_bytes());
                call.reply.bulk(value.as_bytes());
            }
        }
        ("resetstat", 2) => call.reply.ok(),
        ("set", 4..) => {
            let name: String = call.option(2).chars().take(128).collect();
            let text =
                format!("ERR Unknown option or number of arguments for CONFIG SET - '{name}'");
            return Err(Refusal(text.into()));
        }
        ("get" | "set" | "resetstat", _) => return Err(call.wrong_number_behind_subcommand()),
        _ => return Err(call.unknown_subcommand()),
    }
    Ok(Then::Go)
}

fn command_(call: &mut Call<'_, '_>) -> Done {
    match (call.option(1).as_str(), call.words.len()) {
        (_, 1) => {}
        ("count", 2) => {
            call.reply.count(COMMANDS.len());
            return Ok(Then::Go);
        }
        // There are no descriptions of commands.
        ("docs", _) => {
            call.reply.array(0);
            return Ok(Then::Go);
        }
        _ => return Err(call.unknown_subcommand()),
    }
    call.reply.array(COMMANDS.len());
    for command in COMMANDS {
        let (first, last, step) = match command.keys {
            Keys::No => (0, 0, 0),
            Keys::First => (1, 1, 1),
            Keys::All => (1, -1, 1),
            Keys::Pairs => (1, -1, 2),
        };
        call.reply.array(6);
        call.reply.bulk(command.name.as_bytes());
        call.reply.integer(command.words.into());
        call.reply.array(0);
        for place in [first, last, step] {
            call.reply.integer(place);
        }
    }
    Ok(Then::Go)
}

fn info(call: &mut Call<'_, '_>) -> Done {
    let (keys, mortal, used) = {
        let store = call.client.shared.store();
        (store.len(), store.mortal(), store.used())
    };
    let mut text = format!(
        "# Server\r\nredis_version:{VERSION}\r\nredis_mode:standalone\r\nprocess_id:{}\r\n\r\n\
         # Memory\r\nused_memory:{used}\r\nmaxmemory:{MEMORY}\r\n\r\n\
         # Persistence\r\nloading:0\r\n\r\n\
         # Replication\r\nrole:master\r\nconnected_slaves:0\r\n\r\n\
         # Keyspace\r\n",
        std::process::id()
    );
    if keys > 0 {
        text += &format!("db0:keys={keys},expires={mortal},avg_ttl=0\r\n");
    }
    call.reply.bulk(text.as_bytes());
    Ok(Then::Go)
}

fn dbsize(call: &mut Call<'_, '_>) -> Done {
    call.reply.count(call.client.shared.store().len());
    Ok(Then::Go)
}

fn flushall(call: &mut Call<'_, '_>) -> Done {
    match (call.words.len(), call.option(1).as_str()) {
        (1, _) | (2, "sync" | "async") => call.client.shared.store().clear(),
        _ => return Err(SYNTAX),
    }
    call.reply.ok();
    Ok(Then::Go)
}

// --- Keys --------------------------------------------------------------------------------------------

fn del(call: &mut Call<'_, '_>) -> Done {
    let mut store = call.client.shared.store();
    let removed = call.words.from(1).filter(|key| store.remove(key)).count();
    call.reply.count(removed);
    Ok(Then::Go)
}

fn exists(call: &mut Call<'_, '_>) -> Done {
    let store = call.client.shared.store();
    call.reply.count(call.words.from(1).filter(|key| store.contains(key)).count());
    Ok(Then::Go)
}

fn expire(call: &mut Call<'_, '_>) -> Done {
    let milliseconds = milliseconds(integer(call.words.get(2))?, 1000, "expire")?;
    let key = call.words.get(1);
    let mut store = call.client.shared.store();
    let done = match u64::try_from(milliseconds) {
        Err(_) | Ok(0) => store.remove(key),
        Ok(time) => store.set_deadline(key, Some(deadline(time, "expire")?)),
    };
    call.reply.count(done.into());
    Ok(Then::Go)
}

/// Units of time in milliseconds. It is an error if the time when they are over cannot be expressed in milliseconds
/// since 1970, as Redis counts.
fn milliseconds(units: i64, unit: i64, command: &str) -> Result<i64, Refusal> {
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_millis();
    let time = units.checked_mul(unit);
    let over = time.and_then(|time| time.checked_add(i64::try_from(now).ok()?));
    time.filter(|_| over.is_some()).ok_or_else(|| bad_time(command))
}

/// The time when this many milliseconds have passed from now on.
fn deadline(milliseconds: u64, command: &str) -> Result<Instant, Refusal> {
    let time = Duration::from_millis(milliseconds);
    Instant::now().checked_add(time).ok_or_else(|| bad_time(command))
}

fn bad_time(command: &str) -> Refusal {
    Refusal(format!("ERR invalid expire time in '{command}' command").into())
}

fn ttl(call: &mut Call<'_, '_>) -> Done {
    let seconds = match call.client.shared.store().deadline(call.words.get(1)) {
        None => -2,
        Some(None) => -1,
        Some(Some(deadline)) => {
            let left = deadline.saturating_duration_since(Instant::now());
            i64::try_from((left.as_millis() + 500) / 1000).unwrap_or(i64::MAX)
        }
    };
    call.reply.integer(seconds);
    Ok(Then::Go)
}

// --- Strings -----------------------------------------------------------------------------------------

fn set(call: &mut Call<'_, '_>) -> Done {
    let (key, text) = (call.words.get(1), call.words.get(2));
    let mut time = None;
    let mut only_if = None;
    let mut index = 3;
    while index < call.words.len() {
        match call.option(index).as_str() {
            "nx" if only_if != Some(true) => only_if = Some(false),
            "xx" if only_if != Some(false) => only_if = Some(true),
            unit @ ("ex" | "px") if time.is_none() && index + 1 < call.words.len() => {
                index += 1;
                time = Some((call.words.get(index), if unit == "ex" { 1000 } else { 1 }));
            }
            _ => return Err(SYNTAX),
        }
        index += 1;
    }
    // As in Redis, an unknown option is reported before an invalid number.
    let expires = match time {
        None => None,
        Some((units, unit)) => match u64::try_from(milliseconds(integer(units)?, unit, "set")?) {
            Err(_) | Ok(0) => return Err(bad_time("set")),
            Ok(time) => Some(deadline(time, "set")?),
        },
    };
    let mut store = call.client.shared.store();
    if only_if.is_some_and(|there| there != store.contains(key)) {
        call.reply.nil();
        return Ok(Then::Go);
    }
    store.set(key, text);
    if expires.is_some() {
        store.set_deadline(key, expires);
    }
    call.reply.ok();
    Ok(Then::Go)
}

fn get(call: &mut Call<'_, '_>) -> Done {
    let store = call.client.shared.store();
    answer_text(&mut call.reply, store.text(call.words.get(1))?)
}

fn getset(call: &mut Call<'_, '_>) -> Done {
    let (key, text) = (call.words.get(1), call.words.get(2));
    let mut store = call.client.shared.store();
    let done = answer_text(&mut call.reply, store.text(key)?)?;
    store.set(key, text);
    Ok(done)
}

fn mget(call: &mut Call<'_, '_>) -> Done {
    let store = call.client.shared.store();
    call.reply.array(call.words.len() - 1);
    for key in call.words.from(1) {
        match store.text(key) {
            Ok(Some(text)) => call.reply.bulk(text),
            // A value of another type counts as none.
            Ok(None) | Err(_) => call.reply.nil(),
        }
        call.reply.check()?;
    }
    Ok(Then::Go)
}

fn mset(call: &mut Call<'_, '_>) -> Done {
    if call.words.len() % 2 == 0 {
        return Err(call.wrong_number());
    }
    let mut store = call.client.shared.store();
    for (key, text) in call.words.pairs(1) {
        store.set(key, text);
    }
    call.reply.ok();
    Ok(Then::Go)
}

fn strlen(call: &mut Call<'_, '_>) -> Done {
    let store = call.client.shared.store();
    call.reply.count(store.text(call.words.get(1))?.map_or(0, Bytes::len));
    Ok(Then::Go)
}

fn append(call: &mut Call<'_, '_>) -> Done {
    let (key, more) = (call.words.get(1), call.words.get(2));
    let length = call.client.shared.store().append(key, more)?;
    call.reply.count(length);
    Ok(Then::Go)
}

fn incrby(call: &mut Call<'_, '_>) -> Done {
    let by = integer(call.words.get(2))?;
    add(call, by)
}

fn decrby(call: &mut Call<'_, '_>) -> Done {
    let by = integer(call.words.get(2))?.checked_neg();
    add(call, by.ok_or(Refusal::new("ERR decrement would overflow"))?)
}

fn add(call: &mut Call<'_, '_>, by: i64) -> Done {
    let sum = call.client.shared.store().add(call.words.get(1), by)?;
    call.reply.integer(sum);
    Ok(Then::Go)
}

// --- Lists -------------------------------------------------------------------------------------------

fn push(call: &mut Call<'_, '_>, side: Side) -> Done {
    let length = call.client.shared.store().push(call.words.get(1), side, call.words.from(2))?;
    call.reply.count(length);
    Ok(Then::Go)
}

fn pop(call: &mut Call<'_, '_>, side: Side) -> Done {
    let key = call.words.get(1);
    let mut store = call.client.shared.store();
    match call.words.len() {
        2 => {
            // The element is removed only after it could be answered.
            let list = store.list(key)?;
            let next = match side {
                Side::Left => list.and_then(VecDeque::front),
                Side::Right => list.and_then(VecDeque::back),
            };
            let done = answer_text(&mut call.reply, next)?;
            store.pop(key, side)?;
            Ok(done)
        }
        3 => {
            let most = usize::try_from(integer(call.words.get(2)).unwrap_or(-1))
                .map_err(|_| Refusal::new("ERR value is out of range, must be positive"))?;
            let Some(list) = store.list(key)? else {
                call.reply.nil_array();
                return Ok(Then::Go);
            };
            let count = most.min(list.len());
            call.reply.array(count);
            // All elements are answered before any is removed: if the answer is too long, none must be lost.
            for index in 0..count {
                let index = match side {
                    Side::Left => index,
                    Side::Right => list.len() - 1 - index,
                };
                call.reply.bulk(&list[index]);
                call.reply.check()?;
            }
            for _ in 0..count {
                store.pop(key, side)?;
            }
            Ok(Then::Go)
        }
        _ => Err(call.wrong_number()),
    }
}

fn lrange(call: &mut Call<'_, '_>) -> Done {
    let (start, stop) = (integer(call.words.get(2))?, integer(call.words.get(3))?);
    let store = call.client.shared.store();
    let Some(list) = store.list(call.words.get(1))? else {
        call.reply.array(0);
        return Ok(Then::Go);
    };
    let length = list.len();
    // A negative index counts from the right. One before the first element is the first.
    let place = |index: i64| match usize::try_from(index) {
        Ok(index) => index,
        Err(_) => length.saturating_sub(index.unsigned_abs() as usize),
    };
    let beyond = if stop < 0 && stop.unsigned_abs() as usize > length {
        0
    } else {
        place(stop).saturating_add(1)
    };
    let (start, end) = (place(start).min(length), beyond.min(length));
    call.reply.array(end.saturating_sub(start));
    for element in list.range(start..end.max(start)) {
        call.reply.bulk(element);
        call.reply.check()?;
    }
    Ok(Then::Go)
}

fn llen(call: &mut Call<'_, '_>) -> Done {
    let store = call.client.shared.store();
    call.reply.count(store.list(call.words.get(1))?.map_or(0, |list| list.len()));
    Ok(Then::Go)
}

// --- Hashes ------------------------------------------------------------------------------------------

fn hset(call: &mut Call<'_, '_>) -> Done {
    if call.words.len() % 2 == 1 {
        return Err(call.wrong_number());
    }
    let mut store = call.client.shared.store();
    let new = store.set_fields(call.words.get(1), call.words.pairs(2))?;
    call.reply.count(new);
    Ok(Then::Go)
}

fn hget(call: &mut Call<'_, '_>) -> Done {
    let store = call.client.shared.store();
    let hash = store.hash(call.words.get(1))?;
    answer_text(&mut call.reply, hash.and_then(|hash| hash.get(call.words.get(2))))
}

fn hgetall(call: &mut Call<'_, '_>) -> Done {
    let store = call.client.shared.store();
    let hash = store.hash(call.words.get(1))?;
    call.reply.array(hash.map_or(0, |hash| hash.len() * 2));
    for (field, text) in hash.into_iter().flatten() {
        call.reply.bulk(field);
        call.reply.bulk(text);
        call.reply.check()?;
    }
    Ok(Then::Go)
}

// --- Publish and subscribe -----------------------------------------------------------------------------

fn publish(call: &mut Call<'_, '_>) -> Done {
    let Shared { hub, answers, .. } = &call.client.shared;
    let told = hub.publish(call.words.get(1), call.words.get(2), answers)?;
    call.reply.count(told.hearers);
    Ok(if told.gives_way { Then::GiveWay } else { Then::Go })
}

/// Only returns `Then::Subscribe`: a subscription needs a handle to the connection, which is not at hand here.
fn subscribe(_: &mut Call<'_, '_>) -> Done {
    Ok(Then::Subscribe)
}

/// Carries out a SUBSCRIBE. If the answer is not short, it is returned and not written.
pub(crate) fn confirm_subscriptions(
    subscriptions: &mut Subscriptions,
    words: &Words<'_>,
    mut reply: Reply<'_>,
) -> Option<Bytes> {
    for name in words.from(1) {
        // A channel that is subscribed already adds nothing but another answer.
        if let Err(refusal) = reply.check().and_then(|()| subscriptions.add(name)) {
            reply.error(&refusal);
            break;
        }
        confirm(&mut reply, b"subscribe", Some(name), subscriptions.len());
    }
    reply.take_long()
}

fn unsubscribe(call: &mut Call<'_, '_>) -> Done {
    let reply = &mut call.reply;
    let verb = b"unsubscribe";
    match &mut call.client.subscriptions {
        Some(subscriptions) if !subscriptions.is_empty() && call.words.len() == 1 => {
            while let Some(name) = subscriptions.first() {
                subscriptions.remove(&name);
                confirm(reply, verb, Some(&name), subscriptions.len());
            }
        }
        Some(subscriptions) if call.words.len() > 1 => {
            for name in call.words.from(1) {
                reply.check()?;
                subscriptions.remove(name);
                confirm(reply, verb, Some(name), subscriptions.len());
            }
        }
        _ if call.words.len() > 1 => {
            for name in call.words.from(1) {
                reply.check()?;
                confirm(reply, verb, Some(name), 0);
            }
        }
        _ => confirm(reply, verb, None, 0),
    }
    Ok(Then::Go)
}

fn confirm(reply: &mut Reply<'_>, verb: &[u8], name: Option<&[u8]>, count: usize) {
    reply.array(3);
    reply.bulk(verb);
    match name {
        Some(name) => reply.bulk(name),
        None => reply.nil(),
    }
    reply.count(count);
}
