"""The workloads that ci/gpu sets PyTorch beside, in both programs' words; the most telling first."""

from dataclasses import dataclass, replace

GPT2 = dict(family="gpt2", layers=12, width=768, heads=12, vocabulary=50304, context=1024)
GPT1B3 = dict(family="gpt2", layers=24, width=2048, heads=16, vocabulary=50304, context=2048)
LLAMA1B = dict(family="llama", layers=16, width=2048, heads=32, kv_heads=8, inner=8192, vocabulary=128256, context=8192, tied=True)
LLAMA8B = dict(family="llama", layers=32, width=4096, heads=32, kv_heads=8, inner=14336, vocabulary=128256, context=8192)
# Tokens that decoding produces for a sequence before it starts over.
NEW = 128
# Shares of the probed bandwidth that decoding one sequence aims at.
MBU = 0.85


@dataclass(frozen=True)
class Workload:
    name: str
    title: str
    model: dict
    phase: str
    batch: int
    tokens: int
    # Least ratio to PyTorch, and least share of the bandwidth, that are aimed at.
    ratio: float | None = None
    mbu: float | None = None
    # Whether PyTorch compiles the model as a whole even where nobody asks: the first row is the one that is quoted.
    whole: bool = False


WORKLOADS = [
    Workload("train-gpt2-124m", "train GPT-2 124M, B32 T1024", GPT2, "train", 32, 1024, 1.0, whole=True),
    Workload("decode-llama-1b", "decode Llama 1B, B1, context 512", LLAMA1B, "decode", 1, 512, mbu=MBU),
    Workload("prefill-llama-1b", "prefill Llama 1B, B1 T2048", LLAMA1B, "prefill", 1, 2048, 1.0),
    Workload("train-gpt-1.3b", "train GPT 1.3B, B8 T2048", GPT1B3, "train", 8, 2048, 1.0),
    Workload("decode-llama-8b", "decode Llama 8B, B1, context 512", LLAMA8B, "decode", 1, 512, mbu=MBU),
    Workload("prefill-llama-8b", "prefill Llama 8B, B1 T2048", LLAMA8B, "prefill", 1, 2048, 1.0),
    Workload("decode-llama-1b-b16", "decode Llama 1B, B16, context 512", LLAMA1B, "decode", 16, 512),
]


def named(name):
    return next(w for w in WORKLOADS if w.name == name)


def shallow(workload):
    """With one layer: what is compiled for it serves all of them, and its memory hardly counts."""
    return replace(workload, model={**workload.model, "layers": 1})


def scenario(w, seconds):
    """For `centime run`."""
    names = {"layers": "n_layers", "width": "d_model", "heads": "n_heads", "inner": "d_ff", "vocabulary": "vocab_size",
             "kv_heads": "n_kv_heads", "tied": "tied_embeddings"}  # fmt: skip
    shape = ", ".join(f"{names.get(k, k)}: {str(v).lower()}" for k, v in w.model.items())
    if w.model["family"] == "llama" and "tied" not in w.model:
        shape += ", tied_embeddings: false"
    length = f"seq_len: {w.tokens}" if w.phase == "train" else f"prompt_len: {w.tokens}, new_tokens: {NEW if w.phase == 'decode' else 1}"
    return (
        f"version: 1\nname: gpu-side-by-side\ntrial: {{ model: {{ {shape} }}, backend: cuda, phase: {w.phase}, batch: {w.batch}, "
        f"{length}, dtype: bf16 }}\n"
        f"measure: {{ min_seconds: {seconds}, max_seconds: {seconds}, precision: 0.001, timeout_seconds: 120 }}\n"
    )


def peer_words(w, seconds):
    """For torch_gpu_peer.py."""
    words = ["--phase", w.phase, "--batch", w.batch, "--tokens", w.tokens, "--seconds", seconds]
    words += ["--new", NEW if w.phase == "decode" else 0]
    for key, value in w.model.items():
        words += [f"--{key.replace('_', '-')}"] + ([] if value is True else [value])
    return [str(word) for word in words]
