//! What training came to: the loss, and the tokens, seconds and USD to reach one. Of several launches, which differ by their seeds, the
//! median.

use crate::cost::metric::{Context, Direction, Estimate, Metric, Provenance, Quantity};
use crate::runner::learning::learned::{Checkpoints, Learned};
use crate::stats::repeats::of_repeats;

const SEEDS: &str = "the median over launches, which have a seed each; the 95 % interval is Student's t on logarithms, from three launches on";

const fn measured(
    name: &'static str,
    label: &'static str,
    unit: &'static str,
    quantity: Quantity,
    formula: &'static str,
    compute: fn(&Context) -> Option<Estimate>,
) -> Metric {
    let (provenance, direction, source) = (Provenance::Measured, Direction::Lower, SEEDS);
    Metric { name, label, unit, quantity, provenance, direction, formula, source, compute }
}

pub(crate) static VALIDATION_LOSS: Metric = measured(
    "validation_loss",
    "val loss",
    "nats a token",
    Quantity::Loss,
    "mean loss over the fixed validation batches at the end of the training, without dropout",
    |c| over_seeds(c, |l| Some(l.end.loss)),
);

pub(crate) static BITS_PER_BYTE: Metric = measured(
    "validation_bits_per_byte",
    "bits/byte",
    "bits a byte of text",
    Quantity::Loss,
    "validation_loss / ln 2 / bytes of text that a token stands for: what compares tokenizers",
    |c| over_seeds(c, |l| Some(l.end.loss / std::f64::consts::LN_2 / l.text.bytes_per_token?)),
);

pub(crate) static ABOVE_ENTROPY: Metric = measured(
    "loss_above_entropy",
    "above floor",
    "nats a token",
    Quantity::Loss,
    "validation_loss less the least that any model can reach; of a synthetic language",
    |c| over_seeds(c, |l| Some(l.end.loss - l.text.entropy?)),
);

pub(crate) static TOKENS_TO_LOSS: Metric = measured(
    "tokens_to_loss",
    "tokens to loss",
    "tokens",
    Quantity::Count,
    "tokens trained on up to the first evaluation at or below until.validation_loss; n/a where a launch did not get there",
    |c| over_seeds(c, |l| Some(l.target?.tokens as f64)),
);

pub(crate) static SECONDS_TO_LOSS: Metric = measured(
    "seconds_to_loss",
    "time to loss",
    "s",
    Quantity::Seconds,
    "seconds of all steps up to that evaluation, waits for data among them, evaluations not",
    seconds_to_loss,
);

pub(crate) static USD_TO_LOSS: Metric = Metric {
    provenance: Provenance::Quoted,
    source: "the price of an hour; the price is the scenario's",
    ..measured(
        "usd_to_loss",
        "$ to loss",
        "USD",
        Quantity::Usd,
        "seconds_to_loss * usd_per_hour / 3600 / utilisation",
        |c| priced(c, seconds_to_loss(c)?),
    )
};

pub(crate) static TRAINED_TOKENS: Metric = Metric {
    direction: Direction::Neutral,
    ..measured("trained_tokens", "trained tokens", "tokens", Quantity::Count, "tokens of all steps of a launch", |c| {
        over_seeds(c, |l| Some(l.end.tokens as f64))
    })
};

pub(crate) static USD_TRAINED: Metric = Metric {
    provenance: Provenance::Quoted,
    direction: Direction::Neutral,
    source: "the price of an hour; the price is the scenario's",
    ..measured(
        "usd_trained",
        "$ trained",
        "USD",
        Quantity::Usd,
        "seconds of all steps of a launch * usd_per_hour / 3600 / utilisation",
        |c| priced(c, over_seeds(c, |l| Some(l.end.seconds))?),
    )
};

pub(crate) static DATA_WAIT: Metric = measured(
    "data_wait_share",
    "data wait",
    "% of the time",
    Quantity::Share,
    "share of the seconds of all steps in which they waited for their batches",
    |c| {
        let learned = &c.figures()?.learned;
        let total = |of: fn(&Learned) -> f64| learned.iter().map(of).sum::<f64>();
        Estimate::exact(total(|l| l.waited_seconds) / total(|l| l.end.seconds))
    },
);

