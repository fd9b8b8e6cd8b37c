//! YAML as a tree in which every value knows its place, so that whatever is found wrong later can be pointed at.

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_yaml::Spanned;
use std::fmt;

/// Line and column, from 1, in one of the scenario's sources.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Number of the source: the file, a file that it extends, or an option of the command line.
    pub source: u32,
    pub line: u32,
    pub column: u32,
}

/// A value and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    pub place: Option<Place>,
    pub value: Value,
}

/// What may be written.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
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
pub struct Entry {
    pub key: String,
    pub place: Option<Place>,
    pub node: Node,
}

impl Value {
    /// What a person would call it.
    pub fn kind(&self) -> &'static str {
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
    pub fn get(&self, key: &str) -> Option<&Entry> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|e| e.key == key),
            _ => None,
        }
    }
}

impl Node {
    /// Says of a whole tree which source it came from.
    fn stamp(&mut self, source: u32) {
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

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Value;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }
            fn visit_unit<E>(self) -> Result<Value, E> {
                Ok(Value::Null)
            }
            fn visit_none<E>(self) -> Result<Value, E> {
                Ok(Value::Null)
            }
            fn visit_some<D: Deserializer<'de>>(self, d: D) -> Result<Value, D::Error> {
                Value::deserialize(d)
            }
            fn visit_bool<E>(self, v: bool) -> Result<Value, E> {
                Ok(Value::Bool(v))
            }
            fn visit_i64<E>(self, v: i64) -> Result<Value, E> {
                Ok(Value::Integer(v))
            }
            fn visit_u64<E: de::Error>(self, v: u64) -> Result<Value, E> {
                i64::try_from(v).map(Value::Integer).map_err(|_| E::custom("a whole number beyond 2^63"))
            }
            fn visit_f64<E>(self, v: f64) -> Result<Value, E> {
                Ok(Value::Float(v))
            }
            fn visit_str<E>(self, v: &str) -> Result<Value, E> {
                Ok(Value::Text(v.into()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
                let mut nodes = Vec::new();
                while let Some(value) = list.next_element::<Spanned<Value>>()? {
                    nodes.push(node(value));
                }
                Ok(Value::List(nodes))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
                let mut entries = Vec::new();
                while let Some(key) = map.next_key::<Spanned<String>>()? {
                    let place = place(&key);
                    entries.push(Entry { key: key.value, place, node: node(map.next_value::<Spanned<Value>>()?) });
                }
                Ok(Value::Map(entries))
            }
        }
        d.deserialize_any(Any)
    }
}

fn place<T>(s: &Spanned<T>) -> Option<Place> {
    at(s.referenced)
}

fn at(l: serde_yaml::Location) -> Option<Place> {
    let (line, column) = (u32::try_from(l.line()).ok()?, u32::try_from(l.column()).ok()?);
    (line > 0).then_some(Place { source: 0, line, column })
}

fn node(s: Spanned<Value>) -> Node {
    Node { place: place(&s), value: s.value }
}

/// Largest scenario file.
pub const MAX_BYTES: u64 = 1 << 20;

/// Parses text within limits: depth 32, 20,000 nodes, 200 aliases (what they expand to counts).
///
/// # Errors
/// The parser's message and the place it points at.
pub fn parse(text: &str, source: u32) -> Result<Node, (String, Option<Place>)> {
    let options = serde_yaml::options! {
        budget: serde_yaml::budget! {
            max_depth: 32,
            max_nodes: 20_000,
            max_aliases: 200,
            max_anchors: 200,
            max_events: 100_000,
            max_documents: 1,
        },
    };
    match serde_yaml::from_str_with_options::<Spanned<Value>>(text, options) {
        Ok(value) => {
            let mut node = node(value);
            node.stamp(source);
            Ok(node)
        }
        Err(e) => {
            let message = e.without_snippet().to_string();
            let first = message.lines().next().unwrap_or_default().to_string();
            Err((first, e.location().and_then(at).map(|p| Place { source, ..p })))
        }
    }
}
