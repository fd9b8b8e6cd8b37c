//! Where a foreign parameter stands in ours: Hugging Face's GPT-2 and Llama, and Keras's block.

use super::super::pass::model::{Index, LayerIndex, Linear, Norm};
use super::super::shape::{Family, Shape};
use std::collections::BTreeMap;

/// A foreign tensor is these rows of our parameter, or their transpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub parameter: usize,
    /// First row of ours (of a bias: first element).
    pub row: usize,
    /// Rows of ours (of a bias: elements).
    pub rows: usize,
    /// Columns of ours (of a bias: 1).
    pub columns: usize,
    /// The file holds `[columns, rows]`.
    pub transposed: bool,
}

impl Place {
    /// Numbers in the tensor.
    pub(super) fn len(&self) -> usize {
        self.rows * self.columns
    }

    /// Where element `i` of the foreign tensor stands in our parameter.
    pub(super) fn position(&self, i: usize) -> usize {
        let (row, column) =
            if self.transposed { (i % self.rows, i / self.rows) } else { (i / self.columns, i % self.columns) };
        (self.row + row) * self.columns + column
    }
}

struct Names<'a> {
    index: &'a Index,
    places: BTreeMap<String, Place>,
    transposed: bool,
}

impl Names<'_> {
    fn whole(&mut self, name: &str, parameter: usize) {
        let spec = &self.index.specs[parameter];
        let (rows, columns) = if spec.rows == 1 { (spec.columns, 1) } else { (spec.rows, spec.columns) };
        self.places.insert(name.into(), Place { parameter, row: 0, rows, columns, transposed: false });
    }

    /// Rows of a linear layer's weight, and the same stretch of its bias.
    fn part(&mut self, names: [&str; 2], l: &Linear, row: usize, rows: usize) {
        let columns = self.index.specs[l.weight].columns;
        let transposed = self.transposed;
        self.places.insert(names[0].into(), Place { parameter: l.weight, row, rows, columns, transposed });
        if let Some(parameter) = l.bias {
            self.places.insert(names[1].into(), Place { parameter, row, rows, columns: 1, transposed: false });
        }
    }

    fn linear(&mut self, name: &str, l: &Linear) {
        let rows = self.index.specs[l.weight].rows;
        self.part([&format!("{name}.weight"), &format!("{name}.bias")], l, 0, rows);
    }

    fn norm(&mut self, name: &str, norm: Option<&Norm>) {
        let Some(n) = norm else { return };
        self.whole(&format!("{name}.weight"), n.gain);
        if let Some(b) = n.bias {
            self.whole(&format!("{name}.bias"), b);
        }
    }
}

/// The foreign names of every parameter of a shape.
pub(super) fn places(s: &Shape, index: &Index) -> BTreeMap<String, Place> {
    let transposed = s.family != Family::Llama;
    let mut n = Names { index, places: BTreeMap::new(), transposed };
    match s.family {
        Family::Gpt2 => gpt2(&mut n, index),
        Family::Llama => llama(&mut n, s, index),
        Family::Block => block(&mut n, s, index),
    }
    n.places
}

fn gpt2(n: &mut Names, index: &Index) {
    n.whole("transformer.wte.weight", index.table);
    if let Some(p) = index.positions {
        n.whole("transformer.wpe.weight", p);
    }
    for (l, layer) in index.layers.iter().enumerate() {
        let h = format!("transformer.h.{l}");
        n.norm(&format!("{h}.ln_1"), layer.norm1.as_ref());
        n.linear(&format!("{h}.attn.c_attn"), &layer.qkv);
        n.linear(&format!("{h}.attn.c_proj"), &layer.out);
        n.norm(&format!("{h}.ln_2"), layer.norm2.as_ref());
        n.linear(&format!("{h}.mlp.c_fc"), &layer.up);
        n.linear(&format!("{h}.mlp.c_proj"), &layer.down);
    }
    n.norm("transformer.ln_f", index.last_norm.as_ref());
    if let (Some(head), false) = (index.head, index.tied()) {
        n.whole("lm_head.weight", head);
    }
}

fn llama(n: &mut Names, s: &Shape, index: &Index) {
    n.whole("model.embed_tokens.weight", index.table);
    for (l, layer) in index.layers.iter().enumerate() {
        let h = format!("model.layers.{l}");
        n.norm(&format!("{h}.input_layernorm"), layer.norm1.as_ref());
        qkv(n, s, layer, |part| {
            [format!("{h}.self_attn.{}_proj.weight", &part[..1]), format!("{h}.self_attn.{}_proj.bias", &part[..1])]
        });
        n.linear(&format!("{h}.self_attn.o_proj"), &layer.out);
        n.norm(&format!("{h}.post_attention_layernorm"), layer.norm2.as_ref());
        let f = s.d_ff as usize;
        for (i, part) in ["gate_proj", "up_proj"].into_iter().enumerate() {
            let name = format!("{h}.mlp.{part}");
            n.part([&format!("{name}.weight"), &format!("{name}.bias")], &layer.up, i * f, f);
        }
        n.linear(&format!("{h}.mlp.down_proj"), &layer.down);
    }
    n.norm("model.norm", index.last_norm.as_ref());
    if let (Some(head), false) = (index.head, index.tied()) {
        n.whole("lm_head.weight", head);
    }
}

fn block(n: &mut Names, s: &Shape, index: &Index) {
    n.whole("embedding/embeddings", index.table);
    for (l, layer) in index.layers.iter().enumerate() {
        // Keras numbers the second layer of a kind `_1`.
        let numbered = |name: &str| if l == 0 { name.to_string() } else { format!("{name}_{l}") };
        let attention = numbered("attention");
        qkv(n, s, layer, |part| [format!("{attention}/{part}/kernel"), format!("{attention}/{part}/bias")]);
        for (name, linear) in [
            (format!("{attention}/attention_output"), &layer.out),
            (numbered("hidden"), &layer.up),
            (numbered("out"), &layer.down),
        ] {
            let rows = index.specs[linear.weight].rows;
            n.part([&format!("{name}/kernel"), &format!("{name}/bias")], linear, 0, rows);
        }
    }
}

fn qkv(n: &mut Names, s: &Shape, layer: &LayerIndex, name: impl Fn(&str) -> [String; 2]) {
    let (a, kv) = (s.d_attn() as usize, s.d_kv() as usize);
    for (part, row, rows) in [("query", 0, a), ("key", a, kv), ("value", a + kv, kv)] {
        let [weight, bias] = name(part);
        n.part([&weight, &bias], &layer.qkv, row, rows);
    }
}
