//! What became of one request. Every request that was due has a record.

use serde::{Deserialize, Serialize};

/// A request and its answer. Times are in seconds on the generator's clock.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// When it was due; in a closed loop when it was sent.
    pub due: f64,
    /// When it was sent: what lies between is the client's own lateness.
    pub sent: f64,
    /// When the first token was there.
    pub first: Option<f64>,
    /// When the last token was there.
    pub last: Option<f64>,
    /// When nothing more was to come.
    pub over: f64,
    /// Between two arrivals of text, in order.
    pub gaps: Vec<f64>,
    /// As the server counts them; 0 where it did not come to that.
    pub input_tokens: u64,
    /// Of the answer, likewise.
    pub output_tokens: u64,
    /// Input tokens that were in the server's cache, where it tells.
    pub cached_tokens: Option<u64>,
    /// Whether its prompt began as others do, on purpose.
    pub prefixed: bool,
    /// Sent twice: a kept connection ended under it, and whether the server had begun to answer nobody can know.
    pub sent_again: bool,
    /// How it ended.
    pub outcome: Outcome,
    /// What went wrong, in words; empty where it was answered.
    pub reason: String,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// To its end, with a count of its tokens.
    Answered,
    /// There was no connection.
    Unreachable,
    /// Another status than 200: 429 and 503 are a server's way to say that it has too much to do.
    Status(u16),
    /// The server said within the stream that it failed.
    Error,
    /// The connection ended before the answer did.
    Cut,
    /// It took longer than a request may.
    Timeout,
    /// What came was no answer.
    Garbled,
    /// Answered, without a word of how many tokens there were.
    Uncounted,
    /// Under way when the load was over, and not one that counts.
    Abandoned,
}

impl Record {
    /// A request that was due.
    pub(super) fn due(due: f64, sent: f64) -> Self {
        Self {
            due,
            sent,
            first: None,
            last: None,
            over: sent,
            gaps: Vec::new(),
            input_tokens: 0,
            output_tokens: 0,
            cached_tokens: None,
            prefixed: false,
            sent_again: false,
            outcome: Outcome::Abandoned,
            reason: String::new(),
        }
    }

    /// Whether it was answered to its end.
    pub fn is_answered(&self) -> bool {
        self.outcome == Outcome::Answered
    }

    /// From when it was due to its first token.
    pub fn ttft(&self) -> Option<f64> {
        self.first.filter(|_| self.is_answered()).map(|first| first - self.due)
    }

    /// From when it was due to its last token.
    pub fn e2e(&self) -> Option<f64> {
        self.last.filter(|_| self.is_answered()).map(|last| last - self.due)
    }

    /// (E2E - TTFT) / (output tokens - 1); of an answer of one token there is none, nor of one that arrived in one piece.
    pub fn tpot(&self) -> Option<f64> {
        let more = self.output_tokens.checked_sub(1).filter(|n| *n > 0 && self.first != self.last)?;
        Some((self.e2e()? - self.ttft()?) / more as f64)
    }
}

impl Outcome {
    /// "status 429", "timeout": as counts of them are headed.
    pub fn in_words(self) -> String {
        match self {
            Self::Answered => "answered".into(),
            Self::Unreachable => "no connection".into(),
            Self::Status(status) => format!("status {status}"),
            Self::Error => "error in the stream".into(),
            Self::Cut => "cut off".into(),
            Self::Timeout => "timeout".into(),
            Self::Garbled => "no answer".into(),
            Self::Uncounted => "tokens not counted".into(),
            Self::Abandoned => "abandoned".into(),
        }
    }
}
