//! Programs that stand in for a GPU's: a centime, a Python that has PyTorch, nvidia-smi, compute-sanitizer.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

pub(crate) fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// What the scripts need beside a shell; says what is missing.
pub(crate) fn lacks(programs: &[&str]) -> bool {
    let there = |p: &&str| Command::new(p).arg("--version").output().is_ok_and(|o| o.status.success());
    let missing: Vec<&&str> = programs.iter().filter(|p| !there(p)).collect();
    if !missing.is_empty() {
        eprintln!("not tested: {missing:?} is not installed");
    }
    !missing.is_empty()
}

pub(crate) fn program(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// Answers every step at once. `doctor` does what the test says.
const CENTIME: &str = r#"
out=; last=
for a in "$@"; do [ "$last" = --out ] && out=$a; last=$a; done
case "$1" in
  doctor) DOCTOR ;;
  verify) echo "ok: every group is within its tolerance" ;;
  trial) case "$2" in
    --attention-rates) echo '{"device":"Stand-in GPU","product_flops_per_second":8e14,"shapes":[{"batch":4,"tokens":4096,"heads":32,"kv_heads":32,"head_dim":64,"causal":true,"forward_flops_per_second":3e14,"backward_flops_per_second":2e14},{"batch":4,"tokens":4096,"heads":16,"kv_heads":16,"head_dim":128,"causal":true,"forward_flops_per_second":4e14,"backward_flops_per_second":2.4e14}]}' ;;
    *) echo "NCCL with one rank: every call leaves the numbers as they were" ;; esac ;;
  run)
    mkdir -p "$out"
    printf 'status,reason,phase,batch,model.preset,tokens_per_second,mfu,mfu_causal,mbu\nok,,prefill,1,llama-3-8b,2000,0.6,0.61,\nskipped,too large,train,1,,,,,\n' >"$out/results.csv"
    echo '{"rows":[{"status":"ok","reason":null,"tokens_per_second":1500.0,"mfu":0.5,"mbu":0.8,"peak_gpu_memory_bytes":1e9,"gpu_throttled_share":0.25,"gpu_sm_mhz":1980}]}' ;;
esac"#;

/// A Python whose PyTorch reaches 1000 tokens/s; its `nvidia` packages are in the folder beside it.
const PYTHON: &str = r#"
case "$1 $2" in
  "-c import torch"*) echo 2.11.0+cu130 13.0 True Stand-in GPU; exit ;;
  "-c "*) echo "$(dirname "$0")/nvidia/cu13/lib:$(dirname "$0")/nvidia/nccl/lib"; exit ;;
  *torch_attention_peer.py*) echo '{"version":"2.11.0","shapes":[{"batch":4,"tokens":4096,"heads":32,"kv_heads":32,"head_dim":64,"causal":true,"kernel":"flash","forward_flops_per_second":2e14,"backward_flops_per_second":1e14},{"batch":4,"tokens":4096,"heads":32,"kv_heads":32,"head_dim":64,"causal":true,"kernel":"cudnn","forward_flops_per_second":null,"backward_flops_per_second":null}]}'; exit ;;
esac
echo '{"ready": true, "mode": "compile by layer", "seconds": 1.0}'
case "$*" in *--prepare*) exit ;; esac
while read -r line && [ "$line" = go ]; do echo noise; echo '{"tokens_per_second": 1000.0, "mode": "compile + CUDA graph"}'; done"#;

/// A folder with all of them, and what ci/gpu is to do there.
pub(crate) struct StandIns {
    pub folder: tempfile::TempDir,
}

impl StandIns {
    /// `doctor` is a line of shell; the sanitizer finds an error.
    pub(crate) fn new(doctor: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path();
        std::fs::create_dir(at.join("tmp")).unwrap();
        program(at, "centime", &CENTIME.replace("DOCTOR", doctor));
        program(at, "torch-python", PYTHON);
        program(at, "nvidia-smi", "echo NVIDIA Stand-in GPU");
        program(at, "compute-sanitizer", "echo ERROR SUMMARY: 1 error; exit 9");
        Self { folder }
    }

    pub(crate) fn out(&self) -> PathBuf {
        self.folder.path().join("out")
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let at = self.folder.path();
        let mut command = Command::new(root().join("ci/gpu"));
        command
            .args(arguments)
            .arg(self.out())
            .env("PATH", format!("{}:{}", at.display(), std::env::var("PATH").unwrap()))
            .env("CENTIME", at.join("centime"))
            .env("PYTHON", at.join("torch-python"))
            .env("TMPDIR", at.join("tmp"))
            .env_remove("OUT")
            .env_remove("CENTIME_CUDA_LIBRARIES")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    pub(crate) fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.out().join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    /// A file of the archive.
    pub(crate) fn archived(&self, name: &str) -> String {
        let tar = Command::new("tar").arg("-xOzf").arg(self.out().join("results.tar.gz")).arg(name).output().unwrap();
        assert!(tar.status.success(), "{name}: {tar:?}");
        String::from_utf8(tar.stdout).unwrap()
    }

    /// Names in the archive, which must be whole.
    pub(crate) fn archive(&self) -> Vec<String> {
        let tar = Command::new("tar").arg("-tzf").arg(self.out().join("results.tar.gz")).output().unwrap();
        assert!(tar.status.success(), "{tar:?}");
        String::from_utf8(tar.stdout).unwrap().lines().map(str::to_string).collect()
    }

    /// (part, step, exit code).
    pub(crate) fn steps(&self) -> Vec<[String; 3]> {
        let csv = self.read("steps.csv");
        let mut lines = csv.lines();
        assert_eq!(lines.next(), Some("part,step,began_utc,seconds,limit_seconds,exit_code,command"));
        let fields = |l: &str| l.split(',').map(str::to_string).collect::<Vec<_>>();
        lines.map(fields).map(|f| [f[0].clone(), f[1].clone(), f[5].clone()]).collect()
    }

    pub(crate) fn code(&self, part: &str, step: &str) -> String {
        let found = self.steps().into_iter().find(|s| s[0] == part && s[1] == step);
        found.unwrap_or_else(|| panic!("no row of {part}/{step}: {:?}", self.steps()))[2].clone()
    }
}

pub(crate) fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}
