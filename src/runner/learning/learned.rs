//! What a launch that was to learn something came to: plain data.

use crate::units::grouped;
use serde::{Deserialize, Serialize};

/// A loss, and how far the training was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Steps that were done.
    pub step: u64,
    /// Tokens that they read.
    pub tokens: u64,
    /// Seconds that they took, evaluations not counted.
    pub seconds: f64,
    /// In nats a token.
    pub loss: f64,
}

/// Why a launch ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndedBy {
    /// The loss was there.
    Target,
    /// As many tokens as it may read.
    Tokens,
    /// As many seconds as it may take.
    Seconds,
    /// Nine tenths of its time-out.
    Timeout,
}

/// What the text was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Text {
    /// Tokens to be trained on.
    pub train_tokens: u64,
    /// Tokens that are only evaluated.
    pub validation_tokens: u64,
    /// Bytes of text that a token stands for, where it is text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_per_token: Option<f64>,
    /// The least loss that any model can reach, in nats a token, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entropy: Option<f64>,
    /// Seconds that it took to be made ready.
    pub preparation_seconds: f64,
}

/// What became of a launch's checkpoints, over all processes that it took, and of the work that was lost where one was ended.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Checkpoints {
    /// That were made.
    pub made: u64,
    /// That could not be written.
    pub failed: u64,
    /// What all of them took.
    pub seconds: f64,
    /// Of the last one.
    pub bytes: u64,
    /// How often the launch was ended and went on.
    pub resumed: u64,
    /// Steps that were done again: those since the last checkpoint, whole ones.
    pub lost_steps: u64,
    /// What they had taken.
    pub lost_seconds: f64,
    /// What went wrong, a sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub said: Vec<String>,
}

/// One launch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Learned {
    /// Of weights, order of the text and dropout.
    pub seed: u64,
    pub ended_by: EndedBy,
    pub text: Text,
    /// At the end: the last validation loss.
    pub end: Point,
    /// The first evaluation that was at the target or below it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Point>,
    /// Training losses, neighbours averaged where there are many.
    pub curve: Vec<Point>,
    /// Validation losses; the first is that of a model that has seen nothing.
    pub evaluations: Vec<Point>,
    /// What all evaluations took.
    pub evaluation_seconds: f64,
    /// For which steps waited for their batches.
    pub waited_seconds: f64,
    /// Of a launch that was to have some, where there was a place for them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoints: Option<Checkpoints>,
}

/// "ended once and gone on with, 57 steps done again", and what went wrong with checkpoints, over launches; `None` where there is
/// nothing to say.
pub(crate) fn checkpoints_in_words(learned: &[Learned]) -> Option<String> {
    let all: Vec<&Checkpoints> = learned.iter().filter_map(|l| l.checkpoints.as_ref()).collect();
    let sum = |of: fn(&Checkpoints) -> u64| all.iter().map(|c| of(c)).sum::<u64>();
    let (resumed, lost) = (sum(|c| c.resumed), sum(|c| c.lost_steps));
    let times = if resumed == 1 { "once".to_string() } else { format!("{} times", grouped(resumed)) };
    let steps = if lost == 1 { "step" } else { "steps" };
    let again = format!("ended {times} and gone on with, {} {steps} done again", grouped(lost));
    let said = all.iter().flat_map(|c| c.said.iter().cloned());
    let parts: Vec<String> = (resumed > 0).then_some(again).into_iter().chain(said).collect();
    (!parts.is_empty()).then(|| parts.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_became_of_checkpoints_is_said_only_where_there_is_something_to_say() {
        let of = |checkpoints: Option<Checkpoints>| {
            let (text, end, curve) = (Text::default(), Point::default(), vec![]);
            let ended_by = EndedBy::Tokens;
            let (evaluations, target) = (vec![], None);
            Learned {
                seed: 1,
                ended_by,
                text,
                end,
                target,
                curve,
                evaluations,
                evaluation_seconds: 0.0,
                waited_seconds: 0.0,
                checkpoints,
            }
        };
        let quiet = of(Some(Checkpoints { made: 5, seconds: 1.0, ..Checkpoints::default() }));
        assert_eq!(checkpoints_in_words(&[of(None), quiet.clone()]), None);
        let killed = of(Some(Checkpoints { resumed: 1, lost_steps: 57, ..Checkpoints::default() }));
        let full =
            of(Some(Checkpoints { resumed: 2, said: vec!["1 of 2 could not".into()], ..Checkpoints::default() }));
        assert_eq!(
            checkpoints_in_words(std::slice::from_ref(&killed)).unwrap(),
            "ended once and gone on with, 57 steps done again"
        );
        assert_eq!(
            checkpoints_in_words(&[quiet, killed, full]).unwrap(),
            "ended 3 times and gone on with, 57 steps done again; 1 of 2 could not"
        );
    }
}
