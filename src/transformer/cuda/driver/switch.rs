//! Variables that turn something off, so that one can be timed against the other.

/// Whether it is on, as it is unless said otherwise.
///
/// # Errors
/// A value that means nothing.
pub(super) fn is_on(variable: &str, value: Option<&str>) -> Result<bool, String> {
    match value {
        None | Some("" | "on") => Ok(true),
        Some("off") => Ok(false),
        Some(other) => Err(format!("{variable}: expected on or off, found {other:?}; unset it for on")),
    }
}
