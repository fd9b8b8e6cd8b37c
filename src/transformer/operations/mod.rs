//! The one list of what a backend's operations are checked by: each method of [`Backend`] against the oracle, at shapes that reach
//! every kernel. `centime verify --operations` runs it on a real device, tests run it on the CPU's instruction paths and on the host
//! as a device.
//!
//! A new operation is a [`Case`] in one of the lists below: the buffers that it works on, what it does with them on any
//! backend, and how far each result may be off (`bounds`). Tests find a method of the trait and a kernel that no case reaches.
//!
//! The oracle computes in f64, one thread a case. Deliberately absent: the model, which golden files check, and time.

mod attention;
mod attention_bounds;
mod bounds;
mod case;
mod decode;
mod elementwise;
mod experts;
mod experts_bounds;
#[cfg(test)]
pub(crate) mod faulty_tests;
mod few_bits;
mod fused;
mod latent;
#[cfg(test)]
mod list_tests;
mod losses;
mod norms;
mod parts;
mod products;
mod routes;
mod rows;
mod scores;
mod starts;
mod tokens;
mod updates;

use super::BackendKind;
use super::backend::Backend;
use super::cpu::naive::Naive;
use bounds::Format;
use case::{Allowed, Case, Known, Role, Slot};
use std::cell::OnceCell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// How much is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Size {
    /// Every kernel, at few and short shapes.
    Small,
    /// And long sequences, wide products, and a vocabulary of 50257.
    Full,
}

/// What one operation came to at one shape.
#[derive(Clone, Debug)]
pub(crate) struct Finding {
    /// The method of [`Backend`].
    pub operation: &'static str,
    pub shape: String,
    /// Names of the kernels that ran, where the backend tells.
    pub kernels: Vec<String>,
    /// Numbers compared.
    pub compared: usize,
    /// The number that is nearest to, or farthest beyond, what it may be off by.
    pub worst: Worst,
    /// What the backend said instead of a result. It was not asked for anything after that.
    pub failure: Option<String>,
}

/// A number of a result.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Worst {
    pub index: usize,
    pub ours: f32,
    pub oracle: f32,
    /// Infinite where either is not a number.
    pub apart: f64,
    pub allowed: f64,
}

impl Worst {
    /// Of what it may be off by.
    pub(crate) fn share(&self) -> f64 {
        if self.apart == 0.0 { 0.0 } else { self.apart / self.allowed }
    }
}

impl Finding {
    /// Whether the result is one and as near to the oracle's as it must be.
    pub(crate) fn passes(&self) -> bool {
        self.failure.is_none() && self.worst.share() <= 1.0
    }
}

/// What is checked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Selection<'a> {
    pub size: Size,
    /// Only the cases that are about a method with this in its name.
    pub only: Option<&'a str>,
}

impl Selection<'_> {
    fn takes<B: Backend>(&self, case: &Case<B>) -> bool {
        let about = |name: &str| self.only.is_none_or(|only| name.contains(only));
        let result = |slot: &Slot| matches!(&slot.role, Role::Result(of, _) if about(of));
        about(case.operation) || case.slots.iter().any(result)
    }
}

/// Of a backend of this kind.
fn list<B: Backend + 'static>(of: Selection<'_>, on: BackendKind) -> Vec<Case<B>> {
    let (mut all, size) = (Vec::new(), of.size);
    parts::list(size, &mut all);
    products::list(size, &mut all);
    norms::list(size, &mut all);
    fused::list(size, &mut all);
    elementwise::list(size, &mut all);
    attention::list(size, &mut all);
    scores::list(size, &mut all);
    decode::list(size, &mut all);
    tokens::list(size, &mut all);
    losses::list(size, &mut all);
    updates::list(size, &mut all);
    starts::list(size, &mut all);
    experts::list(size, &mut all);
    routes::list(size, &mut all);
    rows::list(size, &mut all);
    latent::list(size, &mut all);
    few_bits::list(size, &mut all);
    // What the kernels of GPUs have not.
    if on != BackendKind::Cuda {
        latent::few_bits(&mut all);
    }
    all.retain(|case| of.takes(case));
    all
}

/// Runs the list on a backend, and on the oracle by so many threads. In the order of the list.
pub(crate) fn check<B: Backend + 'static>(on: &B, of: Selection<'_>, threads: usize) -> Vec<Finding> {
    let format = Format(on.dtype());
    let mut ours = Vec::new();
    let mut stopped = None;
    on.kernels_run();
    for case in list::<B>(of, on.kind()) {
        let before = case.before(format);
        match case.after(on, &before) {
            Ok(after) => ours.push(Results::of(&case, &before, after, on.kernels_run())),
            Err(failure) => {
                let (operation, shape, kernels) = (case.operation, case.shape, on.kernels_run());
                let (compared, worst, failure) = (0, Worst::default(), Some(failure.to_string()));
                stopped = Some(Finding { operation, shape, kernels, compared, worst, failure });
                break;
            }
        }
    }
    let mut findings = against_the_oracle(&ours, &list(of, on.kind()), format, threads);
    findings.extend(stopped);
    findings
}

