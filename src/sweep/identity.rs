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
    let Measure { precision, min_seconds, max_seconds, warmup_steps, rounds, .. } = measure;
    let mut settings = serde_json::json!({
        "precision": precision,
        "min_seconds": min_seconds,
        "max_seconds": max_seconds,
        "warmup_steps": warmup_steps,
        "rounds": rounds,
    });
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
    fn the_same_program_has_the_same_build() {
        let version = program_version().unwrap();
        assert!(version.starts_with(concat!(env!("CARGO_PKG_VERSION"), " (build ")), "{version}");
        assert_eq!(version, program_version().unwrap());
    }
}
