//! Durations, sizes and amounts as they are typed.

/// Seconds: 0.2, 200ms, 1.5s.
pub(super) fn seconds(text: &str) -> Result<f64, String> {
    let (number, scale) = match text {
        t if t.ends_with("us") => (&t[..t.len() - 2], 1e-6),
        t if t.ends_with("ms") => (&t[..t.len() - 2], 1e-3),
        t if t.ends_with('s') => (&t[..t.len() - 1], 1.0),
        t => (t, 1.0),
    };
    positive(number, scale).ok_or_else(|| "expected seconds above 0, such as 0.2, 200ms or 1.5s".into())
}

/// Bytes: 24GiB, 800MiB, 16GB, 1000000.
pub(super) fn bytes(text: &str) -> Result<f64, String> {
    const UNITS: [(&str, f64); 7] = [
        ("KiB", 1024.0),
        ("MiB", 1_048_576.0),
        ("GiB", 1_073_741_824.0),
        ("TiB", 1_099_511_627_776.0),
        ("MB", 1e6),
        ("GB", 1e9),
        ("TB", 1e12),
    ];
    let unit = UNITS.iter().find(|(u, _)| text.ends_with(u));
    let (number, scale) = unit.map_or((text, 1.0), |(u, scale)| (&text[..text.len() - u.len()], *scale));
    positive(number, scale).ok_or_else(|| "expected a size above 0, such as 24GiB, 800MiB or a number of bytes".into())
}

/// An amount of USD above 0.
pub(super) fn usd(text: &str) -> Result<f64, String> {
    positive(text.trim_start_matches('$'), 1.0).ok_or_else(|| "expected an amount of USD above 0, such as 2.5".into())
}

/// A count such as 7e9, 7B, 140B tokens or 1.5T.
pub(super) fn count(text: &str) -> Result<f64, String> {
    let (number, scale) = match text.chars().last() {
        Some('K' | 'k') => (&text[..text.len() - 1], 1e3),
        Some('M') => (&text[..text.len() - 1], 1e6),
        Some('B' | 'G') => (&text[..text.len() - 1], 1e9),
        Some('T') => (&text[..text.len() - 1], 1e12),
        _ => (text, 1.0),
    };
    positive(number, scale).ok_or_else(|| "expected a number above 0, such as 7e9, 7B or 1.5T".into())
}

fn positive(number: &str, scale: f64) -> Option<f64> {
    let x = number.trim().parse::<f64>().ok()? * scale;
    (x.is_finite() && x > 0.0).then_some(x)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_type_is_read() {
        assert_eq!((seconds("200ms"), seconds("1.5s"), seconds("0.2")), (Ok(0.2), Ok(1.5), Ok(0.2)));
        assert_eq!((bytes("2GiB"), bytes("3GB"), bytes("10")), (Ok(2.0 * 1_073_741_824.0), Ok(3e9), Ok(10.0)));
        assert_eq!(
            (count("7B"), count("1.5T"), count("7e9"), count("128k")),
            (Ok(7e9), Ok(1.5e12), Ok(7e9), Ok(128e3))
        );
        assert_eq!(usd("$2.5"), Ok(2.5));
    }

    #[test]
    fn what_is_no_quantity_is_refused() {
        for text in ["", "0", "-1", "nan", "inf", "ms", "GiB", "1e999", "x", "€"] {
            assert!(
                seconds(text).is_err() && bytes(text).is_err() && usd(text).is_err() && count(text).is_err(),
                "{text}"
            );
        }
    }
}
