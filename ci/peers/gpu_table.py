"""Writes report.md of a run of ci/gpu from what its steps left in the folder: facts, steps, ratios with their targets.

What a step did not leave is n/a; nothing here fails because something before it did.
"""

import csv
import json
import pathlib
import sys

# The targets that are not ratios to PyTorch: run's folder, phase, head_dim, column, least value.
TARGETS = [
    ("attention forward, head_dim 64, T 4096", "gpu-attention", "prefill", 64, "mfu_causal", 0.60),
    ("attention forward, head_dim 128, T 4096", "gpu-attention", "prefill", 128, "mfu_causal", 0.60),
    ("attention forward and backward, head_dim 64, T 4096", "gpu-attention", "train", 64, "mfu_causal", 0.45),
    ("attention forward and backward, head_dim 128, T 4096", "gpu-attention", "train", 128, "mfu_causal", 0.45),
    ("decode Llama 1B, B1, of the bandwidth", "gpu-decode", "decode", 64, "mbu", 0.85),
    ("decode Llama 8B, B1, of the bandwidth", "gpu-decode", "decode", 128, "mbu", 0.85),
]


def rows_of(folder):
    try:
        with open(folder / "results.csv", newline="") as file:
            return list(csv.DictReader(file))
    except OSError:
        return []


def number(row, key):
    try:
        return float(row[key])
    except (KeyError, TypeError, ValueError):
        return None


def text(path, default=""):
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return default


def targets(out):
    lines = ["| what | is | target | met |", "| --- | ---: | ---: | --- |"]
    for name, folder, phase, head_dim, column, least in TARGETS:
        fits = lambda r: r.get("phase") == phase and number(r, "model.head_dim") == head_dim and (folder != "gpu-decode" or number(r, "batch") == 1)
        known = [v for r in rows_of(out / folder) if fits(r) and (v := number(r, column)) is not None]
        value = max(known, default=None)
        met = "n/a" if value is None else ("yes" if value >= least else "no")
        lines.append(f"| {name} | {'n/a' if value is None else f'{value:.1%}'} | {least:.0%} | {met} |")
    return lines


def measured(folder):
    """Of a step that ran a scenario: a run whose trials were all skipped ends well and has measured nothing."""
    rows = [r for r in rows_of(folder) if "status" in r]
    return f"{sum(r['status'] == 'ok' for r in rows)} of {len(rows)} trials measured" if rows else ""


def peaks(out):
    """What the shares are of, as the runs' own environments say."""
    for environment in sorted(out.glob("gpu-*/environment.json")):
        try:
            gpus = json.loads(environment.read_text()).get("gpus", [])
        except ValueError:
            continue
        if gpus:
            probed = gpus[0].get("probed")
            return "probed on this GPU" if probed else "the datasheet's (the GPU was not probed)"
    return "not known"


def main():
    out, seconds, dry = pathlib.Path(sys.argv[1]), sys.argv[2], "--dry-run" in sys.argv
    with open(out / "steps.csv", newline="") as file:
        steps = list(csv.DictReader(file))
    facts = text(out / "nvidia-smi.log").splitlines()
    pytorch = (text(out / "torch.log").splitlines() or ["n/a"])[-1]
    lines = ["# Centime on a GPU", ""]
    if dry:
        lines += ["A dry run: nothing was measured.", ""]
    elif not any(s["step"] == "nvidia-smi" and s["exit_code"] == "0" for s in steps):
        lines += ["nvidia-smi did not answer: this machine has no GPU that can be used. Nothing here was measured on one.", ""]
    lines += ["```", *(facts or ["nvidia-smi: n/a"]), "```", "", f"PyTorch, its CUDA, whether it sees a GPU, and which: {pytorch}", ""]
    lines += ["## Against PyTorch", ""]
    ratios = text(out / "side-by-side" / "ratios.md").splitlines()
    lines += ratios[2:] if ratios else ["n/a: the step `side-by-side` left no table."]
    lines += ["", "## Against the limits", "", f"Peaks are {peaks(out)}. Causal MFU counts what a kernel that skips the masked half has to do, and is of the whole step.", ""]
    lines += targets(out)
    lines += ["", f"## Steps ({seconds} s in all)", "", "| step | seconds | limit | exit code | |", "| --- | ---: | ---: | --- | --- |"]
    meaning = {"0": "", "124": "time was up", "137": "time was up, killed", "127": "not installed", "-": "not run", "skipped": "not run"}
    for s in steps:
        said = "; ".join(filter(None, [meaning.get(s["exit_code"], "failed"), measured(out / s["step"])]))
        lines.append(f"| {s['step']} | {s['seconds']} | {s['limit_seconds']} | {s['exit_code']} | {said} |")
    (out / "report.md").write_text("\n".join(lines + [""]))


if __name__ == "__main__":
    main()
