//! Where a foreign tensor's elements stand in a parameter of ours.

/// A foreign tensor is these rows of our parameter, or their transpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::transformer) struct Place {
    pub parameter: usize,
    /// First row of ours (of a bias: first element).
    pub row: usize,
    /// Rows of ours (of a bias: elements).
    pub rows: usize,
    /// Columns of ours (of a bias: 1).
    pub columns: usize,
    /// The file holds `[columns, rows]`.
    pub transposed: bool,
    /// The file has queries, keys and values head by head.
    pub by_heads: Option<ByHeads>,
    /// The file has a matrix `[K, M]` of each of several experts, whose `[M, K]` stand one below the other here.
    pub by_experts: Option<ByExperts>,
}

/// Matrices of experts, transposed in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::transformer) struct ByExperts {
    /// M, rows of one expert here.
    pub rows: usize,
    /// Whether gate and up take turns in the file, and stand one below the other here.
    pub in_turns: bool,
}

impl ByExperts {
    /// Our row and column of a foreign element, of matrices of so many columns.
    fn place(self, i: usize, columns: usize) -> (usize, usize) {
        let Self { rows, in_turns } = self;
        let (expert, column, row) = (i / (rows * columns), i / rows % columns, i % rows);
        let row = if in_turns { row % 2 * (rows / 2) + row / 2 } else { row };
        (expert * rows + row, column)
    }

    /// The foreign column of a row of one expert here.
    pub(in crate::transformer) fn foreign_column(self, row: usize) -> usize {
        let half = self.rows / 2;
        match self.in_turns {
            true if row < half => 2 * row,
            true => 2 * (row - half) + 1,
            false => row,
        }
    }
}

/// In which order the file has the rows of heads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::transformer) enum ByHeads {
    /// Rows of queries, keys and values that stand together for each key and value head: the queries that share it, then it.
    Together {
        kv_heads: usize,
        /// Query heads of a group.
        queries: usize,
        head_dim: usize,
    },
    /// Rows of a head that are rotated stand after those that are not; here before them.
    RotatedLast {
        nope: usize,
        rope: usize,
        /// Whether the two of a pair are neighbours in the file, and half of `rope` apart here.
        interleaved: bool,
    },
}

impl ByHeads {
    /// Our row of a foreign one.
    fn row(self, foreign: usize) -> usize {
        match self {
            Self::Together { kv_heads, queries, head_dim } => {
                let (group, in_group) = (foreign / ((queries + 2) * head_dim), foreign % ((queries + 2) * head_dim));
                let head = match in_group / head_dim {
                    query if query < queries => group * queries + query,
                    key if key == queries => kv_heads * queries + group,
                    _ => kv_heads * (queries + 1) + group,
                };
                head * head_dim + in_group % head_dim
            }
            Self::RotatedLast { nope, rope, interleaved } => {
                let (head, row) = (foreign / (nope + rope), foreign % (nope + rope));
                let row = match row.checked_sub(nope) {
                    None => rope + row,
                    Some(turned) if interleaved => turned % 2 * (rope / 2) + turned / 2,
                    Some(turned) => turned,
                };
                head * (nope + rope) + row
            }
        }
    }

    /// The foreign row of one of ours.
    fn foreign(self, ours: usize) -> usize {
        match self {
            Self::Together { kv_heads, queries, head_dim } => {
                let head = ours / head_dim;
                let (group, in_group) = match head.checked_sub(kv_heads * queries) {
                    None => (head / queries, head % queries),
                    Some(key) if key < kv_heads => (key, queries),
                    Some(value) => (value - kv_heads, queries + 1),
                };
                (group * (queries + 2) + in_group) * head_dim + ours % head_dim
            }
            Self::RotatedLast { nope, rope, interleaved } => {
                let (head, row) = (ours / (nope + rope), ours % (nope + rope));
                let half = rope / 2;
                let row = match row.checked_sub(rope) {
                    Some(row) => row,
                    None if !interleaved => nope + row,
                    None if row < half => nope + 2 * row,
                    None => nope + 2 * (row - half) + 1,
                };
                head * (nope + rope) + row
            }
        }
    }
}

impl Place {
    /// Numbers in the tensor.
    pub(in crate::transformer) fn len(&self) -> usize {
        self.rows * self.columns
    }

    /// Where element `i` of the foreign tensor stands in our parameter.
    pub(in crate::transformer) fn position(&self, i: usize) -> usize {
        let (row, column) =
            if self.transposed { (i % self.rows, i / self.rows) } else { (i / self.columns, i % self.columns) };
        let (row, column) = self.by_experts.map_or((row, column), |by| by.place(i, self.columns));
        let row = self.by_heads.map_or(row, |by| by.row(row));
        (self.row + row) * self.columns + column
    }

    /// The foreign row of a row of ours, counted from the first of this place; of tensors whose rows are rows here.
    pub(in crate::transformer) fn foreign_row(&self, row: usize) -> usize {
        self.by_heads.map_or(row, |by| by.foreign(row))
    }

    /// Of tensors whose columns are rows here: how they are.
    pub(in crate::transformer) fn turned(&self) -> Option<ByExperts> {
        self.by_experts.or(self.transposed.then_some(ByExperts { rows: self.rows, in_turns: false }))
    }

    /// The dimensions that the foreign tensor may have, with so many experts; the usual first.
    pub(in crate::transformer) fn dimensions(&self, experts: Option<usize>) -> Vec<Vec<usize>> {
        let (rows, columns) = (self.rows, self.columns);
        match (self.by_experts, columns) {
            (Some(by), 1) => vec![vec![rows / by.rows.max(1), by.rows]],
            (Some(by), _) => vec![vec![rows / by.rows.max(1), columns, by.rows]],
            (None, 1) => vec![vec![rows], vec![rows, 1]],
            _ if self.transposed => vec![vec![columns, rows]],
            // A matrix, or those of all experts, one after the other.
            _ => match experts.filter(|e| *e > 0 && rows.is_multiple_of(*e)) {
                Some(e) => vec![vec![rows, columns], vec![e, rows / e, columns]],
                None => vec![vec![rows, columns]],
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_rows_and_columns_are_found_back() {
        let latent = |interleaved| ByHeads::RotatedLast { nope: 7, rope: 6, interleaved };
        let all = [ByHeads::Together { kv_heads: 3, queries: 2, head_dim: 5 }, latent(true), latent(false)];
        for (by, row) in all.into_iter().flat_map(|by| (0..3 * 4 * 5).map(move |row| (by, row))) {
            assert_eq!(by.row(by.foreign(row)), row, "{by:?}");
        }
        for in_turns in [true, false] {
            let by = ByExperts { rows: 6, in_turns };
            for row in 0..12 {
                let i = (row / 6 * 7 + 4) * 6 + by.foreign_column(row % 6);
                assert_eq!(by.place(i, 7), (row, 4));
            }
        }
    }
}
