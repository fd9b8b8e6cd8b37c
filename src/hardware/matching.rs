//! Which entry of the catalog is a machine?

use super::device::{Device, key};
use super::machine::Machine;

/// An entry that may be this machine's.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Match<'a> {
    pub device: &'a Device,
    /// The name by which it was recognised.
    pub seen_as: String,
    /// Whether that is the whole name, and not a part of it.
    pub whole: bool,
}

/// The entries whose names are found in what the system calls its processor, the surest first.
pub(crate) fn matches<'a>(devices: &'a [Device], machine: &Machine) -> Vec<Match<'a>> {
    of_name(devices, &machine.cpu_model)
}

/// The same for any name: of a processor, or of a GPU as its driver calls it.
pub(crate) fn of_name<'a>(devices: &'a [Device], name: &str) -> Vec<Match<'a>> {
    let is = key(name);
    let mut found: Vec<Match> = devices
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
    use crate::fixture;

    fn first(name: &str) -> Option<(String, bool)> {
        of_name(&fixture::book().devices, name).first().map(|m| (m.device.name.clone(), m.whole))
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
    fn publications_and_drivers_mean_the_same_devices() {
        let book = fixture::book();
        for (said, meant) in [
            ("NVIDIA A100-SXM4-80GB", "a100-sxm-80gb"),
            ("A100 80GB SXM", "a100-sxm-80gb"),
            ("NVIDIA H100 80GB HBM3", "h100-sxm-80gb"),
            ("H100 SXM5 80 GB", "h100-sxm-80gb"),
            ("H100 PCIe", "h100-pcie-80gb"),
            ("NVIDIA GeForce RTX 4090", "rtx-4090"),
            ("Tesla T4", "t4"),
            ("AMD Instinct MI300X", "mi300x"),
            ("MI250X (one GCD)", "mi250x-gcd"),
            ("Google Cloud TPU v5e", "tpu-v5e"),
        ] {
            assert_eq!(book.device(said).map(|d| d.name.as_str()), Some(meant), "{said}");
        }
        for unknown in ["H900", "RTX 9999", "80GB", "A100 16GB", "", "gpu", "RTX"] {
            assert_eq!(book.device(unknown).map(|d| d.name.as_str()), None, "{unknown}");
        }
    }

    #[test]
    fn what_is_not_in_the_catalog_matches_nothing() {
        assert_eq!(first("AMD EPYC"), None);
        assert_eq!(first(""), None);
    }
}
