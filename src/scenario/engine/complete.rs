//! A trial that a program runs: the command with the trial's fields in it, once all of them are known.

use super::fill::filled;
use super::{Engine, Reads, Ready};
use crate::scenario::axes::{AXES, Field};
use crate::scenario::draft::{Draft, FieldFault};
use crate::scenario::trial::Trial;
use crate::transformer::Phase;
use crate::yaml::{Value, did_you_mean};

/// The trial with its program, if the draft names one.
///
/// # Errors
/// A part that is missing, a placeholder that stands for nothing, a reader that cannot read what the trial is.
pub(crate) fn complete(trial: Trial, draft: &Draft) -> Result<Trial, FieldFault> {
    let said = &draft.engine;
    let Some(command) = &said.command else {
        let nothing = said.reads.is_none() && said.name.is_none() && said.env.is_empty();
        let missing = "missing; give the program and its arguments: [python3, train.py]".to_string();
        return if nothing { Ok(trial) } else { Err(("engine.command".into(), missing)) };
    };
    let reads = said.reads.clone().ok_or_else(|| {
        let how = "missing; say how what the program prints is read: { tokens_per_second: $.throughput }, { each: step, seconds: \
                   $.seconds }, { pattern: '(?<tokens_per_second>[0-9.]+) tokens/s' }, llama-bench, torchrun or vllm-throughput";
        ("engine.reads".into(), how.to_string())
    })?;
    fits(&reads, &trial)?;
    let states_model = draft.states_model();
    let value = |name: &str| of_field(name, &trial, draft);
    let fill = |text: &String| filled(text, &value);
    let command: Vec<String> =
        command.iter().map(fill).collect::<Result<_, _>>().map_err(|m| ("engine.command".into(), m))?;
    let variable = |(name, text): (&String, &String)| {
        let path = format!("engine.env.{name}");
        fill(text).map(|text| (name.clone(), text)).map_err(|m| (path.into(), m))
    };
    let env = said.env.iter().map(variable).collect::<Result<_, FieldFault>>()?;
    let engine = Engine { command, env, reads, states_model };
    let own = said.name.clone().unwrap_or_else(|| engine.name());
    let model = if states_model { trial.model.clone() } else { own };
    Ok(Trial { model, engine: Some(engine), ..trial })
}

/// What a ready reader reads has to be what the trial says.
fn fits(reads: &Reads, trial: &Trial) -> Result<(), FieldFault> {
    let (w, fault) = (&trial.workload, |field: &'static str, message: String| Err((field.into(), message)));
    match reads {
        Reads::Ready(Ready::LlamaBench) if w.phase == Phase::Train => {
            fault("phase", "llama-bench trains nothing; use phase: prefill (-p), decode (-n) or generate (-pg)".into())
        }
        Reads::Ready(Ready::LlamaBench) if w.batch != 1 => fault(
            "batch",
            format!("llama-bench runs one sequence at a time, and the batch is {}; use batch: 1", w.batch),
        ),
        Reads::Ready(Ready::VllmThroughput) if w.phase != Phase::Generate => fault(
            "phase",
            format!(
                "vllm bench throughput counts prompts and answers, and the phase is {}; use phase: generate",
                w.phase
            ),
        ),
        _ => Ok(()),
    }
}

/// What a placeholder stands for.
fn of_field(name: &str, trial: &Trial, draft: &Draft) -> Result<String, String> {
    if let Some(variable) = name.strip_prefix("engine.env.") {
        // As written: a variable with placeholders of its own would need an order.
        let text = draft.engine.env.get(variable).filter(|text| !text.contains('{'));
        return text.cloned().ok_or_else(|| unknown(name, draft));
    }
    let field = Field::named(name).filter(|f| !f.path.starts_with("engine.")).ok_or_else(|| unknown(name, draft))?;
    if field.path.starts_with("model.") && !draft.states_model() {
        return Err(format!("{{{name}}} stands for nothing: the trial states no model; give trial.model"));
    }
    match (field.axis.get)(trial) {
        Value::Null => Err(format!("{{{name}}} stands for nothing: phase {} does not use it", trial.workload.phase)),
        value => Ok(value.to_string()),
    }
}

fn unknown(name: &str, draft: &Draft) -> String {
    let fields = AXES.iter().map(|a| a.path).filter(|p| !p.starts_with("engine."));
    let variables: Vec<String> = draft.engine.env.keys().map(|n| format!("engine.env.{n}")).collect();
    let known = || fields.clone().chain(variables.iter().map(String::as_str)).chain(["output"]);
    let all = known().collect::<Vec<_>>().join(", ");
    let hint = did_you_mean(name, known(), std::iter::empty());
    format!("{{{name}}} stands for nothing; {hint}; there is: {all}; {{{{{name}}}}} is the word in braces")
}
