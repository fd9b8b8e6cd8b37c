//! Rows grouped by the experts that they go to, and products of each group by its expert's weights. How many rows an expert has is
//! known to the device alone: launches have as many blocks as any routing could need.

use super::super::backend::ExpertDims;
use super::activation;
use super::device::{Address, Arg, Device, DeviceFacts, Launch, Real};
use super::launch::{at, at_or_null, int};

/// Compute capability from which on there are bf16 tensor cores and asynchronous copies.
const LEAST_CAPABILITY: (u32, u32) = (8, 0);

/// Row tiles that blocks take together before the next columns, as in `kernels/grouped.h`.
const TOGETHER: usize = 8;

/// Which kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Path {
    /// f32 arithmetic, any shape.
    Plain,
    /// bf16 products by mma.sync, by tiles of so many rows: 16, 64 or 128.
    TensorCores(usize),
    /// bf16 products by wgmma, by tiles of 128 rows.
    Warpgroups,
}

/// A kernel's tile of rows, columns and inner dimension, its stages and its threads, and shared memory beside the stages.
#[derive(Clone, Copy, Debug)]
struct Tile {
    rows: usize,
    columns: usize,
    inner: usize,
    stages: usize,
    threads: u32,
    beside: usize,
}

impl Path {
    /// For tiles of 128 rows and more.
    fn of_many(facts: &DeviceFacts, real: Real, d: ExpertDims) -> Self {
        let whole = d.c.is_multiple_of(8) && d.f.is_multiple_of(8);
        let fits = |path: Self| path.tile().shared_bytes() <= facts.shared_bytes;
        if real == Real::Bf16 && whole && facts.capability == (9, 0) && fits(Self::Warpgroups) {
            Self::Warpgroups
        } else if real == Real::Bf16 && whole && facts.capability >= LEAST_CAPABILITY && fits(Self::TensorCores(128)) {
            Self::TensorCores(128)
        } else {
            Self::Plain
        }
    }

    /// Few rows an expert are tiled by few. `backward`: products by weights as they lie will be asked for, which have no kernel for the
    /// fewest rows.
    fn of(facts: &DeviceFacts, real: Real, backward: bool, d: ExpertDims) -> Self {
        match (Self::of_many(facts, real, d), d.rows().div_ceil(d.experts.max(1))) {
            (Self::Plain, _) => Self::Plain,
            (_, 0..=16) if !backward => Self::TensorCores(16),
            (_, 0..=64) => Self::TensorCores(64),
            (many, _) => many,
        }
    }

    fn tile(self) -> Tile {
        match self {
            Self::Plain => Tile { rows: 64, columns: 64, inner: 16, stages: 0, threads: 256, beside: 0 },
            Self::TensorCores(16) => Tile { rows: 16, columns: 64, inner: 128, stages: 4, threads: 128, beside: 0 },
            Self::TensorCores(rows) => Tile { rows, columns: 128, inner: 64, stages: 3, threads: 256, beside: 0 },
            // What aligns its stages to 1024 bytes.
            Self::Warpgroups => Tile { beside: 1024, ..Self::TensorCores(128).tile() },
        }
    }

    /// The file of its kernels.
    fn file(self) -> &'static str {
        match self {
            Self::Plain => "grouped",
            Self::TensorCores(_) => "grouped_mma",
            Self::Warpgroups => "grouped_wgmma",
        }
    }
}

impl Tile {
    /// Dynamic shared memory of a block.
    fn shared_bytes(self) -> u32 {
        (self.stages * (self.rows + self.columns) * self.inner * 2 + self.beside) as u32
    }

    /// Blocks for so many tiles of rows, and for these columns.
    fn grid(self, most: usize, columns: usize) -> [u32; 3] {
        let blocks = most.div_ceil(TOGETHER) * TOGETHER * columns.div_ceil(self.columns);
        [u32::try_from(blocks).unwrap_or(u32::MAX), 1, 1]
    }
}

