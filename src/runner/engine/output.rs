//! JSON in what a program prints, among lines that are none.

use serde_json::Value;

/// Every JSON document in a text: the text as a whole; or else its lines that are objects or lists; or else what begins with the
/// first line that opens one.
pub(super) fn documents(text: &str) -> Vec<Value> {
    if let Ok(all) = serde_json::from_str(text) {
        return vec![all];
    }
    let opens = |line: &str| line.starts_with(['{', '[']);
    let lines: Vec<Value> =
        text.lines().map(str::trim).filter(|l| opens(l)).filter_map(|l| serde_json::from_str(l).ok()).collect();
    let has_content = |v: &Value| {
        v.as_object().is_some_and(|o| !o.is_empty()) || v.as_array().is_some_and(|l| l.iter().any(Value::is_object))
    };
    if lines.iter().any(has_content) {
        return lines;
    }
    let mut from = 0;
    for line in text.split_inclusive('\n') {
        if opens(line.trim_start()) {
            // What follows the document is the program's affair.
            let first = serde_json::Deserializer::from_str(&text[from..]).into_iter::<Value>().next();
            if let Some(Ok(document)) = first.filter(|d| d.as_ref().is_ok_and(has_content)) {
                return vec![document];
            }
        }
        from += line.len();
    }
    Vec::new()
}

/// A number, also one that is written as text; NaN in words is one that is refused later.
pub(super) fn number(value: &Value) -> Option<f64> {
    value.as_f64().or_else(|| value.as_str()?.trim().parse().ok())
}

/// The end of a text in a line, for a message.
pub(super) fn shown(text: &str) -> String {
    const MOST: usize = 200;
    let line = text.trim().lines().last().unwrap_or_default();
    let clean: String = line.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MOST).collect();
    if clean.is_empty() { "nothing".into() } else { format!("\"{clean}\"") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn documents_are_found_whole_by_lines_and_after_a_preface() {
        assert_eq!(documents("{\"a\": 1}"), [json!({"a": 1})]);
        assert_eq!(documents("warming up\n{\"a\": 1}\n[INFO] done\n{\"a\": 2}\n"), [json!({"a": 1}), json!({"a": 2})]);
        assert_eq!(documents("[INFO] go\n[\n  {\n    \"a\": 1\n  }\n]\nbye\n"), [json!([{"a": 1}])]);
        assert!(documents("nothing here\n{'a': 1}\n").is_empty());
        assert!(documents("").is_empty());
    }
}
