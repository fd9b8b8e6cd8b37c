//! JUnit XML: a test case for each cell and each budget.

use super::comment::{budget, headline};
use super::percent;
use crate::comparison::check::Check;
use crate::comparison::judge::Verdict;
use crate::report::escape::html as text;
use std::fmt::Write;

/// A suite: regressions and exceeded budgets are failures, cells that could not be measured errors, inconclusive ones skipped.
pub fn junit(check: &Check) -> String {
    let failures = check.counted(Verdict::Regression) + check.over_budget();
    let skipped = check.counted(Verdict::Inconclusive);
    let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    // Writing to a string cannot fail.
    let _ = writeln!(
        out,
        "<testsuites>\n<testsuite name=\"centime check {}\" tests=\"{}\" failures=\"{failures}\" errors=\"{}\" skipped=\"{skipped}\">",
        text(&check.scenario),
        check.cells.len() + check.budgets.len(),
        check.failed()
    );
    for c in &check.cells {
        let j = &c.judged;
        let change = j.ratio.map_or("n/a".into(), percent);
        let _ = write!(out, "<testcase classname=\"{}\" name=\"{}\">", text(&check.scenario), text(&c.name));
        let _ = match (&c.failure, j.verdict) {
            (Some(why), _) => write!(out, "<error message=\"{}\"/>", text(why)),
            (None, Verdict::Regression) => {
                write!(out, "<failure message=\"tokens got dearer by {} after {} pairs\"/>", text(&change), j.pairs)
            }
            (None, Verdict::Inconclusive) => {
                write!(out, "<skipped message=\"inconclusive after {} pairs: {}\"/>", j.pairs, text(&change))
            }
            (None, Verdict::Pass) => Ok(()),
        };
        out.push_str("</testcase>\n");
    }
    for b in &check.budgets {
        let _ = write!(out, "<testcase classname=\"budget\" name=\"{} {}\">", text(&b.cell), b.limit);
        if b.headroom < 0.0 {
            let _ = write!(out, "<failure message=\"{}\"/>", text(&budget(b)));
        }
        out.push_str("</testcase>\n");
    }
    let _ = write!(out, "<system-out>{}</system-out>\n</testsuite>\n</testsuites>\n", text(&headline(check)));
    out
}
