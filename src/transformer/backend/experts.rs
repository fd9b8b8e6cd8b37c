//! What the operations of a layer of experts are told.

use super::super::shape::Activation;

/// A feed-forward layer of experts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ExpertDims {
    /// N, tokens
    pub n: usize,
    /// C
    pub c: usize,
    /// F, the width of one expert
    pub f: usize,
    /// E
    pub experts: usize,
    /// K, experts that a token goes to
    pub per_token: usize,
    /// Whether the weights of a token's experts add up to 1.
    pub normalised: bool,
    /// The function between an expert's products.
    pub kind: Activation,
}

impl ExpertDims {
    /// N * K: rows that experts multiply, all together.
    pub fn rows(&self) -> usize {
        self.n * self.per_token
    }
}

/// The experts of a layer: `[E * inner, C]` (for each of them its gate and up, or its first product), `[E * C, F]`, and of each token
/// the experts that it goes to and their weights, `[N, K]`.
#[derive(Debug)]
pub struct Experts<'a, T> {
    pub up: &'a T,
    pub down: &'a T,
    /// `[E * inner]` and `[E * C]`; of ranks that have a stretch of F each, one adds the second.
    pub biases: [Option<&'a T>; 2],
    pub chosen: &'a T,
    pub weights: &'a T,
    pub d: ExpertDims,
}

/// What the gradient of a layer of experts is written to.
#[derive(Debug)]
pub struct ExpertsBackward<'a, T> {
    /// `[N * K, inner]`, what the forward pass left; used up.
    pub pre: &'a mut T,
    /// `[N * K, F]`, room.
    pub act: &'a mut T,
    pub dup: &'a mut T,
    pub ddown: &'a mut T,
    /// `[E * inner]` and `[E * C]`
    pub dbiases: Option<[&'a mut T; 2]>,
    /// `[N, C]`
    pub dx: &'a mut T,
    /// `[N, K]`
    pub dweights: &'a mut T,
}
