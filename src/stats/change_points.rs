//! Where a series changes its level for good: change points by binary segmentation.
//!
//! The best split of a stretch is the one with the highest rank-sum statistic; it counts where at least as high a maximum is
//! rare among the same values in random order. Ranks make single outliers harmless. Sources: Pettitt 1979, Applied Statistics
//! 28 (the statistic); Vostrikova 1981 (binary segmentation); Matteson & James 2014 (the permutation test).

use super::random::SplitMix64;

/// Fewest values on either side of a change.
const LEAST: usize = 4;
const PERMUTATIONS: usize = 999;

/// Indices at which a new level begins, ascending, each significant at `alpha`; the same for the same values.
pub(crate) fn change_points(values: &[f64], alpha: f64) -> Vec<usize> {
    let mut found = Vec::new();
    segment(values, 0, alpha, &mut found);
    found.sort_unstable();
    found
}

fn segment(values: &[f64], offset: usize, alpha: f64, found: &mut Vec<usize>) {
    if values.len() < 2 * LEAST || values.iter().any(|v| !v.is_finite()) {
        return;
    }
    let ranks = ranks(values);
    let (split, height) = highest(&ranks);
    let mut random = SplitMix64::new(values.len() as u64 ^ 0x9E37_79B9_7F4A_7C15);
    let mut shuffled = ranks.clone();
    let as_high = (0..PERMUTATIONS)
        .filter(|_| {
            for i in (1..shuffled.len()).rev() {
                shuffled.swap(i, (random.draw() % (i as u64 + 1)) as usize);
            }
            highest(&shuffled).1 >= height
        })
        .count();
    if (as_high + 1) as f64 / (PERMUTATIONS + 1) as f64 > alpha {
        return;
    }
    found.push(offset + split);
    segment(&values[..split], offset, alpha, found);
    segment(&values[split..], offset + split, alpha, found);
}

/// The split where the ranks on both sides differ most, and by how much (in standard deviations of the rank sum).
fn highest(ranks: &[f64]) -> (usize, f64) {
    let n = ranks.len() as f64;
    let (mut sum, mut best) = (0.0, (LEAST, f64::NEG_INFINITY));
    for (i, r) in ranks.iter().enumerate().take(ranks.len() - LEAST) {
        sum += r;
        let k = (i + 1) as f64;
        if i + 1 < LEAST {
            continue;
        }
        let height = (sum - k * (n + 1.0) / 2.0).abs() / (k * (n - k) * (n + 1.0) / 12.0).sqrt();
        if height > best.1 {
            best = (i + 1, height);
        }
    }
    best
}

fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|a, b| values[*a].total_cmp(&values[*b]));
    let mut ranks = vec![0.0; values.len()];
    let mut start = 0;
    while start < order.len() {
        let alike = order[start..].iter().take_while(|i| values[**i] == values[order[start]]).count();
        for i in &order[start..start + alike] {
            ranks[*i] = start as f64 + (alike as f64 + 1.0) / 2.0;
        }
        start += alike;
    }
    ranks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(n: usize, seed: u64) -> Vec<f64> {
        let mut random = SplitMix64::new(seed);
        (0..n).map(|_| (random.draw() >> 11) as f64 / (1u64 << 53) as f64 - 0.5).collect()
    }

    #[test]
    fn a_step_is_found_where_it_is() {
        let mut values = noise(40, 1);
        values[25..].iter_mut().for_each(|v| *v += 2.0);
        assert_eq!(change_points(&values, 0.01), [25]);
        values[33..].iter_mut().for_each(|v| *v -= 4.0);
        assert_eq!(change_points(&values, 0.01), [25, 33]);
    }

    #[test]
    fn noise_alone_and_single_spikes_are_no_change() {
        let false_alarms = (0..200).filter(|s| !change_points(&noise(40, 1000 + s), 0.01).is_empty()).count();
        // 200 series at 1 %: more than 8 would be rare (P < 0.1 %).
        assert!(false_alarms <= 8, "{false_alarms}");
        let mut spike = noise(30, 3);
        spike[14] = 100.0;
        assert_eq!(change_points(&spike, 0.01), Vec::<usize>::new());
        assert!(change_points(&[1.0; 50], 0.01).is_empty());
        assert!(change_points(&[], 0.01).is_empty());
    }
}
