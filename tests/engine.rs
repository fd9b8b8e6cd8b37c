//! Programs of the user's under a scenario: figures come back as they were printed, and whatever else a program does is a row that
//! says so and leaves nobody running. The programs are lines of `sh`.
#![cfg(unix)]

use centime::internal::results::read_journal;
use centime::{Figures, Record, Status, Stop};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;

struct Sweep(TempDir);

impl Sweep {
    /// A scenario with this `engine`, and these lines beside it.
    fn new(engine: &str, rest: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let text = format!(
            "version: 1\nname: programs\ntrial:\n  batch: 4\n  seq_len: 100\n  engine:\n    {}\n{rest}\n\
             price: {{ usd_per_hour: 3.6 }}\n",
            engine.replace('\n', "\n    ")
        );
        std::fs::write(folder.path().join("s.yaml"), text).unwrap();
        Self(folder)
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.0.path().join(name)
    }

    fn centime(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_centime"));
        command.args(arguments).current_dir(self.0.path());
        command.env("XDG_RUNTIME_DIR", self.0.path()).env("NO_COLOR", "1").env("FROM_OUTSIDE", "outside");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).output().unwrap()
    }

    fn run(&self) -> Vec<Record> {
        let output = self.centime(&["run", "s.yaml", "--no-probe", "--out", "out"]);
        let records = read_journal(&self.path("out")).unwrap().map_or(vec![], |c| c.records);
        assert!(!records.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
        records
    }

    /// The result table as machines read it.
    fn rows(&self) -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(self.path("out/results.json")).unwrap();
        let table: serde_json::Value = serde_json::from_str(&text).unwrap();
        table["rows"].as_array().unwrap().clone()
    }

    /// Status and reason of the only trial.
    fn ending(&self) -> (Status, String) {
        let mut records = self.run();
        let m = records.remove(0).measurement;
        assert_eq!(m.figures.is_some(), m.status == Status::Ok);
        (m.status, m.reason)
    }
}

fn figures(record: &Record) -> &Figures {
    record.measurement.figures.as_ref().unwrap_or_else(|| panic!("{}", record.measurement.reason))
}

const QUICK: &str = "measure: { min_seconds: 0, max_seconds: 1, rounds: 1, order: file }";

/// A program whose one word is a line of sh.
fn sh(line: &str, reads: &str) -> String {
    format!("command: [sh, -c, {}]\nreads: {reads}", serde_json::to_string(line).unwrap())
}

