//! Which of several ways to do the same is the fastest, from times: pure. What is timed, and how, is [`super::timing`]'s.

/// Rounds over all candidates. The clock of a GPU drifts and others use its memory: what slows one run down does not slow down all of
/// a candidate's, and the least of them is what it takes.
pub(super) const ROUNDS: usize = 5;

/// The candidates in the order of a round: each round begins with another one, since the first finds caches and queues as no
/// other does.
pub(super) fn order(round: usize, candidates: &[usize]) -> Vec<usize> {
    let mut order = candidates.to_vec();
    order.rotate_left(round % candidates.len().max(1));
    order
}

/// The least time of each of `count` candidates over [`ROUNDS`] rounds, infinite for those that are not `able`. `time` runs a round in
/// the order that it is given.
///
/// # Errors
/// Those of `time`.
pub(super) fn least_times<E>(
    count: usize,
    able: &[usize],
    mut time: impl FnMut(&[usize]) -> Result<Vec<f32>, E>,
) -> Result<Vec<f32>, E> {
    let mut least = vec![f32::INFINITY; count];
    for round in 0..ROUNDS {
        let order = order(round, able);
        for (i, seconds) in order.iter().zip(time(&order)?) {
            least[*i] = least[*i].min(seconds);
        }
    }
    Ok(least)
}

/// The candidate with the least time, the first of equals; none where none ran.
pub(super) fn fastest(times: &[f32]) -> Option<usize> {
    let ran = times.iter().enumerate().filter(|(_, t)| t.is_finite());
    ran.min_by(|a, b| a.1.total_cmp(b.1)).map(|(i, _)| i)
}

/// Whether a product is done in one go with what comes after it: unless the steps one after another take less. Where neither was
/// timed, it is: that spares a pass over memory.
pub(super) fn in_one_go(fused: f32, apart: f32) -> bool {
    fused <= apart || !apart.is_finite()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    #[test]
    fn every_candidate_begins_a_round() {
        assert_eq!(order(0, &[2, 5, 7]), [2, 5, 7]);
        assert_eq!(order(1, &[2, 5, 7]), [5, 7, 2]);
        assert_eq!(order(5, &[2, 5, 7]), [7, 2, 5]);
        assert_eq!(order(3, &[]), [0usize; 0]);
    }

    /// Clocks that rise from round to round, a first run that costs three times as much, and one run in eleven that something else slows
    /// down: each of these alone misleads whoever times one candidate after the other.
    #[test]
    fn the_fastest_is_found_whatever_slows_single_runs_down() {
        let takes = [10.0, 9.0, 9.5, 40.0, 9.2];
        let (mut round, mut runs) = (0, 0);
        let times = least_times::<Infallible>(takes.len(), &[0, 1, 2, 4], |order| {
            round += 1;
            let clock = 1.0 + 2.0 / round as f32;
            let one = |(place, i): (usize, &usize)| {
                runs += 1;
                let slow = if place == 0 { 3.0 } else { 1.0 } * if runs % 11 == 0 { 5.0 } else { 1.0 };
                takes[*i] * clock * slow
            };
            Ok(order.iter().enumerate().map(one).collect())
        });
        let Ok(times) = times;
        assert_eq!(fastest(&times), Some(1), "{times:?}");
        assert_eq!(times[3], f32::INFINITY);
        assert_eq!(runs, ROUNDS * 4);
    }

    #[test]
    fn what_never_ran_is_not_chosen() {
        assert_eq!(fastest(&[f32::INFINITY, 3.0, f32::NAN, 3.0]), Some(1));
        assert_eq!(fastest(&[f32::INFINITY; 2]), None);
        assert_eq!(fastest(&[]), None);
    }

    #[test]
    fn one_go_is_left_only_for_what_takes_less() {
        assert!(in_one_go(1.0, 1.0) && in_one_go(1.0, 1.1) && !in_one_go(1.1, 1.0));
        assert!(!in_one_go(f32::INFINITY, 1.0));
        assert!(in_one_go(f32::INFINITY, f32::INFINITY));
    }
}
