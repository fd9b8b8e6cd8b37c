//! `centime cost`.

use super::Failure;
use super::output::{print_wrapped, results_failure};
use super::price::{PriceBook, Priced, apply, priced, utilisation, warn_if_stale};
use super::sizes::count;
use super::table::{Format, Printed, Rows, Value};
use crate::cost::evaluate::evaluate;
use crate::cost::metric::Estimate;
use crate::cost::metrics::{MFU, USD_PER_MILLION};
use crate::cost::requests::{by_model, priced as priced_request, use_cases};
use crate::cost::training::{TrainingRun, effort};
use crate::hardware::book::Book;
use crate::hardware::device::Device;
use crate::report::fixed_usd;
use crate::results::run::load;
use crate::scenario::Price;
use crate::scenario::price::UseCase;
use crate::transformer::Phase;
use crate::units::{Share, UsdPerHour, grouped, significant};
use anyhow::anyhow;
use clap::Subcommand;
use std::path::{Path, PathBuf};

/// What a training run or a kind of request costs.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Train(Train),
    Requests(Requests),
}

/// Days and USD to train N parameters on D tokens, on so many devices.
///
/// 6 N D FLOPs at a share of the devices' peak (MFU): one that is stated, or the one that a training run measured. The result is
/// projected.
#[derive(Debug, clap::Args)]
struct Train {
    /// Parameters: 7B, 70e9.
    #[arg(long, value_name = "N", value_parser = count)]
    parameters: f64,
    /// Tokens: 140B, 2e12.
    #[arg(long, value_name = "D", value_parser = count)]
    tokens: f64,
    /// A device of the catalog, or an instance of the price book.
    #[arg(long, value_name = "NAME")]
    hardware: String,
    /// How many devices; whole instances are paid for. May be repeated to compare.
    #[arg(long, value_name = "COUNT", required = true, value_delimiter = ',')]
    devices: Vec<u32>,
    /// Share of the devices' bf16 peak that model FLOPs reach.
    #[arg(long, value_name = "SHARE", value_parser = utilisation, required_unless_present = "like")]
    mfu: Option<Share>,
    /// Take the best MFU that this run measured in training, with its interval.
    #[arg(long, value_name = "DIR", conflicts_with = "mfu")]
    like: Option<PathBuf>,
    /// What an hour costs, in place of the price book's: USD for all devices together, or a name of the book.
    #[arg(long, value_name = "USD_PER_HOUR|NAME", value_parser = priced, allow_negative_numbers = true)]
    price: Option<Priced>,
    #[command(flatten)]
    prices: PriceBook,
    #[command(flatten)]
    printed: Printed,
}

/// What requests of a kind cost at a run's measured prices of input and output: each, a thousand, and blended.
///
/// Input is priced by `prefill` or `generate` trials, output by `decode` or `generate` trials, the cheapest of each.
#[derive(Debug, clap::Args)]
struct Requests {
    /// Folder of a run.
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// A kind of request beside the run's own: name=INPUT:OUTPUT, in tokens. May be repeated.
    #[arg(long = "use-case", value_name = "NAME=INPUT:OUTPUT", value_parser = case)]
    cases: Vec<UseCase>,
    /// What an hour costs, in place of the run's own price.
    #[arg(long, value_name = "USD_PER_HOUR|NAME", value_parser = priced, allow_negative_numbers = true)]
    price: Option<Priced>,
    #[command(flatten)]
    prices: PriceBook,
    #[command(flatten)]
    printed: Printed,
}

pub(super) fn run(a: &Arguments) -> Result<(), Failure> {
    match &a.command {
        Command::Train(a) => train(a),
        Command::Requests(a) => requests(a),
    }
}

fn case(text: &str) -> Result<UseCase, String> {
    let parse = || {
        let (name, tokens) = text.split_once('=')?;
        let (input, output) = tokens.split_once(':')?;
        let (input, output): (u32, u32) = (input.parse().ok()?, output.parse().ok()?);
        let tokens = (u64::from(input), u64::from(output));
        (!name.is_empty() && tokens != (0, 0)).then(|| UseCase {
            name: name.into(),
            input_tokens: tokens.0,
            output_tokens: tokens.1,
        })
    };
    parse().ok_or_else(|| "expected a name and two numbers of tokens: support=3000:250".into())
}

