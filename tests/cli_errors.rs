//! What goes wrong is one clear message with the place and the remedy, and the exit code that says of which kind it is.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const HEAD: &str = "version: 1\nname: t\n";

fn folder_with(text: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("s.yaml"), text).unwrap();
    folder
}

fn centime(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_centime"));
    command.args(arguments).current_dir(folder).env("NO_COLOR", "1").env("XDG_RUNTIME_DIR", folder);
    command.stdin(Stdio::null()).output().unwrap()
}

/// The one message, after the checks that hold for every failure.
#[track_caller]
fn fails(output: &Output, code: i32, words: &[&str]) -> String {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert!(!said.contains("panicked"), "{said}");
    assert_eq!(said.matches("error: ").count(), 1, "one message: {said}");
    for word in words {
        assert!(said.contains(word), "{word:?} is not in:\n{said}");
    }
    said
}

/// `centime plan` and `centime run` on this scenario both fail so.
#[track_caller]
fn scenario_fails(text: &str, code: i32, words: &[&str]) {
    let folder = folder_with(text);
    fails(&centime(folder.path(), &["plan", "s.yaml"]), code, words);
    fails(&centime(folder.path(), &["run", "s.yaml", "--no-probe"]), code, words);
    assert!(!folder.path().join("reports").exists(), "nothing was begun");
}

#[test]
fn a_typo_is_pointed_at_and_the_nearest_name_is_offered() {
    scenario_fails(&format!("{HEAD}trial:\n  bacth: 4\n"), 2, &["s.yaml:4:3", "bacth", "batch"]);
    scenario_fails(&format!("{HEAD}trial: {{ model: {{ d_modle: 64 }} }}\n"), 2, &["s.yaml:3", "d_modle", "d_model"]);
    scenario_fails(&format!("{HEAD}maesure: {{}}\n"), 2, &["s.yaml:3:1", "maesure", "measure"]);
    scenario_fails(&format!("{HEAD}trial: {{ phase: trian }}\n"), 2, &["s.yaml:3", "trian", "train"]);
    scenario_fails(&format!("{HEAD}trial: {{ model: {{ preset: gtp2 }} }}\n"), 2, &["s.yaml:3", "gtp2", "gpt2"]);
    scenario_fails(&format!("{HEAD}sweep:\n  matrix: {{ bach: [1, 2] }}\n"), 2, &["s.yaml:4", "bach", "batch"]);
}

#[test]
fn a_missing_or_unreadable_file_is_named() {
    let folder = tempfile::tempdir().unwrap();
    for command in ["plan", "run"] {
        fails(&centime(folder.path(), &[command, "nowhere.yaml"]), 74, &["nowhere.yaml"]);
        fails(&centime(folder.path(), &[command, "."]), 74, &["."]);
    }
    // Named in the scenario, they are faults of the scenario, and have a place there.
    scenario_fails(&format!("{HEAD}trial: {{ model: {{ hf_config: c.json }} }}\n"), 2, &["s.yaml:3:", "c.json"]);
    scenario_fails("extends: base.yaml\n", 2, &["s.yaml:1:", "base.yaml"]);
}

#[test]
fn a_folder_that_cannot_be_written_is_an_error_of_input_and_output() {
    let folder = folder_with(&format!("{HEAD}trial: {{ model: {{ n_layers: 1, d_model: 32, n_heads: 2 }} }}\n"));
    std::fs::write(folder.path().join("file"), "").unwrap();
    let output = centime(folder.path(), &["run", "s.yaml", "--no-probe", "--out", "file/below"]);
    fails(&output, 74, &["file/below", "choose another with --out"]);
    std::fs::write(folder.path().join("reports"), "").unwrap();
    fails(&centime(folder.path(), &["run", "s.yaml", "--no-probe"]), 74, &["reports/t"]);
}

