"""Runs Centime and its peers in interleaved rounds and writes reports/side-by-side: results.csv, report.md, ratios.svg.

Every round runs every system on every workload once, each in a process of its own, so that drift of the machine meets all of
them alike; the median of the rounds counts. A system that fails is said to have failed and does not stop the others.
"""

import argparse
import csv
import html
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile
import time

GPT2 = dict(family="gpt2", layers=12, width=768, heads=12, vocabulary=50257)
SMALL = dict(family="gpt2", layers=6, width=384, heads=6, vocabulary=8192)
LLAMA = dict(family="llama", layers=12, width=768, heads=12, inner=2048, vocabulary=32000)
BLOCK = dict(family="block", width=1024, heads=8, vocabulary=10000)
TORCH, COMPILED, CPP, KERAS = "PyTorch", "torch.compile", "llama.cpp", "TensorFlow"
BOTH = ["f32", "bf16"]
# Llama's f32, bf16 and q8_0 are ours of dtype f32, of bf16, and of weights: int8.
ALL = BOTH + ["q8_0"]
# name, model, phase, batch, tokens, number formats, peers
WORKLOADS = [
    ("train GPT-2 124M, B2 T512", GPT2, "train", 2, 512, BOTH, [TORCH, COMPILED]),
    ("train 6x384, B8 T256", SMALL, "train", 8, 256, BOTH, [TORCH, COMPILED]),
    ("train article block, B32 T64", BLOCK, "train", 32, 64, ["f32"], [KERAS]),
    ("prefill GPT-2 124M, B1 T512", GPT2, "prefill", 1, 512, BOTH, [TORCH]),
    ("prefill GPT-2 124M, B8 T256", GPT2, "prefill", 8, 256, BOTH, [TORCH]),
    ("prefill Llama 134M, B1 T512", LLAMA, "prefill", 1, 512, ALL, [CPP]),
    ("prefill Llama 134M, B8 T256", LLAMA, "prefill", 8, 256, ALL, [CPP]),
    ("decode GPT-2 124M, B1, context 256", GPT2, "decode", 1, 256, BOTH, [TORCH]),
    ("decode GPT-2 124M, B16, context 256", GPT2, "decode", 16, 256, BOTH, [TORCH]),
    ("decode Llama 134M, B1, context 256", LLAMA, "decode", 1, 256, ALL, [CPP]),
    ("decode Llama 134M, B16, context 64", LLAMA, "decode", 16, 64, ALL, [CPP]),
]
SCRIPTS = {TORCH: "torch_peer.py", COMPILED: "torch_peer.py", CPP: "llama_peer.py", KERAS: "keras_peer.py"}
OUT = pathlib.Path("reports/side-by-side")


def run(command, seconds=600, **more):
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, **more)
    if done.returncode != 0:
        raise RuntimeError(f"{command[0]} ended with {done.returncode}: {done.stderr.strip()[-300:]}")
    return done.stdout


def centime(workload, dtype, a, folder):
    _, model, phase, batch, tokens, _, _ = workload
    length = f"seq_len: {tokens}" if phase == "train" else f"prompt_len: {tokens}, new_tokens: 64"
    names = {"layers": "n_layers", "width": "d_model", "heads": "n_heads", "inner": "d_ff", "vocabulary": "vocab_size"}
    shape = ", ".join(f"{names.get(k, k)}: {v}" for k, v in model.items())
    if model["family"] == "block":
        shape, length = "preset: article-block", length + ", optimizer: adam"
    elif tokens + 64 > 1024:
        shape += f", context: {tokens + 64}"
    formats = "dtype: bf16, weights: int8" if dtype == "q8_0" else f"dtype: {dtype}"
    path = folder / "s.yaml"
    path.write_text(
        f"version: 1\nname: side-by-side\ntrial: {{ model: {{ {shape} }}, phase: {phase}, batch: {batch}, "
        f"{length}, {formats}, cores_per_device: {a.threads} }}\n"
        f"measure: {{ min_seconds: {a.seconds}, max_seconds: {a.seconds}, precision: 0.001, timeout_seconds: 300 }}\n"
    )
    command = [a.centime, "run", str(path), "--fresh", "--quiet", "--format", "json", "--out", str(folder / "run")]
    row = json.loads(run(command))["rows"][0]
    keys = ["tokens_per_second", "flops_per_second", "mfu", "mbu", "peak_flops_per_second"]
    return {"peak_rss_bytes": row["peak_memory_bytes"], "version": row["program_version"]} | {k: row[k] for k in keys}


