//! Where Python's packages lie. PyTorch brings NVIDIA's libraries as packages of their own, `site-packages/nvidia/*/lib`, which the
//! system's loader knows nothing of. No interpreter is started: folders follow from where it lies, and from `pyvenv.cfg`.
//!
//! Source: Python's documentation of the module `site`, and PEP 405 on virtual environments.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// What says where Python is.
#[derive(Clone, Debug, Default)]
pub(super) struct Surroundings {
    /// PATH
    pub path: Option<OsString>,
    /// VIRTUAL_ENV and CONDA_PREFIX: environments that are active.
    pub active: Vec<PathBuf>,
    /// HOME, for packages installed with `--user`.
    pub home: Option<PathBuf>,
}

impl Surroundings {
    pub(super) fn of_process() -> Self {
        let folder = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        Self {
            path: std::env::var_os("PATH"),
            active: ["VIRTUAL_ENV", "CONDA_PREFIX"].into_iter().filter_map(folder).collect(),
            home: folder("HOME"),
        }
    }

    /// Folders that packages are installed into, of active environments first, then of the first `python3` on PATH. One that an
    /// environment does not look into is named as well: libraries of the interpreter beneath it serve as well as its own.
    pub(super) fn sites(&self) -> Vec<PathBuf> {
        let mut prefixes = self.active.clone();
        let folders = self.path.as_ref().map(|p| std::env::split_paths(p).collect::<Vec<_>>()).unwrap_or_default();
        if let Some(interpreter) = folders.iter().map(|f| f.join("python3")).find(|p| p.is_file()) {
            prefixes.extend(prefixes_of(&interpreter));
        }
        prefixes.extend(self.home.iter().map(|h| h.join(".local")));
        let mut sites: Vec<PathBuf> = Vec::new();
        for site in prefixes.iter().flat_map(|p| sites_of(p)) {
            // Debian's `lib64` and the like are links to `lib`.
            let same = |other: &PathBuf| std::fs::canonicalize(other).ok() == std::fs::canonicalize(&site).ok();
            if !sites.iter().any(same) {
                sites.push(site);
            }
        }
        sites
    }
}

/// The environment that an interpreter lies in, the one that `pyvenv.cfg` says that was made of, and where links lead.
fn prefixes_of(interpreter: &Path) -> Vec<PathBuf> {
    let above = |file: &Path| file.parent().and_then(Path::parent).map(Path::to_path_buf);
    let own = above(interpreter);
    let made_of = own.as_ref().and_then(|prefix| std::fs::read_to_string(prefix.join("pyvenv.cfg")).ok());
    let home = made_of.as_deref().and_then(|text| {
        let line = text.lines().find_map(|l| l.split_once('=').filter(|(key, _)| key.trim() == "home"));
        line.and_then(|(_, home)| Path::new(home.trim()).parent().map(Path::to_path_buf))
    });
    let linked = std::fs::canonicalize(interpreter).ok().and_then(|file| above(&file));
    own.into_iter().chain(home).chain(linked).collect()
}

/// `<prefix>/lib/python3.12/site-packages` and its kin.
fn sites_of(prefix: &Path) -> Vec<PathBuf> {
    let mut sites = Vec::new();
    for lib in ["lib", "lib64", "local/lib"].map(|l| prefix.join(l)) {
        let entries = std::fs::read_dir(lib).into_iter().flatten().filter_map(Result::ok);
        let mut versions: Vec<PathBuf> =
            entries.filter(|e| e.file_name().to_string_lossy().starts_with("python3")).map(|e| e.path()).collect();
        versions.sort();
        let both = versions.iter().flat_map(|v| ["site-packages", "dist-packages"].map(|name| v.join(name)));
        sites.extend(both.filter(|s| s.is_dir()));
    }
    sites
}

/// Folders of NVIDIA's libraries among the packages of a folder; where there are none, the one that they would be under, to be told.
pub(super) fn libraries(site: &Path) -> Vec<PathBuf> {
    let packages = site.join("nvidia");
    let entries = std::fs::read_dir(&packages).into_iter().flatten().filter_map(Result::ok);
    let mut folders: Vec<PathBuf> = entries.map(|e| e.path().join("lib")).filter(|lib| lib.is_dir()).collect();
    folders.sort();
    if folders.is_empty() { vec![packages] } else { folders }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn folder(at: &Path) -> PathBuf {
        std::fs::create_dir_all(at).unwrap();
        at.to_path_buf()
    }

    fn file(at: &Path, text: &str) -> PathBuf {
        folder(at.parent().unwrap());
        std::fs::write(at, text).unwrap();
        at.to_path_buf()
    }

    /// An interpreter beneath, with packages, and an environment made of it.
    fn machine(root: &Path) -> (Surroundings, PathBuf, PathBuf) {
        let base = folder(&root.join("usr/lib/python3.12/site-packages"));
        let interpreter = file(&root.join("usr/bin/python3"), "");
        let env = folder(&root.join("env/lib/python3.12/site-packages"));
        folder(&root.join("env/bin"));
        symlink(&interpreter, root.join("env/bin/python3")).unwrap();
        let path = std::env::join_paths([root.join("nothing"), root.join("env/bin"), root.join("usr/bin")]).unwrap();
        (Surroundings { path: Some(path), ..Surroundings::default() }, base, env)
    }

    fn real(paths: Vec<PathBuf>) -> Vec<PathBuf> {
        paths.iter().map(|p| std::fs::canonicalize(p).unwrap()).collect()
    }

    #[test]
    fn an_environment_on_path_goes_before_the_interpreter_that_it_links_to() {
        let root = tempfile::tempdir().unwrap();
        let (around, base, env) = machine(root.path());
        assert_eq!(real(around.sites()), real(vec![env, base]));
    }

    #[test]
    fn an_active_environment_that_is_not_on_path_goes_first() {
        let root = tempfile::tempdir().unwrap();
        let (around, base, env) = machine(root.path());
        let active = folder(&root.path().join("active/lib/python3.11/site-packages"));
        let around = Surroundings { active: vec![root.path().join("active")], ..around };
        assert_eq!(real(around.sites()), real(vec![active, env, base]));
    }

    #[test]
    fn a_copied_interpreter_is_followed_by_what_its_environment_says() {
        let root = tempfile::tempdir().unwrap();
        let base = folder(&root.path().join("opt/lib64/python3.13/dist-packages"));
        file(&root.path().join("env/bin/python3"), "");
        let home = format!("home = {}\nversion = 3.13\n", root.path().join("opt/bin").display());
        file(&root.path().join("env/pyvenv.cfg"), &home);
        let path = Some(root.path().join("env/bin").into_os_string());
        assert_eq!(real(Surroundings { path, ..Surroundings::default() }.sites()), real(vec![base]));
    }

    #[test]
    fn nothing_is_found_where_there_is_no_python() {
        assert!(Surroundings::default().sites().is_empty());
    }

    #[test]
    fn packages_are_folders_with_libraries_and_their_absence_is_told() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(libraries(root.path()), [root.path().join("nvidia")]);
        let [nccl, cuda] = ["nvidia/nccl/lib", "nvidia/cu13/lib"].map(|p| folder(&root.path().join(p)));
        folder(&root.path().join("nvidia/headers/include"));
        assert_eq!(libraries(root.path()), [cuda, nccl]);
    }
}
