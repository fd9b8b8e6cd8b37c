//! Attention through latents: keys and values of all heads are products of one short vector a token, which is all that a cache holds
//! of it beside one rotated key (DeepSeek-AI 2024, section 2.1).

use super::parts::{NormKind, Parts, Positions, QkNorm};
use super::{ShapeError, ShapeSpec, dimension, fault};
use serde::{Deserialize, Serialize};

/// Sizes of latent attention. A query's and a key's head is `rope + nope` wide, a value's `value`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Latent {
    /// Width of the latent that queries are products of; `None`: they are products of the stream.
    pub q_rank: Option<u32>,
    /// Width of the latent that keys and values are products of.
    pub kv_rank: u32,
    /// Elements of a head without positions.
    pub nope: u32,
    /// Elements of a head that are rotated; all heads share those of a key.
    pub rope: u32,
    /// Width of a value's head.
    pub value: u32,
    /// Whether files have rotated pairs side by side; here they lie half of `rope` apart, which is the same model in another order.
    pub interleaved: bool,
}

impl Latent {
    /// Width of a query's and of a key's head.
    pub fn head_dim(&self) -> u32 {
        self.rope + self.nope
    }

    /// Numbers that a cache holds of a token and layer.
    pub fn cached(&self) -> u32 {
        self.kv_rank + self.rope
    }

    /// Rows of a head in the product that makes keys and values of their latent.
    pub fn kv_head(&self) -> u32 {
        self.nope + self.value
    }
}

/// What a person states of them; a `kv_lora_rank` makes attention latent. By the names of Hugging Face's configs.
#[allow(missing_docs, reason = "the fields are those of `Latent`, each optional")]
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LatentSpec {
    /// 0 for none.
    pub q_lora_rank: Option<u32>,
    pub kv_lora_rank: Option<u32>,
    pub qk_nope_head_dim: Option<u32>,
    pub qk_rope_head_dim: Option<u32>,
    pub v_head_dim: Option<u32>,
    pub interleaved: Option<bool>,
}

impl LatentSpec {
    /// These, and of others what these do not state.
    pub(crate) fn over(self, base: Self) -> Self {
        Self {
            q_lora_rank: self.q_lora_rank.or(base.q_lora_rank),
            kv_lora_rank: self.kv_lora_rank.or(base.kv_lora_rank),
            qk_nope_head_dim: self.qk_nope_head_dim.or(base.qk_nope_head_dim),
            qk_rope_head_dim: self.qk_rope_head_dim.or(base.qk_rope_head_dim),
            v_head_dim: self.v_head_dim.or(base.v_head_dim),
            interleaved: self.interleaved.or(base.interleaved),
        }
    }

    fn stated(&self) -> Option<&'static str> {
        let all = [
            ("q_lora_rank", self.q_lora_rank),
            ("qk_nope_head_dim", self.qk_nope_head_dim),
            ("qk_rope_head_dim", self.qk_rope_head_dim),
            ("v_head_dim", self.v_head_dim),
        ];
        all.into_iter().find(|(_, value)| value.is_some()).map(|(name, _)| name)
    }
}

/// The latents that a spec states, or its family usually has.
pub(super) fn latent(usual: Option<Latent>, spec: &ShapeSpec) -> Result<Option<Latent>, ShapeError> {
    let own = &spec.latent;
    let Some(kv_rank) = own.kv_lora_rank.or(usual.map(|l| l.kv_rank)) else {
        return match own.stated() {
            Some(field) => Err(fault(field, "there is no latent that it is of; give kv_lora_rank too".into())),
            None => Ok(None),
        };
    };
    let size = |field, value: Option<u32>, of_usual: fn(&Latent) -> u32, otherwise| {
        dimension(field, value.or(usual.as_ref().map(of_usual)).unwrap_or(otherwise))
    };
    let latent = Latent {
        q_rank: match own.q_lora_rank.or(usual.and_then(|l| l.q_rank)).unwrap_or(0) {
            0 => None,
            rank => Some(dimension("q_lora_rank", rank)?),
        },
        kv_rank: dimension("kv_lora_rank", kv_rank)?,
        nope: size("qk_nope_head_dim", own.qk_nope_head_dim, |l| l.nope, 128)?,
        rope: size("qk_rope_head_dim", own.qk_rope_head_dim, |l| l.rope, 64)?,
        value: size("v_head_dim", own.v_head_dim, |l| l.value, 128)?,
        interleaved: own.interleaved.unwrap_or(true),
    };
    if !latent.rope.is_multiple_of(2) {
        let message = format!(
            "{} does not divide into the pairs that rotary positions turn; use {}",
            latent.rope,
            latent.rope + 1
        );
        return Err(fault("qk_rope_head_dim", message));
    }
    if latent.value > latent.head_dim() {
        let (value, most) = (latent.value, latent.head_dim());
        let message =
            format!("{value} is more than the {most} of a query's head, which is not built in; use {most} or fewer");
        return Err(fault("v_head_dim", message));
    }
    Ok(Some(latent))
}

