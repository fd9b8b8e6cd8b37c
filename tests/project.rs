//! `centime project` from the command line: sweeps on devices that are not here, goals, validation and calibration.

use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};

fn centime(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_centime")).args(arguments).current_dir(folder).output().unwrap()
}

fn out(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn json(folder: &Path, arguments: &[&str]) -> Vec<Value> {
    let mut all = arguments.to_vec();
    all.extend(["--format", "json"]);
    serde_json::from_str(&out(&centime(folder, &all))).unwrap()
}

fn number(row: &Value, column: &str) -> f64 {
    row[column].as_f64().unwrap_or_else(|| panic!("{column}: {row}"))
}

const SWEEP: &str = "version: 1\nname: s\ntrial: { model: { preset: llama-2-7b }, phase: decode, prompt_len: 512, new_tokens: 128, \
                     dtype: bf16 }\nsweep: { matrix: { batch: [1, 8] } }\n";

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("s.yaml"), SWEEP).unwrap();
    folder
}

#[test]
fn a_sweep_is_answered_for_devices_that_are_not_here_with_bars_in_dollars() {
    let folder = folder();
    let rows = json(folder.path(), &["project", "s.yaml", "--on", "h100-sxm-80gb,2xNVIDIA A100-SXM4-80GB,t4"]);
    let good: Vec<&Value> = rows.iter().filter(|r| r["engine"] == "good engine").collect();
    assert_eq!(good.len(), 6, "{rows:?}");
    for r in good.iter().filter(|r| r["device"] != "t4") {
        let (low, rate, high) = (number(r, "from"), number(r, "tokens_per_second"), number(r, "to"));
        assert!(low < rate && rate < high, "{r}");
        // Ends swapped: the dearest token is the slowest.
        assert!(number(r, "usd_from") < number(r, "usd_to"), "{r}");
        let cost = number(r, "usd_per_hour") / (3600.0 * rate) * 1e6;
        assert!((number(r, "usd_per_million_tokens") / cost - 1.0).abs() < 1e-6, "{r}");
        assert!((number(r, "usd_from") / (number(r, "usd_per_hour") / (3600.0 * high) * 1e6) - 1.0).abs() < 1e-6);
    }
    // 13.5 GB of weights do not fit beside anything into 16 GB, and a row says so instead of a rate.
    let small: Vec<&Value> = rows.iter().filter(|r| r["device"] == "t4").collect();
    assert!(small.iter().any(|r| r["note"].as_str().unwrap().contains("does not fit")), "{small:?}");
    assert!(
        number(good[0], "tokens_per_second") > 100.0 && number(good[0], "tokens_per_second") < 260.0,
        "{}",
        good[0]
    );
}

#[test]
fn this_program_and_a_good_engine_are_two_answers_once_it_was_measured() {
    let folder = folder();
    let own = "version: 1\nbars: { inference: { sources: 20, half: 0.25, between: 0.2, within: 0.15 } }\n\
               own: [{ quantity: decode, time_ratio: 2, spread: 0.1, trials: 9, device: here }]\n";
    std::fs::write(folder.path().join("c.yaml"), own).unwrap();
    let rows = json(
        folder.path(),
        &["project", "s.yaml", "--on", "h100", "--calibration", "c.yaml", "--set", "sweep.matrix.batch=[1]"],
    );
    let of = |engine: &str| rows.iter().find(|r| r["engine"] == engine).unwrap_or_else(|| panic!("{engine}: {rows:?}"));
    let (good, own) = (of("good engine"), of("this program"));
    assert!((number(good, "tokens_per_second") / number(own, "tokens_per_second") - 2.0).abs() < 1e-9);
    // What is its own part of the error was measured: the bar of its rows is left, with its own spread.
    let half = |r: &Value| (number(r, "to") / number(r, "from")).ln() / 2.0;
    assert!((half(good) - 0.25).abs() < 1e-9, "{good}");
    assert!((half(own) - (0.25f64 * 0.6).hypot(0.1)).abs() < 1e-9, "{own}");
}

#[test]
fn a_goal_is_met_within_its_budget_or_refused_with_the_nearest_plan() {
    let folder = folder();
    let rows = json(folder.path(), &["project", "train", "budget 20000 USD, 7B parameters, 140B tokens"]);
    let earlier = json(folder.path(), &["project", "--fit", "budget 20000 USD, 7B parameters, 140B tokens"]);
    assert_eq!(rows, earlier, "its earlier name");
    assert!(!rows.is_empty() && rows.iter().all(|r| number(r, "usd") <= 20_000.0), "{rows:?}");
    assert!(
        rows.iter().all(|r| number(r, "days_from") < number(r, "days") && number(r, "days") < number(r, "days_to"))
    );
    let refused = centime(folder.path(), &["project", "train", "budget 10 USD, 7B parameters, 140B tokens"]);
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(2) && text.contains("no plan is within that"), "{text}");
}

