//! What each command of a registered client does (no I/O).
//!
//! A command is carried out while the network is locked. The replies to the client itself are written directly to its
//! output; lines for others are pushed through their handles.

use std::fmt;
use std::str;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use bytes::{Bytes, BytesMut};

use crate::message::{
    self, CHANNEL_LENGTH, Folded, LINE, Message, NICK_LENGTH, USER_LENGTH, fitting,
};
use crate::network::{CHANNELS, JOINS, Locked, Network, State, Topic, seconds};

/// The server's name. It has a dot, by which clients distinguish it from a nickname.
pub(crate) const SERVER: &str = "irc.localhost";
const VERSION: &str = concat!("asynchat-", env!("CARGO_PKG_VERSION"));
/// The most bytes of a topic.
const TOPIC_LENGTH: usize = 300;
const AWAY_LENGTH: usize = 200;
const KICK_LENGTH: usize = 200;
const KEY_LENGTH: usize = 23;
/// The most targets of one PRIVMSG or NOTICE.
const TARGETS: usize = 4;
/// The most modes with a parameter in one MODE.
const MODES: usize = 4;
/// How many channels or clients one piece of a long list holds.
const PIECE: usize = 50;
const MOTD: [&str; 3] = [
    "This is an example of asynchat's: a server to talk with, and to read.",
    "",
    "Say /join #lobby, and see who is there.",
];

/// What happens after a command.
#[derive(Debug)]
pub(crate) enum Then {
    Go,
    /// The client wants to leave, and this is its message.
    Quit(Bytes),
    /// A list is to be sent, piece by piece as the client reads it.
    List(List),
}

/// Writes the replies to a client.
pub(crate) struct Reply<'a> {
    pub(crate) out: &'a mut BytesMut,
    /// The client's nickname, or `*` if it has none yet.
    pub(crate) nick: Arc<str>,
}

