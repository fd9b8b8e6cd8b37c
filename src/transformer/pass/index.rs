//! The list of a model's parameters: which there are, how large, and where those of a layer stand.
//!
//! Gradients and optimizer moments are lists in the same order, so that an [`Index`] finds its way in all of them.

use super::super::collective::stage::Stage;
use super::super::shape::part::Part;
use super::super::shape::parts::{NormKind, Parts, Positions, QkNorm, Residual};
use super::super::shape::{Mixture, Shape};
use super::spec::{LatentIndex, LayerIndex, Linear, Norm, Place, Rows, Spec, Split, Start};
use std::ops::Range;

/// Where every parameter stands in the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Index {
    pub specs: Vec<Spec>,
    /// `[V, C]`
    pub table: usize,
    /// `[P, C]`, learned positions
    pub positions: Option<usize>,
    /// Of the embedding
    pub embedding_norm: Option<Norm>,
    pub layers: Vec<LayerIndex>,
    /// Where each layer's parameters begin, and where the last one's end.
    bounds: Vec<usize>,
    pub last_norm: Option<Norm>,
    /// `[V, C]`; the table's own index where embeddings are tied; `None` for the block
    pub head: Option<usize>,
    /// Whose parameters these are; those of other stages are empty.
    pub stage: Stage,
}

/// The second half of a layer.
#[derive(Default)]
struct FeedForward {
    router: Option<Linear>,
    correction: Option<usize>,
    up_down: [Linear; 2],
    shared: Option<[Linear; 2]>,
}

/// A stretch that is not there.
const NOTHING: (usize, Place) = (0, Place { number: 0, of: 1, copy: false });

/// How the rows of a table of words are split.
fn words(s: &Shape) -> Split {
    match s.part().first_word {
        Some(first) => Split::Rows(Rows::neighbours(first as usize, s.vocab_size as usize)),
        None => Split::Whole,
    }
}

/// A split by outputs of a feed-forward layer's first product, where each rank's width is this: gate, up.
fn outputs(s: &Shape, width: usize) -> Split {
    let gated = if s.activation.gated() { width } else { 0 };
    let place = among_all(s.part());
    Split::Rows(Rows::new([(width, place), (gated, place), NOTHING]))
}

/// A split by inputs, of which each rank has so many.
fn inputs(part: Part, each: usize) -> Split {
    Split::Columns { first: part.rank * each, whole: part.of * each }
}

/// A rank's place in what all ranks share out equally.
fn among_all(part: Part) -> Place {
    Place { number: part.rank, of: part.of, copy: false }
}

/// The same where they are heads of keys and values.
fn among_kv_heads(part: Part) -> Place {
    let Part { rank, of, copies, .. } = part;
    Place { number: rank / copies, of: of / copies, copy: part.copies_another() }
}

#[derive(Default)]
struct Builder(Vec<Spec>);

impl Builder {
    fn push(&mut self, name: String, rows: usize, columns: usize, start: Start) -> usize {
        self.0.push(Spec { name, rows, columns, start, split: Split::Whole, matrices: 1, fixed: false });
        self.0.len() - 1
    }
    fn linear(&mut self, name: &str, rows: usize, columns: usize, bias: bool, split: Split) -> Linear {
        let weight = self.push(format!("{name}.weight"), rows, columns, Start::Normal);
        self.0[weight].split = split;
        let bias = bias.then(|| self.push(format!("{name}.bias"), 1, rows, Start::Zero));
        if let (Some(bias), Split::Rows(_)) = (bias, split) {
            self.0[bias].split = split;
        }
        Linear { weight, bias }
    }
    fn norm(&mut self, name: &str, c: usize, kind: NormKind) -> Option<Norm> {
        let start = match kind {
            NormKind::None => return None,
            NormKind::Layer | NormKind::Rms => Start::One,
            NormKind::RmsPlusOne => Start::Zero,
        };
        let gain = self.push(format!("{name}.gain"), 1, c, start);
        let bias = (kind == NormKind::Layer).then(|| self.push(format!("{name}.bias"), 1, c, Start::Zero));
        Some(Norm { gain, bias })
    }

