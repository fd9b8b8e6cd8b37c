//! Whether what is written to a terminal is coloured.

use std::io::IsTerminal;

/// Whether messages on stderr are coloured.
pub(super) fn colour() -> bool {
    coloured(std::io::stderr().is_terminal())
}

/// Whether what goes to a stream is coloured: NO_COLOR, CLICOLOR_FORCE and TERM=dumb are respected.
pub(super) fn coloured(terminal: bool) -> bool {
    let variable = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty());
    if variable("NO_COLOR").is_some() || variable("TERM").is_some_and(|t| t == "dumb") {
        return false;
    }
    terminal || variable("CLICOLOR_FORCE").is_some_and(|v| v != "0")
}
