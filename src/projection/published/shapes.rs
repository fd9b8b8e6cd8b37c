//! The model of a row: its sizes, its experts as notes tell of them, and sizes of public models that rows only name.

use super::row::Row;
use crate::projection::model::{Attending, Experts, Model};

/// A public model whose sizes its makers' configuration gives.
struct Known {
    /// How names begin that mean it, letters and digits alone in lower case.
    named: &'static [&'static str],
    /// Layers, width, heads, heads of keys, width of a head, of the feed-forward (one expert's), vocabulary.
    sizes: [f64; 7],
    parameters: f64,
    /// Experts, those a token passes, shared width, layers without experts, their width.
    experts: Option<[f64; 5]>,
    latent: Option<f64>,
    /// Window, and the layers that have it.
    window: Option<(f64, f64)>,
}

const fn dense(named: &'static [&'static str], sizes: [f64; 7], parameters: f64) -> Known {
    Known { named, sizes, parameters, experts: None, latent: None, window: None }
}

const fn mixed(named: &'static [&'static str], sizes: [f64; 7], parameters: f64, experts: [f64; 5]) -> Known {
    Known { named, sizes, parameters, experts: Some(experts), latent: None, window: None }
}

/// From the configurations that their makers publish with the weights. Longer names before the shorter that they begin with.
const KNOWN: &[Known] = &[
    Known {
        latent: Some(576.0),
        ..mixed(
            &["deepseekv3", "deepseekr1"],
            [61.0, 7168.0, 128.0, 128.0, 128.0, 2048.0, 129_280.0],
            671.0e9,
            [256.0, 8.0, 2048.0, 3.0, 18_432.0],
        )
    },
    Known {
        latent: Some(576.0),
        ..mixed(
            &["deepseekv2lite"],
            [27.0, 2048.0, 16.0, 16.0, 128.0, 1408.0, 102_400.0],
            15.7e9,
            [64.0, 6.0, 2816.0, 1.0, 10_944.0],
        )
    },
    Known {
        latent: Some(576.0),
        ..mixed(
            &["deepseekv2"],
            [60.0, 5120.0, 128.0, 128.0, 128.0, 1536.0, 102_400.0],
            236.0e9,
            [160.0, 6.0, 3072.0, 1.0, 12_288.0],
        )
    },
    Known {
        latent: Some(576.0),
        ..mixed(
            &["kimik2"],
            [61.0, 7168.0, 64.0, 64.0, 128.0, 2048.0, 163_840.0],
            1026.0e9,
            [384.0, 8.0, 2048.0, 1.0, 18_432.0],
        )
    },
    Known {
        window: Some((128.0, 18.0)),
        ..mixed(
            &["gptoss120b"],
            [36.0, 2880.0, 64.0, 8.0, 64.0, 2880.0, 201_088.0],
            116.8e9,
            [128.0, 4.0, 0.0, 0.0, 0.0],
        )
    },
    Known {
        window: Some((128.0, 12.0)),
        ..mixed(&["gptoss20b"], [24.0, 2880.0, 64.0, 8.0, 64.0, 2880.0, 201_088.0], 20.9e9, [32.0, 4.0, 0.0, 0.0, 0.0])
    },
    mixed(
        &["qwen330ba3b", "qwen3coder30ba3b"],
        [48.0, 2048.0, 32.0, 4.0, 128.0, 768.0, 151_936.0],
        30.5e9,
        [128.0, 8.0, 0.0, 0.0, 0.0],
    ),
    mixed(
        &["qwen3235ba22b"],
        [94.0, 4096.0, 64.0, 4.0, 128.0, 1536.0, 151_936.0],
        235.1e9,
        [128.0, 8.0, 0.0, 0.0, 0.0],
    ),
    mixed(
        &["qwen257ba14b"],
        [28.0, 3584.0, 28.0, 4.0, 128.0, 2560.0, 151_936.0],
        57.4e9,
        [64.0, 8.0, 20_480.0, 0.0, 0.0],
    ),
    mixed(&["mixtral8x7b"], [32.0, 4096.0, 32.0, 8.0, 128.0, 14_336.0, 32_000.0], 46.7e9, [8.0, 2.0, 0.0, 0.0, 0.0]),
    mixed(&["mixtral8x22b"], [56.0, 6144.0, 48.0, 8.0, 128.0, 16_384.0, 32_768.0], 140.6e9, [8.0, 2.0, 0.0, 0.0, 0.0]),
    mixed(
        &["llama4scout"],
        [48.0, 5120.0, 40.0, 8.0, 128.0, 8192.0, 202_048.0],
        107.8e9,
        [16.0, 1.0, 8192.0, 0.0, 0.0],
    ),
    mixed(
        &["llama4maverick"],
        [48.0, 5120.0, 40.0, 8.0, 128.0, 8192.0, 202_048.0],
        400.7e9,
        [128.0, 1.0, 8192.0, 24.0, 16_384.0],
    ),
    mixed(&["olmoe"], [16.0, 2048.0, 16.0, 16.0, 128.0, 1024.0, 50_304.0], 6.9e9, [64.0, 8.0, 0.0, 0.0, 0.0]),
    mixed(&["dbrx"], [40.0, 6144.0, 48.0, 8.0, 128.0, 10_752.0, 100_352.0], 131.6e9, [16.0, 4.0, 0.0, 0.0, 0.0]),
    mixed(&["grok1"], [64.0, 6144.0, 48.0, 8.0, 128.0, 32_768.0, 131_072.0], 314.0e9, [8.0, 2.0, 0.0, 0.0, 0.0]),
    mixed(
        &["glm45air"],
        [46.0, 4096.0, 96.0, 8.0, 128.0, 1408.0, 151_552.0],
        106.0e9,
        [128.0, 8.0, 1408.0, 1.0, 10_944.0],
    ),
    mixed(
        &["glm45"],
        [92.0, 5120.0, 96.0, 8.0, 128.0, 1536.0, 151_552.0],
        355.0e9,
        [160.0, 8.0, 1536.0, 3.0, 12_288.0],
    ),
    dense(&["llama27b", "llama7b"], [32.0, 4096.0, 32.0, 32.0, 128.0, 11_008.0, 32_000.0], 6.74e9),
    dense(&["llama213b", "llama13b"], [40.0, 5120.0, 40.0, 40.0, 128.0, 13_824.0, 32_000.0], 13.02e9),
    dense(&["llama270b"], [80.0, 8192.0, 64.0, 8.0, 128.0, 28_672.0, 32_000.0], 68.98e9),
    dense(&["llama38b", "llama318b"], [32.0, 4096.0, 32.0, 8.0, 128.0, 14_336.0, 128_256.0], 8.03e9),
    dense(&["llama370b", "llama3170b", "llama3370b"], [80.0, 8192.0, 64.0, 8.0, 128.0, 28_672.0, 128_256.0], 70.55e9),
    dense(&["llama31405b", "llama3405b"], [126.0, 16_384.0, 128.0, 8.0, 128.0, 53_248.0, 128_256.0], 405.85e9),
    dense(&["mistral7b"], [32.0, 4096.0, 32.0, 8.0, 128.0, 14_336.0, 32_000.0], 7.24e9),
    dense(&["gpt3175b", "gpt3"], [96.0, 12_288.0, 96.0, 96.0, 128.0, 49_152.0, 50_257.0], 175.0e9),
];

