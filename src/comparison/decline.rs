//! How prices fell: of an hour of a device, of a PFLOP, and of an API's tokens; and what each had in the fall.

use crate::cost::decomposition::{Factor, Part, Role, decompose};
use crate::cost::price::CostError;
use crate::hardware::api::Api;
use crate::hardware::book::Book;
use crate::hardware::date::Date;
use crate::hardware::device::Device;
use crate::hardware::offer::{Offer, Term};

/// An offer with what it gives for its price.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Point<'a> {
    pub offer: &'a Offer,
    pub device: &'a Device,
    pub usd_per_device_hour: f64,
    /// USD for an hour of 1e15 FLOP/s at the peak. `None` where the peak is not known.
    pub usd_per_pflops_hour: Option<f64>,
}

/// Every offer of accelerators under a term, oldest first, with its device.
pub(crate) fn points(book: &Book, term: Term) -> Vec<Point<'_>> {
    let mut all: Vec<Point> = book
        .offers
        .iter()
        .filter(|o| o.term == term && o.devices > 0)
        .filter_map(|offer| {
            let device = book.device(offer.device.as_deref()?)?;
            let hour = offer.usd_per_device_hour().get();
            let usd_per_pflops_hour = device.peak().map(|(_, rate)| hour / (rate / 1e15));
            Some(Point { offer, device, usd_per_device_hour: hour, usd_per_pflops_hour })
        })
        .collect();
    all.sort_by_key(|p| p.offer.from);
    all
}

/// What an API asked on two dates beside the hardware of the day.
#[derive(Clone, Debug)]
pub(crate) struct Decline<'a> {
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
pub(crate) enum NoDecline {
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
/// hardware. The hardware of the day is the fastest device on offer, at its lowest price.
///
/// # Errors
/// [`NoDecline`].
pub(crate) fn decline<'a>(book: &'a Book, from: &str, to: &str) -> Result<Decline<'a>, NoDecline> {
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

/// Of the fastest devices on offer on a day (peaks within a twentieth are alike), the one that costs least; half a year after
/// its only sighting an offer is history, and offers without an exact date are passed over.
fn of_the_day<'a>(all: &[Point<'a>], day: Date) -> Result<Point<'a>, NoDecline> {
    const LONGEST_DAYS: i64 = 180;
    let in_force = |o: &Offer| {
        let ends = o.until.map_or_else(|| o.from.age_in_days(day) <= LONGEST_DAYS, |u| u.last() >= day.first());
        !o.approximate && o.from.first() <= day.last() && ends
    };
    let known: Vec<(&Point, f64)> =
        all.iter().filter(|p| in_force(p.offer)).filter_map(|p| Some((p, p.device.peak()?.1))).collect();
    let fastest = known.iter().map(|(_, rate)| *rate).fold(0.0, f64::max);
    let like = known.iter().filter(|(_, rate)| *rate >= 0.95 * fastest).map(|(p, _)| *p);
    let cheapest = like.min_by(|a, b| a.usd_per_device_hour.total_cmp(&b.usd_per_device_hour));
    cheapest.copied().ok_or(NoDecline::NoHardware(day))
}

/// The offers of the instance that was seen over the longest time (the cheapest of those seen as long), oldest first, and all
/// other offers: the first show how a price moved, the others how far providers lie apart.
pub(crate) fn longest_seen<'a>(points: &[Point<'a>]) -> (Vec<Point<'a>>, Vec<Point<'a>>) {
    let address = |p: &Point| p.offer.address();
    let mut best: Option<(i64, f64, String)> = None;
    for p in points {
        let same = points.iter().filter(|o| address(o) == address(p));
        let first = same.clone().map(|o| o.offer.from).min();
        let last = same.clone().map(|o| o.offer.seen()).max();
        let Some(days) = first.zip(last).map(|(f, l)| f.age_in_days(l)) else { continue };
        let price = same.map(|o| o.usd_per_device_hour).fold(f64::INFINITY, f64::min);
        if best.as_ref().is_none_or(|(d, usd, _)| days > *d || (days == *d && price < *usd)) {
            best = Some((days, price, address(p)));
        }
    }
    let Some((_, _, chosen)) = best else { return (vec![], vec![]) };
    points.iter().copied().partition(|p| address(p) == chosen)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    #[test]
    fn the_parts_of_the_decline_add_up() {
        let book = fixture::book();
        let d = decline(book, "GPT-3 davinci", "gpt-4o-mini").unwrap();
        assert_eq!((d.before, d.after), (60.0, 0.375));
        let sum: f64 = d.parts.iter().map(|p| p.change).sum();
        assert!((sum - (d.after - d.before)).abs() < 1e-12 * d.before);
        assert!((d.shares.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        // In July 2022 AWS's p4d was the cheapest with A100s; two years later an H100 was to be had for 3.50.
        let (first, last) = &d.hardware;
        assert_eq!((first.offer.instance.as_str(), last.device.name.as_str()), ("p4d.24xlarge", "h100-sxm-80gb"));
        assert_eq!(last.usd_per_device_hour, 3.5);
        // ln(3.5 / 4.0966) = -0.1574 and -ln(989.4 / 312) = -1.1541 of ln(0.375 / 60) = -5.0752.
        assert!((d.shares[0] - 0.0310).abs() < 1e-3 && (d.shares[1] - 0.2274).abs() < 1e-3, "{:?}", d.shares);
    }

    #[test]
    fn the_instance_that_was_seen_longest_shows_how_a_price_moved() {
        let book = fixture::book();
        let h100: Vec<Point> =
            points(book, Term::OnDemand).into_iter().filter(|p| p.device.name == "h100-sxm-80gb").collect();
        let (line, others) = longest_seen(&h100);
        let prices: Vec<f64> = line.iter().map(|p| p.usd_per_device_hour).collect();
        assert_eq!((line[0].offer.instance.as_str(), prices), ("p5.48xlarge", vec![12.29, 6.88]));
        assert_eq!(line.len() + others.len(), h100.len());
        assert!(longest_seen(&[]).0.is_empty());
    }

    #[test]
    fn a_point_is_the_price_of_a_device_and_of_its_flops() {
        let book = fixture::book();
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
