//! The sources of our kernels, as they are carried in the program.

/// Name and text.
pub(crate) type Source = (&'static str, &'static str);

macro_rules! sources {
    ($($name:literal),+ $(,)?) => { &[$(($name, include_str!(concat!("../kernels/", $name)))),+] };
}

/// What the files include, by the name in their `#include`.
pub(crate) const HEADERS: &[Source] = sources![
    "attention_order.h",
    "attention_rows.h",
    "attention_scores.h",
    "attention_tiles.h",
    "best.h",
    "common.h",
    "curves.h",
    "decode.h",
    "few_bits.h",
    "grouped.h",
    "grouped_tiles.h",
    "matvec.h",
    "rotation.h",
    "sums.h",
    "tensor_cores.h",
    "warpgroup.h",
];

/// Every file of kernels.
pub(crate) const FILES: &[Source] = sources![
    "activation.cu",
    "attention.cu",
    "attention_backward.cu",
    "attention_mma.cu",
    "attention_mma_backward.cu",
    "attention_wgmma.cu",
    "attention_wgmma_backward.cu",
    "cache.cu",
    "cache_few_bits.cu",
    "columns.cu",
    "decode.cu",
    "decode_few_bits.cu",
    "dropout.cu",
    "elementwise.cu",
    "embedding.cu",
    "experts.cu",
    "grouped.cu",
    "grouped_mma.cu",
    "grouped_wgmma.cu",
    "latent.cu",
    "latent_decode.cu",
    "latent_mma.cu",
    "loss.cu",
    "matvec_linear.cu",
    "matvec_qkv.cu",
    "matvec_up.cu",
    "norm.cu",
    "optimizer.cu",
    "qk_norm.cu",
    "random.cu",
    "rope.cu",
    "route.cu",
    "rows.cu",
    "sinks.cu",
    "squares.cu",
    "trial.cu",
    "weights_f8.cu",
];

/// The text of `<file>.cu`.
pub(crate) fn source(file: &str) -> Option<&'static str> {
    FILES.iter().find(|(name, _)| name.strip_suffix(".cu") == Some(file)).map(|(_, text)| *text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_the_folder_is_carried() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/transformer/cuda/kernels");
        let mut there: Vec<String> =
            std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        there.retain(|name| name.ends_with(".cu") || name.ends_with(".h"));
        there.sort();
        let mut carried: Vec<&str> = FILES.iter().chain(HEADERS).map(|(name, _)| *name).collect();
        carried.sort_unstable();
        assert_eq!(there, carried);
    }
}
