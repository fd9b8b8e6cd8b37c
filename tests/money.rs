//! Prices from the command line to the report: the price book against its schema, faults with line and column, whole
//! instances, currencies, and the decisions that follow.

#[path = "common/fixture.rs"]
#[allow(dead_code, reason = "shared with the tests of other files")]
mod fixture;

use centime::internal::hardware::schema;
use centime::internal::results::{Journal, RunKey, SCHEMA_VERSION, save_environment};
use centime::{LoadOptions, Run, load};
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};

fn centime(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_centime")).args(arguments).current_dir(folder).output().unwrap()
}

fn out(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn json(folder: &Path, arguments: &[&str]) -> Value {
    let mut all = arguments.to_vec();
    all.extend(["--format", "json"]);
    serde_json::from_str(&out(&centime(folder, &all))).unwrap()
}

/// Writes a run's folder as `centime run` leaves it.
fn save(run: &Run, folder: &Path) {
    std::fs::create_dir_all(folder).unwrap();
    save_environment(folder, &run.environment).unwrap();
    let key = RunKey {
        schema_version: SCHEMA_VERSION,
        program_version: "0.1.0".into(),
        scenario_name: run.environment.scenario_name.clone(),
        seed: 7,
        measure: "{}".into(),
        machine: run.environment.machine.fingerprint(),
    };
    let (mut journal, _) = Journal::open(folder, &key).unwrap();
    run.records.iter().for_each(|r| journal.append(r).unwrap());
}

const OFFER: &str = "version: 1\noffers:\n  - provider: us\n    instance: cage\n    usd_per_hour: 2.5\n    from: \"2026-07-01\"\n    source: invoice\n";

#[test]
fn our_files_agree_with_their_schema() {
    let schema = serde_json::to_value(schema()).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("hardware");
    for name in ["devices.yaml", "prices.yaml", "apis.yaml"] {
        let file: Value = serde_yaml::from_str(&std::fs::read_to_string(folder.join(name)).unwrap()).unwrap();
        let faults: Vec<String> = validator.iter_errors(&file).map(|e| format!("{}: {e}", e.instance_path())).collect();
        assert!(faults.is_empty(), "{name}: {faults:?}");
    }
    // And the schema is no blanket.
    for bad in [
        OFFER.replace("2.5", "0"),
        OFFER.replace("source: invoice", "sauce: invoice"),
        OFFER.replace("2026-07-01", "soon"),
    ] {
        let file: Value = serde_yaml::from_str(&bad).unwrap();
        assert!(!validator.is_valid(&file), "{bad}");
    }
}

#[test]
fn every_entry_has_a_source_and_a_date() {
    let book = fixture::book();
    assert!(book.devices.len() >= 64 && book.offers.len() >= 240 && book.apis.len() >= 24);
    assert!(book.devices.iter().all(|d| !d.source.is_empty()));
    assert!(book.offers.iter().all(|o| !o.source.is_empty() && o.usd_per_hour.get() > 0.0));
    assert!(book.apis.iter().all(|a| !a.source.is_empty()));
    let mut names: Vec<&str> = book.devices.iter().map(|d| d.name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), book.devices.len(), "each device has a name of its own");
}

/// What a device is known by in the user's own book alone reaches every figure that rests on the catalog.
#[test]
fn a_users_own_book_reaches_power_peaks_and_apis() {
    let folder = tempfile::tempdir().unwrap();
    let own = "version: 1\n\
        devices:\n  - { name: zz9, kind: gpu, seen_as: [Zaphod Z9000 Plural], memory_gb: 80, memory_gb_per_second: 2000, \
        tflops: { f32: 60, bf16: 500 }, tdp_watts: 432, source: its maker }\n\
        apis:\n  - { provider: us, model: gpt-4o, usd_per_million_input: 123, usd_per_million_output: 321, \
        date: \"2026-10-01\", source: invoice }\n";
    std::fs::write(folder.path().join("own.yaml"), own).unwrap();
    let mut run = fixture::gpus();
    for gpu in &mut run.environment.gpus {
        gpu.name = "Zaphod Z9000 Plural".into();
        gpu.probed = None;
    }
    save(&run, &folder.path().join("run"));
    let figures = |prices: &[&str]| {
        let mut arguments = vec!["report", "run", "--price", "2"];
        arguments.extend(prices);
        json(folder.path(), &arguments)["rows"][0].clone()
    };
    let (without, with) = (figures(&[]), figures(&["--prices", "own.yaml"]));
    for metric in ["mfu", "peak_flops_per_second"] {
        assert!(without[metric].is_null(), "{metric} without the book: {}", without[metric]);
        assert!(with[metric].is_f64(), "{metric} with the book: {}", with[metric]);
    }
    let report = std::fs::read_to_string(folder.path().join("run/report.md")).unwrap();
    assert!(report.contains("datasheet"), "the section on GPUs shows what its maker says");
}

