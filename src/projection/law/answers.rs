//! What the law says of money: the lowest loss of a budget, what each further tenth of loss costs, and how far either may be asked.

use super::draws::{Bounded, Drawn};
use super::judged::{Extent, lacking};
use super::spend::{Rate, Training};
use super::{Law, Point};

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Asked {
    /// USD; what the dearest run costs where nothing is said.
    pub budget: Option<f64>,
    /// How many times beyond the runs an answer may go; `None` as far as one likes.
    pub factor: Option<f64>,
}

/// What the runs answer.
#[derive(Clone, Debug, serde::Serialize)]
pub(crate) struct Answers {
    /// Root mean square error of the loss of a run that takes no part in the fit, as a share.
    pub noise: f64,
    pub floor: Bounded,
    pub alpha: Bounded,
    pub beta: Bounded,
    /// A and B.
    pub factors: (f64, f64),
    /// N goes with compute to this power where it is best: beta / (alpha + beta).
    pub size_power: Bounded,
    /// What keeps the runs from an answer, with what to add.
    pub lacking: Vec<String>,
    pub bought: Option<Bought>,
    pub tenths: Vec<Tenth>,
    /// Why there is no answer, or no further tenth.
    pub refused: Option<String>,
    pub ended: Option<String>,
}

/// What a budget buys.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub(crate) struct Bought {
    pub best: Training,
    pub parameters: Bounded,
    pub tokens: Bounded,
    /// Of a run of that size, trained for the budget.
    pub loss: Bounded,
}

/// A loss with the least that it costs.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub(crate) struct Tenth {
    pub training: Training,
    pub usd: Bounded,
    /// Of the USD of the loss a tenth above.
    pub times: f64,
}

/// Most tenths that are shown.
const MOST_TENTHS: usize = 10;

impl Answers {
    /// All of it; without a rate what says nothing of money.
    pub(crate) fn of(points: &[Point], drawn: &Drawn, rate: Option<&Rate>, asked: Asked) -> Self {
        let law = &drawn.law;
        let of = |get: fn(&Law) -> f64| drawn.bounded(get(law), |d| Some(get(&d.law)));
        let mut answers = Self {
            noise: drawn.noise,
            floor: of(|l| l.floor),
            alpha: of(|l| l.alpha),
            beta: of(|l| l.beta),
            factors: law.factors(),
            size_power: of(|l| l.beta / (l.alpha + l.beta)),
            lacking: lacking(points, Some(drawn)),
            bought: None,
            tenths: Vec::new(),
            refused: None,
            ended: None,
        };
        let Some(rate) = rate else { return answers };
        if !answers.lacking.is_empty() && asked.factor.is_some() {
            return answers;
        }
        let range = Range { extent: Extent::of(points), factor: asked.factor };
        let dearest = points.iter().map(|p| p.tokens * rate.usd_per_token(p.parameters)).fold(0.0, f64::max);
        let usd = asked.budget.unwrap_or(dearest);
        let best = rate.best(law, usd);
        if let Some(why) = range.beyond(&best) {
            answers.refused = Some(format!(
                "for {} the best would be {why}{}",
                money(usd),
                range.within(rate, law, dearest).map_or(String::new(), |(low, high)| {
                    format!("; budgets from {} to {} are answered", money(low), money(high))
                })
            ));
            return answers;
        }
        answers.bought = Some(Bought {
            best,
            parameters: drawn.bounded(best.parameters, |d| Some(rate.best_drawn(d, usd).parameters)),
            tokens: drawn.bounded(best.tokens, |d| Some(rate.best_drawn(d, usd).tokens)),
            loss: drawn.bounded(best.loss, |d| Some(rate.loss_drawn(d, best.parameters, usd))),
        });
        (answers.tenths, answers.ended) = tenths(drawn, rate, &best, &range);
        answers
    }
}

/// How far answers may go.
#[derive(Clone, Copy, Debug)]
struct Range {
    extent: Extent,
    factor: Option<f64>,
}

impl Range {
    fn beyond(&self, t: &Training) -> Option<String> {
        self.extent.beyond(t.parameters, t.tokens, self.factor?)
    }

