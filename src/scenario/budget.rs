//! Budgets: what cells may cost and take. A file of its own beside the scenario, checked in with the code that it guards.

use crate::yaml::{Entry, Sources, Value, YamlError, entries, number, text};
use serde::Serialize;
use std::path::Path;

/// Limits for the cells whose names match.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Budget {
    /// `*` stands for anything: "d_model 256*", "*".
    pub cells: String,
    /// Most USD for a million tokens.
    pub usd_per_million_tokens: Option<f64>,
    /// Most bytes that the process may hold.
    pub peak_memory_bytes: Option<f64>,
    /// Longest median time to the first token, in seconds.
    pub ttft_seconds: Option<f64>,
    /// Longest median time of each further token, in seconds.
    pub tpot_seconds: Option<f64>,
    /// Most USD to the validation loss that a trial is to reach.
    pub usd_to_loss: Option<f64>,
    /// Highest validation loss at the end, in nats a token.
    pub validation_loss: Option<f64>,
}

const KEYS: &[&str] = &[
    "cells",
    "usd_per_million_tokens",
    "peak_memory_gib",
    "ttft_seconds",
    "tpot_seconds",
    "usd_to_loss",
    "validation_loss",
];
const GIB: f64 = 1_073_741_824.0;

/// Reads a budget file.
///
/// # Errors
/// What is wrong, where, and the remedy.
pub(crate) fn load(path: &Path) -> Result<Vec<Budget>, YamlError> {
    let mut s = Sources::default();
    let root = s.read(path, "give the path of a budget file")?;
    let mut version = false;
    let mut budgets = Vec::new();
    for e in entries("a budget file", Some(&root), &["version", "budgets"], &[], &s)? {
        if e.key == "version" {
            if e.node.value != Value::Integer(1) {
                return Err(s.fault(e.node.place, "version: this program reads version 1; write 1"));
            }
            version = true;
            continue;
        }
        let Value::List(list) = &e.node.value else {
            return Err(
                s.fault(e.node.place, "budgets: expected a list: - { cells: \"*\", usd_per_million_tokens: 0.01 }")
            );
        };
        for node in list {
            let mut budget = Budget {
                cells: "*".into(),
                usd_per_million_tokens: None,
                peak_memory_bytes: None,
                ttft_seconds: None,
                tpot_seconds: None,
                usd_to_loss: None,
                validation_loss: None,
            };
            for f in entries("a budget", Some(node), KEYS, &[], &s)? {
                set(&mut budget, f, &s)?;
            }
            if budget.limits().iter().all(|(_, limit)| limit.is_none()) {
                return Err(
                    s.fault(node.place, format!("a budget without a limit; give one of {}", KEYS[1..].join(", ")))
                );
            }
            budgets.push(budget);
        }
    }
    if !version {
        return Err(s.fault(root.place, "version: missing; begin the file with `version: 1`"));
    }
    Ok(budgets)
}

fn set(budget: &mut Budget, f: &Entry, s: &Sources) -> Result<(), YamlError> {
    let at = "budgets.";
    let limit = |wanted: &str| number(f, at, |x| x > 0.0 && x <= 1e12, wanted, s);
    match f.key.as_str() {
        "cells" => budget.cells = text(f, at, s)?,
        "usd_per_million_tokens" => budget.usd_per_million_tokens = Some(limit("USD above 0")?),
        "peak_memory_gib" => budget.peak_memory_bytes = Some(limit("GiB above 0")? * GIB),
        "ttft_seconds" => budget.ttft_seconds = Some(limit("seconds above 0")?),
        "usd_to_loss" => budget.usd_to_loss = Some(limit("USD above 0")?),
        "validation_loss" => budget.validation_loss = Some(limit("nats a token above 0")?),
        _ => budget.tpot_seconds = Some(limit("seconds above 0")?),
    }
    Ok(())
}

impl Budget {
    /// Every limit with its name.
    pub fn limits(&self) -> [(&'static str, Option<f64>); 6] {
        [
            ("usd_per_million_tokens", self.usd_per_million_tokens),
            ("peak_memory_bytes", self.peak_memory_bytes),
            ("ttft_seconds", self.ttft_seconds),
            ("tpot_seconds", self.tpot_seconds),
            ("usd_to_loss", self.usd_to_loss),
            ("validation_loss", self.validation_loss),
        ]
    }

    /// Whether a cell of this name is meant.
    pub fn concerns(&self, name: &str) -> bool {
        let mut rest = name;
        let parts: Vec<&str> = self.cells.split('*').collect();
        let [only] = parts.as_slice() else {
            for (i, part) in parts.iter().enumerate() {
                let at = match i {
                    0 => rest.starts_with(part).then_some(0),
                    i if i + 1 == parts.len() => {
                        return rest.ends_with(part);
                    }
                    _ => rest.find(part),
                };
                let Some(at) = at else { return false };
                rest = &rest[at + part.len()..];
            }
            return true;
        };
        *only == name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<Budget>, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("b.yaml");
        std::fs::write(&path, text).unwrap();
        load(&path).map_err(|e| e.to_string())
    }

    #[test]
    fn budgets_are_read_and_faults_pointed_at() {
        let b = read(
            "version: 1\nbudgets:\n  - { cells: \"batch 8*\", usd_per_million_tokens: 0.01, peak_memory_gib: 2 }\n",
        )
        .unwrap();
        assert_eq!((b[0].usd_per_million_tokens, b[0].peak_memory_bytes), (Some(0.01), Some(2.0 * GIB)));
        for (text, word) in [
            ("budgets: []\n", "version: missing"),
            ("version: 1\nbudgets:\n  - { cells: x }\n", "b.yaml:3:5: a budget without a limit"),
            ("version: 1\nbudgets:\n  - { usd_per_milion_tokens: 1 }\n", "did you mean `usd_per_million_tokens`?"),
            ("version: 1\nbudgets:\n  - { ttft_seconds: 0 }\n", "b.yaml:3:21"),
        ] {
            let said = read(text).unwrap_err();
            assert!(said.contains(word), "{said}");
        }
    }

    #[test]
    fn stars_stand_for_anything() {
        let concerns = |pattern: &str, name: &str| {
            Budget {
                cells: pattern.into(),
                usd_per_million_tokens: None,
                peak_memory_bytes: None,
                ttft_seconds: None,
                tpot_seconds: None,
                usd_to_loss: None,
                validation_loss: None,
            }
            .concerns(name)
        };
        assert!(concerns("*", "anything") && concerns("batch 8", "batch 8") && !concerns("batch 8", "batch 80"));
        assert!(concerns("batch 8*", "batch 80, d_model 2") && concerns("*d_model 2", "batch 8, d_model 2"));
        assert!(concerns("b*8*2", "batch 8, d_model 2") && !concerns("b*9*2", "batch 8, d_model 2"));
    }
}
