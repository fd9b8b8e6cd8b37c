//! Buffers of what goes between tokens and experts that are spread over ranks ([`super::dispatch`]): R rows come to a rank's experts, N * K
//! leave its tokens. How many come depends on the tokens: there is room for an eighth more than would if every expert were sent as much as
//! any other, and it grows where more come.

use super::super::backend::{Alloc, Category};
use super::super::error::SessionError;
use super::super::shape::Shape;

/// What a rank's experts were sent of a layer, kept for the way back.
#[derive(Debug)]
pub(crate) struct Arrived<T> {
    /// `[R, C]`
    pub rows: T,
    /// `[R]`: which of the rank's experts a row is for, as tokens are kept.
    pub experts: T,
    /// `[R]`
    pub weights: T,
    /// `[E]`: how many rows each rank sent each of this one's experts, rank by rank, as tokens are kept.
    pub counts: T,
}

/// Room for what is on its way, of one layer after the other.
#[derive(Debug)]
pub(crate) struct Post<T> {
    /// `[N * K, C]`: rows of this rank's tokens, as they leave and as they come back.
    pub own: T,
    /// `[N * K]`: a number beside each.
    pub beside: T,
    /// `[R, C]`: rows of this rank's experts, before they go back, and gradients that came for them.
    pub here: T,
    /// `[E]`: how many rows each expert is sent.
    pub counts: T,
}

/// The same for gradients on their way back.
#[derive(Debug)]
pub(crate) struct Returning<T> {
    /// `[R, C]`
    pub dx: T,
    /// `[R]`
    pub dweights: T,
}

/// Room that is made for so many rows: how tokens are spread hardly ever is what it was.
pub(super) fn room_for(rows: usize) -> usize {
    rows + rows / 8
}

/// Rows of `n` tokens that a rank's experts have room for: of all experts those of its own tokens.
pub(super) fn rows_here(s: &Shape, n: usize, per_token: usize) -> usize {
    let rows = n * per_token;
    if s.part().experts.1 > 1 { room_for(rows) } else { rows }
}

/// Rows that leave `n` tokens and rows that there is room for here, numbers of a row, and experts, where these are spread over ranks.
fn sizes(s: &Shape, n: usize) -> Option<[usize; 4]> {
    let mixture = s.experts.filter(|_| s.part().experts.1 > 1)?;
    let k = mixture.per_token as usize;
    Some([n * k, rows_here(s, n, k), s.d_model as usize, mixture.count as usize])
}

impl<T> Arrived<T> {
    /// For passes of `n` rows; `None` where every rank has all experts.
    ///
    /// # Errors
    /// [`SessionError::OutOfMemory`].
    pub(super) fn new<A: Alloc<Buffer = T>>(a: &A, s: &Shape, n: usize) -> Result<Option<Self>, SessionError> {
        let Some([_, rows, c, experts]) = sizes(s, n) else { return Ok(None) };
        let statistics = |len: usize| a.alloc(len, Category::Statistics);
        let (of_rows, weights, counts) = (statistics(rows)?, statistics(rows)?, statistics(experts)?);
        Ok(Some(Self { rows: a.alloc(rows * c, Category::Activations)?, experts: of_rows, weights, counts }))
    }
}

impl<T> Post<T> {
    /// As of [`Arrived::new`].
    ///
    /// # Errors
    /// [`SessionError::OutOfMemory`].
    pub(super) fn new<A: Alloc<Buffer = T>>(a: &A, s: &Shape, n: usize) -> Result<Option<Self>, SessionError> {
        let Some([leaving, here, c, experts]) = sizes(s, n) else { return Ok(None) };
        let statistics = |len: usize| a.alloc(len, Category::Statistics);
        let (own, beside) = (a.alloc(leaving * c, Category::Activations)?, statistics(leaving)?);
        Ok(Some(Self { own, beside, here: a.alloc(here * c, Category::Activations)?, counts: statistics(experts)? }))
    }
}

impl<T> Returning<T> {
    /// As of [`Arrived::new`].
    ///
    /// # Errors
    /// [`SessionError::OutOfMemory`].
    pub(super) fn new<A: Alloc<Buffer = T>>(a: &A, s: &Shape, n: usize) -> Result<Option<Self>, SessionError> {
        let Some([_, rows, c, _]) = sizes(s, n) else { return Ok(None) };
        let dweights = a.alloc(rows, Category::Statistics)?;
        Ok(Some(Self { dx: a.alloc(rows * c, Category::Activations)?, dweights }))
    }
}
