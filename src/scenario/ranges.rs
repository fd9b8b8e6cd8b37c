//! Ranges in axis lists: `16..256*2` (16, 32, ... 256), `1..8+1`, and llama-bench's `16-256*2`.

/// Most values that one range may stand for.
const MAX_VALUES: usize = 100_000;

/// The values of a range, or `None` where the text is no range.
///
/// # Errors
/// A range that does not advance, ends before it begins, or stands for too many values.
pub(super) fn expand(text: &str) -> Result<Option<Vec<i64>>, String> {
    let Some((first, last, sign, step)) = split(text) else { return Ok(None) };
    if first > last {
        return Err(format!("`{text}` ends before it begins; write {last}..{first}{sign}{step}"));
    }
    if (sign == '+' && step < 1) || (sign == '*' && (step < 2 || first < 1)) {
        return Err(format!("`{text}` does not advance; use +1 or more, or *2 or more from 1 up"));
    }
    let mut values = Vec::new();
    let mut at = Some(first);
    while let Some(v) = at.filter(|v| *v <= last) {
        if values.len() == MAX_VALUES {
            return Err(format!("`{text}` stands for over {MAX_VALUES} values; narrow it, or take larger steps"));
        }
        values.push(v);
        at = if sign == '+' { v.checked_add(step) } else { v.checked_mul(step) };
    }
    Ok(Some(values))
}

fn split(text: &str) -> Option<(i64, i64, char, i64)> {
    let text = text.trim();
    let (first, rest) = text.split_once("..").or_else(|| text.split_once('-'))?;
    let (last, sign, step) = match rest.find(['+', '*']) {
        Some(at) => (&rest[..at], rest[at..].chars().next()?, rest[at + 1..].trim().parse().ok()?),
        None => (rest, '+', 1),
    };
    Some((first.trim().parse().ok()?, last.trim().parse().ok()?, sign, step))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_double_or_step_and_stop_at_the_end() {
        assert_eq!(expand("16..256*2"), Ok(Some(vec![16, 32, 64, 128, 256])));
        assert_eq!(expand("1..8+3"), Ok(Some(vec![1, 4, 7])));
        assert_eq!(expand("16-100*2"), Ok(Some(vec![16, 32, 64])));
        assert_eq!(expand("1..4"), Ok(Some(vec![1, 2, 3, 4])));
        assert_eq!(expand("gpt2-medium"), Ok(None));
        assert_eq!(expand("local"), Ok(None));
    }

    #[test]
    fn ranges_that_cannot_end_are_refused() {
        assert!(expand("8..1+1").unwrap_err().contains("1..8+1"));
        assert!(expand("1..8*1").is_err());
        assert!(expand("0..8*2").is_err());
        assert!(expand("1..8+0").is_err());
        assert!(expand("0..9000000000+1").is_err());
        assert_eq!(expand("9223372036854775806..9223372036854775807+1").map(|v| v.map(|v| v.len())), Ok(Some(2)));
    }

    proptest::proptest! {
        #[test]
        fn every_value_lies_between_the_ends_and_ascends(a in 1i64..1000, n in 0i64..1000, step in 2i64..9) {
            for sign in ['+', '*'] {
                let values = expand(&format!("{a}..{}{sign}{step}", a + n)).unwrap().unwrap();
                proptest::prop_assert_eq!(values[0], a);
                proptest::prop_assert!(values.windows(2).all(|w| w[0] < w[1]));
                proptest::prop_assert!(*values.last().unwrap() <= a + n);
            }
        }
    }
}
