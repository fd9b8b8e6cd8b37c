//! The list of operations on the host as a device of each generation: every kernel of every file, in every family, is one that an
//! operation of the list reaches.

use super::super::operations::{Finding, Selection, Size, check};
use super::driver::kernels::FILES;
use super::host::HostDevice;
use super::*;
use std::collections::BTreeSet;

fn checked(host: HostDevice, dtype: Dtype) -> Vec<Finding> {
    let capability = host.facts().capability;
    let found = check(&Cuda::on_device(Arc::new(host), dtype).unwrap(), Selection { size: Size::Small, only: None }, 2);
    for f in &found {
        assert!(f.passes(), "{dtype} on {capability:?}: {f:?}");
    }
    found
}

/// Kernels that no operation asks for: the doctor's, which only shows that a kernel can be compiled and run.
const UNUSED: &[&str] = &["trial"];

/// Kernels of weights in floats of 8 bits, which no operation of the list has: the list gives both backends the same numbers, and weights are
/// rounded where a backend makes them. What they compute is held to the oracle by `weights_f8_tests`, and on a GPU by `verify --weights f8`.
const OF_ROUNDED_WEIGHTS: &[&str] =
    &["matvec_linear_f8", "matvec_up_f8", "matvec_qkv_f8", "quantise_f8", "expand_f8", "embed_f8"];

/// Names of a file's kernels; those of decoding are made by macros, of two numbers, and of a name and a type before them.
fn exported(text: &str) -> Vec<String> {
    let inside = |l: &str, name: &str| Some(l.strip_prefix(name)?.strip_prefix('(')?.split(')').next()?.to_string());
    let of_line = |l: &str| {
        if let Some(numbers) = inside(l, "DECODE") {
            return Some(format!("decode_attention_{}", numbers.replace(", ", "_")));
        }
        if let Some(few) = inside(l, "FEW_BITS") {
            let words: Vec<&str> = few.split(", ").collect();
            return Some(format!("decode_{}_{}_{}", words.first()?, words.get(2)?, words.get(3)?));
        }
        inside(l, "EXPORT")
    };
    text.lines().filter_map(of_line).collect()
}

#[test]
fn every_operation_agrees_with_the_oracle_by_every_kernel() {
    let of = HostDevice::of_capability;
    // The last two have as much shared memory as 8.6, 8.9 and 12.0.
    let small = || HostDevice::with_shared(99 << 10);
    let devices = [of((9, 0)), of((9, 0)), of((8, 0)), HostDevice::without_epilogues(), of((7, 5)), small(), small()];
    let dtypes = [Dtype::F32, Dtype::Bf16, Dtype::Bf16, Dtype::Tf32, Dtype::Bf16, Dtype::F32, Dtype::Bf16];
    let mut reached = BTreeSet::new();
    for (device, dtype) in devices.into_iter().zip(dtypes) {
        let Some(device) = device else { return };
        reached.extend(checked(device, dtype).into_iter().flat_map(|f| f.kernels));
    }
    for (file, text) in FILES {
        let of_file = exported(text);
        assert!(!of_file.is_empty(), "{file} exports nothing");
        let left_out = [UNUSED, OF_ROUNDED_WEIGHTS].concat();
        for kernel in of_file.iter().filter(|k| !left_out.contains(&k.as_str())) {
            assert!(
                reached.contains(kernel),
                "{kernel} of {file}: no case of transformer/operations reaches it; add one to the list that it fits"
            );
        }
    }
}
