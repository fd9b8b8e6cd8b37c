//! A real HTTP server on loopback that takes exactly as long as it is told to.

use serde_json::{Value, json};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// Tokens that the template takes, as this server counts.
pub(crate) const TEMPLATE: u64 = 10;

/// One request.
pub(crate) struct Asked {
    pub(crate) line: String,
    pub(crate) headers: String,
    pub(crate) body: Value,
    pub(crate) at: Instant,
    /// How many requests with a body there were before.
    pub(crate) index: usize,
}

impl Asked {
    /// The text that is to be answered.
    pub(crate) fn prompt(&self) -> &str {
        let chat = self.body["messages"][0]["content"].as_str();
        chat.or_else(|| self.body["prompt"].as_str()).unwrap_or_default()
    }

    pub(crate) fn wanted(&self) -> u64 {
        self.body["max_tokens"].as_u64().unwrap_or(1)
    }

    fn usage(&self) -> Value {
        let input = self.prompt().split_whitespace().count() as u64 + TEMPLATE;
        json!({"prompt_tokens": input, "completion_tokens": self.wanted(), "total_tokens": input + self.wanted()})
    }
}

/// What a server does with a request: writes, and says whether the connection goes on.
pub(crate) type Act = dyn Fn(&Asked, &mut TcpStream) -> io::Result<()> + Send + Sync;

/// A server.
pub(crate) struct Mock {
    pub(crate) address: SocketAddr,
    asked: Arc<AtomicUsize>,
    prompts: Arc<Mutex<Vec<String>>>,
}

impl Mock {
    pub(crate) fn start(act: impl Fn(&Asked, &mut TcpStream) -> io::Result<()> + Send + Sync + 'static) -> Self {
        Self::at("127.0.0.1:0", act)
    }

    pub(crate) fn at(
        address: &str,
        act: impl Fn(&Asked, &mut TcpStream) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let (asked, prompts) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(Vec::new())));
        let act: Arc<Act> = Arc::new(act);
        let (count, kept) = (Arc::clone(&asked), Arc::clone(&prompts));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (act, count, kept) = (Arc::clone(&act), Arc::clone(&count), Arc::clone(&kept));
                thread::spawn(move || {
                    // A client that is gone is no fault of the server's.
                    let _ = serve(stream, &*act, &count, &kept);
                });
            }
        });
        Self { address, asked, prompts }
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// Requests with a body so far.
    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    pub(crate) fn prompts(&self) -> Vec<String> {
        self.prompts.lock().unwrap().clone()
    }
}

fn serve(mut stream: TcpStream, act: &Act, count: &AtomicUsize, kept: &Mutex<Vec<String>>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let at = Instant::now();
        let (mut headers, mut length) = (String::new(), 0);
        loop {
            let mut header = String::new();
            if reader.read_line(&mut header)? == 0 || header == "\r\n" {
                break;
            }
            if let Some(n) = header.to_ascii_lowercase().strip_prefix("content-length:") {
                length = n.trim().parse().unwrap();
            }
            headers.push_str(&header);
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        let body: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
        let index = if body.is_null() { 0 } else { count.fetch_add(1, Ordering::SeqCst) };
        let asked = Asked { line: line.trim().into(), headers, body, at, index };
        if !asked.body.is_null() {
            kept.lock().unwrap().push(asked.prompt().into());
        }
        act(&asked, &mut stream)?;
    }
}

/// How long an answer takes.
#[derive(Clone, Copy)]
pub(crate) struct Timing {
    /// To the first token, from when the request came.
    pub(crate) first: Duration,
    /// From token to token.
    pub(crate) each: Duration,
    /// Tokens that come in one chunk.
    pub(crate) together: u64,
}

impl Timing {
    pub(crate) fn ms(first: u64, each: u64) -> Self {
        Self { first: Duration::from_millis(first), each: Duration::from_millis(each), together: 1 }
    }
}

pub(crate) fn until(moment: Instant) {
    thread::sleep(moment.saturating_duration_since(Instant::now()));
}

/// The head of a stream.
pub(crate) fn begin(stream: &mut TcpStream) -> io::Result<()> {
    stream.write_all(
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n",
    )
}

/// A piece of a stream.
pub(crate) fn piece(stream: &mut TcpStream, text: &str) -> io::Result<()> {
    stream.write_all(format!("{:x}\r\n{text}\r\n", text.len()).as_bytes())
}

pub(crate) fn event(stream: &mut TcpStream, data: &Value) -> io::Result<()> {
    piece(stream, &format!("data: {data}\n\n"))
}

/// A chunk of an answer with this text.
pub(crate) fn text(asked: &Asked, text: &str) -> Value {
    if asked.line.contains("/chat/") {
        json!({"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": null}]})
    } else {
        json!({"choices": [{"index": 0, "text": text, "finish_reason": null}]})
    }
}

/// A whole answer, every token of which comes when it is to; with comments, empty chunks and a role in between, as servers have them.
pub(crate) fn answer(asked: &Asked, stream: &mut TcpStream, timing: Timing) -> io::Result<()> {
    begin(stream)?;
    piece(stream, ": keep-alive\n\n")?;
    event(stream, &json!({"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]}))?;
    let mut sent = 0;
    while sent < asked.wanted() {
        // Tokens of one chunk are there when the last of them is.
        let chunk = if sent == 0 { 1 } else { timing.together.min(asked.wanted() - sent) };
        sent += chunk;
        until(asked.at + timing.first + timing.each * (sent as u32 - 1));
        event(stream, &text(asked, &" word".repeat(chunk as usize)))?;
    }
    end(asked, stream)
}

/// What follows the last token.
pub(crate) fn end(asked: &Asked, stream: &mut TcpStream) -> io::Result<()> {
    event(stream, &json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "length"}]}))?;
    event(stream, &json!({"choices": [], "usage": asked.usage()}))?;
    piece(stream, "data: [DONE]\n\n")?;
    stream.write_all(b"0\r\n\r\n")
}

/// A response that is no stream.
pub(crate) fn respond(stream: &mut TcpStream, status: &str, headers: &str, body: &str) -> io::Result<()> {
    let length = body.len();
    stream.write_all(format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n{headers}\r\n{body}").as_bytes())
}
