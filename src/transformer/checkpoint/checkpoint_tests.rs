//! Folders made of the golden files: whatever their files' form, the model is the one whose logits the golden file has; and what is
//! wrong with one is said before anything is allocated.

use super::{Checkpoint, CheckpointError};
use crate::transformer::backend::Backend;
use crate::transformer::collective::grid::Parallel;
use crate::transformer::cpu::Cpu;
use crate::transformer::golden::stored::{compare, given, logits_of};
use crate::transformer::golden::tolerance;
use crate::transformer::pass::model::{Index, Numbers};
use crate::transformer::prepare::prepare;
use crate::transformer::session::SessionOptions;
use crate::transformer::shape::Shape;
use crate::transformer::{BackendKind, Dtype, OptimizerKind, Phase, StoredWeights, WeightFormat, Workload};
use folders::{Saved, golden};
use safetensors::Dtype as Format;
use std::path::Path;
use tempfile::{TempDir, tempdir};

#[path = "../../../tests/common/hf_folder.rs"]
mod folders;

const FAMILIES: [&str; 18] = [
    "gpt2",
    "llama-gqa",
    "bloom",
    "falcon",
    "gemma2",
    "gemma3",
    "gpt-neox",
    "gpt-oss",
    "llama-yarn",
    "mistral-window",
    "mixtral",
    "olmo2",
    "opt",
    "phi3",
    "qwen3-moe",
    "qwen3",
    "starcoder2",
    "deepseek-v3",
];

fn cpu() -> Cpu {
    Cpu::new(2, None).unwrap()
}

fn folder(saved: &Saved, format: Format, shards: usize) -> TempDir {
    let folder = tempdir().unwrap();
    saved.write(folder.path(), format, shards);
    folder
}

/// The logits of a folder's model on a golden file's tokens.
fn logits(folder: &Path, name: &str, backend: impl Backend) -> Vec<f32> {
    let stored = Checkpoint::open(folder).unwrap_or_else(|e| panic!("{name}: {e}"));
    let (ids, _) = given(&golden(name), &stored.shape).unwrap();
    logits_of(&stored, backend, &ids).unwrap()
}

fn within(name: &str, ours: &[f32], shape: &Shape, dtype: Dtype, weights: WeightFormat) {
    let (_, theirs) = given(&golden(name), shape).unwrap();
    let (group, allowed) = (compare(ours, &theirs), tolerance(dtype, weights, shape));
    assert!(group.passes(allowed), "{name}: {} over {allowed}", group.error);
}

#[test]
fn every_family_is_read_from_one_file_and_from_several() {
    for name in FAMILIES {
        let saved = Saved::of(name);
        let whole = folder(&saved, Format::F32, 1);
        let ours = logits(whole.path(), name, cpu());
        let shape = Checkpoint::open(whole.path()).unwrap().shape;
        within(name, &ours, &shape, Dtype::F32, WeightFormat::Dtype);
        let sharded = folder(&saved, Format::F32, 3);
        assert_eq!(logits(sharded.path(), name, cpu()), ours, "{name} in three files");
    }
}

#[test]
fn formats_of_16_bits_are_read_as_they_are() {
    for name in FAMILIES {
        for (format, dtype) in [(Format::BF16, Dtype::Bf16), (Format::F16, Dtype::Tf32)] {
            let saved = Saved::of(name).rounded(format);
            let (wide, narrow) = (folder(&saved, Format::F32, 1), folder(&saved, format, 2));
            let ours = logits(narrow.path(), name, cpu());
            assert_eq!(ours, logits(wide.path(), name, cpu()), "{name} in {format:?}");
            let shape = Checkpoint::open(narrow.path()).unwrap().shape;
            // Which experts a token goes to hangs on rounding. TF32's numbers are rounded as f16's.
            if shape.experts.is_none() {
                within(name, &ours, &shape, dtype, WeightFormat::Dtype);
            }
        }
    }
}

#[test]
fn weights_of_8_bits_are_made_of_what_is_read() {
    let formats = |name| [WeightFormat::Int8, WeightFormat::F8].map(|format| (name, format));
    for (name, format) in ["gpt2", "llama-gqa", "falcon"].into_iter().flat_map(formats) {
        let read = folder(&Saved::of(name), Format::F32, 1);
        let ours = logits(read.path(), name, cpu().with_weights(format));
        let shape = Checkpoint::open(read.path()).unwrap().shape;
        within(name, &ours, &shape, Dtype::F32, format);
    }
}

