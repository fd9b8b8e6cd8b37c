//! The list itself: it finds what is wrong, names it, and leaves nothing out.

use super::super::Dtype;
use super::super::cpu::Cpu;
use super::faulty_tests::{Faulty, METHODS};
use super::*;
use std::collections::BTreeSet;

const SMALL: Selection<'_> = Selection { size: Size::Small, only: None };

#[test]
fn a_backend_with_one_wrong_operation_fails_by_its_name() {
    for method in METHODS {
        let found = check(&Faulty(method), SMALL, 2);
        let failed: BTreeSet<&str> = found.iter().filter(|f| !f.passes()).map(|f| f.operation).collect();
        // What the loss is read by is checked where losses are.
        let name = if *method == "mean_squared_error" { "read_loss" } else { method };
        assert!(failed.contains(method) || failed.contains(name), "{method} is wrong, and what failed is {failed:?}");
        let related =
            ["cross_entropy", "linear", "activation", "embed", "copy", "argmax", "update", "norm", "attention", "rope"];
        let own = related.iter().any(|r| method.starts_with(r));
        assert!(own || failed.len() == 1, "{method} alone is wrong, and what failed is {failed:?}");
    }
}

#[test]
fn the_oracle_agrees_with_itself_to_the_bit() {
    for f in check(&Naive, SMALL, 2) {
        assert!(f.passes() && f.worst.apart == 0.0 && f.compared > 0, "{f:?}");
    }
}

#[test]
fn what_is_not_written_and_what_is_not_a_number_fails() {
    let all = [[f32::NAN, 1.0], [1.0, f32::NAN], [f32::NAN, f32::NAN]];
    for [ours, oracle] in all {
        assert!(worst(&[0.0, ours], &[0.0, oracle], &[1e9, 1e9]).share() > 1.0);
    }
    assert!(worst(&[1.0], &[1.0, 2.0], &[1.0, 1.0]).share() > 1.0);
    assert!(worst(&[1.0], &[1.0], &[0.0]).share() == 0.0);
    assert!(worst(&[1.0], &[1.0 + f32::EPSILON], &[0.0]).share() > 1.0);
}

/// Methods of the trait that compute nothing a case could compare, and what shows that they do what they say.
const WITHOUT_A_CASE: &[(&str, &str)] = &[
    ("kind", "a name"),
    ("dtype", "a name"),
    ("rounds_parameters", "cuda/ranks_tests.rs: training goes on from files of ranks that share"),
    ("upload", "every case's inputs"),
    ("download", "every case's results"),
    ("tokens", "put_tokens reads them back"),
    ("latent_append", "latent_attention reads what it has appended"),
    ("cache_append", "attention_cached reads what it has appended"),
    ("kernels_run", "names"),
    ("enter", "cpu/pool_tests.rs"),
    ("device_memory", "cuda/memory_tests.rs"),
    ("numbers", "a number"),
    ("synchronize", "waits"),
    ("check", "every case ends with it"),
];

#[test]
fn every_operation_of_the_trait_is_in_the_list() {
    let sources = [
        include_str!("../backend/mod.rs").split("pub trait Backend").nth(1),
        include_str!("../backend/parts.rs").split("pub trait Parts").nth(1),
    ];
    let declared: Vec<&str> = sources
        .iter()
        .flat_map(|methods| methods.unwrap().lines())
        .filter_map(|l| l.strip_prefix("    fn "))
        .map(|l| l.split(['(', '<']).next().unwrap())
        .collect();
    assert!(declared.len() > 30, "{declared:?}");
    let all = list::<Naive>(SMALL, BackendKind::Cpu);
    let named: BTreeSet<&str> = all
        .iter()
        .flat_map(|c| &c.slots)
        .filter_map(|s| if let Role::Result(of, _) = &s.role { Some(*of) } else { None })
        .collect();
    for method in &declared {
        let exempt = WITHOUT_A_CASE.iter().any(|(name, _)| name == method);
        assert!(
            named.contains(method) != exempt,
            "{method} of Backend: no case of transformer/operations compares a result of it; add one to the list that it fits"
        );
    }
    for name in named.iter().chain(WITHOUT_A_CASE.iter().map(|(name, _)| name)) {
        assert!(declared.contains(name), "{name} is no method of Backend");
    }
}

#[test]
fn the_cpu_agrees_with_the_oracle_on_any_number_of_threads() {
    for dtype in [Dtype::F32, Dtype::Bf16] {
        for threads in [1, 2, 3] {
            let found = check(&Cpu::new(threads, None).unwrap().with_dtype(dtype), SMALL, 2);
            for f in &found {
                assert!(f.passes(), "{dtype} on {threads} threads: {f:?}");
            }
        }
    }
}
