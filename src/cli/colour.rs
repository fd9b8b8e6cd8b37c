//! Whether what is written to a terminal is coloured.

use std::io::IsTerminal;

/// Whether messages on stderr are coloured: NO_COLOR, CLICOLOR_FORCE and TERM=dumb are respected.
pub fn colour() -> bool {
    let set = |name: &str| std::env::var_os(name).is_some_and(|v| !v.is_empty());
    if set("NO_COLOR") || std::env::var_os("TERM").is_some_and(|t| t == "dumb") {
        return false;
    }
    std::env::var_os("CLICOLOR_FORCE").is_some_and(|v| v != "0" && !v.is_empty()) || std::io::stderr().is_terminal()
}
