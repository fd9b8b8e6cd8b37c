//! Servers that do what no server should: nothing hangs, and every request is accounted for.

use crate::mock::{Asked, Mock, Timing, answer, begin, end, event, piece, respond, text};
use crate::support::{Loaded, load, rules, target, traffic};
use centime::internal::load::{Outcome, Pace, Record, Target};
use serde_json::json;
use std::collections::HashSet;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

/// How long a request may take here.
const TIMEOUT: f64 = 0.6;

/// Two clients at a server for a second and a half.
fn at(target: &Target) -> Loaded {
    within(target, TIMEOUT)
}

fn within(target: &Target, timeout: f64) -> Loaded {
    let began = Instant::now();
    let loaded = load(target, traffic(Pace::Closed { concurrency: 2 }, 30, 4, timeout), rules(0, 1.5));
    assert!(began.elapsed().as_secs_f64() < 5.0 + timeout, "it took {:?}", began.elapsed());
    // All that were due in the window have an end of their own.
    assert!(loaded.due().count() >= 2 && loaded.due().all(|r| r.outcome != Outcome::Abandoned), "{:?}", loaded.records);
    assert!(loaded.records.iter().all(|r| r.over - r.due < timeout + 0.5), "{:?}", loaded.records);
    loaded
}

fn of(act: impl Fn(&Asked, &mut TcpStream) -> io::Result<()> + Send + Sync + 'static) -> (Loaded, usize) {
    let mock = Mock::start(act);
    let loaded = at(&target(&mock));
    // Of those that were abandoned some had not arrived.
    let ended = loaded.records.iter().filter(|r| r.outcome != Outcome::Abandoned).count();
    let (asked, records) = (mock.asked(), loaded.records.len());
    assert!(ended <= asked && asked <= records, "{asked} requests, {records} records, {ended} with an end");
    (loaded, mock.asked())
}

/// Every request in the window ended so, for a reason that says this.
fn all(loaded: &Loaded, outcome: Outcome, says: &str) {
    for r in loaded.due() {
        assert!(r.outcome == outcome && r.reason.contains(says), "{:?}: {}", r.outcome, r.reason);
    }
}