/// Tiles that so many rows may take, whichever experts they go to.
fn most_tiles(d: ExpertDims, tile_rows: usize) -> usize {
    (d.rows() / tile_rows + d.experts).min(d.rows())
}

/// Rows in groups, on the device.
#[derive(Clone, Copy, Debug)]
pub(super) struct Groups {
    /// `[E + 1]`: where an expert's rows begin.
    pub starts: Address,
    /// `[N * K]` each: a row's place (token * K + slot) and its token, and a place's row.
    pub order: Address,
    pub tokens: Address,
    pub places: Address,
    /// Tiles of rows of one expert each.
    tiles: Address,
    path: Path,
    /// Of gradients of weights, whose inner dimension the rows are.
    of_weights: Path,
    real: Real,
    d: ExpertDims,
}

/// Where rows of a factor are found: one after the other, or each at its token's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rows {
    Own(Address),
    OfTokens(Address),
}

/// Weights of all experts, `[E, m, k]`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Weights {
    pub at: Address,
    pub k: usize,
    pub m: usize,
}

/// An array's bytes, so that the next begins as memory does.
pub(super) fn room(bytes: usize) -> usize {
    bytes.next_multiple_of(256)
}

/// Bytes that [`Groups::of`] asks for, whichever kernels there are.
pub(super) fn bytes(d: ExpertDims) -> usize {
    room(4 * (d.experts + 1)) + 3 * room(4 * d.rows()) + room(8 * most_tiles(d, 16))
}

impl Groups {
    /// Groups the places of `chosen [N, K]`; `to`, of [`bytes`], takes the result. `backward`: products by weights as they lie will be
    /// asked for.
    pub(super) fn of(on: &dyn Device, real: Real, chosen: Address, to: Address, backward: bool, d: ExpertDims) -> Self {
        let (path, of_weights) = (Path::of(on.facts(), real, backward, d), Path::of_many(on.facts(), real, d));
        let mut next = to;
        let mut take = |bytes: usize| {
            let here = next;
            next += room(bytes) as Address;
            here
        };
        let starts = take(4 * (d.experts + 1));
        let [order, tokens, places] = [(); 3].map(|()| take(4 * d.rows()));
        let tiles = take(8 * most_tiles(d, 16));
        let groups = Self { starts, order, tokens, places, tiles, path, of_weights, real, d };
        let (tile_rows, shared) = (path.tile().rows, u32::try_from(32 * 4 * d.experts).unwrap_or(u32::MAX));
        let mut args = vec![at(chosen), at(starts), at(order), at(tokens), at(places), at(groups.tiles)];
        args.extend([d.rows(), d.per_token, d.experts, tile_rows, most_tiles(d, tile_rows)].map(int));
        on.launch(&Launch {
            file: "experts",
            kernel: "group_rows",
            real,
            grid: [1; 3],
            threads: 1024,
            shared_bytes: shared,
            args: &args,
        });
        groups
    }

    /// What a kernel reads of a factor: where it lies, and its rows' tokens or null.
    fn operand(&self, rows: Rows) -> [Arg; 2] {
        match rows {
            Rows::Own(address) => [at(address), at(0)],
            Rows::OfTokens(address) => [at(address), at(self.tokens)],
        }
    }

    fn launch(&self, on: &dyn Device, path: Path, kernel: &'static str, grid: [u32; 3], args: &[Arg]) {
        let (tile, file) = (path.tile(), path.file());
        let (threads, shared_bytes) = (tile.threads, tile.shared_bytes());
        on.launch(&Launch { file, kernel, real: self.real, grid, threads, shared_bytes, args });
    }

    /// The groups as a product by tiles of rows reads them.
    fn stretches(&self, w: Weights) -> [Arg; 5] {
        let most = most_tiles(self.d, self.path.tile().rows);
        [at(self.starts), at(self.tiles), int(most), int(w.k), int(w.m)]
    }

