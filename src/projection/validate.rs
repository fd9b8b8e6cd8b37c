//! Predicted against published: for each row, for each source, and the error bars that follow.

use super::constants::Constants;
use super::memory;
use super::published::{Case, Quantity, Setup};
use super::training::Training;

/// A predicted row.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// Place among the cases.
    pub case: usize,
    pub predicted: f64,
}

/// Of several layouts the fastest that fits; the one that needs least memory where none does.
pub fn chosen<'a>(all: &'a [Training], c: &Constants) -> Option<&'a Training> {
    let mut best: Option<(&Training, (bool, f64))> = None;
    for t in all {
        let footprint = memory::training(t);
        let fits = footprint.fits(t.device.memory_bytes);
        let merit = if fits { t.tokens_per_step() / t.step(c)?.seconds } else { -footprint.total() };
        if best.as_ref().is_none_or(|(_, (f, m))| (fits, merit) > (*f, *m)) {
            best = Some((t, (fits, merit)));
        }
    }
    best.map(|(t, _)| t)
}

/// What the model says of a case; why it says nothing, otherwise.
///
/// # Errors
/// A format that the device has not, or a model that does not fit.
pub fn predict(case: &Case, c: &Constants) -> Result<f64, String> {
    let training = match &case.setup {
        Setup::Training(t) => Some(&**t),
        Setup::Choice(all) => chosen(all, c),
        Setup::Serving { .. } => None,
    };
    let no_format = || "the device has no such number format".to_string();
    match (&case.setup, case.quantity) {
        (Setup::Serving { serving, prompt, output, batch }, q) => {
            let (p, o) = (*prompt, *output);
            let sequences = batch.unwrap_or(1.0);
            match q {
                Quantity::DecodeTokens => Ok(sequences / serving.decode_step(sequences, p + o / 2.0, c)),
                Quantity::PrefillTokens => Ok(p / serving.prefill(p, c)),
                Quantity::ServedTokens => {
                    serving.saturated(p, o, *batch, c).ok_or("not one sequence fits beside the weights".into())
                }
                _ => Ok(memory::serving(serving, sequences, p + o).total() / 1e9),
            }
        }
        (_, Quantity::TrainingMemory) => Ok(memory::training(training.ok_or_else(no_format)?).total() / 1e9),
        _ => {
            let t = training.ok_or_else(no_format)?;
            Ok(t.tokens_per_step() / t.step(c).ok_or_else(no_format)?.seconds)
        }
    }
}

/// All cases; those without a prediction with the reason.
pub fn predict_all(cases: &[Case], c: &Constants) -> (Vec<Outcome>, Vec<(usize, String)>) {
    let (mut outcomes, mut left) = (Vec::new(), Vec::new());
    for (case, each) in cases.iter().enumerate() {
        match predict(each, c) {
            Ok(predicted) if predicted.is_finite() && predicted > 0.0 => outcomes.push(Outcome { case, predicted }),
            Ok(p) => left.push((case, format!("the prediction is {p}"))),
            Err(reason) => left.push((case, reason)),
        }
    }
    (outcomes, left)
}

/// Errors of a group of rows.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    pub rows: usize,
    /// Of |predicted / published - 1|.
    pub median: f64,
    pub mean: f64,
    pub p90: f64,
    /// Median of predicted / published - 1.
    pub bias: f64,
}

/// `None` where there are no rows.
pub fn summary(log_errors: &[f64]) -> Option<Summary> {
    if log_errors.is_empty() {
        return None;
    }
    let sorted = |mut v: Vec<f64>| {
        v.sort_by(f64::total_cmp);
        v
    };
    let absolute = sorted(log_errors.iter().map(|e| e.exp_m1().abs()).collect());
    let signed = sorted(log_errors.iter().map(|e| e.exp_m1()).collect());
    Some(Summary {
        rows: log_errors.len(),
        median: quantile(&absolute, 0.5),
        mean: absolute.iter().sum::<f64>() / absolute.len() as f64,
        p90: quantile(&absolute, 0.9),
        bias: quantile(&signed, 0.5),
    })
}

