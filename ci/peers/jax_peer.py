"""JAX's side of ci/side-by-side: one workload of GPT-2's architecture, timed; one JSON line.

The same work as torch_peer.py does. A step is one compiled function whose parameters, optimizer state or KV cache are donated, so that they
are written in place; in bf16 training keeps its parameters in f32 and rounds them where they are used.
"""

import argparse
import math
import os

from peer import say, timed

B1, B2, EPSILON, RATE, DECAY = 0.9, 0.999, 1e-8, 1e-4, 0.01


def parameters(a, jax, jnp):
    context = max(1024, a.tokens + a.new)
    keys = iter(jax.random.split(jax.random.PRNGKey(0), 8 * a.layers + 8))
    normal = lambda *shape: 0.02 * jax.random.normal(next(keys), shape, jnp.float32)
    norm = lambda: {"scale": jnp.ones(a.width), "shift": jnp.zeros(a.width)}
    linear = lambda n, m: {"w": normal(n, m), "b": jnp.zeros(m)}
    layer = lambda: {
        "norm1": norm(),
        "norm2": norm(),
        "qkv": linear(a.width, 3 * a.width),
        "out": linear(a.width, a.width),
        "up": linear(a.width, 4 * a.width),
        "down": linear(4 * a.width, a.width),
    }
    return {
        "table": normal(a.vocabulary, a.width),
        "positions": normal(context, a.width),
        "layers": [layer() for _ in range(a.layers)],
        "last": norm(),
    }


def model(a, jax, jnp):
    """hidden(parameters, ids, caches, position) -> (hidden states, caches), in the parameters' type."""
    head = a.width // a.heads

    def norm(p, x):
        y = x.astype(jnp.float32)
        y = (y - y.mean(-1, keepdims=True)) * jax.lax.rsqrt(y.var(-1, keepdims=True) + 1e-5)
        return (y * p["scale"] + p["shift"]).astype(x.dtype)

    linear = lambda p, x: x @ p["w"] + p["b"]

    def attend(p, x, cache, position):
        batch, tokens, _ = x.shape
        q, k, v = (y.reshape(batch, tokens, a.heads, head) for y in jnp.split(linear(p["qkv"], x), 3, -1))
        if cache is None:
            seen = jnp.tril(jnp.ones((tokens, tokens), bool))
        else:
            k, v = (jax.lax.dynamic_update_slice(c, y, (0, position, 0, 0)) for c, y in zip(cache, (k, v)))
            cache = (k, v)
            seen = jnp.arange(k.shape[1])[None, :] <= position + jnp.arange(tokens)[:, None]
        scores = jnp.einsum("bqhd,bkhd->bhqk", q, k).astype(jnp.float32) / math.sqrt(head)
        weights = jax.nn.softmax(jnp.where(seen, scores, -jnp.inf), -1).astype(x.dtype)
        mixed = jnp.einsum("bhqk,bkhd->bqhd", weights, v).reshape(batch, tokens, a.width)
        return linear(p["out"], mixed), cache

    def hidden(p, ids, caches, position):
        x = p["table"][ids] + p["positions"][position + jnp.arange(ids.shape[1])]
        kept = []
        for i, layer in enumerate(p["layers"]):
            mixed, cache = attend(layer, norm(layer["norm1"], x), caches[i] if caches else None, position)
            x = x + mixed
            kept.append(cache)
            x = x + linear(layer["down"], jax.nn.gelu(linear(layer["up"], norm(layer["norm2"], x)), approximate=True))
        return norm(p["last"], x), kept

    return hidden


def training(a, jax, jnp):
    hidden, kind = model(a, jax, jnp), jnp.bfloat16 if a.dtype == "bf16" else jnp.float32

    def loss(p, ids, targets):
        p = jax.tree.map(lambda x: x.astype(kind), p)
        logits = (hidden(p, ids, None, 0)[0] @ p["table"].T).astype(jnp.float32)
        chosen = jnp.take_along_axis(logits, targets[..., None], -1)[..., 0]
        return (jax.nn.logsumexp(logits, -1) - chosen).mean()

    def update(state, ids, targets):
        p, m, v, t = state
        slopes, t = jax.grad(loss)(p, ids, targets), t + 1
        m = jax.tree.map(lambda m, g: B1 * m + (1 - B1) * g, m, slopes)
        v = jax.tree.map(lambda v, g: B2 * v + (1 - B2) * g * g, v, slopes)
        step = lambda p, m, v: p - RATE * (m / (1 - B1**t) / (jnp.sqrt(v / (1 - B2**t)) + EPSILON) + DECAY * p)
        return jax.tree.map(step, p, m, v), m, v, t

    p = parameters(a, jax, jnp)
    zeros = lambda: jax.tree.map(jnp.zeros_like, p)
    held = {"state": (p, zeros(), zeros(), jnp.float32(0))}
    ids, targets = (jax.random.randint(jax.random.PRNGKey(i), (a.batch, a.tokens), 0, a.vocabulary) for i in (1, 2))
    compiled = jax.jit(update, donate_argnums=0)

    def step():
        held["state"] = compiled(held["state"], ids, targets)
        jax.block_until_ready(held["state"])

    return step, a.batch * a.tokens


def inference(a, jax, jnp):
    hidden, kind = model(a, jax, jnp), jnp.bfloat16 if a.dtype == "bf16" else jnp.float32
    p = jax.tree.map(lambda x: x.astype(kind), parameters(a, jax, jnp))
    ids = jax.random.randint(jax.random.PRNGKey(1), (a.batch, a.tokens), 0, a.vocabulary)
    choose = lambda p, x: (x[:, -1] @ p["table"].T).argmax(-1)[:, None]
    if a.phase == "prefill":
        compiled = jax.jit(lambda p, ids: choose(p, hidden(p, ids, None, 0)[0]))
        return lambda: jax.block_until_ready(compiled(p, ids)), a.batch * a.tokens

    def next_of(p, ids, caches, position):
        x, caches = hidden(p, ids, caches, position)
        return choose(p, x), caches

    compiled = jax.jit(next_of, donate_argnums=2)
    capacity = a.tokens + a.new
    room = lambda: jnp.zeros((a.batch, capacity, a.heads, a.width // a.heads), kind)
    token, caches = compiled(p, ids, [(room(), room()) for _ in range(a.layers)], 0)
    held = {"at": a.tokens, "token": token, "caches": caches}

    def step():
        if held["at"] >= capacity:
            held["at"] = a.tokens
        held["token"], held["caches"] = compiled(p, held["token"], held["caches"], held["at"])
        jax.block_until_ready(held["token"])
        held["at"] += 1

    return step, a.batch


def main():
    parser = argparse.ArgumentParser()
    for name in ["layers", "width", "heads", "vocabulary", "batch", "tokens"]:
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--new", type=int, default=64)
    parser.add_argument("--phase", choices=["train", "prefill", "decode"], required=True)
    parser.add_argument("--dtype", choices=["f32", "bf16"], required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--seconds", type=float, default=4)
    a = parser.parse_args()
    # XLA takes one thread for each core that it may use.
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: a.threads])
    import jax
    import jax.numpy as jnp

    step, tokens = (training if a.phase == "train" else inference)(a, jax, jnp)
    seconds = timed(step, a.seconds)
    say(tokens, seconds, jax.__version__)


if __name__ == "__main__":
    main()
