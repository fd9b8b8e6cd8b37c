//! Published measurements: rows of a table with a header, turned into configurations; a row that cannot be predicted says why.

use super::device::Unit;
use super::published_serving as serving;
use super::published_training as training;
use super::serving::Serving;
use super::training::Training;
use crate::hardware::book::Book;
use std::collections::BTreeMap;

/// What was published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Quantity {
    TrainingTokens,
    PrefillTokens,
    DecodeTokens,
    ServedTokens,
    TrainingMemory,
    ServingMemory,
}

impl Quantity {
    pub const ALL: [Self; 6] = [
        Self::TrainingTokens,
        Self::PrefillTokens,
        Self::DecodeTokens,
        Self::ServedTokens,
        Self::TrainingMemory,
        Self::ServingMemory,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::TrainingTokens => "training",
            Self::PrefillTokens => "prefill",
            Self::DecodeTokens => "decode",
            Self::ServedTokens => "serving",
            Self::TrainingMemory => "training memory",
            Self::ServingMemory => "inference memory",
        }
    }

    /// As a heading, and as an anchor.
    pub fn title(self) -> &'static str {
        match self {
            Self::TrainingTokens => "Training",
            Self::PrefillTokens => "Prefill",
            Self::DecodeTokens => "Decode",
            Self::ServedTokens => "Serving",
            Self::TrainingMemory => "Memory in training",
            Self::ServingMemory => "Memory in inference",
        }
    }

    pub fn anchor(self) -> &'static str {
        match self {
            Self::TrainingTokens => "training",
            Self::PrefillTokens => "prefill",
            Self::DecodeTokens => "decode",
            Self::ServedTokens => "serving",
            Self::TrainingMemory => "training-memory",
            Self::ServingMemory => "inference-memory",
        }
    }

    pub fn unit(self) -> &'static str {
        if self.is_memory() { "GB/device" } else { "tokens/s" }
    }

    pub fn is_memory(self) -> bool {
        matches!(self, Self::TrainingMemory | Self::ServingMemory)
    }
}

/// A configuration to predict.
#[derive(Clone, Debug, PartialEq)]
pub enum Setup {
    Training(Box<Training>),
    /// Where the layout was not given: the fastest of these that fits.
    Choice(Vec<Training>),
    Serving {
        serving: Box<Serving>,
        prompt: f64,
        output: f64,
        batch: Option<f64>,
    },
}

/// One published figure.
#[derive(Clone, Debug, PartialEq)]
pub struct Case {
    pub id: String,
    pub source: String,
    pub what: String,
    pub quantity: Quantity,
    pub published: f64,
    pub setup: Setup,
    /// What the row does not say and was filled in.
    pub assumed: Vec<&'static str>,
}

/// A row without a prediction.
#[derive(Clone, Debug, PartialEq)]
pub struct Left {
    pub id: String,
    pub source: String,
    pub reason: String,
}

/// A table, read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Published {
    pub cases: Vec<Case>,
    pub left: Vec<Left>,
}

/// Why a table cannot be read.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum TableError {
    #[error("line {line}: {message}")]
    Csv { line: u64, message: String },
    #[error(
        "the columns are those of neither layout: training has `seq_len` and `micro_batch`, inference `engine` and `weight_bits`; \
         there are: {columns}"
    )]
    Layout { columns: String },
}

/// What rows are marked with that are not to be used.
const MARKS: &[&str] = &["DO NOT USE", "SUSPECT", "exclude"];

/// One row by its columns.
#[derive(Debug)]
pub struct Row<'a>(BTreeMap<&'a str, &'a str>);

impl Row<'_> {
    pub fn text(&self, column: &str) -> &str {
        self.0.get(column).copied().unwrap_or("").trim()
    }

    /// A positive number; `None` where there is nothing or something else.
    pub fn number(&self, column: &str) -> Option<f64> {
        self.text(column).parse().ok().filter(|n: &f64| n.is_finite() && *n > 0.0)
    }

    pub fn need(&self, column: &str) -> Result<f64, String> {
        self.number(column).ok_or(format!("{column} is not given"))
    }

    /// Whether the row itself warns of its use.
    pub fn warning(&self) -> Option<String> {
        let complete = self.text("complete");
        let all = [complete, self.text("notes")];
        let found = all.iter().find(|t| MARKS.iter().any(|w| t.contains(w)))?;
        // The words of the warning, not all that stands before them.
        let from = MARKS.iter().filter_map(|w| found.find(w)).min().unwrap_or(0);
        Some(format!("marked in its own notes: {}", found[from..].chars().take(60).collect::<String>()))
    }

    /// The device as the catalog knows it.
    pub fn device(&self, book: &Book) -> Result<Unit, String> {
        let name = self.text("hardware");
        let plain = name.trim_start_matches("Apple ").replace(['(', ')'], "");
        let found = book.device(name).or_else(|| book.device(plain.trim()));
        let device = found.ok_or_else(|| format!("hardware `{name}` is not in the catalog"))?;
        Unit::of(device).map_err(|e| e.to_string())
    }

    /// Layers, widths, heads, vocabulary.
    pub fn sizes(&self, columns: [&str; 7]) -> Result<[f64; 7], String> {
        let [layers, d_model, heads, kv, head_dim, d_ff, vocab] = columns;
        let no_shape = |_| "the model's shape is not given".to_string();
        let (l, d, h) = (
            self.need(layers).map_err(no_shape)?,
            self.need(d_model).map_err(no_shape)?,
            self.need(heads).map_err(no_shape)?,
        );
        let own = |column: &str, otherwise: f64| self.number(column).unwrap_or(otherwise);
        Ok([l, d, h, own(kv, h), own(head_dim, d / h), own(d_ff, 4.0 * d), own(vocab, 50257.0)])
    }
}

/// Reads a table of either layout.
///
/// # Errors
/// A line that is no CSV, or columns of another table.
pub fn read(text: &str, book: &Book) -> Result<Published, TableError> {
    let mut reader = csv::ReaderBuilder::new().flexible(false).from_reader(text.as_bytes());
    let fault = |e: csv::Error| {
        let line = e.position().map_or(1, csv::Position::line);
        TableError::Csv { line, message: e.to_string() }
    };
    let header = reader.headers().map_err(fault)?.clone();
    let has = |names: &[&str]| names.iter().all(|n| header.iter().any(|h| h == *n));
    let one = if has(&["seq_len", "micro_batch"]) {
        training::cases
    } else if has(&["engine", "weight_bits"]) {
        serving::cases
    } else {
        return Err(TableError::Layout { columns: header.iter().collect::<Vec<_>>().join(", ") });
    };
    let mut all = Published::default();
    for (i, record) in reader.records().enumerate() {
        let record = record.map_err(fault)?;
        let row = Row(header.iter().zip(record.iter()).collect());
        let id = match row.text("id") {
            "" => format!("row {}", i + 1),
            id => id.to_string(),
        };
        let source = match (row.text("source_key"), row.text("source")) {
            ("", "") => "unnamed".to_string(),
            ("", s) | (s, _) => s.to_string(),
        };
        match row.warning().map_or_else(|| one(&row, book), Err) {
            Ok(cases) => {
                all.cases.extend(cases.into_iter().map(|c| Case { id: id.clone(), source: source.clone(), ..c }))
            }
            Err(reason) => all.left.push(Left { id, source, reason }),
        }
    }
    Ok(all)
}
