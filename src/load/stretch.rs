//! Which part of the load counts: warm-up, a window, and load kept up until all that was due in the window is answered. Pure.

use super::record::Record;
use crate::stats::median_interval;

/// Fewest requests after which a window may end because it is precise enough: as many as a 99th percentile takes.
const FEWEST: usize = 100;
/// Shares of `max_seconds` that warming up takes at least and at most, where no number of requests is said.
const WARM_UP: (f64, f64) = (0.1, 0.5);

/// When it is enough.
#[derive(Clone, Debug, PartialEq)]
pub struct Rules {
    /// Requests that warm up; `None`: as many as are under way at a time, and a tenth of the time.
    pub warm_up: Option<u32>,
    /// Requests that are under way at a time, or so many as tell that the server answers.
    pub at_a_time: u32,
    /// The shortest window.
    pub min_seconds: f64,
    /// The longest.
    pub max_seconds: f64,
    /// Half width of the 95 % interval of the median E2E, relative, at which it is enough.
    pub precision: f64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    WarmUp,
    Measuring {
        from: f64,
    },
    /// No request that is due from now on counts.
    Closing {
        from: f64,
        to: f64,
    },
    Over {
        from: f64,
        to: f64,
    },
}

/// Where the load is.
#[derive(Clone, Debug)]
pub struct Stretch {
    rules: Rules,
    state: State,
    /// Requests that are over, whatever became of them.
    ended: u32,
    /// Of requests that were due in the window and answered, as they were.
    e2e: Vec<f64>,
    look_at: usize,
}

impl Stretch {
    /// At the beginning.
    pub fn new(rules: Rules) -> Self {
        let state = if rules.warm_up == Some(0) { State::Measuring { from: 0.0 } } else { State::WarmUp };
        Self { rules, state, ended: 0, e2e: Vec::new(), look_at: FEWEST }
    }

    /// A request is over.
    pub fn note(&mut self, record: &Record) {
        self.ended = self.ended.saturating_add(1);
        if let State::Measuring { from } = self.state
            && record.due >= from
        {
            self.e2e.extend(record.e2e());
        }
    }

    /// Time has passed. `oldest`: when the request that has been under way for longest was due. Whether it is over.
    pub fn look(&mut self, now: f64, oldest: Option<f64>) -> bool {
        let state = self.state;
        match state {
            State::WarmUp if self.is_warm(now) => self.state = State::Measuring { from: now },
            State::Measuring { from } if self.is_enough(now - from) => self.state = State::Closing { from, to: now },
            State::Closing { from, to } if oldest.is_none_or(|due| due >= to) => self.state = State::Over { from, to },
            _ => {}
        }
        matches!(self.state, State::Over { .. })
    }

    /// From when to when requests that were due count.
    pub fn window(&self) -> Option<(f64, f64)> {
        match self.state {
            State::Closing { from, to } | State::Over { from, to } => Some((from, to)),
            State::WarmUp | State::Measuring { .. } => None,
        }
    }

    /// Whether it measures, and how many requests that count have been answered.
    pub fn answered(&self) -> Option<usize> {
        (self.state != State::WarmUp).then_some(self.e2e.len())
    }

    /// Requests that were over before the window began, while it has not ended.
    pub fn ended(&self) -> u32 {
        self.ended
    }

    /// Half the width of the median E2E's interval over it.
    pub fn precision(&self) -> Option<f64> {
        let interval = median_interval(&self.e2e)?;
        Some((interval.high - interval.low) / 2.0 / interval.point).filter(|p| p.is_finite())
    }

    fn is_warm(&self, now: f64) -> bool {
        let (least, most) = (WARM_UP.0 * self.rules.max_seconds, WARM_UP.1 * self.rules.max_seconds);
        let enough = match self.rules.warm_up {
            Some(requests) => self.ended >= requests,
            None => self.ended >= self.rules.at_a_time && now >= least,
        };
        enough || now >= most
    }

    fn is_enough(&mut self, elapsed: f64) -> bool {
        if elapsed >= self.rules.max_seconds {
            return true;
        }
        if elapsed < self.rules.min_seconds || self.e2e.len() < self.look_at {
            return false;
        }
        self.look_at = self.e2e.len() + self.e2e.len() / 8;
        self.precision().is_some_and(|p| p <= self.rules.precision)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::record::Outcome;

    fn rules(warm_up: Option<u32>) -> Rules {
        Rules { warm_up, at_a_time: 4, min_seconds: 2.0, max_seconds: 20.0, precision: 0.01 }
    }

    fn answered(due: f64, seconds: f64) -> Record {
        let mut record = Record::due(due, due);
        (record.first, record.last) = (Some(due + seconds / 2.0), Some(due + seconds));
        record.outcome = Outcome::Answered;
        record
    }

    #[test]
    fn it_warms_up_measures_and_waits_for_whatever_was_due_in_the_window() {
        let mut stretch = Stretch::new(rules(None));
        assert!(!stretch.look(1.0, Some(0.0)) && stretch.answered().is_none());
        (0..4).for_each(|_| stretch.note(&answered(0.0, 1.0)));
        assert!(!stretch.look(1.9, Some(1.0)) && stretch.answered().is_none(), "a tenth of the time is not over");
        assert!(!stretch.look(2.0, Some(1.0)) && stretch.answered() == Some(0));
        stretch.note(&answered(1.5, 1.0));
        stretch.note(&answered(2.0, 1.0));
        assert_eq!(stretch.answered(), Some(1), "what was due before the window does not count");
        assert!(!stretch.look(22.0, Some(21.0)));
        assert_eq!(stretch.window(), Some((2.0, 22.0)));
        assert!(!stretch.look(23.0, Some(21.9)));
        assert!(stretch.look(24.0, Some(22.0)));
        assert_eq!(stretch.window(), Some((2.0, 22.0)));
    }

    #[test]
    fn it_ends_early_when_a_hundred_requests_are_precise() {
        let mut stretch = Stretch::new(rules(Some(0)));
        for i in 0..99 {
            stretch.note(&answered(f64::from(i) * 0.1, 1.0 + 0.001 * f64::from(i * 37 % 10)));
        }
        assert!(!stretch.look(10.0, None) && stretch.window().is_none());
        stretch.note(&answered(9.9, 1.0));
        assert!(!stretch.look(10.1, Some(10.0)) && stretch.window() == Some((0.0, 10.1)));
        assert!(!stretch.look(11.0, Some(10.0)) && stretch.look(12.0, None));
    }

    #[test]
    fn a_server_that_answers_nothing_does_not_warm_up_for_ever() {
        let mut stretch = Stretch::new(rules(None));
        assert!(!stretch.look(10.0, Some(0.0)) && stretch.answered() == Some(0));
        assert!(!stretch.look(30.0, Some(0.0)) && stretch.window() == Some((10.0, 30.0)));
        assert!(!stretch.look(31.0, Some(0.0)), "what is still under way was due before");
        assert!(stretch.look(40.0, None));
    }
}
