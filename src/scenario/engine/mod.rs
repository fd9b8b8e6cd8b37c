//! A program of the user's that runs the workload in the built-in transformer's place: what is started, and how what it prints is read;
//! or a server that is asked, and how.

pub(crate) mod complete;
mod fill;
pub(crate) mod json_path;
pub(crate) mod lengths;
pub(crate) mod read;
pub(crate) mod server;
pub(crate) mod words;

use crate::transformer::names;
use regex::Regex;
use serde::{Deserialize, Serialize};
use server::Server;
use std::collections::BTreeMap;

/// A program and how to read it. Placeholders are filled in, but for [`OUTPUT`], which every launch has anew.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Engine {
    /// The program and its arguments; started without a shell. Empty where a server is asked that is there already.
    pub command: Vec<String>,
    /// Variables that the program sees beside those of Centime's own environment.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    pub reads: Reads,
    /// Whether the scenario states the model's shape; where it does not, nothing is counted by it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub states_model: bool,
    /// The server that is asked, where one is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<Server>,
}

/// Stands for a file that is empty at every launch; what the program writes there is read instead of what it prints.
pub(crate) const OUTPUT: &str = "{output}";

/// How figures are had from what a program prints.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reads {
    Ready(Ready),
    /// By requests to a server.
    Requests,
    /// Another tool read it, of this model: `centime import`.
    Imported {
        model: String,
    },
    /// Paths into JSON.
    Json {
        each: Each,
        paths: BTreeMap<Figure, String>,
    },
    /// A regular expression whose named groups are figures.
    Pattern {
        each: Each,
        pattern: String,
    },
}

/// Programs whose output is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ready {
    /// llama.cpp's `llama-bench -o json` or `-o jsonl`.
    LlamaBench,
    /// Lines with tokens/s, as training scripts under torchrun print them.
    Torchrun,
    /// `vllm bench throughput --output-json`.
    VllmThroughput,
}

names!(Ready { LlamaBench => "llama-bench", Torchrun => "torchrun", VllmThroughput => "vllm-throughput" });

/// What a figure is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Each {
    /// The program prints one figure; it is launched again for every sample.
    Launch,
    /// The program prints a line a step; every line is a sample.
    Step,
}

names!(Each { Launch => "launch", Step => "step" });

/// What can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Figure {
    TokensPerSecond,
    /// Of a step.
    Seconds,
    /// Of a step.
    Milliseconds,
    /// Of a step, beside its time; without it a step has the tokens that the trial says.
    Tokens,
    /// From the start of a step to its first token.
    FirstTokenSeconds,
    Loss,
    /// Highest bytes that the program had allocated on its devices.
    MemoryBytes,
}

names!(Figure {
    TokensPerSecond => "tokens_per_second", Seconds => "seconds", Milliseconds => "milliseconds", Tokens => "tokens",
    FirstTokenSeconds => "first_token_seconds", Loss => "loss", MemoryBytes => "memory_bytes"
});

impl Figure {
    /// Whether it tells how fast a step was.
    pub(crate) fn is_speed(self) -> bool {
        matches!(self, Self::TokensPerSecond | Self::Seconds | Self::Milliseconds)
    }
}

impl Engine {
    /// What a reader calls the program: its file, or the script that an interpreter or launcher is given.
    pub(crate) fn name(&self) -> String {
        const LAUNCHERS: [&str; 9] = ["sh", "bash", "env", "uv", "run", "torchrun", "accelerate", "launch", "node"];
        let file = |word: &str| word.rsplit('/').next().unwrap_or(word).to_string();
        let launches = |name: &str| LAUNCHERS.contains(&name) || name.starts_with("python");
        let first = self.command.first().map(|w| file(w)).unwrap_or_default();
        let scripts = self.command.iter().skip(1).take_while(|w| !matches!(w.as_str(), "-c" | "-m"));
        let script = scripts.map(|w| file(w)).find(|n| n.contains('.') && !n.starts_with('-'));
        script.filter(|_| launches(&first)).unwrap_or(first)
    }

