//! What a machine's noise lets a check see: from differences of launches that ought to be equal. Pure.

use super::judge::{Rule, Verdict};
use crate::stats::random::SplitMix64;
use serde::Serialize;

/// A slowdown and how many pairs it takes to catch it in 95 % of checks; `None` where the most pairs are not enough.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Resolved {
    pub slowdown: f64,
    pub pairs: Option<usize>,
}

/// The grade of a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) enum Grade {
    Quiet,
    Usable,
    Noisy,
    Unusable,
}

impl Grade {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Quiet => "A, quiet",
            Self::Usable => "B, usable",
            Self::Noisy => "C, noisy",
            Self::Unusable => "D, unusable",
        }
    }

    /// By what is resolved: A 5 % at the first look, B 5 % at all, C 10 % at all.
    pub(crate) fn of(resolved: &[Resolved], rule: &Rule) -> Self {
        let pairs = |slowdown: f64| resolved.iter().find(|r| r.slowdown == slowdown).and_then(|r| r.pairs);
        match (pairs(0.05), pairs(0.10)) {
            (Some(n), _) if Some(&n) == rule.looks.first() => Self::Quiet,
            (Some(_), _) => Self::Usable,
            (None, Some(_)) => Self::Noisy,
            (None, None) => Self::Unusable,
        }
    }
}

/// Slowdowns that are asked about.
pub(crate) const SLOWDOWNS: [f64; 4] = [0.03, 0.05, 0.10, 0.20];
const DRAWS: u64 = 400;
const CAUGHT: f64 = 0.95;

/// Which slowdowns the rule catches, and after how many pairs, where pairs of equal launches differ as these do: the differences
/// are drawn again with random signs (as the coin gives them), the slowdown added.
pub(crate) fn resolved(differences: &[f64], rule: &Rule) -> Vec<Resolved> {
    let mut random = SplitMix64::new(0x2545_F491_4F6C_DD1D);
    SLOWDOWNS
        .iter()
        .map(|slowdown| {
            let mut caught_by = vec![0u64; rule.looks.len()];
            for _ in 0..DRAWS {
                let y: Vec<f64> = (0..rule.most_pairs())
                    .map(|_| {
                        let pick = (random.draw() % differences.len().max(1) as u64) as usize;
                        let d = differences.get(pick).copied().unwrap_or(0.0);
                        slowdown.ln_1p() + if random.draw() >> 63 == 1 { d } else { -d }
                    })
                    .collect();
                if let (Verdict::Regression, n) = rule.sequence(&y) {
                    rule.looks.iter().zip(&mut caught_by).filter(|(look, _)| **look >= n).for_each(|(_, c)| *c += 1);
                }
            }
            let enough = rule.looks.iter().zip(&caught_by).find(|(_, c)| **c as f64 >= CAUGHT * DRAWS as f64);
            Resolved { slowdown: *slowdown, pairs: enough.map(|(look, _)| *look) }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quiet_machines_see_small_slowdowns_soon_and_loud_ones_none() {
        let rule = Rule::default();
        let spread = |s: f64| (0..30).map(|i| s * (f64::from(i) - 14.5) / 15.0).collect::<Vec<_>>();
        let quiet = resolved(&spread(0.005), &rule);
        assert_eq!(quiet[1], Resolved { slowdown: 0.05, pairs: Some(12) });
        assert_eq!(Grade::of(&quiet, &rule), Grade::Quiet);
        let loud = resolved(&spread(0.8), &rule);
        assert_eq!((loud[2].pairs, Grade::of(&loud, &rule)), (None, Grade::Unusable));
        let middling = resolved(&spread(0.08), &rule);
        assert_eq!(Grade::of(&middling, &rule), Grade::Usable, "{middling:?}");
        assert!(middling[1].pairs > middling[2].pairs);
    }
}