#[test]
fn a_figure_a_launch_is_a_sample_a_launch_and_the_first_launch_warms_up() {
    // Counts its launches in a file; the first is slow.
    let line = "echo x >> launches.$0; n=$(wc -l < launches.$0); echo loading model; \
                if [ $n = 1 ]; then echo '{\"throughput\": 1}'; else echo \"{\\\"throughput\\\": $1}\"; fi";
    let engine = format!(
        "command: [sh, -c, {}, \"{{batch}}\", \"{{engine.env.RATE}}\"]\nenv: {{ RATE: 500 }}\nreads: {{ tokens_per_second: $.throughput }}",
        serde_json::to_string(line).unwrap()
    );
    let rest = format!("{QUICK}\nsweep: {{ matrix: {{ batch: [4, 8], engine.env.RATE: [1000, 2000] }} }}");
    let sweep = Sweep::new(&engine, &rest);
    let records = sweep.run();
    assert_eq!(records.len(), 4);
    for (record, (batch, rate)) in records.iter().zip([(4.0, 1000.0), (4.0, 2000.0), (8.0, 1000.0), (8.0, 2000.0)]) {
        let f = figures(record);
        let expected = batch * 100.0 / rate;
        let odd: Vec<f64> = f.step_seconds.iter().copied().filter(|s| *s != expected).collect();
        // Cells with the same batch count their launches in one file: only the very first was slow.
        assert!(odd.is_empty(), "{odd:?}, expected {expected}");
        assert!(f.warmup_steps == 1 && f.step_seconds.len() >= 6 && f.stopped_by == Stop::Precision, "{f:?}");
        assert_eq!((f.tokens_per_step as f64, f.checksum, f.peak_allocated_bytes), (batch * 100.0, 0, 0));
        assert!((1 << 18..1 << 30).contains(&f.peak_rss_bytes), "{}", f.peak_rss_bytes);
        assert!(f.disturbance.is_none(), "nobody watched the program");
        assert_eq!(record.cell.name(), format!("batch {batch}, RATE {rate}"));
    }
    let launches = std::fs::read_to_string(sweep.path("launches.4")).unwrap().lines().count();
    let samples: usize = records[..2].iter().map(|r| figures(r).step_seconds.len() + 1).sum();
    assert_eq!(launches, samples, "a launch a sample");
    let row = &sweep.rows()[0];
    assert_eq!(row["tokens_per_second"], 1000.0);
    // 3.6 USD an hour are a tenth of a cent a second, for 1000 tokens.
    assert_eq!(row["usd_per_million_tokens"], 1.0);
    for unknown in ["mfu", "flops_per_second", "model.d_model", "dtype", "optimizer", "peak_allocated_bytes"] {
        assert!(row.get(unknown).unwrap().is_null(), "{unknown}");
    }
    for unknown in ["predicted_memory_bytes", "predicted_weights_bytes", "model_memory_bytes", "ttft_seconds"] {
        assert!(row.get(unknown).unwrap().is_null(), "{unknown}");
    }
    assert_eq!((&row["model"], &row["engine.reads"]), (&"sh".into(), &"tokens_per_second: $.throughput".into()));
    assert_eq!(row["engine.env"], "RATE=1000");
}

#[test]
fn a_line_a_step_is_warmed_up_measured_and_cut_off_like_the_built_in_engine() {
    let line = "i=0; while true; do i=$((i+1)); if [ $i -le 5 ]; then t=0.9; else t=0.40$((i%3)); fi; \
                echo \"step $i\"; echo \"{\\\"t\\\": $t, \\\"loss\\\": $i.5, \\\"peak\\\": 4096}\"; sleep 0.002; done";
    let engine = sh(line, "{ each: step, seconds: $.t, loss: $.loss, memory_bytes: $.peak }");
    let records = Sweep::new(&engine, "measure: { min_seconds: 0.2, max_seconds: 5, rounds: 1 }").run();
    let f = figures(&records[0]);
    assert!(f.warmup_steps >= 5 && f.step_seconds.iter().all(|s| (0.4..0.403).contains(s)), "{f:?}");
    assert_eq!((f.stopped_by, f.device_memory.unwrap().peak_allocated_bytes), (Stop::Precision, 4096));
    let steps = f.warmup_steps as usize + f.step_seconds.len();
    assert_eq!(f.loss, Some(steps as f64 + 0.5), "the last step's");
}

#[test]
fn a_program_that_ends_before_it_is_precise_gives_what_it_has() {
    let line = "for i in 1 2 3 4 5 6 7 8; do echo \"loss $i.0, 1,000 tokens/s\"; done";
    let of = |warmup: &str, reads: &str| {
        let measure = format!("measure: {{ min_seconds: 1, max_seconds: 5, rounds: 1, warmup: {warmup} }}");
        Sweep::new(&sh(line, reads), &measure)
    };
    for reads in ["torchrun", "{ each: step, pattern: 'loss (?<loss>\\S+), (?<tokens_per_second>[0-9,]+) tok' }"] {
        let records = of("2", reads).run();
        let f = figures(&records[0]);
        assert_eq!((f.stopped_by, f.warmup_steps, f.step_seconds.as_slice()), (Stop::Ended, 2, &[0.4; 6][..]));
        assert_eq!(f.loss, Some(8.0));
    }
    let (status, reason) = of("auto", "torchrun").ending();
    let expected =
        "the program ended after 8 steps, all of them warm-up; have it run for more, or set measure.warmup to fewer";
    assert_eq!((status, reason.as_str()), (Status::Invalid, expected));
}

