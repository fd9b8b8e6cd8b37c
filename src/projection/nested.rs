//! Nested leave-one-source-out: constants, variances and bars are all made without a source, and its rows are then counted in
//! or out. What is printed of the model's errors is from here, and nothing else.

use super::bars::{Bars, Erred};
use super::constants::Constants;
use super::fit::{Fitted, fitted};
use super::published::{Case, Group};
use super::traits::{architecture, of_case};
use super::validate::{predict, sources};

/// A row whose source took part in nothing.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Held {
    /// Place among the cases.
    pub case: usize,
    pub predicted: f64,
    /// Half width in ln of its bar, made without its source; `None` where no other source is there.
    pub half: Option<f64>,
    /// The same of the bars that are to hold [`LEVELS`] of rows.
    pub levels: [f64; LEVELS.len()],
}

/// Nominal shares at which bars are compared with what they hold.
pub(crate) const LEVELS: [f64; 9] = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9];

/// Every row, each predicted without its source.
pub(crate) fn nested(cases: &[Case]) -> Vec<Held> {
    let mut all = Vec::new();
    for group in Group::ALL {
        let places: Vec<usize> = (0..cases.len()).filter(|i| cases[*i].quantity.group() == group).collect();
        let own: Vec<&Case> = places.iter().filter_map(|i| cases.get(*i)).collect();
        for source in sources(own.iter().copied()) {
            // Memory has no constants to fit: leaving a source out changes its bars alone. Fits begin at the priors: one that
            // began where all sources had led it might end before it had forgotten this one.
            let outer = fitted(own.iter().copied().filter(|c| c.source != source));
            let errors = inner(&own, source, &outer, group);
            let bars = Bars::from_errors(&errors);
            let shares = bars.shares(&errors, LEVELS);
            for (place, case) in places.iter().zip(&own).filter(|(_, c)| c.source == source) {
                if let Ok(predicted) = predict(case, &outer.constants)
                    && predicted.is_finite()
                    && predicted > 0.0
                {
                    let seen = is_seen(case, &own, &[source]);
                    let half = bars.half(case.quantity, &of_case(case, seen));
                    let levels = shares.map(|s| s * half.unwrap_or(f64::NAN));
                    all.push(Held { case: *place, predicted, half, levels });
                }
            }
        }
    }
    all.sort_by_key(|h| h.case);
    all
}

/// Errors of every source but one, each predicted without it as well.
fn inner<'a>(own: &[&'a Case], left_out: &str, outer: &Fitted, group: Group) -> Vec<Erred<'a>> {
    let mut all = Vec::new();
    for source in sources(own.iter().copied()).into_iter().filter(|s| *s != left_out) {
        let constants = if group == Group::Memory { outer.constants.clone() } else { outer.without(source) };
        all.extend(erred(own, source, &[source, left_out], &constants));
    }
    all
}

/// Errors of a source's rows.
fn erred<'a>(own: &[&'a Case], source: &str, without: &[&str], c: &Constants) -> Vec<Erred<'a>> {
    let rows = own.iter().filter(|case| case.source == source);
    rows.filter_map(|case| {
        let error = (predict(case, c).ok()? / case.published).ln();
        let traits = of_case(case, is_seen(case, own, without));
        error.is_finite().then_some(Erred { source: &case.source, quantity: case.quantity, error, traits })
    })
    .collect()
}

/// Whether a source that is not among these has rows of the device's architecture.
fn is_seen(case: &Case, own: &[&Case], without: &[&str]) -> bool {
    let is = architecture(case);
    own.iter().any(|c| !without.contains(&c.source.as_str()) && architecture(c) == is)
}

/// Constants that are fitted to all rows, their standard deviations in ln, and bars for a source that is none of theirs.
pub(crate) fn calibrated(cases: &[Case]) -> (Constants, Vec<f64>, Bars) {
    let (mut values, mut spreads) = (Constants::default().values(), Constants::default().values());
    let start = values.clone();
    let mut errors = Vec::new();
    for group in Group::ALL {
        let own: Vec<&Case> = cases.iter().filter(|c| c.quantity.group() == group).collect();
        let full = fitted(own.iter().copied());
        errors.extend(inner(&own, "", &full, group));
        // No constant is of two groups: each is where its own has moved it.
        for (i, (value, spread)) in full.constants.values().iter().zip(full.spreads()).enumerate() {
            if (value / start[i]).ln().abs() > 1e-9 || group == Group::Training {
                values[i] = *value;
                spreads[i] = spread;
            }
        }
    }
    (Constants::from_values(&values), spreads, Bars::from_errors(&errors))
}
