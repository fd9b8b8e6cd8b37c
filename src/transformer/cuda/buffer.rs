//! Arrays on a device. In bf16, what products and kernels read is bf16; gradients of parameters, moments and statistics are f32;
//! a parameter that is trained is both: the f32 that is updated, and the bf16 that is read. What no product reads of the parameters,
//! a share of them for one, is f32 alone.

use super::super::Dtype;
use super::super::backend::Category;
use super::super::error::SessionError;
use super::device::{Address, Device, Real};
use half::bf16;
use std::sync::Arc;

/// Elements that are converted at a time.
const PIECE: usize = 1 << 20;

/// Bytes of a device, given back when dropped.
#[derive(Debug)]
pub(super) struct Memory {
    device: Arc<dyn Device>,
    pub at: Address,
    pub bytes: usize,
}

impl Memory {
    /// # Errors
    /// [`SessionError::OutOfMemory`].
    pub(super) fn new(device: &Arc<dyn Device>, bytes: usize) -> Result<Self, SessionError> {
        Ok(Self { device: Arc::clone(device), at: device.allocate(bytes)?, bytes })
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.device.release(self.at, self.bytes);
    }
}

/// What is read of it by products and kernels.
pub(super) fn real(dtype: Dtype) -> Real {
    match dtype {
        Dtype::F32 | Dtype::Tf32 => Real::F32,
        Dtype::Bf16 => Real::Bf16,
    }
}

/// The formats that an array is held in: whether in bf16, and whether in f32.
fn formats(category: Category, dtype: Dtype) -> (bool, bool) {
    match (real(dtype), category) {
        (Real::Bf16, Category::Weights) => (true, true),
        (Real::Bf16, Category::FixedWeights | Category::Activations) => (true, false),
        // A KV cache is asked for in words of 32 bits, whatever lies in them.
        _ => (false, true),
    }
}

/// Bytes that an array of so many elements takes.
pub(in super::super) fn bytes(len: usize, category: Category, dtype: Dtype) -> u64 {
    let (narrow, wide) = formats(category, dtype);
    len as u64 * (u64::from(narrow) * 2 + u64::from(wide) * 4)
}

/// Where the codes and scales of a matrix in floats of 8 bits lie (`weights_f8`).
#[derive(Clone, Copy, Debug)]
pub(super) struct Coded {
    pub codes: Address,
    pub scales: Address,
}

/// Bytes of such a matrix.
pub(in super::super) fn coded_bytes(rows: usize, columns: usize) -> u64 {
    (rows * (columns + 4)) as u64
}

/// An array of elements.
#[derive(Debug)]
pub(crate) struct Buffer {
    pub(super) len: usize,
    narrow: Option<Memory>,
    wide: Option<Memory>,
    /// Codes and scales of a weight that has nothing else.
    coded: Option<[Memory; 2]>,
}

impl Buffer {
    pub(super) fn new(
        device: &Arc<dyn Device>,
        len: usize,
        category: Category,
        dtype: Dtype,
    ) -> Result<Self, SessionError> {
        let (narrow, wide) = formats(category, dtype);
        let of = |there: bool, size: usize| there.then(|| Memory::new(device, len * size)).transpose();
        Ok(Self { len, narrow: of(narrow, 2)?, wide: of(wide, 4)?, coded: None })
    }

    /// A matrix in floats of 8 bits, still to be written.
    pub(super) fn coded(device: &Arc<dyn Device>, rows: usize, columns: usize) -> Result<Self, SessionError> {
        let len = rows * columns;
        let coded = [Memory::new(device, len)?, Memory::new(device, 4 * rows)?];
        Ok(Self { len, narrow: None, wide: None, coded: Some(coded) })
    }

    /// Its codes and scales, where it is a weight in floats of 8 bits: then it has no elements of its own.
    pub(super) fn codes(&self) -> Option<Coded> {
        self.coded.as_ref().map(|[codes, scales]| Coded { codes: codes.at, scales: scales.at })
    }

