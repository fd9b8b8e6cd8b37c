"""The report of a run of ci/gpu, from what its steps have left so far. What is not there is n/a; nothing here fails because something
before it did."""

import csv
import json

from .exit_codes import meaning

# At most so much is printed at the end, and of the report in it.
PRINTED, OF_REPORT = 11_000, 8_500
# Shares of the probed product's rate that attention's kernels aim at, by head_dim: forwards, backwards.
ATTENTION = {64: (0.36, 0.30), 128: (0.52, 0.30)}


def text(path):
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def loaded(path):
    """Of a file that may not be there, or be cut off."""
    try:
        found = json.loads(path.read_text())
        return found if isinstance(found, dict) else {}
    except (OSError, ValueError):
        return {}


def number(value, form="{:.2f}"):
    return form.format(value) if isinstance(value, (int, float)) else "n/a"


def cell(words, most=110):
    """In a table's cell."""
    words = " ".join(str(words).split()).replace("|", "/")
    return words if len(words) <= most else words[: most - 4] + " ..."


def met(value, target):
    if target is None:
        return "", ""
    return f"{target:.0%}" if target < 1 else f"{target:.2f}", "n/a" if value is None else "yes" if value >= target else "no"


def table(heads, aligned, rows):
    line = lambda cells: f"| {' | '.join(cells)} |"
    return [line(heads), line(["---:" if a == "r" else "---" for a in aligned]), *[line(r) for r in rows], ""]


def of_part(results, part):
    return [r for r in results.rows if r["part"] == part]


def last_log(results, step):
    """Of the newest part that ran it."""
    with_it = [r for r in results.rows if r["step"] == step and r["exit_code"] == "0"]
    newest = max(with_it, key=lambda r: r["began_utc"], default=None)
    return text(results.log(newest["part"], step)) if newest else ""


def head(results):
    lines = ["# Centime on a GPU", ""]
    facts, torch = last_log(results, "nvidia-smi"), last_log(results, "torch")
    if results.dry:
        lines += ["A dry run: nothing was measured.", ""]
    elif not facts:
        lines += ["nvidia-smi did not answer: this machine has no GPU that can be used. Nothing here was measured on one.", ""]
    lines += ["```", *(facts.splitlines() or ["nvidia-smi: n/a"]), "```", ""]
    pytorch = torch.splitlines()[-1] if torch else "n/a"
    return lines + [f"PyTorch, its CUDA, whether it sees a GPU, and which: {pytorch}", ""]


def verified(results):
    """In a sentence: what ratios and scenarios are worth depends on it."""
    rows = [r for r in of_part(results, "verify") if r["step"] not in ("nvidia-smi", "nvidia-smi-full", "torch", "doctor-untold")]
    if not rows or all(r["exit_code"] == "-" for r in rows):
        return "**Not verified**: part `verify` has not been run here."
    failed = [r["step"] for r in rows if meaning(r["exit_code"]).startswith(("failed", "time")) and not unable(r)]
    not_run = [r["step"] for r in rows if r["exit_code"] != "0" and r["step"] not in failed]
    if failed:
        return f"**Verification failed**: {', '.join(failed)}. What is measured below may be of wrong numbers."
    if len(not_run) == len(rows):
        return "**Not verified**: none of the steps that verify has ended."
    if not_run:
        return f"**Verified in part**: what ran passed; not run: {', '.join(not_run)}."
    return "**Verified**: every step passed."


def unable(row):
    """A sanitizer that found nothing and failed all the same, as it does on a device that it does not know."""
    return row["step"].split("-")[0] in ("memcheck", "racecheck", "synccheck") and row["exit_code"] not in ("0", "9")


def verification(results):
    rows = of_part(results, "verify")
    if not rows:
        return ["## Verification", "", verified(results), ""]
    said = lambda r: cell((text(results.log("verify", r["step"])).splitlines() or [""])[-1]) if r["exit_code"] not in "-" else ""
    cells = [[r["step"], r["seconds"], r["limit_seconds"], meaning(r["exit_code"]) or "ok", said(r)] for r in rows]
    heads = ["step", "seconds", "limit", "", "its last line"]
    return ["## Verification", "", verified(results), "", *table(heads, "lrrll", cells)]


def attention(results):
    found = loaded(results.work / "ratios" / "attention.json")
    lines = ["## Attention's kernels by themselves", ""]
    if not found.get("centime"):
        return lines + ["n/a: the step `attention` left no rates.", "", *faults(found)]
    product = found.get("product_flops_per_second")
    lines += [f"bf16. Shares are of a large product on this GPU: {number(product and product / 1e12, '{:.0f}')} TFLOP/s.", ""]
    rows = [r for rate in found["centime"] for r in directions(rate, found.get("pytorch", []), product)]
    heads = ["B, T, heads/KV, D", "", "centime TFLOP/s", "share", "target", "met", "PyTorch flash", "cuDNN", "ratio to the better"]
    return lines + table(heads, "llrrrlrrr", rows) + faults(found)


def directions(rate, theirs, product):
    shape = ("batch", "tokens", "heads", "kv_heads", "head_dim", "causal")
    tera = lambda v: number(v and v / 1e12, "{:.0f}")
    for i, direction in enumerate(("forward", "backward")):
        key = f"{direction}_flops_per_second"
        own = rate.get(key)
        of = {r.get("kernel"): r.get(key) for r in theirs if all(r.get(k) == rate.get(k) for k in shape)}
        other = max((v for v in of.values() if v), default=None)
        share = own / product if own and product else None
        target, reached = met(share, ATTENTION.get(rate.get("head_dim"), (None, None))[i])
        where = f"{rate['batch']}, {rate['tokens']}, {rate['heads']}/{rate['kv_heads']}, {rate['head_dim']}"
        causal = f"{direction}, causal" if rate.get("causal") else direction
        ratio = number(own / other if own and other else None)
        yield [where, causal, tera(own), number(share, "{:.1%}"), target, reached, tera(of.get("flash")), tera(of.get("cudnn")), ratio]


