"""Centime's load and guidellm's, side by side on one server: interleaved rounds, a table in --out.

    python3 -m venv peers && peers/bin/pip install guidellm gguf tokenizers numpy
    peers/bin/python ci/peers/random_server_model.py model README.md ARCHITECTURE.md   # a small random Llama and its tokenizer
    llama-server -m model/model.gguf --port 8090 -np 8 -c 16384 -t 1 &
    python3 ci/peers/server_side_by_side.py --endpoint http://127.0.0.1:8090/v1 --tokenizer model --guidellm peers/bin/guidellm

Both keep so many requests under way, of prompts and answers of the same numbers of tokens, for the same time. With --together they do so at
once, each as many, so that both see the same server at the same moment: what a machine does to one round it does to both. Otherwise they take
turns, and who goes first changes from round to round. Answers are of --answer tokens on average, any number as often from --spread of it
below to as much above: with answers of one length (--spread 0) all requests of a closed loop end together, and TTFT tells how the client's
next ones fall into the server's batches. guidellm has another seed every time: with one seed it sends the same prompts again, which a
server with a prompt cache knows from the run before (TTFT of 46 ms in the place of 317). guidellm's prompts are of --prompt tokens before
the template, ours of as many as the server counted of them. Its "ITL" ((last - first token) / (tokens - 1)) is what we call TPOT, and its
TPOT has the first token in it. Medians of the requests of a run; of the rounds the median ratio, with the smallest and largest. Rounds are
kept as they end: called again, it goes on after the last.
Nothing is fetched from a hub.
"""

import argparse
import collections
import concurrent.futures
import csv
import datetime
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

FIGURES = [("ttft", "TTFT, ms"), ("tpot", "TPOT, ms"), ("e2e", "E2E, ms"), ("rate", "output tokens/s")]


def run(command, **more):
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, **more)
    if done.returncode != 0:
        raise RuntimeError(f"{command[0]} ended with {done.returncode}: {(done.stderr or done.stdout).strip()[-500:]}")
    return done.stdout


def low(a):
    return round(a.answer * (1 - a.spread))


def high(a):
    return round(a.answer * (1 + a.spread))