#[test]
fn a_price_book_at_fault_is_pointed_into() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("own.yaml");
    let fails = |text: &str, words: &[&str]| {
        std::fs::write(&path, text).unwrap();
        let output = centime(folder.path(), &["hardware", "list", "--prices", "own.yaml"]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{text}\n{said}");
        words.iter().for_each(|w| assert!(said.contains(w), "{w} is not in:\n{said}"));
    };
    for bad in ["0", "-1", ".nan", ".inf", "-.inf", "1e300", "1e-300", "free", "[1]", "{ a: 1 }"] {
        fails(&OFFER.replace("2.5", bad), &["own.yaml:5:19", "offers.usd_per_hour", "above 0"]);
    }
    fails(&OFFER.replace("usd_per_hour", "usd_per_our"), &["own.yaml:5:5", "did you mean `usd_per_hour`?"]);
    fails(&OFFER.replace("source: invoice", "source: ~"), &["own.yaml:3:5", "offers.source: missing"]);
    fails(&OFFER.replace("2026-07-01", "2026-02-31"), &["own.yaml:6:11", "a date such as", "2026-02-31"]);
    fails(&(OFFER.to_string() + "    until: \"2020\"\n"), &["own.yaml:8:12", "before from"]);
    fails(&(OFFER.to_string() + "    term: cheap\n"), &["own.yaml:8:11", "on-demand, spot"]);
    fails(&(OFFER.to_string() + "    device: h100-smx-80gb\n"), &["own.yaml:8:13", "h100-sxm-80gb"]);
    fails(&(OFFER.to_string() + "    per_hour: 2\n"), &["own.yaml:3:5", "one of usd_per_hour, per_hour"]);
    fails(&OFFER.replace("usd_per_hour: 2.5", "per_hour: 2\n    currency: EUR"), &["no rate for `EUR`", "rates:"]);
    fails(&OFFER.replace("version: 1", "version: 2"), &["own.yaml:1:10", "write 1"]);
    fails("offers: [", &["own.yaml:1:"]);
    fails("[]", &["own.yaml", "expected a map"]);
    let missing = centime(folder.path(), &["hardware", "list", "--prices", "nowhere.yaml"]);
    assert_eq!(missing.status.code(), Some(74));
    assert!(String::from_utf8_lossy(&missing.stderr).contains("nowhere.yaml: no such file"));
}

#[test]
fn a_users_own_prices_are_found_in_any_currency_and_whether_rented_or_bought() {
    let folder = tempfile::tempdir().unwrap();
    let book = "version: 1\nrates:\n  EUR: { usd: 1.1, date: \"2026-07-01\", source: central bank }\noffers:\n\
                \x20 - { provider: us, instance: euro, per_hour: 2, currency: EUR, from: \"2026-07-01\", source: invoice }\n\
                \x20 - { provider: us, instance: ours, device: h100, devices: 8, from: \"2026\", source: ledger, owned: { capex_usd: \
                350640, lifetime_years: 4, watts: 7000, pue: 1.25, usd_per_kwh: 0.16, opex_usd_per_hour: 0.6 } }\n";
    std::fs::write(folder.path().join("own.yaml"), book).unwrap();
    let shown = |name: &str| json(folder.path(), &["hardware", "show", name, "--prices", "own.yaml"]).to_string();
    assert!(shown("euro").contains("$2.200/h"), "{}", shown("euro"));
    // 350640 / 35064 h = 10, 7 kW * 1.25 * 0.16 = 1.4, and 0.6: 12 USD an hour for 8 devices.
    assert!(shown("us/ours").contains("$1.500/h a device"), "{}", shown("us/ours"));
}

fn scenario_price(folder: &Path, price: &str) -> Result<centime::Price, String> {
    let path = folder.join("s.yaml");
    std::fs::write(&path, format!("version: 1\nname: t\nprice: {price}\n")).unwrap();
    load(&path, &LoadOptions::default()).map(|s| s.price).map_err(|e| e.to_string())
}

