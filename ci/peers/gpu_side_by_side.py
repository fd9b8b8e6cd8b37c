"""Sets centime and PyTorch side by side on one GPU, in interleaved rounds, within a budget of seconds.

A peer compiles for longer than a round takes: it is started once for a workload and told when to measure, while centime is a
process of its own each round, as its users' is. Who goes first changes from round to round. A system that fails is said to have
failed and does not stop the others. Writes side-by-side.json (every round), ratios.csv and ratios.md.
"""

import argparse
import csv
import json
import pathlib
import queue
import statistics
import subprocess
import sys
import threading
import time

GPT2 = dict(family="gpt2", layers=12, width=768, heads=12, vocabulary=50304, context=1024)
GPT1B3 = dict(family="gpt2", layers=24, width=2048, heads=16, vocabulary=50304, context=2048)
LLAMA1B = dict(family="llama", layers=16, width=2048, heads=32, kv_heads=8, inner=8192, vocabulary=128256, context=8192, tied=True)
LLAMA8B = dict(family="llama", layers=32, width=4096, heads=32, kv_heads=8, inner=14336, vocabulary=128256, context=8192)
# name, model, phase, batch, tokens, seconds that it may take, least ratio that is aimed at; the most telling first.
WORKLOADS = [
    ("train GPT-2 124M, B32 T1024", GPT2, "train", 32, 1024, 60, 1.0),
    ("decode Llama 1B, B1, context 512", LLAMA1B, "decode", 1, 512, 40, 1.2),
    ("prefill Llama 1B, B1 T2048", LLAMA1B, "prefill", 1, 2048, 40, 1.0),
    ("train GPT 1.3B, B8 T2048", GPT1B3, "train", 8, 2048, 75, 1.0),
    ("decode Llama 8B, B1, context 512", LLAMA8B, "decode", 1, 512, 75, 1.2),
    ("prefill Llama 8B, B1 T2048", LLAMA8B, "prefill", 1, 2048, 75, 1.0),
    ("decode Llama 1B, B16, context 512", LLAMA1B, "decode", 16, 512, 40, None),
]
NEW = 128
ROUNDS = 5
# Share of the probed bandwidth that decoding one sequence aims at.
MBU_TARGET = 0.85
COLUMNS = [
    "workload", "centime_tokens_per_second", "peer_tokens_per_second", "ratio", "ratio_low", "ratio_high", "target", "met",
    "rounds", "mfu", "mbu", "peer_mode", "centime_peak_gpu_memory_bytes", "peer_peak_gpu_memory_bytes", "throttled_share", "note",
]  # fmt: skip


def scenario(workload, seconds):
    _, model, phase, batch, tokens, _, _ = workload
    names = {"layers": "n_layers", "width": "d_model", "heads": "n_heads", "inner": "d_ff", "vocabulary": "vocab_size",
             "kv_heads": "n_kv_heads", "tied": "tied_embeddings"}  # fmt: skip
    value = lambda v: str(v).lower()
    shape = ", ".join(f"{names.get(k, k)}: {value(v)}" for k, v in model.items())
    if model["family"] == "llama" and "tied" not in model:
        shape += ", tied_embeddings: false"
    length = f"seq_len: {tokens}" if phase == "train" else f"prompt_len: {tokens}, new_tokens: {NEW if phase == 'decode' else 1}"
    return (
        f"version: 1\nname: gpu-side-by-side\ntrial: {{ model: {{ {shape} }}, backend: cuda, phase: {phase}, batch: {batch}, "
        f"{length}, dtype: bf16 }}\n"
        f"measure: {{ min_seconds: {seconds}, max_seconds: {seconds}, precision: 0.001, timeout_seconds: 120 }}\n"
    )


def peer_words(workload, seconds):
    _, model, phase, batch, tokens, _, _ = workload
    words = ["--phase", phase, "--batch", batch, "--tokens", tokens, "--seconds", seconds]
    words += ["--new", NEW if phase == "decode" else 0]
    for key, value in model.items():
        words += [f"--{key.replace('_', '-')}"] + ([] if value is True else [value])
    return [str(w) for w in words]


