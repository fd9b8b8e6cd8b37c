//! How a server wants to be asked, and how it counts.

/// Fields that servers differ in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// `ignore_eos`, so that answers have the length that is asked for: vLLM, SGLang, llama-server.
    Open,
    /// Without it: whoever refuses fields that it does not know.
    Plain,
    /// `max_completion_tokens`, and no temperature: OpenAI's models that reason.
    Modern,
}

/// Tokens of a prompt of so many words, as the server counts them: `overhead + per_word * words`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sizing {
    /// What the template takes.
    pub overhead: f64,
    /// What a word is.
    pub per_word: f64,
}

impl Sizing {
    /// How many words make a prompt of so many tokens; at least one.
    pub(super) fn words(&self, tokens: u32) -> u32 {
        ((f64::from(tokens) - self.overhead) / self.per_word).round().clamp(1.0, f64::from(u32::MAX)) as u32
    }

    /// From the tokens of two prompts.
    pub(super) fn of(few: (u32, u64), many: (u32, u64)) -> Option<Self> {
        let per_word = (many.1 as f64 - few.1 as f64) / (f64::from(many.0) - f64::from(few.0));
        let overhead = few.1 as f64 - per_word * f64::from(few.0);
        (per_word > 0.0 && per_word.is_finite()).then_some(Self { overhead, per_word })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_follow_from_two_counts() {
        let sizing = Sizing::of((8, 20), (108, 120)).unwrap();
        assert_eq!(sizing, Sizing { overhead: 12.0, per_word: 1.0 });
        assert_eq!((sizing.words(512), sizing.words(5)), (500, 1));
        let two_each = Sizing::of((8, 16), (108, 216)).unwrap();
        assert_eq!(two_each.words(100), 50);
        assert_eq!(Sizing::of((8, 20), (108, 20)), None);
    }
}
