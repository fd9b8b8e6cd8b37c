//! The operations that the model is made of. A backend is a folder that implements them; the model is written once over
//! this trait, and the conformance tests hold every backend against the naive one.
//!
//! Shapes by the legend of [`super`]. All matrices are row-major and dense; a linear layer's weight is `[outputs, inputs]`,
//! as in PyTorch. Queries, keys and values of a token stand side by side in one row of `(H + 2 KV) * D` numbers.
//!
//! Gradients are *overwritten* by the operations that compute them, never accumulated over steps: one step touches each
//! gradient once. The two exceptions say `+=`.
//!
//! Deliberately absent: streams, devices, allocation strategies. A backend owns those.

mod alloc;
pub(in crate::transformer) mod composed;
mod experts;
pub(in crate::transformer) mod few_bits_on_host;
mod latent;
mod latent_on_host;
pub(in crate::transformer) mod on_host;
mod parts;
mod split;
mod split_on_host;

pub use alloc::Alloc;
pub(crate) use experts::{ExpertDims, Experts, ExpertsBackward};
pub(crate) use latent::{BlockCopy, Blocks, LatentDims};
pub(crate) use parts::Parts;
pub(crate) use split::{OwnHeads, OwnWords, ROWS_AT_A_TIME};

use super::error::SessionError;
pub use super::kv_cache::{CacheDims, CacheElement};
use super::memory::DeviceMemory;
pub use super::operands::{
    AttentionDims, Category, Clipping, Frequencies, LinearDims, NormDims, Scores, Store, Update, Updated,
};
pub(crate) use super::operands::{
    CachePlace, Captured, Dropout, IGNORED_TARGET, IGNORED_TOKEN, Loss, NormBefore, NormedLinear, QkNormDims, Stretch,
    Tokens, Varying,
};
use super::random::Normals;
use super::shape::Activation;
use super::{BackendKind, Dtype};

