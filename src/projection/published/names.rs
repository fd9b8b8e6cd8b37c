//! Devices by the names that publications give them.

use super::row::Row;
use crate::hardware::book::Book;
use crate::hardware::device::Device;
use crate::hardware::matching;
use crate::projection::device::Unit;

/// Makers' names before a device's.
const MAKERS: &[&str] = &["cpu ", "apple ", "nvidia ", "amd ", "intel ", "aws ", "google ", "cloud "];

/// The device of a row, with what of it was assumed.
pub(super) fn device(row: &Row, book: &Book, assumed: &mut Vec<&'static str>) -> Result<Unit, String> {
    let name = row.text("hardware");
    let found = forms(name).into_iter().find_map(|form| book.device(&form));
    let found = found.or_else(|| part(name, book).inspect(|_| assumed.push("device")));
    let device = found.ok_or_else(|| format!("hardware `{name}` is not in the catalog"))?;
    let lower = name.to_lowercase();
    if ["not stated", "either", "power-limited", "power limited"].iter().any(|w| lower.contains(w)) {
        assumed.push("device");
    }
    let unit = Unit::of(device).map_err(|e| e.to_string())?;
    // A chip of Neuron is two devices to its programs, where a row counts those.
    let unit = if counts_cores(row) { unit.half() } else { unit };
    Ok(number_before(&lower, "thread")
        .or_else(|| number_before(&lower, " cores"))
        .map_or(unit.clone(), |n| unit.with_threads(n)))
}

/// Whether parallelism counts the two cores of a chip.
pub(super) fn counts_cores(row: &Row) -> bool {
    row.remarks().contains("neuroncore")
}

/// What a name may stand for, the whole first.
fn forms(name: &str) -> Vec<String> {
    let (before, rest) = name.split_once('(').unwrap_or((name, ""));
    let (before, inside) = (before.trim(), rest.split(')').next().unwrap_or("").trim());
    let mut all = vec![name.to_string(), name.replace(['(', ')'], "")];
    let first = inside.split(',').next().unwrap_or("").trim();
    if !first.is_empty() {
        all.push(format!("{before} {first}"));
    }
    for base in [before, before.split(['/', ',']).next().unwrap_or(before)] {
        let mut base = base.trim();
        all.push(base.to_string());
        if let Some((count, rest)) =
            base.split_once("x ").filter(|(n, _)| n.len() <= 6 && n.ends_with(|c: char| c.is_ascii_digit()))
        {
            let kind = count.trim_end_matches(|c: char| c.is_ascii_digit()).trim();
            all.push(format!("{kind} {rest}").trim().to_string());
            base = rest;
            all.push(base.to_string());
        }
        // Without its memory, a limit of its power, or the size of a pod.
        let words: Vec<&str> = base.split_whitespace().filter(|w| !is_memory(w)).collect();
        let plain = words.join(" ").replace("-power-limited", "");
        all.push(plain.clone());
        if let Some((chip, pod)) =
            plain.rsplit_once('-').filter(|(c, p)| c.to_lowercase().contains("tpu") && p.parse::<u32>().is_ok())
        {
            let _ = pod;
            all.push(chip.to_string());
        }
    }
    if !inside.is_empty() {
        all.push(inside.to_string());
    }
    let short: Vec<String> = all.iter().map(|f| without_maker(f).to_string()).collect();
    all.extend(short);
    all.retain(|f| f.chars().filter(|c| c.is_alphanumeric()).count() >= 2);
    all
}

fn without_maker(name: &str) -> &str {
    let mut rest = name.trim();
    while let Some(m) = MAKERS.iter().find(|m| rest.to_lowercase().starts_with(**m)) {
        rest = rest[m.len()..].trim();
    }
    rest
}

fn is_memory(word: &str) -> bool {
    let lower = word.to_lowercase();
    lower.strip_suffix("gb").is_some_and(|n| n.parse::<f64>().is_ok())
}

/// The entry whose name is the longest part of this one.
fn part<'a>(name: &str, book: &'a Book) -> Option<&'a Device> {
    matching::of_name(&book.devices, name).first().map(|m| m.device)
}

fn number_before(text: &str, word: &str) -> Option<f64> {
    let before = text.split(word).next().filter(|b| b.len() < text.len())?.trim_end();
    let digits: String = before.chars().rev().take_while(char::is_ascii_digit).collect();
    digits.chars().rev().collect::<String>().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    #[test]
    fn devices_are_found_as_publications_write_them() {
        let book = fixture::book();
        for (written, name) in [
            ("RTX 6000 Ada Generation", "rtx-6000-ada"),
            ("TPU v6e (Trillium)", "tpu-v6e"),
            ("TPU7x (Ironwood)", "tpu-v7x"),
            ("TPU v3-8", "tpu-v3"),
            ("Gaudi 2 (HL-225H, 96GB)", "gaudi2"),
            ("Trainium1 (trn1.32xlarge, 16 chips x 2 cores)", "trainium1"),
            ("AWS Inferentia2", "inferentia2"),
            ("NVIDIA GB10 (DGX Spark)", "gb10"),
            ("Apple M4 Max 64GB", "m4-max"),
            ("Apple M1 Ultra (64-core GPU, 128GB)", "m1-ultra"),
            ("RTX 3060 12GB (on Raspberry Pi CM5)", "rtx-3060"),
            ("RTX 4090 D", "rtx-4090-d"),
            ("RTX 5060 Ti 16GB", "rtx-5060-ti"),
            ("V100S", "v100s-pcie-32gb"),
            ("H20", "h20"),
            ("A800/H800-80GB (either)", "a800-sxm-80gb"),
            ("A100 (size not stated)", "a100-sxm-40gb"),
            ("B200-SXM-power-limited", "b200"),
            ("CPU 2x EPYC 9334", "epyc-9334"),
            ("CPU Ryzen 7950X, 16 threads", "ryzen-7950x"),
            ("CPU Ryzen Threadripper PRO 5975WX, 32 threads", "threadripper-5975wx"),
            ("CPU Apple M2 Max, 8 threads", "cpu-m2-max"),
            ("CPU Intel Xeon SPR 48 cores", "xeon-spr-48"),
            ("AMD EPYC 9654 96-Core Processor", "epyc-9654"),
            ("Strix Halo", "rx-8060s"),
        ] {
            let found = forms(written).into_iter().find_map(|f| book.device(&f)).or_else(|| part(written, book));
            assert_eq!(found.map(|d| d.name.as_str()), Some(name), "{written}");
        }
        assert!(forms("no such card").into_iter().all(|f| book.device(&f).is_none()));
    }
}