class Peer:
    """A process that is told when to measure; its lines are read by a thread, so that waiting for one can end."""

    def __init__(self, command, log):
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True)
        self.lines = queue.Queue()
        threading.Thread(target=self.listen, daemon=True).start()

    def listen(self):
        for line in self.process.stdout:
            self.lines.put(line)
        self.lines.put(None)

    def answer(self, seconds):
        """The next line that is JSON; compilers print others."""
        end = time.monotonic() + seconds
        while True:
            try:
                line = self.lines.get(timeout=max(0.0, end - time.monotonic()))
            except queue.Empty:
                raise RuntimeError(f"no answer in {seconds:.0f} s") from None
            if line is None:
                raise RuntimeError(f"ended with {self.process.wait()}; see its log")
            if line.startswith("{"):
                return json.loads(line)

    def measure(self, seconds):
        try:
            self.process.stdin.write("go\n")
            self.process.stdin.flush()
        except OSError:
            pass
        return self.answer(seconds)

    def end(self):
        self.process.kill()
        self.process.wait()


def centime(workload, a, folder, timeout, probe):
    path = folder / "s.yaml"
    path.write_text(scenario(workload, a.seconds))
    command = [a.centime, "run", str(path), "--fresh", "--quiet", "--format", "json", "--out", str(folder / "run")]
    command += [] if probe else ["--no-probe"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout)
    if not done.stdout.startswith("{"):
        raise RuntimeError(f"ended with {done.returncode}: {done.stderr.strip()[-300:]}")
    row = json.loads(done.stdout)["rows"][0]
    if row["status"] != "ok":
        raise RuntimeError(f"{row['status']}: {row['reason']}")
    keys = ["tokens_per_second", "mfu", "mbu", "peak_gpu_memory_bytes", "gpu_throttled_share", "gpu_sm_mhz"]
    return {k: row.get(k) for k in keys}


def attempt(what, run, faults):
    try:
        return run()
    except (RuntimeError, subprocess.TimeoutExpired, ValueError, KeyError, OSError) as fault:
        faults.append(f"{what}: {fault}")
        return None


def rounds(workload, a, folder, end):
    """What each system said, round by round, and what failed."""
    left = lambda: max(1.0, end - time.monotonic())
    ours, theirs, faults = [], [], []
    peer = None
    if a.python:
        with open(folder / "peer.log", "w") as log:
            command = [a.python, str(pathlib.Path(__file__).with_name("torch_gpu_peer.py")), *peer_words(workload, a.seconds)]
            peer = attempt("PyTorch", lambda: Peer(command, log), faults)
        if peer and not attempt("PyTorch", lambda: peer.answer(left()), faults):
            peer.end()
            peer = None
    try:
        for turn in range(a.rounds):
            began = time.monotonic()
            first = [lambda: ours.append(attempt("centime", lambda: centime(workload, a, folder, left(), turn == 0), faults))]
            if peer:
                first.append(lambda: theirs.append(attempt("PyTorch", lambda: peer.measure(left()), faults)))
            for run in first if turn % 2 == 0 else reversed(first):
                run()
            took = time.monotonic() - began
            if time.monotonic() + took > end or not (any(ours) or any(theirs)):
                break
    finally:
        if peer:
            peer.end()
    return ours, theirs, faults


def median(rows, key):
    values = [r[key] for r in rows if r and r.get(key) is not None]
    return statistics.median(values) if values else None


