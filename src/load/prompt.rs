//! Prompts of so many tokens, no two of which begin alike unless that is asked for.
//!
//! They are made of common English words, each of which is one token to nearly every tokenizer; what a prompt takes besides, and what
//! a word takes after all, [`super::sizing`] learns from the server.

use super::counted::{Dialect, Sizing};
use super::spec::{Api, Prefix};
use super::tokens::Tokens;
use super::trace::{Ask, of_block};
use crate::stats::random::SplitMix64;
use hyper::body::Bytes;
use serde_json::json;
use std::sync::Arc;

/// Words that are tokens of their own, with the space before them, to the tokenizers of GPT, Llama, Qwen, Mistral, Gemma.
const WORDS: [&str; 128] = [
    "the", "of", "and", "to", "in", "is", "that", "for", "on", "with", "as", "was", "at", "by", "an", "be", "this",
    "from", "or", "are", "but", "not", "his", "they", "her", "she", "which", "you", "one", "we", "all", "were",
    "there", "would", "their", "so", "if", "about", "who", "get", "them", "make", "can", "like", "time", "just", "him",
    "know", "take", "people", "into", "year", "your", "good", "some", "could", "see", "other", "than", "then", "now",
    "look", "only", "come", "its", "over", "think", "also", "back", "after", "use", "two", "how", "our", "work",
    "first", "well", "way", "even", "new", "want", "because", "any", "these", "give", "day", "most", "us", "great",
    "man", "world", "life", "still", "public", "human", "read", "city", "car", "water", "long", "name", "very",
    "through", "line", "right", "too", "old", "same", "tell", "does", "set", "three", "must", "large", "big", "high",
    "such", "follow", "act", "why", "ask", "men", "change", "went", "light", "kind", "off", "need",
];

/// What a request asks.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Prompt {
    pub text: String,
    /// It begins as others do, on purpose.
    pub prefixed: bool,
}

/// Prompts one after the other.
#[derive(Debug)]
pub(super) struct Prompts {
    random: SplitMix64,
    salt: u64,
    sizing: Sizing,
    tokens: Option<Arc<Tokens>>,
    prefix: Option<(Prefix, String)>,
}

/// Words before a text that somebody wrote: 2^56 beginnings.
const SALT: u32 = 8;

impl Prompts {
    /// `salt` has to be another for every launch, or the server may know the prompts from before.
    pub(super) fn new(salt: u64, sizing: Sizing, tokens: Option<Arc<Tokens>>, prefix: Option<Prefix>) -> Self {
        let mut prompts = Self { random: SplitMix64::new(salt), salt, sizing, tokens, prefix: None };
        prompts.prefix = prefix.map(|p| {
            // The template's tokens come before it.
            let beginning = words(prompts.sizing.words(p.tokens), &mut prompts.random);
            (p, prompts.fitted(beginning, p.tokens))
        });
        prompts
    }

    /// The next, of so many tokens as the server counts them.
    pub(super) fn next(&mut self, tokens: u32) -> Prompt {
        let whole = self.sizing.words(tokens);
        let prefixed = self.prefix.as_ref().map(|(p, _)| p.share).is_some_and(|share| self.random.chance(share));
        let Some((prefix, beginning)) = self.prefix.clone().filter(|_| prefixed) else {
            let text = words(whole, &mut self.random);
            return Prompt { text: self.fitted(text, tokens), prefixed: false };
        };
        let rest = whole.saturating_sub(self.sizing.words(prefix.tokens)).max(1);
        let text = format!("{beginning} {}", words(rest, &mut self.random));
        Prompt { text: self.fitted(text, tokens), prefixed: true }
    }

    /// The text with as many tokens as it is to have, where the model's own tokenizer is there to tell.
    fn fitted(&mut self, text: String, tokens: u32) -> String {
        let Some(own) = self.tokens.clone() else { return text };
        let wanted = (f64::from(tokens) - self.sizing.overhead).round().clamp(1.0, f64::from(u32::MAX)) as u32;
        let random = &mut self.random;
        // A text of words is one that every tokenizer takes.
        own.exactly(text.clone(), wanted, &mut |count| words(count, random)).unwrap_or(text)
    }
}

