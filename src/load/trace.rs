//! Files of requests that somebody had: ShareGPT's conversations, and Mooncake's lengths and times.

use serde::Deserialize;

/// Tokens of one of Mooncake's blocks.
const BLOCK: u32 = 512;
/// Characters of a token, about, in texts whose tokens nobody has counted.
const CHARACTERS: f64 = 4.0;
/// Most requests that are kept of a file.
const MOST: usize = 1_000_000;

/// One request of a file.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// When it was sent, in seconds since the first, where the file tells.
    pub at: Option<f64>,
    pub ask: Ask,
    pub answer: u32,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq)]
pub enum Ask {
    Text(String),
    /// So many tokens, of blocks of which those of the same number are the same.
    Blocks {
        tokens: u32,
        blocks: Vec<u64>,
    },
}

impl Entry {
    /// Tokens of the prompt, about.
    pub fn tokens(&self) -> u32 {
        match &self.ask {
            Ask::Text(text) => about(text),
            Ask::Blocks { tokens, .. } => *tokens,
        }
    }
}

#[derive(Deserialize)]
struct Conversation {
    conversations: Vec<Turn>,
}

#[derive(Deserialize)]
struct Turn {
    from: String,
    value: String,
}

#[derive(Deserialize)]
struct Mooncake {
    /// In milliseconds.
    timestamp: Option<f64>,
    input_length: u32,
    output_length: u32,
    #[serde(default)]
    hash_ids: Vec<u64>,
}

/// Reads a file of either form. `count`: the tokens of a text.
///
/// # Errors
/// A line or document that is neither.
pub(crate) fn read(text: &str, count: &dyn Fn(&str) -> u32) -> Result<Vec<Entry>, String> {
    let mut all = if text.trim_start().starts_with('[') { conversations(text, count)? } else { lines(text)? };
    all.truncate(MOST);
    if all.is_empty() {
        return Err("no request is in it".into());
    }
    let first = all.iter().filter_map(|e| e.at).reduce(f64::min).unwrap_or(0.0);
    all.iter_mut().flat_map(|e| &mut e.at).for_each(|at| *at -= first);
    Ok(all)
}

/// ShareGPT: of every conversation the first question and its answer.
fn conversations(text: &str, count: &dyn Fn(&str) -> u32) -> Result<Vec<Entry>, String> {
    let wanted =
        "expected ShareGPT's conversations, [{\"conversations\": [{\"from\": \"human\", \"value\": \"...\"}, ...]}]";
    let all: Vec<Conversation> = serde_json::from_str(text).map_err(|e| format!("{wanted}: {e}"))?;
    let pair = |c: Conversation| {
        let mut turns = c.conversations.into_iter();
        let (question, answer) = (turns.next()?, turns.next()?);
        let fits = ["human", "user"].contains(&question.from.as_str()) && !question.value.trim().is_empty();
        let entry = Entry { at: None, answer: count(&answer.value).max(1), ask: Ask::Text(question.value) };
        fits.then_some(entry)
    };
    Ok(all.into_iter().filter_map(pair).collect())
}

/// Mooncake: a request a line.
fn lines(text: &str) -> Result<Vec<Entry>, String> {
    let filled = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let one = |(i, line): (usize, &str)| {
        let wanted = "expected {\"timestamp\": 0, \"input_length\": 6758, \"output_length\": 500, \"hash_ids\": [...]}";
        let m: Mooncake = serde_json::from_str(line).map_err(|e| format!("line {}: {wanted}: {e}", i + 1))?;
        if m.input_length == 0 || m.output_length == 0 {
            return Err(format!("line {}: a prompt and an answer have at least one token", i + 1));
        }
        let ask = Ask::Blocks { tokens: m.input_length, blocks: m.hash_ids };
        Ok(Entry { at: m.timestamp.map(|ms| ms / 1e3), ask, answer: m.output_length })
    };
    filled.map(one).collect()
}

/// Tokens of a text, about.
pub(crate) fn about(text: &str) -> u32 {
    (text.chars().count() as f64 / CHARACTERS).ceil().clamp(1.0, f64::from(u32::MAX)) as u32
}

/// Tokens that a block of a prompt of so many has.
pub(super) fn of_block(tokens: u32, index: usize) -> u32 {
    tokens.saturating_sub(BLOCK.saturating_mul(u32::try_from(index).unwrap_or(u32::MAX))).min(BLOCK)
}

/// When the requests are due, over and over: after the last comes the first again.
pub(super) fn times(entries: &[Entry]) -> Option<Vec<f64>> {
    let mut all: Vec<f64> = entries.iter().map(|e| e.at).collect::<Option<_>>()?;
    all.sort_by(f64::total_cmp);
    (all.last().is_some_and(|last| *last > 0.0)).then_some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn either_form_is_read() {
        let mooncake = "{\"timestamp\": 1000, \"input_length\": 600, \"output_length\": 5, \"hash_ids\": [7, 9]}\n\n\
                        {\"timestamp\": 3500, \"input_length\": 10, \"output_length\": 1, \"hash_ids\": [7]}\n";
        let all = read(mooncake, &about).unwrap();
        assert_eq!(all[0], Entry { at: Some(0.0), ask: Ask::Blocks { tokens: 600, blocks: vec![7, 9] }, answer: 5 });
        assert_eq!((all[1].at, all[1].tokens()), (Some(2.5), 10));
        assert_eq!((of_block(600, 0), of_block(600, 1), of_block(600, 2)), (512, 88, 0));
        assert_eq!(times(&all), Some(vec![0.0, 2.5]));
        let sharegpt = r#"[{"id": "a", "conversations": [{"from": "human", "value": "What is it?"}, {"from": "gpt", "value": "It is this."}]},
            {"conversations": [{"from": "gpt", "value": "x"}, {"from": "human", "value": "y"}]}, {"conversations": []}]"#;
        let all = read(sharegpt, &about).unwrap();
        assert_eq!(all, [Entry { at: None, ask: Ask::Text("What is it?".into()), answer: 3 }]);
        assert_eq!(times(&all), None);
    }

    #[test]
    fn what_is_neither_says_where_and_what_was_expected() {
        assert!(read("{\"timestamp\": 1}", &about).unwrap_err().starts_with("line 1: expected {\"timestamp\""));
        assert!(read("[1]", &about).unwrap_err().starts_with("expected ShareGPT's conversations"));
        assert_eq!(read("[]", &about).unwrap_err(), "no request is in it");
        assert!(
            read("{\"input_length\": 0, \"output_length\": 1}", &about).unwrap_err().contains("at least one token")
        );
    }
}
