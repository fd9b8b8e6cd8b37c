"""PyTorch's side of ci/side-by-side for a mixture of experts: Hugging Face's Mixtral with random weights, timed; one JSON line.

Its experts are multiplied in one grouped product (`grouped_mm`) where this version of transformers has that, its attention is the fused
one; training as torch_peer.py does it.
"""

import argparse

import torch
import transformers
from peer import say, timed
from torch.nn import functional as F


def built(a):
    sizes = dict(hidden_size=a.width, intermediate_size=a.inner, num_hidden_layers=a.layers, num_attention_heads=a.heads)
    experts = dict(num_key_value_heads=a.heads, num_local_experts=a.experts, num_experts_per_tok=a.used, output_router_logits=False)
    config = transformers.MixtralConfig(vocab_size=a.vocabulary, max_position_embeddings=max(1024, a.tokens + a.new), **sizes, **experts)
    config._attn_implementation = "sdpa"
    if a.kernel != "default":
        config._experts_implementation = a.kernel
    model = transformers.MixtralForCausalLM(config)
    return model.to(torch.bfloat16) if a.dtype == "bf16" and a.phase != "train" else model


def training(model, a):
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    ids, targets = (torch.randint(a.vocabulary, (a.batch, a.tokens)) for _ in range(2))

    def step():
        with torch.autocast("cpu", torch.bfloat16, enabled=a.dtype == "bf16"):
            logits = model(ids, use_cache=False).logits
            loss = F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step, a.batch * a.tokens


def inference(model, a):
    model.eval()
    ids = torch.randint(a.vocabulary, (a.batch, a.tokens))
    choose = lambda said: said.logits[:, -1].argmax(-1, keepdim=True)
    if a.phase == "prefill":
        return lambda: choose(model(ids, use_cache=False, logits_to_keep=1)), a.batch * a.tokens
    state = {"at": a.new}

    def step():
        if state["at"] >= a.new:
            first = model(ids, use_cache=True, logits_to_keep=1)
            state.update(at=0, cache=first.past_key_values, token=choose(first))
        # The prompt is timed with the first token of each cache: the median does not see it.
        state["token"] = choose(model(state["token"], past_key_values=state["cache"], use_cache=True))
        state["at"] += 1

    return step, a.batch


def main():
    parser = argparse.ArgumentParser()
    for name in ["layers", "width", "heads", "inner", "experts", "used", "vocabulary", "batch", "tokens", "threads"]:
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--new", type=int, default=64)
    parser.add_argument("--phase", choices=["train", "prefill", "decode"], required=True)
    parser.add_argument("--dtype", choices=["f32", "bf16"], required=True)
    parser.add_argument("--kernel", default="grouped_mm", help="transformers' name of how experts are multiplied, or default")
    parser.add_argument("--seconds", type=float, default=4)
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    torch.manual_seed(0)
    model = built(a)
    if a.phase == "train":
        step, tokens = training(model, a)
        seconds = timed(step, a.seconds, warm=3)
    else:
        with torch.no_grad():
            step, tokens = inference(model, a)
            seconds = timed(step, a.seconds, warm=3)
    say(tokens, seconds, f"{torch.__version__} with transformers {transformers.__version__}")


if __name__ == "__main__":
    main()
