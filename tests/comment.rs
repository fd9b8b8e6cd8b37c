//! `ci/comment` against a mock of a forge: one comment, updated; paging; refusals degrade and never fail the job; an older run
//! never overwrites a newer one. Needs Python; without it the tests say so and pass.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

/// What a forge holds and how it behaves.
#[derive(Default)]
struct Forge {
    /// Number and body of each comment, oldest first.
    comments: Vec<(u64, String)>,
    per_page: usize,
    /// Status codes to answer with, before it behaves.
    refusals: Vec<u16>,
    /// Methods that are always refused, with a status.
    never: Option<(&'static str, u16)>,
    /// "METHOD path", in order.
    log: Vec<String>,
}

struct Server {
    forge: Arc<Mutex<Forge>>,
    address: String,
}

impl Server {
    fn start(forge: Forge) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let forge = Arc::new(Mutex::new(forge));
        let (shared, own) = (forge.clone(), address.clone());
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                serve(stream, &shared, &own);
            }
        });
        Self { forge, address }
    }

    fn forge(&self) -> std::sync::MutexGuard<'_, Forge> {
        self.forge.lock().unwrap()
    }

    fn log(&self) -> Vec<String> {
        self.forge().log.clone()
    }
}

fn serve(mut stream: TcpStream, forge: &Mutex<Forge>, address: &str) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    let (mut length, mut authorised) = (0, false);
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).unwrap();
        let header = header.trim().to_ascii_lowercase();
        if header.is_empty() {
            break;
        }
        if let Some(n) = header.strip_prefix("content-length:") {
            length = n.trim().parse().unwrap();
        }
        authorised |= header == "authorization: bearer secret" || header == "private-token: secret";
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let (status, answer, link) = answer(forge, &line, &body, authorised, address);
    let link = link.map_or(String::new(), |l| format!("Link: {l}\r\n"));
    let head = format!("HTTP/1.1 {status} Said\r\nContent-Type: application/json\r\nConnection: close\r\n{link}");
    let _ = write!(stream, "{head}Content-Length: {}\r\n\r\n{answer}", answer.len());
}

fn answer(
    forge: &Mutex<Forge>,
    line: &str,
    body: &[u8],
    authorised: bool,
    address: &str,
) -> (u16, String, Option<String>) {
    let mut f = forge.lock().unwrap();
    let mut words = line.split_whitespace();
    let (method, path) = (words.next().unwrap_or(""), words.next().unwrap_or("").to_string());
    f.log.push(format!("{method} {path}"));
    if !authorised {
        return (401, "{}".into(), None);
    }
    if let Some(status) = f.refusals.pop() {
        return (status, "{\"message\": \"refused\"}".into(), None);
    }
    if let Some((_, status)) = f.never.filter(|(m, _)| *m == method) {
        return (status, "{\"message\": \"never\"}".into(), None);
    }
    let text = || serde_json::from_slice::<serde_json::Value>(body).unwrap()["body"].as_str().unwrap().to_string();
    match method {
        "GET" => {
            let page: usize = path
                .split("page=")
                .last()
                .filter(|p| path.contains("&page=") && !p.is_empty())
                .map_or(1, |p| p.parse().unwrap());
            let (from, to) = ((page - 1) * f.per_page, (page * f.per_page).min(f.comments.len()));
            let shown: Vec<serde_json::Value> = f.comments[from.min(to)..to]
                .iter()
                .map(|(id, body)| serde_json::json!({"id": id, "body": body}))
                .collect();
            let next = (to < f.comments.len()).then(|| {
                let plain = path.split("&page=").next().unwrap();
                format!("<{address}{plain}&page={}>; rel=\"next\", <x>; rel=\"last\"", page + 1)
            });
            (200, serde_json::Value::Array(shown).to_string(), next)
        }
        "POST" => {
            let id = f.comments.len() as u64 + 1000;
            let text = text();
            f.comments.push((id, text));
            (201, "{}".into(), None)
        }
        _ => {
            let id: u64 = path.rsplit('/').next().unwrap().parse().unwrap();
            let text = text();
            f.comments.iter_mut().find(|(n, _)| *n == id).unwrap().1 = text;
            (200, "{}".into(), None)
        }
    }
}

fn python() -> bool {
    let there = Command::new("python3").arg("--version").output().is_ok_and(|o| o.status.success());
    if !there {
        eprintln!("skipped: python3 is not installed");
    }
    there
}

/// Runs the script as a job of GitHub would; `change` may set or take variables.
fn comment(server: &Server, folder: &Path, run: u32, change: impl Fn(&mut Command)) -> Output {
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("ci/comment");
    std::fs::write(folder.join("event.json"), "{\"pull_request\": {\"number\": 7}}").unwrap();
    std::fs::write(folder.join("check.md"), format!("<!-- centime-check -->\n### from run {run}\n")).unwrap();
    let mut command = Command::new("python3");
    command
        .arg(script)
        .arg(folder.join("check.md"))
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("GITHUB_API_URL", &server.address)
        .env("GITHUB_REPOSITORY", "us/ours")
        .env("GITHUB_TOKEN", "secret")
        .env("GITHUB_EVENT_PATH", folder.join("event.json"))
        .env("GITHUB_RUN_NUMBER", run.to_string())
        .env("GITHUB_STEP_SUMMARY", folder.join("summary.md"))
        .env("CENTIME_COMMENT_WAITS", "0.01,0.01")
        .stdin(Stdio::null());
    change(&mut command);
    command.output().unwrap()
}

