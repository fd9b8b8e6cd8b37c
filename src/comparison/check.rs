//! What a check found: cells with their verdicts, exact findings, budgets, guards, and the verdict on the whole. Pure.

use super::judge::{Judged, Verdict};
use crate::scenario::budget::Budget;
use serde::Serialize;

/// One side's figures of a cell: medians over its launches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Side {
    /// Tokens of all devices together, per second.
    pub tokens_per_second: Option<f64>,
    /// USD for a million tokens; `None` without a price.
    pub usd_per_million_tokens: Option<f64>,
    /// The most that its process held, in bytes.
    pub peak_memory_bytes: Option<f64>,
    /// Median time to the first token, in seconds.
    pub ttft_seconds: Option<f64>,
    /// Median time of each further token, in seconds.
    pub tpot_seconds: Option<f64>,
    /// USD to the validation loss that the trial is to reach, of launches that reached it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usd_to_loss: Option<f64>,
    /// Validation loss at the end, in nats a token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub validation_loss: Option<f64>,
}

/// A cell.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CheckedCell {
    /// [`crate::scenario::trial::Trial::id`].
    pub trial_id: String,
    /// As tables show it.
    pub name: String,
    /// The program before.
    pub base: Side,
    /// The program now.
    pub head: Side,
    /// What the pairs say.
    pub judged: Judged,
    /// What is exactly different: FLOPs, tokens, allocated bytes, the output's checksum.
    pub findings: Vec<String>,
    /// Why it could not be measured, where it could not.
    pub failure: Option<String>,
}

/// A limit and how far a cell is from it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Kept {
    pub cell: String,
    pub limit: &'static str,
    pub budget: f64,
    pub is: f64,
    /// What is left, as a share of the budget; negative where it is exceeded.
    pub headroom: f64,
}

/// Everything.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Check {
    /// Of the form of this data.
    pub version: u32,
    /// The scenario's name.
    pub scenario: String,
    /// Over all cells, guards included.
    pub verdict: Verdict,
    /// Compared with a stored run, which was not interleaved: to be read, not to be relied on.
    pub advisory: bool,
    /// In the scenario's order.
    pub cells: Vec<CheckedCell>,
    /// Every limit that a cell was held against.
    pub budgets: Vec<Kept>,
    /// Why nothing can be concluded, whatever the cells say.
    pub guards: Vec<String>,
    /// What a reader should know of the machine, and takes no verdict away.
    pub remarks: Vec<String>,
    /// A change of the price itself: (before, after), USD an hour.
    pub price_change: Option<(f64, f64)>,
    /// How it was measured.
    pub method: Method,
}

/// How it was measured: what a reader has to know to believe it.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Method {
    /// The slowdown that is surely exceeded in a regression, as a share.
    pub tolerance: f64,
    /// The slowdown that a pass excludes, as a share.
    pub detect: f64,
    /// Pairs of launches that a cell gets at most.
    pub pairs_at_most: usize,
    /// Seconds that a launch measures.
    pub launch_seconds: f64,
    /// Pairs of the baseline against itself.
    pub control_pairs: usize,
    /// The machine in a line.
    pub machine: String,
    /// The price in a line.
    pub price: String,
    /// The baseline: a commit or a program.
    pub base: String,
    /// What is checked: a commit or a program.
    pub head: String,
    /// Share of the time that the hypervisor took, where it tells.
    pub steal_share: Option<f64>,
    /// Of the order of launches.
    pub seed: u64,
    /// The command line that was run.
    pub command: String,
}

impl Check {
    /// The verdict that cells and guards give together: a guard takes away a verdict that rests on timing. A cell that could
    /// not be measured leaves nothing to conclude.
    pub fn conclude(cells: &[CheckedCell], guards: &[String]) -> Verdict {
        let worst = Verdict::of_all(cells.iter().map(|c| c.judged.verdict));
        if guards.is_empty() { worst } else { Verdict::Inconclusive }
    }

    /// Cells of this verdict that were measured.
    pub fn counted(&self, verdict: Verdict) -> usize {
        self.cells.iter().filter(|c| c.failure.is_none() && c.judged.verdict == verdict).count()
    }

    /// Cells that could not be measured.
    pub fn failed(&self) -> usize {
        self.cells.iter().filter(|c| c.failure.is_some()).count()
    }

    /// Limits that are exceeded.
    pub fn over_budget(&self) -> usize {
        self.budgets.iter().filter(|b| b.headroom < 0.0).count()
    }

    /// Geometric means of the costs over the cells that both sides measured: before, after, and the ratio with the range of its
    /// cells' intervals taken as independent.
    pub fn mean_cost(&self) -> Option<(f64, f64)> {
        let both: Vec<(f64, f64)> = self
            .cells
            .iter()
            // Where the way to a loss is compared it is not the tokens that the ratio is of.
            .filter(|c| c.base.usd_to_loss.is_none())
            .filter_map(|c| Some((c.base.usd_per_million_tokens?, c.base.usd_per_million_tokens? * c.judged.ratio?)))
            .collect();
        if both.is_empty() {
            return None;
        }
        let n = both.len() as f64;
        let mean = |of: fn(&(f64, f64)) -> f64| (both.iter().map(|p| of(p).ln()).sum::<f64>() / n).exp();
        Some((mean(|p| p.0), mean(|p| p.1)))
    }

