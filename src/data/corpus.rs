//! The text that the program carries: two novels by Jane Austen, a document a chapter. `corpus/README.md` says where it is from and
//! why it may be carried.

use super::DataError;

/// As it is stored, by zstd.
pub(super) const STORED: &[u8] = include_bytes!("../../corpus/austen.txt.zst");

/// Bytes of the text, with room.
const MOST: usize = 4 << 20;

/// What it is, in words.
pub(super) const NAME: &str = "Pride and Prejudice and Persuasion, by Jane Austen";

/// The text, the end-of-text mark between its chapters.
///
/// # Errors
/// A program that is damaged.
pub(super) fn text() -> Result<String, DataError> {
    let damaged = |what: String| DataError::at("the built-in text", format!("{what}; install the program again"));
    let bytes = zstd::bulk::decompress(STORED, MOST).map_err(|e| damaged(format!("cannot be unpacked: {e}")))?;
    String::from_utf8(bytes).map_err(|e| damaged(e.to_string()))
}