impl Reply<'_> {
    /// A numbered reply, with the text behind it.
    pub(crate) fn text(&mut self, code: &str, middle: fmt::Arguments<'_>, text: impl AsRef<[u8]>) {
        let nick = &self.nick;
        message::write(
            self.out,
            format_args!(":{SERVER} {code} {nick}{middle}"),
            Some(text.as_ref()),
        );
    }

    /// The same without a text. What is in the middle begins with a space.
    fn plain(&mut self, code: &str, middle: fmt::Arguments<'_>) {
        message::write(self.out, format_args!(":{SERVER} {code} {}{middle}", self.nick), None);
    }

    /// A numbered reply of words, in as many lines as it takes; in one, if there are none.
    fn words(
        &mut self,
        code: &str,
        middle: fmt::Arguments<'_>,
        words: impl Iterator<Item = [Arc<str>; 2]>,
    ) {
        let mut words = words.peekable();
        loop {
            let start = self.out.len();
            let head = format!(":{SERVER} {code} {}{middle} :", self.nick);
            self.out.extend_from_slice(head.as_bytes());
            while let Some([sign, word]) = words
                .next_if(|[sign, word]| self.out.len() - start + sign.len() + word.len() < LINE)
            {
                self.out.extend_from_slice(sign.as_bytes());
                self.out.extend_from_slice(word.as_bytes());
                self.out.extend_from_slice(b" ");
            }
            if self.out.ends_with(b" ") {
                self.out.truncate(self.out.len() - 1);
            }
            message::end(self.out, start);
            if words.peek().is_none() {
                return;
            }
        }
    }

    /// A numbered reply with a subject and a text. The subject comes from the client and may be anything, so it is
    /// cleaned.
    pub(crate) fn about(&mut self, code: &str, subject: &[u8], text: &str) {
        let subject = String::from_utf8_lossy(fitting(subject, 100));
        let subject = subject.replace(|c: char| c.is_control() || c == ' ', "?");
        self.text(code, format_args!(" {}", subject.trim_start_matches(':')), text);
    }

    pub(crate) fn too_few(&mut self, command: &[u8]) {
        self.about("461", command, "Not enough parameters");
    }

    /// The replies to a client that has just registered.
    pub(crate) fn welcome(&mut self, state: &State, id: u64) {
        let source = state.users.get(&id).map_or("*", |user| &user.source);
        self.text("001", format_args!(""), format!("Welcome to the network, {source}"));
        self.text("002", format_args!(""), format!("Your host is {SERVER}, running {VERSION}"));
        self.text("003", format_args!(""), "This server keeps nothing");
        self.plain("004", format_args!(" {SERVER} {VERSION} i klmnotv klov"));
        self.text(
            "005",
            format_args!(
                " CASEMAPPING=rfc1459 CHANTYPES=# PREFIX=(ov)@+ CHANMODES=b,k,l,mnt CHANLIMIT=#:{JOINS} \
                 NICKLEN={NICK_LENGTH} USERLEN={USER_LENGTH} CHANNELLEN={CHANNEL_LENGTH} \
                 TOPICLEN={TOPIC_LENGTH}"
            ),
            "are supported by this server",
        );
        self.text(
            "005",
            format_args!(
                " AWAYLEN={AWAY_LENGTH} KICKLEN={KICK_LENGTH} KEYLEN={KEY_LENGTH} MODES={MODES} \
                 TARGMAX=JOIN:,PART:,PRIVMSG:{TARGETS},NOTICE:{TARGETS},KICK:1,NAMES:1,WHO:1,WHOIS:1 \
                 NETWORK=asynchat"
            ),
            "are supported by this server",
        );
        self.users(state);
        self.motd();
    }

    fn users(&mut self, state: &State) {
        let (users, channels) = (state.users.len(), state.channels.len());
        self.text("251", format_args!(""), format!("There are {users} users on 1 server"));
        self.text("254", format_args!(" {channels}"), "channels formed");
        self.text("255", format_args!(""), format!("I have {users} clients and 0 servers"));
    }

    fn motd(&mut self) {
        self.text("375", format_args!(""), format!("- {SERVER} Message of the day -"));
        for line in MOTD {
            self.text("372", format_args!(""), format!("- {line}"));
        }
        self.text("376", format_args!(""), "End of /MOTD command");
    }

    /// The reply to PING, which may come at any time.
    pub(crate) fn pong(&mut self, message: &Message<'_>) {
        match message.param(0) {
            Some(token) => {
                message::write(self.out, format_args!(":{SERVER} PONG {SERVER}"), Some(token))
            }
            None => self.text("409", format_args!(""), "No origin specified"),
        }
    }

    /// The replies to CAP. There are no capabilities to negotiate.
    pub(crate) fn capabilities(&mut self, message: &Message<'_>) {
        let Some(subcommand) = message.param(0) else { return self.too_few(b"CAP") };
        match subcommand.to_ascii_uppercase().as_slice() {
            name @ (b"LS" | b"LIST") => {
                let name = String::from_utf8_lossy(name);
                message::write(
                    self.out,
                    format_args!(":{SERVER} CAP {} {name}", self.nick),
                    Some(b""),
                );
            }
            b"REQ" => {
                let wanted = message.params().get(1).copied().unwrap_or_default();
                message::write(
                    self.out,
                    format_args!(":{SERVER} CAP {} NAK", self.nick),
                    Some(wanted),
                );
            }
            b"END" => {}
            _ => self.about("410", subcommand, "Invalid CAP command"),
        }
    }
}

