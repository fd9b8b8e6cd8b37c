use super::*;
use crate::fixture;
use crate::scenario::engine::Each;
use crate::transformer::Phase;
use std::collections::BTreeMap;

fn trial(phase: Phase) -> Trial {
    let mut trial = fixture::phase(phase).records[0].cell.trial.clone();
    (trial.workload.batch, trial.workload.prompt_len, trial.workload.new_tokens) = (1, 128, 32);
    trial
}

fn reader(reads: Reads, phase: Phase) -> Reader {
    Reader::of(&reads, &trial(phase)).unwrap()
}

fn json(paths: &[(Figure, &str)]) -> Reader {
    let paths: BTreeMap<Figure, String> = paths.iter().map(|(f, p)| (*f, (*p).to_string())).collect();
    reader(Reads::Json { each: Each::Launch, paths }, Phase::Train)
}

fn seconds(samples: Result<Vec<Sample>, String>) -> Vec<f64> {
    samples.unwrap().iter().map(|s| s.seconds).collect()
}

#[test]
fn a_figure_is_read_at_its_path_wherever_the_document_stands() {
    let reader = json(&[(Figure::Seconds, "$.step.time"), (Figure::Loss, "$.loss")]);
    for text in [
        "{\"step\": {\"time\": 0.5}, \"loss\": 2.5}",
        "loading\n{\"step\": {\"time\": 0.5}, \"loss\": 2.5}\ndone\n",
        "loading\n{\n\"step\": {\"time\": \"0.5\"},\n\"loss\": 2.5}\n",
    ] {
        let samples = reader.text(text).unwrap();
        assert_eq!((samples.len(), samples[0].seconds, samples[0].loss), (1, 0.5, Some(2.5)), "{text}");
    }
}

#[test]
fn what_is_no_figure_of_a_launch_says_what_was_expected_and_found() {
    let reader = json(&[(Figure::Seconds, "$.seconds")]);
    let fault = |text: &str| reader.text(text).unwrap_err();
    assert_eq!(fault(""), "expected JSON with $.seconds, found nothing");
    assert_eq!(fault("a\nno figure here\n"), "expected JSON with $.seconds, found \"no figure here\"");
    assert_eq!(fault("{\"seconds\": -2}"), "seconds: expected a number above 0, found -2");
    assert_eq!(fault("{\"seconds\": 0}"), "seconds: expected a number above 0, found 0");
    assert_eq!(fault("{\"seconds\": [1]}"), "$.seconds: expected a number, found [1]");
    assert_eq!(fault("{\"seconds\": null}"), "$.seconds: expected a number, found null");
    // As Python's json prints it.
    assert!(fault("{\"seconds\": NaN}").ends_with("NaN and Infinity are none"), "{}", fault("{\"seconds\": NaN}"));
    let two = fault("{\"seconds\": 1}\n{\"seconds\": 2}\n");
    assert!(two.starts_with("2 figures in one launch") && two.contains("use each: step"), "{two}");
}

#[test]
fn lines_that_tell_of_no_step_are_passed_over_and_torn_ones_are_not() {
    let reader = json(&[(Figure::Seconds, "$.seconds"), (Figure::Loss, "$.loss")]);
    assert_eq!(reader.line("epoch 1").unwrap(), None);
    assert_eq!(reader.line("{\"eval\": 1}").unwrap(), None);
    assert_eq!(reader.line("{'loss': 1.0}").unwrap(), None);
    assert_eq!(reader.line("{\"seconds\": 0.25, \"loss\": null}").unwrap().unwrap().seconds, 0.25);
    assert!(reader.line("{\"seconds\": 0.25, \"loss\": NaN}").unwrap_err().contains("is no JSON"));
}

#[test]
fn a_pattern_reads_its_named_groups() {
    let pattern = r"loss (?<loss>\S+) in (?<milliseconds>[\d.,]+) ms".to_string();
    let reader = reader(Reads::Pattern { each: Each::Step, pattern }, Phase::Train);
    let sample = reader.line("step 3: loss 2.5 in 1,250.0 ms").unwrap().unwrap();
    assert_eq!((sample.seconds, sample.loss), (1.25, Some(2.5)));
    assert_eq!(reader.line("step 3").unwrap(), None);
    assert_eq!(reader.line("loss 2.5.1 in 3 ms").unwrap_err(), "loss: expected a number, found \"2.5.1\"");
    assert_eq!(seconds(reader.text("x\nloss 1 in 500 ms\n")), [0.5]);
}

/// As llama-bench b6000 prints a test, the keys that matter.
fn llama(n_prompt: u32, n_gen: u32, n_depth: u32, samples_ns: &str) -> String {
    format!(
        "{{\"build_number\": 6000, \"model_type\": \"llama 1B Q4_K\", \"n_batch\": 2048, \"n_prompt\": {n_prompt}, \"n_gen\": {n_gen}, \
         \"n_depth\": {n_depth}, \"avg_ns\": 1, \"avg_ts\": 64.0, \"samples_ns\": [{samples_ns}], \"samples_ts\": [1]}}"
    )
}

#[test]
fn llama_bench_gives_a_sample_a_repetition_of_the_trials_own_test() {
    let of = |phase| reader(Reads::Ready(Ready::LlamaBench), phase);
    let (prefill, decode) = (llama(128, 0, 0, "500000000, 250000000"), llama(0, 32, 128, "3200000000"));
    let both = format!("[\n  {prefill},\n  {decode}\n]\n");
    assert_eq!(seconds(of(Phase::Prefill).text(&both)), [0.5, 0.25]);
    // 32 tokens in 3.2 s: a decode step makes one.
    let lines = format!("{prefill}\n{decode}\n");
    assert_eq!(seconds(of(Phase::Decode).text(&lines)), [0.1]);
    let generate = format!("[{}]", llama(128, 32, 0, "2000000000"));
    assert_eq!(seconds(of(Phase::Generate).text(&generate)), [2.0]);
    assert_eq!(seconds(of(Phase::Prefill).text(&format!("[{}]", llama(128, 0, 0, "")))), [2.0], "by avg_ts");
}

#[test]
fn another_test_than_the_trials_is_refused_with_the_flags_to_give() {
    let reader = reader(Reads::Ready(Ready::LlamaBench), Phase::Decode);
    let shallow = format!("[{},{}]", llama(512, 0, 0, "1"), llama(0, 32, 0, "1"));
    let expected = "expected the test tg32 @ d128 once, found pp512, tg32; give -p 0 -n {new_tokens} -d {prompt_len}";
    assert_eq!(reader.text(&shallow).unwrap_err(), expected);
    assert!(reader.text("[]").unwrap_err().starts_with("expected what llama-bench"));
}

#[test]
fn vllm_throughput_counts_all_tokens_of_requests_like_the_trials() {
    let reader = reader(Reads::Ready(Ready::VllmThroughput), Phase::Generate);
    let text = |tokens: u32| {
        format!(
            "{{\"elapsed_time\": 2.0, \"num_requests\": 10, \"total_num_tokens\": {tokens}, \"requests_per_second\": 5.0, \
             \"tokens_per_second\": {}}}",
            f64::from(tokens) / 2.0
        )
    };
    // 1600 tokens in 2 s; a step of the trial has 160.
    assert_eq!(seconds(reader.text(&text(1600))), [0.2]);
    let fault = reader.text(&text(5000)).unwrap_err();
    assert!(fault.starts_with("expected requests of 160 tokens (prompt_len and new_tokens), found 500.0"), "{fault}");
    assert!(reader.text("{}").unwrap_err().contains("--output-json {output}"));
}