/// Tokens that most layers of Gemma 3 look back.
const GEMMA_WINDOW: f64 = 1024.0;
/// Parameters that a shape may miss or exceed, as a factor, before it is taken to be of another kind of model.
const OFF: f64 = 1.35;

/// The model that a row names or describes; where only the number of parameters is given, one of GPT-3's proportions.
pub(super) fn model(row: &Row, columns: [&str; 7], assumed: &mut Vec<&'static str>) -> Result<Model, String> {
    let name: String = row.lower("model").chars().filter(|c| c.is_alphanumeric()).collect();
    let remarks = row.remarks();
    if remarks.contains("mamba") || name.contains("nemotron3") || name.contains("nemotronh") {
        return Err("a hybrid of attention and state-space layers, which is not modelled".into());
    }
    let params = row.number("params");
    let known = KNOWN.iter().find(|k| k.named.iter().any(|n| name.starts_with(n)));
    let Ok(sizes) = sizes(row, columns, &remarks) else {
        return match (known, params) {
            (Some(k), _) => Ok(k.model()),
            (None, Some(n)) => {
                assumed.push("shape");
                Ok(Model::of_parameters(n, row.number("vocab").unwrap_or(50_304.0)))
            }
            (None, None) => Err("the model's shape is not given".into()),
        };
    };
    if let Some(experts) = experts(&remarks, sizes) {
        return Ok(Model::with_experts(sizes, params, Some(experts), attending(&remarks, sizes[0])));
    }
    let plain = Model::with_experts(sizes, params, None, attending(&remarks, sizes[0]));
    // One table is counted, and there may be two.
    let counted = plain.matrix_parameters();
    let another = params.is_some_and(|p| p > OFF * counted + plain.table_parameters() || p < counted / OFF);
    let ranks = row.number("ep").is_some_and(|n| n > 1.0);
    match (another || ranks, known) {
        (false, _) => Ok(plain),
        (true, Some(k)) => Ok(k.model()),
        (true, None) => named_experts(row, sizes, params).ok_or_else(|| {
            "the shape does not amount to the stated parameters: a mixture of experts whose number is not given, or a slip".into()
        }),
    }
}