impl Prompts {
    /// What a trace's request asks: its text behind words that no other has, or blocks of which those of a number are the same in
    /// this launch.
    pub(super) fn asked(&mut self, ask: &Ask) -> Prompt {
        match ask {
            Ask::Text(text) => Prompt { text: format!("{} {text}", words(SALT, &mut self.random)), prefixed: false },
            Ask::Blocks { tokens, blocks } if blocks.is_empty() => self.next(*tokens),
            Ask::Blocks { tokens, blocks } => {
                let whole = self.sizing.words(*tokens);
                let block = |(i, id): (usize, &u64)| {
                    let words_of = (f64::from(of_block(*tokens, i)) / self.sizing.per_word).round() as u32;
                    words(words_of, &mut SplitMix64::new(self.salt ^ id.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
                };
                let text = blocks.iter().enumerate().map(block).filter(|t| !t.is_empty()).collect::<Vec<_>>().join(" ");
                // The template's tokens are among those that the trace counts.
                let end =
                    text.match_indices(' ').nth(whole.saturating_sub(1) as usize).map_or(text.len(), |(at, _)| at);
                Prompt { text: text.get(..end).unwrap_or_default().into(), prefixed: true }
            }
        }
    }
}

/// So many words at random: 8 of them are one of 2^56 beginnings.
pub(super) fn words(count: u32, random: &mut SplitMix64) -> String {
    let mut text = String::with_capacity(count as usize * 5);
    for _ in 0..count {
        if !text.is_empty() {
            text.push(' ');
        }
        text.push_str(WORDS[random.below(WORDS.len())]);
    }
    text
}

/// The body of a request.
pub(super) fn body(api: Api, model: &str, prompt: &str, answer: u32, dialect: Dialect) -> Bytes {
    let mut body = json!({ "model": model, "stream": true, "stream_options": { "include_usage": true } });
    match api {
        Api::Chat => body["messages"] = json!([{ "role": "user", "content": prompt }]),
        Api::Completions => body["prompt"] = json!(prompt),
    }
    body[if dialect == Dialect::Modern { "max_completion_tokens" } else { "max_tokens" }] = json!(answer);
    if dialect != Dialect::Modern {
        body["temperature"] = json!(0);
    }
    if dialect == Dialect::Open {
        body["ignore_eos"] = json!(true);
    }
    Bytes::from(body.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    const ONE_EACH: Sizing = Sizing { overhead: 10.0, per_word: 1.0 };

    #[test]
    fn words_are_all_different_and_prompts_begin_differently() {
        assert_eq!(WORDS.iter().collect::<HashSet<_>>().len(), WORDS.len());
        let mut prompts = Prompts::new(1, ONE_EACH, None, None);
        let all: Vec<Prompt> = (0..1000).map(|_| prompts.next(50)).collect();
        assert!(all.iter().all(|p| p.text.split(' ').count() == 40 && !p.prefixed));
        let beginnings: HashSet<Vec<&str>> = all.iter().map(|p| p.text.split(' ').take(8).collect()).collect();
        assert_eq!(beginnings.len(), 1000);
        let other = Prompts::new(2, ONE_EACH, None, None).next(50);
        assert_ne!(other, Prompts::new(1, ONE_EACH, None, None).next(50));
    }

    #[test]
    fn a_share_of_the_prompts_have_their_beginning_in_common_and_all_their_length() {
        let mut prompts = Prompts::new(1, ONE_EACH, None, Some(Prefix { share: 0.75, tokens: 30 }));
        let all: Vec<Prompt> = (0..4000).map(|_| prompts.next(50)).collect();
        assert!(all.iter().all(|p| p.text.split(' ').count() == 40));
        let common: HashSet<Vec<&str>> =
            all.iter().filter(|p| p.prefixed).map(|p| p.text.split(' ').take(20).collect()).collect();
        assert_eq!(common.len(), 1);
        let share = all.iter().filter(|p| p.prefixed).count() as f64 / 4000.0;
        assert!((share - 0.75).abs() < 4.0 * (0.75f64 * 0.25 / 4000.0).sqrt(), "{share}");
    }

    #[test]
    fn blocks_of_a_number_are_the_same_in_a_launch_and_texts_are_salted() {
        let ask = |tokens, blocks: &[u64]| Ask::Blocks { tokens, blocks: blocks.to_vec() };
        let mut prompts = Prompts::new(1, ONE_EACH, None, None);
        let [a, b, c] = [&[3, 4][..], &[3, 5], &[6, 4]].map(|blocks| prompts.asked(&ask(600, blocks)).text);
        let of = |text: &str, from: usize, to: usize| {
            text.split(' ').skip(from).take(to - from).collect::<Vec<_>>().join(" ")
        };
        assert!([&a, &b, &c].iter().all(|t| t.split(' ').count() == 590));
        assert!(of(&a, 0, 512) == of(&b, 0, 512) && of(&a, 512, 590) != of(&b, 512, 590));
        assert!(of(&a, 0, 512) != of(&c, 0, 512) && of(&a, 512, 590) == of(&c, 512, 590));
        assert_ne!(a, Prompts::new(2, ONE_EACH, None, None).asked(&ask(600, &[3, 4])).text);
        let text = Ask::Text("What is it?".into());
        let (x, y) = (prompts.asked(&text).text, prompts.asked(&text).text);
        assert!(x.ends_with(" What is it?") && y.ends_with(" What is it?") && x != y);
    }

    #[test]
    fn bodies_speak_either_api_and_ask_for_counts() {
        let of = |api, dialect| serde_json::from_slice::<serde_json::Value>(&body(api, "m", "p", 5, dialect)).unwrap();
        let chat = of(Api::Chat, Dialect::Open);
        assert_eq!(chat["messages"][0]["content"], "p");
        assert_eq!((&chat["max_tokens"], &chat["ignore_eos"]), (&json!(5), &json!(true)));
        assert_eq!(chat["stream_options"]["include_usage"], true);
        let plain = of(Api::Completions, Dialect::Plain);
        assert_eq!((&plain["prompt"], plain.get("ignore_eos"), plain.get("messages")), (&json!("p"), None, None));
        let modern = of(Api::Chat, Dialect::Modern);
        assert_eq!((&modern["max_completion_tokens"], modern.get("max_tokens")), (&json!(5), None));
    }
}
