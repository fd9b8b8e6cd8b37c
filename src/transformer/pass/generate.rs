//! Decoding through the KV cache: a prompt once, then one token a sequence and step.

use super::super::backend::{Alloc, Backend, CacheDims, CacheElement, Captured, Category, LatentDims, Tokens, Varying};
use super::super::error::SessionError;
use super::super::shape::Shape;
use super::activations::{Activations, Extent, Keep};
use super::model::{Linear, Model};

/// Keys and values of every layer, or what they are made of.
#[derive(Debug)]
pub(crate) struct Cache<T> {
    pub layers: Vec<T>,
    /// Of a layer that sees all before.
    dims: CacheDims,
    /// Where attention is through latents, which are then all that it holds.
    pub(super) latent: Option<LatentDims>,
    /// Positions that layers with a window keep: the last ones, in turn.
    windows: Vec<Option<usize>>,
    /// Positions that have been filled.
    pub length: usize,
}

impl<T> Cache<T> {
    /// An empty cache for `batch` sequences of at most `capacity` tokens.
    ///
    /// # Errors
    /// [`SessionError::OutOfMemory`].
    pub(crate) fn new<A: Alloc<Buffer = T>>(
        a: &A,
        s: &Shape,
        batch: usize,
        capacity: usize,
        element: CacheElement,
    ) -> Result<Self, SessionError> {
        let (kv_heads, head_dim) = (s.n_kv_heads as usize, s.head_dim as usize);
        let dims = CacheDims { batch, kv_heads, head_dim, capacity, element };
        let windows = (0..s.n_layers as usize).map(|l| s.window_of(l)).collect();
        let latent = latent_dims(s, batch, capacity, element);
        let mut cache = Self { layers: Vec::new(), dims, latent, windows, length: 0 };
        for l in 0..s.n_layers as usize {
            let words = latent.map_or(cache.dims(l).words(), |d| d.words());
            cache.layers.push(a.alloc(words, Category::KvCache)?);
        }
        Ok(cache)
    }

    /// The dimensions of a layer's: one with a window holds no more than that.
    pub(crate) fn dims(&self, layer: usize) -> CacheDims {
        let capacity = self.windows[layer].map_or(self.dims.capacity, |w| w.min(self.dims.capacity));
        CacheDims { capacity, ..self.dims }
    }

    /// Whether there is no place for another position.
    pub(crate) fn is_full(&self) -> bool {
        self.length >= self.dims.capacity
    }
}

/// Of a cache of latents of so many sequences and positions, where attention is through them, and of one query each.
pub(in crate::transformer) fn latent_dims(
    s: &Shape,
    batch: usize,
    capacity: usize,
    element: CacheElement,
) -> Option<LatentDims> {
    let l = s.latent?;
    let [heads, rank, rope, nope, value] = [s.n_heads, l.kv_rank, l.rope, l.nope, l.value].map(|x| x as usize);
    let scale = s.parts().score_scale.unwrap_or(1.0 / (s.head_dim as f32).sqrt());
    Some(LatentDims { batch, tokens: 1, heads, rank, rope, nope, value, scale, capacity, element })
}

/// Buffers of inference: a pass over prompts, a pass over one token a sequence, and the logits of the last positions.
#[derive(Debug)]
pub(crate) struct Inference<T> {
    pub prompt: Activations<T>,
    /// Absent where nothing is decoded.
    pub token: Option<Activations<T>>,
    pub cache: Option<Cache<T>>,
    /// `[B, C]`
    pub last: T,
    /// `[B, V]`, of the rank's words where ranks split the vocabulary
    pub logits: T,
    /// The tokens chosen from them, `[B]`.
    pub chosen: T,
    /// Where ranks split the vocabulary: of every rank and sequence the largest logit and its word.
    pub(super) told: Option<T>,
    /// A decode step's operations, for backends that play them back.
    pub captured: Captured,
}

