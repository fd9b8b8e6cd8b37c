//! Fits the constants to published rows: least squares of the logarithms' errors, damped for outliers, with the priors as
//! further observations; and the same with each source left out in turn.

use super::constants::{Constants, PRIORS};
use super::published::Case;
use super::validate::{predict, sources};
use levenberg_marquardt::{LeastSquaresProblem, LevenbergMarquardt};
use nalgebra::storage::Owned;
use nalgebra::{DMatrix, DVector, Dyn};

/// Error in ln that counts as one standard deviation of a row.
const ROW_SPREAD: f64 = 0.10;
/// Step in ln for the derivatives.
const STEP: f64 = 1e-4;
/// What stands for a row that has no prediction at some trial of the constants.
const NO_PREDICTION: f64 = 3.0;

struct Problem<'a> {
    /// Rows and their weights.
    rows: Vec<(&'a Case, f64)>,
    at: DVector<f64>,
}

/// sign(e) sqrt(2 (sqrt(1 + e^2) - 1)): quadratic for small errors, linear for large ones.
fn damped(e: f64) -> f64 {
    e.signum() * (2.0 * ((1.0 + e * e).sqrt() - 1.0)).sqrt()
}

fn constants(at: &DVector<f64>) -> Constants {
    Constants::from_values(&at.iter().map(|x| x.exp()).collect::<Vec<_>>())
}

impl Problem<'_> {
    fn residuals_at(&self, at: &DVector<f64>) -> DVector<f64> {
        let c = constants(at);
        let rows = self.rows.iter().map(|(case, weight)| {
            let error = predict(case, &c).map_or(NO_PREDICTION, |p| (p / case.published).ln());
            weight * damped(error / ROW_SPREAD)
        });
        let priors = PRIORS.iter().zip(at.iter()).map(|(p, x)| (x - p.value.ln()) / p.spread);
        DVector::from_iterator(self.rows.len() + PRIORS.len(), rows.chain(priors))
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
        let base = self.residuals_at(&self.at);
        let mut all = DMatrix::zeros(base.len(), self.at.len());
        for i in 0..self.at.len() {
            let mut moved = self.at.clone();
            moved[i] += STEP;
            all.set_column(i, &((self.residuals_at(&moved) - &base) / STEP));
        }
        Some(all)
    }
}

/// The constants that fit these rows best without leaving their priors behind. Memory has no constants and takes no part.
pub fn fit<'a>(cases: impl Iterator<Item = &'a Case>) -> Constants {
    let cases: Vec<&Case> = cases.filter(|c| !c.quantity.is_memory()).collect();
    let count = |s: &str| cases.iter().filter(|c| c.source == s).count() as f64;
    // Rows of one source err together: n of them count as the root of n.
    let rows = cases.iter().map(|c| (*c, count(&c.source).powf(-0.25))).collect();
    let at = DVector::from_iterator(PRIORS.len(), PRIORS.iter().map(|p| p.value.ln()));
    let (solved, _) =
        LevenbergMarquardt::new().with_ftol(1e-6).with_xtol(1e-4).with_patience(20).minimize(Problem { rows, at });
    constants(&solved.at)
}

/// For each case the prediction of constants that were fitted without its source.
pub fn left_out(cases: &[Case]) -> Vec<Option<f64>> {
    let mut all = vec![None; cases.len()];
    for source in sources(cases) {
        let c = fit(cases.iter().filter(|c| c.source != source));
        for (case, predicted) in cases.iter().zip(&mut all).filter(|(c, _)| c.source == source) {
            *predicted = predict(case, &c).ok();
        }
    }
    all
}
