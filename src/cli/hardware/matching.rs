//! `centime hardware match`.

use crate::cli::Failure;
use crate::cli::price::PriceBook;
use crate::cli::table::{Format, Printed, Rows};
use crate::hardware::book::Query;
use crate::hardware::machine::{self, Machine};
use crate::hardware::matching::{Match, matches, of_name};
use crate::hardware::probe::probe;
use crate::units::{FlopsPerSecond, significant};

/// Say which entry of the catalog this machine is; where it is none, print one to start from, with its probed limits.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Look for this name of a processor or GPU, and not for this machine's.
    #[arg(value_name = "NAME")]
    name: Option<String>,
    #[command(flatten)]
    prices: PriceBook,
    #[command(flatten)]
    printed: Printed,
}

pub(super) fn run(a: &Arguments) -> Result<(), Failure> {
    let book = a.prices.load()?;
    let machine = machine::inspect();
    let (name, found) = match &a.name {
        Some(name) => (name.as_str(), of_name(&book.devices, name)),
        None => (machine.cpu_model.as_str(), matches(&book.devices, &machine)),
    };
    let mut rows = Rows::new(&["device", "title", "recognised_by", "match", "usd_per_device_hour", "price"]);
    for Match { device, seen_as, whole } in &found {
        let offer = book.find(&Query { what: device.name.clone(), ..Query::default() }).ok();
        let usd = offer.map(|o| o.usd_per_device_hour().get());
        rows.push(vec![
            device.name.clone().into(),
            device.title.clone().into(),
            seen_as.clone().into(),
            if *whole { "the whole name" } else { "a part of the name" }.to_string().into(),
            usd.map_or("n/a".to_string().into(), |x| (significant(x, 4), x).into()),
            offer.map_or(String::new(), |o| o.described()).into(),
        ]);
    }
    if a.printed.format != Format::Table {
        return rows.print(a.printed.format);
    }
    if found.is_empty() {
        println!("no entry of the catalog is seen as `{name}`.");
        if a.name.is_none() {
            println!("An entry for a price book of your own (--price-book FILE), with this machine's probed limits:\n");
            println!("{}", template(&machine));
        } else {
            println!(
                "`centime hardware list` shows what is there; `seen_as:` in a price book of your own adds a name."
            );
        }
        return Ok(());
    }
    rows.print(a.printed.format)
}

/// A price book with this machine in it.
fn template(m: &Machine) -> String {
    let p = probe(m);
    let tera = |x: f64| significant(x / 1e12, 3);
    let bf16 = p.bf16_flops_per_second.map_or(String::new(), |x| format!(", bf16: {}", tera(x)));
    format!(
        "version: 1\ndevices:\n  - name: my-machine\n    title: {:?}\n    kind: cpu\n    seen_as: [{:?}]\n    \
         achieved_tflops: {{ f32: {}{bf16} }}   # probed: {}\n    cores: {}\n    memory_gb: {:.0}\n    \
         memory_gb_per_second: {}\n    source: \"probed by centime\"\noffers:\n  - provider: me\n    instance: my-machine\n    \
         cpu: my-machine\n    vcpus: {}\n    usd_per_hour: 0.10   # <- what you pay\n    from: \"2026-01-01\"   # <- since when\n    \
         source: \"invoice\"",
        m.cpu_model,
        m.cpu_model,
        tera(p.f32_flops_per_second),
        FlopsPerSecond(p.f32_flops_per_second),
        m.cores,
        m.memory_bytes as f64 / 1e9,
        significant(p.read_bytes_per_second / 1e9, 3),
        m.cores
    )
}
