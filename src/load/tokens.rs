//! The model's own tokenizer, read from its `tokenizer.json`.

use std::path::Path;
use tokenizers::Tokenizer;

/// How often a text is made longer or shorter before it is left as it is.
const MOST_TRIES: u32 = 16;

/// A tokenizer.
#[derive(Debug)]
pub struct Tokens(Tokenizer);

impl Tokens {
    /// # Errors
    /// A file that is not there, or is none.
    pub fn open(path: &Path) -> Result<Self, String> {
        let shown = path.display();
        let text = std::fs::read(path).map_err(|e| format!("{shown} cannot be read ({e})"))?;
        Tokenizer::from_bytes(text).map(Self).map_err(|e| format!("{shown} is no tokenizer.json: {e}"))
    }

    /// How many tokens a text is.
    ///
    /// # Errors
    /// A text that the tokenizer does not take.
    pub fn count(&self, text: &str) -> Result<u32, String> {
        let encoding = self.0.encode_fast(text, false).map_err(|e| format!("the tokenizer: {e}"))?;
        Ok(u32::try_from(encoding.len()).unwrap_or(u32::MAX))
    }

    /// A text like this one of exactly so many tokens, if there is one: `more` gives so many words to go on with.
    ///
    /// # Errors
    /// A text that the tokenizer does not take.
    pub(super) fn exactly(
        &self,
        text: String,
        tokens: u32,
        more: &mut dyn FnMut(u32) -> String,
    ) -> Result<String, String> {
        let mut text = text;
        for _ in 0..MOST_TRIES {
            let encoding = self.0.encode(text.as_str(), false).map_err(|e| format!("the tokenizer: {e}"))?;
            let found = u32::try_from(encoding.len()).unwrap_or(u32::MAX);
            if found == tokens {
                break;
            }
            if found < tokens {
                text = format!("{text} {}", more(tokens - found));
                continue;
            }
            // Where the first token too many begins.
            let at = encoding.get_offsets().get(tokens as usize).map_or(text.len(), |(from, _)| *from);
            let shorter = text.get(..at).unwrap_or_default().trim_end();
            if shorter.is_empty() || shorter.len() == text.len() {
                break;
            }
            text.truncate(shorter.len());
        }
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every letter is a token, and "th" is one.
    const LETTERS: &str = r#"{"version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": {"type": "Whitespace"}, "post_processor": null, "decoder": null,
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null, "end_of_word_suffix": null,
            "fuse_unk": false, "byte_fallback": false,
            "vocab": {"a":0,"b":1,"c":2,"d":3,"e":4,"f":5,"g":6,"h":7,"i":8,"j":9,"k":10,"l":11,"m":12,"n":13,"o":14,"p":15,"q":16,
                "r":17,"s":18,"t":19,"u":20,"v":21,"w":22,"x":23,"y":24,"z":25,"th":26},
            "merges": ["t h"]}}"#;

    fn tokens() -> Tokens {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), LETTERS).unwrap();
        Tokens::open(file.path()).unwrap()
    }

    #[test]
    fn texts_are_made_to_have_exactly_so_many_tokens() {
        let tokens = tokens();
        assert_eq!(tokens.count("the thing"), Ok(2 + 4));
        for wanted in 1..60 {
            let mut more = |n: u32| vec!["other"; n as usize].join(" ");
            for text in ["the", "a time of things and of words that nobody counts in tokens"] {
                let made = tokens.exactly(text.into(), wanted, &mut more).unwrap();
                assert_eq!(tokens.count(&made), Ok(wanted), "{made}");
                assert!(made.starts_with(&text[..1]));
            }
        }
    }

    #[test]
    fn a_file_that_is_none_says_so() {
        assert!(Tokens::open(Path::new("none.json")).unwrap_err().starts_with("none.json cannot be read"));
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "{}").unwrap();
        assert!(Tokens::open(file.path()).unwrap_err().contains("is no tokenizer.json"));
    }
}
