//! What a file says, as a tree in which every value knows its place: whatever is found wrong later can be pointed at.

use std::fmt;

/// Line and column, from 1, in one of the sources.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Number of the source: the file, a file that it extends, or an option of the command line.
    pub source: u32,
    pub line: u32,
    pub column: u32,
}

/// A value and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Node {
    pub place: Option<Place>,
    pub value: Value,
}

/// What may be written.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Integer(i64),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// One key of a map.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    pub key: String,
    pub place: Option<Place>,
    pub node: Node,
}

impl Value {
    /// What a person would call it.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Bool(_) => "true or false",
            Self::Integer(_) => "a whole number",
            Self::Float(_) => "a number",
            Self::Text(_) => "text",
            Self::List(_) => "a list",
            Self::Map(_) => "a map",
        }
    }
}

/// A scalar as it would be written; lists and maps by their kind.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(b) => write!(f, "{b}"),
            Self::Integer(i) => write!(f, "{i}"),
            Self::Float(x) => write!(f, "{x}"),
            Self::Text(t) => f.write_str(t),
            other => f.write_str(other.kind()),
        }
    }
}

impl Node {
    /// The entry of a key, where this is a map that has it.
    pub(crate) fn get(&self, key: &str) -> Option<&Entry> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|e| e.key == key),
            _ => None,
        }
    }

    /// Says of a whole tree which source it came from.
    pub(super) fn stamp(&mut self, source: u32) {
        let mark = |p: &mut Option<Place>| {
            if let Some(p) = p {
                p.source = source;
            }
        };
        mark(&mut self.place);
        match &mut self.value {
            Value::List(nodes) => nodes.iter_mut().for_each(|n| n.stamp(source)),
            Value::Map(entries) => {
                for e in entries {
                    mark(&mut e.place);
                    e.node.stamp(source);
                }
            }
            _ => {}
        }
    }
}
