//! Text and languages as tokens to train on: read, told apart, tokenized, kept, and cut into batches.
//!
//! [`prepare`] makes [`Prepared`] of a [`Source`]; a trial asks it for batches, which are functions of their arguments alone. Text is
//! read a document at a time (`documents.rs`: text, JSON lines, Parquet), divided (`split.rs`), tokenized (`tokenizer.rs`) and kept
//! under a digest of all that decides it (`shard.rs`), mapped from then on. Tokens, two or four bytes each, are what has to fit into
//! memory while they are made. A language that is drawn is kept in the same way.
//!
//! Deliberately absent: anything fetched from elsewhere, mixtures of sources with weights, tokens that are read while they are made.

mod batches;
mod corpus;
mod documents;
mod error;
mod facts;
mod files;
mod make;
mod parquet;
mod seal;
mod shard;
mod source;
mod split;
mod synthetic;
mod tokenizer;
mod tokens;

#[cfg(test)]
mod data_tests;

pub use batches::{Batch, Cut, IGNORED, Prepared, Split};
pub use error::DataError;
pub use facts::{Facts, Part};
pub use source::{Files, Source, Tokenizer, What};
pub use synthetic::{Entropy, Language};

use documents::Texts;
use make::Made;
use shard::Shard;
use std::path::{Path, PathBuf};
use std::time::Instant;
use synthetic::Drawn;
use tokens::Stream;

/// Where tokens are kept for the user; `None` where neither XDG_CACHE_HOME nor HOME is set.
pub fn cache_folder() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    // The XDG specification says that a relative path is to be ignored.
    let base = set("XDG_CACHE_HOME").filter(|p| p.is_absolute()).or_else(|| set("HOME").map(|h| h.join(".cache")))?;
    Some(base.join("centime").join("data"))
}

/// What is told while data are prepared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said<'a> {
    /// What is under way.
    Stage(&'a str),
    /// What does not work and costs time alone.
    Warning(&'a str),
}

/// Tokens of a source, out of the cache if they are there. One that is not sealed is sealed from the working directory.
///
/// # Errors
/// Those of [`Source::seal`]; another content than a sealed source was sealed with; text that cannot be read; a vocabulary that it
/// does not give.
pub fn prepare(source: &Source, cache: Option<&Path>, report: &mut dyn FnMut(Said)) -> Result<Prepared, DataError> {
    let was_sealed = !source.digest.is_empty();
    let source = if was_sealed { source.clone() } else { source.seal(Path::new(""))? };
    let kept = cache.map(|folder| folder.join(format!("{}.tokens", source.key())));
    let found = kept.as_deref().map(Shard::open).transpose();
    if let (Err(what), Some(path)) = (&found, &kept) {
        report(Said::Warning(&format!("{} {what}; it is made again", path.display())));
    }
    if let Ok(Some(Some(shard))) = found {
        return Ok(used(shard, source.share, kept));
    }
    let unchanged = |when: &str| {
        let now = source.seal(Path::new(""))?.digest;
        let message =
            format!("expected the content {}, found {now}: a file has changed {when}; start again", source.digest);
        if now == source.digest { Ok(()) } else { Err(DataError::at("data", message)) }
    };
    if was_sealed {
        unchanged("since the scenario was read")?;
    }
    let made = match &source.what {
        What::Text(named) => {
            let files = files::find(&named.patterns)?;
            let name = match files.as_slice() {
                [one] => one.path.display().to_string(),
                several => format!("{} files", several.len()),
            };
            make::make(&Texts::Files(files, named.clone()), name, &source.tokenizer, report)?
        }
        What::Corpus => make::make(&Texts::Corpus, corpus::NAME.to_string(), &source.tokenizer, report)?,
        What::Synthetic(language) => {
            report(Said::Stage("drawing a synthetic language"));
            drawn(language)
        }
    };
    let shard = Shard::of(made);
    // What is kept under a digest is what has it.
    unchanged("while it was read")?;
    if let Some(path) = &kept {
        match shard.keep(path) {
            // Mapped, it takes no memory of its own.
            Ok(()) => {
                if let Ok(Some(mapped)) = Shard::open(path) {
                    return Ok(used(Shard { facts: shard.facts, ..mapped }, source.share, kept));
                }
            }
            Err(e) => report(Said::Warning(&format!("{e}; it goes on without the cache"))),
        }
    }
    Ok(used(shard, source.share, None))
}

fn used(shard: Shard, share: f64, kept: Option<PathBuf>) -> Prepared {
    let width = tokens::width(shard.facts.vocabulary);
    let whole = |range| Stream::whole(shard.bytes.clone(), range, width);
    let train = whole(shard.train).share(share, &shard.ends);
    Prepared { train, validation: whole(shard.validation), facts: Facts { kept, ..shard.facts } }
}

fn drawn(language: &Language) -> Made {
    let began = Instant::now();
    let drawn = Drawn::new(language);
    let part = |tokens| Part { documents: 1, bytes: 0, tokens };
    let (to_train, judged) = (language.tokens, language.judged());
    let (train, validation) = (drawn.text(to_train, 0), drawn.text(judged, 1));
    let facts = Facts {
        source: "a synthetic language".into(),
        vocabulary: language.vocabulary,
        train: part(to_train),
        validation: part(judged),
        split: "another text of the language".into(),
        entropy: Some(drawn.entropy()),
        seconds: began.elapsed().as_secs_f64(),
        ..Facts::default()
    };
    // A share of one document is its beginning.
    Made { facts, train, ends: vec![to_train], validation }
}
