//! A server that is asked: from YAML's values to what they mean.

use super::words::words;
use crate::load;
use crate::load::search::Search;
use crate::load::spec::{Api, Arrivals, Lengths, Pace, Prefix, Slo, Target, Traffic};
use crate::scenario::values::count;
use crate::transformer::names;
use crate::yaml::Value;
use serde::{Deserialize, Serialize};

names!(Api { Chat => "chat", Completions => "completions" });
names!(Arrivals { Poisson => "poisson", Constant => "constant", Trace => "trace" });

/// What a search may look for the largest of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Largest {
    Rate,
    Concurrency,
}

names!(Largest { Rate => "load.rate", Concurrency => "load.concurrency" });

/// How long a request may take where nothing is said, in seconds.
const TIMEOUT: f64 = 120.0;

/// The field at fault, and the message.
type Fault = (&'static str, String);

/// A server and the load on it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Server {
    pub target: Target,
    pub traffic: Traffic,
    /// Of a server that Centime starts: the path that says when it is ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready: Option<String>,
}

/// How a server is started.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Start {
    pub command: Vec<String>,
    pub ready: String,
}

/// What is said of a server so far.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ServerDraft {
    pub endpoint: Option<String>,
    pub model: Option<String>,
    pub api: Api,
    pub api_key_env: Option<String>,
    pub start: Option<Start>,
    pub concurrency: Option<u32>,
    pub rate: Option<f64>,
    pub arrivals: Arrivals,
    pub prefix: Option<Prefix>,
    pub timeout: Option<f64>,
    /// Where lengths are spread.
    pub prompt: Option<Lengths>,
    pub answer: Option<Lengths>,
    pub ttft: Option<f64>,
    pub tpot: Option<f64>,
    pub e2e: Option<f64>,
    pub share: Option<f64>,
    pub trace: Option<String>,
    pub tokenizer: Option<String>,
    pub search: Option<(Largest, Search)>,
}

impl ServerDraft {
    /// The first field that says something of a server, where none is named, and what it says.
    pub(crate) fn first(&self) -> Option<(&'static str, &'static str)> {
        let said = [
            (self.model.is_some(), "engine.model", "says a model"),
            (self.api != Api::default(), "engine.api", "says the API"),
            (self.api_key_env.is_some(), "engine.api_key_env", "says the key"),
            (self.tokenizer.is_some(), "engine.tokenizer", "says the tokenizer"),
            (self.start.is_some(), "engine.start", "says the start"),
            (self.concurrency.is_some(), "load.concurrency", "says the load"),
            (self.rate.is_some(), "load.rate", "says the load"),
            (self.arrivals != Arrivals::default(), "load.arrivals", "says the load"),
            (self.prefix.is_some(), "load.prefix", "says the prompts"),
            (self.timeout.is_some(), "load.timeout", "says the time-out"),
            (self.ttft.is_some(), "slo.ttft", "bounds the requests"),
            (self.tpot.is_some(), "slo.tpot", "bounds the requests"),
            (self.e2e.is_some(), "slo.e2e", "bounds the requests"),
            (self.share.is_some(), "slo.share", "bounds the requests"),
            (self.trace.is_some(), "load.trace", "says the requests"),
            (self.search.is_some(), "search", "says what to look for"),
            (self.prompt.is_some(), "prompt_len", "spreads the prompts"),
            (self.answer.is_some(), "new_tokens", "spreads the answers"),
        ];
        said.into_iter().find(|(given, ..)| *given).map(|(_, field, what)| (field, what))
    }

