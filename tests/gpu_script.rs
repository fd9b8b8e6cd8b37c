//! `ci/gpu` and `ci/gpu-pack` on a machine without a GPU: the dry run, and each part with programs that stand in for the GPU's; steps
//! that fail, hang or have no time; kills at any moment.
#![cfg(target_os = "linux")]

#[allow(dead_code, reason = "other tests use the rest of it")]
#[path = "common/stand_in.rs"]
mod stand_in;
#[path = "gpu_script/stand_ins.rs"]
mod stand_ins;

use stand_in::StandIn;
use stand_ins::{StandIns, lacks, program, root, said};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

const VERIFY: &[&str] = &[
    "nvidia-smi",
    "nvidia-smi-full",
    "torch",
    "doctor-untold",
    "doctor",
    "golden-f32",
    "golden-tf32",
    "golden-bf16",
    "golden-weights-f8",
    "families-f32",
    "families-bf16",
    "operations-small-f32",
    "operations-small-tf32",
    "operations-small-bf16",
    "memcheck-bf16",
    "nccl",
    "operations-full-bf16",
    "operations-full-f32",
    "operations-full-tf32",
    "racecheck-bf16",
    "memcheck-f32",
    "synccheck-bf16",
];
const RATIOS: &[&str] = &[
    "nvidia-smi",
    "torch",
    "prepare",
    "attention",
    "ratio-train-gpt2-124m",
    "ratio-decode-llama-1b",
    "ratio-prefill-llama-1b",
    "ratio-train-gpt-1.3b",
    "ratio-decode-llama-8b",
    "ratio-prefill-llama-8b",
    "ratio-decode-llama-1b-b16",
];
const SCENARIOS: &[&str] =
    &["nvidia-smi", "gpu-decode", "gpu-train", "gpu-prefill", "gpu-attention", "gpu-experts", "gpu-latents"];

fn in_order(there: &StandIns, part: &str) -> Vec<String> {
    there.steps().into_iter().filter(|s| s[0] == part).map(|s| s[1].clone()).collect()
}

fn contains(text: &str, all: &[&str]) {
    for words in all {
        assert!(text.contains(words), "{words} is not in {text}");
    }
}

#[test]
fn the_dry_run_names_every_step_with_its_time_and_writes_nothing() {
    if lacks(&["python3"]) {
        return;
    }
    let there = StandIns::new("exit 1");
    let output = there.run(&["--dry-run"]);
    let said = said(&output);
    assert!(output.status.success(), "{output:?}");
    let named: Vec<&str> = said.lines().filter_map(|l| l.split_once(" (at most ")).map(|(name, _)| name).collect();
    assert_eq!(named, [VERIFY, RATIOS, SCENARIOS].concat());
    contains(&said, &["A dry run: nothing was measured.", "**Not verified**", "nothing was written"]);
    assert!(!there.out().exists());
}

