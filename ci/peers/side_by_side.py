"""Runs Centime and its peers in interleaved rounds and writes reports/side-by-side/MACHINE: rounds.csv, results.csv, report.md, ratios.svg;
and reports/side-by-side/README.md, which sets all machines beside one another.

Every round runs every system on every workload once, each in a process of its own, so that drift of the machine meets all of
them alike; the median of the rounds counts. A run from which others took more than a few percent of the processors is made again. A system that
fails is said to have failed and does not stop the others. Started again, it goes on after the rounds that rounds.csv has of the same program.
With --instructions everyone is held to what a lesser processor has; those who cannot be held are left out.
"""

import argparse
import csv
import json
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import time

import side_by_side_report
from machine import Machine

GPT2 = dict(family="gpt2", layers=12, width=768, heads=12, vocabulary=50257)
SMALL = dict(family="gpt2", layers=6, width=384, heads=6, vocabulary=8192)
LLAMA = dict(family="llama", layers=12, width=768, heads=12, inner=2048, vocabulary=32000)
# Eight experts, two for each token.
MIXTRAL = dict(family="mixtral", layers=12, width=768, heads=12, inner=2048, experts=8, used=2, vocabulary=32000)
BLOCK = dict(family="block", width=1024, heads=8, vocabulary=10000)
TORCH, COMPILED, ZEN, JAX, VINO, CPP, KERAS = "PyTorch", "torch.compile", "zentorch", "JAX", "OpenVINO", "llama.cpp", "TensorFlow"
EXPERTS = "transformers"
BOTH = ["f32", "bf16"]
# q8_0 and q4_0 are ours of `weights: int8` and `weights: int4`.
ALL = BOTH + ["q8_0", "q4_0"]
# What there is of each peer beside f32.
FORMATS = {TORCH: BOTH, COMPILED: BOTH, ZEN: ["bf16"], JAX: BOTH, VINO: BOTH + ["q8_0"], CPP: ALL, KERAS: ["f32"], EXPERTS: BOTH}
# name, model, phase, batch, tokens, number formats, peers
WORKLOADS = [
    ("train GPT-2 124M, B2 T512", GPT2, "train", 2, 512, BOTH, [TORCH, COMPILED, JAX]),
    ("train 6x384, B8 T256", SMALL, "train", 8, 256, BOTH, [TORCH, COMPILED, JAX]),
    ("train article block, B32 T64", BLOCK, "train", 32, 64, ["f32"], [KERAS]),
    ("train Mixtral-like 8 of 2, B2 T512", MIXTRAL, "train", 2, 512, BOTH, [EXPERTS]),
    ("prefill GPT-2 124M, B1 T512", GPT2, "prefill", 1, 512, BOTH, [TORCH, COMPILED, ZEN, JAX, VINO]),
    ("prefill GPT-2 124M, B8 T256", GPT2, "prefill", 8, 256, BOTH, [TORCH, COMPILED, ZEN, JAX, VINO]),
    ("prefill Llama 134M, B1 T512", LLAMA, "prefill", 1, 512, ALL, [CPP, VINO]),
    ("prefill Llama 134M, B8 T256", LLAMA, "prefill", 8, 256, ALL, [CPP, VINO]),
    ("prefill Mixtral-like 8 of 2, B1 T512", MIXTRAL, "prefill", 1, 512, BOTH, [EXPERTS, CPP]),
    ("decode GPT-2 124M, B1, context 256", GPT2, "decode", 1, 256, BOTH, [TORCH, COMPILED, ZEN, JAX, VINO]),
    ("decode GPT-2 124M, B16, context 256", GPT2, "decode", 16, 256, BOTH, [TORCH, COMPILED, ZEN, JAX, VINO]),
    ("decode Llama 134M, B1, context 256", LLAMA, "decode", 1, 256, ALL, [CPP, VINO]),
    ("decode Llama 134M, B16, context 64", LLAMA, "decode", 16, 64, ALL, [CPP, VINO]),
    ("decode Mixtral-like 8 of 2, B1, context 256", MIXTRAL, "decode", 1, 256, ALL, [EXPERTS, CPP]),
    ("decode Mixtral-like 8 of 2, B16, context 64", MIXTRAL, "decode", 16, 64, ALL, [EXPERTS, CPP]),
]
SCRIPTS = {
    TORCH: "torch_peer.py",
    COMPILED: "torch_peer.py",
    ZEN: "torch_peer.py",
    JAX: "jax_peer.py",
    VINO: "openvino_peer.py",
    CPP: "llama_peer.py",
    KERAS: "keras_peer.py",
    EXPERTS: "mixtral_peer.py",
}
MORE = {COMPILED: ["--compile"], ZEN: ["--compile", "--backend", "zentorch"]}
# Names of --python.
PACKAGES = {TORCH: "torch", COMPILED: "torch", ZEN: "zentorch", JAX: "jax", VINO: "openvino", CPP: "llama.cpp", KERAS: "tensorflow", EXPERTS: "torch"}
# What holds a system to a lesser processor's instructions, by the name that ours has for them. Of llama.cpp a build of its own does
# (ci/side-by-side makes it); JAX, OpenVINO and TensorFlow have no means that holds all of their kernels.
HELD = {
    "avx2": ("held to AVX2", {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}),
    "avx512": (
        "held to AVX-512 without bf16 and VNNI",
        {"ATEN_CPU_CAPABILITY": "avx512", "ONEDNN_MAX_CPU_ISA": "AVX512_CORE", "MKL_ENABLE_INSTRUCTIONS": "AVX512"},
    ),
}
CAN_BE_HELD = [TORCH, COMPILED, EXPERTS, CPP]
OUT = pathlib.Path("reports/side-by-side")
# Others may take so much of the processors while something runs, before it is run again, and how often it is.
TAKEN, TRIES = 0.03, 3
# Of rounds.csv, in its order.
FIELDS = "round workload dtype system tokens_per_second peak_rss_bytes flops_per_second mfu mbu taken_by_others version fault".split()
NUMBERS = FIELDS[4:10]


