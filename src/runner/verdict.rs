//! How a trial ended, from what was heard and seen of its process. Pure: every ending is a row, none is an error.

use super::measurement::{Figures, Status};
use super::protocol::{Fault, Progress, Stage};
use std::process::ExitStatus;

/// Characters of stderr that a reason quotes.
const QUOTED: usize = 300;

/// Why the parent ended the process itself.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Cut {
    Cancelled,
    /// After so many seconds.
    Timeout(f64),
    /// It said something that is no message: this.
    Garbage(String),
    /// What became of another process of the trial.
    Others(Status, String),
}

/// Everything that was observed.
#[derive(Clone, Debug)]
pub(super) struct Ending {
    pub cut: Option<Cut>,
    pub done: Option<Figures>,
    pub failed: Option<(Fault, String)>,
    /// `None` when the system did not tell.
    pub exit: Option<ExitStatus>,
    pub stderr: String,
    /// The kernel killed somebody for want of memory while the trial ran.
    pub oom_killed: bool,
    pub last: Progress,
}

/// The status, the reason (empty when ok), and the figures (present exactly when ok).
pub(super) fn judge(ending: Ending) -> (Status, String, Option<Figures>) {
    let (status, reason) = match (&ending.cut, &ending.failed, ending.exit) {
        (Some(cut), ..) => judge_cut(cut, &ending.last),
        (None, Some((Fault::Oom, reason)), _) => (Status::Oom, reason.clone()),
        (None, Some((Fault::Device, reason)), _) => (Status::Crashed, one_line(reason)),
        (None, Some((Fault::Invalid, reason)), _) => (Status::Invalid, reason.clone()),
        (None, Some((Fault::Diverged, reason)), _) => (Status::Diverged, reason.clone()),
        (None, Some((Fault::Lost, reason)), _) => (Status::Crashed, reason.clone()),
        (None, None, Some(exit)) if !exit.success() => judge_exit(exit, &ending),
        (None, None, None) => (Status::Crashed, "nobody knows how the trial's process ended".into()),
        (None, None, Some(_)) => match ending.done {
            Some(figures) if trustworthy(&figures) => return (Status::Ok, String::new(), Some(figures)),
            Some(_) => (Status::Invalid, "the trial's process sent figures that no clock can give".into()),
            None => (Status::Invalid, with_quote("the trial's process ended without a result", &ending.stderr)),
        },
    };
    (status, reason, None)
}

fn judge_cut(cut: &Cut, last: &Progress) -> (Status, String) {
    match cut {
        Cut::Cancelled => (Status::Cancelled, format!("interrupted while {}", doing(last))),
        Cut::Timeout(seconds) => {
            let doing = doing(last);
            (Status::Timeout, format!("not finished after {seconds} s, while {doing}; raise measure.timeout_seconds"))
        }
        Cut::Others(status, reason) => (*status, reason.clone()),
        Cut::Garbage(said) => {
            (Status::Invalid, format!("the trial's process said something that is no message: {}", first_words(said)))
        }
    }
}

fn doing(last: &Progress) -> String {
    match last.stage {
        Stage::Preparing => last.stage.name().into(),
        Stage::WarmUp | Stage::Measuring | Stage::Learning | Stage::Waiting => {
            format!("{} (step {})", last.stage.name(), last.steps)
        }
    }
}

fn judge_exit(exit: ExitStatus, ending: &Ending) -> (Status, String) {
    // What Rust's allocation error handler prints before it aborts; drawing a backtrace may run out of memory in turn.
    if let Some(line) = ending.stderr.lines().find(|l| l.starts_with("memory allocation of ")) {
        return (Status::Oom, quote(line));
    }
    match signal(exit) {
        Some(9) if ending.oom_killed => (Status::Oom, "killed by the kernel, which was out of memory".into()),
        _ => (Status::Crashed, exited(exit, &ending.stderr)),
    }
}

/// How a process ended badly, with the end of what it said.
pub(super) fn exited(exit: ExitStatus, stderr: &str) -> String {
    let how = match (signal(exit), exit.code()) {
        (Some(number), _) => format!("killed by signal {number}{}", signal_name(number)),
        (None, Some(code)) => format!("exited with code {code}"),
        (None, None) => "ended abnormally".into(),
    };
    with_quote(&how, stderr)
}

#[cfg(unix)]
fn signal(exit: ExitStatus) -> Option<i32> {
    std::os::unix::process::ExitStatusExt::signal(&exit)
}

#[cfg(not(unix))]
fn signal(_: ExitStatus) -> Option<i32> {
    None
}

fn signal_name(number: i32) -> &'static str {
    match number {
        1 => " (SIGHUP)",
        2 => " (SIGINT)",
        4 => " (SIGILL: an instruction that this machine does not have)",
        6 => " (SIGABRT)",
        7 => " (SIGBUS)",
        8 => " (SIGFPE)",
        9 => " (SIGKILL)",
        11 => " (SIGSEGV)",
        13 => " (SIGPIPE)",
        15 => " (SIGTERM)",
        24 => " (SIGXCPU: a limit on processor time)",
        _ => "",
    }
}

/// Whether figures can have come from a measurement at all.
fn trustworthy(figures: &Figures) -> bool {
    let positive = |s: &[f64]| s.iter().all(|x| x.is_finite() && *x > 0.0);
    let firsts = figures.first_token_seconds.len();
    !figures.step_seconds.is_empty()
        && positive(&figures.step_seconds)
        && positive(&figures.first_token_seconds)
        && (firsts == 0 || firsts == figures.step_seconds.len())
        && figures.tokens_per_step > 0
}