#[test]
fn verification_says_what_failed_and_goes_on() {
    if lacks(&["python3", "tar"]) {
        return;
    }
    let there = StandIns::new("echo libraries: $CENTIME_CUDA_LIBRARIES; echo broken; exit 3");
    let output = there.run(&["--part", "verify"]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(in_order(&there, "verify"), VERIFY);
    let code = |step: &str| there.code("verify", step);
    assert_eq!([code("doctor"), code("memcheck-bf16"), code("nccl"), code("golden-bf16")], ["3", "9", "0", "0"]);
    let words = [
        "**Verification failed**: doctor, memcheck-bf16, racecheck-bf16, memcheck-f32, synccheck-bf16.",
        "| memcheck-bf16 | ",
        "| failed (9) | ERROR SUMMARY: 1 error |",
        "| ok | ok: every group is within its tolerance |",
        "2.11.0+cu130 13.0 True Stand-in GPU",
    ];
    contains(&there.read("report.md"), &words);
    let printed = said(&output);
    contains(&printed, &words);
    contains(&printed, &["--- verify/doctor.log\n", "broken"]);
    // The libraries of Python's packages, but where the program is to find them by itself.
    let folder = there.folder.path().display();
    let libraries = format!("libraries: {folder}/nvidia/cu13/lib:{folder}/nvidia/nccl/lib");
    assert_eq!(there.archived("verify/doctor.log").lines().next(), Some(libraries.as_str()));
    assert_eq!(there.archived("verify/doctor-untold.log").lines().next(), Some("libraries:"));
    let files: Vec<_> = std::fs::read_dir(there.out()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(files.len(), 3, "{files:?}");
    let left: Vec<_> = std::fs::read_dir(there.folder.path().join("tmp")).unwrap().collect();
    assert_eq!(left.len(), 1, "only the cache stays: {left:?}");
}

#[test]
fn ratios_hold_centime_against_pytorch_and_say_that_nothing_was_verified() {
    if lacks(&["python3", "tar"]) {
        return;
    }
    let there = StandIns::new("exit 1");
    let output = there.run(&["--part", "ratios"]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(in_order(&there, "ratios"), RATIOS);
    let failed: Vec<_> = there.steps().into_iter().filter(|s| s[2] != "0").collect();
    assert!(failed.is_empty(), "{failed:?}: {}", said(&output));
    contains(
        &there.read("report.md"),
        &[
            "**Not verified**",
            "Shares are of a large product on this GPU: 800 TFLOP/s.",
            "| 4, 4096, 32/32, 64 | forward, causal | 300 | 37.5% | 36% | yes | 200 | n/a | 1.50 |",
            "| 4, 4096, 32/32, 64 | backward, causal | 200 | 25.0% | 30% | no | 100 | n/a | 2.00 |",
            "| 4, 4096, 16/16, 128 | forward, causal | 400 | 50.0% | 52% | no | n/a | n/a | n/a |",
            "| train GPT-2 124M, B32 T1024 | 1,500 | 1,000 | **1.50** (1.50 .. 1.50) | 1.00 | yes | 50.0% | 80.0% |",
            "| n/a | 80.0% | 85% | no | compile + CUDA graph | 25% |",
        ],
    );
    let archive = there.archive();
    for name in ["ratios/attention.json", "ratios/prepare.log", "ratios/train-gpt2-124m.json"] {
        assert!(archive.iter().any(|n| n == name), "{name}: {archive:?}");
    }
}

#[test]
fn a_part_is_added_to_what_earlier_ones_left_and_taken_up_where_it_failed() {
    if lacks(&["python3", "tar"]) {
        return;
    }
    let there = StandIns::new("[ -e \"$0.mended\" ] || exit 3");
    there.run(&["--part", "verify", "--step", "doctor", "--step", "nccl"]);
    assert_eq!(in_order(&there, "verify"), ["nvidia-smi", "doctor", "nccl"]);
    let output = there.run(&["--part", "scenarios"]);
    assert_eq!(in_order(&there, "scenarios"), SCENARIOS);
    contains(
        &there.read("report.md"),
        &[
            "**Verification failed**: doctor.",
            "| gpu-decode | llama-3-8b | prefill | 1 | 2,000 | 60.0% | 61.0% | n/a |  |",
            "| skipped: too large |",
        ],
    );
    assert!(there.archive().iter().any(|n| n == "verify/nccl.log"), "{output:?}");
    std::fs::write(there.folder.path().join("centime.mended"), "").unwrap();
    let output = there.run(&["--part", "verify", "--step", "doctor", "--step", "nccl", "--resume"]);
    contains(&said(&output), &["nccl: ended well before", "doctor: ok after"]);
    assert_eq!(there.code("verify", "doctor"), "0");
    // Elsewhere, from what was left here.
    let elsewhere = StandIns::new("exit 0");
    let earlier = there.out().display().to_string();
    elsewhere.run(&["--part", "verify", "--step", "golden-f32", "--earlier", &earlier]);
    assert_eq!(elsewhere.code("scenarios", "gpu-decode"), "0");
    assert_eq!(elsewhere.code("verify", "golden-f32"), "0");
    contains(&elsewhere.read("report.md"), &["| gpu-decode | llama-3-8b |"]);
}

#[test]
fn a_step_that_hangs_is_ended_and_what_has_no_time_left_is_said_to_have_none() {
    if lacks(&["python3", "tar"]) {
        return;
    }
    let began = Instant::now();
    let there = StandIns::new("trap '' TERM; sleep 100");
    let output = there.run(&["--part", "verify", "--seconds", "24"]);
    assert!(began.elapsed().as_secs() < 60, "{:?}", began.elapsed());
    assert_eq!([there.code("verify", "doctor-untold"), there.code("verify", "synccheck-bf16")], ["124", "skipped"]);
    contains(&said(&output), &["time was up", "synccheck-bf16: no time was left", "**Not verified**: none of"]);
}

#[test]
fn what_is_printed_last_is_never_longer_than_a_window() {
    if lacks(&["python3"]) {
        return;
    }
    let there = StandIns::new(
        "echo FAILED in the middle; i=0; while [ $i -lt 3000 ]; do echo a long line of a log that nobody will read $i; i=$((i+1)); done; exit 3",
    );
    let printed = said(&there.run(&["--part", "verify"]));
    let report = &printed[printed.find("# Centime on a GPU").unwrap()..];
    assert!(report.len() <= 11_001 && report.len() > 4000, "{}", report.len());
    contains(report, &["FAILED in the middle\n", "that nobody will read 2999", "results: "]);
}

#[test]
fn a_long_log_is_kept_by_its_ends_and_another_long_file_by_its_name() {
    if lacks(&["python3", "tar"]) {
        return;
    }
    let there = StandIns::new(
        "for d in $TMPDIR/centime-gpu-*/verify; do head -c 3000000 /dev/zero >$d/a.parquet; done; \
         echo begin; head -c 5000000 /dev/zero | tr '\\0' x; echo end",
    );
    there.run(&["--part", "verify", "--step", "doctor"]);
    let log = there.archived("verify/doctor.log");
    assert!(log.starts_with("begin\n") && log.ends_with("end\n") && log.len() < 2_200_000, "{}", log.len());
    contains(&log, &["bytes are left out here]"]);
    assert_eq!(there.archived("left-out.txt"), "verify/a.parquet: 3000000 bytes\n");
}

/// A centime whose steps take a moment, so that there is something to kill.
fn slow() -> StandIns {
    let there = StandIns::new("sleep 0.3");
    let at = there.folder.path();
    let quick = std::fs::read_to_string(at.join("centime")).unwrap();
    program(at, "centime", &quick.replace("verify) ", "verify) sleep 0.2; "));
    there
}

#[test]
fn killed_at_any_moment_it_leaves_a_whole_report_and_a_whole_archive() {
    if lacks(&["python3", "tar"]) {
        return;
    }
    for milliseconds in [700, 1100, 1501, 2203, 3307] {
        let there = slow();
        let mut child = there.command(&["--part", "verify"]).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(milliseconds));
        child.kill().unwrap();
        child.wait().unwrap();
        if !there.out().join("report.md").exists() {
            // Killed before the first step began: there is nothing to lose.
            continue;
        }
        let steps = there.steps();
        let ended = steps.iter().filter(|s| s[2] != "running").count();
        assert!(steps.len() - ended <= 1, "{steps:?}");
        contains(&there.read("report.md"), &["# Centime on a GPU", "## Verification"]);
        if there.out().join("results.tar.gz").exists() {
            let logs = there.archive().len();
            assert!(logs + 1 >= ended, "{logs} logs of {ended} steps");
        }
    }
}

#[test]
fn asked_to_stop_it_ends_its_step_and_prints_the_report() {
    if lacks(&["python3", "tar"]) {
        return;
    }
    let there = StandIns::new("echo $$ >\"$0.pid\"; sleep 100");
    let child = there.command(&["--part", "verify"]).spawn().unwrap();
    let pid = there.folder.path().join("centime.pid");
    let began = Instant::now();
    while !std::fs::read_to_string(&pid).is_ok_and(|p| p.ends_with('\n')) {
        assert!(began.elapsed().as_secs() < 60, "the step did not begin");
        std::thread::sleep(Duration::from_millis(20));
    }
    let term = Command::new("kill").arg("-TERM").arg(child.id().to_string()).status().unwrap();
    assert!(term.success());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.status.signal()), (Some(143), None), "{output:?}");
    contains(&said(&output), &["stopped by SIGTERM", "# Centime on a GPU", "| stopped |"]);
    assert_eq!(there.code("verify", "doctor-untold"), "stopped");
    assert!(there.archive().iter().any(|n| n == "verify/torch.log"));
    let step = std::fs::read_to_string(&pid).unwrap();
    let status = std::fs::read_to_string(format!("/proc/{}/stat", step.trim())).unwrap_or_default();
    assert!(status.is_empty() || status.contains(" Z "), "the step still runs: {status}");
}

