//! A table of named columns: what is written to CSV, Parquet and JSON. Knows no metric and no money.

/// The cells of a column.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Values {
    Text(Vec<Option<String>>),
    Integer(Vec<Option<i64>>),
    Float(Vec<Option<f64>>),
    Flag(Vec<Option<bool>>),
    /// Raw samples; a list column in Parquet and JSON, left out of CSV.
    Floats(Vec<Option<Vec<f64>>>),
}

/// One column.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct DataColumn {
    /// Unit in the name where it is not plain: `step_seconds_p50`.
    pub name: String,
    pub values: Values,
}

/// Columns of equal length with distinct names.
#[derive(Clone, Debug, PartialEq, Default)]
pub(crate) struct DataTable {
    pub columns: Vec<DataColumn>,
}

impl DataTable {
    /// Rows of the longest column (all are equally long in a table that can be written).
    pub(crate) fn rows(&self) -> usize {
        self.columns.iter().map(DataColumn::len).max().unwrap_or(0)
    }
}

impl DataColumn {
    /// Rows.
    pub(crate) fn len(&self) -> usize {
        match &self.values {
            Values::Text(v) => v.len(),
            Values::Integer(v) => v.len(),
            Values::Float(v) => v.len(),
            Values::Flag(v) => v.len(),
            Values::Floats(v) => v.len(),
        }
    }

    pub(super) fn is_list(&self) -> bool {
        matches!(self.values, Values::Floats(_))
    }

    /// The value of a row as JSON; what is missing is null.
    pub(super) fn json(&self, row: usize) -> serde_json::Value {
        match &self.values {
            Values::Text(v) => serde_json::json!(v.get(row)),
            Values::Integer(v) => serde_json::json!(v.get(row)),
            Values::Float(v) => serde_json::json!(v.get(row)),
            Values::Flag(v) => serde_json::json!(v.get(row)),
            Values::Floats(v) => serde_json::json!(v.get(row)),
        }
    }

    /// Text that a spreadsheet would compute gets a leading apostrophe; control characters become spaces.
    pub(super) fn harmless(&self) -> Self {
        let mend = |text: &String| {
            let computed = text.starts_with(['=', '+', '-', '@', '\t', '\r', '\n']);
            let clean: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
            if computed { format!("'{clean}") } else { clean }
        };
        match &self.values {
            Values::Text(v) => {
                let values = v.iter().map(|t| t.as_ref().map(mend)).collect();
                Self { name: self.name.clone(), values: Values::Text(values) }
            }
            _ => self.clone(),
        }
    }
}
