//! Ctrl-C and TERM: the first one asks the sweep to stop and keep what it has, the second ends the program at once.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Installs the handlers; the flag is set by the first signal.
///
/// # Errors
/// A system that does not take them.
#[cfg(unix)]
pub(super) fn interrupted_flag() -> io::Result<Arc<AtomicBool>> {
    use super::super::exit::INTERRUPTED;
    use signal_hook::consts::{SIGINT, SIGTERM};
    use signal_hook::flag;
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // Handlers run in this order: the one that exits sees the flag as the signals before left it. A running trial dies
        // with its parent.
        flag::register_conditional_shutdown(signal, i32::from(INTERRUPTED), Arc::clone(&stop))?;
        flag::register(signal, Arc::clone(&stop))?;
    }
    Ok(stop)
}

/// Without signals there is nothing to hear: the flag stays down, and an interrupt ends the program.
///
/// # Errors
/// None.
#[cfg(not(unix))]
pub(super) fn interrupted_flag() -> io::Result<Arc<AtomicBool>> {
    Ok(Arc::new(AtomicBool::new(false)))
}
