//! What is wrong with a scenario: what, where, and the remedy.

use super::node::Place;
use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};
use std::fmt;
use std::path::{Path, PathBuf};

/// Where a fault stands.
#[derive(Clone, Debug, PartialEq)]
pub enum Origin {
    /// In a file, at a place that may be unknown (a key that is missing).
    File { path: PathBuf, place: Option<Place> },
    /// In an option of the command line, as typed: `--set batch=0`.
    CommandLine(String),
}

/// A scenario that cannot be used.
#[derive(Debug)]
pub struct ScenarioError {
    pub origin: Origin,
    /// What is wrong and what to do about it; begins with the field where there is one.
    pub message: String,
    /// The file could not be read for a reason other than its absence.
    pub io: bool,
    source: Option<String>,
}

impl ScenarioError {
    /// A fault at a place of a file or in an option; `source` is the file's text, for the excerpt.
    pub fn new(origin: Origin, message: impl Into<String>, source: Option<&str>) -> Self {
        Self { origin, message: message.into(), io: false, source: source.map(str::to_string) }
    }

    /// A file that is not there or cannot be read.
    pub fn unreadable(path: &Path, e: &std::io::Error) -> Self {
        let missing = e.kind() == std::io::ErrorKind::NotFound;
        let message = if missing {
            "no such file; `centime init` writes one to start from".to_string()
        } else {
            format!("cannot be read: {e}")
        };
        Self { origin: Origin::File { path: path.into(), place: None }, message, io: !missing, source: None }
    }

    /// The message in one line, `path:line:column: message`, and below it the line at fault.
    pub fn render(&self, colour: bool) -> String {
        let mut text = self.to_string();
        if let (Origin::File { path, place: Some(place) }, Some(source)) = (&self.origin, &self.source)
            && let Some(excerpt) = excerpt(path, *place, source, colour)
        {
            text.push('\n');
            text.push_str(&excerpt);
        }
        text
    }
}

fn excerpt(path: &Path, place: Place, source: &str, colour: bool) -> Option<String> {
    let line_start: usize = source.split_inclusive('\n').take(place.line as usize - 1).map(str::len).sum();
    let line = source[line_start..].lines().next()?;
    let skip: usize = line.chars().take(place.column as usize - 1).map(char::len_utf8).sum();
    let rest = &line[skip..];
    let width = rest.find([' ', ',', ':', '}', ']', '#']).unwrap_or(rest.len()).max(1);
    let from = line_start + skip;
    let to = (from + width).min(source.len());
    let path = path.display().to_string();
    let snippet =
        Snippet::source(source).path(path.as_str()).annotation(AnnotationKind::Primary.span(from.min(to)..to));
    let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
    let drawn = renderer.render(&[Level::ERROR.primary_title("here").element(snippet)]);
    // The renderer's own title says nothing that the message has not said.
    Some(drawn.lines().skip(1).collect::<Vec<_>>().join("\n"))
}

impl fmt::Display for ScenarioError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            Origin::File { path, place: Some(p) } => {
                write!(f, "{}:{}:{}: {}", path.display(), p.line, p.column, self.message)
            }
            Origin::File { path, place: None } => write!(f, "{}: {}", path.display(), self.message),
            Origin::CommandLine(option) => write!(f, "{option}: {}", self.message),
        }
    }
}

impl std::error::Error for ScenarioError {}

/// "; did you mean `x`?" for the nearest of the names, or the whole list where none is near.
pub fn did_you_mean<'a>(wrong: &str, names: impl Iterator<Item = &'a str> + Clone) -> String {
    let nearest = names
        .clone()
        .map(|n| {
            (strsim::jaro_winkler(wrong, n.rsplit('.').next().unwrap_or(n)).max(strsim::jaro_winkler(wrong, n)), n)
        })
        .filter(|(score, _)| *score > 0.75)
        .max_by(|a, b| a.0.total_cmp(&b.0));
    match nearest {
        Some((_, name)) => format!("did you mean `{name}`?"),
        None => format!("known are {}", names.collect::<Vec<_>>().join(", ")),
    }
}
