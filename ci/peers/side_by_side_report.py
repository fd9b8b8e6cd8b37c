"""What side_by_side.py writes: a machine's table and picture, and the page that sets machines beside one another."""

import csv
import html
import statistics
import time


def median(rows, key):
    values = [r[key] for r in rows if r.get(key) is not None]
    return statistics.median(values) if values else None


def table(rounds):
    """A row for each workload, format and peer."""
    found = {}
    for r in rounds:
        found.setdefault((r["workload"], r["dtype"], r["system"]), {})[r["round"]] = r if r.get("tokens_per_second") else None
    rows = []
    for (workload, dtype, system), theirs in found.items():
        ours = found.get((workload, dtype, "centime"), {})
        known = [r for r in ours.values() if r]
        if system == "centime" or not known:
            continue
        row = {"workload": workload, "dtype": dtype, "centime_tokens_per_second": median(known, "tokens_per_second")}
        row |= {k: median(known, k) for k in ["flops_per_second", "mfu", "mbu"]}
        row["centime_peak_rss_bytes"] = median(known, "peak_rss_bytes")
        # Of the same round each: drift cancels.
        both = [(ours[turn], r) for turn, r in theirs.items() if r and ours.get(turn)]
        ratios = [o["tokens_per_second"] / r["tokens_per_second"] for o, r in both]
        answered = [r for r in theirs.values() if r]
        row |= {"peer": system, "peer_tokens_per_second": median(answered, "tokens_per_second")}
        row["peer_peak_rss_bytes"] = median(answered, "peak_rss_bytes")
        row["ratio"] = statistics.median(ratios) if ratios else None
        row["ratio_low"], row["ratio_high"] = (min(ratios), max(ratios)) if ratios else (None, None)
        row["rounds"] = len(ratios)
        rows.append(row)
    return rows


def best_of(rows):
    """By workload and format the row of the peer that is fastest there."""
    best = {}
    for r in rows:
        key = (r["workload"], r["dtype"])
        if r["ratio"] and (key not in best or r["ratio"] < best[key]["ratio"]):
            best[key] = r
    return best


def shown(value, form):
    return "n/a" if value is None else form.format(value)


def ratio_of(r):
    return "n/a" if r["ratio"] is None else f"**{r['ratio']:.2f}** ({r['ratio_low']:.2f} .. {r['ratio_high']:.2f})"


def markdown(rows, rounds, title, a):
    versions = sorted({f"{r['system']} {r['version']}" for r in rounds if r.get("version") and r["system"] not in ("torch.compile", "zentorch")})
    made = [r["rounds"] for r in rows if r["rounds"]] or [0]
    turns = f"{min(made)}" if min(made) == max(made) else f"{min(made)} to {max(made)}"
    best = best_of(rows)
    taken = [r["taken_by_others"] for r in rounds if r.get("taken_by_others") is not None]
    lines = [
        f"# Centime and its peers on {title}",
        "",
        f"{time.strftime('%d %B %Y')}, {a.threads} threads; {', '.join(versions)}. Medians of {turns} interleaved "
        f"rounds of {a.seconds:g} s, every run a process of its own. The ratio is the median of the rounds' own ratios, with the "
        "smallest and largest; the fastest peer of each workload and format is in bold letters. MFU and MBU are against this machine's peaks as probed in the "
        "same runs (for q8_0 and q4_0, which are `weights: int8` and `int4` here, MFU against that of bf16). "
        f"Others took {statistics.median(taken):.1%} of the processors in the median run and {max(taken):.1%} at most. Again: `ci/side-by-side`."
        if taken
        else "",
        "",
        "| workload | format | centime tok/s | MFU | MBU | peer | its tok/s | ratio | memory, of the peer's |",
        "| --- | --- | ---: | ---: | ---: | --- | ---: | ---: | ---: |",
    ]
    for r in rows:
        memory = r["centime_peak_rss_bytes"] / r["peer_peak_rss_bytes"] if r["peer_peak_rss_bytes"] else None
        mfu = r["mfu"] if "decode" not in r["workload"] else None
        peer = f"**{r['peer']}**" if best.get((r["workload"], r["dtype"])) is r else r["peer"]
        lines.append(
            f"| {r['workload']} | {r['dtype']} | {r['centime_tokens_per_second']:,.1f} | {shown(mfu, '{:.1%}')} | "
            f"{shown(r['mbu'], '{:.1%}')} | {peer} | {shown(r['peer_tokens_per_second'], '{:,.1f}')} | {ratio_of(r)} | "
            f"{shown(memory, '{:.2f}')} |"
        )
    faults = sorted({(r["workload"], r["dtype"], r["system"], r["fault"]) for r in rounds if r.get("fault")})
    lines += [""] + [f"- {w}, {d}: {s} failed: {fault.splitlines()[-1][:200]}" for w, d, s, fault in faults]
    lines += ["", "![Throughput of centime over that of its peers](ratios.svg)", ""]
    return "\n".join(lines)


