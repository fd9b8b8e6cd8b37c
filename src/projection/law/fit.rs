//! Fits the law: Huber's loss of the logarithms' errors (delta 1e-3, Hoffmann et al. 2022, equation 3), from a grid of starts, by
//! MINPACK's Levenberg-Marquardt. For given exponents the law is linear in its other constants, so that each start of the grid has
//! the best of these already; and the error is made Huber's in steps, since its kinks stop whoever begins with them.

use super::{Law, Point};
use levenberg_marquardt::{LeastSquaresProblem, LevenbergMarquardt};
use nalgebra::storage::Owned;
use nalgebra::{DVector, Dyn, Matrix3, OMatrix, SVector, U5, Vector3};

/// Constants of the law.
pub(crate) const CONSTANTS: usize = 5;
/// Where errors of ln L begin to count by their size instead of their square; the first ones are there to get near.
const DELTAS: [f64; 3] = [1.0, 1e-2, 1e-3];
/// No exponent is larger.
const STEEPEST: f64 = 4.0;
/// Exponents that are tried first.
const STARTS: [f64; 7] = [0.05, 0.12, 0.25, 0.4, 0.6, 0.9, 1.4];
/// How many of the best starts are followed to their ends.
const FOLLOWED: usize = 6;
/// What stands for a constant of which the data see nothing, as a share of the loss.
const UNSEEN: f64 = 1e-3;

/// Runs in logarithms, about their middle.
#[derive(Clone, Debug)]
pub(crate) struct Logs {
    middle: (f64, f64),
    /// ln N and ln D less the middle, ln L.
    rows: Vec<[f64; 3]>,
}

impl Logs {
    pub(crate) fn of(points: &[Point]) -> Self {
        let n = points.len().max(1) as f64;
        let mean = |of: fn(&Point) -> f64| points.iter().map(|p| of(p).ln()).sum::<f64>() / n;
        let middle = (mean(|p| p.parameters), mean(|p| p.tokens));
        let row = |p: &Point| [p.parameters.ln() - middle.0, p.tokens.ln() - middle.1, p.loss.ln()];
        Self { middle, rows: points.iter().map(row).collect() }
    }

    /// The same runs with other losses.
    pub(crate) fn with(&self, ln_losses: impl Iterator<Item = f64>) -> Self {
        let rows = self.rows.iter().zip(ln_losses).map(|(r, l)| [r[0], r[1], l]).collect();
        Self { middle: self.middle, rows }
    }

    /// As many of the runs, each by its place.
    pub(crate) fn drawn(&self, mut place: impl FnMut() -> usize) -> Self {
        let rows = self.rows.iter().map(|_| self.rows[place()]).collect();
        Self { middle: self.middle, rows }
    }

    /// ln of the law's loss at each run, and how far the run's is above it.
    pub(crate) fn fitted(&self, law: &Law) -> (Vec<f64>, Vec<f64>) {
        let at = |r: &[f64; 3]| ln_loss(&inside(law), r);
        let fitted: Vec<f64> = self.rows.iter().map(at).collect();
        let errors = self.rows.iter().zip(&fitted).map(|(r, f)| r[2] - f).collect();
        (fitted, errors)
    }

    /// The law that fits best, from the grid of starts.
    pub(crate) fn law(&self) -> Option<Law> {
        self.law_near(None)
    }

