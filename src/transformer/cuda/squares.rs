//! The sum of the squares of several arrays together.

use super::device::{Address, Device, Real};
use super::launch::{Kernel, THREADS, at, blocks, int};

/// Numbers of a stretch that a block takes at a time; as in the kernel.
const CHUNK: usize = 16384;

/// Stretches of f32 as the kernel reads them: made and written once, where addresses stay.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Table {
    /// A pointer and a length of each, and behind them the first chunk of each, and the end: 8 bytes all.
    pub bytes: Vec<u8>,
    count: usize,
    chunks: usize,
}

impl Table {
    pub(super) fn of(stretches: impl Iterator<Item = (Address, usize)>) -> Self {
        let (mut table, mut first_chunks) = (Self::default(), Vec::new());
        for (address, len) in stretches.filter(|(_, len)| *len > 0) {
            table.bytes.extend([address, len as u64].iter().flat_map(|w| w.to_ne_bytes()));
            first_chunks.extend((table.chunks as u64).to_ne_bytes());
            table.chunks += len.div_ceil(CHUNK);
            table.count += 1;
        }
        table.bytes.extend(first_chunks);
        table.bytes.extend((table.chunks as u64).to_ne_bytes());
        table
    }

    fn grid(&self, on: &dyn Device) -> u32 {
        blocks(on, self.chunks, 1)
    }

    /// Bytes of workspace of [`squares`].
    pub(super) fn partial_bytes(&self, on: &dyn Device) -> usize {
        8 * self.grid(on) as usize
    }
}

/// `to [1] f32 =` the sum of the squares of a table's stretches, whose bytes lie at `table`.
pub(super) fn squares(on: &dyn Device, (at_table, table): (Address, &Table), partial: Address, to: Address) {
    let grid = table.grid(on);
    let first_chunks = at_table + 16 * table.count as Address;
    let kernel = |name| Kernel { on, file: "squares", name, real: Real::F32 };
    kernel("squares").run(grid, THREADS, &[at(at_table), at(first_chunks), int(table.count), at(partial)]);
    kernel("sum_of_squares").run(1, 1024, &[at(partial), at(to), int(grid as usize)]);
}

#[cfg(test)]
mod tests {
    use super::super::host::{HostDevice, random};
    use super::*;

    /// Around vectors of 4 and chunks, and more of these than there are blocks: 3 * 8 on this device.
    const LENGTHS: [usize; 9] = [1, 3, 4, 5, 0, 1021, CHUNK - 1, CHUNK + 1, 30 * CHUNK + 7];

    fn sum(on: &HostDevice, stretches: &[(Address, usize)]) -> f32 {
        let table = Table::of(stretches.iter().copied());
        let place = on.allocate(table.bytes.len()).unwrap();
        on.write(&table.bytes, place);
        let partial = on.allocate(table.partial_bytes(on)).unwrap();
        let to = on.put(Real::F32, &[f32::NAN]);
        squares(on, (place, &table), partial, to);
        on.wait().unwrap();
        on.get(Real::F32, to, 1)[0]
    }

    #[test]
    fn squares_of_stretches_of_any_length_add_up() {
        let Some(on) = HostDevice::new() else { return };
        let all: Vec<Vec<f32>> = (1..).zip(LENGTHS).map(|(stream, len)| random(len, stream)).collect();
        let placed: Vec<(Address, usize)> = all.iter().map(|x| (on.put(Real::F32, x), x.len())).collect();
        let of = |x: &[f32]| x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>();
        // In f64 nothing is lost but where the sum becomes an f32.
        let close =
            |got: f32, want: f64| assert!((f64::from(got) - want).abs() <= 2f64.powi(-23) * want, "{got}, {want}");
        close(sum(&on, &placed), all.iter().map(|x| of(x)).sum());
        for ((at, len), x) in placed.iter().zip(&all).filter(|((_, len), _)| *len > 2) {
            // One that begins where no wide access can.
            close(sum(&on, &[(at + 4, len - 2)]), of(&x[1..len - 1]));
        }
        assert_eq!((sum(&on, &[]), sum(&on, &placed[4..5])), (0.0, 0.0));
        // What f32 sums would have lost: a large one and many small ones.
        let mut x = vec![1.0f32; 1 << 15];
        x[0] = 4096.0;
        assert_eq!(sum(&on, &[(on.put(Real::F32, &x), x.len())]), 16_777_216.0 + 32_767.0);
    }

    #[test]
    fn a_norm_that_is_not_finite_is_told() {
        let Some(on) = HostDevice::new() else { return };
        for (x, want) in [(f32::INFINITY, f32::INFINITY), (3e38, f32::INFINITY)] {
            assert_eq!(sum(&on, &[(on.put(Real::F32, &[1.0, x]), 2)]), want);
        }
        assert!(sum(&on, &[(on.put(Real::F32, &[1.0, f32::NAN]), 2)]).is_nan());
    }
}
