//! What GPUs did that takes a verdict away: clocks under three quarters of their reference, a reason for slower clocks, being
//! lost. Pure.
//!
//! The power cap is no such reason: a GPU with enough work runs at it, both programs alike, and what a program gains or loses by the
//! power it takes is its own. It is remarked; where it pushes clocks too low, that is a guard by itself.

use crate::hardware::gpu::Reason;
use crate::runner::telemetry::{GpuFigures, LEAST_CLOCK, Telemetry};
use crate::units::Share;
use std::collections::BTreeMap;

/// What was seen of one GPU over launches.
#[derive(Default)]
struct Seen {
    launches: usize,
    slow: usize,
    lowest: f64,
    throttled: usize,
    capped: usize,
    lost: usize,
    reasons: Vec<&'static str>,
}

/// Sentences about the GPUs of some launches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Told {
    /// What forbids a conclusion.
    pub guards: Vec<String>,
    /// What a reader should know, and forbids nothing.
    pub remarks: Vec<String>,
}

/// A sentence for each GPU and each thing that was seen of it.
pub(crate) fn of_gpus<'a>(launches: impl Iterator<Item = &'a Telemetry>) -> Told {
    let mut seen: BTreeMap<(u32, &str), Seen> = BTreeMap::new();
    for gpu in launches.flat_map(|t| &t.gpus) {
        seen.entry((gpu.index, gpu.name.as_str())).or_insert_with(|| Seen { lowest: 1.0, ..Seen::default() }).note(gpu);
    }
    let mut told = Told::default();
    let guards = &mut told.guards;
    for ((index, name), s) in seen {
        let of = format!("GPU {index} ({name})");
        if s.slow > 0 {
            guards.push(format!(
                "{of} ran at {} of its clock in {} of {} launches; under {} nothing is concluded",
                Share(s.lowest),
                s.slow,
                s.launches,
                Share(LEAST_CLOCK)
            ));
        }
        if s.throttled > 0 {
            guards.push(format!(
                "{of} was throttled in {} of {} launches ({}); nothing is concluded",
                s.throttled,
                s.launches,
                s.reasons.join(", ")
            ));
        }
        if s.lost > 0 {
            guards.push(format!("{of} was lost in {} of {} launches; nothing is concluded", s.lost, s.launches));
        }
        if s.capped > 0 {
            told.remarks.push(format!(
                "{of} was at its power cap in {} of {} launches: no throttling, since it meets both programs alike",
                s.capped, s.launches
            ));
        }
    }
    told
}

impl Seen {
    fn note(&mut self, gpu: &GpuFigures) {
        self.launches += 1;
        self.lost += usize::from(gpu.lost_after_seconds.is_some());
        if gpu.slow() {
            self.slow += 1;
            self.lowest = self.lowest.min(gpu.clock_share().unwrap_or(1.0));
        }
        if !gpu.throttled() {
            return;
        }
        self.capped += usize::from(gpu.reasons.contains(&Reason::PowerCap));
        let others = || gpu.reasons.iter().filter(|r| **r != Reason::PowerCap);
        // A driver that throttles without a reason is not believed to have a good one.
        if gpu.reasons.is_empty() || others().next().is_some() {
            self.throttled += 1;
            for reason in others().map(|r| r.name()) {
                if !self.reasons.contains(&reason) {
                    self.reasons.push(reason);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    #[test]
    fn slow_and_throttled_gpus_are_named_with_how_often() {
        let run = fixture::gpus();
        let told = |run: &crate::results::run::Run| -> Vec<Telemetry> {
            run.records.iter().filter_map(|r| r.measurement.figures.as_ref()?.telemetry.clone()).collect()
        };
        let launches = told(&run);
        let said = of_gpus(launches.iter());
        assert_eq!(
            said.guards,
            [
                "GPU 0 (NVIDIA H100 80GB HBM3) ran at 66.2 % of its clock in 1 of 3 launches; under 75.0 % nothing is concluded"
            ]
        );
        assert_eq!(
            said.remarks,
            [
                "GPU 0 (NVIDIA H100 80GB HBM3) was at its power cap in 1 of 3 launches: no throttling, since it meets both \
              programs alike"
            ]
        );
        assert_eq!(of_gpus(launches[..1].iter()), Told::default());
        let mut hot = launches.clone();
        hot.iter_mut()
            .filter(|t| t.gpus.first().is_some_and(GpuFigures::throttled))
            .for_each(|t| t.gpus[0].reasons.push(Reason::ThermalSlowdown));
        assert_eq!(
            of_gpus(hot.iter()).guards[1],
            "GPU 0 (NVIDIA H100 80GB HBM3) was throttled in 1 of 3 launches (thermal slowdown); nothing is concluded"
        );
        let mut gone = launches[0].clone();
        gone.gpus[0].lost_after_seconds = Some(1.5);
        assert!(of_gpus([gone].iter()).guards[0].ends_with("was lost in 1 of 1 launches; nothing is concluded"));
        assert!(of_gpus(told(&fixture::heads()).iter()).guards.is_empty());
    }
}
