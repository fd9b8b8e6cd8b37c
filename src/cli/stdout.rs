//! Text on stdout, within the width of the terminal behind it.

use super::Failure;
use super::colour::coloured;
use crate::report::{Style, wrapped};
use std::io::{IsTerminal, Write};

/// One text and a line's end.
pub(super) fn print(text: &str) -> Result<(), Failure> {
    writeln!(std::io::stdout(), "{}", text.trim_end_matches('\n'))
        .map_err(|e| Failure::Io(anyhow::Error::new(e).context("writing to stdout")))
}

/// One text within the terminal's width, its lines each by itself.
pub(super) fn print_wrapped(text: &str) -> Result<(), Failure> {
    let style = stdout_style();
    print(&text.lines().map(|l| wrapped(l, style, "  ")).collect::<Vec<_>>().join("\n"))
}

/// How the terminal behind stdout wants its tables.
pub(super) fn stdout_style() -> Style {
    let terminal = std::io::stdout().is_terminal();
    Style { width: terminal.then(width).flatten(), colour: coloured(terminal) }
}

#[cfg(unix)]
fn width() -> Option<u16> {
    rustix::termios::tcgetwinsize(std::io::stdout()).ok().map(|s| s.ws_col).filter(|w| *w > 0)
}

#[cfg(not(unix))]
fn width() -> Option<u16> {
    Some(100)
}
