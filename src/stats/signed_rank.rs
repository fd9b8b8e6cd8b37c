//! Wilcoxon's signed-rank test, exact, with the estimate and the interval that belong to it.
//!
//! Sources: Wilcoxon 1945, Biometrics Bulletin 1; Hollander, Wolfe & Chicken 2014, Nonparametric Statistical Methods, sections
//! 3.1 to 3.3 (zeros are dropped, ties share their mean rank, the null distribution is that of the ranks at hand).

use super::Interval;
use std::sync::OnceLock;

/// Most values for which null distributions without ties are kept.
const KEPT: usize = 128;

/// The chance, if signs were tossed by a fair coin, of a rank sum of the positive values at least as high as this one: small
/// when the values lie above 0. 1 without values that are not 0; `None` for what is not a number.
pub(crate) fn p_above_zero(values: &[f64]) -> Option<f64> {
    if values.iter().any(|v| !v.is_finite()) {
        return None;
    }
    let mut sorted: Vec<f64> = values.iter().copied().filter(|v| *v != 0.0).collect();
    sorted.sort_by(|a, b| a.abs().total_cmp(&b.abs()));
    if sorted.is_empty() {
        return Some(1.0);
    }
    // Twice the ranks: with ties, means of ranks are halves.
    let mut ranks = vec![0usize; sorted.len()];
    let (mut start, mut tied) = (0, false);
    while start < sorted.len() {
        let alike = sorted[start..].iter().take_while(|v| v.abs() == sorted[start].abs()).count();
        ranks[start..start + alike].fill(2 * start + alike + 1);
        tied |= alike > 1;
        start += alike;
    }
    let observed: usize = sorted.iter().zip(&ranks).filter(|(v, _)| **v > 0.0).map(|(_, r)| r).sum();
    Some(if tied || sorted.len() > KEPT {
        upper_tail(&ranks, observed)
    } else {
        null_tails(sorted.len())[observed / 2]
    })
}

/// P(sum of the ranks whose coin shows heads >= observed), by adding rank after rank.
fn upper_tail(ranks: &[usize], observed: usize) -> f64 {
    let distribution = distribution(ranks);
    distribution.iter().skip(observed).sum::<f64>().min(1.0)
}

/// The distribution of the sum of ranks with fair signs.
fn distribution(ranks: &[usize]) -> Vec<f64> {
    let total: usize = ranks.iter().sum();
    let mut chance = vec![0.0; total + 1];
    chance[0] = 1.0;
    let mut reached = 0;
    for &r in ranks {
        reached += r;
        for s in (0..=reached).rev() {
            let without = if s <= reached - r { chance[s] } else { 0.0 };
            let with = if s >= r { chance[s - r] } else { 0.0 };
            chance[s] = 0.5 * (without + with);
        }
    }
    chance
}

/// P(W >= w) for every w, for n values without ties.
fn null_tails(n: usize) -> &'static [f64] {
    static ALL: [OnceLock<Vec<f64>>; KEPT + 1] = [const { OnceLock::new() }; KEPT + 1];
    ALL[n].get_or_init(|| {
        let mut tails = distribution(&(1..=n).collect::<Vec<_>>());
        for w in (0..tails.len() - 1).rev() {
            tails[w] += tails[w + 1];
        }
        tails
    })
}

/// Means of all pairs of values, each with itself included, in order.
fn walsh_averages(values: &[f64]) -> Vec<f64> {
    let mut all = Vec::with_capacity(values.len() * (values.len() + 1) / 2);
    for (i, a) in values.iter().enumerate() {
        all.extend(values[i..].iter().map(|b| (a + b) / 2.0));
    }
    all
}

/// The Hodges-Lehmann estimate of where the values lie: the median of the means of all pairs.
///
/// Source: Hodges & Lehmann 1963, Annals of Mathematical Statistics 34.
pub(crate) fn hodges_lehmann(values: &[f64]) -> Option<f64> {
    if values.is_empty() || values.iter().any(|v| !v.is_finite()) {
        return None;
    }
    let mut all = walsh_averages(values);
    let middle = all.len() / 2;
    let (below, at, _) = all.select_nth_unstable_by(middle, f64::total_cmp);
    let at = *at;
    if values.len() * (values.len() + 1) / 2 % 2 == 1 {
        return Some(at);
    }
    below.iter().copied().max_by(f64::total_cmp).map(|b| (b + at) / 2.0)
}