const TRAINING: &str = "\
id,source_key,model,hardware,n_gpus,params,n_layers,d_model,n_heads,seq_len,micro_batch,global_batch,dtype,tp,pp,ep,act_ckpt,tokens_per_s,step_time_s,mfu,mem_gb,framework,complete,notes
a,one,GPT 1.7B,A100-SXM-80GB,8,1700000000,24,2304,24,2048,4,512,bf16,1,1,,full,,9.6,,,Megatron-LM,full,
b,one,GPT 1.7B,A100-SXM-80GB,8,1700000000,24,2304,24,2048,4,512,bf16,1,1,,full,109227,,,,Megatron-LM,full,
c,two,GPT 1.7B,A100-SXM-80GB,8,1700000000,24,2304,24,2048,4,512,bf16,1,1,,full,,,50,,Megatron-LM,full,
d,two,GPT 1.7B,no such card,8,1700000000,24,2304,24,2048,4,512,bf16,1,1,,full,1,,,,x,full,
e,two,MoE,A100-SXM-80GB,8,1700000000,24,2304,24,2048,4,512,bf16,1,1,8,full,1,,,,x,full,
f,two,GPT 1.7B,A100-SXM-80GB,8,1700000000,24,2304,24,2048,4,512,bf16,1,1,,full,1,,,,x,full,DO NOT USE: a slip
";

#[test]
fn published_rows_are_predicted_or_say_why_not() {
    let folder = folder();
    std::fs::write(folder.path().join("t.csv"), TRAINING).unwrap();
    let rows = json(folder.path(), &["project", "validate", "t.csv"]);
    assert_eq!(rows.len(), 6, "{rows:?}");
    let of = |id: &str| rows.iter().find(|r| r["id"] == id).unwrap();
    // 512 x 2048 tokens in 9.6 s, stated as time or as rate, are the same.
    assert!((number(of("a"), "published") / number(of("b"), "published") - 1.0).abs() < 1e-3);
    assert!(number(of("a"), "error").abs() < 0.4, "{}", of("a"));
    // Half of 312 TFLOP/s on 8 devices, over 6 FLOPs a weight and 12 a layer, position and width of attention.
    let weights = 24.0 * 12.0 * 2304.0f64.powi(2) + 50257.0 * 2304.0;
    let expected = 0.5 * 312e12 * 8.0 / (6.0 * weights + 12.0 * 24.0 * 2048.0 * 2304.0);
    assert!((number(of("c"), "published") / expected - 1.0).abs() < 1e-6, "{} {expected}", of("c"));
    for (id, reason) in [("d", "not in the catalog"), ("e", "mixture of experts"), ("f", "DO NOT USE")] {
        assert!(of(id)["not_predicted"].as_str().unwrap().contains(reason), "{}", of(id));
    }
    let table = out(&centime(folder.path(), &["project", "validate", "t.csv", "--out", "page"]));
    assert!(table.contains("median") && table.contains("validation.html"), "{table}");
    for file in ["validation.html", "validation.md", "charts/validation-training.svg"] {
        assert!(folder.path().join("page").join(file).is_file(), "{file}");
    }
}

#[test]
fn constants_are_fitted_written_and_read_again() {
    let folder = folder();
    std::fs::write(folder.path().join("t.csv"), TRAINING).unwrap();
    out(&centime(folder.path(), &["project", "calibrate", "t.csv", "--out", "c.yaml"]));
    let before = json(folder.path(), &["project", "validate", "t.csv"]);
    let after = json(folder.path(), &["project", "validate", "t.csv", "--calibration", "c.yaml"]);
    let error =
        |rows: &[Value]| rows.iter().filter_map(|r| r["error"].as_f64()).map(|e| (1.0 + e).ln().abs()).sum::<f64>();
    assert!(error(&after) <= error(&before) + 1e-9, "{} after {}", error(&after), error(&before));
}

#[test]
fn what_is_wrong_is_said_with_place_and_remedy() {
    let folder = folder();
    let path = folder.path();
    std::fs::write(path.join("bad.csv"), "a,b\n1,2\n").unwrap();
    std::fs::write(path.join("torn.csv"), "seq_len,micro_batch,id\n1,2\n").unwrap();
    std::fs::write(path.join("c.yaml"), "version: 1\nconstants: { matmul_shar: 1 }\n").unwrap();
    for (arguments, code, message) in [
        (&["project", "s.yaml", "--on", "h100-smx-80gb"][..], 2, "did you mean `h100-sxm-80gb`?"),
        (&["project", "s.yaml", "--on", "0xh100"], 2, "a count is 1 to"),
        (&["project", "s.yaml", "--on", "h100", "--calibration", "c.yaml"], 2, "matmul_share"),
        (&["project", "train", "7B parameters, 7 apples"], 2, "character 16: `7 apples`: known are `7B parameters`"),
        (&["project", "train", "7B parameters, 140B tokens, efficiency 90 %"], 2, "asks for less"),
        (&["project", "validate", "bad.csv"], 2, "the columns are those of neither layout"),
        (&["project", "validate", "torn.csv"], 2, "line 2"),
        (&["project", "validate", "absent.csv"], 74, "absent.csv"),
        (&["project", "calibrate", "--own", "."], 74, "environment.json"),
    ] {
        let output = centime(path, arguments);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}");
        assert!(text.contains(message), "{arguments:?}: {text}");
    }
}

