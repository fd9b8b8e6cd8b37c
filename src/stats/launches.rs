//! A figure of several launches of one program, and its intervals.
//!
//! Steps of one launch say how well that launch is known. Launches differ by more (memory layout, neighbours, clock rates), and runs
//! by more again. On the logarithms of medians,
//!
//! ```text
//! median of a launch = cell + run + launch + steps
//! ```
//!
//! the variance between launches is estimated from the launches themselves, moderated by what is known of machines of the kind (Smyth
//! 2004: a prior variance that counts as so many launches), since three launches alone say little of it; the variance between runs
//! comes from earlier runs on the machine or from its kind. Degrees of freedom are Satterthwaite's (1946), the quantile is a t's.

use super::{Interval, Sample, median, median_interval};

/// How launches and runs differ on a machine, as standard deviations of logarithms.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Spread {
    /// Between launches of one run.
    pub launch: f64,
    /// Launches that this counts as.
    pub launch_freedom: f64,
    /// Between runs, without what their launches differ by.
    pub run: f64,
    /// Runs that this counts as.
    pub run_freedom: f64,
}

/// The variance of a median of normal numbers over that of their mean: pi / 2 for many, less for few.
const OF_MEDIAN: [f64; 5] = [1.0, 1.0, 1.0, 1.346, 1.193];
const OF_MEDIAN_MANY: f64 = 1.571;

/// What several launches say.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct OfLaunches {
    /// Median of the launches' medians.
    pub value: f64,
    /// That holds the cell's figure as long as this run lasts: from the steps of one launch, or between several. `None` with one
    /// launch of too few steps.
    pub within_run: Option<Interval>,
    /// That another run on this machine is expected around.
    pub another_run: Interval,
}

/// The steps of each launch, in order, all over 0. `None` without steps, or with one that is no duration.
pub(crate) fn of_launches(launches: &[&[f64]], spread: &Spread) -> Option<OfLaunches> {
    let medians = launches.iter().map(|l| Some(Sample::new(l).ok()?.median())).collect::<Option<Vec<f64>>>()?;
    let logs: Vec<f64> = medians.iter().map(|m| m.ln()).collect();
    // Of an even number the geometric mean of the middle two.
    let value = median(&logs)?.exp();
    let steps: Vec<Option<f64>> = launches.iter().map(|l| variance_of_steps(l)).collect();
    let k = logs.len() as f64;
    let factor = OF_MEDIAN.get(logs.len()).copied().unwrap_or(OF_MEDIAN_MANY);
    let (between, freedom) = variance_between(&logs, spread);
    // What the steps of all launches leave open, which cannot be less than what shows between them.
    let of_steps = steps.iter().flatten().sum::<f64>() / (k * k);
    let launch = (between / k * factor).max(of_steps);
    let run = spread.run.powi(2);
    let total = launch + run;
    let satterthwaite = total * total / (launch * launch / freedom + run * run / spread.run_freedom);
    let another_run = around(value, (launch + run).sqrt() * t95(satterthwaite));
    let within_run = match launches {
        [one] => median_interval(one),
        _ => Some(around(value, launch.sqrt() * t95(freedom))),
    };
    Some(OfLaunches { value, within_run, another_run })
}

/// The variance between launches and its degrees of freedom.
fn variance_between(logs: &[f64], spread: &Spread) -> (f64, f64) {
    let n = logs.len() as f64;
    let mean = logs.iter().sum::<f64>() / n;
    let squares: f64 = logs.iter().map(|x| (x - mean).powi(2)).sum();
    let freedom = spread.launch_freedom + n - 1.0;
    ((spread.launch_freedom * spread.launch.powi(2) + squares) / freedom, freedom)
}

/// The variance of a launch's log median that its own steps leave; `None` with too few of them.
fn variance_of_steps(steps: &[f64]) -> Option<f64> {
    let i = median_interval(steps)?;
    Some(((i.high / i.low).ln() / 2.0 / Z).powi(2)).filter(|v| v.is_finite())
}

fn around(value: f64, half: f64) -> Interval {
    Interval { point: value, low: value * (-half).exp(), high: value * half.exp(), confidence: 0.95 }
}

/// Two-sided 95 % of the normal distribution.
const Z: f64 = 1.959_964;

/// Two-sided 95 % quantile of Student's t with so many degrees of freedom, 1 or more.
pub(crate) fn t95(freedom: f64) -> f64 {
    student(Z, freedom)
}