#[test]
fn an_impossible_shape_offers_values_that_work() {
    let model = |m: &str| format!("{HEAD}trial:\n  model: {{ {m} }}\n");
    scenario_fails(&model("d_model: 1000, n_heads: 12"), 2, &["s.yaml:4", "n_heads", "12", "1000", "10"]);
    let grouped = model("family: llama, d_model: 64, n_heads: 8, n_kv_heads: 3");
    scenario_fails(&grouped, 2, &["s.yaml:4", "n_kv_heads", "3", "8", "4"]);
    scenario_fails(&model("n_layers: 0"), 2, &["s.yaml:4", "n_layers"]);
    scenario_fails(&model("d_model: 99999999999"), 2, &["s.yaml:4", "d_model"]);
    scenario_fails(&model("d_model: 4000000000, n_heads: 1, n_layers: 4000000000"), 2, &["s.yaml"]);
    scenario_fails(
        &format!("{HEAD}trial: {{ batch: 3, devices: 2 }}\n"),
        2,
        &["s.yaml:3:", "batch", "3", "devices = 2", "use 4"],
    );
    let shared = |p: &str| format!("{HEAD}trial: {{ batch: 4, parallel: {{ {p} }} }}\n");
    scenario_fails(&shared("tensor: 5"), 2, &["s.yaml:3:", "parallel.tensor", "n_heads = 12", "1, 2, 3, 4, 6, 12"]);
    scenario_fails(&shared("data: 3"), 2, &["s.yaml:3:", "batch", "3", "use 6"]);
    scenario_fails(&shared("sharding: all"), 2, &["s.yaml:3:", "parallel.sharding", "`all`"]);
    let levers = |l: &str| format!("{HEAD}trial: {{ batch: 6, devices: 2, {l} }}\n");
    scenario_fails(&levers("accumulate: 2"), 2, &["s.yaml:3:", "accumulate", "3 sequences of a replica", "use 1", "8"]);
    scenario_fails(&levers("accumulate: 0"), 2, &["s.yaml:3:", "accumulate", "0"]);
    scenario_fails(&levers("recompute: some"), 2, &["s.yaml:3:", "recompute", "`some`", "attention"]);
    scenario_fails(&levers("schedule: { clip: -1 }"), 2, &["s.yaml:3:", "schedule.clip", "above 0"]);
    scenario_fails(&levers("schedule: { clp: 1 }"), 2, &["s.yaml:3:", "clp", "clip"]);
    scenario_fails(&shared("tensr: 2"), 2, &["s.yaml:3:", "tensr", "tensor"]);
    let staged = |p: &str| format!("{HEAD}trial: {{ batch: 4, {p} }}\n");
    let stages = "parallel: { pipeline: 13 }";
    scenario_fails(
        &staged(stages),
        2,
        &["s.yaml:3:", "parallel.pipeline", "n_layers = 12", "found 13", "use 12 or fewer"],
    );
    let devices = "devices: 3, parallel: { pipeline: 2 }";
    scenario_fails(&staged(devices), 2, &["s.yaml:3:", "parallel.pipeline", "2 does not divide devices = 3"]);
    for phase in ["prefill", "decode", "generate"] {
        let other = staged(&format!("phase: {phase}, parallel: {{ pipeline: 2 }}"));
        scenario_fails(&other, 2, &["s.yaml:3:", "parallel.pipeline", phase, "phase: train"]);
    }
    let both = staged("parallel: { pipeline: 2, tensor: 2 }");
    scenario_fails(&both, 2, &["s.yaml:3:", "parallel.pipeline", "use parallel.tensor: 1"]);
    let zero = staged("parallel: { pipeline: 2, data: 2, sharding: gradients }");
    scenario_fails(&zero, 2, &["s.yaml:3:", "parallel.pipeline", "sharding: gradients", "use none or optimizer"]);
    scenario_fails(&staged("parallel: { pipeline: 0 }"), 2, &["s.yaml:3:", "parallel.pipeline", "0"]);
    scenario_fails(&staged("parallel: { pipline: 2 }"), 2, &["s.yaml:3:", "pipline", "pipeline"]);
    scenario_fails(&staged("parallel: { pipeline: 2 }, accumulate: 3"), 2, &["s.yaml:3:", "accumulate", "use 2"]);
    let spread = |p: &str| format!("{HEAD}trial: {{ batch: 12, {p} }}\n");
    let mixture = "model: { family: mixtral, n_experts: 6 }";
    for (trial, words) in [
        ("parallel: { expert: 2 }".to_string(), &["found none in family gpt2", "parallel.expert: 1"][..]),
        (format!("{mixture}, parallel: {{ expert: 4 }}"), &["n_experts = 6", "1, 2, 3, 6"]),
        (format!("{mixture}, parallel: {{ expert: 0 }}"), &["0"]),
        (format!("{mixture}, devices: 3, parallel: {{ expert: 2 }}"), &["the 3 replicas", "multiple of 2"]),
        (format!("{mixture}, parallel: {{ expert: 2, tensor: 2 }}"), &["use parallel.tensor: 1"]),
        (format!("{mixture}, parallel: {{ expert: 2, pipeline: 2 }}"), &["use parallel.pipeline: 1"]),
        (format!("{mixture}, parallel: {{ expert: 2, sharding: optimizer }}"), &["use parallel.sharding: none"]),
    ] {
        scenario_fails(&spread(&trial), 2, &[&["s.yaml:3:", "parallel.expert"], words].concat());
    }
    scenario_fails(&spread("parallel: { experts: 2 }"), 2, &["s.yaml:3:", "experts", "expert"]);
    let product = format!("{HEAD}trial: {{ devices: 4, batch: 4, parallel: {{ data: 4, tensor: 4 }} }}\n");
    scenario_fails(&product, 2, &["s.yaml:3:", "devices", "4", "use 16"]);
    let long = format!("{HEAD}trial: {{ seq_len: 4096, model: {{ preset: gpt2 }} }}\n");
    scenario_fails(&long, 2, &["4096", "1024"]);
}

