//! `centime data`.

use super::Failure;
use super::price::{PriceBook, Priced, apply, priced, warn_if_stale};
use super::stdout::print_wrapped;
use super::table::{Format, Printed, Rows, Value};
use crate::cost::price::usd_per_million_tokens;
use crate::data::{
    DataError, Facts, Files, Language, Prepared, Said, Source, Split, Tokenizer, What, cache_folder, prepare,
};
use crate::report::fixed_usd;
use crate::scenario::Price;
use crate::units::{Bytes, Share, TokensPerSecond, grouped, significant};
use anyhow::anyhow;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};

/// Prepares text for training: counts documents and tokens, and says what a million tokens of it cost.
///
/// Text is told apart into what is trained on and what is judged by, tokenized, and kept in the user's cache folder, where a run finds
/// it again. Files are text (a document each, or several with <|endoftext|> between them), JSON lines (.jsonl) or Parquet (.parquet).
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Files, patterns of them ("corpus/*.txt"), `corpus` for the text that the program carries, or `synthetic` for a language whose
    /// entropy is known.
    #[arg(value_name = "FILE", default_value = "corpus")]
    files: Vec<String>,
    /// How text becomes tokens: bytes, byte pairs trained on it (bpe:4096), or a tokenizer.json.
    #[arg(long, value_name = "bytes|bpe:N|FILE", default_value = "bpe:4096", value_parser = tokenizer)]
    tokenizer: Tokenizer,
    /// The field of JSON lines that holds a text.
    #[arg(long, value_name = "NAME", default_value = "text")]
    field: String,
    /// The column of Parquet files that holds texts.
    #[arg(long, value_name = "NAME", default_value = "text")]
    column: String,
    /// Prepare anew, and keep nothing.
    #[arg(long)]
    no_cache: bool,
    /// What an hour of this machine costs: USD, or an instance or device of the price book.
    #[arg(long, value_name = "USD_PER_HOUR|NAME", value_parser = priced, allow_negative_numbers = true)]
    price: Option<Priced>,
    #[command(flatten)]
    prices: PriceBook,
    #[command(flatten)]
    printed: Printed,
}

fn tokenizer(text: &str) -> Result<Tokenizer, String> {
    match text.strip_prefix("bpe:") {
        Some(n) => n.parse().map(Tokenizer::Bpe).map_err(|_| "expected a number of tokens: bpe:4096".into()),
        None if text == "bpe" => Err("expected a number of tokens: bpe:4096".into()),
        None if text == "bytes" => Ok(Tokenizer::Bytes),
        None if text.is_empty() => Err("expected bytes, bpe:4096 or a tokenizer.json".into()),
        None => Ok(Tokenizer::File(PathBuf::from(text))),
    }
}

pub(super) fn run(a: &Arguments) -> Result<(), Failure> {
    let mut price = Price::default();
    if let Some(typed) = &a.price {
        apply(&mut price, typed, &a.prices.load()?, "given on the command line (--price)")?;
        warn_if_stale(&price);
    }
    let what = match a.files.as_slice() {
        [one] if one == "corpus" => What::Corpus,
        [one] if one == "synthetic" => What::Synthetic(Language::default()),
        patterns => What::Text(Files { patterns: patterns.to_vec(), field: a.field.clone(), column: a.column.clone() }),
    };
    let source = Source::new(what, a.tokenizer.clone()).seal(Path::new("")).map_err(failure)?;
    let cache = cache_folder().filter(|_| !a.no_cache);
    let watched = std::io::stderr().is_terminal();
    let prepared = prepare(&source, cache.as_deref(), &mut |said| match said {
        Said::Stage(what) if watched => eprintln!("{what} ..."),
        Said::Stage(_) => {}
        Said::Warning(what) => eprintln!("warning: {what}"),
    });
    let prepared = prepared.map_err(failure)?;
    let all = figures(&source, &prepared, &price);
    if a.printed.format != Format::Table {
        let mut rows = Rows::new(&all.iter().map(|f| f.name).collect::<Vec<_>>());
        rows.push(all.into_iter().map(|f| f.value).collect());
        return rows.print(a.printed.format);
    }
    let mut rows = Rows::new(&["field", "value", "note"]);
    // A language that is drawn has no bytes and no documents of anybody's.
    let drawn = prepared.facts().entropy.is_some();
    let of_text = ["tokenizer", "documents", "text_bytes", "bytes_a_token"];
    for f in all.into_iter().filter(|f| f.shown && !(drawn && of_text.contains(&f.name))) {
        rows.push(vec![super::table::label(f.name).into(), f.value.plain(), f.note.into()]);
    }
    rows.print(Format::Table)?;
    print_wrapped(&closing(prepared.facts()))
}

