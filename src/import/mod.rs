//! What other tools measured, from the files that they write to a run of ours.
//!
//! [`read`] knows a file by what it holds, not by its name; each tool is a file here that says what of its figures is which of ours, and
//! where its conventions differ. [`run`] makes records of it: files of one configuration are its launches.

mod aiperf;
mod guidellm;
mod inference_perf;
mod inferencex;
mod llama_bench;
mod measured;
mod optimum;
pub(crate) mod run;
mod vllm;

pub(crate) use measured::Measured;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Largest file that is read.
const LARGEST: u64 = 256 << 20;

/// A tool's files.
struct Tool {
    name: &'static str,
    /// What of its conventions differs from ours.
    convention: &'static str,
    /// `None` where the document is not of this tool.
    read: fn(&Value) -> Option<Read>,
}

/// The measurements of a document, or what is wrong with it.
type Read = Result<Vec<Measured>, String>;

const TOOLS: &[Tool] = &[
    guidellm::TOOL,
    aiperf::TOOL,
    optimum::TOOL,
    inference_perf::TOOL,
    inferencex::TOOL,
    vllm::TOOL,
    llama_bench::TOOL,
];

/// What a file holds.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Imported {
    pub file: PathBuf,
    pub tool: &'static str,
    pub convention: &'static str,
    pub measured: Vec<Measured>,
}

/// Why a file cannot be imported.
#[derive(Debug, thiserror::Error)]
#[error("{file}: {message}")]
pub(crate) struct ImportError {
    pub file: PathBuf,
    pub message: String,
    /// Whether the system failed, not the file.
    pub system: bool,
}

/// Reads a file of any of the tools.
///
/// # Errors
/// A file that is not there or too large, is no text, no JSON, of no tool that is known, or without the figures that it should have.
pub(crate) fn read(file: &Path) -> Result<Imported, ImportError> {
    let fault = |message: String| ImportError { file: file.into(), message, system: false };
    let text = text(file)?;
    let documents = documents(&text).map_err(fault)?;
    for tool in TOOLS {
        let all: Vec<_> = documents.iter().filter_map(tool.read).collect();
        if all.is_empty() {
            continue;
        }
        if all.len() < documents.len() {
            return Err(fault(format!(
                "{} of {} documents in it are not of {}",
                documents.len() - all.len(),
                documents.len(),
                tool.name
            )));
        }
        let measured =
            all.into_iter().collect::<Result<Vec<_>, _>>().map_err(|m| fault(format!("{}: {m}", tool.name)))?;
        let measured: Vec<Measured> = measured.into_iter().flatten().collect();
        if measured.is_empty() {
            return Err(fault(format!("{}: it holds no measurement", tool.name)));
        }
        return Ok(Imported { file: file.into(), tool: tool.name, convention: tool.convention, measured });
    }
    let known: Vec<&str> = TOOLS.iter().map(|t| t.name).collect();
    Err(fault(format!("it is of none of the tools that are known: {}", known.join(", "))))
}

fn text(file: &Path) -> Result<String, ImportError> {
    let system = |e: std::io::Error| ImportError { file: file.into(), message: e.to_string(), system: true };
    let fault = |message: &str| ImportError { file: file.into(), message: message.into(), system: false };
    let facts = std::fs::metadata(file).map_err(system)?;
    if !facts.is_file() {
        return Err(fault("expected a file, found a folder or a device"));
    }
    if facts.len() > LARGEST {
        return Err(fault("it is larger than 256 MiB; leave the single requests out of it"));
    }
    let bytes = std::fs::read(file).map_err(system)?;
    String::from_utf8(bytes).map_err(|_| fault("expected text in UTF-8, found something else"))
}

/// One JSON document, one a line, or aiperf's CSV as such a document.
fn documents(text: &str) -> Result<Vec<Value>, String> {
    if text.trim().is_empty() {
        return Err("expected JSON, found an empty file".into());
    }
    if text.starts_with("Metric,") {
        return aiperf::of_csv(text).map(|d| vec![d]);
    }
    let whole = match serde_json::from_str(text) {
        Ok(Value::Array(rows)) => return Ok(rows),
        Ok(document) => return Ok(vec![document]),
        Err(e) => e,
    };
    let lines = text.lines().filter(|l| !l.trim().is_empty());
    // Of a broken document the first fault is the one to tell.
    lines.map(|l| serde_json::from_str(l).map_err(|_| format!("expected JSON: {whole}"))).collect()
}

#[cfg(test)]
#[path = "import_tests.rs"]
mod tests;
