//! What the watch of several trials says of the machine they ran on: one judgement for runs, reports and the doctor.

use super::Disturbance;
use crate::units::Share;

/// Of some trials or launches.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Judged {
    /// Of how many the system told whether they were disturbed.
    pub watched: usize,
    pub disturbed: usize,
    /// The one furthest above what is allowed, or nearest to it.
    pub worst: Option<Disturbance>,
    /// All of them together.
    pub together: Option<Disturbance>,
}

impl Judged {
    pub(crate) fn of<'a>(all: impl Iterator<Item = &'a Disturbance>) -> Self {
        let mut judged = Self::default();
        for d in all {
            let Some(disturbed) = d.disturbed() else { continue };
            judged.watched += 1;
            judged.disturbed += usize::from(disturbed);
            if judged.worst.as_ref().is_none_or(|w| d.excess() > w.excess()) {
                judged.worst = Some(d.clone());
            }
            judged.together = Some(judged.together.as_ref().map_or_else(|| d.clone(), |all| all.and_then(d)));
        }
        judged
    }

    /// The same for a line of a table.
    pub(crate) fn in_short(&self, what: &str) -> String {
        match &self.worst {
            None => format!("the system does not tell whether others disturbed the {what}"),
            Some(_) if self.disturbed == 0 => format!("others disturbed none of {} {what}", self.watched),
            Some(worst) => format!(
                "others disturbed {} of {} {what}; the worst: {}",
                self.disturbed,
                self.watched,
                worst.in_words()
            ),
        }
    }

    /// A sentence; what was watched, one and many: a trial, trials.
    pub(crate) fn in_words(&self, one: &str, what: &str) -> String {
        let Some(worst) = &self.worst else {
            return format!("Whether others disturbed the {what} is not known: the system does not tell.");
        };
        let bounds = format!(
            "a {one} is disturbed when it lost more than {} of its time or others used more than {} of the CPU time",
            Share(worst.bounds.lost),
            Share(worst.bounds.others)
        );
        match self.disturbed {
            0 => {
                let most = worst
                    .lost()
                    .map_or(String::new(), |l| format!(": the worst of {} lost {}", self.watched, Share(l)));
                format!("The machine was quiet while the {what} ran{most} ({bounds}).")
            }
            n => format!(
                "Others on the machine disturbed {n} of {} {what} ({bounds}); the worst: {}.",
                self.watched,
                worst.in_words()
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_is_as_quiet_as_the_worst_of_its_trials() {
        let of = |waited| Disturbance { seconds: 1.0, waited: Some(waited), ..Disturbance::default() };
        let quiet = Judged::of([of(0.001), of(0.004)].iter());
        assert_eq!((quiet.watched, quiet.disturbed), (2, 0));
        assert!(
            quiet
                .in_words("trial", "trials")
                .starts_with("The machine was quiet while the trials ran: the worst of 2 lost 0.4 % (")
        );
        let busy = Judged::of([of(0.001), of(0.4), of(0.1), Disturbance::default()].iter());
        assert_eq!((busy.watched, busy.disturbed), (3, 2));
        let said = busy.in_words("launch", "launches");
        assert!(
            said.starts_with("Others on the machine disturbed 2 of 3 launches (a launch is disturbed when it lost"),
            "{said}"
        );
        assert!(said.ends_with("the worst: 40.0 % lost waiting for a core."), "{said}");
        assert_eq!(
            busy.in_short("launches"),
            "others disturbed 2 of 3 launches; the worst: 40.0 % lost waiting for a core"
        );
        assert_eq!(quiet.in_short("trials"), "others disturbed none of 2 trials");
        assert!((busy.together.unwrap().waited.unwrap() - 0.167).abs() < 1e-3);
        assert!(Judged::of([Disturbance::default()].iter()).in_words("trial", "trials").contains("is not known"));
    }
}
