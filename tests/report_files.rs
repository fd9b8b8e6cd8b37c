//! Reports as files: what is in the folder, what a page needs from outside, and names that would break a format.

#[path = "common/fixture.rs"]
#[allow(dead_code, reason = "shared with the tests of other files")]
mod fixture;
#[path = "common/hostile.rs"]
mod hostile;

use centime::internal::results::parquet_shape;
use centime::{Phase, Run, Style, publish, summary};
use std::path::Path;

fn read(folder: &Path, name: &str) -> String {
    std::fs::read_to_string(folder.join(name)).unwrap()
}

fn published(run: &Run) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let page = publish(run, fixture::book(), folder.path()).unwrap();
    assert_eq!(page, folder.path().join("report.html"));
    folder
}

#[test]
fn a_report_has_every_file_and_every_trial() {
    let run = fixture::sweep();
    let folder = published(&run);
    let csv = read(folder.path(), "results.csv");
    assert_eq!(csv.lines().count(), 13, "one header row and a row for each trial");
    assert_eq!(csv.lines().filter(|l| l.starts_with("trial_id,")).count(), 1);
    let json: serde_json::Value = serde_json::from_str(&read(folder.path(), "results.json")).unwrap();
    assert_eq!(json["rows"].as_array().unwrap().len(), 12);
    assert!(json["rows"][0]["step_seconds"].as_array().unwrap().len() >= 12, "raw samples are kept");
    let (columns, rows) = parquet_shape(&folder.path().join("results.parquet")).unwrap();
    assert!(rows == 12 && columns.contains(&"usd_per_million_tokens_high".to_string()), "{rows} {columns:?}");
    let charts =
        ["cost-by-batch", "cost-by-devices", "cost-by-model-d-model", "throughput-by-batch", "devices", "memory"];
    let page = read(folder.path(), "report.html");
    let text = read(folder.path(), "report.md");
    for name in charts {
        let svg = read(folder.path(), &format!("charts/{name}.svg"));
        assert!(page.contains(&svg), "{name} is in the page");
        assert!(text.contains(&format!("(charts/{name}.svg)")), "{name} is in the Markdown");
    }
    for said in ["12 trials requested: 9 ok, 1 oom, 1 crashed and 1 skipped.", "signal 11 (SIGSEGV)", "$0.0856"] {
        assert!(page.contains(said), "{said}");
    }
}

#[test]
fn a_page_needs_nothing_from_outside() {
    let page = read(published(&fixture::sweep()).path(), "report.html");
    for (i, _) in page.match_indices("http") {
        assert!(page[i..].starts_with("http://www.w3.org/2000/svg"), "{}", &page[i..i + 60]);
    }
    for outside in ["<link", "<img", "<iframe", "src=", "@import", "url("] {
        assert!(!page.contains(outside), "{outside}");
    }
}

#[test]
fn every_chart_is_well_formed_and_within_its_picture() {
    for run in [fixture::sweep(), fixture::heads(), fixture::phase(Phase::Generate), fixture::phase(Phase::Decode)] {
        let folder = published(&run);
        for entry in std::fs::read_dir(folder.path().join("charts")).unwrap() {
            let path = entry.unwrap().path();
            let svg = std::fs::read_to_string(&path).unwrap();
            hostile::assert_balanced(&svg, &path.display().to_string());
            let view = svg.split("viewBox=\"0 0 ").nth(1).unwrap().split('"').next().unwrap();
            let (width, height) = view.split_once(' ').unwrap();
            let (width, height): (f64, f64) = (width.parse().unwrap(), height.parse().unwrap());
            for (attribute, most) in [(" x=\"", width), (" y=\"", height), (" cx=\"", width), (" cy=\"", height)] {
                for value in svg.split(attribute).skip(1).map(|s| s.split('"').next().unwrap()) {
                    let at: f64 = value.parse().unwrap();
                    assert!((0.0..=most).contains(&at), "{}: {attribute}{value}", path.display());
                }
            }
        }
    }
}

#[test]
fn head_counts_have_a_chart_of_both_throughput_and_cost() {
    let folder = published(&fixture::heads());
    let svg = read(folder.path(), "charts/head-count.svg");
    assert!(svg.contains("tokens/s") && svg.contains("USD per million tokens"));
}

#[test]
fn an_old_report_s_charts_go_and_other_pictures_stay() {
    let folder = published(&fixture::sweep());
    let charts = folder.path().join("charts");
    std::fs::write(charts.join("my-own.svg"), "<svg/>").unwrap();
    publish(&fixture::heads(), fixture::book(), folder.path()).unwrap();
    assert!(!charts.join("cost-by-batch.svg").exists());
    assert!(charts.join("cost-by-model-n-heads.svg").exists() && charts.join("my-own.svg").exists());
}

#[test]
fn without_a_price_costs_are_not_available_and_never_zero() {
    let mut run = fixture::sweep();
    run.environment.price.usd_per_hour = None;
    let folder = published(&run);
    let text = read(folder.path(), "report.md");
    assert!(text.contains("n/a: the scenario states no price") && !text.contains("$0"), "{text}");
    assert!(!folder.path().join("charts/cost-by-batch.svg").exists());
    assert!(folder.path().join("charts/throughput-by-batch.svg").exists());
    assert!(summary(&run, fixture::book(), PLAIN).closing.contains("cost n/a: no price is given"));
}

#[test]
fn a_run_in_which_nothing_was_measured_still_has_a_report() {
    let mut run = fixture::sweep();
    run.records.retain(|r| r.measurement.figures.is_none());
    run.environment.requested_cells = run.records.len() as u32;
    let text = read(published(&run).path(), "report.md");
    assert!(text.contains("No trial gave figures: 3 trials requested"), "{text}");
    run.records.clear();
    run.environment.requested_cells = 0;
    published(&run);
}

const PLAIN: Style = Style { width: None, colour: false };

#[test]
fn no_name_breaks_a_format() {
    for name in hostile::NAMES {
        let mut run = fixture::sweep();
        let e = &mut run.environment;
        e.description = name.to_string();
        e.price.hardware = name.to_string();
        e.price.source = name.to_string();
        e.machine.hostname = name.to_string();
        e.machine.cpu_model = name.to_string();
        e.command = name.to_string();
        for r in &mut run.records {
            r.cell.trial.model = name.to_string();
            r.measurement.reason = if r.measurement.reason.is_empty() { String::new() } else { name.to_string() };
            r.cell.coordinates.push(("model.unheard_of".into(), format!("{name}{}", r.cell_index)));
        }
        let folder = published(&run);
        hostile::assert_html(&read(folder.path(), "report.html"), name);
        hostile::assert_markdown(&read(folder.path(), "report.md"), name);
        hostile::assert_csv(&read(folder.path(), "results.csv"), 13, name);
        let json: serde_json::Value = serde_json::from_str(&read(folder.path(), "results.json")).unwrap();
        assert_eq!(json["rows"][0]["model"], *name, "JSON keeps the name as it is");
        for entry in std::fs::read_dir(folder.path().join("charts")).unwrap() {
            hostile::assert_balanced(&std::fs::read_to_string(entry.unwrap().path()).unwrap(), name);
        }
        let shown = summary(&run, fixture::book(), PLAIN);
        hostile::assert_terminal(&shown.table, name);
        hostile::assert_terminal(&shown.closing, name);
        assert!(!shown.closing.contains('\n'));
    }
}
