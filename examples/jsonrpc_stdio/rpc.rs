//! JSON-RPC 2.0: a text → what is answered to it (no I/O).

use std::borrow::Cow;
use std::fmt::Debug;

use serde_json::{Map, Value, json};

pub(crate) const PARSE_ERROR: i32 = -32700;
pub(crate) const INVALID_REQUEST: i32 = -32600;
pub(crate) const METHOD_NOT_FOUND: i32 = -32601;
pub(crate) const INVALID_PARAMS: i32 = -32602;

/// The most messages of a batch. Even the shortest message has a longer answer: without a limit a small batch would
/// have a large one.
const MAX_BATCH: usize = 1000;

/// Why there is no result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    code: i32,
    message: Cow<'static, str>,
}

impl Failure {
    pub(crate) fn new(code: i32, message: impl Into<Cow<'static, str>>) -> Self {
        Failure { code, message: message.into() }
    }

    pub(crate) fn no_method(method: &str) -> Self {
        Failure::new(METHOD_NOT_FOUND, format!("there is no method {method:?}"))
    }
}

/// The methods of a server.
pub(crate) trait Service: Debug + Send {
    /// Carries out a request. If it has no parameters, `params` is null.
    fn request(&mut self, method: &str, params: &Value) -> Result<Value, Failure>;

    /// Takes a notification. An unknown one is ignored.
    fn notification(&mut self, method: &str, params: &Value);

    /// The exit code, if the client wants this process to end.
    fn exit_code(&self) -> Option<i32> {
        None
    }
}

/// Carries out a message or a batch of them. If there is nothing but notifications in it, there is no answer.
pub(crate) fn answer(service: &mut dyn Service, text: &[u8]) -> Option<Value> {
    match serde_json::from_slice(text) {
        Err(error) => Some(failure(Value::Null, Failure::new(PARSE_ERROR, error.to_string()))),
        Ok(Value::Array(batch)) if batch.is_empty() || batch.len() > MAX_BATCH => {
            Some(invalid(Value::Null, "a batch has 1 to 1000 messages"))
        }
        Ok(Value::Array(batch)) => {
            let answers: Vec<_> =
                batch.into_iter().filter_map(|message| answer_one(service, message)).collect();
            (!answers.is_empty()).then_some(Value::Array(answers))
        }
        Ok(message) => answer_one(service, message),
    }
}

fn answer_one(service: &mut dyn Service, message: Value) -> Option<Value> {
    let Value::Object(mut message) = message else {
        return Some(invalid(Value::Null, "a message is an object"));
    };
    if is_response(&message) {
        // A response gets no answer.
        return None;
    }
    let id = message.remove("id");
    if !matches!(id, None | Some(Value::Null | Value::String(_) | Value::Number(_))) {
        return Some(invalid(Value::Null, "an id is a string, a number or null"));
    }
    let version = message.get("jsonrpc").and_then(Value::as_str);
    let method = message.get("method").and_then(Value::as_str);
    let params = message.get("params").unwrap_or(&Value::Null);
    let (Some("2.0"), Some(method), Value::Null | Value::Array(_) | Value::Object(_)) =
        (version, method, params)
    else {
        return Some(invalid(id.unwrap_or_default(), "this is not a request of JSON-RPC 2.0"));
    };
    let Some(id) = id else {
        service.notification(method, params);
        return None;
    };
    Some(match service.request(method, params) {
        Ok(result) => json!({ "jsonrpc": "2.0", "id": id, "result": result }),
        Err(why) => failure(id, why),
    })
}

fn is_response(message: &Map<String, Value>) -> bool {
    let has = |name| message.contains_key(name);
    !has("method") && (has("result") || has("error"))
}

/// The answer to a message that has failed. If its id is not known, `id` is null.
pub(crate) fn failure(id: Value, why: Failure) -> Value {
    let error = json!({ "code": why.code, "message": why.message });
    json!({ "jsonrpc": "2.0", "id": id, "error": error })
}

fn invalid(id: Value, reason: &'static str) -> Value {
    failure(id, Failure::new(INVALID_REQUEST, reason))
}
