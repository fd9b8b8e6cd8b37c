//! Whether a program learns worse than another, whatever its steps take.

use super::launch::{Launch, to_loss};
use crate::plan::PlannedTrial;
use crate::stats::median;
use crate::units::{Share, significant};

/// A loss that is higher by more than this share, in the median of all pairs, is one that was learnt worse.
const TOLERANCE: f64 = 0.01;

/// What the head learns worse, if it does: it does not get to a loss that the baseline gets to, or ends at a higher one.
pub(super) fn worse(trial: &PlannedTrial, base: &[Launch], head: &[Launch]) -> Option<String> {
    let learning = trial.cell.trial.learning.as_ref()?;
    if to_loss(trial) {
        let target = learning.until.validation_loss?;
        let there =
            |all: &[Launch]| all.iter().filter(|l| l.figures.learned.iter().all(|l| l.target.is_some())).count();
        let (before, now) = (there(base), there(head));
        return (2 * before > base.len() && 2 * now <= head.len()).then(|| {
            format!(
                "a validation loss of {target} is reached by {before} of {} launches before, {now} of {} now",
                base.len(),
                head.len()
            )
        });
    }
    let end = |l: &Launch| l.figures.learned.first().map(|l| l.end.loss);
    let loss = |all: &[Launch]| median(&all.iter().filter_map(end).collect::<Vec<_>>());
    let (before, now) = (loss(base)?, loss(head)?);
    (now > before * (1.0 + TOLERANCE)).then(|| {
        let [before, now] = [before, now].map(|loss| significant(loss, 4));
        format!("validation loss at the end: {before} before, {now} now, over {} more", Share(TOLERANCE))
    })
}
