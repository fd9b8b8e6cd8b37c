//! YAML for people: a tree in which every value knows its place, read field by field, so that whatever is wrong is pointed at.
//!
//! Scenarios, price books and budgets are read with it. Deliberately absent: what any of the fields mean.

mod error;
pub(crate) mod fields;
mod node;
pub(crate) mod parse;
mod sources;

pub use error::YamlError;
pub(crate) use error::{Origin, did_you_mean};
pub(crate) use fields::{entries, flag, number, text, whole};
pub(crate) use node::{Entry, Node, Place, Value};
pub(crate) use parse::{MAX_BYTES, MAX_NODES};
pub(crate) use sources::{Sources, contents};
