//! Holm's step-down procedure: several tests at once with one error rate.
//!
//! Source: Holm 1979, Scandinavian Journal of Statistics 6.

/// Which of the hypotheses are refused at `alpha` in total, out of `tests` that there are (some may not be at hand).
pub(crate) fn refused(p_values: &[f64], tests: usize, alpha: f64) -> Vec<bool> {
    let mut order: Vec<usize> = (0..p_values.len()).collect();
    order.sort_by(|a, b| p_values[*a].total_cmp(&p_values[*b]));
    let mut refused = vec![false; p_values.len()];
    for (rank, i) in order.into_iter().enumerate() {
        let left = tests.max(p_values.len()) - rank;
        if p_values[i].is_nan() || p_values[i] > alpha / left as f64 {
            break;
        }
        refused[i] = true;
    }
    refused
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_is_held_to_the_strictest_level() {
        // Holm's own example: 0.01, 0.04, 0.03, 0.005 at 0.05: 0.005 <= 0.0125, 0.01 <= 0.0167, 0.03 > 0.025.
        assert_eq!(refused(&[0.01, 0.04, 0.03, 0.005], 4, 0.05), [true, false, false, true]);
        assert_eq!(refused(&[0.01], 10, 0.05), [false]);
        assert_eq!(refused(&[f64::NAN, 0.001], 2, 0.05), [false, true]);
        assert_eq!(refused(&[], 0, 0.05), Vec::<bool>::new());
    }
}
