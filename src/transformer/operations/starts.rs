//! Numbers that a backend makes itself: weights as they start, the same bits on every backend before they are rounded.

use super::super::backend::{Backend, Category};
use super::super::random::{Block, Normals, Stream};
use super::Size;
use super::case::{Allowed, Case, Known, by, result};
use Category::{Activations, Weights};

pub(super) fn list<B: Backend + 'static>(size: Size, to: &mut Vec<Case<B>>) {
    // Rows of three blocks, as those of queries, keys and values, and their length.
    let mut matrices = vec![([1, 0, 0], 1), ([5, 3, 3], 7), ([16, 16, 16], 48), ([33, 11, 11], 100)];
    if size == Size::Full {
        matrices.push(([4096, 1024, 1024], 520));
    }
    to.extend(matrices.into_iter().map(|(rows, columns)| normal(rows, columns)));
}

/// No arithmetic but what every backend does alike: off by the storage alone.
fn stored() -> Allowed {
    by(|b: &Known<'_>| vec![0.0; b.after[0].len()])
}

fn normal<B: Backend + 'static>(heights: [usize; 3], columns: usize) -> Case<B> {
    let n = heights.iter().sum::<usize>();
    // The second part of two of the rows, and rows that lie apart.
    let mut above = 0;
    let part = |rows: usize| {
        let first = ((above + rows) * columns) as u64;
        above += 2 * rows;
        Block { rows, first, stride: columns as u64 }
    };
    let rows = Normals::new(Stream::new(3, 7), 0.02, columns, heights.map(part).to_vec());
    let apart = Block { rows: n, first: columns as u64, stride: 2 * columns as u64 };
    let apart = Normals::new(Stream::new(3, 8), 1.0, columns, vec![apart]);
    let slots = vec![
        result("fill_normal", n * columns, Activations, stored()),
        result("fill_normal", n * columns, Weights, stored()),
        result("normal_weights", n * columns, Activations, stored()),
    ];
    let ids: Vec<u32> = (0..n as u32).collect();
    Case::new("fill_normal", format!("{n} x {columns}"), n * columns, slots, move |on: &B, b| {
        if let [narrow, wide, looked_up] = b {
            on.fill_normal(narrow, &rows);
            on.fill_normal(wide, &apart);
            let fixed = on.normal_weights(1, &rows)?;
            on.embed(&ids, n, 0, &fixed, None, looked_up, columns);
        }
        Ok(())
    })
}
