//! The launcher that started this process as one of several, if one did.

use super::Failure;
use crate::net::world::World;

/// The processes that the environment tells of.
pub(super) fn world() -> Result<Option<World>, Failure> {
    World::from_environment().map_err(|e| Failure::Usage(e.into()))
}
