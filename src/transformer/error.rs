//! Why a session could not be prepared or stepped.

use super::{BackendKind, CacheFormat, Dtype, WeightFormat};
use crate::net::lost::Lost;

/// Why a session could not be prepared or stepped.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SessionError {
    #[error("backend cuda: {0}; or use backend: cpu or auto")]
    NoCuda(String),
    #[error("{0}")]
    Device(String),
    #[error("dtype {dtype} is not available on backend {backend}; use dtype: f32")]
    NoDtype { dtype: Dtype, backend: BackendKind },
    #[error("weights: {weights} is not available on backend {backend}; use weights: dtype, or backend: cpu")]
    NoWeights { weights: WeightFormat, backend: BackendKind },
    #[error("kv_cache: {kv_cache} is not available on backend {backend}; use kv_cache: dtype, or backend: cpu")]
    NoCache { kv_cache: CacheFormat, backend: BackendKind },
    #[error("{0}")]
    Invalid(String),
    #[error("a rank ended before the others; what they computed since means nothing")]
    LostRank,
    /// Another process.
    #[error(transparent)]
    Lost(#[from] Lost),
    /// What keeps processes from working together, in words.
    #[error("{0}")]
    Apart(String),
    #[error("out of memory: {0}")]
    OutOfMemory(String),
    /// A program that was measured in the transformer's place.
    #[error("{0}")]
    Crashed(String),
    /// There are no more steps: the program has ended, and ended well.
    #[error("the program has ended")]
    Ended,
}

impl SessionError {
    /// Whether the reason lies with another rank, which may tell a better one.
    pub fn is_consequence(&self) -> bool {
        matches!(self, Self::LostRank | Self::Lost(_) | Self::Apart(_))
    }
}
