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

GPT2 = dict(layers=12, width=768, heads=12, vocabulary=50257)
SMALL = dict(layers=6, width=384, heads=6, vocabulary=8192)
# name, model, phase, batch, tokens
WORKLOADS = [
    ("train GPT-2 124M, B2 T512", GPT2, "train", 2, 512),
    ("train 6x384, B8 T256", SMALL, "train", 8, 256),
    ("prefill GPT-2 124M, B1 T512", GPT2, "prefill", 1, 512),
    ("prefill GPT-2 124M, B8 T256", GPT2, "prefill", 8, 256),
    ("decode GPT-2 124M, B1, context 256", GPT2, "decode", 1, 256),
    ("decode GPT-2 124M, B16, context 256", GPT2, "decode", 16, 256),
]
OUT = pathlib.Path("reports/side-by-side")


def run(command, seconds=600, **more):
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, **more)
    if done.returncode != 0:
        raise RuntimeError(f"{command[0]} ended with {done.returncode}: {done.stderr.strip()[-300:]}")
    return done.stdout


def centime(workload, dtype, a, folder):
    _, model, phase, batch, tokens = workload
    length = f"seq_len: {tokens}" if phase == "train" else f"prompt_len: {tokens}, new_tokens: 64"
    shape = "n_layers: {layers}, d_model: {width}, n_heads: {heads}, vocab_size: {vocabulary}".format(**model)
    path = folder / "s.yaml"
    path.write_text(
        f"version: 1\nname: side-by-side\ntrial: {{ model: {{ family: gpt2, {shape} }}, phase: {phase}, batch: {batch}, "
        f"{length}, dtype: {dtype}, cores_per_device: {a.threads} }}\n"
        f"measure: {{ min_seconds: {a.seconds}, max_seconds: {a.seconds}, precision: 0.001, timeout_seconds: 300 }}\n"
    )
    command = [a.centime, "run", str(path), "--fresh", "--quiet", "--format", "json", "--out", str(folder / "run")]
    row = json.loads(run(command))["rows"][0]
    keys = ["tokens_per_second", "flops_per_second", "mfu", "mbu", "peak_flops_per_second"]
    return {"peak_rss_bytes": row["peak_memory_bytes"], "version": row["program_version"]} | {k: row[k] for k in keys}


def torch(workload, dtype, a, compiled):
    _, model, phase, batch, tokens = workload
    numbers = {**model, "batch": batch, "tokens": tokens, "threads": a.threads, "seconds": a.seconds}
    command = [a.python, "ci/peers/torch_peer.py", "--phase", phase, "--dtype", dtype]
    for name, value in numbers.items():
        command += [f"--{name}", str(value)]
    return json.loads(run(command + (["--compile"] if compiled else [])).strip().splitlines()[-1])


def median(rows, key):
    values = [r[key] for r in rows if r.get(key) is not None]
    return statistics.median(values) if values else None


def measure(a):
    systems = ["centime", "torch"] + (["torch.compile"] if a.compile else [])
    chosen = [w for w in WORKLOADS if w[2] in a.only.split(",")]
    found = {}
    with tempfile.TemporaryDirectory() as scratch:
        for turn in range(a.rounds):
            for workload in chosen:
                for dtype in a.dtypes.split(","):
                    for system in systems:
                        key = (workload[0], dtype, system)
                        try:
                            if system == "centime":
                                row = centime(workload, dtype, a, pathlib.Path(scratch))
                            else:
                                row = torch(workload, dtype, a, system == "torch.compile")
                            found.setdefault(key, []).append(row)
                            print(f"[{turn + 1}/{a.rounds}] {key[0]}, {dtype}: {system} {row['tokens_per_second']:.1f} tok/s", file=sys.stderr)
                        except (RuntimeError, subprocess.TimeoutExpired, ValueError) as fault:
                            print(f"[{turn + 1}/{a.rounds}] {key}: {fault}", file=sys.stderr)
    return found


