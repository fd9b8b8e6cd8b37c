//! GPUs that say what a test wants to hear: behind the directive `gpu:NAME` of [`crate::runner::fault`], and in tests.
//!
//! | name | what it is |
//! |---|---|
//! | `steady` | at its default clock, 500 W |
//! | `capped` | slowed down by its power cap in every second reading |
//! | `slow` | at half its clock, and no reason given |
//! | `lost` | gone after the third reading |
//! | `silent` | tells its memory alone, as a virtual GPU does |
//! | `mig` | partitioned |
//! | `short` | with a counter of 32 bits that is at its end |
//! | `shared` | with two other processes on it |
//! | `none` | no driver |

use crate::hardware::gpu::{Gpu, Reading, Reason, Sensors, Trouble};
use std::cell::Cell;

/// A scripted GPU; a machine has as many of them as are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::runner) struct Script(pub &'static str);

const NAMES: &[&str] = &["steady", "capped", "hot", "slow", "lost", "silent", "mig", "short", "shared", "none"];

impl Script {
    pub(crate) fn named(name: &str) -> Option<Self> {
        NAMES.iter().find(|n| **n == name).map(|n| Self(n))
    }

    pub(crate) fn sensors(&self, devices: u32) -> Result<Box<dyn Sensors>, Trouble> {
        if self.0 == "none" {
            return Err(Trouble::NoLibrary);
        }
        Ok(Box::new(Machine { script: self.0, devices, turn: Cell::new(0) }))
    }
}

struct Machine {
    script: &'static str,
    devices: u32,
    turn: Cell<u32>,
}

impl Sensors for Machine {
    fn count(&self) -> Result<u32, Trouble> {
        Ok(self.devices)
    }

    fn describe(&self, index: u32) -> Result<Gpu, Trouble> {
        let told = self.script != "silent";
        Ok(Gpu {
            index,
            name: "NVIDIA H100 80GB HBM3".into(),
            uuid: format!("GPU-scripted-{index}"),
            driver: "580.65.06".into(),
            memory_bytes: 80 << 30,
            default_sm_mhz: told.then_some(1980),
            max_sm_mhz: told.then_some(1980),
            max_memory_mhz: told.then_some(2619),
            power_limit_watts: told.then_some(700.0),
            mig: Some(self.script == "mig"),
            probed: None,
        })
    }

    fn read(&self, index: u32) -> Result<Reading, Trouble> {
        let turn = self.turn.get();
        if index + 1 == self.devices {
            self.turn.set(turn + 1);
        }
        let used_bytes = Some((10 << 30) + u64::from(turn.min(5)) * (1 << 30));
        let reason = [("capped", Reason::PowerCap), ("hot", Reason::ThermalSlowdown)].into_iter();
        let reason =
            reason.filter(|(script, _)| *script == self.script && turn % 2 == 1).map(|(_, reason)| reason).next();
        match self.script {
            "lost" if turn >= 3 => Err(Trouble::Lost),
            "silent" => Ok(Reading { used_bytes, ..Reading::default() }),
            _ => Ok(Reading {
                sm_mhz: Some(if self.script == "slow" || reason.is_some() { 990 } else { 1980 }),
                memory_mhz: Some(2619),
                milliwatts: Some(500_000),
                // 50 J a reading: 500 W at ten of them a second.
                millijoules: Some(if self.script == "short" {
                    (u64::from(u32::MAX) - 99_999 + 50_000 * u64::from(turn)) % (1 << 32)
                } else {
                    7_000_000 + 50_000 * u64::from(turn)
                }),
                celsius: Some(60 + turn.min(9)),
                reasons: Some(reason.into_iter().collect()),
                used_bytes,
            }),
        }
    }

    fn process_bytes(&self, _: u32) -> Result<Option<u64>, Trouble> {
        Ok((self.script != "silent").then_some(9 << 30))
    }

    fn other_processes(&self, _: u32) -> Result<Option<u32>, Trouble> {
        Ok((self.script != "silent").then_some(if self.script == "shared" { 2 } else { 0 }))
    }
}
