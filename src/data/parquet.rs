//! A column of texts out of a Parquet file, by polars. Here and not in `results`, which is a floor of its own far above: the two have
//! no line in common.

use super::DataError;
use polars::prelude::{ParquetReader, SerReader};
use std::fs::File;
use std::path::Path;

/// The texts of a column, a row each.
///
/// # Errors
/// A file that is no Parquet, or has no such column, or another type in it; a row without a text.
pub(super) fn column(path: &Path, name: &str) -> Result<Vec<String>, DataError> {
    let damaged = |e: polars::prelude::PolarsError| {
        DataError::at(
            path.display(),
            format!("expected a Parquet file, found what is none: {e}; fetch or write it again"),
        )
    };
    let open = || File::open(path).map_err(DataError::io(path, "opening"));
    let mut reader = ParquetReader::new(open()?);
    let schema = reader.schema().map_err(damaged)?;
    if schema.get(name).is_none() {
        let names: Vec<&str> = schema.iter_names().map(|n| n.as_str()).collect();
        let names = if names.is_empty() { "none".into() } else { names.join(", ") };
        let message =
            format!("expected a column `{name}`, found {names}; name the column that holds the texts (column: NAME)");
        return Err(DataError::at(path.display(), message));
    }
    let frame = ParquetReader::new(open()?).with_columns(Some(vec![name.to_string()])).finish().map_err(damaged)?;
    let column = frame.column(name).map_err(damaged)?;
    let texts = column.str().map_err(|_| {
        let message =
            format!("expected texts in column `{name}`, found {}; name another (column: NAME)", column.dtype());
        DataError::at(path.display(), message)
    })?;
    let row = |(i, text): (usize, Option<&str>)| {
        let message = format!("expected a text in column `{name}`, found null in row {}; take the row out", i + 1);
        text.map(str::to_string).ok_or_else(|| DataError::at(path.display(), message))
    };
    texts.iter().enumerate().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use polars::prelude::IntoColumn;
    use polars::prelude::{Column, DataFrame, NamedFrom, ParquetWriter, Series};

    fn file(columns: Vec<Column>) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::with_suffix(".parquet").unwrap();
        let mut frame = DataFrame::new_infer_height(columns).unwrap();
        ParquetWriter::new(file.reopen().unwrap()).finish(&mut frame).unwrap();
        file
    }

    #[test]
    fn a_column_of_texts_is_read_and_everything_else_is_told_apart() {
        let number = Series::new("n".into(), [1i64, 2]).into_column();
        let text = Series::new("text".into(), ["one", "zwei ä"]).into_column();
        let written = file(vec![number.clone(), text]);
        assert_eq!(column(written.path(), "text").unwrap(), ["one", "zwei ä"]);
        let said = column(written.path(), "body").unwrap_err().to_string();
        assert!(said.contains("expected a column `body`, found n, text; name the column"), "{said}");
        assert!(
            column(written.path(), "n").unwrap_err().to_string().contains("expected texts in column `n`, found i64")
        );
        let holes = file(vec![number, Series::new("text".into(), [Some("one"), None]).into_column()]);
        assert!(column(holes.path(), "text").unwrap_err().to_string().contains("found null in row 2"));
        std::fs::write(written.path(), "not one").unwrap();
        assert!(column(written.path(), "text").unwrap_err().to_string().contains("expected a Parquet file"));
    }
}
