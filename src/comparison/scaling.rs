//! One device against several, over trials that are equal in everything else.

use super::ratio;
use crate::cost::evaluate::Figured;
use crate::cost::metric::Estimate;
use crate::cost::metrics::{TOKENS_PER_SECOND, USD_PER_MILLION};
use crate::results::record::Record;
use crate::results::run::Run;
use crate::runner::measurement::Figures;
use crate::stats::launches::Spread;
use crate::transformer::collective::grid::{Parallel, Sharding};

/// One number of devices beside one device.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Point {
    /// Index of the record.
    pub record: usize,
    pub devices: u32,
    pub throughput: Estimate,
    pub cost: Option<Estimate>,
    /// `throughput_n / throughput_1`.
    pub speedup: Estimate,
    /// `throughput_n / (n * throughput_1)`: 1 is perfect. The work is the same, so this is strong scaling.
    pub efficiency: Estimate,
}

/// Trials that differ in their number of devices alone, by devices ascending; the first has one.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Series {
    pub way: Way,
    pub points: Vec<Point>,
}

/// How several devices share the work; devices that share it otherwise are another series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Replicas(Sharding),
    /// Every layer on all devices.
    Tensor,
    /// Replicas of so many devices each.
    Grid(u32, Sharding),
    /// Some of the layers on each device.
    Pipeline,
    /// Replicas of so many stages each.
    Pipelines(u32, Sharding),
    /// Replicas that experts are spread over, all of them.
    Experts,
    /// Replicas of which so many have all experts together.
    ExpertGroups(u32),
}

impl Way {
    fn of(p: &Parallel) -> Self {
        match (p.data, p.tensor) {
            _ if p.expert > 1 && p.expert == p.data => Self::Experts,
            _ if p.expert > 1 => Self::ExpertGroups(p.expert),
            (1, _) if p.pipeline > 1 => Self::Pipeline,
            _ if p.pipeline > 1 => Self::Pipelines(p.pipeline, p.sharding),
            (_, 1) => Self::Replicas(p.sharding),
            (1, _) => Self::Tensor,
            (_, tensor) => Self::Grid(tensor, p.sharding),
        }
    }
}

/// What is said of it beside the configuration; nothing of whole replicas, the usual way.
impl std::fmt::Display for Way {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let sharding = match self {
            Self::Tensor => return f.write_str("tensor parallel"),
            Self::Pipeline => return f.write_str("pipeline"),
            Self::Experts => return f.write_str("experts spread"),
            Self::ExpertGroups(ranks) => return write!(f, "experts spread over {ranks}"),
            Self::Replicas(Sharding::None) => return Ok(()),
            Self::Replicas(sharding) => sharding,
            Self::Grid(tensor, sharding) => {
                write!(f, "replicas of {tensor}")?;
                sharding
            }
            Self::Pipelines(stages, sharding) => {
                write!(f, "replicas of {stages} stages")?;
                sharding
            }
        };
        match (self, sharding) {
            (_, Sharding::None) => Ok(()),
            (Self::Grid(..) | Self::Pipelines(..), what) => write!(f, ", {what} sharded"),
            (_, what) => write!(f, "{what} sharded"),
        }
    }
}

/// Every series of a run that has one device and several.
pub(crate) fn scaling(run: &Run, figures: &[Figured]) -> Vec<Series> {
    let spread = run.environment.variation().spread;
    let measured: Vec<(usize, &Record, Estimate)> = run
        .records
        .iter()
        .zip(figures)
        .enumerate()
        .filter_map(|(i, (r, f))| Some((i, r, f.get(&TOKENS_PER_SECOND)?)))
        .collect();
    let mut all = Vec::new();
    for &(_, base, single) in measured.iter().filter(|(_, r, _)| r.cell.trial.devices == 1) {
        let equal: Vec<_> = measured.iter().filter(|(_, r, _)| equal_but_devices(base, r)).collect();
        let mut ways: Vec<Way> = Vec::new();
        for (_, r, _) in equal.iter().filter(|(_, r, _)| r.cell.trial.devices > 1) {
            let way = Way::of(&r.cell.trial.parallel());
            if !ways.contains(&way) {
                ways.push(way);
            }
        }
        for way in ways {
            let of_way = |r: &Record| r.cell.trial.devices == 1 || Way::of(&r.cell.trial.parallel()) == way;
            let mut points: Vec<Point> = equal
                .iter()
                .filter(|(_, r, _)| of_way(r))
                .filter_map(|&&(i, r, throughput)| {
                    let cost = figures.get(i).and_then(|f| f.get(&USD_PER_MILLION));
                    point((i, r, throughput), cost, (base, single), &spread)
                })
                .collect();
            points.sort_by_key(|p| p.devices);
            if points.len() > 1 {
                all.push(Series { way, points });
            }
        }
    }
    all
}

