//! Money and the law: what size and how many tokens a budget buys the lowest loss with, and the least that a loss costs.

use super::Law;
use super::draws::Draw;

/// USD for a token of training by the model's size, as measured or projected at some sizes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Rate {
    /// ln N and ln USD, by size, one each.
    nodes: Vec<(f64, f64)>,
    /// Standard deviation in ln of all of it together.
    spread: f64,
}

/// A model and its training.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub(crate) struct Training {
    pub parameters: f64,
    pub tokens: f64,
    pub loss: f64,
    pub usd: f64,
}

/// How far beyond the sizes of the runs the best one is looked for.
const BEYOND: f64 = 1e4;
/// Sizes that are tried before the best of them is refined.
const TRIED: usize = 120;

impl Rate {
    /// From sizes and USD a token; several of one size count as their geometric mean. `None` without any.
    pub(crate) fn of(seen: impl Iterator<Item = (f64, f64)>, spread: f64) -> Option<Self> {
        let mut all: Vec<(f64, f64)> = seen.map(|(n, usd)| (n.ln(), usd.ln())).collect();
        all.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut nodes: Vec<(f64, f64)> = Vec::new();
        for same in all.chunk_by(|a, b| a.0 == b.0) {
            nodes.push((same[0].0, same.iter().map(|s| s.1).sum::<f64>() / same.len() as f64));
        }
        let sound = nodes.iter().all(|(n, usd)| n.is_finite() && usd.is_finite());
        (!nodes.is_empty() && sound).then_some(Self { nodes, spread })
    }

    /// Straight between sizes in logarithms. Beyond the largest it goes with the size, as FLOPs do; below the smallest a token gets
    /// no cheaper, since small products use a device less and less.
    pub(crate) fn usd_per_token(&self, parameters: f64) -> f64 {
        let at = parameters.ln();
        let after = self.nodes.partition_point(|(n, _)| *n < at);
        let ln = match (after.checked_sub(1).and_then(|i| self.nodes.get(i)), self.nodes.get(after)) {
            (Some(a), Some(b)) => a.1 + (b.1 - a.1) * (at - a.0) / (b.0 - a.0),
            (Some(last), None) => last.1 + (at - last.0),
            (None, Some(first)) => first.1,
            (None, None) => f64::NAN,
        };
        ln.exp()
    }

    /// The same under one draw.
    fn drawn(&self, draw: &Draw) -> Self {
        let moved = self.spread * draw.normal;
        Self { nodes: self.nodes.iter().map(|(n, usd)| (*n, usd + moved)).collect(), spread: 0.0 }
    }

    fn sizes(&self) -> (f64, f64) {
        let ends = self.nodes.first().zip(self.nodes.last());
        ends.map_or((0.0, 0.0), |(a, b)| (a.0 - BEYOND.ln(), b.0 + BEYOND.ln()))
    }

    /// The lowest loss for so much money.
    pub(crate) fn best(&self, law: &Law, usd: f64) -> Training {
        let of = |ln: f64| law.loss(ln.exp(), usd / self.usd_per_token(ln.exp()));
        let parameters = least(of, self.sizes()).exp();
        self.training(law, parameters, usd)
    }

    /// A model of this size, trained for so much money.
    pub(crate) fn training(&self, law: &Law, parameters: f64, usd: f64) -> Training {
        let tokens = usd / self.usd_per_token(parameters);
        Training { parameters, tokens, loss: law.loss(parameters, tokens), usd }
    }

    /// The least money for a loss; `None` for a loss that the law has no way to.
    pub(crate) fn cheapest(&self, law: &Law, loss: f64) -> Option<Training> {
        let usd = |n: f64| law.tokens(n, loss).map(|d| d * self.usd_per_token(n));
        let parameters = least(|ln| usd(ln.exp()).unwrap_or(f64::INFINITY), self.sizes()).exp();
        let (usd, tokens) = (usd(parameters)?, law.tokens(parameters, loss)?);
        Some(Training { parameters, tokens, loss, usd })
    }

    /// [`Rate::best`] under one draw.
    pub(crate) fn best_drawn(&self, draw: &Draw, usd: f64) -> Training {
        self.drawn(draw).best(&draw.law, usd)
    }

