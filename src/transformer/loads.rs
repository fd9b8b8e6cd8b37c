//! How the tokens of a pass were spread over the experts of layers.

use serde::{Deserialize, Serialize};

/// Of one layer, or of several on average.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Loads {
    /// Tokens of the fullest expert over those of the mean one: 1 where all have as many.
    pub fullest_over_mean: f64,
    /// Experts that had any.
    pub distinct: f64,
}

impl Loads {
    /// Of a layer of so many experts, from those that each token went to; `None` of no tokens.
    pub(crate) fn of_layer(chosen: &[u32], experts: usize) -> Option<Self> {
        let mut tokens = vec![0u64; experts];
        chosen.iter().filter_map(|e| usize::try_from(*e).ok()).for_each(|e| {
            if let Some(n) = tokens.get_mut(e) {
                *n += 1;
            }
        });
        let (all, most) = (tokens.iter().sum::<u64>(), tokens.iter().copied().max()?);
        let distinct = tokens.iter().filter(|n| **n > 0).count() as f64;
        (all > 0).then(|| Self { fullest_over_mean: most as f64 * experts as f64 / all as f64, distinct })
    }

    /// The mean of several; `None` of none.
    pub(crate) fn mean(each: impl Iterator<Item = Self>) -> Option<Self> {
        let all: Vec<Self> = each.collect();
        let mean = |of: fn(&Self) -> f64| all.iter().map(of).sum::<f64>() / all.len() as f64;
        (!all.is_empty())
            .then(|| Self { fullest_over_mean: mean(|l| l.fullest_over_mean), distinct: mean(|l| l.distinct) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fullest_is_told_over_the_mean_and_those_without_tokens_are_left_out() {
        let one = Loads::of_layer(&[0, 0, 0, 2, 0, 1], 4).unwrap();
        assert_eq!((one.fullest_over_mean, one.distinct), (4.0 / 1.5, 3.0));
        let even = Loads::of_layer(&[3, 2, 1, 0], 4).unwrap();
        assert_eq!((even.fullest_over_mean, even.distinct), (1.0, 4.0));
        assert_eq!(Loads::of_layer(&[], 4), None);
        let both = Loads::mean([even, Loads { fullest_over_mean: 3.0, distinct: 2.0 }].into_iter()).unwrap();
        assert_eq!((both.fullest_over_mean, both.distinct), (2.0, 3.0));
        assert_eq!(Loads::mean(std::iter::empty()), None);
    }
}
