//! Text into tokens: our bytes, or Hugging Face's library.

use super::DataError;
use super::documents::END_OF_TEXT;
use super::source::Tokenizer;
use std::collections::HashSet;
use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, Tokenizer as Library};

/// The smallest vocabulary of byte pairs: all bytes, and the end of a text.
pub(super) const LEAST_BPE: u32 = 257;

/// Bytes that are tokenized in one go; longer texts are cut between two words, where that changes nothing, or at a character.
const PIECE: usize = 256 << 10;

/// What tokenizers call the end of a text.
const ENDS: [&str; 6] = [END_OF_TEXT, "<|end_of_text|>", "</s>", "<eos>", "<|eos|>", "[EOS]"];

/// A tokenizer that is ready.
#[derive(Debug)]
pub(super) enum Encoder {
    Bytes,
    Library(Box<Library>),
}

impl Encoder {
    /// The bytes, or what is in a file; byte pairs are trained instead ([`Encoder::train`]).
    ///
    /// # Errors
    /// A file that cannot be read or is no tokenizer.
    pub(super) fn open(tokenizer: &Tokenizer) -> Result<Self, DataError> {
        let Tokenizer::File(path) = tokenizer else { return Ok(Self::Bytes) };
        let bytes = std::fs::read(path).map_err(DataError::io(path, "reading"))?;
        let fault = |e: tokenizers::Error| {
            let message = format!(
                "expected a tokenizer.json of Hugging Face's, found what is none: {e}; give bytes, bpe:4096 or such a file"
            );
            DataError::at(path.display(), message)
        };
        let mut library = Library::from_bytes(bytes).map_err(fault)?;
        // A file may say that texts are to be cut or filled up to a length, which is meant for prompts.
        library.with_truncation(None).map_err(fault)?.with_padding(None);
        Ok(Self::Library(Box::new(library)))
    }

    /// Byte pairs over these texts: the same texts give the same tokenizer.
    ///
    /// # Errors
    /// The first error among the texts; a vocabulary that they do not give.
    pub(super) fn train(
        vocabulary: u32,
        mut texts: impl Iterator<Item = Result<String, DataError>> + Send,
    ) -> Result<Self, DataError> {
        let fault = |e: tokenizers::Error| DataError::at("data.tokenizer.bpe", format!("the training failed: {e}"));
        let bytes = || ByteLevel::default().add_prefix_space(false);
        let mut library = Library::new(BPE::default());
        library.with_pre_tokenizer(Some(bytes())).with_decoder(Some(bytes()));
        let trainer = BpeTrainer::builder()
            .show_progress(false)
            .vocab_size(vocabulary as usize)
            .min_frequency(2)
            .initial_alphabet(ByteLevel::alphabet().into_iter().collect::<HashSet<char>>())
            .special_tokens(vec![AddedToken::from(END_OF_TEXT, true)])
            .build();
        let mut failed = None;
        let read = std::iter::from_fn(|| match texts.next()? {
            Ok(text) => Some(text),
            Err(e) => {
                failed = Some(e);
                None
            }
        });
        let cut = read.flat_map(|text| pieces(&text).map(str::to_string).collect::<Vec<_>>());
        library.train(&mut TrainerWrapper::BpeTrainer(trainer), cut).map_err(fault)?;
        if let Some(e) = failed {
            return Err(e);
        }
        let trained = Self::Library(Box::new(library));
        let found = trained.vocabulary();
        if found < vocabulary {
            let message = format!(
                "expected {vocabulary} tokens, found that the text gives {found} at most; ask for no more, or give more text"
            );
            return Err(DataError::at("data.tokenizer.bpe", message));
        }
        Ok(trained)
    }

    /// One more than the largest token: what a model's vocabulary has to be.
    pub(super) fn vocabulary(&self) -> u32 {
        match self {
            Self::Bytes => 256,
            Self::Library(l) => l.get_vocab(true).into_values().max().map_or(0, |last| last.saturating_add(1)),
        }
    }

    /// The token that ends a document, where there is one.
    pub(super) fn end_of_text(&self) -> Option<u32> {
        match self {
            Self::Bytes => Some(0),
            Self::Library(l) => ENDS.iter().find_map(|name| l.token_to_id(name)),
        }
    }

    /// The tokens of each piece, without any that a tokenizer puts around a text. Pieces are worked on by all cores.
    ///
    /// # Errors
    /// A text that the tokenizer does not take.
    pub(super) fn encode(&self, pieces: &[&str]) -> Result<Vec<Vec<u32>>, DataError> {
        match self {
            Self::Bytes => Ok(pieces.iter().map(|p| p.bytes().map(u32::from).collect()).collect()),
            Self::Library(l) => {
                let all = l.encode_batch_fast(pieces.to_vec(), false);
                let all = all.map_err(|e| DataError::at("the tokenizer", format!("does not take a text: {e}")))?;
                Ok(all.iter().map(|e| e.get_ids().to_vec()).collect())
            }
        }
    }
}

/// A text in pieces of [`PIECE`] bytes about.
pub(super) fn pieces(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let (piece, after) = rest.split_at(cut(rest));
        rest = after;
        Some(piece)
    })
}

/// Where the first piece ends: before the blank between two words, since tokenizers take it as the beginning of the second.
fn cut(text: &str) -> usize {
    if text.len() <= PIECE {
        return text.len();
    }
    let bytes = text.as_bytes();
    let between = |at: &usize| {
        bytes[*at] == b' ' && bytes[at - 1].is_ascii_alphanumeric() && bytes[at + 1].is_ascii_alphanumeric()
    };
    (PIECE / 2..PIECE).rev().find(between).unwrap_or_else(|| text.floor_char_boundary(PIECE))
}
