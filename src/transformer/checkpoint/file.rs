//! One safetensors file: which tensors it holds, where, and their numbers.
//!
//! The format: 8 bytes with the length of a header, the header (JSON: of each tensor its format, dimensions, and first and last byte of
//! the data), the data.

use super::CheckpointError;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// The longest header that is read, as in the format's own library.
const LONGEST_HEADER: u64 = 100_000_000;
/// Bytes before the header.
const PREFIX: u64 = 8;
/// Numbers that are read at a time.
const AT_ONCE: usize = 1 << 16;
/// What to do about a file that does not hold what it says.
const DAMAGED: &str = "the file is cut short or damaged; fetch it again";

/// A format of numbers that is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::transformer) enum Number {
    F32,
    F16,
    Bf16,
}

impl Number {
    /// By the name that headers have.
    pub(in crate::transformer) fn named(name: &str) -> Option<Self> {
        match name {
            "F32" => Some(Self::F32),
            "F16" => Some(Self::F16),
            "BF16" => Some(Self::Bf16),
            _ => None,
        }
    }

    /// Bytes of one.
    pub(in crate::transformer) fn size(self) -> usize {
        if self == Self::F32 { 4 } else { 2 }
    }

    fn read(self, bytes: &[u8], out: &mut [f32]) {
        match self {
            Self::F32 => each(bytes, out, f32::from_le_bytes),
            Self::F16 => each(bytes, out, |b| half::f16::from_le_bytes(b).to_f32()),
            Self::Bf16 => each(bytes, out, |b| half::bf16::from_le_bytes(b).to_f32()),
        }
    }
}

fn each<const W: usize>(bytes: &[u8], out: &mut [f32], read: impl Fn([u8; W]) -> f32) {
    out.iter_mut().zip(bytes.as_chunks::<W>().0).for_each(|(o, b)| *o = read(*b));
}

/// A tensor as a header states it.
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub(in crate::transformer) struct Stated {
    /// By its name.
    pub dtype: String,
    pub shape: Vec<u64>,
    /// First byte and the one after the last, of the data.
    data_offsets: [u64; 2],
}

impl Stated {
    /// Whether it lies within so many bytes of data, and has the bytes of its dimensions.
    ///
    /// # Errors
    /// What is wrong with it.
    fn check(&self, data: u64) -> Result<(), String> {
        let [first, end] = self.data_offsets;
        if first > end || end > data {
            return Err(format!("expected bytes within the file's {data}, found {first} to {end}; {DAMAGED}"));
        }
        let Some(number) = Number::named(&self.dtype) else { return Ok(()) };
        let bytes = self.shape.iter().try_fold(number.size() as u64, |n, d| n.checked_mul(*d));
        if bytes != Some(end - first) {
            let (shape, dtype) = (&self.shape, &self.dtype);
            return Err(format!("expected the bytes of {shape:?} in {dtype}, found {}; {DAMAGED}", end - first));
        }
        Ok(())
    }
}

/// An open file.
#[derive(Debug)]
pub(in crate::transformer) struct TensorFile {
    pub path: PathBuf,
    /// Of the whole.
    pub bytes: u64,
    /// As it stands in the file.
    pub header: Vec<u8>,
    file: Mutex<File>,
}

impl TensorFile {
    /// Opens a file and reads its header.
    ///
    /// # Errors
    /// A file that is not there, or whose header does not fit what is in it.
    pub(in crate::transformer) fn open(path: &Path) -> Result<(Self, BTreeMap<String, Stated>), CheckpointError> {
        let fault = |message: String| CheckpointError::new(path, message);
        let unread = |e: io::Error| fault(format!("cannot be read: {e}"));
        let mut file = File::open(path).map_err(unread)?;
        let bytes = file.metadata().map_err(unread)?.len();
        let mut prefix = [0; PREFIX as usize];
        let short = || fault(format!("expected a safetensors file, found {bytes} bytes; {DAMAGED}"));
        file.read_exact(&mut prefix).map_err(|_| short())?;
        let length = u64::from_le_bytes(prefix);
        if length > LONGEST_HEADER || PREFIX + length > bytes {
            return Err(fault(format!(
                "expected a header within the file's {bytes} bytes, found one of {length}; {DAMAGED}, or no safetensors file"
            )));
        }
        let mut header = vec![0; length as usize];
        file.read_exact(&mut header).map_err(unread)?;
        let tensors = stated(&header, bytes - PREFIX - length).map_err(fault)?;
        Ok((Self { path: path.into(), bytes, header, file: Mutex::new(file) }, tensors))
    }

    /// Numbers of a tensor from the `first`-th on, as many as `out` holds.
    ///
    /// # Errors
    /// As the system says.
    pub(in crate::transformer) fn numbers(
        &self,
        of: &Stated,
        number: Number,
        first: usize,
        out: &mut [f32],
    ) -> io::Result<()> {
        let start = PREFIX + self.header.len() as u64 + of.data_offsets[0] + (first * number.size()) as u64;
        let mut bytes = vec![0; out.len().min(AT_ONCE) * number.size()];
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.seek(SeekFrom::Start(start))?;
        for out in out.chunks_mut(AT_ONCE) {
            let bytes = &mut bytes[..out.len() * number.size()];
            file.read_exact(bytes)?;
            number.read(bytes, out);
        }
        Ok(())
    }

    /// Up to so many bytes from the middle of a tensor.
    ///
    /// # Errors
    /// As the system says.
    pub(in crate::transformer) fn sample(&self, of: &Stated, most: u64) -> io::Result<Vec<u8>> {
        let [first, end] = of.data_offsets;
        let len = most.min(end - first);
        let start = PREFIX + self.header.len() as u64 + first + (end - first - len) / 2;
        let mut bytes = vec![0; len as usize];
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(&mut bytes)?;
        Ok(bytes)
    }
}

/// The tensors of a header, in a file with so many bytes of data.
fn stated(header: &[u8], data: u64) -> Result<BTreeMap<String, Stated>, String> {
    let no_header =
        |e: serde_json::Error| format!("expected a safetensors header, found what is none ({e}); {DAMAGED}");
    let mut all: BTreeMap<String, serde_json::Value> = serde_json::from_slice(header).map_err(no_header)?;
    all.remove("__metadata__");
    let one = |(name, value): (String, serde_json::Value)| {
        let of = |message: String| format!("tensor {name}: {message}");
        let stated: Stated = serde_json::from_value(value).map_err(|e| of(no_header(e)))?;
        stated.check(data).map_err(of)?;
        Ok((name, stated))
    };
    all.into_iter().map(one).collect()
}
