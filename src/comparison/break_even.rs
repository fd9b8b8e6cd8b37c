//! At which price a machine would match another, and from which utilisation an own machine is cheaper than an API.

use super::runs::{RunComparison, geometric};
use crate::cost::metric::Estimate;
use crate::cost::price::{break_even_utilisation, usd_per_million_tokens};
use crate::hardware::api::Api;
use crate::results::run::Run;
use crate::units::{Share, TokensPerSecond, UsdPerHour, UsdPerMillionTokens};

/// What a run's hour may cost so that its tokens cost what another's do.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct BreakEven {
    pub run: usize,
    /// The run that it is to match.
    pub against: usize,
    /// USD an hour now, of the unit that is paid for.
    pub price: f64,
    /// USD an hour at which the geometric mean of the costs over the common trials is the same, with its interval.
    pub break_even: Estimate,
}

/// Every run against the cheapest one over all common trials, and that one against the next. Without a price on every side
/// there is nothing to say of a pair.
pub(crate) fn prices(runs: &[Run], found: &RunComparison) -> Vec<BreakEven> {
    let Some(cheapest) = cheapest_overall(found) else { return vec![] };
    let others = (0..runs.len()).filter(|r| *r != cheapest);
    let mut all: Vec<BreakEven> = others.clone().filter_map(|r| pair(runs, found, r, cheapest)).collect();
    // How far the cheapest could rise before it is not the cheapest.
    let next = all.iter().min_by(|a, b| (a.price / a.break_even.value).total_cmp(&(b.price / b.break_even.value)));
    if let Some(up) = next.map(|n| n.run).and_then(|next| pair(runs, found, cheapest, next)) {
        all.insert(0, up);
    }
    all
}

/// The run whose tokens are cheapest in the geometric mean.
pub(crate) fn cheapest_overall(found: &RunComparison) -> Option<usize> {
    // The first run has ratio 1 to itself.
    let ratio = |t: &super::runs::Total| if t.run == 0 { Some(1.0) } else { Some(t.cost_ratio?.value) };
    let known: Vec<(usize, f64)> = found.totals.iter().filter_map(|t| Some((t.run, ratio(t)?))).collect();
    let priced = found.pairings.first()?.entries.first()?.cost.is_some();
    known.into_iter().filter(|_| priced).min_by(|a, b| a.1.total_cmp(&b.1)).map(|(run, _)| run)
}

fn pair(runs: &[Run], found: &RunComparison, run: usize, against: usize) -> Option<BreakEven> {
    let price = runs.get(run)?.environment.price.usd_per_hour?.get();
    let ratio = geometric(&found.pairings, run, against)?;
    Some(BreakEven { run, against, price, break_even: ratio.decreasing(|r| price / r)? })
}

/// From which utilisation a machine's tokens cost less than an API's.
#[derive(Clone, Debug, PartialEq)]
pub struct AgainstApi<'a> {
    pub run: usize,
    pub record: usize,
    pub api: &'a Api,
    /// USD that the API asks for 1e6 tokens of the kind that the trial makes.
    pub asked: f64,
    /// USD for 1e6 tokens at full use.
    pub at_full_use: f64,
    /// `None`: dearer even if it never idles.
    pub utilisation: Option<Share>,
}

/// One machine's tokens against what an API asks.
pub fn against_api<'a>(
    (run, record): (usize, usize),
    hour: UsdPerHour,
    tokens_per_second: f64,
    api: &'a Api,
    asked: UsdPerMillionTokens,
) -> Option<AgainstApi<'a>> {
    let rate = TokensPerSecond(tokens_per_second);
    let at_full_use = usd_per_million_tokens(hour, rate, Share(1.0)).ok()?.get();
    let utilisation = break_even_utilisation(hour, rate, asked).ok()?;
    Some(AgainstApi { run, record, api, asked: asked.get(), at_full_use, utilisation })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comparison::runs::compare;
    use crate::cost::evaluate::evaluate;
    use crate::cost::metrics::USD_PER_MILLION;
    use crate::fixture;

    #[test]
    fn at_the_break_even_price_costs_are_the_same() {
        let run = fixture::sweep();
        let mut fast = run.clone();
        for f in fast.records.iter_mut().filter_map(|r| r.measurement.figures.as_mut()) {
            f.step_seconds.iter_mut().for_each(|s| *s /= 4.0);
        }
        fast.environment.price.usd_per_hour = UsdPerHour::of(0.5);
        let mut runs = [run, fast];
        let found = prices(&runs, &compare(&runs, fixture::book()));
        // Four times as fast, so it may cost four times 0.0856; it costs 0.5 and has to fall.
        let fall = found.iter().find(|b| b.run == 1).unwrap();
        assert_eq!((fall.against, fall.price), (0, 0.5));
        assert!((fall.break_even.value - 4.0 * 0.0856).abs() < 1e-9, "{fall:?}");
        // And the cheaper one could rise to an eighth of a dollar.
        let rise = found.iter().find(|b| b.run == 0).unwrap();
        assert!((rise.break_even.value - 0.125).abs() < 1e-9, "{rise:?}");
        runs[1].environment.price.usd_per_hour = UsdPerHour::of(fall.break_even.value);
        let cost = |r: &Run| {
            evaluate(r, fixture::book()).iter().filter_map(|f| Some(f.get(&USD_PER_MILLION)?.value.ln())).sum::<f64>()
        };
        assert!((cost(&runs[0]) - cost(&runs[1])).abs() < 1e-9);
    }

    #[test]
    fn without_a_price_there_is_no_break_even() {
        let mut run = fixture::sweep();
        run.environment.price.usd_per_hour = None;
        let runs = [run, fixture::sweep()];
        assert_eq!(prices(&runs, &compare(&runs, fixture::book())), []);
    }

    #[test]
    fn an_api_is_met_at_the_share_of_its_price() {
        let api = &fixture::book().apis[0];
        let asked = UsdPerMillionTokens::of(4.0).unwrap();
        let at = |rate| against_api((0, 0), UsdPerHour::of(3.6).unwrap(), rate, api, asked).unwrap();
        // 1 USD a million at full use is a quarter of 4.
        assert_eq!((at(1000.0).at_full_use, at(1000.0).utilisation), (1.0, Some(Share(0.25))));
        assert_eq!(at(100.0).utilisation, None);
    }
}
