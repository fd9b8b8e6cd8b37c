//! What kind of machine this is, as far as it decides how much one run differs from the next.

use crate::stats::launches::Spread;
use serde::{Deserialize, Serialize};

/// Whom a machine is shared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Nobody.
    BareMetal,
    /// The hypervisor may run others, and does not always tell.
    VirtualMachine,
    /// A runner of a CI service: other jobs stand beside it.
    SharedRunner,
}

/// Launches and runs that what is assumed of a kind counts as.
const LAUNCHES: f64 = 2.0;
const RUNS: f64 = 4.0;

impl Kind {
    /// Of this machine: CI services set `CI`, hypervisors show themselves as a CPU's flag.
    pub fn of_this_machine() -> Self {
        let runner = std::env::var_os("CI").is_some_and(|v| !v.is_empty() && v != "false");
        let flags = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        Self::of(runner, &flags)
    }

    fn of(runner: bool, cpuinfo: &str) -> Self {
        let virtual_machine = cpuinfo
            .lines()
            .filter(|l| l.starts_with("flags") || l.starts_with("Features"))
            .any(|l| l.split_whitespace().any(|flag| flag == "hypervisor"));
        match (runner, virtual_machine) {
            (true, _) => Self::SharedRunner,
            (false, true) => Self::VirtualMachine,
            (false, false) => Self::BareMetal,
        }
    }

    /// What is assumed before a machine has a history: between launches 0.5, 1 and 1.5 %, between runs 1, 4 and 4 %. Virtual machines
    /// were measured (reports/run-to-run): 3 % from run to run on one, 6 % on one that changes its speed for minutes while nothing
    /// runs beside; hosted runners vary by 2.7 % (CodSpeed) and share their hosts. Earlier runs count as soon as there are some.
    pub fn spread(self) -> Spread {
        let (launch, run) = match self {
            Self::BareMetal => (0.005, 0.01),
            Self::VirtualMachine => (0.01, 0.04),
            Self::SharedRunner => (0.015, 0.04),
        };
        Spread { launch, launch_freedom: LAUNCHES, run, run_freedom: RUNS }
    }

    /// "a virtual machine".
    pub fn words(self) -> &'static str {
        match self {
            Self::BareMetal => "a machine of its own",
            Self::VirtualMachine => "a virtual machine",
            Self::SharedRunner => "a shared runner",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_follows_from_the_service_and_the_processors_flags() {
        assert_eq!(Kind::of(true, ""), Kind::SharedRunner);
        assert_eq!(Kind::of(false, "flags\t\t: fpu sse hypervisor avx2\n"), Kind::VirtualMachine);
        assert_eq!(Kind::of(false, "flags\t\t: fpu sse avx2\nmodel name : hypervisor\n"), Kind::BareMetal);
        let runs = [Kind::BareMetal, Kind::VirtualMachine, Kind::SharedRunner].map(|k| k.spread().run);
        assert!(runs.is_sorted());
    }
}
