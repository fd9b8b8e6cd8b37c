//! Dates of prices and devices, as exact as their source is: a day, a month or a year.

use chrono::{Datelike, Days, Months, NaiveDate};
use std::fmt;

/// A day, or a month or year of which the day is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Date {
    first: NaiveDate,
    last: NaiveDate,
}

impl Date {
    /// Reads 2025-06-23, 2025-06 or 2025.
    pub fn parse(text: &str) -> Option<Self> {
        let day = |t: &str| NaiveDate::parse_from_str(t, "%Y-%m-%d").ok();
        let digits = |t: &str, n: usize| t.len() == n && t.bytes().all(|b| b.is_ascii_digit());
        let parts: Vec<&str> = text.split('-').collect();
        let (first, last) = match parts.as_slice() {
            [y] if digits(y, 4) => {
                let first = day(&format!("{y}-01-01"))?;
                (first, first.checked_add_months(Months::new(12))?.checked_sub_days(Days::new(1))?)
            }
            [y, m] if digits(y, 4) && digits(m, 2) => {
                let first = day(&format!("{y}-{m}-01"))?;
                (first, first.checked_add_months(Months::new(1))?.checked_sub_days(Days::new(1))?)
            }
            [y, m, d] if digits(y, 4) && digits(m, 2) && digits(d, 2) => {
                let first = day(text)?;
                (first, first)
            }
            _ => return None,
        };
        (1990..=2200).contains(&first.year()).then_some(Self { first, last })
    }

    /// The day that lies so many days after 1970-01-01.
    pub fn from_unix_days(days: i64) -> Option<Self> {
        let epoch = NaiveDate::from_ymd_opt(1970, 1, 1)?;
        let first = epoch.checked_add_days(Days::new(u64::try_from(days).ok()?))?;
        Some(Self { first, last: first })
    }

    /// The earliest day that it may be.
    pub fn first(self) -> NaiveDate {
        self.first
    }

    /// The latest day that it may be.
    pub fn last(self) -> NaiveDate {
        self.last
    }

    /// Days from the earliest day that this may be to `today`; negative in the future.
    pub fn age_in_days(self, today: Self) -> i64 {
        (today.first - self.first).num_days()
    }

    /// The middle of it as a number of years, for the axis of a picture.
    pub fn years(self) -> f64 {
        let of = |d: NaiveDate| f64::from(d.year()) + f64::from(d.ordinal0()) / 365.25;
        (of(self.first) + of(self.last)) / 2.0
    }
}

impl PartialOrd for Date {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Date {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.first.cmp(&other.first).then(self.last.cmp(&other.last))
    }
}

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let days = (self.last - self.first).num_days();
        let form = match days {
            0 => "%Y-%m-%d",
            1..=40 => "%Y-%m",
            _ => "%Y",
        };
        f.pad(&self.first.format(form).to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_as_exact_as_they_are_written() {
        for text in ["2025-06-23", "2025-06", "2025"] {
            assert_eq!(Date::parse(text).unwrap().to_string(), text);
        }
        for text in ["", "2025-13", "2025-02-30", "25-01-01", "2025-1-1", "0001", "9999", "2025-06-23T00:00", "x"] {
            assert_eq!(Date::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_date_that_is_not_known_to_the_day_is_taken_to_be_its_earliest() {
        let today = Date::parse("2026-11-24").unwrap();
        assert_eq!(Date::parse("2026-11-01").unwrap().age_in_days(today), 23);
        assert_eq!(Date::parse("2026").unwrap().age_in_days(today), 327);
        assert!(Date::parse("2027-01").unwrap().age_in_days(today) < 0);
        assert_eq!(Date::from_unix_days(20_416).unwrap().to_string(), "2025-11-24");
        assert!(Date::parse("2024").unwrap() < Date::parse("2024-03").unwrap());
        assert!((Date::parse("2024-07-01").unwrap().years() - 2024.498).abs() < 1e-3);
    }
}