/// The quantile of Student's t that stands where `z` stands in the normal distribution. Within 1.1 % from 2 degrees of freedom on;
/// of fewer, what 2 have.
pub(crate) fn student(z: f64, freedom: f64) -> f64 {
    let n = freedom.max(2.0);
    // Hill (1970), algorithm 396, as its inverse: t = sqrt(n (exp(c z^2) - 1)).
    let c = (n - 5.0 / 6.0) / (n - 2.0 / 3.0 + 1.0 / (10.0 * n)).powi(2);
    (n * ((c * z * z).exp() - 1.0)).sqrt()
}

/// The quantile of the normal distribution that leaves `tail` (0 to 0.5) above it, within 0.0005 (Abramowitz and Stegun 1964, 26.2.23).
pub(crate) fn normal_tail(tail: f64) -> f64 {
    let t = (-2.0 * tail.clamp(1e-300, 0.5).ln()).sqrt();
    let above = 2.515_517 + t * (0.802_853 + t * 0.010_328);
    let below = 1.0 + t * (1.432_788 + t * (0.189_269 + t * 0.001_308));
    t - above / below
}

/// One launch against another, round by round: the mean difference of logarithms and its standard error with degrees of freedom.
/// `prior` is what a difference of two launches is known to vary by. `None` unless both have the same number of launches.
pub(crate) fn paired(a: &[f64], b: &[f64], prior: &Spread) -> Option<(f64, f64, f64)> {
    if a.is_empty() || a.len() != b.len() || !a.iter().chain(b).all(|x| *x > 0.0 && x.is_finite()) {
        return None;
    }
    let differences: Vec<f64> = a.iter().zip(b).map(|(a, b)| (a / b).ln()).collect();
    let n = differences.len() as f64;
    let of_two = Spread { launch: prior.launch * 2f64.sqrt(), ..*prior };
    let (variance, freedom) = variance_between(&differences, &of_two);
    Some((differences.iter().sum::<f64>() / n, (variance / n).sqrt(), freedom))
}

