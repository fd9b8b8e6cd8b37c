"""Checks of a server against itself, and against itself made slower by a share: how often `centime check` says what.

    llama-server -m model/model.gguf --port 8090 -np 4 -c 8192 -t 1 &      # or known_server.py, whose times are known
    python3 ci/peers/server_checks.py --to 127.0.0.1:8090 --runs 20 --slower 5

Both sides go through a proxy (slow_proxy.py); the slower one holds every piece of an answer until the time since its request is that
much longer. Writes checks.csv into --out, a line a check as it ends, and prints the counts.
"""

import argparse
import collections
import csv
import datetime
import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).parent
FIELDS = ["kind", "seed", "verdict", "pairs", "ratio", "low", "high", "load", "seconds"]


def proxy(a, port, slower):
    started = subprocess.Popen([sys.executable, HERE / "slow_proxy.py", "--to", a.to, "--port", str(port), "--slower", str(slower)])
    for _ in range(100):
        with socket.socket() as s:
            if s.connect_ex(("127.0.0.1", port)) == 0:
                return started
        time.sleep(0.1)
    raise RuntimeError(f"nobody listens at port {port}")


def check(a, seed, head, folder):
    at = lambda port: f"engine.endpoint=http://127.0.0.1:{port}/v1"
    command = [a.centime, "check", str(folder / "s.yaml"), "--baseline-set", at(a.port), "--head-set", at(head)]
    command += ["--seconds", str(a.seconds), "--max-pairs", str(a.pairs), "--check-seed", str(seed), "--quiet", "--format", "json"]
    began = time.time()
    done = subprocess.run([*command, "--out", str(folder / "out")], capture_output=True, text=True, timeout=900)
    try:
        found = json.loads(done.stdout)
    except ValueError:
        raise RuntimeError(f"centime check ended with {done.returncode}: {done.stderr[-500:]}") from None
    judged = found["cells"][0]["judged"]
    row = {"verdict": found["verdict"], "seconds": round(time.time() - began, 1), "load": round(os.getloadavg()[0], 1)}
    return row | {k: round(judged[k], 4) if isinstance(judged[k], float) else judged[k] for k in ["pairs", "ratio", "low", "high"]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--to", required=True, help="HOST:PORT of the server")
    parser.add_argument("--port", type=int, default=8190, help="of the first proxy; the second takes the next")
    parser.add_argument("--centime", default="target/release/centime")
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--slower", type=float, default=5)
    parser.add_argument("--seconds", type=float, default=0.3)
    parser.add_argument("--pairs", type=int, default=48)
    parser.add_argument("--streams", type=int, default=2)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("reports/servers"))
    a = parser.parse_args()
    a.out.mkdir(parents=True, exist_ok=True)
    rows = []
    with tempfile.TemporaryDirectory() as scratch, open(a.out / "checks.csv", "w", newline="") as file:
        folder = pathlib.Path(scratch)
        (folder / "s.yaml").write_text(
            f"version: 1\nname: checks\ntrial:\n  engine: {{ endpoint: \"http://127.0.0.1:{a.port}/v1\", model: m }}\n"
            f"  prompt_len: 24\n  new_tokens: 16\n  load: {{ concurrency: {a.streams} }}\nprice: {{ usd_per_hour: 1 }}\n"
        )
        writer = csv.DictWriter(file, FIELDS)
        writer.writeheader()
        proxies = [proxy(a, a.port + i, slower) for i, slower in enumerate([0, a.slower])]
        try:
            for seed in range(1, a.runs + 1):
                for kind, head in [("same", a.port), ("slower", a.port + 1)]:
                    row = {"kind": kind, "seed": seed, **check(a, seed, head, folder)}
                    rows.append(row)
                    writer.writerow(row)
                    file.flush()
                    print(row, file=sys.stderr, flush=True)
        finally:
            for p in proxies:
                p.terminate()
    print(f"{datetime.date.today():%-d %B %Y}, load average {min(r['load'] for r in rows)} to {max(r['load'] for r in rows)} of {os.cpu_count()} cores\n")
    print("| checks | PASS | INCONCLUSIVE | REGRESSION | median ratio |\n| --- | ---: | ---: | ---: | ---: |")
    for kind, words in [("same", "a server against itself"), ("slower", f"made slower by {a.slower:g} %")]:
        of = [r for r in rows if r["kind"] == kind]
        count = collections.Counter(r["verdict"] for r in of)
        ratios = sorted(r["ratio"] for r in of if r["ratio"] is not None)
        middle = f"{ratios[len(ratios) // 2]:.3f}" if ratios else "n/a"
        print(f"| {len(of)}, {words} | {count['PASS']} | {count['INCONCLUSIVE']} | {count['REGRESSION']} | {middle} |")


if __name__ == "__main__":
    main()
