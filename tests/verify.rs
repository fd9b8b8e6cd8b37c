//! `centime verify` on the golden files: both backends agree with the frameworks that made them, and a damaged file is found.

use std::process::Command;

fn verify(args: &[&str]) -> (bool, i32, String) {
    let out = Command::new(env!("CARGO_BIN_EXE_centime")).arg("verify").args(args).output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
    (out.status.success(), out.status.code().unwrap_or(-1), text)
}

fn golden(name: &str) -> String {
    format!("{}/tests/golden/{name}.safetensors", env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn every_golden_file_passes_on_both_backends() {
    let files = ["gpt2", "llama-gqa", "keras-block"].map(golden);
    let (ok, _, text) = verify(&files.each_ref().map(String::as_str));
    assert!(ok, "{text}");
    for group in ["logits", "loss", "gradients", "optimizer adamw", "optimizer sgd_momentum", "greedy", "output"] {
        assert!(text.contains(group), "{group} is not in\n{text}");
    }
    assert_eq!(text.matches(" on naive").count() + text.matches(" on cpu").count(), 6, "{text}");
}

/// Of the families: the same, made with their library's models.
fn families() -> Vec<String> {
    let folder = format!("{}/tests/golden/families", env!("CARGO_MANIFEST_DIR"));
    let mut files: Vec<String> =
        std::fs::read_dir(folder).unwrap().map(|f| f.unwrap().path().to_str().unwrap().to_string()).collect();
    files.sort();
    files
}

#[test]
fn every_family_agrees_with_its_own_library() {
    let files = families();
    assert!(files.len() >= 12, "{files:?}");
    let (ok, _, text) = verify(&files.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(ok, "{text}");
    assert_eq!(text.matches("  greedy ").count(), 2 * files.len(), "{text}");
    assert_eq!(text.matches("  optimizer adamw ").count(), 2 * files.len(), "{text}");
}

#[test]
fn every_instruction_path_passes_in_f32_and_in_bf16() {
    let mut files = ["gpt2", "llama-gqa", "keras-block"].map(golden).to_vec();
    files.extend(families());
    let mut taken = 0;
    for path in ["portable", "avx2", "avx512", "avx512bf16"] {
        for dtype in ["f32", "bf16"] {
            let out = Command::new(env!("CARGO_BIN_EXE_centime"))
                .env("CENTIME_INSTRUCTIONS", path)
                .args(["verify", "--backend", "cpu", "--dtype", dtype])
                .args(&files)
                .output()
                .unwrap();
            let text = String::from_utf8_lossy(&out.stdout).into_owned();
            assert!(out.status.success(), "{path} {dtype}:\n{text}");
            // A machine without these instructions has checked its best path instead, and says which.
            taken += usize::from(text.contains(&format!("({path})")));
        }
    }
    assert!(taken >= 2, "the portable path is everywhere");
}

#[test]
fn every_operation_agrees_with_the_oracle_on_every_instruction_path() {
    let mut taken = 0;
    for path in ["portable", "avx2", "avx512", "avx512bf16"] {
        for dtype in ["f32", "bf16"] {
            let out = Command::new(env!("CARGO_BIN_EXE_centime"))
                .env("CENTIME_INSTRUCTIONS", path)
                .args(["verify", "--operations", "--size", "small", "--backend", "cpu", "--format", "csv"])
                .args(["--threads", "2", "--dtype", dtype])
                .output()
                .unwrap();
            let (table, rest) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
            assert!(out.status.success(), "{path} {dtype}:\n{table}\n{rest}");
            for operation in ["linear,", "attention_backward,", "attention_cached,", "cross_entropy,", "update_many,"] {
                assert!(table.lines().any(|l| l.starts_with(operation) && l.ends_with(",ok")), "{operation}\n{table}");
            }
            taken += usize::from(rest.contains(&format!("({path})")));
        }
    }
    assert!(taken >= 2, "the portable path is everywhere");
}

#[test]
fn operations_are_checked_against_the_oracle_and_not_it_against_itself() {
    let (_, code, text) = verify(&["--operations", "--backend", "naive"]);
    assert_eq!(code, 2, "{text}");
    assert!(text.contains("use cpu or cuda"), "{text}");
    let (_, code, text) = verify(&["--operations", "--backend", "cpu", "--dtype", "tf32"]);
    assert_eq!(code, 2, "{text}");
    let (_, code, text) = verify(&["--operations", "--weights", "int8", "--backend", "cpu"]);
    assert_eq!(code, 2, "{text}");
    let (_, code, text) = verify(&["--size", "small", &golden("gpt2")]);
    assert_eq!(code, 2, "{text}");
    let (_, code, text) = verify(&["--operations", "--size", "small", "--backend", "cpu", "--only", "nothing"]);
    assert_eq!(code, 2, "{text}");
    let (ok, _, text) = verify(&["--operations", "--size", "small", "--backend", "cpu", "--only", "rope", "--each"]);
    assert!(ok && text.contains("from 4000 back") && !text.contains("linear"), "{text}");
}

#[test]
fn weights_of_few_bits_are_within_theirs_on_every_instruction_path() {
    let mut files = ["gpt2", "llama-gqa"].map(golden).to_vec();
    files.extend(families());
    // Which experts a token goes to hangs on rounding.
    let of_experts = |f: &&String| ["mixtral", "moe", "oss", "deepseek"].iter().any(|e| f.contains(e));
    let mixtures = files.iter().filter(of_experts).count();
    let mut taken = 0;
    for path in ["portable", "avx2", "avx512", "avx512bf16"] {
        for (weights, dtype) in [
            ("int8", "f32"),
            ("int4", "f32"),
            ("int4-g128", "f32"),
            ("int4-g128-zp", "f32"),
            ("f8", "f32"),
            ("f8", "bf16"),
        ] {
            let out = Command::new(env!("CARGO_BIN_EXE_centime"))
                .env("CENTIME_INSTRUCTIONS", path)
                .args(["verify", "--backend", "cpu", "--weights", weights, "--dtype", dtype])
                .args(&files)
                .output()
                .unwrap();
            let text = String::from_utf8_lossy(&out.stdout).into_owned();
            assert!(out.status.success(), "{path} {weights} {dtype}:\n{text}");
            assert_eq!(text.matches("  logits ").count(), files.len() - mixtures, "{text}");
            assert_eq!(text.matches("skipped, which experts").count(), mixtures, "{text}");
            taken += usize::from(text.contains(&format!("({path})")));
        }
    }
    assert!(taken >= 4, "the portable path is everywhere");
}

#[test]
fn one_wrong_weight_fails_with_exit_code_one() {
    let mut bytes = std::fs::read(golden("gpt2")).unwrap();
    let n = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let head: serde_json::Value = serde_json::from_slice(&bytes[8..8 + n]).unwrap();
    let at = head["param/transformer.h.1.mlp.c_fc.weight"]["data_offsets"][0].as_u64().unwrap() as usize + 8 + n;
    bytes[at..at + 4].copy_from_slice(&1.0f32.to_le_bytes());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("wrong.safetensors");
    std::fs::write(&path, bytes).unwrap();
    let (_, code, text) = verify(&["--backend", "cpu", path.to_str().unwrap()]);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("FAILED"), "{text}");
}

#[test]
fn a_file_that_is_no_golden_file_is_a_usage_error_with_its_name() {
    let (_, code, text) = verify(&["nowhere.safetensors"]);
    assert_eq!(code, 2, "{text}");
    assert!(text.contains("nowhere.safetensors"), "{text}");
    let (_, code, text) = verify(&[&format!("{}/Cargo.toml", env!("CARGO_MANIFEST_DIR"))]);
    assert_eq!(code, 2, "{text}");
    assert!(text.contains("not a safetensors file"), "{text}");
}
