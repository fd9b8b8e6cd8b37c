//! Which source file imports which, and where files import one another in a circle. A `mod.rs` is the module itself: what stands
//! between it and its own files is no circle, and what it re-exports counts as the file that it comes from.

use std::collections::{BTreeMap, BTreeSet, HashMap};

type Module = Vec<String>;

/// The circles among `(path from the root, text)`, each as a line that names its files.
pub(crate) fn circles(files: &[(String, String)]) -> Vec<String> {
    let modules: BTreeMap<Module, &str> = files.iter().map(|(path, _)| (module(path), path.as_str())).collect();
    let texts: HashMap<Module, String> = files.iter().map(|(path, text)| (module(path), plain(text))).collect();
    let house = House { reexported: reexports(&modules, &texts), modules };
    let mut edges: BTreeMap<&Module, BTreeSet<Module>> = BTreeMap::new();
    for (module, path) in &house.modules {
        if is_module_file(path) || for_tests_alone(path) {
            continue;
        }
        let targets = paths(&texts[module]).into_iter().filter_map(|p| house.file_of(&absolute(module, &p)?, 0));
        let counted =
            |m: &Module| m != module && !is_module_file(house.modules[m]) && !for_tests_alone(house.modules[m]);
        edges.insert(module, targets.filter(counted).collect());
    }
    let mut found = Vec::new();
    let mut placed: BTreeSet<&Module> = BTreeSet::new();
    for module in edges.keys() {
        let reached = reach(module, &edges);
        let circle: Vec<&Module> =
            edges.keys().copied().filter(|m| reached.contains(*m) && reach(m, &edges).contains(*module)).collect();
        if !circle.is_empty() && placed.insert(module) {
            placed.extend(&circle);
            let names: Vec<&str> = circle.iter().map(|m| house.modules[*m]).collect();
            found.push(names.join(" <-> "));
        }
    }
    found.sort();
    found.dedup();
    found
}

/// Everything that is imported by a file, directly or not.
fn reach<'a>(from: &Module, edges: &'a BTreeMap<&Module, BTreeSet<Module>>) -> BTreeSet<&'a Module> {
    let (mut seen, mut open) = (BTreeSet::new(), vec![from]);
    while let Some(next) = open.pop() {
        for target in edges.get(next).into_iter().flatten() {
            if seen.insert(target) {
                open.push(target);
            }
        }
    }
    seen
}

struct House<'a> {
    modules: BTreeMap<Module, &'a str>,
    /// What a `mod.rs` re-exports, by the path under which it does.
    reexported: HashMap<Module, Module>,
}

impl House<'_> {
    /// The file that holds an item: the longest part of its path that is a file.
    fn file_of(&self, path: &[String], depth: usize) -> Option<Module> {
        for n in (0..=path.len()).rev() {
            if !self.modules.contains_key(&path[..n]) {
                continue;
            }
            let named = path.get(..=n).and_then(|item| self.reexported.get(item));
            return match named {
                Some(source) if depth < 8 => self.file_of(source, depth + 1),
                _ => Some(path[..n].to_vec()),
            };
        }
        None
    }
}

fn module(path: &str) -> Module {
    let inside = path.trim_start_matches("src/").trim_end_matches(".rs");
    let mut parts: Module = inside.split('/').map(String::from).collect();
    if parts.last().is_some_and(|p| p == "mod" || p == "lib") {
        parts.pop();
    }
    parts
}

fn is_module_file(path: &str) -> bool {
    path.ends_with("/mod.rs") || path == "src/lib.rs"
}

fn for_tests_alone(path: &str) -> bool {
    let endings = ["conformance.rs", "invariants.rs", "fixture.rs", "_tests.rs", "main.rs"];
    endings.iter().any(|e| path.ends_with(e)) || path.starts_with("src/transformer/cuda/host/")
}

/// Code without comments and texts, up to the tests at the end of the file.
fn plain(text: &str) -> String {
    let own = text.split("#[cfg(test)]\nmod tests").next().unwrap_or(text);
    let mut out = String::new();
    for line in own.lines() {
        let mut quoted = false;
        let mut characters = line.chars().peekable();
        while let Some(c) = characters.next() {
            match c {
                '\\' if quoted => {
                    characters.next();
                }
                '"' => quoted = !quoted,
                '/' if !quoted && characters.peek() == Some(&'/') => break,
                _ if quoted => {}
                c => out.push(c),
            }
        }
        out.push('\n');
    }
    out
}

/// Every path that begins with `crate`, `super` or `self`, groups taken apart.
fn paths(code: &str) -> Vec<Module> {
    let mut found = Vec::new();
    for start in ["crate", "super", "self"] {
        for (at, _) in code.match_indices(&format!("{start}::")) {
            let before = code[..at].chars().next_back();
            if !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':') {
                tree(&code[at..], &mut Vec::new(), &mut found);
            }
        }
    }
    found
}

/// Reads one path or group from the start of `code`; how many bytes it took.
fn tree(code: &str, prefix: &mut Module, found: &mut Vec<Module>) -> usize {
    let space = code.len() - code.trim_start().len();
    let rest = &code[space..];
    if rest.starts_with('{') {
        let mut at = 1;
        loop {
            let inner = &rest[at..];
            at += inner.len() - inner.trim_start_matches(|c: char| c.is_whitespace() || c == ',').len();
            if rest[at..].starts_with('}') || at >= rest.len() {
                return space + at + 1;
            }
            let took = tree(&rest[at..], prefix, found);
            // What is no path (an alias) is passed over.
            at += took.max(1);
        }
    }
    let word = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').count();
    if word == 0 {
        found.push(prefix.clone());
        return space + usize::from(rest.starts_with('*'));
    }
    prefix.push(rest[..word].to_string());
    let took = match rest[word..].strip_prefix("::") {
        Some(more) if !more.starts_with('<') => 2 + tree(more, prefix, found),
        _ => {
            found.push(prefix.clone());
            0
        }
    };
    prefix.pop();
    space + word + took
}

/// A path from the root, of one that is written in `module`.
fn absolute(module: &Module, path: &[String]) -> Option<Module> {
    let first = path.first()?.as_str();
    let mut base = if first == "crate" { Vec::new() } else { module.clone() };
    let mut rest = path;
    while let Some((word, more)) = rest.split_first() {
        match word.as_str() {
            "super" => {
                base.pop();
            }
            "crate" | "self" => {}
            _ => break,
        }
        rest = more;
    }
    base.extend(rest.iter().cloned());
    Some(base)
}

/// What modules re-export: `pub use inner::Item` and the like.
fn reexports(modules: &BTreeMap<Module, &str>, texts: &HashMap<Module, String>) -> HashMap<Module, Module> {
    let mut all = HashMap::new();
    for (module, path) in modules {
        if !is_module_file(path) {
            continue;
        }
        for statement in texts[module].split(';').map(str::trim) {
            let Some((before, body)) = statement.split_once("use ") else { continue };
            if !before.lines().next_back().is_some_and(|l| l.trim_start().starts_with("pub")) {
                continue;
            }
            let mut found = Vec::new();
            let body = body.trim_start();
            let body = if ["crate::", "super::", "self::"].iter().any(|s| body.starts_with(s)) {
                body.to_string()
            } else {
                format!("self::{body}")
            };
            tree(&body, &mut Vec::new(), &mut found);
            for source in found.iter().filter_map(|p| absolute(module, p)) {
                let mut name = module.clone();
                name.extend(source.last().cloned());
                all.insert(name, source);
            }
        }
    }
    all
}
