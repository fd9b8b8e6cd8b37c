//! How prices fell: of an hour of a device, of a PFLOP, and of an API's tokens; and what each had in the fall.

use crate::cost::decomposition::{Factor, Part, Role, decompose};
use crate::cost::price::CostError;
use crate::hardware::api::Api;
use crate::hardware::book::Book;
use crate::hardware::date::Date;
use crate::hardware::device::{Device, Format};
use crate::hardware::offer::{Offer, Term};

/// An offer with what it gives for its price.
#[derive(Clone, Copy, Debug)]
pub struct Point<'a> {
    pub offer: &'a Offer,
    pub device: &'a Device,
    pub usd_per_device_hour: f64,
    /// USD for an hour of 1e15 FLOP/s at the peak. `None` where the peak is not known.
    pub usd_per_pflops_hour: Option<f64>,
    pub format: Option<Format>,
}

/// Every offer of accelerators under a term, oldest first, with its device.
pub fn points(book: &Book, term: Term) -> Vec<Point<'_>> {
    let mut all: Vec<Point> = book
        .offers
        .iter()
        .filter(|o| o.term == term && o.devices > 0)
        .filter_map(|offer| {
            let device = book.device(offer.device.as_deref()?)?;
            let hour = offer.usd_per_device_hour().get();
            let peak = device.peak();
            let usd_per_pflops_hour = peak.map(|(_, rate)| hour / (rate / 1e15));
            Some(Point { offer, device, usd_per_device_hour: hour, usd_per_pflops_hour, format: peak.map(|(f, _)| f) })
        })
        .collect();
    all.sort_by_key(|p| p.offer.from);
    all
}

/// What an API asked on two dates beside the hardware of the day.
#[derive(Clone, Debug)]
pub struct Decline<'a> {
    pub from: &'a Api,
    pub to: &'a Api,
    /// USD for 1e6 tokens, half of them input and half output.
    pub before: f64,
    pub after: f64,
    pub hardware: (Point<'a>, Point<'a>),
    /// Hardware price, performance, and what is left; they add up to `after - before`.
    pub parts: Vec<Part>,
    /// Shares of the fall's logarithm, in the order of the parts; they add up to 1.
    pub shares: Vec<f64>,
}

/// Why there is no decomposition.
#[derive(Debug, thiserror::Error)]
pub enum NoDecline {
    #[error("no API price of `{0}` is in the price book; `centime hardware list --apis` shows what is")]
    NoApi(String),
    #[error("no on-demand offer with a known peak was seen by {0}")]
    NoHardware(Date),
    #[error(transparent)]
    Cost(#[from] CostError),
}

/// Splits the change of an API's price into the price of an hour of the day's hardware, what that hardware does in an hour,
/// and what is left: smaller models, better use of the hardware, margins.
///
/// The price of a token is `usd_per_device_hour / peak * rest`, so the rest is whatever explains the API's price at that
/// hardware. The hardware of the day is the offer with the lowest price of a FLOP among those in force.
///
/// # Errors
/// [`NoDecline`].
pub fn decline<'a>(book: &'a Book, from: &str, to: &str) -> Result<Decline<'a>, NoDecline> {
    let (from, to) = (api(book, from)?, api(book, to)?);
    let all = points(book, Term::OnDemand);
    let (first, last) = (of_the_day(&all, from.date)?, of_the_day(&all, to.date)?);
    let price = |a: &Api| (a.input.get() + a.output.get()) / 2.0;
    let (before, after) = (price(from), price(to));
    let rate = |p: &Point| p.device.peak().map_or(f64::NAN, |(_, rate)| rate);
    let rest = |cost: f64, p: &Point| cost * rate(p) / p.usd_per_device_hour;
    let factors = [
        Factor {
            name: "hardware price",
            role: Role::Multiplies,
            before: first.usd_per_device_hour,
            after: last.usd_per_device_hour,
        },
        Factor { name: "hardware performance", role: Role::Divides, before: rate(&first), after: rate(&last) },
        Factor {
            name: "what is left",
            role: Role::Multiplies,
            before: rest(before, &first),
            after: rest(after, &last),
        },
    ];
    let parts = decompose(1.0, &factors)?;
    let whole = (after / before).ln();
    let shares = factors
        .iter()
        .map(|f| {
            let log = (f.after / f.before).ln();
            (if f.role == Role::Divides { -log } else { log }) / whole
        })
        .collect();
    Ok(Decline { from, to, before, after, hardware: (first, last), parts, shares })
}

fn api<'a>(book: &'a Book, model: &str) -> Result<&'a Api, NoDecline> {
    book.apis.iter().rev().find(|a| a.model.eq_ignore_ascii_case(model)).ok_or_else(|| NoDecline::NoApi(model.into()))
}

/// Of the offers of a day, the one whose FLOPs are cheapest; half a year after its only sighting an offer is history.
fn of_the_day<'a>(all: &[Point<'a>], day: Date) -> Result<Point<'a>, NoDecline> {
    const LONGEST_DAYS: i64 = 180;
    let in_force = |o: &Offer| {
        o.from.first() <= day.last()
            && o.until.unwrap_or(o.from).age_in_days(day) <= if o.until.is_some() { 0 } else { LONGEST_DAYS }
    };
    let known = all.iter().filter(|p| in_force(p.offer)).filter_map(|p| Some((p, p.usd_per_pflops_hour?)));
    known.min_by(|a, b| a.1.total_cmp(&b.1)).map(|(p, _)| *p).ok_or(NoDecline::NoHardware(day))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_the_decline_add_up() {
        let book = Book::built_in().unwrap();
        let d = decline(book, "GPT-3 davinci", "gpt-4o-mini").unwrap();
        assert_eq!((d.before, d.after), (60.0, 0.375));
        let sum: f64 = d.parts.iter().map(|p| p.change).sum();
        assert!((sum - (d.after - d.before)).abs() < 1e-12 * d.before);
        assert!((d.shares.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        // By hand: Lambda's A100 in the summer of 2022, and what was cheapest a FLOP two years later.
        let (first, last) = &d.hardware;
        assert!(first.offer.from <= d.from.date || first.offer.from.age_in_days(d.from.date) > -1);
        assert!(last.offer.from <= d.to.date);
    }

    #[test]
    fn a_point_is_the_price_of_a_device_and_of_its_flops() {
        let book = Book::built_in().unwrap();
        let all = points(book, Term::OnDemand);
        let p5 = all
            .iter()
            .find(|p| {
                p.offer.instance == "p5.48xlarge" && p.offer.until.is_some_and(|u| u > Date::parse("2026").unwrap())
            })
            .unwrap();
        assert_eq!(p5.usd_per_device_hour, 6.88);
        // 6.88 USD / 0.9894 PFLOP/s.
        assert!((p5.usd_per_pflops_hour.unwrap() - 6.953_709).abs() < 1e-6);
        assert!(matches!(decline(book, "nothing", "gpt-4o"), Err(NoDecline::NoApi(_))));
    }
}
