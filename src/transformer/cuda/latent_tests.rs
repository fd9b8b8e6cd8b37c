//! Errors put into the kernels of latent attention and of routes by rules: the list of operations notices each. What passes has therefore
//! all of these barriers, masks and rules.

use super::super::Dtype;
use super::super::operations::{Selection, Size, check};
use super::host::HostDevice;
use super::*;

/// What is wrong, and how it comes about: text of the kernel and what stands there instead.
type Fault = (&'static str, (&'static str, &'static str));

/// Whether operations with this in their names agree with the oracle on a device with these errors in a file of kernels.
fn agrees(file: &'static str, dtype: Dtype, only: &str, edits: &[(&str, &str)]) -> Option<bool> {
    let device = HostDevice::with_errors(file, buffer::real(dtype), edits).unwrap()?;
    let on = Cuda::on_device(Arc::new(device), dtype).unwrap();
    let found = check(&on, Selection { size: Size::Small, only: Some(only) }, 2);
    assert!(!found.is_empty());
    Some(found.iter().all(super::super::operations::Finding::passes))
}

fn each_is_noticed(file: &'static str, dtype: Dtype, only: &str, faults: &[Fault]) {
    let Some(sound) = agrees(file, dtype, only, &[]) else { return };
    assert!(sound, "{file}: without an error");
    for (fault, edit) in faults {
        assert_eq!(
            agrees(file, dtype, only, &[*edit]),
            Some(false),
            "{file}: {fault}, and results agree with the oracle's"
        );
    }
}

#[test]
fn errors_in_attention_over_latents_are_noticed() {
    each_is_noticed(
        "latent_decode",
        Dtype::F32,
        "latent_attention",
        &[
            ("parts of a sum are read before they are there", ("sums[r]);\n    __syncthreads();", "sums[r]);")),
            ("scores are read before they are there", ("    __syncthreads();\n    float low", "    float low")),
            (
                "weights are read before they are there",
                ("shrinks[warp] = shrink;\n    __syncthreads();", "shrinks[warp] = shrink;"),
            ),
            (
                "scores are overwritten that are still read",
                ("    // The next tile's scores take their place.\n    __syncthreads();", ""),
            ),
            ("a query sees the position after its own", ("row % tokens + 1;", "row % tokens + 2;")),
            (
                "an empty part of the context weighs",
                ("own] = -INFINITE, statistics[2 * own + 1] = 0.0f", "own] = 0.0f, statistics[2 * own + 1] = 1.0f"),
            ),
            ("parts are put together as if alike", (": exp2f(own[2 * i] - most) / total", ": 1.0f / total")),
            (
                "sums do not shrink as scores grow",
                ("const float by = shrinks[g];", "const float by = 1.0f + 0.0f * shrinks[g];"),
            ),
            ("a token of a sequence is taken for a sequence", ("cache + i64(row / tokens)", "cache + i64(row)")),
        ],
    );
}

#[test]
fn errors_in_attention_over_latents_by_tensor_cores_are_noticed() {
    each_is_noticed(
        "latent_mma",
        Dtype::Bf16,
        "latent_attention",
        &[
            ("a tile is not waited for", ("    wait_for_copies<0>();", "")),
            ("a tile has no barrier", ("its scores and its place.\n    __syncthreads();", "its scores and its place.")),
            (
                "scores are read before they are there",
                ("    __syncthreads();\n    // A lane's scores", "    // A lane's scores"),
            ),
            ("a tile is copied over the one that is read", ("stages + (stage ^ 1) * KEYS", "stages + stage * KEYS")),
            ("positions past the end weigh", ("at + column + 1 < end ? s[2 * i + 1] : -INFINITE", "s[2 * i + 1]")),
            ("sums do not shrink as scores grow", ("sums[n][2] *= shrink[1], sums[n][3] *= shrink[1];", "")),
            ("a query sees the position after its own", ("row % tokens + 1;", "row % tokens + 2;")),
        ],
    );
}

#[test]
fn errors_in_what_latents_are_copied_by_are_noticed() {
    each_is_noticed(
        "latent",
        Dtype::F32,
        "latent_attention",
        &[
            ("a stretch begins at 0", ("row / tokens * capacity + start", "row / tokens * capacity + 0 * start")),
            ("tokens of a sequence lie in one place", ("start + row % tokens", "start")),
        ],
    );
    each_is_noticed(
        "latent",
        Dtype::F32,
        "copy_blocks",
        &[("a sum has one head", ("head < heads; head++", "head < min(heads, 1); head++"))],
    );
}

#[test]
fn errors_in_routes_by_rules_are_noticed() {
    each_is_noticed(
        "route",
        Dtype::F32,
        "route_by",
        &[
            ("groups are chosen by their best alone", ("? first + second : first", "? first + 0.0f * second : first")),
            (
                "groups are looked at before their keys are there",
                ("  __syncwarp();\n  float of_groups[HELD];", "  float of_groups[HELD];"),
            ),
            ("a group too few is kept", ("slot < groups_per_token; slot++", "slot + 1 < groups_per_token; slot++")),
            ("a correction is left out", ("if (correction && lane", "if (false && lane")),
            (
                "weights are not multiplied",
                ("weights[slot] / by * scale", "weights[slot] / by * (scale > 0.0f ? 1.0f : 0.0f)"),
            ),
            ("a sigmoid has the slope of a share", ("(sigmoid ? 1.0f - weight : 1.0f)", "1.0f")),
            ("gradients are not multiplied", ("(gradient[slot] * scale - lost)", "(gradient[slot] - lost)")),
        ],
    );
}
