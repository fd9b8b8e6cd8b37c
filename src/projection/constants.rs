//! The constants of the projection: named, the same for every row and every user; each has a prior with its source, and a fit
//! may move it by about its spread. None belongs to one publication. What the published rows do not move is no constant of a
//! fit: those numbers stand where they are used ([`super::kernels`]).

/// One constant as it stands before any fit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Prior {
    pub name: &'static str,
    /// What it means, with its unit.
    pub meaning: &'static str,
    pub value: f64,
    /// Standard deviation of its logarithm: how far a fit may move it.
    pub spread: f64,
    pub source: &'static str,
}

macro_rules! constants {
    ($($(#[doc = $meaning:literal])+ $name:ident = $value:literal, $spread:literal, $source:literal;)*) => {
        /// Values of all constants.
        #[derive(Clone, Debug, PartialEq)]
        pub struct Constants { $($(#[doc = $meaning])+ pub $name: f64,)* }

        /// Every constant, in the order of [`Constants::values`].
        pub(crate) const PRIORS: &[Prior] = &[$(Prior {
            name: stringify!($name),
            meaning: concat!($($meaning),+),
            value: $value,
            spread: $spread,
            source: $source,
        },)*];

        impl Default for Constants {
            /// The priors.
            fn default() -> Self { Self { $($name: $value,)* } }
        }

        impl Constants {
            pub fn values(&self) -> Vec<f64> { vec![$(self.$name),*] }

            /// The inverse of [`Self::values`]; values that are missing keep their priors.
            pub fn from_values(values: &[f64]) -> Self {
                let mut all = values.iter().copied();
                Self { $($name: all.next().unwrap_or($value),)* }
            }

            /// The one of that name, to be set.
            pub fn named(&mut self, name: &str) -> Option<&mut f64> {
                match name { $(stringify!($name) => Some(&mut self.$name),)* _ => None }
            }
        }
    };
}

constants! {
    /// Large bf16 products: share of the rate that a tuned product was measured to reach.
    matmul_share = 0.90, 0.05, "tuned shapes against those of transformers: stas00/ml-engineering, accelerator (MAMF tables)";
    /// The same on TPUs, of what their arrays reach where memory keeps up.
    systolic_share = 0.95, 0.05, "MaxText: 61 % MFU with everything recomputed, 81 % of the peak in products and attention";
    /// Further share on Hopper, where long runs are limited by power.
    hopper_share = 0.90, 0.07, "H100 at 700 W under its clock in long runs: MAMF tables; Llama 3 (2024), 38 to 43 % of peak";
    /// 8-bit products, one scale a tensor, casts and the layers kept in bf16 included: share of the measured f8 rate.
    f8_share = 0.90, 0.10, "Transformer Engine, FP8 recipe";
    /// The same with block scales (MXFP8).
    mxf8_share = 0.82, 0.10, "OCP microscaling formats; scales of blocks are computed and moved";
    /// 4-bit products in training, the layers kept in higher precision and the rotations included: share of half the peak.
    f4_share = 0.75, 0.15, "NVIDIA 2025, pretraining with NVFP4: some layers stay bf16, random Hadamard transforms";
    /// Products of experts, which take unequal shares of the tokens: share of what one product of all their rows reaches.
    grouped_share = 0.6, 0.30, "MegaBlocks (Gale 2022); grouped products of Megatron Core: half to two thirds of a dense layer's";
    /// Attention without a score matrix, forward: share of the measured bf16 rate at large heads.
    attention_share = 0.72, 0.15, "FlashAttention-2 (Dao 2023), A100: 190 of 312 TFLOP/s at 16,384 keys, causal, head size 128";
    /// Kernels older than the device (FlashAttention-2 on Hopper, products without its instructions): a further share.
    older_kernels = 0.65, 0.15, "FlashAttention-3 (Shah 2024): version 2 reaches 35 % of an H100, version 3 up to 75 %";
    /// Seconds that a layer's launches take at least, forward, where Python launches fused kernels (Megatron, torchtitan).
    launch_python = 500e-6, 0.50, "about 30 calls of 10 to 20 us: the interpreter, the dispatcher, the launch";
    /// The same where Python launches one operation at a time.
    launch_eager = 900e-6, 0.40, "about 60 such calls, as in decoding";
    /// Share of a link's bandwidth that collectives reach inside a node.
    link_share = 0.65, 0.20, "nccl-tests: 230 of 300 GB/s on A100, 360 of 450 on H100, for large messages";
    /// The same between nodes.
    network_share = 0.75, 0.20, "nccl-tests over InfiniBand and RoCE";
    /// Seconds that a collective over the network takes for each rank that its ring passes.
    ring_latency = 6e-6, 0.50, "nccl-tests: all-gathers of small messages grow with the ranks, 5 to 10 us each";
    /// Seconds of a hand-over between two pipeline stages, there or back, where the interpreter sends and waits.
    hand_over = 1e-3, 0.70, "Megatron-LM waits for the device after every batched send and receive: calls, a copy, a wait";
    /// Share of the exchange of tokens among experts' ranks that computation does not hide.
    expert_exposed = 0.6, 0.30, "DeepSeek-V3 (2024): as long as the computation where nothing is overlapped";
    /// Bytes/s at which an optimizer that lies in the host's memory works for one device: the link both ways and the host's share.
    offload_rate = 8e9, 0.40, "ZeRO-Offload (Ren 2021): 26 bytes a parameter at a host's 200 GB/s for 8 devices";
    /// Share of the shorter of sharded collectives and computation that is not hidden behind the longer.
    shard_exposed = 0.25, 0.40, "PyTorch FSDP (Zhao 2023): prefetched, and the copies take multiprocessors from the products";
    /// Seconds of a training step beside its kernels: data, logging, the launch of the optimizer.
    step_fixed = 0.02, 0.60, "profiles of training loops: 5 to 50 ms";
    /// Slowdown a doubling of nodes by waiting for the slowest.
    straggling = 0.01, 0.70, "MegaScale (Jiang 2024), Llama 3 (2024)";

    /// Bandwidth that the weights' kernels reach in decoding: share of the datasheet's.
    decode_share = 0.90, 0.05, "BabelStream: 85 to 92 %";
    /// The same of a CPU's memory channels, threads of every core reading.
    cpu_share = 0.65, 0.20, "STREAM: 75 to 85 % of the channels'; packed weights read with less";
    /// f32 operations a weight to unpack quantised weights where each is used once.
    unpack_operations = 9.0, 0.25, "counted: shift, mask, convert, scale, multiply-add";
    /// f32 operations a weight to unpack quantised weights on GPUs that share the system's memory.
    unpack_operations_soc = 18.0, 0.30, "as above, with shifts and masks at half rate and no dot product of bytes";
    /// Bytes/s that a multiprocessor of such an engine's kernels streams at most.
    stream_per_core = 12e9, 0.25, "Little's law: 8 KiB in flight a multiprocessor over 650 ns";
    /// Seconds a layer of decoding spends beside its bytes in an engine of separate launches and own kernels (llama.cpp).
    layer_portable = 60e-6, 0.30, "about 15 launches of 4 us";
    /// The same with a graph or compiled (gpt-fast, exllamav2, FasterTransformer).
    layer_compiled = 45e-6, 0.30, "kernels of a few us that do not fill the device";
    /// The same in a server with a graph and fused kernels (TensorRT-LLM, vLLM, SGLang).
    layer_server = 30e-6, 0.40, "as compiled, with fewer kernels";
    /// The same in eager Python (litgpt, transformers).
    layer_eager = 900e-6, 0.20, "about 40 operations of 20 us in the interpreter and dispatcher";
    /// The same where fused kernels are launched one by one: uncaptured steps, and every prompt.
    layer_by_hand = 300e-6, 0.30, "about 25 calls of 12 us";
    /// Seconds a layer for unpacking by separate calls (bitsandbytes) on top of that.
    layer_unpack = 500e-6, 0.30, "7 matrices, each unpacked by calls of its own";
    /// Seconds of a decode step outside the layers.
    decode_fixed = 0.5e-3, 0.50, "sampling, copy of the token to the host";
    /// Bandwidth with which attention reads the cache where one query is spread over few blocks.
    cache_share_portable = 0.25, 0.30, "kernels that give a head to one block";
    /// The same where the cache is split over blocks (flash-decoding, paged attention).
    cache_share = 0.7, 0.30, "Flash-Decoding (Dao 2023)";
    /// Prefill in an engine of own kernels: share of the 16-bit peak (with 16-bit sums where the device is faster so).
    prefill_portable = 0.50, 0.15, "cuBLAS at 512 rows; llama.cpp's documentation";
    /// The same with quantised weights, a further share.
    prefill_unpack = 0.75, 0.10, "weights are unpacked for each block of rows";
    /// Prefill on Apple's GPUs: share of the peak.
    prefill_apple = 0.75, 0.10, "no matrix units: vector peak";
    /// Products of a long prompt on a CPU: share of its 32-bit peak.
    cpu_products = 1.0, 0.40, "integer products of bytes pass it, unpacking and narrow matrices stay under it";
    /// Kernels older than the device (llama.cpp on Hopper, vLLM of 2024 on CDNA 3): a further share.
    older_prefill = 0.5, 0.30, "FlashAttention-3 (Shah 2024) for Hopper; half of a rate and less before kernels are tuned";
    /// FLOP/s a watt that cards with GDDR memory sustain in products.
    power_limit = 0.42e12, 0.20, "boards of 130 to 450 W under their peaks in long products";
    /// Prefill in compiled engines and servers: share of the measured bf16 rate.
    prefill_share = 0.8, 0.15, "products of long prompts";
    /// The same for 8-bit weights and activations: share of the measured f8 rate.
    prefill_f8 = 0.85, 0.12, "as for training";
    /// The same for 4-bit: share of the peak.
    prefill_f4 = 0.50, 0.20, "as for training";
    /// Products of a large decoding batch against those of prefill.
    decode_products = 0.8, 0.20, "batches of some hundred rows do not fill the tiles";
    /// Bytes moved a score in attention that writes its scores.
    score_bytes = 16.0, 0.40, "counted: write, mask, softmax, read";
    /// Seconds before the first byte of a tensor-parallel sum in decoding.
    sum_latency = 12e-6, 0.40, "custom all-reduce kernels: 8 to 15 us";
    /// Share of a link's bandwidth that such a sum reaches.
    sum_share = 0.5, 0.25, "nccl-tests, messages of some MB";
    /// Seconds of a server for each sequence and step.
    sequence_fixed = 15e-6, 0.60, "scheduling, sampling and detokenising in Python and C++";
    /// Seconds of a server for each step.
    server_fixed = 2e-3, 0.50, "scheduling of a step";
    /// Seconds more where a scheduler in Python ran between the steps.
    between_steps = 8e-3, 0.50, "vLLM 0.6.0's announcement (2024): more than half of a step was the host's before";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_go_there_and_back_and_are_named() {
        let mut c = Constants::default();
        let values = c.values();
        assert_eq!(values.len(), PRIORS.len());
        assert_eq!(Constants::from_values(&values), c);
        for p in PRIORS {
            assert_eq!(c.named(p.name).copied(), Some(p.value), "{}", p.name);
            assert!(p.value > 0.0 && p.spread > 0.0 && !p.source.is_empty() && !p.meaning.is_empty(), "{}", p.name);
        }
        assert_eq!(c.named("none"), None);
    }
}