def peer(system, workload, dtype, a, folder):
    _, model, phase, batch, tokens, _, _ = workload
    numbers = {**model, "batch": batch, "tokens": tokens, "threads": a.threads, "seconds": a.seconds}
    del numbers["family"]
    command = [a.pythons[system], f"ci/peers/{SCRIPTS[system]}"]
    if system == CPP:
        command += ["--folder", str(folder)]
    if system != KERAS:
        command += ["--phase", phase, "--dtype", dtype]
    for name, value in numbers.items():
        command += [f"--{name}", str(value)]
    if system == COMPILED:
        command.append("--compile")
    said = json.loads(run(command).strip().splitlines()[-1])
    return said if "tokens_per_second" in said else json.loads(run(command).strip().splitlines()[-1])


def median(rows, key):
    values = [r[key] for r in rows if r.get(key) is not None]
    return statistics.median(values) if values else None


def measure(a):
    """For each workload, format and system one entry a round: what it said, or None where it failed."""
    found = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch)
        for turn in range(a.rounds):
            for workload in WORKLOADS:
                name, _, phase, _, _, formats, peers = workload
                peers = [p for p in peers if p in a.pythons]
                if phase not in a.only.split(",") or not peers:
                    continue
                for dtype in formats:
                    for system in ["centime", *peers]:
                        try:
                            row = centime(workload, dtype, a, folder) if system == "centime" else peer(system, workload, dtype, a, folder)
                            said = f"{row['tokens_per_second']:.1f} tok/s"
                        except (RuntimeError, subprocess.TimeoutExpired, ValueError) as fault:
                            row, said = None, str(fault)
                        found.setdefault((name, dtype, system), []).append(row)
                        print(f"[{turn + 1}/{a.rounds}] {name}, {dtype}: {system} {said}", file=sys.stderr, flush=True)
    return found


def table(found):
    """A row for each workload, format and peer."""
    rows = []
    for (workload, dtype, system), theirs in found.items():
        ours = found[(workload, dtype, "centime")]
        if system == "centime" or not any(ours):
            continue
        known = [o for o in ours if o]
        row = {"workload": workload, "dtype": dtype, "centime_tokens_per_second": median(known, "tokens_per_second")}
        row |= {k: median(known, k) for k in ["flops_per_second", "mfu", "mbu"]}
        row["centime_peak_rss_bytes"] = median(known, "peak_rss_bytes")
        # Of the same round each: drift cancels.
        pairs = [o["tokens_per_second"] / t["tokens_per_second"] for o, t in zip(ours, theirs) if o and t]
        theirs = [t for t in theirs if t]
        row |= {"peer": system, "peer_tokens_per_second": median(theirs, "tokens_per_second")}
        row["peer_peak_rss_bytes"] = median(theirs, "peak_rss_bytes")
        row["ratio"] = statistics.median(pairs) if pairs else None
        row["ratio_low"], row["ratio_high"] = (min(pairs), max(pairs)) if pairs else (None, None)
        rows.append(row)
    return rows


def cpu():
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines() if os.path.exists("/proc/cpuinfo") else []:
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def shown(value, form):
    return "n/a" if value is None else form.format(value)


def markdown(rows, found, a):
    versions = sorted({f"{s} {r['version']}" for (_, _, s), rs in found.items() if s != COMPILED for r in rs if r})
    lines = [
        "# Centime and its peers, side by side",
        "",
        f"{time.strftime('%d %B %Y')}, {cpu()}, {a.threads} threads; {', '.join(versions)}. Medians of {a.rounds} interleaved "
        f"rounds of {a.seconds:g} s, every run a process of its own. The ratio is the median of the rounds' own ratios, with the "
        "smallest and largest. MFU and MBU are against this machine's peaks as probed in the same runs (for q8_0, MFU against that "
        "of bf16). Again: `ci/side-by-side`.",
        "",
        "| workload | format | centime tok/s | MFU | MBU | peer | its tok/s | ratio | memory, of the peer's |",
        "| --- | --- | ---: | ---: | ---: | --- | ---: | ---: | ---: |",
    ]
    for r in rows:
        ratio = "n/a" if r["ratio"] is None else f"**{r['ratio']:.2f}** ({r['ratio_low']:.2f} .. {r['ratio_high']:.2f})"
        memory = r["centime_peak_rss_bytes"] / r["peer_peak_rss_bytes"] if r["peer_peak_rss_bytes"] else None
        mfu = r["mfu"] if "decode" not in r["workload"] else None
        lines.append(
            f"| {r['workload']} | {r['dtype']} | {r['centime_tokens_per_second']:,.1f} | {shown(mfu, '{:.1%}')} | "
            f"{shown(r['mbu'], '{:.1%}')} | {r['peer']} | {shown(r['peer_tokens_per_second'], '{:,.1f}')} | {ratio} | "
            f"{shown(memory, '{:.2f}')} |"
        )
    lines += ["", "![Throughput of centime over that of its peers](ratios.svg)", ""]
    return "\n".join(lines)


