//! One device against several, over trials that are equal in everything else.

use super::ratio;
use crate::cost::evaluate::Figured;
use crate::cost::metric::Estimate;
use crate::cost::metrics::{TOKENS_PER_SECOND, USD_PER_MILLION};
use crate::results::record::Record;

/// One number of devices beside one device.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
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
pub struct Series {
    pub points: Vec<Point>,
}

/// Every series of the records that has one device and several.
pub fn scaling(records: &[Record], figures: &[Figured]) -> Vec<Series> {
    let measured: Vec<(usize, &Record, Estimate)> = records
        .iter()
        .zip(figures)
        .enumerate()
        .filter_map(|(i, (r, f))| Some((i, r, f.get(&TOKENS_PER_SECOND)?)))
        .collect();
    let mut all = Vec::new();
    for &(_, base, single) in measured.iter().filter(|(_, r, _)| r.cell.trial.devices == 1) {
        let mut points: Vec<Point> = measured
            .iter()
            .filter(|(_, r, _)| equal_but_devices(base, r))
            .filter_map(|&(i, r, throughput)| {
                let cost = figures.get(i).and_then(|f| f.get(&USD_PER_MILLION));
                point(i, r.cell.trial.devices, throughput, cost, single)
            })
            .collect();
        points.sort_by_key(|p| p.devices);
        if points.len() > 1 {
            all.push(Series { points });
        }
    }
    all
}

fn point(record: usize, devices: u32, throughput: Estimate, cost: Option<Estimate>, single: Estimate) -> Option<Point> {
    // Against itself a trial is not random: exactly 1.
    let speedup = if devices == 1 { Estimate::exact(1.0)? } else { ratio::ratio(&throughput, &single)? };
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
        let series = scaling(&run.records, &evaluate(&run));
        assert_eq!(series.len(), 1);
        let figures: Vec<(u32, f64, f64)> =
            series[0].points.iter().map(|p| (p.devices, p.speedup.value, p.efficiency.value)).collect();
        assert_eq!(figures, [(1, 1.0, 1.0), (2, 2.0, 1.0), (4, 2.0, 0.5)]);
    }

    #[test]
    fn trials_that_differ_in_more_than_devices_are_not_set_against_each_other() {
        let run = fixture::sweep();
        let series = scaling(&run.records, &evaluate(&run));
        assert!(!series.is_empty());
        for s in &series {
            let first = &run.records[s.points[0].record].cell.trial;
            assert!(s.points.iter().all(|p| run.records[p.record].cell.trial.workload == first.workload));
        }
    }
}
