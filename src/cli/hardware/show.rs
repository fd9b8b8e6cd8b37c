//! `centime hardware show`.

use super::list::{LEAST, OFFERS, offer};
use crate::cli::Failure;
use crate::cli::price::{PriceBook, today};
use crate::cli::table::{Format, Printed, Rows};
use crate::hardware::book::{Book, Query};
use crate::hardware::device::{Device, NumberFormat};
use crate::hardware::offer::Offer;
use crate::units::{Bytes, BytesPerSecond, FlopsPerSecond, significant};
use anyhow::anyhow;

/// Everything that is known of a device or an instance, with its sources and all its offers, oldest first.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// A device (h100-sxm-80gb, H100) or an instance (p5.48xlarge, aws/p5.48xlarge).
    #[arg(value_name = "NAME")]
    name: String,
    #[command(flatten)]
    prices: PriceBook,
    #[command(flatten)]
    printed: Printed,
}

pub(super) fn run(a: &Arguments) -> Result<(), Failure> {
    let book = a.prices.load()?;
    let query = Query { what: a.name.clone(), ..Query::default() };
    let offered = book.find(&query);
    let device = book.device(&a.name).or_else(|| book.device(offered.as_ref().ok()?.device.as_deref()?));
    let offers = of(&book, &a.name, device);
    if device.is_none() && offers.is_empty() {
        return Err(Failure::Usage(anyhow!(
            "`{}` is neither a device nor an instance; {}",
            a.name,
            book.hint(&a.name)
        )));
    }
    let mut rows = Rows::new(&["field", "value", "note"]);
    device.into_iter().for_each(|d| describe(&mut rows, d));
    if let Ok(best) = offered {
        let stale = today().and_then(|t| best.stale_days(t));
        let note = match stale {
            Some(days) => format!("last seen {days} days ago: check it; {}", best.described()),
            None => best.described(),
        };
        say(&mut rows, "price", &format!("${}/h a device", significant(best.usd_per_device_hour().get(), 4)), &note);
        if let Some((format, rate)) = device.and_then(Device::peak).filter(|_| best.devices > 0) {
            let per = best.usd_per_device_hour().get() / (rate / 1e15);
            say(
                &mut rows,
                "price of peak",
                &format!("${}/h a PFLOP/s", significant(per, 3)),
                &format!("at the {} peak", format.name()),
            );
        }
    }
    rows.print(a.printed.format)?;
    if a.printed.format == Format::Table && !offers.is_empty() {
        let mut table = Rows::new(OFFERS).least(LEAST);
        offers.iter().for_each(|o| table.push(offer(o)));
        table.print(a.printed.format)?;
    }
    Ok(())
}

fn of<'a>(book: &'a Book, name: &str, device: Option<&Device>) -> Vec<&'a Offer> {
    let instance = |o: &Offer| o.instance.eq_ignore_ascii_case(name) || o.address().eq_ignore_ascii_case(name);
    let mut all: Vec<&Offer> = book.offers.iter().filter(|o| instance(o)).collect();
    if all.is_empty() {
        all = device.map_or(vec![], |d| book.history(&d.name));
    }
    all.sort_by_key(|o| o.from);
    all
}

fn say(rows: &mut Rows, field: &str, value: &str, note: &str) {
    rows.push([field, value, note].map(|t| t.to_string().into()).to_vec());
}

fn describe(rows: &mut Rows, d: &Device) {
    say(rows, "device", &d.title, &format!("{}, {}, {}; addressed as {}", d.vendor, d.kind, d.architecture, d.name));
    if !d.aliases.is_empty() {
        say(rows, "also called", &d.aliases.join(", "), "");
    }
    let unverified =
        |field: &str| if d.is_unverified(field) { "unverified: no source at hand confirms it" } else { "" };
    for format in NumberFormat::ALL {
        if let Some(rate) = d.peaks.of(format) {
            let reached = d
                .achieved
                .of(format)
                .map(|r| format!("a tuned matrix product reaches {} ({:.0} %)", FlopsPerSecond(r), r / rate * 100.0));
            let note = [unverified(format.name()).to_string(), reached.unwrap_or_default()];
            let note: Vec<String> = note.into_iter().filter(|n| !n.is_empty()).collect();
            say(rows, &format!("peak {}", format.name()), &FlopsPerSecond(rate).to_string(), &note.join("; "));
        }
    }
    if let Some(cores) = d.cores {
        say(rows, "cores", &cores.to_string(), "");
    }
    if let Some(b) = d.memory_bytes {
        let note = [&format!("{} GB", b / 1e9), unverified("memory_gb")].join(" ");
        say(rows, "memory", &Bytes(b as u64).to_string(), note.trim());
    }
    if let Some(b) = d.memory_bytes_per_second {
        say(rows, "memory bandwidth", &BytesPerSecond(b).to_string(), unverified("memory_gb_per_second"));
    }
    if let Some(l) = &d.link {
        let joined = l.devices.map_or(String::new(), |n| format!("joins {n} devices; "));
        let note = format!("{joined}{} {}", l.name, unverified("link"));
        say(rows, "link, one direction", &BytesPerSecond(l.bytes_per_second).to_string(), note.trim());
    }
    if let Some(w) = d.tdp_watts {
        say(rows, "TDP", &format!("{w} W"), unverified("tdp_watts"));
    }
    if let Some(date) = d.released {
        say(rows, "released", &date.to_string(), unverified("released"));
    }
    say(rows, "source", &d.source, &d.notes);
}
