//! The head before a message, which says how long that is (no I/O).

/// The longest head, in bytes, with all its lines.
pub(crate) const MAX_HEAD: u64 = 8 << 10;

/// A head, as far as it has come.
#[derive(Debug, Default)]
pub(crate) struct Head {
    size: u64,
    length: Option<u64>,
    foreign: bool,
}

impl Head {
    /// Adds a line, without its end. An error means that the length of the message cannot be known.
    pub(crate) fn add(&mut self, line: &[u8]) -> Result<(), &'static str> {
        self.size += line.len() as u64 + 1;
        if self.size > MAX_HEAD {
            return Err("the head is longer than 8 KiB");
        }
        let line = std::str::from_utf8(line).map_err(|_| "the head is not UTF-8")?;
        let (name, value) = line.split_once(':').ok_or("a line of the head has no colon")?;
        if name.is_empty() || !name.bytes().all(is_part_of_a_name) {
            return Err("a line of the head has no name");
        }
        let value = value.trim_ascii();
        if name.eq_ignore_ascii_case("Content-Length") {
            // `parse` would accept a plus sign.
            let digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
            let length = value.parse().ok().filter(|_| digits);
            let length = length.ok_or("Content-Length is not a number of bytes")?;
            if self.length.replace(length).is_some() {
                return Err("there are two Content-Lengths");
            }
        } else if name.eq_ignore_ascii_case("Content-Type") {
            // As in `application/vscode-jsonrpc; charset=utf-8`. "utf8" is what clients once sent.
            self.foreign |= value.split(';').skip(1).any(|parameter| {
                let (name, value) = parameter.split_once('=').unwrap_or_default();
                let value = value.trim_ascii().trim_matches('"');
                name.trim_ascii().eq_ignore_ascii_case("charset")
                    && !value.eq_ignore_ascii_case("utf-8")
                    && !value.eq_ignore_ascii_case("utf8")
            });
        }
        Ok(())
    }

    /// Whether no line has come.
    pub(crate) fn is_empty(&self) -> bool {
        self.size == 0
    }

    /// How many bytes the message has.
    pub(crate) fn length(&self) -> Result<u64, &'static str> {
        self.length.ok_or("there is no Content-Length")
    }

    /// Whether the message is in another encoding than UTF-8.
    pub(crate) fn is_foreign(&self) -> bool {
        self.foreign
    }
}

/// Which bytes a header's name may have, as in HTTP. So a message that comes in place of a head is not taken for one,
/// although it has colons.
fn is_part_of_a_name(byte: u8) -> bool {
    byte.is_ascii_graphic() && !br#""(),/:;<=>?@[\]{}"#.contains(&byte)
}
