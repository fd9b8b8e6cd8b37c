//! vLLM's `vllm bench throughput --output-json`: one object of totals.

use super::output::number;
use super::sample::Sample;
use crate::scenario::engine::Figure;
use crate::transformer::Workload;
use serde_json::Value;

/// Tokens of a request may be off by this share: tokenizers add and merge some.
const OFF: f64 = 0.05;

/// The sample of a launch; `None` where no such object is there. `tokens_per_second` counts prompts and answers, as a step of phase
/// generate does.
///
/// # Errors
/// Requests of another length than the trial's; figures that are none.
pub(super) fn sample(documents: &[Value], w: &Workload) -> Result<Option<Sample>, String> {
    let get = |d: &Value, key: &str| d.get(key).and_then(number);
    let known = |d: &&Value| get(d, "elapsed_time").is_some() && get(d, "total_num_tokens").is_some();
    let Some(found) = documents.iter().find(known) else { return Ok(None) };
    let (seconds, tokens) = (get(found, "elapsed_time"), get(found, "total_num_tokens"));
    let of_request = f64::from(w.prompt_len) + f64::from(w.new_tokens);
    if let (Some(tokens), Some(requests)) = (tokens, get(found, "num_requests").filter(|n| *n > 0.0)) {
        let each = tokens / requests;
        if (each / of_request - 1.0).abs() > OFF {
            return Err(format!(
                "expected requests of {of_request} tokens (prompt_len and new_tokens), found {each:.1} on average; give \
                 --input-len {{prompt_len}} --output-len {{new_tokens}}"
            ));
        }
    }
    let figures = [(Figure::Seconds, seconds), (Figure::Tokens, tokens)];
    let figures: Vec<(Figure, f64)> = figures.into_iter().filter_map(|(f, v)| Some((f, v?))).collect();
    Sample::of(&figures, w.tokens_per_step()).map(Some)
}
