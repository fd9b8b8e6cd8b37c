//! YAML text to a tree of [`Node`]s, within limits, with messages for people.

use super::node::{Entry, Node, Place, Value};
use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_yaml::budget::BudgetBreach;
use serde_yaml::{Error, NonFiniteFloatPolicy, Spanned};
use std::fmt;

/// Largest scenario file.
pub(crate) const MAX_BYTES: u64 = 1 << 20;
/// Most values of one file, what its aliases stand for included.
pub(crate) const MAX_NODES: usize = 20_000;
const MAX_DEPTH: usize = 32;
const MAX_ALIASES: usize = 200;

/// Parses text within limits: depth 32, 20,000 values and 200 aliases (what they expand to counts), 4 MiB of text.
///
/// # Errors
/// What is wrong, and the place where the parser noticed.
pub(crate) fn parse(text: &str, source: u32) -> Result<Node, (String, Option<Place>)> {
    let options = serde_yaml::options! {
        budget: serde_yaml::budget! {
            max_depth: MAX_DEPTH,
            max_nodes: MAX_NODES,
            max_aliases: MAX_ALIASES,
            max_anchors: MAX_ALIASES,
            max_events: 5 * MAX_NODES,
            max_total_scalar_bytes: 4 * MAX_BYTES as usize,
            max_documents: 1,
        },
        // `name: no` is a name, and `007` is not 7: a scenario says what it says.
        strict_booleans: true,
        leading_zero_numbers_as_strings: true,
        // The field that gets the number refuses it, and can say which field that is.
        non_finite_float_policy: NonFiniteFloatPolicy::PassThrough,
        with_snippet: false,
    };
    match serde_yaml::from_str_with_options::<Spanned<Value>>(text, options) {
        Ok(value) => {
            let mut node = node(value);
            node.stamp(source);
            Ok(node)
        }
        Err(e) => Err((message(&e), e.location().and_then(at).map(|p| Place { source, ..p }))),
    }
}

/// The parser's message for somebody who wrote YAML and has never seen the parser.
fn message(e: &Error) -> String {
    match e {
        Error::WithSnippet { error, .. } | Error::AliasError { error, .. } => message(error),
        Error::DuplicateMappingKey { key: Some(key), .. } => format!("`{key}` is given twice; keep one of the two"),
        Error::Budget { breach, .. } => too_much(breach),
        Error::UnknownAnchor { .. } => "no anchor of this name stands above; define it with &name first".into(),
        other => {
            let text = other.to_string();
            // The place is told in front of the message already.
            let first = text.lines().next().unwrap_or_default();
            first.split(" at line ").next().unwrap_or(first).to_string()
        }
    }
}

fn too_much(breach: &BudgetBreach) -> String {
    match breach {
        BudgetBreach::Documents { .. } => "a second document begins here, and a scenario is one; take it out".into(),
        BudgetBreach::Depth { .. } => format!("nested deeper than {MAX_DEPTH} levels; write it flatter"),
        BudgetBreach::Aliases { .. } | BudgetBreach::Anchors { .. } | BudgetBreach::AliasAnchorRatio { .. } => {
            format!("over {MAX_ALIASES} anchors or aliases; use variables")
        }
        _ => format!(
            "this expands to more than a scenario may hold, {MAX_NODES} values and {} MiB of text; aliases multiply \
             what they stand for",
            (4 * MAX_BYTES) >> 20
        ),
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_any(Any)
    }
}

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
        i64::try_from(v).map(Value::Integer).map_err(|_| E::custom("a whole number beyond 2^63; use a smaller one"))
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
            let place = at(key.referenced);
            entries.push(Entry { key: key.value, place, node: node(map.next_value::<Spanned<Value>>()?) });
        }
        Ok(Value::Map(entries))
    }
}

/// An alias stands where it is used, not where its anchor is.
fn node(s: Spanned<Value>) -> Node {
    Node { place: at(s.referenced), value: s.value }
}

fn at(l: serde_yaml::Location) -> Option<Place> {
    let (line, column) = (u32::try_from(l.line()).ok()?, u32::try_from(l.column()).ok()?);
    (line > 0 && column > 0).then_some(Place { source: 0, line, column })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message_of(text: &str) -> String {
        parse(text, 0).unwrap_err().0
    }

    #[test]
    fn words_and_padded_numbers_stay_what_was_written() {
        let node = parse("[no, off, 007, true, 7, 7.5]", 0).unwrap();
        let Value::List(list) = node.value else { panic!("a list") };
        let values: Vec<Value> = list.into_iter().map(|n| n.value).collect();
        let text = |t: &str| Value::Text(t.into());
        assert_eq!(
            values,
            [text("no"), text("off"), text("007"), Value::Bool(true), Value::Integer(7), Value::Float(7.5)]
        );
    }

    #[test]
    fn messages_speak_of_the_file_and_not_of_the_parser() {
        assert_eq!(message_of("a: 1\na: 2"), "`a` is given twice; keep one of the two");
        assert_eq!(message_of("a: 1\n---\nb: 1"), "a second document begins here, and a scenario is one; take it out");
        assert_eq!(message_of("a: *b"), "no anchor of this name stands above; define it with &name first");
        let deep = format!("a: {}1{}", "[".repeat(40), "]".repeat(40));
        assert_eq!(message_of(&deep), "nested deeper than 32 levels; write it flatter");
    }

    #[test]
    fn long_texts_do_not_multiply_through_aliases() {
        let ten = |name: &str| vec![format!("*{name}"); 10].join(",");
        let text =
            format!("a: &a {}\nb: &b [{}]\nc: &c [{}]\nd: [{}]\n", "x".repeat(900_000), ten("a"), ten("b"), ten("c"));
        assert!(message_of(&text).contains("more than a scenario may hold"), "{}", message_of(&text));
    }
}