fn failure(e: DataError) -> Failure {
    match e {
        DataError::Io { .. } => Failure::Io(anyhow!(e)),
        DataError::Input { .. } => Failure::Usage(anyhow!(e)),
    }
}

/// A figure: its column, what it is, what is said beside it, and whether people see it in a row of its own.
struct Figure {
    name: &'static str,
    value: Value,
    note: String,
    shown: bool,
}

fn figures(source: &Source, prepared: &Prepared, price: &Price) -> Vec<Figure> {
    let f = prepared.facts();
    let text = |name, value: String, note: &str| Figure { name, value: value.into(), note: note.into(), shown: true };
    let count = |name, n: u64, note: String| Figure { name, value: (grouped(n), n).into(), note, shown: true };
    let part = |name, n: u64| Figure { shown: false, ..count(name, n, String::new()) };
    let number = |name, x: Option<f64>, said: Option<String>, note: String| {
        let value = x.zip(said).map_or(Value::from("n/a".to_string()), |(x, said)| (said, x).into());
        Figure { name, value, note, shown: true }
    };
    let synthetic = f.entropy.is_some();
    let rate = (f.seconds > 0.0).then(|| f.tokens() as f64 / f.seconds);
    let usd = price.for_devices(1).zip(rate);
    let usd = usd.and_then(|(hour, rate)| usd_per_million_tokens(hour, TokensPerSecond(rate), Share(1.0)).ok());
    let (how, priced) = match price.for_devices(1) {
        Some(hour) => (format!("at {hour}: {}", price.source), usd.map(|u| u.get())),
        None => ("give --price to know it".to_string(), None),
    };
    let both = |a: u64, b: u64| format!("{} to train on, {} for validation", grouped(a), grouped(b));
    let (train, judged) = (prepared.tokens(Split::Train), prepared.tokens(Split::Validation));
    let bytes = f.train.bytes + f.validation.bytes;
    let mut all = vec![
        text("source", f.source.clone(), ""),
        text("tokenizer", if synthetic { "none".into() } else { source.tokenizer.name() }, &end(f)),
        count("vocabulary", f.vocabulary.into(), String::new()),
        count("documents", f.train.documents + f.validation.documents, format!("for validation: {}", f.split)),
        part("train_documents", f.train.documents),
        part("validation_documents", f.validation.documents),
        Figure { value: (Bytes(bytes).to_string(), bytes).into(), ..count("text_bytes", bytes, String::new()) },
        count("tokens", train + judged, both(train, judged)),
        part("train_tokens", train),
        part("validation_tokens", judged),
        number("bytes_a_token", f.bytes_a_token(), f.bytes_a_token().map(|b| significant(b, 3)), String::new()),
    ];
    if let Some(e) = f.entropy {
        let note = "nats a token: no loss gets below it; of a sequence's first target ".to_string();
        all.push(number("entropy", Some(e.known), Some(significant(e.known, 5)), note + &significant(e.first, 5)));
    }
    all.extend([
        number("preparation_seconds", Some(f.seconds), Some(format!("{} s", significant(f.seconds, 3))), took(f)),
        number("tokens_per_second", rate, rate.map(|r| grouped(r as u64)), String::new()),
        number("usd_per_million_tokens", priced, priced.map(fixed_usd), how),
    ]);
    all
}

fn end(f: &Facts) -> String {
    match f.end_of_text {
        Some(token) => format!("token {token} ends a document"),
        None if f.entropy.is_some() => String::new(),
        None => "no token ends a document: none of its tokens is known as such".into(),
    }
}

fn took(f: &Facts) -> String {
    let trained = if f.tokenizer_seconds > 0.0 {
        format!("{} s of it to train the tokenizer", significant(f.tokenizer_seconds, 2))
    } else {
        String::new()
    };
    let before = if f.cached { "measured when it was prepared, not now" } else { "" };
    [trained.as_str(), before].into_iter().filter(|t| !t.is_empty()).collect::<Vec<_>>().join("; ")
}

fn closing(f: &Facts) -> String {
    match &f.kept {
        Some(path) if f.cached => format!("out of the cache: {} (--no-cache prepares it anew)", path.display()),
        Some(path) => {
            let same = if f.entropy.is_some() { "language" } else { "text and tokenizer" };
            format!("kept in {}: a run with the same {same} begins at once", path.display())
        }
        None => "not kept".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tokenizer_is_read_as_it_is_typed() {
        assert_eq!(tokenizer("bytes"), Ok(Tokenizer::Bytes));
        assert_eq!(tokenizer("bpe:512"), Ok(Tokenizer::Bpe(512)));
        assert_eq!(tokenizer("a/t.json"), Ok(Tokenizer::File("a/t.json".into())));
        for text in ["bpe", "bpe:", "bpe:many", "bpe:-1", ""] {
            assert!(tokenizer(text).unwrap_err().starts_with("expected"), "{text}");
        }
    }
}