#[test]
fn a_price_that_is_none_is_refused_wherever_it_is_given() {
    for bad in ["0", "-1", ".nan", ".inf", "-.inf", "free", "[1]"] {
        scenario_fails(&format!("{HEAD}price:\n  usd_per_hour: {bad}\n"), 2, &["s.yaml:4:17", "price.usd_per_hour"]);
    }
    for bad in ["0", "1.5", "-0.1", ".nan"] {
        scenario_fails(&format!("{HEAD}price: {{ utilisation: {bad} }}\n"), 2, &["s.yaml:3", "utilisation"]);
    }
    let folder = folder_with(HEAD);
    for bad in ["0", "-1", "NaN", "inf", "free", ""] {
        let output = centime(folder.path(), &["run", "s.yaml", "--no-probe", "--price", bad]);
        fails(&output, 2, &["--price", "positive number of USD an hour"]);
    }
}

#[test]
fn a_bad_override_names_itself() {
    let folder = folder_with(HEAD);
    for (bad, words) in [
        ("bacth=2", &["bacth", "batch"][..]),
        ("batch", &["batch"]),
        ("batch=0", &["batch", "0"]),
        ("measure.precisoin=0.1", &["precisoin", "precision"]),
        ("measure.disturbed.lots=0.1", &["lots", "lost"]),
        ("measure.disturbed.others=30", &["measure.disturbed.others", "share", "30"]),
        ("price.usd_per_hour=-3", &["usd_per_hour", "-3"]),
    ] {
        fails(&centime(folder.path(), &["plan", "s.yaml", "--set", bad]), 2, words);
    }
}

