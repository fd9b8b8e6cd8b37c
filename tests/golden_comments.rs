//! The comment on a pull request in every case that people meet, against golden files; `UPDATE_GOLDEN=1 cargo test` writes them
//! again, to be looked at.

use centime::internal::comparison::{Check, CheckedCell, Method, Rule, Side, Verdict, kept};
use centime::internal::report::{MARKER, benchmark, bmf, csv, json, junit, markdown};
use centime::internal::scenario::Budget;
use std::path::Path;

/// A cell whose head is slower by this share (negative: faster), the verdict being the rule's own.
fn cell(name: &str, slower: f64, spread: f64, cost: Option<f64>) -> CheckedCell {
    let rule = Rule::default();
    let y: Vec<f64> = (0..48)
        .map(|i| slower.ln_1p() + if i % 2 == 0 { spread } else { -spread } * (f64::from(i % 7) + 1.0) / 7.0)
        .collect();
    let (verdict, pairs) = rule.sequence(&y);
    let rate = 50_000.0;
    CheckedCell {
        trial_id: format!("{:012x}", name.len()),
        name: name.into(),
        base: Side { tokens_per_second: Some(rate), usd_per_million_tokens: cost, ..Side::default() },
        head: Side {
            tokens_per_second: Some(rate / (1.0 + slower)),
            usd_per_million_tokens: cost.map(|c| c * (1.0 + slower)),
            peak_memory_bytes: Some(134_217_728.0),
            ..Side::default()
        },
        judged: rule.judged(&y[..pairs], Some(verdict), 1),
        findings: vec![],
        failure: None,
    }
}

fn failed(name: &str) -> CheckedCell {
    let judged = Rule::default().judged(&[], None, 1);
    CheckedCell {
        base: Side::default(),
        head: Side::default(),
        judged,
        failure: Some("head: crashed: ended by signal 11 (SIGSEGV)".into()),
        ..cell(name, 0.0, 0.001, None)
    }
}

fn check(cells: Vec<CheckedCell>) -> Check {
    Check {
        version: 1,
        scenario: "own-check".into(),
        verdict: Check::conclude(&cells, &[]),
        advisory: false,
        cells,
        budgets: vec![],
        guards: vec![],
        remarks: vec![],
        price_change: None,
        method: Method {
            tolerance: 0.02,
            detect: 0.05,
            pairs_at_most: 48,
            launch_seconds: 0.5,
            control_pairs: 12,
            machine: "Example CPU | x86_64 | 2 cores | 8 GiB".into(),
            price: "$0.1078/h (local)".into(),
            base: "base".into(),
            head: "this build, centime 0.1.0".into(),
            steal_share: Some(0.001),
            seed: 0,
            command: "centime check ci/check.yaml --baseline-bin base".into(),
        },
    }
}

const COST: Option<f64> = Some(0.412);

fn budget(usd: f64) -> Budget {
    Budget {
        cells: "*".into(),
        usd_per_million_tokens: Some(usd),
        peak_memory_bytes: Some(268_435_456.0),
        ttft_seconds: None,
        tpot_seconds: None,
        usd_to_loss: None,
        validation_loss: None,
    }
}