    fn layer(&mut self, l: usize, s: &Shape) -> LayerIndex {
        let (parts, c) = (s.parts(), s.d_model as usize);
        let a = s.d_attn() as usize;
        let named = |name: &str| format!("layers.{l}.{name}");
        let norm_if =
            |b: &mut Self, name: &str, there: bool| there.then(|| b.norm(&named(name), c, parts.norm)).flatten();
        let norm1 = norm_if(self, "norm1", parts.norm_before());
        let (qkv, latent) = self.queries(&named, s);
        let qk_norm = self.qk_norm(&named("qk_norm"), s, parts);
        let sinks = parts.sinks.then(|| {
            let heads = s.n_heads as usize;
            let sinks = self.push(named("sinks"), 1, heads, Start::Zero);
            self.0[sinks].split = Split::Rows(Rows::new([(heads, among_all(s.part())), NOTHING, NOTHING]));
            sinks
        });
        let out = self.linear(&named("out"), c, a, s.attn_out_bias, inputs(s.part(), a));
        let norm1_after = norm_if(self, "norm1_after", parts.norm_after());
        let norm2 = match parts.residual {
            Residual::ParallelOneNorm => norm1,
            _ => norm_if(self, "norm2", parts.norm_before()),
        };
        let feed_forward = match s.experts_of(l) {
            Some(mixture) => self.experts(&named, s, mixture),
            None => {
                FeedForward { up_down: self.feed_forward(["up", "down"].map(named), s, s.d_ff), ..Default::default() }
            }
        };
        let FeedForward { router, correction, up_down: [up, down], shared } = feed_forward;
        let norm2_after = norm_if(self, "norm2_after", parts.norm_after());
        LayerIndex {
            norm1,
            qkv,
            latent,
            qk_norm,
            sinks,
            out,
            norm1_after,
            norm2,
            router,
            correction,
            up,
            down,
            shared,
            norm2_after,
        }
    }

    /// What queries, keys and values are made of.
    fn queries(&mut self, named: &impl Fn(&str) -> String, s: &Shape) -> (Linear, Option<LatentIndex>) {
        let c = s.d_model as usize;
        let Some(latent) = &s.latent else {
            let [a, kv] = [s.d_attn(), s.d_kv()].map(|x| x as usize);
            let of_kv = (kv, among_kv_heads(s.part()));
            let split = Split::Rows(Rows::new([(a, among_all(s.part())), of_kv, of_kv]));
            return (self.linear(&named("qkv"), a + 2 * kv, c, s.qkv_bias, split), None);
        };
        let [heads, rank, rope, kv] = [s.n_heads, latent.kv_rank, latent.rope, latent.kv_head()].map(|x| x as usize);
        let mut made = |name: &str, rows, columns| self.linear(&named(name), rows, columns, false, Split::Whole);
        let of_queries = latent.q_rank.map(|rank| (made("q_latent", rank as usize, c), rank as usize));
        let width = of_queries.map_or(c, |(_, rank)| rank);
        let qkv = made("queries", heads * s.head_dim as usize, width);
        let (down, rotated) = (made("kv_latent", rank, c), made("rotated", rope, c));
        let up = made("kv", heads * kv, rank);
        self.0[up.weight].matrices = 0;
        let kind = s.parts().norm;
        let queries = of_queries.and_then(|(l, rank)| Some((l, self.norm(&named("q_latent_norm"), rank, kind)?)));
        let norm = self.norm(&named("kv_latent_norm"), rank, kind);
        (qkv, norm.map(|norm| LatentIndex { queries, down, norm, rotated, up }))
    }