/// Of sorted values, between the neighbours.
pub fn quantile(sorted: &[f64], q: f64) -> f64 {
    let at = q * (sorted.len().max(1) - 1) as f64;
    let (low, part) = (at.floor(), at.fract());
    let value = |i: usize| sorted.get(i.min(sorted.len().saturating_sub(1))).copied().unwrap_or(f64::NAN);
    value(low as usize) * (1.0 - part) + value(low as usize + 1) * part
}

/// Sources in the order of their first row.
pub fn sources(cases: &[Case]) -> Vec<&str> {
    let mut all: Vec<&str> = Vec::new();
    for c in cases {
        if !all.contains(&c.source.as_str()) {
            all.push(&c.source);
        }
    }
    all
}

/// Rows from which on a bar rests on them alone, and the least half width below.
const ENOUGH_ROWS: usize = 40;
const FEW_ROWS_BAR: f64 = 0.08;

/// Half widths in ln of the bars that hold 90 % of rows, by quantity.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Bars(pub Vec<(Quantity, f64)>);

impl Bars {
    /// From errors of left-out rows. Rows of one source count together as much as the root of their number: a large
    /// source tells more than a small one, and not in proportion.
    pub fn of(errors: &[(Quantity, &str, f64)]) -> Self {
        let all = Quantity::ALL.iter().filter_map(|q| {
            let own: Vec<(&str, f64)> = errors.iter().filter(|(k, ..)| k == q).map(|(_, s, e)| (*s, e.abs())).collect();
            let count = |s: &str| own.iter().filter(|(o, _)| *o == s).count() as f64;
            let mut weighted: Vec<(f64, f64)> = own.iter().map(|(s, e)| (*e, count(s).powf(-0.5))).collect();
            weighted.sort_by(|a, b| a.0.total_cmp(&b.0));
            let total: f64 = weighted.iter().map(|(_, w)| w).sum();
            let mut sum = 0.0;
            let at = weighted.iter().find(|(_, w)| {
                sum += w;
                sum >= 0.9 * total
            })?;
            let least = if own.len() < ENOUGH_ROWS { FEW_ROWS_BAR } else { 0.0 };
            Some((*q, at.0.max(least)))
        });
        Self(all.collect())
    }

    /// The half width of a quantity's bar.
    pub fn half(&self, quantity: Quantity) -> Option<f64> {
        self.0.iter().find(|(q, _)| *q == quantity).map(|(_, half)| *half)
    }

    /// As factors below and above.
    pub fn factors(&self, quantity: Quantity) -> Option<(f64, f64)> {
        let half = self.half(quantity)?;
        Some(((-half).exp(), half.exp()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summaries_are_of_relative_errors() {
        let s = summary(&[0.0, 1.1f64.ln(), 0.9f64.ln(), 2f64.ln()]).unwrap();
        assert_eq!(s.rows, 4);
        assert!((s.median - 0.1).abs() < 1e-9 && (s.mean - 0.3).abs() < 1e-9 && (s.bias - 0.05).abs() < 1e-9, "{s:?}");
        assert_eq!(summary(&[]), None);
    }

    #[test]
    fn bars_hold_nine_rows_of_ten() {
        let errors: Vec<(Quantity, &str, f64)> =
            (1..=100).map(|i| (Quantity::DecodeTokens, "a", f64::from(i) / 100.0)).collect();
        let bars = Bars::of(&errors);
        let (low, high) = bars.factors(Quantity::DecodeTokens).unwrap();
        assert!((high.ln() - 0.9).abs() < 0.011 && (low * high - 1.0).abs() < 1e-12);
        assert_eq!(bars.factors(Quantity::TrainingTokens), None);
    }
}
