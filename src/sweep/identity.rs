//! What a run is: the key by which a later run knows whether its records count for it, and the words it was started with.

use crate::hardware::machine::Machine;
use crate::plan::Plan;
use crate::results::record::{RunKey, SCHEMA_VERSION};
use crate::runner::{fault, this_program};
use crate::scenario::{Measure, Scenario};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{self, Read};

/// The key of a run of `scenario` by this program on `machine` and so many processes.
pub(crate) fn key(scenario: &Scenario, machine: &Machine, program_version: String, processes: usize) -> RunKey {
    RunKey {
        schema_version: SCHEMA_VERSION,
        program_version,
        scenario_name: scenario.name.clone(),
        seed: scenario.measure.seed,
        measure: settings(&scenario.measure, processes),
        machine: machine.fingerprint(),
    }
}

/// What decides the meaning of a figure. Faults do: figures made under them must never be taken for measurements.
fn settings(measure: &Measure, processes: usize) -> String {
    let Measure { precision, min_seconds, max_seconds, warmup_steps, rounds, disturbed, seeds, .. } = measure;
    let mut settings = serde_json::json!({
        "precision": precision,
        "min_seconds": min_seconds,
        "max_seconds": max_seconds,
        "warmup_steps": warmup_steps,
        "rounds": rounds,
    });
    // Which launches were made again depends on it.
    if !disturbed.is_usual() {
        settings["disturbed"] = serde_json::json!(disturbed);
    }
    if !seeds.is_empty() {
        settings["seeds"] = serde_json::json!(seeds);
    }
    if processes > 1 {
        settings["processes"] = processes.into();
    }
    if let Some(faults) = fault::requested() {
        settings["fault"] = faults.to_string_lossy().into();
    }
    settings.to_string()
}

/// What the processes of a run have in common: the program and the trials, in any order.
pub(crate) fn team_key(scenario: &Scenario, plan: &Plan, version: &str) -> u64 {
    let mut ids: Vec<&str> = plan.trials.iter().map(|t| t.id.as_str()).collect();
    ids.sort_unstable();
    let seed = scenario.measure.seed;
    let digest = Sha256::digest(serde_json::json!([version, scenario.name, seed, ids]).to_string().as_bytes());
    digest.iter().take(8).fold(0, |key, byte| key << 8 | u64::from(*byte))
}

/// Version and build of this program: "0.1.0 (build 1a2b3c4d)". A program that was built again is another one: its figures
/// may differ, and stale ones must not be shown after a change.
///
/// # Errors
/// When the program's own file cannot be read.
pub(crate) fn program_version() -> io::Result<String> {
    let mut file = File::open(this_program()?)?;
    let mut hash = crc32fast::Hasher::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            n => hash.update(&buffer[..n]),
        }
    }
    Ok(format!("{} (build {:08x})", env!("CARGO_PKG_VERSION"), hash.finalize()))
}

/// The command as typed, without the program's path, quoted where a shell needs it.
pub(crate) fn command(arguments: impl Iterator<Item = std::ffi::OsString>) -> String {
    let quoted = arguments.skip(1).map(|a| quote(&a.to_string_lossy()));
    std::iter::once("centime".to_string()).chain(quoted).collect::<Vec<_>>().join(" ")
}

/// The `centime check` that measures in pairs what a `centime run`, as [`command`] wrote it, measured: the same scenario with the same
/// overrides, against another program. `None` where the line names no scenario.
pub(crate) fn check_of(run: &str, baseline: &str) -> Option<String> {
    let mut words = words(run).into_iter().skip_while(|w| *w != "run").skip(1);
    let (mut file, mut kept) = (None, Vec::new());
    while let Some(word) = words.next() {
        let option = word.split('=').next().unwrap_or(word);
        match option {
            "--set" | "--max-cells" | "--price-book" => {
                kept.push(word);
                if option == word {
                    kept.push(words.next()?);
                }
            }
            "--out" | "--price" | "--format" if option == word => drop(words.next()),
            _ if word.starts_with('-') => {}
            _ => file = file.or(Some(word)),
        }
    }
    let scenario = std::iter::once(file?).chain(kept).collect::<Vec<_>>().join(" ");
    Some(format!("centime check {scenario} --baseline-bin {}", quote(baseline)))
}

/// The words of a line that [`command`] wrote, quoted as they are there.
fn words(line: &str) -> Vec<&str> {
    let (mut words, mut quoted, mut escaped, mut start) = (Vec::new(), false, false, 0);
    for (at, c) in line.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if !quoted => escaped = true,
            '\'' => quoted = !quoted,
            ' ' if !quoted => {
                words.push(&line[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    words.push(&line[start..]);
    words.retain(|w| !w.is_empty());
    words
}

fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) { word.into() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_can_be_pasted_back_into_a_shell() {
        let words = ["/usr/bin/centime", "run", "a b.yaml", "--set", "sweep.matrix.batch=[1,2]", "it's", ""];
        let expected = r"centime run 'a b.yaml' --set 'sweep.matrix.batch=[1,2]' 'it'\''s' ''";
        assert_eq!(command(words.into_iter().map(Into::into)), expected);
    }

    #[test]
    fn the_check_of_a_run_has_its_scenario_and_overrides_and_nothing_of_its_output() {
        let typed = [
            "x",
            "run",
            "--quiet",
            "a b.yaml",
            "--set",
            "sweep.matrix.batch=[1, 2]",
            "--out",
            "o",
            "--once",
            "--set=seed=3",
        ];
        let line = command(typed.into_iter().map(Into::into));
        assert_eq!(
            check_of(&line, "old one").unwrap(),
            "centime check 'a b.yaml' --set 'sweep.matrix.batch=[1, 2]' --set=seed=3 --baseline-bin 'old one'"
        );
        assert_eq!(words(r"a 'b c'\''d' e"), ["a", r"'b c'\''d'", "e"]);
        assert_eq!((check_of("centime run --fresh", "b"), check_of("", "b")), (None, None));
    }

    #[test]
    fn the_same_program_has_the_same_build() {
        let version = program_version().unwrap();
        assert!(version.starts_with(concat!(env!("CARGO_PKG_VERSION"), " (build ")), "{version}");
        assert_eq!(version, program_version().unwrap());
    }
}
