//! A table of named columns: what is written to CSV, Parquet and JSON. Knows no metric and no money.

/// The cells of a column.
#[derive(Clone, Debug, PartialEq)]
pub enum Values {
    Text(Vec<Option<String>>),
    Integer(Vec<Option<i64>>),
    Float(Vec<Option<f64>>),
    Flag(Vec<Option<bool>>),
    /// Raw samples; a list column in Parquet and JSON, left out of CSV.
    Floats(Vec<Option<Vec<f64>>>),
}

/// One column.
#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    /// Unit in the name where it is not plain: `step_seconds_p50`.
    pub name: String,
    pub values: Values,
}

/// Columns of equal length with distinct names.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Table {
    pub columns: Vec<Column>,
}
