//! The sections beside the trial: how to measure, what it costs, and where to stop.

use super::engine::server::Largest;
use super::values::word;
use super::{Limits, Measure, Order, Tolerated};
use crate::load::search::Search;
use crate::units::UsdPerHour;
use crate::yaml::{Node, Sources, Value, YamlError, entries, flag, number, text, whole};

/// Keys of `measure`.
pub(super) const MEASURE: &[&str] = &[
    "precision",
    "min_seconds",
    "max_seconds",
    "warmup",
    "rounds",
    "seed",
    "order",
    "timeout_seconds",
    "ignore_memory",
    "disturbed",
];
/// Keys of `measure.disturbed`.
pub(super) const DISTURBED: [&str; 2] = ["lost", "others"];
/// The most launches of a cell.
pub(super) const MOST_ROUNDS: u32 = 100;
/// Keys of `search`.
const SEARCH: [&str; 3] = ["largest", "while", "within"];
/// How far apart a search's bounds may be where nothing is said.
const WITHIN: f64 = 0.05;
/// Keys of `limits`.
pub(super) const LIMITS: &[&str] = &["minutes", "usd", "cells"];

impl Default for Measure {
    /// One per cent, between 1 and 10 seconds, warm-up until stationary, seed 0, shuffled; killed after 600 s.
    fn default() -> Self {
        Self {
            precision: 0.01,
            min_seconds: 1.0,
            max_seconds: 10.0,
            warmup_steps: None,
            rounds: None,
            seed: 0,
            seeds: Vec::new(),
            order: Order::Shuffled,
            timeout_seconds: 600.0,
            ignore_memory: false,
            disturbed: Tolerated::default(),
        }
    }
}

/// # Errors
/// The first field at fault.
fn disturbed(node: &Node, s: &Sources) -> Result<Tolerated, YamlError> {
    let mut bounds = Tolerated::default();
    for e in entries("measure.disturbed", Some(node), &DISTURBED, &[], s)? {
        let bound = match e.key.as_str() {
            "lost" => &mut bounds.lost,
            _ => &mut bounds.others,
        };
        let share = "a share from above 0 to 1 (0.02 is two per cent)";
        *bound = number(e, "measure.disturbed.", |x| x > 0.0 && x <= 1.0, share, s)?;
    }
    Ok(bounds)
}

/// # Errors
/// The first field at fault.
pub(super) fn measure(node: Option<&Node>, s: &Sources) -> Result<Measure, YamlError> {
    let mut m = Measure::default();
    let positive = |x: f64| x > 0.0 && x <= 1e7;
    let mut min_given = false;
    for e in entries("measure", node, MEASURE, &[], s)? {
        let p = "measure.";
        match e.key.as_str() {
            "precision" => {
                m.precision =
                    number(e, p, |x| x > 0.0 && x <= 0.5, "a share from above 0 to 0.5 (0.01 is one per cent)", s)?
            }
            "min_seconds" => {
                m.min_seconds = number(e, p, |x| (0.0..=1e7).contains(&x), "seconds from 0 up", s)?;
                min_given = true;
            }
            "max_seconds" => m.max_seconds = number(e, p, positive, "seconds above 0", s)?,
            "timeout_seconds" => m.timeout_seconds = number(e, p, positive, "seconds above 0", s)?,
            "seed" => m.seed = whole(e, p, 0, s)?,
            "ignore_memory" => m.ignore_memory = flag(e, p, s)?,
            "disturbed" => m.disturbed = disturbed(&e.node, s)?,
            "rounds" => {
                m.rounds = match &e.node.value {
                    Value::Text(t) if t == "auto" => None,
                    _ => Some(
                        whole(e, p, 1, s)
                            .ok()
                            .and_then(|n| u32::try_from(n).ok())
                            .filter(|n| *n <= MOST_ROUNDS)
                            .ok_or_else(|| {
                                s.fault(
                                    e.node.place,
                                    format!(
                                        "measure.rounds: expected `auto` or a whole number from 1 to {MOST_ROUNDS}"
                                    ),
                                )
                            })?,
                    ),
                }
            }
            "warmup" => {
                m.warmup_steps =
                    match &e.node.value {
                        Value::Text(t) if t == "auto" => None,
                        Value::Integer(i) => Some(u32::try_from(*i).map_err(|_| {
                            s.fault(e.node.place, "measure.warmup: expected `auto` or a number of steps")
                        })?),
                        _ => return Err(s.fault(e.node.place, "measure.warmup: expected `auto` or a number of steps")),
                    }
            }
            _ => {
                m.order = match text(e, p, s)?.as_str() {
                    "shuffled" => Order::Shuffled,
                    "file" => Order::File,
                    other => {
                        return Err(s.fault(
                            e.node.place,
                            format!("measure.order: expected shuffled or file, found `{other}`"),
                        ));
                    }
                }
            }
        }
    }
    if m.min_seconds > m.max_seconds {
        if min_given {
            let place = node.and_then(|n| n.get("min_seconds")).and_then(|e| e.node.place);
            return Err(s.fault(
                place,
                format!("measure.min_seconds: {} is over max_seconds = {}", m.min_seconds, m.max_seconds),
            ));
        }
        m.min_seconds = m.max_seconds;
    }
    Ok(m)
}

/// The largest load that is looked for, if one is.
///
/// # Errors
/// The first field at fault.
pub(super) fn search(node: Option<&Node>, s: &Sources) -> Result<Option<(Largest, Search)>, YamlError> {
    let Some(node) = node else { return Ok(None) };
    let (mut largest, mut holds, mut within) = (None, false, WITHIN);
    for e in entries("search", Some(node), &SEARCH, &[], s)? {
        match e.key.as_str() {
            "largest" => {
                let found = word::<Largest>(&e.node.value).map_err(|m| format!("search.largest: {m}"));
                largest = Some(found.map_err(|m| s.fault(e.node.place, m))?);
            }
            "while" => match text(e, "search.", s)?.as_str() {
                "slo" => holds = true,
                other => return Err(s.fault(e.node.place, format!("search.while: expected slo, found `{other}`"))),
            },
            _ => {
                let share = "a share from above 0 to 1 (0.05 is five per cent)";
                within = number(e, "search.", |x| x > 0.0 && x <= 1.0, share, s)?;
            }
        }
    }
    match largest.filter(|_| holds) {
        Some(largest) => Ok(Some((largest, Search { within }))),
        None => Err(s.fault(node.place, "search: expected { largest: load.rate, while: slo }")),
    }
}

/// # Errors
/// The first field at fault; a cap on money where an hour has no price.
pub(super) fn limits(node: Option<&Node>, price: Option<UsdPerHour>, s: &Sources) -> Result<Limits, YamlError> {
    let mut limits = Limits::default();
    for e in entries("limits", node, LIMITS, &[], s)? {
        let p = "limits.";
        match e.key.as_str() {
            "minutes" => limits.minutes = Some(number(e, p, |x| x > 0.0, "minutes above 0", s)?),
            "usd" => {
                limits.usd = Some(number(e, p, |x| x > 0.0, "USD above 0", s)?);
                if price.is_none() {
                    let message = "limits.usd: without a price nothing can be counted; give price.usd_per_hour";
                    return Err(s.fault(e.place, message));
                }
            }
            _ => limits.cells = Some(whole(e, p, 1, s)?),
        }
    }
    Ok(limits)
}
