//! Processes that talk: the world that a launcher tells of, how its processes meet, and framed messages between two of them.
//!
//! Knows nothing of a transformer.

pub mod lost;
pub mod rendezvous;
pub mod wire;
pub mod world;
