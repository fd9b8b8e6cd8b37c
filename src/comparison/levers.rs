//! Training trials beside the one that is carried out the usual way: all at once, everything kept, nothing
//! shared out, no stages, all experts on every device.

use crate::results::record::Record;
use crate::scenario::trial::Trial;
use crate::transformer::Phase;
use crate::transformer::collective::grid::{Parallel, Sharding};
use crate::transformer::levers::Levers;

/// One trial, by the index of its record, and the usual one that it is equal to in all else, where there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lever {
    pub record: usize,
    pub usual: Option<usize>,
}

/// The training trials of a run, usual ones before those that stand beside them; none where all are usual.
pub(crate) fn levers(records: &[Record]) -> Vec<Lever> {
    let training = || records.iter().enumerate().filter(|(_, r)| concerns(&r.cell.trial));
    let mut all: Vec<Lever> = Vec::new();
    for (record, r) in training() {
        let usual = usual_way(&r.cell.trial);
        let usual = training().find(|(_, other)| other.cell.trial == usual).map(|(i, _)| i);
        all.push(Lever { record, usual });
    }
    if all.iter().all(|l| is_usual(&records[l.record].cell.trial)) {
        return Vec::new();
    }
    // In the order of the scenario, group by group.
    all.sort_by_key(|l| (l.usual.unwrap_or(l.record), l.usual != Some(l.record), l.record));
    all
}

fn concerns(trial: &Trial) -> bool {
    trial.workload.phase == Phase::Train && trial.engine.is_none()
}

/// The same trial without levers.
fn usual_way(trial: &Trial) -> Trial {
    let mut usual = trial.clone();
    usual.workload.levers = Levers::default();
    let p = trial.parallel();
    // As many devices, each a whole replica's.
    let data = p.data.saturating_mul(p.pipeline);
    usual.parallel = Some(Parallel { data, pipeline: 1, expert: 1, sharding: Sharding::None, ..p });
    usual.canonical()
}

fn is_usual(trial: &Trial) -> bool {
    let p = trial.parallel();
    trial.workload.levers.are_plain() && p.sharding == Sharding::None && p.pipeline == 1 && p.expert == 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;
    use crate::transformer::levers::Recompute;

    #[test]
    fn trials_stand_beside_the_usual_one_of_their_devices() {
        let run = fixture::sweep();
        assert!(levers(&run.records).is_empty());
        let of = |devices: u32, levers: Levers, sharding| {
            let mut r = run.records[0].clone();
            r.cell.trial = fixture::trial(256, 4, 6, devices).canonical();
            r.cell.trial.workload.levers = levers;
            if sharding != Sharding::None {
                r.cell.trial.parallel = Some(Parallel { sharding, ..Parallel::replicas(devices) });
            }
            r
        };
        let (plain, full) = (Levers::default(), Levers { recompute: Recompute::Full, ..Levers::default() });
        let records = [
            of(1, full, Sharding::None),
            of(2, plain, Sharding::Optimizer),
            of(1, plain, Sharding::None),
            of(2, plain, Sharding::None),
            of(3, full, Sharding::None),
        ];
        let pairs = |records: &[Record]| levers(records).iter().map(|l| (l.record, l.usual)).collect::<Vec<_>>();
        assert_eq!(pairs(&records), [(2, Some(2)), (0, Some(2)), (3, Some(3)), (1, Some(3)), (4, None)]);
        // Two stages beside two replicas, on as many devices.
        let mut staged = of(2, Levers { accumulate: 4, ..plain }, Sharding::None);
        staged.cell.trial.parallel = Some(Parallel { pipeline: 2, ..Parallel::replicas(1) });
        assert_eq!(pairs(&[staged.clone(), of(2, plain, Sharding::None)]), [(1, Some(1)), (0, Some(1))]);
        assert_eq!(pairs(&[staged]), [(0, None)]);
        // Experts spread over two devices, beside two that have all.
        let mut spread = of(2, plain, Sharding::None);
        spread.cell.trial.parallel = Some(Parallel { expert: 2, ..Parallel::replicas(2) });
        assert_eq!(pairs(&[spread, of(2, plain, Sharding::None)]), [(1, Some(1)), (0, Some(1))]);
    }
}
