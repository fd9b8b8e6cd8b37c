//! A curve of bounded length: the losses of many steps, neighbours averaged where there are too many.

use super::learned::Point;
use serde::{Deserialize, Serialize};

/// The most points that are kept.
const MOST: usize = 256;

/// The losses of steps, in order.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(in crate::runner) struct Curve {
    /// Steps that a point is the mean of.
    stride: u32,
    points: Vec<Point>,
    /// Sum of the losses of the steps that are no point yet, and how many they are.
    open: (f64, u32),
    last: Point,
}

impl Default for Curve {
    /// Without points.
    fn default() -> Self {
        Self { stride: 1, points: Vec::new(), open: (0.0, 0), last: Point::default() }
    }
}

impl Curve {
    /// The next step's loss, and where it was.
    pub(super) fn add(&mut self, at: Point) {
        self.open = (self.open.0 + at.loss, self.open.1 + 1);
        self.last = at;
        if self.open.1 == self.stride {
            self.close();
        }
        if self.points.len() > MOST {
            // A point is the mean of equally many steps: so is that of two points.
            let halved =
                self.points.chunks_exact(2).map(|two| Point { loss: (two[0].loss + two[1].loss) / 2.0, ..two[1] });
            let rest = self.points.chunks_exact(2).remainder().first().copied();
            let halved: Vec<Point> = halved.collect();
            self.points = halved;
            if let Some(rest) = rest {
                self.open = (rest.loss * f64::from(self.stride), self.stride);
            }
            self.stride *= 2;
        }
    }

    fn close(&mut self) {
        if self.open.1 > 0 {
            self.points.push(Point { loss: self.open.0 / f64::from(self.open.1), ..self.last });
            self.open = (0.0, 0);
        }
    }

    /// All of it, the steps that fill no point as a last one.
    pub(super) fn finish(mut self) -> Vec<Point> {
        self.close();
        self.points
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curve(steps: u64) -> Vec<Point> {
        let mut curve = Curve::default();
        for i in 1..=steps {
            curve.add(Point { step: i, tokens: 10 * i, seconds: i as f64, loss: i as f64 });
        }
        curve.finish()
    }

    #[test]
    fn a_long_curve_is_thinned_by_means_and_keeps_its_end() {
        assert_eq!(curve(0), []);
        assert_eq!(curve(200).len(), 200);
        for steps in [257, 258, 1000, 12_345, 100_000] {
            let points = curve(steps);
            assert!((MOST / 2..=MOST + 1).contains(&points.len()), "{steps}: {}", points.len());
            assert_eq!((points.last().unwrap().step, points.last().unwrap().tokens), (steps, 10 * steps));
            // Losses rise by 1 a step: a point's is the mean of the steps since the one before.
            let mut before = 0;
            for p in points {
                let mean = (before + 1 + p.step) as f64 / 2.0;
                assert!((p.loss - mean).abs() < 1e-6, "{steps}: {p:?}, not {mean}");
                before = p.step;
            }
        }
    }
}
