//! Predicted against published: for each row, and errors summed up.

use super::constants::Constants;
use super::memory;
use super::published::{Case, Counted, Quantity, Setup};
use super::server;
use super::training::Training;

/// A predicted row.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Outcome {
    /// Place among the cases.
    pub case: usize,
    pub predicted: f64,
}

/// Of several layouts the fastest that fits; the one that needs least memory where none does.
pub(crate) fn chosen<'a>(all: &'a [Training], c: &Constants) -> Option<&'a Training> {
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
pub(crate) fn predict(case: &Case, c: &Constants) -> Result<f64, String> {
    let training = match &case.setup {
        Setup::Training(t) => Some(&**t),
        Setup::Choice(all) => chosen(all, c),
        Setup::Serving(_) => None,
    };
    let no_format = || "the device has no such number format".to_string();
    match (&case.setup, case.quantity) {
        (Setup::Serving(s), q) => {
            let (serving, p, o) = (&s.serving, s.prompt, s.output);
            let sequences = s.batch.unwrap_or(1.0);
            match q {
                Quantity::DecodeTokens => Ok(sequences / serving.decode_step(sequences, p + o / 2.0, c)),
                Quantity::PrefillTokens => Ok(sequences * p / serving.prefill(sequences, p, c)),
                Quantity::ServedTokens if s.batch.is_none() && server::most_sequences(serving, p + 0.55 * o) < 1.0 => {
                    Err("not one sequence fits beside the weights".into())
                }
                Quantity::ServedTokens => Ok(server::saturated(serving, p, o, s.batch, c)),
                _ => {
                    let all = memory::serving(serving, sequences, p + o).total();
                    Ok(counted(case, all, serving.tensor * serving.stages))
                }
            }
        }
        (_, Quantity::TrainingMemory) => {
            let t = training.ok_or_else(no_format)?;
            Ok(counted(case, memory::training(t).total(), t.devices))
        }
        _ => {
            let t = training.ok_or_else(no_format)?;
            Ok(t.tokens_per_step() / t.step(c).ok_or_else(no_format)?.seconds)
        }
    }
}

/// GB as the case counts them.
fn counted(case: &Case, allocated: f64, devices: f64) -> f64 {
    match case.counted {
        Counted::Allocated => allocated / 1e9,
        Counted::Process => memory::of_process(allocated, devices) / 1e9,
    }
}

/// All cases; those without a prediction with the reason.
pub(crate) fn predict_all(cases: &[Case], c: &Constants) -> (Vec<Outcome>, Vec<(usize, String)>) {
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
pub(crate) struct Summary {
    pub rows: usize,
    /// Of |predicted / published - 1|.
    pub median: f64,
    pub mean: f64,
    pub p90: f64,
    /// Median of predicted / published - 1.
    pub bias: f64,
}

/// `None` where there are no rows.
pub(crate) fn summary(log_errors: &[f64]) -> Option<Summary> {
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

/// Of sorted values, between the neighbours; NaN of none.
pub(crate) fn quantile(sorted: &[f64], q: f64) -> f64 {
    crate::stats::quantile(sorted, q).unwrap_or(f64::NAN)
}

/// Sources in the order of their first row.
pub(crate) fn sources<'a>(cases: impl IntoIterator<Item = &'a Case>) -> Vec<&'a str> {
    sources_of(cases.into_iter().map(|c| c.source.as_str()))
}

/// Names, each once, in the order of their first.
pub(crate) fn sources_of<'a>(names: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let mut all: Vec<&str> = Vec::new();
    for name in names {
        if !all.contains(&name) {
            all.push(name);
        }
    }
    all
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
}
