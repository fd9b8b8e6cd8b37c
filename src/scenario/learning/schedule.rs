//! The learning rate of each step: a straight line up, then one of three ways down.

use serde::{Deserialize, Serialize};

/// How the rate falls after the warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Decay {
    /// Half a cosine.
    Cosine,
    /// A straight line.
    Linear,
    /// Not at all.
    Constant,
}

crate::transformer::names!(Decay { Cosine => "cosine", Linear => "linear", Constant => "constant" });

/// The rate of each step, and the decay of weights.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Schedule {
    /// The highest.
    pub rate: f32,
    /// Steps of a straight line up to it, the first of them one such step above 0.
    pub warmup: u32,
    /// How it falls.
    pub decay: Decay,
    /// To which share of the highest.
    pub floor: f32,
    /// Decay of weights where the optimizer is AdamW; `None`: as PyTorch has it, 0.01.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight_decay: Option<f32>,
}

impl Schedule {
    /// The rate of a step of the warm-up, from 0.
    pub(super) fn warming(&self, step: u64) -> f32 {
        (f64::from(self.rate) * (step + 1) as f64 / f64::from(self.warmup)) as f32
    }

    /// The rate when so large a share of the way from the warm-up to the end is behind.
    pub(super) fn after_warmup(&self, share: f64) -> f32 {
        let (share, floor) = (share.clamp(0.0, 1.0), f64::from(self.floor));
        let above = match self.decay {
            Decay::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * share).cos()),
            Decay::Linear => 1.0 - share,
            Decay::Constant => 1.0,
        };
        (f64::from(self.rate) * (floor + (1.0 - floor) * above)) as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_rises_by_equal_steps_and_falls_to_its_floor() {
        let of = |decay| Schedule { rate: 1.0, warmup: 4, decay, floor: 0.1, weight_decay: None };
        let up: Vec<f32> = (0..4).map(|step| of(Decay::Cosine).warming(step)).collect();
        assert_eq!(up, [0.25, 0.5, 0.75, 1.0]);
        let down = |decay| [0.0, 0.5, 1.0, 2.0].map(|share| of(decay).after_warmup(share));
        assert_eq!(down(Decay::Cosine), [1.0, 0.55, 0.1, 0.1]);
        assert_eq!(down(Decay::Linear), [1.0, 0.55, 0.1, 0.1]);
        assert_eq!(down(Decay::Constant), [1.0; 4]);
    }
}
