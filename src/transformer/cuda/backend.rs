//! The operations of [`Backend`], each a launch or a few on a device.

use super::super::backend::composed;
use super::super::backend::{
    Alloc, AttentionDims, Backend, CacheDims, CachePlace, Captured, Category, Clipping, Dropout, Frequencies,
    LinearDims, Loss, NormDims, NormedLinear, Store, Tokens, Update, Updated, Varying,
};
use super::super::error::SessionError;
use super::super::memory::DeviceMemory;
use super::super::random::Normals;
use super::super::shape::Activation;
use super::super::{BackendKind, Dtype, WeightFormat};
use super::buffer::{self, Buffer};
use super::cache::{self, Places};
use super::device::{Address, Real};
use super::state::Slot;
use super::{
    Cuda, activation, attention, decode, dropout, elementwise, embedding, loss, norm, optimizer, random, rope, rows,
};

impl Alloc for Cuda {
    type Buffer = Buffer;

    fn alloc(&self, len: usize, category: Category) -> Result<Buffer, SessionError> {
        Buffer::new(&self.device, len, category, self.dtype)
    }
}

impl Backend for Cuda {
    fn kind(&self) -> BackendKind {
        BackendKind::Cuda
    }
    fn dtype(&self) -> Dtype {
        self.dtype
    }
    fn rounds_parameters(&self) -> bool {
        self.dtype == Dtype::Bf16
    }

    fn upload(&self, from: &[f32], to: &mut Buffer) {
        to.write(self.on(), from);
    }
    fn download(&self, from: &Buffer, offset: usize, to: &mut [f32]) {
        from.read(self.on(), offset, to);
    }
    fn fill(&self, buffer: &mut Buffer, value: f32) {
        elementwise::fill_buffer(self.on(), buffer, value);
    }
    fn copy(&self, from: &Buffer, to: &mut Buffer, len: usize) {
        match (from.format(), to.format()) {
            (Real::F32, Real::Bf16) => elementwise::narrow(self.on(), Real::Bf16, from.at(), to.at(), len),
            (Real::Bf16, Real::F32) => elementwise::widen(self.on(), Real::Bf16, from.at(), to.at(), len),
            (same, _) => self.on().copy(from.at(), to.at(), len * same.size()),
        }
    }
    fn add(&self, from: &Buffer, to: &mut Buffer, len: usize) {
        debug_assert_eq!(from.format(), to.format());
        elementwise::add(self.on(), from.format(), from.at(), to.at(), len);
    }

    fn weights(
        &self,
        matrices: usize,
        rows: usize,
        columns: usize,
        next: &mut dyn FnMut(&mut [f32]),
    ) -> Result<Buffer, SessionError> {
        if matrices == 1 && self.weights == WeightFormat::F8 {
            return self.coded_rows(rows, columns, next);
        }
        let buffer = self.alloc(matrices * rows * columns, Category::FixedWeights)?;
        buffer.write_rows(self.on(), matrices * rows, columns, next);
        Ok(buffer)
    }

    fn normal_weights(&self, matrices: usize, numbers: &Normals) -> Result<Buffer, SessionError> {
        if matrices == 1 && self.weights == WeightFormat::F8 {
            return self.coded_normals(numbers);
        }
        let buffer = self.alloc(numbers.len(), Category::FixedWeights)?;
        random::fill_normal(self.on(), &buffer, numbers);
        Ok(buffer)
    }
    fn fill_normal(&self, to: &mut Buffer, numbers: &Normals) {
        random::fill_normal(self.on(), to, numbers);
    }

