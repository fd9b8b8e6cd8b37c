//! Scenarios whose trials are to learn something.

use super::*;
use crate::scenario::{LoadOptions, Scenario, load};

fn loaded(yaml: &str) -> Result<Scenario, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.yaml");
    std::fs::write(folder.path().join("a.txt"), "to be or not to be ".repeat(100)).unwrap();
    std::fs::write(&path, format!("version: 1\nname: t\n{yaml}")).unwrap();
    load(&path, &LoadOptions::default()).map_err(|e| e.to_string())
}

const MODEL: &str = "model: { n_layers: 1, d_model: 32, n_heads: 2 }, seq_len: 16, batch: 2";

fn one(trial: &str) -> Result<Learning, String> {
    let mut scenario = loaded(&format!("trial: {{ {MODEL}, {trial} }}\n"))?;
    Ok(scenario.cells.remove(0).trial.learning.unwrap())
}

#[test]
fn what_users_type_is_understood() {
    let l = one(
        "data: { text: \"*.txt\", tokenizer: { bpe: 300 } }, optimizer: adamw, \
         schedule: { rate: 1e-3, warmup: 100, decay: cosine, floor: 0.1, weight_decay: 0.1 }, until: { validation_loss: 3.2, tokens: 20e6 }",
    )
    .unwrap();
    assert_eq!((l.until.validation_loss, l.until.tokens), (Some(3.2), Some(20_000_000)));
    assert_eq!((l.schedule.rate, l.schedule.weight_decay, l.steps(32)), (1e-3, Some(0.1), Some(625_000)));
    assert_eq!(l.eval, Eval { every: 15_625, tokens: 16_384 });
    assert_eq!(l.evaluation_batches(32, 100), 100, "as many as there are");
    let l = one("data: synthetic, until: { seconds: 2min }").unwrap();
    assert_eq!((l.until.seconds, l.steps(32), l.eval.every), (Some(120.0), None, 25));
    let l = one("until: { validation_loss: 3.2 }").unwrap();
    assert_eq!(l.data.what, crate::data::What::Corpus);
    // 20 tokens for each of the parameters: without a bound it would go on for ever.
    assert!(l.until.tokens.unwrap() > 20 * 32 * 1000, "{l:?}");
}

#[test]
fn words_are_those_of_the_data_unless_the_model_has_more() {
    let vocabulary = |trial: &str| {
        let scenario = loaded(&format!("trial: {{ {trial}, seq_len: 16, until: {{ tokens: 1e4 }} }}\n"))?;
        Ok::<_, String>(scenario.cells[0].trial.workload.shape.vocab_size)
    };
    assert_eq!(vocabulary("model: { n_layers: 1 }, data: synthetic"), Ok(512));
    assert_eq!(vocabulary("model: { n_layers: 1 }, data: { text: a.txt, tokenizer: { bpe: 300 } }"), Ok(300));
    assert_eq!(vocabulary("model: { preset: gpt2 }, data: synthetic"), Ok(50257));
    let fault = vocabulary("model: { n_layers: 1, vocab_size: 100 }, data: synthetic").unwrap_err();
    assert!(fault.contains("model.vocab_size: expected at least 512, the tokens of the data, found 100"), "{fault}");
}

#[test]
fn faults_are_pointed_at_with_a_remedy() {
    for (trial, said) in [
        ("data: synthetic", "until: missing; say how far the trial is to learn"),
        ("schedule: { rate: 1e-3 }", "until: missing"),
        ("data: sinthetic, until: { tokens: 1e4 }", "data.source: `sinthetic` is unknown; did you mean `synthetic`?"),
        ("data: { text: none.txt }, until: { tokens: 1e4 }", "none.txt"),
        ("data: { text: a.txt, source: corpus }, until: { tokens: 1e4 }", "keep one of the two"),
        ("data: { tokenizer: { bpa: 5 } }, until: { tokens: 1e4 }", "expected bytes, { bpe: 4096 }"),
        ("data: { share: 2 }, until: { tokens: 1e4 }", "expected a share"),
        ("data: synthetic, until: { tokens: 1.5 }", "expected a number of tokens from 1 up"),
        ("data: synthetic, until: { tokens: 1e4 }, schedule: { floor: 2 }", "expected a number from 0 to 1, found 2"),
        ("data: synthetic, until: { tokens: 1e4 }, schedule: { rate: 0 }", "schedule.rate: expected a number above 0"),
        (
            "until: { tokens: 1e4 }, checkpoint: { every: often }",
            "checkpoint.every: expected steps or a time, like 200 steps",
        ),
        ("until: { tokens: 1e4 }, checkpoint: { evry: 5 }", "did you mean `every`?"),
        ("checkpoint: { every: 200 steps }", "until: missing"),
    ] {
        let fault = one(trial).unwrap_err();
        assert!(fault.contains(said), "{trial}: {fault}");
    }
    let block = loaded("trial: { model: { family: block }, data: synthetic, until: { tokens: 1e4 } }\n").unwrap_err();
    assert!(block.contains("a block has no words to learn"), "{block}");
}

