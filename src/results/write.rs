//! The table as files: `results.csv`, `results.parquet`, `results.json`.

use super::error::ResultsError;
use super::files::{replace, replace_text};
use super::record::SCHEMA_VERSION;
use super::table::{DataColumn, DataTable, Values};
use polars::prelude::{
    Column, CsvWriter, DataFrame, IntoColumn, IntoSeries, ListChunked, NamedFrom, ParquetReader, ParquetWriter,
    SerReader, SerWriter, Series,
};
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

/// Writes all three files; each is whole or the old one stays.
///
/// # Errors
/// Disk, permissions, columns of unequal length, or a file that reads back differently.
pub(crate) fn write(folder: &Path, table: &DataTable) -> Result<(), ResultsError> {
    write_parquet(&folder.join("results.parquet"), table)?;
    write_csv(&folder.join("results.csv"), table)?;
    write_json(&folder.join("results.json"), table)
}

fn frame(path: &Path, table: &DataTable, lists: bool) -> Result<DataFrame, ResultsError> {
    let columns: Vec<Column> = table.columns.iter().filter(|c| lists || !c.is_list()).map(series).collect();
    DataFrame::new_infer_height(columns)
        .map_err(|e| ResultsError::damaged(path, format!("the columns make no table: {e}")))
}

fn series(c: &DataColumn) -> Column {
    let name = c.name.as_str().into();
    match &c.values {
        Values::Text(v) => Series::new(name, v).into_column(),
        Values::Integer(v) => Series::new(name, v).into_column(),
        Values::Float(v) => Series::new(name, v).into_column(),
        Values::Flag(v) => Series::new(name, v).into_column(),
        Values::Floats(v) => {
            let rows = v.iter().map(|row| row.as_ref().map(|r| Series::new("".into(), r)));
            let list: ListChunked = rows.collect();
            list.with_name(name).into_series().into_column()
        }
    }
}

pub(super) fn write_parquet(path: &Path, table: &DataTable) -> Result<(), ResultsError> {
    let mut whole = frame(path, table, true)?;
    replace(
        path,
        |file| parquet_into(file, &mut whole, path),
        |beside| {
            let back = read_frame(beside)?;
            let same = back.shape() == frame(path, table, true)?.shape();
            if same { Ok(()) } else { Err(ResultsError::damaged(beside, "reads back differently than it was written")) }
        },
    )
}

fn parquet_into(file: &mut File, whole: &mut DataFrame, path: &Path) -> Result<(), ResultsError> {
    let mut writer = Remembering { file, failed: None };
    let written = ParquetWriter::new(&mut writer).finish(whole);
    match (writer.failed, written) {
        // What the library makes of a full disk is a fault of the format.
        (Some(e), _) => Err(ResultsError::io(path, "writing")(e)),
        (None, Err(e)) => Err(ResultsError::damaged(path, format!("writing: {e}"))),
        (None, Ok(_)) => Ok(()),
    }
}

/// A file that keeps the first error of the system.
struct Remembering<'a> {
    file: &'a mut File,
    failed: Option<io::Error>,
}

impl Remembering<'_> {
    fn remember<T>(&mut self, done: io::Result<T>) -> io::Result<T> {
        done.inspect_err(|e| {
            let same = e.raw_os_error().map_or_else(|| e.kind().into(), io::Error::from_raw_os_error);
            if e.kind() != io::ErrorKind::Interrupted {
                self.failed.get_or_insert(same);
            }
        })
    }
}

impl Write for Remembering<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let done = self.file.write(bytes);
        self.remember(done)
    }

    fn flush(&mut self) -> io::Result<()> {
        let done = self.file.flush();
        self.remember(done)
    }
}

fn read_frame(path: &Path) -> Result<DataFrame, ResultsError> {
    let file = File::open(path).map_err(ResultsError::io(path, "reading"))?;
    ParquetReader::new(file)
        .finish()
        .map_err(|e| ResultsError::damaged(path, format!("not a Parquet file of ours: {e}")))
}

/// Names of the columns, and rows, of a Parquet file.
///
/// # Errors
/// A file that is not there or is no Parquet.
pub fn parquet_shape(path: &Path) -> Result<(Vec<String>, usize), ResultsError> {
    let frame = read_frame(path)?;
    Ok((frame.get_column_names().iter().map(|n| n.to_string()).collect(), frame.height()))
}

/// Columns of text, and columns of numbers, of a Parquet file, in the order of their names.
pub(super) fn read_columns(path: &Path, texts: &[&str], numbers: &[&str]) -> Result<Columns, ResultsError> {
    let frame = read_frame(path)?;
    let fault = |name: &str| ResultsError::damaged(path, format!("it has no column `{name}` as a history has"));
    let column = |name: &str| frame.column(name).map_err(|_| fault(name));
    let mut found: Columns = (Vec::new(), Vec::new());
    for name in texts {
        let values = column(name)?.str().map_err(|_| fault(name))?;
        found.0.push(values.iter().map(|v| v.map(str::to_string)).collect());
    }
    for name in numbers {
        found.1.push(column(name)?.f64().map_err(|_| fault(name))?.iter().collect());
    }
    Ok(found)
}

/// Texts and numbers, a list a column.
pub(super) type Columns = (Vec<Vec<Option<String>>>, Vec<Vec<Option<f64>>>);

fn write_csv(path: &Path, table: &DataTable) -> Result<(), ResultsError> {
    replace_text(path, &csv_text(table)?)
}

/// The table as CSV: one header row, no lists, nothing that a spreadsheet would compute.
///
/// # Errors
/// Columns of unequal length.
pub(crate) fn csv_text(table: &DataTable) -> Result<String, ResultsError> {
    let path = Path::new("CSV");
    let harmless = DataTable { columns: table.columns.iter().map(DataColumn::harmless).collect() };
    let mut flat = frame(path, &harmless, false)?;
    let mut bytes = Vec::new();
    let written = CsvWriter::new(&mut bytes).include_header(true).finish(&mut flat);
    written.map_err(|e| ResultsError::damaged(path, format!("writing: {e}")))?;
    String::from_utf8(bytes).map_err(|e| ResultsError::damaged(path, e.to_string()))
}

fn write_json(path: &Path, table: &DataTable) -> Result<(), ResultsError> {
    replace_text(path, &json_text(table))
}

/// The table as JSON, raw samples included.
pub(crate) fn json_text(table: &DataTable) -> String {
    let rows: Vec<serde_json::Value> = (0..table.rows())
        .map(|r| serde_json::Value::Object(table.columns.iter().map(|c| (c.name.clone(), c.json(r))).collect()))
        .collect();
    let all = serde_json::json!({ "schema_version": SCHEMA_VERSION, "rows": rows });
    format!("{all:#}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn a_full_disk_is_called_a_full_disk() {
        let Ok(mut full) = File::options().write(true).open("/dev/full") else { return };
        let column = DataColumn { name: "a".into(), values: Values::Float(vec![Some(1.0); 10_000]) };
        let mut whole = frame(Path::new("t"), &DataTable { columns: vec![column] }, true).unwrap();
        let error = parquet_into(&mut full, &mut whole, Path::new("results.parquet")).unwrap_err();
        let ResultsError::Io { source, .. } = &error else { panic!("{error}") };
        assert_eq!(source.kind(), io::ErrorKind::StorageFull);
        assert!(error.to_string().starts_with("results.parquet: writing: "), "{error}");
    }
}
