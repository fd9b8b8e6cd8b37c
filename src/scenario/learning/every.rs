//! How often something is done in a training: after so many steps, or so many seconds of it.

use crate::scenario::engine::server::duration;
use crate::yaml::Value;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Between one time and the next.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Every {
    /// Steps.
    Steps(u64),
    /// Seconds of training.
    Seconds(f64),
}

impl Every {
    /// `200 steps`, or a number of steps; `30s`, `5min`.
    ///
    /// # Errors
    /// Anything else.
    pub(crate) fn read(v: &Value) -> Result<Self, String> {
        let refused = || format!("expected steps or a time, like 200 steps, 30s or 5min, found {v}");
        match v {
            Value::Integer(n) if *n >= 1 => Ok(Self::Steps(*n as u64)),
            Value::Text(text) => match text.trim().strip_suffix("steps").or(text.trim().strip_suffix("step")) {
                Some(number) => match number.trim().parse() {
                    Ok(n @ 1..) => Ok(Self::Steps(n)),
                    _ => Err(refused()),
                },
                None => duration(v).map(Self::Seconds).map_err(|_| refused()),
            },
            _ => Err(refused()),
        }
    }
}

impl fmt::Display for Every {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Steps(1) => f.write_str("1 step"),
            Self::Steps(n) => write!(f, "{n} steps"),
            Self::Seconds(s) => write!(f, "{s}s"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_and_times_are_read_and_said_as_they_are_read() {
        let text = |t: &str| Every::read(&Value::Text(t.into()));
        assert_eq!(text("200 steps"), Ok(Every::Steps(200)));
        assert_eq!(text(" 1 step "), Ok(Every::Steps(1)));
        assert_eq!(Every::read(&Value::Integer(50)), Ok(Every::Steps(50)));
        assert_eq!((text("30s"), text("2min")), (Ok(Every::Seconds(30.0)), Ok(Every::Seconds(120.0))));
        for every in [Every::Steps(1), Every::Steps(7), Every::Seconds(0.5)] {
            assert_eq!(text(&every.to_string()), Ok(every));
        }
        for wrong in ["0 steps", "-1 steps", "steps", "1.5 steps", "often", "0s", "3 h"] {
            let said = text(wrong).unwrap_err();
            assert!(said.contains("200 steps, 30s or 5min, found") && said.contains(wrong), "{said}");
        }
        assert!(Every::read(&Value::Integer(0)).is_err() && Every::read(&Value::Float(1.5)).is_err());
    }
}
