//! Errors put into the kernels that keep products and copies under way: each makes results wrong on the host's device, which does
//! both no sooner than they are waited for. What passes the oracle's tests has therefore all of these waits, in these places.

use super::super::host::HostDevice;
use super::tests::agreement;
use super::*;

/// What is wrong, and how it comes about: text of the kernel and what stands there instead.
type Fault = (&'static str, &'static [(&'static str, &'static str)]);

fn each_is_noticed(file: &'static str, path: impl Fn(usize) -> Path, head_dims: &[usize], faults: &[Fault]) {
    // Four tiles and more, so that every place is used again; queries that do not fill their block.
    let dims = |head_dim| AttentionDims {
        batch: 1,
        tokens: 520,
        heads: 1,
        kv_heads: 1,
        head_dim,
        causal: true,
        scores: super::super::super::backend::Scores::default(),
    };
    let device = |edits: &[_]| HostDevice::with_errors(file, Real::Bf16, edits).unwrap();
    let Some(sound) = device(&[]) else { return };
    for &head_dim in head_dims {
        agreement(&sound, Real::Bf16, path(head_dim), dims(head_dim)).unwrap();
    }
    for (fault, edits) in faults {
        let Some(on) = device(edits) else { return };
        for &head_dim in head_dims {
            let noticed = agreement(&on, Real::Bf16, path(head_dim), dims(head_dim)).is_err();
            assert!(noticed, "{file}, head_dim {head_dim}: {fault}, and results agree with the oracle's");
        }
    }
}

#[test]
fn errors_in_the_order_of_the_wgmma_kernels_are_noticed() {
    each_is_noticed(
        "attention_wgmma",
        Path::Warpgroups,
        &[64, 128],
        &[
            (
                "a step does not wait for its copies",
                &[("[&](int step) {\n    wait_for_copies<0>();", "[&](int step) {")],
            ),
            ("a step has no barrier", &[("their places take what comes next.\n    __syncthreads();", "")]),
            ("scores are not waited for", &[("wait_for_products<1>(s);", "")]),
            (
                "scores and sums are one group",
                &[(
                    "commit_products();\n    panel_sums<D, KEYS>(sums, p, tile_of(values, step));",
                    "panel_sums<D, KEYS>(sums, p, tile_of(values, step));",
                )],
            ),
            (
                "sums are not waited for before they shrink",
                &[("softmax.total[1]);\n    wait_for_products<0>(sums);", "softmax.total[1]);")],
            ),
            (
                "probabilities are rounded into factors still read",
                &[("    computed_by_now(", "    round_to_a<KEYS>(p, s);\n    computed_by_now(")],
            ),
            ("keys are copied over those that are read", &[("load(keys, k, step + 2);", "load(keys, k, step + 1);")]),
            (
                "values are copied over those that are read",
                &[("load(values, v, step + 1);", "load(values, v, step + 2);")],
            ),
            (
                "the last step does not wait for its values",
                &[(
                    "  wait_for_copies<0>();\n  show_copies_to_products();\n  __syncthreads();\n  before_products();\n  panel_sums",
                    "  show_copies_to_products();\n  __syncthreads();\n  before_products();\n  panel_sums",
                )],
            ),
            (
                "results are not waited for",
                &[("commit_products();\n  wait_for_products<0>(sums);\n\n", "commit_products();\n\n")],
            ),
        ],
    );
}

#[test]
fn errors_in_the_order_of_the_mma_kernels_are_noticed() {
    each_is_noticed(
        "attention_mma",
        Path::TensorCores,
        &[64, 128],
        &[
            ("a tile is not waited for", &[("wait_for_copies<0>();", "")]),
            ("a tile has no barrier", &[("the next one takes.\n    __syncthreads();", "")]),
            ("a tile is copied over the one that is read", &[("load_keys(tile - 1);", "load_keys(tile - 2);")]),
        ],
    );
    each_is_noticed(
        "attention_mma_backward",
        Path::TensorCores,
        &[128],
        &[(
            "keys are copied over those that other warps read",
            &[(
                "if (Sizes::STAGES == 1 && tile > first_tile) {\n      __syncthreads();",
                "if (Sizes::STAGES == 1 && tile > first_tile) {",
            )],
        )],
    );
}