/// Carries out a command of this client.
pub(crate) fn run(
    network: &mut Locked<'_>,
    id: u64,
    message: &Message<'_>,
    out: &mut BytesMut,
) -> Then {
    let Some(user) = network.users.get(&id) else { return Then::Go };
    let (nick, source) = (user.nick.clone(), user.source.clone());
    let mut client = Client { state: network, id, source, reply: Reply { out, nick } };
    let param = |index| message.param(index);
    match message.name() {
        b"PRIVMSG" | b"NOTICE" => client.say(message),
        b"PING" => client.reply.pong(message),
        b"PONG" => {}
        b"JOIN" => client.join(param(0), param(1)),
        b"PART" => client.part(param(0), message.params().get(1).copied()),
        b"TOPIC" => client.topic(param(0), message.params().get(1).copied()),
        b"NAMES" => client.names(param(0)),
        b"LIST" => return client.list(param(0)),
        b"WHO" => return client.who(param(0)),
        b"WHOIS" => client.whois(param(1).or(param(0))),
        b"MODE" => client.mode(message),
        b"KICK" => client.kick(message),
        b"AWAY" => client.away(param(0)),
        b"NICK" => client.nick(param(0)),
        b"ISON" => client.is_on(message),
        b"USERHOST" => client.user_host(message),
        b"MOTD" => client.reply.motd(),
        b"LUSERS" => client.reply.users(client.state),
        b"CAP" => client.reply.capabilities(message),
        b"USER" | b"PASS" => client.reply.text("462", format_args!(""), "You may not reregister"),
        b"QUIT" => {
            let why =
                message.params().first().map_or(&b"leaving"[..], |why| fitting(why, KICK_LENGTH));
            return Then::Quit(Bytes::from([b"Quit: ", why].concat()));
        }
        _ => client.reply.about("421", message.command(), "Unknown command"),
    }
    Then::Go
}

/// The number and the text of a reply that refuses something.
type Refusal = (&'static str, &'static str);

struct Client<'a> {
    state: &'a mut State,
    id: u64,
    source: Arc<str>,
    reply: Reply<'a>,
}

