//! One document over another.

use crate::yaml::{Entry, Node, Value};

/// Maps merge key by key; anything else replaces.
pub(super) fn merged(base: Node, own: Node) -> Node {
    match (base.value, own.value) {
        (Value::Map(mut entries), Value::Map(new)) => {
            for e in new {
                match entries.iter_mut().find(|b| b.key == e.key) {
                    Some(b) => {
                        let old = std::mem::replace(&mut b.node, Node { place: None, value: Value::Null });
                        *b = Entry { key: e.key, place: e.place, node: merged(old, e.node) };
                    }
                    None => entries.push(e),
                }
            }
            Node { place: own.place.or(base.place), value: Value::Map(entries) }
        }
        (_, value) => Node { place: own.place, value },
    }
}
