//! A safetensors file that is written: a stretch of numbers at a time, so that no tensor is in memory twice, and synced.

use serde::{Deserialize, Serialize};
use serde_json::{Map, json};
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

/// Numbers that are asked for at a time.
const AT_ONCE: usize = 1 << 16;
/// The format's own: where data begin.
const ALIGNMENT: usize = 8;

/// A tensor that is to be written, of f32.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::transformer) struct Planned {
    pub name: String,
    pub shape: Vec<usize>,
}

/// A file that is on the disk, and how to tell whether it is whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    /// Its name in its folder.
    pub file: String,
    /// How many it has.
    pub bytes: u64,
    /// Of all of them.
    pub crc32: u32,
}

impl Planned {
    pub(in crate::transformer) fn len(&self) -> usize {
        self.shape.iter().product()
    }
}

/// Makes a file of these tensors, and returns when it is on the disk. `numbers` is told which tensor it is, and the first number of it
/// that is wanted.
///
/// # Errors
/// Disk or permissions; what was begun is left for whoever removes the folder.
pub(in crate::transformer) fn write(
    path: &Path,
    tensors: &[Planned],
    numbers: &mut dyn FnMut(usize, usize, &mut [f32]),
) -> io::Result<Written> {
    let file = File::create(path)?;
    let (bytes, crc32) = write_to(&file, tensors, numbers)?;
    file.sync_all()?;
    let file = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    Ok(Written { file, bytes, crc32 })
}

/// The same to anything: how many bytes there were, and their CRC-32.
fn write_to(
    to: impl Write,
    tensors: &[Planned],
    numbers: &mut dyn FnMut(usize, usize, &mut [f32]),
) -> io::Result<(u64, u32)> {
    let header = header(tensors)?;
    let mut to = Summed { to: BufWriter::new(to), bytes: 0, crc: crc32fast::Hasher::new() };
    to.put(&(header.len() as u64).to_le_bytes())?;
    to.put(&header)?;
    let (mut stretch, mut bytes) = (vec![0.0; AT_ONCE], Vec::with_capacity(4 * AT_ONCE));
    for (i, tensor) in tensors.iter().enumerate() {
        let len = tensor.len();
        for first in (0..len).step_by(AT_ONCE) {
            let stretch = &mut stretch[..AT_ONCE.min(len - first)];
            numbers(i, first, stretch);
            bytes.clear();
            stretch.iter().for_each(|x| bytes.extend_from_slice(&x.to_le_bytes()));
            to.put(&bytes)?;
        }
    }
    to.to.flush()?;
    Ok((to.bytes, to.crc.finalize()))
}

/// Of each tensor its format, dimensions, and first and last byte, filled up with spaces.
fn header(tensors: &[Planned]) -> io::Result<Vec<u8>> {
    let (mut all, mut at) = (Map::new(), 0);
    for tensor in tensors {
        let end = at + 4 * tensor.len();
        all.insert(tensor.name.clone(), json!({"dtype": "F32", "shape": tensor.shape, "data_offsets": [at, end]}));
        at = end;
    }
    let mut header = serde_json::to_vec(&all)?;
    header.resize(header.len().next_multiple_of(ALIGNMENT), b' ');
    Ok(header)
}

/// What is written, counted and summed.
struct Summed<W: Write> {
    to: W,
    bytes: u64,
    crc: crc32fast::Hasher,
}

impl<W: Write> Summed<W> {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.to.write_all(bytes)?;
        self.crc.update(bytes);
        self.bytes += bytes.len() as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::file::{Number, TensorFile};
    use super::*;
    use safetensors::SafeTensors;

    fn planned() -> Vec<Planned> {
        let of = |name: &str, shape: &[usize]| Planned { name: name.into(), shape: shape.into() };
        vec![of("a", &[3, 5]), of("empty", &[0]), of("long", &[AT_ONCE + 7])]
    }

    fn number(tensor: usize, i: usize) -> f32 {
        (tensor * 1_000_000 + i) as f32 + 0.1
    }

    fn fill(tensor: usize, first: usize, out: &mut [f32]) {
        out.iter_mut().enumerate().for_each(|(i, x)| *x = number(tensor, first + i));
    }

    #[test]
    fn the_formats_own_library_reads_what_is_written_and_so_do_we() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        let written = write(&path, &planned(), &mut fill).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!((written.file.as_str(), written.bytes), ("x.safetensors", bytes.len() as u64));
        assert_eq!(written.crc32, crc32fast::hash(&bytes));
        let theirs = SafeTensors::deserialize(&bytes).unwrap();
        let (ours, stated) = TensorFile::open(&path).unwrap();
        for (i, tensor) in planned().iter().enumerate() {
            let expected: Vec<f32> = (0..tensor.len()).map(|n| number(i, n)).collect();
            let view = theirs.tensor(&tensor.name).unwrap();
            let found: Vec<f32> = view.data().as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
            assert_eq!((view.shape(), &found), (&tensor.shape[..], &expected));
            let mut found = vec![0.0; tensor.len()];
            ours.numbers(&stated[&tensor.name], Number::F32, 0, &mut found).unwrap();
            assert_eq!(found, expected);
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_full_disk_is_an_error() {
        let Ok(full) = File::options().write(true).open("/dev/full") else { return };
        assert_eq!(write_to(full, &planned(), &mut fill).unwrap_err().kind(), io::ErrorKind::StorageFull);
    }

    /// Takes so many bytes, and no more.
    struct Small(usize);

    impl Write for Small {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.0 == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            let taken = bytes.len().min(self.0);
            self.0 -= taken;
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn so_is_one_that_is_full_in_the_middle() {
        let (all, _) = write_to(Small(usize::MAX), &planned(), &mut fill).unwrap();
        for room in [0, 7, 100, all as usize / 2, all as usize - 1] {
            assert_eq!(write_to(Small(room), &planned(), &mut fill).unwrap_err().kind(), io::ErrorKind::StorageFull);
        }
        assert_eq!(write_to(Small(all as usize), &planned(), &mut fill).unwrap().0, all);
    }
}
