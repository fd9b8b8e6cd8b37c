//! The machine's own speed through a sweep: a canary before the first launch, between launches and after the last.

use crate::hardware::machine::Rates;
use crate::runner::measurement::Measurement;

/// Tells how fast the machine is now.
pub(crate) type Canary<'a> = dyn FnMut() -> Rates + 'a;

/// A canary beside the launches of a sweep.
#[derive(Default)]
pub(crate) struct Followed<'a> {
    canary: Option<Box<Canary<'a>>>,
    /// What it said after the launch before, which is before the next.
    last: Option<Rates>,
}

impl std::fmt::Debug for Followed<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Followed").field("last", &self.last).finish_non_exhaustive()
    }
}

impl<'a> Followed<'a> {
    /// `None`: nothing is asked, and nothing is said.
    pub(crate) fn by(canary: Option<Box<Canary<'a>>>) -> Self {
        Self { canary, last: None }
    }

    /// Makes a launch and notes what the machine's rates were around it: the mean of before and after.
    pub(crate) fn around(&mut self, launch: impl FnOnce() -> Measurement) -> Measurement {
        let Some(canary) = &mut self.canary else { return launch() };
        let before = self.last.take().unwrap_or_else(&mut *canary);
        let mut measurement = launch();
        let after = canary();
        self.last = Some(after);
        if let Some(figures) = &mut measurement.figures {
            figures.machine_rates = vec![before.mean(&after)];
        }
        measurement
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    fn rates(x: f64) -> Rates {
        Rates { f32_flops_per_second: x, read_bytes_per_second: 2.0 * x }
    }

    #[test]
    fn a_launch_has_the_mean_of_what_was_before_and_after_it() {
        let mut asked = 0.0;
        let mut followed = Followed::by(Some(Box::new(move || {
            asked += 1.0;
            rates(asked)
        })));
        let measurement = || fixture::heads().records[0].measurement.clone();
        let of = |m: Measurement| m.figures.unwrap().machine_rates;
        assert_eq!(of(followed.around(measurement)), [rates(1.5)]);
        assert_eq!(of(followed.around(measurement)), [rates(2.5)]);
        let failed = || Measurement { figures: None, ..measurement() };
        assert!(followed.around(failed).figures.is_none());
        assert_eq!(of(followed.around(measurement)), [rates(4.5)]);
        assert_eq!(of(Followed::default().around(measurement)), []);
    }
}
