//! Holds the floors: imports go down only, and what must not exist does not.

#[path = "common/imports.rs"]
mod imports;

use std::fs;
use std::path::{Path, PathBuf};

/// Modules by floor.
const FLOORS: &[(&str, u8)] = &[
    ("units", 0),
    ("stats", 0),
    ("yaml", 0),
    ("files", 0),
    ("net", 0),
    ("amx", 0),
    ("data", 1),
    ("hardware", 1),
    ("load", 1),
    ("transformer", 1),
    ("projection", 2),
    ("scenario", 2),
    ("plan", 3),
    ("runner", 4),
    ("results", 5),
    ("cost", 6),
    ("import", 6),
    ("sweep", 6),
    ("comparison", 7),
    ("experiment", 8),
    ("report", 8),
    ("cli", 9),
    ("internal", 10),
];

/// Crates that live in one module only.
const KEPT_APART: &[(&str, &[&str])] = &[
    ("polars", &["results", "data/parquet"]),
    ("plotters", &["report"]),
    ("clap", &["cli"]),
    ("anyhow", &["cli"]),
    ("cudarc", &["transformer/cuda"]),
    ("nvml_wrapper", &["hardware/gpu"]),
    ("hyper", &["load"]),
    ("tokenizers", &["load", "data/tokenizer"]),
    ("memmap2", &["data"]),
    ("glob", &["data/files"]),
    ("zstd", &["data/corpus"]),
    ("tokio", &["load", "runner/engine"]),
    ("serde_yaml", &["yaml"]),
];

/// What pure modules may not name.
const PURE: &[(&str, &[&str])] = &[
    ("plan", &["std::time", "std::fs", "std::thread", "std::process", "std::env"]),
    ("projection", &["std::fs", "std::io", "std::time", "std::process", "std::env", "std::thread"]),
    ("cost", &["std::fs", "std::io", "std::time", "std::process", "std::env", "std::thread"]),
    ("comparison", &["std::fs", "std::io", "std::time", "std::process", "std::env", "std::thread"]),
];

/// Longest source file, tests in it included.
const LONGEST: usize = 450;

/// Dependencies that only state features for the tests' and the release build's sake.
const UNIFYING: &[&str] = &["either", "regex-automata", "bytemuck", "num-complex", "num-rational", "num-bigint"];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn sources(folder: &Path) -> Vec<(String, String)> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(sources(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            let name = path.strip_prefix(root()).unwrap().display().to_string();
            all.push((name, fs::read_to_string(&path).unwrap()));
        }
    }
    all
}

fn module_of(path: &str) -> &str {
    let inside = path.strip_prefix("src/").unwrap_or(path);
    inside.split('/').next().unwrap_or(inside).trim_end_matches(".rs")
}

fn floor(module: &str) -> Option<u8> {
    FLOORS.iter().find(|(r, _)| *r == module).map(|(_, f)| *f)
}

/// Code without comments, up to the tests at the end of the file.
fn code(text: &str) -> String {
    let tests = ["#[cfg(test)]\nmod tests", "#[cfg(all(test, unix))]\nmod tests"];
    let own = tests.iter().fold(text, |own, mark| own.split(mark).next().unwrap_or(own));
    own.lines().map(|l| if l.trim_start().starts_with("//") { "" } else { l }).collect::<Vec<_>>().join("\n")
}

fn holds_word(code: &str, word: &str) -> bool {
    code.match_indices(word).any(|(i, _)| {
        let before = code[..i].chars().next_back();
        let after = code[i + word.len()..].chars().next();
        let part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
        !part(before) && !part(after)
    })
}