def guidellm(a, streams, folder, seed=0):
    out = folder / "g.json"
    run(
        [
            a.guidellm, "run", "--disable-console",
            "--backend", f"kind=openai_http,target={a.endpoint.removesuffix('/v1')},model={a.model}",
            "--profile", f"kind=concurrent,streams={streams}",
            "--constraint", f"kind=max_duration,seconds={a.seconds}",
            "--tokenizer", f"kind=huggingface_auto,model={a.tokenizer}",
            "--data", f"kind=synthetic_text,prompt_tokens={a.prompt},output_tokens={a.answer},output_tokens_min={low(a)},output_tokens_max={high(a)}",
            "--seed", f"kind=static,value={seed}",
            "--output", f"kind=json,path={out}",
        ],
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    benchmark = json.loads(out.read_text())["benchmarks"][0]
    requests = benchmark["requests"]["successful"]
    middle = lambda key: statistics.median(r[key] for r in requests)
    return {
        "ttft": middle("time_to_first_token_ms"),
        "tpot": middle("inter_token_latency_ms"),
        "e2e": middle("request_latency") * 1e3,
        "rate": benchmark["metrics"]["output_tokens_per_second"]["total"]["mean"],
        "input": middle("prompt_tokens"),
        "output": middle("output_tokens"),
        "cached": sum(r["cached_tokens"] or 0 for r in requests) / sum(r["prompt_tokens"] for r in requests),
        "requests": len(requests),
    }


def centime(a, streams, prompt, folder):
    path = folder / "s.yaml"
    path.write_text(
        f"version: 1\nname: side\ntrial:\n  engine: {{ endpoint: \"{a.endpoint}\", model: \"{a.model}\", "
        f"tokenizer: \"{a.tokenizer}/tokenizer.json\" }}\n  prompt_len: {prompt}\n  new_tokens: {{ range: [{low(a)}, {high(a)}] }}\n"
        f"  load: {{ concurrency: {streams} }}\n"
        f"measure: {{ min_seconds: {a.seconds}, max_seconds: {a.seconds}, rounds: 1 }}\nprice: {{ usd_per_hour: 1 }}\n"
    )
    said = run([a.centime, "run", str(path), "--fresh", "--quiet", "--no-probe", "--format", "json", "--out", str(folder / "run")])
    row = json.loads(said)["rows"][0]
    return {
        "ttft": row["ttft_seconds"] * 1e3,
        "tpot": row["tpot_seconds"] * 1e3,
        "e2e": row["e2e_seconds"] * 1e3,
        "rate": row["output_tokens_per_second"],
        "input": row["input_tokens_per_request"],
        "output": row["output_tokens_per_request"],
        "cached": row["cached_input_share"] or 0,
        "requests": row["requests_per_second"] * a.seconds,
    }


def is_busy(a):
    """Whether the server works on a request (llama-server's /slots)."""
    with urllib.request.urlopen(a.endpoint.removesuffix("/v1") + "/slots", timeout=5) as answer:
        return any(slot["is_processing"] for slot in json.load(answer))


def seed(turn, streams):
    """Of guidellm's prompts, another every time."""
    return 1000 * turn + streams


def together(a, streams, prompt, folder, turn):
    """Both at once: ours begins when the server has the first request of guidellm, which takes seconds to start."""
    with concurrent.futures.ThreadPoolExecutor() as pool:
        theirs = pool.submit(guidellm, a, streams, folder, seed(turn, streams))
        while not is_busy(a) and not theirs.done():
            time.sleep(0.02)
        ours = centime(a, streams, prompt, folder)
        return [("centime", ours), ("guidellm", theirs.result())]


def in_turn(a, streams, prompt, folder, turn):
    sides = [("centime", lambda: centime(a, streams, prompt, folder)), ("guidellm", lambda: guidellm(a, streams, folder, seed(turn, streams)))]
    return [(name, side()) for name, side in (sides if turn % 2 == 0 else reversed(sides))]


def kept(path):
    """The rows of whole rounds of an earlier call."""
    if not path.exists():
        return []
    number = lambda text: text if text in ("centime", "guidellm") else float(text)
    with open(path, newline="") as file:
        rows = [{k: number(v) for k, v in row.items()} for row in csv.DictReader(file)]
    of_round = collections.Counter(row["round"] for row in rows)
    return [row for row in rows if of_round[row["round"]] == max(of_round.values())]


def write(path, rows):
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows({k: round(v, 3) if isinstance(v, float) else v for k, v in r.items()} for r in rows)


def measure(a, path):
    rows = kept(path)
    done = len({row["round"] for row in rows})
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch)
        if done < a.rounds:
            # What the template adds to a prompt.
            prompt = round(guidellm(argparse.Namespace(**{**vars(a), "seconds": 2}), 1, folder)["input"])
        for turn in range(done, a.rounds):
            for streams in map(int, a.streams.split(",")):
                for name, figures in (together if a.together else in_turn)(a, streams, prompt, folder, turn):
                    rows.append({"round": turn + 1, "streams": streams, "client": name, "load": round(os.getloadavg()[0], 1), **figures})
                    print({k: round(v, 2) if isinstance(v, float) else v for k, v in rows[-1].items()}, file=sys.stderr, flush=True)
            write(path, rows)
    return rows


def table(rows):
    lines = ["| requests at a time | figure | centime | guidellm | ratio of a round |", "| ---: | --- | ---: | ---: | ---: |"]
    of = lambda streams, client: [r for r in rows if r["streams"] == streams and r["client"] == client]
    for streams in dict.fromkeys(r["streams"] for r in rows):
        for key, name in FIGURES:
            ours, theirs = ([r[key] for r in of(streams, client)] for client in ["centime", "guidellm"])
            ratios = sorted(x / y for x, y in zip(ours, theirs))
            middle = statistics.median
            lines.append(
                f"| {streams:g} | {name} | {middle(ours):.2f} | {middle(theirs):.2f} | "
                f"**{middle(ratios):.3f}** ({ratios[0]:.3f} .. {ratios[-1]:.3f}) |"
            )
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--endpoint", required=True)
    parser.add_argument("--tokenizer", required=True, help="a folder with tokenizer.json")
    parser.add_argument("--model", default="m")
    parser.add_argument("--guidellm", default="guidellm")
    parser.add_argument("--centime", default="target/release/centime")
    parser.add_argument("--streams", default="1,4,8")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--prompt", type=int, default=64)
    parser.add_argument("--answer", type=int, default=32)
    parser.add_argument("--spread", type=float, default=0.25)
    parser.add_argument("--together", action="store_true", help="both at once; needs a server with slots for twice the requests, and its /slots")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("reports/servers"))
    a = parser.parse_args()
    a.out.mkdir(parents=True, exist_ok=True)
    rows = measure(a, a.out / "side-by-side.csv")
    loads = [r["load"] for r in rows]
    print(f"{datetime.date.today():%-d %B %Y}, load average {min(loads)} to {max(loads)} of {os.cpu_count()} cores\n\n{table(rows)}")


if __name__ == "__main__":
    main()
