//! What one would say without a model: 43 % of the peak for every training run, 80 % of the bandwidth for every decode step.

use super::constants::Constants;
use super::published::{Case, Quantity, Setup};
use super::validate::chosen;

/// Share of the peak at which large runs are reported (Llama 3, 2024: 38 to 43 %).
const MFU: f64 = 0.43;
/// Share of the bandwidth with which weights and cache are taken to be read.
const BANDWIDTH: f64 = 0.80;

/// Its name and figure for a case.
pub(crate) fn baseline(case: &Case) -> Option<f64> {
    let c = Constants::default();
    match (&case.setup, case.quantity) {
        (Setup::Training(t), Quantity::TrainingTokens) => {
            Some(MFU * t.device.peak * t.devices / t.model_flops_per_token())
        }
        (Setup::Choice(all), Quantity::TrainingTokens) => {
            let t = chosen(all, &c)?;
            Some(MFU * t.device.peak * t.devices / t.model_flops_per_token())
        }
        (Setup::Serving(s), Quantity::DecodeTokens) => {
            let (v, batch) = (&s.serving, s.batch.unwrap_or(1.0));
            let bytes = v.model.read_parameters(batch) * v.weight_bytes
                + batch * v.model.seen(s.prompt + s.output / 2.0) * v.model.cache_bytes_per_token(v.cache_bytes);
            Some(batch * BANDWIDTH * v.device.bytes_per_second * v.tensor / bytes)
        }
        _ => None,
    }
}

/// How it is called where it is printed.
pub(crate) fn name(quantity: Quantity) -> Option<&'static str> {
    match quantity {
        Quantity::TrainingTokens => Some("43 % MFU"),
        Quantity::DecodeTokens => Some("80 % of bandwidth"),
        _ => None,
    }
}
