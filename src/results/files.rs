//! Files that are whole or not there: written beside, synced, checked, then renamed.

use super::error::ResultsError;
use crate::files::sync_folder;
use std::fs::File;
use std::io::Write;
use std::path::Path;

/// Replaces `path` by `bytes`, so that at any moment the old content or the new one is there. `check` reads the written file
/// before it takes the old one's place.
///
/// # Errors
/// Disk, permissions, or what `check` says; the old content stays.
pub(crate) fn replace(
    path: &Path,
    write: impl FnOnce(&mut File) -> Result<(), ResultsError>,
    check: impl FnOnce(&Path) -> Result<(), ResultsError>,
) -> Result<(), ResultsError> {
    let mut name = path.file_name().map(|n| n.to_os_string()).unwrap_or_default();
    name.push(format!(".{}.new", std::process::id()));
    let beside = path.with_file_name(name);
    let outcome = (|| {
        let mut file = File::create(&beside).map_err(ResultsError::io(&beside, "creating"))?;
        write(&mut file)?;
        file.sync_all().map_err(ResultsError::io(&beside, "syncing"))?;
        check(&beside)?;
        std::fs::rename(&beside, path).map_err(ResultsError::io(path, "replacing"))?;
        sync_folder_of(path)
    })();
    if outcome.is_err() {
        // What was begun is of no use to anybody; the error that is reported is the first one.
        let _ = std::fs::remove_file(&beside);
    }
    outcome
}

/// Replaces a text file.
///
/// # Errors
/// Disk or permissions; the old content stays.
pub(crate) fn replace_text(path: &Path, text: &str) -> Result<(), ResultsError> {
    replace(
        path,
        |f| f.write_all(text.as_bytes()).map_err(ResultsError::io(path, "writing")),
        |beside| match std::fs::read(beside) {
            Ok(b) if b == text.as_bytes() => Ok(()),
            Ok(_) => Err(ResultsError::damaged(beside, "reads back differently than it was written")),
            Err(e) => Err(ResultsError::io(beside, "reading back")(e)),
        },
    )
}

/// Makes a rename or a new file last through a power cut.
///
/// # Errors
/// When the system refuses; on systems without such a call nothing is done.
pub(crate) fn sync_folder_of(path: &Path) -> Result<(), ResultsError> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    sync_folder(folder).map_err(ResultsError::io(folder, "syncing"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_check_leaves_the_old_content_and_no_litter() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        replace_text(&path, "old").unwrap();
        let refused = replace(
            &path,
            |f| f.write_all(b"new").map_err(ResultsError::io(&path, "writing")),
            |p| Err(ResultsError::damaged(p, "no")),
        );
        assert!(refused.is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "old");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