/// Whether what stands beside latent attention is built in with it.
pub(super) fn check(spec: &ShapeSpec, parts: &Parts, (heads, kv_heads): (u32, u32)) -> Result<(), ShapeError> {
    let plain = parts.qk_norm == QkNorm::None && !parts.sinks && parts.score_cap.is_none();
    let message = |what: &str| format!("{what} with latent attention (kv_lora_rank); leave it out");
    if spec.head_dim.is_some() {
        return Err(fault("head_dim", message("it is qk_nope_head_dim + qk_rope_head_dim")));
    }
    if heads != kv_heads {
        return Err(fault("n_kv_heads", message("every head has a key and a value of its own")));
    }
    if spec.window.is_some() {
        return Err(fault("window", message("a window is not built in")));
    }
    if spec.qkv_bias == Some(true) || spec.attn_out_bias == Some(true) {
        let field = if spec.qkv_bias == Some(true) { "qkv_bias" } else { "attn_out_bias" };
        return Err(fault(field, message("biases are not built in")));
    }
    if parts.positions != Positions::Rotary || parts.norm == NormKind::None || !plain {
        let what =
            "positions that are not rotary, no norms, norms of queries and keys, sinks and caps are not built in";
        return Err(fault("kv_lora_rank", format!("{what} with latent attention; leave it out")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::{Family, Shape};
    use super::*;

    fn of(change: fn(&mut ShapeSpec)) -> Result<Shape, ShapeError> {
        let latent = LatentSpec { kv_lora_rank: Some(32), ..LatentSpec::default() };
        let mut spec = ShapeSpec { latent, ..ShapeSpec::default() };
        change(&mut spec);
        Shape::new(Family::Llama, &spec)
    }

    #[test]
    fn a_latent_makes_heads_of_two_parts() {
        let shape = of(|_| ()).unwrap();
        assert_eq!((shape.head_dim, shape.d_attn(), shape.rotary_dim()), (192, 12 * 128, 64));
        assert_eq!(shape.latent.unwrap().cached(), 32 + 64);
    }

    #[test]
    fn what_cannot_be_beside_a_latent_is_refused() {
        let field = |change| of(change).unwrap_err().field;
        assert_eq!(field(|s| s.window = Some(8)), "window");
        assert_eq!(field(|s| s.head_dim = Some(64)), "head_dim");
        assert_eq!(field(|s| s.n_kv_heads = Some(4)), "n_kv_heads");
        assert_eq!(field(|s| s.latent.qk_rope_head_dim = Some(7)), "qk_rope_head_dim");
        assert_eq!(field(|s| s.latent.v_head_dim = Some(200)), "v_head_dim");
        assert_eq!(
            of(|s| s.latent.v_head_dim = Some(200)).unwrap_err().message.split("; ").last(),
            Some("use 192 or fewer")
        );
        let alone =
            ShapeSpec { latent: LatentSpec { v_head_dim: Some(8), ..LatentSpec::default() }, ..ShapeSpec::default() };
        assert_eq!(Shape::new(Family::Llama, &alone).unwrap_err().field, "v_head_dim");
    }
}
