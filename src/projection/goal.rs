//! A training run that is wanted, as people say it: clauses with a number and its unit, between commas.
//!
//! | clause | means |
//! |---|---|
//! | `7B parameters` | the model's size |
//! | `140B tokens` | what it is trained on |
//! | `budget 10000 USD`, `$10000`, `at most 10000 dollars` | what it may cost |
//! | `within 30 days`, `2 weeks`, `36 hours` | how long it may take |
//! | `sequences of 4096` | tokens of a sequence |
//! | `batch 1024` | sequences of a step |
//! | `tensor 8`, `pipeline 8` | devices that share a layer, and stages |
//! | `full recomputation`, `no recomputation` | what of the activations is kept |
//! | `engine of 2021` | kernels of that year |
//! | `efficiency 10 %` | the least share of the peak that a plan may reach |

use super::search::{Kept, Settled};

/// What is wanted.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Goal {
    pub parameters: f64,
    pub tokens: f64,
    pub budget_usd: Option<f64>,
    pub days: Option<f64>,
    pub seq_len: f64,
    /// Sequences of a step, where they are not ours to choose.
    pub batch: Option<f64>,
    /// Least share of the peak, counted in the model's FLOPs.
    pub efficiency: f64,
    pub settled: Settled,
}

/// A plan under this share of the peak wastes more than a smaller one takes longer.
pub(crate) const USUAL_EFFICIENCY: f64 = 0.20;
const USUAL_SEQUENCE: f64 = 2048.0;
/// The last year whose engines wrote attention's scores to memory.
const OLD_KERNELS: f64 = 2021.0;

/// Why a goal is not understood, and where: characters from 1.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("character {at}: `{clause}`: {message}")]
pub(crate) struct NotUnderstood {
    pub at: usize,
    pub clause: String,
    pub message: String,
}

/// One clause.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Clause {
    Parameters(f64),
    Tokens(f64),
    Budget(f64),
    Days(f64),
    Sequence(f64),
    Batch(f64),
    Tensor(f64),
    Pipeline(f64),
    Keep(Kept),
    TrainingEngine(f64),
    Efficiency(f64),
}

const CLAUSES: &str = "known are `7B parameters`, `140B tokens`, `budget 10000 USD`, `within 30 days`, `sequences of 4096`, `batch 1024`, \
                       `tensor 8`, `pipeline 8`, `full recomputation`, `no recomputation`, `engine of 2021`, `efficiency 10 %`";

/// Words that may stand in a clause and say nothing.
const FILLING: &[&str] = &["a", "of", "about", "for", "the", "in", "with", "on"];
/// Words that say "no more than".
const AT_MOST: &[&str] = &["within", "under", "below", "at", "most", "up", "to"];

impl Goal {
    /// # Errors
    /// The first clause that is not understood, is said twice or is out of its range; what is missing.
    pub(crate) fn parse(text: &str) -> Result<Self, NotUnderstood> {
        let mut goal = Self {
            parameters: 0.0,
            tokens: 0.0,
            budget_usd: None,
            days: None,
            seq_len: USUAL_SEQUENCE,
            batch: None,
            efficiency: USUAL_EFFICIENCY,
            settled: Settled::default(),
        };
        let mut said: Vec<std::mem::Discriminant<Clause>> = Vec::new();
        let mut start = 0;
        for part in text.split([',', ';']) {
            let at = text[..start].chars().count() + part.chars().take_while(|c| c.is_whitespace()).count() + 1;
            start += part.len() + 1;
            let trimmed = part.trim();
            if trimmed.is_empty() {
                continue;
            }
            let wrong = |message: String| NotUnderstood { at, clause: trimmed.into(), message };
            let clause = clause(trimmed).map_err(wrong)?;
            if said.contains(&std::mem::discriminant(&clause)) {
                return Err(wrong("this was said before".into()));
            }
            said.push(std::mem::discriminant(&clause));
            goal.take(clause);
        }
        let missing = |what: &str| NotUnderstood {
            at: text.chars().count() + 1,
            clause: text.trim().into(),
            message: format!("{what} are missing, as in \"budget 10000 USD, 7B parameters, 140B tokens\""),
        };
        match (goal.parameters > 0.0, goal.tokens > 0.0) {
            (false, _) => Err(missing("the parameters")),
            (_, false) => Err(missing("the tokens")),
            _ => Ok(goal),
        }
    }