    /// Whether a launch gives one figure, and is repeated for more.
    pub(crate) fn each(&self) -> Each {
        match &self.reads {
            // Requests are samples of their own.
            Reads::Ready(Ready::Torchrun) | Reads::Requests => Each::Step,
            Reads::Ready(Ready::LlamaBench | Ready::VllmThroughput) | Reads::Imported { .. } => Each::Launch,
            Reads::Json { each, .. } | Reads::Pattern { each, .. } => *each,
        }
    }
}

impl Reads {
    /// "llama-bench", "tokens_per_second: $.throughput", as the report has it.
    pub(crate) fn in_words(&self) -> String {
        match self {
            Self::Ready(ready) => ready.name().into(),
            Self::Requests => "requests".into(),
            Self::Imported { .. } => "imported".into(),
            Self::Json { paths, .. } => {
                paths.iter().map(|(f, path)| format!("{}: {path}", f.name())).collect::<Vec<_>>().join(", ")
            }
            Self::Pattern { pattern, .. } => pattern.clone(),
        }
    }
}

/// The figures that a pattern's groups name.
///
/// # Errors
/// A pattern that is none, a group that is no figure, no figure that tells a speed or more than one.
pub(crate) fn pattern(text: &str) -> Result<(Regex, Vec<Figure>), String> {
    let regex = Regex::new(text).map_err(|e| {
        let last = e.to_string();
        format!("`{text}` is no regular expression: {}", last.lines().last().unwrap_or_default())
    })?;
    let figures = regex.capture_names().flatten().map(figure).collect::<Result<Vec<_>, _>>()?;
    one_speed(&figures)?;
    Ok((regex, figures))
}

/// The figure of this name.
///
/// # Errors
/// Another word, with what there is.
pub(crate) fn figure(name: &str) -> Result<Figure, String> {
    name.parse().map_err(|_| format!("`{name}` is no figure; what can be read: {}", Figure::WORDS.join(", ")))
}

/// # Errors
/// None that tells how fast a step was, or more than one.
pub(crate) fn one_speed(figures: &[Figure]) -> Result<(), String> {
    match figures.iter().filter(|f| f.is_speed()).count() {
        1 => Ok(()),
        n => Err(format!("expected one of tokens_per_second, seconds, milliseconds, found {n}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(words: &[&str]) -> String {
        let command = words.iter().map(|w| (*w).to_string()).collect();
        Engine {
            command,
            env: BTreeMap::new(),
            reads: Reads::Ready(Ready::Torchrun),
            states_model: false,
            server: None,
        }
        .name()
    }

    #[test]
    fn a_program_is_called_by_its_file_or_by_its_script() {
        assert_eq!(named(&["/opt/llama.cpp/llama-bench", "-m", "model.gguf"]), "llama-bench");
        assert_eq!(named(&["python3", "-u", "src/train.py", "--lr", "0.1"]), "train.py");
        assert_eq!(named(&["torchrun", "--nproc-per-node", "8", "train.py"]), "train.py");
        assert_eq!(named(&["python3", "-c", "print(1.5)"]), "python3");
        assert_eq!(named(&["sh", "bench.sh"]), "bench.sh");
    }

    #[test]
    fn a_pattern_names_one_speed() {
        assert_eq!(pattern(r"(?<loss>\S+) (?<seconds>\S+)s").unwrap().1, [Figure::Loss, Figure::Seconds]);
        assert!(
            pattern(r"(?<speed>\d+)").unwrap_err().starts_with("`speed` is no figure; what can be read: tokens_per")
        );
        assert_eq!(
            pattern(r"(\d+) tok/s").unwrap_err(),
            "expected one of tokens_per_second, seconds, milliseconds, found 0"
        );
        assert!(pattern("(").unwrap_err().starts_with("`(` is no regular expression: "));
    }
}
