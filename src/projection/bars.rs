//! Error bars for a source that nobody has seen.
//!
//! Errors of one source go together, so that a bar that holds new rows of known sources does not hold a new source. A bar is
//! a quantile over sources, each counting as one, of errors over a scale: the scale is a product of what makes errors large
//! ([`super::traits`]), and the quantile is that of a source which is exchangeable with those that were seen (conformal
//! prediction over groups: Dunn, Wasserman and Ramdas 2022, "Distribution-free prediction sets for two-layer hierarchical
//! models"), which few sources make higher. The variance between sources and within them ([`Effects`]) says how much one's
//! own measurements narrow it.

use super::published::{Group, Quantity};
use super::traits::{TRAITS, Traits};

/// A prediction's error whose source took no part in it.
#[derive(Clone, Debug, PartialEq)]
pub struct Erred<'a> {
    pub source: &'a str,
    pub quantity: Quantity,
    /// ln(predicted / published).
    pub error: f64,
    pub traits: Traits,
}

/// Standard deviations of errors: of a source's own part, and of its rows about it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Effects {
    pub between: f64,
    pub within: f64,
}

/// The bar of a group of quantities.
#[derive(Clone, Debug, PartialEq)]
pub struct Bar {
    pub group: Group,
    pub sources: usize,
    /// Half width in ln of a row without any trait.
    pub half: f64,
    /// ln of what each trait multiplies it by.
    pub factors: Traits,
    pub effects: Effects,
}

/// Bars of all groups.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Bars(pub Vec<Bar>);

/// What a bar is to hold.
pub(crate) const LEVEL: f64 = 0.9;
/// How far a trait is taken to widen bars before data speak (in ln), and how far data may move that.
const PRIOR_FACTOR: f64 = 0.3;
const PRIOR_SPREAD: f64 = 0.5;
/// No bar is narrower.
const LEAST: f64 = 0.05;

impl Bars {
    /// The half width in ln for these traits.
    pub fn half(&self, quantity: Quantity, traits: &Traits) -> Option<f64> {
        let bar = self.of(quantity)?;
        Some((bar.half * scale(&bar.factors, traits)).max(LEAST))
    }

    pub fn of(&self, quantity: Quantity) -> Option<&Bar> {
        self.0.iter().find(|b| b.group == quantity.group())
    }

    /// Shares of a 90 % bar's half width that hold other shares of the same errors.
    pub fn shares<const N: usize>(&self, errors: &[Erred], levels: [f64; N]) -> [f64; N] {
        let own: Vec<(f64, f64)> = errors
            .iter()
            .filter_map(|e| {
                let rows =
                    errors.iter().filter(|o| o.source == e.source && o.quantity.group() == e.quantity.group()).count();
                Some((e.error.abs() / self.half(e.quantity, &e.traits)?, 1.0 / rows as f64))
            })
            .collect();
        let (values, weights): (Vec<f64>, Vec<f64>) = own.into_iter().unzip();
        let at = |level: f64| quantile(&values, &weights, level, weights.iter().sum());
        let last = at(LEVEL).max(f64::MIN_POSITIVE);
        levels.map(|level| at(level) / last)
    }

    /// From errors of sources that took no part in their predictions.
    pub fn from_errors(errors: &[Erred]) -> Self {
        let all = Group::ALL.into_iter().filter_map(|group| {
            let own: Vec<&Erred> = errors.iter().filter(|e| e.quantity.group() == group).collect();
            bar(group, &own)
        });
        Self(all.collect())
    }
}

fn scale(factors: &Traits, traits: &Traits) -> f64 {
    factors.iter().zip(traits).map(|(f, t)| f * t).sum::<f64>().exp()
}

fn bar(group: Group, errors: &[&Erred]) -> Option<Bar> {
    let mut sources: Vec<&str> = errors.iter().map(|e| e.source).collect();
    sources.sort_unstable();
    sources.dedup();
    if sources.is_empty() {
        return None;
    }
    let weights: Vec<f64> =
        errors.iter().map(|e| 1.0 / errors.iter().filter(|o| o.source == e.source).count() as f64).collect();
    let factors = factors(errors, &weights);
    let over: Vec<f64> = errors.iter().map(|e| e.error.abs() / scale(&factors, &e.traits)).collect();
    let half = quantile(&over, &weights, LEVEL, sources.len() as f64);
    Some(Bar { group, sources: sources.len(), half, factors, effects: effects(errors, &sources) })
}

/// The weighted quantile of a new one of `sources` sources: of (sources + 1) parts, the new one's is beyond all others.
fn quantile(values: &[f64], weights: &[f64], level: f64, sources: f64) -> f64 {
    let mut sorted: Vec<(f64, f64)> = values.iter().copied().zip(weights.iter().copied()).collect();
    sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
    let total: f64 = weights.iter().sum();
    let level = level * (sources + 1.0) / sources;
    let mut sum = 0.0;
    let found = sorted.iter().find(|(_, w)| {
        sum += w;
        sum >= level * total
    });
    let largest = sorted.last().map_or(0.0, |(v, _)| *v);
    // Too few sources to say: beyond the largest, by as much as they are too few.
    found.map_or_else(|| largest * level.max(1.0), |(v, _)| *v)
}

