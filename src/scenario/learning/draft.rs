//! The sections `data`, `schedule`, `until`, `eval` and `checkpoint` of a trial: from YAML's values to what they mean.

use super::{Decay, Eval, Every, Learning, Schedule, Until};
use crate::data::{Files, Language, Source, Tokenizer, What};
use crate::scenario::values::{count, number};
use crate::transformer::backend::Update;
use crate::transformer::shape::count;
use crate::transformer::{Phase, Workload};
use crate::yaml::{Sources, Value};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Evaluations of a run whose length is known.
const EVALUATIONS: u64 = 40;
/// Steps between two of them where it is not.
const EVERY: u64 = 25;
/// Tokens that an evaluation reads.
const EVALUATED: u64 = 16_384;
/// Tokens for each parameter that end a run which names a loss alone (Hoffmann et al. 2022: about what is best for a given effort).
const TOKENS_PER_PARAMETER: u64 = 20;
/// Byte pairs of text where nothing is said.
const BPE: u32 = 1024;

/// What can be named without files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Named {
    Corpus,
    Synthetic,
}

crate::transformer::names!(Named { Corpus => "corpus", Synthetic => "synthetic" });

/// What is said of a trial's learning so far.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct LearningDraft {
    pub source: Option<Named>,
    pub text: Option<Vec<String>>,
    pub field: Option<String>,
    pub column: Option<String>,
    pub tokenizer: Option<Tokenizer>,
    pub share: Option<f64>,
    pub rate: Option<f32>,
    pub warmup: Option<u32>,
    pub decay: Option<Decay>,
    pub floor: Option<f32>,
    pub weight_decay: Option<f32>,
    pub validation_loss: Option<f64>,
    pub tokens: Option<u64>,
    pub seconds: Option<f64>,
    pub every: Option<u64>,
    pub evaluated: Option<u64>,
    pub checkpoint: Option<Every>,
    /// The data with its digest and the size of its vocabulary, once it has been looked at.
    pub sealed: Option<(Source, u32)>,
}

impl LearningDraft {
    /// Whether the trial is to learn something.
    pub(crate) fn is_said(&self) -> bool {
        Self { sealed: None, ..self.clone() } != Self::default()
    }

    /// What the model's vocabulary is where the model does not say.
    pub(crate) fn vocabulary(&self) -> Option<u32> {
        self.sealed.as_ref().map(|(_, vocabulary)| *vocabulary)
    }

    /// The source as it is said.
    ///
    /// # Errors
    /// The field at fault, and the remedy.
    fn source(&self) -> Result<Source, (&'static str, String)> {
        let what = match (&self.text, self.source) {
            (Some(_), Some(named)) => {
                return Err(("data.text", format!("files, and data names {named} as well; keep one of the two")));
            }
            (Some(patterns), None) => {
                let mut files = Files::new(patterns.clone());
                files.field = self.field.clone().unwrap_or(files.field);
                files.column = self.column.clone().unwrap_or(files.column);
                What::Text(files)
            }
            (None, Some(Named::Synthetic)) => What::Synthetic(Language::default()),
            (None, None | Some(Named::Corpus)) => What::Corpus,
        };
        let tokenizer = self.tokenizer.clone().unwrap_or(Tokenizer::Bpe(BPE));
        Ok(Source { share: self.share.unwrap_or(1.0), ..Source::new(what, tokenizer) })
    }

    /// What the trial is to learn, if anything.
    ///
    /// # Errors
    /// The field at fault, and the remedy.
    pub(crate) fn finish(&self, w: &Workload) -> Result<Option<Learning>, (&'static str, String)> {
        if !self.is_said() || w.phase != Phase::Train {
            return Ok(None);
        }
        let until = self.until(w)?;
        let Some((data, vocabulary)) = &self.sealed else {
            return Err(("data", "its files have not been looked at".into()));
        };
        if !w.shape.has_vocabulary_head() {
            return Err(("model.family", format!("a {} has no words to learn; use gpt2 or llama", w.shape.family)));
        }
        if w.shape.vocab_size < *vocabulary {
            let found = w.shape.vocab_size;
            let message =
                format!("expected at least {vocabulary}, the tokens of the data, found {found}; leave it out");
            return Err(("model.vocab_size", message));
        }
        let learning = Learning {
            data: data.clone(),
            schedule: Schedule {
                rate: self.rate.unwrap_or(Update::new(w.optimizer).learning_rate),
                warmup: self.warmup.unwrap_or(0),
                decay: self.decay.unwrap_or(Decay::Cosine),
                floor: self.floor.unwrap_or(0.1),
                weight_decay: self.weight_decay,
            },
            until,
            eval: Eval { every: 1, tokens: self.evaluated.unwrap_or(EVALUATED) },
            checkpoint: self.checkpoint,
        };
        let planned = learning.steps(w.tokens_per_step());
        let every = self.every.unwrap_or(planned.map_or(EVERY, |steps| steps.div_ceil(EVALUATIONS)));
        Ok(Some(Learning { eval: Eval { every, ..learning.eval }, ..learning }))
    }

