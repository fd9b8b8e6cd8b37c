//! Known models by name.

use crate::transformer::shape::{Family, RopeScaling, ShapeSpec};

/// Sizes of a known model.
#[derive(Clone, Debug)]
pub(super) struct Preset {
    pub name: &'static str,
    pub family: Family,
    pub spec: ShapeSpec,
    /// Parameters as published: what the sizes are held against.
    #[cfg_attr(not(test), expect(dead_code, reason = "only the test that holds the sizes reads it"))]
    pub parameters: u64,
}

fn gpt2(name: &'static str, layers: u32, width: u32, heads: u32, context: u32, parameters: u64) -> Preset {
    let spec = ShapeSpec {
        n_layers: Some(layers),
        d_model: Some(width),
        n_heads: Some(heads),
        context: Some(context),
        vocab_size: Some(50257),
        ..ShapeSpec::default()
    };
    Preset { name, family: Family::Gpt2, spec, parameters }
}

/// `sizes`: layers, width, heads, kv heads, d_ff, vocabulary, context.
fn llama(name: &'static str, sizes: [u32; 7], theta: f32, tied: bool, parameters: u64) -> Preset {
    let [layers, width, heads, kv, ff, vocabulary, context] = sizes;
    let spec = ShapeSpec {
        n_layers: Some(layers),
        d_model: Some(width),
        n_heads: Some(heads),
        n_kv_heads: Some(kv),
        d_ff: Some(ff),
        vocab_size: Some(vocabulary),
        context: Some(context),
        tied_embeddings: Some(tied),
        rope_theta: Some(theta),
        ..ShapeSpec::default()
    };
    Preset { name, family: Family::Llama, spec, parameters }
}

fn stretched(mut p: Preset, factor: f32) -> Preset {
    p.spec.rope_scaling =
        Some(RopeScaling { factor, low_freq_factor: 1.0, high_freq_factor: 4.0, original_context: 8192 });
    p
}

/// All presets.
pub(super) fn all() -> Vec<Preset> {
    vec![
        gpt2("gpt2", 12, 768, 12, 1024, 124_439_808),
        gpt2("gpt2-medium", 24, 1024, 16, 1024, 354_823_168),
        gpt2("gpt2-large", 36, 1280, 20, 1024, 774_030_080),
        gpt2("gpt2-xl", 48, 1600, 25, 1024, 1_557_611_200),
        gpt2("gpt3-175b", 96, 12288, 96, 2048, 174_604_259_328),
        llama("llama-2-7b", [32, 4096, 32, 32, 11008, 32000, 4096], 1e4, false, 6_738_415_616),
        llama("llama-2-13b", [40, 5120, 40, 40, 13824, 32000, 4096], 1e4, false, 13_015_864_320),
        llama("llama-2-70b", [80, 8192, 64, 8, 28672, 32000, 4096], 1e4, false, 68_976_648_192),
        llama("llama-3-8b", [32, 4096, 32, 8, 14336, 128_256, 8192], 5e5, false, 8_030_261_248),
        llama("llama-3-70b", [80, 8192, 64, 8, 28672, 128_256, 8192], 5e5, false, 70_553_706_496),
        stretched(llama("llama-3.2-1b", [16, 2048, 32, 8, 8192, 128_256, 131_072], 5e5, true, 1_235_814_400), 32.0),
        stretched(llama("llama-3.2-3b", [28, 3072, 24, 8, 8192, 128_256, 131_072], 5e5, true, 3_212_749_824), 32.0),
        Preset { name: "article-block", family: Family::Block, spec: ShapeSpec::default(), parameters: 16_537_600 },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transformer::shape::{Shape, count};

    #[test]
    fn every_preset_has_its_published_parameters() {
        for p in all() {
            let shape = Shape::new(p.family, &p.spec).unwrap();
            assert_eq!(count::parameters(&shape), Ok(p.parameters), "{}", p.name);
        }
    }
}
