//! Paths into JSON, the part of RFC 9535 that names one value: `$`, `.key`, `['key']`, `[2]`, `[-1]`.

use serde_json::Value;

/// One step of a path.
#[derive(Clone, Debug, PartialEq)]
enum Step {
    Key(String),
    /// From the end where it is negative.
    Index(i64),
}

/// A path that names one value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct JsonPath(Vec<Step>);

impl JsonPath {
    /// # Errors
    /// What the text is instead, and how paths look.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let refused = || format!("`{text}` is no path; expected $.key, $.list[0] or $['a key']");
        let mut rest = text.trim().strip_prefix('$').ok_or_else(refused)?;
        let mut steps = Vec::new();
        while !rest.is_empty() {
            let (step, after) = step(rest).ok_or_else(refused)?;
            steps.push(step);
            rest = after;
        }
        Ok(Self(steps))
    }

    /// The value that it names in a document, if there is one.
    pub(crate) fn of<'a>(&self, document: &'a Value) -> Option<&'a Value> {
        self.0.iter().try_fold(document, |at, step| match step {
            Step::Key(key) => at.as_object()?.get(key),
            Step::Index(i) => {
                let list = at.as_array()?;
                let from_end = || list.len().checked_sub(usize::try_from(i.unsigned_abs()).ok()?);
                list.get(if *i < 0 { from_end()? } else { usize::try_from(*i).ok()? })
            }
        })
    }
}

/// The first step of a path, and what follows it.
fn step(text: &str) -> Option<(Step, &str)> {
    if let Some(rest) = text.strip_prefix('.') {
        let end = rest.find(['.', '[']).unwrap_or(rest.len());
        let (key, after) = rest.split_at(end);
        return (!key.is_empty()).then(|| (Step::Key(key.into()), after));
    }
    let rest = text.strip_prefix('[')?;
    for quote in ['\'', '"'] {
        if let Some(rest) = rest.strip_prefix(quote) {
            let (key, after) = rest.split_once(quote)?;
            return Some((Step::Key(key.into()), after.strip_prefix(']')?));
        }
    }
    let (index, after) = rest.split_once(']')?;
    Some((Step::Index(index.parse().ok()?), after))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn paths_name_keys_and_places_from_either_end() {
        let document = json!({"a": {"b c": [1, 2, 3]}, "tokens/s": 5});
        let of = |path: &str| JsonPath::parse(path).unwrap().of(&document).cloned();
        assert_eq!(of("$.a['b c'][0]"), Some(json!(1)));
        assert_eq!(of("$.a[\"b c\"][-1]"), Some(json!(3)));
        assert_eq!(of("$.tokens/s"), Some(json!(5)));
        assert_eq!(of("$"), Some(document.clone()));
        for absent in ["$.b", "$.a[0]", "$.a['b c'][3]", "$.a['b c'][-4]", "$.tokens/s.x"] {
            assert_eq!(of(absent), None, "{absent}");
        }
    }

    #[test]
    fn what_is_no_path_is_refused_with_an_example() {
        for text in ["", "throughput", "$throughput", "$.", "$..a", "$[", "$[a]", "$['a'", "$.a[1", "$[*]"] {
            let fault = JsonPath::parse(text).unwrap_err();
            assert!(fault.ends_with("is no path; expected $.key, $.list[0] or $['a key']"), "{fault}");
        }
    }
}