impl Client<'_> {
    /// Tells all in a channel, this client too.
    fn announce(&mut self, key: &Folded, what: fmt::Arguments<'_>, text: Option<&[u8]>) {
        let start = self.reply.out.len();
        message::write(self.reply.out, format_args!(":{} {what}", self.source), text);
        let line = Bytes::copy_from_slice(&self.reply.out[start..]);
        self.state.tell_channel(key, self.id, &line);
    }

    /// The channel of this name. If there is none, the client is told so.
    fn find_channel(&mut self, name: &[u8]) -> Option<Folded> {
        let key = message::channel(name).map(Folded::new);
        let found = key.filter(|key| self.state.channels.contains_key(key));
        if found.is_none() {
            self.reply.about("403", name, "No such channel");
        }
        found
    }

    /// The channel of this name, if the client is in it. Otherwise the client is told that it is not.
    fn own_channel(&mut self, name: &[u8]) -> Option<Folded> {
        let key = self.find_channel(name)?;
        if !self.state.channels[&key].members.contains_key(&self.id) {
            self.reply.about("442", name, "You're not on that channel");
            return None;
        }
        Some(key)
    }

    fn is_operator(&mut self, key: &Folded) -> bool {
        let channel = &self.state.channels[key];
        let operator = channel.members.get(&self.id).is_some_and(|member| member.operator);
        if !operator {
            self.reply.text(
                "482",
                format_args!(" {}", channel.name),
                "You're not channel operator",
            );
        }
        operator
    }

    fn find_user(&mut self, nick: &[u8]) -> Option<u64> {
        let found = self.state.find(nick);
        if found.is_none() {
            self.reply.about("401", nick, "No such nick/channel");
        }
        found
    }

    /// PRIVMSG or NOTICE.
    fn say(&mut self, message: &Message<'_>) {
        // To a NOTICE nothing is ever answered, so that two programs do not answer each other for ever.
        let answered = message.name() == b"PRIVMSG";
        let (Some(targets), Some(text)) = (message.param(0), message.param(1)) else {
            if answered && message.params().is_empty() {
                self.reply.text("411", format_args!(""), "No recipient given");
            } else if answered {
                self.reply.text("412", format_args!(""), "No text to send");
            }
            return;
        };
        if let Some(user) = self.state.users.get_mut(&self.id) {
            user.spoke = Instant::now();
        }
        for (count, target) in targets.split(|byte| *byte == b',').enumerate() {
            let told = match target {
                _ if count == TARGETS => Err(("407", "Too many recipients")),
                [b'#', ..] => self.say_to_channel(target, answered, text),
                nick => self.say_to_user(nick, answered, text),
            };
            if let (Err((code, why)), true) = (told, answered) {
                self.reply.about(code, target, why);
            }
            if count == TARGETS {
                return;
            }
        }
    }

    fn say_to_channel(&mut self, name: &[u8], answered: bool, text: &[u8]) -> Result<(), Refusal> {
        let key = message::channel(name).map(Folded::new);
        let found = key.and_then(|key| Some((self.state.channels.get(&key)?, key)));
        let (channel, key) = found.ok_or(("403", "No such channel"))?;
        let may = match channel.members.get(&self.id) {
            Some(member) => !channel.modes.moderated || member.operator || member.voice,
            None => !channel.modes.no_outsiders && !channel.modes.moderated,
        };
        if !may {
            return Err(("404", "Cannot send to channel"));
        }
        let line = self.said(answered, &channel.name, text);
        self.state.tell_channel(&key, self.id, &line);
        Ok(())
    }

    fn say_to_user(&mut self, nick: &[u8], answered: bool, text: &[u8]) -> Result<(), Refusal> {
        let found = self.state.find(nick);
        let found = found.and_then(|other| Some((other, self.state.users.get(&other)?)));
        let (other, user) = found.ok_or(("401", "No such nick/channel"))?;
        let line = self.said(answered, &user.nick, text);
        if let (Some(away), true) = (&user.away, answered) {
            self.reply.text("301", format_args!(" {}", user.nick), away);
        }
        if other == self.id {
            self.reply.out.extend_from_slice(&line);
        } else {
            self.state.tell(other, line);
        }
        Ok(())
    }

    /// A message of this client, as it is sent to others.
    fn said(&self, answered: bool, target: &str, text: &[u8]) -> Bytes {
        let command = if answered { "PRIVMSG" } else { "NOTICE" };
        let mut line = BytesMut::with_capacity(LINE + 2);
        message::write(&mut line, format_args!(":{} {command} {target}", self.source), Some(text));
        line.freeze()
    }

    fn join(&mut self, names: Option<&[u8]>, keys: Option<&[u8]>) {
        let Some(names) = names else { return self.reply.too_few(b"JOIN") };
        if names == b"0" {
            let channels = self.state.users.get(&self.id).map(|user| user.channels.clone());
            for key in channels.unwrap_or_default() {
                self.leave(&key, None);
            }
            return;
        }
        let mut keys = keys.unwrap_or_default().split(|byte| *byte == b',');
        for name in names.split(|byte| *byte == b',') {
            let said = keys.next().unwrap_or_default();
            let Some(name) = message::channel(name) else {
                self.reply.about("403", name, "No such channel");
                continue;
            };
            self.join_one(name, said);
        }
    }

    fn join_one(&mut self, name: &str, said: &[u8]) {
        let key = Folded::new(name);
        let joined = self.state.users.get(&self.id).map_or(0, |user| user.channels.len());
        let refusal = match self.state.channels.get(&key) {
            Some(channel) if channel.members.contains_key(&self.id) => return,
            _ if joined >= JOINS => Some(("405", "You have joined too many channels")),
            Some(channel)
                if channel.modes.key.as_ref().is_some_and(|key| key.as_bytes() != said) =>
            {
                Some(("475", "Cannot join channel (+k)"))
            }
            Some(channel)
                if channel.modes.limit.is_some_and(|limit| channel.members.len() >= limit) =>
            {
                Some(("471", "Cannot join channel (+l)"))
            }
            None if self.state.channels.len() >= CHANNELS => {
                Some(("437", "There are too many channels"))
            }
            _ => None,
        };
        if let Some((code, text)) = refusal {
            return self.reply.text(code, format_args!(" {name}"), text);
        }
        self.state.seat(self.id, name);
        // The channel keeps the spelling of its first member, whatever case this client has used.
        let Some(name) = self.state.channels.get(&key).map(|channel| channel.name.clone()) else {
            return;
        };
        self.announce(&key, format_args!("JOIN {name}"), None);
        if self.state.channels[&key].topic.is_some() {
            self.tell_topic(&key);
        }
        self.tell_names(&key);
    }

    fn part(&mut self, names: Option<&[u8]>, why: Option<&[u8]>) {
        let Some(names) = names else { return self.reply.too_few(b"PART") };
        for name in names.split(|byte| *byte == b',') {
            if let Some(key) = self.own_channel(name) {
                self.leave(&key, why);
            }
        }
    }

    fn leave(&mut self, key: &Folded, why: Option<&[u8]>) {
        let name = self.state.channels[key].name.clone();
        self.announce(key, format_args!("PART {name}"), why);
        self.state.unseat(self.id, key);
    }

    fn topic(&mut self, name: Option<&[u8]>, text: Option<&[u8]>) {
        let Some(name) = name else { return self.reply.too_few(b"TOPIC") };
        let Some(text) = text else {
            if let Some(key) = self.find_channel(name) {
                self.tell_topic(&key);
            }
            return;
        };
        let Some(key) = self.own_channel(name) else { return };
        if self.state.channels[&key].modes.topic_by_operators && !self.is_operator(&key) {
            return;
        }
        let text = Bytes::copy_from_slice(fitting(text, TOPIC_LENGTH));
        let Some(channel) = self.state.channels.get_mut(&key) else { return };
        let name = channel.name.clone();
        channel.topic = (!text.is_empty()).then(|| Topic {
            text: text.clone(),
            by: self.source.clone(),
            at: SystemTime::now(),
        });
        self.announce(&key, format_args!("TOPIC {name}"), Some(&text));
    }

    fn tell_topic(&mut self, key: &Folded) {
        let channel = &self.state.channels[key];
        let name = &channel.name;
        match &channel.topic {
            Some(Topic { text, by, at }) => {
                self.reply.text("332", format_args!(" {name}"), text);
                self.reply.plain("333", format_args!(" {name} {by} {}", seconds(*at)));
            }
            None => self.reply.text("331", format_args!(" {name}"), "No topic is set"),
        }
    }

    fn names(&mut self, name: Option<&[u8]>) {
        match name.and_then(message::channel).map(Folded::new) {
            Some(key) if self.state.channels.contains_key(&key) => self.tell_names(&key),
            _ => self.reply.about("366", name.unwrap_or(b"*"), "End of /NAMES list"),
        }
    }

    fn tell_names(&mut self, key: &Folded) {
        let channel = &self.state.channels[key];
        let members = channel.members.iter().filter_map(|(id, member)| {
            let user = self.state.users.get(id)?;
            Some([member.sign().into(), user.nick.clone()])
        });
        self.reply.words("353", format_args!(" = {}", channel.name), members);
        self.reply.text("366", format_args!(" {}", channel.name), "End of /NAMES list");
    }

    fn list(&mut self, names: Option<&[u8]>) -> Then {
        self.reply.text("321", format_args!(" Channel"), "Users  Name");
        let Some(names) = names else {
            return Then::List(List {
                nick: self.reply.nick.clone(),
                next: Some(Next::Channels(None)),
            });
        };
        for name in names.split(|byte| *byte == b',') {
            let key = message::channel(name).map(Folded::new);
            if let Some(channel) = key.and_then(|key| self.state.channels.get(&key)) {
                channel.list(&mut self.reply);
            }
        }
        self.reply.text("323", format_args!(""), "End of /LIST");
        Then::Go
    }

    fn who(&mut self, mask: Option<&[u8]>) -> Then {
        let mask = mask.unwrap_or(b"*");
        if let Some(name) = message::channel(mask) {
            let next = Next::Members(name.into(), None);
            return Then::List(List { nick: self.reply.nick.clone(), next: Some(next) });
        }
        // Only an exact nickname is found: a mask would reveal all who are connected.
        let found = self.state.find(mask);
        if let Some(user) = found.and_then(|id| self.state.users.get(&id)) {
            user.who(&mut self.reply, "*", "");
        }
        self.reply.about("315", mask, "End of /WHO list");
        Then::Go
    }

    fn whois(&mut self, nick: Option<&[u8]>) {
        let Some(asked) = nick else {
            return self.reply.text("431", format_args!(""), "No nickname given");
        };
        let found = self.find_user(asked);
        if let Some((id, user)) = found.and_then(|id| Some((id, self.state.users.get(&id)?))) {
            let (reply, nick) = (&mut self.reply, &user.nick);
            reply.text("311", format_args!(" {nick} {} {} *", user.name, user.host), &user.real);
            let channels = user.channels.iter().filter_map(|key| self.state.channels.get(key));
            let channels = channels.filter_map(|channel| {
                Some([channel.members.get(&id)?.sign().into(), channel.name.clone()])
            });
            if !user.channels.is_empty() {
                reply.words("319", format_args!(" {nick}"), channels);
            }
            reply.text("312", format_args!(" {nick} {SERVER}"), VERSION);
            if let Some(away) = &user.away {
                reply.text("301", format_args!(" {nick}"), away);
            }
            let (idle, since) = (user.spoke.elapsed().as_secs(), seconds(user.since));
            reply.text("317", format_args!(" {nick} {idle} {since}"), "seconds idle, signon time");
        }
        self.reply.about("318", asked, "End of /WHOIS list");
    }

    fn mode(&mut self, message: &Message<'_>) {
        let Some(target) = message.param(0) else { return self.reply.too_few(b"MODE") };
        if target.first() == Some(&b'#') {
            if let Some(key) = self.find_channel(target) {
                self.channel_mode(&key, &message.params()[1..]);
            }
            return;
        }
        match self.find_user(target) {
            None => {}
            Some(id) if id != self.id => {
                self.reply.text("502", format_args!(""), "Can't change mode for other users");
            }
            // All clients have the mode `i`, and it cannot be changed.
            Some(_) => match message.param(1) {
                None => self.reply.plain("221", format_args!(" +i")),
                Some(flags) if flags.iter().all(|flag| b"+-i".contains(flag)) => {}
                Some(_) => self.reply.text("501", format_args!(""), "Unknown MODE flag"),
            },
        }
    }

    fn channel_mode(&mut self, key: &Folded, params: &[&[u8]]) {
        let channel = &self.state.channels[key];
        let name = channel.name.clone();
        let Some((flags, params)) = params.split_first() else {
            let member = channel.members.contains_key(&self.id);
            let modes = channel.modes.display(member);
            self.reply.plain("324", format_args!(" {name} {modes}"));
            self.reply.plain("329", format_args!(" {name} {}", seconds(channel.since)));
            return;
        };
        if params.is_empty() && matches!(*flags, b"b" | b"+b") {
            return self.reply.text("368", format_args!(" {name}"), "End of channel ban list");
        }
        if !self.is_operator(key) {
            return;
        }
        let mut done = Changes::default();
        let (mut params, mut add) = (params.iter().take(MODES), true);
        for flag in *flags {
            match flag {
                b'+' => add = true,
                b'-' => add = false,
                b'o' | b'v' => {
                    let Some(nick) = params.next() else { continue };
                    let Some(id) = self.find_user(nick) else { continue };
                    let Some(user) = self.state.users.get(&id) else { continue };
                    let nick = user.nick.to_string();
                    let channel = self.state.channels.get_mut(key);
                    let Some(member) = channel.and_then(|channel| channel.members.get_mut(&id))
                    else {
                        let text = "They aren't on that channel";
                        self.reply.text("441", format_args!(" {nick} {name}"), text);
                        continue;
                    };
                    let has = if *flag == b'o' { &mut member.operator } else { &mut member.voice };
                    if *has != add {
                        *has = add;
                        done.note(add, *flag, Some(nick));
                    }
                }
                _ => {
                    let Some(channel) = self.state.channels.get_mut(key) else { return };
                    if !channel.modes.change(add, *flag, &mut params, &mut done) {
                        let flag = char::from(*flag).escape_default().to_string();
                        self.reply.about("472", flag.as_bytes(), "is unknown mode char to me");
                    }
                }
            }
        }
        if !done.flags.is_empty() {
            self.announce(key, format_args!("MODE {name} {}{}", done.flags, done.params), None);
        }
    }

    fn kick(&mut self, message: &Message<'_>) {
        let (Some(name), Some(nick)) = (message.param(0), message.param(1)) else {
            return self.reply.too_few(b"KICK");
        };
        let Some(key) = self.own_channel(name) else { return };
        if !self.is_operator(&key) {
            return;
        }
        let Some(id) = self.find_user(nick) else { return };
        let Some(nick) = self.state.users.get(&id).map(|user| user.nick.clone()) else { return };
        let channel = &self.state.channels[&key];
        let name = channel.name.clone();
        if !channel.members.contains_key(&id) {
            let text = "They aren't on that channel";
            return self.reply.text("441", format_args!(" {nick} {name}"), text);
        }
        let by = self.reply.nick.clone();
        let why = message.param(2).map_or(by.as_bytes(), |why| fitting(why, KICK_LENGTH));
        self.announce(&key, format_args!("KICK {name} {nick}"), Some(why));
        self.state.unseat(id, &key);
    }

    fn away(&mut self, text: Option<&[u8]>) {
        let Some(user) = self.state.users.get_mut(&self.id) else { return };
        user.away = text.map(|text| Bytes::copy_from_slice(fitting(text, AWAY_LENGTH)));
        match text {
            Some(_) => {
                self.reply.text("306", format_args!(""), "You have been marked as being away")
            }
            None => {
                self.reply.text("305", format_args!(""), "You are no longer marked as being away")
            }
        }
    }

    fn nick(&mut self, nick: Option<&[u8]>) {
        let Some(wanted) = nick else {
            return self.reply.text("431", format_args!(""), "No nickname given");
        };
        let Some(nick) = message::nick(wanted) else {
            return self.reply.about("432", wanted, "Erroneous nickname");
        };
        if *nick == *self.reply.nick {
            return;
        }
        if self.state.rename(self.id, nick).is_none() {
            return self.reply.about("433", wanted, "Nickname is already in use");
        }
        let start = self.reply.out.len();
        message::write(self.reply.out, format_args!(":{} NICK", self.source), Some(wanted));
        let line = Bytes::copy_from_slice(&self.reply.out[start..]);
        self.state.tell_neighbours(self.id, &line);
    }

    fn is_on(&mut self, message: &Message<'_>) {
        let asked = message.params().iter().flat_map(|param| param.split(|byte| *byte == b' '));
        let here = asked.filter_map(|nick| {
            let id = self.state.find(nick)?;
            Some(["".into(), self.state.users.get(&id)?.nick.clone()])
        });
        self.reply.words("303", format_args!(""), here);
    }

    fn user_host(&mut self, message: &Message<'_>) {
        let here = message.params().iter().take(5).filter_map(|nick| {
            let user = self.state.users.get(&self.state.find(nick)?)?;
            let away = if user.away.is_some() { '-' } else { '+' };
            Some(["".into(), format!("{}={away}{}@{}", user.nick, user.name, user.host).into()])
        });
        self.reply.words("302", format_args!(""), here);
    }
}

