//! Asks another build of this program something that needs no measuring.

use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

/// What the program prints on stdout for these arguments.
///
/// # Errors
/// A program that cannot be started, does not succeed, or prints something else than text.
pub(crate) fn ask(program: &Path, arguments: &[&str]) -> io::Result<String> {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let first = said.lines().next().unwrap_or("it said nothing");
        return Err(io::Error::other(format!("{}: {first}", output.status)));
    }
    String::from_utf8(output.stdout).map_err(|_| io::Error::other("its answer is no text"))
}
