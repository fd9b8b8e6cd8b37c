//! Trials against the projection of a good engine within this machine's probed limits.

use crate::projection::calibration::Calibration;
use crate::projection::own::{cpu, step_seconds};
use crate::projection::published::Quantity;
use crate::projection::workload::quantity;
use crate::results::run::Run;
use crate::runner::measurement::Status;
use crate::transformer::BackendKind;

/// One trial.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Compared {
    /// Place among the run's records.
    pub record: usize,
    pub quantity: Quantity,
    pub measured_seconds: f64,
    pub projected_seconds: f64,
}

impl Compared {
    /// 1.2: the step took a fifth longer than projected.
    pub(crate) fn ratio(&self) -> f64 {
        self.measured_seconds / self.projected_seconds
    }
}

/// Every measured trial of a probed machine's CPU backend; of the oracle nothing is projected.
pub(crate) fn projected(run: &Run, c: &Calibration) -> Vec<Compared> {
    let (Some(probe), machine) = (&run.environment.probe, &run.environment.machine) else { return Vec::new() };
    let one = |(record, r): (usize, &crate::results::record::Record)| {
        let trial = &r.cell.trial;
        let figures = r.measurement.figures.as_ref().filter(|_| r.measurement.status == Status::Ok)?;
        if trial.backend != BackendKind::Cpu || !trial.states_model() {
            return None;
        }
        let used = trial.devices.checked_mul(trial.cores_per_device)?;
        let device = cpu(&machine.cpu_model, probe, used, machine.cores, machine.memory_bytes as f64);
        let w = &trial.workload;
        Some(Compared {
            record,
            quantity: quantity(w.phase),
            measured_seconds: crate::stats::median(&figures.medians_of_launches())?,
            projected_seconds: step_seconds(w, &device, c)? / (1.0 - trial.bubble()),
        })
    };
    run.records.iter().enumerate().filter_map(one).collect()
}
