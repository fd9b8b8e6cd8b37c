//! Where the time of a step goes, by operation.

use super::Traced;
use crate::transformer::trace::Kind;
use serde::{Deserialize, Serialize};

/// Of some steps, each figure per step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Profile {
    /// Steps that were traced.
    pub steps: u32,
    /// Seconds of one of them, the mean.
    pub step_seconds: f64,
    /// By how much these are slower than others beside them that were not traced, as a share, where a trace was asked for. (Journals of
    /// before have it against the median of the measured ones, with and without a trace.)
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overhead: Option<f64>,
    /// What ranks did, those that took most first. What is missing of the step no operation took.
    pub parts: Vec<Part>,
}

/// An operation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Part {
    /// What kind of work it is.
    pub kind: Kind,
    /// As the trace calls it.
    pub name: String,
    /// The mean over ranks.
    pub seconds: f64,
    /// Of all ranks together.
    pub flops: f64,
    /// Of all ranks together.
    pub bytes: f64,
    /// How often, on one rank.
    pub calls: f64,
}

impl Profile {
    /// `None` where no operation told of itself.
    pub(super) fn of(traced: &Traced) -> Option<Self> {
        let (steps, ranks) = (traced.step_seconds.len() as f64, traced.tracks.len() as f64);
        let mut parts: Vec<Part> = Vec::new();
        for e in traced.tracks.iter().flat_map(|t| &t.events).filter(|e| e.kind != Kind::Whole) {
            let at = parts.iter().position(|p| p.name == e.name && p.kind == e.kind).unwrap_or_else(|| {
                let (kind, name) = (e.kind, e.name.to_string());
                parts.push(Part { kind, name, seconds: 0.0, flops: 0.0, bytes: 0.0, calls: 0.0 });
                parts.len() - 1
            });
            let part = &mut parts[at];
            part.seconds += (e.to - e.from) as f64 * 1e-9 / (steps * ranks);
            part.flops += e.work.flops / steps;
            part.bytes += e.work.bytes / steps;
            part.calls += 1.0 / (steps * ranks);
        }
        parts.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
        let told = parts.iter().any(|p| !matches!(p.kind, Kind::Data | Kind::Exchange));
        told.then(|| Self {
            steps: traced.step_seconds.len() as u32,
            step_seconds: traced.step_seconds.iter().sum::<f64>() / steps,
            overhead: traced.overhead(),
            parts,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transformer::trace::{Event, Track, Work};

    #[test]
    fn times_are_of_a_step_and_a_rank_and_work_is_of_all_ranks() {
        let event = |kind, name, from, to| Event { kind, name, from, to, work: Work { flops: 10.0, bytes: 4.0 } };
        let rank = |rank| {
            let one = [
                event(Kind::Product, "linear", 0, 1_000_000_000),
                event(Kind::Data, "batch", 1_000_000_000, 1_500_000_000),
                event(Kind::Whole, "step", 0, 2_000_000_000),
            ];
            Track { rank, events: [one, one].concat() }
        };
        let (step_seconds, beside_seconds) = (vec![2.0, 2.2], vec![2.0, 2.0]);
        let traced = Traced { tracks: vec![rank(0), rank(1)], step_seconds, beside_seconds, measured_seconds: 2.0 };
        let p = Profile::of(&traced).unwrap();
        assert_eq!(p.parts.len(), 2, "what holds others is no part");
        let linear = &p.parts[0];
        assert_eq!((linear.name.as_str(), linear.seconds, linear.flops, linear.calls), ("linear", 1.0, 20.0, 1.0));
        assert!((p.step_seconds - 2.1).abs() < 1e-12 && (p.overhead.unwrap() - 0.05).abs() < 1e-12);
        let quiet = Track { rank: 0, events: vec![event(Kind::Data, "batch", 0, 1)] };
        assert_eq!(Profile::of(&Traced { tracks: vec![quiet], ..traced }), None);
    }
}
