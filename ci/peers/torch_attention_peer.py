"""PyTorch's attention kernels by themselves, as `centime trial --attention-rates` times its own: bf16, queries, keys and values side by
side in one row, FLOPs of the pairs that are not masked (4 D a pair forwards, 10 D backwards), the best of a few rounds.

  torch_attention_peer.py '[[batch, tokens, heads, kv_heads, head_dim, causal], ...]'      prints one line of JSON
"""

import json
import sys
import time

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

KERNELS = {"flash": SDPBackend.FLASH_ATTENTION, "cudnn": SDPBackend.CUDNN_ATTENTION}
ROUNDS, REPEATS = 5, 10


def best(work, run):
    """FLOP/s of the best round, after one run that warms up."""
    run()
    torch.cuda.synchronize()
    rate = 0.0
    for _ in range(ROUNDS):
        start = time.perf_counter()
        for _ in range(REPEATS):
            run()
        torch.cuda.synchronize()
        rate = max(rate, work * REPEATS / (time.perf_counter() - start))
    return rate


def operands(batch, tokens, heads, kv_heads, head_dim):
    qkv = torch.randn(batch, tokens, heads + 2 * kv_heads, head_dim, dtype=torch.bfloat16)
    parts = qkv.split([heads, kv_heads, kv_heads], dim=2)
    return [p.transpose(1, 2).detach().requires_grad_() for p in parts]


def rates(shape, kernel):
    batch, tokens, heads, kv_heads, head_dim, causal = shape
    q, k, v = operands(batch, tokens, heads, kv_heads, head_dim)
    pairs = batch * heads * (tokens * (tokens + 1) / 2 if causal else tokens * tokens)
    attend = lambda: scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=heads != kv_heads)
    with sdpa_kernel(KERNELS[kernel]):
        with torch.no_grad():
            forward = best(4 * pairs * head_dim, attend)
        out = attend()
        dout = torch.randn_like(out)
        back = lambda: torch.autograd.grad(out, (q, k, v), dout, retain_graph=True)
        backward = best(10 * pairs * head_dim, back)
    return forward, backward


def main():
    torch.manual_seed(0)
    torch.set_default_device("cuda")
    names, found = ("batch", "tokens", "heads", "kv_heads", "head_dim", "causal"), []
    for shape in json.loads(sys.argv[1]):
        for kernel in KERNELS:
            try:
                forward, backward = rates(shape, kernel)
                note = None
            except RuntimeError as fault:
                forward, backward, note = None, None, str(fault)[:200]
            found.append({**dict(zip(names, shape)), "kernel": kernel, "forward_flops_per_second": forward,
                          "backward_flops_per_second": backward, "note": note})  # fmt: skip
    print(json.dumps({"version": torch.__version__, "shapes": found}), flush=True)


if __name__ == "__main__":
    main()
