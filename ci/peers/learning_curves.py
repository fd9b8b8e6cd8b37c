"""Losses of 300 training steps by PyTorch, of small GPT-2 and Llama shapes: what centime's own have to follow.

Weights are made here and written beside the losses, in the form that `weights_from` reads; tokens follow from a formula (below) that the test
knows as well, so that both see the same. Run once, on the CPU, with PyTorch and Transformers installed (about six minutes):

    python3 ci/peers/learning_curves.py tests/golden/learning

Writes FAMILY/config.json, FAMILY/model.safetensors, FAMILY/losses.json (f32) and FAMILY/bf16.json for each family.

f32: the losses of these weights at every step. Whoever has the same weights, batches and rates has the same losses, but for rounding.

bf16: what rounding to bf16 does to a curve is chance, and how much of it is likely is what the seeds of bf16.json say. For each of 32 other
seeds of the initial weights the model is trained twice on the same batches: in f32, and with its products in bf16 (autocast; weights,
gradients, moments and the loss stay f32). Kept is `bf16 / f32 - 1`, the mean of each 10 steps in turn: the same weights on both sides of
the quotient, so that what another draw of them does to a curve falls out, and what bf16 does is left. That is PyTorch's spread over its own
seeds. A curve in bf16 of somebody else's, of the weights of model.safetensors (which are none of the 32) and divided by their f32 losses, is
within it where each of its 30 means is where one more seed of PyTorch's would be found: within Student's interval for one more
observation. The spread is narrow, a standard deviation of 5e-6 of the loss in the first ten steps and 2e-4 in the last: factors that are
cut off instead of rounded take the curve 65 of them away at some window, a rate that is 3 % higher 260, weights kept in bf16 600 (of
GPT-2, and more of Llama). More exact arithmetic than PyTorch's is within it too: PyTorch rounds what comes out of products as well, which
centime does not.
"""

import json
import math
import sys
from pathlib import Path

import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

STEPS, BATCH, TOKENS, VOCABULARY = 300, 4, 16, 64
RATE, WARMUP, FLOOR, DECAY = 3e-3, 20, 0.1, 0.1
# That of the weights that are kept, those of the spread, and the steps of a mean.
SEED, SEEDS, WINDOW = 1, range(101, 133), 10


def rate(step):
    """Of scenario::learning: a straight line up, then half a cosine."""
    if step < WARMUP:
        return RATE * (step + 1) / WARMUP
    share = min(1.0, (step - WARMUP) / max(1, STEPS - WARMUP))
    return RATE * (FLOOR + (1 - FLOOR) * 0.5 * (1 + math.cos(math.pi * share)))


def mix(x):
    """The finalizer of SplitMix64."""
    x = (x + 0x9E3779B97F4A7C15) & (2**64 - 1)
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & (2**64 - 1)
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & (2**64 - 1)
    return x ^ (x >> 31)


def sequence(number, length):
    """Each token follows from the one before and a coin: something that can be learnt, and not all of it."""
    token = mix(number) % VOCABULARY
    tokens = [token]
    for place in range(length):
        coin = mix(number * 1000 + place + 7) % 8
        token = (5 * token + 3) % VOCABULARY if coin else mix(number * 1000 + place + 500) % VOCABULARY
        tokens.append(token)
    return tokens


def batch(step):
    rows = torch.tensor([sequence(step * BATCH + row + 1, TOKENS) for row in range(BATCH)])
    return rows[:, :-1], rows[:, 1:]


def models():
    gpt2 = GPT2Config(
        vocab_size=VOCABULARY, n_positions=TOKENS, n_embd=32, n_layer=2, n_head=4, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0,
        activation_function="gelu_new", bos_token_id=0, eos_token_id=0,
    )
    llama = LlamaConfig(
        vocab_size=VOCABULARY, max_position_embeddings=TOKENS, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, intermediate_size=96, tie_word_embeddings=False, bos_token_id=0, eos_token_id=0, pad_token_id=None,
    )
    return {"gpt2": (GPT2LMHeadModel, gpt2), "llama": (LlamaForCausalLM, llama)}


def made(kind, config, seed):
    """A model of the seed's weights."""
    torch.manual_seed(seed)
    config._attn_implementation = "eager"
    return kind(config).to(torch.float32).train()


def losses_of(model, bf16):
    """Trains the model, and says what it lost at each step."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=DECAY)
    losses = []
    for step in range(STEPS):
        ids, targets = batch(step)
        for group in optimizer.param_groups:
            group["lr"] = rate(step)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            logits = model(ids).logits
            loss = torch.nn.functional.cross_entropy(logits.reshape(-1, VOCABULARY), targets.reshape(-1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def difference(kind, config, seed):
    """By how much the seed's losses in bf16 are off those in f32, as a share of these: the mean of each window."""
    f32, bf16 = (losses_of(made(kind, config, seed), bf16) for bf16 in (False, True))
    off = [b / f - 1 for b, f in zip(bf16, f32)]
    return [round(sum(off[at : at + WINDOW]) / WINDOW, 9) for at in range(0, STEPS, WINDOW)]


def main(out):
    torch.set_num_threads(1)
    how = f"torch {torch.__version__}, AdamW, lr {RATE}, warm-up {WARMUP}, cosine to {FLOOR}, weight decay {DECAY}"
    for name, (kind, config) in models().items():
        model, folder = made(kind, config, SEED), out / name
        model.save_pretrained(folder, safe_serialization=True)
        (folder / "generation_config.json").unlink(missing_ok=True)
        losses = losses_of(model, bf16=False)
        (folder / "losses.json").write_text(json.dumps({"made_by": how, "losses": losses}) + "\n")
        print(name, losses[0], losses[-1])
        rows = []
        for seed in SEEDS:
            rows.append(difference(kind, config, seed))
            print(name, "seed", seed, rows[-1][0], rows[-1][-1], flush=True)
        spread = {"made_by": f"{how}; bf16 by autocast", "seeds": list(SEEDS), "window": WINDOW, "bf16_over_f32_less_1": rows}
        (folder / "bf16.json").write_text(json.dumps(spread).replace("], [", "],\n[") + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