#[test]
fn what_is_not_known_is_said_with_what_is() {
    if lacks(&["python3"]) {
        return;
    }
    let there = StandIns::new("exit 0");
    let output = there.run(&["--part", "verify", "--step", "golden-f23"]);
    assert_eq!(output.status.code(), Some(2));
    contains(
        &String::from_utf8_lossy(&output.stderr),
        &["no step of --part verify is called golden-f23", "golden-f32"],
    );
    let mut command = there.command(&["--part", "verify"]);
    let output = command.env("CENTIME", "/nowhere/centime").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    contains(&String::from_utf8_lossy(&output.stderr), &["no program: expected /nowhere/centime", "ci/gpu-pack"]);
}

/// The true program with what stands in for NVIDIA's libraries: a sanitizer runs what it is given.
fn walk(there: &StandIns, libraries: &StandIn, arguments: &[&str], settings: &[(&str, &str)]) -> String {
    let run_it = "while [ \"$1\" != --print-limit ]; do shift; done; shift 2; \"$@\" && echo ERROR SUMMARY: 0 errors";
    program(there.folder.path(), "compute-sanitizer", run_it);
    let mut command = there.command(arguments);
    command.env("LD_LIBRARY_PATH", libraries.path()).env("CENTIME", env!("CARGO_BIN_EXE_centime"));
    said(&command.envs(settings.iter().copied()).output().unwrap())
}

