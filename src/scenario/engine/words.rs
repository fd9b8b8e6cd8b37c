//! Words of a command.

use crate::yaml::Value;

/// A program and its arguments.
///
/// # Errors
/// Something else than a list of texts and whole numbers.
pub(crate) fn words(v: &Value) -> Result<Vec<String>, String> {
    let Value::List(list) = v else {
        let shown = if let Value::Text(text) = v { format!("`{text}`") } else { v.to_string() };
        return Err(format!(
            "expected a program and its arguments as a list, [python3, train.py], found {shown}; no shell takes a line apart; under \
             sweep, a list of such lists"
        ));
    };
    let words = list.iter().map(|n| scalar(&n.value)).collect::<Result<Vec<_>, _>>()?;
    match words.first() {
        Some(program) if !program.is_empty() => Ok(words),
        _ => Err("expected a program and its arguments, found no program".into()),
    }
}

/// A word of a command, a variable's value: text as it will be handed over.
///
/// # Errors
/// What programs cannot be given, or would be given differently.
pub(super) fn scalar(v: &Value) -> Result<String, String> {
    match v {
        Value::Text(text) if text.contains('\0') => Err("a word holds a NUL, which no program can be given".into()),
        Value::Text(text) => Ok(text.clone()),
        Value::Integer(i) => Ok(i.to_string()),
        // 1.10 would be handed over as 1.1.
        other => Err(format!("expected text, found {} ({other}); put it in quotes", other.kind())),
    }
}