#[test]
fn a_scenario_takes_its_price_from_the_book() {
    let folder = tempfile::tempdir().unwrap();
    let price = |text: &str| scenario_price(folder.path(), text);
    let p = price("{ hardware: p5.48xlarge }").unwrap();
    // Eight devices are rented together: nine take two instances.
    let hour = |n: u32| p.for_devices(n).unwrap().0.to_string();
    assert_eq!((hour(1), hour(8), hour(9)), ("55.04".into(), "55.04".into(), "110.08".into()));
    assert_eq!((p.device.as_deref(), p.seen.as_deref()), (Some("h100-sxm-80gb"), Some("2026-07-20")));
    let spot = price("{ hardware: t4, term: spot, provider: gcp }").unwrap();
    assert_eq!(spot.usd_per_hour.unwrap().0.to_string(), "0.21");
    let then = price("{ hardware: p5.48xlarge, on: \"2024-01\" }").unwrap();
    assert_eq!(then.usd_per_hour.unwrap().0.to_string(), "98.32");
    let euro = price("{ per_hour: 2, currency: { code: EUR, usd: 1.1, source: bank } }").unwrap();
    assert_eq!(euro.usd_per_hour.unwrap().get(), 2.2);
    assert!(euro.source.contains("2 EUR at 1.1 USD (bank)"), "{}", euro.source);
    let owned = price("{ owned: { capex_usd: 8766, lifetime_years: 1 } }").unwrap();
    assert_eq!(owned.usd_per_hour.unwrap().get(), 1.0);
    // What nobody offers has no price, and costs are n/a.
    assert_eq!(price("{ hardware: rtx-4090 }").unwrap().usd_per_hour, None);
    for (bad, word) in [
        ("{ hardware: p5.48xlrage }", "p5.48xlarge"),
        ("{ hardware: p5.48xlarge, term: cheap }", "on-demand"),
        ("{ hardware: p5.48xlarge, on: \"2019\" }", "no offer"),
        ("{ usd_per_hour: 1, owned: { capex_usd: 1, lifetime_years: 1 } }", "one of usd_per_hour, per_hour, owned"),
        ("{ per_hour: 1 }", "in which currency"),
        ("{ term: spot }", "which instance or device"),
        ("{ usd_per_hour: 1e300 }", "at most 1e9"),
        ("{ owned: { capex_usd: 0, lifetime_years: 1 } }", "over 0"),
        ("{ use_cases: { chat: 5 } }", "expected a map"),
        ("{ energy: { pue: 1.2 } }", "usd_per_kwh: missing"),
    ] {
        let said = price(bad).unwrap_err();
        assert!(said.contains(word) && said.contains("s.yaml:3:"), "{bad}: {said}");
    }
}

#[test]
fn a_run_is_priced_by_a_name_of_the_book_on_a_date() {
    let folder = tempfile::tempdir().unwrap();
    save(&fixture::sweep(), &folder.path().join("run"));
    let usd = |price: &str| {
        let rows = json(folder.path(), &["report", "run", "--out", "other", "--price", price]);
        rows["rows"][0]["usd_per_hour"].as_f64().unwrap()
    };
    assert_eq!((usd("p5.48xlarge@2024"), usd("p5.48xlarge"), usd("1.25")), (98.32, 55.04, 1.25));
    let stale = centime(folder.path(), &["report", "run", "--out", "other", "--price", "p5.48xlarge@2024"]);
    assert!(String::from_utf8_lossy(&stale.stderr).contains("was last seen 2025-06-23"));
}

#[test]
fn two_machines_give_every_decision_in_one_command() {
    let folder = tempfile::tempdir().unwrap();
    let mut fast = fixture::phase(centime::Phase::Generate);
    save(&fast, &folder.path().join("a"));
    for f in fast.records.iter_mut().filter_map(|r| r.measurement.figures.as_mut()) {
        f.step_seconds.iter_mut().chain(&mut f.first_token_seconds).for_each(|s| *s /= 4.0);
    }
    save(&fast, &folder.path().join("b"));
    let compare = ["compare", "a", "b", "--price", "1", "--price", "5", "--max-ttft", "100s", "--max-memory", "1TiB"];
    let text = out(&centime(folder.path(), &compare));
    for words in [
        "Tokens are cheapest on a",
        "b must fall from $5.00/h to $4.00/h (-20 %) to match a",
        "cheapest under TTFT",
        "gpt-4o-mini",
        "Sensitivity",
        "utilisation",
        "report: reports/a-against-b/compare.html",
    ] {
        assert!(text.contains(words), "{words} is not in:\n{text}");
    }
    for picture in ["cost-against-latency-generate", "break-even", "utilisation", "tornado"] {
        let svg =
            std::fs::read_to_string(folder.path().join(format!("reports/a-against-b/charts/{picture}.svg"))).unwrap();
        assert!(svg.contains("role=\"img\"") && !svg.contains("NaN"), "{picture}");
    }
    // At the price that was said, both cost the same.
    let even = json(folder.path(), &["compare", "a", "b", "--price", "1", "--price", "4"]);
    for row in even["rows"].as_array().unwrap().iter().filter(|r| r["run"] == "b") {
        assert!((row["cost_ratio"].as_f64().unwrap() - 1.0).abs() < 1e-9, "{row}");
    }
    let one = centime(folder.path(), &["compare", "a", "b", "--price", "1"]);
    assert_eq!(one.status.code(), Some(2), "a price for each run");
}

