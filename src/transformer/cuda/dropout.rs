//! Dropout in place; the mask is the CPU's.

use super::super::backend::Dropout;
use super::super::random::{mix, threshold};
use super::device::{Address, Arg, Device, Real};
use super::launch::{Kernel, THREADS, at, blocks, long};

/// Zeroes each of `x [len]` with the probability and scales the rest by 1 / (1 - p). The step's seed lies at `seed`, 64 bits.
pub(super) fn dropout(on: &dyn Device, real: Real, x: Address, len: usize, seed: Address, d: Dropout) {
    if len == 0 {
        return;
    }
    let below = Arg::I32(threshold(d.probability).cast_signed());
    let (place, part) = (Arg::U64(mix(d.place)), Arg::U64(d.part));
    let args = [at(x), long(len), below, Arg::F32(1.0 / (1.0 - d.probability)), at(seed), place, part];
    let grid = blocks(on, len.div_ceil(16 / real.size()), THREADS as usize);
    Kernel { on, file: "dropout", name: "dropout", real }.run(grid, THREADS, &args);
}

#[cfg(test)]
mod tests {
    use super::super::super::backend::Backend;
    use super::super::super::cpu::naive::Naive;
    use super::super::host::{HostDevice, array, random, rounded};
    use super::*;

    #[test]
    fn the_mask_is_the_cpus() {
        let Some(on) = HostDevice::new() else { return };
        let seed = on.put_words(&[0x9abc_def0, 0x1234_5678]);
        for len in [1, 3, 4, 7, 8, 9, 1021, 70_003] {
            for real in [Real::F32, Real::Bf16] {
                for (probability, place, part) in [(0.0, 0, 0), (0.1, 1, 0), (0.5, 7, 3), (0.9, 0, 1)] {
                    let d = Dropout { probability, seed: 0x1234_5678_9abc_def0, place, part };
                    let before = rounded(real, random(len, 1));
                    let x = on.put(real, &before);
                    dropout(&on, real, x, len, seed, d);
                    on.wait().unwrap();
                    let mut want = array(&before);
                    Naive.dropout(&mut want, len, d);
                    assert_eq!(on.get(real, x, len), rounded(real, want.to_vec()), "{len} {real:?} {probability}");
                }
            }
        }
    }
}
