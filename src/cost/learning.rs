//! How a loss fell: the validation losses of a cell, over its launches.

use crate::runner::learning::learned::{Learned, Point};
use crate::stats::median;

/// The medians over launches, which differ by their seeds, evaluation by evaluation, as far as all of them went: a launch that reached
/// its loss early ends there, and what the others did later is not what all would have done.
pub(crate) fn curve(learned: &[Learned]) -> Vec<Point> {
    let shortest = learned.iter().map(|l| l.evaluations.len()).min().unwrap_or(0);
    let point = |i: usize| {
        let all: Vec<&Point> = learned.iter().map(|l| &l.evaluations[i]).collect();
        let of = |f: fn(&Point) -> f64| median(&all.iter().map(|p| f(p)).collect::<Vec<_>>());
        // The last one may stand between two looks.
        let (step, tokens) = (of(|p| p.step as f64)? as u64, of(|p| p.tokens as f64)? as u64);
        Some(Point { step, tokens, seconds: of(|p| p.seconds)?, loss: of(|p| p.loss)? })
    };
    (0..shortest).filter_map(point).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runner::learning::learned::{EndedBy, Text};

    #[test]
    fn a_curve_is_the_median_of_its_seeds_as_far_as_all_of_them_went() {
        let of = |losses: &[f64]| {
            let at = |(i, loss): (usize, &f64)| Point {
                step: i as u64,
                tokens: 10 * i as u64,
                seconds: loss + i as f64,
                loss: *loss,
            };
            let evaluations: Vec<Point> = losses.iter().enumerate().map(at).collect();
            let (end, text) = (evaluations[losses.len() - 1], Text::default());
            let (curve, ended_by) = (vec![], EndedBy::Tokens);
            Learned {
                seed: 0,
                ended_by,
                text,
                end,
                target: None,
                curve,
                evaluations,
                evaluation_seconds: 0.0,
                waited_seconds: 0.0,
                checkpoints: None,
            }
        };
        let curve = curve(&[of(&[6.0, 5.0, 4.0]), of(&[6.0, 3.0]), of(&[6.0, 4.0, 1.0])]);
        assert_eq!(curve.iter().map(|p| (p.tokens, p.loss)).collect::<Vec<_>>(), [(0, 6.0), (10, 4.0)]);
        assert!(super::curve(&[]).is_empty());
    }
}
