//! NVIDIA's libraries, as stand_in_cuda.c stands in for them: built once a test program, and put in a child's way by variables.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// A folder with the libraries.
pub(crate) struct StandIn {
    folder: TempDir,
}

impl StandIn {
    /// `None`, with a word, where there is no C compiler.
    pub(crate) fn build() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/common/stand_in_cuda.c");
        let library = folder.path().join("libcuda.so.1");
        let made =
            Command::new("cc").args(["-shared", "-fPIC", "-O1", "-pthread", "-o"]).args([&library, &source]).output();
        match made {
            Err(e) => {
                println!("skipped: no C compiler: {e}");
                return None;
            }
            Ok(out) => assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr)),
        }
        for name in ["libnvrtc.so.13", "libcublasLt.so.13", "libnccl.so.2", "libnvidia-ml.so.1"] {
            std::os::unix::fs::symlink("libcuda.so.1", folder.path().join(name)).unwrap();
        }
        Some(Self { folder })
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// A file in its folder.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What a child has to be given to find it, with kernels compiled anew: nothing is kept from one child to the next.
    pub(crate) fn variables(&self, settings: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
        let library_path = ("LD_LIBRARY_PATH".into(), self.path().as_os_str().to_owned());
        let none = ["XDG_CACHE_HOME", "HOME"].map(|name| (OsString::from(name), OsString::new()));
        let settings = settings.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
        std::iter::once(library_path).chain(none).chain(settings).collect()
    }

    /// Which call of a child failed, counted from 0.
    pub(crate) fn failed(&self, log: &Path) -> Option<usize> {
        std::fs::read_to_string(log).unwrap_or_default().lines().position(|line| line.ends_with(" fails"))
    }

    /// Names of the calls that a child made, in order; the file is taken away.
    pub(crate) fn calls(&self, log: &Path) -> Vec<String> {
        let text = std::fs::read_to_string(log).unwrap_or_default();
        let _ = std::fs::remove_file(log);
        text.lines().filter_map(|line| line.split(' ').nth(1).map(String::from)).collect()
    }
}
