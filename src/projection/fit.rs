//! Fits the constants to published rows: least squares of the logarithms' errors, damped for outliers, with the priors as
//! further observations.

use super::constants::{Constants, PRIORS};
use super::published::Case;
use super::validate::predict;
use levenberg_marquardt::{LeastSquaresProblem, LevenbergMarquardt};
use nalgebra::storage::Owned;
use nalgebra::{DMatrix, DVector, Dyn};

/// Error in ln that counts as one standard deviation of a row.
const ROW_SPREAD: f64 = 0.10;
/// Step for the derivatives, in spreads of the priors.
const STEP: f64 = 1e-3;
/// What stands for a row that has no prediction at some trial of the constants.
const NO_PREDICTION: f64 = 3.0;

#[derive(Debug)]
struct Problem<'a> {
    /// Rows and their weights.
    rows: Vec<(&'a Case, f64)>,
    /// Logarithms of the constants over their priors, in the priors' spreads: none is larger than another by its unit, which
    /// would end the search before it has come to its end.
    at: DVector<f64>,
}

/// sign(e) sqrt(2 (sqrt(1 + e^2) - 1)): quadratic for small errors, linear for large ones.
fn damped(e: f64) -> f64 {
    e.signum() * (2.0 * ((1.0 + e * e).sqrt() - 1.0)).sqrt()
}

fn constants(at: &DVector<f64>) -> Constants {
    let values: Vec<f64> = PRIORS.iter().zip(at.iter()).map(|(p, x)| p.value * (p.spread * x).exp()).collect();
    Constants::from_values(&values)
}

impl Problem<'_> {
    fn residuals_at(&self, at: &DVector<f64>) -> DVector<f64> {
        let c = constants(at);
        let rows = self.rows.iter().map(|(case, weight)| {
            let error = predict(case, &c).map_or(NO_PREDICTION, |p| (p / case.published).ln());
            weight * damped(error / ROW_SPREAD)
        });
        DVector::from_iterator(self.rows.len() + PRIORS.len(), rows.chain(at.iter().copied()))
    }

    fn derivatives(&self, base: &DVector<f64>) -> DMatrix<f64> {
        let mut all = DMatrix::zeros(base.len(), self.at.len());
        for i in 0..self.at.len() {
            let mut moved = self.at.clone();
            moved[i] += STEP;
            all.set_column(i, &((self.residuals_at(&moved) - base) / STEP));
        }
        all
    }
}

impl LeastSquaresProblem<f64, Dyn, Dyn> for Problem<'_> {
    type ResidualStorage = Owned<f64, Dyn>;
    type JacobianStorage = Owned<f64, Dyn, Dyn>;
    type ParameterStorage = Owned<f64, Dyn>;

    fn set_params(&mut self, x: &DVector<f64>) {
        self.at.copy_from(x);
    }

    fn params(&self) -> DVector<f64> {
        self.at.clone()
    }

    fn residuals(&self) -> Option<DVector<f64>> {
        Some(self.residuals_at(&self.at))
    }

    fn jacobian(&self) -> Option<DMatrix<f64>> {
        Some(self.derivatives(&self.residuals_at(&self.at)))
    }
}

/// Constants as the data leave them, with what it takes to leave a source out without another fit.
#[derive(Debug)]
pub(crate) struct Fitted<'a> {
    pub constants: Constants,
    problem: Problem<'a>,
    residuals: DVector<f64>,
    derivatives: DMatrix<f64>,
}

impl Fitted<'_> {
    /// The constants without the rows of one more source: one Gauss-Newton step from where they are.
    pub(crate) fn without(&self, source: &str) -> Constants {
        let (n, rows) = (self.problem.at.len(), &self.problem.rows);
        let mut normal: DMatrix<f64> = DMatrix::zeros(n, n);
        let mut slope: DVector<f64> = DVector::zeros(n);
        for i in (0..self.residuals.len()).filter(|i| rows.get(*i).is_none_or(|(c, _)| c.source != source)) {
            let row = self.derivatives.row(i);
            normal.ger(1.0, &row.transpose(), &row.transpose(), 1.0);
            slope.axpy(self.residuals[i], &row.transpose(), 1.0);
        }
        let step = normal.cholesky().map_or_else(|| DVector::zeros(n), |c| c.solve(&slope));
        constants(&(&self.problem.at - step))
    }

    /// Standard deviations of the logarithms: of the prior where no row speaks of a constant, smaller where rows do.
    pub(crate) fn spreads(&self) -> Vec<f64> {
        let normal = self.derivatives.transpose() * &self.derivatives;
        let inverse = normal.try_inverse();
        PRIORS
            .iter()
            .enumerate()
            .map(|(i, p)| inverse.as_ref().map_or(p.spread, |m| p.spread * m[(i, i)].sqrt()))
            .collect()
    }
}

/// The constants that fit these rows best without leaving their priors behind, where the search begins. Memory has no constants
/// and takes no part.
pub(crate) fn fitted<'a>(cases: impl Iterator<Item = &'a Case>) -> Fitted<'a> {
    let cases: Vec<&Case> = cases.filter(|c| !c.quantity.is_memory()).collect();
    let count = |s: &str| cases.iter().filter(|c| c.source == s).count() as f64;
    // Rows of one source err together: n of them count as the root of n.
    let rows = cases.iter().map(|c| (*c, count(&c.source).powf(-0.25))).collect();
    let at = DVector::zeros(PRIORS.len());
    let (solved, _) =
        LevenbergMarquardt::new().with_ftol(1e-7).with_xtol(1e-5).with_patience(20).minimize(Problem { rows, at });
    let residuals = solved.residuals_at(&solved.at);
    let derivatives = solved.derivatives(&residuals);
    Fitted { constants: constants(&solved.at), problem: solved, residuals, derivatives }
}
