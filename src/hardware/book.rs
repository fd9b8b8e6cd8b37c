//! The catalog and the price book together, and how an entry is found by what a person calls it.

use super::api::Api;
use super::date::Date;
use super::device::{Device, key};
use super::matching;
use super::offer::{Offer, Term};
use crate::yaml::did_you_mean;

/// Devices, offers and APIs' prices.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Book {
    /// The catalog.
    pub devices: Vec<Device>,
    /// What machines cost, by provider, term and date.
    pub offers: Vec<Offer>,
    /// What APIs charge for tokens.
    pub apis: Vec<Api>,
    /// From here on, offers are of a user's own files, and go before ours.
    own_from: usize,
    /// Whether there are a user's own files.
    own: bool,
}

/// Which offer is wanted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Query {
    /// An instance (`p5.48xlarge`, `aws/p5.48xlarge`) or a device (`h100-sxm-80gb`, `H100`).
    pub what: String,
    pub provider: Option<String>,
    pub region: Option<String>,
    /// On demand, unless it says otherwise; an instance that has no such offer may have another.
    pub term: Option<Term>,
    /// The price of that day, and not the latest.
    pub on: Option<Date>,
}

/// Why there is no offer.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum NoOffer {
    #[error("`{what}` is neither an instance nor a device of the price book; {hint}")]
    Unknown { what: String, hint: String },
    #[error("the price book has no offer for `{what}`{wanted}; {remedy}")]
    Unpriced { what: String, wanted: String, remedy: String },
}

/// Offers that were last seen longer than this before the newest of their kind are history.
const CURRENT_DAYS: i64 = 180;

impl Book {
    /// What is added from here on is a user's own, and goes before ours.
    pub(super) fn begin_own(&mut self) {
        (self.own_from, self.own) = (self.offers.len(), true);
    }

    /// The device that a person calls so.
    pub fn device(&self, name: &str) -> Option<&Device> {
        // The last one is the user's.
        let called = |by: &dyn Fn(&Device) -> bool| self.devices.iter().rev().find(|d| by(d));
        let exact = called(&|d| d.name == name).or_else(|| called(&|d| d.is_called(name)));
        let by_driver = || matching::of_name(&self.devices, name).first().filter(|m| m.whole).map(|m| m.device);
        // By its words, the device of which least is left unsaid; of equals the first, as where only "A100" is said.
        let by_words = || {
            let meant = self.devices.iter().filter_map(|d| Some((d, d.is_meant_by(name)?)));
            meant.min_by_key(|(_, unsaid)| *unsaid).map(|(d, _)| d)
        };
        exact.or_else(by_driver).or_else(by_words)
    }

    /// Whether a user's files are over ours.
    pub fn has_own(&self) -> bool {
        self.own
    }

    /// The device that a driver calls so, or whose name stands in what it says.
    pub fn device_of_driver(&self, name: &str) -> Option<&Device> {
        matching::of_name(&self.devices, name).first().map(|m| m.device)
    }

    /// The nearest name of a device or an instance: for messages.
    pub fn hint(&self, name: &str) -> String {
        let devices = self.devices.iter().map(|d| d.name.as_str());
        let others = self.offers.iter().map(|o| o.instance.as_str());
        let hint = did_you_mean(&name.to_lowercase(), devices, others);
        if hint.starts_with("known are") { "`centime hardware list` shows what is there".into() } else { hint }
    }

    /// Every offer of a device, oldest first.
    pub fn history(&self, device: &str) -> Vec<&Offer> {
        let mut all: Vec<&Offer> = self.offers.iter().filter(|o| o.device.as_deref() == Some(device)).collect();
        all.sort_by(|a, b| a.from.cmp(&b.from).then(a.usd_per_hour.cmp(&b.usd_per_hour)));
        all
    }

    /// The offer for what is wanted: of an instance the latest, of a device the cheapest of those that are current. A user's
    /// own offers go before ours.
    ///
    /// # Errors
    /// `NoOffer`: nothing is called so, or nothing of it is offered under these conditions.
    pub fn find(&self, query: &Query) -> Result<&Offer, NoOffer> {
        let named: Vec<(usize, &Offer)> = self.called(&query.what);
        let fits = |o: &Offer| {
            let same = |wanted: &Option<String>, is: &str| wanted.as_ref().is_none_or(|w| key(w) == key(is));
            same(&query.provider, &o.provider) && same(&query.region, &o.region)
        };
        let mut found: Vec<(usize, &Offer)> = named.iter().filter(|(_, o)| fits(o)).copied().collect();
        let term = query.term.unwrap_or(Term::OnDemand);
        if query.term.is_some() || found.iter().any(|(_, o)| o.term == term) {
            found.retain(|(_, o)| o.term == term);
        }
        if let Some(on) = query.on {
            found.retain(|(_, o)| in_force(o, on));
        }
        if found.iter().any(|(i, _)| *i >= self.own_from) {
            found.retain(|(i, _)| *i >= self.own_from);
        }
        let mut found = newest_of_each(found);
        if let Some(newest) = found.iter().map(|(_, o)| o.seen()).max() {
            // What is dated to the year only may have been seen at its end.
            found.retain(|(_, o)| (newest.first() - o.seen().last()).num_days() <= CURRENT_DAYS);
        }
        let cheapest = found
            .into_iter()
            .map(|(_, o)| o)
            .min_by(|a, b| a.usd_per_device_hour().cmp(&b.usd_per_device_hour()).then(b.seen().cmp(&a.seen())));
        cheapest.ok_or_else(|| self.none(query, named.is_empty()))
    }

