//! What it takes for a file that was written to be there after a power cut, beside syncing its content.

use std::io;
use std::path::Path;

/// Makes new files of a folder, and their new names, last; the working folder where `folder` is empty, as the parent of a name alone is.
///
/// # Errors
/// When the system refuses; on systems without such a call nothing is done.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    #[cfg(unix)]
    std::fs::File::open(if folder.as_os_str().is_empty() { Path::new(".") } else { folder })?.sync_all()?;
    #[cfg(not(unix))]
    let _ = folder;
    Ok(())
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn folders_are_synced_and_what_is_not_there_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        sync_folder(folder.path()).unwrap();
        sync_folder(Path::new("")).unwrap();
        assert_eq!(sync_folder(&folder.path().join("gone")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