/// What each trait multiplies an error by: the likelihood of errors that are Laplace-distributed with that scale, with a prior.
/// Coordinates in turn, in steps that shrink; nine numbers, and no derivative to get wrong.
fn factors(errors: &[&Erred], weights: &[f64]) -> Traits {
    let mut at = [PRIOR_FACTOR; TRAITS];
    let loss = |f: &Traits| {
        let (mut sum, mut logs, mut total) = (0.0, 0.0, 0.0);
        for (e, w) in errors.iter().zip(weights) {
            let s = scale(f, &e.traits);
            sum += w * e.error.abs() / s;
            logs += w * s.ln();
            total += w;
        }
        // The scale of all is what fits best; it drops out of the likelihood as the logarithm of the mean.
        let likelihood = total * (sum / total).max(1e-9).ln() + logs;
        likelihood + f.iter().map(|x| ((x - PRIOR_FACTOR) / PRIOR_SPREAD).powi(2) / 2.0).sum::<f64>()
    };
    let mut best = loss(&at);
    let mut step = 0.4;
    while step > 0.02 {
        let mut moved = false;
        for i in 0..TRAITS {
            for way in [step, -step] {
                let mut next = at;
                next[i] += way;
                let found = loss(&next);
                if found < best - 1e-9 {
                    (at, best, moved) = (next, found, true);
                }
            }
        }
        if !moved {
            step /= 2.0;
        }
    }
    at
}

/// By moments, of sources that have two rows and more; errors beyond 1 (in ln) count as 1.
fn effects(errors: &[&Erred], sources: &[&str]) -> Effects {
    let (mut within, mut degrees, mut means) = (0.0, 0.0, Vec::new());
    for source in sources {
        let own: Vec<f64> = errors.iter().filter(|e| e.source == *source).map(|e| e.error.clamp(-1.0, 1.0)).collect();
        let n = own.len() as f64;
        let mean = own.iter().sum::<f64>() / n;
        // Large sources count as much as the root of their rows.
        let weight = n.sqrt() / n;
        within += weight * own.iter().map(|e| (e - mean).powi(2)).sum::<f64>();
        degrees += weight * (n - 1.0);
        means.push((mean, n));
    }
    let within = if degrees > 0.0 { within / degrees } else { 0.04 };
    let k = means.len() as f64;
    let square = means.iter().map(|(m, _)| m * m).sum::<f64>() / k;
    let by_rows = means.iter().map(|(_, n)| within / n).sum::<f64>() / k;
    Effects { between: (square - by_rows).max(0.25 * square).sqrt().max(0.02), within: within.sqrt().max(0.02) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SplitMix64 (Steele, Lea and Flood 2014).
    struct SplitMix64(u64);

    impl SplitMix64 {
        fn new(seed: u64) -> Self {
            Self(seed)
        }

        fn next_f64(&mut self) -> f64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.0;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
        }
    }

    /// A standard normal by the sum of twelve.
    fn normal(random: &mut SplitMix64) -> f64 {
        (0..12).map(|_| random.next_f64()).sum::<f64>() - 6.0
    }

    fn made(random: &mut SplitMix64, source: &'static str, rows: usize, widened: f64) -> Vec<Erred<'static>> {
        let own = 0.2 * normal(random);
        (0..rows)
            .map(|i| {
                let trait_there = f64::from(u8::from(i % 2 == 0));
                let mut traits = [0.0; TRAITS];
                traits[0] = trait_there;
                let error = (own + 0.1 * normal(random)) * (widened * trait_there).exp();
                Erred { source, quantity: Quantity::DecodeTokens, error, traits }
            })
            .collect()
    }

    const NAMED: [&str; 24] = [
        "a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p", "q", "r", "s", "t", "u", "v",
        "w", "x",
    ];

    #[test]
    fn a_new_source_is_held_nine_times_of_ten() {
        let mut random = SplitMix64::new(7);
        let (mut inside, mut all) = (0.0, 0.0);
        for _ in 0..200 {
            let seen: Vec<Erred> = NAMED.iter().flat_map(|s| made(&mut random, s, 6, 0.7)).collect();
            let bars = Bars::from_errors(&seen);
            for e in made(&mut random, "new", 6, 0.7) {
                all += 1.0;
                inside += f64::from(u8::from(e.error.abs() <= bars.half(e.quantity, &e.traits).unwrap()));
            }
        }
        let held = inside / all;
        // 1,200 rows of 200 sources: a standard error of about 2 %.
        assert!((0.86..0.97).contains(&held), "{held}");
    }

    #[test]
    fn what_widens_errors_widens_bars_and_few_sources_do_too() {
        let mut random = SplitMix64::new(3);
        let many: Vec<Erred> = NAMED.iter().flat_map(|s| made(&mut random, s, 10, 1.0)).collect();
        let bars = Bars::from_errors(&many);
        let mut with = [0.0; TRAITS];
        let plain = bars.half(Quantity::DecodeTokens, &with).unwrap();
        with[0] = 1.0;
        let wide = bars.half(Quantity::DecodeTokens, &with).unwrap();
        assert!(wide / plain > 1.6, "{wide} {plain}");
        let few: Vec<Erred> = many.iter().filter(|e| ["a", "b", "c"].contains(&e.source)).cloned().collect();
        let largest = few.iter().map(|e| e.error.abs() / if e.traits[0] > 0.0 { 2.7 } else { 1.0 }).fold(0.0, f64::max);
        let bars = Bars::from_errors(&few);
        assert!(bars.half(Quantity::DecodeTokens, &[0.0; TRAITS]).unwrap() > 0.8 * largest);
        assert_eq!(bars.half(Quantity::TrainingTokens, &[0.0; TRAITS]), None);
    }

    #[test]
    fn a_source_s_own_part_is_told_from_its_rows() {
        let mut random = SplitMix64::new(11);
        let errors: Vec<Erred> = NAMED.iter().flat_map(|s| made(&mut random, s, 40, 0.0)).collect();
        let e = Bars::from_errors(&errors).0[0].effects;
        assert!((e.within - 0.1).abs() < 0.02 && (e.between - 0.2).abs() < 0.08, "{e:?}");
    }
}