/// Mixtral's and Qwen's files have each expert's matrices by names of their own.
fn experts_apart(saved: &Saved, names: [&str; 4]) -> Saved {
    let mut apart = Saved { config: saved.config.clone(), tensors: Default::default() };
    for (name, (shape, numbers)) in &saved.tensors {
        let Some((layer, matrix)) =
            name.split_once(".mlp.").filter(|(_, m)| m.contains("gate") || m.contains("experts"))
        else {
            drop(apart.tensors.insert(name.clone(), (shape.clone(), numbers.clone())));
            continue;
        };
        let [block, gate, up, down] = names;
        let mut add = |name: String, shape: &[usize], numbers: &[f32]| {
            apart.tensors.insert(format!("{layer}.{block}.{name}"), (shape.to_vec(), numbers.to_vec()));
        };
        match (matrix, shape.as_slice()) {
            ("experts.gate_up_proj", &[_, two_f, c]) => {
                for (e, both) in numbers.chunks_exact(two_f * c).enumerate() {
                    let (first, second) = both.split_at(two_f / 2 * c);
                    add(format!("experts.{e}.{gate}.weight"), &[two_f / 2, c], first);
                    add(format!("experts.{e}.{up}.weight"), &[two_f / 2, c], second);
                }
            }
            ("experts.down_proj", &[_, c, f]) => {
                for (e, one) in numbers.chunks_exact(c * f).enumerate() {
                    add(format!("experts.{e}.{down}.weight"), &[c, f], one);
                }
            }
            _ => add(matrix.into(), shape, numbers),
        }
    }
    apart
}

