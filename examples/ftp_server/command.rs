//! A line → a command, or the reply that refuses it (no I/O).

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::str;

/// What answers a command, without the end of its last line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reply(Cow<'static, str>);

impl Reply {
    /// Whether it refuses a command that is wrong in itself, or a login.
    pub(crate) fn is_offence(&self) -> bool {
        self.0.starts_with("50") || self.0.starts_with("530")
    }
}

impl From<&'static str> for Reply {
    fn from(text: &'static str) -> Self {
        Reply(text.into())
    }
}

impl From<String> for Reply {
    fn from(text: String) -> Self {
        Reply(text.into())
    }
}

/// What a peer is told of an error of the file system. It contains no path of this machine.
impl From<io::Error> for Reply {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull => "452 the disk is full",
            io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => "552 that is too much",
            io::ErrorKind::NotFound => "550 there is no such file or directory",
            io::ErrorKind::PermissionDenied => "550 that is not permitted",
            io::ErrorKind::AlreadyExists => "550 it exists already",
            io::ErrorKind::DirectoryNotEmpty => "550 the directory is not empty",
            io::ErrorKind::NotADirectory => "550 it is not a directory",
            io::ErrorKind::IsADirectory => "550 it is a directory",
            _ if is_failure(&error) => {
                eprintln!("ftp_server: {error}");
                "451 that has failed here"
            }
            _ => "550 that cannot be done",
        }
        .into()
    }
}

