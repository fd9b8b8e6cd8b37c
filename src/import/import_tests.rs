use super::run::records;
use super::*;
use crate::results::merge;
use crate::runner::measurement::Figures;
use crate::transformer::Phase;
use serde_json::json;
use std::fs;

fn imported(text: &str) -> Result<Imported, String> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("some.file");
    fs::write(&file, text).unwrap();
    read(&file).map_err(|e| e.message)
}

fn one(text: &str, tool: &str) -> Measured {
    let mut found = imported(text).unwrap();
    assert_eq!((found.tool, found.measured.len()), (tool, 1));
    found.measured.remove(0)
}

fn about(x: f64, expected: f64) {
    assert!((x / expected - 1.0).abs() < 1e-12, "{x}, expected {expected}");
}

/// As `vllm bench serve --save-result` writes it: 100 requests of 512 and 128 tokens in 20 s.
fn vllm_result() -> Value {
    json!({
        "date": "20260101-000000", "endpoint_type": "vllm", "backend": "vllm", "label": null, "model_id": "qwen3-8b",
        "num_prompts": 100, "request_rate": "inf", "burstiness": 1.0, "max_concurrency": 8, "duration": 20.0, "completed": 100,
        "failed": 0, "total_input_tokens": 51_200, "total_output_tokens": 12_800, "request_throughput": 5.0,
        "output_throughput": 640.0, "total_token_throughput": 3200.0, "mean_ttft_ms": 60.0, "median_ttft_ms": 50.0,
        "p99_ttft_ms": 90.0, "median_tpot_ms": 12.0, "p99_tpot_ms": 15.0, "median_itl_ms": 11.0, "p99_itl_ms": 30.0,
        "median_e2el_ms": 1574.0, "p99_e2el_ms": 1990.0
    })
}

#[test]
fn vllm_bench_serve_gives_throughput_of_all_tokens_and_latencies_in_seconds() {
    let m = one(&vllm_result().to_string(), "vllm bench serve");
    assert_eq!((m.model.as_str(), m.phase, m.batch), ("qwen3-8b", Phase::Generate, 8));
    assert_eq!((m.prompt_len, m.new_tokens, m.tokens_per_step), (512, 128, 8 * 640));
    about(m.tokens_per_step as f64 / m.step_seconds[0], 3200.0);
    let s = m.served.unwrap();
    assert_eq!((s.completed, s.failed), (Some(100), Some(0)));
    about(s.ttft.p50.unwrap(), 0.05);
    about(s.tpot.p99.unwrap(), 0.015);
    about(s.e2e.p50.unwrap(), 1.574);
    assert_eq!(s.ttft.p90, None, "it was not asked for");
    // Open loop: no concurrency, and requests that failed are those that did not complete.
    let mut open = vllm_result();
    (open["request_rate"], open["max_concurrency"], open["completed"]) = (json!(4.0), json!(null), json!(80));
    open.as_object_mut().unwrap().remove("failed");
    let m = one(&open.to_string(), "vllm bench serve");
    assert_eq!((m.batch, m.settings["rate"].as_str(), m.served.unwrap().failed), (1, "4.0", Some(20)));
}

#[test]
fn inferencex_is_of_all_gpus() {
    let text = json!({
        "hw": "h200", "tp": 8, "ep": 1, "dp_attention": "false", "conc": 64, "model": "dsr1", "framework": "vllm", "precision": "fp8",
        "isl": 1024, "osl": 1024, "tput_per_gpu": 500.0, "output_tput_per_gpu": 250.0, "median_ttft": 0.4, "p99_ttft": 0.9,
        "median_tpot": 0.02, "median_intvty": 50.0, "median_itl": 0.019, "median_e2el": 20.9
    });
    let m = one(&text.to_string(), "InferenceX");
    assert_eq!((m.devices, m.batch, m.settings["hw"].as_str()), (Some(8), 64, "h200"));
    about(m.tokens_per_step as f64 / m.step_seconds[0], 4000.0);
    let s = m.served.unwrap();
    about(s.output_tokens_per_second.unwrap(), 2000.0);
    about(s.tpot.p50.unwrap(), 0.02);
}

