//! What makes an error large, of a configuration: what bars are widened by.

use super::device::{Kind, Unit};
use super::published::{Case, Quantity, Setup};

/// Names of the traits, in the order of [`Traits`].
pub(crate) const NAMES: [&str; TRAITS] =
    ["assumed", "unseen_device", "experts", "scale", "cpu", "short", "prefill", "serving", "inference_memory"];
pub(crate) const TRAITS: usize = 9;

/// Numbers of 0 to about 1, each of which says how much of a trait there is.
pub(crate) type Traits = [f64; TRAITS];

/// Fields that were filled in, from which on more of them tell no more.
const MOST_ASSUMED: f64 = 3.0;
/// Devices at which scale counts as 1, in doublings.
const SCALE: f64 = 10.0;
/// Tokens a device and step under which a step is short; seconds of a decode step; tokens of a prompt.
const SHORT_TOKENS: f64 = 4096.0;
const SHORT_SECONDS: f64 = 3e-3;
const SHORT_PROMPT: f64 = 256.0;

/// Of a published row. `seen` says whether rows of other sources are of the device's architecture.
pub(crate) fn of_case(case: &Case, seen: bool) -> Traits {
    let (device, devices, experts, short) = match &case.setup {
        Setup::Training(t) => (&t.device, t.devices, t.model.experts.is_some(), t.tokens_per_step() / t.devices),
        Setup::Choice(all) => match all.first() {
            Some(t) => (&t.device, t.devices, t.model.experts.is_some(), SHORT_TOKENS),
            None => return [0.0; TRAITS],
        },
        Setup::Serving(s) => {
            let v = &s.serving;
            let seconds = v.model.active_parameters() * v.weight_bytes / v.tensor / v.device.bytes_per_second;
            let short = match case.quantity {
                Quantity::PrefillTokens => s.prompt * s.batch.unwrap_or(1.0) / SHORT_PROMPT,
                _ => seconds / SHORT_SECONDS,
            };
            (&v.device, v.tensor * v.stages, v.model.experts.is_some(), short * SHORT_TOKENS)
        }
    };
    of(case.quantity, device, devices, case.assumed.len(), seen, experts, short < SHORT_TOKENS)
}

/// Of anything that is projected.
pub(crate) fn of(
    quantity: Quantity,
    device: &Unit,
    devices: f64,
    assumed: usize,
    seen: bool,
    experts: bool,
    short: bool,
) -> Traits {
    let is = |b: bool| f64::from(u8::from(b));
    let memory = quantity.is_memory();
    [
        (assumed as f64).min(MOST_ASSUMED) / MOST_ASSUMED,
        is(!seen && !memory),
        is(experts),
        devices.max(1.0).log2() / SCALE,
        is(device.kind == Kind::Cpu && !memory),
        is(short && !memory),
        is(quantity == Quantity::PrefillTokens),
        is(quantity == Quantity::ServedTokens),
        is(quantity == Quantity::ServingMemory),
    ]
}

/// The architecture by which a device is seen or not.
pub(crate) fn architecture(case: &Case) -> &str {
    match &case.setup {
        Setup::Training(t) => &t.device.architecture,
        Setup::Choice(all) => all.first().map_or("", |t| &t.device.architecture),
        Setup::Serving(s) => &s.serving.device.architecture,
    }
}