fn train(a: &Train) -> Result<(), Failure> {
    let book = a.prices.load()?;
    let mut price = Price::default();
    let typed = a.price.clone().unwrap_or(Priced::Named { what: a.hardware.clone(), on: None });
    let found = apply(&mut price, &typed, &book, "given on the command line (--price)");
    let device = book.device(&a.hardware).or_else(|| book.device(price.device.as_deref()?));
    let Some(device) = device else {
        found?;
        return Err(Failure::Usage(anyhow!("--hardware: `{}` is no device; {}", a.hardware, book.hint(&a.hardware))));
    };
    // A device that nobody offers has days and no bill.
    if a.price.is_some() {
        found?;
    }
    warn_if_stale(&price);
    let Some((format, peak)) = device.peak() else {
        return Err(Failure::Usage(anyhow!(
            "--hardware: the peak of {} is not known; describe it in a file of your own",
            device.name
        )));
    };
    let mfu = match &a.like {
        Some(folder) => measured_mfu(folder, &book)?,
        None => Estimate::exact(a.mfu.map_or(f64::NAN, Share::get))
            .ok_or_else(|| Failure::Usage(anyhow!("--mfu: expected a share")))?,
    };
    let mut rows = Rows::new(&[
        "devices",
        "instances",
        "usd_per_hour",
        "tokens_per_second",
        "days",
        "device_hours",
        "usd",
        "usd_low",
        "usd_high",
    ])
    .least(&["instances", "device_hours", "tokens_per_second"]);
    for &devices in &a.devices {
        let hour = price.for_devices(devices);
        let at = |mfu: f64| {
            let run =
                TrainingRun { parameters: a.parameters, tokens: a.tokens, devices, peak, mfu, usd_per_hour: hour };
            effort(&run).map_err(|e| Failure::Usage(anyhow!(e)))
        };
        let e = at(mfu.value)?;
        // Faster is cheaper: the ends change places.
        let ends = mfu.interval().map(|(low, high)| Ok::<_, Failure>((at(high.min(1.0))?, at(low)?))).transpose()?;
        let usd = |e: Option<&crate::cost::training::Effort>| match e.and_then(|e| e.usd) {
            Some(usd) => Value::from((usd.to_string(), usd.get())),
            None => "n/a".to_string().into(),
        };
        let absent = || Value::from(String::new());
        rows.push(vec![
            (devices.to_string(), u64::from(devices)).into(),
            price
                .per_devices
                .map_or(absent(), |_| (price.units(devices).to_string(), u64::from(price.units(devices))).into()),
            hour.map_or("n/a".to_string().into(), |h: UsdPerHour| (h.to_string(), h.get()).into()),
            (grouped(e.tokens_per_second as u64), e.tokens_per_second).into(),
            (significant(e.days, 3), e.days).into(),
            (grouped(e.device_hours as u64), e.device_hours).into(),
            usd(Some(&e)),
            ends.as_ref().map_or(absent(), |(low, _)| usd(Some(low))),
            ends.as_ref().map_or(absent(), |(_, high)| usd(Some(high))),
        ]);
    }
    rows.print(a.printed.format)?;
    if a.printed.format == Format::Table {
        print_wrapped(&footnote(a, device, format.name(), &mfu, &price))?;
    }
    Ok(())
}

fn footnote(a: &Train, device: &Device, format: &str, mfu: &Estimate, price: &Price) -> String {
    let from = if a.like.is_some() { "measured in training" } else { "stated" };
    let source = if price.source.is_empty() {
        "no price is known".to_string()
    } else {
        format!("price quoted: {}", price.source)
    };
    format!(
        "projected: 6 FLOPs for each of {} parameters and {} tokens, at {} of the {format} peak of {} ({from}); {source}",
        significant(a.parameters, 3),
        significant(a.tokens, 3),
        Share(mfu.value),
        device.title
    )
}

/// The best MFU of a run's training trials.
fn measured_mfu(folder: &Path, book: &Book) -> Result<Estimate, Failure> {
    let run = load(folder).map_err(results_failure)?;
    let figures = evaluate(&run, book);
    let trained = run.records.iter().zip(&figures).filter(|(r, _)| r.cell.trial.workload.phase == Phase::Train);
    let known = trained.filter_map(|(_, f)| f.get(&MFU));
    known.max_by(|a, b| a.value.total_cmp(&b.value)).ok_or_else(|| {
        Failure::Usage(anyhow!("{}: no training trial with an MFU is there; run one with its probe", folder.display()))
    })
}

fn requests(a: &Requests) -> Result<(), Failure> {
    let mut run = load(&a.folder).map_err(results_failure)?;
    let book = a.prices.load()?;
    let price = &mut run.environment.price;
    if let Some(typed) = &a.price {
        apply(price, typed, &book, "given on the command line (--price)")?;
    }
    warn_if_stale(price);
    let figures = evaluate(&run, &book);
    let models = by_model(&run, &figures);
    if models.is_empty() {
        let why = if figures.iter().all(|f| f.get(&USD_PER_MILLION).is_none()) {
            "no trial has a cost: give --price"
        } else {
            "requests need a cost of input and one of output of the same model: sweep phase: [prefill, decode], or generate"
        };
        return Err(Failure::Usage(anyhow!("{}: {why}", a.folder.display())));
    }
    let mut rows = Rows::new(&[
        "model",
        "use_case",
        "input_tokens",
        "output_tokens",
        "usd_per_request",
        "usd_per_request_low",
        "usd_per_request_high",
        "usd_per_thousand_requests",
        "usd_per_million_tokens_blended",
    ])
    .least(&["usd_per_request_low", "usd_per_request_high", "usd_per_request"]);
    let usd = |x: Option<f64>| x.map_or(String::new().into(), |x| Value::from((fixed_usd(x), x)));
    for m in &models {
        for case in use_cases(&run.environment.price.use_cases).iter().chain(&a.cases) {
            let Some(p) = priced_request(case, &m.input.1, &m.output.1) else { continue };
            rows.push(vec![
                m.model.to_string().into(),
                case.name.clone().into(),
                (grouped(case.input_tokens), case.input_tokens).into(),
                (grouped(case.output_tokens), case.output_tokens).into(),
                usd(Some(p.request.value)),
                usd(p.request.low),
                usd(p.request.high),
                usd(Some(p.request.value * 1000.0)),
                usd(Some(p.blended.value)),
            ]);
        }
    }
    rows.print(a.printed.format)
}