#[test]
fn guidellms_time_per_output_token_counts_the_first_and_is_not_taken() {
    let of = |median: f64, p99: f64| json!({"successful": {"mean": median, "percentiles": {"p50": median, "p90": median, "p95": p99, "p99": p99}}});
    let text = json!({"args": {"model": "llama"}, "benchmarks": [{
        "config": {"strategy": {"type_": "concurrent", "streams": 4}}, "duration": 30.0,
        "metrics": {
            "request_totals": {"successful": 40, "errored": 2, "incomplete": 1, "total": 43},
            "requests_per_second": of(2.0, 2.0), "request_concurrency": of(3.9, 4.0), "request_latency": of(2.0, 2.5),
            "prompt_token_count": of(256.0, 256.0), "output_token_count": of(64.0, 64.0),
            "time_to_first_token_ms": of(110.0, 200.0), "time_per_output_token_ms": of(31.25, 40.0),
            "inter_token_latency_ms": of(30.0, 39.0), "output_tokens_per_second": of(128.0, 128.0), "tokens_per_second": of(640.0, 640.0)
        }
    }]});
    let m = one(&text.to_string(), "guidellm");
    assert_eq!((m.batch, m.prompt_len, m.new_tokens, m.model.as_str()), (4, 256, 64, "llama"));
    about(m.tokens_per_step as f64 / m.step_seconds[0], 640.0);
    let s = m.served.unwrap();
    // (2 s - 0.11 s) / 63 is 30 ms; 2 s / 64 is 31.25 ms.
    about(s.tpot.p50.unwrap(), 0.030);
    about(s.e2e.p99.unwrap(), 2.5);
    assert_eq!((s.completed, s.failed), (Some(40), Some(2)));
    assert!(imported(&text.to_string()).unwrap().convention.contains("counts the first token"));
}

const AIPERF_CSV: &str = "Metric,avg,min,max,p50,p90,p95,p99,std\nTime to First Token (ms),55.0,40,90,50.0,70.0,80.0,88.0,5\n\
                          Inter Token Latency (ms),12.5,10,15,12.0,13.0,14.0,14.9,1\nRequest Latency (ms),\"1,600.5\",1500,1700,1600.0,1650.0,1690.0,1699.0,9\n\
                          Input Sequence Length (tokens),512.0,512,512,512,512,512,512,0\nOutput Sequence Length (tokens),128.0,128,128,128,128,128,128,0\n\
                          \nMetric,Value\nOutput Token Throughput (tokens/sec),640.0\nRequest Count,100\nRequest Throughput (requests/sec),5.0\n";

#[test]
fn aiperf_is_read_by_its_units_as_json_and_as_csv() {
    let times = |avg: f64, p50: f64| json!({"unit": "ms", "avg": avg, "p50": p50, "p90": p50, "p95": p50, "p99": p50});
    let text = json!({
        "input_config": {"endpoint": {"model_names": ["qwen"]}, "loadgen": {"concurrency": 8, "request_rate": null}},
        "request_throughput": {"unit": "requests/sec", "avg": 5.0}, "request_count": {"unit": "requests", "avg": 100.0},
        "output_token_throughput": {"unit": "tokens/sec", "avg": 640.0},
        "time_to_first_token": times(55.0, 50.0), "inter_token_latency": times(12.5, 12.0), "request_latency": times(1600.0, 1600.0),
        "input_sequence_length": {"unit": "tokens", "avg": 512.0}, "output_sequence_length": {"unit": "tokens", "avg": 128.0}
    });
    let json = one(&text.to_string(), "aiperf");
    assert_eq!((json.model.as_str(), json.batch), ("qwen", 8));
    for m in [json, one(AIPERF_CSV, "aiperf")] {
        about(m.tokens_per_step as f64 / m.step_seconds[0], 3200.0);
        let s = m.served.unwrap();
        about(s.ttft.p50.unwrap(), 0.05);
        about(s.tpot.p50.unwrap(), 0.012);
        about(s.e2e.p50.unwrap(), 1.6);
        assert_eq!(s.completed, Some(100));
    }
    let odd = AIPERF_CSV.replace("(ms)", "(min)");
    assert_eq!(
        imported(&odd).unwrap_err(),
        "aiperf: time_to_first_token: expected a time in ns, us, ms or s, found the unit min"
    );
}