    fn take(&mut self, clause: Clause) {
        match clause {
            Clause::Parameters(n) => self.parameters = n,
            Clause::Tokens(n) => self.tokens = n,
            Clause::Budget(usd) => self.budget_usd = Some(usd),
            Clause::Days(n) => self.days = Some(n),
            Clause::Sequence(n) => self.seq_len = n,
            Clause::Batch(n) => self.batch = Some(n),
            Clause::Tensor(n) => self.settled.tensor = Some(n),
            Clause::Pipeline(n) => self.settled.pipeline = Some(n),
            Clause::Keep(kept) => self.settled.kept = kept,
            Clause::TrainingEngine(year) => self.settled.old_kernels = year <= OLD_KERNELS,
            Clause::Efficiency(share) => self.efficiency = share,
        }
    }
}

fn clause(text: &str) -> Result<Clause, String> {
    // "$5000" and "10 %" are two words each.
    let spaced = text.to_lowercase().replace('$', " $ ").replace('%', " % ").replace('_', "");
    let all: Vec<&str> = spaced.split_whitespace().collect();
    let numbers: Vec<f64> = all.iter().filter_map(|w| number(w)).collect();
    let words: Vec<&str> = all.into_iter().filter(|w| number(w).is_none() && !FILLING.contains(w)).collect();
    let is = |known: &[&str]| !words.is_empty() && words.iter().all(|w| known.contains(w) || AT_MOST.contains(w));
    let has = |known: &[&str]| words.iter().any(|w| known.contains(w));
    let named = |known: &[&str]| is(known) && has(known);
    const RECOMPUTATION: &[&str] = &["recomputation", "recompute", "recomputing"];
    if words.len() == 2 && RECOMPUTATION.contains(&words[1]) && numbers.is_empty() {
        return match words[0] {
            "full" => Ok(Clause::Keep(Kept::Inputs)),
            "no" | "without" => Ok(Clause::Keep(Kept::All)),
            other => {
                Err(format!("`{other}` is no kind of recomputation; say `full recomputation` or `no recomputation`"))
            }
        };
    }
    const BUDGET: &[&str] = &["usd", "dollar", "dollars", "$", "budget", "cost", "costs"];
    const COINS: &[&str] = &["usd", "dollar", "dollars", "$"];
    const TIME: &[(&str, f64)] =
        &[("day", 1.0), ("days", 1.0), ("week", 7.0), ("weeks", 7.0), ("hour", 1.0 / 24.0), ("hours", 1.0 / 24.0)];
    let time = TIME.iter().find(|(unit, _)| named(&[unit]));
    let known = named(&["parameters", "params", "parameter", "model"])
        || named(&["tokens", "token"])
        || named(BUDGET)
        || time.is_some()
        || named(&["sequences", "sequence", "context", "long", "seq_len"])
        || named(&["batch", "sequences", "step"])
        || named(&["tensor", "parallel"])
        || named(&["pipeline", "stages", "parallel"])
        || named(&["engine", "year", "kernels"])
        || named(&["efficiency", "mfu", "%", "least"]);
    if !known {
        return Err(CLAUSES.into());
    }
    let [n] = numbers[..] else {
        return Err(format!("expected one number, found {}", numbers.len()));
    };
    let within = |low: f64, high: f64, of: fn(f64) -> Clause, what: &str| {
        if (low..=high).contains(&n) { Ok(of(n)) } else { Err(format!("{what} from {low} to {high} are possible")) }
    };
    let whole = |high: f64, of: fn(f64) -> Clause, what: &str| {
        if n.fract() == 0.0 { within(1.0, high, of, what) } else { Err(format!("{what} are whole numbers")) }
    };
    if let Some((_, days)) = time {
        return if n > 0.0 { Ok(Clause::Days(n * days)) } else { Err("expected a time above 0".into()) };
    }
    match words.iter().find(|w| !AT_MOST.contains(w)).copied().unwrap_or("") {
        _ if has(&["batch"]) => whole(1e9, Clause::Batch, "sequences of a step"),
        "parameters" | "params" | "parameter" | "model" => within(1e6, 1e14, Clause::Parameters, "parameters"),
        "tokens" | "token" => within(1e6, 1e16, Clause::Tokens, "tokens"),
        _ if has(COINS) => within(1e-2, 1e12, Clause::Budget, "USD"),
        _ if has(BUDGET) => Err("in which currency? say `budget 10000 USD`".into()),
        "tensor" => whole(1024.0, Clause::Tensor, "devices that share a layer"),
        "pipeline" => whole(1024.0, Clause::Pipeline, "stages"),
        "engine" | "year" | "kernels" => within(2019.0, 2100.0, Clause::TrainingEngine, "years"),
        "efficiency" | "mfu" | "%" | "least" => {
            let share = if has(&["%"]) { n / 100.0 } else { n };
            if (0.0..1.0).contains(&share) {
                Ok(Clause::Efficiency(share))
            } else {
                Err("expected a share of the peak under 100 %, such as `efficiency 10 %`".into())
            }
        }
        _ => within(16.0, 1e7, Clause::Sequence, "tokens of a sequence"),
    }
}

