//! Programs that serve models, by name: what each is made of, and what is known of its versions.

use super::serving::InferenceEngine;

/// A program of inference.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Program {
    pub name: &'static str,
    /// How publications call it, in lower case.
    named: &'static [&'static str],
    pub engine: InferenceEngine,
    /// Until this year its scheduler, in Python, ran between the steps of the device and not beside them.
    pub between_steps_until: f64,
    /// Until this year it left sums over devices to a communication library.
    pub library_sums_until: f64,
    /// Its products are summed up in 16 bits.
    pub narrow_sums: bool,
}

const fn program(name: &'static str, named: &'static [&'static str], engine: InferenceEngine) -> Program {
    Program { name, named, engine, between_steps_until: 0.0, library_sums_until: 0.0, narrow_sums: false }
}

/// Longer names before the shorter that they contain.
const PROGRAMS: &[Program] = &[
    program("tensorrt-llm", &["tensorrt-llm", "trtllm", "trt-llm", "nim "], InferenceEngine::Server),
    // Captured steps came in 2023; scheduling beside the steps with version 1 of the engine, in 2025.
    Program {
        between_steps_until: 2024.0,
        library_sums_until: 2023.0,
        ..program("vllm", &["vllm"], InferenceEngine::Server)
    },
    Program { between_steps_until: 2023.0, ..program("sglang", &["sglang"], InferenceEngine::Server) },
    Program {
        between_steps_until: 2024.0,
        ..program("tgi", &["tgi", "text-generation-inference"], InferenceEngine::Server)
    },
    program("lmdeploy", &["lmdeploy", "turbomind"], InferenceEngine::Server),
    Program { between_steps_until: 2024.0, ..program("deepspeed-mii", &["mii", "fastgen"], InferenceEngine::Server) },
    Program { library_sums_until: 2026.0, ..program("gaudi", &["habana", "gaudi"], InferenceEngine::Server) },
    Program { library_sums_until: 2026.0, ..program("neuron", &["neuron"], InferenceEngine::Server) },
    program("autoawq", &["autoawq"], InferenceEngine::Compiled),
    program("ctranslate2", &["ctranslate"], InferenceEngine::Compiled),
    program(
        "llama.cpp",
        &["llama.cpp", "ollama", "llamafile", "koboldcpp", "ctransformers", "lm studio", "gguf", "t-mac"],
        InferenceEngine::Portable,
    ),
    program("mlx", &["mlx"], InferenceEngine::Portable),
    program("mlc", &["mlc"], InferenceEngine::Portable),
    Program {
        library_sums_until: 2023.0,
        ..program("fastertransformer", &["fastertransformer"], InferenceEngine::Compiled)
    },
    program("gpt-fast", &["gpt-fast", "torch.compile", "torchao"], InferenceEngine::Compiled),
    Program { narrow_sums: true, ..program("exllama", &["exllama", "tabbyapi"], InferenceEngine::Compiled) },
    Program { library_sums_until: 2026.0, ..program("deepspeed-inference", &["deepspeed"], InferenceEngine::Compiled) },
    program(
        "eager",
        &["eager", "transformers", "litgpt", "megatron", "hugging", "lightning", "pytorch"],
        InferenceEngine::Eager,
    ),
];

impl Program {
    /// The one that a publication means; `None` where it is not known.
    pub(crate) fn called(text: &str) -> Option<&'static Self> {
        let lower = format!("{} ", text.to_lowercase());
        PROGRAMS.iter().find(|p| p.named.iter().any(|n| lower.contains(n)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_go_by_the_names_that_publications_use() {
        for (text, name) in [
            ("llama.cpp May 2024", "llama.cpp"),
            ("TensorRT-LLM 1.0 (PyTorch backend, in-flight batching)", "tensorrt-llm"),
            ("NIM 1.8.0 (TensorRT-LLM)", "tensorrt-llm"),
            ("vLLM 0.6.1 (ROCm)", "vllm"),
            ("Transformers NeuronX 2.18.0", "neuron"),
            ("DeepSpeed-MII", "deepspeed-mii"),
            ("Triton + FasterTransformer", "fastertransformer"),
            ("litgpt (eager PyTorch)", "eager"),
            ("Transformers + AutoGPTQ", "eager"),
            ("AutoAWQ 0.1.6 / HF", "autoawq"),
            ("MLX 0.29.2 / mlx-lm 0.28.2", "mlx"),
        ] {
            assert_eq!(Program::called(text).map(|p| p.name), Some(name), "{text}");
        }
        assert_eq!(Program::called("somebody's"), None);
        let of = |text: &str| Program::called(text).map(|p| (p.narrow_sums, p.library_sums_until >= 2026.0));
        assert_eq!(of("ExLlama v1 (2023-09)"), Some((true, false)));
        assert_eq!(of("Transformers NeuronX 2.18.0"), Some((false, true)));
    }
}