#[test]
fn a_file_is_read_where_the_command_names_one() {
    let line = "test \"$FROM_OUTSIDE\" = outside && echo noise && echo '{\"ms\": 250}' > \"$0\"";
    let engine = format!(
        "command: [sh, -c, {}, \"{{output}}\"]\nname: my bench\nreads: {{ milliseconds: $.ms }}",
        serde_json::to_string(line).unwrap()
    );
    let records = Sweep::new(&engine, &format!("{QUICK}\n")).run();
    assert_eq!(figures(&records[0]).step_seconds[0], 0.25);
    assert_eq!(records[0].cell.trial.model, "my bench");
    let left = std::fs::read_dir(std::env::temp_dir()).unwrap().flatten();
    let pid = format!("centime-{}", std::process::id());
    assert!(!left.into_iter().any(|e| e.file_name().to_string_lossy().starts_with(&pid)));
}

#[test]
fn the_stated_model_of_a_program_has_its_flops() {
    let engine = sh("echo '{\"seconds\": 0.5}'", "{ seconds: $.seconds }");
    let sweep = Sweep::new(
        &engine,
        "  model: { d_model: 64, n_layers: 1, n_heads: 4 }\n  dtype: bf16\nmeasure: { min_seconds: 0, max_seconds: 1, rounds: 1 }",
    );
    let records = sweep.run();
    assert_eq!(records[0].cell.trial.model, "gpt2 1x64");
    let row = &sweep.rows()[0];
    assert!(row["flops_per_second"].as_f64().unwrap() > 1e6, "{row}");
    assert_eq!(row["dtype"], "bf16");
}

