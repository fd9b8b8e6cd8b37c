//! Which part of a text is trained on and which it is judged by.

use sha2::{Digest, Sha256};

/// Every so manieth document, or byte of one, is for validation.
const EVERY: usize = 10;

/// Documents below which single ones are divided.
const FEW: usize = 20;

/// How a text is divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rule {
    /// By document: those whose hash is at most this one are for validation. Copies of one document stay together.
    Documents(u64),
    /// The end of each document.
    Ends,
}

/// What a document's place is decided by.
pub(super) fn hash(text: &str) -> u64 {
    Sha256::digest(text.as_bytes()).iter().take(8).fold(0, |hash, byte| hash << 8 | u64::from(*byte))
}

impl Rule {
    /// The rule for documents of these hashes: a tenth of them, those with the lowest, or the ends where there are few.
    pub(super) fn of(mut hashes: Vec<u64>) -> Self {
        if hashes.len() < FEW {
            return Self::Ends;
        }
        let last = hashes.len() / EVERY - 1;
        let (_, bound, above) = hashes.select_nth_unstable(last);
        // Where nearly all documents are copies of one, nothing would be left to train on.
        if above.iter().any(|h| *h > *bound) { Self::Documents(*bound) } else { Self::Ends }
    }

    /// The parts of a document: to train on, and for validation.
    pub(super) fn parts<'a>(&self, text: &'a str) -> (&'a str, &'a str) {
        match self {
            Self::Documents(bound) if hash(text) <= *bound => ("", text),
            Self::Documents(_) => (text, ""),
            Self::Ends => text.split_at(end(text)),
        }
    }

    /// As it is told.
    pub(super) fn in_words(&self, documents: usize) -> String {
        match self {
            Self::Documents(_) => format!("a tenth of the {documents} documents, chosen by their hashes"),
            Self::Ends if documents == 1 => "the last tenth of the text".into(),
            Self::Ends => format!("the last tenth of each of the {documents} documents"),
        }
    }
}

/// Where the last tenth begins: at a line if one begins shortly before, else at a character.
fn end(text: &str) -> usize {
    const SHORTLY: usize = 1000;
    let at = text.floor_char_boundary(text.len() - text.len() / EVERY);
    match text[..at].rfind('\n') {
        Some(line) if at - line <= SHORTLY.min(text.len() / 20) => line + 1,
        _ => at,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenth_of_many_documents_is_for_validation_and_copies_stay_together() {
        let texts: Vec<String> = (0..200).map(|i| format!("document {}", i / 2)).collect();
        let rule = Rule::of(texts.iter().map(|t| hash(t)).collect());
        let judged = texts.iter().filter(|t| !rule.parts(t).1.is_empty()).count();
        assert_eq!(judged, 20, "{rule:?}");
        assert!(texts.chunks(2).all(|two| rule.parts(&two[0]) == rule.parts(&two[1])));
        assert_eq!(rule.in_words(200), "a tenth of the 200 documents, chosen by their hashes");
    }

    #[test]
    fn the_end_of_few_documents_is_for_validation_at_a_line_or_a_character() {
        let lines: String = (0..100).map(|i| format!("line {i:03}\n")).collect();
        let rule = Rule::of(vec![hash(&lines)]);
        let (train, judged) = rule.parts(&lines);
        assert!(train.ends_with("line 089\n") && judged.starts_with("line 090\n"), "{judged}");
        let umlauts = "ä".repeat(99);
        let (train, judged) = Rule::Ends.parts(&umlauts);
        assert_eq!((train.len() + judged.len(), judged.len() / 2), (198, 10));
        // Copies of one document alone.
        assert_eq!(Rule::of(vec![7; 100]), Rule::Ends);
    }
}
