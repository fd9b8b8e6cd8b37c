//! The fields of a program or server in the built-in transformer's place, and of the load on a server.

use super::{Axis, Kind};
use crate::load::spec::{Api, Arrivals, Pace};
use crate::scenario::engine::Engine;
use crate::scenario::engine::read::{name, reads, variables};
use crate::scenario::engine::server::{self, Server};
use crate::scenario::engine::words::words;
use crate::scenario::trial::Trial;
use crate::scenario::values::{count, int, text, word};
use crate::yaml::Value;

/// Fields of programs, servers and the load on them.
pub(super) const ENGINE: [Axis; 20] = [
    axis!(
        "engine.command",
        [],
        "engine",
        "",
        Kind::Words,
        "a program that runs the workload, and its arguments, started without a shell; {batch} stands for that field of the trial",
        |d, v| d.engine.command = Some(words(v)?),
        |t| program(t).map_or(Value::Null, |e| text(&e.command.join(" ")))
    ),
    axis!(
        "engine.reads",
        [],
        "reads",
        "",
        Kind::Reads,
        "how figures are had from what the program prints: llama-bench, torchrun, vllm-throughput, paths into JSON, or a pattern",
        |d, v| d.engine.reads = Some(reads(v)?),
        |t| program(t).map_or(Value::Null, |e| text(&e.reads.in_words()))
    ),
    axis!(
        "engine.name",
        [],
        "program",
        "",
        Kind::Free,
        "what the program is called; default its file's name",
        |d, v| d.engine.name = Some(name(v)?),
        |t| t.engine.as_ref().map_or(Value::Null, |_| text(&t.model))
    ),
    axis!(
        "engine.env",
        [],
        "environment",
        "",
        Kind::Variables,
        "variables that the program sees beside yours; engine.env.NAME is swept",
        |d, v| d.engine.env.extend(variables(v)?),
        |t| t.engine.as_ref().map_or(Value::Null, |e| text(&environment(e)))
    ),
    axis!(
        "engine.endpoint",
        [],
        "endpoint",
        "",
        Kind::Address,
        "a server that speaks OpenAI's API, up to the version: http://127.0.0.1:8000/v1",
        |d, v| d.engine.server.endpoint = Some(server::address(v)?),
        |t| of(t, |s| text(&s.target.endpoint))
    ),
    axis!(
        "engine.model",
        [],
        "served model",
        "",
        Kind::Free,
        "the model to ask a server for, as it calls it",
        |d, v| d.engine.server.model = Some(name(v)?),
        |t| of(t, |s| text(&s.target.model))
    ),
    axis!(
        "engine.api",
        [],
        "API",
        "",
        Kind::Word(Api::WORDS),
        "chat (a message in the model's template) or completions (text as it is); default chat",
        |d, v| d.engine.server.api = word::<Api>(v)?,
        |t| of(t, |s| text(s.target.api.name()))
    ),
    axis!(
        "engine.api_key_env",
        [],
        "key",
        "",
        Kind::Free,
        "the variable of your environment that holds the server's API key; the key itself is written nowhere",
        |d, v| d.engine.server.api_key_env = Some(server::variable(v)?),
        |t| of(t, |s| s.target.api_key_env.as_deref().map_or(Value::Null, text))
    ),
    axis!(
        "engine.tokenizer",
        [],
        "tokenizer",
        "",
        Kind::Path,
        "the model's tokenizer.json, by which prompts are made to their length; default by what the server counts of two requests",
        |d, v| d.engine.server.tokenizer = Some(server::path(v)?),
        |t| of(t, |s| s.traffic.tokenizer.as_deref().map_or(Value::Null, text))
    ),
    axis!(
        "engine.start",
        [],
        "started by",
        "",
        Kind::Start,
        "how Centime starts the server, if it is to: { command: [llama-server, --port, \"8000\"], ready: /health }",
        |d, v| d.engine.server.start = Some(server::start(v)?),
        |t| of(t, |s| s.ready.as_ref().map_or(Value::Null, |_| text(&started_by(t))))
    ),
    axis!(
        "load.concurrency",
        [],
        "concurrency",
        "",
        Kind::Count,
        "requests to a server at a time: the next is sent when one is answered",
        |d, v| d.engine.server.concurrency = Some(count(v)?),
        |t| of(t, |s| match s.traffic.pace {
            Pace::Closed { concurrency } if s.traffic.search.is_none() => int(concurrency),
            _ => Value::Null,
        })
    ),
    axis!(
        "load.rate",
        [],
        "rate",
        "requests/s",
        Kind::Number,
        "requests to a server a second, whatever it does",
        |d, v| d.engine.server.rate = Some(server::above_zero(v)?),
        |t| of(t, |s| match s.traffic.pace {
            Pace::Open { rate, .. } if s.traffic.search.is_none() => Value::Float(rate),
            _ => Value::Null,
        })
    ),
    axis!(
        "load.arrivals",
        [],
        "arrivals",
        "",
        Kind::Word(Arrivals::WORDS),
        "how requests of a rate are spread: poisson (as many users send them), constant, or trace (as load.trace has them; without a rate \
         at its own); default poisson",
        |d, v| d.engine.server.arrivals = word::<Arrivals>(v)?,
        |t| of(t, |s| match s.traffic.pace {
            Pace::Open { arrivals, .. } => text(arrivals.name()),
            Pace::Replay => text(Arrivals::Trace.name()),
            Pace::Closed { .. } => Value::Null,
        })
    ),
    axis!(
        "load.trace",
        [],
        "trace",
        "",
        Kind::Path,
        "a file of requests in the place of prompt_len and new_tokens: ShareGPT's conversations or Mooncake's lines",
        |d, v| d.engine.server.trace = Some(server::path(v)?),
        |t| of(t, |s| s.traffic.trace.as_deref().map_or(Value::Null, text))
    ),
    axis!(
        "load.prefix",
        [],
        "prefix",
        "",
        Kind::Prefix,
        "the share of prompts that begin alike on purpose, and by how many tokens: { share: 0.8, tokens: 1024 }; default none do",
        |d, v| d.engine.server.prefix = server::prefix(v)?,
        |t| of(t, |s| text(&server::prefix_in_words(s.traffic.prefix)))
    ),
    axis!(
        "load.timeout",
        [],
        "timeout",
        "s",
        Kind::Duration,
        "how long a request may take: 30s, 500ms, or seconds; default 120s",
        |d, v| d.engine.server.timeout = Some(server::duration(v)?),
        |t| of(t, |s| Value::Float(s.traffic.timeout_seconds))
    ),
    axis!(
        "slo.ttft",
        [],
        "TTFT bound",
        "s",
        Kind::Duration,
        "what a request's time to first token may be for it to be a good one: 500ms",
        |d, v| d.engine.server.ttft = Some(server::duration(v)?),
        |t| of(t, |s| s.traffic.slo.ttft.map_or(Value::Null, Value::Float))
    ),
    axis!(
        "slo.tpot",
        [],
        "TPOT bound",
        "s",
        Kind::Duration,
        "the same of its time per output token: 50ms",
        |d, v| d.engine.server.tpot = Some(server::duration(v)?),
        |t| of(t, |s| s.traffic.slo.tpot.map_or(Value::Null, Value::Float))
    ),
    axis!(
        "slo.e2e",
        [],
        "E2E bound",
        "s",
        Kind::Duration,
        "the same of the whole request: 10s",
        |d, v| d.engine.server.e2e = Some(server::duration(v)?),
        |t| of(t, |s| s.traffic.slo.e2e.map_or(Value::Null, Value::Float))
    ),
    axis!(
        "slo.share",
        [],
        "SLO share",
        "",
        Kind::Number,
        "the share of requests that have to keep to the bounds; default 0.95",
        |d, v| d.engine.server.share = Some(server::share(v)?),
        |t| of(t, |s| if s.traffic.slo.is_none() { Value::Null } else { Value::Float(s.traffic.slo.share) })
    ),
];

/// "OMP_NUM_THREADS=2 MODE=fast".
fn environment(engine: &Engine) -> String {
    engine.env.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
}

/// The program of a trial that one runs.
fn program(trial: &Trial) -> Option<&Engine> {
    trial.engine.as_ref().filter(|e| e.server.is_none())
}

fn started_by(trial: &Trial) -> String {
    trial.engine.as_ref().map_or(String::new(), |e| e.command.join(" "))
}

/// Of the server of a trial that asks one.
fn of(trial: &Trial, value: impl Fn(&Server) -> Value) -> Value {
    trial.engine.as_ref().and_then(|e| e.server.as_ref()).map_or(Value::Null, value)
}
