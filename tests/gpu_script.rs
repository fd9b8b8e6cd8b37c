//! `ci/gpu` and `ci/gpu-pack` on a machine without a GPU: the dry run, and the real one with programs that stand in for the GPU's.
#![cfg(target_os = "linux")]

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// What the scripts need beside a shell; says what is missing.
fn lacks(programs: &[&str]) -> bool {
    let there = |p: &&str| Command::new(p).arg("--version").output().is_ok_and(|o| o.status.success());
    let missing: Vec<&&str> = programs.iter().filter(|p| !there(p)).collect();
    if !missing.is_empty() {
        eprintln!("not tested: {missing:?} is not installed");
    }
    !missing.is_empty()
}

fn program(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// A centime that answers every step at once: two trials of attention, and what `doctor` says decides how it ends.
const CENTIME: &str = r#"
out=; last=
for a in "$@"; do [ "$last" = --out ] && out=$a; last=$a; done
case "$1" in
  doctor) DOCTOR ;;
  verify) echo ok ;;
  run)
    mkdir -p "$out"
    printf 'status,phase,batch,model.head_dim,mfu_causal,mbu\nok,prefill,1,64,0.61,\nok,decode,1,128,,0.8\nskipped,train,1,64,,\n' >"$out/results.csv"
    echo '{"rows":[{"status":"ok","reason":null,"tokens_per_second":1500.0,"mfu":0.5,"mbu":null,"peak_gpu_memory_bytes":1e9,"gpu_throttled_share":0.25,"gpu_sm_mhz":1980}]}' ;;
esac"#;

/// A Python that has a PyTorch of 1000 tokens/s.
const PYTHON: &str = r#"
case "$1" in
  -c) echo 2.9.0 13.0 True Stand-in GPU ;;
  *) echo '{"ready": true, "mode": "compile"}'
     while read -r line && [ "$line" = go ]; do echo noise; echo '{"tokens_per_second": 1000.0, "mode": "compile + CUDA graph"}'; done ;;
esac"#;

struct Ran {
    out: PathBuf,
    output: Output,
    _folder: tempfile::TempDir,
}

impl Ran {
    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.out.join(name)).unwrap_or_else(|e| panic!("{name}: {e}\n{:?}", self.output))
    }
}

fn stand_ins(doctor: &str, arguments: &[&str]) -> Ran {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let centime = program(at, "centime", &CENTIME.replace("DOCTOR", doctor));
    let python = program(at, "torch-python", PYTHON);
    program(at, "nvidia-smi", "echo 0, Stand-in GPU");
    program(at, "compute-sanitizer", "echo ERROR SUMMARY: 1 error; exit 9");
    let path = format!("{}:{}", at.display(), std::env::var("PATH").unwrap());
    let out = at.join("out");
    let output = Command::new(root().join("ci/gpu"))
        .args(arguments)
        .arg(&out)
        .env("PATH", path)
        .env("CENTIME", centime)
        .env("PYTHON", python)
        .output()
        .unwrap();
    Ran { out, output, _folder: folder }
}

/// (step, exit code).
fn steps(csv: &str) -> Vec<(String, String)> {
    let fields = |l: &str| l.split(',').map(str::to_string).collect::<Vec<_>>();
    csv.lines().skip(1).map(fields).map(|f| (f[0].clone(), f[3].clone())).collect()
}

const STEPS: &[&str] = &[
    "nvidia-smi",
    "nvidia-smi-full",
    "torch",
    "doctor",
    "verify-f32",
    "verify-tf32",
    "verify-bf16",
    "side-by-side",
    "memcheck",
    "nccl",
    "gpu-attention",
    "gpu-decode",
    "gpu-train",
    "gpu-prefill",
    "racecheck",
];

