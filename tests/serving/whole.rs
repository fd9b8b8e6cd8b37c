//! A server under a scenario: rows, prices, reports.

use crate::mock::{Mock, Timing, answer, begin, end, event, respond, text, until};
use centime::internal::results::read_journal;
use centime::{Record, Status};
use std::collections::HashSet;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tempfile::TempDir;

struct Sweep(TempDir);

impl Sweep {
    fn new(trial: &str, rest: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let text = format!(
            "version: 1\nname: served\ntrial:\n  {}\n{rest}\nprice: {{ usd_per_hour: 3.6 }}\n",
            trial.replace('\n', "\n  ")
        );
        std::fs::write(folder.path().join("s.yaml"), text).unwrap();
        Self(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn centime(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_centime"));
        command.args(arguments).current_dir(self.0.path()).envs(variables.iter().copied());
        command.env("XDG_RUNTIME_DIR", self.0.path()).env("NO_COLOR", "1");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).output().unwrap()
    }

    fn run(&self, variables: &[(&str, &str)]) -> (Vec<Record>, String) {
        let output = self.centime(&["run", "s.yaml", "--no-probe", "--out", "out"], variables);
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        let records = read_journal(&self.path("out")).unwrap().map_or(vec![], |c| c.records);
        assert!(!records.is_empty(), "{said}");
        (records, said)
    }

    fn rows(&self) -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(self.path("out/results.json")).unwrap();
        let table: serde_json::Value = serde_json::from_str(&text).unwrap();
        table["rows"].as_array().unwrap().clone()
    }

    /// Every file of the run, as bytes.
    fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let (mut folders, mut all) = (vec![self.0.path().to_path_buf()], Vec::new());
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap().flatten() {
                if entry.path().is_dir() {
                    folders.push(entry.path());
                } else {
                    all.push((entry.path(), std::fs::read(entry.path()).unwrap()));
                }
            }
        }
        all
    }
}

const MEASURE: &str = "measure: { min_seconds: 3, max_seconds: 3, rounds: 1, order: file }";

fn trial(endpoint: &str, more: &str) -> String {
    format!("engine: {{ endpoint: \"{endpoint}\", model: mock }}\nprompt_len: 90\nnew_tokens: 10\n{more}")
}

#[test]
fn a_sweep_over_concurrency_has_rows_with_latencies_rates_and_prices() {
    let mock = Mock::start(|asked, stream| answer(asked, stream, Timing::ms(300, 50)));
    let rest = format!("{MEASURE}\nsweep: {{ matrix: {{ load.concurrency: [1, 4] }} }}");
    let sweep = Sweep::new(&trial(&mock.endpoint(), "slo: { ttft: 900ms, tpot: 90ms }"), &rest);
    let (records, said) = sweep.run(&[]);
    assert!(records.iter().all(|r| r.measurement.status == Status::Ok), "{said}");
    assert_eq!(records[1].cell.name(), "concurrency 4");
    for (row, concurrency) in sweep.rows().iter().zip([1.0, 4.0]) {
        let get = |name: &str| row[name].as_f64().unwrap_or_else(|| panic!("{name}: {}", row[name]));
        let near = |name: &str, wanted: f64, share: f64| {
            assert!((get(name) / wanted - 1.0).abs() < share, "{name}: {}, and not {wanted}", get(name));
        };
        // 300 ms and nine times 50.
        near("e2e_seconds", 0.75, 0.1);
        near("ttft_seconds", 0.3, 0.1);
        near("tpot_seconds", 0.05, 0.1);
        near("output_tokens_per_second", 10.0 * concurrency / 0.75, 0.1);
        near("input_tokens_per_second", 90.0 * concurrency / 0.75, 0.1);
        near("tokens_per_second", 100.0 * concurrency / 0.75, 0.1);
        near("goodput_requests_per_second", concurrency / 0.75, 0.1);
        assert_eq!((get("slo_share"), get("failed_requests")), (1.0, 0.0));
        // 3.6 USD an hour are a tenth of a cent a second.
        near("usd_per_million_tokens", 1e3 / (100.0 * concurrency / 0.75), 0.1);
        // What input and output cost adds up to what is paid.
        let paid = get("usd_per_million_input_tokens") * get("input_tokens_per_second")
            + get("usd_per_million_output_tokens") * get("output_tokens_per_second");
        assert!((paid / 1e3 - 1.0).abs() < 1e-6, "{paid}");
        assert!(row["step_seconds_p50"].is_null() && row["dtype"].is_null() && row["mfu"].is_null(), "{row}");
        assert_eq!(row["load.prefix"], "none: every prompt salted");
    }
    assert!(said.contains("TTFT"), "{said}");
}

