//! A language that is drawn, with an entropy that is known, so that a loss's distance from the least that can be is known too.
//!
//! A token depends on the one before it and on the class of the one before that: [`BRANCHES`] tokens are likely after such a pair, by a
//! power law whose steepness is the pair's own, and any token is possible, by Zipf's law. This is a Markov chain whose states are the
//! pairs; its stationary distribution is found by iteration, and the entropy of a token is the mean of the states' entropies over it
//! (Shannon 1948, theorem 5). Whoever predicts perfectly from all that stands before reaches it and nobody gets below.

use super::DataError;
use crate::stats::random::{SplitMix64, mix};
use serde::{Deserialize, Serialize};

/// Classes that the token before the last is known by.
const CLASSES: usize = 8;

/// Tokens that are likely after a pair, at most.
const BRANCHES: usize = 16;

/// The share of tokens that Zipf's law alone draws.
const FREE: f64 = 0.05;

/// Steepness of the likely tokens' power law, from state to state.
const STEEPNESS: (f64, f64) = (0.5, 2.0);

/// Sizes of the vocabulary that are built.
const VOCABULARY: (u32, u32) = (16, 16_384);

/// Tokens for validation: a tenth of those to train on, at most so many.
const MOST_JUDGED: u64 = 1 << 18;

/// Changes with what is drawn for the same settings.
const VERSION: u8 = 1;

/// What language is drawn, and how much of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Language {
    /// Different tokens, 16 to 16384.
    pub vocabulary: u32,
    /// Tokens to train on.
    pub tokens: u64,
    /// Of the language and of its text.
    pub seed: u64,
}

impl Default for Language {
    /// 512 tokens, of which 8,388,608 are drawn.
    fn default() -> Self {
        Self { vocabulary: 512, tokens: 1 << 23, seed: 1 }
    }
}

impl Language {
    /// # Errors
    /// A size that is not built.
    pub(super) fn check(&self) -> Result<(), DataError> {
        let (least, most) = VOCABULARY;
        if !(least..=most).contains(&self.vocabulary) {
            let message = format!("expected {least} to {most} tokens, found {}", self.vocabulary);
            return Err(DataError::at("data.synthetic.vocabulary", message));
        }
        const MOST: u64 = 1 << 33;
        if !(1000..=MOST).contains(&self.tokens) {
            let message = format!("expected 1000 to {MOST} tokens to draw, found {}", self.tokens);
            return Err(DataError::at("data.synthetic.tokens", message));
        }
        Ok(())
    }

    /// What decides what is drawn.
    pub(super) fn identity(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        bytes.extend(self.vocabulary.to_le_bytes());
        bytes.extend(self.tokens.to_le_bytes());
        bytes.extend(self.seed.to_le_bytes());
        bytes
    }

    /// Tokens for validation.
    pub(super) fn judged(&self) -> u64 {
        (self.tokens / 10).min(MOST_JUDGED)
    }
}

/// The language with its tables.
#[derive(Debug)]
pub(super) struct Drawn {
    vocabulary: usize,
    seed: u64,
    /// Of every token.
    class: Vec<u8>,
    /// Zipf's law, over all tokens.
    free: Vec<f64>,
    free_until: Vec<f64>,
    branches: usize,
    /// For each state the likely tokens, how likely each is, and the sums of that: [class, token, branch].
    likely: Vec<u16>,
    weight: Vec<f64>,
    weight_until: Vec<f64>,
}

impl Drawn {
    /// Makes the tables.
    pub(super) fn new(language: &Language) -> Self {
        let vocabulary = language.vocabulary as usize;
        let branches = BRANCHES.min(vocabulary / 2);
        let mut random = SplitMix64::new(mix(language.seed));
        let class = (0..vocabulary).map(|_| random.below(CLASSES) as u8).collect();
        let mut ranks: Vec<usize> = (0..vocabulary).collect();
        random.shuffle(&mut ranks);
        // Zipf's law as Mandelbrot corrected it for the most frequent words.
        let free = shares(ranks.iter().map(|r| (*r as f64 + 2.7).powf(-1.05)).collect());
        let free_until = sums(&free);
        let states = CLASSES * vocabulary;
        let (mut likely, mut weight, mut weight_until) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..states {
            let own = likely.len();
            while likely.len() < own + branches {
                let token = chosen(&free_until, uniform(&mut random)) as u16;
                if !likely[own..].contains(&token) {
                    likely.push(token);
                }
            }
            let steepness = STEEPNESS.0 + (STEEPNESS.1 - STEEPNESS.0) * uniform(&mut random);
            let of_state = shares((1..=branches).map(|i| (i as f64).powf(-steepness)).collect());
            weight_until.extend(sums(&of_state));
            weight.extend(of_state);
        }
        Self { vocabulary, seed: language.seed, class, free, free_until, branches, likely, weight, weight_until }
    }

