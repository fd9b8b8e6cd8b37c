//! What is repeated: every cell with each of some seeds.

use crate::scenario::settings::MOST_ROUNDS;
use crate::yaml::{Node, Sources, Value, YamlError, entries};

/// Keys of `sweep.repeat`.
const REPEAT: &[&str] = &["seed"];

/// The seeds of `{ seed: [1, 2, 3] }`.
///
/// # Errors
/// An unknown key, something else than different whole numbers, too many of them.
pub(super) fn seeds(node: &Node, s: &Sources) -> Result<Vec<u64>, YamlError> {
    let mut seeds = Vec::new();
    for e in entries("sweep.repeat", Some(node), REPEAT, &[], s)? {
        let nodes = match &e.node.value {
            Value::List(list) => list.as_slice(),
            _ => std::slice::from_ref(&e.node),
        };
        for node in nodes {
            let seed = match node.value {
                Value::Integer(i) => u64::try_from(i).ok(),
                _ => None,
            };
            let wanted = || format!("sweep.repeat.seed: expected whole numbers from 0 up, found {}", node.value);
            let seed = seed.ok_or_else(|| s.fault(node.place, wanted()))?;
            if seeds.contains(&seed) {
                return Err(s.fault(node.place, format!("sweep.repeat.seed: {seed} is given twice; keep one")));
            }
            seeds.push(seed);
        }
        if seeds.len() > MOST_ROUNDS as usize {
            let message = format!("sweep.repeat.seed: {} seeds, and {MOST_ROUNDS} are allowed", seeds.len());
            return Err(s.fault(e.node.place, message));
        }
    }
    Ok(seeds)
}
