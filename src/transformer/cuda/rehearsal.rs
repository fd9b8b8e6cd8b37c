//! A device that does nothing and notes which kernels it is asked for: gone through beforehand, a step tells what is to be compiled, by
//! the very code that will ask for it. A kernel that it does not foresee is compiled when it is launched, as without it.

use super::device::{Address, Device, DeviceFacts, Elsewhere, KernelName, Launch, Product, Trace};
use crate::transformer::error::SessionError;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Memory that nothing is in.
#[derive(Debug)]
pub(super) struct Rehearsal {
    facts: DeviceFacts,
    /// Where the next array begins.
    next: AtomicU64,
    asked: Mutex<Vec<KernelName>>,
    trace: Trace,
}

/// Arrays lie so far apart at least, and none at 0.
const PAGE: u64 = 4096;

impl Rehearsal {
    pub(super) fn of(facts: DeviceFacts) -> Self {
        Self { facts, next: AtomicU64::new(PAGE), asked: Mutex::default(), trace: Trace::default() }
    }

    /// What was asked for, each once, in the order in which it is first needed.
    pub(super) fn asked(&self) -> Vec<KernelName> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Device for Rehearsal {
    fn facts(&self) -> &DeviceFacts {
        &self.facts
    }

    fn trace(&self) -> &Trace {
        &self.trace
    }

    fn allocate(&self, bytes: usize) -> Result<Address, SessionError> {
        Ok(self.next.fetch_add((bytes as u64).next_multiple_of(PAGE) + PAGE, Ordering::Relaxed))
    }

    fn release(&self, _at: Address, _bytes: usize) {}

    fn zero(&self, _at: Address, _bytes: usize) {}

    fn copy(&self, _from: Address, _to: Address, _bytes: usize) {}

    fn write(&self, _from: &[u8], _to: Address) {}

    fn read(&self, _from: Address, to: &mut [u8]) {
        to.fill(0);
    }

    fn launch(&self, launch: &Launch<'_>) {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        if !asked.contains(&launch.name()) {
            asked.push(launch.name());
        }
    }

    fn product(&self, _product: &Product) {}

    fn try_product(&self, product: &Product, apart: &dyn Fn(Elsewhere)) -> bool {
        // A GPU times both, and needs the kernels of the steps.
        let (to, _) = product.bytes_elsewhere();
        let beside = PAGE + (to as u64).next_multiple_of(PAGE);
        apart(Elsewhere { to: PAGE, beside });
        true
    }

    fn wait(&self) -> Result<(), SessionError> {
        Ok(())
    }
}
