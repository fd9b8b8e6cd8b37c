//! Bytes: what a trial took, and what it was predicted to take.

use crate::cost::largest::largest_batch;
use crate::cost::metric::{Context, Direction, Estimate, Metric, Provenance, Quantity};
use crate::transformer::BackendKind;
use crate::units::Bytes;

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

pub(crate) static PEAK_MEMORY: Metric = bytes(
    "peak_memory_bytes",
    "peak memory",
    Provenance::Measured,
    "highest resident bytes of the trial's process; of a program, those of all its processes together",
    "the operating system's high-water mark of the process; of several processes, looked at 20 times a second",
    |c| exact(c.figures()?.peak_rss_bytes),
);

pub(crate) static MODEL_MEMORY: Metric = bytes(
    "model_memory_bytes",
    "model memory",
    Provenance::Measured,
    "peak_memory_bytes - resident bytes before the model was built; on GPUs: peak_gpu_allocated_bytes",
    "what the model added; the counterpart of the prediction",
    |c| {
        let f = c.figures()?;
        if let Some(devices) = f.device_memory {
            return exact(devices.peak_allocated_bytes);
        }
        // What another program took before its model is not known.
        let baseline = Some(f.baseline_rss_bytes).filter(|b| *b > 0)?;
        exact(f.peak_rss_bytes.checked_sub(baseline)?)
    },
);

pub(crate) static PREDICTED_MEMORY: Metric = bytes(
    "predicted_memory_bytes",
    "predicted memory",
    Provenance::Projected,
    "weights + gradients + optimizer state + activations + KV cache + workspace",
    "counted from the shape",
    |c| exact(c.record.measurement.predicted_memory.total()?.get()),
);

pub(crate) static PEAK_ALLOCATED: Metric = bytes(
    "peak_allocated_bytes",
    "peak allocated",
    Provenance::Measured,
    "highest bytes that the process had allocated at one time",
    "the program's own allocator",
    |c| exact(c.figures()?.peak_allocated_bytes),
);

/// What PyTorch calls `max_memory_allocated`.
pub(crate) static PEAK_GPU_ALLOCATED: Metric = bytes(
    "peak_gpu_allocated_bytes",
    "peak GPU allocated",
    Provenance::Measured,
    "highest bytes that the trial had allocated on its GPUs at one time, each GPU's added up",
    POOL,
    |c| exact(c.figures()?.device_memory?.peak_allocated_bytes),
);

/// What PyTorch calls `max_memory_reserved`.
pub(crate) static PEAK_GPU_RESERVED: Metric = bytes(
    "peak_gpu_reserved_bytes",
    "peak GPU reserved",
    Provenance::Measured,
    "highest bytes that the allocators had taken from the GPUs for that, each GPU's added up",
    POOL,
    |c| exact(c.figures()?.device_memory?.peak_reserved_bytes),
);

const POOL: &str = "CUDA's stream-ordered memory pool (CU_MEMPOOL_ATTR_USED_MEM_HIGH, .._RESERVED_MEM_HIGH); the context, kernels and \
                    NCCL's buffers are not in it";

pub(crate) static LARGEST_BATCH: Metric = Metric {
    name: "largest_batch",
    label: "largest batch",
    unit: "sequences",
    quantity: Quantity::Count,
    provenance: Provenance::Projected,
    direction: Direction::Higher,
    formula: "the largest batch whose predicted_memory_bytes are within 92 % of the machine's memory, or of its GPUs', all else being as it is; \
              in training",
    source: "counted from the shape",
    compute: |c| Estimate::exact(f64::from(largest_batch(&c.record.cell.trial, devices(c)?)?)),
};

/// What a trial's devices have together: of GPUs as many times what the smallest has.
fn devices(c: &Context) -> Option<Bytes> {
    let trial = &c.record.cell.trial;
    if trial.backend != BackendKind::Cuda {
        return Some(c.memory);
    }
    let used = c.gpus.get(..trial.devices as usize)?;
    let smallest = used.iter().map(|g| g.memory_bytes).filter(|b| *b > 0).min()?;
    Some(Bytes(smallest.checked_mul(u64::from(trial.devices))?))
}

/// A count of bytes that is 0 was not taken, and is no figure.
fn exact(bytes: u64) -> Option<Estimate> {
    Estimate::exact(bytes as f64)?.positive()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cost::evaluate::evaluate;
    use crate::fixture;

    #[test]
    fn what_a_model_took_is_the_gpus_account_where_there_is_one() {
        let run = fixture::gpus();
        let figures = evaluate(&run, fixture::book());
        let get = |i: usize, m: &Metric| figures[i].get(m).map(|e| e.value);
        let devices = run.records[0].measurement.figures.as_ref().unwrap().device_memory.unwrap();
        let (allocated, reserved) = (devices.peak_allocated_bytes as f64, devices.peak_reserved_bytes as f64);
        assert_eq!(get(0, &PEAK_GPU_ALLOCATED), Some(allocated));
        assert_eq!(get(0, &PEAK_GPU_RESERVED), Some(reserved));
        assert_eq!(get(0, &MODEL_MEMORY), Some(allocated));
        assert!(get(0, &PEAK_MEMORY).unwrap() != allocated);
        // A journal from before says nothing of it.
        assert_eq!((get(3, &PEAK_GPU_ALLOCATED), get(3, &PEAK_GPU_RESERVED)), (None, None));
        let cpu = fixture::heads();
        let figures = cpu.records[0].measurement.figures.as_ref().unwrap();
        let added = (figures.peak_rss_bytes - figures.baseline_rss_bytes) as f64;
        let cpu = &evaluate(&cpu, fixture::book())[0];
        assert_eq!(cpu.get(&MODEL_MEMORY).map(|e| e.value), Some(added));
        assert!(cpu.get(&PEAK_GPU_ALLOCATED).is_none());
    }
}