    fn embed(
        &self,
        ids: &[u32],
        tokens: usize,
        first: usize,
        table: &Buffer,
        positions: Option<&Buffer>,
        out: &mut Buffer,
        c: usize,
    ) {
        if let Some(placed) = self.state.put(ids) {
            let d = embedding::Rows { n: ids.len(), tokens, c };
            self.embed_at(placed, first, table, positions, out, d);
        }
    }
    fn put_tokens(&self, tokens: &[u32], to: &mut Buffer) {
        self.on().write(&buffer::words(tokens.iter().map(|t| t.to_ne_bytes())), to.wide());
    }
    fn tokens(&self, from: &Buffer, n: usize) -> Vec<u32> {
        self.words(from.wide(), n)
    }
    fn embed_tokens(
        &self,
        ids: Tokens<'_, Buffer>,
        n: usize,
        tokens: usize,
        first: usize,
        table: &Buffer,
        positions: Option<&Buffer>,
        out: &mut Buffer,
        c: usize,
    ) {
        match ids {
            Tokens::Host(ids) => self.embed(ids, tokens, first, table, positions, out, c),
            Tokens::Placed(b) => {
                self.embed_at(b.wide(), first, table, positions, out, embedding::Rows { n, tokens, c });
            }
        }
    }
    fn embed_backward(
        &self,
        ids: &[u32],
        tokens: usize,
        first: usize,
        dout: &Buffer,
        dtable: &mut Buffer,
        dpositions: Option<&mut Buffer>,
        c: usize,
    ) {
        if let Some(placed) = self.state.put(ids) {
            let d = embedding::Rows { n: ids.len(), tokens, c };
            self.embed_backward_at(placed, (first, None), dout, dtable, dpositions, d);
        }
    }
    fn embed_backward_tokens(
        &self,
        ids: Tokens<'_, Buffer>,
        n: usize,
        tokens: usize,
        first: usize,
        padding: Option<u32>,
        dout: &Buffer,
        dtable: &mut Buffer,
        dpositions: Option<&mut Buffer>,
        c: usize,
    ) {
        let placed = match ids {
            Tokens::Host(ids) => self.state.put(ids),
            Tokens::Placed(b) => Some(b.wide()),
        };
        if let Some(placed) = placed {
            let d = embedding::Rows { n, tokens, c };
            self.embed_backward_at(placed, (first, padding), dout, dtable, dpositions, d);
        }
    }
    fn norm(
        &self,
        x: &Buffer,
        gain: &Buffer,
        bias: Option<&Buffer>,
        out: &mut Buffer,
        stats: &mut Buffer,
        d: NormDims,
    ) {
        let bias = bias.map(Buffer::at);
        let o = norm::Normed { x: x.at(), gain: gain.at(), bias, out: out.at(), stats: stats.wide() };
        norm::norm(self.on(), x.format(), o, d);
    }
    fn norm_backward(
        &self,
        x: &Buffer,
        gain: &Buffer,
        stats: &Buffer,
        dout: &Buffer,
        dx: &mut Buffer,
        dgain: &mut Buffer,
        dbias: Option<&mut Buffer>,
        d: NormDims,
    ) {
        let real = x.format();
        let Some(partial) = self.state.scratch(4 * norm::partial_len(self.on(), real, d)) else { return };
        let saved = norm::NormInputs { x: x.at(), gain: gain.at(), stats: stats.wide(), dout: dout.at() };
        let dbias = dbias.map(|b| b.wide());
        let to = norm::NormGradients { dx: dx.at(), dgain: dgain.wide(), dbias, partial };
        norm::norm_backward(self.on(), real, saved, to, d);
    }
    fn linear(&self, x: &Buffer, w: &Buffer, bias: Option<&Buffer>, out: &mut Buffer, into: Store, d: LinearDims) {
        let plus = (into == Store::Accumulate).then_some(&*out);
        self.affine(x, w, bias, plus, out, d);
    }
    fn linear_plus(
        &self,
        x: &Buffer,
        w: &Buffer,
        bias: Option<&Buffer>,
        plus: &Buffer,
        out: &mut Buffer,
        d: LinearDims,
    ) {
        self.affine(x, w, bias, Some(plus), out, d);
    }
    fn linear_activation(
        &self,
        kind: Activation,
        x: &Buffer,
        w: &Buffer,
        bias: Option<&Buffer>,
        pre: &mut Buffer,
        out: &mut Buffer,
        d: LinearDims,
    ) {
        if let Some(p) = self.few_rows(&NormedLinear { x, norm: None, w, bias, d }) {
            return p.up(self.on(), kind, pre.at(), out.at());
        }
        if kind == Activation::GeluTanh && self.linears().gelu(x, w, bias, pre, out, d) {
            return;
        }
        self.linear(x, w, bias, pre, Store::Overwrite, d);
        let f = if kind.gated() { d.m / 2 } else { d.m };
        self.activation(kind, pre, out, d.n, f);
    }
    fn norm_linear(&self, of: NormedLinear<'_, Buffer>, out: &mut Buffer) {
        match self.few_rows(&of) {
            Some(p) => p.linear(self.on(), None, out.at(), out.format() == Real::F32),
            None => composed::norm_linear(self, of, out),
        }
    }
    fn norm_linear_activation(
        &self,
        kind: Activation,
        of: NormedLinear<'_, Buffer>,
        pre: &mut Buffer,
        out: &mut Buffer,
    ) {
        match self.few_rows(&of) {
            Some(p) => p.up(self.on(), kind, pre.at(), out.at()),
            None => composed::norm_linear_activation(self, kind, of, pre, out),
        }
    }
    fn norm_qkv_cached(
        &self,
        of: NormedLinear<'_, Buffer>,
        frequencies: Option<&Frequencies>,
        qkv: &mut Buffer,
        cache: CachePlace<'_, Buffer>,
        d: AttentionDims,
    ) {
        if !self.few_rows_cached(&of, frequencies, qkv, &cache, d) {
            composed::norm_qkv_cached(self, of, frequencies, qkv, cache, d);
        }
    }
    fn linear_dx(&self, dout: &Buffer, w: &Buffer, dx: &mut Buffer, into: Store, d: LinearDims) {
        self.linears().backward_input(dout, w, dx, into, d);
    }
    fn linear_dx_activation(
        &self,
        kind: Activation,
        dout: &Buffer,
        w: &Buffer,
        pre: &mut Buffer,
        hidden: &mut Buffer,
        d: LinearDims,
    ) {
        if kind == Activation::GeluTanh && self.linears().backward_gelu(dout, w, pre, hidden, d) {
            return std::mem::swap(pre, hidden);
        }
        self.linear_dx(dout, w, hidden, Store::Overwrite, d);
        self.activation_backward(kind, pre, hidden, d.n, d.k);
    }
    fn linear_dw(&self, x: &Buffer, dout: &Buffer, dw: &mut Buffer, dbias: Option<&mut Buffer>, d: LinearDims) {
        self.linears().backward_weight(x, dout, dw, dbias.map(|b| &*b), d);
    }

