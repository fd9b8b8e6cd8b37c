//! Memory is predicted within 5 % of what a trial's process takes for its model.
#![cfg(target_os = "linux")]

use std::process::Command;

#[test]
fn predicted_memory_is_within_five_percent_of_the_measured() {
    let folder = tempfile::tempdir().unwrap();
    let model = "n_layers: 4, d_model: 512, n_heads: 8, vocab_size: 16384";
    let text = format!(
        "version: 1\nname: memory\ntrial: {{ model: {{ {model} }} }}\nsweep:\n  include:\n\
         {0}    - {{ phase: train, batch: 4, seq_len: 256 }}\n\
         {0}    - {{ phase: train, batch: 4, seq_len: 256, devices: 2 }}\n\
         {0}    - {{ phase: train, batch: 4, seq_len: 256, n_layers: 12, parallel: {{ data: 2, sharding: optimizer }} }}\n\
         {0}    - {{ phase: train, batch: 4, seq_len: 256, parallel: {{ tensor: 2 }} }}\n\
         {0}    - {{ phase: decode, batch: 16, prompt_len: 512, new_tokens: 64, parallel: {{ tensor: 2 }} }}\n\
         {0}    - {{ phase: train, batch: 2, seq_len: 512, dtype: bf16, optimizer: sgd }}\n\
         {0}    - {{ phase: prefill, batch: 8, prompt_len: 512 }}\n\
         {0}    - {{ phase: prefill, batch: 16, prompt_len: 512, dtype: bf16 }}\n\
         {0}    - {{ phase: decode, batch: 16, prompt_len: 512, new_tokens: 64 }}\n\
         {0}    - {{ phase: train, batch: 4, seq_len: 256, model.family: llama }}\n\
         measure: {{ min_seconds: 0, max_seconds: 0.05, warmup: 2, order: file }}\n",
        ""
    );
    std::fs::write(folder.path().join("s.yaml"), text).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_centime"))
        .args(["run", "s.yaml", "--no-probe", "--quiet", "--format", "json"])
        .current_dir(folder.path())
        .env("XDG_RUNTIME_DIR", folder.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let results: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let rows = results["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 10);
    let mut off = Vec::new();
    for row in rows {
        let number = |name: &str| row[name].as_f64().unwrap_or_else(|| panic!("{name} in {row}"));
        let (measured, predicted) = (number("model_memory_bytes"), number("predicted_memory_bytes"));
        let ratio = measured / predicted;
        println!("{}: {:.0} MiB, {ratio:.3} of the prediction", row["cell"], measured / 1048576.0);
        // Threads' stacks and the allocator's own tables are a few MiB, whatever the model.
        if (measured - predicted).abs() > 0.05 * predicted + 4e6 {
            off.push(format!("{}: measured {measured:e}, predicted {predicted:e}: {ratio:.3}", row["cell"]));
        }
    }
    assert!(off.is_empty(), "{}", off.join("\n"));
}
