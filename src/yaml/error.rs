//! What is wrong with a file: what, where, and the remedy.

use super::node::Place;
use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};
use std::fmt;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Where a fault stands.
#[derive(Clone, Debug, PartialEq)]
pub enum Origin {
    /// In a file, at a place that may be unknown (a key that is missing).
    File { path: PathBuf, place: Option<Place> },
    /// In an option of the command line, as typed: `--set batch=0`.
    CommandLine(String),
}

/// A configuration that cannot be used.
#[derive(Debug)]
pub struct YamlError {
    /// Where.
    pub origin: Origin,
    /// What is wrong and what to do about it; begins with the field where there is one.
    pub message: String,
    /// The system failed to read a file that is there.
    pub io: bool,
    source: Option<String>,
}

impl YamlError {
    /// A fault at a place of a file or in an option; `source` is the file's text, for the excerpt.
    pub fn new(origin: Origin, message: impl Into<String>, source: Option<&str>) -> Self {
        Self { origin, message: visible(&message.into()), io: false, source: source.map(str::to_string) }
    }

    /// A file that is not there or cannot be read.
    pub fn unreadable(path: &Path, e: &std::io::Error, remedy: &str) -> Self {
        let (message, io) = match e.kind() {
            ErrorKind::NotFound => (format!("no such file; {remedy}"), true),
            ErrorKind::FileTooLarge => (format!("{e}, and a configuration may not be; split it"), false),
            _ => (format!("cannot be read: {e}; give a readable file"), true),
        };
        Self { origin: Origin::File { path: path.into(), place: None }, message, io, source: None }
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

/// Longest stretch that an excerpt underlines.
const MAX_MARKED: usize = 40;
/// Longest message; a value of a megabyte is not repeated in full.
const MAX_MESSAGE: usize = 600;

/// Control characters and those that turn the direction of text, from a file somebody else wrote, are shown and not obeyed.
fn visible(message: &str) -> String {
    let hidden = |c: char| {
        c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let mut out = String::with_capacity(message.len().min(MAX_MESSAGE));
    for (i, c) in message.chars().enumerate() {
        if i == MAX_MESSAGE {
            out.push_str(" ...");
            break;
        }
        if hidden(c) { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out
}

fn excerpt(path: &Path, place: Place, source: &str, colour: bool) -> Option<String> {
    let above = place.line.saturating_sub(1) as usize;
    let line_start: usize = source.split_inclusive('\n').take(above).map(str::len).sum();
    let line = source[line_start..].lines().next()?;
    let before = place.column.saturating_sub(1) as usize;
    let skip: usize = line.chars().take(before).map(char::len_utf8).sum();
    let rest = &line[skip..];
    let end = rest.find([' ', ',', ':', '}', ']', '#']).unwrap_or(rest.len());
    let width: usize = rest[..end].chars().take(MAX_MARKED).map(char::len_utf8).sum();
    let from = line_start + skip;
    let to = (from + width.max(1)).min(source.len());
    let path = path.display().to_string();
    let snippet =
        Snippet::source(source).path(path.as_str()).annotation(AnnotationKind::Primary.span(from.min(to)..to));
    let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
    let drawn = renderer.render(&[Level::ERROR.primary_title("here").element(snippet)]);
    // The renderer's own title says nothing that the message has not said.
    Some(drawn.lines().skip(1).collect::<Vec<_>>().join("\n"))
}

impl fmt::Display for YamlError {
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

impl std::error::Error for YamlError {}

/// "did you mean `x`?" for the nearest of `names` and `aliases`, or the list of the names where none is near.
pub(crate) fn did_you_mean<'a>(
    wrong: &str,
    names: impl Iterator<Item = &'a str> + Clone,
    aliases: impl Iterator<Item = &'a str>,
) -> String {
    let likeness = |name: &str| {
        let last = name.rsplit('.').next().unwrap_or(name);
        strsim::jaro_winkler(wrong, last).max(strsim::jaro_winkler(wrong, name))
    };
    let all = names.clone().chain(aliases).map(|n| (likeness(n), n));
    // Of names equally near the first is taken, so that a path goes before its aliases.
    let nearest = all.filter(|(l, _)| *l > 0.75).fold(None, |best: Option<(f64, &str)>, n| match best {
        Some(b) if b.0 >= n.0 => Some(b),
        _ => Some(n),
    });
    match nearest {
        Some((_, name)) => format!("did you mean `{name}`?"),
        None => match names.collect::<Vec<_>>().as_slice() {
            [] => "there is none".into(),
            known => format!("known are {}", known.join(", ")),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hint(wrong: &str) -> String {
        did_you_mean(wrong, ["batch", "model.d_model"].into_iter(), ["hidden_size"].into_iter())
    }

    #[test]
    fn the_nearest_name_is_offered_and_otherwise_all_of_them() {
        assert_eq!(hint("bacth"), "did you mean `batch`?");
        assert_eq!(hint("d_modle"), "did you mean `model.d_model`?");
        assert_eq!(hint("hiden_size"), "did you mean `hidden_size`?");
        assert_eq!(hint("zzz"), "known are batch, model.d_model");
    }

    #[test]
    fn what_a_terminal_would_obey_is_shown_instead() {
        assert_eq!(visible("a\u{1b}[31mb\u{202e}c\n"), "a\\u{1b}[31mb\\u{202e}c\\n");
        assert_eq!(visible(&"x".repeat(10_000)).len(), MAX_MESSAGE + 4);
    }

    #[test]
    fn places_beyond_the_text_draw_nothing_and_do_not_fail() {
        for (line, column) in [(1, 1), (1, 99), (9, 9), (u32::MAX, u32::MAX)] {
            let place = Place { source: 0, line, column };
            let origin = Origin::File { path: "s.yaml".into(), place: Some(place) };
            let error = YamlError::new(origin, "wrong", Some("a: ü\r\n"));
            assert!(error.render(false).starts_with(&format!("s.yaml:{line}:{column}: wrong")));
        }
    }
}
