//! Every metric of a trial. One line here gives the column, the table's heading, the plot's axis and the gate.

mod efficiency;
mod energy;
mod gpu;
mod latency;
mod learning;
mod memory;
mod money;
mod quality;
mod serving;
mod throughput;

pub(crate) use efficiency::{FLOPS_PER_SECOND, MBU, MFU, MFU_CAUSAL, PEAK_FLOPS, PIPELINE_BUBBLE, limits};
pub(crate) use energy::{ENERGY_USD_PER_MILLION, JOULES_PER_TOKEN, JOULES_PER_TOKEN_AT_TDP, WATTS};
pub(crate) use gpu::{GPU_CLOCK, GPU_THROTTLED, GPU_THROTTLED_STEPS, GPU_WATTS, PEAK_GPU_MEMORY};
pub(crate) use latency::{STEP_P50, STEP_P90, STEP_P95, STEP_P99, TPOT, TTFT};
pub(crate) use learning::{
    ABOVE_ENTROPY, BITS_PER_BYTE, CHECKPOINT_SECONDS, DATA_WAIT, EVALUATION_SECONDS, LOST_SECONDS, PREPARATION_SECONDS,
    SECONDS_TO_LOSS, TOKENS_TO_LOSS, TRAINED_TOKENS, USD_CHECKPOINTS, USD_LOST, USD_TO_LOSS, USD_TRAINED,
    VALIDATION_LOSS,
};
pub(crate) use memory::{
    LARGEST_BATCH, MODEL_MEMORY, PEAK_ALLOCATED, PEAK_GPU_ALLOCATED, PEAK_GPU_RESERVED, PEAK_MEMORY, PREDICTED_MEMORY,
};
pub(crate) use money::{TOKENS_PER_USD, USD_PER_MILLION, USD_PER_MILLION_INPUT, USD_PER_MILLION_OUTPUT};
pub(crate) use quality::{DISTURBANCE, MACHINE_BANDWIDTH, MACHINE_SPEED, OTHERS, PRECISION, SAMPLES, STEAL};
pub(crate) use serving::{
    CACHED_SHARE, E2E, E2E_P90, E2E_P95, E2E_P99, FAILED_REQUESTS, GOODPUT, INPUT_TOKENS, INPUT_TOKENS_PER_SECOND, ITL,
    ITL_P90, ITL_P95, ITL_P99, LARGEST_LOAD, LATENESS, OUTPUT_TOKENS, OUTPUT_TOKENS_PER_SECOND, REQUESTS_PER_SECOND,
    SERVER_KV_USE, SERVER_PREFIX_HITS, SERVER_RUNNING, SERVER_WAITING, SLO_SHARE, TPOT_P90, TPOT_P95, TPOT_P99,
    TTFT_P90, TTFT_P95, TTFT_P99,
};
pub(crate) use throughput::{TOKENS_PER_SECOND, TOKENS_PER_SECOND_PER_DEVICE};

use super::metric::Metric;

/// In the order of columns.
pub(crate) const METRICS: &[&Metric] = &[
    &TOKENS_PER_SECOND,
    &TOKENS_PER_SECOND_PER_DEVICE,
    &USD_PER_MILLION,
    &USD_PER_MILLION_INPUT,
    &USD_PER_MILLION_OUTPUT,
    &TOKENS_PER_USD,
    &VALIDATION_LOSS,
    &BITS_PER_BYTE,
    &ABOVE_ENTROPY,
    &TOKENS_TO_LOSS,
    &SECONDS_TO_LOSS,
    &USD_TO_LOSS,
    &TRAINED_TOKENS,
    &USD_TRAINED,
    &DATA_WAIT,
    &EVALUATION_SECONDS,
    &CHECKPOINT_SECONDS,
    &USD_CHECKPOINTS,
    &LOST_SECONDS,
    &USD_LOST,
    &PREPARATION_SECONDS,
    &STEP_P50,
    &STEP_P90,
    &STEP_P95,
    &STEP_P99,
    &TTFT,
    &TPOT,
    &TTFT_P90,
    &TTFT_P95,
    &TTFT_P99,
    &TPOT_P90,
    &TPOT_P95,
    &TPOT_P99,
    &ITL,
    &ITL_P90,
    &ITL_P95,
    &ITL_P99,
    &E2E,
    &E2E_P90,
    &E2E_P95,
    &E2E_P99,
    &INPUT_TOKENS_PER_SECOND,
    &OUTPUT_TOKENS_PER_SECOND,
    &REQUESTS_PER_SECOND,
    &GOODPUT,
    &SLO_SHARE,
    &FAILED_REQUESTS,
    &INPUT_TOKENS,
    &OUTPUT_TOKENS,
    &CACHED_SHARE,
    &LATENESS,
    &LARGEST_LOAD,
    &SERVER_RUNNING,
    &SERVER_WAITING,
    &SERVER_KV_USE,
    &SERVER_PREFIX_HITS,
    &FLOPS_PER_SECOND,
    &PEAK_FLOPS,
    &MFU,
    &MFU_CAUSAL,
    &MBU,
    &PIPELINE_BUBBLE,
    &WATTS,
    &GPU_WATTS,
    &JOULES_PER_TOKEN,
    &JOULES_PER_TOKEN_AT_TDP,
    &ENERGY_USD_PER_MILLION,
    &PEAK_MEMORY,
    &PEAK_GPU_MEMORY,
    &PEAK_GPU_ALLOCATED,
    &PEAK_GPU_RESERVED,
    &MODEL_MEMORY,
    &PREDICTED_MEMORY,
    &LARGEST_BATCH,
    &PEAK_ALLOCATED,
    &SAMPLES,
    &PRECISION,
    &DISTURBANCE,
    &OTHERS,
    &STEAL,
    &MACHINE_SPEED,
    &MACHINE_BANDWIDTH,
    &GPU_CLOCK,
    &GPU_THROTTLED,
    &GPU_THROTTLED_STEPS,
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_metric_has_a_name_of_its_own_a_formula_and_a_source() {
        let names: HashSet<&str> = METRICS.iter().map(|m| m.name).collect();
        assert_eq!(names.len(), METRICS.len());
        for m in METRICS {
            assert!(!m.label.is_empty() && !m.formula.is_empty() && !m.source.is_empty(), "{}", m.name);
        }
    }
}
