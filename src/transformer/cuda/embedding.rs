//! Rows of the embedding tables, and gradients into them.

use super::super::backend::IGNORED_TOKEN;
use super::device::{Address, Arg, Device, Real};
use super::launch::{Kernel, THREADS, at, at_or_null, blocks_over_rows, int};

/// Rows of a table `[V, C]`: `out [n, C]`, row r being `table[ids[r]] (+ positions[*first + r % tokens])`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rows {
    pub n: usize,
    pub tokens: usize,
    pub c: usize,
}

/// What [`embed`] reads and writes; `ids [n]` and `first [1]` are words of the device.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lookup {
    pub ids: Address,
    pub first: Address,
    pub table: Address,
    pub positions: Option<Address>,
    pub out: Address,
}

/// See [`Rows`].
pub(super) fn embed(on: &dyn Device, real: Real, o: Lookup, d: Rows) {
    let (table, positions) = (at(o.table), at_or_null(o.positions));
    let args = [at(o.ids), table, positions, at(o.out), int(d.n), int(d.tokens), int(d.c), at(o.first)];
    Kernel { on, file: "embedding", name: "embed", real }.run(blocks_over_rows(on, real, d.n, d.c), THREADS, &args);
}

/// Bytes that [`embed_backward`] asks for as `workspace`.
pub(super) fn backward_workspace_bytes(n: usize) -> usize {
    2 * (8 * n).next_multiple_of(256)
}

/// What [`embed_backward`] reads and writes: `ids [n]` are words of the device below `vocabulary`, or `IGNORED_TOKEN`; `dtable
/// [vocabulary, C]` is f32.
#[derive(Clone, Copy, Debug)]
pub(super) struct LookupGradient {
    pub ids: Address,
    pub vocabulary: usize,
    /// A word that has no row in the gradient.
    pub padding: Option<u32>,
    pub dout: Address,
    pub dtable: Address,
    /// Of [`backward_workspace_bytes`].
    pub workspace: Address,
}

/// `dtable[id] +=` the sum of the rows of `dout [n, C]` whose word in `ids [n]` it is, in their order.
pub(super) fn embed_backward(on: &dyn Device, real: Real, o: LookupGradient, d: Rows) {
    let (n, c) = (d.n, d.c);
    let sorted = sort_rows(on, o, n);
    let padding = Arg::I32(o.padding.unwrap_or(IGNORED_TOKEN).cast_signed());
    let args = [at(sorted), at(o.dout), at(o.dtable), int(n), int(c), padding];
    let grid = blocks_over_rows(on, real, n, c);
    Kernel { on, file: "embedding", name: "embed_backward", real }.run(grid, THREADS, &args);
}

/// Rows in the order of their ids, `id << 32 | row`, in a half of the workspace, whose address is returned.
fn sort_rows(on: &dyn Device, o: LookupGradient, n: usize) -> Address {
    // The last number of so many bits is nobody's id: `IGNORED_TOKEN`, which ends in it, then comes after all ids.
    let bits = usize::BITS - o.vocabulary.leading_zeros();
    let passes = bits.div_ceil(8).max(1) as usize;
    let (one, other) = (o.workspace, o.workspace + (backward_workspace_bytes(n) / 2) as Address);
    let args = [at(o.ids), at(one), at(other), int(n), int(passes)];
    Kernel { on, file: "embedding", name: "sort_rows", real: Real::F32 }.run(1, 1024, &args);
    if passes.is_multiple_of(2) { other } else { one }
}

/// The gradient of a table of positions, `[rows, C] f32`, whose row `first` is that of a sequence's first token.
#[derive(Clone, Copy, Debug)]
pub(super) struct Positions {
    pub at: Address,
    pub rows: usize,
    pub first: usize,
}

/// Row `first + t` of the table becomes the sum of `dout[r]` over all `r % tokens == t`, all other rows zero.
pub(super) fn positions_backward(on: &dyn Device, real: Real, dout: Address, table: Positions, d: Rows) {
    let Positions { at: to, rows, first } = table;
    let args = [at(dout), at(to), int(d.n / d.tokens), int(d.tokens), int(rows), int(first), int(d.c)];
    let grid = blocks_over_rows(on, real, rows, d.c);
    Kernel { on, file: "embedding", name: "positions_backward", real }.run(grid, THREADS, &args);
}

