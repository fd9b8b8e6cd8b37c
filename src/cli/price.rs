//! Prices and shares as they are typed.

use crate::units::{Share, UsdPerHour};

/// A price in USD an hour.
pub(super) fn price(text: &str) -> Result<UsdPerHour, String> {
    match text.parse::<f64>() {
        Ok(usd) if usd.is_finite() && usd > 0.0 => Ok(UsdPerHour(usd)),
        _ => {
            Err("a price is a positive number of USD an hour, such as 0.0856; leave it out where there is none".into())
        }
    }
}

/// A share of time, over 0 and at most 1.
pub(super) fn utilisation(text: &str) -> Result<Share, String> {
    match text.parse::<f64>() {
        Ok(share) if share > 0.0 && share <= 1.0 => Ok(Share(share)),
        _ => Err("a utilisation is a share of the paid time, over 0 and at most 1, such as 0.6".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_price_is_a_positive_number() {
        assert_eq!(price("0.0856"), Ok(UsdPerHour(0.0856)));
        for text in ["0", "-1", "nan", "inf", "", "a dollar"] {
            assert!(price(text).unwrap_err().contains("positive number of USD an hour"), "{text}");
        }
    }

    #[test]
    fn a_utilisation_is_a_share() {
        assert_eq!(utilisation("0.5"), Ok(Share(0.5)));
        for text in ["0", "1.1", "-0.5", "NaN", "60%"] {
            assert!(utilisation(text).is_err(), "{text}");
        }
    }
}