/// Whether the machine is at fault: a disk that cannot be read, too many open files.
fn is_failure(error: &io::Error) -> bool {
    const EIO: i32 = 5;
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    matches!(error.raw_os_error(), None | Some(EIO | ENFILE | EMFILE))
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    User(String),
    Pass(String),
    Quit,
    Noop,
    Syst,
    Feat,
    Help,
    Stat,
    /// A command that is answered with this reply and changes nothing.
    Agree(&'static str),
    /// Extended passive mode: the reply has the port alone.
    Epsv(Epsv),
    Pasv,
    Abor,
    Rest(u64),
    Retr(String),
    Stor(String),
    Appe(String),
    /// Lists what has this name, or the working directory if there is no name.
    List(Style, Option<String>),
    Mlst(Option<String>),
    /// OPTS: the facts that MLST and MLSD are to say.
    Facts(Facts),
    Size(String),
    Mdtm(String),
    Cwd(String),
    Pwd,
    Mkd(String),
    Rmd(String),
    Dele(String),
    Rnfr(String),
    Rnto(String),
    /// A line of HTTP. A web page can make a browser send anything to any port, and commands in the body of a POST must
    /// not be obeyed.
    Http,
}

impl Command {
    /// Whether it is obeyed only after a login.
    pub(crate) fn needs_login(&self) -> bool {
        use Command::*;
        !matches!(
            self,
            User(_)
                | Pass(_)
                | Quit
                | Noop
                | Syst
                | Feat
                | Help
                | Stat
                | Facts(_)
                | Agree(_)
                | Http
        )
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Epsv {
    Any,
    V4,
    V6,
    /// EPSV ALL: the client promises not to send PASV any more.
    All,
}

/// What is said of each entry of a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// LIST: as `ls -l` does.
    Long,
    /// NLST
    Names,
    /// MLSD
    Facts,
}

/// Some of what is known of a file, by the names of RFC 3659.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Facts([bool; FACTS.len()]);

const FACTS: [&str; 4] = ["type", "size", "modify", "perm"];

impl Facts {
    pub(crate) const ALL: Self = Facts([true; FACTS.len()]);

    /// Those that `type;size;` names, as in `OPTS MLST type;size;`. Unknown names are ignored.
    fn named(options: &str) -> Self {
        let (_, names) = options.split_once(' ').unwrap_or_default();
        let is_named = |fact: &str| names.split(';').any(|name| name.eq_ignore_ascii_case(fact));
        Facts(FACTS.map(is_named))
    }

    /// The names of all facts, and whether each is among these.
    pub(crate) fn each(self) -> impl Iterator<Item = (&'static str, bool)> {
        FACTS.into_iter().zip(self.0)
    }
}

fn is_mlst(options: &str) -> bool {
    options.split(' ').next().is_some_and(|word| word.eq_ignore_ascii_case("MLST"))
}

/// Reads a line, which comes without its CRLF.
pub(crate) fn parse(line: &[u8]) -> Result<Command, Reply> {
    let line = without_telnet(line);
    let Ok(line) = str::from_utf8(&line) else {
        return Err("501 names are UTF-8 here".into());
    };
    if line.contains(['\0', '\r', '\n']) {
        return Err("501 lines end with CRLF, and no name has CR, LF or NUL".into());
    }
    // Everything behind one space is the name: names may begin and end with spaces.
    let (verb, argument) = line.split_once(' ').unwrap_or((line, ""));
    let optional = || (!argument.is_empty()).then(|| argument.to_owned());
    let name = || optional().ok_or("501 it wants a name");
    let one_of = |words: &[&str], reply| {
        let known = words.iter().any(|word| argument.eq_ignore_ascii_case(word));
        known.then_some(Command::Agree(reply)).ok_or("504 not with this parameter")
    };
    Ok(match verb.to_ascii_uppercase().as_str() {
        "USER" => Command::User(name()?),
        "PASS" => Command::Pass(argument.to_owned()),
        "ACCT" | "ALLO" => Command::Agree("202 that is not needed here"),
        "QUIT" => Command::Quit,
        "NOOP" => Command::Noop,
        "SYST" => Command::Syst,
        "FEAT" => Command::Feat,
        "HELP" => Command::Help,
        "STAT" if argument.is_empty() => Command::Stat,
        "OPTS" if is_mlst(argument) => Command::Facts(Facts::named(argument)),
        "OPTS" => one_of(&["UTF8 ON", "UTF8", "UTF-8 ON"], "200 names are always UTF-8")?,
        "TYPE" => one_of(&["A", "A N", "I", "L 8", "L8"], "200 bytes are sent as they are")?,
        "MODE" => one_of(&["S"], "200 the mode is stream")?,
        "STRU" => one_of(&["F"], "200 the structure is file")?,
        "PASV" => Command::Pasv,
        "EPSV" => Command::Epsv(match argument.to_ascii_uppercase().as_str() {
            "" => Epsv::Any,
            "1" => Epsv::V4,
            "2" => Epsv::V6,
            "ALL" => Epsv::All,
            _ => return Err("522 there are 1 and 2 (1,2)".into()),
        }),
        "PORT" | "EPRT" => return Err("502 it is you who connects: say EPSV or PASV".into()),
        "ABOR" => Command::Abor,
        "REST" => Command::Rest(number(argument).ok_or("501 REST is a number of bytes")?),
        "RETR" => Command::Retr(name()?),
        "STOR" => Command::Stor(name()?),
        "APPE" => Command::Appe(name()?),
        "LIST" => Command::List(Style::Long, without_options(argument)),
        "NLST" => Command::List(Style::Names, without_options(argument)),
        "MLSD" => Command::List(Style::Facts, optional()),
        "MLST" => Command::Mlst(optional()),
        "SIZE" => Command::Size(name()?),
        "MDTM" => Command::Mdtm(name()?),
        "CWD" | "XCWD" => Command::Cwd(name()?),
        "CDUP" | "XCUP" => Command::Cwd("..".to_owned()),
        "PWD" | "XPWD" => Command::Pwd,
        "MKD" | "XMKD" => Command::Mkd(name()?),
        "RMD" | "XRMD" => Command::Rmd(name()?),
        "DELE" => Command::Dele(name()?),
        "RNFR" => Command::Rnfr(name()?),
        "RNTO" => Command::Rnto(name()?),
        "STAT" => return Err("504 say LIST or MLST".into()),
        "ADAT" | "AUTH" | "CCC" | "CONF" | "ENC" | "LANG" | "MIC" | "PBSZ" | "PROT" | "REIN"
        | "SITE" | "SMNT" | "STOU" => return Err("502 not spoken here".into()),
        "GET" | "POST" | "CONNECT" => Command::Http,
        // `Host:` and the like. The request line before it may have been too long to be seen.
        field if field.ends_with(':') => Command::Http,
        _ => return Err("500 there is no such command".into()),
    })
}

/// A line without Telnet's commands: clients send "interrupt process" and "data mark" before an ABOR. Each command
/// begins with a byte of 255; two of these stand for the byte itself.
fn without_telnet(line: &[u8]) -> Cow<'_, [u8]> {
    if !line.contains(&IAC) {
        return line.into();
    }
    let mut rest = line.iter().copied();
    let mut text = Vec::new();
    while let Some(byte) = rest.next() {
        if byte != IAC {
            text.push(byte);
            continue;
        }
        match rest.next() {
            Some(IAC) => text.push(IAC),
            // WILL, WONT, DO and DONT have an option behind them.
            Some(0xfb..=0xfe) => drop(rest.next()),
            Some(_) | None => {}
        }
    }
    text.into()
}

const IAC: u8 = 0xff;

/// Some clients give LIST and NLST the options of `ls`.
fn without_options(argument: &str) -> Option<String> {
    let mut rest = argument;
    loop {
        let (word, behind) = rest.split_once(' ').unwrap_or((rest, ""));
        let letters = word.strip_prefix('-').unwrap_or("");
        if letters.is_empty() || !letters.bytes().all(|letter| b"aAlLrtR1F".contains(&letter)) {
            return (!rest.is_empty()).then(|| rest.to_owned());
        }
        rest = behind;
    }
}

/// Digits and nothing else.
fn number(digits: &str) -> Option<u64> {
    let all = digits.bytes().all(|byte| byte.is_ascii_digit());
    all.then(|| digits.parse().ok()).flatten()
}
