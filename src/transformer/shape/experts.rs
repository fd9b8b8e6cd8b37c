//! Layers of which a token goes through a few experts: how many there are, how wide, and by what they are chosen.

use super::{ShapeError, ShapeSpec, dimension, fault};
use serde::{Deserialize, Serialize};

/// What a logit of an expert becomes before experts are chosen and weighed by it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scoring {
    /// Its share of the softmax over all experts.
    #[default]
    Softmax,
    /// 1 / (1 + e^-l), of each by itself (DeepSeek-AI 2024b, equation 15).
    Sigmoid,
}

/// By what a token's experts are chosen, beside how many.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Routing {
    pub scoring: Scoring,
    /// Groups of neighbouring experts, of which a token's are chosen first (DeepSeek-AI 2024, section 2.1.2); 1 for no groups.
    pub groups: u32,
    /// Groups that a token's experts are in at most.
    pub groups_per_token: u32,
    /// What the weights are multiplied by.
    pub scale: f32,
    /// Whether a number of each expert is added to its score where experts are chosen, and not where they are weighed; it learns from
    /// loads and has no gradient (Wang et al. 2024). Groups are then chosen by the sum of their two best, or else by their best.
    pub corrected: bool,
}

impl Routing {
    /// The largest of the softmax, as they are.
    pub const PLAIN: Self =
        Self { scoring: Scoring::Softmax, groups: 1, groups_per_token: 1, scale: 1.0, corrected: false };

    /// Whether it is that.
    pub fn is_plain(&self) -> bool {
        *self == Self::PLAIN
    }
}

impl Default for Routing {
    fn default() -> Self {
        Self::PLAIN
    }
}

/// Feed-forward layers of which a token goes through a few (Shazeer et al. 2017).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Mixture {
    /// E, experts a layer
    pub count: u32,
    /// K, experts that a token goes to
    pub per_token: u32,
    /// Whether the weights of a token's experts are made to add up to 1.
    pub normalised: bool,
    /// Experts beside those, which every token goes through.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub shared: u32,
    /// The width of one expert, where it is another one than `d_ff`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub d_ff: Option<u32>,
    /// Layers before those with experts, of one feed-forward layer of width `d_ff`.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub dense_layers: u32,
    #[serde(default, skip_serializing_if = "Routing::is_plain")]
    pub routing: Routing,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
fn is_zero(n: &u32) -> bool {
    *n == 0
}

/// What a family's mixtures usually have.
#[derive(Clone, Copy, Debug)]
pub(super) struct UsualMixture {
    /// Experts a layer and a token, of families that are mixtures.
    pub experts: Option<(u32, u32)>,
    /// Experts that every token goes through.
    pub shared: u32,
    /// Layers without experts.
    pub dense_layers: u32,
    pub normalised: bool,
    pub routing: Routing,
}

/// The mixture that a spec states, or its family usually has, in a model of so many layers.
pub(super) fn mixture(usual: &UsualMixture, spec: &ShapeSpec, n_layers: u32) -> Result<Option<Mixture>, ShapeError> {
    let Some(count) = spec.n_experts.or(usual.experts.map(|(count, _)| count)) else {
        let without = [
            ("experts_per_token", spec.experts_per_token),
            ("n_shared_experts", spec.n_shared_experts),
            ("d_ff_expert", spec.d_ff_expert),
            ("first_dense_layers", spec.first_dense_layers),
        ];
        return match without.into_iter().find(|(_, value)| value.is_some()) {
            Some((field, _)) => Err(fault(field, "there are no experts to choose from; give n_experts too".into())),
            None => Ok(None),
        };
    };
    let count = dimension("n_experts", count)?;
    let per_token = spec.experts_per_token.or(usual.experts.map(|(_, k)| k)).unwrap_or(2);
    let per_token = dimension("experts_per_token", per_token)?;
    if per_token > count {
        let message = format!("{per_token} experts for a token are more than there are; use {count} or fewer");
        return Err(fault("experts_per_token", message));
    }
    let shared = spec.n_shared_experts.unwrap_or(usual.shared);
    if shared > 0 {
        dimension("n_shared_experts", shared)?;
    }
    let dense_layers = spec.first_dense_layers.unwrap_or(usual.dense_layers.min(n_layers - 1));
    if dense_layers >= n_layers {
        let message =
            format!("{dense_layers} layers without experts leave none of {n_layers}; use {} or fewer", n_layers - 1);
        return Err(fault("first_dense_layers", message));
    }
    let routing = spec.routing.unwrap_or(usual.routing);
    check_routing(&routing, count, per_token)?;
    Ok(Some(Mixture {
        count,
        per_token,
        normalised: spec.normalised_experts.unwrap_or(usual.normalised),
        shared,
        d_ff: spec.d_ff_expert.map(|f| dimension("d_ff_expert", f)).transpose()?,
        dense_layers,
        routing,
    }))
}

/// Whether so many experts can be chosen so.
fn check_routing(by: &Routing, count: u32, per_token: u32) -> Result<(), ShapeError> {
    let Routing { groups, groups_per_token, scale, .. } = *by;
    if groups == 0 || !count.is_multiple_of(groups) {
        let message = format!("{count} do not divide into the {groups} groups that experts are chosen from");
        return Err(fault("n_experts", message));
    }
    if groups_per_token == 0 || groups_per_token > groups {
        let message =
            format!("{groups_per_token} of {groups} groups cannot be chosen; topk_group is from 1 to n_group");
        return Err(fault("n_experts", message));
    }
    let within = groups_per_token * (count / groups);
    if per_token > within {
        let message = format!(
            "{per_token} experts for a token are more than the {within} of its {groups_per_token} groups; use {within} or fewer"
        );
        return Err(fault("experts_per_token", message));
    }
    if !(scale.is_finite() && scale > 0.0) {
        return Err(fault("n_experts", format!("weights cannot be multiplied by {scale}; use a positive number")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::{Family, Shape};
    use super::*;

    #[test]
    fn experts_that_cannot_be_are_refused_by_their_field() {
        let of = |change: fn(&mut ShapeSpec)| {
            let mut spec = ShapeSpec { n_experts: Some(8), ..ShapeSpec::default() };
            change(&mut spec);
            Shape::new(Family::Llama, &spec).map_err(|e| e.field)
        };
        assert!(of(|_| ()).is_ok());
        assert_eq!(of(|s| s.experts_per_token = Some(9)).unwrap_err(), "experts_per_token");
        assert_eq!(of(|s| s.first_dense_layers = Some(12)).unwrap_err(), "first_dense_layers");
        assert_eq!(of(|s| s.routing = Some(Routing { groups: 3, ..Routing::PLAIN })).unwrap_err(), "n_experts");
        let groups = |s: &mut ShapeSpec| {
            s.routing = Some(Routing { groups: 4, ..Routing::PLAIN });
            s.experts_per_token = Some(3);
        };
        assert_eq!(of(groups).unwrap_err(), "experts_per_token");
        let none = ShapeSpec { n_shared_experts: Some(1), ..ShapeSpec::default() };
        assert_eq!(Shape::new(Family::Llama, &none).unwrap_err().field, "n_shared_experts");
    }
}