#[test]
fn seeds_are_launches_and_every_field_can_be_swept() {
    let scenario = loaded(&format!(
        "trial: {{ {MODEL}, until: {{ tokens: 1e4 }} }}\nsweep:\n  matrix: {{ data: [synthetic, corpus], schedule.rate: [1e-3, 1e-2], \
         optimizer: [sgd, adamw], schedule.weight_decay: [0.1], model.norm: [layernorm, none] }}\n  repeat: {{ seed: [4, 7, 9] }}\n"
    ))
    .unwrap();
    assert_eq!((scenario.cells.len(), &scenario.measure.seeds[..]), (16, &[4, 7, 9][..]));
    assert_eq!([0, 1, 2, 3].map(|round| scenario.measure.seed_of(round)), [4, 7, 9, 4]);
    let decay = |i: usize| scenario.cells[i].trial.learning.as_ref().unwrap().schedule.weight_decay;
    assert_eq!((decay(0), decay(2)), (None, Some(0.1)), "only AdamW decays weights");
    let twice = loaded("trial: { until: { tokens: 1e4 } }\nsweep: { repeat: { seed: [1, 1] } }\n").unwrap_err();
    assert!(twice.contains("sweep.repeat.seed: 1 is given twice"), "{twice}");
    let both = "trial: { until: { tokens: 1e4 } }\nsweep: { repeat: { seed: [1, 2] } }\nmeasure: { rounds: 3 }\n";
    assert!(loaded(both).unwrap_err().contains("launched once with each of 2 seeds"));
}

#[test]
fn a_trial_is_told_apart_by_what_it_learns_and_not_by_where_that_lies() {
    let id = |trial: &str| loaded(&format!("trial: {{ {MODEL}, {trial} }}\n")).unwrap().cells[0].trial.id();
    let here = id("data: { text: a.txt }, until: { tokens: 1e4 }");
    assert_eq!(here, id("data: { text: \"*.txt\" }, until: { tokens: 1e4 }"));
    for other in [
        "until: { tokens: 2e4 }",
        "until: { tokens: 1e4, seconds: 9 }",
        "until: { tokens: 1e4 }, schedule: { warmup: 3 }",
        "until: { tokens: 1e4 }, checkpoint: { every: 200 steps }",
    ] {
        assert_ne!(here, id(&format!("data: {{ text: a.txt }}, {other}")), "{other}");
    }
    assert_ne!(here, id("data: synthetic, until: { tokens: 1e4 }"));
    let without = one("until: { tokens: 1e4 }").unwrap();
    assert!(!serde_json::to_string(&without).unwrap().contains("checkpoint"), "trials keep the ids that they had");
    let every =
        |said: &str| one(&format!("until: {{ tokens: 1e4 }}, checkpoint: {{ every: {said} }}")).unwrap().checkpoint;
    assert_eq!((every("200 steps"), every("30s")), (Some(Every::Steps(200)), Some(Every::Seconds(30.0))));
    let on_gpus = one("until: { tokens: 1e4 }, checkpoint: { every: 5 }, backend: cuda").unwrap();
    assert_eq!(on_gpus.checkpoint, Some(Every::Steps(5)));
    // A phase that does not train is what it was.
    let plain = loaded(&format!("trial: {{ {MODEL}, phase: prefill }}\n")).unwrap().cells[0].trial.id();
    assert_eq!(plain, id("phase: prefill, until: { tokens: 1e4 }"));
}
