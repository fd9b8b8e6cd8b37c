//! Rows of the embedding tables, and gradients into them.

use super::device::{Address, Device, Real};
use super::launch::{Kernel, THREADS, at, at_or_null, blocks_over_rows, int};

/// Which rows hold each id: `rows[starts[i]..starts[i + 1]]` hold `ids[i]`. Every id once, rows in their order, so that one
/// thread can add up the gradients of an id, always in the same order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Occurrences {
    pub ids: Vec<u32>,
    pub starts: Vec<u32>,
    pub rows: Vec<u32>,
}

impl Occurrences {
    pub fn of(ids: &[u32]) -> Self {
        let mut order: Vec<u64> = (0u64..).zip(ids).map(|(r, id)| u64::from(*id) << 32 | r).collect();
        order.sort_unstable();
        let mut found = Self::default();
        for (at, packed) in (0u32..).zip(&order) {
            let id = (packed >> 32) as u32;
            if found.ids.last() != Some(&id) {
                found.ids.push(id);
                found.starts.push(at);
            }
            found.rows.push(*packed as u32);
        }
        found.starts.push(order.len() as u32);
        found
    }
}

/// Where [`Occurrences`] lie on the device.
#[derive(Clone, Copy, Debug)]
pub(super) struct OccurrencesAt {
    pub ids: Address,
    pub starts: Address,
    pub rows: Address,
    /// How many ids there are.
    pub distinct: usize,
}

/// Rows of a table `[V, C]`: `out [n, C]`, row r being `table[ids[r]] (+ positions[*first + r % tokens])`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rows {
    pub n: usize,
    pub tokens: usize,
    pub c: usize,
}

/// `ids [n]` and `first [1]` are words of the device.
#[allow(clippy::too_many_arguments)]
pub(super) fn embed(
    on: &dyn Device,
    real: Real,
    ids: Address,
    table: Address,
    positions: Option<Address>,
    out: Address,
    first: Address,
    d: Rows,
) {
    let args = [at(ids), at(table), at_or_null(positions), at(out), int(d.n), int(d.tokens), int(d.c), at(first)];
    Kernel { on, file: "embedding", name: "embed", real }.run(blocks_over_rows(on, real, d.n, d.c), THREADS, &args);
}

/// `dtable[id] +=` the sum of the rows of `dout [n, C]` that hold it; `dtable` is f32.
pub(super) fn embed_backward(
    on: &dyn Device,
    real: Real,
    occurrences: OccurrencesAt,
    dout: Address,
    dtable: Address,
    c: usize,
) {
    let OccurrencesAt { ids, starts, rows, distinct } = occurrences;
    let args = [at(ids), at(starts), at(rows), at(dout), at(dtable), int(distinct), int(c)];
    let grid = blocks_over_rows(on, real, distinct, c);
    Kernel { on, file: "embedding", name: "embed_backward", real }.run(grid, THREADS, &args);
}

/// `dpositions [context, C] f32`: row t is the sum of `dout[r]` over all `r % tokens == t`, zero past `tokens`.
pub(super) fn positions_backward(
    on: &dyn Device,
    real: Real,
    dout: Address,
    dpositions: Address,
    context: usize,
    d: Rows,
) {
    let args = [at(dout), at(dpositions), int(d.n / d.tokens), int(d.tokens), int(context), int(d.c)];
    let grid = blocks_over_rows(on, real, context, d.c);
    Kernel { on, file: "embedding", name: "positions_backward", real }.run(grid, THREADS, &args);
}

#[cfg(test)]
mod tests {
    use super::super::super::backend::Backend;
    use super::super::super::cpu::naive::Naive;
    use super::super::host::{HostDevice, array, close, ids, random, rounded};
    use super::*;

    #[test]
    fn occurrences_name_every_row_once() {
        let found = Occurrences::of(&[7, 2, 7, 0, 2, 7]);
        assert_eq!(found.ids, [0, 2, 7]);
        assert_eq!(found.starts, [0, 1, 3, 6]);
        assert_eq!(found.rows, [3, 1, 4, 0, 2, 5]);
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
                let ids = ids(n, v as u32, 5);

                let d = Rows { n, tokens, c };
                let out = on.put(real, &vec![0.0; n * c]);
                let (word, first_at) = (on.put_words(&ids), on.put_words(&[first as u32]));
                let (table_at, positions_at) = (on.put(real, &table), on.put(real, &positions));
                for positions in [None, Some(positions_at)] {
                    embed(&on, real, word, table_at, positions, out, first_at, d);
                    on.wait().unwrap();
                    let mut want = array(&vec![0.0; n * c]);
                    let given = array(&rounded(real, random(context * c, 2)));
                    let given = positions.map(|_| &given);
                    Naive.embed(&ids, tokens, first, &array(&table), given, &mut want, c);
                    close(&format!("embed {what}"), real, &on.get(real, out, n * c), &want);
                }

                let found = Occurrences::of(&ids);
                let occurrences = OccurrencesAt {
                    ids: on.put_words(&found.ids),
                    starts: on.put_words(&found.starts),
                    rows: on.put_words(&found.rows),
                    distinct: found.ids.len(),
                };
                let (dout_at, dtable) = (on.put(real, &dout), on.put(Real::F32, &before));
                let dpositions = on.put(Real::F32, &random(context * c, 6));
                embed_backward(&on, real, occurrences, dout_at, dtable, c);
                positions_backward(&on, real, dout_at, dpositions, context, d);
                on.wait().unwrap();
                let (mut want, mut want_positions) = (array(&before), array(&vec![1.0; context * c]));
                Naive.embed_backward(&ids, tokens, &array(&dout), &mut want, Some(&mut want_positions), c);
                close(&format!("dtable {what}"), Real::F32, &on.get(Real::F32, dtable, v * c), &want);
                let got = on.get(Real::F32, dpositions, context * c);
                close(&format!("dpositions {what}"), Real::F32, &got, &want_positions);
            }
        }
    }
}