fn cases() -> Vec<(&'static str, Check)> {
    let three = |slower: f64, spread: f64| {
        ["phase train", "phase prefill", "phase decode"].map(|n| cell(n, slower, spread, COST)).to_vec()
    };
    let mut first = check(vec![]);
    first.cells = three(0.0, 0.004);
    for c in &mut first.cells {
        c.base = Side::default();
        c.judged = Rule::default().judged(&[], None, 1);
    }
    first.advisory = true;
    first.verdict = Verdict::Inconclusive;
    first.guards = vec!["there is no baseline to compare with yet; the figures are this build's alone".into()];
    let mut worse = three(0.0, 0.004);
    worse[1] = cell("phase prefill", 0.071, 0.006, COST);
    worse[1].findings = vec!["checksum of the output: 12345 before, 54321 now".into()];
    let mut partial = three(0.001, 0.004);
    partial[2] = failed("phase decode");
    let mut noisy = check(three(0.0, 0.004));
    noisy.guards = vec!["the hypervisor took 4.1 % of the time; over 2 % nothing is concluded".into()];
    noisy.verdict = Check::conclude(&noisy.cells, &noisy.guards);
    let mut over = check(three(0.0, 0.004));
    over.budgets = kept(&[budget(0.4)], &over.cells, |_| None);
    let mut within = check(three(0.0, 0.004));
    within.budgets = kept(&[budget(0.5)], &within.cells, |_| None);
    let mut advisory = check(three(0.0, 0.004));
    (advisory.advisory, advisory.price_change, advisory.method.base) =
        (true, Some((0.1, 0.1078)), "reports/main".into());
    let many = (0..1000).map(|i| {
        let slower = if i % 100 == 7 { 0.09 } else { 0.0 };
        cell(&format!("batch {}, d_model {}, a rather long name of a cell", i % 40, i), slower, 0.003, COST)
    });
    let hostile = [
        "<script>alert(1)</script>",
        "a | b | c",
        "@everyone see #1 and GH-2",
        "[link](http://evil.example) ![x](y)",
        "`code` **bold** _x_ ~~y~~",
        "</details><!-- -->",
        "line\nbreak\tand \u{202e}turned",
        "=1+1",
        "-->",
        "",
    ];
    vec![
        ("first-run", first),
        ("no-change", check(three(0.0, 0.004))),
        ("better", check(three(-0.034, 0.004))),
        ("worse", check(worse)),
        ("inconclusive", check(vec![cell("phase train", 0.03, 0.12, COST), cell("phase decode", 0.0, 0.004, COST)])),
        ("not-trusted", noisy),
        ("partial", check(partial)),
        ("all-failed", check(vec![failed("phase train"), failed("phase decode")])),
        (
            "missing-price",
            check(vec![cell("phase train", 0.001, 0.004, None), cell("phase decode", 0.06, 0.004, None)]),
        ),
        ("over-budget", over),
        ("within-budget", within),
        ("advisory", advisory),
        ("thousand-cells", check(many.collect())),
        ("hostile-names", check(hostile.iter().map(|n| cell(n, 0.08, 0.004, COST)).collect())),
    ]
}

#[test]
fn every_comment_is_the_golden_one() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/comments");
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    for (name, check) in cases() {
        let (path, now) = (folder.join(format!("{name}.md")), markdown(&check));
        if update {
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(&path, &now).unwrap();
        }
        let golden = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(now == golden, "{name} is not its golden file; UPDATE_GOLDEN=1 writes it again:\n{now}");
    }
}

#[test]
fn no_comment_is_longer_than_a_forge_takes_and_each_is_found_again() {
    for (name, check) in cases() {
        let text = markdown(&check);
        assert!(text.starts_with(MARKER), "{name}");
        assert!(text.len() <= 60_000, "{name}: {} bytes", text.len());
        // What is opened is closed: a table cut in the middle does not swallow the rest.
        assert_eq!(text.matches("<details>").count(), text.matches("</details>").count(), "{name}");
    }
}

#[test]
fn names_of_strangers_do_nothing() {
    let (_, check) = cases().into_iter().find(|(n, _)| *n == "hostile-names").unwrap();
    let text = markdown(&check);
    for bad in ["<script", "@everyone", "k](http", "#1 ", "\u{202e}", "**bold**"] {
        assert!(!text.contains(bad), "{bad} in {text}");
    }
    let xml = junit(&check);
    assert!(!xml.contains("<script") && !xml.contains('\u{202e}'), "{xml}");
    assert!(csv(&check).contains("\"'=1+1\""), "{}", csv(&check));
}

#[test]
fn every_form_for_machines_is_whole() {
    for (name, check) in cases() {
        let data: serde_json::Value = serde_json::from_str(&json(&check)).unwrap();
        assert_eq!(data["cells"].as_array().unwrap().len(), check.cells.len(), "{name}");
        let metrics: serde_json::Value = serde_json::from_str(&bmf(&check)).unwrap();
        for measure in metrics.as_object().unwrap().values().flat_map(|m| m.as_object().unwrap().values()) {
            let of = |key: &str| measure[key].as_f64();
            assert!(of("lower_value").is_none_or(|l| l <= of("value").unwrap()), "{name}: {measure}");
            assert!(of("upper_value").is_none_or(|u| u >= of("value").unwrap()), "{name}: {measure}");
        }
        let points: serde_json::Value = serde_json::from_str(&benchmark(&check)).unwrap();
        assert!(points.as_array().unwrap().iter().all(|p| p["value"].is_number() && p["unit"].is_string()), "{name}");
        let xml = junit(&check);
        assert_eq!(xml.matches("<testcase").count(), check.cells.len() + check.budgets.len(), "{name}");
        assert_eq!(xml.matches("<failure").count(), check.counted(Verdict::Regression) + check.over_budget(), "{name}");
        assert_eq!(csv(&check).lines().count(), check.cells.len() + 1, "{name}");
    }
}
