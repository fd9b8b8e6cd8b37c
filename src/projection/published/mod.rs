//! Published measurements: rows of a table with a header, turned into configurations; a row that cannot be predicted says why.

mod case;
mod inference;
mod names;
mod row;
mod shapes;
mod training;
mod words;

pub(crate) use case::{Case, Counted, Group, Left, Published, Quantity, Setup};

use crate::hardware::book::Book;
use row::Row;

/// Why a table cannot be read.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub(crate) enum TableError {
    #[error("line {line}: {message}")]
    Csv { line: u64, message: String },
    #[error(
        "the columns are those of neither layout: training has `seq_len` and `micro_batch`, inference `engine` and `weight_bits`; \
         there are: {columns}"
    )]
    Layout { columns: String },
}

/// Reads a table of either layout.
///
/// # Errors
/// A line that is no CSV, or columns of another table.
pub(crate) fn read(text: &str, book: &Book) -> Result<Published, TableError> {
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
        inference::cases
    } else {
        return Err(TableError::Layout { columns: header.iter().collect::<Vec<_>>().join(", ") });
    };
    let mut all = Published::default();
    for (i, record) in reader.records().enumerate() {
        let record = record.map_err(fault)?;
        let row = Row::new(header.iter().zip(record.iter()).collect());
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
                all.cases.extend(cases.into_iter().map(|c| Case { id: id.clone(), source: source.clone(), ..c }));
            }
            Err(reason) => all.left.push(Left { id, source, reason }),
        }
    }
    Ok(all)
}