    fn activation(&self, kind: Activation, pre: &Buffer, out: &mut Buffer, n: usize, f: usize) {
        activation::activation(self.on(), pre.format(), kind, pre.at(), out.at(), n, f);
    }
    fn activation_backward(&self, kind: Activation, pre: &mut Buffer, dout: &Buffer, n: usize, f: usize) {
        activation::activation_backward(self.on(), pre.format(), kind, pre.at(), dout.at(), n, f);
    }

    fn rope(&self, qkv: &mut Buffer, frequencies: &Frequencies, first: usize, inverse: bool, d: AttentionDims) {
        let Some(angles) = self.state.angles(frequencies) else { return };
        let first = self.state.position(first);
        rope::rope(self.on(), qkv.format(), qkv.at(), angles, first, inverse, d);
    }
    fn attention(&self, qkv: &Buffer, out: &mut Buffer, lse: &mut Buffer, d: AttentionDims) {
        attention::attention(self.on(), qkv.format(), qkv.at(), out.at(), lse.wide(), d);
    }
    fn attention_backward(
        &self,
        qkv: &Buffer,
        out: &Buffer,
        dout: &Buffer,
        lse: &Buffer,
        dqkv: &mut Buffer,
        d: AttentionDims,
    ) {
        let Some(workspace) = self.state.scratch(attention::backward_workspace_bytes(&d)) else { return };
        let operands = attention::Backward {
            qkv: qkv.at(),
            out: out.at(),
            dout: dout.at(),
            lse: lse.wide(),
            dqkv: dqkv.at(),
            workspace,
        };
        attention::attention_backward(self.on(), qkv.format(), operands, d);
    }
    fn cache_append(&self, qkv: &Buffer, cache: &mut Buffer, position: usize, d: AttentionDims, c: CacheDims) {
        let (to, first) = (Places::of(cache.wide(), c), self.state.position(position));
        cache::append(self.on(), qkv.format(), (qkv.at(), to, first), d);
    }
    fn attention_cached(
        &self,
        qkv: &Buffer,
        cache: &Buffer,
        out: &mut Buffer,
        lse: Option<&mut Buffer>,
        length: usize,
        d: AttentionDims,
        c: CacheDims,
    ) {
        let Some(partial) = self.state.scratch(decode::partial_bytes(self.on(), &d, c.capacity)) else { return };
        let Some(counts) = self.state.counts(decode::count_bytes(self.on(), &d)) else { return };
        let first = self.state.position(length - 1);
        let (out, lse) = (out.at(), lse.map(|lse| lse.wide()));
        let cache = Places::of(cache.wide(), c);
        let operands = decode::Decode { qkv: qkv.at(), cache, out, lse, partial, counts, first };
        decode::decode_attention(self.on(), qkv.format(), operands, d);
    }