#[test]
fn statuses_other_than_200_are_counted_by_themselves_and_not_asked_again_without_pause() {
    for (status, outcome) in [("429 Too Many Requests", 429), ("503 Service Unavailable", 503), ("500 Oh", 500)] {
        let (loaded, asked) =
            of(move |_, s| respond(s, status, "Retry-After: 1\r\n", r#"{"error": {"message": "too much"}}"#));
        all(&loaded, Outcome::Status(outcome), "too much");
        assert!(asked < 60, "{asked} requests in a second and a half");
    }
    let (loaded, _) = of(|_, s| respond(s, "307 Temporary Redirect", "Location: http://elsewhere/v1\r\n", ""));
    all(&loaded, Outcome::Status(307), "sends on to http://elsewhere/v1; give that address as engine.endpoint");
}

#[test]
fn silence_slow_headers_and_endless_streams_end_with_the_time_that_a_request_may_take() {
    let (loaded, _) = of(|_, _| {
        thread::sleep(Duration::from_secs(3));
        Ok(())
    });
    all(&loaded, Outcome::Timeout, "it had no token after 0.6 s");
    let (loaded, _) = of(|_, s| {
        for byte in b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n" {
            s.write_all(&[*byte])?;
            thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    });
    all(&loaded, Outcome::Timeout, "it had no token");
    let (loaded, _) = of(|asked, s| {
        begin(s)?;
        loop {
            event(s, &text(asked, " word"))?;
            thread::sleep(Duration::from_millis(1));
        }
    });
    all(&loaded, Outcome::Timeout, "its answer had not ended");
    let (loaded, _) = of(|_, s| {
        s.write_all(b"HTTP/1.1 200 OK\r\n")?;
        loop {
            s.write_all(b"X-More: and more\r\n")?;
        }
    });
    all(&loaded, Outcome::Cut, "before a response began");
}

#[test]
fn nobody_at_the_port_and_a_port_that_answers_nothing_are_told_apart() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let silent = Target { endpoint: format!("http://{address}/v1"), ..target(&Mock::start(|_, _| Ok(()))) };
    all(&at(&silent), Outcome::Timeout, "it had no token");
    drop(listener);
    all(&at(&silent), Outcome::Unreachable, "refused");
}

#[test]
fn what_breaks_within_a_stream_is_an_end_of_its_own() {
    let (loaded, _) = of(|asked, s| {
        begin(s)?;
        event(s, &text(asked, " word"))?;
        Err(io::ErrorKind::ConnectionReset.into())
    });
    all(&loaded, Outcome::Cut, "within the answer");
    let (loaded, _) = of(|asked, s| {
        begin(s)?;
        event(s, &text(asked, " word"))?;
        s.write_all(b"0\r\n\r\n")
    });
    all(&loaded, Outcome::Cut, "no finish_reason, no [DONE]");
    let (loaded, _) = of(|asked, s| {
        begin(s)?;
        event(s, &text(asked, " word"))?;
        event(s, &json!({"error": {"message": "CUDA out of memory", "code": 500}}))?;
        end(asked, s)
    });
    all(&loaded, Outcome::Error, "CUDA out of memory");
    // As llama-server said it until the end of 2025: a field of its own, and [DONE] after it.
    let (loaded, _) = of(|asked, s| {
        begin(s)?;
        event(s, &text(asked, " word"))?;
        piece(s, "error: {\"code\":500,\"message\":\"no room in the cache\",\"type\":\"server_error\"}\n\n")?;
        piece(s, "data: [DONE]\n\n")?;
        s.write_all(b"0\r\n\r\n")
    });
    all(&loaded, Outcome::Error, "no room in the cache");
    let (loaded, _) = of(|_, s| {
        begin(s)?;
        piece(s, "data: {\"choices\": [\n\n")
    });
    all(&loaded, Outcome::Garbled, "no chunk of an answer");
    let (loaded, _) = of(|_, s| respond(s, "200 OK", "Content-Type: application/json\r\n", r#"{"object": "list"}"#));
    all(&loaded, Outcome::Garbled, "found one JSON document");
    let (loaded, _) = of(|asked, s| {
        begin(s)?;
        event(s, &text(asked, " word"))?;
        piece(s, "data: [DONE]\n\n")?;
        s.write_all(b"0\r\n\r\n")
    });
    all(&loaded, Outcome::Uncounted, "does not say how many tokens");
    let (loaded, _) = of(|_, s| s.write_all(b"SSH-2.0-OpenSSH_9.6\r\n"));
    all(&loaded, Outcome::Cut, "before a response began");
}

#[test]
fn tokens_of_a_mebibyte_and_bytes_that_are_no_text_are_answers_all_the_same() {
    let mock = Mock::start(|asked, s| {
        begin(s)?;
        for _ in 0..asked.wanted() {
            event(s, &text(asked, &"x".repeat(1 << 20)))?;
        }
        end(asked, s)
    });
    let loaded = within(&target(&mock), 10.0);
    assert!(loaded.due().all(|r| r.is_answered() && r.output_tokens == 4), "{:?}", loaded.records.first());
    let (loaded, _) = of(|asked, s| {
        begin(s)?;
        let data = b"data: {\"choices\":[{\"delta\":{\"content\":\"\xff\xfe\"}}]}\n\n";
        s.write_all(&[format!("{:x}\r\n", data.len()).as_bytes(), data, b"\r\n"].concat())?;
        end(asked, s)
    });
    assert!(loaded.due().all(|r| r.is_answered() && r.first.is_some()), "{:?}", loaded.records.first());
}

#[test]
fn a_server_that_dies_and_comes_back_is_asked_again() {
    let first = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = first.local_addr().unwrap();
    drop(first);
    let endpoint = format!("http://{address}/v1");
    let target = Target { endpoint, ..target(&Mock::start(|_, _| Ok(()))) };
    let later = thread::spawn(move || {
        thread::sleep(Duration::from_millis(700));
        Mock::at(&address.to_string(), |asked, s| answer(asked, s, Timing::ms(20, 5)))
    });
    let loaded = at(&target);
    let mock = later.join().unwrap();
    let (failed, answered): (Vec<_>, Vec<_>) = loaded.due().partition(|r| !r.is_answered());
    assert!(failed.iter().all(|r| r.outcome == Outcome::Unreachable) && !failed.is_empty());
    assert!(answered.len() >= 2 && answered.iter().all(|r| r.due > 0.6), "{}", answered.len());
    assert!(mock.asked() >= answered.len());
}

#[test]
fn a_connection_that_the_server_closes_between_requests_is_opened_anew() {
    // It says that it keeps the connection, and closes it.
    let (loaded, _) = of(|asked, s| {
        answer(asked, s, Timing::ms(20, 5))?;
        Err(io::ErrorKind::ConnectionReset.into())
    });
    let failed = loaded.due().filter(|r| !r.is_answered()).count();
    assert!(failed == 0, "{failed} of {}: {:?}", loaded.due().count(), loaded.due().find(|r| !r.is_answered()));
}

#[test]
fn a_request_that_is_sent_again_because_its_kept_connection_ended_says_so() {
    // The second request of every connection is taken, and the connection ended without a word.
    let (loaded, asked) = {
        let seen: Mutex<HashSet<SocketAddr>> = Mutex::default();
        let mock = Mock::start(move |asked, s| {
            if !seen.lock().unwrap().insert(s.peer_addr()?) {
                return Err(io::ErrorKind::ConnectionReset.into());
            }
            answer(asked, s, Timing::ms(20, 5))
        });
        (at(&target(&mock)), mock.asked())
    };
    assert!(loaded.due().all(Record::is_answered), "{:?}", loaded.due().find(|r| !r.is_answered()));
    let again = loaded.records.iter().filter(|r| r.sent_again).count();
    assert!(again > 5 && loaded.records.iter().any(|r| !r.sent_again), "{again} of {}", loaded.records.len());
    // The server was asked once for each record, and once more where the record says so; of the abandoned nobody knows.
    let abandoned = loaded.records.iter().filter(|r| r.outcome == Outcome::Abandoned).count();
    let sent = loaded.records.len() - abandoned + again;
    assert!((sent..=sent + 2 * abandoned).contains(&asked), "{asked} requests, {sent} sent, {abandoned} abandoned");
    let of_window = loaded.due().filter(|r| r.sent_again).count() as u64;
    assert_eq!(loaded.served().own.unwrap().sent_again, of_window);
}
