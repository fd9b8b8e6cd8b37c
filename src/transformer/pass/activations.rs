//! What a forward pass leaves behind: everything for training, one layer's worth for inference.

use super::super::backend::{Alloc, AttentionDims, Category, ExpertDims, QkNormDims};
use super::super::collective::stage::Stage;
use super::super::error::SessionError;
use super::super::shape::parts::{NormKind, QkNorm};
use super::super::shape::{Latent, Mixture, Shape};
use super::among::Told;
use super::post::{Arrived, Post, rows_here};
use std::ops::Range;

/// How many sequences of how many tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    pub batch: usize,
    pub tokens: usize,
}

impl Extent {
    /// N
    pub(crate) fn rows(&self) -> usize {
        self.batch * self.tokens
    }

    /// The dimensions of a layer's attention over whole sequences of this extent.
    pub(crate) fn attention(&self, s: &Shape, layer: usize) -> AttentionDims {
        AttentionDims {
            batch: self.batch,
            tokens: self.tokens,
            heads: s.n_heads as usize,
            kv_heads: s.n_kv_heads as usize,
            head_dim: s.head_dim as usize,
            causal: s.causal(),
            scores: s.scores(layer),
        }
    }
}

/// One layer's attention's.
#[derive(Debug)]
pub(crate) struct OfAttention<T> {
    /// Mean and reciprocal deviation, `[N, 2]`, where there is a norm
    pub norm1: Option<T>,
    /// `[N, (H + 2 KV) * D]`
    pub qkv: T,
    /// Of latents, where attention is through them.
    pub latent: Option<LatentActivations<T>>,
    /// Of the norms of queries and keys, where a backward pass will follow.
    pub qk_norm: Option<BeforeNorm<T>>,
    /// `[N, H * D]`; of the values' width where attention is latent
    pub attention: T,
    /// `[N, H]`
    pub lse: T,
    /// What attention says, `[N, C]`, where a norm stands after it.
    pub after: Option<BeforeNorm<T>>,
}

/// One layer's second half's.
#[derive(Debug)]
pub(crate) struct OfFeedForward<T> {
    /// As `norm1` of [`OfAttention`]
    pub norm2: Option<T>,
    /// Where the tokens go, in layers of experts.
    pub routed: Option<RoutedTokens<T>>,
    /// `[N, F]`, or `[N, 2 F]` (gate, up) where it is gated
    pub pre: T,
    /// The same of the experts that every token goes through.
    pub shared_pre: Option<T>,
    /// What the feed-forward layer says, `[N, C]`, where a norm stands after it.
    pub after: Option<BeforeNorm<T>>,
}

/// Latents before their norms: of queries `[N, Q]`, of keys and values `[N, R]`.
#[derive(Debug)]
pub(crate) struct LatentActivations<T> {
    pub queries: Option<BeforeNorm<T>>,
    pub kv: BeforeNorm<T>,
}

/// What attention through latents works in, a layer after the other; the backward pass has gradients in the same places.
#[derive(Debug)]
pub(crate) struct LatentRoom<T> {
    /// Latents after their norms, `[N, Q]` and `[N, R]`
    pub of_queries: Option<T>,
    pub of_kv: T,
    /// `[N, H * D]`
    pub queries: T,
    /// The key that all heads share, `[N, P]`
    pub rotated: T,
    /// Keys without positions and values, `[N, H * (nope + value)]`
    pub kv: T,
    /// What attention hands on, `[N, H * D]`: a value's head is as wide as a query's there, and zero beyond its own width.
    pub wide: T,
}

/// Which experts tokens go to.
#[derive(Debug)]
pub(crate) struct RoutedTokens<T> {
    /// `[N, E]`
    pub logits: T,
    /// `[N, K]`, as tokens are kept
    pub chosen: T,
    /// `[N, K]`
    pub weights: T,
    /// What came for this rank's experts, where they are spread over ranks.
    pub arrived: Option<Arrived<T>>,
}

/// What a norm was given, and its statistics.
#[derive(Debug)]
pub(crate) struct BeforeNorm<T> {
    pub x: T,
    pub stats: T,
}

