//! Event files of TensorBoard: scalars over steps. Records are framed as TensorFlow's (`lib/io/record_writer.cc`) and hold `Event`
//! messages of its `event.proto` and `summary.proto`, of which a handful of fields are needed here.

use super::error::ResultsError;
use super::files::replace;
use std::io::Write;
use std::path::{Path, PathBuf};

/// The points of one tag.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Scalars {
    /// What it is called: "loss/validation".
    pub tag: &'static str,
    /// In the order of steps.
    pub points: Vec<Scalar>,
}

/// A value at a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Scalar {
    /// From 0.
    pub step: u64,
    /// Seconds since 1970.
    pub at: f64,
    /// In the tag's unit.
    pub value: f64,
}

/// Writes a cell's events into a folder of its own, where TensorBoard takes them for a run of that name; an earlier file of the same
/// start is replaced. Returns its path.
///
/// # Errors
/// Disk or permissions; the file is whole or the old one stays.
pub(crate) fn write(folder: &Path, started: f64, all: &[Scalars]) -> Result<PathBuf, ResultsError> {
    std::fs::create_dir_all(folder).map_err(ResultsError::io(folder, "making the folder"))?;
    let path = folder.join(format!("events.out.tfevents.{:010}.centime", started.max(0.0) as u64));
    let bytes = events(started, all);
    let written = |file: &mut std::fs::File| file.write_all(&bytes).map_err(ResultsError::io(&path, "writing"));
    replace(&path, written, |_| Ok(()))?;
    Ok(path)
}

/// The whole file.
fn events(started: f64, all: &[Scalars]) -> Vec<u8> {
    let mut out = Vec::new();
    let version = [double(1, started), bytes(3, b"brain.Event:2")].concat();
    record(&mut out, &version);
    for s in all {
        for p in &s.points {
            let value = [bytes(1, s.tag.as_bytes()), float(2, p.value as f32)].concat();
            let summary = bytes(1, &value);
            record(&mut out, &[double(1, p.at), whole(2, p.step), bytes(5, &summary)].concat());
        }
    }
    out
}

/// Length, its checksum, the data, their checksum; little-endian.
fn record(out: &mut Vec<u8>, data: &[u8]) {
    let length = (data.len() as u64).to_le_bytes();
    out.extend(length);
    out.extend(masked(&length).to_le_bytes());
    out.extend(data);
    out.extend(masked(data).to_le_bytes());
}

/// A CRC that may itself be checked by a CRC (`lib/hash/crc32c.h`).
fn masked(data: &[u8]) -> u32 {
    crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// Castagnoli's polynomial, reflected (RFC 3720, appendix B.4). A few kilobytes a run: a bit at a time.
fn crc32c(data: &[u8]) -> u32 {
    !data.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |c, _| if c & 1 == 1 { (c >> 1) ^ 0x82f6_3b78 } else { c >> 1 })
    })
}

/// Protocol buffers' numbers of seven bits a byte, the lowest first.
fn varint(mut n: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while n >= 0x80 {
        out.push((n & 0x7f) as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
    out
}

fn key(field: u64, wire: u64) -> Vec<u8> {
    varint(field << 3 | wire)
}

fn whole(field: u64, n: u64) -> Vec<u8> {
    [key(field, 0), varint(n)].concat()
}

fn double(field: u64, x: f64) -> Vec<u8> {
    [key(field, 1), x.to_le_bytes().to_vec()].concat()
}

fn bytes(field: u64, data: &[u8]) -> Vec<u8> {
    [key(field, 2), varint(data.len() as u64), data.to_vec()].concat()
}

fn float(field: u64, x: f32) -> Vec<u8> {
    [key(field, 5), x.to_le_bytes().to_vec()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn checksums_are_those_of_the_standards() {
        // RFC 3720, appendix B.4.
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&(0..32).collect::<Vec<u8>>()), 0x46dd_794e);
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(varint(300), [0xac, 0x02]);
        // A record of no data: eight zeros, and TensorFlow's masked checksums of them and of nothing.
        let mut out = Vec::new();
        record(&mut out, b"");
        assert_eq!((out.len(), &out[12..]), (16, &0xa282_ead8u32.to_le_bytes()[..]));
    }

    fn scalars() -> Vec<Scalars> {
        let point = |i: u64| Scalar { step: 100 * i, at: 1.7e9 + i as f64, value: 3.5 - 0.25 * i as f64 };
        vec![
            Scalars { tag: "loss/validation", points: (0..4).map(point).collect() },
            Scalars { tag: "usd_spent", points: vec![Scalar { step: 300, at: 1.7e9 + 3.0, value: 0.0125 }] },
        ]
    }

    /// TensorBoard's own reader, where there is one: `pip install tensorboard`, or CENTIME_PYTHON names a Python that has it.
    #[test]
    fn tensorboard_reads_what_was_written() {
        let python = std::env::var("CENTIME_PYTHON").unwrap_or_else(|_| "python3".into());
        let there = Command::new(&python).args(["-c", "import tensorboard"]).output();
        if !there.is_ok_and(|o| o.status.success()) {
            eprintln!("skipped: {python} has no tensorboard to read the events with");
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        write(&folder.path().join("cell"), 1.7e9, &scalars()).unwrap();
        let script = "import sys, json\n\
                      from tensorboard.backend.event_processing.event_accumulator import EventAccumulator\n\
                      a = EventAccumulator(sys.argv[1]); a.Reload()\n\
                      tags = a.Tags()['scalars'] + a.Tags()['tensors']\n\
                      read = lambda t: [[e.step, e.wall_time, e.value] for e in a.Scalars(t)]\n\
                      print(json.dumps({t: read(t) for t in tags}))";
        let out = Command::new(&python).args(["-c", script]).arg(folder.path().join("cell")).output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        let read: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
        for s in scalars() {
            for (i, p) in s.points.iter().enumerate() {
                let found = &read[s.tag][i];
                let is = |j: usize| found[j].as_f64().unwrap();
                assert_eq!((found[0].as_u64().unwrap(), is(1)), (p.step, p.at), "{}", s.tag);
                assert!((is(2) - p.value).abs() <= 1e-7 * p.value.abs(), "{} {found}", s.tag);
            }
        }
        assert_eq!(read.as_object().unwrap().len(), 2);
    }
}
