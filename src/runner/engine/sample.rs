//! One sample of what a program says of itself, checked.

use crate::scenario::engine::Figure;

/// What a program says of one step.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Sample {
    /// Of a step with as many tokens as the trial says.
    pub seconds: f64,
    pub first_token_seconds: Option<f64>,
    pub loss: Option<f64>,
    /// Highest bytes allocated on its devices so far.
    pub memory_bytes: Option<u64>,
}

impl Sample {
    /// Of figures as they were read. A throughput, or a time with a number of tokens of its own, is brought to the trial's number of
    /// tokens a step.
    ///
    /// # Errors
    /// A figure that is not finite, or not above 0 where it has to be; none that tells a speed.
    pub(crate) fn of(figures: &[(Figure, f64)], tokens_per_step: u64) -> Result<Self, String> {
        for (figure, value) in figures {
            let fits = value.is_finite() && (*value > 0.0 || *figure == Figure::Loss);
            if !fits {
                let wanted = if *figure == Figure::Loss { "a finite number" } else { "a number above 0" };
                return Err(format!("{}: expected {wanted}, found {value}", figure.name()));
            }
        }
        let get = |wanted| figures.iter().find(|(f, _)| *f == wanted).map(|(_, value)| *value);
        let tokens = tokens_per_step as f64;
        let timed = get(Figure::Seconds).or_else(|| get(Figure::Milliseconds).map(|ms| ms / 1e3));
        let of_step = |seconds: f64| get(Figure::Tokens).map_or(seconds, |own| seconds * tokens / own);
        let seconds = match (timed, get(Figure::TokensPerSecond)) {
            (Some(seconds), _) => of_step(seconds),
            (None, Some(rate)) => tokens / rate,
            (None, None) => return Err("nothing that tells how fast it was".into()),
        };
        if !(seconds.is_finite() && seconds > 0.0) {
            return Err(format!("a step of {seconds} s is none"));
        }
        let memory_bytes = get(Figure::MemoryBytes).map(|bytes| bytes as u64);
        let first_token_seconds = get(Figure::FirstTokenSeconds);
        Ok(Self { seconds, first_token_seconds, loss: get(Figure::Loss), memory_bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speeds_of_either_kind_come_to_the_seconds_of_a_step() {
        let of = |figures: &[(Figure, f64)]| Sample::of(figures, 100).map(|s| s.seconds);
        assert_eq!(of(&[(Figure::Seconds, 0.5)]), Ok(0.5));
        assert_eq!(of(&[(Figure::Milliseconds, 250.0), (Figure::Loss, -1.0)]), Ok(0.25));
        assert_eq!(of(&[(Figure::TokensPerSecond, 400.0)]), Ok(0.25));
        // 50 tokens in half a second are 100 in one.
        assert_eq!(of(&[(Figure::Seconds, 0.5), (Figure::Tokens, 50.0)]), Ok(1.0));
    }

    #[test]
    fn what_is_no_figure_is_named() {
        let of = |figures: &[(Figure, f64)]| Sample::of(figures, 100).unwrap_err();
        assert_eq!(of(&[(Figure::TokensPerSecond, 0.0)]), "tokens_per_second: expected a number above 0, found 0");
        assert_eq!(of(&[(Figure::Seconds, -1.0)]), "seconds: expected a number above 0, found -1");
        assert_eq!(of(&[(Figure::Seconds, f64::NAN)]), "seconds: expected a number above 0, found NaN");
        let loss = [(Figure::Seconds, 1.0), (Figure::Loss, f64::NAN)];
        assert_eq!(of(&loss), "loss: expected a finite number, found NaN");
        assert_eq!(of(&[(Figure::Loss, 1.0)]), "nothing that tells how fast it was");
        assert_eq!(of(&[(Figure::TokensPerSecond, 1e-320)]), "a step of inf s is none");
    }
}