#[test]
fn inference_perf_is_of_its_successes() {
    let times = |median: f64| json!({"mean": median, "min": median, "median": median, "p90": median, "p99": median, "max": median});
    let text = json!({
        "load_summary": {"count": 100, "requested_rate": 5.0, "achieved_rate": 4.99, "send_duration": 20.0},
        "successes": {
            "count": 98,
            "latency": {"request_latency": times(1.6), "normalized_time_per_output_token": times(0.0125), "time_per_output_token": times(0.012),
                        "time_to_first_token": times(0.05), "inter_token_latency": times(0.011)},
            "throughput": {"input_tokens_per_sec": 2560.0, "output_tokens_per_sec": 640.0, "total_tokens_per_sec": 3200.0, "requests_per_sec": 5.0},
            "prompt_len": {"mean": 512.0}, "output_len": {"mean": 128.0}
        },
        "failures": {"count": 2}
    });
    let m = one(&text.to_string(), "inference-perf");
    assert_eq!((m.settings["rate"].as_str(), m.seconds), ("5", Some(20.0)));
    let s = m.served.unwrap();
    about(s.tpot.p50.unwrap(), 0.012);
    assert_eq!((s.failed, s.ttft.p50), (Some(2), Some(0.05)));
    let mut newer = text;
    newer["successes"]["prompt_tokens"] = json!({"total": 5120.0, "cached": 0.0, "mean": 513.0});
    assert_eq!(one(&newer.to_string(), "inference-perf").prompt_len, 513);
}

#[test]
fn llama_bench_gives_a_sample_a_repetition_in_either_form() {
    let row = |prompt: u32, made: u32, depth: u32| {
        json!({"build_number": 6000, "model_type": "llama 1B Q4_K", "backends": "CPU", "n_threads": 8, "n_prompt": prompt, "n_gen": made,
               "n_depth": depth, "avg_ns": 1, "avg_ts": 64.0, "samples_ns": [500_000_000u64, 250_000_000u64], "samples_ts": [1.0, 2.0]})
    };
    let rows = [row(512, 0, 0), row(0, 50, 256)];
    let list = imported(&json!(rows).to_string()).unwrap();
    let lines = imported(&format!("{}\n{}\n", rows[0], rows[1])).unwrap();
    assert_eq!(list.measured, lines.measured);
    let [prefill, decode] = &list.measured[..] else { panic!("two tests") };
    assert_eq!(
        (prefill.phase, prefill.prompt_len, prefill.step_seconds.as_slice()),
        (Phase::Prefill, 512, &[0.5, 0.25][..])
    );
    assert_eq!((decode.phase, decode.prompt_len, decode.new_tokens), (Phase::Decode, 256, 50));
    assert_eq!(decode.step_seconds, [0.01, 0.005], "a step is a token");
    assert_eq!(decode.settings["n_threads"], "8");
}

