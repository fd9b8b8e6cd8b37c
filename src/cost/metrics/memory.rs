//! Bytes: what a trial took, and what it was predicted to take.

use crate::cost::metric::{Context, Direction, Estimate, Metric, Provenance, Quantity};

const fn bytes(
    name: &'static str,
    label: &'static str,
    provenance: Provenance,
    formula: &'static str,
    source: &'static str,
    compute: fn(&Context) -> Option<Estimate>,
) -> Metric {
    Metric {
        name,
        label,
        unit: "bytes",
        quantity: Quantity::Bytes,
        provenance,
        direction: Direction::Lower,
        formula,
        source,
        compute,
    }
}

pub static PEAK_MEMORY: Metric = bytes(
    "peak_memory_bytes",
    "peak memory",
    Provenance::Measured,
    "highest resident bytes of the trial's process",
    "the operating system's high-water mark of the process",
    |c| exact(c.figures()?.peak_rss_bytes),
);

pub static MODEL_MEMORY: Metric = bytes(
    "model_memory_bytes",
    "model memory",
    Provenance::Measured,
    "peak_memory_bytes - resident bytes before the model was built",
    "what the model added; the counterpart of the prediction",
    |c| {
        let f = c.figures()?;
        exact(f.peak_rss_bytes.checked_sub(f.baseline_rss_bytes)?)
    },
);

pub static PREDICTED_MEMORY: Metric = bytes(
    "predicted_memory_bytes",
    "predicted memory",
    Provenance::Projected,
    "weights + gradients + optimizer state + activations + KV cache + workspace",
    "counted from the shape",
    |c| exact(c.record.measurement.predicted_memory.total()?.get()),
);

pub static PEAK_ALLOCATED: Metric = bytes(
    "peak_allocated_bytes",
    "peak allocated",
    Provenance::Measured,
    "highest bytes that the process had allocated at one time",
    "the program's own allocator",
    |c| exact(c.figures()?.peak_allocated_bytes),
);

/// A count of bytes that is 0 was not taken, and is no figure.
fn exact(bytes: u64) -> Option<Estimate> {
    Estimate::exact(bytes as f64)?.positive()
}