impl crate::network::Channel {
    fn list(&self, reply: &mut Reply<'_>) {
        let topic = self.topic.as_ref().map_or(&[][..], |topic| &topic.text);
        reply.text("322", format_args!(" {} {}", self.name, self.members.len()), topic);
    }
}

impl crate::network::User {
    fn who(&self, reply: &mut Reply<'_>, channel: &str, sign: &str) {
        let (name, host, nick) = (&self.name, &self.host, &self.nick);
        let here = if self.away.is_some() { 'G' } else { 'H' };
        let text = [b"0 ", &self.real[..]].concat();
        reply.text(
            "352",
            format_args!(" {channel} {name} {host} {SERVER} {nick} {here}{sign}"),
            text,
        );
    }
}

impl crate::network::Modes {
    /// Changes a mode of the channel itself, and not of a member. Returns whether there is such a mode.
    fn change<'a>(
        &mut self,
        add: bool,
        flag: u8,
        params: &mut impl Iterator<Item = &'a &'a [u8]>,
        done: &mut Changes,
    ) -> bool {
        let switch = match flag {
            b'n' => &mut self.no_outsiders,
            b't' => &mut self.topic_by_operators,
            b'm' => &mut self.moderated,
            b'k' => {
                let said = params.next().and_then(|key| str::from_utf8(key).ok());
                let valid = |key: &&str| {
                    (1..=KEY_LENGTH).contains(&key.len())
                        && key.bytes().all(|byte| byte.is_ascii_graphic() && !b",:".contains(&byte))
                };
                match said.filter(valid).filter(|_| add) {
                    Some(key) => {
                        self.key = Some(key.to_owned());
                        done.note(add, flag, Some(key.to_owned()));
                    }
                    None if !add && self.key.take().is_some() => {
                        done.note(add, flag, Some("*".to_owned()))
                    }
                    None => {}
                }
                return true;
            }
            b'l' => {
                if !add {
                    if self.limit.take().is_some() {
                        done.note(add, flag, None);
                    }
                    return true;
                }
                let said = params.next().and_then(|limit| str::from_utf8(limit).ok()?.parse().ok());
                if let Some(limit) = said.filter(|limit| *limit > 0) {
                    self.limit = Some(limit);
                    done.note(add, flag, Some(limit.to_string()));
                }
                return true;
            }
            _ => return false,
        };
        if *switch != add {
            *switch = add;
            done.note(add, flag, None);
        }
        true
    }

    /// All modes that are set. The key is shown to members only.
    fn display(&self, member: bool) -> String {
        let mut flags = "+".to_owned();
        let mut params = String::new();
        let switches =
            [(self.no_outsiders, 'n'), (self.topic_by_operators, 't'), (self.moderated, 'm')];
        flags.extend(switches.into_iter().filter(|(on, _)| *on).map(|(_, flag)| flag));
        if let Some(key) = &self.key {
            flags.push('k');
            params += &format!(" {}", if member { key } else { "*" });
        }
        if let Some(limit) = self.limit {
            flags.push('l');
            params += &format!(" {limit}");
        }
        flags + &params
    }
}