#[test]
fn bombs_and_monsters_are_refused_at_once() {
    let bomb: String = (1..9)
        .map(|i| format!("a{i}: &a{i} [{}]\n", vec![format!("*a{}", i - 1); 9].join(", ")))
        .fold("a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_string(), |all, line| all + &line);
    let deep = format!("{HEAD}variables: {}1{}\n", "[".repeat(5000), "]".repeat(5000));
    let big = format!("{HEAD}description: {}\n", "x".repeat(5 << 20));
    let wide = format!("{HEAD}sweep: {{ matrix: {{ batch: 1..4000000000, seq_len: 1..4000000000 }} }}\n");
    for text in [bomb, deep, big, wide] {
        let folder = folder_with(&text);
        let began = Instant::now();
        fails(&centime(folder.path(), &["plan", "s.yaml"]), 2, &["s.yaml"]);
        // Starting the program is most of it.
        assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    }
}

#[test]
fn a_sweep_over_the_cap_says_how_to_raise_it() {
    let folder = folder_with(&format!("{HEAD}sweep: {{ matrix: {{ batch: 1..20, seq_len: 1..20 }} }}\n"));
    fails(&centime(folder.path(), &["plan", "s.yaml", "--max-cells", "399"]), 2, &["400", "--max-cells"]);
    assert_eq!(centime(folder.path(), &["plan", "s.yaml", "--max-cells", "400"]).status.code(), Some(0));
}

#[test]
fn text_that_is_no_scenario_is_refused() {
    for text in
        ["", "\0", "- 1\n- 2\n", "version: 1\nversion: 1\n", "version: 7\n", "version: 1\n\ttrial: 1\n", "{", "&a *a"]
    {
        scenario_fails(text, 2, &["s.yaml"]);
    }
}

#[test]
fn a_scenario_reads_no_file_outside_its_folder() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("in")).unwrap();
    std::fs::write(folder.path().join("secret.yaml"), HEAD).unwrap();
    let inside = folder.path().join("in");
    for outside in ["../secret.yaml", "/etc/passwd", "sub/../../secret.yaml"] {
        std::fs::write(inside.join("s.yaml"), format!("extends: {outside}\n")).unwrap();
        fails(&centime(&inside, &["plan", "s.yaml"]), 2, &["s.yaml:1", "folder"]);
    }
    std::fs::write(inside.join("s.yaml"), "extends: t.yaml\n").unwrap();
    std::fs::write(inside.join("t.yaml"), "extends: s.yaml\n").unwrap();
    fails(&centime(&inside, &["plan", "s.yaml"]), 2, &["extends"]);
}

#[test]
fn a_reader_that_leaves_early_is_no_crash() {
    let folder = folder_with(&format!("{HEAD}sweep: {{ matrix: {{ batch: 1..500 }} }}\n"));
    let mut child = Command::new(env!("CARGO_BIN_EXE_centime"))
        .args(["plan", "s.yaml"])
        .current_dir(folder.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!said.contains("panicked"), "{said}");
    assert_eq!(output.status.code(), Some(74), "{said}");
}

#[test]
fn doctor_says_what_the_machine_has() {
    let folder = tempfile::tempdir().unwrap();
    let output = centime(folder.path(), &["doctor", "--no-probe", "--format", "json"]);
    assert_eq!(output.status.code(), Some(0));
    let rows: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let item = |name: &str| rows.as_array().unwrap().iter().find(|r| r["item"] == name).unwrap()["value"].clone();
    assert!(item("memory").as_str().unwrap().ends_with("iB"));
    // Found at run time: formats where there is a GPU that can be used, else what is missing.
    match centime::internal::transformer::available_gpus() {
        Ok(_) => assert!(item("cuda").as_str().unwrap().contains("bf16")),
        Err(missing) => {
            assert_eq!(item("cuda"), "not here");
            let row = rows.as_array().unwrap().iter().find(|r| r["item"] == "cuda").unwrap();
            assert!(row.to_string().contains(missing.to_string().split(':').next().unwrap()), "{row}");
        }
    }
    assert!(item("cpu").as_str().unwrap().contains("f32"));
}