    /// The two products of a feed-forward layer of this width.
    fn feed_forward(&mut self, [up, down]: [String; 2], s: &Shape, width: u32) -> [Linear; 2] {
        let (c, f) = (s.d_model as usize, width as usize);
        let up = self.linear(&up, s.activation.inner(f), c, s.mlp_bias, outputs(s, f));
        [up, self.linear(&down, c, f, s.mlp_bias, inputs(s.part(), f))]
    }

    fn experts(&mut self, named: &impl Fn(&str) -> String, s: &Shape, of: &Mixture) -> FeedForward {
        let [c, f, count] = [s.d_model, s.d_ff_expert(), of.count].map(|x| x as usize);
        let router = Some(self.linear(&named("router"), count, c, s.mlp_bias, Split::Whole));
        let correction = of.routing.corrected.then(|| self.push(named("correction"), 1, count, Start::Zero));
        if let Some(c) = correction {
            self.0[c].fixed = true;
        }
        let (inner, (rank, ranks)) = (s.activation.inner(f), s.part().experts);
        // Of some experts all, or of all a stretch of their width.
        let here = count / ranks;
        let some = |each: usize| Split::Rows(Rows::neighbours(rank * here * each, here * each));
        let spread = (ranks > 1).then(|| [some(inner), some(c)]);
        let [of_up, of_down] = spread.unwrap_or([outputs(s, f), inputs(s.part(), f)]);
        let up = self.linear(&named("up"), here * inner, c, s.mlp_bias, of_up);
        let down = self.linear(&named("down"), here * c, f, s.mlp_bias, of_down);
        [up, down].iter().for_each(|l| self.0[l.weight].matrices = here);
        let names = ["shared_up", "shared_down"];
        let shared = (of.shared > 0).then(|| self.feed_forward(names.map(named), s, s.d_ff_shared()));
        FeedForward { router, correction, up_down: [up, down], shared }
    }

    fn qk_norm(&mut self, name: &str, s: &Shape, parts: &Parts) -> Option<[usize; 2]> {
        let [q, k] = match parts.qk_norm {
            QkNorm::None => return None,
            QkNorm::Head => [s.head_dim; 2],
            QkNorm::Whole => [s.d_attn(), s.d_kv()],
        };
        let places = [among_all(s.part()), among_kv_heads(s.part())];
        let mut of = |name: String, len: u32, place: Place| {
            let gain = self.norm(&name, len as usize, parts.norm)?.gain;
            if parts.qk_norm == QkNorm::Whole {
                self.0[gain].split = Split::Rows(Rows::new([(len as usize, place), NOTHING, NOTHING]));
            }
            Some(gain)
        };
        of(format!("{name}.q"), q, places[0]).zip(of(format!("{name}.k"), k, places[1])).map(|(q, k)| [q, k])
    }
}

impl Index {
    /// The parameters of a shape, or of a rank's part of it ([`Parallel::part_of`](super::super::collective::grid::Parallel::part_of)).
    pub(crate) fn new(s: &Shape) -> Self {
        let mut b = Builder::default();
        let (parts, [c, v]) = (s.parts(), [s.d_model, s.vocab_size].map(|x| x as usize));
        let words = words(s);
        let table = b.push("embedding".into(), v, c, Start::Normal);
        b.0[table].split = words;
        let rows = (s.context + parts.position_offset) as usize;
        let learned = parts.positions == Positions::Learned;
        let positions = learned.then(|| b.push("positions".into(), rows, c, Start::Normal));
        let embedding_norm = parts.embedding_norm.then(|| b.norm("embedding_norm", c, parts.norm)).flatten();
        let mut bounds = vec![b.0.len()];
        let one = |l: usize| {
            let layer = b.layer(l, s);
            bounds.push(b.0.len());
            layer
        };
        let layers = (0..s.n_layers as usize).map(one).collect();
        let last_norm = b.norm("last_norm", c, parts.norm);
        let own_head = s.has_vocabulary_head() && !s.tied_embeddings;
        let own_head = own_head.then(|| b.push("head".into(), v, c, Start::Normal));
        own_head.into_iter().for_each(|head| b.0[head].split = words);
        let head = own_head.or(s.has_vocabulary_head().then_some(table));
        let stage = Stage::whole(s.n_layers as usize);
        Self { specs: b.0, table, positions, embedding_norm, layers, bounds, last_norm, head, stage }
    }

