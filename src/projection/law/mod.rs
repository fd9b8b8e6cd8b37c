//! The scaling law `L(N, D) = E + A / N^alpha + B / D^beta` of Hoffmann et al. 2022 (section 3.3, "approach 3"): what loss a model
//! of N parameters has after D tokens.
//!
//! [`fit`] finds the constants, [`draws`] what they might as well have been, [`spend`] what a loss costs and what a budget buys (on a
//! [`device`] that is not here as well), [`answers`] puts them together and [`judged`] says whether the runs say enough; [`table`] reads
//! runs that others published. It knows nothing of schedules, of repeated data or of other families of laws: the intervals hold where
//! this law does.

pub(crate) mod answers;
#[cfg(test)]
mod coverage_tests;
pub(crate) mod curves;
pub(crate) mod device;
pub(crate) mod draws;
pub(crate) mod fit;
pub(crate) mod judged;
pub(crate) mod spend;
pub(crate) mod table;

/// What a run came to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Point {
    /// N, all of the model's.
    pub parameters: f64,
    /// D, that it was trained on.
    pub tokens: f64,
    /// L, in nats a token.
    pub loss: f64,
    /// What the training cost, where that is known.
    pub usd: Option<f64>,
}

impl Point {
    /// N D, which compute goes with (6 N D FLOPs, Kaplan et al. 2020).
    pub(crate) fn size(&self) -> f64 {
        self.parameters * self.tokens
    }
}

/// The constants, about a place in the middle of the runs: A and B themselves move by powers of ten where the exponents move a little.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Law {
    /// E, the loss of a model without end on data without end: the entropy of the text.
    pub floor: f64,
    /// A / N^alpha and B / D^beta at the middle.
    pub of_size: f64,
    pub of_tokens: f64,
    pub alpha: f64,
    pub beta: f64,
    /// ln N and ln D of the middle.
    pub middle: (f64, f64),
}

impl Law {
    /// L(N, D).
    pub(crate) fn loss(&self, parameters: f64, tokens: f64) -> f64 {
        self.floor + self.size_term(parameters) + self.tokens_term(tokens)
    }

    fn size_term(&self, parameters: f64) -> f64 {
        self.of_size * (-self.alpha * (parameters.ln() - self.middle.0)).exp()
    }

    fn tokens_term(&self, tokens: f64) -> f64 {
        self.of_tokens * (-self.beta * (tokens.ln() - self.middle.1)).exp()
    }

    /// The tokens after which a model of this size has this loss; `None` where it never has.
    pub(crate) fn tokens(&self, parameters: f64, loss: f64) -> Option<f64> {
        let left = loss - self.floor - self.size_term(parameters);
        let tokens = (self.middle.1 + (self.of_tokens / left).ln() / self.beta).exp();
        (left > 0.0 && tokens.is_finite() && tokens > 0.0).then_some(tokens)
    }

    /// A and B of the formula.
    pub(crate) fn factors(&self) -> (f64, f64) {
        (self.of_size * (self.alpha * self.middle.0).exp(), self.of_tokens * (self.beta * self.middle.1).exp())
    }

    /// The law of these constants as papers write them.
    #[cfg(test)]
    pub(crate) fn of(floor: f64, (a, alpha): (f64, f64), (b, beta): (f64, f64)) -> Self {
        Self { floor, of_size: a, of_tokens: b, alpha, beta, middle: (0.0, 0.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_law_of_hoffmann_has_the_losses_that_they_print() {
        // Hoffmann et al. 2022, equation 10 and table D.4: Gopher (280B, 300B tokens) and Chinchilla (70B, 1.4T tokens).
        let law = Law::of(1.69, (406.4, 0.34), (410.7, 0.28));
        assert!((law.loss(280e9, 300e9) - 1.993).abs() < 2e-3, "{}", law.loss(280e9, 300e9));
        assert!((law.loss(70e9, 1.4e12) - 1.936).abs() < 2e-3, "{}", law.loss(70e9, 1.4e12));
        let tokens = law.tokens(70e9, 1.936).unwrap();
        assert!((law.loss(70e9, tokens) - 1.936).abs() < 1e-9);
        assert_eq!(law.tokens(1e6, 2.0), None, "a model that small never gets there");
    }
}