/// Every fault of one file.
fn faults(path: &str, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    // Files that exist for tests alone.
    let endings = ["conformance.rs", "invariants.rs", "fixture.rs", "_tests.rs"];
    if endings.iter().any(|t| path.ends_with(t)) || path.starts_with("src/transformer/cuda/host/") {
        return found;
    }
    let (here, code) = (module_of(path), code(text));
    if let Some(own) = floor(here) {
        for (i, _) in code.match_indices("crate::") {
            let target: String = code[i + 7..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            if let Some(other) = floor(&target)
                && target != here
                && other >= own
            {
                found.push(format!("{path}: {here} (F{own}) imports {target} (F{other}): imports go down only"));
            }
        }
    }
    for (name, homes) in KEPT_APART {
        let at_home = homes.iter().any(|h| path.starts_with(&format!("src/{h}")));
        if !at_home && (code.contains(&format!("{name}::")) || code.contains(&format!("use {name}"))) {
            found.push(format!("{path}: {name} lives in {} only", homes.join(", ")));
        }
    }
    for (pure, banned) in PURE {
        for b in banned.iter().filter(|b| here == *pure && code.contains(**b)) {
            found.push(format!("{path}: {pure} is pure and does not touch {b}"));
        }
    }
    for banned in [".unwrap()", ".expect(", "panic!(", "todo!(", "unimplemented!(", "unreachable!("] {
        if code.contains(banned) {
            found.push(format!("{path}: `{banned}` outside tests"));
        }
    }
    let lines = text.lines().count();
    if lines > LONGEST {
        found.push(format!("{path}: {lines} lines are over {LONGEST}; give the second job a file of its own"));
    }
    found
}

#[test]
fn the_floors_hold() {
    let all: Vec<String> = sources(&root().join("src")).iter().flat_map(|(p, t)| faults(p, t)).collect();
    assert!(all.is_empty(), "\n{}", all.join("\n"));
}

#[test]
fn no_files_import_one_another_in_a_circle() {
    let all: Vec<(String, String)> = sources(&root().join("src"));
    let found = imports::circles(&all);
    assert!(
        found.is_empty(),
        "files that import one another in a circle; move what they share below both:\n{}",
        found.join("\n")
    );
}

#[test]
fn a_circle_of_files_is_found_through_groups_and_reexports() {
    let file = |path: &str, text: &str| (format!("src/{path}"), text.to_string());
    let planted = [
        file("a/mod.rs", "pub mod one;\npub mod two;\npub mod three;\npub use three::Third;"),
        file("a/one.rs", "use super::{two::{self, Second}, Third};"),
        file("a/two.rs", "fn f() -> crate::b::Other { }"),
        file("a/three.rs", "use crate::b;"),
        file("b.rs", "use crate::a::one::First;"),
    ];
    let found = imports::circles(&planted);
    assert_eq!(found.len(), 1, "{found:?}");
    for name in ["a/one.rs", "a/two.rs", "a/three.rs", "b.rs"] {
        assert!(found[0].contains(name), "{name} is not in {found:?}");
    }
    // A module's own mod.rs may name its children and they what stands in it; comments, texts and tests count for nothing.
    let fine = [
        file("a/mod.rs", "mod one;\nuse one::First;\npub struct Shared;"),
        file("a/one.rs", "use super::Shared;\n// use super::two::X;\n"),
        file("a/two.rs", "use super::one::First;\n#[cfg(test)]\nmod tests { use crate::a::one; }"),
    ];
    assert_eq!(imports::circles(&fine), Vec::<String>::new());
}

#[test]
fn the_check_finds_what_it_looks_for() {
    let planted = [
        ("src/transformer/x.rs", "use crate::cost::metric;"),
        ("src/plan.rs", "fn f() { std::time::Instant::now(); }"),
        ("src/runner/x.rs", "use polars::prelude::*;"),
        ("src/report/x.rs", "fn f() { None::<u8>.unwrap(); }"),
        ("src/stats/x.rs", "use crate::hardware::machine;"),
    ];
    for (path, text) in planted {
        assert_eq!(faults(path, text).len(), 1, "{path}: {text}");
    }
    assert!(faults("src/cost/x.rs", "use crate::results::record::Record;").is_empty());
    assert!(
        faults("src/cost/x.rs", "// x.unwrap()\n#[cfg(test)]\nmod tests { fn f() { None::<u8>.unwrap(); } }")
            .is_empty()
    );
}

#[test]
fn every_dependency_is_used() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let everywhere: String =
        ["src", "tests", "benches"].iter().flat_map(|d| sources(&root().join(d))).map(|(_, t)| t).collect();
    let mut section = "";
    for line in manifest.lines() {
        if line.starts_with('[') {
            section = line;
        } else if section.contains("dependencies") && !line.starts_with('#') {
            let Some((name, _)) = line.split_once(" = ") else { continue };
            let used = UNIFYING.contains(&name) || holds_word(&everywhere, &name.replace('-', "_"));
            assert!(used, "{name} is in Cargo.toml and nowhere in the code");
        }
    }
}
