"""PyTorch's side of ci/side-by-side: one workload of GPT-2's architecture, timed; one JSON line.

The same work as `centime run` does: tied embeddings, learned positions, GELU (tanh), fused AdamW, scaled-dot-product attention,
a KV cache that is written in place, greedy choice of the next token. With --compile by torch.compile at its best: kernels chosen by trial
(max-autotune), weights frozen and packed beforehand in inference, a KV cache of fixed size so that nothing is compiled twice.
"""

import argparse

import torch
from peer import say, timed
from torch import nn
from torch.nn import functional as F


class Layer(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def attend(self, x, cache, position):
        batch, tokens, width = x.shape
        parts = self.qkv(x).chunk(3, dim=-1)
        q, k, v = (p.reshape(batch, tokens, self.heads, -1).transpose(1, 2) for p in parts)
        seen, causal = None, tokens > 1
        if cache is not None:
            keys, values = cache
            if isinstance(position, torch.Tensor):
                keys.index_copy_(2, position, k)
                values.index_copy_(2, position, v)
                k, v, seen = keys, values, (torch.arange(keys.shape[2]) <= position)[None, None, None]
            else:
                keys[:, :, position : position + tokens] = k
                values[:, :, position : position + tokens] = v
                if tokens == 1:
                    k, v = keys[:, :, : position + 1], values[:, :, : position + 1]
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=seen, is_causal=causal)
        return self.out(mixed.transpose(1, 2).reshape(batch, tokens, width))

    def forward(self, x, cache=None, position=0):
        x = x + self.attend(self.norm1(x), cache, position)
        return x + self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh"))


class Gpt2(nn.Module):
    def __init__(self, layers, width, heads, vocabulary, context):
        super().__init__()
        self.table, self.positions = nn.Embedding(vocabulary, width), nn.Embedding(context, width)
        self.layers = nn.ModuleList(Layer(width, heads) for _ in range(layers))
        self.last = nn.LayerNorm(width)
        for p in self.parameters():
            if p.dim() > 1:
                nn.init.normal_(p, std=0.02)

    def hidden(self, ids, caches=None, position=0):
        x = self.table(ids) + self.positions(position + torch.arange(ids.shape[1]))
        for i, layer in enumerate(self.layers):
            x = layer(x, caches[i] if caches else None, position)
        return self.last(x)

    def loss(self, ids, targets):
        logits = F.linear(self.hidden(ids), self.table.weight)
        return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())

    def next(self, ids, caches=None, position=0):
        return F.linear(self.hidden(ids, caches, position)[:, -1], self.table.weight).argmax(-1, keepdim=True)


def compiled(function, a):
    if not a.compile:
        return function
    if a.backend == "zentorch":
        import zentorch  # noqa: F401, which registers the backend

        return torch.compile(function, backend="zentorch")
    return torch.compile(function, mode="max-autotune", dynamic=False)


def training(model, a):
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    loss_of = compiled(model.loss, a)
    ids, targets = (torch.randint(a.vocabulary, (a.batch, a.tokens)) for _ in range(2))

    def step():
        with torch.autocast("cpu", torch.bfloat16, enabled=a.dtype == "bf16"):
            loss = loss_of(ids, targets)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step, a.batch * a.tokens


def inference(model, a):
    model.eval().to(torch.bfloat16 if a.dtype == "bf16" else torch.float32)
    ids = torch.randint(a.vocabulary, (a.batch, a.tokens))
    if a.phase == "prefill":
        next_of = compiled(model.next, a)
        return lambda: next_of(ids), a.batch * a.tokens
    head, capacity = a.width // a.heads, a.tokens + a.new
    room = (a.batch, a.heads, capacity, head)
    kind = next(model.parameters()).dtype
    caches = [(torch.zeros(room, dtype=kind), torch.zeros(room, dtype=kind)) for _ in range(a.layers)]
    state = {"at": a.tokens, "token": model.next(ids, caches, 0)}
    next_of = compiled(model.next, a)

    def step():
        if state["at"] >= capacity:
            state["at"] = a.tokens
        position = torch.tensor([state["at"]]) if a.compile else state["at"]
        state["token"] = next_of(state["token"].clone(), caches, position)
        state["at"] += 1

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
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--backend", choices=["inductor", "zentorch"], default="inductor")
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    torch.manual_seed(0)
    model = Gpt2(a.layers, a.width, a.heads, a.vocabulary, max(1024, a.tokens + a.new))
    if a.phase == "train":
        step, tokens = training(model, a)
        seconds = timed(step, a.seconds, warm=3)
    else:
        if a.compile:
            import torch._inductor.config as inductor

            inductor.freezing = True
        with torch.no_grad():
            step, tokens = inference(model, a)
            seconds = timed(step, a.seconds, warm=3)
    say(tokens, seconds, torch.__version__)


if __name__ == "__main__":
    main()