#[test]
fn the_true_program_goes_through_every_step_but_what_kernels_compute() {
    if lacks(&["python3", "tar"]) {
        return;
    }
    let Some(libraries) = StandIn::build() else { return };
    let there = StandIns::new("exit 1");
    let steps = ["doctor", "golden-f32", "nccl", "memcheck-bf16", "attention", "ratio-train-gpt2-124m"];
    let chosen: Vec<&str> = steps.iter().flat_map(|s| ["--step", *s]).collect();
    let printed = walk(&there, &libraries, &chosen, &[]);
    for (part, step) in [("verify", "nccl"), ("ratios", "attention"), ("ratios", "ratio-train-gpt2-124m")] {
        assert_eq!(there.code(part, step), "0", "{part}/{step}: {printed}");
    }
    // Kernels that compute nothing are found out.
    assert_eq!(there.code("verify", "golden-f32"), "1", "{printed}");
    contains(
        &printed,
        &["**Verification failed**: golden-f32", "| forward, causal | ", "| train GPT-2 124M, B32 T1024 | "],
    );
}

/// CUDA through Python's packages alone, as beside PyTorch: NVIDIA's own compiler, which is told nowhere else, for a driver that stands
/// in. Its version for CUDA 13.0 compiles only if its other half is found too.
#[test]
fn the_compiler_of_pythons_packages_is_found_and_compiles() {
    let python = root().join("target/nvrtc-13.0.88/bin/python");
    if !python.exists() {
        eprintln!("not tested: {} is not there; ci/kernels installs it", python.display());
        return;
    }
    let Some(libraries) = StandIn::build() else { return };
    std::fs::remove_file(libraries.file("libnvrtc.so.13")).unwrap();
    let there = StandIns::new("exit 1");
    let mut command = there.command(&["--part", "verify", "--step", "doctor"]);
    command.env("LD_LIBRARY_PATH", libraries.path()).env("CENTIME", env!("CARGO_BIN_EXE_centime"));
    let output = command.env("PYTHON", python).output().unwrap();
    let log = there.archived("verify/doctor.log");
    assert_eq!(there.code("verify", "doctor"), "0", "{output:?}");
    let words: String = log.split_whitespace().collect();
    contains(&words, &["13.0", "site-packages/nvidia"]);
}