/// The Hodges-Lehmann estimate with the interval of all places that the test would not refuse (Tukey 1949). `None` where so few
/// values cannot give that confidence.
pub(crate) fn interval(values: &[f64], confidence: f64) -> Option<Interval> {
    let point = hodges_lehmann(values)?;
    let n = values.len();
    if n > KEPT {
        return None;
    }
    let mut all = walsh_averages(values);
    all.sort_by(f64::total_cmp);
    let (tails, alpha) = (null_tails(n), (1.0 - confidence) / 2.0);
    // The most averages that may be left out at either end: P(W <= c - 1) <= alpha, the distribution being symmetric.
    let left_out = (0..tails.len()).take_while(|c| tails[tails.len() - 1 - c] <= alpha).count();
    let left_out = left_out.checked_sub(1)?;
    let (low, high) = (*all.get(left_out)?, *all.get(all.len().checked_sub(1 + left_out)?)?);
    Some(Interval { point, low, high, confidence })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn small_cases_are_as_counted_by_hand() {
        // Three positive values: W = 6, one of eight ways.
        assert_eq!(p_above_zero(&[1.0, 2.0, 3.0]), Some(0.125));
        // The largest is negative: W = 1 + 2 = 3; sums >= 3 of {1,2,3}: 12, 3, 13, 23, 123 -> 5 of 8.
        assert_eq!(p_above_zero(&[1.0, 2.0, -3.0]), Some(0.625));
        // Ties: ranks 1.5, 1.5, 3; W = 1.5 + 3 = 4.5; sums >= 4.5: {1.5, 3} twice and all: 3 of 8.
        assert_eq!(p_above_zero(&[1.0, -1.0, 2.0]), Some(0.375));
        assert_eq!(p_above_zero(&[0.0, 0.0]), Some(1.0));
        assert_eq!(p_above_zero(&[1.0, f64::NAN]), None);
        assert_eq!(p_above_zero(&[]), Some(1.0));
    }

    #[test]
    fn the_table_of_critical_values_is_met() {
        // Hollander, Wolfe & Chicken, table A.4: n = 10, P(W >= 45) = 0.042; n = 12, P(W >= 61) = 0.046.
        assert!((null_tails(10)[45] - 0.0420).abs() < 5e-4, "{}", null_tails(10)[45]);
        assert!((null_tails(12)[61] - 0.0461).abs() < 5e-4, "{}", null_tails(12)[61]);
    }

    #[test]
    fn the_estimate_and_its_interval_are_those_of_the_textbook() {
        // Hollander, Wolfe & Chicken, example 3.1 (Hamilton depression scale): differences after - before.
        let z = [-0.952, 0.147, -1.022, -0.430, -0.620, -0.590, -0.490, 0.080, -0.010];
        assert!((hodges_lehmann(&z).unwrap() + 0.46).abs() < 1e-9);
        let i = interval(&z, 0.96).unwrap();
        assert!((i.low + 0.786).abs() < 1e-9 && (i.high + 0.010).abs() < 1e-9, "{i:?}");
        let p = p_above_zero(&z.map(|x| -x)).unwrap();
        assert!((p - 0.0195).abs() < 5e-4, "{p}");
    }

    #[test]
    fn too_few_values_have_no_interval() {
        assert_eq!(interval(&[1.0, 2.0, 3.0], 0.95), None);
        assert_eq!(hodges_lehmann(&[]), None);
    }

    proptest! {
        #[test]
        fn the_interval_is_what_the_test_does_not_refuse(values in prop::collection::vec(-1.0..1.0f64, 6..24)) {
            let Some(i) = interval(&values, 0.9) else { return Ok(()) };
            let p_at = |place: f64| {
                let shifted: Vec<f64> = values.iter().map(|v| v - place).collect();
                let turned: Vec<f64> = shifted.iter().map(|v| -v).collect();
                (p_above_zero(&shifted).unwrap(), p_above_zero(&turned).unwrap())
            };
            let outside = 1e-9;
            prop_assert!(p_at(i.low - outside).0 <= 0.05 + 1e-12);
            prop_assert!(p_at(i.high + outside).1 <= 0.05 + 1e-12);
            prop_assert!(p_at(i.low + outside).0 > 0.05 && p_at(i.high - outside).1 > 0.05);
            prop_assert!(i.low <= i.point && i.point <= i.high);
        }

        #[test]
        fn both_tails_share_the_point_they_meet_in(values in prop::collection::vec(-1.0..1.0f64, 1..30)) {
            let turned: Vec<f64> = values.iter().map(|v| -v).collect();
            let (up, down) = (p_above_zero(&values).unwrap(), p_above_zero(&turned).unwrap());
            prop_assert!(up + down >= 1.0 - 1e-12 && up <= 1.0 && down <= 1.0);
        }
    }
}
