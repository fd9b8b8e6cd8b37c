//! What the other figures are worth: samples, precision, disturbance.

use crate::cost::metric::{Direction, Estimate, Metric, Provenance, Quantity};

pub static SAMPLES: Metric = Metric {
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

pub static PRECISION: Metric = Metric {
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

pub static STEAL: Metric = Metric {
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