impl Known {
    fn model(&self) -> Model {
        let experts = self.experts.map(|[count, active, shared_width, without, dense_width]| Experts {
            count,
            active,
            shared_width,
            layers: self.sizes[0] - without,
            dense_width,
        });
        let (window, windowed_layers) = self.window.unwrap_or((0.0, 0.0));
        let attending = Attending { latent: self.latent, latent_weights: None, window, windowed_layers };
        Model::with_experts(self.sizes, Some(self.parameters), experts, attending)
    }
}

fn sizes(row: &Row, columns: [&str; 7], remarks: &str) -> Result<[f64; 7], String> {
    let [layers, d_model, heads, kv, head_dim, d_ff, vocab] = columns;
    let (l, d) = (row.need(layers)?, row.need(d_model)?);
    // Heads of 128 where their number is not said.
    let h = row.number(heads).unwrap_or((d / 128.0).max(1.0));
    let own = |column: &str, otherwise: f64| row.number(column).unwrap_or(otherwise);
    let width = number_after(remarks, "head_dim ").unwrap_or(d / h);
    Ok([l, d, h, own(kv, h), own(head_dim, width), own(d_ff, 4.0 * d), own(vocab, 50257.0)])
}

/// "moe: experts 256, top-k 8, ...; 1 shared expert, first 3 layers dense (18432)".
fn experts(remarks: &str, sizes: [f64; 7]) -> Option<Experts> {
    let (layers, d_ff) = (sizes[0], sizes[5]);
    let count = number_after(remarks, "experts ")?;
    let active = number_after(remarks, "top-k ").or(number_after(remarks, "top "))?;
    let shared = if let Some(width) = number_after(remarks, "shared expert of ") {
        width
    } else if remarks.contains("shared expert") || remarks.contains("shared)") {
        let n = number_before(remarks, " shared").or(number_after(remarks, "(+")).unwrap_or(1.0);
        n * d_ff
    } else {
        0.0
    };
    let without = match number_after(remarks, "first ") {
        Some(n) if remarks.contains("layers dense") || remarks.contains("layer dense") => n,
        _ if remarks.contains("first layer dense") => 1.0,
        _ if remarks.contains("every other layer") && remarks.contains("moe ffn") => layers / 2.0,
        _ => 0.0,
    };
    let dense_width = number_after(remarks, "dense (").unwrap_or(if without > 0.0 { d_ff } else { 0.0 });
    Some(Experts { count, active, shared_width: shared, layers: layers - without, dense_width })
}