/// The variance of a launch's logarithm in a run of several cells, without what differs between cells and between rounds, and its
/// degrees of freedom: the residuals of a table with two ways (Scheffe 1959, 4.1). Of the cells with most launches; `None` with
/// fewer than two such cells, or one launch each.
pub(crate) fn residual_variance(rounds: &[Vec<f64>]) -> Option<(f64, f64)> {
    let n = rounds.iter().map(Vec::len).max().filter(|n| *n > 1)?;
    let log = |all: &Vec<f64>| all.iter().map(|x| x.ln()).collect::<Vec<f64>>();
    let table: Vec<Vec<f64>> = rounds.iter().filter(|all| all.len() == n).map(log).collect();
    let k = table.len();
    let mean = |x: &mut dyn Iterator<Item = f64>, n: usize| x.sum::<f64>() / n as f64;
    let of_round: Vec<f64> = (0..n).map(|j| mean(&mut table.iter().map(|cell| cell[j]), k)).collect();
    let of_all = mean(&mut of_round.iter().copied(), n);
    let squares = table.iter().map(|cell| {
        let of_cell = mean(&mut cell.iter().copied(), n);
        cell.iter().zip(&of_round).map(|(x, round)| (x - of_cell - round + of_all).powi(2)).sum::<f64>()
    });
    let (squares, freedom) = (squares.sum::<f64>(), ((k - 1) * (n - 1)) as f64);
    (freedom > 0.0 && squares.is_finite()).then(|| (squares / freedom, freedom))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::random::SplitMix64;

    const KNOWN: Spread = Spread { launch: 0.01, launch_freedom: 2.0, run: 0.02, run_freedom: 6.0 };

    #[test]
    fn quantiles_are_those_of_the_tables() {
        for (freedom, want) in
            [(2.0, 4.303), (3.0, 3.182), (4.0, 2.776), (6.0, 2.447), (10.0, 2.228), (30.0, 2.042), (1e6, 1.960)]
        {
            assert!((t95(freedom) / want - 1.0).abs() < 0.011, "{freedom}: {} and not {want}", t95(freedom));
        }
        // 99.5 % one-sided, 5 degrees of freedom: 4.032.
        assert!((student(2.575_829, 5.0) / 4.032 - 1.0).abs() < 0.011);
    }

    #[test]
    fn tails_of_the_normal_distribution_are_those_of_the_tables() {
        for (tail, want) in [(0.5, 0.0), (0.05, 1.645), (0.025, 1.960), (0.005, 2.576), (0.0005, 3.291)] {
            assert!((normal_tail(tail) - want).abs() < 6e-4, "{tail}: {}", normal_tail(tail));
        }
    }

    #[test]
    fn one_launch_has_the_interval_of_its_steps_and_a_wider_one_of_another_run() {
        let steps: Vec<f64> = (0..200).map(|i| 1.0 + 0.001 * f64::from(i * 37 % 200)).collect();
        let found = of_launches(&[&steps], &KNOWN).unwrap();
        assert_eq!(found.within_run, median_interval(&steps));
        let (narrow, wide) = (found.within_run.unwrap(), found.another_run);
        assert!(wide.low < narrow.low && narrow.high < wide.high && wide.point == found.value);
        // t of about 8 degrees of freedom times sqrt(0.01^2 + 0.02^2).
        assert!(((wide.high / wide.point).ln() / 0.0224 / 2.25 - 1.0).abs() < 0.05, "{wide:?}");
        assert_eq!(of_launches(&[&[1.0, -1.0]], &KNOWN), None);
        assert_eq!(of_launches(&[], &KNOWN), None);
    }

    #[test]
    fn launches_that_differ_widen_both_and_one_strange_launch_does_not_move_the_figure() {
        let of = |x: [f64; 3]| of_launches(&x.each_ref().map(std::slice::from_ref), &KNOWN).unwrap();
        let (alike, apart) = (of([1.0, 1.001, 0.999]), of([1.0, 1.001, 1.5]));
        assert_eq!((alike.value, apart.value), (1.0, 1.001));
        let width = |i: Interval| (i.high / i.low).ln();
        assert!(width(apart.within_run.unwrap()) > 5.0 * width(alike.within_run.unwrap()));
        assert!(width(apart.another_run) > 2.0 * width(alike.another_run));
    }

    fn normal(random: &mut SplitMix64) -> f64 {
        let uniform = |random: &mut SplitMix64| (random.draw() >> 11) as f64 / (1u64 << 53) as f64;
        (0..12).map(|_| uniform(random)).sum::<f64>() - 6.0
    }

    /// Share of simulated runs whose interval holds the cell's own figure, by numbers of launches; launches and runs vary as is said.
    fn coverage(launches: usize, launch: f64, run: f64) -> f64 {
        let mut random = SplitMix64::new(7);
        let held = (0..2000).filter(|_| {
            let of_run = run * normal(&mut random);
            let all: Vec<[f64; 1]> = (0..launches).map(|_| [(of_run + launch * normal(&mut random)).exp()]).collect();
            let found = of_launches(&all.iter().map(|l| &l[..]).collect::<Vec<_>>(), &KNOWN).unwrap().another_run;
            found.low <= 1.0 && 1.0 <= found.high
        });
        held.count() as f64 / 2000.0
    }

    #[test]
    fn where_machines_vary_as_assumed_or_less_nineteen_of_twenty_intervals_hold() {
        for launches in [1, 2, 3, 5] {
            for (launch, run) in [(0.01, 0.02), (0.005, 0.01), (0.02, 0.015)] {
                let share = coverage(launches, launch, run);
                assert!(share >= 0.93, "{launches} launches, {launch}, {run}: {share}");
            }
        }
    }

    #[test]
    fn residuals_are_what_neither_cells_nor_rounds_explain() {
        // Cells that differ by a factor, rounds that drift: nothing is left.
        let drifting = [vec![1.0, 1.3, 0.8], vec![2.0, 2.6, 1.6]];
        let (variance, freedom) = residual_variance(&drifting).unwrap();
        assert!(variance < 1e-28 && freedom == 2.0, "{variance}");
        // One launch of four is off by d: (1/4) d^2 is left, with one degree of freedom.
        let off = [vec![1.0, 1.0], vec![1.0, 0.1f64.exp()], vec![7.0]];
        let (variance, freedom) = residual_variance(&off).unwrap();
        assert!((variance - 0.0025).abs() < 1e-12 && freedom == 1.0, "{variance}");
        assert_eq!(residual_variance(&[vec![1.0], vec![2.0]]), None);
        assert_eq!(residual_variance(&[vec![1.0, 2.0], vec![2.0]]), None);
        assert_eq!(residual_variance(&[]), None);
    }

    #[test]
    fn paired_differences_are_of_rounds() {
        // Both drift by 5 % together: the difference is sharp.
        let (mean, error, freedom) = paired(&[1.0, 1.05, 1.1], &[2.0, 2.1, 2.2], &KNOWN).unwrap();
        assert!((mean - 0.5f64.ln()).abs() < 1e-12 && error < 0.01 && freedom == 4.0, "{mean} {error} {freedom}");
        assert_eq!(paired(&[1.0], &[1.0, 2.0], &KNOWN), None);
    }
}
