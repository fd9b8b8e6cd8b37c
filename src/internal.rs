//! What the program itself, its tests and its benchmarks reach beside the crate's root. Not for others: any of it may go or change
//! with any version. An item is listed here, one by one, so that the compiler finds what nobody uses.

/// The command line.
pub mod cli {
    pub use crate::cli::main;
}

/// What runs are compared by.
pub mod comparison {
    pub use crate::comparison::break_even::against_api;
    pub use crate::comparison::cheapest::{Cheapest, cheapest_of_run};
    pub use crate::comparison::check::{Check, CheckedCell, Method, Side, kept};
    pub use crate::comparison::judge::{Rule, Verdict};
}

/// Money.
pub mod cost {
    pub use crate::cost::factors::{Factors, Speed, change};
    pub use crate::cost::metric::Estimate;
    pub use crate::cost::price::Pricing;
    pub use crate::cost::requests::{priced, use_cases};
}

/// What is trained on.
pub mod data {
    pub use crate::data::{
        Batch, Cut, DataError, Entropy, Facts, Files, IGNORED, Language, Part, Prepared, Said, Source, Split,
        Tokenizer, What, cache_folder, prepare,
    };
}

/// This machine, and the catalog.
pub mod hardware {
    pub use crate::hardware::gpu::{Gpu, Reason, inspect};
    pub use crate::hardware::kind::Kind;
    pub use crate::hardware::machine::{Machine, Probe};
    pub use crate::hardware::read::built_in;
    pub use crate::hardware::schema::schema;
}

/// Requests to servers.
pub mod load {
    pub use crate::load::client::Client;
    pub use crate::load::counted::{Dialect, Sizing};
    pub use crate::load::generator::{Job, run};
    pub use crate::load::record::{Outcome, Record};
    pub use crate::load::served::{Latency, Served};
    pub use crate::load::sizing::learn;
    pub use crate::load::spec::{Api, Arrivals, Lengths, Pace, Prefix, Slo, Target, Traffic};
    pub use crate::load::stretch::{Rules, Stretch};
    pub use crate::load::summary::served;
    pub use crate::load::tokens::Tokens;
}

/// The order of a sweep.
pub mod plan {
    pub use crate::plan::order_of_round;
}

/// Hardware that is not here.
pub mod projection {
    pub use crate::projection::device::Unit;
    pub use crate::projection::kernels::ProductFormat;
    pub use crate::projection::model::Model;
    pub use crate::projection::serving::{InferenceEngine, Serving, Weights};
    pub use crate::projection::training::{Recompute, Training};
    pub use crate::projection::workload::{base, project};
}

/// What a check says, in every format.
pub mod report {
    pub use crate::report::check::{MARKER, benchmark, bmf, csv, json, junit, markdown};
}

/// What is on disk.
pub mod results {
    pub use crate::results::journal::{Journal, read as read_journal};
    pub use crate::results::record::{RunKey, SCHEMA_VERSION};
    pub use crate::results::run::save_environment;
    pub use crate::results::write::parquet_shape;
}

/// A trial in its process.
pub mod runner {
    pub use crate::runner::allocation::CountingAllocator;
    pub use crate::runner::telemetry::{GpuFigures, Telemetry};
}

/// Scenarios' schema, and budgets.
pub mod scenario {
    pub use crate::scenario::budget::Budget;
    pub use crate::scenario::schema::schema;
}

/// Medians, random numbers.
pub mod stats {
    pub use crate::stats::median;
    pub use crate::stats::random::SplitMix64;
}

/// The model, its backends and what it is counted by.
pub mod transformer {
    pub use crate::transformer::backend::{
        Alloc, AttentionDims, Backend, CacheDims, CacheElement, Category, Clipping, Frequencies, LinearDims, NormDims,
        Scores, Store, Update, Updated,
    };
    pub use crate::transformer::collective::grid::{Parallel, Sharding};
    pub use crate::transformer::cpu::Cpu;
    pub use crate::transformer::cuda::driver::available as available_gpus;
    pub use crate::transformer::levers::Levers;
    pub use crate::transformer::loads::Loads;
    pub use crate::transformer::memory::DeviceMemory;
    pub use crate::transformer::prepare::prepare;
    pub use crate::transformer::session::SessionOptions;
    pub use crate::transformer::shape::count;
    pub use crate::transformer::shape::hf_config::shape_from_hf_config;
    pub use crate::transformer::shape::{Activation, Family, Rope, Shape, ShapeSpec};
}
