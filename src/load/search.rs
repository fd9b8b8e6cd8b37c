//! The largest load that holds: doubled until one does not, then halved in between. Pure.

use serde::{Deserialize, Serialize};

/// Times that the load is halved while none has held.
const MOST_HALVINGS: u32 = 10;

/// What is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Search {
    /// How far apart the largest load that held and the smallest that did not may be in the end, relative.
    pub within: f64,
}

/// How far the search is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Bisection {
    within: f64,
    /// Whether loads are whole numbers.
    whole: bool,
    next: f64,
    held: Option<f64>,
    failed: Option<f64>,
    halvings: u32,
}

impl Bisection {
    /// Begins at a load.
    pub(crate) fn new(search: Search, start: f64, whole: bool) -> Self {
        Self { within: search.within, whole, next: start, held: None, failed: None, halvings: 0 }
    }

    /// The load to try next; `None` where it is known closely enough, or where none holds.
    pub(crate) fn next(&self) -> Option<f64> {
        match (self.held, self.failed) {
            (Some(held), Some(failed)) if self.whole && failed - held <= 1.0 => None,
            (Some(held), Some(failed)) if failed / held <= 1.0 + self.within => None,
            (None, Some(failed)) if self.halvings >= MOST_HALVINGS || (self.whole && failed <= 1.0) => None,
            _ => Some(self.next),
        }
    }

    /// The load that was tried held, or did not.
    pub(crate) fn note(&mut self, load: f64, holds: bool) {
        if holds {
            self.held = Some(self.held.map_or(load, |h| h.max(load)));
        } else {
            self.failed = Some(self.failed.map_or(load, |f| f.min(load)));
        }
        self.next = match (self.held, self.failed) {
            (Some(held), Some(failed)) => self.rounded((held * failed).sqrt(), held, failed),
            (Some(held), None) => held * 2.0,
            (None, Some(failed)) => {
                self.halvings += 1;
                if self.whole { (failed / 2.0).floor().max(1.0) } else { failed / 2.0 }
            }
            (None, None) => load,
        };
    }

    /// The largest load that held, and the smallest that did not.
    pub(crate) fn bounds(&self) -> (Option<f64>, Option<f64>) {
        (self.held, self.failed)
    }

    fn rounded(&self, x: f64, held: f64, failed: f64) -> f64 {
        if self.whole { x.round().clamp(held + 1.0, (failed - 1.0).max(held + 1.0)) } else { x }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Searches where loads up to `limit` hold; the bounds, and how many were tried.
    fn of(limit: f64, start: f64, whole: bool) -> ((Option<f64>, Option<f64>), u32) {
        let mut search = Bisection::new(Search { within: 0.05 }, start, whole);
        let mut tried = 0;
        while let Some(load) = search.next() {
            assert!(!whole || load.fract() == 0.0, "{load}");
            search.note(load, load <= limit);
            tried += 1;
            assert!(tried < 40);
        }
        (search.bounds(), tried)
    }

    #[test]
    fn the_limit_lies_between_the_bounds_from_wherever_it_begins() {
        for limit in [0.3, 1.0, 7.7, 100.0] {
            for start in [0.5, 1.0, 8.0, 90.0] {
                let ((held, failed), tried) = of(limit, start, false);
                let (held, failed) = (held.unwrap(), failed.unwrap());
                assert!(held <= limit && limit < failed && failed / held <= 1.05, "{limit}: {held}, {failed}");
                assert!(tried <= 16, "{tried}");
            }
        }
        assert_eq!(of(37.0, 1.0, true).0, (Some(37.0), Some(38.0)));
        assert_eq!(of(1.0, 64.0, true).0, (Some(1.0), Some(2.0)));
    }

    #[test]
    fn where_none_holds_it_ends() {
        assert_eq!(of(0.0, 8.0, true).0, (None, Some(1.0)));
        let ((held, failed), tried) = of(0.0, 8.0, false);
        assert!(held.is_none() && failed.unwrap() < 0.02 && tried == 10, "{failed:?} {tried}");
    }
}
