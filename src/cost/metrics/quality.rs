//! What the other figures are worth: samples, precision, disturbance.

use crate::cost::metric::{Direction, Estimate, Metric, Provenance, Quantity};

pub(crate) static SAMPLES: Metric = Metric {
    name: "samples",
    label: "samples",
    unit: "steps",
    quantity: Quantity::Count,
    provenance: Provenance::Measured,
    direction: Direction::Neutral,
    formula: "measured steps after the warm-up; none is dropped",
    source: "counted",
    compute: |c| Estimate::exact(c.figures()?.step_seconds.len() as f64),
};

pub(crate) static PRECISION: Metric = Metric {
    name: "precision_reached",
    label: "precision",
    unit: "% of the median",
    quantity: Quantity::Share,
    provenance: Provenance::Measured,
    direction: Direction::Lower,
    formula: "half width of the 95 % interval of the median step / the median, when measuring stopped",
    source: "the runner's stopping rule",
    compute: |c| Estimate::exact(c.figures()?.precision_reached?),
};

pub(crate) static DISTURBANCE: Metric = Metric {
    name: "disturbance",
    label: "lost",
    unit: "% of the time",
    quantity: Quantity::Share,
    provenance: Provenance::Measured,
    direction: Direction::Lower,
    formula: "share of the measured time that the trial lost: waiting for a core, held by a quota, taken by the hypervisor, slowed by \
              heat, short of memory; above measure.disturbed.lost (2 %) the row is disturbed",
    source: "the kernel's accounts of the trial's threads, the cores and the control group",
    compute: |c| Estimate::exact(c.figures()?.disturbance.as_ref()?.lost()?),
};

pub(crate) static OTHERS: Metric = Metric {
    name: "others_share",
    label: "others",
    unit: "% of the CPU time",
    quantity: Quantity::Share,
    provenance: Provenance::Measured,
    direction: Direction::Lower,
    formula: "processor time of others / all that was used on the trial's cores meanwhile; above measure.disturbed.others (10 %) \
              the row is disturbed",
    source: "the kernel's account of the cores, less the trial's own",
    compute: |c| Estimate::exact(c.figures()?.disturbance.as_ref()?.others?),
};

pub(crate) static MACHINE_SPEED: Metric = Metric {
    name: "machine_speed",
    label: "speed",
    unit: "% of the best known",
    quantity: Quantity::Share,
    provenance: Provenance::Measured,
    direction: Direction::Higher,
    formula: "f32 rate of all cores before and after each launch, median over the launches / the best that this run and earlier ones \
              on the machine found",
    source: "a canary of about 30 ms, the probe's work in short",
    compute: |c| Estimate::exact(c.rates?.of(&c.best_rates?).f32_flops_per_second)?.positive(),
};

pub(crate) static MACHINE_BANDWIDTH: Metric = Metric {
    name: "machine_bandwidth",
    label: "bandwidth",
    unit: "% of the best known",
    quantity: Quantity::Share,
    provenance: Provenance::Measured,
    direction: Direction::Higher,
    formula: "as machine_speed, of the rate at which all cores read memory",
    source: "a canary of about 30 ms, the probe's work in short",
    compute: |c| Estimate::exact(c.rates?.of(&c.best_rates?).read_bytes_per_second)?.positive(),
};

pub(crate) static STEAL: Metric = Metric {
    name: "steal_share",
    label: "steal",
    unit: "% of the time",
    quantity: Quantity::Share,
    provenance: Provenance::Measured,
    direction: Direction::Lower,
    formula: "share of the measuring time in which the hypervisor ran somebody else",
    source: "the operating system's accounting",
    compute: |c| Estimate::exact(c.figures()?.steal_share?),
};
