//! The verdict on paired launches of two programs: a sequential rule with a known error rate. Pure.
//!
//! A pair gives `y = ln(throughput of the baseline / throughput of the candidate)`: above 0 where the candidate is slower. Which
//! of the two goes first is decided by a fair coin, so that drift between the launches of a pair turns its sign as often as
//! not, and the signed-rank test is exact whatever the machine does from launch to launch.

use crate::stats::Interval;
use crate::stats::holm::refused;
use crate::stats::signed_rank::{hodges_lehmann, interval, p_above_zero};
use serde::Serialize;

/// When to look, and what to find.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// Numbers of pairs after which there is a look, ascending.
    pub looks: Vec<usize>,
    /// Error rate of a false alarm, over all looks and cells together.
    pub false_alarms: f64,
    /// A slowdown up to this share is no regression, however surely it is there.
    pub tolerance: f64,
    /// A cell passes when a slowdown of this share is excluded.
    pub detect: f64,
    /// Error rate of passing a cell that is slower by `detect`, over all looks together.
    pub false_passes: f64,
}

impl Default for Rule {
    fn default() -> Self {
        Self { looks: vec![12, 16, 24, 32, 48], false_alarms: 0.01, tolerance: 0.02, detect: 0.05, false_passes: 0.05 }
    }
}

/// What is said of a cell or of the whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Verdict {
    /// A slowdown worth detecting is excluded.
    Pass,
    /// Neither can be said.
    Inconclusive,
    /// Surely slower than tolerated.
    Regression,
}

impl Verdict {
    /// In capitals, as reports and exit messages have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pass => "PASS",
            Self::Inconclusive => "INCONCLUSIVE",
            Self::Regression => "REGRESSION",
        }
    }

    /// The verdict on several: the worst of them; on none, nothing can be concluded.
    pub fn of_all(all: impl IntoIterator<Item = Self>) -> Self {
        all.into_iter().max().unwrap_or(Self::Inconclusive)
    }
}

/// What a cell's pairs say.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Judged {
    pub verdict: Verdict,
    pub pairs: usize,
    /// How many times as dear the candidate's tokens are at the same price: `exp` of the Hodges-Lehmann estimate.
    pub ratio: Option<f64>,
    /// 95 % interval of the ratio.
    pub low: Option<f64>,
    pub high: Option<f64>,
    /// Of no slowdown at all.
    pub p: Option<f64>,
    /// The smallest slowdown that these pairs could have told from none, as a share.
    pub detectable: Option<f64>,
}

impl Rule {
    /// Alpha of one look.
    fn alpha(&self) -> f64 {
        self.false_alarms / self.looks.len().max(1) as f64
    }

    /// The most pairs that are ever measured.
    pub fn most_pairs(&self) -> usize {
        self.looks.last().copied().unwrap_or(0)
    }

    /// A look at all cells that are still open (each with as many pairs as the look has): what is decided, `None` where it goes
    /// on. `cells` is how many the suite has in all, decided ones included.
    pub fn look(&self, open: &[&[f64]], cells: usize) -> Vec<Option<Verdict>> {
        let p: Vec<f64> = open.iter().map(|y| p_above_zero(y).unwrap_or(f64::NAN)).collect();
        let slower = refused(&p, cells, self.alpha());
        open.iter()
            .zip(slower)
            .map(|(y, slower)| {
                let estimate = hodges_lehmann(y)?;
                if slower && estimate > self.tolerance.ln_1p() {
                    return Some(Verdict::Regression);
                }
                let room: Vec<f64> = y.iter().map(|y| self.detect.ln_1p() - y).collect();
                let excluded = p_above_zero(&room)? <= self.false_passes / self.looks.len().max(1) as f64;
                excluded.then_some(Verdict::Pass)
            })
            .collect()
    }

    /// The figures of a cell with its verdict; without one it is inconclusive.
    pub fn judged(&self, y: &[f64], decided: Option<Verdict>, cells: usize) -> Judged {
        let estimate = hodges_lehmann(y);
        let confident: Option<Interval> = interval(y, 0.95);
        // What is told from none is as far above 0 as the one-sided bound lies below the estimate.
        let reach = interval(y, 1.0 - 2.0 * self.alpha() / cells.max(1) as f64);
        let detectable = reach.map(|i| (i.point - i.low).exp_m1().max(self.tolerance));
        Judged {
            verdict: decided.filter(|_| estimate.is_some()).unwrap_or(Verdict::Inconclusive),
            pairs: y.len(),
            ratio: estimate.map(f64::exp),
            low: confident.map(|i| i.low.exp()),
            high: confident.map(|i| i.high.exp()),
            p: p_above_zero(y),
            detectable,
        }
    }

