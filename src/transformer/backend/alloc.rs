//! Where buffers come from.

use super::super::error::SessionError;
use super::super::operands::Category;

/// Where buffers come from. Apart from `Backend`, so that the account of memory can run the very code that allocates,
/// with buffers that only count.
pub trait Alloc {
    /// A device array of f32, zeroed when made.
    type Buffer;

    /// # Errors
    /// `SessionError::OutOfMemory`.
    fn alloc(&self, len: usize, category: Category) -> Result<Self::Buffer, SessionError>;
}
