//! What a trial's process and its parent say to each other: one JSON object a line, the request on the child's stdin, the
//! messages on its stdout.
//!
//! Parent and child are the same binary, so the version only guards against a program replaced in the middle of a sweep.

use super::measurement::Figures;
use crate::net::world::World;
use crate::scenario::{Measure, trial::Trial};
use serde::{Deserialize, Serialize};
use std::io::{self, Read, Write};

/// Version of this conversation. A check speaks with older builds, whose version has to be the same: what a parent may hear beside
/// what it knew, and what a child may be asked without (fields with defaults), does not change it.
pub(crate) const PROTOCOL_VERSION: u32 = 1;

/// Version of a request for a trial that another program runs: a build from before would run the built-in transformer instead.
pub(crate) const ENGINE_PROTOCOL: u32 = 2;

/// Version of a request for a trial whose weights are read: a build from before would run random ones instead.
pub(crate) const WEIGHTS_PROTOCOL: u32 = 3;

/// Version of a request for a trial that is to learn something: a build from before would measure steps on random tokens instead.
pub(crate) const LEARNING_PROTOCOL: u32 = 4;

/// Version of a request for a trial whose steps are not carried out all at once: a build from before would do them so.
pub(crate) const LEVERS_PROTOCOL: u32 = 5;

/// Version of a request for a trial whose devices are stages of a pipeline: a build from before would make replicas of them.
pub(crate) const PIPELINE_PROTOCOL: u32 = 6;

/// Version of a request for a trial whose KV cache is in few bits: a build from before would keep it in the dtype instead.
pub(crate) const CACHE_PROTOCOL: u32 = 7;

/// Version of a request for a trial whose experts are spread over devices: a build from before would have all of them on each.
pub(crate) const EXPERT_PROTOCOL: u32 = 8;

/// Longest request that a child reads, in bytes.
const LONGEST_REQUEST: u64 = 1 << 20;

/// What the parent asks for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct TrialRequest {
    pub protocol: u32,
    pub trial: Trial,
    pub measure: Measure,
    /// Where the trial runs on several processes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub team: Option<Team>,
    /// Seconds for which the trial may stand still until others are done; without a word, none.
    #[serde(default)]
    pub patience_seconds: f64,
    /// Whether to say what weights and a KV cache in few bits do to the loss.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub loss_change: bool,
}

/// The processes that run a trial together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Team {
    /// This process's place. Rank 0 takes a port that is free and says it ([`Message::Meeting`]); the others are told that one.
    pub world: World,
    /// The same for all processes of the trial, and for no other trial.
    pub key: u64,
}

/// What a trial is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// The process starts and builds the model.
    Preparing,
    /// Steps until their time is stationary.
    WarmUp,
    /// Steps that count.
    Measuring,
    /// Steps of a trial that is to learn something.
    Learning,
    /// Stands still until others are done.
    Waiting,
}

impl Stage {
    /// The stage in words, for a progress line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Preparing => "preparing",
            Self::WarmUp => "warming up",
            Self::Measuring => "measuring",
            Self::Learning => "training",
            Self::Waiting => "waiting for a quieter moment",
        }
    }
}

/// How far a trial is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// What it is doing.
    pub stage: Stage,
    /// Steps of this stage.
    pub steps: u64,
    /// Seconds since the stage began.
    pub seconds: f64,
    /// Throughput over the stage so far.
    pub tokens_per_second: Option<f64>,
    /// Relative half width of the median step's interval, as last computed.
    pub precision: Option<f64>,
}

impl Progress {
    /// Before anything has been heard.
    pub(super) const START: Self =
        Self { stage: Stage::Preparing, steps: 0, seconds: 0.0, tokens_per_second: None, precision: None };
}

/// What kind of fault a child reports of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Fault {
    Oom,
    /// A device failed or was lost in the middle of the trial, or the program that was measured crashed.
    Device,
    /// The trial cannot be run as asked, or its figures are not to be trusted.
    Invalid,
    /// What the trial was to learn it did not: its loss is no number, or beyond all bounds.
    Diverged,
    /// Another process of the trial ended, or could not be met.
    Lost,
}

/// What a child says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "message", rename_all = "snake_case")]
pub(crate) enum Message {
    /// The request was understood; nothing is built yet.
    Ready {
        baseline_rss_bytes: u64,
    },
    /// Rank 0 of several processes waits for the others at this port.
    Meeting {
        port: u16,
    },
    Progress(Progress),
    Done(Box<Figures>),
    Failed {
        kind: Fault,
        reason: String,
    },
}

/// Why a child could not hold its end of the conversation.
#[derive(Debug, thiserror::Error)]
pub enum ProtocolError {
    /// The request could not be read.
    #[error("reading the request from stdin: {0}")]
    Read(io::Error),
    /// What was read is no request.
    #[error("the request on stdin is not understood ({0}); `centime trial` is used by `centime run` only")]
    Request(serde_json::Error),
    /// The parent takes no answer.
    #[error("writing to the parent: {0}")]
    Write(io::Error),
}

/// Reads the one request.
///
/// # Errors
/// A closed pipe; something that is no request.
pub(crate) fn read_request(input: impl Read) -> Result<TrialRequest, ProtocolError> {
    let mut text = Vec::new();
    input.take(LONGEST_REQUEST).read_to_end(&mut text).map_err(ProtocolError::Read)?;
    serde_json::from_slice(&text).map_err(ProtocolError::Request)
}

/// Says one message.
///
/// # Errors
/// A parent that is gone.
pub(crate) fn send(output: &mut impl Write, message: &Message) -> Result<(), ProtocolError> {
    let mut line = serde_json::to_vec(message).map_err(|e| ProtocolError::Write(e.into()))?;
    line.push(b'\n');
    output.write_all(&line).and_then(|()| output.flush()).map_err(ProtocolError::Write)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_back_as_they_were_sent() {
        let progress = Progress { stage: Stage::Measuring, steps: 7, seconds: 0.1, ..Progress::START };
        for message in [
            Message::Ready { baseline_rss_bytes: u64::MAX },
            Message::Progress(progress),
            Message::Failed { kind: Fault::Oom, reason: "a \"quoted\"\nline".into() },
        ] {
            let mut line = Vec::new();
            send(&mut line, &message).unwrap();
            assert_eq!(line.iter().filter(|b| **b == b'\n').count(), 1);
            assert_eq!(serde_json::from_slice::<Message>(&line).unwrap(), message);
        }
    }

    #[test]
    fn a_request_that_is_none_names_the_command_to_use() {
        let error = read_request(&b"hello"[..]).unwrap_err().to_string();
        assert!(error.contains("used by `centime run` only"), "{error}");
    }
}