    /// The same with one more start, and fewer of the grid: for runs that are much like those that the start fits.
    pub(crate) fn law_near(&self, near: Option<&Law>) -> Option<Law> {
        if self.rows.is_empty() {
            return None;
        }
        let mut starts: Vec<(f64, Inside)> = Vec::new();
        for alpha in STARTS {
            for beta in STARTS {
                let start = self.start(alpha, beta);
                starts.push((self.error(&start, DELTAS[1]), start));
            }
        }
        starts.sort_by(|a, b| a.0.total_cmp(&b.0));
        let grid = starts.iter().take(if near.is_some() { 1 } else { FOLLOWED }).map(|(_, s)| *s);
        let ends = near.map(inside).into_iter().chain(grid).map(|s| self.followed(s));
        let best = ends.map(|s| (self.error(&s, DELTAS[2]), s)).filter(|(e, _)| e.is_finite());
        best.min_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, s)| self.outside(&s))
    }

    /// Huber's loss.
    fn error(&self, at: &Inside, delta: f64) -> f64 {
        self.rows.iter().map(|r| huber(ln_loss(at, r) - r[2], delta)).sum()
    }

    fn followed(&self, start: Inside) -> Inside {
        DELTAS.iter().fold(start, |at, &delta| {
            let problem = Problem::new(&self.rows, delta, at);
            let solver = LevenbergMarquardt::new().with_ftol(1e-9).with_xtol(1e-7).with_patience(20);
            solver.minimize(problem).0.best.1
        })
    }

    /// The best floor and terms for these exponents, none below zero: least squares of relative errors over every choice of which
    /// of them there are.
    fn start(&self, alpha: f64, beta: f64) -> Inside {
        let columns = |r: &[f64; 3]| {
            let relative = (-r[2]).exp();
            Vector3::new(relative, relative * (-alpha * r[0]).exp(), relative * (-beta * r[1]).exp())
        };
        let (mut normal, mut right) = (Matrix3::zeros(), Vector3::zeros());
        for c in self.rows.iter().map(columns) {
            normal += c * c.transpose();
            right += c;
        }
        let mut best = (f64::INFINITY, Vector3::zeros());
        for there in 1..8u8 {
            let is = |i: usize| there & (1 << i) != 0;
            let (mut m, mut b) = (normal, right);
            for i in (0..3).filter(|i| !is(*i)) {
                m.row_mut(i).fill(0.0);
                m.column_mut(i).fill(0.0);
                m[(i, i)] = 1.0;
                b[i] = 0.0;
            }
            let Some(x) = m.cholesky().map(|c| c.solve(&b)) else { continue };
            let error = (x.transpose() * normal * x)[0] - 2.0 * right.dot(&x);
            if x.iter().all(|v| *v >= 0.0) && error < best.0 {
                best = (error, x);
            }
        }
        let typical = (self.rows.iter().map(|r| r[2]).sum::<f64>() / self.rows.len() as f64).exp();
        let ln = |i: usize| best.1[i].max(UNSEEN * typical).ln();
        Inside::new(ln(0), ln(1), ln(2), bent(alpha), bent(beta))
    }

    fn outside(&self, at: &Inside) -> Law {
        Law {
            floor: at[0].exp(),
            of_size: at[1].exp(),
            of_tokens: at[2].exp(),
            alpha: exponent(at[3]),
            beta: exponent(at[4]),
            middle: self.middle,
        }
    }
}

/// What is varied: logarithms of the floor and of the two terms at the middle, and exponents bent so that they stay in their range.
type Inside = SVector<f64, CONSTANTS>;

fn inside(law: &Law) -> Inside {
    Inside::new(law.floor.ln(), law.of_size.ln(), law.of_tokens.ln(), bent(law.alpha), bent(law.beta))
}

fn exponent(bent: f64) -> f64 {
    STEEPEST / (1.0 + (-bent).exp())
}

fn bent(exponent: f64) -> f64 {
    let share = (exponent / STEEPEST).clamp(1e-9, 1.0 - 1e-9);
    (share / (1.0 - share)).ln()
}

/// The floor and the two terms.
fn terms(at: &Inside, r: &[f64; 3]) -> [f64; 3] {
    [at[0].exp(), (at[1] - exponent(at[3]) * r[0]).exp(), (at[2] - exponent(at[4]) * r[1]).exp()]
}

fn ln_loss(at: &Inside, r: &[f64; 3]) -> f64 {
    terms(at, r).iter().sum::<f64>().ln()
}

/// Huber 1964.
fn huber(error: f64, delta: f64) -> f64 {
    let e = error.abs();
    if e <= delta { 0.5 * e * e } else { delta * (e - 0.5 * delta) }
}

#[derive(Debug)]
struct Problem<'a> {
    rows: &'a [[f64; 3]],
    delta: f64,
    at: Inside,
    /// Numbers whose squares are twice Huber's loss of each run; none where one of them is no number.
    residuals: Option<DVector<f64>>,
    /// The best of all places that it has been at, and its error: where a constant runs away, since the runs see nothing of it, the last
    /// one has no error that is a number.
    best: (f64, Inside),
}

impl<'a> Problem<'a> {
    fn new(rows: &'a [[f64; 3]], delta: f64, at: Inside) -> Self {
        let mut problem = Self { rows, delta, at, residuals: None, best: (f64::INFINITY, at) };
        problem.set_params(&at);
        problem
    }
}

