"""Sets centime and PyTorch side by side on one GPU at one workload, in interleaved rounds.

A peer compiles for longer than a round takes: it is started once and told when to measure, while centime is a process of its own
each round, as its users' is. Who goes first changes from round to round. A system that fails is said to have failed and does not stop
the other. Writes NAME.json: every round, their medians, and what failed.
"""

import json
import statistics
import sys
import time

from gpu_run import Peer, arguments, attempt, centime, peer_command
from gpu_workloads import WORKLOADS, named

ROUNDS = 3
# A cold start of PyTorch: its import, compilation, a model of 16 GB.
READY = 150
# Of the time there is, what is left to centime whatever its peer does.
OWN = 25


def started(workload, a, faults):
    """PyTorch, compiled and ready to measure; None where it is not."""
    log = a.out / f"{workload.name}.peer.log"
    peer = attempt("PyTorch", lambda: Peer(peer_command(workload, a), log), faults)
    if peer is None:
        return None, None
    ready = attempt("PyTorch", lambda: peer.answer(min(READY, max(1.0, a.left() - OWN))), faults)
    if ready is None:
        peer.end()
        return None, None
    return peer, ready


def rounds(workload, a, keep):
    faults, ours, theirs = [], [], []
    peer, ready = started(workload, a, faults)
    folder = a.out / workload.name
    turns = [lambda turn: ours.append(attempt("centime", lambda: centime(workload, a, folder, turn == 0), faults))]
    if peer:
        turns.append(lambda _: theirs.append(attempt("PyTorch", lambda: peer.measure(a.left()), faults)))
    try:
        for turn in range(ROUNDS):
            began = time.monotonic()
            for run in turns if turn % 2 == 0 else reversed(turns):
                run(turn)
            # After each, so that what is there stays there when time is up.
            keep(row(workload, ours, theirs, faults, ready))
            if a.left() < 1.2 * (time.monotonic() - began) or not (any(ours) or any(theirs)):
                break
    finally:
        if peer:
            peer.end()
    return row(workload, ours, theirs, faults, ready)


def median(rows, key):
    values = [r[key] for r in rows if r and r.get(key) is not None]
    return statistics.median(values) if values else None


def row(workload, ours, theirs, faults, ready):
    pairs = [o["tokens_per_second"] / t["tokens_per_second"] for o, t in zip(ours, theirs) if o and t]
    return {
        "workload": workload.title,
        "centime_tokens_per_second": median(ours, "tokens_per_second"),
        "peer_tokens_per_second": median(theirs, "tokens_per_second"),
        "ratio": statistics.median(pairs) if pairs else None,
        "ratio_low": min(pairs, default=None),
        "ratio_high": max(pairs, default=None),
        "ratio_target": workload.ratio,
        # Of the first round, the only one that probes.
        "mfu": median(ours[:1], "mfu") if workload.phase != "decode" else None,
        "mbu": median(ours[:1], "mbu"),
        "mbu_target": workload.mbu,
        "peer_mode": next((t["mode"] for t in theirs if t), None),
        "peer_ready": ready,
        "centime_peak_gpu_memory_bytes": median(ours, "peak_gpu_memory_bytes"),
        "peer_peak_gpu_memory_bytes": median(theirs, "peak_gpu_memory_bytes"),
        "throttled_share": median(ours, "gpu_throttled_share"),
        "note": "; ".join(dict.fromkeys(faults)),
        "rounds": {"centime": ours, "pytorch": theirs},
    }


def main():
    a = arguments(("--workload", dict(required=True, choices=[w.name for w in WORKLOADS])))
    workload = named(a.workload)
    path = a.out / f"{workload.name}.json"
    found = rounds(workload, a, lambda so_far: path.write_text(json.dumps(so_far, indent=1)))
    path.write_text(json.dumps(found, indent=1))
    print(json.dumps({k: v for k, v in found.items() if k != "rounds" and v}, indent=1))
    # Without a peer there is no ratio: what was asked for has not been done.
    return 0 if found["ratio"] else 3


if __name__ == "__main__":
    sys.exit(main())
