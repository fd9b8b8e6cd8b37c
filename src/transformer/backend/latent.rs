//! What the operations of latent attention are told ([`Latent`](super::super::shape::Latent)): heads lie rotated part first.

use super::super::kv_cache::CacheElement;

/// Places of equal blocks in a buffer: where the first begins, and how far apart those of neighbouring rows and heads are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blocks {
    pub first: usize,
    pub row: usize,
    pub head: usize,
}

/// A copy of a block for each row and head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockCopy {
    /// Rows.
    pub n: usize,
    /// Blocks of a row.
    pub heads: usize,
    /// Elements of a block.
    pub len: usize,
    pub from: Blocks,
    /// Where all heads have one place here, the sum over them.
    pub to: Blocks,
}

impl BlockCopy {
    /// Whether blocks of a row are added up.
    pub fn sums(&self) -> bool {
        self.to.head == 0 && self.heads > 1
    }
    /// Elements of the source that one row's blocks reach over, from its first.
    pub(in crate::transformer) fn reach(&self, of: Blocks) -> usize {
        (self.heads - 1) * of.head + self.len
    }
}

/// Attention through a latent over a cache that holds, of each token, the latent `[R]` and the rotated key `[P]` of all heads, in a row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LatentDims {
    /// B
    pub batch: usize,
    /// T, queries a sequence
    pub tokens: usize,
    /// H
    pub heads: usize,
    /// R
    pub rank: usize,
    /// P, rotated elements of a head
    pub rope: usize,
    /// Elements of a head without positions
    pub nope: usize,
    /// Width of a value's head
    pub value: usize,
    /// What the product of a query and a key is multiplied by.
    pub scale: f32,
    /// Positions that fit into the cache.
    pub capacity: usize,
    /// Of the cache.
    pub element: CacheElement,
}

impl LatentDims {
    /// N = B * T
    pub fn rows(&self) -> usize {
        self.batch * self.tokens
    }
    /// Width of a query's head.
    pub fn head_dim(&self) -> usize {
        self.rope + self.nope
    }
    /// Rows of a head in the product that makes keys and values of the latent.
    pub fn kv_head(&self) -> usize {
        self.nope + self.value
    }
    /// R + P, numbers of a token in the cache.
    pub fn width(&self) -> usize {
        self.rank + self.rope
    }
    /// Numbers in the cache.
    pub fn cache_len(&self) -> usize {
        self.batch * self.capacity * self.width()
    }
    /// Scales in the cache: of each token one of the latent and one of the rotated key, before all rows.
    pub fn scales(&self) -> usize {
        if self.element.is_scaled() { 2 * self.batch * self.capacity } else { 0 }
    }
    /// Words of 32 bits that it takes.
    pub fn words(&self) -> usize {
        self.scales() + (self.cache_len() * self.element.size()).div_ceil(4)
    }
}