    /// The loss of a further run of this size for so much money, under one draw.
    pub(crate) fn loss_drawn(&self, draw: &Draw, parameters: f64, usd: f64) -> f64 {
        self.drawn(draw).training(&draw.law, parameters, usd).loss * draw.error.exp()
    }

    /// [`Rate::cheapest`] under one draw, until a further run is there.
    pub(crate) fn cheapest_drawn(&self, draw: &Draw, loss: f64) -> Option<Training> {
        self.drawn(draw).cheapest(&draw.law, loss * (-draw.error).exp())
    }
}

/// Where a function is least that falls and then rises: the best of some places, refined between its neighbours by the golden
/// section (Kiefer 1953).
fn least(of: impl Fn(f64) -> f64, (low, high): (f64, f64)) -> f64 {
    let place = |i: usize| low + (high - low) * i as f64 / (TRIED - 1) as f64;
    let best = (0..TRIED).map(|i| (of(place(i)), i)).min_by(|a, b| a.0.total_cmp(&b.0)).map_or(0, |(_, i)| i);
    let (mut a, mut b) = (place(best.saturating_sub(1)), place((best + 1).min(TRIED - 1)));
    let share = 0.5 * (5f64.sqrt() - 1.0);
    let (mut left, mut right) = (b - share * (b - a), a + share * (b - a));
    let (mut at_left, mut at_right) = (of(left), of(right));
    while b - a > 1e-7 {
        if at_left <= at_right {
            (b, right, at_right) = (right, left, at_left);
            left = b - share * (b - a);
            at_left = of(left);
        } else {
            (a, left, at_left) = (left, right, at_right);
            right = a + share * (b - a);
            at_right = of(right);
        }
    }
    if at_left <= at_right { left } else { right }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOFFMANN: (f64, (f64, f64), (f64, f64)) = (1.69, (406.4, 0.34), (410.7, 0.28));

    fn hoffmann() -> Law {
        Law::of(HOFFMANN.0, HOFFMANN.1, HOFFMANN.2)
    }

    /// 6 N FLOPs a token at 1e18 FLOPs a dollar.
    fn by_flops(sizes: &[f64]) -> Rate {
        Rate::of(sizes.iter().map(|n| (*n, 6.0 * n / 1e18)), 0.0).unwrap()
    }

    #[test]
    fn the_best_size_is_the_closed_form_of_hoffmann() {
        // Equation 4: N = G (C / 6)^a, G = (alpha A / (beta B))^(1 / (alpha + beta)), a = beta / (alpha + beta).
        let (law, rate) = (hoffmann(), by_flops(&[1e7, 1e8, 1e10]));
        let (_, (a, alpha), (b, beta)) = HOFFMANN;
        for usd in [1e2, 1e4] {
            let compute: f64 = usd * 1e18;
            let g = (alpha * a / (beta * b)).powf(1.0 / (alpha + beta));
            let expected = g * (compute / 6.0).powf(beta / (alpha + beta));
            let best = rate.best(&law, usd);
            assert!((best.parameters / expected - 1.0).abs() < 1e-3, "{best:?}: {expected}");
            assert!((6.0 * best.parameters * best.tokens / compute - 1.0).abs() < 1e-9);
            // And back: the least that this loss costs is the budget.
            let back = rate.cheapest(&law, best.loss).unwrap();
            assert!((back.usd / usd - 1.0).abs() < 1e-5 && (back.parameters / expected - 1.0).abs() < 1e-2, "{back:?}");
        }
        assert_eq!(rate.cheapest(&law, 1.68), None, "below the floor");
    }

    #[test]
    fn a_token_s_price_is_straight_in_logarithms_and_cautious_beyond() {
        let rate = Rate::of([(4e6, 4e-9), (1e6, 1e-9), (1e6, 4e-9)].into_iter(), 0.0).unwrap();
        let at = |n: f64| rate.usd_per_token(n) * 1e9;
        assert!((at(1e6) - 2.0).abs() < 1e-9, "the geometric mean of the two");
        assert!((at(2e6) - 8f64.sqrt()).abs() < 1e-9);
        assert!((at(4e7) - 40.0).abs() < 1e-6 && (at(1e4) - 2.0).abs() < 1e-9);
        assert_eq!(Rate::of(std::iter::empty(), 0.0), None);
        assert_eq!(Rate::of([(1e6, f64::INFINITY)].into_iter(), 0.0), None);
    }
}