#[test]
fn a_device_that_is_lost_fails_steps_and_not_the_script() {
    if lacks(&["python3", "tar"]) {
        return;
    }
    let Some(libraries) = StandIn::build() else { return };
    let steps = ["--step", "doctor", "--step", "golden-bf16", "--step", "nccl", "--step", "attention"];
    for call in ["1", "7", "40", "cuLaunchKernel:1", "cuMemAllocAsync:3"] {
        let there = StandIns::new("exit 1");
        let printed = walk(&there, &libraries, &steps, &[("STAND_IN_FAIL", call), ("STAND_IN_FAIL_ON", "1")]);
        assert_ne!(there.code("verify", "golden-bf16"), "0", "{call}: {printed}");
        contains(&printed, &["**Verification failed**: ", "--- verify/golden-bf16.log", "results: "]);
        assert!(there.archive().iter().any(|n| n == "verify/golden-bf16.log"), "{call}");
    }
}

fn unpacked(folder: &Path) -> std::path::PathBuf {
    let centime = program(folder, "centime-built", "echo hello");
    let pack = folder.join("pack");
    let output =
        Command::new(root().join("ci/gpu-pack")).arg("--no-build").arg(&pack).env("CENTIME", centime).output().unwrap();
    assert!(output.status.success() && said(&output).contains("MiB"), "{output:?}");
    let there = folder.join("there");
    std::fs::create_dir(&there).unwrap();
    let tar = Command::new("tar").arg("-xf").arg(pack.join("gpu-pack.tar")).arg("-C").arg(&there).status().unwrap();
    assert!(tar.success() && there.join("centime.xz").exists());
    there
}

#[test]
fn the_pack_holds_what_the_script_needs_and_runs_where_it_is_unpacked() {
    if lacks(&["python3", "tar", "xz"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let there = unpacked(folder.path());
    let run = |arguments: &[&str]| {
        let mut command = Command::new(there.join("ci/gpu"));
        command.args(arguments).env_remove("OUT").env_remove("CENTIME").env("TMPDIR", folder.path()).output().unwrap()
    };
    let dry = run(&["--dry-run", "results"]);
    assert!(dry.status.success(), "{dry:?}");
    let dry = said(&dry);
    contains(&dry, &["doctor (at most", "ratio-train-gpt2-124m (at most", "gpu-decode (at most"]);
    let place = |w: &str| w.starts_with("tests/") || w.starts_with("scenarios/") || w.contains("/ci/peers/");
    let named: Vec<&str> = dry.split([' ', '"', '\n']).filter(|w| place(w)).collect();
    assert!(named.len() > 10, "{dry}");
    for file in named {
        assert!(there.join(file).exists(), "{file} is not in the pack");
    }
    for file in ["torch_gpu_peer.py", "torch_attention_peer.py", "torch_peer.py", "gpu_run.py", "gpu_workloads.py"] {
        assert!(there.join("ci/peers").join(file).exists(), "{file} is not in the pack");
    }
    // The packed program is unpacked and run.
    let real = run(&["--part", "verify", "--step", "doctor", "results"]);
    contains(&said(&real), &["doctor: ok after", "| doctor | 0 | 60 | ok | hello |"]);
}