impl<T> Inference<T> {
    /// Buffers for `batch` prompts of `prompt` tokens, processed `chunk` of each at a time, and up to `new` tokens after them. Without
    /// new tokens and with whole prompts there is no cache, unless it is in few bits: then what is asked for is what filling it takes.
    ///
    /// # Errors
    /// [`SessionError::OutOfMemory`].
    pub(crate) fn new<A: Alloc<Buffer = T>>(
        a: &A,
        s: &Shape,
        batch: usize,
        (prompt, chunk): (usize, usize),
        new: usize,
        element: CacheElement,
    ) -> Result<Self, SessionError> {
        let (decode, chunk) = (new > 0, chunk.clamp(1, prompt.max(1)));
        let cached = decode || chunk < prompt || element.is_scaled();
        let extent = |tokens| Extent { batch, tokens };
        Ok(Self {
            prompt: Activations::new(a, s, extent(chunk), Keep::OneLayer)?,
            token: decode.then(|| Activations::new(a, s, extent(1), Keep::OneLayer)).transpose()?,
            cache: cached.then(|| Cache::new(a, s, batch, prompt + new, element)).transpose()?,
            last: a.alloc(batch * s.d_model as usize, Category::Activations)?,
            logits: a
                .alloc(batch * if s.has_vocabulary_head() { s.vocab_size as usize } else { 0 }, Category::Statistics)?,
            chosen: a.alloc(batch, Category::Statistics)?,
            told: (s.part().first_word.is_some() && s.has_vocabulary_head())
                .then(|| a.alloc(2 * s.part().of * batch, Category::Statistics))
                .transpose()?,
            captured: Captured::default(),
        })
    }
}

impl<B: Backend> Model<B> {
    /// Processes the prompts `ids [B, T]` from an empty cache, a stretch of all at a time. The last positions' logits are in
    /// `inference.logits` after.
    pub(crate) fn prefill(&self, ids: &[u32], inference: &mut Inference<B::Buffer>) {
        let Inference { prompt, cache, last, logits, .. } = inference;
        if let Some(k) = cache.as_mut() {
            k.length = 0;
        }
        let (whole, chunk) = (ids.len() / prompt.extent.batch, prompt.extent.tokens);
        for first in (0..whole).step_by(chunk) {
            prompt.extent.tokens = chunk.min(whole - first);
            if prompt.extent.tokens == whole {
                self.layers(Tokens::Host(ids), prompt, None, cache.as_mut());
            } else {
                let rows = ids.chunks_exact(whole).flat_map(|row| &row[first..first + prompt.extent.tokens]);
                let stretch: Vec<u32> = rows.copied().collect();
                self.layers(Tokens::Host(&stretch), prompt, None, cache.as_mut());
            }
        }
        self.last_logits(prompt, last, logits);
        prompt.extent.tokens = chunk;
    }

    /// Processes one token a sequence at the cache's end. Without a cache, or with a full one, nothing is done and `false`
    /// comes back.
    pub(crate) fn decode(&self, ids: &[u32], inference: &mut Inference<B::Buffer>) -> bool {
        let Inference { token: Some(token), cache: Some(cache), last, logits, .. } = inference else { return false };
        if cache.is_full() {
            return false;
        }
        self.layers(Tokens::Host(ids), token, None, Some(cache));
        self.last_logits(token, last, logits);
        true
    }

    /// Logits of each sequence's last position. A norm is of every row by itself: only the last ones go through the model's last.
    fn last_logits(&self, a: &mut Activations<B::Buffer>, last: &mut B::Buffer, logits: &mut B::Buffer) {
        let Activations { extent: Extent { batch, tokens }, residual, last: room, .. } = a;
        let stream = &residual[(2 * self.index.layers.len()) % residual.len()];
        let x = if *tokens == 1 {
            stream
        } else {
            self.backend.last_rows(stream, last, *batch, *tokens, self.shape.d_model as usize);
            &*last
        };
        if let Some(head) = self.index.head {
            let room = room.as_mut().map(|(room, stats)| (room, stats));
            let head = Linear { weight: head, bias: None };
            let input = self.after_norm(self.index.last_norm.as_ref(), &head, x, room, *batch);
            self.backend.norm_linear(input, logits);
            if let Some(cap) = self.shape.parts().logit_cap {
                self.backend.soft_cap(logits, *batch * self.shape.vocab_size as usize, cap);
            }
        }
    }

    /// Processes the chosen tokens at the cache's end and chooses the next ones, without a word between host and device where the
    /// backend can. Without a cache, or with a full one, nothing is done and `false` comes back.
    pub(crate) fn decode_chosen(&self, inference: &mut Inference<B::Buffer>) -> bool {
        let Inference { token: Some(token), cache: Some(cache), last, logits, chosen, told, captured, .. } = inference
        else {
            return false;
        };
        if cache.is_full() {
            return false;
        }
        let position = cache.length;
        let batch = token.extent.batch;
        let position_row = self.position_row(position);
        let varying = Varying { position, position_row, ..Varying::default() };
        self.backend.captured(&varying, captured, &mut || {
            self.layers(Tokens::Placed(chosen), token, None, Some(cache));
            self.last_logits(token, last, logits);
            self.choose(logits, batch, told.as_mut(), chosen);
            cache.length = position;
        });
        cache.length = position + 1;
        true
    }
}
