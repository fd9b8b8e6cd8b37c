//! Runs as others publish them: a CSV with a header and columns for parameters, tokens and loss; USD where there are any.

use super::Point;

/// Why a table cannot be read.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub(crate) enum TableError {
    #[error("line {line}: {message}")]
    Csv { line: u64, message: String },
    #[error("expected a column `{expected}` in the first line, found: {found}")]
    Column { expected: &'static str, found: String },
    #[error("line {line}: {column}: expected a number over 0, found `{found}`")]
    Number { line: u64, column: String, found: String },
}

/// Names that a column may have, ours first.
const PARAMETERS: &[&str] = &["parameters", "params", "n"];
const TOKENS: &[&str] = &["tokens", "training_tokens", "d"];
const LOSS: &[&str] = &["loss", "validation_loss", "l"];
const USD: &[&str] = &["usd", "training_usd"];

/// The runs of a table. Columns that are not asked for are passed over.
///
/// # Errors
/// A line that is no CSV, a column that is not there, a number that is none.
pub(crate) fn read(text: &str) -> Result<Vec<Point>, TableError> {
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).comment(Some(b'#')).from_reader(text.as_bytes());
    let fault = |e: csv::Error| {
        let line = e.position().map_or(1, csv::Position::line);
        TableError::Csv { line, message: e.to_string() }
    };
    let header = reader.headers().map_err(fault)?.clone();
    let place = |names: &[&str]| header.iter().position(|h| names.contains(&h.to_lowercase().as_str()));
    let needed = |names: &[&'static str]| {
        let found = || header.iter().collect::<Vec<_>>().join(", ");
        place(names).ok_or_else(|| TableError::Column { expected: names[0], found: found() })
    };
    let (parameters, tokens, loss, usd) = (needed(PARAMETERS)?, needed(TOKENS)?, needed(LOSS)?, place(USD));
    let mut points = Vec::new();
    for record in reader.records() {
        let record = record.map_err(fault)?;
        let line = record.position().map_or(0, csv::Position::line);
        let number = |at: usize| {
            let found = record.get(at).unwrap_or("");
            let sound = |x: &f64| x.is_finite() && *x > 0.0;
            found.parse().ok().filter(sound).ok_or_else(|| TableError::Number {
                line,
                column: header.get(at).unwrap_or("").into(),
                found: found.into(),
            })
        };
        points.push(Point {
            parameters: number(parameters)?,
            tokens: number(tokens)?,
            loss: number(loss)?,
            // Of some runs only it may be known what they cost.
            usd: usd.filter(|at| record.get(*at).is_some_and(|t| !t.is_empty())).map(number).transpose()?,
        });
    }
    Ok(points)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_found_by_their_names() {
        let text = "# from somewhere\nrun, D, Params, usd, loss\na, 2e9, 1000000, 0.5, 3.5\nb, 4e9, 2000000, , 3.25\n";
        let points = read(text).unwrap();
        assert_eq!(points[0], Point { parameters: 1e6, tokens: 2e9, loss: 3.5, usd: Some(0.5) });
        assert_eq!((points[1].usd, points.len()), (None, 2));
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        let of = |text: &str| read(text).unwrap_err().to_string();
        assert_eq!(of("a,b\n1,2\n"), "expected a column `parameters` in the first line, found: a, b");
        assert_eq!(
            of("parameters,tokens,loss\n1,2,3\n1,-2,3\n"),
            "line 3: tokens: expected a number over 0, found `-2`"
        );
        assert!(of("parameters,tokens,loss\n1,2\n").starts_with("line 2: "));
        assert!(of("parameters,tokens,loss\n1,2,NaN\n").contains("found `NaN`"));
    }
}