/// What one layer after the other writes into the same place. The backward pass makes it again from what is kept: elementwise
/// work is cheaper than the memory of every layer's (Chen et al. 2016, section 3).
#[derive(Debug)]
pub(crate) struct Shared<T> {
    /// A norm's output, `[N, C]`, where there are norms
    pub normed: Option<T>,
    /// The hidden activation, `[N, F]`
    pub act: T,
    /// What experts say, `[N, C]`, where there are any
    pub experts: Option<T>,
    /// What goes to experts of other ranks, where they are spread.
    pub post: Option<Post<T>>,
    pub latent: Option<LatentRoom<T>>,
    pub told: Told<T>,
}

/// A whole pass's.
#[derive(Debug)]
pub(crate) struct Activations<T> {
    pub extent: Extent,
    /// Of the model's, those that are gone through.
    layers: Range<usize>,
    /// The embedding, `[N, C]`, where it is normed.
    pub embedding: Option<BeforeNorm<T>>,
    keep: Keep,
    /// The stream `[N, C]` before, within and after the layers ([`Activations::streams`]): 2 L + 1 for training, L + 2 where layers are
    /// run again, 2 in turn for inference.
    pub residual: Vec<T>,
    /// L, or 1 that all layers write to, where it is made again or nothing will ask for it; as what follows.
    pub attention: Vec<OfAttention<T>>,
    pub feed_forward: Vec<OfFeedForward<T>>,
    pub shared: Shared<T>,
    /// After the last norm, `[N, C]` and `[N, 2]`.
    pub last: Option<(T, T)>,
}

/// What a backward pass will find, if one follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keep {
    /// All that it needs.
    All,
    /// All but what attention leaves behind.
    FeedForward,
    /// Each layer's input.
    Inputs,
    /// None follows.
    OneLayer,
}

impl<T> Activations<T> {
    /// Buffers for passes of the given extent.
    ///
    /// # Errors
    /// [`SessionError::OutOfMemory`].
    pub(crate) fn new<A: Alloc<Buffer = T>>(
        a: &A,
        s: &Shape,
        extent: Extent,
        keep: Keep,
    ) -> Result<Self, SessionError> {
        let stage = Stage::whole(s.n_layers as usize);
        Self::of_stage(a, s, extent, keep, (stage, Shared::new(a, s, extent.rows(), keep)?))
    }

    /// Those of one stage of a pipeline for so many passes that are under way at one time. What layers share, the first of them has
    /// and lends to the others ([`Activations::lend`]).
    ///
    /// # Errors
    /// [`SessionError::OutOfMemory`].
    pub(crate) fn in_flight<A: Alloc<Buffer = T>>(
        a: &A,
        s: &Shape,
        extent: Extent,
        keep: Keep,
        (stage, passes): (Stage, usize),
    ) -> Result<Vec<Self>, SessionError> {
        let rows = |pass: usize| if pass == 0 { extent.rows() } else { 0 };
        (0..passes).map(|p| Self::of_stage(a, s, extent, keep, (stage, Shared::new(a, s, rows(p), keep)?))).collect()
    }

