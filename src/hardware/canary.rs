//! A short fixed piece of the probe's work, done again and again through a run: how fast the machine is at that moment.
//!
//! Machines change their speed for minutes: clock rates, neighbours, heat. What a probe found before a sweep is then not what its trials
//! had, and a share of it means nothing. One go computes for about 16 ms and reads for about as long, on all cores.

use super::machine::{Machine, Rates};
use super::probe::{buffers, f32_burst, median, read_part, together, units_for};

/// Rounds of each kind, after one to warm up; the median counts, so that one interruption does not.
const ROUNDS: usize = 3;
/// Seconds of a round of computing.
const ROUND_SECONDS: f64 = 0.004;
/// A round reads this part of the buffer, the next one the next: what is read is in no cache.
const PARTS: usize = 3;

/// What is to be done, with the memory that is read: kept, since to ask for it anew would take longer than to read it.
#[derive(Debug)]
pub(crate) struct Canary {
    cores: usize,
    units: u64,
    buffers: Vec<Vec<u64>>,
}

impl Canary {
    /// For a machine; takes as much memory as the probe does.
    pub(crate) fn of(machine: &Machine) -> Self {
        let cores = machine.cores.max(1) as usize;
        Self { cores, units: units_for(ROUND_SECONDS, f32_burst), buffers: buffers(machine, cores) }
    }

    /// How fast the machine is now.
    pub(crate) fn now(&self) -> Rates {
        let computed = together(self.cores, ROUNDS, |_, _| f32_burst(self.units) * self.units);
        let read = together(self.cores, ROUNDS, |thread, round| read_part(&self.buffers[thread], round % PARTS, PARTS));
        Rates { f32_flops_per_second: median(&computed), read_bytes_per_second: median(&read) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hardware::machine::inspect;
    use std::time::Instant;

    #[test]
    fn it_takes_well_under_half_a_second_and_says_plausible_rates() {
        let mut machine = inspect();
        machine.caches.clear();
        let canary = Canary::of(&machine);
        let began = Instant::now();
        let rates = canary.now();
        assert!(began.elapsed().as_secs_f64() < 0.4, "{:?}", began.elapsed());
        for rate in [rates.f32_flops_per_second, rates.read_bytes_per_second] {
            assert!(rate > 1e8 && rate < 1e16, "{rates:?}");
        }
    }
}
