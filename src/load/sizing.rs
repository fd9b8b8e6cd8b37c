//! What the server takes and counts, learned from it before the load begins: how it wants to be asked, and how many tokens words are.

use super::client::Client;
use super::counted::{Dialect, Sizing};
use super::prompt::{body, words};
use super::record::{Outcome, Record};
use super::request;
use super::tokens::Tokens;
use crate::stats::random::SplitMix64;
use std::time::{Duration, Instant};

/// Words of the short prompt.
const FEW: u32 = 8;

/// Asks the server twice for one token. With the model's own tokenizer the template is what the server counts beside the text.
///
/// # Errors
/// A server that does not answer, or does not count.
pub async fn learn(
    client: &Client,
    tokens: Option<&Tokens>,
    prompt_tokens: u32,
    salt: u64,
    patience: Duration,
) -> Result<(Dialect, Sizing), String> {
    let mut random = SplitMix64::new(salt);
    let ask = async |text: &str, dialect: Dialect| {
        let body = body(client.api(), client.model(), text, 1, dialect);
        request::ask(client, body, Instant::now(), patience, Record::due(0.0, 0.0)).await
    };
    let (mut found, mut refused) = (None, String::new());
    for dialect in [Dialect::Open, Dialect::Plain, Dialect::Modern] {
        let few = words(FEW, &mut random);
        let record = ask(&few, dialect).await;
        match record.outcome {
            Outcome::Answered => {
                found = Some((dialect, record.input_tokens, few));
                break;
            }
            Outcome::Status(400 | 422) => refused = record.reason,
            _ => return Err(format!("the server does not answer a first request: {}", record.reason)),
        }
    }
    let Some((dialect, of_few, few)) = found else {
        return Err(format!("the server refuses every form of a first request: {refused}"));
    };
    // As long as prompts will be, so that what is off is off least there; shorter where words are more than a token each, and a server
    // that has room for the prompts has none for so many words.
    let mut count = prompt_tokens.max(8 * FEW);
    let record = loop {
        let record = ask(&words(count, &mut random), dialect).await;
        match record.outcome {
            Outcome::Answered => break record,
            Outcome::Status(400 | 413 | 422) if count > prompt_tokens / 2 && count > 8 * FEW => {
                count = (count - count / 4).max(8 * FEW);
            }
            _ => return Err(format!("the server does not answer a prompt of {count} words: {}", record.reason)),
        }
    };
    let sizing = Sizing::of((FEW, of_few), (count, record.input_tokens)).ok_or_else(|| {
        format!(
            "the server counts {of_few} tokens of {FEW} words and {} of {count}: prompts cannot be made to a length by that",
            record.input_tokens
        )
    })?;
    let overhead = match tokens {
        Some(tokens) => of_few as f64 - f64::from(tokens.count(&few)?),
        None => sizing.overhead,
    };
    Ok((dialect, Sizing { overhead, ..sizing }))
}