/// Where experts are parallel and only the parameters tell how many there are ("OLMoE-like-64E").
fn named_experts(row: &Row, sizes: [f64; 7], params: Option<f64>) -> Option<Model> {
    let name = row.lower("model");
    let count = name.split(|c: char| !c.is_alphanumeric()).find_map(|w| w.strip_suffix('e')?.parse::<f64>().ok())?;
    // Published mixtures with so many experts pass 8 of them a token, those with fewer 2.
    let active = if count >= 32.0 { 8.0 } else { 2.0 };
    let experts = Experts { count, active, shared_width: 0.0, layers: sizes[0], dense_width: 0.0 };
    Some(Model::with_experts(sizes, params, Some(experts), Attending::default()))
}

fn attending(remarks: &str, layers: f64) -> Attending {
    let latent = if remarks.contains("mla") {
        number_after(remarks, "kv cache is ").or(number_after(remarks, "kv rank ").map(|r| r + 64.0)).or(Some(576.0))
    } else {
        None
    };
    let most = remarks.contains("sliding-window attention in 5 of 6 layers");
    let window = number_after(remarks, "sliding-window attention (").or(most.then_some(GEMMA_WINDOW));
    Attending {
        latent,
        latent_weights: None,
        window: window.unwrap_or(0.0),
        windowed_layers: match window {
            Some(_) if remarks.contains("every other layer") => layers / 2.0,
            Some(_) if most => layers * 5.0 / 6.0,
            Some(_) => layers,
            None => 0.0,
        },
    }
}

fn number_after(text: &str, word: &str) -> Option<f64> {
    let after = text.split_once(word)?.1.trim_start();
    let digits: String = after.chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect();
    digits.trim_end_matches('.').parse().ok()
}

fn number_before(text: &str, word: &str) -> Option<f64> {
    let before = text.split_once(word)?.0.trim_end();
    let digits: String = before.chars().rev().take_while(char::is_ascii_digit).collect();
    digits.chars().rev().collect::<String>().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn public_models_have_the_parameters_that_their_makers_state() {
        for k in KNOWN {
            let counted = Model { parameters: 0.0, ..k.model() };
            let tables = if counted.tied { 0.0 } else { counted.table_parameters() };
            let all = counted.matrix_parameters() + tables;
            assert!((all / k.parameters).ln().abs() < 0.04, "{:?}: {all} of {}", k.named, k.parameters);
        }
    }

    #[test]
    fn notes_tell_of_experts() {
        let notes = "moe: experts 256, top-k 8, active 37b; d_ff = one expert; 1 shared expert, first 3 layers dense (18432); \
                     mla: kv cache is 576 values per token per layer";
        let sizes = [61.0, 7168.0, 128.0, 128.0, 128.0, 2048.0, 129_280.0];
        let e = experts(notes, sizes).unwrap();
        assert_eq!((e.count, e.active, e.shared_width, e.layers, e.dense_width), (256.0, 8.0, 2048.0, 58.0, 18432.0));
        assert_eq!(attending(notes, 61.0).latent, Some(576.0));
        let oss =
            attending("sliding-window attention (128) in every other layer; head_dim 64 (not d_model/heads)", 24.0);
        assert_eq!((oss.window, oss.windowed_layers, oss.latent), (128.0, 12.0, None));
        let gemma = attending("sliding-window attention in 5 of 6 layers; head_dim 256", 30.0);
        assert_eq!((gemma.window, gemma.windowed_layers), (1024.0, 25.0));
        let shared = experts("moe: experts 64, top-k 8, active 14b; plus shared expert of 20480", sizes).unwrap();
        assert_eq!(shared.shared_width, 20480.0);
        assert_eq!(experts("nothing of that", sizes), None);
    }
}
