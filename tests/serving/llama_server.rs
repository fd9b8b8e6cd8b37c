//! What llama-server (llama.cpp 0.7.0, build 11669) says, form by form, as it was seen to: role and first token in one piece, `content` null,
//! the count in a last event without choices (chat) or beside the finish_reason (completions), tokens from the cache, its metrics,
//! its refusals, its threads' habit of ending a kept connection.

use crate::mock::{Asked, Mock, Timing, piece, respond, until};
use crate::support::{load, rules, runtime, target, traffic};
use centime::internal::load::{Api, Client, Dialect, Pace, Target, learn};
use serde_json::{Value, json};
use std::io::{self, Write};
use std::net::TcpStream;
use std::time::Duration;

/// Tokens that a slot has room for.
const CONTEXT: u64 = 130;
/// Of every prompt, as by a chat template's beginning.
const CACHED: u64 = 3;

fn is_chat(asked: &Asked) -> bool {
    asked.line.contains("/chat/")
}

/// Two tokens a word here.
fn tokens(asked: &Asked) -> u64 {
    2 * asked.prompt().split_whitespace().count() as u64
}

fn chunk(asked: &Asked, choices: Value, more: Value) -> String {
    let object = if is_chat(asked) { "chat.completion.chunk" } else { "text_completion" };
    let mut all = json!({"choices": choices, "created": 1, "id": "chatcmpl-1", "model": "m.gguf", "object": object,
                         "system_fingerprint": "b11669"});
    for (key, value) in more.as_object().unwrap() {
        all[key.as_str()] = value.clone();
    }
    format!("data: {all}\n\n")
}

fn token(asked: &Asked, text: &str) -> String {
    let choice = match is_chat(asked) {
        true => json!({"finish_reason": null, "index": 0, "delta": {"content": text}}),
        false => json!({"text": text, "index": 0, "logprobs": null, "finish_reason": null}),
    };
    chunk(asked, json!([choice]), json!({}))
}

fn counted(asked: &Asked) -> Value {
    let (input, output) = (tokens(asked), asked.wanted());
    json!({
        "usage": {"completion_tokens": output, "prompt_tokens": input, "total_tokens": input + output,
                  "prompt_tokens_details": {"cached_tokens": CACHED}},
        "timings": {"cache_n": CACHED, "prompt_n": input - CACHED, "prompt_ms": 20.5, "predicted_n": output, "predicted_ms": 50.0}
    })
}

fn llama_server(asked: &Asked, s: &mut TcpStream) -> io::Result<()> {
    if asked.line.contains("/metrics") {
        let page = "# HELP llamacpp:prompt_tokens_total Number of prompt tokens processed, excluding cached tokens\n\
                    # TYPE llamacpp:prompt_tokens_total counter\nllamacpp:prompt_tokens_total 75\n\
                    llamacpp:prompt_tokens_cached_total 25\nllamacpp:requests_processing 2\nllamacpp:requests_deferred 0\n";
        return respond(s, "200 OK", "Content-Type: text/plain; version=0.0.4\r\nConnection: close\r\n", page);
    }
    if tokens(asked) > CONTEXT {
        let n = tokens(asked);
        let why =
            format!("request ({n} tokens) exceeds the available context size ({CONTEXT} tokens), try increasing it");
        let body =
            json!({"error": {"code": 400, "message": why, "type": "exceed_context_size_error", "n_prompt_tokens": n}});
        respond(
            s,
            "400 Bad Request",
            "Content-Type: application/json; charset=utf-8\r\nConnection: close\r\n",
            &body.to_string(),
        )?;
        return Err(io::ErrorKind::ConnectionReset.into());
    }
    s.write_all(
        b"HTTP/1.1 200 OK\r\nServer: llama.cpp\r\nX-Accel-Buffering: no\r\nContent-Type: text/event-stream\r\n\
          Transfer-Encoding: chunked\r\nKeep-Alive: timeout=5, max=100\r\n\r\n",
    )?;
    let timing = Timing::ms(200, 40);
    for i in 0..asked.wanted() {
        until(asked.at + timing.first + timing.each * i as u32);
        let role = json!([{"finish_reason": null, "index": 0, "delta": {"role": "assistant", "content": null}}]);
        let role = if i == 0 && is_chat(asked) { chunk(asked, role, json!({})) } else { String::new() };
        piece(s, &(role + &token(asked, " word")))?;
    }
    let last = match is_chat(asked) {
        true => {
            let end = json!([{"finish_reason": "length", "index": 0, "delta": {}}]);
            chunk(asked, end, json!({})) + &chunk(asked, json!([]), counted(asked))
        }
        false => {
            let end = json!([{"text": "", "index": 0, "logprobs": null, "finish_reason": "length"}]);
            chunk(asked, end, counted(asked))
        }
    };
    piece(s, &last)?;
    piece(s, "data: [DONE]\n\n")?;
    s.write_all(b"0\r\n\r\n")?;
    // A thread of its pool keeps a connection for so many requests, and then ends it.
    if asked.index % 5 == 4 { Err(io::ErrorKind::ConnectionReset.into()) } else { Ok(()) }
}

#[test]
fn its_answers_are_read_as_it_counts_and_times_them() {
    let mock = Mock::start(llama_server);
    for api in [Api::Chat, Api::Completions] {
        let target = Target { api, ..target(&mock) };
        let client = Client::new(&target, None).unwrap();
        // 80 words are refused: 160 tokens. What it says of fewer is enough.
        let learned = runtime().block_on(learn(&client, None, 80, 3, Duration::from_secs(5))).unwrap();
        assert_eq!((learned.0, learned.1.per_word, learned.1.overhead), (Dialect::Open, 2.0, 0.0));
        let loaded = load(&target, traffic(Pace::Closed { concurrency: 2 }, 30, 5, 10.0), rules(2, 2.0));
        let s = loaded.served();
        let own = s.own.unwrap();
        assert_eq!((s.failed, own.mean_output_tokens, own.mean_input_tokens), (Some(0), 5.0, 40.0), "{api:?}");
        assert_eq!(own.cached_share, Some(CACHED as f64 / 40.0));
        // Nobody has answered faster, however busy this machine is.
        assert!(s.ttft.p50.unwrap() >= 0.2 && s.e2e.p50.unwrap() >= 0.36, "{:?} {:?}", s.ttft.p50, s.e2e.p50);
        assert!(loaded.due().all(|r| r.gaps.len() <= 4 && r.first < r.last));
    }
}

#[test]
fn its_refusal_of_what_is_too_long_is_told_in_its_words() {
    let mock = Mock::start(|asked, s| {
        let long = tokens(asked) > 20;
        if long {
            respond(s, "400 Bad Request", "", r#"{"error":{"code":400,"message":"request (28 tokens) exceeds"}}"#)
        } else {
            llama_server(asked, s)
        }
    });
    let client = Client::new(&target(&mock), None).unwrap();
    let told = runtime().block_on(learn(&client, None, 500, 3, Duration::from_secs(5))).unwrap_err();
    assert!(told.contains("words: 400 Bad Request: request (28 tokens) exceeds"), "{told}");
}
