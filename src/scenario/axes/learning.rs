//! The table's part about what a training trial is to learn.

use super::{Axis, Kind};
use crate::data::{Tokenizer, What};
use crate::scenario::engine::read::name;
use crate::scenario::engine::server::{above_zero, duration, share};
use crate::scenario::learning::draft::{Named, files, tokenizer, tokens, up_to};
use crate::scenario::learning::{Decay, Every, Learning};
use crate::scenario::trial::Trial;
use crate::scenario::values::{count, float, int, text, whole, word};
use crate::yaml::Value;

/// Fields of data, schedule, bounds, evaluations and checkpoints.
pub(super) const LEARNING: [Axis; 18] = [
    axis!(
        "data.source",
        ["data"],
        "data",
        "",
        Kind::Word(Named::WORDS),
        "what a training trial learns from: corpus (a text that the program carries) or synthetic (a language whose entropy is known); \
         files by data.text; default corpus, where until is said",
        |d, v| d.learning.source = Some(word::<Named>(v)?),
        |t| of(t, |l| match l.data.what {
            What::Corpus => text(Named::Corpus.name()),
            What::Synthetic(_) => text(Named::Synthetic.name()),
            What::Text(_) => Value::Null,
        })
    ),
    axis!(
        "data.text",
        [],
        "text",
        "",
        Kind::Files,
        "files to learn from, from the scenario's folder: \"corpus/*.txt\", .md, .jsonl, .parquet, or a list of such",
        |d, v| d.learning.text = Some(files(v)?),
        |t| of(t, |l| match &l.data.what {
            What::Text(files) => text(&files.patterns.join(" ")),
            _ => Value::Null,
        })
    ),
    axis!(
        "data.field",
        [],
        "field",
        "",
        Kind::Free,
        "the field of a JSON line that holds its text; default text",
        |d, v| d.learning.field = Some(name(v)?),
        |t| of(t, |l| match &l.data.what {
            What::Text(files) => text(&files.field),
            _ => Value::Null,
        })
    ),
    axis!(
        "data.column",
        [],
        "column",
        "",
        Kind::Free,
        "the column of a Parquet file that holds texts; default text",
        |d, v| d.learning.column = Some(name(v)?),
        |t| of(t, |l| match &l.data.what {
            What::Text(files) => text(&files.column),
            _ => Value::Null,
        })
    ),
    axis!(
        "data.tokenizer",
        [],
        "tokenizer",
        "",
        Kind::Tokenizer,
        "how text becomes tokens: bytes, { bpe: 4096 } (byte pairs, trained on the text) or a tokenizer.json; default { bpe: 1024 }",
        |d, v| d.learning.tokenizer = Some(tokenizer(v)?),
        |t| of(t, |l| match l.data.what {
            What::Synthetic(_) => Value::Null,
            _ => text(&l.data.tokenizer.name()),
        })
    ),
    axis!(
        "data.tokenizer.bpe",
        [],
        "vocabulary",
        "tokens",
        Kind::Count,
        "byte pairs of so many tokens: { bpe: N } as a number that can be swept",
        |d, v| d.learning.tokenizer = Some(Tokenizer::Bpe(count(v)?)),
        |t| of(t, |l| match (&l.data.what, &l.data.tokenizer) {
            (What::Synthetic(_), _) => Value::Null,
            (_, Tokenizer::Bpe(n)) => int(*n),
            _ => Value::Null,
        })
    ),
    axis!(
        "data.share",
        [],
        "share of data",
        "",
        Kind::Number,
        "how much of the text is trained on, over 0 and at most 1; default 1",
        |d, v| d.learning.share = Some(share(v)?),
        |t| of(t, |l| Value::Float(l.data.share))
    ),
    axis!(
        "schedule.rate",
        [],
        "rate",
        "",
        Kind::Number,
        "the highest learning rate; default 1e-4, of sgd 1e-2",
        |d, v| d.learning.rate = Some(above_zero(v)? as f32),
        |t| of(t, |l| float(l.schedule.rate))
    ),
    axis!(
        "schedule.warmup",
        [],
        "warm-up",
        "steps",
        Kind::Whole,
        "steps in which the rate rises to it in a straight line; default 0",
        |d, v| d.learning.warmup = Some(whole(v)?),
        |t| of(t, |l| int(l.schedule.warmup))
    ),
    axis!(
        "schedule.decay",
        [],
        "decay",
        "",
        Kind::Word(Decay::WORDS),
        "how the rate falls until until.tokens (or until.seconds, where tokens are not said): cosine, linear or constant; default cosine",
        |d, v| d.learning.decay = Some(word::<Decay>(v)?),
        |t| of(t, |l| text(l.schedule.decay.name()))
    ),
    axis!(
        "schedule.floor",
        [],
        "floor",
        "",
        Kind::Number,
        "the share of the rate that it falls to; default 0.1",
        |d, v| d.learning.floor = Some(up_to(v, 1.0)?),
        |t| of(t, |l| float(l.schedule.floor))
    ),
    axis!(
        "schedule.weight_decay",
        [],
        "weight decay",
        "",
        Kind::Number,
        "decay of weights apart from the gradient, of adamw; default 0.01",
        |d, v| d.learning.weight_decay = Some(up_to(v, 10.0)?),
        |t| of(t, |l| l.schedule.weight_decay.map_or(Value::Null, float))
    ),
    axis!(
        "until.validation_loss",
        [],
        "target",
        "nats a token",
        Kind::Number,
        "the validation loss that ends the trial; with a bound of tokens or seconds that ends it without; default bound 20 tokens a parameter",
        |d, v| d.learning.validation_loss = Some(above_zero(v)?),
        |t| of(t, |l| l.until.validation_loss.map_or(Value::Null, Value::Float))
    ),
    axis!(
        "until.tokens",
        [],
        "training tokens",
        "tokens",
        Kind::Amount,
        "tokens that the trial is trained on at most; the schedule is laid out for them",
        |d, v| d.learning.tokens = Some(tokens(v)?),
        |t| of(t, |l| l.until.tokens.map_or(Value::Null, whole_number))
    ),
    axis!(
        "until.seconds",
        [],
        "training time",
        "s",
        Kind::Duration,
        "seconds of training at most, evaluations not counted: 60, 90s, 2min",
        |d, v| d.learning.seconds = Some(duration(v)?),
        |t| of(t, |l| l.until.seconds.map_or(Value::Null, Value::Float))
    ),
    axis!(
        "eval.every",
        [],
        "evaluated every",
        "steps",
        Kind::Count,
        "steps between two looks at the validation loss; default a fortieth of the planned ones",
        |d, v| d.learning.every = Some(count(v)?.into()),
        |t| of(t, |l| whole_number(l.eval.every))
    ),
    axis!(
        "eval.tokens",
        [],
        "evaluated tokens",
        "tokens",
        Kind::Amount,
        "tokens of the validation text that each look reads; default 16,384, or all where there are fewer",
        |d, v| d.learning.evaluated = Some(tokens(v)?),
        |t| of(t, |l| whole_number(l.eval.tokens))
    ),
    axis!(
        "checkpoint.every",
        [],
        "checkpoint every",
        "",
        Kind::Every,
        "how often parameters, moments and losses so far are kept in the run's folder, so that a run that is killed goes on from there: \
         200 steps, 200, 30s, 5min (of training); cpu; default never",
        |d, v| d.learning.checkpoint = Some(Every::read(v)?),
        |t| of(t, |l| l.checkpoint.map_or(Value::Null, |every| text(&every.to_string())))
    ),
];

/// Of what a trial is to learn.
fn of(trial: &Trial, value: impl Fn(&Learning) -> Value) -> Value {
    trial.learning.as_ref().map_or(Value::Null, value)
}

fn whole_number(n: u64) -> Value {
    i64::try_from(n).map_or(Value::Float(n as f64), Value::Integer)
}