    /// What products and kernels read: bf16 where there is any.
    pub(super) fn at(&self) -> Address {
        self.narrow.as_ref().or(self.wide.as_ref()).map_or(0, |m| m.at)
    }

    /// The format of [`Buffer::at`].
    pub(super) fn format(&self) -> Real {
        if self.narrow.is_some() { Real::Bf16 } else { Real::F32 }
    }

    /// Its f32, in the categories that have one.
    pub(super) fn wide(&self) -> Address {
        debug_assert!(self.wide.is_some(), "an array of {} elements without f32", self.len);
        self.wide.as_ref().map_or(0, |m| m.at)
    }

    /// Both, where it has both: the f32 and the bf16 of a parameter that is trained.
    pub(super) fn shadow(&self) -> Option<(Address, Address)> {
        self.wide.as_ref().zip(self.narrow.as_ref()).map(|(w, n)| (w.at, n.at))
    }

    /// Its f32 and its bf16, as far as it has them.
    pub(super) fn each(&self) -> (Option<Address>, Option<Address>) {
        (self.wide.as_ref().map(|m| m.at), self.narrow.as_ref().map(|m| m.at))
    }

    /// Host to device, from the start.
    pub(super) fn write(&self, on: &dyn Device, from: &[f32]) {
        self.write_at(on, 0, from);
    }

    /// Host to device, from an element on.
    pub(super) fn write_at(&self, on: &dyn Device, offset: usize, from: &[f32]) {
        for (i, piece) in from.chunks(PIECE).enumerate() {
            let first = (offset + i * PIECE) as Address;
            if let Some(wide) = &self.wide {
                on.write(&words(piece.iter().map(|x| x.to_ne_bytes())), wide.at + 4 * first);
            }
            if let Some(narrow) = &self.narrow {
                on.write(&words(piece.iter().map(|x| bf16::from_f32(*x).to_ne_bytes())), narrow.at + 2 * first);
            }
        }
    }

    /// Host to device, whole rows that `next` makes, some at a time, so that a large matrix is never whole on the host.
    pub(super) fn write_rows(&self, on: &dyn Device, rows: usize, columns: usize, next: &mut dyn FnMut(&mut [f32])) {
        let at_once = ((1 << 22) / columns.max(1)).clamp(1, rows.max(1));
        let mut host = vec![0.0; at_once * columns];
        for first in (0..rows).step_by(at_once) {
            let part = &mut host[..at_once.min(rows - first) * columns];
            next(part);
            self.write_at(on, first * columns, part);
        }
    }

    /// Device to host: as many elements as `to` holds, from `offset`.
    pub(super) fn read(&self, on: &dyn Device, offset: usize, to: &mut [f32]) {
        for (i, piece) in to.chunks_mut(PIECE).enumerate() {
            let first = (offset + i * PIECE) as Address;
            match (&self.wide, &self.narrow) {
                (Some(wide), _) => {
                    let mut bytes = vec![0; piece.len() * 4];
                    on.read(wide.at + 4 * first, &mut bytes);
                    let each = bytes.as_chunks::<4>().0;
                    piece.iter_mut().zip(each).for_each(|(x, b)| *x = f32::from_ne_bytes(*b));
                }
                (None, Some(narrow)) => {
                    let mut bytes = vec![0; piece.len() * 2];
                    on.read(narrow.at + 2 * first, &mut bytes);
                    let each = bytes.as_chunks::<2>().0;
                    piece.iter_mut().zip(each).for_each(|(x, b)| *x = bf16::from_ne_bytes(*b).to_f32());
                }
                (None, None) => {}
            }
        }
    }
}

/// Words one after another.
pub(super) fn words<const N: usize>(all: impl Iterator<Item = [u8; N]>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(all.size_hint().0 * N);
    all.for_each(|word| bytes.extend_from_slice(&word));
    bytes
}