/// Modes that were changed, in the form in which they are announced: `+o-v` and the parameters.
#[derive(Debug, Default)]
struct Changes {
    flags: String,
    params: String,
    add: Option<bool>,
}

impl Changes {
    fn note(&mut self, add: bool, flag: u8, param: Option<String>) {
        if self.add.replace(add) != Some(add) {
            self.flags.push(if add { '+' } else { '-' });
        }
        self.flags.push(char::from(flag));
        if let Some(param) = param {
            self.params += " ";
            self.params += &param;
        }
    }
}

/// A list that may be long. It is looked up piece by piece, as the client reads it.
#[derive(Debug)]
pub(crate) struct List {
    nick: Arc<str>,
    /// `None` at the end.
    next: Option<Next>,
}

#[derive(Debug)]
enum Next {
    /// All channels behind this one.
    Channels(Option<Folded>),
    /// The members of a channel behind this one.
    Members(Arc<str>, Option<u64>),
}

impl List {
    /// The next piece. The network must not be locked.
    pub(crate) fn piece(&mut self, network: &Network) -> Option<BytesMut> {
        let next = self.next.take()?;
        let mut out = BytesMut::new();
        let mut reply = Reply { out: &mut out, nick: self.nick.clone() };
        let state = network.lock();
        match next {
            Next::Channels(after) => {
                let mut last = None;
                for (key, channel) in state.channels_behind(after.as_ref()).take(PIECE) {
                    channel.list(&mut reply);
                    last = Some(key.clone());
                }
                match last {
                    Some(last) => self.next = Some(Next::Channels(Some(last))),
                    None => reply.text("323", format_args!(""), "End of /LIST"),
                }
            }
            Next::Members(name, after) => {
                let mut last = None;
                if let Some(channel) = state.channels.get(&Folded::new(&name)) {
                    let from = after.map_or(0, |id| id + 1);
                    for (id, member) in channel.members.range(from..).take(PIECE) {
                        if let Some(user) = state.users.get(id) {
                            user.who(&mut reply, &channel.name, member.sign());
                        }
                        last = Some(*id);
                    }
                }
                match last {
                    Some(last) => self.next = Some(Next::Members(name, Some(last))),
                    None => reply.about("315", name.as_bytes(), "End of /WHO list"),
                }
            }
        }
        Some(out)
    }
}
