//! Which entry of the catalog is a machine?

use super::book::Book;
use super::device::{Device, key};
use super::machine::Machine;

/// An entry that may be this machine's.
#[derive(Clone, Debug, PartialEq)]
pub struct Match<'a> {
    pub device: &'a Device,
    /// The name by which it was recognised.
    pub seen_as: String,
    /// Whether that is the whole name, and not a part of it.
    pub whole: bool,
}

/// The entries whose names are found in what the system calls its processor, the surest first.
pub fn matches<'a>(book: &'a Book, machine: &Machine) -> Vec<Match<'a>> {
    of_name(book, &machine.cpu_model)
}

/// The same for any name: of a processor, or of a GPU as its driver calls it.
pub fn of_name<'a>(book: &'a Book, name: &str) -> Vec<Match<'a>> {
    let is = key(name);
    let mut found: Vec<Match> = book
        .devices
        .iter()
        .filter_map(|device| {
            let names = device.seen_as.iter().chain(std::iter::once(&device.title)).chain(&device.aliases);
            // A short alias ("T4") stands in many names.
            let seen = names.filter(|n| key(n).len() >= 6 && is.contains(&key(n))).max_by_key(|n| key(n).len())?;
            Some(Match { device, seen_as: seen.clone(), whole: key(seen) == is })
        })
        .collect();
    found.sort_by_key(|m| (!m.whole, std::cmp::Reverse(key(&m.seen_as).len())));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(name: &str) -> Option<(String, bool)> {
        of_name(Book::built_in().unwrap(), name).first().map(|m| (m.device.name.clone(), m.whole))
    }

    #[test]
    fn drivers_names_are_recognised() {
        assert_eq!(first("NVIDIA H100 80GB HBM3"), Some(("h100-sxm-80gb".into(), true)));
        assert_eq!(first("NVIDIA H200"), Some(("h200-sxm".into(), true)));
        assert_eq!(first("AMD EPYC 9R14 96-Core Processor"), Some(("epyc-9r14-2s".into(), false)));
        assert_eq!(first("Intel(R) Xeon(R) Platinum 8488C"), Some(("xeon-8488c-2s".into(), false)));
        assert_eq!(first("NVIDIA GeForce RTX 3090 Ti"), Some(("rtx-3090-ti".into(), true)));
    }

    #[test]
    fn what_is_not_in_the_catalog_matches_nothing() {
        assert_eq!(first("AMD EPYC"), None);
        assert_eq!(first(""), None);
    }
}
