//! Lines with tokens/s, as training scripts under torchrun print them: "12,345 tokens/s", "tok/s: 12.3k", and torchtitan's "tps: 1,234",
//! which is of one device.

use crate::scenario::engine::Figure;
use regex::Regex;

/// What lines are searched by.
#[derive(Debug)]
pub(super) struct Lines {
    devices: u32,
    /// Colours.
    escapes: Regex,
    /// The process that a line is of, where a launcher says so.
    rank: Regex,
    /// A number before its unit, after its name, and torchtitan's.
    speeds: [Regex; 3],
    loss: Regex,
}

const NUMBER: &str = r"(?<n>-?(?:nan|inf|[0-9][0-9,]*(?:\.[0-9]+)?(?:e[+-]?[0-9]+)?))\s*(?<scale>[km]\b)?";

impl Lines {
    /// # Errors
    /// None: the patterns are these.
    pub(crate) fn new(devices: u32) -> Result<Self, String> {
        let regex = |text: String| Regex::new(&text).map_err(|e| e.to_string());
        Ok(Self {
            devices,
            escapes: regex("\u{1b}\\[[0-9;]*m".into())?,
            rank: regex(r"^\s*\[(?:rank|default)(?<rank>[0-9]+)\]:".into())?,
            speeds: [
                regex(format!(r"(?i){NUMBER}\s*(?:tokens|toks?)\s*(?:/|per\s+)\s*(?:s|sec|second)\b"))?,
                regex(format!(
                    r"(?i)\b(?:tokens|toks?)\s*(?:/|_per_|\s+per\s+)\s*(?:s|sec|second)\b\s*[:=]?\s*{NUMBER}"
                ))?,
                regex(format!(r"(?i)\btps\s*[:=]\s*{NUMBER}"))?,
            ],
            loss: regex(format!(r"(?i)\bloss\s*[:=]?\s*{NUMBER}"))?,
        })
    }

    /// The figures of a line, where it tells of a step. Lines of other ranks than the first tell of the same step again.
    ///
    /// # Errors
    /// A number that is none.
    pub(crate) fn figures(&self, line: &str) -> Result<Option<Vec<(Figure, f64)>>, String> {
        let line = self.escapes.replace_all(line, "");
        if self.rank.captures(&line).is_some_and(|c| &c["rank"] != "0") {
            return Ok(None);
        }
        let mut found = Vec::new();
        for (speed, by) in self.speeds.iter().zip([1, 1, self.devices]) {
            if let Some(number) = number(speed, &line)? {
                found.push((Figure::TokensPerSecond, number * f64::from(by)));
                break;
            }
        }
        if found.is_empty() {
            return Ok(None);
        }
        found.extend(number(&self.loss, &line)?.map(|loss| (Figure::Loss, loss)));
        Ok(Some(found))
    }
}

fn number(pattern: &Regex, line: &str) -> Result<Option<f64>, String> {
    let Some(found) = pattern.captures(line) else { return Ok(None) };
    let text = found["n"].replace(',', "");
    let value: f64 = text.parse().map_err(|_| format!("expected a number, found \"{text}\""))?;
    let scale = match found.name("scale").map(|m| m.as_str()) {
        Some("k" | "K") => 1e3,
        Some("m" | "M") => 1e6,
        _ => 1.0,
    };
    Ok(Some(value * scale))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(line: &str) -> Option<Vec<(Figure, f64)>> {
        Lines::new(4).unwrap().figures(line).unwrap()
    }

    #[test]
    fn tokens_per_second_are_read_however_they_are_written() {
        let rate = |line: &str| of(line).map(|f| f[0].1);
        for line in [
            "step 7 | loss 3.2 | 12,345 tokens/s",
            "12345 tok/s",
            "tokens/sec: 12345",
            "tokens_per_second=12345",
            "iter 3: 12.345k tokens per second",
            "\u{1b}[32mtoks/s: 12345.0\u{1b}[39m",
            "[rank0]: tokens/s 12345",
        ] {
            assert_eq!(rate(line), Some(12_345.0), "{line}");
        }
        // torchtitan's is of one of four devices.
        let titan =
            "[rank0]:[titan] step:  10  loss:  7.95  memory: 0.93GiB(0.98%)  tps: 1,234  tflops: 5.1  mfu: 1.6%";
        assert_eq!(of(titan), Some(vec![(Figure::TokensPerSecond, 4936.0), (Figure::Loss, 7.95)]));
        assert!(of("[rank3]: tokens/s 12345").is_none() && of("loss 3.2").is_none() && of("").is_none());
    }

    #[test]
    fn a_loss_that_is_none_is_told() {
        let found = of("loss: nan 100 tokens/s").unwrap();
        assert!(found[1].1.is_nan() && found[1].0 == Figure::Loss);
    }
}
