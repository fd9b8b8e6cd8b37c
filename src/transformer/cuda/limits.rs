//! What a GPU reaches at its best: a large square product in each format, and a large copy. MFU and MBU are held against it,
//! beside the datasheet's.

use super::super::error::SessionError;
use super::super::random::Stream;
use super::buffer::Memory;
use super::device::{Device, Epilogue, Matrix, Product, Real};
use super::driver::CudaGpu;
use half::bf16;
use std::sync::Arc;
use std::time::Instant;

/// Rates of one device.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Limits {
    /// FLOP/s of products by the format of their factors: f32, tf32, bf16; sums in f32.
    pub flops_per_second: Vec<(&'static str, f64)>,
    /// Bytes read and written a second.
    pub copy_bytes_per_second: f64,
}

/// How much is multiplied and copied.
#[derive(Clone, Copy, Debug)]
pub(super) struct Amount {
    /// Rows and columns of the products.
    pub size: usize,
    pub copied: usize,
    pub rounds: usize,
    /// Products or copies of a round.
    pub repeats: usize,
}

/// Large enough that launches and the last wave of tiles do not count: 0.4 GB of operands, 1 TFLOP a product; a copy of 1 GiB is
/// 20 times an H100's level 2 cache.
pub(super) const AMOUNT: Amount = Amount { size: 8192, copied: 1 << 30, rounds: 5, repeats: 10 };

/// Elements that are made; the rest repeats them.
const DRAWN: usize = 1 << 20;

/// Measures the GPU of this number. Takes about a second, and 2.5 GiB of its memory.
///
/// # Errors
/// What is missing, memory, or what the device says.
pub(crate) fn limits(ordinal: usize) -> Result<Limits, SessionError> {
    measure(&(Arc::new(CudaGpu::open(ordinal)?) as Arc<dyn Device>), AMOUNT)
}

fn measure(on: &Arc<dyn Device>, amount: Amount) -> Result<Limits, SessionError> {
    let kinds = [("f32", Real::F32, false), ("tf32", Real::F32, true), ("bf16", Real::Bf16, false)];
    let mut flops_per_second = Vec::new();
    for (name, real, tf32) in kinds {
        flops_per_second.push((name, products(on, amount, real, tf32)?));
    }
    Ok(Limits { flops_per_second, copy_bytes_per_second: copies(on, amount)? })
}

/// The best round: a neighbour or a clock that still rises only ever slows one down.
pub(super) fn best(
    on: &Arc<dyn Device>,
    amount: Amount,
    work: f64,
    mut ask: impl FnMut(),
) -> Result<f64, SessionError> {
    ask();
    on.wait()?;
    let mut rate = 0.0f64;
    for _ in 0..amount.rounds {
        let start = Instant::now();
        (0..amount.repeats).for_each(|_| ask());
        on.wait()?;
        rate = rate.max(work * amount.repeats as f64 / start.elapsed().as_secs_f64());
    }
    Ok(rate)
}

pub(super) fn products(on: &Arc<dyn Device>, amount: Amount, real: Real, tf32: bool) -> Result<f64, SessionError> {
    let n = amount.size;
    let bytes = n * n * real.size();
    let [a, b, to] = [(); 3].map(|()| Memory::new(on, bytes));
    let (a, b, to) = (a?, b?, to?);
    [&a, &b].into_iter().for_each(|memory| fill_with_noise(on, real, memory));
    let matrix = |memory: &Memory, transposed| Matrix { address: memory.at, format: real, transposed, stride: n };
    let product = Product {
        n,
        k: n,
        m: n,
        a: matrix(&a, false),
        b: matrix(&b, true),
        to: matrix(&to, false),
        bias: None,
        plus: None,
        epilogue: Epilogue::Nothing,
        tf32,
    };
    best(on, amount, 2.0 * (n as f64).powi(3), || on.product(&product))
}

/// Noise: constant factors switch fewer transistors, and the clock would rise beyond what a model sees.
pub(super) fn fill_with_noise(on: &Arc<dyn Device>, real: Real, memory: &Memory) {
    let drawn = noise(real, DRAWN.min(memory.bytes / real.size()));
    let mut at = 0;
    while at < memory.bytes {
        let part = drawn.len().min(memory.bytes - at);
        on.write(&drawn[..part], memory.at + at as u64);
        at += part;
    }
}

fn noise(real: Real, len: usize) -> Vec<u8> {
    let mut numbers = vec![0.0f32; len];
    Stream::new(0, 0).fill_normal(&mut numbers, 1.0);
    match real {
        Real::F32 => numbers.iter().flat_map(|x| x.to_ne_bytes()).collect(),
        Real::Bf16 => numbers.iter().flat_map(|x| bf16::from_f32(*x).to_ne_bytes()).collect(),
    }
}

fn copies(on: &Arc<dyn Device>, amount: Amount) -> Result<f64, SessionError> {
    let (from, to) = (Memory::new(on, amount.copied)?, Memory::new(on, amount.copied)?);
    best(on, amount, 2.0 * amount.copied as f64, || on.copy(from.at, to.at, amount.copied))
}

#[cfg(test)]
mod tests {
    use super::super::host::HostDevice;
    use super::*;

    #[test]
    fn every_format_and_the_copy_have_a_rate() {
        let Some(host) = HostDevice::new() else { return };
        let host: Arc<dyn Device> = Arc::new(host);
        let amount = Amount { size: 33, copied: 1001, rounds: 2, repeats: 2 };
        let found = measure(&host, amount).unwrap();
        let names: Vec<&str> = found.flops_per_second.iter().map(|(n, _)| *n).collect();
        assert_eq!(names, ["f32", "tf32", "bf16"]);
        assert!(found.flops_per_second.iter().all(|(_, r)| r.is_finite() && *r > 0.0), "{found:?}");
        assert!(found.copy_bytes_per_second > 0.0);
    }

    #[test]
    fn without_a_gpu_it_is_said() {
        if super::super::driver::available().is_err() {
            assert!(matches!(limits(0), Err(SessionError::NoCuda(_))));
        }
    }
}