    /// `pre [rows, m] = x w[e]^T + bias[e]`, `act [rows, F] = f(pre)`
    pub(super) fn up(
        &self,
        on: &dyn Device,
        (x, w, bias): (Rows, Weights, Option<Address>),
        (pre, act): (Address, Address),
    ) {
        let (rows, f, kind) = (self.d.rows(), self.d.f, self.d.kind);
        if self.path != Path::TensorCores(16) {
            self.linear(on, x, w, bias, pre);
            return activation::activation(on, self.real, kind, pre, act, rows, f);
        }
        let tile = self.path.tile();
        let mut args = self.operand(x).to_vec();
        args.extend([at(w.at), at_or_null(bias), at(pre), at(act)]);
        args.extend(self.stretches(w));
        args.push(activation::number(kind));
        self.launch(on, self.path, "grouped_mma_up_16", tile.grid(most_tiles(self.d, tile.rows), w.m), &args);
    }

    /// `out [rows, m] = x w[e]^T + bias[e]`
    pub(super) fn linear(&self, on: &dyn Device, x: Rows, w: Weights, bias: Option<Address>, out: Address) {
        let kernel = match self.path {
            Path::Plain => "grouped_linear",
            Path::TensorCores(16) => "grouped_mma_linear_16",
            Path::TensorCores(64) => "grouped_mma_linear_64",
            Path::TensorCores(_) => "grouped_mma_linear_128",
            Path::Warpgroups => "grouped_wgmma_linear",
        };
        let tile = self.path.tile();
        let mut args = self.operand(x).to_vec();
        args.extend([at(w.at), at_or_null(bias), at(out)]);
        args.extend(self.stretches(w));
        self.launch(on, self.path, kernel, tile.grid(most_tiles(self.d, tile.rows), w.m), &args);
    }

    /// `dx [rows, k] = dout w[e]`; of groups that were made for it.
    pub(super) fn input(&self, on: &dyn Device, dout: Rows, w: Weights, dx: Address) {
        let kernel = match self.path {
            Path::Plain => "grouped_input",
            Path::TensorCores(128) => "grouped_mma_input_128",
            Path::TensorCores(_) => "grouped_mma_input_64",
            Path::Warpgroups => "grouped_wgmma_input",
        };
        let tile = self.path.tile();
        let mut args = self.operand(dout).to_vec();
        args.extend([at(w.at), at(dx)]);
        args.extend(self.stretches(w));
        self.launch(on, self.path, kernel, tile.grid(most_tiles(self.d, tile.rows), w.k), &args);
    }

    /// `dw [E, m, k] f32 = dout^T x` over each expert's rows; `dw.at` is written.
    pub(super) fn weight(&self, on: &dyn Device, dout: Rows, x: Rows, dw: Weights) {
        // The tile is of outputs and inputs.
        let (path, tile) = (self.of_weights, self.of_weights.tile());
        let kernel = match path {
            Path::Plain => "grouped_weight",
            Path::TensorCores(_) => "grouped_mma_weight",
            Path::Warpgroups => "grouped_wgmma_weight",
        };
        let mut args = self.operand(dout).to_vec();
        args.extend(self.operand(x));
        args.extend([at(dw.at), at(self.starts), int(dw.k), int(dw.m)]);
        let grid = [dw.k.div_ceil(tile.columns) as u32, dw.m.div_ceil(tile.rows) as u32, self.d.experts as u32];
        self.launch(on, path, kernel, grid, &args);
    }

