//! Placeholders of a command: `{batch}` is the trial's batch, `{{batch}}` the word in braces.

use super::OUTPUT;

/// Fills in every `{name}` by what `value` says of the name. Braces around anything but a name are left: `{"a": 1}` is JSON.
///
/// # Errors
/// What `value` says is wrong with a name.
pub(crate) fn filled(text: &str, value: &dyn Fn(&str) -> Result<String, String>) -> Result<String, String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, from)) = rest.split_once('{') {
        out.push_str(before);
        rest = if let Some((name, after)) =
            from.strip_prefix('{').and_then(|f| f.split_once("}}")).filter(|(n, _)| is_name(n))
        {
            out.push_str(&format!("{{{name}}}"));
            after
        } else if let Some((name, after)) = from.split_once('}').filter(|(n, _)| is_name(n)) {
            if name == OUTPUT.trim_matches(['{', '}']) {
                out.push_str(OUTPUT);
            } else {
                out.push_str(&value(name)?);
            }
            after
        } else {
            out.push('{');
            from
        };
    }
    out.push_str(rest);
    Ok(out)
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Result<String, String> {
        filled(text, &|name| match name {
            "batch" => Ok("8".into()),
            other => Err(format!("no {other}")),
        })
    }

    #[test]
    fn names_are_filled_in_and_other_braces_left() {
        assert_eq!(of("--batch={batch}/{batch}").unwrap(), "--batch=8/8");
        assert_eq!(of(r#"{"a": {"b": {batch}}, "c": 1}"#).unwrap(), r#"{"a": {"b": 8}, "c": 1}"#);
        assert_eq!(of(r#"{"a":{"b":1}}"#).unwrap(), r#"{"a":{"b":1}}"#);
        assert_eq!(of("{{batch}} é} {").unwrap(), "{batch} é} {");
        assert_eq!(of("{output}").unwrap(), "{output}");
        assert_eq!(of("{batchsize}").unwrap_err(), "no batchsize");
    }
}