    fn called(&self, what: &str) -> Vec<(usize, &Offer)> {
        let wanted = key(what);
        let all = self.offers.iter().enumerate();
        let instances: Vec<(usize, &Offer)> =
            all.clone().filter(|(_, o)| key(&o.instance) == wanted || key(&o.address()) == wanted).collect();
        if !instances.is_empty() {
            return instances;
        }
        let Some(device) = self.device(what) else { return vec![] };
        all.filter(|(_, o)| o.device.as_deref() == Some(device.name.as_str())).collect()
    }

    fn none(&self, query: &Query, nothing_is_called_so: bool) -> NoOffer {
        let what = query.what.clone();
        if nothing_is_called_so && self.device(&what).is_none() {
            let hint = self.hint(&what);
            return NoOffer::Unknown { what, hint };
        }
        let mut wanted = query.term.map_or(String::new(), |t| format!(", {}", t.name()));
        for part in [&query.provider, &query.region].into_iter().flatten() {
            wanted += &format!(", {part}");
        }
        if let Some(on) = query.on {
            wanted += &format!(", on {on}");
        }
        NoOffer::Unpriced { what, wanted, remedy: "add one in a file of your own, or state usd_per_hour".into() }
    }
}

/// Of several prices for the same thing under the same conditions, the one that was seen last.
fn newest_of_each(all: Vec<(usize, &Offer)>) -> Vec<(usize, &Offer)> {
    let alike = |a: &Offer, b: &Offer| {
        a.term == b.term
            && a.region == b.region
            && key(&a.provider) == key(&b.provider)
            && key(&a.instance) == key(&b.instance)
    };
    let later = |a: &Offer, b: &Offer| (b.seen(), b.from) > (a.seen(), a.from);
    let superseded = |o: &Offer| all.iter().any(|(_, other)| alike(o, other) && later(o, other));
    all.iter().filter(|(_, o)| !superseded(o)).copied().collect()
}

/// Whether an offer was to be had on a day: between its sightings, or not long after the only one.
fn in_force(o: &Offer, on: Date) -> bool {
    let begun = o.from.first() <= on.last();
    let ends = o.until.map_or_else(|| o.from.age_in_days(on) <= CURRENT_DAYS, |u| u.last() >= on.first());
    begun && ends
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;
    use crate::hardware::read;

    fn find(what: &str, change: impl Fn(&mut Query)) -> Result<&'static Offer, NoOffer> {
        let mut query = Query { what: what.into(), ..Query::default() };
        change(&mut query);
        fixture::book().find(&query)
    }

    #[test]
    fn an_instance_has_its_latest_price_unless_a_day_is_asked_for() {
        for name in ["p5.48xlarge", "aws/p5.48xlarge", "AWS P5.48XLARGE"] {
            assert_eq!(find(name, |_| ()).unwrap().usd_per_hour.0.to_string(), "55.04", "{name}");
        }
        let then = find("p5.48xlarge", |q| q.on = Date::parse("2024-05-01")).unwrap();
        assert_eq!(then.usd_per_hour.0.to_string(), "98.32");
        let before = find("p5.48xlarge", |q| q.on = Date::parse("2020-01-01")).unwrap_err();
        assert!(matches!(before, NoOffer::Unpriced { .. }), "{before}");
    }

    #[test]
    fn a_device_has_the_cheapest_current_offer() {
        // Lambda asked 1.99 in 2023; what is current is what was seen lately.
        let h100 = find("h100-sxm-80gb", |_| ()).unwrap();
        assert!(h100.seen() > Date::parse("2025-12-31").unwrap(), "{h100:?}");
        let spot = find("H100", |q| q.provider = Some("azure".into())).unwrap();
        assert_eq!((spot.provider.as_str(), spot.usd_per_device_hour().0.to_string().as_str()), ("Azure", "12.29"));
    }

    #[test]
    fn what_is_not_there_is_said_with_the_nearest_name() {
        let error = find("h100-smx-80gb", |_| ()).unwrap_err();
        assert!(error.to_string().contains("did you mean `h100-sxm-80gb`?"), "{error}");
        let error = find("rtx-4090", |_| ()).unwrap_err();
        assert!(error.to_string().contains("no offer for `rtx-4090`"), "{error}");
    }

    #[test]
    fn a_users_file_goes_before_ours_and_replaces_devices() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("own.yaml");
        let text = "version: 1\ndevices:\n  - { name: h100-sxm-80gb, kind: gpu, vendor: us, source: own }\n\
                    offers:\n  - { provider: us, instance: cage-1, device: h100, devices: 4, usd_per_hour: 9.2, \
                    from: \"2020-01-01\", source: invoice }\n";
        std::fs::write(&file, text).unwrap();
        let book = read::with(&[file]).unwrap();
        assert_eq!(book.device("H100-SXM-80GB").unwrap().vendor, "us");
        let query = Query { what: "h100-sxm-80gb".into(), ..Query::default() };
        assert_eq!(book.find(&query).unwrap().usd_per_device_hour().0.to_string(), "2.3");
    }
}