def row(workload, ours, theirs, faults):
    pairs = [o["tokens_per_second"] / t["tokens_per_second"] for o, t in zip(ours, theirs) if o and t]
    ratio, target = (statistics.median(pairs) if pairs else None), workload[6]
    return {
        "workload": workload[0],
        "centime_tokens_per_second": median(ours, "tokens_per_second"),
        "peer_tokens_per_second": median(theirs, "tokens_per_second"),
        "ratio": ratio,
        "ratio_low": min(pairs, default=None),
        "ratio_high": max(pairs, default=None),
        "target": target,
        "met": None if ratio is None or target is None else ratio >= target,
        "rounds": len(pairs),
        # Of the first round, the only one that probes.
        "mfu": median(ours[:1], "mfu") if workload[2] != "decode" else None,
        "mbu": median(ours[:1], "mbu"),
        "peer_mode": next((t["mode"] for t in theirs if t), None),
        "centime_peak_gpu_memory_bytes": median(ours, "peak_gpu_memory_bytes"),
        "peer_peak_gpu_memory_bytes": median(theirs, "peak_gpu_memory_bytes"),
        "throttled_share": median(ours, "gpu_throttled_share"),
        "note": "; ".join(dict.fromkeys(faults)),
    }


def shown(value, form):
    return "n/a" if value is None else form.format(value)


def markdown(rows, title):
    lines = [
        f"# {title}",
        "",
        "Medians of interleaved rounds; the ratio is the median of the rounds' own ratios, with the smallest and largest. MFU and MBU "
        "are against the GPU's peaks, probed where the run could probe them, else the datasheet's.",
        "",
        "| workload | centime tok/s | PyTorch tok/s | ratio | target | met | MFU | MBU | PyTorch ran as | throttled | note |",
        "| --- | ---: | ---: | ---: | ---: | --- | ---: | ---: | --- | ---: | --- |",
    ]
    for r in rows:
        ratio = "n/a" if r["ratio"] is None else f"**{r['ratio']:.2f}** ({r['ratio_low']:.2f} .. {r['ratio_high']:.2f})"
        target = shown(r["target"], "{:.2f}") + (f", MBU {MBU_TARGET:.0%}" if "B1, context" in r["workload"] else "")
        met = {None: "n/a", True: "yes", False: "no"}[r["met"]]
        note = r["note"].replace("|", "/").replace("\n", " ")[:300]
        lines.append(
            f"| {r['workload']} | {shown(r['centime_tokens_per_second'], '{:,.0f}')} | {shown(r['peer_tokens_per_second'], '{:,.0f}')} "
            f"| {ratio} | {target} | {met} | {shown(r['mfu'], '{:.1%}')} | {shown(r['mbu'], '{:.1%}')} | {r['peer_mode'] or 'n/a'} "
            f"| {shown(r['throttled_share'], '{:.0%}')} | {note} |"
        )
    return "\n".join(lines + [""])


def write(out, rows, everything):
    (out / "side-by-side.json").write_text(json.dumps(everything, indent=1))
    with open(out / "ratios.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    (out / "ratios.md").write_text(markdown(rows, "Centime and PyTorch on one GPU"))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--centime", required=True)
    parser.add_argument("--python", default="", help="an interpreter that has PyTorch; without one centime runs alone")
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--budget", type=float, default=200, help="seconds for everything")
    parser.add_argument("--seconds", type=float, default=2, help="seconds of a round")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    a = parser.parse_args()
    a.out.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + a.budget
    rows, everything = [], []
    for i, workload in enumerate(WORKLOADS):
        folder = a.out / f"workload-{i}"
        folder.mkdir(exist_ok=True)
        last = min(end, time.monotonic() + workload[5])
        if end - time.monotonic() < min(15.0, a.budget / 4):
            ours, theirs, faults = [], [], ["no time was left"]
        else:
            ours, theirs, faults = rounds(workload, a, folder, last)
        rows.append(row(workload, ours, theirs, faults))
        everything.append({"workload": workload[0], "centime": ours, "pytorch": theirs, "faults": faults})
        # After each, so that what is there stays there when time is up.
        write(a.out, rows, everything)
        print(f"{workload[0]}: {shown(rows[-1]['ratio'], '{:.2f}')}", file=sys.stderr, flush=True)
    print((a.out / "ratios.md").read_text())
    return 0 if any(r["centime_tokens_per_second"] for r in rows) else 3


if __name__ == "__main__":
    sys.exit(main())