    /// The server, and what is sent to it.
    ///
    /// # Errors
    /// The field at fault, what is wrong with it, and the remedy.
    pub(crate) fn finish(&self, prompt_len: u32, new_tokens: u32) -> Result<Server, Fault> {
        let missing = |field: &'static str, what: &str| (field, format!("missing; give {what}"));
        let endpoint = self.endpoint.clone().ok_or_else(|| missing("engine.endpoint", "the server's address"))?;
        let model = self
            .model
            .clone()
            .ok_or_else(|| missing("engine.model", "the model to ask for, as the server calls it"))?;
        let pace = self.pace()?;
        if self.arrivals == Arrivals::Trace && self.trace.is_none() {
            return Err(missing("load.trace", "the file whose times load.arrivals: trace means"));
        }
        let slo =
            Slo { ttft: self.ttft, tpot: self.tpot, e2e: self.e2e, share: self.share.unwrap_or(Slo::default().share) };
        if slo.is_none() && self.share.is_some() {
            return Err(missing("slo.share", "slo.ttft, slo.tpot or slo.e2e, which it is the share of"));
        }
        if slo.is_none() && self.search.is_some() {
            return Err(missing("slo", "slo: { ttft: 500ms, tpot: 50ms }, which the search is to keep to"));
        }
        let prompt = self.prompt.unwrap_or(Lengths::Fixed(prompt_len));
        if let (Some(prefix), Lengths::Fixed(whole)) = (self.prefix, prompt)
            && prefix.tokens >= whole
        {
            let message = format!("{} tokens are not the beginning of prompts of {whole}; use fewer", prefix.tokens);
            return Err(("load.prefix", message));
        }
        let traffic = Traffic {
            pace,
            prompt,
            answer: self.answer.unwrap_or(Lengths::Fixed(new_tokens)),
            timeout_seconds: self.timeout.unwrap_or(TIMEOUT),
            prefix: self.prefix,
            slo,
            tokenizer: self.tokenizer.clone(),
            trace: self.trace.clone(),
            search: self.search.map(|(_, search)| search),
        };
        let target = Target { endpoint, model, api: self.api, api_key_env: self.api_key_env.clone() };
        Ok(Server { target, traffic, ready: self.start.as_ref().map(|s| s.ready.clone()) })
    }
}

impl ServerDraft {
    /// When requests are sent; of a search where it begins.
    fn pace(&self) -> Result<Pace, Fault> {
        let arrivals = self.arrivals;
        let other = |field: &'static str, of: &str| {
            Err((field, format!("the search looks for the largest {of}; leave the other out")))
        };
        match (self.concurrency, self.rate, self.search.map(|(largest, _)| largest)) {
            (Some(_), _, Some(Largest::Rate)) => other("load.concurrency", "load.rate"),
            (_, Some(_), Some(Largest::Concurrency)) => other("load.rate", "load.concurrency"),
            (Some(_), Some(_), None) => {
                let message =
                    "says that requests come at a rate, and load.concurrency that they wait for one another; keep one";
                Err(("load.rate", message.into()))
            }
            (Some(concurrency), ..) => Ok(Pace::Closed { concurrency }),
            (None, Some(rate), _) => Ok(Pace::Open { rate, arrivals }),
            (None, None, Some(Largest::Concurrency)) => Ok(Pace::Closed { concurrency: 1 }),
            (None, None, Some(Largest::Rate)) => Ok(Pace::Open { rate: 1.0, arrivals }),
            (None, None, None) if arrivals == Arrivals::Trace => Ok(Pace::Replay),
            (None, None, None) => Err(("load", "missing; give load: { concurrency: 8 } or load: { rate: 4 }".into())),
        }
    }
}

fn plain(v: &Value, wanted: &str) -> Result<String, String> {
    match v {
        Value::Text(text) => Ok(text.clone()),
        other => Err(format!("expected {wanted}, found {other}")),
    }
}

/// The address of a server.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn address(v: &Value) -> Result<String, String> {
    let text = plain(v, "the address of a server")?;
    load::check_address(&text)?;
    Ok(text.trim_end_matches('/').to_string())
}

/// The path of a file.
///
/// # Errors
/// Something else than text.
pub(crate) fn path(v: &Value) -> Result<String, String> {
    plain(v, "the path of a file")
        .and_then(|p| if p.is_empty() { Err("expected the path of a file".into()) } else { Ok(p) })
}

/// The name of a variable. What looks like a key is not repeated.
///
/// # Errors
/// Something that names none.
pub(crate) fn variable(v: &Value) -> Result<String, String> {
    let text = plain(v, "the name of a variable")?;
    let fits = !text.is_empty() && text.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_');
    let wanted =
        "expected the name of a variable in capitals, like OPENAI_API_KEY; the key itself does not belong in a file";
    if fits { Ok(text) } else { Err(wanted.into()) }
}