    /// Tokens, two bytes each, little-endian; each `stream` is another text of the language.
    pub(super) fn text(&self, tokens: u64, stream: u64) -> Vec<u8> {
        let mut random = SplitMix64::new(mix(self.seed ^ mix(stream.wrapping_add(1))));
        let mut state = (0, chosen(&self.free_until, uniform(&mut random)));
        let mut text = Vec::new();
        // What comes first is not typical yet.
        const BEFORE: u64 = 64;
        for i in 0..tokens + BEFORE {
            let at = self.at(state);
            let token = if uniform(&mut random) < FREE {
                chosen(&self.free_until, uniform(&mut random))
            } else {
                let until = &self.weight_until[at..at + self.branches];
                self.likely[at + chosen(until, uniform(&mut random))] as usize
            };
            if i >= BEFORE {
                text.extend((token as u16).to_le_bytes());
            }
            state = (self.class[state.1] as usize, token);
        }
        text
    }

    /// Where a state's branches begin: class of the token before the last, and the last.
    fn at(&self, (class, last): (usize, usize)) -> usize {
        (class * self.vocabulary + last) * self.branches
    }

    /// The likely tokens of a state with the probability that each has beside Zipf's law's.
    fn branches(&self, state: (usize, usize)) -> impl Iterator<Item = (usize, f64)> {
        let at = self.at(state)..self.at(state) + self.branches;
        let own = self.likely[at.clone()].iter().zip(&self.weight[at]);
        own.map(|(token, w)| (*token as usize, (1.0 - FREE) * w))
    }

    /// How often each state is met in the long run: [class, token].
    fn stationary(&self) -> Vec<f64> {
        let (v, states) = (self.vocabulary, CLASSES * self.vocabulary);
        let mut now = vec![1.0 / states as f64; states];
        // What is left of a difference falls by half a step or faster: some tens of steps.
        for _ in 0..1000 {
            let mut next = vec![0.0; states];
            for class in 0..CLASSES {
                for last in 0..v {
                    let (share, row) = (now[class * v + last], self.class[last] as usize * v);
                    self.branches((class, last)).for_each(|(token, p)| next[row + token] += share * p);
                }
            }
            let mut of_class = [0.0; CLASSES];
            now.iter().enumerate().for_each(|(state, share)| of_class[self.class[state % v] as usize] += share);
            for (state, share) in next.iter_mut().enumerate() {
                *share += FREE * self.free[state % v] * of_class[state / v];
            }
            let change: f64 = now.iter().zip(&next).map(|(a, b)| (a - b).abs()).sum();
            now = next;
            if change < 1e-13 {
                break;
            }
        }
        now
    }

    /// Nats a token: of one whose whole past is known, and of one of which the token before it alone is.
    pub(super) fn entropy(&self) -> Entropy {
        let (v, stationary) = (self.vocabulary, self.stationary());
        let nats = |p: f64| if p > 0.0 { -p * p.ln() } else { 0.0 };
        let free: f64 = self.free.iter().map(|f| nats(FREE * f)).sum();
        let (mut known, mut first) = (0.0, 0.0);
        let mut mixed = vec![0.0; v];
        for last in 0..v {
            let of_last: f64 = (0..CLASSES).map(|c| stationary[c * v + last]).sum();
            let mut touched = Vec::new();
            for class in 0..CLASSES {
                let share = stationary[class * v + last];
                let mut own = free;
                for (token, p) in self.branches((class, last)) {
                    let alone = FREE * self.free[token];
                    own += nats(alone + p) - nats(alone);
                    touched.push(token);
                    mixed[token] += if of_last > 0.0 { share / of_last * p } else { 0.0 };
                }
                known += share * own;
            }
            let mut own = free;
            touched.sort_unstable();
            touched.dedup();
            for token in touched {
                let alone = FREE * self.free[token];
                own += nats(alone + mixed[token]) - nats(alone);
                mixed[token] = 0.0;
            }
            first += of_last * own;
        }
        Entropy { known, first }
    }

    #[cfg(test)]
    fn probability(&self, state: (usize, usize), token: usize) -> f64 {
        let likely: f64 = self.branches(state).filter(|(t, _)| *t == token).map(|(_, p)| p).sum();
        likely + FREE * self.free[token]
    }
}

/// Nats a token at the least.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entropy {
    /// Of a token whose whole past is known.
    pub known: f64,
    /// Of a token of whose past the last token alone is known, as that of a sequence's first target is.
    pub first: f64,
}

impl Entropy {
    /// The least mean loss over the targets of sequences of so many tokens.
    pub fn floor(&self, seq_len: u32) -> f64 {
        self.known + (self.first - self.known) / f64::from(seq_len.max(1))
    }
}

