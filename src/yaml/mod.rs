//! YAML for people: a tree in which every value knows its place, read field by field, so that whatever is wrong is pointed at.
//!
//! Scenarios, price books and budgets are read with it. Deliberately absent: what any of the fields mean.

mod error;
pub mod fields;
mod node;
pub mod parse;
mod sources;

pub use error::{Origin, YamlError, did_you_mean};
pub use fields::{entries, flag, number, text, whole};
pub use node::{Entry, Node, Place, Value};
pub use parse::{MAX_BYTES, MAX_NODES};
pub use sources::{Sources, contents};