/// How a server is started.
///
/// # Errors
/// What is missing or does not belong there.
pub(crate) fn start(v: &Value) -> Result<Start, String> {
    let wanted = "expected { command: [llama-server, -m, model.gguf], ready: /health }";
    let Value::Map(entries) = v else { return Err(format!("{wanted}, found {v}")) };
    let (mut command, mut ready) = (None, None);
    for e in entries {
        match e.key.as_str() {
            "command" => command = Some(words(&e.node.value)?),
            "ready" => ready = Some(plain(&e.node.value, "a path of the server")?),
            other => return Err(format!("unknown field `{other}`; {wanted}")),
        }
    }
    let command = command.ok_or_else(|| format!("no command; {wanted}"))?;
    match ready {
        Some(ready) if ready.starts_with('/') && !ready.contains(char::is_whitespace) => Ok(Start { command, ready }),
        Some(ready) => Err(format!("ready: expected a path like /health, found `{ready}`")),
        None => Err(format!("no path that says when it is ready; {wanted}")),
    }
}

/// A number above 0.
///
/// # Errors
/// Anything else.
pub(crate) fn above_zero(v: &Value) -> Result<f64, String> {
    let x = match v {
        Value::Integer(i) => *i as f64,
        Value::Float(x) => *x,
        other => return Err(format!("expected a number above 0, found {other}")),
    };
    if x > 0.0 && x <= 1e9 { Ok(x) } else { Err(format!("expected a number above 0, found {v}")) }
}

/// A share from above 0 to 1.
///
/// # Errors
/// Anything else.
pub(crate) fn share(v: &Value) -> Result<f64, String> {
    above_zero(v).ok().filter(|x| *x <= 1.0).ok_or_else(|| format!("expected a share from above 0 to 1, found {v}"))
}

/// A time in seconds: `500ms`, `2s`, `1min`, or a number.
///
/// # Errors
/// Anything else.
pub(crate) fn duration(v: &Value) -> Result<f64, String> {
    let refused = || format!("expected a time like 500ms, 2s or 1min, found {v}");
    let Value::Text(text) = v else { return above_zero(v).map_err(|_| refused()) };
    let text = text.trim();
    let units = [("ms", 1e-3), ("min", 60.0), ("s", 1.0)];
    let (number, unit) = units.iter().find_map(|(u, x)| Some((text.strip_suffix(u)?, x))).ok_or_else(refused)?;
    let number: f64 = number.trim().parse().map_err(|_| refused())?;
    if number > 0.0 && number <= 1e7 { Ok(number * unit) } else { Err(refused()) }
}

/// How prompts begin alike, if they do.
///
/// # Errors
/// What is missing or does not belong there.
pub(crate) fn prefix(v: &Value) -> Result<Option<Prefix>, String> {
    let wanted = "expected { share: 0.8, tokens: 1024 } or none";
    let entries = match v {
        Value::Text(text) if text == "none" => return Ok(None),
        Value::Map(entries) => entries,
        other => return Err(format!("{wanted}, found {other}")),
    };
    let (mut of, mut tokens) = (None, None);
    for e in entries {
        match e.key.as_str() {
            "share" => of = Some(share(&e.node.value)?),
            "tokens" => tokens = Some(count(&e.node.value)?),
            other => return Err(format!("unknown field `{other}`; {wanted}")),
        }
    }
    of.zip(tokens).map(|(share, tokens)| Some(Prefix { share, tokens })).ok_or_else(|| wanted.into())
}

/// "salted: no two prompts begin alike", as rows have it.
pub(crate) fn prefix_in_words(prefix: Option<Prefix>) -> String {
    match prefix {
        None => "none: every prompt salted".into(),
        Some(p) => format!("{} tokens in {} % of prompts", p.tokens, p.share * 100.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(s: &str) -> Value {
        Value::Text(s.into())
    }

    #[test]
    fn times_have_units_or_are_seconds() {
        let of = |s: &str| duration(&text(s));
        assert_eq!((of("500ms"), of("2 s"), of("1.5min")), (Ok(0.5), Ok(2.0), Ok(90.0)));
        assert_eq!((duration(&Value::Integer(3)), duration(&Value::Float(0.25))), (Ok(3.0), Ok(0.25)));
        for wrong in ["", "5", "-1s", "0ms", "ms", "1h", "NaNs"] {
            assert!(of(wrong).unwrap_err().starts_with("expected a time like 500ms"), "{wrong}");
        }
    }

    #[test]
    fn a_key_in_the_place_of_a_variable_is_not_repeated() {
        assert_eq!(variable(&text("OPENAI_API_KEY")), Ok("OPENAI_API_KEY".into()));
        for wrong in ["sk-abcdef123", "", "my key"] {
            let fault = variable(&text(wrong)).unwrap_err();
            assert!(!fault.contains("abcdef") && fault.contains("does not belong in a file"), "{fault}");
        }
    }
}
