//! A line → a command, or the reply that refuses it (no I/O).

use std::str;

/// A line that answers a command, without its end.
pub(crate) type Reply = &'static str;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    Helo(String),
    Ehlo(String),
    /// `from` is empty for a message that must not be answered by another.
    Mail {
        from: String,
        size: u64,
        utf8: bool,
    },
    Rcpt(String),
    Data,
    /// This many bytes of a message follow at once. If the number cannot be read, it is unknown where the next command
    /// begins.
    Bdat {
        size: Option<u64>,
        last: bool,
    },
    Rset,
    Noop,
    Vrfy,
    Help,
    StartTls,
    Quit,
    /// A line of HTTP. A web page can make a browser send anything to any port, and commands in the body of a POST must
    /// not be obeyed.
    Http,
}

/// Reads a line, which comes without its CRLF.
///
/// A line with a control character is refused, with a CR or LF in particular: what the peer takes for the end of a line
/// must not be taken for anything else here.
pub(crate) fn parse(line: &[u8]) -> Result<Command, Reply> {
    let line = str::from_utf8(line).map_err(|_| "500 5.5.2 a command is UTF-8")?;
    if line.contains(char::is_control) {
        return Err("500 5.5.2 a command has no control characters; lines end with CRLF");
    }
    let line = line.trim_end_matches(' ');
    let (verb, argument) = line.split_once(' ').unwrap_or((line, ""));
    let alone = |command| if argument.is_empty() { Ok(command) } else { Err(NO_ARGUMENT) };
    match verb.to_ascii_uppercase().as_str() {
        "HELO" => name(argument).map(Command::Helo),
        "EHLO" => name(argument).map(Command::Ehlo),
        "MAIL" => mail(argument),
        "RCPT" => rcpt(argument),
        "DATA" => alone(Command::Data),
        "BDAT" => Ok(bdat(argument)),
        "RSET" => alone(Command::Rset),
        "QUIT" => alone(Command::Quit),
        "STARTTLS" => alone(Command::StartTls),
        "NOOP" => Ok(Command::Noop),
        "HELP" => Ok(Command::Help),
        "VRFY" if argument.is_empty() => Err("501 5.5.4 VRFY whom?"),
        "VRFY" => Ok(Command::Vrfy),
        "EXPN" | "TURN" | "ETRN" | "AUTH" => Err("502 5.5.1 not spoken here"),
        "GET" | "POST" | "CONNECT" => Ok(Command::Http),
        // `Host:` and the like. The request line before it may have been too long to be seen.
        field if field.ends_with(':') => Ok(Command::Http),
        _ => Err("500 5.5.2 there is no such command"),
    }
}

const NO_ARGUMENT: Reply = "501 5.5.4 nothing may follow this command";
const SYNTAX: Reply = "501 5.5.4 that is not how this command is written";
const ADDRESS: Reply = "501 5.1.7 that is not an address";
const PARAMETER: Reply = "555 5.5.4 there is no such parameter";

/// Who the peer says it is: a domain or an address, which is written into messages.
fn name(argument: &str) -> Result<String, Reply> {
    let refused = |c: char| c == ' ' || "()<>;,\"\\".contains(c);
    if argument.is_empty() || argument.len() > MAX_DOMAIN || argument.contains(refused) {
        return Err("501 5.5.4 say who you are: a domain, or an address in brackets");
    }
    Ok(argument.to_owned())
}

fn mail(argument: &str) -> Result<Command, Reply> {
    let (from, parameters) = path(keyword(argument, "FROM:").ok_or(SYNTAX)?).ok_or(ADDRESS)?;
    let (mut size, mut utf8) = (0, false);
    for parameter in parameters.split_ascii_whitespace() {
        let (key, value) = match parameter.split_once('=') {
            Some((key, value)) => (key, Some(value)),
            None => (parameter, None),
        };
        match (key.to_ascii_uppercase().as_str(), value) {
            ("SIZE", Some(value)) => size = number(value).ok_or(SYNTAX)?,
            // All eight bits of a byte are kept in either case.
            ("BODY", Some(value)) if is_one_of(value, &["7BIT", "8BITMIME"]) => {}
            ("SMTPUTF8", None) => utf8 = true,
            ("SIZE" | "BODY" | "SMTPUTF8", _) => return Err(SYNTAX),
            _ => return Err(PARAMETER),
        }
    }
    if !from.is_empty() && !is_address(from) {
        return Err(ADDRESS);
    }
    Ok(Command::Mail { from: from.to_owned(), size, utf8 })
}