    fn of_stage<A: Alloc<Buffer = T>>(
        a: &A,
        s: &Shape,
        extent: Extent,
        keep: Keep,
        (stage, shared): (Stage, Shared<T>),
    ) -> Result<Self, SessionError> {
        let (n, layers) = (extent.rows(), stage.layers());
        let [c, h] = [s.d_model, s.n_heads].map(|x| x as usize);
        let new = |len: usize| a.alloc(len, Category::Activations);
        let statistics = |len: usize| a.alloc(len, Category::Statistics);
        let parts = s.parts();
        let norms = parts.norm != NormKind::None;
        let before = || parts.norm_before().then(|| statistics(n * 2)).transpose();
        let before_norm = |width: usize, count: usize| {
            Ok::<_, SessionError>(BeforeNorm { x: new(n * width)?, stats: statistics(n * count)? })
        };
        let kept = || before_norm(c, 2);
        let count = layers.len();
        let streams = match keep {
            Keep::All | Keep::FeedForward => 2 * count + 1,
            Keep::Inputs => count + 2,
            Keep::OneLayer => 2,
        };
        let attentions = if keep == Keep::All { count } else { 1 };
        // With one layer's, that of all: each has as much as the one that has most.
        let hidden: Vec<Hidden> = match keep {
            Keep::All | Keep::FeedForward => layers.clone().map(|l| Hidden::of(s, n, l..l + 1)).collect(),
            Keep::Inputs | Keep::OneLayer => vec![Hidden::of(s, n, layers.clone())],
        };
        let d = extent.attention(s, 0);
        let qk = (keep != Keep::OneLayer).then(|| qk_norm_dims(s, d)).flatten();
        let after = || parts.norm_after().then(kept).transpose();
        let attention = |_| -> Result<OfAttention<T>, SessionError> {
            Ok(OfAttention {
                norm1: before()?,
                qkv: new(n * d.qkv_width())?,
                latent: s
                    .latent
                    .map(|l| {
                        let queries = l.q_rank.map(|rank| before_norm(rank as usize, 2)).transpose()?;
                        Ok::<_, SessionError>(LatentActivations { queries, kv: before_norm(l.kv_rank as usize, 2)? })
                    })
                    .transpose()?,
                qk_norm: qk.map(|q| before_norm(q.width(), q.count())).transpose()?,
                attention: new(n * s.d_attn() as usize)?,
                lse: statistics(n * h)?,
                after: after()?,
            })
        };
        let feed_forward = |hidden: &Hidden| -> Result<OfFeedForward<T>, SessionError> {
            Ok(OfFeedForward {
                norm2: before()?,
                routed: hidden
                    .routes
                    .map(|[experts, per_token]| {
                        let (chosen, weights) = (statistics(n * per_token)?, statistics(n * per_token)?);
                        let (logits, arrived) = (statistics(n * experts)?, Arrived::new(a, s, n)?);
                        Ok::<_, SessionError>(RoutedTokens { logits, chosen, weights, arrived })
                    })
                    .transpose()?,
                pre: new(s.activation.inner(hidden.len))?,
                shared_pre: (hidden.shared > 0).then(|| new(s.activation.inner(hidden.shared))).transpose()?,
                after: after()?,
            })
        };
        Ok(Self {
            extent,
            layers,
            embedding: (parts.embedding_norm && stage.is_first()).then(kept).transpose()?,
            residual: (0..streams).map(|_| new(n * c)).collect::<Result<_, _>>()?,
            keep,
            attention: (0..attentions).map(attention).collect::<Result<_, _>>()?,
            feed_forward: hidden.iter().map(feed_forward).collect::<Result<_, _>>()?,
            shared,
            last: (norms && stage.is_last())
                .then(|| Ok::<_, SessionError>((new(n * c)?, statistics(n * 2)?)))
                .transpose()?,
        })
    }

    /// What the head reads: after the last norm, or the stream's end where there is none.
    pub(crate) fn output(&self) -> &T {
        self.last.as_ref().map_or(&self.residual[self.end()], |(last, _)| last)
    }

    /// The same, and room for what ranks tell one another of it.
    pub(super) fn at_the_end(&mut self) -> (&T, &mut Told<T>) {
        let end = self.end();
        (self.last.as_ref().map_or(&self.residual[end], |(last, _)| last), &mut self.shared.told)
    }

    /// A layer's place among those that are gone through.
    fn own(&self, layer: usize) -> usize {
        layer - self.layers.start
    }

    /// The stream before the first layer.
    pub(crate) fn entrance(&mut self) -> &mut T {
        &mut self.residual[0]
    }

    /// The stream after the last one.
    pub(crate) fn exit(&mut self) -> &mut T {
        let end = self.end();
        &mut self.residual[end]
    }

    /// What layers share goes from one pass to another.
    pub(crate) fn lend(passes: &mut [Self], from: usize, to: usize) {
        if let Ok([from, to]) = passes.get_disjoint_mut([from, to]) {
            std::mem::swap(&mut from.shared, &mut to.shared);
        }
    }

    /// Which of the streams a layer reads, which stands between its halves, and which it leaves.
    pub(super) fn streams(&self, layer: usize) -> [usize; 3] {
        match self.keep {
            Keep::All | Keep::FeedForward => [0, 1, 2].map(|i| 2 * self.own(layer) + i),
            Keep::Inputs => [self.own(layer), self.residual.len() - 1, self.own(layer) + 1],
            Keep::OneLayer => [0, 1, 0],
        }
    }

    /// Which of them the last layer leaves.
    pub(super) fn end(&self) -> usize {
        match self.keep {
            Keep::All | Keep::FeedForward => self.residual.len() - 1,
            Keep::Inputs => self.residual.len() - 2,
            Keep::OneLayer => 0,
        }
    }

    /// What has to be run forward again for a layer's way back: attention, and the second half. Of the last layer all is there still.
    pub(super) fn again(&self, layer: usize) -> [bool; 2] {
        match self.keep {
            _ if layer + 1 == self.layers.end => [false; 2],
            Keep::All | Keep::OneLayer => [false; 2],
            Keep::FeedForward => [true, false],
            Keep::Inputs => [true; 2],
        }
    }

