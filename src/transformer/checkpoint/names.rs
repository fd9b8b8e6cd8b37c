//! Where a foreign parameter stands in ours: Hugging Face's families, and Keras's block.

use super::super::pass::model::{Index, LatentIndex, LayerIndex, Linear, Norm};
use super::super::shape::parts::Residual;
use super::super::shape::{Family, Latent, Shape};
use super::place::{ByExperts, ByHeads, Place};
use std::collections::BTreeMap;

struct Names<'a> {
    index: &'a Index,
    places: BTreeMap<String, Place>,
    transposed: bool,
    by_heads: Option<ByHeads>,
}

impl Names<'_> {
    fn whole(&mut self, name: &str, parameter: usize) {
        let spec = &self.index.specs[parameter];
        let (rows, columns) = if spec.rows == 1 { (spec.columns, 1) } else { (spec.rows, spec.columns) };
        self.places.insert(
            name.into(),
            Place { parameter, row: 0, rows, columns, transposed: false, by_heads: None, by_experts: None },
        );
    }

    /// Rows of a linear layer's weight, and the same stretch of its bias.
    fn part(&mut self, names: [&str; 2], l: &Linear, row: usize, rows: usize) {
        let columns = self.index.specs[l.weight].columns;
        let (transposed, by_heads) = (self.transposed, self.by_heads);
        self.places.insert(
            names[0].into(),
            Place { parameter: l.weight, row, rows, columns, transposed, by_heads, by_experts: None },
        );
        if let Some(parameter) = l.bias {
            self.places.insert(
                names[1].into(),
                Place { parameter, row, rows, columns: 1, transposed: false, by_heads, by_experts: None },
            );
        }
    }

    /// Queries, keys and values as one product, head by head.
    fn linear_by_heads(&mut self, name: &str, l: &Linear, s: &Shape) {
        let (kv_heads, queries) = (s.n_kv_heads as usize, (s.n_heads / s.n_kv_heads) as usize);
        self.by_heads = Some(ByHeads::Together { kv_heads, queries, head_dim: s.head_dim as usize });
        self.linear(name, l);
        self.by_heads = None;
    }

    /// Gate and up, each by a name.
    fn gated(&mut self, names: [String; 2], l: &Linear, f: usize) {
        for (i, name) in names.into_iter().enumerate() {
            self.part([&format!("{name}.weight"), &format!("{name}.bias")], l, i * f, f);
        }
    }

    /// All experts' matrices, and their biases `[E, M]`.
    fn experts(&mut self, name: &str, l: &Linear, by: ByExperts) {
        self.part([name, &format!("{name}_bias")], l, 0, self.index.specs[l.weight].rows);
        for name in [name.to_string(), format!("{name}_bias")] {
            if let Some(place) = self.places.get_mut(&name) {
                place.by_experts = Some(by);
            }
        }
    }

    /// The head, where it is no one else's.
    fn head(&mut self, name: &str) {
        if let (Some(head), false) = (self.index.head, self.index.tied()) {
            self.whole(name, head);
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

/// How files have the matrices of a layer's experts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::transformer) enum ExpertNames {
    /// All in one tensor, as Hugging Face's models hold them from version 5 on.
    Together,
    /// Each expert's by names of its own, as files have them.
    Apart,
}

/// The foreign names of every parameter of a shape.
pub(in crate::transformer) fn places(s: &Shape, index: &Index, experts: ExpertNames) -> BTreeMap<String, Place> {
    let transposed = matches!(s.family, Family::Gpt2 | Family::Block);
    let mut n = Names { index, places: BTreeMap::new(), transposed, by_heads: None };
    match s.family {
        Family::Gpt2 => gpt2(&mut n, index),
        Family::Block => block(&mut n, s, index),
        Family::GptNeox => gpt_neox(&mut n, s, index),
        Family::Falcon | Family::Bloom => bloom(&mut n, s, index),
        Family::Opt => opt(&mut n, s, index),
        _ => llama(&mut n, s, index, experts),
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
    n.head("lm_head.weight");
}

/// Llama's names, which most families took over, and what single ones call otherwise.
fn llama(n: &mut Names, s: &Shape, index: &Index, form: ExpertNames) {
    n.whole("model.embed_tokens.weight", index.table);
    let f = s.d_ff as usize;
    for (l, layer) in index.layers.iter().enumerate() {
        let h = format!("model.layers.{l}");
        n.norm(&format!("{h}.input_layernorm"), layer.norm1.as_ref());
        if let (Some(index), Some(sizes)) = (&layer.latent, s.latent) {
            latents(n, &format!("{h}.self_attn"), (layer, index), sizes);
        } else if s.family == Family::Phi3 {
            n.linear(&format!("{h}.self_attn.qkv_proj"), &layer.qkv);
            n.linear(&format!("{h}.mlp.gate_up_proj"), &layer.up);
        } else {
            qkv(n, s, layer, |part| ["weight", "bias"].map(|end| format!("{h}.self_attn.{}_proj.{end}", &part[..1])));
        }
        if let Some(gains) = layer.qk_norm {
            gains
                .into_iter()
                .zip(["q", "k"])
                .for_each(|(gain, of)| n.whole(&format!("{h}.self_attn.{of}_norm.weight"), gain));
        }
        n.linear(&format!("{h}.self_attn.o_proj"), &layer.out);
        // Where norms stand on both sides of a branch, the one before the feed-forward layer is not the one after attention.
        let before = if layer.norm1_after.is_some() { "pre_feedforward_layernorm" } else { "post_attention_layernorm" };
        n.norm(&format!("{h}.{before}"), layer.norm2.as_ref());
        n.norm(&format!("{h}.post_attention_layernorm"), layer.norm1_after.as_ref());
        n.norm(&format!("{h}.post_feedforward_layernorm"), layer.norm2_after.as_ref());
        match s.family {
            Family::Phi3 => n.linear(&format!("{h}.mlp.down_proj"), &layer.down),
            Family::Starcoder2 => {
                n.linear(&format!("{h}.mlp.c_fc"), &layer.up);
                n.linear(&format!("{h}.mlp.c_proj"), &layer.down);
            }
            Family::GptOss => {
                let c = s.d_model as usize;
                n.experts(
                    &format!("{h}.mlp.experts.gate_up_proj"),
                    &layer.up,
                    ByExperts { rows: 2 * f, in_turns: true },
                );
                n.experts(&format!("{h}.mlp.experts.down_proj"), &layer.down, ByExperts { rows: c, in_turns: false });
                if let Some(router) = &layer.router {
                    n.linear(&format!("{h}.mlp.router"), router);
                }
                if let Some(sinks) = layer.sinks {
                    n.whole(&format!("{h}.self_attn.sinks"), sinks);
                }
            }
            _ if layer.router.is_some() => experts(n, &h, s, layer, form),
            _ => {
                n.gated([format!("{h}.mlp.gate_proj"), format!("{h}.mlp.up_proj")], &layer.up, f);
                n.linear(&format!("{h}.mlp.down_proj"), &layer.down);
            }
        }
    }
    n.norm("model.norm", index.last_norm.as_ref());
    n.head("lm_head.weight");
}

/// Experts, each a matrix of the same tensor or one of its own, and those that every token goes through.
fn experts(n: &mut Names, h: &str, s: &Shape, layer: &LayerIndex, form: ExpertNames) {
    let (mlp, parts) = match (form, s.family) {
        (ExpertNames::Apart, Family::Mixtral) => (format!("{h}.block_sparse_moe"), ["w1", "w3", "w2"]),
        _ => (format!("{h}.mlp"), ["gate_proj", "up_proj", "down_proj"]),
    };
    if form == ExpertNames::Together {
        n.whole(&format!("{mlp}.experts.gate_up_proj"), layer.up.weight);
        n.whole(&format!("{mlp}.experts.down_proj"), layer.down.weight);
    } else {
        let (f, c) = (s.d_ff_expert() as usize, s.d_model as usize);
        for e in 0..s.experts.map_or(0, |e| e.count as usize) {
            let mut one = |part: &str, linear: &Linear, row: usize, rows: usize| {
                let name = format!("{mlp}.experts.{e}.{part}");
                n.part([&format!("{name}.weight"), &format!("{name}.bias")], linear, row, rows);
            };
            one(parts[0], &layer.up, 2 * e * f, f);
            one(parts[1], &layer.up, (2 * e + 1) * f, f);
            one(parts[2], &layer.down, e * c, c);
        }
    }
    if let Some(router) = &layer.router {
        n.linear(&format!("{mlp}.gate"), router);
    }
    if let Some(correction) = layer.correction {
        n.whole(&format!("{mlp}.gate.e_score_correction_bias"), correction);
    }
    if let Some([up, down]) = &layer.shared {
        let of = format!("{mlp}.shared_experts");
        n.gated([format!("{of}.gate_proj"), format!("{of}.up_proj")], up, s.d_ff_shared() as usize);
        n.linear(&format!("{of}.down_proj"), down);
    }
}

/// What follows the name of a tensor for those of its rows that make the rotated key of all heads (`file.rs` takes them apart).
pub(in crate::transformer) const ROTATED: &str = ".rotated";

/// The tensor that holds both those rows and those of the latent.
pub(in crate::transformer) const LATENT_AND_ROTATED: &str = "kv_a_proj_with_mqa.weight";

fn latents(n: &mut Names, attention: &str, (layer, index): (&LayerIndex, &LatentIndex), sizes: Latent) {
    let order = |nope: u32| {
        let [nope, rope] = [nope, sizes.rope].map(|x| x as usize);
        Some(ByHeads::RotatedLast { nope, rope, interleaved: sizes.interleaved })
    };
    let queries = if index.queries.is_some() { "q_b_proj" } else { "q_proj" };
    if let Some((down, norm)) = &index.queries {
        n.linear(&format!("{attention}.q_a_proj"), down);
        n.norm(&format!("{attention}.q_a_layernorm"), Some(norm));
    }
    n.norm(&format!("{attention}.kv_a_layernorm"), Some(&index.norm));
    n.linear(&format!("{attention}.kv_b_proj"), &index.up);
    n.whole(&format!("{attention}.{LATENT_AND_ROTATED}"), index.down.weight);
    n.by_heads = order(sizes.nope);
    n.linear(&format!("{attention}.{queries}"), &layer.qkv);
    n.by_heads = order(0);
    let rows = sizes.rope as usize;
    n.part([&format!("{attention}.{LATENT_AND_ROTATED}{ROTATED}"), ""], &index.rotated, 0, rows);
    n.by_heads = None;
}

fn gpt_neox(n: &mut Names, s: &Shape, index: &Index) {
    n.whole("gpt_neox.embed_in.weight", index.table);
    for (l, layer) in index.layers.iter().enumerate() {
        let h = format!("gpt_neox.layers.{l}");
        n.norm(&format!("{h}.input_layernorm"), layer.norm1.as_ref());
        n.norm(&format!("{h}.post_attention_layernorm"), layer.norm2.as_ref());
        n.linear_by_heads(&format!("{h}.attention.query_key_value"), &layer.qkv, s);
        n.linear(&format!("{h}.attention.dense"), &layer.out);
        n.linear(&format!("{h}.mlp.dense_h_to_4h"), &layer.up);
        n.linear(&format!("{h}.mlp.dense_4h_to_h"), &layer.down);
    }
    n.norm("gpt_neox.final_layer_norm", index.last_norm.as_ref());
    // `embed_out` before version 5 of Hugging Face's library; a file has one of the two.
    n.head("lm_head.weight");
}

/// BLOOM's names, and Falcon's.
fn bloom(n: &mut Names, s: &Shape, index: &Index) {
    n.whole("transformer.word_embeddings.weight", index.table);
    n.norm("transformer.word_embeddings_layernorm", index.embedding_norm.as_ref());
    // Falcon's layers of 40 billion parameters and more, whose branches have a norm each.
    let two = s.family == Family::Falcon && s.parts().residual == Residual::Parallel;
    let norms = if two { ["ln_attn", "ln_mlp"] } else { ["input_layernorm", "post_attention_layernorm"] };
    for (l, layer) in index.layers.iter().enumerate() {
        let h = format!("transformer.h.{l}");
        n.norm(&format!("{h}.{}", norms[0]), layer.norm1.as_ref());
        if layer.norm2 != layer.norm1 {
            n.norm(&format!("{h}.{}", norms[1]), layer.norm2.as_ref());
        }
        n.linear_by_heads(&format!("{h}.self_attention.query_key_value"), &layer.qkv, s);
        n.linear(&format!("{h}.self_attention.dense"), &layer.out);
        n.linear(&format!("{h}.mlp.dense_h_to_4h"), &layer.up);
        n.linear(&format!("{h}.mlp.dense_4h_to_h"), &layer.down);
    }
    n.norm("transformer.ln_f", index.last_norm.as_ref());
    n.head("lm_head.weight");
}

fn opt(n: &mut Names, s: &Shape, index: &Index) {
    let d = "model.decoder";
    n.whole(&format!("{d}.embed_tokens.weight"), index.table);
    if let Some(p) = index.positions {
        n.whole(&format!("{d}.embed_positions.weight"), p);
    }
    for (l, layer) in index.layers.iter().enumerate() {
        let h = format!("{d}.layers.{l}");
        n.norm(&format!("{h}.self_attn_layer_norm"), layer.norm1.as_ref());
        qkv(n, s, layer, |part| ["weight", "bias"].map(|end| format!("{h}.self_attn.{}_proj.{end}", &part[..1])));
        n.linear(&format!("{h}.self_attn.out_proj"), &layer.out);
        n.norm(&format!("{h}.final_layer_norm"), layer.norm2.as_ref());
        n.linear(&format!("{h}.fc1"), &layer.up);
        n.linear(&format!("{h}.fc2"), &layer.down);
    }
    n.norm(&format!("{d}.final_layer_norm"), index.last_norm.as_ref());
    n.head("lm_head.weight");
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