    /// `out [E, m] f32 =` the sums over each expert's rows of `x`, each times the weight of its place where there are weights.
    pub(super) fn sums(&self, on: &dyn Device, x: Rows, weights: Option<Address>, out: Address, m: usize) {
        let mut args = vec![self.operand(x)[0], at(self.starts), self.operand(x)[1], at(self.order)];
        args.extend([at_or_null(weights), at(out), int(m)]);
        let grid = [m.div_ceil(32) as u32, self.d.experts as u32, 1];
        let (threads, shared_bytes) = (256, 0);
        on.launch(&Launch {
            file: "experts",
            kernel: "group_sums",
            real: self.real,
            grid,
            threads,
            shared_bytes,
            args: &args,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::shape::Activation;
    use super::super::host::HostDevice;
    use super::*;

    fn dims(n: usize, experts: usize, per_token: usize) -> ExpertDims {
        ExpertDims { n, c: 8, f: 8, experts, per_token, normalised: true, kind: Activation::SwiGlu }
    }

    /// Every row once, by expert and by token; and as many tiles as it takes, whatever the routing.
    #[test]
    fn rows_are_grouped_in_their_order_at_any_routing() {
        let Some(on) = HostDevice::new() else { return };
        for (n, experts, per_token) in [(1, 1, 1), (1, 5, 3), (33, 4, 2), (700, 512, 3), (1030, 3, 1)] {
            let d = dims(n, experts, per_token);
            let one = vec![experts as u32 - 1; d.rows()];
            for chosen in [super::super::host::ids(d.rows(), experts as u32, 4), one] {
                let to = on.allocate(bytes(d)).unwrap();
                let groups = Groups::of(&on, Real::F32, on.put_words(&chosen), to, false, d);
                on.wait().unwrap();
                let mut want: Vec<u32> = (0..d.rows() as u32).collect();
                want.sort_by_key(|place| chosen[*place as usize]);
                let order = on.get_words(groups.order, d.rows());
                assert_eq!(order, want);
                let token = |place: &u32| place / per_token as u32;
                assert_eq!(on.get_words(groups.tokens, d.rows()), want.iter().map(token).collect::<Vec<_>>());
                let places = on.get_words(groups.places, d.rows());
                assert!(order.iter().enumerate().all(|(row, place)| places[*place as usize] == row as u32));
                let starts = on.get_words(groups.starts, experts + 1);
                let below = |e: usize| chosen.iter().filter(|c| (**c as usize) < e).count() as u32;
                assert!(starts.iter().enumerate().all(|(e, start)| *start == below(e)));
                let most = most_tiles(d, 64);
                let tiles = on.get_words(groups.tiles, 2 * most);
                let used = |e: usize| (starts[e]..starts[e + 1]).step_by(64).map(move |first| [e as u32, first]);
                let mut want: Vec<[u32; 2]> = (0..experts).flat_map(used).collect();
                assert!(want.len() <= most);
                want.resize(most, [u32::MAX, 0]);
                assert_eq!(tiles, want.concat());
            }
        }
    }

    #[test]
    fn tiles_are_as_large_as_experts_have_rows() {
        let facts = HostDevice::new().map(|host| host.facts().clone());
        let Some(facts) = facts else { return };
        let of = |n, backward| Path::of(&facts, Real::Bf16, backward, dims(n, 8, 2));
        assert_eq!([of(1, false), of(64, false), of(64, true)], [16, 16, 64].map(Path::TensorCores));
        assert_eq!([of(256, false), of(257, false)], [Path::TensorCores(64), Path::Warpgroups]);
        let many = |facts: &DeviceFacts, real, d| Path::of(facts, real, true, d);
        let later = DeviceFacts { capability: (10, 0), ..facts.clone() };
        assert_eq!(many(&later, Real::Bf16, dims(4096, 8, 2)), Path::TensorCores(128));
        assert_eq!(many(&facts, Real::F32, dims(4096, 8, 2)), Path::Plain);
        assert_eq!(many(&facts, Real::Bf16, ExpertDims { f: 12, ..dims(4096, 8, 2) }), Path::Plain);
        let old = DeviceFacts { capability: (7, 5), ..facts.clone() };
        assert_eq!(many(&old, Real::Bf16, dims(1, 8, 2)), Path::Plain);
        let small = DeviceFacts { shared_bytes: 64 << 10, ..facts };
        assert_eq!(many(&small, Real::Bf16, dims(1, 8, 2)), Path::Plain);
    }
}