#[test]
fn a_key_is_sent_and_written_nowhere() {
    const KEY: &str = "sk-very-secret-0123456789";
    let mock = Mock::start(|asked, stream| {
        if !asked.headers.contains(KEY) {
            return respond(stream, "401 Unauthorized", "", r#"{"error": {"message": "no key"}}"#);
        }
        // A server that repeats the key in what it says.
        if asked.index % 3 == 2 {
            return respond(
                stream,
                "429 Too Many",
                "",
                &format!(r#"{{"error": {{"message": "{KEY} asks too often"}}}}"#),
            );
        }
        answer(asked, stream, Timing::ms(5, 1))
    });
    let engine = format!("engine: {{ endpoint: \"{}\", model: mock, api_key_env: MY_KEY }}", mock.endpoint());
    let sweep = Sweep::new(&format!("{engine}\nload: {{ concurrency: 2 }}"), MEASURE);
    let (records, said) = sweep.run(&[("MY_KEY", KEY)]);
    let figures = records[0].measurement.figures.as_ref().unwrap_or_else(|| panic!("{said}"));
    assert!(figures.served[0].failed.unwrap() > 0);
    let holds = |bytes: &[u8]| bytes.windows(KEY.len()).any(|w| w == KEY.as_bytes());
    assert!(!holds(said.as_bytes()), "{said}");
    for (path, bytes) in sweep.files() {
        assert!(!holds(&bytes), "{} holds the key", path.display());
    }
    let sweep = Sweep::new(&format!("{engine}\nload: {{ concurrency: 2 }}"), MEASURE);
    let (records, _) = sweep.run(&[]);
    let expected = "engine.api_key_env: the variable MY_KEY is not set; set it where centime is started";
    assert!(records[0].measurement.reason.contains(expected), "{}", records[0].measurement.reason);
}

#[test]
fn the_largest_rate_that_holds_is_found_and_priced() {
    // One request at a time, 100 ms each: of 13.5 a second the last of 4 s wait 1.5 s, of 11.3 half a second, of 8 none.
    let (free, looks) = (std::sync::Mutex::new(std::time::Instant::now()), AtomicUsize::new(0));
    let mock = Mock::start(move |asked, stream| {
        if asked.line.contains("/metrics") {
            // It has the page, and is too busy to show it at first.
            if looks.fetch_add(1, Ordering::SeqCst) == 0 {
                return respond(stream, "503 Service Unavailable", "", "busy");
            }
            let page = "vllm:num_requests_running{engine=\"0\"} 3\nvllm:num_requests_waiting{engine=\"0\"} 2\n";
            return respond(stream, "200 OK", "", page);
        }
        let done = {
            let mut free = free.lock().unwrap();
            *free = (*free).max(asked.at) + Duration::from_millis(100);
            *free
        };
        begin(stream)?;
        until(done);
        event(stream, &text(asked, " word"))?;
        end(asked, stream)
    });
    let engine = format!("engine: {{ endpoint: \"{}\", model: mock }}\nprompt_len: 50\nnew_tokens: 1", mock.endpoint());
    let rest = "search: { largest: load.rate, while: slo, within: 0.2 }\nmeasure: { min_seconds: 4, max_seconds: 4, rounds: 1 }";
    let sweep = Sweep::new(&format!("{engine}\nload: {{ rate: 4, arrivals: constant }}\nslo: {{ ttft: 1s }}"), rest);
    let (records, said) = sweep.run(&[]);
    assert!(records[0].measurement.status == Status::Ok, "{said} {:?}", records[0].measurement.reason);
    let row = &sweep.rows()[0];
    let get = |name: &str| row[name].as_f64().unwrap_or_else(|| panic!("{name}: {}", row[name]));
    let (held, failed) = (get("largest_load_within_slo"), get("largest_load_within_slo_high"));
    assert!((8.0..13.5).contains(&held) && failed / held <= 1.2 + 1e-9 && failed > 9.0, "{held} {failed}");
    assert!((get("requests_per_second") / held - 1.0).abs() < 0.1 && get("slo_share") >= 0.95);
    assert!(get("usd_per_million_input_tokens") > 0.0 && row["load.rate"].is_null());
    assert_eq!((get("server_running_requests"), get("server_waiting_requests")), (3.0, 2.0));
    // What the server has seen in one stretch it does not see again in the next.
    let prompts = mock.prompts();
    let beginnings: HashSet<Vec<&str>> = prompts.iter().map(|p| p.split(' ').take(8).collect()).collect();
    assert_eq!(beginnings.len(), prompts.len());
    // On the terminal what was asked for comes before what a narrow one has no room for.
    for heading in ["largest", "within", "goodput"] {
        assert!(said.lines().any(|l| l.contains('┆') && l.contains(heading)), "{heading}: {said}");
    }
}

#[test]
fn a_traces_requests_are_sent_when_they_were() {
    let mock = Mock::start(|asked, stream| answer(asked, stream, Timing::ms(20, 5)));
    let engine = format!("engine: {{ endpoint: \"{}\", model: mock }}", mock.endpoint());
    let sweep = Sweep::new(&format!("{engine}\nload: {{ trace: t.jsonl, arrivals: trace }}"), MEASURE);
    let lines: Vec<String> = (0..20)
        .map(|i| {
            let at = i * 100 + if i % 2 == 1 { 50 } else { 0 };
            format!(
                "{{\"timestamp\": {at}, \"input_length\": {}, \"output_length\": 4, \"hash_ids\": [1, {i}]}}",
                600 + i
            )
        })
        .collect();
    std::fs::write(sweep.path("t.jsonl"), lines.join("\n")).unwrap();
    let (records, said) = sweep.run(&[]);
    let figures =
        records[0].measurement.figures.as_ref().unwrap_or_else(|| panic!("{said} {:?}", records[0].measurement));
    let served = &figures.served[0];
    assert!((served.requests_per_second.unwrap() - 10.0).abs() < 1.0, "{served:?}");
    let prompts = mock.prompts();
    let of_trace: Vec<&String> = prompts.iter().skip(2).collect();
    let first = |p: &&String| p.split(' ').take(512).map(str::to_string).collect::<Vec<_>>();
    assert!(of_trace.iter().all(|p| first(p) == first(&of_trace[0])), "the first block is the same");
    assert!((590..620).contains(&of_trace[0].split(' ').count()), "{}", of_trace[0].split(' ').count());
    let missing = Sweep::new(&format!("{engine}\nload: {{ trace: none.jsonl, concurrency: 1 }}"), MEASURE);
    let (records, _) = missing.run(&[]);
    assert!(
        records[0].measurement.reason.contains("load.trace: none.jsonl cannot be read"),
        "{:?}",
        records[0].measurement
    );
}

#[test]
fn a_check_pairs_two_servers_and_finds_the_dearer_one() {
    let quick = Mock::start(|asked, stream| answer(asked, stream, Timing::ms(60, 10)));
    let slow = Mock::start(|asked, stream| answer(asked, stream, Timing::ms(120, 20)));
    let sweep = Sweep::new(&trial(&quick.endpoint(), "load: { concurrency: 8 }"), "");
    let of = |mock: &Mock| format!("engine.endpoint={}", mock.endpoint());
    let arguments =
        ["check", "s.yaml", "--seconds", "0.3", "--max-pairs", "12", "--out", "checked", "--baseline-set", &of(&quick)];
    let output = sweep.centime(&[&arguments[..], &["--head-set", &of(&slow)]].concat(), &[]);
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(said.contains("REGRESSION"), "{said}");
    assert!(slow.asked() > 100 && quick.asked() > 100);
}

/// The server of the next test: this very test, started once more with a port to listen at.
#[test]
fn a_server_that_is_started() {
    let Ok(port) = std::env::var("CENTIME_TEST_PORT") else { return };
    std::thread::sleep(Duration::from_millis(300));
    let _mock = Mock::at(&format!("127.0.0.1:{port}"), |asked, stream| match asked.body.is_null() {
        true => respond(stream, "200 OK", "", "ready"),
        false => answer(asked, stream, Timing::ms(10, 2)),
    });
    std::thread::sleep(Duration::from_secs(60));
}

#[test]
fn a_server_is_started_waited_for_and_ended() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let this = std::env::current_exe().unwrap();
    let of = |command: &str| {
        let engine = format!(
            "engine:\n  endpoint: \"http://127.0.0.1:{free}/v1\"\n  model: mock\n  env: {{ CENTIME_TEST_PORT: {free} }}\n  \
             start: {{ command: [{command}], ready: /health }}\nload: {{ rate: 20, arrivals: constant }}"
        );
        Sweep::new(&engine, MEASURE)
    };
    let itself = format!("\"{}\", \"--exact\", \"whole::a_server_that_is_started\", \"--nocapture\"", this.display());
    let (records, said) = of(&itself).run(&[]);
    let figures =
        records[0].measurement.figures.as_ref().unwrap_or_else(|| panic!("{said} {:?}", records[0].measurement));
    assert!(figures.peak_rss_bytes > 1 << 20, "memory of the server is looked at: {}", figures.peak_rss_bytes);
    assert_eq!(figures.served[0].failed, Some(0));
    assert!(std::net::TcpStream::connect(("127.0.0.1", free)).is_err(), "nobody is left");
    let (records, _) = of("sh, -c, \"echo no such model >&2; exit 3\"").run(&[]);
    let m = &records[0].measurement;
    assert!(
        m.status == Status::Crashed && m.reason.contains("exited with code 3") && m.reason.contains("no such model"),
        "{m:?}"
    );
}

#[test]
fn a_server_that_answers_nothing_is_a_row_that_says_so() {
    let mock = Mock::start(|_, stream| respond(stream, "503 Service Unavailable", "", "loading model"));
    let sweep = Sweep::new(&trial(&mock.endpoint(), "load: { concurrency: 1 }"), MEASURE);
    let (records, _) = sweep.run(&[]);
    let m = &records[0].measurement;
    assert_eq!(m.status, Status::Invalid);
    assert!(
        m.reason.contains("the server does not answer a first request: 503") && m.reason.contains("loading model"),
        "{m:?}"
    );
}

#[test]
fn what_does_not_belong_to_a_server_is_refused_with_the_remedy() {
    let fault = |trial: &str| {
        let output = Sweep::new(trial, "").centime(&["plan", "s.yaml"], &[]);
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let at = "engine: { endpoint: \"http://127.0.0.1:1/v1\", model: m }\n";
    for (trial, says) in [
        ("load: { concurrency: 4 }".to_string(), "load.concurrency: says the load of a server; give engine.endpoint"),
        (at.to_string(), "give load: { concurrency: 8 } or load: { rate: 4 }"),
        (format!("{at}load: {{ concurrency: 4, rate: 2 }}"), "keep one"),
        (format!("{at}load: {{ concurrency: 4 }}\nbatch: 2"), "use load.concurrency"),
        (format!("{at}load: {{ concurrency: 4 }}\nphase: decode"), "leave phase out"),
        (format!("{at}load: {{ rate: 1 }}\nslo: {{ ttft: soon }}"), "expected a time like 500ms"),
        (format!("{at}load: {{ rate: 1 }}\nprompt_len: {{ range: [5, 2] }}"), "holds nothing; write [2, 5]"),
        ("engine: { endpoint: \"ftp://a\", model: m }\nload: { rate: 1 }".into(), "neither http nor https"),
        ("prompt_len: { range: [2, 5] }".into(), "prompt_len: spreads the prompts of a server"),
        (format!("{at}load: {{ arrivals: trace }}"), "load.trace: missing"),
        (format!("{at}load: {{ rate: 1, prefix: {{ share: 2, tokens: 5 }} }}"), "a share from above 0 to 1"),
    ] {
        let found = fault(&trial);
        assert!(found.contains(says), "{trial}: {found}");
    }
}
