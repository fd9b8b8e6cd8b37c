"""OpenVINO's side of ci/side-by-side: prefill or decoding of GPT-2's or Llama's architecture, timed; one JSON line.

The network is put together from OpenVINO's own operations, with random weights: f32, f32 computed in bf16 by its precision hint, or 8 bits with a
scale for each row, which its CPU plugin keeps packed and multiplies by with what the processor has. The KV cache is a state of the
network, which the plugin joins with its attention.
"""

import argparse
import math
import statistics
import time

import numpy
import openvino
from peer import say
from openvino import opset13 as ops


class Network:
    def __init__(self, a):
        self.a, self.head = a, a.width // a.heads
        self.numbers = numpy.random.default_rng(0)
        self.states = []

    def normal(self, *shape):
        return (0.02 * self.numbers.standard_normal(shape, dtype=numpy.float32)).astype(numpy.float32)

    def weight(self, rows, columns):
        """[rows, columns] as a factor of a product."""
        whole = self.normal(rows, columns)
        if self.a.dtype != "q8_0":
            return ops.constant(whole)
        scale = numpy.abs(whole).max(1, keepdims=True) / 127
        few = ops.constant(numpy.round(whole / scale).astype(numpy.int8))
        return ops.multiply(ops.convert(few, numpy.float32), ops.constant(scale))

    def linear(self, x, rows, columns):
        y = ops.matmul(x, self.weight(rows, columns), False, True)
        return ops.add(y, ops.constant(self.normal(1, 1, rows))) if self.a.family == "gpt2" else y

    def norm(self, x):
        one = ops.constant(numpy.ones((1, 1, self.a.width), numpy.float32))
        last = ops.constant(numpy.array([-1], numpy.int64))
        if self.a.family == "gpt2":
            even = ops.mvn(x, last, True, 1e-5, "INSIDE_SQRT")
            return ops.add(ops.multiply(even, one), ops.constant(numpy.zeros((1, 1, self.a.width), numpy.float32)))
        square = ops.reduce_mean(ops.power(x, ops.constant(numpy.float32(2))), last, True)
        root = ops.sqrt(ops.add(square, ops.constant(numpy.float32(1e-5))))
        return ops.multiply(one, ops.multiply(x, ops.divide(ops.constant(numpy.float32(1)), root)))

    def heads(self, x):
        shaped = ops.reshape(x, ops.constant(numpy.array([0, 0, self.a.heads, self.head], numpy.int64)), True)
        return ops.transpose(shaped, ops.constant(numpy.array([0, 2, 1, 3], numpy.int64)))

    def rotated(self, x, cosines, sines):
        low, high = ops.split(x, ops.constant(numpy.int64(-1)), 2).outputs()
        turned = ops.concat([ops.multiply(high, ops.constant(numpy.float32(-1))), low], -1)
        return ops.add(ops.multiply(x, cosines), ops.multiply(turned, sines))

    def kept(self, x, name, nothing):
        """What the state of that name held, and `x` after it."""
        shape = openvino.PartialShape([-1, self.a.heads, -1, self.head])
        # The order of sequences, as it was: with it the plugin knows a KV cache when it sees one.
        before = ops.gather(ops.read_value(nothing, name, openvino.Type.f32, shape), self.order, ops.constant(numpy.int64(0)))
        both = ops.concat([before, x], 2)
        self.states.append(ops.assign(both, name))
        return both

    def attend(self, x, layer, angles, nothing):
        width = self.a.width
        q, k, v = (self.heads(self.linear(x, width, width)) for _ in range(3))
        if angles:
            q, k = self.rotated(q, *angles), self.rotated(k, *angles)
        if nothing:
            k, v = self.kept(k, f"k{layer}", nothing), self.kept(v, f"v{layer}", nothing)
        mixed = ops.scaled_dot_product_attention(q, k, v, causal=not nothing or self.prompt)
        side = ops.transpose(mixed, ops.constant(numpy.array([0, 2, 1, 3], numpy.int64)))
        return self.linear(ops.reshape(side, ops.constant(numpy.array([0, 0, width], numpy.int64)), True), width, width)

    def feed_forward(self, x):
        width, inner = self.a.width, self.a.inner or 4 * self.a.width
        if self.a.family == "gpt2":
            return self.linear(ops.gelu(self.linear(x, inner, width), "tanh"), width, inner)
        gate, up = ops.swish(self.linear(x, inner, width)), self.linear(x, inner, width)
        return self.linear(ops.multiply(gate, up), width, inner)

    def build(self):
        a = self.a
        self.prompt = a.phase == "prefill"
        capacity = a.tokens + a.new
        ids = ops.parameter([-1, -1], numpy.int32, "ids")
        places = ops.parameter([-1], numpy.int32, "places")
        self.order = ops.parameter([-1], numpy.int32, "order")
        axis = ops.constant(numpy.int64(0))
        table = ops.constant(self.normal(a.vocabulary, a.width))
        x, angles, nothing = ops.gather(table, ids, axis), None, None
        if a.family == "gpt2":
            positions = ops.constant(self.normal(max(1024, capacity), a.width))
            x = ops.add(x, ops.unsqueeze(ops.gather(positions, places, axis), axis))
        else:
            rate = 10000.0 ** (-numpy.arange(self.head // 2) * 2 / self.head)
            angle = numpy.tile(numpy.outer(numpy.arange(capacity), rate), 2).astype(numpy.float32)[None, None]
            along = ops.constant(numpy.int64(2))
            angles = [ops.gather(ops.constant(f(angle)), places, along) for f in (numpy.cos, numpy.sin)]
        if not self.prompt:
            # [batch, heads, 0, head]
            shape = [ops.gather(ops.shape_of(ids), ops.constant(numpy.array([0])), axis)]
            shape.append(ops.constant(numpy.array([a.heads, 0, self.head], numpy.int64)))
            nothing = ops.broadcast(ops.constant(numpy.float32(0)), ops.concat(shape, 0))
        for layer in range(a.layers):
            x = ops.add(x, self.attend(self.norm(x), layer, angles, nothing))
            x = ops.add(x, self.feed_forward(self.norm(x)))
        last = ops.gather(self.norm(x), ops.constant(numpy.array([-1])), ops.constant(numpy.int64(1)))
        head = table if a.family == "gpt2" and a.dtype != "q8_0" else self.weight(a.vocabulary, a.width)
        logits = ops.matmul(last, head, False, True)
        chosen = ops.topk(logits, ops.constant(numpy.int64(1)), -1, "max", "none", index_element_type="i32").output(1)
        return openvino.Model([ops.result(chosen)], self.states, [ids, places] + ([] if self.prompt else [self.order]), "network")


def timed(step, seconds):
    """Median seconds of a step, after two that are not counted."""
    step(), step()
    samples, end = [], time.perf_counter() + seconds
    while len(samples) < 3 or time.perf_counter() < end:
        samples.append(step())
    return statistics.median(samples)


def main():
    parser = argparse.ArgumentParser()
    for name in ["layers", "width", "heads", "vocabulary", "batch", "tokens", "threads"]:
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--inner", type=int, default=0)
    parser.add_argument("--family", choices=["gpt2", "llama"], required=True)
    parser.add_argument("--new", type=int, default=64)
    parser.add_argument("--phase", choices=["prefill", "decode"], required=True)
    parser.add_argument("--dtype", choices=["f32", "bf16", "q8_0"], required=True)
    parser.add_argument("--seconds", type=float, default=4)
    a = parser.parse_args()
    core = openvino.Core()
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": a.threads,
        "NUM_STREAMS": 1,
        "INFERENCE_PRECISION_HINT": "f32" if a.dtype == "f32" else "bf16",
        "KV_CACHE_PRECISION": "f32" if a.dtype == "f32" else "bf16",
    }
    request = core.compile_model(Network(a).build(), "CPU", settings).create_infer_request()
    numbers = numpy.random.default_rng(1)
    drawn = lambda tokens: numbers.integers(a.vocabulary, size=(a.batch, tokens), dtype=numpy.int32)
    state = {"at": a.tokens + a.new}

    def infer(ids, first):
        inputs = [ids, numpy.arange(first, first + ids.shape[1], dtype=numpy.int32)]
        if a.phase == "decode":
            inputs.append(numpy.arange(a.batch, dtype=numpy.int32))
        start = time.perf_counter()
        request.infer(inputs)
        return time.perf_counter() - start

    def step():
        if a.phase == "prefill":
            return infer(drawn(a.tokens), 0)
        if state["at"] >= a.tokens + a.new:
            # The network of decoding attends to all that is there: the cache is filled token by token, which is not timed.
            request.reset_state()
            for position in range(a.tokens):
                infer(drawn(1), position)
            state["at"] = a.tokens
        state["at"] += 1
        return infer(drawn(1), state["at"] - 1)

    seconds = timed(step, a.seconds)
    tokens = a.batch * (a.tokens if a.phase == "prefill" else 1)
    say(tokens, seconds, openvino.__version__.split("-")[0])


if __name__ == "__main__":
    main()
