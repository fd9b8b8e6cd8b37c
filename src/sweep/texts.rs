//! What trials are to learn from, made once before the first of them: seeds and cells find it in the cache, and no trial's time holds
//! its making.
//!
//! What is wrong with a text is told by its trials, each in its row.

use crate::data::{Said, Source, prepare};
use crate::plan::PlannedTrial;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

/// What is told meanwhile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// What is under way.
    Stage(String),
    /// What does not work and costs time alone.
    Warning(String),
}

/// Makes what trials read and is not in `cache` yet; an interruption ends the waiting for it.
pub(crate) fn make<'a>(
    trials: impl IntoIterator<Item = &'a PlannedTrial>,
    cache: Option<PathBuf>,
    interrupted: &AtomicBool,
    told: &mut dyn FnMut(Told),
) {
    let mut sources: Vec<Source> = Vec::new();
    for learning in trials.into_iter().filter(|t| t.skip.is_none()).filter_map(|t| t.cell.trial.learning.as_ref()) {
        // The shares of a text are parts of one that is kept.
        let whole = Source { share: 1.0, ..learning.data.clone() };
        if !sources.contains(&whole) {
            sources.push(whole);
        }
    }
    if sources.is_empty() {
        return;
    }
    let Some(cache) = cache else {
        let why = "neither XDG_CACHE_HOME nor HOME is set: every trial makes its text anew";
        return told(Told::Warning(why.into()));
    };
    let (sender, receiver) = channel();
    // A thread of its own, since tokenizing hears no signal. One that is waited for no longer ends with the program.
    std::thread::spawn(move || {
        for source in &sources {
            let _ = prepare(source, Some(&cache), &mut |said| {
                let _ = sender.send(match said {
                    Said::Stage(what) => Told::Stage(what.into()),
                    Said::Warning(what) => Told::Warning(what.into()),
                });
            });
        }
    });
    loop {
        match receiver.recv_timeout(Duration::from_millis(50)) {
            Ok(what) => told(what),
            Err(RecvTimeoutError::Timeout) if interrupted.load(Ordering::Relaxed) => return,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Language, Tokenizer, What};
    use crate::fixture;
    use crate::scenario::learning::{Decay, Eval, Learning, Schedule, Until};
    use crate::{Cell, Seconds};

    fn trial(seed: u64, share: f64, skip: Option<&str>) -> PlannedTrial {
        let language = Language { vocabulary: 64, tokens: 5000, seed };
        let source = Source { share, ..Source::new(What::Synthetic(language), Tokenizer::Bytes) };
        let mut trial = fixture::trial(256, 4, 1, 1);
        trial.learning = Some(Learning {
            data: source.seal(std::path::Path::new("")).unwrap(),
            schedule: Schedule { rate: 1e-3, warmup: 1, decay: Decay::Cosine, floor: 0.1, weight_decay: None },
            until: Until { validation_loss: None, tokens: Some(1000), seconds: None },
            eval: Eval { every: 10, tokens: 1024 },
            checkpoint: None,
        });
        let cell: Cell = fixture::cell(trial, &[]);
        let memory = fixture::predicted(&cell.trial.workload);
        PlannedTrial {
            id: cell.trial.id(),
            cell,
            cell_index: 0,
            run_order: 0,
            parameters: 0,
            active_parameters: 0,
            flops_per_step: crate::Flops(0),
            memory,
            estimate: Seconds(1.0),
            skip: skip.map(String::from),
        }
    }

    #[test]
    fn what_several_trials_read_is_made_once_and_what_is_skipped_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let trials = [trial(1, 1.0, None), trial(1, 0.5, None), trial(2, 1.0, None), trial(3, 1.0, Some("too large"))];
        let mut said = Vec::new();
        let go = AtomicBool::new(false);
        let make = |said: &mut Vec<Told>| make(&trials, Some(folder.path().into()), &go, &mut |t| said.push(t));
        make(&mut said);
        let drawing = Told::Stage("drawing a synthetic language".into());
        assert_eq!(said, [drawing.clone(), drawing]);
        let kept = || std::fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(kept(), 2);
        said.clear();
        make(&mut said);
        assert_eq!((said, kept()), (vec![], 2));
    }

    #[test]
    fn without_a_cache_it_is_said_once_and_trials_that_learn_nothing_need_none() {
        let (mut said, go) = (Vec::new(), AtomicBool::new(false));
        make(&[trial(1, 1.0, None)], None, &go, &mut |t| said.push(t));
        assert!(matches!(said.as_slice(), [Told::Warning(_)]), "{said:?}");
        let mut plain = trial(1, 1.0, None);
        plain.cell.trial.learning = None;
        make(&[plain], None, &go, &mut |t| said.push(t));
        assert_eq!(said.len(), 1);
    }
}