/// What a command prints when it goes well.
fn prints(folder: &Path, arguments: &[&str]) -> String {
    let output = centime(folder, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_table_in_a_pipe_has_120_columns_and_names_what_it_left_out_and_csv_is_whole() {
    let folder = tempfile::tempdir().unwrap();
    let table = prints(folder.path(), &["hardware", "list", "--offers"]);
    let widest = table.lines().map(|l| l.chars().count()).max();
    assert!(widest.is_some_and(|w| (90..=120).contains(&w)), "{widest:?}");
    assert!(table.contains("no room for: ") && table.contains("notes; a wider terminal or --format csv"), "{table}");
    let csv = prints(folder.path(), &["hardware", "list", "--offers", "--format", "csv"]);
    assert!(csv.lines().next().is_some_and(|l| l.ends_with("from,until,source,notes")), "{csv}");
}

#[test]
fn the_help_has_two_headings_and_no_earlier_names() {
    let folder = tempfile::tempdir().unwrap();
    let help = prints(folder.path(), &["--help"]);
    let (commands, aside) = help.split_once("Files and shell:").unwrap();
    for name in ["init", "schema", "completions", "man"] {
        let listed = |text: &str| text.lines().any(|l| l.starts_with(&format!("  {name} ")));
        assert!(listed(aside) && !listed(commands), "{name}: {help}");
    }
    for (command, earlier) in [("compare", "budget"), ("explain", "--history"), ("project", "--fit")] {
        assert!(!prints(folder.path(), &[command, "--help"]).contains(earlier), "{command}");
    }
    let completions = prints(folder.path(), &["completions", "bash"]);
    assert!(completions.contains("completions") && completions.contains("schema"));
    assert!(prints(folder.path(), &["man"]).contains("schema"));
}

#[test]
fn data_says_what_there_is_what_it_costs_and_that_it_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.txt"), "what a token costs\n".repeat(500)).unwrap();
    let data = |arguments: &[&str]| {
        let all = [&["data", "a.txt"], arguments].concat();
        let mut command = Command::new(env!("CARGO_BIN_EXE_centime"));
        let output =
            command.args(all).current_dir(folder.path()).env("XDG_CACHE_HOME", folder.path()).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    };
    let (code, said) = data(&["--tokenizer", "bytes", "--price", "0.36", "--format", "json"]);
    assert_eq!(code, Some(0), "{said}");
    let row = &serde_json::from_str::<serde_json::Value>(&said).unwrap()[0];
    // Bytes, and one that ends each part.
    assert_eq!((row["text_bytes"].as_u64(), row["tokens"].as_u64()), (Some(9500), Some(9502)), "{row}");
    assert_eq!(row["train_tokens"].as_u64().zip(row["validation_tokens"].as_u64()).map(|(a, b)| a + b), Some(9502));
    let (rate, usd) = (row["tokens_per_second"].as_f64().unwrap(), row["usd_per_million_tokens"].as_f64().unwrap());
    assert!((usd * rate / (0.36 / 3600.0 * 1e6) - 1.0).abs() < 1e-6, "{row}");
    let (code, said) = data(&["--tokenizer", "bytes"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("out of the cache: ") && said.contains("the last tenth of the text"), "{said}");
    assert!(data(&["--tokenizer", "bytes", "--no-cache"]).1.contains("not kept"));
    let (code, said) = data(&["none*.txt"]);
    assert!(code == Some(2) && said.contains("none*.txt: expected at least one file"), "{said}");
    let (code, said) = data(&[]);
    assert!(code == Some(2) && said.contains("expected 4096 tokens, found that the text gives"), "{said}");
    let (code, said) = data(&["--tokenizer", "bpe"]);
    assert!(code == Some(2) && said.contains("bpe:4096"), "{said}");
}
