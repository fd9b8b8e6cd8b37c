//! A trial that a program runs: the command with the trial's fields in it, once all of them are known.

use super::fill::filled;
use super::{Engine, Reads, Ready};
use crate::scenario::axes::{AXES, Field};
use crate::scenario::draft::{Draft, FieldFault};
use crate::scenario::trial::Trial;
use crate::transformer::Phase;
use crate::yaml::{Value, did_you_mean};
use std::collections::BTreeMap;

/// The trial with its program, if the draft names one.
///
/// # Errors
/// A part that is missing, a placeholder that stands for nothing, a reader that cannot read what the trial is.
pub(crate) fn complete(trial: Trial, draft: &Draft) -> Result<Trial, FieldFault> {
    let said = &draft.engine;
    let outside = said.server.endpoint.is_some() || said.command.is_some();
    if outside && draft.learning.is_said() {
        let message =
            "what is learnt, and until when, is asked of the built-in transformer alone; leave it out, or the engine";
        return Err(("until".into(), message.into()));
    }
    if said.server.endpoint.is_some() {
        return served(trial, draft);
    }
    if let Some((field, what)) = said.server.first() {
        return Err((field.into(), format!("{what} of a server; give engine.endpoint, its address")));
    }
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
    let (command, env) = program("engine.command", command, &trial, draft)?;
    let engine = Engine { command, env, reads, states_model, server: None };
    let own = said.name.clone().unwrap_or_else(|| engine.name());
    let model = if states_model { trial.model.clone() } else { own };
    Ok(Trial { model, engine: Some(engine), ..trial })
}

/// A command and its variables with the trial's fields in them.
fn program(
    path: &'static str,
    command: &[String],
    trial: &Trial,
    draft: &Draft,
) -> Result<(Vec<String>, BTreeMap<String, String>), FieldFault> {
    let value = |name: &str| of_field(name, trial, draft);
    let fill = |text: &String| filled(text, &value);
    let words = command.iter().map(fill).collect::<Result<_, _>>().map_err(|m| (path.into(), m))?;
    let variable = |(name, text): (&String, &String)| {
        let path = format!("engine.env.{name}");
        fill(text).map(|text| (name.clone(), text)).map_err(|m| (path.into(), m))
    };
    Ok((words, draft.engine.env.iter().map(variable).collect::<Result<_, FieldFault>>()?))
}

/// The trial that asks a server.
fn served(trial: Trial, draft: &Draft) -> Result<Trial, FieldFault> {
    let (said, states_model) = (&draft.engine, draft.states_model());
    for (given, field) in [(said.command.is_some(), "engine.command"), (said.reads.is_some(), "engine.reads")] {
        if given {
            let message = "belongs to a program, and engine.endpoint names a server; keep one of the two (engine.start starts a server)";
            return Err((field.into(), message.into()));
        }
    }
    if trial.workload.phase != Phase::Generate {
        let message = format!("a server answers prompts, and the phase is {}; leave phase out", trial.workload.phase);
        return Err(("phase".into(), message));
    }
    if trial.workload.batch != 1 {
        return Err(("batch".into(), "a server batches as it sees fit; use load.concurrency".into()));
    }
    let finished = said.server.finish(trial.workload.prompt_len, trial.workload.new_tokens);
    let server = finished.map_err(|(field, message)| (field.into(), message))?;
    let own = said.name.clone().unwrap_or_else(|| server.target.model.clone());
    let model = if states_model { trial.model.clone() } else { own };
    let mut trial = Trial { model, ..trial };
    // What is under way at a time.
    trial.workload.batch = server.traffic.pace.concurrency().unwrap_or(1);
    let engine =
        Engine { command: vec![], env: said.env.clone(), reads: Reads::Requests, states_model, server: Some(server) };
    trial.engine = Some(engine.clone());
    let Some(start) = &said.server.start else {
        let nobody = "variables are for a server that Centime starts; give engine.start, or set them where the server is started";
        return if said.env.is_empty() { Ok(trial) } else { Err(("engine.env".into(), nobody.into())) };
    };
    let (command, env) = program("engine.start", &start.command, &trial, draft)?;
    Ok(Trial { engine: Some(Engine { command, env, ..engine }), ..trial })
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
