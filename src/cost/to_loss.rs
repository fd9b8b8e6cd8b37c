//! What USD to a loss are made of: the cost of a token, the tokens that it took, and the time that steps alone do not explain.

use super::decomposition::{Factor, Role};
use super::factors::{self, Factors};
use super::metric::Context;
use super::metrics::{SECONDS_TO_LOSS, TOKENS_PER_SECOND, TOKENS_TO_LOSS};

/// The factors of USD to a loss.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct ToLoss {
    /// Of the cost of a token.
    pub factors: Factors,
    pub tokens: f64,
    /// Seconds to the loss over those of as many median steps: slower steps, and what steps waited for their data.
    pub beyond: f64,
}

/// Beside the factors of USD for 1e6 tokens.
pub(crate) const SCALE: f64 = factors::SCALE / 1e6;

impl ToLoss {
    /// Of a trial that got to its loss with every launch, and has a price.
    pub(crate) fn of(c: &Context) -> Option<Self> {
        let of = |metric: &super::metric::Metric| Some((metric.compute)(c)?.value);
        let tokens = of(&TOKENS_TO_LOSS)?;
        let beyond = of(&SECONDS_TO_LOSS)? * of(&TOKENS_PER_SECOND)? / tokens;
        Some(Self { factors: Factors::of(c)?, tokens, beyond })
    }

    /// USD to the loss.
    pub(crate) fn cost(&self) -> f64 {
        self.factors.cost() / 1e6 * self.tokens * self.beyond
    }
}

/// The factors of a change, each before and after.
pub(crate) fn between(a: &ToLoss, b: &ToLoss) -> Vec<Factor> {
    let multiplies = |name, before, after| Factor { name, role: Role::Multiplies, before, after };
    let mut all = factors::between(&a.factors, &b.factors);
    all.push(multiplies("tokens to the loss", a.tokens, b.tokens));
    all.push(multiplies("time beyond median steps", a.beyond, b.beyond));
    all
}
