//! The trace event format of Chrome, which Perfetto reads as well: complete events in microseconds, a thread a rank.

use super::Traced;
use crate::transformer::trace::Kind;
use serde_json::{Value, json};
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

/// Writes a file that is whole, or none; the process in it is called as the file is.
pub(super) fn write(file: &Path, traced: &Traced) -> io::Result<()> {
    let name = file.file_stem().unwrap_or_default().to_string_lossy();
    let aside = file.with_extension("json.part");
    let mut out = BufWriter::new(File::create(&aside)?);
    serde_json::to_writer(&mut out, &document(&name, traced))?;
    out.flush()?;
    std::fs::rename(&aside, file)
}

fn document(name: &str, traced: &Traced) -> Value {
    let mut events = vec![json!({ "name": "process_name", "ph": "M", "pid": 1, "args": { "name": name } })];
    for track in &traced.tracks {
        let rank = format!("rank {}", track.rank);
        events.push(json!({ "name": "thread_name", "ph": "M", "pid": 1, "tid": track.rank, "args": { "name": rank } }));
        for e in &track.events {
            let micros = |ns: u64| ns as f64 / 1e3;
            let mut event = json!({
                "name": e.name,
                "cat": e.kind.name(),
                "ph": "X",
                "pid": 1,
                "tid": track.rank,
                "ts": micros(e.from),
                "dur": micros(e.to - e.from),
            });
            if e.kind != Kind::Whole && e.work.bytes > 0.0 {
                event["args"] = json!({ "flops": e.work.flops, "bytes": e.work.bytes });
            }
            events.push(event);
        }
    }
    let overhead = traced.overhead_interval();
    json!({
        "traceEvents": events,
        "displayTimeUnit": "ms",
        "otherData": {
            "producer": format!("centime {}", env!("CARGO_PKG_VERSION")),
            "what": "steps after the measured ones, whose figures it does not touch",
            "measured_step_seconds": traced.measured_seconds,
            "traced_steps": traced.step_seconds.len(),
            "traced_step_seconds": traced.step_seconds,
            "untraced_step_seconds": traced.beside_seconds,
            "overhead": traced.overhead(),
            "overhead_low": overhead.map(|o| o.low),
            "overhead_high": overhead.map(|o| o.high),
            "overhead_is": "median over pairs of a traced step and the untraced one beside it, less 1; low and high: its 95 % interval",
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transformer::trace::{Event, Track, Work};

    #[test]
    fn events_are_complete_in_microseconds_and_threads_are_ranks() {
        let step = Event { kind: Kind::Whole, name: "step", from: 500, to: 4500, work: Work::default() };
        let work = Work { flops: 8.0, bytes: 4.0 };
        let linear = Event { kind: Kind::Product, name: "linear", from: 1000, to: 2500, work };
        let tracks = vec![Track { rank: 3, events: vec![linear, step] }];
        let traced = Traced { tracks, step_seconds: vec![4e-6], beside_seconds: vec![2e-6], measured_seconds: 4e-6 };
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("001-batch-4.json");
        write(&file, &traced).unwrap();
        let read: Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
        let events = read["traceEvents"].as_array().unwrap();
        assert_eq!(
            (events[0]["args"]["name"].as_str(), events[1]["args"]["name"].as_str()),
            (Some("001-batch-4"), Some("rank 3"))
        );
        let linear = &events[2];
        assert_eq!((linear["ts"].as_f64(), linear["dur"].as_f64()), (Some(1.0), Some(1.5)));
        assert_eq!(
            (linear["ph"].as_str(), linear["cat"].as_str(), linear["tid"].as_u64()),
            (Some("X"), Some("products"), Some(3))
        );
        assert_eq!(linear["args"]["flops"].as_f64(), Some(8.0));
        assert!(events[3].get("args").is_none(), "a step has no work of its own");
        let said = &read["otherData"];
        assert_eq!((said["overhead"].as_f64(), said["overhead_low"].as_f64()), (Some(1.0), None), "of one pair");
        assert_eq!((&said["traced_step_seconds"], &said["untraced_step_seconds"]), (&json!([4e-6]), &json!([2e-6])));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left aside");
    }
}