const CHINCHILLA: &str = include_str!("golden/scaling/chinchilla.csv");

/// The runs without the five of the highest losses, as Besiroglu et al. 2024 fit them.
fn chinchilla() -> String {
    let is_run = |l: &&str| l.starts_with(|c: char| c.is_ascii_digit());
    let loss = |l: &str| l.rsplit(',').next().unwrap().parse::<f64>().unwrap();
    let mut runs: Vec<&str> = CHINCHILLA.lines().filter(is_run).collect();
    runs.sort_by(|a, b| loss(a).total_cmp(&loss(b)));
    format!("parameters,tokens,loss\n{}\n", runs[..runs.len() - 5].join("\n"))
}

#[test]
fn published_runs_have_the_law_that_was_published_of_them() {
    let folder = folder();
    std::fs::write(folder.path().join("c.csv"), chinchilla()).unwrap();
    let arguments =
        ["scaling", "c.csv", "--device", "a100-sxm-80gb", "--budget", "2000", "--out", "page", "--format", "json"];
    let answer: Value = serde_json::from_str(&out(&centime(folder.path(), &arguments))).unwrap();
    let law = &answer["law"];
    assert_eq!(answer["runs"], 240);
    // The best fit of Besiroglu et al. 2024, as their notebook prints it.
    for (name, value) in [("floor", 1.81724), ("alpha", 0.34731), ("beta", 0.36718)] {
        let b = &law[name];
        assert!((number(b, "value") - value).abs() < 2e-4, "{name}: {b}");
        assert!(number(b, "low") < value && value < number(b, "high"), "{name}: {b}");
    }
    // Their interval of alpha from 4,000 draws: 0.317 to 0.373.
    let alpha = &law["alpha"];
    assert!((number(alpha, "low") - 0.317).abs() < 0.01 && (number(alpha, "high") - 0.373).abs() < 0.01, "{alpha}");
    // Their law differs from the one that was first published: a floor of 1.69.
    assert!(number(&law["floor"], "low") > 1.69, "{law}");
    let bought = &law["bought"];
    let ratio = number(&bought["best"], "tokens") / number(&bought["best"], "parameters");
    // About twenty tokens a parameter, their section 4.
    assert!((10.0..40.0).contains(&ratio), "{ratio}: {bought}");
    assert!(number(&bought["loss"], "low") < number(&bought["best"], "loss"));
    let usd: Vec<f64> = law["tenths"].as_array().unwrap().iter().map(|t| number(&t["usd"], "value")).collect();
    assert!(usd.first().is_some_and(|u| *u > 2000.0) && usd.windows(2).all(|w| w[1] > w[0]), "{usd:?}");
}

#[test]
fn runs_that_say_too_little_are_told_what_to_add() {
    let folder = folder();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("few.csv", "parameters,tokens,loss\n1e6,1e8,4\n2e6,1e8,3.9\n4e6,2e8,3.5\n");
    // Every sixth, which takes a sixth of the time.
    let some: Vec<String> = chinchilla().lines().step_by(6).map(String::from).collect();
    write("all.csv", &some.join("\n"));
    write("bad.csv", "parameters,tokens\n1,2\n");
    for (arguments, code, message) in [
        (&["scaling", "few.csv"][..], 4, "3 runs are there, and it takes at least 8"),
        (&["scaling", "bad.csv"], 2, "expected a column `loss`"),
        (&["scaling", "absent.csv"], 74, "absent.csv"),
        (&["scaling", "."], 74, "no run is there"),
        (&["scaling", "all.csv", "--price", "1"], 2, "is of a run's folder"),
        (&["scaling", "all.csv", "--budget", "10"], 2, "give --device, or a column `usd`"),
        (&["scaling", "all.csv", "--device", "h100-smx-80gb"], 2, "did you mean `h100-sxm-80gb`?"),
        (
            &["scaling", "all.csv", "--device", "h100-sxm-80gb", "--budget", "1e9", "--out", "p"],
            4,
            "times beyond the most",
        ),
    ] {
        let output = centime(folder.path(), arguments);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}");
        assert!(text.contains(message), "{arguments:?}: {text}");
    }
    let arguments =
        ["scaling", "all.csv", "--device", "h100-sxm-80gb", "--budget", "1e9", "--extrapolate", "--out", "p"];
    assert!(out(&centime(folder.path(), &arguments)).contains("the best is a model of"));
    let page = std::fs::read_to_string(folder.path().join("p/scaling.html")).unwrap();
    assert!(page.contains("What the same money trains"), "the picture is in the page");
}
