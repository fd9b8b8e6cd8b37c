//! What load is asked for: of whom, how often, with how many tokens.

use super::search::Search;
use crate::stats::random::SplitMix64;
use serde::{Deserialize, Serialize};

/// A server that answers, and the model that is asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Target {
    /// Up to the version: `http://127.0.0.1:8000/v1`.
    pub endpoint: String,
    /// As the server calls it.
    pub model: String,
    /// Which of the two ways of asking.
    pub api: Api,
    /// The environment's variable that holds the key; the key itself is never kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key_env: Option<String>,
}

/// Which of the two ways of asking.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Api {
    /// `/chat/completions`: a message, which the server puts into the model's template.
    #[default]
    Chat,
    /// `/completions`: text as it is.
    Completions,
}

/// What is sent, and how often.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Traffic {
    /// When requests are sent.
    pub pace: Pace,
    /// Tokens of prompts.
    pub prompt: Lengths,
    /// Tokens of answers.
    pub answer: Lengths,
    /// Of one request, from when it is due.
    pub timeout_seconds: f64,
    /// Beginnings that prompts have in common on purpose; without, none has a beginning of another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<Prefix>,
    /// What a request has to keep to be a good one.
    #[serde(default, skip_serializing_if = "Slo::is_none")]
    pub slo: Slo,
    /// The model's `tokenizer.json`, by which prompts are made to their length.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokenizer: Option<String>,
    /// A file of requests that somebody had, in the place of the two lengths.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<String>,
    /// The largest load that keeps to the SLO is looked for, from `pace` on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub search: Option<Search>,
}

/// When requests are sent.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pace {
    /// So many at a time: the next when one is answered.
    Closed {
        /// Requests under way.
        concurrency: u32,
    },
    /// So many a second on average, whatever the server does.
    Open {
        /// Requests a second.
        rate: f64,
        /// How they are spread.
        arrivals: Arrivals,
    },
    /// When a trace's requests were sent.
    Replay,
}

/// How requests of an open loop are spread over time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Arrivals {
    /// As those of many users who know nothing of one another.
    #[default]
    Poisson,
    /// Equally far apart.
    Constant,
    /// As those of the trace, drawn out or together to the rate.
    Trace,
}

/// How many tokens.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lengths {
    /// Always so many.
    Fixed(u32),
    /// Every number from the first to the last as often.
    Range(u32, u32),
    /// Rounded; what is below 1 is 1.
    Normal {
        /// Tokens in the mean.
        mean: f64,
        /// Their standard deviation.
        deviation: f64,
    },
}

/// A beginning of so many tokens that a share of the prompts have in common.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Prefix {
    /// Of the prompts.
    pub share: f64,
    /// Of the beginning.
    pub tokens: u32,
}

/// What a user will wait for, in seconds, and the share of requests that have to keep to it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Slo {
    /// To the first token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttft: Option<f64>,
    /// For each token after it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tpot: Option<f64>,
    /// To the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub e2e: Option<f64>,
    /// Of the requests.
    pub share: f64,
}

impl Default for Slo {
    /// Nothing; where something is asked for, of 95 of 100 requests.
    fn default() -> Self {
        Self { ttft: None, tpot: None, e2e: None, share: 0.95 }
    }
}

impl Slo {
    /// Whether nothing is asked for.
    pub fn is_none(&self) -> bool {
        self.ttft.is_none() && self.tpot.is_none() && self.e2e.is_none()
    }
}

impl Pace {
    /// The same kind of load, so much of it; what a trace sets stays as it is.
    pub(crate) fn at(&self, load: f64) -> Self {
        match self {
            Self::Closed { .. } => Self::Closed { concurrency: load.round().clamp(1.0, f64::from(u32::MAX)) as u32 },
            Self::Open { arrivals, .. } => Self::Open { rate: load, arrivals: *arrivals },
            Self::Replay => Self::Replay,
        }
    }

    /// How much of it: requests at a time, or a second.
    pub(crate) fn load(&self) -> Option<f64> {
        match self {
            Self::Closed { concurrency } => Some(f64::from(*concurrency)),
            Self::Open { rate, .. } => Some(*rate),
            Self::Replay => None,
        }
    }

    /// How many requests are under way at a time, of a closed loop.
    pub(crate) fn concurrency(&self) -> Option<u32> {
        match self {
            Self::Closed { concurrency } => Some(*concurrency),
            Self::Open { .. } | Self::Replay => None,
        }
    }
}

impl Lengths {
    /// The mean, rounded; at least 1.
    pub(crate) fn mean(&self) -> u32 {
        match self {
            Self::Fixed(n) => *n,
            Self::Range(low, high) => ((u64::from(*low) + u64::from(*high)) / 2) as u32,
            Self::Normal { mean, .. } => (mean.round() as u32).max(1),
        }
    }

    /// One of them.
    pub(crate) fn draw(&self, random: &mut SplitMix64) -> u32 {
        match self {
            Self::Fixed(n) => *n,
            Self::Range(low, high) => low + random.below((high.saturating_sub(*low)) as usize + 1) as u32,
            Self::Normal { mean, deviation } => {
                (mean + deviation * normal(random)).round().clamp(1.0, f64::from(u32::MAX)) as u32
            }
        }
    }
}

/// From above 0 to 1.
pub(super) fn uniform(random: &mut SplitMix64) -> f64 {
    ((random.draw() >> 11) + 1) as f64 / (1u64 << 53) as f64
}

/// Box and Muller 1958.
fn normal(random: &mut SplitMix64) -> f64 {
    let (radius, angle) = ((-2.0 * uniform(random).ln()).sqrt(), std::f64::consts::TAU * uniform(random));
    radius * angle.cos()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_spread_as_they_say() {
        let mut random = SplitMix64::new(3);
        let mut all = |lengths: Lengths| (0..20_000).map(|_| f64::from(lengths.draw(&mut random))).collect::<Vec<_>>();
        assert!(all(Lengths::Fixed(7)).iter().all(|n| *n == 7.0));
        let of_range = all(Lengths::Range(10, 13));
        for wanted in 10..=13 {
            let share = of_range.iter().filter(|n| **n == f64::from(wanted)).count() as f64 / 20_000.0;
            // Four standard deviations of a share of 20,000 draws.
            assert!((share - 0.25).abs() < 4.0 * (0.25f64 * 0.75 / 20_000.0).sqrt(), "{wanted}: {share}");
        }
        let of_normal = all(Lengths::Normal { mean: 100.0, deviation: 10.0 });
        let mean = of_normal.iter().sum::<f64>() / 20_000.0;
        let variance = of_normal.iter().map(|n| (n - mean).powi(2)).sum::<f64>() / 20_000.0;
        assert!((mean - 100.0).abs() < 0.3 && (variance.sqrt() - 10.0).abs() < 0.3, "{mean} {variance}");
        assert!(all(Lengths::Normal { mean: 1.0, deviation: 5.0 }).iter().all(|n| *n >= 1.0));
        assert_eq!((Lengths::Range(10, 13).mean(), Lengths::Normal { mean: 0.2, deviation: 1.0 }.mean()), (11, 1));
    }
}
