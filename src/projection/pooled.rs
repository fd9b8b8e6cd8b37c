//! One's own measurements: how far a prediction moves toward them, and how much its bar narrows.
//!
//! An error is a source's own part and a row's part ([`super::bars::Effects`]). A few rows of a source tell of its own part:
//! the prediction is moved by their mean, shrunk as far as they are few (partial pooling), and what is left of the own part's
//! variance stays in the bar.

use super::bars::{Bars, Effects};
use super::nested::Held;
use super::published::{Case, Group};
use super::validate::{Summary, sources, summary};

/// What some measurements do to predictions of the same quantity.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Pooled {
    /// To be taken from the ln of a prediction.
    pub shift: f64,
    /// Factor of the bar's half width.
    pub narrower: f64,
    /// Standard deviation in ln that is left.
    pub spread: f64,
}

/// Rows of one's own that count as much as all others' for how far rows differ among themselves.
const OWN_ROWS: f64 = 4.0;

/// From errors, ln(predicted / measured).
pub(crate) fn pooled(errors: &[f64], e: Effects) -> Pooled {
    let n = errors.len() as f64;
    let mean = if errors.is_empty() { 0.0 } else { errors.iter().sum::<f64>() / n };
    let squares = errors.iter().map(|x| (x - mean).powi(2)).sum::<f64>();
    let within = (OWN_ROWS * e.within.powi(2) + squares) / (OWN_ROWS + (n - 1.0).max(0.0));
    let between = e.between.powi(2);
    let gain = n * between / (n * between + within);
    let left = within + between * (1.0 - gain);
    let narrower = (left / (e.within.powi(2) + between)).sqrt();
    Pooled { shift: gain * mean, narrower: narrower.min(1.0), spread: left.sqrt() }
}

/// Errors of rows whose source gave some others as one's own measurements.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Gain {
    pub group: Group,
    pub measured: usize,
    pub sources: usize,
    /// Without them, and with them, of the same rows.
    pub before: Summary,
    pub after: Summary,
    /// Shares of these rows inside the 90 % bar, and median half widths in ln.
    pub inside: (f64, f64),
    pub half: (f64, f64),
}

/// Rows that a source has to have beyond those that are given.
const LEAST_OTHERS: usize = 3;

/// For a number of own measurements, spread evenly over a source's rows of one quantity, what they do to the others'.
pub(crate) fn gains(cases: &[Case], held: &[Held], bars: &Bars, measured: usize) -> Vec<Gain> {
    Group::ALL.into_iter().filter_map(|group| gain(cases, held, bars, group, measured)).collect()
}

fn gain(cases: &[Case], held: &[Held], bars: &Bars, group: Group, measured: usize) -> Option<Gain> {
    let effects = bars.0.iter().find(|b| b.group == group)?.effects;
    let (mut before, mut after, mut halves, mut narrower) = (vec![], vec![], vec![], vec![]);
    let mut counted = 0;
    let own = |h: &&Held| cases.get(h.case).is_some_and(|c| c.quantity.group() == group);
    let of: Vec<&Held> = held.iter().filter(own).collect();
    for source in sources(of.iter().filter_map(|h| cases.get(h.case))) {
        let mut there = false;
        for quantity in super::published::Quantity::ALL {
            let is = |h: &&&Held| cases.get(h.case).is_some_and(|c| c.source == source && c.quantity == quantity);
            let rows: Vec<&Held> = of.iter().filter(is).copied().collect();
            if rows.len() < measured + LEAST_OTHERS {
                continue;
            }
            there = true;
            let error = |h: &Held| cases.get(h.case).map_or(0.0, |c| (h.predicted / c.published).ln());
            let given = |i: usize| (0..measured).any(|k| i == (2 * k + 1) * rows.len() / (2 * measured));
            let errors: Vec<f64> = (0..rows.len()).filter(|i| given(*i)).map(|i| error(rows[i])).collect();
            let p = pooled(&errors, effects);
            for i in (0..rows.len()).filter(|i| !given(*i)) {
                before.push(error(rows[i]));
                after.push(error(rows[i]) - p.shift);
                halves.push(rows[i].half.unwrap_or(f64::INFINITY));
                narrower.push(rows[i].half.unwrap_or(f64::INFINITY) * p.narrower);
            }
        }
        counted += usize::from(there);
    }
    let share = |errors: &[f64], halves: &[f64]| {
        errors.iter().zip(halves).filter(|(e, h)| e.abs() <= **h).count() as f64 / errors.len().max(1) as f64
    };
    let middle = |values: &[f64]| {
        let mut v = values.to_vec();
        v.sort_by(f64::total_cmp);
        super::validate::quantile(&v, 0.5)
    };
    Some(Gain {
        group,
        measured,
        sources: counted,
        inside: (share(&before, &halves), share(&after, &narrower)),
        half: (middle(&halves), middle(&narrower)),
        before: summary(&before)?,
        after: summary(&after)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const EFFECTS: Effects = Effects { between: 0.3, within: 0.1 };

    #[test]
    fn more_measurements_move_a_prediction_further_and_narrow_its_bar() {
        let of = |n: usize| pooled(&vec![0.4; n], EFFECTS);
        assert_eq!((of(0).shift, of(0).narrower), (0.0, 1.0));
        let shifts: Vec<f64> = [1, 3, 10, 100].map(|n| of(n).shift).into();
        assert!(shifts.windows(2).all(|w| w[1] > w[0]) && shifts[0] > 0.3 && shifts[3] < 0.4, "{shifts:?}");
        let bars: Vec<f64> = [0, 1, 3, 10].map(|n| of(n).narrower).into();
        assert!(bars.windows(2).all(|w| w[1] < w[0]), "{bars:?}");
        // What rows differ by among themselves stays.
        assert!(of(1000).spread > 0.0);
    }

    #[test]
    fn measurements_that_disagree_narrow_less() {
        let agreeing = pooled(&[0.4, 0.4, 0.4], EFFECTS);
        let disagreeing = pooled(&[0.0, 0.4, 0.8], EFFECTS);
        assert!(disagreeing.narrower > 1.5 * agreeing.narrower && disagreeing.shift < agreeing.shift);
    }
}
