//! What lies beside the files of a checkpoint: whose it is, how far it was, and how to tell whether the files are whole.
//!
//! One line of JSON, and a second with its CRC-32.

use super::super::super::protocol::TrialRequest;
use crate::transformer::checkpoint::written::Written;
use crate::transformer::collective::grid::Parallel;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The form of checkpoints that this program writes, and the one that it reads.
const FORMAT: u32 = 1;

/// The trial and launch that a checkpoint is of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Identity {
    trial: String,
    model: String,
    /// Digest of text and tokens.
    data: String,
    /// Of weights, order of the text and dropout.
    seed: u64,
    devices: u32,
    /// How they share the work.
    parallel: String,
}

/// All of it; notes are borrowed where they are written.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Manifest<N> {
    format: u32,
    identity: Identity,
    pub notes: N,
    pub files: Vec<Written>,
}

/// Why a checkpoint is not gone on from.
#[derive(Debug, PartialEq)]
pub(super) enum Unusable {
    /// It is not whole: an earlier one may be.
    Damaged(String),
    /// It is another's.
    Foreign(String),
}

impl Identity {
    /// Of a launch.
    pub(super) fn of(request: &TrialRequest) -> Self {
        let trial = &request.trial;
        let Parallel { data: replicas, tensor, pipeline, expert, sharding } = trial.parallel();
        // Said where they are: checkpoints from before there was such a thing are gone on from.
        let spread = if expert > 1 { format!(", expert {expert}") } else { String::new() };
        let data = trial.learning.as_ref().map(|l| l.data.identity());
        let digest = Sha256::digest(serde_json::json!(data).to_string().as_bytes());
        Self {
            trial: trial.id(),
            model: trial.model.clone(),
            data: digest.iter().take(6).map(|b| format!("{b:02x}")).collect(),
            seed: request.measure.seed,
            devices: trial.devices,
            parallel: format!("data {replicas}, tensor {tensor}, pipeline {pipeline}{spread}, sharding {sharding}"),
        }
    }

    /// Of a launch with this seed of some trial.
    #[cfg(test)]
    pub(super) fn of_test(seed: u64) -> Self {
        let [trial, model, data] = ["1a2b", "gpt2 1x32", "77"].map(String::from);
        Self {
            trial,
            model,
            data,
            seed,
            devices: 2,
            parallel: "data 2, tensor 1, pipeline 1, sharding gradients".into(),
        }
    }

    /// A few bits of it, for who only has to know his own again.
    pub(super) fn digest(&self) -> u32 {
        crc32fast::hash(serde_json::json!(self).to_string().as_bytes())
    }

    /// What another one has that this one has not.
    fn differences(&self, other: &Self) -> Vec<String> {
        let all = [
            ("model", self.model.clone(), other.model.clone()),
            ("data", self.data.clone(), other.data.clone()),
            ("seed", self.seed.to_string(), other.seed.to_string()),
            ("devices", self.devices.to_string(), other.devices.to_string()),
            ("parallel", self.parallel.clone(), other.parallel.clone()),
            ("trial", self.trial.clone(), other.trial.clone()),
        ];
        let differing = all.into_iter().filter(|(_, own, theirs)| own != theirs);
        differing.map(|(what, own, theirs)| format!("{what}: expected {own}, found {theirs}")).collect()
    }
}

impl<N: Serialize> Manifest<N> {
    /// Of a checkpoint that is being made.
    pub(super) fn new(identity: &Identity, notes: N, files: Vec<Written>) -> Self {
        Self { format: FORMAT, identity: identity.clone(), notes, files }
    }

    /// As it stands in its file.
    ///
    /// # Errors
    /// Notes that are no JSON.
    pub(super) fn to_bytes(&self) -> Result<Vec<u8>, String> {
        let json = serde_json::to_string(self).map_err(|e| e.to_string())?;
        Ok(format!("{json}\n{:08x}\n", crc32fast::hash(json.as_bytes())).into_bytes())
    }
}

impl<N: for<'a> Deserialize<'a>> Manifest<N> {
    /// What stands in a file, if it is whole, of this program's form and of this launch.
    ///
    /// # Errors
    /// Which of these it is not.
    pub(super) fn read(bytes: &[u8], own: &Identity) -> Result<Self, Unusable> {
        let damaged = || Unusable::Damaged("its manifest is cut short or damaged".into());
        let text = std::str::from_utf8(bytes).map_err(|_| damaged())?;
        let (json, sum) = text.strip_suffix('\n').and_then(|t| t.split_once('\n')).ok_or_else(damaged)?;
        if sum != format!("{:08x}", crc32fast::hash(json.as_bytes())) {
            return Err(damaged());
        }
        #[derive(Deserialize)]
        struct Head {
            format: u32,
        }
        let head: Head = serde_json::from_str(json).map_err(|_| damaged())?;
        if head.format != FORMAT {
            return Err(Unusable::Foreign(format!("expected form {FORMAT} of a checkpoint, found {}", head.format)));
        }
        let manifest: Self = serde_json::from_str(json).map_err(|_| damaged())?;
        let differences = own.differences(&manifest.identity);
        if differences.is_empty() { Ok(manifest) } else { Err(Unusable::Foreign(differences.join("; "))) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::notes::Notes;
    use super::*;

    fn identity(seed: u64) -> Identity {
        Identity::of_test(seed)
    }

    fn notes() -> Notes {
        let mut notes = Notes { step_seconds: vec![0.1, 1.0 / 3.0], loss: 2.0f64.sqrt(), ..Notes::default() };
        notes.at.step = 2;
        notes
    }

    #[test]
    fn it_comes_back_to_the_bit_and_every_damage_is_noticed() {
        let files = vec![Written { file: "state-0-0.safetensors".into(), bytes: 9, crc32: 7 }];
        let notes = notes();
        let bytes = Manifest::new(&identity(1), &notes, files.clone()).to_bytes().unwrap();
        let back = Manifest::<Notes>::read(&bytes, &identity(1)).unwrap();
        assert_eq!((&back.notes, &back.files), (&notes, &files));
        for at in 0..bytes.len() {
            let mut wrong = bytes.clone();
            wrong[at] ^= 0x02;
            assert!(matches!(Manifest::<Notes>::read(&wrong, &identity(1)), Err(Unusable::Damaged(_))), "{at}");
            assert!(Manifest::<Notes>::read(&bytes[..at], &identity(1)).is_err(), "{at}");
        }
    }

    #[test]
    fn what_differs_is_named() {
        let bytes = Manifest::new(&identity(1), &notes(), vec![]).to_bytes().unwrap();
        let foreign = |own: &Identity| match Manifest::<Notes>::read(&bytes, own) {
            Err(Unusable::Foreign(why)) => why,
            other => panic!("{other:?}"),
        };
        assert_eq!(foreign(&identity(2)), "seed: expected 2, found 1");
        let other = Identity { devices: 1, data: "78".into(), trial: "3c".into(), ..identity(1) };
        assert_eq!(
            foreign(&other),
            "data: expected 78, found 77; devices: expected 1, found 2; trial: expected 3c, found 1a2b"
        );
        let newer = Manifest { format: 2, ..Manifest::new(&identity(1), notes(), vec![]) }.to_bytes().unwrap();
        let said = Manifest::<Notes>::read(&newer, &identity(1)).unwrap_err();
        assert_eq!(said, Unusable::Foreign("expected form 1 of a checkpoint, found 2".into()));
    }
}
