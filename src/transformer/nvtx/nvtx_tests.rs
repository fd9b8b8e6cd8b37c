//! A tool that is compiled for the test, told of ranges as Nsight's would be.

use super::*;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A tool that writes down what it is told, or the older library; `None`, and a word, where there is no C compiler.
pub(in crate::transformer) fn fake(folder: &Path, older: bool) -> Option<PathBuf> {
    let (source, library) = (folder.join("fake.c"), folder.join(if older { "older.so" } else { "tool.so" }));
    std::fs::write(&source, include_str!("../../../tests/common/fake_nvtx.c")).unwrap();
    let mut cc = Command::new("cc");
    cc.args(["-shared", "-fPIC", "-Wall", "-Werror", "-o"]).arg(&library).arg(&source).arg("-ldl");
    if older {
        cc.arg("-DOLDER");
    }
    match cc.status() {
        Ok(status) => assert!(status.success(), "{status}"),
        Err(e) => {
            eprintln!("skipped: no C compiler to make a tool with ({e})");
            return None;
        }
    }
    Some(library)
}

/// What the tool was told: of each thread the ranges, with what they lie in, checked to be ended in the order in which they should.
pub(in crate::transformer) fn ranges(library: &Path) -> Vec<Vec<String>> {
    let told = std::fs::read_to_string(format!("{}.log", library.display())).unwrap_or_default();
    let mut open: HashMap<&str, Vec<&str>> = HashMap::new();
    let mut ranges = Vec::new();
    for line in told.lines().filter(|l| !l.starts_with("module")) {
        let (thread, what) = line.split_once(' ').unwrap();
        let stack = open.entry(thread).or_default();
        match what.strip_prefix("push ") {
            Some(name) => {
                stack.push(name);
                ranges.push(stack.iter().map(|n| n.to_string()).collect());
            }
            None => assert!(what == "pop" && stack.pop().is_some(), "{line}"),
        }
    }
    assert!(open.values().all(Vec::is_empty), "ranges that have no end: {open:?}");
    ranges
}

fn tell(tool: &Tool) {
    tool.push("step");
    tool.push("forward");
    tool.pop();
    tool.pop();
}

#[test]
fn a_tool_gets_the_tables_that_it_expects_and_then_the_ranges() {
    let folder = tempfile::tempdir().unwrap();
    let Some(library) = fake(folder.path(), false) else { return };
    tell(&attached(Some(library.as_os_str()), OsStr::new("none.so")).unwrap());
    assert_eq!(ranges(&library), [vec!["step"], vec!["step", "forward"]]);
    let told = std::fs::read_to_string(format!("{}.log", library.display())).unwrap();
    let modules: Vec<&str> = told.lines().filter(|l| l.starts_with("module")).collect();
    assert_eq!(modules, ["module 1: 16", "module 2: 9", "module 3: 15", "module 4: 7", "module 5: 16", "module 6: 7"]);
}

#[test]
fn a_tool_of_before_is_met_by_the_library_of_before() {
    let folder = tempfile::tempdir().unwrap();
    let Some(library) = fake(folder.path(), true) else { return };
    // What the tool names does not know NVTX 3.
    tell(&attached(Some(library.as_os_str()), library.as_os_str()).unwrap());
    assert_eq!(ranges(&library), [vec!["step"], vec!["step", "forward"]]);
}

#[test]
fn without_a_tool_nothing_is_loaded_and_a_broken_one_is_none() {
    let folder = tempfile::tempdir().unwrap();
    let broken = folder.path().join("broken.so");
    std::fs::write(&broken, "no library").unwrap();
    let older = fake(folder.path(), true);
    let older = older.as_deref().unwrap_or(&broken);
    assert!(attached(None, older.as_os_str()).is_none());
    assert!(attached(Some(OsStr::new("")), older.as_os_str()).is_none());
    for path in [broken.as_os_str(), OsStr::new("/nowhere/tool.so")] {
        assert!(attached(Some(path), broken.as_os_str()).is_none());
    }
}