fn rcpt(argument: &str) -> Result<Command, Reply> {
    let (to, parameters) = path(keyword(argument, "TO:").ok_or(SYNTAX)?).ok_or(ADDRESS)?;
    if !parameters.trim().is_empty() {
        return Err(PARAMETER);
    }
    // `postmaster` is the one address that every server must accept without a domain.
    if !is_address(to) && !to.eq_ignore_ascii_case("postmaster") {
        return Err(ADDRESS);
    }
    Ok(Command::Rcpt(to.to_owned()))
}

fn bdat(argument: &str) -> Command {
    let (size, rest) = argument.split_once(' ').unwrap_or((argument, ""));
    let last = rest.eq_ignore_ascii_case("LAST");
    let size = number(size).filter(|_| last || rest.is_empty());
    Command::Bdat { size, last }
}

/// What follows a word in any case, and the blanks that some clients put behind it.
fn keyword<'a>(argument: &'a str, word: &str) -> Option<&'a str> {
    let (head, rest) = argument.split_at_checked(word.len())?;
    head.eq_ignore_ascii_case(word).then(|| rest.trim_start_matches(' '))
}

/// Splits `<path> parameters`. The route in `<@relay,@relay:user@domain>` is dropped, as RFC 5321 wants.
fn path(text: &str) -> Option<(&str, &str)> {
    let text = text.strip_prefix('<')?;
    let (mut quoted, mut escaped) = (false, false);
    let end = text.find(|c| {
        let ends = c == '>' && !quoted;
        quoted ^= c == '"' && !escaped;
        escaped = quoted && c == '\\' && !escaped;
        ends
    })?;
    let (path, rest) = (&text[..end], &text[end + 1..]);
    let address = match path.strip_prefix('@') {
        Some(route) => route.split_once(':')?.1,
        None => path,
    };
    (rest.is_empty() || rest.starts_with(' ')).then_some((address, rest))
}

fn is_address(address: &str) -> bool {
    address.rsplit_once('@').is_some_and(|(local, domain)| is_local(local) && is_domain(domain))
}

fn is_local(local: &str) -> bool {
    let is_atom = |atom: &str| {
        let special = |c: char| " ()<>[]:;@\\,\"".contains(c);
        !atom.is_empty() && !atom.contains(special)
    };
    let is_quoted = |text: &str| {
        let mut escaped = false;
        let whole = text.chars().all(|c| {
            let allowed = escaped || c != '"';
            escaped = c == '\\' && !escaped;
            allowed
        });
        whole && !escaped
    };
    let quoted = local.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    local.len() <= MAX_LOCAL && quoted.map_or_else(|| local.split('.').all(is_atom), is_quoted)
}

fn is_domain(domain: &str) -> bool {
    let is_label = |label: &str| {
        let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_' || !c.is_ascii();
        !label.is_empty() && !label.starts_with('-') && label.chars().all(allowed)
    };
    let literal = domain.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let is_literal = |text: &str| {
        let allowed = |c: char| c.is_ascii_alphanumeric() || ".:-".contains(c);
        !text.is_empty() && text.chars().all(allowed)
    };
    domain.len() <= MAX_DOMAIN
        && literal.map_or_else(|| domain.split('.').all(is_label), is_literal)
}

/// Reads digits and nothing else. A number that does not fit becomes the largest that does.
fn number(digits: &str) -> Option<u64> {
    let all = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    all.then(|| digits.parse().unwrap_or(u64::MAX))
}

fn is_one_of(value: &str, words: &[&str]) -> bool {
    words.iter().any(|word| value.eq_ignore_ascii_case(word))
}

/// These lengths are in bytes, and those of RFC 5321 4.5.3.1.
const MAX_LOCAL: usize = 64;
const MAX_DOMAIN: usize = 255;
