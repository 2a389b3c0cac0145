//! An MCP server with one tool (no I/O).

use serde_json::{Value, json};

use crate::rpc::{Failure, INVALID_PARAMS, INVALID_REQUEST, Service};
use crate::words::words;

/// The versions of the protocol that begin with `initialize`, the newest first.
const VERSIONS: [&str; 4] = ["2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"];
const TOOL: &str = "count_words";

/// Whether the client has sent `initialize`.
#[derive(Debug, Default)]
pub(crate) struct Mcp {
    initialized: bool,
}

impl Service for Mcp {
    fn request(&mut self, method: &str, params: &Value) -> Result<Value, Failure> {
        match method {
            "ping" => Ok(json!({})),
            "initialize" => self.initialize(params),
            "tools/list" | "tools/call" if !self.initialized => {
                Err(Failure::new(INVALID_REQUEST, "initialize has to come first"))
            }
            "tools/list" => Ok(tools()),
            "tools/call" => call(params),
            _ => Err(Failure::no_method(method)),
        }
    }

    fn notification(&mut self, _: &str, _: &Value) {
        // All notifications are ignored, cancellations too: requests are answered before one could arrive.
    }
}

impl Mcp {
    /// The client names the version that it wants, and is told the version that is used.
    fn initialize(&mut self, params: &Value) -> Result<Value, Failure> {
        let Some(wanted) = params["protocolVersion"].as_str() else {
            return Err(Failure::new(INVALID_PARAMS, "initialize has a protocolVersion"));
        };
        let version = VERSIONS.iter().find(|version| **version == wanted).unwrap_or(&VERSIONS[0]);
        self.initialized = true;
        Ok(json!({
            "protocolVersion": version,
            "capabilities": { "tools": {} },
            "serverInfo": { "name": "words", "version": env!("CARGO_PKG_VERSION") },
        }))
    }
}

fn tools() -> Value {
    let number = json!({ "type": "integer" });
    json!({
        "tools": [{
            "name": TOOL,
            "title": "Count words",
            "description": "Counts the words, lines and characters of a text.",
            "inputSchema": {
                "type": "object",
                "properties": { "text": { "type": "string" } },
                "required": ["text"],
            },
            "outputSchema": {
                "type": "object",
                "properties": { "words": number, "lines": number, "characters": number },
                "required": ["words", "lines", "characters"],
            },
        }],
    })
}

fn call(params: &Value) -> Result<Value, Failure> {
    if params["name"] != TOOL {
        return Err(Failure::new(INVALID_PARAMS, "there is no such tool"));
    }
    // An error in the arguments is returned as a result, so that the model can read it.
    let Some(text) = params["arguments"]["text"].as_str() else {
        let content = json!([{ "type": "text", "text": "the argument `text` is a string" }]);
        return Ok(json!({ "content": content, "isError": true }));
    };
    let (words, lines, characters) =
        (words(text).count(), text.lines().count(), text.chars().count());
    let summary = format!("{words} words, {lines} lines, {characters} characters");
    Ok(json!({
        "content": [{ "type": "text", "text": summary }],
        "structuredContent": { "words": words, "lines": lines, "characters": characters },
        "isError": false,
    }))
}
