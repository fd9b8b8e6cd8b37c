//! Weights as they start, made where they will lie.

use super::super::random::{Block, Normals, normal_scale};
use super::buffer::Buffer;
use super::device::{Address, Arg, Device, Real};
use super::launch::{Kernel, THREADS, at_or_null, blocks, long};

/// Fills `to` with the elements, in every format that it has.
pub(super) fn fill_normal(on: &dyn Device, to: &Buffer, numbers: &Normals) {
    fill_normal_at(on, to.format(), to.each(), numbers);
}

/// The same at these places, of f32 and of bf16.
pub(super) fn fill_normal_at(
    on: &dyn Device,
    real: Real,
    (wide, narrow): (Option<Address>, Option<Address>),
    numbers: &Normals,
) {
    let columns = numbers.columns;
    let scale = Arg::F32(normal_scale(numbers.standard_deviation));
    let mut done = 0;
    for block in numbers.blocks.iter().filter(|b| b.rows * columns > 0) {
        let Block { rows, first, stride } = *block;
        // Rows that follow one another are one, whose elements need not be looked for by a division.
        let whole = stride == columns as u64;
        let (rows, columns) = if whole { (1, rows * columns) } else { (rows, columns) };
        let counter = numbers.key().wrapping_add(first).wrapping_add(1);
        let place = |base: Option<Address>, size: usize| at_or_null(base.map(|b| b + (done * size) as Address));
        let (wide, narrow) = (place(wide, 4), place(narrow, 2));
        let args = [wide, narrow, long(rows), long(columns), long(stride as usize), Arg::U64(counter), scale];
        let grid = blocks(on, (rows * columns).div_ceil(16 / real.size()), THREADS as usize);
        Kernel { on, file: "random", name: "normal", real }.run(grid, THREADS, &args);
        done += rows * columns;
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::backend::{Backend, Category};
    use super::super::super::cpu::naive::Naive;
    use super::super::super::pass::model::{Index, Purpose};
    use super::super::super::random::Stream;
    use super::super::super::shape::{Family, Shape, ShapeSpec};
    use super::super::super::{BackendKind, Dtype};
    use super::super::Cuda;
    use super::super::device::Real;
    use super::super::host::HostDevice;
    use super::*;
    use half::bf16;
    use std::sync::Arc;

    fn shape(family: Family) -> Shape {
        let spec = ShapeSpec {
            n_layers: Some(2),
            // Rows of 36, 18 and 27 elements: the start of few is aligned, and vectors reach from one into the next.
            d_model: Some(36),
            n_heads: Some(6),
            n_kv_heads: (family == Family::Llama).then_some(2),
            d_ff: Some(54),
            vocab_size: Some(61),
            context: Some(13),
            ..ShapeSpec::default()
        };
        Shape::new(family, &spec).unwrap()
    }

    /// The bits of what a buffer holds in each format.
    fn bits(on: &HostDevice, b: &Buffer) -> (Option<Vec<u32>>, Option<Vec<u32>>) {
        let read = |real: Real, at: Address| on.get(real, at, b.len).into_iter().map(f32::to_bits).collect();
        let (wide, narrow) = b.each();
        (wide.map(|at| read(Real::F32, at)), narrow.map(|at| read(Real::Bf16, at)))
    }

    #[test]
    fn every_parameter_starts_with_the_bits_that_the_host_makes() {
        let Some(host) = HostDevice::new() else { return };
        let host = Arc::new(host);
        for (family, dtype) in [
            (Family::Gpt2, Dtype::F32),
            (Family::Gpt2, Dtype::Bf16),
            (Family::Llama, Dtype::F32),
            (Family::Llama, Dtype::Bf16),
            (Family::Block, Dtype::Bf16),
        ] {
            let cuda = Cuda::on_device(host.clone(), dtype).unwrap();
            for of in [1, 2, 6] {
                for (rank, purpose) in
                    [(0, Purpose::Training), (0, Purpose::Inference), (of as usize - 1, Purpose::Training)]
                {
                    let index = Index::new(&shape(family).part_of(rank, of, BackendKind::Cuda));
                    let ours = index.initialise(&cuda, 7, purpose).unwrap();
                    let theirs = index.initialise(&Naive, 7, purpose).unwrap();
                    Backend::check(&cuda).unwrap();
                    for ((spec, ours), theirs) in index.specs.iter().zip(&ours).zip(&theirs) {
                        let what = format!("{} {family:?} {dtype} {purpose:?} {rank} of {of}", spec.name);
                        let whole: Vec<u32> = theirs.iter().map(|x| x.to_bits()).collect();
                        let halves: Vec<u32> = theirs.iter().map(|x| bf16::from_f32(*x).to_f32().to_bits()).collect();
                        let (wide, narrow) = bits(&host, ours);
                        assert!(wide.is_some() || narrow.is_some());
                        wide.inspect(|wide| assert!(*wide == whole, "{what}"));
                        narrow.inspect(|narrow| assert!(*narrow == halves, "{what}, in bf16"));
                    }
                }
            }
        }
    }

    /// Blocks that begin anywhere, rows that lie apart, and more elements than a grid has threads for.
    #[test]
    fn blocks_of_any_size_are_the_hosts() {
        let Some(host) = HostDevice::new() else { return };
        let host = Arc::new(host);
        /// Rows, first draw, stride.
        type Blocks = [(usize, u64, u64)];
        let cases: [(usize, &Blocks); 5] = [
            (1, &[(1, 0, 1)]),
            (1, &[(5, 3, 4), (2, 100, 1)]),
            (3, &[(7, 1 << 40, 9), (0, 5, 5), (4, 17, 3)]),
            (9, &[(11, u64::from(u32::MAX) - 20, 10)]),
            (257, &[(300, 2, 1000), (1, 9, 257)]),
        ];
        for (columns, blocks) in cases {
            let blocks = blocks.iter().map(|&(rows, first, stride)| Block { rows, first, stride }).collect();
            let numbers = Normals::new(Stream::new(1, 2), 0.3, columns, blocks);
            let mut want = vec![0.0; numbers.len()];
            numbers.fill(0, &mut want);
            for (dtype, category) in [
                (Dtype::F32, Category::Weights),
                (Dtype::Bf16, Category::Weights),
                (Dtype::Bf16, Category::FixedWeights),
            ] {
                let cuda = Cuda::on_device(host.clone(), dtype).unwrap();
                let buffer = Buffer::new(&cuda.device, numbers.len(), category, dtype).unwrap();
                fill_normal(&*host, &buffer, &numbers);
                host.wait().unwrap();
                let (wide, narrow) = buffer.each();
                wide.inspect(|at| assert_eq!(host.get(Real::F32, *at, want.len()), want, "{columns}"));
                let halves: Vec<f32> = want.iter().map(|x| bf16::from_f32(*x).to_f32()).collect();
                narrow.inspect(|at| assert_eq!(host.get(Real::Bf16, *at, want.len()), halves, "{columns}"));
            }
        }
    }
}