/// 7e9, 7B, 1.5T, 128k, 10000.
fn number(word: &str) -> Option<f64> {
    let scale = match word.chars().last()? {
        'k' => 1e3,
        'm' => 1e6,
        'b' | 'g' => 1e9,
        't' => 1e12,
        _ => 1.0,
    };
    let digits = if scale > 1.0 { &word[..word.len() - 1] } else { word };
    if !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return None;
    }
    digits.parse::<f64>().ok().map(|n| n * scale).filter(|n| n.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(clause: &str) -> Goal {
        Goal::parse(&format!("7B parameters, 140B tokens, {clause}")).unwrap()
    }

    fn wrong(text: &str) -> NotUnderstood {
        Goal::parse(text).unwrap_err()
    }

    #[test]
    fn parameters_and_tokens() {
        let g = Goal::parse("1.3e9 params; 26B tokens").unwrap();
        assert_eq!((g.parameters, g.tokens), (1.3e9, 26e9));
        assert_eq!((g.budget_usd, g.days, g.seq_len, g.batch), (None, None, 2048.0, None));
        assert!(wrong("7B parameters").message.contains("tokens are missing"));
        assert!(wrong("7B tokens").message.contains("parameters are missing"));
        assert!(wrong("7 parameters, 1B tokens").message.contains("from 1000000"));
    }

    #[test]
    fn a_budget_and_no_year_in_it() {
        for text in ["budget 2021 USD", "budget of $2021", "at most 2021 dollars", "2021 USD", "under $ 2_021"] {
            let g = of(text);
            assert_eq!((g.budget_usd, g.settled.old_kernels), (Some(2021.0), false), "{text}");
        }
        assert_eq!(of("budget 12021 USD").budget_usd, Some(12021.0));
        assert!(wrong("7B parameters, 1B tokens, budget 500").message.contains("currency"));
    }

    #[test]
    fn a_time() {
        assert_eq!(of("within 30 days").days, Some(30.0));
        assert_eq!(of("2 weeks").days, Some(14.0));
        assert_eq!(of("at most 36 hours").days, Some(1.5));
    }

    #[test]
    fn a_sequence() {
        assert_eq!(of("sequences of 4096").seq_len, 4096.0);
        assert_eq!(of("context 8k").seq_len, 8000.0);
    }

    #[test]
    fn a_batch() {
        assert_eq!(of("batch 1536").batch, Some(1536.0));
        assert_eq!(of("batch of 1536 sequences").batch, Some(1536.0));
        assert!(wrong("7B parameters, 1B tokens, batch 1.5").message.contains("whole"));
    }

    #[test]
    fn a_layout() {
        let settled = of("tensor 8, pipeline 4").settled;
        assert_eq!((settled.tensor, settled.pipeline), (Some(8.0), Some(4.0)));
    }

    #[test]
    fn a_recomputation() {
        assert_eq!(of("full recomputation").settled.kept, Kept::Inputs);
        assert_eq!(of("no recomputation").settled.kept, Kept::All);
        assert!(wrong("some recomputation").message.contains("`some` is no kind"));
    }

    #[test]
    fn an_engine_of_a_year() {
        assert!(of("engine of 2021").settled.old_kernels && !of("engine of 2024").settled.old_kernels);
        assert!(wrong("engine of 21").message.contains("years from 2019"));
    }

    #[test]
    fn a_least_efficiency() {
        assert_eq!(of("efficiency 10 %").efficiency, 0.1);
        assert_eq!(of("at least 30% MFU").efficiency, 0.3);
        assert_eq!(of("efficiency 0").efficiency, 0.0);
        assert_eq!(of("tensor 1").efficiency, USUAL_EFFICIENCY);
        assert!(wrong("efficiency 200 %").message.contains("under 100 %"));
    }

    #[test]
    fn what_is_not_understood_is_an_error_with_its_place() {
        let e = wrong("7B parameters, 7 apples, 1B tokens");
        assert_eq!((e.at, e.clause.as_str()), (16, "7 apples"));
        assert!(e.message.contains("`7B parameters`"), "{e}");
        assert_eq!(wrong("fast").at, 1);
        assert_eq!(wrong("7B parameters,  2021 engines").at, 17);
        assert!(wrong("7B parameters, 8B parameters").message.contains("said before"));
        assert!(wrong("parameters").message.contains("one number"));
        assert!(wrong("7B 8B parameters").message.contains("found 2"));
    }
}
