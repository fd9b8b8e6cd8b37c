//! What one event of an answer says: text, how many tokens there were, an error, the end.

use serde::Deserialize;
use serde_json::Value;

/// Characters of a server's error that are kept.
const KEPT: usize = 300;

/// What an event says.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Said {
    /// Some of the answer is in it.
    pub text: bool,
    /// The model has stopped.
    pub finished: bool,
    pub usage: Option<Usage>,
}

/// Tokens as the server counts them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Usage {
    pub input: u64,
    pub output: u64,
    /// Input tokens that were in the server's cache, where it tells.
    pub cached: Option<u64>,
}

/// An event, or what stands in its place.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Event {
    Said(Said),
    /// `[DONE]`.
    Done,
    /// The server says that it failed.
    Error(String),
    /// Neither.
    Garbled(String),
}

#[derive(Deserialize)]
struct Wire {
    choices: Option<Vec<Choice>>,
    usage: Option<WireUsage>,
    error: Option<Value>,
    /// vLLM's errors, before they had a field of their own.
    object: Option<String>,
    message: Option<Value>,
}

#[derive(Deserialize)]
struct Choice {
    delta: Option<serde_json::Map<String, Value>>,
    text: Option<String>,
    finish_reason: Option<Value>,
}

#[derive(Deserialize)]
struct WireUsage {
    prompt_tokens: Option<u64>,
    completion_tokens: Option<u64>,
    prompt_tokens_details: Option<Details>,
}

#[derive(Deserialize)]
struct Details {
    cached_tokens: Option<u64>,
}

/// Parts of a delta that are tokens of the answer: what it says, thinks, or calls.
const ANSWERS: [&str; 5] = ["content", "reasoning_content", "reasoning", "refusal", "tool_calls"];

/// Reads the data of an event.
pub(super) fn read(data: &str) -> Event {
    let data = data.trim();
    if data == "[DONE]" {
        return Event::Done;
    }
    let wire: Wire = match serde_json::from_str(data) {
        Ok(wire) => wire,
        Err(e) => return Event::Garbled(format!("an event that is no chunk of an answer ({e}): {}", first(data))),
    };
    if let Some(error) = wire.error.as_ref().filter(|e| !e.is_null()) {
        return Event::Error(message(error));
    }
    if wire.object.as_deref() == Some("error") {
        return Event::Error(wire.message.as_ref().map_or_else(|| first(data), message));
    }
    let choices = wire.choices.unwrap_or_default();
    let text = |c: &Choice| {
        c.text.as_ref().is_some_and(|t| !t.is_empty())
            || c.delta.as_ref().is_some_and(|d| ANSWERS.iter().any(|key| d.get(*key).is_some_and(full)))
    };
    Event::Said(Said {
        text: choices.iter().any(text),
        finished: choices.iter().any(|c| c.finish_reason.as_ref().is_some_and(|r| !r.is_null())),
        usage: wire.usage.and_then(usage),
    })
}

fn usage(wire: WireUsage) -> Option<Usage> {
    let cached = wire.prompt_tokens_details.and_then(|d| d.cached_tokens);
    Some(Usage { input: wire.prompt_tokens?, output: wire.completion_tokens?, cached })
}

fn full(value: &Value) -> bool {
    match value {
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        _ => false,
    }
}

/// What an error says: its message, or all of it.
fn message(error: &Value) -> String {
    let told = error.get("message").unwrap_or(error);
    first(told.as_str().map_or_else(|| told.to_string(), str::to_string).as_str())
}

/// The error that a body says, which may be JSON.
pub(super) fn error_of_body(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    match serde_json::from_str::<Value>(&text) {
        Ok(value) => message(value.get("error").unwrap_or(&value)),
        Err(_) => first(&text),
    }
}

/// The beginning, on one line.
pub(super) fn first(text: &str) -> String {
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(KEPT).collect();
    line.trim().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(data: &str) -> Said {
        match read(data) {
            Event::Said(said) => said,
            other => panic!("{data}: {other:?}"),
        }
    }

    #[test]
    fn text_is_what_the_answer_consists_of() {
        for data in [
            r#"{"choices":[{"index":0,"delta":{"content":" a"},"finish_reason":null}]}"#,
            r#"{"choices":[{"delta":{"content":null,"reasoning_content":"hm"}}]}"#,
            r#"{"choices":[{"delta":{"tool_calls":[{"index":0}]}}]}"#,
            r#"{"choices":[{"text":"x","finish_reason":null}],"usage":null}"#,
        ] {
            assert_eq!(said(data), Said { text: true, ..Said::default() }, "{data}");
        }
        for data in [
            r#"{"choices":[{"delta":{"role":"assistant","content":""}}]}"#,
            r#"{"choices":[{"delta":{}}]}"#,
            r#"{"choices":[]}"#,
            r#"{"id":"x"}"#,
        ] {
            assert_eq!(said(data), Said::default(), "{data}");
        }
        assert!(said(r#"{"choices":[{"delta":{},"finish_reason":"length"}]}"#).finished);
    }

    #[test]
    fn tokens_are_those_of_usage() {
        let data = r#"{"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":3,"total_tokens":10,
                       "prompt_tokens_details":{"cached_tokens":4}}}"#;
        assert_eq!(said(data).usage, Some(Usage { input: 7, output: 3, cached: Some(4) }));
        assert_eq!(said(r#"{"choices":[],"usage":{"prompt_tokens":7}}"#).usage, None);
    }

    #[test]
    fn errors_and_the_end_are_told_from_answers() {
        assert_eq!(read(" [DONE] "), Event::Done);
        assert_eq!(read(r#"{"error":{"message":"out of\nmemory","code":500}}"#), Event::Error("out of memory".into()));
        assert_eq!(read(r#"{"error":"no"}"#), Event::Error("no".into()));
        assert_eq!(read(r#"{"object":"error","message":"bad"}"#), Event::Error("bad".into()));
        assert!(matches!(read("{"), Event::Garbled(_)));
        assert_eq!(error_of_body(b"{\"error\": {\"message\": \"m\"}}"), "m");
        assert_eq!(error_of_body(b"<html>\xff"), "<html>\u{fffd}");
        assert_eq!(first(&"x".repeat(1000)).len(), KEPT);
    }
}
