//! What panels are made from.

/// What a panel is made from: item `i` at depth `k` is `start[i * item_stride + k * depth_stride]`.
#[derive(Clone, Copy, Debug)]
pub(in crate::transformer::cpu) struct Source<'a> {
    pub data: &'a [f32],
    pub item_stride: usize,
    pub depth_stride: usize,
}

/// The part of a source that a panel takes: `items` from `first_item`, `depth` elements of the inner dimension from
/// `first_depth`.
#[derive(Clone, Copy, Debug)]
pub(in crate::transformer::cpu) struct SourceTile {
    pub first_item: usize,
    pub items: usize,
    pub first_depth: usize,
    pub depth: usize,
}
