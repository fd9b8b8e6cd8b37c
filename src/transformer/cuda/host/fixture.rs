//! What tests of kernels share: elements in and out of a device, and how near to the oracle they must be.

use super::super::super::cpu::array::Array;
use super::super::super::random::Stream;
use super::super::device::{Address, Device, Real};
use super::HostDevice;
use half::bf16;

impl HostDevice {
    /// A new allocation with these elements in it, rounded to `real`.
    pub(crate) fn put(&self, real: Real, elements: &[f32]) -> Address {
        let at = self.allocate(elements.len() * real.size()).unwrap();
        self.set(real, at, elements);
        at
    }

    /// A new allocation with these words in it: ids, positions.
    pub(crate) fn put_words(&self, words: &[u32]) -> Address {
        let at = self.allocate(words.len() * 4).unwrap();
        self.write(bytemuck(words), at);
        at
    }

    /// Overwrites elements.
    pub(crate) fn set(&self, real: Real, at: Address, elements: &[f32]) {
        let bytes: Vec<u8> = match real {
            Real::F32 => elements.iter().flat_map(|x| x.to_ne_bytes()).collect(),
            Real::Bf16 => elements.iter().flat_map(|x| bf16::from_f32(*x).to_ne_bytes()).collect(),
        };
        self.write(&bytes, at);
    }

    /// Elements that lie on the device.
    pub(crate) fn get(&self, real: Real, at: Address, len: usize) -> Vec<f32> {
        let mut bytes = vec![0u8; len * real.size()];
        self.read(at, &mut bytes);
        match real {
            Real::F32 => bytes.chunks_exact(4).map(|b| f32::from_ne_bytes([b[0], b[1], b[2], b[3]])).collect(),
            Real::Bf16 => bytes.chunks_exact(2).map(|b| bf16::from_ne_bytes([b[0], b[1]]).to_f32()).collect(),
        }
    }

    /// Words that lie on the device.
    pub(crate) fn get_words(&self, at: Address, len: usize) -> Vec<u32> {
        let mut bytes = vec![0u8; len * 4];
        self.read(at, &mut bytes);
        bytes.chunks_exact(4).map(|b| u32::from_ne_bytes([b[0], b[1], b[2], b[3]])).collect()
    }
}

fn bytemuck(words: &[u32]) -> &[u8] {
    // SAFETY: any u32 is four bytes, and bytes have no alignment.
    unsafe { std::slice::from_raw_parts(words.as_ptr().cast(), words.len() * 4) }
}

/// As the oracle takes them.
pub(in super::super::super) fn array(elements: &[f32]) -> Array {
    let mut a = Array::zeros(elements.len()).unwrap();
    a.copy_from_slice(elements);
    a
}

/// Normal numbers, the same for the same stream.
pub(in super::super::super) fn random(len: usize, stream: u64) -> Vec<f32> {
    let mut x = vec![0.0; len];
    Stream::new(17, stream).fill_normal(&mut x, 1.0);
    x
}

/// The elements as `real` holds them: what an oracle must be given.
pub(in super::super::super) fn rounded(real: Real, mut elements: Vec<f32>) -> Vec<f32> {
    if real == Real::Bf16 {
        elements.iter_mut().for_each(|x| *x = bf16::from_f32(*x).to_f32());
    }
    elements
}

/// Words below `bound`.
pub(in super::super::super) fn ids(len: usize, bound: u32, stream: u64) -> Vec<u32> {
    let mut s = Stream::new(23, stream);
    (0..len).map(|_| s.below(bound)).collect()
}

/// Each element within `relative` of itself and `absolute` of the oracle's.
pub(in super::super::super) fn within(what: &str, got: &[f32], want: &[f32], relative: f32, absolute: f32) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        let bound = relative * w.abs() + absolute;
        assert!((g - w).abs() <= bound || g == w, "{what}: element {i} is {g}, the oracle says {w}, bound {bound}");
    }
}

/// What f32 sums may be off by: an f32 sum of K products is off by at most about sqrt(K) units of 2^-24 relative to the sum of
/// magnitudes; with K <= 4096 and the few functions behind it, 2e-5 of the largest result is ten times that.
const OF_SUMS: f32 = 2e-5;

/// As near as the format allows, `roundings` being how many times a result of this size was rounded to it: each moves a bf16
/// number, of 8 significant bits, by up to 2^-8 of itself (f32: 2^-24, which [`OF_SUMS`] covers).
pub(in super::super::super) fn close_to(what: &str, real: Real, roundings: u32, got: &[f32], want: &[f32]) {
    let scale = want.iter().fold(1e-3f32, |m, x| m.max(x.abs()));
    let relative = if real == Real::Bf16 { roundings as f32 * 2f32.powi(-8) } else { 0.0 };
    within(what, got, want, relative, OF_SUMS * scale);
}

/// [`close_to`] with the one rounding of a result.
pub(in super::super::super) fn close(what: &str, real: Real, got: &[f32], want: &[f32]) {
    close_to(what, real, 1, got, want);
}