def table(found):
    rows = []
    for workload, dtype in dict.fromkeys((w, d) for w, d, _ in found):
        ours = found.get((workload, dtype, "centime"))
        if not ours:
            continue
        row = {"workload": workload, "dtype": dtype, "centime_tokens_per_second": median(ours, "tokens_per_second")}
        row |= {k: median(ours, k) for k in ["flops_per_second", "mfu", "mbu"]}
        row["centime_peak_rss_bytes"] = median(ours, "peak_rss_bytes")
        for system in ["torch", "torch.compile"]:
            theirs = found.get((workload, dtype, system))
            name = system.replace(".", "_")
            row[f"{name}_tokens_per_second"] = median(theirs, "tokens_per_second") if theirs else None
            row[f"{name}_peak_rss_bytes"] = median(theirs, "peak_rss_bytes") if theirs else None
            if theirs:
                # Of the same round each: drift cancels.
                pairs = [o["tokens_per_second"] / t["tokens_per_second"] for o, t in zip(ours, theirs)]
                row[f"ratio_to_{name}"] = statistics.median(pairs)
                row[f"ratio_to_{name}_low"], row[f"ratio_to_{name}_high"] = min(pairs), max(pairs)
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
    versions = sorted({f"{s} {r['version']}" for (_, _, s), rs in found.items() for r in rs})
    lines = [
        "# Centime and its peers, side by side",
        "",
        f"{time.strftime('%d %B %Y')}, {cpu()}, {a.threads} threads; {', '.join(versions)}. Medians of {a.rounds} interleaved "
        f"rounds of {a.seconds:g} s, every run a process of its own. The ratio is the median of the rounds' own ratios, with the "
        "smallest and largest. Again: `ci/side-by-side`.",
        "",
        "| workload | dtype | centime tok/s | MFU | MBU | PyTorch tok/s | ratio | torch.compile tok/s | ratio | memory, of PyTorch's |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for r in rows:
        def ratio(name):
            value = r.get(f"ratio_to_{name}")
            return "n/a" if value is None else f"{value:.2f} ({r[f'ratio_to_{name}_low']:.2f} .. {r[f'ratio_to_{name}_high']:.2f})"
        memory = r["centime_peak_rss_bytes"] / r["torch_peak_rss_bytes"] if r["torch_peak_rss_bytes"] else None
        lines.append(
            f"| {r['workload']} | {r['dtype']} | {r['centime_tokens_per_second']:,.1f} | {shown(r['mfu'], '{:.1%}')} | "
            f"{shown(r['mbu'], '{:.1%}')} | {shown(r['torch_tokens_per_second'], '{:,.1f}')} | **{ratio('torch')}** | "
            f"{shown(r['torch_compile_tokens_per_second'], '{:,.1f}')} | {ratio('torch_compile')} | {shown(memory, '{:.2f}')} |"
        )
    lines += ["", "![Throughput of centime over that of PyTorch](ratios.svg)", ""]
    return "\n".join(lines)


def picture(rows):
    """Bars of the ratios, with the spread of the rounds; the line at 1 is PyTorch."""
    rows = [r for r in rows if r.get("ratio_to_torch")]
    left, right, step, top = 330, 70, 30, 56
    width, height = 860, top + step * len(rows) + 44
    most = max([r["ratio_to_torch_high"] for r in rows] + [1.5]) * 1.05
    x = lambda value: left + (width - left - right) * value / most
    text = 'font-family="system-ui, -apple-system, Segoe UI, DejaVu Sans, sans-serif" font-size="12.5"'
    parts = [
        f'<svg width="{width}" height="{height}" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg" role="img" '
        f'aria-label="Throughput of centime over that of PyTorch on {len(rows)} workloads">',
        f'<rect width="{width}" height="{height}" fill="#FFFFFF"/>',
        f'<text x="16" y="27" {text.replace("12.5", "15.5")} font-weight="bold" fill="#1F2328">Throughput over PyTorch (eager), the same work on the same cores</text>',
    ]
    for tick in range(0, int(most) + 1):
        parts.append(f'<line x1="{x(tick):.1f}" y1="{top - 8}" x2="{x(tick):.1f}" y2="{height - 34}" stroke="{"#59636E" if tick == 1 else "#D8DEE4"}"/>')
        parts.append(f'<text x="{x(tick):.1f}" y="{height - 16}" {text} text-anchor="middle" fill="#1F2328">{tick}x</text>')
    for i, r in enumerate(rows):
        y, colour = top + step * i, "#0072B2" if r["dtype"] == "f32" else "#D55E00"
        parts.append(f'<text x="{left - 10}" y="{y + 14}" {text} text-anchor="end" fill="#1F2328">{html.escape(r["workload"])}, {r["dtype"]}</text>')
        parts.append(f'<rect x="{left}" y="{y + 2}" width="{x(r["ratio_to_torch"]) - left:.1f}" height="16" fill="{colour}"/>')
        low, high = x(r["ratio_to_torch_low"]), x(r["ratio_to_torch_high"])
        parts.append(f'<line x1="{low:.1f}" y1="{y + 10}" x2="{high:.1f}" y2="{y + 10}" stroke="#1F2328"/>')
        parts.append(f'<text x="{max(high, x(r["ratio_to_torch"])) + 8:.1f}" y="{y + 14}" {text} fill="#1F2328">{r["ratio_to_torch"]:.2f}x</text>')
    return "\n".join(parts + ["</svg>", ""])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--centime", default="target/release/centime")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--only", default="train,prefill,decode")
    parser.add_argument("--dtypes", default="f32,bf16")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())
    parser.add_argument("--compile", action="store_true")
    a = parser.parse_args()
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