    fn dropout(&self, x: &mut Buffer, len: usize, d: Dropout) {
        dropout::dropout(self.on(), x.format(), x.at(), len, self.state.dropout(d.seed), d);
    }
    fn cross_entropy(
        &self,
        x: &Buffer,
        w: &Buffer,
        targets: &[u32],
        gradients: Option<(&mut Buffer, &mut Buffer)>,
        cap: Option<f32>,
        d: LinearDims,
    ) -> Loss {
        if let Some(placed) = self.state.put(targets) {
            self.head().cross_entropy(x, w, placed, gradients.map(|(dx, dw)| (&*dx, &*dw)), cap, d);
        }
        Loss::OnDevice
    }
    fn cross_entropy_tokens(
        &self,
        x: &Buffer,
        w: &Buffer,
        targets: Tokens<'_, Buffer>,
        gradients: Option<(&mut Buffer, &mut Buffer)>,
        cap: Option<f32>,
        d: LinearDims,
    ) -> Loss {
        match targets {
            Tokens::Host(targets) => self.cross_entropy(x, w, targets, gradients, cap, d),
            Tokens::Placed(b) => {
                self.head().cross_entropy(x, w, b.wide(), gradients.map(|(dx, dw)| (&*dx, &*dw)), cap, d);
                Loss::OnDevice
            }
        }
    }
    fn mean_squared_error(&self, x: &Buffer, target: &Buffer, dx: Option<&mut Buffer>, len: usize) -> Loss {
        if let Some(partial) = self.state.scratch(4 * loss::squares_partial_len(self.on(), len)) {
            let (dx, loss) = (dx.map(|d| d.at()), self.state.at(Slot::Loss));
            let o = loss::SquaredError { x: x.at(), target: target.at(), dx, partial, loss };
            loss::mean_squared_error(self.on(), x.format(), o, len);
        }
        Loss::OnDevice
    }
    fn read_loss(&self, loss: Loss) -> f32 {
        match loss {
            Loss::Known(loss) => loss,
            Loss::OnDevice => {
                let mut bytes = [0; 4];
                self.on().read(self.state.at(Slot::Loss), &mut bytes);
                f32::from_ne_bytes(bytes)
            }
        }
    }
    fn last_rows(&self, x: &Buffer, out: &mut Buffer, batch: usize, tokens: usize, c: usize) {
        rows::last_rows(self.on(), x.format(), x.at(), out.at(), batch, tokens, c);
    }
    fn argmax(&self, x: &Buffer, n: usize, v: usize) -> Vec<u32> {
        let workspace = rows::argmax_workspace_bytes(self.on(), n, v);
        let (Some(at), Some(counts)) = (self.state.scratch(workspace + 4 * n), self.state.counts(4 * n)) else {
            return vec![0; n];
        };
        let out = at + workspace as Address;
        rows::argmax(self.on(), x.format(), (x.at(), at, counts), out, n, v);
        self.words(out, n)
    }
    fn argmax_into(&self, x: &Buffer, n: usize, v: usize, tokens: &mut Buffer) {
        let workspace = rows::argmax_workspace_bytes(self.on(), n, v);
        let (Some(at), Some(counts)) = (self.state.scratch(workspace), self.state.counts(4 * n)) else { return };
        rows::argmax(self.on(), x.format(), (x.at(), at, counts), tokens.wide(), n, v);
    }

    fn update(&self, update: &Update, step: u32, clip: Option<Clipping<'_, Buffer>>, one: Updated<'_, Buffer>) {
        self.update_many(update, step, clip, vec![one]);
    }
    fn update_many(&self, u: &Update, step: u32, clip: Option<Clipping<'_, Buffer>>, all: Vec<Updated<'_, Buffer>>) {
        let items: Vec<optimizer::Item> = all.into_iter().map(optimizer::Item::of).collect();
        let table = optimizer::Table::of(&items);
        if let Some(place) = self.state.lasting(table.bytes()) {
            let step = self.state.tell(Slot::Update, &optimizer::constants(u, step));
            let clip = clip.map(|clip| (clip.squares.wide(), clip.largest));
            optimizer::update(self.on(), buffer::real(self.dtype), u.kind, (place, &table), step, clip);
        }
    }
    fn captured(&self, varying: &Varying<'_>, captured: &mut Captured, step: &mut dyn FnMut()) {
        self.repeat(varying, captured, step);
    }
    fn device_memory(&self) -> Option<DeviceMemory> {
        self.on().high_water()
    }
    fn kernels_run(&self) -> Vec<String> {
        self.on().trace().take()
    }
    fn synchronize(&self) {
        if let Err(failure) = self.on().wait() {
            self.state.fail(failure);
        }
    }
    fn check(&self) -> Result<(), SessionError> {
        // What went wrong first in the backend (memory) is the cause of what went wrong on the device.
        let on_device = self.on().wait();
        self.state.failure().and(on_device)
    }
}
