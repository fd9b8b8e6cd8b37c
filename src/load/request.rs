//! One request and its answer, read as it streams in.

use super::chunk::{Event, Usage, error_of_body, first, read};
use super::client::{Client, Connection, NoResponse};
use super::record::{Outcome, Record};
use super::sse::Events;
use http_body_util::{BodyExt, Limited};
use hyper::Response;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, LOCATION};
use std::time::{Duration, Instant};

/// Most bytes that are read of a refusal.
const LONGEST_REFUSAL: usize = 64 << 10;
/// How long the end of a response may follow its last event before its connection is given up.
const LINGER: Duration = Duration::from_millis(50);
/// Most gaps that are kept of an answer.
const MOST_GAPS: usize = 1 << 20;

/// What went wrong.
type Fault = (Outcome, String);

/// Sends a request and reads its answer; the record with what came of it. `patience`: from when it was due.
pub(super) async fn ask(
    client: &Client,
    body: Bytes,
    origin: Instant,
    patience: Duration,
    mut record: Record,
) -> Record {
    record.sent = origin.elapsed().as_secs_f64();
    let due = Duration::try_from_secs_f64(record.due).unwrap_or_default();
    let limit = tokio::time::Instant::from_std(origin + due + patience);
    let ended = tokio::time::timeout_at(limit, exchange(client, body, origin, &mut record)).await;
    record.over = origin.elapsed().as_secs_f64();
    (record.outcome, record.reason) = match ended {
        Ok(Ok(())) => (Outcome::Answered, String::new()),
        Ok(Err((outcome, reason))) => (outcome, client.clean(reason)),
        Err(_) => {
            let how_far = if record.first.is_some() { "its answer had not ended" } else { "it had no token" };
            (Outcome::Timeout, format!("{how_far} after {} s; load.timeout allows for more", patience.as_secs_f64()))
        }
    };
    record
}

async fn exchange(client: &Client, body: Bytes, origin: Instant, record: &mut Record) -> Result<(), Fault> {
    let (connection, response) = client.ask(body, &mut record.sent_again).await.map_err(|e| match e {
        NoResponse::Unreachable(why) => (Outcome::Unreachable, why),
        NoResponse::Cut(why) => (Outcome::Cut, why),
    })?;
    if response.status() != 200 {
        return Err(refused(response).await);
    }
    let kind = response.headers().get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    if kind.starts_with("application/json") {
        let what = "expected a stream of events, found one JSON document";
        let (_, said) = refused(response).await;
        return Err((Outcome::Garbled, format!("{what}: {said}")));
    }
    let mut answer = Answer::default();
    let mut body = response.into_body();
    while !answer.done {
        let Some(frame) = body.frame().await else { break };
        let now = origin.elapsed().as_secs_f64();
        let frame =
            frame.map_err(|e| (Outcome::Cut, first(&format!("the connection ended within the answer ({e})"))))?;
        if let Some(bytes) = frame.data_ref() {
            answer.take(bytes, now, record)?;
        }
    }
    answer.close(record)?;
    recycle(client, connection, body).await;
    Ok(())
}

/// What a response of another status says.
async fn refused(response: Response<Incoming>) -> Fault {
    let status = response.status();
    let to = response.headers().get(LOCATION).map(|v| String::from_utf8_lossy(v.as_bytes()).into_owned());
    let outcome = Outcome::Status(status.as_u16());
    if let Some(to) = to.filter(|_| status.is_redirection()) {
        return (outcome, first(&format!("{status}: sends on to {to}; give that address as engine.endpoint")));
    }
    let body = Limited::new(response.into_body(), LONGEST_REFUSAL).collect().await;
    let said = body.map_or_else(|_| String::new(), |b| error_of_body(&b.to_bytes()));
    (outcome, format!("{status}: {said}"))
}

/// Keeps the connection for another request, if the response ends at once.
async fn recycle(client: &Client, connection: Connection, mut body: Incoming) {
    let end = async {
        while let Some(frame) = body.frame().await {
            if frame.is_err() {
                return false;
            }
        }
        true
    };
    if tokio::time::timeout(LINGER, end).await == Ok(true) {
        client.give_back(connection);
    }
}

/// What has come of an answer so far.
#[derive(Default)]
struct Answer {
    events: Events,
    usage: Option<Usage>,
    finished: Option<f64>,
    done: bool,
}

impl Answer {
    /// Takes bytes that arrived at `now`. Events that arrive together are one arrival.
    fn take(&mut self, bytes: &[u8], now: f64, record: &mut Record) -> Result<(), Fault> {
        let Self { events, usage, finished, done } = self;
        let (mut text, mut fault) = (false, None);
        let fed = events.feed(bytes, &mut |data| match read(data) {
            // What follows the end is not of the answer.
            _ if *done || fault.is_some() => {}
            Event::Done => *done = true,
            Event::Error(why) => fault = Some((Outcome::Error, why)),
            Event::Garbled(why) => fault = Some((Outcome::Garbled, why)),
            Event::Said(said) => {
                text |= said.text;
                *usage = said.usage.or(*usage);
                if said.finished {
                    *finished = finished.or(Some(now));
                }
            }
        });
        if text {
            match record.last {
                Some(last) if record.gaps.len() < MOST_GAPS => record.gaps.push(now - last),
                _ => {}
            }
            record.first = record.first.or(Some(now));
            record.last = Some(now);
        }
        match (fault, fed) {
            (Some(fault), _) => Err(fault),
            (None, Err(_)) => Err((Outcome::Garbled, "an event of more than 16 MiB".into())),
            (None, Ok(())) => Ok(()),
        }
    }

    /// The stream is over, or has said that it is.
    fn close(&self, record: &mut Record) -> Result<(), Fault> {
        if !self.done && self.finished.is_none() {
            return Err((Outcome::Cut, "the stream ended before the answer did (no finish_reason, no [DONE])".into()));
        }
        let Some(usage) = self.usage else {
            let why = "the server does not say how many tokens there were (stream_options: include_usage asks for it)";
            return Err((Outcome::Uncounted, why.into()));
        };
        (record.input_tokens, record.output_tokens, record.cached_tokens) = (usage.input, usage.output, usage.cached);
        // An answer of nothing but its end, as of a special token.
        let end = self.finished.or(record.last);
        (record.first, record.last) = (record.first.or(end), record.last.or(end));
        if record.first.is_none() {
            return Err((Outcome::Garbled, "an answer without a token".into()));
        }
        Ok(())
    }
}
