//! The largest batch of training whose predicted memory fits.

use crate::plan::usable;
use crate::scenario::trial::Trial;
use crate::transformer::shape::count;
use crate::transformer::{Phase, Workload};
use crate::units::Bytes;

/// Sequences of the largest batch that a training trial could have within `memory` bytes of what its devices have together, all else
/// being as it is; `None` where not even the smallest fits, where nothing bounds it, and of programs that are not ours.
pub(crate) fn largest_batch(trial: &Trial, memory: Bytes) -> Option<u32> {
    let w = &trial.workload;
    if w.phase != Phase::Train || trial.engine.is_some() {
        return None;
    }
    let parallel = trial.parallel();
    // Batches divide among the replicas, and there into micro-batches.
    let unit = parallel.data.checked_mul(w.levers.accumulate)?;
    let fits = |units: u32| {
        let batch = unit.checked_mul(units)?;
        let needed = count::memory(trial.backend, &Workload { batch, ..w.clone() }, &parallel).ok()?.total()?;
        Some(needed.get() <= usable(memory).get())
    };
    let (mut fit, mut beyond) = (0, 1);
    while fits(beyond)? {
        (fit, beyond) = (beyond, beyond.checked_mul(2)?);
    }
    while beyond - fit > 1 {
        let between = fit + (beyond - fit) / 2;
        if fits(between)? { fit = between } else { beyond = between }
    }
    (fit > 0).then_some(fit * unit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;
    use crate::transformer::levers::{Levers, Recompute};

    fn needed(trial: &Trial, batch: u32) -> u64 {
        let w = Workload { batch, ..trial.workload.clone() };
        count::memory(trial.backend, &w, &trial.parallel()).unwrap().total().unwrap().get()
    }

    #[test]
    fn it_fits_and_the_next_larger_does_not() {
        let memory = Bytes(3 << 30);
        let of = |levers, devices| {
            let mut trial = fixture::trial(256, 4, 6, devices);
            trial.workload.levers = levers;
            (largest_batch(&trial, memory).unwrap(), trial)
        };
        let plain = Levers::default();
        for (levers, devices) in [(plain, 1), (plain, 2), (Levers { accumulate: 3, ..plain }, 2)] {
            let (most, trial) = of(levers, devices);
            let unit = devices * levers.accumulate;
            assert!(most > 0 && most.is_multiple_of(unit), "{most}");
            assert!(needed(&trial, most) <= usable(memory).get() && needed(&trial, most + unit) > usable(memory).get());
        }
        let alone = of(plain, 1).0;
        // What a pass keeps is most of it here: a third of the batch a pass lets three times as many through.
        assert!(of(Levers { accumulate: 3, ..plain }, 1).0 > 2 * alone);
        assert!(of(Levers { recompute: Recompute::Full, ..plain }, 1).0 > 2 * alone);
        let (_, trial) = of(plain, 1);
        assert_eq!(largest_batch(&trial, Bytes(1 << 20)), None);
        let decode = Workload { phase: Phase::Decode, ..trial.workload.clone() };
        assert_eq!(largest_batch(&Trial { workload: decode, ..trial }, memory), None);
    }
}
