//! Where the money of a token goes: the time of a step by kind of operation, and how near each kind is to what the machine can do.

use super::metric::Context;
use super::metrics::{USD_PER_MILLION, limits};
use crate::runner::traced::profile::Profile;
use crate::transformer::trace::Kind;

/// What one kind of operation takes of a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spent {
    /// `None`: what no operation took.
    pub kind: Option<Kind>,
    /// Of the step's time.
    pub share: f64,
    pub seconds: f64,
    /// Its share of the cost of a million tokens.
    pub usd: Option<f64>,
    /// All devices together, where it computes.
    pub flops_per_second: Option<f64>,
    pub bytes_per_second: Option<f64>,
    /// How long it would take at the machine's limits, whichever binds each operation, as a share of what it takes.
    pub of_limit: Option<f64>,
}

/// The kinds that there are, in the order of their definition, and what is left of the step. `None` for a trial that was not profiled.
pub(crate) fn spent(c: &Context) -> Option<Vec<Spent>> {
    let profile = c.figures()?.profile.as_ref()?;
    let (usd, limits) = ((USD_PER_MILLION.compute)(c).map(|e| e.value), limits(c));
    let kinds = Kind::ALL.iter().filter_map(|&kind| of_kind(profile, kind, usd, limits));
    let mut all: Vec<Spent> = kinds.collect();
    let rest = 1.0 - all.iter().map(|s| s.share).sum::<f64>();
    all.push(Spent {
        kind: None,
        share: rest,
        seconds: rest * profile.step_seconds,
        usd: usd.map(|u| u * rest),
        flops_per_second: None,
        bytes_per_second: None,
        of_limit: None,
    });
    Some(all)
}

fn of_kind(profile: &Profile, kind: Kind, usd: Option<f64>, limits: Option<(f64, f64)>) -> Option<Spent> {
    let parts: Vec<_> = profile.parts.iter().filter(|p| p.kind == kind).collect();
    let sum = |of: &dyn Fn(&&&crate::runner::traced::profile::Part) -> f64| parts.iter().map(|p| of(&p)).sum::<f64>();
    let seconds = sum(&|p| p.seconds);
    let (flops, bytes) = (sum(&|p| p.flops), sum(&|p| p.bytes));
    let rate = |amount: f64| (amount > 0.0 && seconds > 0.0).then(|| amount / seconds);
    let least = |(peak, bandwidth): (f64, f64)| sum(&|p| (p.flops / peak).max(p.bytes / bandwidth));
    let share = seconds / profile.step_seconds;
    (!parts.is_empty()).then(|| Spent {
        kind: Some(kind),
        share,
        seconds,
        usd: usd.map(|u| u * share),
        flops_per_second: rate(flops),
        bytes_per_second: rate(bytes),
        of_limit: limits.and_then(|l| rate(least(l))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;
    use crate::runner::traced::profile::Part;

    #[test]
    fn shares_add_up_to_the_step_and_its_cost() {
        let mut run = fixture::heads();
        let part = |kind, name: &str, seconds, flops, bytes| Part {
            kind,
            name: name.into(),
            seconds,
            flops,
            bytes,
            calls: 1.0,
        };
        let (peak, bandwidth) = limits(&Context::of(&run, &run.records[0], fixture::book())).unwrap();
        let parts = vec![
            // At half the machine's FLOP/s, and at a fifth of its bandwidth.
            part(Kind::Product, "linear", 0.4, 0.2 * peak, 1.0),
            part(Kind::Product, "linear_dw", 0.2, 0.1 * peak, 1.0),
            part(Kind::Norm, "norm", 0.1, 0.0, 0.02 * bandwidth),
        ];
        let profile = Profile { steps: 3, step_seconds: 1.0, overhead: Some(0.001), parts };
        run.records[0].measurement.figures.as_mut().unwrap().profile = Some(profile);
        let context = Context::of(&run, &run.records[0], fixture::book());
        let all = spent(&context).unwrap();
        assert_eq!(all.iter().map(|s| s.kind).collect::<Vec<_>>(), [Some(Kind::Product), Some(Kind::Norm), None]);
        assert!((all.iter().map(|s| s.share).sum::<f64>() - 1.0).abs() < 1e-12);
        let usd = (USD_PER_MILLION.compute)(&context).unwrap().value;
        assert!((all.iter().filter_map(|s| s.usd).sum::<f64>() / usd - 1.0).abs() < 1e-12);
        let of = |i: usize| all[i].of_limit.unwrap();
        assert!((of(0) - 0.5).abs() < 1e-9 && (of(1) - 0.2).abs() < 1e-9, "{} {}", of(0), of(1));
        assert!(all[1].flops_per_second.is_none() && all[2].of_limit.is_none());
        assert_eq!(spent(&Context::of(&run, &run.records[1], fixture::book())), None);
    }
}