COLOURS = {"f32": "#0072B2", "bf16": "#D55E00", "q8_0": "#009E73"}


def picture(rows):
    """Bars of the ratios, with the spread of the rounds; the line at 1 is the peer."""
    rows = [r for r in rows if r["ratio"]]
    left, right, step, top = 420, 70, 25, 78
    width, height = 960, top + step * len(rows) + 44
    most = max([r["ratio_high"] for r in rows] + [1.5]) * 1.05
    x = lambda value: left + (width - left - right) * value / most
    text = 'font-family="system-ui, -apple-system, Segoe UI, DejaVu Sans, sans-serif" font-size="12.5"'
    parts = [
        f'<svg width="{width}" height="{height}" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg" role="img" '
        f'aria-label="Throughput of centime over that of its peers on {len(rows)} workloads">',
        f'<rect width="{width}" height="{height}" fill="#FFFFFF"/>',
        f'<text x="16" y="27" {text.replace("12.5", "15.5")} font-weight="bold" fill="#1F2328">Throughput over that of each peer, the same work on the same cores</text>',
    ]
    for i, (name, colour) in enumerate(COLOURS.items()):
        parts.append(f'<rect x="{16 + 80 * i}" y="40" width="12" height="12" fill="{colour}"/>')
        parts.append(f'<text x="{34 + 80 * i}" y="51" {text} fill="#1F2328">{name}</text>')
    for tick in range(0, int(most) + 1):
        parts.append(f'<line x1="{x(tick):.1f}" y1="{top - 8}" x2="{x(tick):.1f}" y2="{height - 34}" stroke="{"#59636E" if tick == 1 else "#D8DEE4"}"/>')
        parts.append(f'<text x="{x(tick):.1f}" y="{height - 16}" {text} text-anchor="middle" fill="#1F2328">{tick}x</text>')
    for i, r in enumerate(rows):
        y = top + step * i
        name = html.escape(f"{r['workload']}, {r['dtype']}: {r['peer']}")
        parts.append(f'<text x="{left - 10}" y="{y + 13}" {text} text-anchor="end" fill="#1F2328">{name}</text>')
        parts.append(f'<rect x="{left}" y="{y + 2}" width="{x(r["ratio"]) - left:.1f}" height="14" fill="{COLOURS[r["dtype"]]}"/>')
        low, high = x(r["ratio_low"]), x(r["ratio_high"])
        parts.append(f'<line x1="{low:.1f}" y1="{y + 9}" x2="{high:.1f}" y2="{y + 9}" stroke="#1F2328"/>')
        parts.append(f'<text x="{max(high, x(r["ratio"])) + 8:.1f}" y="{y + 13}" {text} fill="#1F2328">{r["ratio"]:.2f}x</text>')
    return "\n".join(parts + ["</svg>", ""])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument(
        "--python", action="append", default=[], metavar="PEER=PATH", help="an interpreter that has the peer: torch, llama.cpp, tensorflow"
    )
    parser.add_argument("--centime", default="target/release/centime")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--only", default="train,prefill,decode")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())
    parser.add_argument("--compile", action="store_true", help="torch.compile beside PyTorch eager")
    a = parser.parse_args()
    named = dict(p.split("=", 1) for p in a.python)
    known = {TORCH: "torch", CPP: "llama.cpp", KERAS: "tensorflow"} | ({COMPILED: "torch"} if a.compile else {})
    a.pythons = {system: named[key] for system, key in known.items() if key in named}
    found = measure(a)
    rows = table(found)
    if not rows:
        sys.exit("nothing was measured")
    OUT.mkdir(parents=True, exist_ok=True)
    with open(OUT / "results.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(k for r in rows for k in r)))
        writer.writeheader()
        writer.writerows(rows)
    (OUT / "report.md").write_text(markdown(rows, found, a))
    (OUT / "ratios.svg").write_text(picture(rows))
    print((OUT / "report.md").read_text())


if __name__ == "__main__":
    main()
