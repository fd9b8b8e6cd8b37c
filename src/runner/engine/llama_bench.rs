//! llama.cpp's llama-bench: a list of tests (`-o json`) or a test a line (`-o jsonl`), each with the time of every repetition.

use super::output::number;
use super::sample::Sample;
use crate::scenario::engine::Figure;
use crate::transformer::{Phase, Workload};
use serde_json::Value;

/// A test: prompt tokens, tokens made, tokens in the cache before.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Test {
    prompt: u64,
    made: u64,
    depth: u64,
}

impl Test {
    fn of(row: &Value) -> Option<Self> {
        let get = |key: &str| row.get(key).and_then(Value::as_u64);
        Some(Self { prompt: get("n_prompt")?, made: get("n_gen")?, depth: get("n_depth").unwrap_or(0) })
    }

    /// What the trial asks for: decoding goes on from a context of `prompt_len`.
    fn wanted(w: &Workload) -> Self {
        let (prompt, made) = (u64::from(w.prompt_len), u64::from(w.new_tokens));
        match w.phase {
            Phase::Decode => Self { prompt: 0, made, depth: prompt },
            Phase::Generate => Self { prompt, made, depth: 0 },
            Phase::Prefill | Phase::Train => Self { prompt, made: 0, depth: 0 },
        }
    }

    /// As llama-bench calls it: "tg32 @ d128".
    fn name(self) -> String {
        let test = match self {
            Self { prompt, made: 0, .. } => format!("pp{prompt}"),
            Self { prompt: 0, made, .. } => format!("tg{made}"),
            Self { prompt, made, .. } => format!("pp{prompt}+tg{made}"),
        };
        if self.depth > 0 { format!("{test} @ d{}", self.depth) } else { test }
    }
}

/// The repetitions of the test that the trial is; `None` where no test is there.
///
/// # Errors
/// Other tests than the trial's; figures that are none.
pub(super) fn samples(documents: &[Value], w: &Workload) -> Result<Option<Vec<Sample>>, String> {
    let rows = documents.iter().flat_map(|d| d.as_array().map_or(std::slice::from_ref(d), Vec::as_slice));
    let tests: Vec<(Test, &Value)> = rows.filter_map(|row| Some((Test::of(row)?, row))).collect();
    if tests.is_empty() {
        return Ok(None);
    }
    let wanted = Test::wanted(w);
    let mine: Vec<&Value> = tests.iter().filter(|(t, _)| *t == wanted).map(|(_, row)| *row).collect();
    let [row] = mine[..] else {
        let found: Vec<String> = tests.iter().map(|(t, _)| t.name()).collect();
        let remedy = match w.phase {
            Phase::Decode => "give -p 0 -n {new_tokens} -d {prompt_len}",
            Phase::Generate => "give -p 0 -n 0 -pg {prompt_len},{new_tokens}",
            Phase::Prefill | Phase::Train => "give -p {prompt_len} -n 0",
        };
        return Err(format!("expected the test {} once, found {}; {remedy}", wanted.name(), found.join(", ")));
    };
    let tokens = (wanted.prompt + wanted.made) as f64;
    let list = |key: &str| row.get(key).and_then(Value::as_array).filter(|l| !l.is_empty());
    let figures: Vec<(Figure, Option<f64>)> = match list("samples_ns") {
        Some(all) => all.iter().map(|ns| (Figure::Seconds, number(ns).map(|ns| ns / 1e9))).collect(),
        None => vec![(Figure::TokensPerSecond, row.get("avg_ts").and_then(number))],
    };
    let one = |(figure, value): (Figure, Option<f64>)| {
        let value = value.ok_or("samples_ns: expected numbers")?;
        Sample::of(&[(figure, value), (Figure::Tokens, tokens)], w.tokens_per_step())
    };
    figures.into_iter().map(one).collect::<Result<Vec<_>, _>>().map(Some)
}