    /// The same list for one stage of a pipeline: of what it has not, nothing but the place in the list is left. A tied table has the
    /// first stage, as the embedding, and the last, as the head.
    pub(crate) fn of_stage(s: &Shape, stage: Stage) -> Self {
        let mut index = Self { stage, ..Self::new(s) };
        for i in 0..index.specs.len() {
            if !index.has(i) {
                index.specs[i].rows = 0;
            }
        }
        index
    }

    /// Whether the stage has this parameter.
    fn has(&self, parameter: usize) -> bool {
        let (stage, layers, own) = (&self.stage, self.of_layers(), self.stage.layers());
        if layers.contains(&parameter) {
            return (self.bounds[own.start]..self.bounds[own.end]).contains(&parameter);
        }
        let before = parameter < layers.start;
        (before && stage.is_first()) || (stage.is_last() && (!before || self.head == Some(parameter)))
    }

    /// The parameters of one layer, which stand together.
    pub(crate) fn of_layer(&self, layer: usize) -> Range<usize> {
        self.bounds[layer]..self.bounds[layer + 1]
    }

    /// The parameters of all layers.
    pub(crate) fn of_layers(&self) -> Range<usize> {
        self.bounds[0]..self.bounds[self.layers.len()]
    }

    /// Those of a layer's that each expert has of its own, which stand together; none in a layer without.
    pub(crate) fn of_experts(&self, layer: usize) -> Range<usize> {
        let l = &self.layers[layer];
        l.router.map_or(0..0, |_| l.up.weight..l.down.bias.unwrap_or(l.down.weight) + 1)
    }

    /// The layer whose parameters these are; none of what stands before and after the layers.
    pub(crate) fn layer_of(&self, parameters: &Range<usize>) -> Option<usize> {
        (0..self.layers.len()).find(|layer| self.of_layer(*layer) == *parameters)
    }

    /// Neighbouring parameters of one layer, or of what stands before or after the layers: in the order in which a backward pass has
    /// their gradients.
    pub(crate) fn buckets(&self) -> impl Iterator<Item = Range<usize>> {
        let layers = self.stage.layers().rev().map(|l| self.of_layer(l));
        layers.chain(self.around_layers().into_iter().filter(|r| !r.is_empty()))
    }

    /// What stands before the layers, and what stands after them; empty where the stage has nothing of it.
    pub(crate) fn around_layers(&self) -> [Range<usize>; 2] {
        let all = self.of_layers();
        let holds = |r: &Range<usize>| self.specs[r.clone()].iter().any(|s| s.len() > 0);
        [0..all.start, all.end..self.specs.len()].map(|r| if holds(&r) { r } else { 0..0 })
    }

    /// Whether the embedding's gradient is first written by the tied head.
    pub(crate) fn tied(&self) -> bool {
        self.head == Some(self.table) && self.stage.is_last()
    }

    /// Whether the table is another stage's too, so that its gradients are still to be added up.
    pub(crate) fn shares_table(&self) -> bool {
        self.head == Some(self.table) && self.stage.is_first() != self.stage.is_last()
    }

    /// How many matrices a parameter is that products multiply by, each as a whole: one, or one an expert. `None` where it is read in
    /// other ways. (The table is such a matrix where embeddings are tied.)
    pub(crate) fn matrices(&self, parameter: usize) -> Option<usize> {
        let spec = &self.specs[parameter];
        let lookup_only = Some(parameter) == self.positions || (parameter == self.table && !self.tied());
        (spec.rows > 1 && !lookup_only && spec.matrices > 0).then_some(spec.matrices)
    }
}