#[cfg(test)]
mod tests {
    use super::super::super::backend::Backend;
    use super::super::super::cpu::naive::Naive;
    use super::super::host::{HostDevice, array, close, ids, random, rounded};
    use super::*;

    /// A standard sort's order, for vocabularies of one to four digits, with ids that are there once, often, and always.
    #[test]
    fn rows_are_sorted_by_their_ids_and_then_their_order() {
        let Some(on) = HostDevice::new() else { return };
        for (n, vocabulary) in
            [(1, 1), (7, 3), (31, 256), (1024, 257), (1025, 50_257), (2500, 70_000), (3000, 1 << 25), (4097, 2)]
        {
            let mut words = ids(n, vocabulary as u32, 3);
            words[n / 2] = vocabulary as u32 - 1;
            words[n / 3] = IGNORED_TOKEN;
            let mut want: Vec<u64> = (0u64..).zip(&words).map(|(r, id)| u64::from(*id) << 32 | r).collect();
            want.sort_unstable();
            let workspace = on.allocate(backward_workspace_bytes(n)).unwrap();
            let ids = on.put_words(&words);
            let sorted =
                sort_rows(&on, LookupGradient { ids, vocabulary, padding: None, dout: 0, dtable: 0, workspace }, n);
            on.wait().unwrap();
            let halves = on.get_words(sorted, 2 * n);
            let got: Vec<u64> = halves.chunks(2).map(|w| u64::from(w[1]) << 32 | u64::from(w[0])).collect();
            assert!(got == want, "{n} rows of {vocabulary} ids");
        }
    }

    #[test]
    fn embeddings_and_their_gradients_agree() {
        let Some(on) = HostDevice::new() else { return };
        let shapes = [(1, 1, 1, 1), (6, 3, 7, 5), (10, 5, 4, 8), (14, 7, 50, 33), (12, 4, 9, 64), (6, 6, 5, 2056)];
        for (n, tokens, v, c) in shapes {
            for real in [Real::F32, Real::Bf16] {
                let what = format!("{n} rows, {tokens} tokens, {v} x {c} {real:?}");
                let (context, first) = (tokens + 4, 3);
                let table = rounded(real, random(v * c, 1));
                let positions = rounded(real, random(context * c, 2));
                let dout = rounded(real, random(n * c, 3));
                let before = random(v * c, 4);
                let mut ids = ids(n, v as u32, 5);

                let d = Rows { n, tokens, c };
                let out = on.put(real, &vec![0.0; n * c]);
                let (ids_at, first_at) = (on.put_words(&ids), on.put_words(&[first as u32]));
                let (table_at, positions_at) = (on.put(real, &table), on.put(real, &positions));
                for positions in [None, Some(positions_at)] {
                    embed(&on, real, Lookup { ids: ids_at, first: first_at, table: table_at, positions, out }, d);
                    on.wait().unwrap();
                    let mut want = array(&vec![0.0; n * c]);
                    let given = array(&rounded(real, random(context * c, 2)));
                    let given = positions.map(|_| &given);
                    Naive.embed(&ids, tokens, first, &array(&table), given, &mut want, c);
                    close(&format!("embed {what}"), real, &on.get(real, out, n * c), &want);
                }

                let (dout_at, dtable) = (on.put(real, &dout), on.put(Real::F32, &before));
                let dpositions = on.put(Real::F32, &random(context * c, 6));
                let workspace = on.allocate(backward_workspace_bytes(n)).unwrap();
                let padding = (v > 5).then_some(ids[0]);
                let o = LookupGradient { ids: ids_at, vocabulary: v, padding, dout: dout_at, dtable, workspace };
                embed_backward(&on, real, o, d);
                positions_backward(&on, real, dout_at, Positions { at: dpositions, rows: context, first }, d);
                on.wait().unwrap();
                let (mut want, mut want_positions) = (array(&before), array(&vec![1.0; context * c]));
                ids.iter_mut().filter(|id| Some(**id) == padding).for_each(|id| *id = IGNORED_TOKEN);
                Naive.embed_backward(&ids, tokens, first, &array(&dout), &mut want, Some(&mut want_positions), c);
                close(&format!("dtable {what}"), Real::F32, &on.get(Real::F32, dtable, v * c), &want);
                let got = on.get(Real::F32, dpositions, context * c);
                close(&format!("dpositions {what}"), Real::F32, &got, &want_positions);
            }
        }
    }
}