    fn until(&self, w: &Workload) -> Result<Until, (&'static str, String)> {
        let until = Until { validation_loss: self.validation_loss, tokens: self.tokens, seconds: self.seconds };
        match until {
            Until { validation_loss: None, tokens: None, seconds: None } => {
                let message = "missing; say how far the trial is to learn: { validation_loss: 3.2 }, { tokens: 1e6 } or { seconds: 60 }, \
                               or a loss with a bound at which it ends without";
                Err(("until", message.into()))
            }
            Until { tokens: None, seconds: None, .. } => {
                let parameters = count::parameters(&w.shape).map_err(|e| ("model", e.to_string()))?;
                Ok(Until { tokens: Some(parameters.saturating_mul(TOKENS_PER_PARAMETER)), ..until })
            }
            _ => Ok(until),
        }
    }
}

/// The data that has been looked at, by what the scenario says of it.
#[derive(Debug, Default)]
pub(in crate::scenario) struct Texts(BTreeMap<String, (Source, u32)>);

impl Texts {
    /// The data of a draft, its paths from the scenario's folder.
    ///
    /// # Errors
    /// The field at fault; what is wrong with the files.
    pub(in crate::scenario) fn look(
        &mut self,
        draft: &LearningDraft,
        s: &Sources,
    ) -> Result<(Source, u32), (&'static str, String)> {
        let source = draft.source()?;
        let key = serde_json::to_string(&source).unwrap_or_default();
        if let Some(known) = self.0.get(&key) {
            return Ok(known.clone());
        }
        let of_data = |e: crate::data::DataError| ("data", e.to_string());
        let sealed = source.seal(&s.folder()).map_err(of_data)?;
        let vocabulary = sealed.vocabulary().map_err(of_data)?;
        self.0.insert(key, (sealed.clone(), vocabulary));
        Ok((sealed, vocabulary))
    }
}

/// Files: a path or a pattern, or several.
///
/// # Errors
/// Anything else.
pub(crate) fn files(v: &Value) -> Result<Vec<String>, String> {
    let one = |v: &Value| match v {
        Value::Text(path) if !path.is_empty() && !path.contains('\0') => Ok(path.clone()),
        other => Err(format!("expected files, \"corpus/*.txt\", or a list of such, found {other}")),
    };
    match v {
        Value::List(list) if !list.is_empty() => list.iter().map(|n| one(&n.value)).collect(),
        other => Ok(vec![one(other)?]),
    }
}

/// `bytes`, `{ bpe: 4096 }`, or the path of a tokenizer.json.
///
/// # Errors
/// Anything else.
pub(crate) fn tokenizer(v: &Value) -> Result<Tokenizer, String> {
    const WANTED: &str = "expected bytes, { bpe: 4096 } or the path of a tokenizer.json";
    match v {
        Value::Text(word) if word == "bytes" => Ok(Tokenizer::Bytes),
        Value::Text(path) if path.ends_with(".json") => Ok(Tokenizer::File(PathBuf::from(path))),
        Value::Map(entries) => match entries.as_slice() {
            [e] if e.key == "bpe" => Ok(Tokenizer::Bpe(count(&e.node.value).map_err(|m| format!("bpe: {m}"))?)),
            _ => Err(WANTED.into()),
        },
        other => Err(format!("{WANTED}, found {other}")),
    }
}

/// So many tokens: a whole number above 0, also as 20e6.
///
/// # Errors
/// Anything else.
pub(crate) fn tokens(v: &Value) -> Result<u64, String> {
    match v {
        Value::Integer(i) if *i >= 1 => Ok(*i as u64),
        Value::Float(x) if x.fract() == 0.0 && (1.0..1e18).contains(x) => Ok(*x as u64),
        other => Err(format!("expected a number of tokens from 1 up (20e6), found {other}")),
    }
}

/// A number from 0 to so much.
///
/// # Errors
/// Anything else.
pub(crate) fn up_to(v: &Value, most: f32) -> Result<f32, String> {
    let x = number(v)?;
    if (0.0..=most).contains(&x) { Ok(x) } else { Err(format!("expected a number from 0 to {most}, found {x}")) }
}
