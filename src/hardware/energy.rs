//! Energy that the processors used, from their own counters (RAPL, by the kernel's powercap tables).
//!
//! Source: Linux kernel documentation, power/powercap: `energy_uj` counts microjoules and wraps at `max_energy_range_uj`.

use std::fs;
use std::path::{Path, PathBuf};

/// The counters of every package at one time.
#[derive(Clone, Debug)]
pub(crate) struct Energy {
    zones: Vec<Zone>,
}

#[derive(Clone, Debug)]
struct Zone {
    path: PathBuf,
    microjoules: u64,
    wraps_at: u64,
}

const TABLES: &str = "/sys/class/powercap";

impl Energy {
    /// Now; `None` where there are no counters, or they may not be read (they often belong to root alone).
    pub(crate) fn now() -> Option<Self> {
        Self::read(Path::new(TABLES))
    }

    fn read(tables: &Path) -> Option<Self> {
        let mut zones = Vec::new();
        for entry in fs::read_dir(tables).ok()?.filter_map(Result::ok) {
            let path = entry.path();
            // Packages alone: cores and graphics inside them are counted in them already, and `psys` holds the packages.
            let package = fs::read_to_string(path.join("name")).is_ok_and(|n| n.trim().starts_with("package-"));
            if !package {
                continue;
            }
            let microjoules = number(&path.join("energy_uj"))?;
            zones.push(Zone {
                microjoules,
                wraps_at: number(&path.join("max_energy_range_uj")).unwrap_or(u64::MAX),
                path,
            });
        }
        (!zones.is_empty()).then_some(Self { zones })
    }

    /// Joules since then, of all packages: of everything that ran on the machine.
    pub(crate) fn joules_since(&self) -> Option<f64> {
        let mut total = 0.0;
        for zone in &self.zones {
            let now = number(&zone.path.join("energy_uj"))?;
            let used = if now >= zone.microjoules {
                now - zone.microjoules
            } else {
                zone.wraps_at.checked_sub(zone.microjoules)?.checked_add(now)?
            };
            total += used as f64 / 1e6;
        }
        Some(total)
    }
}

fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_added_up_and_wrapped_counters_unwrapped() {
        let folder = tempfile::tempdir().unwrap();
        let zone = |name: &str, kind: &str, energy: u64| {
            let path = folder.path().join(name);
            fs::create_dir_all(&path).unwrap();
            fs::write(path.join("name"), format!("{kind}\n")).unwrap();
            fs::write(path.join("energy_uj"), format!("{energy}\n")).unwrap();
            fs::write(path.join("max_energy_range_uj"), "10000000\n").unwrap();
        };
        assert!(Energy::read(folder.path()).is_none());
        zone("intel-rapl:0", "package-0", 1_000_000);
        zone("intel-rapl:1", "package-1", 9_500_000);
        zone("intel-rapl:0:0", "core", 500_000);
        let before = Energy::read(folder.path()).unwrap();
        zone("intel-rapl:0", "package-0", 3_000_000);
        // Over its end: 0.5 J to the end, and 1 J after it.
        zone("intel-rapl:1", "package-1", 1_000_000);
        zone("intel-rapl:0:0", "core", 900_000);
        assert!((before.joules_since().unwrap() - 3.5).abs() < 1e-9);
    }
}
