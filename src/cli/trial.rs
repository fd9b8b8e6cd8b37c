//! `centime trial`.

use super::Failure;
use crate::hardware::gpu::Probed;
use crate::runner::child;
use crate::runner::protocol::ProtocolError;
use crate::transformer::cuda::attention_rates::attention_rates;
use crate::transformer::cuda::limits::limits;
use crate::transformer::cuda::nccl::try_alone;
use serde::Serialize;
use std::io;

/// Run one trial in this process and report over the pipe (used by run).
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Measure the limits of the GPU of this number instead, and print them as JSON.
    #[arg(long, value_name = "NUMBER")]
    gpu_limits: Option<usize>,
    /// Time attention's kernels by themselves on the GPU of this number instead, and print their rates as JSON.
    #[arg(long, value_name = "NUMBER")]
    attention_rates: Option<usize>,
    /// Try NCCL with one rank on the GPU of this number instead.
    #[arg(long, value_name = "NUMBER")]
    nccl: Option<usize>,
    /// Compile the kernels for a GPU of this compute capability (90 for 9.0) instead, which need not be here.
    #[arg(long, value_name = "NUMBER")]
    compile: Option<u32>,
}

pub(super) fn run(a: &Arguments) -> Result<(), Failure> {
    if let Some(ordinal) = a.gpu_limits {
        return gpu_limits(ordinal);
    }
    if let Some(ordinal) = a.attention_rates {
        let found = attention_rates(ordinal).map_err(|e| Failure::Internal(e.into()))?;
        return print_json(&found);
    }
    if let Some(capability) = a.compile {
        return super::compile::run(capability);
    }
    if let Some(ordinal) = a.nccl {
        try_alone(ordinal).map_err(|e| Failure::Internal(e.into()))?;
        return super::output::print("NCCL with one rank: every call leaves the numbers as they were");
    }
    child::serve(io::stdin().lock(), io::stdout().lock()).map_err(|e| match e {
        ProtocolError::Request(_) => Failure::Usage(e.into()),
        ProtocolError::Read(_) | ProtocolError::Write(_) => Failure::Io(e.into()),
    })
}

fn gpu_limits(ordinal: usize) -> Result<(), Failure> {
    let found = limits(ordinal).map_err(|e| Failure::Internal(e.into()))?;
    let probed = Probed {
        flops_per_second: found.flops_per_second.into_iter().map(|(name, rate)| (name.to_string(), rate)).collect(),
        copy_bytes_per_second: Some(found.copy_bytes_per_second),
    };
    print_json(&probed)
}

fn print_json(value: &impl Serialize) -> Result<(), Failure> {
    let json = serde_json::to_string(value).map_err(|e| Failure::Internal(e.into()))?;
    super::output::print(&json)
}
