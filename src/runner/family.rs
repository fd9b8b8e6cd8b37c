//! The processes that a process has started, and those that they have started in turn, by the kernel's own lists.

use std::collections::HashMap;
use std::fs;

/// A process, and when it started: its number may be another's later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Member {
    pub pid: u32,
    pub name: String,
    started: u64,
}

/// What /proc/PID/stat says of a process.
#[derive(Debug, PartialEq)]
struct Stat {
    name: String,
    state: char,
    parent: u32,
    started: u64,
}

/// Everyone below a process, but for those that are dead and not yet buried.
pub(super) fn descendants(of: u32) -> Vec<Member> {
    let children = if children_listed(of).is_some() { HashMap::new() } else { by_parent() };
    let mut found = Vec::new();
    let mut parents = vec![of];
    while let Some(parent) = parents.pop() {
        for pid in children_listed(parent).unwrap_or_else(|| children.get(&parent).cloned().unwrap_or_default()) {
            let Some(stat) = stat(pid) else { continue };
            parents.push(pid);
            if !matches!(stat.state, 'Z' | 'X') {
                found.push(Member { pid, name: stat.name, started: stat.started });
            }
        }
    }
    found
}

/// Kills processes that are still who they were.
pub(super) fn kill(members: &[Member]) {
    for member in members {
        #[cfg(unix)]
        if stat(member.pid).is_some_and(|s| s.started == member.started)
            && let Some(pid) = i32::try_from(member.pid).ok().and_then(rustix::process::Pid::from_raw)
        {
            // One that has just ended is as good.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
}

/// The children as the kernel lists them, thread by thread; `None` where it keeps no such lists.
fn children_listed(of: u32) -> Option<Vec<u32>> {
    let threads = fs::read_dir(format!("/proc/{of}/task")).ok()?.flatten();
    let mut all = Vec::new();
    for thread in threads {
        let text = fs::read_to_string(thread.path().join("children")).ok()?;
        all.extend(text.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
    }
    Some(all)
}

/// The same for every process, by who their parents are.
fn by_parent() -> HashMap<u32, Vec<u32>> {
    let mut all: HashMap<u32, Vec<u32>> = HashMap::new();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    for pid in entries.filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok()) {
        if let Some(stat) = stat(pid) {
            all.entry(stat.parent).or_default().push(pid);
        }
    }
    all
}

fn stat(pid: u32) -> Option<Stat> {
    parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// "12 (a name) S 1 ...": the name may hold whatever characters; the start is the twentieth field after it.
fn parse(stat: &str) -> Option<Stat> {
    let (before, after) = stat.rsplit_once(") ")?;
    let name = before.split_once('(')?.1.to_string();
    let fields: Vec<&str> = after.split_whitespace().collect();
    let state = fields.first()?.chars().next()?;
    Some(Stat { name, state, parent: fields.get(1)?.parse().ok()?, started: fields.get(19)?.parse().ok()? })
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn a_process_is_read_whatever_it_is_called() {
        let text = "7 (a) b (c) S 3 7 7 0 -1 0 0 0 0 0 1 2 0 0 20 0 1 0 4242 9 9";
        let expected = Stat { name: "a) b (c".into(), state: 'S', parent: 3, started: 4242 };
        assert_eq!(parse(text), Some(expected));
        assert_eq!(parse("7 (a"), None);
    }

    #[test]
    fn children_and_their_children_are_found_and_killed() {
        if stat(std::process::id()).is_none() {
            eprintln!("skipped: this system has no /proc");
            return;
        }
        let mut child = Command::new("sh").args(["-c", "sleep 60 & wait"]).stdout(Stdio::null()).spawn().unwrap();
        let mine = |all: &[Member]| all.iter().any(|m| m.pid == child.id()) && all.iter().any(|m| m.name == "sleep");
        let mut found = descendants(std::process::id());
        for _ in 0..500 {
            if mine(&found) {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
            found = descendants(std::process::id());
        }
        assert!(mine(&found), "{found:?}");
        let below = descendants(child.id());
        kill(&below);
        assert!(!child.wait().unwrap().success() || descendants(child.id()).is_empty());
        let listed = by_parent();
        assert!(listed.values().flatten().any(|pid| *pid == std::process::id()), "found by parents as well");
    }
}
