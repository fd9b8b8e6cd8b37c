"""A Llama with random weights as a GGUF file: what llama_peer.py times and random_server_model.py has served."""

import gguf
import numpy


def begin(path, a, context):
    """A writer of a model of a.layers, a.width, a.heads and a.inner, and a.experts of which a.used take a token where it has them; its
    vocabulary is the caller's to add."""
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_block_count(a.layers)
    writer.add_embedding_length(a.width)
    writer.add_feed_forward_length(a.inner)
    writer.add_head_count(a.heads)
    writer.add_head_count_kv(a.heads)
    writer.add_context_length(context)
    writer.add_rope_dimension_count(a.width // a.heads)
    writer.add_layer_norm_rms_eps(1e-5)
    if getattr(a, "experts", 0):
        writer.add_expert_count(a.experts)
        writer.add_expert_used_count(a.used)
    return writer


def finish(writer, a, vocabulary, kind):
    """Adds the weights in the format `kind`, the same in every file of these sizes, and writes the file."""
    numbers = numpy.random.default_rng(7)

    def matrix(name, rows, columns):
        values = numbers.standard_normal((rows, columns), dtype=numpy.float32) * numpy.float32(0.02)
        if kind == gguf.GGMLQuantizationType.F32:
            writer.add_tensor(name, values)
        else:
            writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)

    def experts(name, rows, columns):
        """[experts, rows, columns], or a single matrix in a dense model."""
        if not getattr(a, "experts", 0):
            return matrix(f"{name}.weight", rows, columns)
        values = numbers.standard_normal((a.experts, rows, columns), dtype=numpy.float32) * numpy.float32(0.02)
        raw = None if kind == gguf.GGMLQuantizationType.F32 else kind
        writer.add_tensor(f"{name}_exps.weight", values if raw is None else gguf.quants.quantize(values, kind), raw_dtype=raw)

    def gain(name):
        writer.add_tensor(name, numpy.ones(a.width, dtype=numpy.float32))

    matrix("token_embd.weight", vocabulary, a.width)
    matrix("output.weight", vocabulary, a.width)
    gain("output_norm.weight")
    for layer in range(a.layers):
        gain(f"blk.{layer}.attn_norm.weight")
        gain(f"blk.{layer}.ffn_norm.weight")
        for part in ["attn_q", "attn_k", "attn_v", "attn_output"]:
            matrix(f"blk.{layer}.{part}.weight", a.width, a.width)
        if getattr(a, "experts", 0):
            router = numbers.standard_normal((a.experts, a.width), dtype=numpy.float32) * numpy.float32(0.02)
            writer.add_tensor(f"blk.{layer}.ffn_gate_inp.weight", router)
        experts(f"blk.{layer}.ffn_gate", a.inner, a.width)
        experts(f"blk.{layer}.ffn_up", a.inner, a.width)
        experts(f"blk.{layer}.ffn_down", a.width, a.inner)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
