//! Bytes that a session holds: by what they hold, and as devices' allocators count them.

use crate::units::Bytes;

/// Bytes by what they hold, over all ranks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct MemoryParts {
    /// Parameters.
    pub weights_bytes: u64,
    /// Gradients of parameters.
    pub gradients_bytes: u64,
    /// The optimizer's moments.
    pub optimizer_bytes: u64,
    /// What a pass keeps, statistics and losses included.
    pub activations_bytes: u64,
    /// Keys and values of earlier tokens.
    pub kv_cache_bytes: u64,
    /// Scratch of operations.
    pub workspace_bytes: u64,
}

impl MemoryParts {
    /// The sum of the parts; `None` when it overflows.
    pub fn total(&self) -> Option<Bytes> {
        [self.gradients_bytes, self.optimizer_bytes, self.activations_bytes, self.kv_cache_bytes, self.workspace_bytes]
            .into_iter()
            .try_fold(self.weights_bytes, u64::checked_add)
            .map(Bytes)
    }
}

/// The most that devices' allocators had given out, and had taken from the devices for it, at one time; over all ranks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct DeviceMemory {
    /// Given out at one time.
    pub peak_allocated_bytes: u64,
    /// Taken from the devices at one time.
    pub peak_reserved_bytes: u64,
}

impl DeviceMemory {
    /// Of several devices together; `None` unless each tells.
    pub fn sum(each: impl IntoIterator<Item = Option<Self>>) -> Option<Self> {
        each.into_iter().try_fold(Self::default(), |all, one| {
            let one = one?;
            Some(Self {
                peak_allocated_bytes: all.peak_allocated_bytes.checked_add(one.peak_allocated_bytes)?,
                peak_reserved_bytes: all.peak_reserved_bytes.checked_add(one.peak_reserved_bytes)?,
            })
        })
    }
}
