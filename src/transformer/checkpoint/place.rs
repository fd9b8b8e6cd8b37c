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
}
