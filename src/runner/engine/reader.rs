//! From what a program prints to samples, as the scenario says how.

use super::output::{documents, number, shown};
use super::sample::Sample;
use super::{llama_bench, torchrun, vllm};
use crate::scenario::engine::json_path::JsonPath;
use crate::scenario::engine::{self, Figure, Reads, Ready};
use crate::scenario::trial::Trial;
use crate::transformer::Workload;
use regex::{Captures, Regex};
use serde_json::Value;

/// How samples are had.
#[derive(Debug)]
pub(super) struct Reader {
    way: Way,
    workload: Workload,
}

#[derive(Debug)]
enum Way {
    Json(Vec<(Figure, String, JsonPath)>),
    Pattern(Regex, Vec<Figure>),
    LlamaBench,
    VllmThroughput,
    Torchrun(torchrun::Lines),
}

impl Reader {
    /// # Errors
    /// A path or pattern that is none; a scenario's are checked when it is read.
    pub(crate) fn of(reads: &Reads, trial: &Trial) -> Result<Self, String> {
        let way = match reads {
            Reads::Imported { .. } => return Err("what was imported cannot be run".into()),
            Reads::Requests => return Err("a server is asked and not read".into()),
            Reads::Ready(Ready::LlamaBench) => Way::LlamaBench,
            Reads::Ready(Ready::VllmThroughput) => Way::VllmThroughput,
            Reads::Ready(Ready::Torchrun) => Way::Torchrun(torchrun::Lines::new(trial.devices)?),
            Reads::Json { paths, .. } => {
                let parsed = paths.iter().map(|(f, text)| Ok((*f, text.clone(), JsonPath::parse(text)?)));
                Way::Json(parsed.collect::<Result<_, String>>()?)
            }
            Reads::Pattern { pattern, .. } => {
                let (regex, figures) = engine::pattern(pattern)?;
                Way::Pattern(regex, figures)
            }
        };
        Ok(Self { way, workload: trial.workload.clone() })
    }

    /// What is looked for, in words.
    pub(crate) fn wanted(&self) -> String {
        match &self.way {
            Way::Json(paths) => {
                let speed = paths.iter().find(|(f, ..)| f.is_speed()).map_or("", |(_, path, _)| path.as_str());
                format!("JSON with {speed}")
            }
            Way::Pattern(regex, _) => format!("a match of {regex}"),
            Way::LlamaBench => "what llama-bench -o json or -o jsonl prints".into(),
            Way::VllmThroughput => "what vllm bench throughput --output-json {output} writes".into(),
            Way::Torchrun(_) => "a line with tokens/s".into(),
        }
    }

    /// The samples of one launch.
    ///
    /// # Errors
    /// No figure, more of them than a launch has, a figure that is none.
    pub(crate) fn text(&self, text: &str) -> Result<Vec<Sample>, String> {
        let missing = || format!("expected {}, found {}", self.wanted(), shown(text));
        match &self.way {
            Way::LlamaBench => llama_bench::samples(&documents(text), &self.workload)?.ok_or_else(missing),
            Way::VllmThroughput => vllm::sample(&documents(text), &self.workload)?.map(|s| vec![s]).ok_or_else(missing),
            Way::Json(paths) => {
                let all: Vec<Sample> = documents(text)
                    .iter()
                    .filter_map(|d| self.at_paths(paths, d).transpose())
                    .collect::<Result<_, _>>()?;
                if all.is_empty() {
                    unreadable(paths, text)?;
                }
                one(all).ok_or_else(missing)?
            }
            Way::Pattern(regex, figures) => {
                let matches = regex.captures_iter(text).map(|c| self.of_match(figures, &c));
                one(matches.collect::<Result<Vec<_>, _>>()?).ok_or_else(missing)?
            }
            Way::Torchrun(_) => Err(missing()),
        }
    }

    /// The sample of a line, where it tells of a step.
    ///
    /// # Errors
    /// A figure that is none.
    pub(crate) fn line(&self, line: &str) -> Result<Option<Sample>, String> {
        match &self.way {
            Way::Json(paths) => match serde_json::from_str(line.trim()) {
                Ok(document) => self.at_paths(paths, &document),
                Err(_) => unreadable(paths, line).map(|()| None),
            },
            Way::Pattern(regex, figures) => regex.captures(line).map(|c| self.of_match(figures, &c)).transpose(),
            Way::Torchrun(lines) => {
                let figures = lines.figures(line)?;
                figures.map(|f| Sample::of(&f, self.workload.tokens_per_step())).transpose()
            }
            Way::LlamaBench | Way::VllmThroughput => Ok(None),
        }
    }

    /// The sample at these paths; nothing where the document has no speed there.
    fn at_paths(&self, paths: &[(Figure, String, JsonPath)], document: &Value) -> Result<Option<Sample>, String> {
        let mut found = Vec::new();
        for (figure, text, path) in paths {
            match path.of(document) {
                None if figure.is_speed() => return Ok(None),
                // Not every line tells everything.
                None | Some(Value::Null) if !figure.is_speed() => {}
                value => {
                    let value = value.unwrap_or(&Value::Null);
                    let number = number(value).ok_or_else(|| format!("{text}: expected a number, found {value}"))?;
                    found.push((*figure, number));
                }
            }
        }
        Sample::of(&found, self.workload.tokens_per_step()).map(Some)
    }

    fn of_match(&self, figures: &[Figure], captures: &Captures) -> Result<Sample, String> {
        let mut found = Vec::new();
        for figure in figures {
            let Some(text) = captures.name(figure.name()).map(|m| m.as_str()) else { continue };
            let parsed = text.trim().replace(',', "").parse();
            found.push((
                *figure,
                parsed.map_err(|_| format!("{}: expected a number, found \"{text}\"", figure.name()))?,
            ));
        }
        Sample::of(&found, self.workload.tokens_per_step())
    }
}

/// Text that has the key of the speed and is no JSON, NaN in most cases, must not be passed over.
fn unreadable(paths: &[(Figure, String, JsonPath)], text: &str) -> Result<(), String> {
    let speed = paths.iter().find(|(f, ..)| f.is_speed());
    let key = speed.and_then(|(_, path, _)| path.rsplit(['.', '\'', '"']).find(|k| !k.is_empty() && !k.contains(']')));
    let suspicious = |line: &&str| line.contains('{') && key.is_some_and(|k| line.contains(&format!("\"{k}\"")));
    let Some(line) = text.lines().find(suspicious) else { return Ok(()) };
    match serde_json::from_str::<Value>(line.trim()) {
        Ok(_) => Ok(()),
        Err(e) => Err(format!("{} is no JSON ({e}); NaN and Infinity are none", shown(line))),
    }
}

/// A launch has one figure. `None`: it has none.
fn one(all: Vec<Sample>) -> Option<Result<Vec<Sample>, String>> {
    match all.len() {
        0 => None,
        1 => Some(Ok(all)),
        n => Some(Err(format!(
            "{n} figures in one launch, and each: launch expects one; use each: step for a figure a step"
        ))),
    }
}

#[cfg(test)]
#[path = "reader_tests.rs"]
mod tests;
