"""Attention's kernels by themselves: centime's, and those of PyTorch's scaled-dot-product attention, in turns.

Both count the same FLOPs at the same shapes, and the best of a few rounds stands for each; shares are of the product that
centime probes around its own. Writes attention.json.
"""

import json
import subprocess
import sys

from gpu_run import arguments, attempt, script

TURNS = 2
RATES = ("forward_flops_per_second", "backward_flops_per_second")


def said(command, a):
    done = subprocess.run(command, capture_output=True, text=True, timeout=a.left())
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode != 0 or not lines:
        raise RuntimeError(f"ended with {done.returncode}: {(done.stderr or done.stdout).strip()[-300:]}")
    return json.loads(lines[-1])


def shape_of(rate):
    return tuple(rate[k] for k in ("batch", "tokens", "heads", "kv_heads", "head_dim", "causal"))


def best(answers):
    """Of several answers, each shape's best rates; of a kernel that was not there, none."""
    found = {}
    for rate in (rate for answer in answers for rate in answer["shapes"]):
        key = (*shape_of(rate), rate.get("kernel", "centime"))
        old = found.setdefault(key, dict(rate))
        for name in RATES:
            old[name] = max((v for v in (old.get(name), rate.get(name)) if v), default=None)
    return list(found.values())


def table(ours, theirs):
    product = max((answer["product_flops_per_second"] for answer in ours), default=None)
    return {
        "device": next((answer["device"] for answer in ours), None),
        "product_flops_per_second": product,
        "centime": best(ours),
        "pytorch": best(theirs),
    }


def main():
    a = arguments()
    faults, ours, theirs = [], [], []
    for _ in range(TURNS):
        mine = attempt("centime", lambda: said([a.centime, "trial", "--attention-rates", "0"], a), faults)
        ours += [mine] if mine else []
        if not ours:
            break
        shapes = json.dumps([shape_of(rate) for rate in ours[0]["shapes"]])
        other = attempt("PyTorch", lambda: said([a.python, script("torch_attention_peer.py"), shapes], a), faults)
        theirs += [other] if other else []
        # Before the next turn, so that what is there stays there when time is up.
        (a.out / "attention.json").write_text(json.dumps({**table(ours, theirs), "faults": faults}, indent=1))
    print(json.dumps({**table(ours, theirs), "faults": faults}, indent=1))
    return 0 if ours and theirs else 3


if __name__ == "__main__":
    sys.exit(main())