#[test]
fn a_change_is_explained_without_a_remainder() {
    let folder = tempfile::tempdir().unwrap();
    save(&fixture::sweep(), &folder.path().join("a"));
    let rows = json(folder.path(), &["explain", "a", "a", "--price", "p5.48xlarge@2024", "--price", "p5.48xlarge"]);
    let rows = rows.as_array().unwrap();
    let number = |row: &Value, key: &str| row[key].as_f64().unwrap();
    let (total, parts) = rows.split_last().unwrap();
    let sum: f64 = parts.iter().map(|p| number(p, "change_usd_per_million_tokens")).sum();
    let change = number(total, "change_usd_per_million_tokens");
    assert!((sum - change).abs() <= 1e-12 * change.abs(), "{sum} {change}");
    assert!((number(total, "after") / number(total, "before") - 55.04 / 98.32).abs() < 1e-9);
    for p in parts.iter().filter(|p| p["factor"] != "price") {
        assert_eq!(number(p, "change_usd_per_million_tokens"), 0.0, "{p}");
    }
    let text =
        out(&centime(folder.path(), &["explain", "a", "a", "--price", "p5.48xlarge@2024", "--price", "p5.48xlarge"]));
    assert!(text.contains("The largest part is price, which fell from $98.3/h to $55.0/h"), "{text}");
    let history = out(&centime(folder.path(), &["hardware", "history"]));
    assert_eq!(history, out(&centime(folder.path(), &["explain", "--history"])), "its earlier name");
    assert!(history.contains("From GPT-3 davinci (2022-07-03) to gpt-4o-mini (2024-07-18)"), "{history}");
    let page = std::fs::read_to_string(folder.path().join("reports/price-history/history.html")).unwrap();
    for o in &fixture::book().apis {
        assert!(page.contains(&o.model), "{} with its source", o.model);
    }
}

#[test]
fn training_and_requests_are_priced() {
    let folder = tempfile::tempdir().unwrap();
    let train = [
        "cost",
        "train",
        "--parameters",
        "7B",
        "--tokens",
        "140B",
        "--hardware",
        "p5.48xlarge",
        "--devices",
        "8,9",
        "--mfu",
        "0.5",
    ];
    let rows = json(folder.path(), &train);
    // 5.88e21 FLOP / (8 * 989.4e12 * 0.5) = 1,485,749 s = 17.2 days; 412.708 h at 55.04 USD.
    assert!((rows[0]["days"].as_f64().unwrap() - 17.1962).abs() < 1e-3, "{rows}");
    assert!((rows[0]["usd"].as_f64().unwrap() - 22_715.5).abs() < 1.0, "{rows}");
    assert_eq!((rows[1]["instances"].as_u64(), rows[1]["usd_per_hour"].as_f64()), (Some(2), Some(110.08)));
    save(&fixture::phase(centime::Phase::Generate), &folder.path().join("run"));
    let rows = json(folder.path(), &["cost", "requests", "run", "--use-case", "ours=3000:250"]);
    let rows = rows.as_array().unwrap();
    assert!(rows.iter().any(|r| r["use_case"] == "ours") && rows.iter().any(|r| r["use_case"] == "extraction"));
    for r in rows {
        let of = |key: &str| r[key].as_f64().unwrap();
        assert!(
            of("usd_per_request_low") <= of("usd_per_request") && of("usd_per_request") <= of("usd_per_request_high")
        );
        assert!((of("usd_per_thousand_requests") / of("usd_per_request") - 1000.0).abs() < 1e-6);
    }
}
