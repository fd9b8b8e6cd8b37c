//! `centime verify --operations`: every operation of a backend against the oracle, and the table of what came out.

use super::super::Failure;
use super::super::table::{Format, Rows, Value};
use crate::transformer::operations::{Finding, Size};
use std::collections::BTreeMap;

/// Which findings have a row of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shown {
    /// The one nearest to its bound of each operation and the kernels that ran, and all that failed.
    Worst,
    Each,
}

/// Prints the findings of one backend; how many failed.
pub(super) fn print(findings: &[Finding], shown: Shown, format: Format) -> Result<usize, Failure> {
    rows(findings, shown).print(format)?;
    Ok(findings.iter().filter(|f| !f.passes()).count())
}

/// In the order of the list.
fn rows(findings: &[Finding], shown: Shown) -> Rows {
    let mut rows =
        Rows::new(&["operation", "kernels", "shapes", "compared", "worst", "error", "allowed", "share", "verdict"])
            .least(&["kernels", "compared", "shapes", "error", "allowed"]);
    let mut groups: Vec<(&Finding, Vec<&Finding>)> = Vec::new();
    let mut known: BTreeMap<(&str, &[String]), usize> = BTreeMap::new();
    for f in findings {
        let place = (shown == Shown::Worst && f.passes()).then(|| known.get(&(f.operation, f.kernels.as_slice())));
        match place.flatten() {
            Some(&at) => groups[at].1.push(f),
            None => {
                if f.passes() {
                    known.insert((f.operation, &f.kernels), groups.len());
                }
                groups.push((f, vec![f]));
            }
        }
    }
    for (_, group) in groups {
        rows.push(row(&group));
    }
    rows
}

fn row(group: &[&Finding]) -> Vec<Value> {
    let Some(worst) = group.iter().max_by(|a, b| a.worst.share().total_cmp(&b.worst.share())) else {
        return Vec::new();
    };
    let compared: usize = group.iter().map(|f| f.compared).sum();
    let w = worst.worst;
    let at = if w.apart > 0.0 { format!("{}: number {}", worst.shape, w.index) } else { worst.shape.clone() };
    let verdict = match &worst.failure {
        Some(failure) => format!("FAILED: {failure}"),
        None if worst.passes() => "ok".to_string(),
        None => format!("FAILED: {:e}, the oracle says {:e}", w.ours, w.oracle),
    };
    vec![
        worst.operation.to_string().into(),
        worst.kernels.join(" ").into(),
        (group.len().to_string(), group.len() as u64).into(),
        (compared.to_string(), compared as u64).into(),
        at.into(),
        number(w.apart),
        number(w.allowed),
        (format!("{:.3}", w.share()), w.share()).into(),
        verdict.into(),
    ]
}

fn number(x: f64) -> Value {
    (if x == 0.0 { "0".to_string() } else { format!("{x:.1e}") }, x).into()
}

/// The size by its name.
pub(super) fn size(name: &str) -> Result<Size, String> {
    match name {
        "small" => Ok(Size::Small),
        "full" => Ok(Size::Full),
        other => Err(format!("`{other}` is none of small, full")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transformer::operations::faulty_tests::Faulty;
    use crate::transformer::operations::{Selection, check};

    #[test]
    fn a_wrong_operation_is_named_in_the_table_and_fails() {
        let found = check(&Faulty("rope"), Selection { size: Size::Small, only: None }, 2);
        assert!(print(&found, Shown::Worst, Format::Csv).unwrap() > 0);
        let text = rows(&found, Shown::Worst).csv();
        let failed: Vec<&str> = text.lines().filter(|l| l.contains("FAILED")).collect();
        // It is wrong by itself, where steps are captured, and in what is composed of it.
        let knows = |l: &&str| ["rope,", "captured,", "norm_qkv_cached,"].iter().any(|name| l.starts_with(name));
        assert!(failed.iter().any(|l| l.starts_with("rope,")) && failed.iter().all(knows), "{text}");
        assert!(text.lines().any(|l| l.starts_with("linear,") && l.ends_with(",ok")), "{text}");
        assert_eq!(super::super::verdict(found.iter().filter(|f| !f.passes()).count()).unwrap_err().code(), 1);
        assert!(super::super::verdict(0).is_ok());
    }
}
