//! Known models by name.

use crate::transformer::shape::{Family, RopeScaling, Routing, ShapeSpec};
use crate::yaml::{Value, did_you_mean};

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

/// `sizes`: layers, width, heads, kv heads, width of a head, d_ff, vocabulary, context.
fn family(name: &'static str, family: Family, sizes: [u32; 8], parameters: u64) -> Preset {
    let [layers, width, heads, kv, head_dim, ff, vocabulary, context] = sizes;
    let spec = ShapeSpec {
        n_layers: Some(layers),
        d_model: Some(width),
        n_heads: Some(heads),
        n_kv_heads: Some(kv),
        head_dim: Some(head_dim),
        d_ff: Some(ff),
        vocab_size: Some(vocabulary),
        context: Some(context),
        ..ShapeSpec::default()
    };
    Preset { name, family, spec, parameters }
}

fn with(mut p: Preset, change: impl FnOnce(&mut ShapeSpec)) -> Preset {
    change(&mut p.spec);
    p
}

/// Gemma 2's caps and window.
fn gemma_2(name: &'static str, sizes: [u32; 8], scalar: f32, parameters: u64) -> Preset {
    let mut parts = Family::Gemma2.parts().clone();
    (parts.score_cap, parts.logit_cap) = (Some(50.0), Some(30.0));
    parts.score_scale = Some(1.0 / scalar.sqrt()).filter(|_| scalar != sizes[4] as f32);
    with(family(name, Family::Gemma2, sizes, parameters), |s| {
        s.norm_eps = Some(1e-6);
        s.window = Some(4096);
        s.parts = Some(parts);
    })
}

fn qwen(name: &'static str, of: Family, sizes: [u32; 8], tied: bool, parameters: u64) -> Preset {
    with(family(name, of, sizes, parameters), |s| {
        s.norm_eps = Some(1e-6);
        s.rope_theta = Some(1e6);
        s.tied_embeddings = Some(tied);
        if of == Family::Qwen2 {
            (s.qkv_bias, s.attn_out_bias) = (Some(true), Some(false));
        }
    })
}

fn stretched(mut p: Preset, factor: f32) -> Preset {
    p.spec.rope_scaling =
        Some(RopeScaling::Llama3 { factor, low_freq_factor: 1.0, high_freq_factor: 4.0, original_context: 8192 });
    p
}

/// Latents, experts and hotter scores of DeepSeek's models. `sizes`: layers, width, heads, d_ff, d_ff of an expert, experts, experts a
/// token, layers without experts, vocabulary, context; `yarn`: factor, and by how much the logarithm of it makes scores hotter.
fn deepseek(name: &'static str, of: Family, sizes: [u32; 10], (factor, hotter): (f32, f32), parameters: u64) -> Preset {
    let [layers, width, heads, ff, expert, experts, each, dense, vocabulary, context] = sizes;
    let sizes = [layers, width, heads, heads, 0, ff, vocabulary, context];
    let hotter = 1.0 + hotter * factor.ln();
    let mut parts = of.parts().clone();
    // Of the two parts of a head, 128 and 64.
    parts.score_scale = Some(hotter * hotter / 192f32.sqrt());
    with(family(name, of, sizes, parameters), |s| {
        s.head_dim = None;
        (s.norm_eps, s.parts) = (Some(1e-6), Some(parts));
        (s.n_experts, s.experts_per_token, s.d_ff_expert) = (Some(experts), Some(each), Some(expert));
        s.first_dense_layers = Some(dense);
        s.rope_scaling = Some(RopeScaling::Yarn {
            factor,
            beta_fast: 32.0,
            beta_slow: 1.0,
            original_context: 4096,
            truncate: true,
            attention_factor: 1.0,
        });
    })
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
        with(family("mistral-7b", Family::Mistral, [32, 4096, 32, 8, 128, 14336, 32768, 32768], 7_248_023_552), |s| {
            s.rope_theta = Some(1e6)
        }),
        qwen("qwen2.5-7b", Family::Qwen2, [28, 3584, 28, 4, 128, 18944, 152_064, 32768], false, 7_615_616_512),
        qwen("qwen2.5-32b", Family::Qwen2, [64, 5120, 40, 8, 128, 27648, 152_064, 32768], false, 32_763_876_352),
        qwen("qwen3-0.6b", Family::Qwen3, [28, 1024, 16, 8, 128, 3072, 151_936, 40960], true, 596_049_920),
        qwen("qwen3-8b", Family::Qwen3, [36, 4096, 32, 8, 128, 12288, 151_936, 40960], false, 8_190_735_360),
        qwen("qwen3-32b", Family::Qwen3, [64, 5120, 64, 8, 128, 25600, 151_936, 40960], false, 32_762_123_264),
        gemma_2("gemma-2-2b", [26, 2304, 8, 4, 256, 9216, 256_000, 8192], 256.0, 2_614_341_888),
        gemma_2("gemma-2-9b", [42, 3584, 16, 8, 256, 14336, 256_000, 8192], 256.0, 9_241_705_984),
        gemma_2("gemma-2-27b", [46, 4608, 32, 16, 128, 36864, 256_000, 8192], 144.0, 27_227_128_320),
        deepseek(
            "deepseek-v2-lite",
            Family::DeepseekV2,
            [27, 2048, 16, 10944, 1408, 64, 6, 1, 102_400, 163_840],
            (40.0, 0.0707),
            15_706_484_224,
        ),
        deepseek(
            "deepseek-v3",
            Family::DeepseekV3,
            [61, 7168, 128, 18432, 2048, 256, 8, 3, 129_280, 163_840],
            (40.0, 0.1),
            671_026_419_200,
        ),
        with(
            deepseek(
                "kimi-k2",
                Family::DeepseekV3,
                [61, 7168, 64, 18432, 2048, 384, 8, 1, 163_840, 131_072],
                (32.0, 0.1),
                1_026_408_232_448,
            ),
            |s| {
                s.rope_theta = Some(5e4);
                let by = Family::DeepseekV3.routing();
                s.routing = Some(Routing { groups: 1, groups_per_token: 1, scale: 2.827, ..by });
            },
        ),
        Preset { name: "article-block", family: Family::Block, spec: ShapeSpec::default(), parameters: 16_537_600 },
    ]
}

/// The preset that a value names.
///
/// # Errors
/// The nearest names that there are.
pub(super) fn named(v: &Value) -> Result<String, String> {
    let (name, all) = (v.to_string(), all());
    match all.iter().find(|p| p.name == name) {
        Some(p) => Ok(p.name.into()),
        None => {
            Err(format!("`{name}` is unknown; {}", did_you_mean(&name, all.iter().map(|p| p.name), std::iter::empty())))
        }
    }
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