def run(command, seconds=900, **more):
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, **more)
    if done.returncode != 0:
        raise RuntimeError(f"{command[0]} ended with {done.returncode}: {done.stderr.strip()[-300:]}")
    return done.stdout


def centime(workload, dtype, a, folder):
    _, model, phase, batch, tokens, _, _ = workload
    length = f"seq_len: {tokens}" if phase == "train" else f"prompt_len: {tokens}, new_tokens: 64"
    names = {"layers": "n_layers", "width": "d_model", "heads": "n_heads", "inner": "d_ff", "vocabulary": "vocab_size", "experts": "n_experts", "used": "experts_per_token"}
    shape = ", ".join(f"{names.get(k, k)}: {v}" for k, v in model.items())
    if model["family"] == "block":
        shape, length = "preset: article-block", length + ", optimizer: adam"
    elif tokens + 64 > 1024:
        shape += f", context: {tokens + 64}"
    few = {"q8_0": "int8", "q4_0": "int4"}
    formats = f"dtype: bf16, weights: {few[dtype]}" if dtype in few else f"dtype: {dtype}"
    path = folder / "s.yaml"
    path.write_text(
        f"version: 1\nname: side-by-side\ntrial: {{ model: {{ {shape} }}, phase: {phase}, batch: {batch}, "
        f"{length}, {formats}, cores_per_device: {a.threads} }}\n"
        f"measure: {{ min_seconds: {a.seconds}, max_seconds: {a.seconds}, precision: 0.001, rounds: 1, timeout_seconds: 300 }}\n"
    )
    command = [a.centime, "run", str(path), "--fresh", "--quiet", "--format", "json", "--out", str(folder / "run")]
    row = json.loads(run(command, env=a.environments["centime"]))["rows"][0]
    if row["tokens_per_second"] is None:
        raise RuntimeError(row.get("error") or f"the trial is {row['status']}")
    keys = ["tokens_per_second", "flops_per_second", "mfu", "mbu"]
    return {"peak_rss_bytes": row["peak_memory_bytes"], "version": row["program_version"]} | {k: row[k] for k in keys}


def peer(system, workload, dtype, a, folder):
    _, model, phase, batch, tokens, _, _ = workload
    numbers = {**model, "batch": batch, "tokens": tokens, "threads": a.threads, "seconds": a.seconds}
    if system != VINO:
        del numbers["family"]
    command = [a.pythons[system], f"ci/peers/{SCRIPTS[system]}"]
    if system == CPP:
        command += ["--folder", str(folder)]
    if system != KERAS:
        command += ["--phase", phase, "--dtype", dtype]
    for name, value in numbers.items():
        command += [f"--{name}", str(value)]
    command += MORE.get(system, [])
    asked = lambda *more: json.loads(run([*command, *more], env=a.environments[system]).strip().splitlines()[-1])
    if system != CPP:
        return asked()
    # At its best weights are repacked, or lie in tiles; where that fails on this machine, as the file has them.
    for how in [[], ["--plain"]]:
        if not how and dtype in a.plain:
            continue
        try:
            said = asked(*how)
            said = said if "tokens_per_second" in said else asked(*how)
        except RuntimeError:
            if how:
                raise
            a.plain.add(dtype)
            continue
        return said | ({"version": f"{said['version']} ({dtype} as in the file: repacked it fails here)"} if how else {})


