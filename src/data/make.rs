//! Tokens out of texts: told apart, tokenized, in the order of the documents.

use super::documents::Texts;
use super::facts::{Facts, Part};
use super::source::Tokenizer;
use super::split::{Rule, hash};
use super::tokenizer::{Encoder, pieces};
use super::tokens::{push, width};
use super::{DataError, Said};
use std::time::Instant;

/// Bytes of text that are tokenized at a time.
const AT_A_TIME: usize = 8 << 20;

/// Tokens, as they are stored.
#[derive(Debug, Default)]
pub(super) struct Made {
    pub facts: Facts,
    /// To train on.
    pub train: Vec<u8>,
    /// After how many tokens each document of them ends.
    pub ends: Vec<u64>,
    /// For validation.
    pub validation: Vec<u8>,
}

/// A piece of a document, and whether it is the last one.
struct Piece<'a> {
    text: &'a str,
    to_train: bool,
    last: bool,
}

/// Reads all texts, two or three times, and tokenizes them; `report` is told what is under way.
///
/// # Errors
/// A text that cannot be read, a vocabulary that the texts do not give, no text at all.
pub(super) fn make(
    texts: &Texts,
    source: String,
    tokenizer: &Tokenizer,
    report: &mut dyn FnMut(Said),
) -> Result<Made, DataError> {
    let began = Instant::now();
    report(Said::Stage("reading"));
    let hashes = texts.documents().map(|d| d.map(|text| hash(&text))).collect::<Result<Vec<u64>, _>>()?;
    let documents = hashes.len();
    if documents == 0 {
        return Err(DataError::at(source, "expected text, found nothing but blanks"));
    }
    let rule = Rule::of(hashes);
    let before = Instant::now();
    let encoder = match tokenizer {
        Tokenizer::Bpe(vocabulary) => {
            report(Said::Stage(&format!("training a tokenizer of {vocabulary} tokens")));
            let to_train = |d: Result<String, DataError>| d.map(|text| rule.parts(&text).0.to_string());
            Encoder::train(*vocabulary, texts.documents().map(to_train))?
        }
        ready => Encoder::open(ready)?,
    };
    let tokenizer_seconds = match tokenizer {
        Tokenizer::Bpe(_) => before.elapsed().as_secs_f64(),
        _ => 0.0,
    };
    report(Said::Stage("tokenizing"));
    let facts = Facts {
        source,
        vocabulary: encoder.vocabulary(),
        end_of_text: encoder.end_of_text(),
        split: rule.in_words(documents),
        tokenizer_seconds,
        ..Facts::default()
    };
    let mut made = Made { facts, ..Made::default() };
    let (mut batch, mut size) = (Vec::new(), 0);
    for text in texts.documents() {
        let text = text?;
        size += text.len();
        batch.push(text);
        if size >= AT_A_TIME {
            made.add(&batch, &rule, &encoder)?;
            (batch, size) = (Vec::new(), 0);
        }
    }
    made.add(&batch, &rule, &encoder)?;
    let width = width(made.facts.vocabulary) as u64;
    made.facts.train.tokens = made.train.len() as u64 / width;
    made.facts.validation.tokens = made.validation.len() as u64 / width;
    made.facts.seconds = began.elapsed().as_secs_f64();
    Ok(made)
}

impl Made {
    /// Adds documents, an end of text after each where the tokenizer has one.
    fn add(&mut self, documents: &[String], rule: &Rule, encoder: &Encoder) -> Result<(), DataError> {
        let mut all: Vec<Piece> = Vec::new();
        for text in documents {
            let (train, validation) = rule.parts(text);
            for (part, to_train) in [(train, true), (validation, false)] {
                all.extend(pieces(part).map(|text| Piece { text, to_train, last: false }));
                if let (Some(piece), false) = (all.last_mut(), part.is_empty()) {
                    piece.last = true;
                }
            }
        }
        let tokens = encoder.encode(&all.iter().map(|p| p.text).collect::<Vec<_>>())?;
        let width = width(self.facts.vocabulary);
        for (piece, tokens) in all.iter().zip(tokens) {
            let (into, part): (&mut Vec<u8>, &mut Part) = match piece.to_train {
                true => (&mut self.train, &mut self.facts.train),
                false => (&mut self.validation, &mut self.facts.validation),
            };
            let end = self.facts.end_of_text.filter(|_| piece.last);
            tokens.into_iter().chain(end).for_each(|token| push(into, token, width));
            part.bytes += piece.text.len() as u64;
            part.documents += u64::from(piece.last);
            if piece.to_train && piece.last {
                self.ends.push((self.train.len() / width) as u64);
            }
        }
        Ok(())
    }
}