fn with_quote(how: &str, stderr: &str) -> String {
    let said = quote(stderr);
    if said.is_empty() { how.into() } else { format!("{how}; it said: {said}") }
}

/// The end of a text in one line.
fn quote(text: &str) -> String {
    let line = one_line(text);
    let surplus = line.chars().count().saturating_sub(QUOTED);
    if surplus == 0 { line } else { format!("... {}", line.chars().skip(surplus).collect::<String>()) }
}

/// The beginning of a text in one line.
fn first_words(text: &str) -> String {
    let line = one_line(text);
    if line.chars().count() <= QUOTED { line } else { format!("{} ...", line.chars().take(QUOTED).collect::<String>()) }
}

/// A text without line ends and control characters.
fn one_line(text: &str) -> String {
    let words = text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|w| !w.is_empty());
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(all(test, unix))]
mod tests {
    use super::super::measurement::Stop;
    use super::*;
    use std::os::unix::process::ExitStatusExt;

    fn figures(step_seconds: Vec<f64>) -> Figures {
        Figures {
            step_seconds,
            first_token_seconds: vec![],
            launches: vec![],
            warmup_steps: 1,
            tokens_per_step: 8,
            stopped_by: Stop::Precision,
            precision_reached: Some(0.01),
            peak_rss_bytes: 2,
            baseline_rss_bytes: 1,
            peak_allocated_bytes: 1,
            device_memory: None,
            expert_loads: None,
            loss: None,
            checksum: 0,
            quantization_loss: None,
            steal_share: None,
            watts: None,
            telemetry: None,
            machine_rates: Vec::new(),
            disturbance: None,
            served: vec![],
            profile: None,
            learned: vec![],
            first_allocated_bytes: None,
        }
    }

    /// `raw` as wait(2) gives it: the signal, or the exit code times 256.
    fn ending(raw: i32) -> Ending {
        Ending {
            cut: None,
            done: None,
            failed: None,
            exit: Some(ExitStatus::from_raw(raw)),
            stderr: String::new(),
            oom_killed: false,
            last: Progress::START,
        }
    }

    fn verdict(ending: Ending) -> (Status, String) {
        let (status, reason, figures) = judge(ending);
        assert_eq!(figures.is_some(), status == Status::Ok);
        assert_eq!(reason.is_empty(), status == Status::Ok);
        (status, reason)
    }

    #[test]
    fn sigkill_is_a_crash_without_evidence_and_oom_with_it() {
        assert_eq!(verdict(ending(9)), (Status::Crashed, "killed by signal 9 (SIGKILL)".into()));
        assert_eq!(verdict(Ending { oom_killed: true, ..ending(9) }).0, Status::Oom);
        assert_eq!(verdict(Ending { oom_killed: true, ..ending(11) }).0, Status::Crashed);
    }

    #[test]
    fn an_allocator_that_gives_up_is_oom() {
        let stderr = "noise\nmemory allocation of 4096 bytes failed\n".to_string();
        let expected = (Status::Oom, "memory allocation of 4096 bytes failed".to_string());
        assert_eq!(verdict(Ending { stderr, ..ending(6) }), expected);
    }

    #[test]
    fn an_exit_code_is_a_crash_that_quotes_the_end_of_stderr_in_one_line() {
        let stderr = format!("{}\n\u{1b}[31mboom\u{7}\n", "x".repeat(1000));
        let (status, reason) = verdict(Ending { stderr, ..ending(7 << 8) });
        assert_eq!(status, Status::Crashed);
        assert!(reason.starts_with("exited with code 7; it said: ... xxx") && reason.ends_with("[31mboom"), "{reason}");
        assert!(reason.len() < 400 && !reason.contains(char::is_control));
    }

    #[test]
    fn a_device_that_failed_is_a_crash_with_its_own_words() {
        let said = "NVIDIA H100: waiting: cuStreamSynchronize: CUDA_ERROR_LAUNCH_FAILED\n(unspecified launch failure)";
        let failed = Some((Fault::Device, said.to_string()));
        let expected = (Status::Crashed, said.replace('\n', " "));
        assert_eq!(verdict(Ending { failed: failed.clone(), ..ending(0) }), expected);
        // However the process ended after having said so.
        assert_eq!(verdict(Ending { failed, ..ending(11) }), expected);
    }

    #[test]
    fn figures_count_only_when_the_process_then_ended_well() {
        let good = figures(vec![0.1]);
        assert_eq!(verdict(Ending { done: Some(good.clone()), ..ending(0) }).0, Status::Ok);
        assert_eq!(verdict(Ending { done: Some(good.clone()), ..ending(11) }).0, Status::Crashed);
        assert_eq!(verdict(Ending { done: Some(good), cut: Some(Cut::Cancelled), ..ending(9) }).0, Status::Cancelled);
        assert_eq!(verdict(ending(0)).0, Status::Invalid);
    }

    #[test]
    fn figures_that_no_clock_can_give_are_invalid() {
        for steps in [vec![], vec![0.0], vec![-1.0], vec![f64::NAN], vec![0.1, f64::INFINITY]] {
            assert_eq!(verdict(Ending { done: Some(figures(steps)), ..ending(0) }).0, Status::Invalid);
        }
    }

    #[test]
    fn a_timeout_says_how_far_it_got_and_what_to_change() {
        let last = Progress { stage: Stage::WarmUp, steps: 12, ..Progress::START };
        let (status, reason) = verdict(Ending { cut: Some(Cut::Timeout(5.0)), last, ..ending(9) });
        assert_eq!(status, Status::Timeout);
        assert_eq!(reason, "not finished after 5 s, while warming up (step 12); raise measure.timeout_seconds");
    }
}
