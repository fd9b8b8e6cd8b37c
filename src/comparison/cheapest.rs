//! Which is cheapest, and what cannot be told from it.

use crate::cost::metric::Estimate;

/// The lowest of several figures, and those whose intervals overlap with its own.
#[derive(Clone, Debug, PartialEq)]
pub struct Cheapest {
    /// Index of the lowest value.
    pub best: usize,
    /// The others within noise of it, by value ascending. Empty when it stands alone.
    pub tied: Vec<usize>,
    /// Index of the highest value.
    pub dearest: usize,
}

/// The lowest of `costs`; `None` when none is known. An unknown cost neither wins nor ties.
pub fn cheapest(costs: &[Option<Estimate>]) -> Option<Cheapest> {
    let mut known: Vec<(usize, Estimate)> = costs.iter().enumerate().filter_map(|(i, c)| Some((i, (*c)?))).collect();
    known.sort_by(|a, b| a.1.value.total_cmp(&b.1.value));
    let (best, lowest) = *known.first()?;
    let (dearest, _) = *known.last()?;
    let tied = known.iter().skip(1).filter(|(_, e)| e.overlaps(&lowest)).map(|(i, _)| *i).collect();
    Some(Cheapest { best, tied, dearest })
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
}
