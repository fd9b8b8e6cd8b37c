//! Processes that talk: the world that a launcher tells of, how its processes meet, and framed messages between two of them.
//!
//! Knows nothing of a transformer.

pub(crate) mod lost;
pub(crate) mod rendezvous;
pub(crate) mod wire;
pub(crate) mod world;
