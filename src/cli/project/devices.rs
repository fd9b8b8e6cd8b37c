//! Devices as they are typed: h100-sxm-80gb, 8xA100-80GB.

use super::super::Failure;
use crate::hardware::book::{Book, Query};
use crate::projection::device::Unit;
use crate::units::UsdPerHour;
use anyhow::anyhow;
use std::sync::Arc;

/// A device to project onto.
pub(in crate::cli) struct On {
    /// As the catalog calls it.
    pub name: String,
    pub unit: Arc<Unit>,
    /// `None`: as the scenario says.
    pub count: Option<u32>,
}

/// Most devices that a count may ask for.
const MOST: u32 = 1_000_000;

pub(in crate::cli) fn devices(option: &str, typed: &[String], book: &Book) -> Result<Vec<On>, Failure> {
    typed.iter().map(|t| one(option, t.trim(), book)).collect()
}

fn one(option: &str, typed: &str, book: &Book) -> Result<On, Failure> {
    let usage = |m: String| Failure::Usage(anyhow!("{option}: {m}"));
    // A name may itself have an x in it.
    let counted = typed.split_once('x').and_then(|(n, name)| Some((n.trim().parse::<u32>().ok()?, name.trim())));
    let (count, name) = match counted {
        Some((n, _)) if n == 0 || n > MOST => return Err(usage(format!("`{typed}`: a count is 1 to {MOST}"))),
        Some((n, name)) => (Some(n), name),
        None => (None, typed),
    };
    let device =
        book.device(name).ok_or_else(|| usage(format!("`{name}` is not in the catalog; {}", book.hint(name))))?;
    let unit = Unit::of(device).map_err(|e| usage(e.to_string()))?.into();
    Ok(On { name: device.name.clone(), unit, count })
}

/// The latest price of an hour of one of them, on demand.
pub(in crate::cli) fn price(book: &Book, device: &str) -> Option<UsdPerHour> {
    let query = Query { what: device.into(), ..Query::default() };
    book.find(&query).ok().map(|o| o.usd_per_device_hour())
}