    /// Room for a layer's attention and for its second half, and what all layers share.
    pub(super) fn rooms(&mut self, layer: usize) -> Rooms<'_, T> {
        let (attentions, seconds, own) = (self.attention.len(), self.feed_forward.len(), self.own(layer));
        Rooms {
            streams: &mut self.residual,
            attention: &mut self.attention[own % attentions],
            feed_forward: &mut self.feed_forward[own % seconds],
            shared: &mut self.shared,
        }
    }
}

/// What a layer works in.
pub(super) struct Rooms<'a, T> {
    pub streams: &'a mut Vec<T>,
    pub attention: &'a mut OfAttention<T>,
    pub feed_forward: &'a mut OfFeedForward<T>,
    pub shared: &'a mut Shared<T>,
}

impl<T> Shared<T> {
    fn new<A: Alloc<Buffer = T>>(a: &A, s: &Shape, n: usize, keep: Keep) -> Result<Self, SessionError> {
        let (new, c) = (|len: usize| a.alloc(len, Category::Activations), n * s.d_model as usize);
        Ok(Self {
            normed: s.parts().norm_before().then(|| new(c)).transpose()?,
            act: new(Hidden::of(s, n, 0..s.n_layers as usize).room())?,
            experts: s.experts.map(|_| new(c)).transpose()?,
            post: Post::new(a, s, n)?,
            latent: s.latent.map(|l| LatentRoom::new(a, s, l, n)).transpose()?,
            told: Told::new(a, s, n, keep != Keep::OneLayer)?,
        })
    }
}

impl<T> LatentRoom<T> {
    fn new<A: Alloc<Buffer = T>>(a: &A, s: &Shape, l: Latent, n: usize) -> Result<Self, SessionError> {
        let new = |width: u32| a.alloc(n * width as usize, Category::Activations);
        Ok(Self {
            of_queries: l.q_rank.map(new).transpose()?,
            of_kv: new(l.kv_rank)?,
            queries: new(s.n_heads * s.head_dim)?,
            rotated: new(l.rope)?,
            kv: new(s.n_heads * l.kv_head())?,
            wide: new(s.n_heads * s.head_dim)?,
        })
    }
}

/// How much a layer's second half holds for `n` tokens, or several layers' at the most.
pub(super) struct Hidden {
    /// Elements of the hidden activation; every token has a row in each expert that it goes to.
    len: usize,
    /// The same of the experts that every token goes through.
    shared: usize,
    /// Experts, and those of a token, where any layer has them.
    routes: Option<[usize; 2]>,
}

impl Hidden {
    pub(super) fn of(s: &Shape, n: usize, layers: Range<usize>) -> Self {
        let mut all = Self { len: 0, shared: 0, routes: None };
        for layer in layers {
            let len = match s.experts_of(layer) {
                Some(e) => {
                    all.routes = Some([e.count, e.per_token].map(|x| x as usize));
                    all.shared = n * s.d_ff_shared() as usize;
                    rows_here(s, n, e.per_token as usize) * s.d_ff_expert() as usize
                }
                None => n * s.d_ff as usize,
            };
            all.len = all.len.max(len);
        }
        all
    }

    /// Elements that have room for either.
    pub(super) fn room(&self) -> usize {
        self.len.max(self.shared)
    }
}

/// The norms of a model's queries and keys, where it has them.
pub(in crate::transformer) fn qk_norm_dims(s: &Shape, of: AttentionDims) -> Option<QkNormDims> {
    let whole = match s.parts().qk_norm {
        QkNorm::None => return None,
        QkNorm::Head => false,
        QkNorm::Whole => true,
    };
    Some(QkNormDims { of, whole, eps: s.norm_eps, gain_offset: s.parts().norm.gain_offset() })
}

/// The experts of a model's layers for `n` tokens, where it has them.
pub(in crate::transformer) fn expert_dims(s: &Shape, n: usize) -> Option<ExpertDims> {
    let Mixture { count, per_token, normalised, .. } = s.experts?;
    let (c, f) = (s.d_model as usize, s.d_ff_expert() as usize);
    Some(ExpertDims { n, c, f, experts: count as usize, per_token: per_token as usize, normalised, kind: s.activation })
}
