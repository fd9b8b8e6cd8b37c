"""llama.cpp's side of ci/side-by-side: a Llama of the wanted sizes with random weights, timed; one JSON line.

llama-cpp-python brings the library; the model is written as a GGUF file once for each number format and kept in --folder. As
`centime run` does: a prompt's step ends with the logits of each last position, a decode step takes one token a sequence.
"""

import argparse
import ctypes
import json
import pathlib
import statistics
import time

import gguf
import llama_cpp
import numpy
import random_llama
from peer import say

FORMATS = {
    "f32": gguf.GGMLQuantizationType.F32,
    "bf16": gguf.GGMLQuantizationType.BF16,
    "q8_0": gguf.GGMLQuantizationType.Q8_0,
    "q4_0": gguf.GGMLQuantizationType.Q4_0,
}


def write_model(path, a):
    writer = random_llama.begin(path, a, 4096)
    writer.add_vocab_size(a.vocabulary)
    writer.add_tokenizer_model("no_vocab")
    random_llama.finish(writer, a, a.vocabulary, FORMATS[a.dtype])


class Engine:
    def __init__(self, path, a):
        llama_cpp.llama_backend_init()
        how = llama_cpp.llama_model_default_params()
        how.use_extra_bufts = not a.plain
        self.model = llama_cpp.llama_model_load_from_file(str(path).encode(), how)
        wanted = llama_cpp.llama_context_default_params()
        wanted.n_ctx = a.batch * (a.tokens + a.new + 8)
        wanted.n_batch, wanted.n_ubatch = max(2048, a.batch * a.tokens), 512
        wanted.n_seq_max = a.batch
        wanted.n_threads = wanted.n_threads_batch = a.threads
        if hasattr(wanted, "flash_attn_type"):
            wanted.flash_attn_type = 1
        self.context = llama_cpp.llama_init_from_model(self.model, wanted)
        self.memory = llama_cpp.llama_get_memory(self.context)
        self.room = llama_cpp.llama_batch_init(max(2048, a.batch * a.tokens), 0, 1)
        self.numbers = numpy.random.default_rng(3)
        self.a = a

    def forget(self):
        llama_cpp.llama_memory_clear(self.memory, True)

    def step(self, tokens, position):
        """`tokens` of every sequence from `position` on."""
        room, at = self.room, 0
        ids = self.numbers.integers(self.a.vocabulary, size=self.a.batch * tokens)
        for sequence in range(self.a.batch):
            for i in range(tokens):
                room.token[at], room.pos[at] = int(ids[at]), position + i
                room.n_seq_id[at], room.seq_id[at][0] = 1, sequence
                room.logits[at] = int(i + 1 == tokens)
                at += 1
        room.n_tokens = at
        start = time.perf_counter()
        if llama_cpp.llama_decode(self.context, room) != 0:
            raise RuntimeError("llama_decode failed")
        llama_cpp.llama_synchronize(self.context)
        return time.perf_counter() - start


def measure(engine, a):
    samples, position = [], a.tokens
    engine.forget()
    engine.step(a.tokens, 0)
    warm, end = 2, time.perf_counter() + a.seconds
    while len(samples) < 3 or time.perf_counter() < end:
        if a.phase == "prefill":
            engine.forget()
            seconds = engine.step(a.tokens, 0)
        else:
            if position >= a.tokens + a.new:
                engine.forget()
                engine.step(a.tokens, 0)
                position = a.tokens
            seconds = engine.step(1, position)
            position += 1
        if warm:
            warm -= 1
        else:
            samples.append(seconds)
    return statistics.median(samples)


def main():
    parser = argparse.ArgumentParser()
    for name in ["layers", "width", "heads", "inner", "vocabulary", "batch", "tokens", "threads"]:
        parser.add_argument(f"--{name}", type=int, required=True)
    for name in ["experts", "used"]:
        parser.add_argument(f"--{name}", type=int, default=0)
    parser.add_argument("--new", type=int, default=64)
    parser.add_argument("--plain", action="store_true", help="weights as the file has them: neither repacked nor in tiles")
    parser.add_argument("--phase", choices=["prefill", "decode"], required=True)
    parser.add_argument("--dtype", choices=list(FORMATS), required=True)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--folder", type=pathlib.Path, required=True)
    a = parser.parse_args()

    @llama_cpp.llama_log_callback
    def silent(*_):
        pass

    llama_cpp.llama_log_set(silent, ctypes.c_void_p(0))
    path = a.folder / f"{a.layers}-{a.width}-{a.inner}-{a.experts}-{a.vocabulary}-{a.dtype}.gguf"
    if not path.exists():
        write_model(path, a)
        # Writing needs more memory than running does: a process of its own is measured.
        print(json.dumps({"written": str(path)}))
        return
    seconds = measure(Engine(path, a), a)
    tokens = a.batch * (a.tokens if a.phase == "prefill" else 1)
    say(tokens, seconds, llama_cpp.__version__)


if __name__ == "__main__":
    main()