fn said(output: &Output) -> String {
    assert!(output.status.success(), "a comment never fails a job: {output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn forge(comments: &[&str], per_page: usize) -> Forge {
    let comments = comments.iter().enumerate().map(|(i, c)| (i as u64 + 1, (*c).to_string())).collect();
    Forge { comments, per_page, ..Forge::default() }
}

#[test]
fn the_first_run_comments_and_later_ones_update_it() {
    if !python() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    // Somebody else's comment quotes ours, on the first of three pages.
    let server = Server::start(forge(&["hello", "> <!-- centime-check run=1 -->\n> quoted", "a", "b", "c"], 2));
    assert!(said(&comment(&server, folder.path(), 4, |_| ())).contains("commented"));
    assert_eq!(server.log().iter().filter(|l| l.starts_with("GET")).count(), 3, "{:?}", server.log());
    assert!(said(&comment(&server, folder.path(), 5, |_| ())).contains("updated"));
    let f = server.forge();
    assert_eq!(f.comments.len(), 6, "one comment of ours");
    assert_eq!(f.comments[5].1, "<!-- centime-check run=5 -->\n### from run 5\n");
    assert!(f.log.last().unwrap().starts_with("PATCH /repos/us/ours/issues/comments/1005"), "{:?}", f.log);
}

#[test]
fn an_older_run_leaves_a_newer_comment_alone() {
    if !python() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(forge(&["<!-- centime-check run=9 -->\nnew"], 100));
    assert!(said(&comment(&server, folder.path(), 8, |_| ())).contains("left alone: run 9"));
    assert_eq!(server.forge().comments[0].1, "<!-- centime-check run=9 -->\nnew");
    // The same run once more, and a later one, may.
    assert!(said(&comment(&server, folder.path(), 9, |_| ())).contains("updated"));
}

#[test]
fn what_passes_is_waited_for_and_what_does_not_goes_to_the_summary() {
    if !python() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for status in [429, 500, 502, 503] {
        let server = Server::start(Forge { refusals: vec![status, status], ..forge(&[], 100) });
        assert!(said(&comment(&server, folder.path(), 1, |_| ())).contains("commented"), "{status}");
    }
    // A fork's token may not write; a wrong repository, a body that is not taken, a forge that is down for good.
    for (method, status) in [("POST", 403), ("GET", 404), ("POST", 422), ("GET", 429), ("GET", 500)] {
        std::fs::write(folder.path().join("summary.md"), "").unwrap();
        let server = Server::start(Forge { never: Some((method, status)), ..forge(&[], 100) });
        let text = said(&comment(&server, folder.path(), 2, |_| ()));
        assert!(text.contains(&format!("{method} answered {status}")) && text.contains("summary"), "{text}");
        let summary = std::fs::read_to_string(folder.path().join("summary.md")).unwrap();
        assert!(summary.contains("### from run 2"), "{summary}");
        assert!(server.forge().comments.is_empty());
    }
    // Nobody there at all, and no summary either: the text is in the log.
    let server = Server::start(forge(&[], 100));
    let text = said(&comment(&server, folder.path(), 3, |c| {
        c.env("GITHUB_API_URL", "http://127.0.0.1:9").env_remove("GITHUB_STEP_SUMMARY");
    }));
    assert!(text.contains("got no answer") && text.contains("### from run 3"), "{text}");
}

#[test]
fn without_a_pull_request_or_token_nothing_is_asked() {
    if !python() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(forge(&[], 100));
    for name in ["GITHUB_TOKEN", "GITHUB_EVENT_PATH"] {
        let text = said(&comment(&server, folder.path(), 1, |c| {
            c.env_remove(name);
        }));
        assert!(text.contains("not set"), "{text}");
    }
    assert!(server.log().is_empty());
    let wrong = comment(&server, folder.path(), 1, |c| {
        c.arg("more");
    });
    assert_eq!(wrong.status.code(), Some(2));
}

#[test]
fn gitlab_is_spoken_to_as_well() {
    if !python() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(forge(&["hello"], 100));
    let gitlab = |run: &str| {
        let run = run.to_string();
        comment(&server, folder.path(), 1, |c| {
            c.env_remove("GITHUB_REPOSITORY").env("CI_API_V4_URL", &server.address).env("CI_PROJECT_ID", "a/b");
            c.env("CI_MERGE_REQUEST_IID", "3").env("GITLAB_TOKEN", "secret").env("CI_PIPELINE_IID", &run);
        })
    };
    assert!(said(&gitlab("1")).contains("GitLab: commented"));
    assert!(said(&gitlab("2")).contains("GitLab: updated"));
    let log = server.log();
    assert!(log[1] == "POST /projects/a%2Fb/merge_requests/3/notes" && log[3].starts_with("PUT "), "{log:?}");
}