#[test]
fn whatever_a_program_does_is_a_row_that_says_so() {
    let figure = "{ tokens_per_second: $.t }";
    type Case = (&'static str, &'static str, Status, &'static str);
    let cases: &[Case] = &[
        ("echo trouble ahead >&2; exit 3", figure, Status::Crashed, "sh: exited with code 3; it said: trouble ahead"),
        ("kill -SEGV $$", figure, Status::Crashed, "sh: killed by signal 11 (SIGSEGV)"),
        (
            "echo 'torch.OutOfMemoryError: CUDA' >&2; exit 1",
            figure,
            Status::Oom,
            "sh: exited with code 1; it said: torch.Out",
        ),
        ("echo hello", figure, Status::Invalid, "sh: expected JSON with $.t, found \"hello\""),
        ("true", figure, Status::Invalid, "sh: expected JSON with $.t, found nothing"),
        ("echo '{\"t\": 0}'", figure, Status::Invalid, "sh: tokens_per_second: expected a number above 0, found 0"),
        ("echo '{\"t\": -3}'", figure, Status::Invalid, "sh: tokens_per_second: expected a number above 0, found -3"),
        ("echo '{\"t\": NaN}'", figure, Status::Invalid, "NaN and Infinity are none"),
        ("echo '{\"t\": 1}'; echo '{\"t\": 2}'", figure, Status::Invalid, "use each: step for a figure a step"),
        ("printf '\\377\\376 no text'", figure, Status::Invalid, "expected JSON with $.t, found"),
        (
            "echo hello",
            "torchrun",
            Status::Invalid,
            "sh: no line tells of a step: expected a line with tokens/s, found as its last",
        ),
        ("echo '1 tokens/s'; exit 4", "torchrun", Status::Crashed, "sh: exited with code 4"),
        ("echo 'loss nan 5 tokens/s'", "torchrun", Status::Invalid, "sh: loss: expected a finite number, found NaN"),
    ];
    for (line, reads, status, words) in cases {
        let (found, reason) = Sweep::new(&sh(line, reads), QUICK).ending();
        assert!(found == *status && reason.contains(words), "{line}: {found:?}: {reason}");
    }
    let missing = Sweep::new("command: [no-such-program]\nreads: torchrun", QUICK).ending();
    assert!(missing.0 == Status::Invalid && missing.1.contains("no-such-program could not be started"), "{missing:?}");
}

/// Whether a process with this word in its command line is alive.
fn alive(word: &str) -> bool {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let lines = processes.filter_map(|e| std::fs::read(e.path().join("cmdline")).ok());
    lines.into_iter().any(|line| line.split(|b| *b == 0).any(|w| w == word.as_bytes()))
}

#[test]
fn who_stays_behind_is_ended_and_told_of() {
    if !Path::new("/proc/self/cmdline").exists() {
        eprintln!("skipped: this system has no /proc");
        return;
    }
    // In a group and session of its own where there is `setsid`; with a pipe of its own, or with the program's.
    let setsid = Command::new("setsid").arg("true").status().is_ok_and(|s| s.success());
    let away = if setsid { "setsid " } else { "" };
    for (seconds, redirect) in [("4711.1", ">/dev/null 2>&1"), ("4711.2", "")] {
        let line = format!("{away}sleep {seconds} {redirect} & echo '{{\"t\": 5}}'");
        let (status, reason) = Sweep::new(&sh(&line, "{ tokens_per_second: $.t }"), QUICK).ending();
        assert!(status == Status::Invalid && reason.contains("left a process running (sleep)"), "{reason}");
        assert!(!alive(seconds), "{line}");
    }
    let line = format!("{away}sleep 4711.3 & sleep 4711.3");
    let timeout = "measure: { min_seconds: 0, max_seconds: 1, rounds: 1, timeout_seconds: 1 }";
    let (status, reason) = Sweep::new(&sh(&line, "torchrun"), timeout).ending();
    assert!(status == Status::Timeout && reason.starts_with("not finished after 1 s"), "{reason}");
    assert!(!alive("4711.3"));
    // One that would go on for ever, and has been heard enough.
    let line = format!("{away}sleep 4711.4 & while true; do echo '100 tokens/s'; sleep 0.01; done");
    let (status, reason) = Sweep::new(&sh(&line, "torchrun"), QUICK).ending();
    assert_eq!((status, reason.as_str()), (Status::Ok, ""));
    assert!(!alive("4711.4"));
}

#[test]
fn what_a_scenario_says_wrong_of_a_program_is_told_before_anything_runs() {
    let cases = [
        ("command: python train.py\nreads: torchrun", "engine.command: expected a program and its arguments as a list"),
        ("command: []\nreads: torchrun", "found no program"),
        ("command: [a, 1.10]\nreads: torchrun", "expected text, found a number (1.1); put it in quotes"),
        ("command: [a]", "engine.reads: missing; say how what the program prints is read"),
        ("reads: torchrun", "engine.command: missing; give the program"),
        ("command: [a]\nreads: llama-bank", "did you mean `llama-bench`"),
        ("command: [a]\nreads: { troughput: $.a }", "`troughput` is no figure"),
        ("command: [a]\nreads: { seconds: throughput }", "`throughput` is no path; expected $.key"),
        ("command: [a]\nreads: { seconds: $.a, tokens_per_second: $.b }", "expected one of tokens_per_second, seconds"),
        ("command: [a]\nreads: { pattern: '(?<speed>x)' }", "`speed` is no figure"),
        ("command: [a]\nreads: { pattern: '(' }", "is no regular expression"),
        ("command: [a]\nreads: llama-bench", "llama-bench trains nothing; use phase: prefill"),
        ("command: [a, \"{bach}\"]\nreads: torchrun", "{bach} stands for nothing; did you mean `batch`?"),
        ("command: [a, \"{bach}\"]\nreads: torchrun", "there is: model.family, model.preset,"),
        ("command: [a, \"{model.d_model}\"]\nreads: torchrun", "the trial states no model; give trial.model"),
        ("command: [a, \"{prompt_len}\"]\nreads: torchrun", "phase train does not use it"),
        ("command: [a, \"{engine.env.X}\"]\nreads: torchrun", "{engine.env.X} stands for nothing"),
    ];
    for (engine, words) in cases {
        let output = Sweep::new(engine, QUICK).centime(&["plan", "s.yaml"]);
        let said = String::from_utf8_lossy(&output.stderr).split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(!output.status.success() && said.contains(words), "{engine}: {said}");
    }
}

/// A check of a program whose steps take 20 ms by its own clock, the head's so many per cent longer; the cells' verdicts, and the exit
/// code. One at a time: two would measure each other.
fn checked(slower: u32, more: &[&str]) -> (Vec<serde_json::Value>, Option<i32>, serde_json::Value) {
    static ONE: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _alone = ONE.lock().unwrap_or_else(|e| e.into_inner());
    // The time is made, so that the machine's own does not count: a step of 20 ms, a thousandth more or less from launch to launch.
    let line = "i=0; while [ $i -lt 40 ]; do i=$((i+1)); echo \"{\\\"ns\\\": $(((20000000 + ($$ * 7919 + i * 31) % 40000) * (100 + SLOWER) / 100))e-9}\"; done";
    let engine = format!(
        "command: [sh, -c, {}]\nenv: {{ SLOWER: 0 }}\nreads: {{ each: step, seconds: $.ns }}",
        serde_json::to_string(line).unwrap()
    );
    let sweep = Sweep::new(&engine, "measure: { warmup: 2 }\nsweep: { matrix: { batch: [4, 8] } }");
    let head = format!("engine.env.SLOWER={slower}");
    let mut arguments = vec!["check", "s.yaml", "--seconds", "0.01", "--quiet", "--head-set", &head];
    arguments.extend(more);
    let output = sweep.centime(&arguments);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let text = std::fs::read_to_string(sweep.path("reports/check/check.json")).unwrap_or_else(|_| panic!("{said}"));
    let data: serde_json::Value = serde_json::from_str(&text).unwrap();
    (data["cells"].as_array().unwrap().clone(), output.status.code(), data)
}

#[test]
fn a_planted_slowdown_of_five_per_cent_is_caught_and_nothing_is_found_where_there_is_none() {
    let (cells, code, data) = checked(0, &["--baseline-set", "engine.env.SLOWER=0"]);
    // A guard (steal) may take a verdict away; a program against itself is never a regression.
    assert!(cells.iter().all(|c| c["judged"]["verdict"] == "PASS") && code == Some(0), "{data}");
    let (cells, code, data) = checked(5, &[]);
    assert_eq!(cells.len(), 2);
    for cell in &cells {
        assert_eq!(cell["judged"]["verdict"], "REGRESSION", "{data}");
        assert!((cell["judged"]["ratio"].as_f64().unwrap() - 1.05).abs() < 0.005, "{data}");
        assert_eq!(cell["findings"].as_array().unwrap().len(), 0, "{data}");
    }
    assert_eq!(code, Some(if data["guards"].as_array().unwrap().is_empty() { 5 } else { 0 }), "{data}");
    let method = &data["method"];
    assert_eq!((&method["head"], &method["base"]), (&"engine.env.SLOWER=5".into(), &"the scenario as it is".into()));
}

#[test]
fn two_sides_of_a_check_have_the_same_cells() {
    let sweep = Sweep::new("command: [a]\nreads: torchrun", "sweep: { matrix: { batch: [1, 2] } }");
    let output = sweep.centime(&["check", "s.yaml", "--head-set", "sweep.matrix.batch=[1,3]"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(2) && said.contains("expected the same cells on both sides"), "{said}");
    let output = sweep.centime(&["check", "s.yaml", "--head-set", "engine.env.A=1", "--baseline-bin", "x"]);
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn what_another_tool_measured_is_a_run_like_any_other() {
    let folder = tempfile::tempdir().unwrap();
    let result = |tokens_per_second: f64, concurrency: u32| {
        serde_json::json!({
            "backend": "vllm", "model_id": "qwen3-8b", "num_prompts": 100, "request_rate": "inf", "max_concurrency": concurrency,
            "duration": 20.0, "completed": 100, "total_input_tokens": 51_200, "total_output_tokens": 12_800, "request_throughput": 5.0,
            "output_throughput": 640.0, "total_token_throughput": tokens_per_second, "median_ttft_ms": 50.0, "p99_ttft_ms": 90.0,
            "median_tpot_ms": 12.0, "p99_tpot_ms": 15.0, "median_e2el_ms": 1574.0
        })
    };
    let files = [("a.json", 1000.0, 8), ("b.json", 1010.0, 8), ("c.json", 990.0, 8), ("d.json", 500.0, 1)];
    for (name, rate, concurrency) in files {
        std::fs::write(folder.path().join(name), result(rate, concurrency).to_string()).unwrap();
    }
    let centime = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_centime"));
        command
            .args(arguments)
            .current_dir(folder.path())
            .env("XDG_RUNTIME_DIR", folder.path())
            .env("NO_COLOR", "1")
            .output()
            .unwrap()
    };
    let told = |o: &Output| format!("{}{}", String::from_utf8_lossy(&o.stdout), String::from_utf8_lossy(&o.stderr));
    let import = ["import", "a.json", "b.json", "c.json", "d.json", "--price", "3.6", "--out", "run"];
    let output = centime(&import);
    assert!(output.status.success(), "{}", told(&output));
    let text = std::fs::read_to_string(folder.path().join("run/results.json")).unwrap();
    let table: serde_json::Value = serde_json::from_str(&text).unwrap();
    let (three, one) = (&table["rows"][0], &table["rows"][1]);
    let about = |row: &serde_json::Value, column: &str, expected: f64| {
        let found = row[column].as_f64().unwrap_or_else(|| panic!("{column}: {row}"));
        assert!((found / expected - 1.0).abs() < 1e-9, "{column}: {found}, expected {expected}");
    };
    about(three, "tokens_per_second", 1000.0);
    about(one, "tokens_per_second", 500.0);
    about(three, "usd_per_million_tokens", 1.0);
    about(one, "usd_per_million_tokens", 2.0);
    assert!(three["tokens_per_second_low"].as_f64().unwrap() < 1000.0, "three files tell how they differ");
    assert!(one["tokens_per_second_low"].is_null(), "one does not");
    for (column, expected) in
        [("ttft_seconds", 0.05), ("tpot_seconds", 0.012), ("ttft_seconds_p99", 0.09), ("e2e_seconds", 1.574)]
    {
        about(three, column, expected);
    }
    assert_eq!((&three["failed_requests"], &three["model"]), (&0.0.into(), &"qwen3-8b".into()));
    for unknown in ["step_seconds_p50", "backend", "peak_memory_bytes", "mfu", "itl_seconds"] {
        assert!(three[unknown].is_null(), "{unknown}: {}", three[unknown]);
    }
    for again in [vec!["report", "run", "--price", "7.2"], vec!["compare", "run", "run"], vec!["explain", "run", "run"]]
    {
        let output = centime(&again);
        assert!(output.status.success(), "{again:?}: {}", told(&output));
    }
    let output = centime(&import);
    assert!(output.status.code() == Some(2) && told(&output).contains("a run is there already"), "{}", told(&output));
    std::fs::write(folder.path().join("a.json"), "{\"hello\": 1}").unwrap();
    let output = centime(&["import", "a.json", "--out", "other"]);
    assert!(
        output.status.code() == Some(2) && told(&output).contains("a.json: it is of none of the tools"),
        "{}",
        told(&output)
    );
    assert!(!folder.path().join("other").exists(), "nothing is begun");
}