pub(crate) static EVALUATION_SECONDS: Metric = measured(
    "evaluation_seconds",
    "evaluation",
    "s",
    Quantity::Seconds,
    "seconds of all evaluations of a launch; no part of the training's",
    |c| over_seeds(c, |l| Some(l.evaluation_seconds)),
);

pub(crate) static CHECKPOINT_SECONDS: Metric = Metric {
    source: "checkpoint.every; over all launches",
    ..measured(
        "checkpoint_seconds",
        "checkpoints",
        "s",
        Quantity::Seconds,
        "seconds of all checkpoints of all launches, written and synced; no part of the training's",
        |c| over_checkpoints(c, |of| of.seconds),
    )
};

pub(crate) static USD_CHECKPOINTS: Metric = Metric {
    provenance: Provenance::Quoted,
    source: "the price of an hour; the price is the scenario's",
    ..measured(
        "usd_checkpoints",
        "$ checkpoints",
        "USD",
        Quantity::Usd,
        "checkpoint_seconds * usd_per_hour / 3600 / utilisation",
        |c| at_price(c, over_checkpoints(c, |of| of.seconds)?.value),
    )
};

pub(crate) static LOST_SECONDS: Metric = Metric {
    source: "the steps since the last checkpoint where a launch was ended and went on; over all launches",
    ..measured(
        "lost_seconds",
        "lost work",
        "s",
        Quantity::Seconds,
        "seconds of whole steps that were done again, since they had been done after the checkpoint that a launch went on from",
        |c| over_checkpoints(c, |of| of.lost_seconds),
    )
};

pub(crate) static USD_LOST: Metric = Metric {
    provenance: Provenance::Quoted,
    source: "the price of an hour; the price is the scenario's",
    ..measured(
        "usd_lost",
        "$ lost work",
        "USD",
        Quantity::Usd,
        "lost_seconds * usd_per_hour / 3600 / utilisation",
        |c| at_price(c, over_checkpoints(c, |of| of.lost_seconds)?.value),
    )
};

pub(crate) static PREPARATION_SECONDS: Metric = measured(
    "data_seconds",
    "data",
    "s",
    Quantity::Seconds,
    "seconds until the text's tokens were there, before the first step of a launch; of tokens in the cache next to none",
    |c| over_seeds(c, |l| Some(l.text.preparation_seconds)),
);

fn seconds_to_loss(c: &Context) -> Option<Estimate> {
    over_seeds(c, |l| Some(l.target?.seconds))
}

/// A figure that every launch has.
fn over_seeds(c: &Context, of: impl Fn(&Learned) -> Option<f64>) -> Option<Estimate> {
    let values = c.figures()?.learned.iter().map(of).collect::<Option<Vec<f64>>>()?;
    match of_repeats(&values)? {
        (value, Some(i)) => Estimate::with_interval(value, i.low, i.high),
        (value, None) => Estimate::exact(value),
    }
}

/// A sum over launches that were to have checkpoints, where all were.
fn over_checkpoints(c: &Context, of: impl Fn(&Checkpoints) -> f64) -> Option<Estimate> {
    let all = c.figures()?.learned.iter().map(|l| l.checkpoints.as_ref().map(&of)).collect::<Option<Vec<f64>>>()?;
    (!all.is_empty()).then(|| Estimate::exact(all.iter().sum()))?
}

/// What so many seconds cost, be they none.
fn at_price(c: &Context, seconds: f64) -> Option<Estimate> {
    Estimate::exact(seconds * c.hour?.get() / 3600.0 / c.price.utilisation.get())
}

/// What so many seconds cost.
fn priced(c: &Context, seconds: Estimate) -> Option<Estimate> {
    let hour = c.hour?.get();
    let utilisation = c.price.utilisation.get();
    seconds.increasing(|s| s * hour / 3600.0 / utilisation)?.positive()
}
