//! Prices and shares as they are typed, and price books by their paths.

use super::Failure;
use crate::hardware::book::{Book, NoOffer, Query};
use crate::hardware::date::Date;
use crate::hardware::read;
use crate::scenario::Price;
use crate::units::{Share, UsdPerHour};
use anyhow::anyhow;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

/// A price as it is typed: an amount, or a name of the price book.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Priced {
    Stated(UsdPerHour),
    Named {
        what: String,
        on: Option<Date>,
    },
    /// `-`: as it is.
    Kept,
}

/// USD an hour, or an instance or device of the price book, perhaps on a date: 2.5, p5.48xlarge, h100-sxm-80gb@2024-05.
pub(super) fn priced(text: &str) -> Result<Priced, String> {
    if text == "-" {
        return Ok(Priced::Kept);
    }
    let numeric = text.parse::<f64>().is_ok() || text.starts_with(['-', '+', '.']) || text.is_empty();
    if numeric {
        return price(text).map(Priced::Stated);
    }
    match text.rsplit_once('@') {
        None => Ok(Priced::Named { what: text.into(), on: None }),
        Some((what, day)) => match Date::parse(day) {
            Some(on) if !what.is_empty() => Ok(Priced::Named { what: what.into(), on: Some(on) }),
            _ => Err("expected a date after @: p5.48xlarge@2024-05-01, or @2024-05, or @2024".into()),
        },
    }
}

/// A price in USD an hour.
pub(super) fn price(text: &str) -> Result<UsdPerHour, String> {
    let usd = text.parse::<f64>().ok().filter(|usd| (1e-9..=1e9).contains(usd)).and_then(UsdPerHour::of);
    usd.ok_or_else(|| {
        "a price is a positive number of USD an hour, such as 0.0856; leave it out where there is none".into()
    })
}

/// A share of time, over 0 and at most 1.
pub(super) fn utilisation(text: &str) -> Result<Share, String> {
    match text.parse::<f64>() {
        Ok(share) if share > 0.0 && share <= 1.0 => Ok(Share(share)),
        _ => Err("a utilisation is a share of the paid time, over 0 and at most 1, such as 0.6".into()),
    }
}

/// The price books that a command was given.
#[derive(Clone, Debug, Default, clap::Args)]
pub(super) struct PriceBook {
    /// A price book of your own; its entries go before those that the program carries. May be repeated.
    #[arg(long = "price-book", alias = "prices", value_name = "FILE")]
    pub files: Vec<PathBuf>,
}

impl PriceBook {
    /// Ours, with the user's files over it.
    pub(super) fn load(&self) -> Result<Book, Failure> {
        read::with(&self.files).map_err(|e| Failure::yaml(&e))
    }
}

/// What a command is told of the price of what it prices.
#[derive(Debug, clap::Args)]
pub(super) struct Stated {
    /// What an hour costs: USD for everything that a trial occupies, or an instance or device of the price book, on a date if
    /// wanted (p5.48xlarge, h100-sxm-80gb@2024-05).
    #[arg(long, value_name = "USD_PER_HOUR|NAME", value_parser = priced, allow_negative_numbers = true)]
    price: Option<Priced>,
    #[command(flatten)]
    prices: PriceBook,
    /// Share of the paid time in which tokens are produced.
    #[arg(long, value_name = "SHARE", value_parser = utilisation, allow_negative_numbers = true)]
    utilisation: Option<Share>,
    /// What the price stands for and where it comes from; shown in the report.
    #[arg(long, value_name = "TEXT", requires = "price")]
    source: Option<String>,
}

impl Stated {
    /// The price books.
    pub(super) fn book(&self) -> Result<Book, Failure> {
        self.prices.load()
    }

    /// Puts what was typed in the place of a run's own, and warns of a price that is old.
    pub(super) fn put(&self, price: &mut Price, book: &Book, command: &str) -> Result<(), Failure> {
        if let Some(typed) = &self.price {
            let command = || format!("given on the command line (centime {command} --price)");
            apply(price, typed, book, &self.source.clone().unwrap_or_else(command))?;
        }
        warn_if_stale(price);
        price.utilisation = self.utilisation.unwrap_or(price.utilisation);
        Ok(())
    }
}

/// Puts a typed price in the place of a run's own.
pub(super) fn apply(price: &mut Price, typed: &Priced, book: &Book, source: &str) -> Result<(), Failure> {
    match typed {
        Priced::Kept => {}
        Priced::Stated(usd) => price.state(*usd, source),
        Priced::Named { what, on } => {
            let query = Query { what: what.clone(), on: *on, ..Query::default() };
            price.take(book.find(&query).map_err(|e| {
                let number = match e {
                    NoOffer::Unknown { .. } => "neither a positive number of USD an hour, such as 0.0856, nor a name: ",
                    NoOffer::Unpriced { .. } => "",
                };
                Failure::Usage(anyhow!("--price: {number}{e}"))
            })?);
        }
    }
    Ok(())
}

/// The day, by this machine's clock.
pub(super) fn today() -> Option<Date> {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs();
    Date::from_unix_days(i64::try_from(seconds / 86_400).ok()?)
}

/// Says on stderr that a price has not been seen for a long time.
pub(super) fn warn_if_stale(price: &Price) {
    if let Some((days, seen)) = today().and_then(|t| price.stale_days(t)).zip(price.seen.as_ref()) {
        eprintln!(
            "warning: the price of {} was last seen {seen}, {days} days ago; check it, and state it in a file of your own (--price-book)",
            price.hardware
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_price_is_a_positive_number() {
        assert_eq!(price("0.0856").ok(), UsdPerHour::of(0.0856));
        for text in ["0", "-1", "nan", "inf", "", "a dollar", "1e300", "1e-30"] {
            assert!(price(text).unwrap_err().contains("positive number of USD an hour"), "{text}");
        }
    }

    #[test]
    fn a_price_may_be_a_name_of_the_book_and_a_date() {
        let named =
            |what: &str, on: Option<&str>| Ok(Priced::Named { what: what.into(), on: on.and_then(Date::parse) });
        assert_eq!(priced("p5.48xlarge"), named("p5.48xlarge", None));
        assert_eq!(priced("h100@2024-05"), named("h100", Some("2024-05")));
        assert_eq!(priced("-"), Ok(Priced::Kept));
        for text in ["0", "-1", "nan", "inf", "", "h100@soon", "@2024"] {
            assert!(priced(text).is_err(), "{text}");
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