#[test]
fn names_that_older_files_have_are_understood() {
    let same = |name: &str, changed: Saved| {
        let (read, plain) = (folder(&changed, Format::F32, 2), folder(&Saved::of(name), Format::F32, 1));
        assert_eq!(logits(read.path(), name, cpu()), logits(plain.path(), name, cpu()), "{name}");
    };
    for (name, names) in [
        ("mixtral", ["block_sparse_moe", "w1", "w3", "w2"]),
        ("qwen3-moe", ["mlp", "gate_proj", "up_proj", "down_proj"]),
        ("deepseek-v3", ["mlp", "gate_proj", "up_proj", "down_proj"]),
    ] {
        same(name, experts_apart(&Saved::of(name), names));
    }
    let mut further = Saved::of("deepseek-v3");
    further.tensors.insert("model.layers.3.eh_proj.weight".into(), (vec![2], vec![0.0; 2]));
    same("deepseek-v3", further);
    let mut gpt2 = Saved::of("gpt2").renamed(|n| n.replace("transformer.", ""));
    gpt2.tensors.insert("h.0.attn.bias".into(), (vec![1, 1, 32, 32], vec![1.0; 1024]));
    gpt2.tensors.insert("lm_head.weight".into(), gpt2.tensors["wte.weight"].clone());
    same("gpt2", gpt2);
    same("bloom", Saved::of("bloom").renamed(|n| n.replace("transformer.", "")));
    same("opt", Saved::of("opt").renamed(|n| n.replace("model.", "")));
    let mut neox = Saved::of("gpt-neox").renamed(|n| n.replace("lm_head", "embed_out"));
    neox.tensors.insert("gpt_neox.layers.0.attention.rotary_emb.inv_freq".into(), (vec![2], vec![1.0, 0.5]));
    same("gpt-neox", neox);
    for beginning in ["language_model.", "model.language_model."] {
        let text = |n: &str| match (n.strip_prefix("model."), beginning) {
            (Some(rest), "model.language_model.") => format!("{beginning}{rest}"),
            (None, "model.language_model.") => n.to_string(),
            _ => format!("{beginning}{n}"),
        };
        let mut both = Saved::of("llama-gqa").renamed(text);
        both.config = format!(r#"{{"model_type": "pictures", "text_config": {}}}"#, both.config);
        both.tensors.insert("vision_tower.patches.weight".into(), (vec![3], vec![0.0; 3]));
        same("llama-gqa", both);
    }
}

#[test]
fn some_rows_and_a_ranks_part_are_those_of_the_whole() {
    for name in ["gpt2", "llama-gqa", "phi3", "bloom", "gpt-oss", "qwen3-moe", "deepseek-v3"] {
        let read = folder(&Saved::of(name), Format::F32, 1);
        let stored = Checkpoint::open(read.path()).unwrap();
        let whole = Index::new(&stored.shape);
        let alone = Parallel::replicas(1);
        let pair = Parallel { tensor: 2, ..alone };
        let split = pair.check(&stored.shape, 1).is_ok();
        assert_eq!(split, !["bloom", "deepseek-v3"].contains(&name), "{name}");
        let of_rank =
            |rank| if split { Index::new(&pair.part_of(&stored.shape, rank, BackendKind::Cpu)) } else { whole.clone() };
        let parts = [0, 1].map(of_rank);
        for (i, spec) in whole.specs.iter().enumerate() {
            let mut all = vec![f32::NAN; spec.len()];
            stored.rows(i, spec, 0, &mut all).unwrap();
            assert!(all.iter().all(|x| x.is_finite()), "{name} {}", spec.name);
            for first in (0..spec.rows).step_by(3) {
                let mut some = vec![f32::NAN; 3.min(spec.rows - first) * spec.columns];
                stored.rows(i, spec, first, &mut some).unwrap();
                assert_eq!(some, all[first * spec.columns..][..some.len()], "{name} {} from {first}", spec.name);
            }
            let halves = [0, 1].map(|rank: usize| {
                let own = &parts[rank].specs[i];
                let mut half = vec![f32::NAN; own.len()];
                stored.rows(i, own, 0, &mut half).unwrap();
                half
            });
            if !split {
                continue;
            }
            // Queries, keys and values, gate and up: each halved by itself.
            let (of_layer, columns) = (spec.name.rsplit_once('.').map_or("", |(l, _)| l), spec.columns);
            let parts = |heights: &[u32], width: usize| {
                let mut at = 0;
                let mut ours = [Vec::new(), Vec::new()];
                for height in heights.iter().map(|h| *h as usize / 2 * width) {
                    for half in &mut ours {
                        half.extend_from_slice(&all[at..at + height]);
                        at += height;
                    }
                }
                ours
            };
            let (s, width) = (&stored.shape, if spec.rows == 1 { 1 } else { columns });
            let want = if of_layer.ends_with(".qkv") {
                parts(&[s.d_attn(), s.d_kv(), s.d_kv()], width)
            } else if of_layer.ends_with(".up") {
                // Gate and up of every expert, or of the one layer.
                let each = if s.activation.gated() { 2 } else { 1 };
                let (count, f) = s.experts.map_or((1, s.d_ff), |e| (e.count as usize, s.d_ff_expert()));
                parts(&vec![f; each * count], width)
            } else if spec.name.ends_with(".sinks") {
                parts(&[s.n_heads], 1)
            } else if [".out.weight", ".down.weight"].iter().any(|end| spec.name.ends_with(end)) {
                let half = |rank| all.chunks(columns / 2).skip(rank).step_by(2).flatten().copied().collect();
                [half(0), half(1)]
            } else if ["embedding", "head"].contains(&&*spec.name) {
                let (first, last) = all.split_at(spec.rows / 2 * columns);
                [first.to_vec(), last.to_vec()]
            } else {
                [all.clone(), all.clone()]
            };
            assert_eq!(halves, want, "{name} {}", spec.name);
        }
    }
}

fn workload(weights: StoredWeights, shape: &Shape, phase: Phase) -> Workload {
    Workload {
        shape: shape.clone(),
        phase,
        batch: 2,
        seq_len: 6,
        prompt_len: 5,
        new_tokens: 4,
        dtype: Dtype::F32,
        weights: WeightFormat::Dtype,
        optimizer: OptimizerKind::Sgd,
        dropout: 0.0,
        kv_cache: Default::default(),
        prefill_chunk: None,
        weights_from: Some(weights),
        levers: Default::default(),
    }
}

#[test]
fn every_phase_runs_on_what_is_read_whole_or_in_parts() {
    let read = folder(&Saved::of("llama-gqa"), Format::F32, 2);
    let stored = Checkpoint::open(read.path()).unwrap();
    let run = |workload: &Workload, tensor: u32, seed: u64| {
        let parallel = Parallel { tensor, ..Parallel::replicas(1) };
        let options = SessionOptions { backend: BackendKind::Cpu, parallel, threads_per_rank: 1, seed };
        let mut session = prepare(workload, &options).unwrap();
        let losses: Vec<f32> = (0..2).filter_map(|_| session.step().unwrap().loss).collect();
        (losses, session.checksum())
    };
    for phase in [Phase::Train, Phase::Prefill, Phase::Decode, Phase::Generate] {
        let of = workload(stored.weights.clone(), &stored.shape, phase);
        let ((losses, tokens), (of_parts, of_parts_tokens)) = (run(&of, 1, 3), run(&of, 2, 3));
        assert_eq!(losses.len(), if phase == Phase::Train { 2 } else { 0 });
        if phase != Phase::Train {
            assert_eq!(tokens, of_parts_tokens, "{phase}");
        }
        assert!(losses.iter().zip(of_parts).all(|(a, b)| (a - b).abs() < 1e-4 * a.abs()), "{phase}: {losses:?}");
        let random = Workload { weights_from: None, ..of.clone() };
        assert_ne!(run(&random, 1, 3), (losses, tokens), "{phase} with random weights");
    }
    let in_8_bits = workload(stored.weights.clone(), &stored.shape, Phase::Decode);
    for weights in [WeightFormat::Int8, WeightFormat::F8] {
        run(&Workload { weights, ..in_8_bits.clone() }, 2, 3);
    }
}

#[test]
fn what_changed_since_the_scenario_was_read_is_refused() {
    let read = folder(&Saved::of("llama-gqa"), Format::F32, 1);
    let stored = Checkpoint::open(read.path()).unwrap();
    let of = workload(stored.weights.clone(), &stored.shape, Phase::Prefill);
    assert!(Checkpoint::of(&of).unwrap().is_some());
    let other = Shape { context: 5, ..stored.shape.clone() };
    let said = Checkpoint::of(&Workload { shape: other, ..of.clone() }).unwrap_err().to_string();
    assert!(said.contains("found another in config.json"), "{said}");
    let mut changed = Saved::of("llama-gqa");
    changed.tensors.get_mut("model.norm.weight").unwrap().1[31] += 1.0;
    changed.write(read.path(), Format::F32, 1);
    let said = Checkpoint::of(&of).unwrap_err().to_string();
    assert!(said.contains("expected the content") && said.ends_with("start the run again"), "{said}");
}

#[test]
fn the_content_is_told_apart_and_not_the_place() {
    let saved = Saved::of("gpt2");
    let digest =
        |saved: &Saved, format, shards| Checkpoint::open(folder(saved, format, shards).path()).unwrap().weights.digest;
    let first = digest(&saved, Format::F32, 1);
    assert_eq!((first.len(), &first), (12, &digest(&saved, Format::F32, 1)));
    let mut other = saved.clone();
    other.config = other.config.replacen('{', "{ ", 1);
    for changed in [digest(&saved, Format::BF16, 1), digest(&saved, Format::F32, 2), digest(&other, Format::F32, 1)] {
        assert_ne!(first, changed);
    }
}

/// What is said of a folder of the small Llama in which something is wrong.
fn fault(shards: usize, wrong: impl Fn(&mut Saved)) -> String {
    let at = tempdir().unwrap();
    let mut saved = Saved::of("llama-gqa");
    wrong(&mut saved);
    saved.write(at.path(), Format::F32, shards);
    said(at.path())
}

fn said(folder: &Path) -> String {
    let e: CheckpointError = Checkpoint::open(folder).map(|_| ()).unwrap_err();
    assert!(e.path.starts_with(folder), "{e}");
    e.to_string()
}

/// The same of a folder whose files something is done to.
fn damage(shards: usize, damage: impl Fn(&Path)) -> String {
    let at = folder(&Saved::of("llama-gqa"), Format::F32, shards);
    damage(at.path());
    said(at.path())
}

#[test]
fn a_folder_without_its_files_says_which() {
    let remove = |name: &'static str| move |at: &Path| std::fs::remove_file(at.join(name)).unwrap();
    let text = damage(1, remove("config.json"));
    assert!(text.contains("expected a config.json, found none"), "{text}");
    let text = damage(1, remove("model.safetensors"));
    assert!(text.contains("expected model.safetensors, found no safetensors file"), "{text}");
    let text = damage(2, remove("model-00002-of-00002.safetensors"));
    assert!(text.contains("expected the file model-00002-of-00002.safetensors, found none beside it"), "{text}");
    let text = damage(2, remove("model.safetensors.index.json"));
    assert!(text.contains("expected model.safetensors.index.json beside several files"), "{text}");
    let text = damage(2, |at| std::fs::write(at.join("model.safetensors.index.json"), "{}").unwrap());
    assert!(text.contains("expected a weight_map"), "{text}");
    let text = damage(2, |at| {
        let index = at.join("model.safetensors.index.json");
        let text = std::fs::read_to_string(&index).unwrap().replacen("model-0000", "../model-0000", 1);
        std::fs::write(index, text).unwrap();
    });
    assert!(text.contains("expected the names of files beside it, found `../model-0000"), "{text}");
    let text = damage(2, |at| {
        let index = at.join("model.safetensors.index.json");
        let text = std::fs::read_to_string(&index).unwrap();
        let both = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
        let first = text.find(both[0]).unwrap();
        std::fs::write(index, text[..first].to_string() + both[1] + &text[first + both[0].len()..]).unwrap();
    });
    assert!(text.contains("expected tensor") && text.contains("found none there"), "{text}");
}

#[test]
fn a_damaged_file_is_found_by_its_header() {
    let file = |at: &Path| at.join("model.safetensors");
    let cut = |len: Option<usize>| {
        damage(1, |at| {
            let bytes = std::fs::read(file(at)).unwrap();
            std::fs::write(file(at), &bytes[..len.unwrap_or(bytes.len() - 4)]).unwrap();
        })
    };
    let text = cut(None);
    assert!(text.contains("tensor ") && text.contains("expected bytes within the file's"), "{text}");
    assert!(cut(Some(3)).contains("found 3 bytes; the file is cut short or damaged"), "{}", cut(Some(3)));
    assert!(cut(Some(100)).contains("expected a header within the file's 100 bytes"), "{}", cut(Some(100)));
    let header = |from: &str, to: &str| {
        damage(1, |at| {
            let bytes = std::fs::read(file(at)).unwrap();
            let n = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
            let text = String::from_utf8_lossy(&bytes[8..8 + n]).replacen(from, to, 1).into_bytes();
            let whole = [&(text.len() as u64).to_le_bytes()[..], &text, &bytes[8 + n..]].concat();
            std::fs::write(file(at), whole).unwrap();
        })
    };
    let text = header(r#""data_offsets":[0,"#, r#""data_offsets":[4,"#);
    assert!(text.contains("expected the bytes of"), "{text}");
    let text = header(r#""data_offsets":[0,"#, r#""data_offsets":[0,9"#);
    assert!(text.contains("expected bytes within the file's"), "{text}");
    let text = header(r#""dtype":"F32""#, r#""dtype":"F8_E4M3""#);
    assert!(text.contains("expected F32, F16 or BF16, found F8_E4M3"), "{text}");
    let text = header(r#""dtype":"F32""#, r#""dtype":32"#);
    assert!(text.contains("expected a safetensors header, found what is none"), "{text}");
    let text = header("{", "[");
    assert!(text.contains("expected a safetensors header, found what is none"), "{text}");
}

#[test]
fn weights_of_another_model_are_refused() {
    let text = fault(1, |saved| drop(saved.tensors.remove("model.layers.0.mlp.up_proj.weight")));
    assert!(text.contains("expected tensor model.layers.0.mlp.up_proj.weight, found none of that name;"), "{text}");
    let text = fault(1, |saved| {
        let tensor = saved.tensors["model.norm.weight"].clone();
        saved.tensors.insert("model.layers.0.self_attn.q_norm.weight".into(), tensor.clone());
        saved.tensors.insert("model.layers.1.self_attn.q_norm.weight".into(), tensor);
    });
    assert!(text.contains("found tensor model.layers.0.self_attn.q_norm.weight beside them (1 more are"), "{text}");
    let text = fault(1, |saved| saved.tensors.get_mut("lm_head.weight").unwrap().0 = vec![64, 101]);
    assert!(text.contains("tensor lm_head.weight: expected the shape [101, 64], found [64, 101]"), "{text}");
    let text = fault(1, |saved| saved.config = saved.config.replace("\"llama\"", "\"bert\""));
    assert!(text.contains("config.json: model_type `bert` is not built in"), "{text}");
    let text = fault(1, |saved| saved.config = "{".into());
    assert!(text.contains("config.json: not JSON"), "{text}");
    let twice = damage(2, |at| {
        std::fs::copy(at.join("model-00001-of-00002.safetensors"), at.join("model-00002-of-00002.safetensors"))
            .unwrap();
    });
    assert!(twice.contains("expected each tensor once"), "{twice}");
}
