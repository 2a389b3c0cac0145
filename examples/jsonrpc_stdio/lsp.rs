//! A language server that counts the words of a text, in whatever language (no I/O).

use std::collections::HashMap;

use serde_json::{Value, json};

use crate::rpc::{Failure, INVALID_PARAMS, INVALID_REQUEST, Service};
use crate::words::{word_at, words};

const SERVER_NOT_INITIALIZED: i32 = -32002;

/// The most bytes of all texts that are open at a time. Texts beyond that are not kept.
const MAX_TEXTS: usize = 64 << 20;
/// The most texts that may be open.
const MAX_OPEN: usize = 10_000;

/// A client's state, and its open texts.
#[derive(Debug, Default)]
pub(crate) struct Lsp {
    phase: Phase,
    /// The open texts by their URI, with LF at the end of each line.
    texts: HashMap<String, String>,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Start,
    Running,
    /// The client has asked for a shutdown.
    Ending,
    Exit(i32),
}

impl Service for Lsp {
    fn request(&mut self, method: &str, params: &Value) -> Result<Value, Failure> {
        match (&self.phase, method) {
            (Phase::Start, "initialize") => {
                self.phase = Phase::Running;
                Ok(json!({
                    "capabilities": {
                        "positionEncoding": "utf-16",
                        // 1 means that a change is sent as the whole text.
                        "textDocumentSync": { "openClose": true, "change": 1 },
                        "hoverProvider": true,
                    },
                    "serverInfo": { "name": "words", "version": env!("CARGO_PKG_VERSION") },
                }))
            }
            (Phase::Start, _) => {
                Err(Failure::new(SERVER_NOT_INITIALIZED, "initialize has to come first"))
            }
            (Phase::Running, "shutdown") => {
                self.phase = Phase::Ending;
                self.texts.clear();
                Ok(Value::Null)
            }
            (Phase::Running, "textDocument/hover") => self.hover(params),
            (Phase::Running, "initialize") => {
                Err(Failure::new(INVALID_REQUEST, "initialize has come before"))
            }
            (Phase::Running, _) => Err(Failure::no_method(method)),
            (Phase::Ending | Phase::Exit(_), _) => {
                Err(Failure::new(INVALID_REQUEST, "the server is shutting down"))
            }
        }
    }

    fn notification(&mut self, method: &str, params: &Value) {
        match (&self.phase, method) {
            (Phase::Ending, "exit") => self.phase = Phase::Exit(0),
            (Phase::Start | Phase::Running, "exit") => self.phase = Phase::Exit(1),
            (Phase::Running, "textDocument/didOpen") => {
                self.keep(uri(params), params["textDocument"]["text"].as_str());
            }
            (Phase::Running, "textDocument/didChange") => {
                // Of several changes, the last one that is a whole text counts.
                let mut changes = params["contentChanges"].as_array().into_iter().flatten();
                let text = changes.rfind(|change| change["range"].is_null());
                self.keep(uri(params), text.and_then(|change| change["text"].as_str()));
            }
            (Phase::Running, "textDocument/didClose") => {
                self.texts.remove(uri(params).unwrap_or_default());
            }
            _ => {}
        }
    }

    fn exit_code(&self) -> Option<i32> {
        match self.phase {
            Phase::Exit(code) => Some(code),
            Phase::Start | Phase::Running | Phase::Ending => None,
        }
    }
}

impl Lsp {
    /// Keeps a text, if there is room for it. If there is not, its old version is dropped too.
    fn keep(&mut self, uri: Option<&str>, text: Option<&str>) {
        let (Some(uri), Some(text)) = (uri, text) else { return };
        self.texts.remove(uri);
        let kept: usize = self.texts.iter().map(|(uri, text)| uri.len() + text.len()).sum();
        if self.texts.len() < MAX_OPEN && kept + uri.len() + text.len() <= MAX_TEXTS {
            let text = text.replace("\r\n", "\n").replace('\r', "\n");
            self.texts.insert(uri.to_owned(), text);
        }
    }

    fn hover(&self, params: &Value) -> Result<Value, Failure> {
        let number = |name| usize::try_from(params["position"][name].as_u64()?).ok();
        let (Some(uri), Some(line), Some(column)) =
            (uri(params), number("line"), number("character"))
        else {
            return Err(Failure::new(INVALID_PARAMS, "a hover has a text and a position"));
        };
        let text = self.texts.get(uri);
        let text = text.ok_or(Failure::new(INVALID_PARAMS, "this text is not open"))?;
        let all = words(text).count();
        let found = text.split('\n').nth(line).and_then(|line| word_at(line, column));
        let Some((word, start, end)) = found else {
            return Ok(json!({ "contents": format!("{all} words") }));
        };
        let same = words(text).filter(|other| *other == word).count();
        Ok(json!({
            "contents": format!("{word}: {same} of {all} words"),
            "range": {
                "start": { "line": line, "character": start },
                "end": { "line": line, "character": end },
            },
        }))
    }
}

fn uri(params: &Value) -> Option<&str> {
    params["textDocument"]["uri"].as_str()
}