#[test]
fn the_dry_run_names_every_step_with_its_time_and_runs_none() {
    if lacks(&["python3"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let output = Command::new(root().join("ci/gpu")).arg("--dry-run").arg(&out).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    let steps = steps(&std::fs::read_to_string(out.join("steps.csv")).unwrap());
    assert_eq!(steps.iter().map(|s| s.0.as_str()).collect::<Vec<_>>(), STEPS);
    assert!(steps.iter().all(|s| s.1 == "-"), "{steps:?}");
    for step in STEPS {
        assert!(said.contains(&format!("{step} (at most ")), "{step}: {said}");
    }
    let report = std::fs::read_to_string(out.join("report.md")).unwrap();
    assert!(
        report.contains("A dry run: nothing was measured.")
            && report.contains("| attention forward, head_dim 64, T 4096 | n/a | 60% | n/a |"),
        "{report}"
    );
}

#[test]
fn a_step_that_fails_does_not_stop_the_others_and_the_table_has_ratios_and_targets() {
    if lacks(&["python3", "timeout"]) {
        return;
    }
    let ran = stand_ins("echo broken; exit 3", &[]);
    assert!(ran.output.status.success(), "{:?}", ran.output);
    let steps = steps(&ran.read("steps.csv"));
    let code = |name: &str| steps.iter().find(|s| s.0 == name).map(|s| s.1.clone()).unwrap();
    assert_eq!(steps.iter().map(|s| s.0.as_str()).collect::<Vec<_>>(), STEPS);
    assert_eq!([code("doctor"), code("memcheck"), code("verify-bf16"), code("side-by-side")], ["3", "9", "0", "0"]);
    assert_eq!(ran.read("doctor.log").trim(), "broken");
    let report = ran.read("report.md");
    for words in [
        "| train GPT-2 124M, B32 T1024 | 1,500 | 1,000 | **1.50** (1.50 .. 1.50) | 1.00 | yes |",
        "| 1.20, MBU 85% | yes |",
        "| attention forward, head_dim 64, T 4096 | 61.0% | 60% | yes |",
        "| decode Llama 8B, B1, of the bandwidth | 80.0% | 85% | no |",
        "| doctor | ",
        "failed |",
        "| 0 | 2 of 3 trials measured |",
    ] {
        assert!(report.contains(words), "{words} is not in {report}");
    }
    let ratios = ran.read("side-by-side/ratios.csv");
    assert_eq!(ratios.lines().count(), 8, "{ratios}");
    assert!(!ran.out.join("cache").exists() && !ran.out.join("runtime").exists());
}

#[test]
fn a_step_that_hangs_is_ended_and_what_has_no_time_left_is_said_to_have_none() {
    if lacks(&["python3", "timeout"]) {
        return;
    }
    let began = std::time::Instant::now();
    let ran = stand_ins("sleep 100", &["--seconds", "14"]);
    assert!(began.elapsed().as_secs() < 40, "{:?}", began.elapsed());
    let steps = steps(&ran.read("steps.csv"));
    let code = |name: &str| steps.iter().find(|s| s.0 == name).map(|s| s.1.clone()).unwrap();
    assert_eq!([code("doctor"), code("racecheck")], ["124", "skipped"], "{steps:?}");
    assert!(ran.read("report.md").contains("| doctor | ") && ran.read("report.md").contains("time was up"));
}

#[test]
fn the_pack_holds_what_the_script_needs_and_runs_where_it_is_unpacked() {
    if lacks(&["python3", "tar", "xz"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let centime = program(folder.path(), "centime-built", "echo hello");
    let pack = folder.path().join("pack");
    let output =
        Command::new(root().join("ci/gpu-pack")).arg("--no-build").arg(&pack).env("CENTIME", centime).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && said.contains("MiB"), "{output:?}");
    let there = folder.path().join("there");
    std::fs::create_dir(&there).unwrap();
    let tar = Command::new("tar").arg("-xf").arg(pack.join("gpu-pack.tar")).arg("-C").arg(&there).status().unwrap();
    assert!(tar.success() && there.join("centime.xz").exists());
    let dry = Command::new(there.join("ci/gpu")).args(["--dry-run", "results"]).env_remove("OUT").output().unwrap();
    assert!(dry.status.success(), "{dry:?}");
    assert!(String::from_utf8_lossy(&dry.stdout).contains("doctor (at most"), "{dry:?}");
    assert!(there.join("results/report.md").exists());
    for line in std::fs::read_to_string(there.join("results/steps.csv")).unwrap().lines().skip(1) {
        for file in line
            .split([' ', '"'])
            .filter(|w| w.starts_with("ci/") || w.starts_with("tests/") || w.starts_with("scenarios/"))
        {
            assert!(there.join(file).exists(), "{file} is not in the pack");
        }
    }
}
