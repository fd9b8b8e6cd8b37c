//! One row of a table by its columns.

use std::collections::BTreeMap;

/// What rows are marked with that are not to be used.
const MARKS: &[&str] = &["DO NOT USE", "SUSPECT", "exclude"];

#[derive(Debug)]
pub(super) struct Row<'a>(BTreeMap<&'a str, &'a str>);

impl<'a> Row<'a> {
    pub(super) fn new(columns: BTreeMap<&'a str, &'a str>) -> Self {
        Self(columns)
    }

    pub(super) fn text(&self, column: &str) -> &str {
        self.0.get(column).copied().unwrap_or("").trim()
    }

    /// In lower case.
    pub(super) fn lower(&self, column: &str) -> String {
        self.text(column).to_lowercase()
    }

    /// A positive number; `None` where there is nothing or something else.
    pub(super) fn number(&self, column: &str) -> Option<f64> {
        self.text(column).parse().ok().filter(|n: &f64| n.is_finite() && *n > 0.0)
    }

    pub(super) fn need(&self, column: &str) -> Result<f64, String> {
        self.number(column).ok_or(format!("{column} is not given"))
    }

    /// Notes and remarks on completeness together, in lower case.
    pub(super) fn remarks(&self) -> String {
        format!("{}; {}", self.lower("complete"), self.lower("notes"))
    }

    /// The year of its date, the last one where there is a range.
    pub(super) fn year(&self) -> Option<f64> {
        let date = self.text("date");
        let last = date.rsplit("..").next().unwrap_or(date);
        let last = if last.len() == 9 && last.as_bytes().get(4) == Some(&b'-') { &last[5..] } else { last };
        last.get(..4).and_then(|y| y.parse().ok())
    }

    /// The same with its month, where one is given.
    pub(super) fn time(&self) -> Option<f64> {
        let month =
            self.text("date").get(5..7).and_then(|m| m.parse::<f64>().ok()).filter(|m| (1.0..=12.0).contains(m));
        Some(self.year()? + month.map_or(0.5, |m| (m - 0.5) / 12.0))
    }

    /// Whether the row itself warns of its use.
    pub(super) fn warning(&self) -> Option<String> {
        let all = [self.text("complete"), self.text("notes")];
        let found = all.iter().find(|t| MARKS.iter().any(|w| t.contains(w)))?;
        // The words of the warning, not all that stands before them.
        let from = MARKS.iter().filter_map(|w| found.find(w)).min().unwrap_or(0);
        Some(format!("marked in its own notes: {}", found[from..].chars().take(60).collect::<String>()))
    }
}