    /// The least and the largest budget about one that may be asked for; `None` where that one may not.
    fn within(&self, rate: &Rate, law: &Law, inside: f64) -> Option<(f64, f64)> {
        let fine = |usd: f64| self.beyond(&rate.best(law, usd)).is_none();
        let end = |step: f64| {
            let mut usd = inside;
            // An eighth of a decade at a time; what is printed is rounded to two digits.
            while fine(usd * step) && (1e-12..1e15).contains(&usd) {
                usd *= step;
            }
            usd
        };
        let step = 10f64.powf(0.125);
        fine(inside).then(|| (end(1.0 / step), end(step)))
    }
}

/// From a training on, a tenth of loss at a time; and what comes in the way.
fn tenths(drawn: &Drawn, rate: &Rate, from: &Training, range: &Range) -> (Vec<Tenth>, Option<String>) {
    let mut all: Vec<Tenth> = Vec::new();
    let mut before = from.usd;
    for k in 1..=MOST_TENTHS {
        let loss = from.loss - 0.1 * k as f64;
        let Some(training) = rate.cheapest(&drawn.law, loss) else {
            return (all, Some(format!("{loss:.2} is below the floor of {:.2}", drawn.law.floor)));
        };
        if let Some(why) = range.beyond(&training) {
            return (all, Some(format!("for {loss:.2} the best would be {why}")));
        }
        let usd = drawn.bounded(training.usd, |d| rate.cheapest_drawn(d, loss).map(|t| t.usd));
        all.push(Tenth { training, usd, times: training.usd / before });
        before = training.usd;
    }
    (all, None)
}

/// Dollars as they are written in sentences.
pub(crate) fn money(usd: f64) -> String {
    match usd {
        u if !u.is_finite() => "any sum".into(),
        u if u >= 1000.0 => format!("${}", crate::units::grouped(u.round() as u64)),
        u => format!("${}", crate::units::significant(u, 3)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn law() -> Law {
        Law::of(1.69, (406.4, 0.34), (410.7, 0.28))
    }

    fn points() -> Vec<Point> {
        let (mut all, mut sign) = (Vec::new(), 1.0);
        for n in [1e7, 3e7, 1e8, 3e8] {
            for d in [1e8, 1e9, 1e10] {
                sign = -sign;
                let loss = law().loss(n, d) * f64::exp(2e-4 * sign);
                all.push(Point { parameters: n, tokens: d, loss, usd: None });
            }
        }
        all
    }

    fn answered(asked: Asked) -> Answers {
        let points = points();
        let rate = Rate::of(points.iter().map(|p| (p.parameters, 6.0 * p.parameters / 1e18)), 0.0).unwrap();
        Answers::of(&points, &Drawn::of(&points, 100, 1).unwrap(), Some(&rate), asked)
    }

    #[test]
    fn a_budget_buys_the_best_model_and_tenths_get_dearer() {
        let a = answered(Asked { budget: Some(50.0), factor: Some(10.0) });
        let b = a.bought.unwrap();
        assert!((b.best.tokens * b.best.parameters * 6.0 / 1e18 - 50.0).abs() < 1e-6);
        assert!(b.loss.low < b.best.loss && b.best.loss < b.loss.high);
        assert!(b.parameters.low < b.best.parameters && b.best.parameters < b.parameters.high);
        assert!(!a.tenths.is_empty() && a.ended.is_some(), "{:?}", a.tenths);
        let mut before = 1.0;
        for t in &a.tenths {
            assert!(t.times > before && t.usd.low < t.usd.value && t.usd.value < t.usd.high, "{t:?}");
            before = t.times;
        }
    }

    #[test]
    fn further_than_allowed_is_refused_with_what_is_answered() {
        let a = answered(Asked { budget: Some(1e6), factor: Some(10.0) });
        let why = a.refused.unwrap();
        assert!(a.bought.is_none() && why.contains("times beyond the most that was run"), "{why}");
        assert!(why.contains("budgets from $"), "{why}");
        let a = answered(Asked { budget: Some(1e6), factor: None });
        assert!(a.refused.is_none() && a.bought.unwrap().best.parameters > 3e9);
    }
}
