//! How many tokens prompts and answers have: a number, or how they are spread.

use crate::load::spec::Lengths;
use crate::scenario::values::count;
use crate::yaml::{Entry, Node, Value};

/// A number of tokens; or their mean, and how they are spread.
///
/// # Errors
/// Something else, with what is expected.
pub(crate) fn read(v: &Value) -> Result<(u32, Option<Lengths>), String> {
    let Value::Map(entries) = v else { return Ok((count(v)?, None)) };
    let wanted =
        "expected a number of tokens, { range: [64, 1024] } or { normal: [512, 100] } (mean and standard deviation)";
    let [Entry { key, node: Node { value: Value::List(list), .. }, .. }] = entries.as_slice() else {
        return Err(wanted.into());
    };
    let [a, b] = list.as_slice() else { return Err(wanted.into()) };
    let lengths = match key.as_str() {
        "range" => {
            let (low, high) = (count(&a.value)?, count(&b.value)?);
            if low > high {
                return Err(format!("a range from {low} to {high} holds nothing; write [{high}, {low}]"));
            }
            Lengths::Range(low, high)
        }
        "normal" => {
            let (mean, deviation) = (tokens(&a.value)?, tokens(&b.value)?);
            if mean < 1.0 {
                return Err(format!("a mean of {mean} tokens is less than one; use 1 or more"));
            }
            Lengths::Normal { mean, deviation }
        }
        _ => return Err(wanted.into()),
    };
    Ok((lengths.mean(), Some(lengths)))
}

/// Tokens that need not be whole.
fn tokens(v: &Value) -> Result<f64, String> {
    let x = match v {
        Value::Integer(i) => *i as f64,
        Value::Float(x) => *x,
        other => return Err(format!("expected tokens, found {other}")),
    };
    if (0.0..=1e9).contains(&x) { Ok(x) } else { Err(format!("expected tokens from 0 to 1e9, found {x}")) }
}
