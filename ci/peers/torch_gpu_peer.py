"""PyTorch's side of ci/gpu: one workload on one GPU, compiled once, measured as often as it is told to.

The same work as `centime run` does: bf16, tied embeddings and learned positions (GPT-2) or RoPE, SwiGLU and grouped heads (Llama),
scaled-dot-product attention, fused AdamW on f32 parameters under autocast, a KV cache that is written in place, greedy choice.
torch.compile everywhere: layer by layer (alike layers compile once; what lies before and after them apart), or with --whole the
model at once. Decoding is one CUDA graph of the compiled step. What cannot be compiled or captured here runs as far as it goes, and
the answer says so ("mode").

A line "go" on stdin is answered by a line of JSON on stdout. The first line says that it is ready; before it, and between two rounds,
the memory that is only cached is given back, so that the other program has it. With --prepare it ends there: its compilations are in
the cache.
"""

import argparse
import contextlib
import gc
import json
import statistics
import sys
import time
import traceback

import torch
from torch import nn
from torch.nn import functional as F

from torch_peer import Gpt2


class LlamaLayer(nn.Module):
    def __init__(self, a):
        super().__init__()
        self.heads, self.groups, self.size = a.heads, a.kv_heads, a.width // a.heads
        self.norm1, self.norm2 = nn.RMSNorm(a.width, eps=1e-5), nn.RMSNorm(a.width, eps=1e-5)
        linear = lambda i, o: nn.Linear(i, o, bias=False)
        self.qkv = linear(a.width, (a.heads + 2 * a.kv_heads) * self.size)
        self.out = linear(a.heads * self.size, a.width)
        self.gate_up, self.down = linear(a.width, 2 * a.inner), linear(a.inner, a.width)

    def attend(self, x, turns, cache, position):
        batch, tokens, _ = x.shape
        parts = self.qkv(x).split([self.heads * self.size, self.groups * self.size, self.groups * self.size], dim=-1)
        q, k, v = (p.reshape(batch, tokens, -1, self.size).transpose(1, 2) for p in parts)
        q, k = turned(q, turns), turned(k, turns)
        if cache is not None:
            keys, values = cache
            keys[:, :, position : position + tokens] = k
            values[:, :, position : position + tokens] = v
            if tokens == 1:
                k, v = keys[:, :, : position + 1], values[:, :, : position + 1]
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=tokens > 1, enable_gqa=self.groups != self.heads)
        return self.out(mixed.transpose(1, 2).reshape(batch, tokens, -1))

    def forward(self, x, turns, cache=None, position=0):
        x = x + self.attend(self.norm1(x), turns, cache, position)
        gate, up = self.gate_up(self.norm2(x)).chunk(2, dim=-1)
        return x + self.down(F.silu(gate) * up)


def turned(x, turns):
    """Rotary positions, halves of a head against each other."""
    cos, sin = turns
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)


class Steps:
    """What a model is used for, over its beginning, its layers and its end."""

    def through(self, ids, caches=None, position=0):
        x = self.begin(ids, position)
        more = self.turns(position, position + ids.shape[1], x.dtype)
        for i, layer in enumerate(self.layers):
            x = layer(x, *more, caches[i] if caches else None, position)
        return x

    def loss(self, ids, targets):
        return self.end_in_loss(self.through(ids), targets)

    def next(self, ids, caches=None, position=0):
        return self.end_in_token(self.through(ids, caches, position))

    def logits(self, x):
        return F.linear(self.last(x), self.head.weight)

    def end_in_loss(self, x, targets):
        return F.cross_entropy(self.logits(x).flatten(0, 1).float(), targets.flatten())

    def end_in_token(self, x):
        return self.logits(x[:, -1]).argmax(-1, keepdim=True)


class LearnedPositions(Steps, Gpt2):
    head = property(lambda self: self.table)

    def begin(self, ids, position):
        return self.table(ids) + self.positions(torch.arange(position, position + ids.shape[1], device=ids.device))

    def turns(self, *_):
        return ()


class Llama(Steps, nn.Module):
    def __init__(self, a):
        super().__init__()
        self.table = nn.Embedding(a.vocabulary, a.width)
        self.layers = nn.ModuleList(LlamaLayer(a) for _ in range(a.layers))
        self.last = nn.RMSNorm(a.width, eps=1e-5)
        self.head = self.table if a.tied else nn.Embedding(a.vocabulary, a.width)
        size = a.width // a.heads
        rates = 500000.0 ** -(torch.arange(0, size, 2, dtype=torch.float32) / size)
        angles = torch.outer(torch.arange(a.tokens + a.new, dtype=torch.float32), rates)
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)

    def begin(self, ids, position):
        return self.table(ids)

    def turns(self, begin, end, dtype):
        return ((self.cos[begin:end].to(dtype), self.sin[begin:end].to(dtype)),)


def compiled(model, name, a):
    """A method of the model, compiled; and how."""
    if a.eager:
        return getattr(model, name), "eager"
    if a.whole:
        return torch.compile(getattr(model, name)), "compile"
    for layer in model.layers:
        layer.compile()
    for part in ("begin", "end_in_loss", "end_in_token"):
        setattr(model, part, torch.compile(getattr(model, part)))
    return getattr(model, name), "compile by layer"