    /// Ratio of the costs over all cells, with its interval.
    pub fn mean_ratio(&self) -> Option<(f64, f64, f64)> {
        let known: Vec<(f64, f64, f64)> =
            self.cells.iter().filter_map(|c| Some((c.judged.ratio?, c.judged.low?, c.judged.high?))).collect();
        if known.is_empty() {
            return None;
        }
        let n = known.len() as f64;
        let mean = known.iter().map(|k| k.0.ln()).sum::<f64>() / n;
        let wide = |of: &dyn Fn(&(f64, f64, f64)) -> f64| known.iter().map(|k| of(k).powi(2)).sum::<f64>().sqrt() / n;
        let (down, up) = (wide(&|k| (k.0 / k.1).ln()), wide(&|k| (k.2 / k.0).ln()));
        Some((mean.exp(), (mean - down).exp(), (mean + up).exp()))
    }
}

/// Every limit of every budget on every cell that it concerns, by its name or the other one of its trial, and that has the figure.
pub fn kept(budgets: &[Budget], cells: &[CheckedCell], also: impl Fn(&str) -> Option<String>) -> Vec<Kept> {
    let mut all = Vec::new();
    for budget in budgets {
        let meant =
            |c: &&CheckedCell| budget.concerns(&c.name) || also(&c.trial_id).is_some_and(|n| budget.concerns(&n));
        for cell in cells.iter().filter(meant) {
            for (limit, most) in budget.limits() {
                let is = match limit {
                    "usd_per_million_tokens" => cell.head.usd_per_million_tokens,
                    "peak_memory_bytes" => cell.head.peak_memory_bytes,
                    "ttft_seconds" => cell.head.ttft_seconds,
                    "usd_to_loss" => cell.head.usd_to_loss,
                    "validation_loss" => cell.head.validation_loss,
                    _ => cell.head.tpot_seconds,
                };
                if let (Some(most), Some(is)) = (most, is) {
                    all.push(Kept { cell: cell.name.clone(), limit, budget: most, is, headroom: 1.0 - is / most });
                }
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comparison::judge::Rule;

    fn cell(name: &str, slower: f64, verdict: Verdict) -> CheckedCell {
        let y: Vec<f64> = (0..12).map(|i| slower + if i % 2 == 0 { 1e-3 } else { -1e-3 }).collect();
        CheckedCell {
            trial_id: name.into(),
            name: name.into(),
            base: Side { usd_per_million_tokens: Some(1.0), ..Side::default() },
            head: Side {
                usd_per_million_tokens: Some(slower.exp()),
                peak_memory_bytes: Some(100.0),
                ..Side::default()
            },
            judged: Rule::default().judged(&y, Some(verdict), 1),
            findings: vec![],
            failure: None,
        }
    }

    #[test]
    fn the_worst_cell_decides_and_a_guard_takes_the_verdict_away() {
        let cells = [cell("a", 0.0, Verdict::Pass), cell("b", 0.1, Verdict::Regression)];
        assert_eq!(Check::conclude(&cells, &[]), Verdict::Regression);
        assert_eq!(Check::conclude(&cells[..1], &[]), Verdict::Pass);
        assert_eq!(Check::conclude(&cells, &["steal of 5 %".into()]), Verdict::Inconclusive);
        assert_eq!(Check::conclude(&[], &[]), Verdict::Inconclusive);
    }

    #[test]
    fn headroom_is_what_is_left_of_a_budget() {
        let cells = [cell("a", 0.0, Verdict::Pass), cell("b", 0.5, Verdict::Regression)];
        let budget = Budget {
            cells: "*".into(),
            usd_per_million_tokens: Some(1.25),
            peak_memory_bytes: Some(200.0),
            ttft_seconds: Some(1.0),
            tpot_seconds: None,
            usd_to_loss: None,
            validation_loss: None,
        };
        let all = kept(&[budget], &cells, |_| None);
        assert_eq!(all.len(), 4, "no cell has a TTFT");
        assert!((all[0].headroom - 0.2).abs() < 1e-12 && all[2].headroom < 0.0);
        assert_eq!(all[1].headroom, 0.5);
    }

    #[test]
    fn a_budget_may_name_cells_as_tables_do_or_by_their_fields() {
        let budget = |cells: &str| Budget {
            cells: cells.into(),
            usd_per_million_tokens: Some(1.0),
            peak_memory_bytes: None,
            ttft_seconds: None,
            tpot_seconds: None,
            usd_to_loss: None,
            validation_loss: None,
        };
        let cells = [cell("heads 4, adamw", 0.0, Verdict::Pass)];
        let fields = |id: &str| (id == "heads 4, adamw").then(|| "n_heads 4, optimizer adamw".to_string());
        let meant = |pattern: &str| kept(&[budget(pattern)], &cells, fields).len();
        assert_eq!((meant("heads 4*"), meant("n_heads 4*"), meant("*optimizer adamw"), meant("*adamw")), (1, 1, 1, 1));
        assert_eq!((meant("n_heads 4"), meant("heads 8*")), (0, 0));
    }
}
