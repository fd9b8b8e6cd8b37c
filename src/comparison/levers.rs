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

/// The training trials of a run, usual ones before those that stand beside them; none where all are carried out alike.
pub(crate) fn levers(records: &[Record]) -> Vec<Lever> {
    let training = || records.iter().map(|r| &r.cell.trial).enumerate().filter(|(_, trial)| concerns(trial));
    let ways: Vec<Way> = training().map(|(_, trial)| Way::of(trial)).collect();
    if ways.windows(2).all(|w| w[0] == w[1]) {
        return Vec::new();
    }
    let usual = Way::usual_of(&ways);
    let beside = |(record, trial)| {
        let wanted = usual.applied_to(trial);
        Lever { record, usual: training().find(|(_, other)| **other == wanted).map(|(i, _)| i) }
    };
    let mut all: Vec<Lever> = training().map(beside).collect();
    // In the order of the scenario, group by group.
    all.sort_by_key(|l| (l.usual.unwrap_or(l.record), l.usual != Some(l.record), l.record));
    all
}

fn concerns(trial: &Trial) -> bool {
    trial.workload.phase == Phase::Train && trial.engine.is_none()
}

/// How a training trial is carried out.
#[derive(Clone, Copy, PartialEq)]
struct Way {
    levers: Levers,
    sharding: Sharding,
    pipeline: u32,
    expert: u32,
}

impl Way {
    fn of(trial: &Trial) -> Self {
        let p = trial.parallel();
        Self { levers: trial.workload.levers, sharding: p.sharding, pipeline: p.pipeline, expert: p.expert }
    }

    /// Without levers, but for what all have alike, which is none that the run asks about.
    fn usual_of(ways: &[Self]) -> Self {
        fn alike<T: PartialEq>(ways: &[Way], of: fn(&Way) -> T, plain: T) -> T {
            let mut all = ways.iter().map(of);
            all.next().filter(|first| all.all(|other| other == *first)).unwrap_or(plain)
        }
        let plain = Levers::default();
        let levers = Levers {
            accumulate: alike(ways, |w| w.levers.accumulate, plain.accumulate),
            recompute: alike(ways, |w| w.levers.recompute, plain.recompute),
            clip: alike(ways, |w| w.levers.clip, plain.clip),
        };
        let sharding = alike(ways, |w| w.sharding, Sharding::None);
        Self { levers, sharding, pipeline: alike(ways, |w| w.pipeline, 1), expert: alike(ways, |w| w.expert, 1) }
    }

    /// The same trial carried out this way.
    fn applied_to(&self, trial: &Trial) -> Trial {
        let mut usual = trial.clone();
        usual.workload.levers = self.levers;
        let p = trial.parallel();
        // As many devices, each a whole replica's where there are no stages.
        let data = if self.pipeline == p.pipeline { p.data } else { p.data.saturating_mul(p.pipeline) };
        usual.parallel =
            Some(Parallel { data, pipeline: self.pipeline, expert: self.expert, sharding: self.sharding, ..p });
        usual.canonical()
    }
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
        // Experts spread over two devices, beside two that have all.
        let mut spread = of(2, plain, Sharding::None);
        spread.cell.trial.parallel = Some(Parallel { expert: 2, ..Parallel::replicas(2) });
        assert_eq!(pairs(&[spread, of(2, plain, Sharding::None)]), [(1, Some(1)), (0, Some(1))]);
        assert!(pairs(&[staged]).is_empty());
        // A bound of the gradients' norm that all have is no lever; beside another one it is none of that one's.
        let clipped = Levers { clip: Some(1.0), ..plain };
        let run_again = of(1, Levers { clip: Some(1.0), ..full }, Sharding::None);
        let mut larger = of(1, clipped, Sharding::None);
        larger.cell.trial.workload.batch += 1;
        assert!(pairs(&[of(1, clipped, Sharding::None), larger.clone()]).is_empty());
        let all = [run_again, larger, of(1, clipped, Sharding::None)];
        assert_eq!(pairs(&all), [(1, Some(1)), (2, Some(2)), (0, Some(2))]);
        assert_eq!(
            pairs(&[of(1, clipped, Sharding::None), of(1, plain, Sharding::None)]),
            [(1, Some(1)), (0, Some(1))]
        );
    }
}
