//! Text into tokens: our bytes, or Hugging Face's library.

use super::DataError;
use super::documents::END_OF_TEXT;
use super::source::Tokenizer;
use std::collections::{HashMap, HashSet};
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::tokenizer::{OffsetType, PreTokenizer, Trainer};
use tokenizers::{AddedToken, OffsetReferential, PreTokenizedString, Tokenizer as Library};

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
    /// Of a file.
    Library(Box<Library>),
    /// Trained here: byte pairs.
    Trained(Box<Library>),
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
        let mut trainer = BpeTrainer::builder()
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
        trainer.feed(cut, words).map_err(fault)?;
        if let Some(e) = failed {
            return Err(e);
        }
        let mut model = BPE::default();
        let special = trainer.train(&mut model).map_err(fault)?;
        let mut library = Library::new(model);
        library.with_pre_tokenizer(Some(byte_level())).with_decoder(Some(byte_level()));
        library.add_special_tokens(&special);
        let trained = Self::Trained(Box::new(library));
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
            Self::Library(l) | Self::Trained(l) => {
                l.get_vocab(true).into_values().max().map_or(0, |last| last.saturating_add(1))
            }
        }
    }

    /// The token that ends a document, where there is one.
    pub(super) fn end_of_text(&self) -> Option<u32> {
        match self {
            Self::Bytes => Some(0),
            Self::Library(l) | Self::Trained(l) => ENDS.iter().find_map(|name| l.token_to_id(name)),
        }
    }

    /// The tokens of each piece, without any that a tokenizer puts around a text. Pieces are worked on by all cores.
    ///
    /// # Errors
    /// A text that the tokenizer does not take.
    pub(super) fn encode(&self, pieces: &[&str]) -> Result<Vec<Vec<u32>>, DataError> {
        match self {
            Self::Bytes => Ok(pieces.iter().map(|p| p.bytes().map(u32::from).collect()).collect()),
            Self::Library(l) => encoded(l, pieces.to_vec()),
            Self::Trained(l) => {
                // Most of a text has been there before: each stretch is worked on once.
                let mut numbers: HashMap<&str, usize> = HashMap::new();
                let mut different = Vec::new();
                let mut number = |stretch| {
                    *numbers.entry(stretch).or_insert_with(|| {
                        different.push(stretch);
                        different.len() - 1
                    })
                };
                let all: Vec<Vec<usize>> = pieces.iter().map(|p| stretches(p).map(&mut number).collect()).collect();
                let tokens = encoded(l, different)?;
                let of_piece = |p: Vec<usize>| p.into_iter().flat_map(|s| tokens[s].iter().copied()).collect();
                Ok(all.into_iter().map(of_piece).collect())
            }
        }
    }
}

fn byte_level() -> ByteLevel {
    ByteLevel::default().add_prefix_space(false)
}

fn encoded(library: &Library, texts: Vec<&str>) -> Result<Vec<Vec<u32>>, DataError> {
    let all = library.encode_batch_fast(texts, false);
    let all = all.map_err(|e| DataError::at("the tokenizer", format!("does not take a text: {e}")))?;
    Ok(all.iter().map(|e| e.get_ids().to_vec()).collect())
}

/// What byte pairs are looked for in: a text's words, punctuation and blanks by the regular expression of GPT-2, once for each of
/// its different stretches.
fn words(text: &str) -> tokenizers::Result<Vec<String>> {
    let mut known: HashMap<&str, Vec<String>> = HashMap::new();
    let mut all = Vec::new();
    for stretch in stretches(text) {
        if !known.contains_key(stretch) {
            let mut cut = PreTokenizedString::from(stretch);
            byte_level().pre_tokenize(&mut cut)?;
            let words = cut.get_splits(OffsetReferential::Original, OffsetType::Byte);
            known.insert(stretch, words.into_iter().map(|(word, ..)| word.to_string()).collect());
        }
        all.extend_from_slice(&known[stretch]);
    }
    Ok(all)
}

/// A text in stretches that are cut each by itself as they are together: a blank between two letters or digits of ASCII always begins
/// a word.
fn stretches(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let bytes = rest.as_bytes();
        if bytes.is_empty() {
            return None;
        }
        let end = (1..bytes.len().saturating_sub(1)).find(|at| begins_a_word(bytes, *at)).unwrap_or(bytes.len());
        let (stretch, after) = rest.split_at(end);
        rest = after;
        Some(stretch)
    })
}

/// Whether a blank stands there between two letters or digits.
fn begins_a_word(bytes: &[u8], at: usize) -> bool {
    bytes[at] == b' ' && bytes[at - 1].is_ascii_alphanumeric() && bytes[at + 1].is_ascii_alphanumeric()
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
    (PIECE / 2..PIECE).rev().find(|at| begins_a_word(bytes, *at)).unwrap_or_else(|| text.floor_char_boundary(PIECE))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokenizers::models::TrainerWrapper;

    /// Words and what stands between them, of all kinds that the regular expression tells apart.
    fn text(seed: u64) -> String {
        const PARTS: [&str; 24] = [
            "token", "Cost", "it's", "we'll", "don", "'t", "'", "12", "3.5", "überall", "naïve", "日本", "½", "²", "Ⅷ",
            "\n", "\n\n  ", "\t", "—", "“so”", "...", "_x", "e\u{301}", "\u{a0}",
        ];
        let mut random = crate::stats::random::SplitMix64::new(seed);
        let mut all = String::new();
        for _ in 0..3000 {
            all += PARTS[random.below(PARTS.len())];
            all += ["", " ", " ", " ", "  "][random.below(5)];
        }
        all
    }

    #[test]
    fn what_is_cut_into_stretches_is_trained_and_tokenized_as_the_library_does_it_to_the_token() {
        let mut novel = crate::data::corpus::text().unwrap();
        novel.truncate(novel.floor_char_boundary(300_000));
        let texts = [text(1), text(2), novel];
        let vocabulary = 500;
        let trained = Encoder::train(vocabulary, texts.iter().cloned().map(Ok)).unwrap();
        let mut library = Library::new(BPE::default());
        library.with_pre_tokenizer(Some(byte_level())).with_decoder(Some(byte_level()));
        let trainer = BpeTrainer::builder()
            .show_progress(false)
            .vocab_size(vocabulary as usize)
            .min_frequency(2)
            .initial_alphabet(ByteLevel::alphabet().into_iter().collect::<HashSet<char>>())
            .special_tokens(vec![AddedToken::from(END_OF_TEXT, true)])
            .build();
        let whole = texts.iter().map(String::as_str);
        library.train(&mut TrainerWrapper::BpeTrainer(trainer), whole).unwrap();
        let Encoder::Trained(ours) = &trained else { panic!("{trained:?}") };
        assert_eq!(ours.get_vocab(true), library.get_vocab(true));
        let other = text(3) + END_OF_TEXT + " and " + END_OF_TEXT;
        let pieces: Vec<&str> = texts.iter().map(String::as_str).chain([other.as_str(), ""]).collect();
        for (piece, tokens) in pieces.iter().zip(trained.encode(&pieces).unwrap()) {
            assert_eq!(tokens, library.encode_fast(*piece, false).unwrap().get_ids(), "{}", piece.len());
        }
    }

    #[test]
    fn stretches_are_the_text() {
        for text in ["", " ", "a", " a", "a b", "a  b c,d e", "é b", "1 2 3 "] {
            assert_eq!(stretches(text).collect::<String>(), text);
        }
        assert_eq!(stretches("It is, I say, a fact").collect::<Vec<_>>(), ["It", " is, I", " say, a", " fact"]);
    }
}