    /// The whole rule on one cell's pairs, as if they came one after the other: the verdict and after how many pairs.
    pub fn sequence(&self, y: &[f64]) -> (Verdict, usize) {
        for &n in self.looks.iter().filter(|n| **n <= y.len()) {
            if let Some(Some(verdict)) = self.look(&[&y[..n]], 1).first() {
                return (*verdict, n);
            }
        }
        (Verdict::Inconclusive, self.most_pairs().min(y.len()))
    }
}

/// Whether a control arm (the baseline against itself) alarms: a difference in either direction where there is none.
pub(crate) fn control_alarms(y: &[f64], alpha: f64) -> bool {
    let turned: Vec<f64> = y.iter().map(|y| -y).collect();
    [y, &turned].into_iter().any(|v| p_above_zero(v).is_none_or(|p| p <= alpha / 2.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pairs around a place, within half a per cent of it, on both sides in turn.
    fn around(place: f64, n: usize) -> Vec<f64> {
        (0..n).map(|i| place + if i % 2 == 0 { 1.0 } else { -1.0 } * (i + 1) as f64 * 5e-3 / n as f64).collect()
    }

    #[test]
    fn clear_cases_are_decided_at_the_first_look() {
        let rule = Rule::default();
        assert_eq!(rule.sequence(&around(0.0001, 48)), (Verdict::Pass, 12));
        assert_eq!(rule.sequence(&around(0.08, 48)), (Verdict::Regression, 12));
        // Surely slower by 1 %, which is within the tolerance.
        assert_eq!(rule.sequence(&around(0.01, 48)), (Verdict::Pass, 12));
        // 3 % is over the tolerance and surely there.
        assert_eq!(rule.sequence(&around(0.03, 48)).0, Verdict::Regression);
    }

    #[test]
    fn what_is_no_number_never_passes() {
        let rule = Rule::default();
        let mut y = around(0.0, 48);
        y[3] = f64::NAN;
        assert_eq!(rule.sequence(&y).0, Verdict::Inconclusive);
        let judged = rule.judged(&y, Some(Verdict::Pass), 1);
        assert_eq!((judged.verdict, judged.ratio), (Verdict::Inconclusive, None));
        assert_eq!(rule.sequence(&[]), (Verdict::Inconclusive, 0));
    }

    #[test]
    fn many_cells_share_the_error_rate() {
        let rule = Rule::default();
        // All of 12 above zero: p = 2^-12 = 0.00024, over 0.002 / 10 and under 0.002 / 8.
        let slow = around(0.08, 12);
        assert_eq!(rule.look(&[&slow], 8), [Some(Verdict::Regression)]);
        assert_eq!(rule.look(&[&slow], 10), [None]);
    }

    #[test]
    fn figures_say_how_sure_they_are() {
        let judged = Rule::default().judged(&around(0.05f64.ln_1p(), 12), Some(Verdict::Regression), 1);
        assert!((judged.ratio.unwrap() - 1.05).abs() < 2e-3);
        assert!(judged.low.unwrap() < 1.05 && judged.high.unwrap() > 1.05);
        assert_eq!(judged.detectable, Some(0.02), "the tolerance is the least that is ever told");
        assert_eq!(Verdict::of_all([Verdict::Pass, Verdict::Inconclusive]), Verdict::Inconclusive);
        assert_eq!(Verdict::of_all([Verdict::Regression, Verdict::Inconclusive]), Verdict::Regression);
        assert_eq!(Verdict::of_all([]), Verdict::Inconclusive);
    }

    #[test]
    fn a_control_that_differs_from_itself_alarms() {
        assert!(control_alarms(&around(0.05, 12), 0.002));
        assert!(control_alarms(&around(-0.05, 12), 0.002));
        assert!(!control_alarms(&around(0.0, 12), 0.002));
        assert!(control_alarms(&[f64::NAN], 0.002));
    }
}