def synchronise(a):
    if a.device == "cuda":
        torch.cuda.synchronize()


def timed(step, a):
    """Median seconds of a step: each is waited for, as each of the other program's is."""
    for _ in range(3):
        step()
    synchronise(a)
    samples, end = [], time.perf_counter() + a.seconds
    while len(samples) < 5 or (time.perf_counter() < end and len(samples) < 100000):
        start = time.perf_counter()
        step()
        synchronise(a)
        samples.append(time.perf_counter() - start)
    return statistics.median(samples)


def training(model, a):
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=a.device == "cuda")
    loss_of, mode = compiled(model, "loss", a)
    ids, targets = (torch.randint(a.vocabulary, (a.batch, a.tokens)) for _ in range(2))

    def step():
        with torch.autocast(a.device, torch.bfloat16):
            loss = loss_of(ids, targets)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step, a.batch * a.tokens, mode


def prefill(model, a):
    ids = torch.randint(a.vocabulary, (a.batch, a.tokens))
    next_of, mode = compiled(model, "next", a)
    return lambda: next_of(ids), a.batch * a.tokens, mode


def decode(model, a):
    """A step in the middle of the new tokens, for ever: what a graph records has one position."""
    at = a.tokens + a.new // 2
    room = (a.batch, a.kv_heads, a.tokens + a.new, a.width // a.heads)
    kind = next(model.parameters()).dtype
    caches = [(torch.zeros(room, dtype=kind), torch.zeros(room, dtype=kind)) for _ in range(a.layers)]
    token = torch.randint(a.vocabulary, (a.batch, 1))
    next_of, mode = compiled(model, "next", a)
    step = lambda: next_of(token, caches, at)
    if a.device != "cuda":
        return step, a.batch, mode
    try:
        return captured(step), a.batch, f"{mode} + CUDA graph"
    except RuntimeError as fault:
        print(f"CUDA graph: {fault}", file=sys.stderr)
        return step, a.batch, mode


def captured(step):
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()

    # With the step goes what the graph reads: weights, caches, the token.
    def replay(_kept=step):
        graph.replay()

    return replay


def prepared(a):
    if a.family == "gpt2":
        model = LearnedPositions(a.layers, a.width, a.heads, a.vocabulary, max(a.context, a.tokens + a.new))
    else:
        model = Llama(a)
    if a.phase == "train":
        return training(model, a)
    # Buffers stay f32: angles are not weights.
    for p in model.parameters():
        p.data = p.data.to(torch.bfloat16)
        p.requires_grad_(False)
    return (prefill if a.phase == "prefill" else decode)(model.eval(), a)


def working(a):
    """What is prepared and has made a step: compiled as asked for, else layer by layer, else not compiled. What failed goes to stderr."""
    for way in ({}, {"whole": False}, {"eager": True}):
        vars(a).update(way)
        try:
            torch.manual_seed(0)
            step, tokens, mode = prepared(a)
            step()
            return step, tokens, mode
        except Exception:
            if a.eager:
                raise
            traceback.print_exc()
        # Here the failed attempt's model is let go.
        step = None
        torch.compiler.reset()
        give_back(a)


def give_back(a):
    """What is only cached, to the other program."""
    synchronise(a)
    gc.collect()
    if a.device == "cuda":
        torch.cuda.empty_cache()


def serve(step, tokens, mode, a, began):
    name = torch.cuda.get_device_name() if a.device == "cuda" else "cpu"
    give_back(a)
    ready = {"ready": True, "device": name, "version": torch.__version__, "mode": mode, "seconds": time.perf_counter() - began}
    print(json.dumps(ready), flush=True)
    for line in sys.stdin if not a.prepare else ():
        if line.strip() != "go":
            break
        if a.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        seconds = timed(step, a)
        said = {"tokens_per_second": tokens / seconds, "step_seconds": seconds, "mode": mode, "version": torch.__version__}
        if a.device == "cuda":
            said["peak_gpu_memory_bytes"] = torch.cuda.max_memory_reserved()
        give_back(a)
        print(json.dumps(said), flush=True)


def arguments(words=None):
    parser = argparse.ArgumentParser()
    for name in ["layers", "width", "heads", "vocabulary", "batch", "tokens"]:
        parser.add_argument(f"--{name}", type=int, required=True)
    for name in ["kv-heads", "inner", "context"]:
        parser.add_argument(f"--{name}", type=int, default=0)
    parser.add_argument("--new", type=int, default=0)
    parser.add_argument("--family", choices=["gpt2", "llama"], required=True)
    parser.add_argument("--phase", choices=["train", "prefill", "decode"], required=True)
    for name in ["tied", "whole", "prepare"]:
        parser.add_argument(f"--{name}", action="store_true")
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--device", default="cuda")
    a = parser.parse_args(words)
    a.kv_heads, a.eager = a.kv_heads or a.heads, False
    return a


def main():
    a, began = arguments(), time.perf_counter()
    torch.set_default_device(a.device)
    torch.backends.cuda.matmul.allow_tf32 = True
    with contextlib.nullcontext() if a.phase == "train" else torch.inference_mode():
        step, tokens, mode = working(a)
        serve(step, tokens, mode, a, began)


if __name__ == "__main__":
    main()
