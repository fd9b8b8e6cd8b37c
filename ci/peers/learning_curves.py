"""Losses of 300 training steps by PyTorch, of small GPT-2 and Llama shapes: what centime's own have to follow.

Weights are made here and written beside the losses, in the form that `weights_from` reads; tokens follow from a formula (below) that the test
knows as well, so that both see the same. Run once, on the CPU, with PyTorch and Transformers installed:

    python3 ci/peers/learning_curves.py tests/golden/learning

Writes FAMILY/config.json, FAMILY/model.safetensors and FAMILY/losses.json for each family.
"""

import json
import math
import sys
from pathlib import Path

import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

STEPS, BATCH, TOKENS, VOCABULARY = 300, 4, 16, 64
RATE, WARMUP, FLOOR, DECAY = 3e-3, 20, 0.1, 0.1


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


def main(out):
    torch.set_num_threads(1)
    for name, (kind, config) in models().items():
        torch.manual_seed(1)
        config._attn_implementation = "eager"
        model = kind(config).to(torch.float32).train()
        folder = out / name
        model.save_pretrained(folder, safe_serialization=True)
        (folder / "generation_config.json").unlink(missing_ok=True)
        optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=DECAY)
        losses = []
        for step in range(STEPS):
            ids, targets = batch(step)
            for group in optimizer.param_groups:
                group["lr"] = rate(step)
            logits = model(ids).logits
            loss = torch.nn.functional.cross_entropy(logits.reshape(-1, VOCABULARY), targets.reshape(-1))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        made = f"torch {torch.__version__}, AdamW, lr {RATE}, warm-up {WARMUP}, cosine to {FLOOR}, weight decay {DECAY}"
        (folder / "losses.json").write_text(json.dumps({"made_by": made, "losses": losses}) + "\n")
        print(name, losses[0], losses[-1])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
