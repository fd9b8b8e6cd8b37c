//! Tables on stdout in the format that was asked for.

use super::Failure;
use super::stdout::{print, stdout_style};
use crate::report::fit::{Grid, draw};
use crate::report::{Style, wrapped};

/// How a table is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    Table,
    Json,
    Csv,
    Markdown,
}

/// The option that says so, the same for every command.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(super) struct Printed {
    /// How to print it: a table for people, the others whole and for programs.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub format: Format,
}

/// A cell: what a person reads, and the bare number where there is one.
#[derive(Clone, Debug)]
pub(super) struct Value {
    text: String,
    number: Option<serde_json::Number>,
}

impl Value {
    /// What a person reads, alone.
    pub(super) fn plain(self) -> Self {
        Self { number: None, ..self }
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self { text, number: None }
    }
}

impl From<(String, u64)> for Value {
    fn from((text, n): (String, u64)) -> Self {
        Self { text, number: Some(n.into()) }
    }
}

impl From<(String, f64)> for Value {
    fn from((text, x): (String, f64)) -> Self {
        Self { text, number: serde_json::Number::from_f64(x) }
    }
}

/// Rows under a heading.
#[derive(Debug)]
pub(super) struct Rows {
    heading: Vec<&'static str>,
    rows: Vec<Vec<Value>>,
    least: Vec<&'static str>,
}

impl Rows {
    /// No rows yet.
    pub(super) fn new(heading: &[&'static str]) -> Self {
        Self { heading: heading.to_vec(), rows: Vec::new(), least: Vec::new() }
    }

    /// One more row, as wide as the heading.
    pub(super) fn push(&mut self, row: Vec<Value>) {
        self.rows.push(row);
    }

    /// How many rows there are.
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Takes out those of the named columns that say the same in every row; what they say.
    pub(super) fn take_constant(&mut self, among: &[&str]) -> Vec<(&'static str, String)> {
        let mut taken = Vec::new();
        for name in among {
            let Some(at) = self.heading.iter().position(|h| h == name) else { continue };
            let Some(first) = self.rows.first().map(|r| r[at].text.clone()) else { continue };
            if self.rows.iter().all(|r| r[at].text == first) {
                taken.push((self.heading.remove(at), first));
                self.rows.iter_mut().for_each(|r| drop(r.remove(at)));
            }
        }
        taken
    }

    /// Columns that a narrow terminal does without, the least telling first.
    pub(super) fn least(mut self, names: &[&'static str]) -> Self {
        self.least = names.to_vec();
        self
    }

    /// Prints on stdout.
    ///
    /// # Errors
    /// When stdout is closed.
    pub(super) fn print(&self, format: Format) -> Result<(), Failure> {
        match format {
            Format::Table => print(&self.table(stdout_style())),
            Format::Json => print(&self.json()),
            Format::Csv => print(&self.csv()),
            Format::Markdown => print(&self.markdown()),
        }
    }

    /// For people: columns that are empty are left out, the unit stands with each value, and what has no room is named.
    fn table(&self, style: Style) -> String {
        let empty = |r: &Vec<Value>, c: usize| matches!(r[c].text.as_str(), "" | "0 B");
        let shown: Vec<usize> = (0..self.heading.len()).filter(|&c| !self.rows.iter().all(|r| empty(r, c))).collect();
        let at = |name: &&str| shown.iter().position(|&c| self.heading[c] == *name);
        let drawn = draw(
            &Grid {
                headings: shown.iter().map(|&c| label(self.heading[c])).collect(),
                numeric: shown.iter().map(|&c| self.rows.iter().any(|r| r[c].number.is_some())).collect(),
                rows: self.rows.iter().map(|r| shown.iter().map(|&c| r[c].text.clone()).collect()).collect(),
                bold: Vec::new(),
                least: self.least.iter().filter_map(at).collect(),
            },
            style.table_width(),
            style.colour,
        );
        if drawn.left_out.is_empty() {
            return drawn.table;
        }
        let text = format!("no room for: {}; a wider terminal or --format csv has them", drawn.left_out.join(", "));
        format!("{}\n{}", drawn.table, wrapped(&text, style, "  "))
    }

    fn json(&self) -> String {
        let object = |row: &Vec<Value>| {
            let pairs = self.heading.iter().zip(row).map(|(h, v)| {
                let value = v.number.clone().map_or_else(|| v.text.clone().into(), serde_json::Value::Number);
                ((*h).to_string(), value)
            });
            serde_json::Value::Object(pairs.collect())
        };
        let rows: Vec<_> = self.rows.iter().map(object).collect();
        format!("{:#}", serde_json::Value::Array(rows))
    }

    pub(super) fn csv(&self) -> String {
        let field = |v: &Value| match &v.number {
            Some(n) => n.to_string(),
            None => csv_text(&v.text),
        };
        let mut lines = vec![self.heading.join(",")];
        lines.extend(self.rows.iter().map(|r| r.iter().map(field).collect::<Vec<_>>().join(",")));
        lines.join("\n")
    }

    fn markdown(&self) -> String {
        let line = |cells: Vec<String>| format!("| {} |", cells.join(" | "));
        let mut lines = vec![
            line(self.heading.iter().map(|h| label(h)).collect()),
            line(self.heading.iter().map(|_| "---".to_string()).collect()),
        ];
        lines.extend(self.rows.iter().map(|r| line(r.iter().map(|v| v.text.replace('|', "\\|")).collect())));
        lines.join("\n")
    }
}

/// A column's name for people, whose values carry the unit.
pub(super) fn label(heading: &str) -> String {
    let bare = heading.strip_suffix("_bytes").or(heading.strip_suffix("_seconds")).unwrap_or(heading);
    bare.replace('_', " ")
}

/// Quoted where a comma, quote or line break is in it; a text that a spreadsheet would compute gets a leading apostrophe.
fn csv_text(text: &str) -> String {
    let text = if text.starts_with(['=', '+', '-', '@', '\t', '\r']) { format!("'{text}") } else { text.to_string() };
    if text.contains([',', '"', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
}
