//! Which is cheapest, and what cannot be told from it.

use crate::cost::metric::Estimate;
use crate::stats::launches::{Spread, normal_tail, paired, residual_variance, student};
use crate::stats::median;

/// The lowest of several figures, and those that cannot be told from it.
#[derive(Clone, Debug, PartialEq)]
pub struct Cheapest {
    /// Index of the lowest value.
    pub best: usize,
    /// The others within noise of it, by value ascending. Empty when it stands alone.
    pub tied: Vec<usize>,
    /// Index of the highest value.
    pub dearest: usize,
}

/// The lowest of `costs` of several runs, whose intervals hold what runs differ by: those that overlap with its own are tied. `None` when
/// none is known. An unknown cost neither wins nor ties.
pub(crate) fn cheapest(costs: &[Option<Estimate>]) -> Option<Cheapest> {
    let mut known: Vec<(usize, Estimate)> = costs.iter().enumerate().filter_map(|(i, c)| Some((i, (*c)?))).collect();
    known.sort_by(|a, b| a.1.value.total_cmp(&b.1.value));
    let (best, lowest) = *known.first()?;
    let (dearest, _) = *known.last()?;
    let tied = known.iter().skip(1).filter(|(_, e)| e.overlaps(&lowest)).map(|(i, _)| *i).collect();
    Some(Cheapest { best, tied, dearest })
}

/// How sure a statement is that one figure is the lowest of all.
const SURE: f64 = 0.95;

/// The lowest of `costs` of one run. Its cells are compared launch by launch of the same round, since drift of the machine meets both
/// alike; another one is tied unless it is dearer with `SURE` of all comparisons together (Bonferroni; two-sided, since it is the
/// figures themselves that say which is the lowest). What a comparison leaves open is the larger of two: what its own launches and the
/// machine's kind say, and what all launches of the run say alone, since a machine may be worse than its kind. How often that is
/// wrong on twelve simulated machines, `tests/simulated/answers.rs` says. `rounds`: each record's medians in the order of rounds.
pub fn cheapest_of_run(costs: &[Option<Estimate>], rounds: &[Vec<f64>], spread: &Spread) -> Option<Cheapest> {
    let found = cheapest(costs)?;
    let known = costs.iter().flatten().count();
    let z = normal_tail((1.0 - SURE) / 2.0 / known.saturating_sub(1).max(1) as f64);
    let residual = residual_variance(rounds);
    // What a second of a step costs, whatever the price and the tokens of a step.
    let of_second = |i: usize| Some((costs[i]?.value / median(&rounds[i])?).ln());
    let dearer = |i: usize| {
        // A cell that has fewer launches is held against as many of the other.
        let n = rounds[i].len().min(rounds[found.best].len());
        let (slower, error, freedom) = paired(&rounds[i][..n], &rounds[found.best][..n], spread)?;
        let of_run =
            residual.map_or(0.0, |(variance, freedom)| student(z, freedom) * (2.0 * variance / n as f64).sqrt());
        Some(slower + of_second(i)? - of_second(found.best)? > of_run.max(student(z, freedom) * error))
    };
    let mut tied: Vec<usize> =
        (0..costs.len()).filter(|&i| i != found.best && costs[i].is_some() && dearer(i) != Some(true)).collect();
    let value = |i: &usize| costs[*i].map_or(f64::INFINITY, |e| e.value);
    tied.sort_by(|a, b| value(a).total_cmp(&value(b)));
    Some(Cheapest { tied, ..found })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn e(value: f64, half: f64) -> Option<Estimate> {
        Estimate::with_interval(value, value - half, value + half)
    }

    #[test]
    fn the_cheapest_stands_alone_when_no_interval_reaches_it() {
        let c = cheapest(&[e(3.0, 0.1), None, e(1.0, 0.1), e(2.0, 0.1)]).unwrap();
        assert_eq!(c, Cheapest { best: 2, tied: vec![], dearest: 0 });
    }

    #[test]
    fn figures_whose_intervals_overlap_are_tied() {
        let c = cheapest(&[e(1.3, 0.2), e(1.0, 0.2), e(2.0, 0.1), e(1.1, 0.05)]).unwrap();
        assert_eq!((c.best, c.tied), (1, vec![3, 0]));
    }

    #[test]
    fn unknown_costs_have_no_cheapest() {
        assert_eq!(cheapest(&[None, None]), None);
    }

    const KNOWN: Spread = Spread { launch: 0.01, launch_freedom: 2.0, run: 0.02, run_freedom: 6.0 };

    #[test]
    fn cells_of_a_run_are_told_apart_round_by_round() {
        // Wide intervals, since runs differ by much; within the run the second is dearer by 10 % in each round.
        let costs = [e(1.0, 0.2), e(1.1, 0.2), None];
        let drifting = [vec![1.0, 1.3, 0.8], vec![1.1, 1.43, 0.88], vec![]];
        assert_eq!(cheapest(&costs).unwrap().tied, [1]);
        assert_eq!(cheapest_of_run(&costs, &drifting, &KNOWN).unwrap().tied, [0; 0]);
        // Of one launch each only as much as launches are known to differ by.
        let one = [vec![1.0], vec![1.1], vec![]];
        assert_eq!(cheapest_of_run(&costs, &one, &KNOWN).unwrap().tied, [0; 0]);
        let near = [e(1.0, 0.2), e(1.02, 0.2), None];
        assert_eq!(cheapest_of_run(&near, &[vec![1.0], vec![1.02], vec![]], &KNOWN).unwrap().tied, [1]);
    }

    /// Runs of `cells` equal cells: how often one of them is called the cheapest of all.
    fn wrong(cells: usize, launch: f64, drift: f64) -> f64 {
        let mut random = crate::stats::random::SplitMix64::new(11);
        let mut normal = move || (0..12).map(|_| (random.draw() >> 11) as f64 / (1u64 << 53) as f64).sum::<f64>() - 6.0;
        let said = (0..2000).filter(|_| {
            let of_round: Vec<f64> = (0..3).map(|_| drift * normal()).collect();
            let rounds: Vec<Vec<f64>> =
                (0..cells).map(|_| of_round.iter().map(|d| (d + launch * normal()).exp()).collect()).collect();
            let costs: Vec<_> = rounds.iter().map(|r| e(crate::stats::median(r).unwrap(), 0.1)).collect();
            cheapest_of_run(&costs, &rounds, &KNOWN).unwrap().tied.is_empty()
        });
        said.count() as f64 / 2000.0
    }

    #[test]
    fn of_equal_cells_none_is_called_the_cheapest_more_often_than_one_time_in_twenty() {
        for cells in [2, 4, 12] {
            // Where launches differ by half more than is assumed of the machine it is a little more often.
            for (launch, drift, most) in [(0.003, 0.0, 0.05), (0.01, 0.05, 0.05), (0.015, 0.02, 0.06)] {
                let share = wrong(cells, launch, drift);
                assert!(share <= most, "{cells} cells, launches {launch}, drift {drift}: {share}");
            }
        }
    }
}
