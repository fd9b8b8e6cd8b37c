//! Compiled kernels on disk, so that a second run starts at once: `$XDG_CACHE_HOME/centime/kernels/<key>`, or under `~/.cache`.
//!
//! An entry is the SHA-256 of what follows it: the kernel's name, a zero, the code. A damaged one, or none, is compiled anew; a folder that cannot be written to
//! costs time and nothing else. Files are written beside and renamed, so that none is ever seen half.

use super::compiler::Image;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

const SUM: usize = 32;

/// A folder of compiled kernels.
#[derive(Clone, Debug)]
pub(super) struct Cache(Option<PathBuf>);

impl Cache {
    /// The user's; none where neither XDG_CACHE_HOME nor HOME is set.
    pub(super) fn of_user() -> Self {
        let set = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        // The XDG specification says that a relative path is to be ignored.
        let base = set("XDG_CACHE_HOME").filter(|p| p.is_absolute()).or_else(|| set("HOME").map(|h| h.join(".cache")));
        Self(base.map(|b| b.join("centime").join("kernels")))
    }

    /// Keeps nothing and finds nothing.
    pub(super) fn none() -> Self {
        Self(None)
    }

    #[cfg(test)]
    fn at(folder: &Path) -> Self {
        Self(Some(folder.to_path_buf()))
    }

    /// The kernel of this key, made by `compile` where it is not there yet.
    ///
    /// # Errors
    /// Those of `compile`.
    pub(super) fn get<E>(&self, key: &str, compile: impl FnOnce() -> Result<Image, E>) -> Result<Image, E> {
        let path = self.0.as_ref().map(|folder| folder.join(key));
        if let Some(image) = path.as_deref().and_then(read) {
            return Ok(image);
        }
        let image = compile()?;
        if let Some(path) = path {
            // Only time is lost when it cannot be kept.
            let _ = write(&path, &image);
        }
        Ok(image)
    }
}

fn read(path: &Path) -> Option<Image> {
    let bytes = std::fs::read(path).ok()?;
    let (sum, rest) = bytes.split_at_checked(SUM)?;
    if Sha256::digest(rest)[..] != *sum {
        return None;
    }
    let end = rest.iter().position(|byte| *byte == 0)?;
    Some(Image { symbol: String::from_utf8(rest[..end].to_vec()).ok()?, code: rest[end + 1..].to_vec() })
}

fn write(path: &Path, image: &Image) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    // Two ranks of a process may write the same at once.
    let beside = path.with_extension(format!("{}-{:?}.part", std::process::id(), std::thread::current().id()));
    let content = [image.symbol.as_bytes(), &[0], &image.code].concat();
    let mut bytes = Sha256::digest(&content).to_vec();
    bytes.extend_from_slice(&content);
    std::fs::write(&beside, bytes)?;
    std::fs::rename(&beside, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(code: &[u8]) -> Image {
        Image { symbol: "_Z1kv".into(), code: code.to_vec() }
    }

    fn compiled(what: &[u8]) -> impl FnOnce() -> Result<Image, String> {
        let image = image(what);
        move || Ok(image)
    }

    fn never() -> Result<Image, String> {
        Err("compiled again".into())
    }

    #[test]
    fn a_kernel_is_compiled_once_and_again_when_its_entry_is_damaged() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::at(&folder.path().join("not/yet/there"));
        assert_eq!(cache.get("k", compiled(b"code")), Ok(image(b"code")));
        assert_eq!(cache.get("k", never), Ok(image(b"code")));
        let entry = folder.path().join("not/yet/there/k");
        for damage in [&b""[..], b"short", &[0; 40]] {
            std::fs::write(&entry, damage).unwrap();
            assert_eq!(cache.get("k", compiled(b"anew")), Ok(image(b"anew")));
            assert_eq!(cache.get("k", never), Ok(image(b"anew")));
        }
        assert_eq!(cache.get("other", never), Err("compiled again".into()));
    }

    #[test]
    fn a_folder_that_cannot_be_written_to_costs_only_time() {
        let cache = Cache::at(Path::new("/proc/centime"));
        for _ in 0..2 {
            assert_eq!(cache.get("k", compiled(b"code")), Ok(image(b"code")));
        }
    }
}