COLOURS = {"f32": "#0072B2", "bf16": "#D55E00", "q8_0": "#009E73", "q4_0": "#CC79A7"}


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
    shown = {r["dtype"] for r in rows}
    for i, (name, colour) in enumerate((name, colour) for name, colour in COLOURS.items() if name in shown):
        parts.append(f'<rect x="{16 + 80 * i}" y="40" width="12" height="12" fill="{colour}"/>')
        parts.append(f'<text x="{34 + 80 * i}" y="51" {text} fill="#1F2328">{name}</text>')
    for tick in range(0, int(most) + 1, 1 if most < 12 else 2):
        parts.append(f'<line x1="{x(tick):.1f}" y1="{top - 8}" x2="{x(tick):.1f}" y2="{height - 34}" stroke="{"#59636E" if tick == 1 else "#D8DEE4"}"/>')
        parts.append(f'<text x="{x(tick):.1f}" y="{height - 16}" {text} text-anchor="middle" fill="#1F2328">{tick}x</text>')
    if most >= 12:
        parts.append(f'<line x1="{x(1):.1f}" y1="{top - 8}" x2="{x(1):.1f}" y2="{height - 34}" stroke="#59636E"/>')
    for i, r in enumerate(rows):
        y = top + step * i
        name = html.escape(f"{r['workload']}, {r['dtype']}: {r['peer']}")
        parts.append(f'<text x="{left - 10}" y="{y + 13}" {text} text-anchor="end" fill="#1F2328">{name}</text>')
        parts.append(f'<rect x="{left}" y="{y + 2}" width="{x(r["ratio"]) - left:.1f}" height="14" fill="{COLOURS[r["dtype"]]}"/>')
        low, high = x(r["ratio_low"]), x(r["ratio_high"])
        parts.append(f'<line x1="{low:.1f}" y1="{y + 9}" x2="{high:.1f}" y2="{y + 9}" stroke="#1F2328"/>')
        parts.append(f'<text x="{max(high, x(r["ratio"])) + 8:.1f}" y="{y + 13}" {text} fill="#1F2328">{r["ratio"]:.2f}x</text>')
    return "\n".join(parts + ["</svg>", ""])


def write(folder, rounds, title, a):
    rows = table(rounds)
    with open(folder / "results.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(k for r in rows for k in r)))
        writer.writeheader()
        writer.writerows(rows)
    (folder / "report.md").write_text(markdown(rows, rounds, title, a))
    (folder / "ratios.svg").write_text(picture(rows))


def write_machines(out):
    """The ratio to the fastest peer of each workload, machine by machine."""
    machines = {}
    for path in sorted(out.glob("*/results.csv")):
        with open(path, newline="") as file:
            rows = list(csv.DictReader(file))
        for r in rows:
            r |= {k: float(r[k]) if r[k] else None for k in ["ratio", "ratio_low", "ratio_high"]}
        first = (path.parent / "report.md").read_text().splitlines()[0]
        machines[path.parent.name] = (first.removeprefix("# Centime and its peers on "), best_of(rows))
    keys = list(dict.fromkeys(key for _, best in machines.values() for key in best))
    lines = [
        "# Centime beside the fastest peer, machine by machine",
        "",
        "The ratio of throughputs to the peer that is fastest at that workload and format on that machine, with the smallest and largest of its rounds. "
        "Every machine's own report has all peers, its versions, MFU and memory. Written by `ci/side-by-side`.",
        "",
        "| workload | format | " + " | ".join(f"[{title}]({name}/report.md)" for name, (title, _) in machines.items()) + " |",
        "| --- | --- | " + " | ".join("---" for _ in machines) + " |",
    ]
    for workload, dtype in keys:
        cells = [best.get((workload, dtype)) for _, best in machines.values()]
        said = [f"{ratio_of(r)} {r['peer']}" if r else "" for r in cells]
        lines.append(f"| {workload} | {dtype} | {' | '.join(said)} |")
    (out / "README.md").write_text("\n".join(lines + [""]))