fn uniform(random: &mut SplitMix64) -> f64 {
    (random.draw() >> 11) as f64 / (1u64 << 53) as f64
}

/// The place of the sum that a number below 1 falls into.
fn chosen(until: &[f64], x: f64) -> usize {
    until.partition_point(|u| *u <= x).min(until.len() - 1)
}

fn shares(mut weights: Vec<f64>) -> Vec<f64> {
    let sum: f64 = weights.iter().sum();
    weights.iter_mut().for_each(|w| *w /= sum);
    weights
}

fn sums(shares: &[f64]) -> Vec<f64> {
    shares
        .iter()
        .scan(0.0, |sum, s| {
            *sum += s;
            Some(*sum)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(text: &[u8]) -> Vec<usize> {
        text.chunks_exact(2).map(|t| usize::from(u16::from_le_bytes([t[0], t[1]]))).collect()
    }

    /// Mean and its standard error, from means of stretches, between which hardly anything is shared.
    fn mean(losses: &[f64]) -> (f64, f64) {
        let stretches: Vec<f64> = losses.chunks_exact(1000).map(|c| c.iter().sum::<f64>() / 1000.0).collect();
        let n = stretches.len() as f64;
        let mean = stretches.iter().sum::<f64>() / n;
        let variance = stretches.iter().map(|s| (s - mean).powi(2)).sum::<f64>() / (n - 1.0);
        (mean, (variance / n).sqrt())
    }

    #[test]
    fn the_true_model_loses_what_the_entropy_says_and_no_other_model_less() {
        for (vocabulary, seed) in [(16, 3), (512, 1), (777, 2)] {
            let drawn = Drawn::new(&Language { vocabulary, tokens: 1 << 20, seed });
            let entropy = drawn.entropy();
            let text = tokens(&drawn.text(400_000, 0));
            let state = |i: usize| (drawn.class[text[i - 2]] as usize, text[i - 1]);
            let losses: Vec<f64> = (2..text.len()).map(|i| -drawn.probability(state(i), text[i]).ln()).collect();
            let (found, error) = mean(&losses);
            // Four standard errors: one seed of 16,000 falls outside.
            assert!((found - entropy.known).abs() < 4.0 * error, "{vocabulary}: {found} +- {error}, {entropy:?}");
            assert!(error < 0.01 * entropy.known, "{error}");
            // Knowing the last token alone, by its true distribution counted from another text.
            assert!(entropy.first > entropy.known && entropy.first < f64::from(vocabulary).ln(), "{entropy:?}");
        }
    }

    #[test]
    fn the_first_target_has_the_entropy_of_pairs() {
        // Counts of pairs in a long text of a small language: the plug-in estimate is too low by about (pairs - tokens) / 2n.
        let drawn = Drawn::new(&Language { vocabulary: 16, tokens: 1 << 20, seed: 5 });
        let text = tokens(&drawn.text(1_000_000, 0));
        let mut pairs = vec![[0u32; 16]; 16];
        text.windows(2).for_each(|w| pairs[w[0]][w[1]] += 1);
        let of_row = |row: &[u32; 16]| {
            let n: u32 = row.iter().sum();
            row.iter().filter(|c| **c > 0).map(|c| -f64::from(*c) * (f64::from(*c) / f64::from(n)).ln()).sum::<f64>()
        };
        let counted = pairs.iter().map(of_row).sum::<f64>() / text.len() as f64;
        let stated = drawn.entropy().first;
        assert!((counted - stated).abs() < 0.005, "{counted} {stated}");
        let e = Entropy { known: 2.0, first: 3.0 };
        assert_eq!((e.floor(1), e.floor(4)), (3.0, 2.25));
    }

    #[test]
    fn probabilities_are_some_and_texts_are_those_of_their_seed() {
        let language = Language { vocabulary: 50, tokens: 5000, seed: 9 };
        let drawn = Drawn::new(&language);
        for state in [(0, 0), (7, 49), (3, 20)] {
            let sum: f64 = (0..50).map(|t| drawn.probability(state, t)).sum();
            assert!((sum - 1.0).abs() < 1e-12, "{sum}");
        }
        assert!((drawn.stationary().iter().sum::<f64>() - 1.0).abs() < 1e-9);
        assert_eq!(drawn.text(500, 0), Drawn::new(&language).text(500, 0));
        assert_ne!(drawn.text(500, 0), drawn.text(500, 1));
        assert_ne!(drawn.text(500, 0), Drawn::new(&Language { seed: 10, ..language }).text(500, 0));
        for (vocabulary, tokens) in [(15, 5000), (20_000, 5000), (50, 10)] {
            assert!(Language { vocabulary, tokens, seed: 1 }.check().is_err());
        }
    }
}