impl LeastSquaresProblem<f64, Dyn, U5> for Problem<'_> {
    type ResidualStorage = Owned<f64, Dyn>;
    type JacobianStorage = Owned<f64, Dyn, U5>;
    type ParameterStorage = Owned<f64, U5>;

    fn set_params(&mut self, x: &Inside) {
        let of = |r: &[f64; 3]| {
            let e = ln_loss(x, r) - r[2];
            e.signum() * (2.0 * huber(e, self.delta)).sqrt()
        };
        let all = DVector::from_iterator(self.rows.len(), self.rows.iter().map(of));
        let error = 0.5 * all.norm_squared();
        if error < self.best.0 {
            self.best = (error, *x);
        }
        self.at = *x;
        self.residuals = all.iter().all(|x| x.is_finite()).then_some(all);
    }

    fn params(&self) -> Inside {
        self.at
    }

    fn residuals(&self) -> Option<DVector<f64>> {
        self.residuals.clone()
    }

    fn jacobian(&self) -> Option<OMatrix<f64, Dyn, U5>> {
        let residuals = self.residuals.as_ref()?;
        let mut all = OMatrix::<f64, Dyn, U5>::zeros(self.rows.len());
        let slope = |i: usize| exponent(self.at[i]) * (1.0 - exponent(self.at[i]) / STEEPEST);
        for (i, (r, residual)) in self.rows.iter().zip(residuals.iter()).enumerate() {
            let terms = terms(&self.at, r);
            let loss: f64 = terms.iter().sum();
            // Beyond delta the square of the residual is linear in the error: 2 delta |e| - delta^2.
            let outer = (self.delta / residual.abs()).min(1.0);
            let [floor, size, tokens] = terms.map(|t| outer * t / loss);
            let row = [floor, size, tokens, -slope(3) * r[0] * size, -slope(4) * r[1] * tokens];
            row.into_iter().enumerate().for_each(|(j, x)| all[(i, j)] = x);
        }
        all.iter().all(|x| x.is_finite()).then_some(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use levenberg_marquardt::differentiate_numerically;

    fn grid(law: &Law) -> Vec<Point> {
        let sizes = [1e8, 3e8, 1e9, 3e9, 1e10];
        let tokens = [1e9, 1e10, 1e11, 1e12];
        let at = |(n, d): (f64, f64)| Point { parameters: n, tokens: d, loss: law.loss(n, d), usd: None };
        sizes.iter().flat_map(|n| tokens.map(|d| at((*n, d)))).collect()
    }

    #[test]
    fn the_constants_of_losses_without_noise_are_found() {
        for law in [
            Law::of(1.69, (406.4, 0.34), (410.7, 0.28)),
            Law::of(1.82, (482.0, 0.3478), (2085.4, 0.3658)),
            Law::of(0.9, (30.0, 0.18), (9000.0, 0.52)),
        ] {
            let found = Logs::of(&grid(&law)).law().unwrap();
            let (a, b) = found.factors();
            for (is, was) in [
                (found.floor, law.floor),
                (found.alpha, law.alpha),
                (found.beta, law.beta),
                (a, law.of_size),
                (b, law.of_tokens),
            ] {
                assert!((is / was - 1.0).abs() < 1e-4, "{found:?} instead of {law:?}");
            }
        }
    }

    #[test]
    fn one_run_that_went_wrong_pulls_with_delta_and_no_more() {
        let law = Law::of(1.69, (406.4, 0.34), (410.7, 0.28));
        let mut points = grid(&law);
        points[7].loss *= 1.3;
        let found = Logs::of(&points).law().unwrap();
        assert!((found.alpha - law.alpha).abs() < 2e-3 && (found.floor - law.floor).abs() < 2e-3, "{found:?}");
    }

    #[test]
    fn runs_that_size_tells_nothing_of_have_a_law_as_well() {
        // Small models that were taught at too high a rate.
        let losses = [3.1743, 2.6819, 2.4259, 3.1228, 2.8886, 2.2114, 3.1165, 2.9131, 2.4655, 3.1020, 2.9008, 2.3168];
        let places = [27072.0, 66432.0, 182016.0, 560640.0].into_iter().flat_map(|n| [5e4, 2e5, 8e5].map(|d| (n, d)));
        let point = |((parameters, tokens), loss)| Point { parameters, tokens, loss, usd: None };
        let logs = Logs::of(&places.zip(losses).map(point).collect::<Vec<_>>());
        let law = logs.law().unwrap();
        let (_, errors) = logs.fitted(&law);
        let mean = errors.iter().map(|e| e.abs()).sum::<f64>() / 12.0;
        // Losses of one number of tokens are 1 to 5 % about their mean.
        assert!(mean < 0.05, "{law:?}: {errors:?}");
    }

    #[test]
    fn derivatives_are_those_of_the_residuals() {
        let points = grid(&Law::of(1.69, (406.4, 0.34), (410.7, 0.28)));
        let logs = Logs::of(&points);
        let at = Inside::new(0.3, -1.0, -0.5, -2.0, -1.5);
        for delta in [1.0, 1e-2] {
            let mut problem = Problem::new(&logs.rows, delta, at);
            let (own, counted) = (problem.jacobian().unwrap(), differentiate_numerically(&mut problem).unwrap());
            let off = (own - counted).abs().max();
            assert!(off < 1e-6, "{off}");
        }
    }
}
