//! Values of a scenario's fields: read as what a field wants, and written back.

use crate::transformer::Worded;
use crate::yaml::{Value, did_you_mean};

/// Why a value is not what its field expects, with the remedy for the two usual slips.
fn unlike(v: &Value, expected: &str) -> String {
    match v {
        Value::List(_) => format!("{v} is a list, and one value belongs here; put it under sweep.matrix"),
        Value::Text(text) if text.parse::<f64>().is_ok() => {
            format!("\"{text}\" is text and not {expected}; write {text} without the quotes")
        }
        other => format!("{other} is not {expected}"),
    }
}

pub(super) fn count(v: &Value) -> Result<u32, String> {
    match v {
        Value::Integer(i) if *i >= 1 => {
            u32::try_from(*i).map_err(|_| format!("{i} is too large; the largest is {}", u32::MAX))
        }
        other => Err(unlike(other, "a whole number from 1 up")),
    }
}

/// 0, or a count.
pub(super) fn whole(v: &Value) -> Result<u32, String> {
    if *v == Value::Integer(0) { Ok(0) } else { count(v).map_err(|e| e.replace("from 1 up", "from 0 up")) }
}

pub(super) fn number(v: &Value) -> Result<f32, String> {
    match v {
        Value::Integer(i) => Ok(*i as f32),
        Value::Float(x) if (*x as f32).is_finite() => Ok(*x as f32),
        other => Err(unlike(other, "a number within reason")),
    }
}

pub(super) fn flag(v: &Value) -> Result<bool, String> {
    match v {
        Value::Bool(b) => Ok(*b),
        Value::List(_) => Err(unlike(v, "true or false")),
        other => Err(format!("{other} is neither true nor false")),
    }
}

/// One of the words of an enum.
pub(super) fn word<T: Worded>(v: &Value) -> Result<T, String> {
    let Value::Text(text) = v else {
        return Err(match v {
            Value::List(_) => unlike(v, "one word"),
            other => format!("{other} is no word; use {}", T::WORDS.join(", ")),
        });
    };
    text.parse().map_err(|_| {
        format!("`{text}` is unknown; {}", did_you_mean(text, T::WORDS.iter().copied(), std::iter::empty()))
    })
}

/// The path of a folder.
pub(super) fn folder(v: &Value) -> Result<String, String> {
    match v {
        Value::Text(path) if !path.is_empty() && !path.contains('\0') => Ok(path.clone()),
        Value::List(_) => Err(unlike(v, "one folder")),
        other => Err(format!("{other} is no path of a folder; in quotes it is text")),
    }
}

pub(super) fn int(n: u32) -> Value {
    Value::Integer(n.into())
}

/// A length that is 0 is one that the phase does not use.
pub(super) fn used(n: u32) -> Value {
    if n == 0 { Value::Null } else { int(n) }
}

pub(super) fn float(x: f32) -> Value {
    // By its decimal digits: 0.1f32 is 0.1 to a reader, and not 0.10000000149.
    Value::Float(x.to_string().parse().unwrap_or(f64::from(x)))
}

pub(super) fn text(s: &str) -> Value {
    Value::Text(s.into())
}

/// A number above 0.
pub(super) fn above_zero(v: &Value) -> Result<f32, String> {
    let x = number(v)?;
    if x > 0.0 { Ok(x) } else { Err(format!("{x} is not a number above 0")) }
}

/// A probability below 1.
pub(super) fn probability(v: &Value) -> Result<f32, String> {
    let p = number(v)?;
    if (0.0..1.0).contains(&p) { Ok(p) } else { Err(format!("{p} is not a probability from 0 to below 1")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_slips_come_with_their_remedy() {
        let list = Value::List(vec![]);
        for fault in [count(&list).unwrap_err(), number(&list).unwrap_err(), flag(&list).unwrap_err()] {
            assert!(fault.ends_with("is a list, and one value belongs here; put it under sweep.matrix"), "{fault}");
        }
        assert!(word::<crate::transformer::Phase>(&list).unwrap_err().contains("put it under sweep.matrix"));
        let quoted = count(&text("4")).unwrap_err();
        assert_eq!(quoted, "\"4\" is text and not a whole number from 1 up; write 4 without the quotes");
        assert!(count(&text("four")).unwrap_err().ends_with("is not a whole number from 1 up"));
    }
}