fn point(
    (record, r, throughput): (usize, &Record, Estimate),
    cost: Option<Estimate>,
    (base, single): (&Record, Estimate),
    spread: &Spread,
) -> Option<Point> {
    let devices = r.cell.trial.devices;
    let rounds = |r: &Record| r.measurement.figures.as_ref().map(Figures::medians_of_launches).unwrap_or_default();
    // Against itself a trial is not random: exactly 1.
    let speedup = if devices == 1 {
        Estimate::exact(1.0)?
    } else {
        ratio::ratio_of_run(&throughput, &single, [&rounds(r), &rounds(base)], spread)?
    };
    let efficiency = speedup.increasing(|s| s / f64::from(devices))?;
    Some(Point { record, devices, throughput, cost, speedup, efficiency })
}

fn equal_but_devices(a: &Record, b: &Record) -> bool {
    let (a, b) = (&a.cell.trial, &b.cell.trial);
    a.workload == b.workload && a.backend == b.backend && a.cores_per_device == b.cores_per_device
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cost::evaluate::evaluate;
    use crate::fixture;

    #[test]
    fn two_devices_that_are_twice_as_fast_are_fully_efficient() {
        let mut run = fixture::sweep();
        run.records.retain(|r| r.measurement.figures.is_some());
        let one = run.records.iter().position(|r| r.cell.trial.devices == 1).unwrap();
        let mut one = run.records[one].clone();
        one.measurement.figures.as_mut().unwrap().step_seconds = vec![0.5; 20];
        let mut two = one.clone();
        two.cell.trial.devices = 2;
        two.measurement.figures.as_mut().unwrap().step_seconds = vec![0.25; 20];
        let mut four = one.clone();
        four.cell.trial.devices = 4;
        four.measurement.figures.as_mut().unwrap().step_seconds = vec![0.25; 20];
        run.records = vec![two, one, four];
        let series = scaling(&run, &evaluate(&run, fixture::book()));
        assert_eq!(series.len(), 1);
        let figures: Vec<(u32, f64, f64)> =
            series[0].points.iter().map(|p| (p.devices, p.speedup.value, p.efficiency.value)).collect();
        assert_eq!(figures, [(1, 1.0, 1.0), (2, 2.0, 1.0), (4, 2.0, 0.5)]);
    }

    #[test]
    fn devices_that_share_the_work_otherwise_are_another_series() {
        let mut run = fixture::sweep();
        run.records.retain(|r| r.measurement.figures.is_some());
        let one = run.records.iter().find(|r| r.cell.trial.devices == 1).unwrap().clone();
        let shared = |parallel: Parallel| {
            let mut r = one.clone();
            r.cell.trial.devices = parallel.ranks().unwrap();
            r.cell.trial.parallel = Some(parallel);
            r
        };
        let of = |data, tensor, sharding| shared(Parallel { data, tensor, sharding, ..Parallel::replicas(1) });
        run.records = vec![
            of(2, 1, Sharding::None),
            of(1, 2, Sharding::None),
            of(2, 1, Sharding::Optimizer),
            of(2, 2, Sharding::Optimizer),
            shared(Parallel { pipeline: 2, ..Parallel::replicas(1) }),
            shared(Parallel { pipeline: 2, ..Parallel::replicas(2) }),
            shared(Parallel { expert: 2, ..Parallel::replicas(2) }),
            shared(Parallel { expert: 2, ..Parallel::replicas(4) }),
            one.clone(),
        ];
        let found = scaling(&run, &evaluate(&run, fixture::book()));
        let ways: Vec<String> = found.iter().map(|s| s.way.to_string()).collect();
        assert_eq!(ways[..4], ["", "tensor parallel", "optimizer sharded", "replicas of 2, optimizer sharded"]);
        assert_eq!(ways[4..], ["pipeline", "replicas of 2 stages", "experts spread", "experts spread over 2"]);
        assert!(found.iter().all(|s| s.points.len() == 2 && s.points[0].devices == 1));
    }

    #[test]
    fn trials_that_differ_in_more_than_devices_are_not_set_against_each_other() {
        let run = fixture::sweep();
        let series = scaling(&run, &evaluate(&run, fixture::book()));
        assert!(!series.is_empty());
        for s in &series {
            let first = &run.records[s.points[0].record].cell.trial;
            assert!(s.points.iter().all(|p| run.records[p.record].cell.trial.workload == first.workload));
        }
    }
}