/// The operations. Every method that can fail does so by the device or by memory; shapes are the caller's promise and are
/// checked by debug assertions and slice bounds.
#[allow(clippy::too_many_arguments)]
pub trait Backend: Parts {
    /// Which one it is.
    fn kind(&self) -> BackendKind;
    /// The format that products take their factors in, and that the KV cache is kept in where nothing else is said.
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }
    /// Whether products read a rounded copy of a parameter that is trained. It is the copy then that ranks exchange.
    fn rounds_parameters(&self) -> bool {
        false
    }

    /// Host to device, from the start of `to`.
    fn upload(&self, from: &[f32], to: &mut Self::Buffer);
    /// Device to host: as many numbers as `to` holds, from `offset`.
    fn download(&self, from: &Self::Buffer, offset: usize, to: &mut [f32]);
    /// Every element becomes `value`.
    fn fill(&self, buffer: &mut Self::Buffer, value: f32);
    /// The first `len` numbers.
    fn copy(&self, from: &Self::Buffer, to: &mut Self::Buffer, len: usize);
    /// `to[i] += from[i]` for the first `len` numbers.
    fn add(&self, from: &Self::Buffer, to: &mut Self::Buffer, len: usize);

    /// So many weight matrices `[rows, columns]` for inference, in whatever form products like best; they are only read by
    /// [`Backend::linear`] and [`Backend::embed`] from then on where it is one, and by [`Parts::experts`] where it is one an expert.
    /// `next` writes the numbers of all, some whole rows at a time, in their order.
    ///
    /// # Errors
    /// `SessionError::OutOfMemory`.
    fn weights(
        &self,
        matrices: usize,
        rows: usize,
        columns: usize,
        next: &mut dyn FnMut(&mut [f32]),
    ) -> Result<Self::Buffer, SessionError> {
        let mut host = vec![0.0; matrices * rows * columns];
        next(&mut host);
        let mut buffer = self.alloc(host.len(), Category::Weights)?;
        self.upload(&host, &mut buffer);
        Ok(buffer)
    }
    /// [`Backend::weights`] of normal numbers, whose bits are the same on every backend before they are rounded to its format.
    ///
    /// # Errors
    /// `SessionError::OutOfMemory`.
    fn normal_weights(&self, matrices: usize, numbers: &Normals) -> Result<Self::Buffer, SessionError> {
        let (columns, mut row) = (numbers.columns, 0);
        let rows = numbers.len() / columns.max(1) / matrices.max(1);
        self.weights(matrices, rows, columns, &mut |rows| {
            numbers.fill(row, rows);
            row += rows.len() / columns.max(1);
        })
    }
    /// Fills `to` with normal numbers, the bits of [`Backend::normal_weights`].
    fn fill_normal(&self, to: &mut Self::Buffer, numbers: &Normals) {
        let mut host = vec![0.0; numbers.len()];
        numbers.fill(0, &mut host);
        self.upload(&host, to);
    }

    /// Row r of `out [N, C]` is `table[ids[r]] (+ positions[first_position + r % tokens])`; of `IGNORED_TOKEN` the table has zeros.
    fn embed(
        &self,
        ids: &[u32],
        tokens: usize,
        first_position: usize,
        table: &Self::Buffer,
        positions: Option<&Self::Buffer>,
        out: &mut Self::Buffer,
        c: usize,
    );
    /// Keeps tokens where [`Backend::embed_tokens`] finds them. By default as the bits of numbers.
    fn put_tokens(&self, tokens: &[u32], to: &mut Self::Buffer) {
        let bits: Vec<f32> = tokens.iter().map(|t| f32::from_bits(*t)).collect();
        self.upload(&bits, to);
    }
    /// The first `n` tokens of a buffer.
    fn tokens(&self, from: &Self::Buffer, n: usize) -> Vec<u32> {
        let mut bits = vec![0.0; n];
        self.download(from, 0, &mut bits);
        bits.into_iter().map(f32::to_bits).collect()
    }
    /// [`Backend::embed`] of tokens that are where the backend keeps them.
    fn embed_tokens(
        &self,
        ids: Tokens<'_, Self::Buffer>,
        n: usize,
        tokens: usize,
        first_position: usize,
        table: &Self::Buffer,
        positions: Option<&Self::Buffer>,
        out: &mut Self::Buffer,
        c: usize,
    ) {
        match ids {
            Tokens::Host(ids) => self.embed(ids, tokens, first_position, table, positions, out, c),
            Tokens::Placed(b) => self.embed(&self.tokens(b, n), tokens, first_position, table, positions, out, c),
        }
    }
    /// `dtable[ids[r]] += dout[r]`, but for `IGNORED_TOKEN` (the table is the one that the tied head has written, or zeroed by the
    /// caller), and, where there are learned positions, `dpositions[first_position + r % tokens] =` the sum over the batch, all other
    /// rows zero.
    fn embed_backward(
        &self,
        ids: &[u32],
        tokens: usize,
        first_position: usize,
        dout: &Self::Buffer,
        dtable: &mut Self::Buffer,
        dpositions: Option<&mut Self::Buffer>,
        c: usize,
    );

    /// [`Backend::embed_backward`] of `n` tokens wherever they are, of which `padding` has no row in the table's gradient either.
    fn embed_backward_tokens(
        &self,
        ids: Tokens<'_, Self::Buffer>,
        n: usize,
        tokens: usize,
        first: usize,
        padding: Option<u32>,
        dout: &Self::Buffer,
        dtable: &mut Self::Buffer,
        dpositions: Option<&mut Self::Buffer>,
        c: usize,
    ) {
        let mut ids = match ids {
            Tokens::Host(ids) => ids.to_vec(),
            Tokens::Placed(b) => self.tokens(b, n),
        };
        ids.iter_mut().filter(|id| Some(**id) == padding).for_each(|id| *id = IGNORED_TOKEN);
        self.embed_backward(&ids, tokens, first, dout, dtable, dpositions, c);
    }

    /// `out = (x - mean) * rstd * gain (+ bias)`; `stats [N, 2]` takes mean and rstd for the backward pass.
    fn norm(
        &self,
        x: &Self::Buffer,
        gain: &Self::Buffer,
        bias: Option<&Self::Buffer>,
        out: &mut Self::Buffer,
        stats: &mut Self::Buffer,
        d: NormDims,
    );
    /// `dx +=` the gradient through the norm; `dgain` and `dbias` are overwritten.
    fn norm_backward(
        &self,
        x: &Self::Buffer,
        gain: &Self::Buffer,
        stats: &Self::Buffer,
        dout: &Self::Buffer,
        dx: &mut Self::Buffer,
        dgain: &mut Self::Buffer,
        dbias: Option<&mut Self::Buffer>,
        d: NormDims,
    );

    /// `out [N, M] (+)= x [N, K] w[M, K]^T + bias`
    fn linear(
        &self,
        x: &Self::Buffer,
        w: &Self::Buffer,
        bias: Option<&Self::Buffer>,
        out: &mut Self::Buffer,
        into: Store,
        d: LinearDims,
    );
    /// `out [N, M] = x w^T + bias + plus [N, M]`: the end of a branch, onto the residual stream.
    fn linear_plus(
        &self,
        x: &Self::Buffer,
        w: &Self::Buffer,
        bias: Option<&Self::Buffer>,
        plus: &Self::Buffer,
        out: &mut Self::Buffer,
        d: LinearDims,
    ) {
        self.copy(plus, out, d.n * d.m);
        self.linear(x, w, bias, out, Store::Accumulate, d);
    }
    /// `pre [N, M] = x w^T + bias`, `out [N, F] = f(pre)`; M is F, or 2 F where it is gated.
    fn linear_activation(
        &self,
        kind: Activation,
        x: &Self::Buffer,
        w: &Self::Buffer,
        bias: Option<&Self::Buffer>,
        pre: &mut Self::Buffer,
        out: &mut Self::Buffer,
        d: LinearDims,
    ) {
        self.linear(x, w, bias, pre, Store::Overwrite, d);
        let f = if kind.gated() { d.m / 2 } else { d.m };
        self.activation(kind, pre, out, d.n, f);
    }
    /// `out [N, M] = norm(x) w^T + bias`
    fn norm_linear(&self, of: NormedLinear<'_, Self::Buffer>, out: &mut Self::Buffer) {
        composed::norm_linear(self, of, out);
    }
    /// [`Backend::linear_activation`] of `norm(x)`.
    fn norm_linear_activation(
        &self,
        kind: Activation,
        of: NormedLinear<'_, Self::Buffer>,
        pre: &mut Self::Buffer,
        out: &mut Self::Buffer,
    ) {
        composed::norm_linear_activation(self, kind, of, pre, out);
    }
    /// Attention's input where there is a cache: `qkv = norm(x) w^T + bias`, queries and keys rotated where there are frequencies
    /// ([`Backend::rope`]), keys and values put into the cache ([`Backend::cache_append`]).
    fn norm_qkv_cached(
        &self,
        of: NormedLinear<'_, Self::Buffer>,
        frequencies: Option<&Frequencies>,
        qkv: &mut Self::Buffer,
        cache: CachePlace<'_, Self::Buffer>,
        d: AttentionDims,
    ) {
        composed::norm_qkv_cached(self, of, frequencies, qkv, cache, d);
    }
    /// `dx [N, K] (+)= dout [N, M] w[M, K]`
    fn linear_dx(&self, dout: &Self::Buffer, w: &Self::Buffer, dx: &mut Self::Buffer, into: Store, d: LinearDims);
    /// `dpre = f'(pre) (dout [N, M] w[M, F])`, `pre` being replaced by its gradient: back through a branch's last product and the
    /// activation before it. `hidden [N, F]` is room for what is in between, and means nothing afterwards; the two may have changed
    /// places.
    fn linear_dx_activation(
        &self,
        kind: Activation,
        dout: &Self::Buffer,
        w: &Self::Buffer,
        pre: &mut Self::Buffer,
        hidden: &mut Self::Buffer,
        d: LinearDims,
    ) {
        self.linear_dx(dout, w, hidden, Store::Overwrite, d);
        self.activation_backward(kind, pre, hidden, d.n, d.k);
    }
    /// `dw [M, K] = dout^T x`, `dbias [M] =` the column sums of `dout`
    fn linear_dw(
        &self,
        x: &Self::Buffer,
        dout: &Self::Buffer,
        dw: &mut Self::Buffer,
        dbias: Option<&mut Self::Buffer>,
        d: LinearDims,
    );

    /// `out [N, F] = f(pre)`; `pre` is `[N, F]`, or `[N, 2 F]` (gate, up) where it is gated.
    fn activation(&self, kind: Activation, pre: &Self::Buffer, out: &mut Self::Buffer, n: usize, f: usize);
    /// `dpre = f'(pre) dout`, `pre` being replaced by its gradient in place.
    fn activation_backward(&self, kind: Activation, pre: &mut Self::Buffer, dout: &Self::Buffer, n: usize, f: usize);

    /// Rotates queries and keys of `qkv` by their positions `first_position + row % tokens`; `inverse` rotates back (gradients).
    /// Pairs are `(i, i + R/2)` of the R elements of a head that are rotated, as in Hugging Face's Llama.
    fn rope(
        &self,
        qkv: &mut Self::Buffer,
        frequencies: &Frequencies,
        first_position: usize,
        inverse: bool,
        d: AttentionDims,
    );

    /// `out [N, H*D] = softmax(scores) V`, scores of `Q K^T` as [`AttentionDims`] says; `lse [N, H]` takes the log of the softmax's
    /// denominator.
    fn attention(&self, qkv: &Self::Buffer, out: &mut Self::Buffer, lse: &mut Self::Buffer, d: AttentionDims);
    /// `dqkv =` the gradient, `dout` that of `out`.
    fn attention_backward(
        &self,
        qkv: &Self::Buffer,
        out: &Self::Buffer,
        dout: &Self::Buffer,
        lse: &Self::Buffer,
        dqkv: &mut Self::Buffer,
        d: AttentionDims,
    );

    /// Copies keys and values of `qkv` (`d.tokens` a sequence) into the cache from `position` on, as its elements. Past its capacity they
    /// take the places of the oldest.
    fn cache_append(
        &self,
        qkv: &Self::Buffer,
        cache: &mut Self::Buffer,
        position: usize,
        d: AttentionDims,
        c: CacheDims,
    );
    /// Attention of the one query a sequence (`d.tokens` = 1) over the last `length` positions, its own among them, or as many of them
    /// as the cache has places for: a window is its capacity, and not looked at here. `lse [B, H]` is as of [`Backend::attention`].
    fn attention_cached(
        &self,
        qkv: &Self::Buffer,
        cache: &Self::Buffer,
        out: &mut Self::Buffer,
        lse: Option<&mut Self::Buffer>,
        length: usize,
        d: AttentionDims,
        c: CacheDims,
    );

    /// Zeroes elements with the given probability and scales the rest by 1 / (1 - p), in place. On a gradient with the same
    /// seed it is its own backward pass.
    fn dropout(&self, x: &mut Self::Buffer, len: usize, dropout: Dropout);

    /// Mean cross-entropy of `softmax(x [N, C] w[V, C]^T)` against `targets`, `IGNORED_TARGET`s left out; with a cap, logits are
    /// as of `Parts::soft_cap`. With `gradients`, `dx =` and `dw =` their gradients. An implementation need not hold all logits at
    /// once.
    fn cross_entropy(
        &self,
        x: &Self::Buffer,
        w: &Self::Buffer,
        targets: &[u32],
        gradients: Option<(&mut Self::Buffer, &mut Self::Buffer)>,
        cap: Option<f32>,
        d: LinearDims,
    ) -> Loss;
    /// [`Backend::cross_entropy`] of targets that are where the backend keeps tokens.
    fn cross_entropy_tokens(
        &self,
        x: &Self::Buffer,
        w: &Self::Buffer,
        targets: Tokens<'_, Self::Buffer>,
        gradients: Option<(&mut Self::Buffer, &mut Self::Buffer)>,
        cap: Option<f32>,
        d: LinearDims,
    ) -> Loss {
        match targets {
            Tokens::Host(targets) => self.cross_entropy(x, w, targets, gradients, cap, d),
            Tokens::Placed(b) => self.cross_entropy(x, w, &self.tokens(b, d.n), gradients, cap, d),
        }
    }
    /// Mean of squared differences over the first `len` numbers; `dx = 2 (x - target) / len`.
    fn mean_squared_error(
        &self,
        x: &Self::Buffer,
        target: &Self::Buffer,
        dx: Option<&mut Self::Buffer>,
        len: usize,
    ) -> Loss;
    /// Waits for a loss. It is asked for after the backward pass, so that a device has work while it is on its way.
    fn read_loss(&self, loss: Loss) -> f32 {
        match loss {
            Loss::Known(loss) => loss,
            Loss::OnDevice => f32::NAN,
        }
    }
    /// Row `b` of `out [B, C]` is row `b * tokens + tokens - 1` of `x [B * tokens, C]`.
    fn last_rows(&self, x: &Self::Buffer, out: &mut Self::Buffer, batch: usize, tokens: usize, c: usize);
    /// Index of the largest of every row of `x [N, V]`; the first of equals.
    fn argmax(&self, x: &Self::Buffer, n: usize, v: usize) -> Vec<u32>;
    /// The same, kept where the next [`Backend::embed_tokens`] finds them.
    fn argmax_into(&self, x: &Self::Buffer, n: usize, v: usize, tokens: &mut Self::Buffer) {
        self.put_tokens(&self.argmax(x, n, v), tokens);
    }

    /// One optimizer step, the `step`-th from 1, over a part of a parameter; its gradient counts as it is, or clipped.
    fn update(&self, u: &Update, step: u32, clip: Option<Clipping<'_, Self::Buffer>>, one: Updated<'_, Self::Buffer>);

    /// [`Backend::update`] of several parameters.
    fn update_many(
        &self,
        u: &Update,
        step: u32,
        clip: Option<Clipping<'_, Self::Buffer>>,
        all: Vec<Updated<'_, Self::Buffer>>,
    ) {
        all.into_iter().for_each(|one| self.update(u, step, clip, one));
    }

    /// Runs a rank's whole life where its operations start without a hand-over between threads.
    fn enter<R: Send>(&self, f: impl FnOnce() -> R + Send) -> R {
        f()
    }

    /// Runs `step`, whose operations are the same whenever `captured` is, on the same buffers; only what `varying` tells and the
    /// buffers' contents differ. A backend that can plays them back instead, at the price of one.
    fn captured(&self, _varying: &Varying<'_>, _captured: &mut Captured, step: &mut dyn FnMut()) {
        step();
    }

    /// The most memory that its device has given, where it has memory of its own and an account of it.
    fn device_memory(&self) -> Option<DeviceMemory> {
        None
    }

    /// Names of the kernels that have run since the last call, from the first call on: for who checks which way an operation took.
    fn kernels_run(&self) -> Vec<String> {
        Vec::new()
    }

    /// Waits until everything asked for has been computed.
    fn synchronize(&self) {}

    /// What has gone wrong since the last call, for backends whose operations run later than they are asked for. Waits for them.
    ///
    /// # Errors
    /// The first failure; nothing computed after it means anything.
    fn check(&self) -> Result<(), SessionError> {
        Ok(())
    }
}