def faults(found):
    return [f"- {cell(f, 300)}" for f in found.get("faults", [])] + ([""] if found.get("faults") else [])


def against_pytorch(results):
    names = [r["step"].removeprefix("ratio-") for r in of_part(results, "ratios") if r["step"].startswith("ratio-")]
    found = [f for f in (loaded(results.work / "ratios" / f"{name}.json") for name in names) if f]
    lines = ["## Whole steps beside PyTorch", ""]
    if not found:
        return lines + ["n/a: no step of part `ratios` left a figure.", ""]
    lines += [
        "Medians of interleaved rounds; a ratio is the median of the rounds' own, with the smallest and the largest. MFU and MBU are "
        "against the GPU's limits, probed where the run could probe them, else the datasheet's.",
        "",
    ]
    heads = ["workload", "centime tok/s", "PyTorch tok/s", "ratio", "target", "met", "MFU", "MBU", "target", "met", "PyTorch ran as",
             "throttled", "note"]  # fmt: skip
    return lines + table(heads, "lrrrrlrrrllrl", [beside(f) for f in found])


def beside(f):
    ratio = "n/a"
    if f.get("ratio"):
        ratio = f"**{f['ratio']:.2f}** ({f['ratio_low']:.2f} .. {f['ratio_high']:.2f})"
    tokens = lambda key: number(f.get(key), "{:,.0f}")
    share = lambda key: number(f[key], "{:.1%}") if f.get(key) is not None else "n/a"
    return [
        f.get("workload", "n/a"), tokens("centime_tokens_per_second"), tokens("peer_tokens_per_second"), ratio,
        *met(f.get("ratio"), f.get("ratio_target")), share("mfu"), share("mbu"), *met(f.get("mbu"), f.get("mbu_target")),
        f.get("peer_mode") or "n/a", number(f.get("throttled_share"), "{:.0%}"), cell(f.get("note") or "", 200),
    ]  # fmt: skip


def rows_of(folder):
    try:
        with open(folder / "results.csv", newline="") as file:
            return [r for r in csv.DictReader(file) if "status" in r]
    except (OSError, csv.Error):
        return []


def scenarios(results):
    rows = []
    for step in of_part(results, "scenarios"):
        rows += [trial(step["step"], r) for r in rows_of(results.work / step["step"])]
    lines = ["## Scenarios", ""]
    if not rows:
        return lines + ["n/a: no scenario left a row.", ""]
    heads = ["scenario", "model", "phase", "batch", "tokens/s", "MFU", "causal MFU", "MBU", ""]
    return lines + table(heads, "lllrrrrrl", rows)


def trial(name, r):
    value = lambda key: number(float(r[key]), "{:.1%}") if r.get(key) else "n/a"
    try:
        shares, tokens = [value(key) for key in ("mfu", "mfu_causal", "mbu")], f"{float(r['tokens_per_second']):,.0f}"
    except (KeyError, ValueError):
        shares, tokens = ["n/a"] * 3, "n/a"
    model = r.get("model.preset") or f"{r.get('model.n_layers', '')} x {r.get('model.d_model', '')}, D {r.get('model.head_dim', '')}"
    said = "" if r["status"] == "ok" else cell(f"{r['status']}: {r.get('reason', '')}", 160)
    return [name, model, r.get("phase", ""), r.get("batch", ""), tokens, *shares, said]


def other_steps(results):
    rows = [r for r in results.rows if r["part"] != "verify"]
    if not rows:
        return []
    cells = [[r["part"], r["step"], r["seconds"], r["limit_seconds"], meaning(r["exit_code"]) or "ok"] for r in rows]
    return ["## Steps of the other parts", "", *table(["part", "step", "seconds", "limit", ""], "llrrl", cells)]


def report(results):
    sections = [head, verification, attention, against_pytorch, scenarios, other_steps]
    return "\n".join(line for section in sections for line in section(results))


def shown(results, folder, seconds):
    """For the end of what is printed: the report, and what tells most of failed logs, none of it so long that a reader's window cuts it."""
    whole = report(results)
    files = "nothing was written" if results.dry else f"results: {folder} (report.md, steps.csv, results.tar.gz)"
    last = f"\n{files}, after {seconds:.0f} s"
    if len(whole) > OF_REPORT:
        whole = whole[: OF_REPORT - 60] + "\n[... the rest is in report.md]\n"
    failed = [r for r in results.rows if meaning(r["exit_code"]).startswith(("failed", "time", "not installed", "stopped"))]
    left = PRINTED - len(whole) - len(last)
    tails = ""
    for i, r in enumerate(failed):
        title = f"\n--- {r['part']}/{r['step']}.log\n"
        room = (left - len(tails)) // (len(failed) - i) - len(title) - 1
        if room >= 80:
            tails += title + telling(text(results.log(r["part"], r["step"])), room) + "\n"
    return whole + tails + last


def telling(log, room):
    """Of a log that is too long: lines that speak of a failure, which may stand anywhere, and its end."""
    if len(log) <= room:
        return log
    marked = [cell(line, 200) for line in log[: -room // 2].splitlines() if "FAILED" in line or "error" in line.lower()]
    begin = "\n".join(marked)[: room // 2]
    return f"{begin}\n...\n{log[len(begin) + 5 - room :]}" if begin else log[-room:]
