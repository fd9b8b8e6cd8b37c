//! Why did the cost change? The logarithmic mean Divisia index, which leaves no residual.
//!
//! Source: Ang, "The LMDI approach to decomposition analysis: a practical guide", Energy Policy 33 (2005), additive LMDI-I.
//! For `c = product of x_i^(+1 or -1)` the part of factor i in `c1 - c0` is `L(c1, c0) * (+/-) ln(x1 / x0)`, with the
//! logarithmic mean `L(a, b) = (a - b) / ln(a / b)` and `L(a, a) = a`. The parts add up to the change.

use super::price::{CostError, usd_per_million_tokens};
use crate::units::{Share, TokensPerSecond, UsdPerHour};

/// Whether a factor stands above or below the fraction bar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Multiplies,
    Divides,
}

/// One factor of a product, before and after.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Factor {
    pub name: &'static str,
    pub role: Role,
    pub before: f64,
    pub after: f64,
}

/// What one factor did to the total.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Part {
    pub name: &'static str,
    /// In the unit of the total; negative where it made it smaller.
    pub change: f64,
}

/// What a cost per token is made of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct State {
    pub price: UsdPerHour,
    pub throughput: TokensPerSecond,
    pub utilisation: Share,
}

/// The logarithmic mean of two numbers over 0: between them, and `a` where they are the same.
pub(crate) fn logarithmic_mean(a: f64, b: f64) -> f64 {
    // ln(1 + x) keeps its digits where a and b are nearly the same, and (a - b) / ln(a / b) does not.
    let x = (a - b) / b;
    let log = if x.abs() < 0.5 { x.ln_1p() } else { (a / b).ln() };
    if log == 0.0 { a } else { (a - b) / log }
}

/// Splits the change of a product, `scale * product of factors`, into one part for each factor.
///
/// # Errors
/// [`CostError::Input`] names a factor that is not a finite number over 0; [`CostError::OutOfRange`].
pub(crate) fn decompose(scale: f64, factors: &[Factor]) -> Result<Vec<Part>, CostError> {
    let (mut before, mut after) = (scale, scale);
    for f in factors {
        for value in [f.before, f.after] {
            if !(value.is_finite() && value > 0.0) {
                return Err(CostError::Input { name: f.name, value, bound: "over 0" });
            }
        }
        match f.role {
            Role::Multiplies => (before, after) = (before * f.before, after * f.after),
            Role::Divides => (before, after) = (before / f.before, after / f.after),
        }
    }
    let mean = logarithmic_mean(after, before);
    if !(mean.is_finite() && mean > 0.0) {
        return Err(CostError::OutOfRange);
    }
    Ok(factors.iter().map(|f| Part { name: f.name, change: mean * sign(f.role) * (f.after / f.before).ln() }).collect())
}

fn sign(role: Role) -> f64 {
    match role {
        Role::Multiplies => 1.0,
        Role::Divides => -1.0,
    }
}

/// The change of a cost per million tokens, and what price, throughput and utilisation had in it. USD per 1e6 tokens.
#[derive(Clone, Debug, PartialEq)]
pub struct CostChange {
    pub before: f64,
    pub after: f64,
    pub parts: Vec<Part>,
}

/// Decomposes the step from one state to another.
///
/// # Errors
/// A price, throughput or utilisation that is not a number over 0.
pub(crate) fn cost_change(before: &State, after: &State) -> Result<CostChange, CostError> {
    let factor = |name, role, a: f64, b: f64| Factor { name, role, before: a, after: b };
    let factors = [
        factor("price", Role::Multiplies, before.price.get(), after.price.get()),
        factor("throughput", Role::Divides, before.throughput.get(), after.throughput.get()),
        factor("utilisation", Role::Divides, before.utilisation.get(), after.utilisation.get()),
    ];
    let cost = |s: &State| usd_per_million_tokens(s.price, s.throughput, s.utilisation).map(|c| c.get());
    Ok(CostChange { before: cost(before)?, after: cost(after)?, parts: decompose(1e6 / 3600.0, &factors)? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn state(price: f64, throughput: f64, utilisation: f64) -> State {
        State {
            price: UsdPerHour::of(price).unwrap(),
            throughput: TokensPerSecond(throughput),
            utilisation: Share(utilisation),
        }
    }

    #[test]
    fn the_logarithmic_mean_lies_between_and_is_the_number_itself_for_equals() {
        assert_eq!(logarithmic_mean(2.0, 2.0), 2.0);
        // (4 - 1) / ln 4
        assert!((logarithmic_mean(4.0, 1.0) - 2.164_042_561_333_445).abs() < 1e-15);
        let near = logarithmic_mean(1.0 + 1e-15, 1.0);
        assert!((1.0..=1.0 + 2e-15).contains(&near), "{near}");
    }

    #[test]
    fn a_price_that_doubles_alone_takes_the_whole_change() {
        let change = cost_change(&state(3.6, 1000.0, 1.0), &state(7.2, 1000.0, 1.0)).unwrap();
        assert_eq!((change.before, change.after), (1.0, 2.0));
        let parts: Vec<f64> = change.parts.iter().map(|p| p.change).collect();
        assert!((parts[0] - 1.0).abs() < 1e-15);
        assert_eq!((parts[1].abs(), parts[2].abs()), (0.0, 0.0));
    }

    #[test]
    fn price_and_throughput_that_double_together_cancel() {
        let change = cost_change(&state(3.6, 1000.0, 1.0), &state(7.2, 2000.0, 1.0)).unwrap();
        // L(1, 1) = 1, so the parts are ln 2 and -ln 2.
        assert!((change.parts[0].change - std::f64::consts::LN_2).abs() < 1e-15);
        assert!((change.parts[1].change + std::f64::consts::LN_2).abs() < 1e-15);
    }

    #[test]
    fn a_factor_that_is_no_number_over_zero_is_named() {
        let error = cost_change(&state(3.6, 1000.0, 1.0), &state(3.6, 1000.0, 0.0)).unwrap_err();
        assert_eq!(error, CostError::Utilisation(0.0));
        let f = Factor { name: "MFU", role: Role::Multiplies, before: 0.0, after: 1.0 };
        assert!(decompose(1.0, &[f]).unwrap_err().to_string().starts_with("MFU of 0"));
    }

    proptest! {
        #[test]
        fn the_parts_add_up_to_the_change(
            p in (1e-2..1e3f64, 1e-2..1e3f64), t in (1.0..1e7f64, 1.0..1e7f64), u in (0.05..1.0f64, 0.05..1.0f64),
        ) {
            let c = cost_change(&state(p.0, t.0, u.0), &state(p.1, t.1, u.1)).unwrap();
            let sum: f64 = c.parts.iter().map(|p| p.change).sum();
            // Each part is right to a few ulp of its own size, which may be more than the change's.
            let scale = c.parts.iter().map(|p| p.change.abs()).sum::<f64>() + c.before.max(c.after);
            prop_assert!((sum - (c.after - c.before)).abs() <= 32.0 * f64::EPSILON * scale, "{sum} against {c:?}");
        }
    }
}
