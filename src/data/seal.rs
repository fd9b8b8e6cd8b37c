//! What is known of a source before anything is prepared: that its files are there, what sets their content apart, how many tokens
//! there will be.

use super::source::{Source, Tokenizer, What};
use super::tokenizer::{Encoder, LEAST_BPE};
use super::{DataError, corpus, files};
use sha2::{Digest, Sha256};
use std::path::Path;

impl Source {
    /// The same with paths from the working directory instead of from `base`, and the digest of what they lead to: every file's bytes
    /// in their order, and how they are read.
    ///
    /// # Errors
    /// A pattern that nothing matches; a file that cannot be read, is of a kind that is not known, or is no tokenizer; sizes that
    /// cannot be.
    pub fn seal(&self, base: &Path) -> Result<Self, DataError> {
        if !(self.share > 0.0 && self.share <= 1.0) {
            let message = format!("expected a share over 0 and at most 1, found {}; 1 is all of it", self.share);
            return Err(DataError::at("data.share", message));
        }
        let mut sealed = self.clone();
        if let Tokenizer::File(path) = &mut sealed.tokenizer {
            *path = base.join(&*path);
        }
        let mut content = Content::new();
        match &mut sealed.what {
            What::Corpus => content.add(corpus::STORED),
            What::Text(named) => {
                for pattern in &mut named.patterns {
                    *pattern = files::locate(pattern, base)?;
                }
                files::digest(named, |part| content.add(part))?;
            }
            What::Synthetic(language) => {
                language.check()?;
                sealed.tokenizer = Tokenizer::Bytes;
                content.add(&language.identity());
            }
        }
        match &sealed.tokenizer {
            Tokenizer::Bytes => {}
            Tokenizer::Bpe(n) if *n < LEAST_BPE => {
                let message =
                    format!("expected at least {LEAST_BPE} tokens, a byte each and an end of text, found {n}");
                return Err(DataError::at("data.tokenizer.bpe", message));
            }
            Tokenizer::Bpe(_) => {}
            Tokenizer::File(path) => content.add(&std::fs::read(path).map_err(DataError::io(path, "reading"))?),
        }
        sealed.digest = content.0.finalize().iter().take(12).map(|b| format!("{b:02x}")).collect();
        Ok(sealed)
    }

    /// How many different tokens there are: what a model's vocabulary has to be at least. Nothing is trained to know it.
    ///
    /// # Errors
    /// A file that is no tokenizer.
    pub fn vocabulary(&self) -> Result<u32, DataError> {
        match (&self.what, &self.tokenizer) {
            (What::Synthetic(language), _) => Ok(language.vocabulary),
            (_, Tokenizer::Bpe(n)) => Ok(*n),
            (_, tokenizer) => Ok(Encoder::open(tokenizer)?.vocabulary()),
        }
    }
}

/// A digest of parts, each with its length, so that nothing of one part can pass for the next.
struct Content(Sha256);

impl Content {
    fn new() -> Self {
        Self(Sha256::new())
    }

    fn add(&mut self, part: &[u8]) {
        self.0.update((part.len() as u64).to_le_bytes());
        self.0.update(part);
    }
}