class Watch:
    """How much of the processors others took meanwhile, as a share of them all: what the kernel counted as busy or stolen, less what
    this program's children used."""

    def __enter__(self):
        self.began, self.before = time.monotonic(), self.now()
        return self

    def now(self):
        ticks = [int(n) for n in pathlib.Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
        own = resource.getrusage(resource.RUSAGE_CHILDREN)
        busy = (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")
        return busy - own.ru_utime - own.ru_stime

    def __exit__(self, *_):
        self.taken = max(0.0, self.now() - self.before) / (time.monotonic() - self.began) / os.cpu_count()


def one(system, workload, dtype, a, folder):
    """A run of a system, again where others disturbed it: the least disturbed."""
    best = None
    for _ in range(TRIES):
        try:
            with Watch() as watch:
                row = centime(workload, dtype, a, folder) if system == "centime" else peer(system, workload, dtype, a, folder)
        except (RuntimeError, subprocess.TimeoutExpired, ValueError) as fault:
            return {"fault": str(fault)}
        row["taken_by_others"] = watch.taken
        if best is None or watch.taken < best["taken_by_others"]:
            best = row
        if watch.taken <= TAKEN:
            break
    return best


def kept(path, a):
    """Rounds that were made before."""
    if a.again or not path.exists():
        return []
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row |= {k: float(row[k]) if row[k] else None for k in NUMBERS} | {"round": int(row["round"])}
    return rows


def another_program(row, rows):
    """The version of ours that made earlier rounds, where it is not this row's."""
    if row["system"] != "centime" or not row.get("version"):
        return None
    return next((r["version"] for r in rows if r["system"] == "centime" and r.get("version") not in (None, "", row["version"])), None)


def measure(a, path):
    """A row for each round, workload, format and system; what is made is written at once."""
    rows = kept(path, a)
    done = {(r["round"], r["workload"], r["dtype"], r["system"]) for r in rows}
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch, open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, FIELDS)
        writer.writeheader()
        writer.writerows(rows)
        for turn in range(1, a.rounds + 1):
            for workload in WORKLOADS:
                name, _, phase, _, _, formats, peers = workload
                for dtype in formats:
                    systems = [p for p in peers if p in a.pythons and dtype in FORMATS[p]]
                    if phase not in a.only.split(",") or a.workload not in name or dtype not in a.formats.split(",") or not systems:
                        continue
                    for system in ["centime", *systems]:
                        if (turn, name, dtype, system) in done:
                            continue
                        row = one(system, workload, dtype, a, pathlib.Path(scratch))
                        row |= {"round": turn, "workload": name, "dtype": dtype, "system": system}
                        if others := another_program(row, rows):
                            sys.exit(f"{path}: its rounds are of centime {others}, {a.centime} is {row['version']}; --again starts anew")
                        said = row.get("fault") or f"{row['tokens_per_second']:.1f} tok/s"
                        print(f"[{turn}/{a.rounds}] {name}, {dtype}: {system} {said}", file=sys.stderr, flush=True)
                        writer.writerow(row)
                        file.flush()
                        rows.append(row)
    return rows


def environment(system, machine, folder, instructions):
    """Of a system's process: what makes it as fast as it can be on this machine, or on one that has these instructions only."""
    found = dict(os.environ)
    if instructions:
        found |= HELD[instructions][1] | {"CENTIME_INSTRUCTIONS": instructions}
    if PACKAGES.get(system) in ("torch", "zentorch"):
        # Kernels that were chosen by trial and compiled are found again by the next round.
        found["TORCHINDUCTOR_CACHE_DIR"] = str(folder / (instructions or "") / "inductor")
        if machine.vendor == "AuthenticAMD":
            found["LD_PRELOAD"] = " ".join(filter(None, [machine.mkl_override(folder), found.get("LD_PRELOAD")]))
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = sorted(set(PACKAGES.values()))
    parser.add_argument("--python", action="append", default=[], metavar="PEER=PATH", help=f"an interpreter that has the peer: {', '.join(names)}")
    parser.add_argument("--centime", default="target/release/centime")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--only", default="train,prefill,decode")
    parser.add_argument("--formats", default=",".join(ALL), help="only these, of %(default)s")
    parser.add_argument("--workload", default="", help="only those whose name has this in it")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())
    parser.add_argument("--machine", help="name of the folder; default: the processor's")
    parser.add_argument("--instructions", choices=list(HELD), help="hold everyone to a lesser processor's")
    parser.add_argument("--cache", type=pathlib.Path, default=pathlib.Path(tempfile.gettempdir()) / "centime-side-by-side")
    parser.add_argument("--again", action="store_true", help="forget the rounds that are there")
    parser.add_argument("--report", action="store_true", help="measure nothing, write the reports of the rounds that are there")
    a = parser.parse_args()
    named = dict(p.split("=", 1) for p in a.python)
    if unknown := set(named) - set(names):
        parser.error(f"no peer is called {', '.join(sorted(unknown))}; expected {', '.join(names)}")
    machine = Machine()
    a.pythons = {system: named[package] for system, package in PACKAGES.items() if package in named}
    if a.instructions:
        a.pythons = {system: python for system, python in a.pythons.items() if system in CAN_BE_HELD}
        machine.hold(HELD[a.instructions][0])
    a.cache.mkdir(parents=True, exist_ok=True)
    a.environments = {system: environment(system, machine, a.cache, a.instructions) for system in ["centime", *a.pythons]}
    a.plain = set()
    folder = OUT / (a.machine or machine.slug)
    rounds = kept(folder / "rounds.csv", a) if a.report else measure(a, folder / "rounds.csv")
    if not any(r.get("tokens_per_second") for r in rounds):
        sys.exit("nothing was measured")
    side_by_side_report.write(folder, rounds, machine.title, a)
    side_by_side_report.write_machines(OUT)
    print((folder / "report.md").read_text())


if __name__ == "__main__":
    main()