/// What a backend made of a case.
struct Results {
    /// Buffers afterwards, without those that were only to be read.
    after: Vec<Vec<f32>>,
    /// Which of these is not what it was, bit for bit.
    changed: Option<String>,
    kernels: Vec<String>,
}

impl Results {
    fn of<B: Backend>(case: &Case<B>, before: &[Vec<f32>], mut after: Vec<Vec<f32>>, kernels: Vec<String>) -> Self {
        let mut changed = None;
        for (i, slot) in case.slots.iter().enumerate().filter(|(_, s)| matches!(s.role, Role::Given)) {
            let is_another = |(a, b): (&f32, &f32)| a.to_bits() != b.to_bits();
            if let Some(at) = after[i].iter().zip(&before[i]).position(is_another) {
                let what = format!("number {at} of buffer {i} of {}, which is only to be read, has changed", slot.len);
                changed.get_or_insert(what);
            }
            after[i] = Vec::new();
        }
        Self { after, changed, kernels }
    }
}

fn against_the_oracle(ours: &[Results], cases: &[Case<Naive>], format: Format, threads: usize) -> Vec<Finding> {
    let mut order: Vec<usize> = (0..ours.len().min(cases.len())).collect();
    order.sort_by_key(|i| std::cmp::Reverse(cases[*i].work));
    let (next, found) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let take = || {
        while let Some(&i) = order.get(next.fetch_add(1, Ordering::Relaxed)) {
            let all = compare(&cases[i], &ours[i], format);
            found.lock().unwrap_or_else(PoisonError::into_inner).push((i, all));
        }
    };
    std::thread::scope(|s| {
        for _ in 1..threads {
            s.spawn(take);
        }
        take();
    });
    let mut found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    found.sort_by_key(|(i, _)| *i);
    found.into_iter().flat_map(|(_, all)| all).collect()
}

/// A finding for each method that the case's results name.
fn compare(case: &Case<Naive>, ours: &Results, format: Format) -> Vec<Finding> {
    let before = case.before(format);
    let mut found: Vec<Finding> = Vec::new();
    let mut add = |operation: &'static str, compared: usize, worst: Worst, failure: Option<String>| match found
        .iter_mut()
        .find(|f| f.operation == operation)
    {
        Some(f) => {
            f.compared += compared;
            f.failure = f.failure.take().or(failure);
            if worst.share() > f.worst.share() {
                f.worst = worst;
            }
        }
        None => found.push(Finding {
            operation,
            shape: case.shape.clone(),
            kernels: ours.kernels.clone(),
            compared,
            worst,
            failure,
        }),
    };
    if ours.changed.is_some() {
        add(case.operation, 0, Worst::default(), ours.changed.clone());
    }
    let after = match case.after(&Naive, &before) {
        Ok(after) => after,
        Err(e) => {
            add(case.operation, 0, Worst::default(), Some(format!("the oracle: {e}")));
            return found;
        }
    };
    let on_magnitudes = || {
        let inputs: Vec<Vec<f32>> = before.iter().map(|b| b.iter().map(|x| x.abs()).collect()).collect();
        case.after(&Naive, &inputs).unwrap_or_default()
    };
    let categories: Vec<_> = case.slots.iter().map(|s| s.category).collect();
    let known = Known {
        format,
        before: &before,
        after: &after,
        categories: &categories,
        on_magnitudes: &on_magnitudes,
        magnitudes: OnceCell::new(),
    };
    for (i, slot) in case.slots.iter().enumerate() {
        match &slot.role {
            Role::Room | Role::Given => {}
            Role::Result(operation, allowed) => {
                let off = match allowed {
                    Allowed::Exactly => vec![0.0; slot.len],
                    Allowed::Sum(terms) => known.stored_sums(i, *terms),
                    Allowed::By(off) => known.stored(i, off(&known)),
                };
                add(operation, slot.len, worst(&ours.after[i], &after[i], &off), None);
            }
        }
    }
    found
}

/// The number of a result with the largest share of what it may be off by.
fn worst(ours: &[f32], oracle: &[f32], allowed: &[f64]) -> Worst {
    let mut worst = Worst::default();
    if ours.len() != oracle.len() || allowed.len() != oracle.len() {
        return Worst { apart: f64::INFINITY, ..worst };
    }
    for (index, ((ours, oracle), allowed)) in ours.iter().zip(oracle).zip(allowed).enumerate() {
        let apart = f64::from((ours - oracle).abs());
        let apart = if apart.is_nan() { f64::INFINITY } else { apart };
        let one = Worst { index, ours: *ours, oracle: *oracle, apart, allowed: *allowed };
        if index == 0 || one.share() > worst.share() || (one.share() == worst.share() && one.apart > worst.apart) {
            worst = one;
        }
    }
    worst
}
