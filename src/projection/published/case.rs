//! One published figure, and what it is of.

use crate::projection::serving::Serving;
use crate::projection::training::Training;

/// What was published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Quantity {
    TrainingTokens,
    PrefillTokens,
    DecodeTokens,
    ServedTokens,
    TrainingMemory,
    ServingMemory,
}

/// Quantities whose errors tell of one another, and whose bars rest on the same sources.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    Training,
    Inference,
    Memory,
}

impl Group {
    pub const ALL: [Self; 3] = [Self::Training, Self::Inference, Self::Memory];

    pub fn name(self) -> &'static str {
        match self {
            Self::Training => "training",
            Self::Inference => "inference",
            Self::Memory => "memory",
        }
    }
}

impl Quantity {
    pub const ALL: [Self; 6] = [
        Self::TrainingTokens,
        Self::PrefillTokens,
        Self::DecodeTokens,
        Self::ServedTokens,
        Self::TrainingMemory,
        Self::ServingMemory,
    ];

    pub fn group(self) -> Group {
        match self {
            Self::TrainingTokens => Group::Training,
            Self::PrefillTokens | Self::DecodeTokens | Self::ServedTokens => Group::Inference,
            Self::TrainingMemory | Self::ServingMemory => Group::Memory,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::TrainingTokens => "training",
            Self::PrefillTokens => "prefill",
            Self::DecodeTokens => "decode",
            Self::ServedTokens => "serving",
            Self::TrainingMemory => "training memory",
            Self::ServingMemory => "inference memory",
        }
    }

    /// As a heading.
    pub fn title(self) -> &'static str {
        match self {
            Self::TrainingTokens => "Training",
            Self::PrefillTokens => "Prefill",
            Self::DecodeTokens => "Decode",
            Self::ServedTokens => "Serving",
            Self::TrainingMemory => "Memory in training",
            Self::ServingMemory => "Memory in inference",
        }
    }

    /// As an anchor.
    pub fn anchor(self) -> &'static str {
        match self {
            Self::TrainingTokens => "training",
            Self::PrefillTokens => "prefill",
            Self::DecodeTokens => "decode",
            Self::ServedTokens => "serving",
            Self::TrainingMemory => "training-memory",
            Self::ServingMemory => "inference-memory",
        }
    }

    pub fn unit(self) -> &'static str {
        if self.is_memory() { "GB/device" } else { "tokens/s" }
    }

    pub fn is_memory(self) -> bool {
        self.group() == Group::Memory
    }
}

/// A configuration to predict.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Setup {
    Training(Box<Training>),
    /// Where the layout was not given: the fastest of these that fits.
    Choice(Vec<Training>),
    Serving(Box<Served>),
}

/// A configuration of inference and what was asked of it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Served {
    pub serving: Serving,
    pub prompt: f64,
    pub output: f64,
    /// `None`: as many as fit.
    pub batch: Option<f64>,
}

/// What a published figure of memory is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Counted {
    /// What the program allocated at most.
    Allocated,
    /// What the process holds of the device, its runtime and unused pool included.
    Process,
}

/// One published figure.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Case {
    pub id: String,
    pub source: String,
    pub what: String,
    pub quantity: Quantity,
    pub published: f64,
    pub setup: Setup,
    /// What a figure of memory counts.
    pub counted: Counted,
    /// What the row does not say and was filled in.
    pub assumed: Vec<&'static str>,
}

/// A row without a prediction.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Left {
    pub id: String,
    pub source: String,
    pub reason: String,
}

/// A table, read.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Published {
    pub cases: Vec<Case>,
    pub left: Vec<Left>,
}