#[test]
fn optimum_benchmark_gives_prefill_and_decode_with_every_repetition() {
    let latency = |values: &[f64]| json!({"unit": "s", "count": values.len(), "mean": 1.0, "values": values});
    let text = json!({
        "config": {"backend": {"name": "pytorch", "model": "gpt2", "torch_dtype": "float16"},
                   "scenario": {"input_shapes": {"batch_size": 4, "sequence_length": 100}, "generate_kwargs": {"max_new_tokens": 11}}},
        "report": {"prefill": {"latency": latency(&[0.5, 0.25]), "memory": {"unit": "MB", "max_ram": 1000.0}},
                   "decode": {"latency": latency(&[1.0])}, "per_token": {"latency": null}}
    });
    let found = imported(&text.to_string()).unwrap();
    let [prefill, decode] = &found.measured[..] else { panic!("two phases") };
    assert_eq!((prefill.tokens_per_step, prefill.step_seconds.as_slice()), (400, &[0.5, 0.25][..]));
    assert_eq!(prefill.peak_memory_bytes, Some(1_000_000_000));
    // Ten tokens after the first in a second, of four sequences.
    assert_eq!((decode.tokens_per_step, decode.step_seconds.as_slice()), (4, &[0.1][..]));
    let mut bare = text.clone();
    bare.as_object_mut().unwrap().remove("config");
    assert!(imported(&bare.to_string()).unwrap_err().contains("import the file with its config"));
}

fn figures(records: Vec<crate::results::record::Record>) -> Figures {
    merge::cell(records).unwrap().measurement.figures.unwrap()
}

#[test]
fn files_of_one_configuration_are_launches_of_one_cell() {
    let run = |throughput: f64, concurrency: u32| {
        let mut d = vllm_result();
        (d["total_token_throughput"], d["max_concurrency"]) = (json!(throughput), json!(concurrency));
        imported(&d.to_string()).unwrap()
    };
    let all = [run(3200.0, 8), run(3210.0, 8), run(3190.0, 8), run(1600.0, 1)];
    let (records, axes) = records(&all, 1, "2026-01-01T00:00:00Z").unwrap();
    assert_eq!(axes, ["batch"]);
    assert_eq!(records.iter().map(|r| (r.cell_index, r.round)).collect::<Vec<_>>(), [(0, 0), (0, 1), (0, 2), (1, 0)]);
    assert_eq!(records[3].cell.name(), "batch 1");
    let three = figures(records[..3].to_vec());
    assert_eq!((three.launches.as_slice(), three.served.len()), (&[1, 1, 1][..], 3));
    assert_eq!(figures(records[3..].to_vec()).served.len(), 1);
}

#[test]
fn what_is_no_file_of_a_tool_is_one_clear_error() {
    let fault = |text: &str| imported(text).unwrap_err();
    assert_eq!(fault(""), "expected JSON, found an empty file");
    assert!(fault("{\"a\": ").starts_with("expected JSON: EOF"), "{}", fault("{\"a\": "));
    assert!(fault("{\"a\": NaN}").starts_with("expected JSON: "));
    assert!(fault("[]").starts_with("it is of none of the tools that are known: guidellm, aiperf,"));
    assert!(fault("[1, null, \"x\"]").starts_with("it is of none"));
    assert!(fault(&"[".repeat(100_000)).starts_with("expected JSON: recursion limit"));
    let mut d = vllm_result();
    d["total_token_throughput"] = json!(0.0);
    assert_eq!(fault(&d.to_string()), "vllm bench serve: total tokens per second: expected a number above 0, found 0");
    let two = format!("{}\n{{\"other\": 1}}\n", vllm_result());
    assert_eq!(fault(&two), "1 of 2 documents in it are not of vllm bench serve");
    assert_eq!(fault("{\"benchmarks\": []}"), "guidellm: it holds no measurement");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("latin1.json");
    fs::write(&file, b"{\"a\": \"\xe9\"}").unwrap();
    assert_eq!(read(&file).unwrap_err().message, "expected text in UTF-8, found something else");
    assert_eq!(read(folder.path()).unwrap_err().message, "expected a file, found a folder or a device");
    assert!(read(&folder.path().join("none")).unwrap_err().system);
}
