//! Where tokens come from, as a scenario or a command says it.

use super::synthetic::Language;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// What is trained on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Source {
    /// The text, or the language.
    pub what: What,
    /// How text becomes tokens; a synthetic language has its own and ignores this.
    pub tokenizer: Tokenizer,
    /// How much of the training part is used, over 0 and at most 1: whole documents and the beginning of one more, to the token. Of
    /// two shares the smaller is part of the larger. Neither the tokenizer nor the validation part depends on it.
    pub share: f64,
    /// What the content is, in 24 hexadecimal digits of SHA-256; empty until [`Source::seal`].
    pub digest: String,
}

/// A text or a language.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// The text that the program carries.
    Corpus,
    /// Files of text, JSON lines or Parquet.
    Text(Files),
    /// A language that is drawn, with an entropy that is known.
    Synthetic(Language),
}

/// Files, by their names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Files {
    /// Paths, or patterns of them (`corpus/*.txt`, `**/*.jsonl`), in the order in which they are read; those of one pattern by name.
    pub patterns: Vec<String>,
    /// The field of a JSON line that holds its text.
    pub field: String,
    /// The column of a Parquet file that holds texts.
    pub column: String,
}

/// How text becomes tokens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tokenizer {
    /// Bytes of UTF-8; 0, which is in no text, ends a document.
    Bytes,
    /// Byte pairs of bytes, trained on the training part, so many tokens in all.
    Bpe(u32),
    /// A `tokenizer.json` of Hugging Face's.
    File(PathBuf),
}

impl Files {
    /// Files whose texts are under "text".
    pub fn new(patterns: Vec<String>) -> Self {
        Self { patterns, field: "text".into(), column: "text".into() }
    }
}

impl Source {
    /// All of it, not sealed.
    pub fn new(what: What, tokenizer: Tokenizer) -> Self {
        Self { what, tokenizer, share: 1.0, digest: String::new() }
    }

    /// What a trial is told apart by: without the paths, since of files the content counts.
    pub fn identity(&self) -> Self {
        let mut bare = self.clone();
        if let What::Text(files) = &mut bare.what {
            files.patterns.clear();
        }
        if let Tokenizer::File(path) = &mut bare.tokenizer {
            *path = PathBuf::new();
        }
        bare
    }

    /// What the tokens of a sealed source are kept under: the content and how it becomes tokens, not the share.
    pub(super) fn key(&self) -> String {
        let how = match (&self.what, &self.tokenizer) {
            (What::Synthetic(_), _) => "drawn".to_string(),
            (_, Tokenizer::Bytes) => "bytes".to_string(),
            (_, Tokenizer::Bpe(n)) => format!("bpe{n}"),
            (_, Tokenizer::File(_)) => "file".to_string(),
        };
        format!("{}-{how}", self.digest)
    }
}

impl Tokenizer {
    /// As people call it.
    pub fn name(&self) -> String {
        match self {
            Self::Bytes => "bytes".into(),
            Self::Bpe(n) => format!("bpe:{n}"),
            Self::File(path) => path.display().to_string(),
        }
    }
}
