//! Whether a workload divides among ranks: its batch, a model's layers, and what is in them.

use super::super::shape::Shape;
use super::super::shape::parts::Positions;
use super::grid::Parallel;

/// Why a workload cannot be shared so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Indivisible {
    /// The field of a trial at fault, by its path.
    pub field: &'static str,
    pub message: String,
}

impl Parallel {
    /// Whether the batch divides among the replicas, and every layer among the ranks of one.
    ///
    /// # Errors
    /// What does not divide, and values that work.
    pub fn check(&self, shape: &Shape, batch: u32) -> Result<(), Indivisible> {
        let replicas = self.data;
        if batch == 0 || replicas == 0 || !batch.is_multiple_of(replicas) {
            let up = u64::from(batch.div_ceil(replicas.max(1)).max(1)) * u64::from(replicas.max(1));
            let among = if self.tensor == 1 && self.pipeline == 1 { "devices" } else { "parallel.data" };
            let message =
                format!("{batch} sequences do not divide among {among} = {replicas}; use {up}, or exclude the pair");
            return Err(Indivisible { field: "batch", message });
        }
        let (stages, layers) = (self.pipeline, shape.n_layers);
        if stages == 0 || stages > layers {
            let message = format!(
                "expected 1 to {layers} stages, as model.n_layers = {layers}, found {stages}; use {layers} or fewer"
            );
            return Err(Indivisible { field: "parallel.pipeline", message });
        }
        self.check_experts(shape)?;
        let t = self.tensor;
        if let Some(what) = split_by_nobody(shape).filter(|_| t > 1) {
            let message = format!("{what} are not built in where ranks split the layers; use parallel.tensor: 1");
            return Err(Indivisible { field: "parallel.tensor", message });
        }
        if t > shape.vocab_size {
            let message = format!("{t} devices would not have a word of model.vocab_size = {} each", shape.vocab_size);
            let message = format!("{message}; use {} or fewer", shape.vocab_size);
            return Err(Indivisible { field: "parallel.tensor", message });
        }
        // Where all layers are of experts nothing is as wide as `d_ff`, unless experts are.
        let dense = shape.experts.is_none_or(|e| e.dense_layers > 0 || e.d_ff.is_none()).then_some(shape.d_ff);
        let of_experts = shape.experts.and_then(|e| e.d_ff);
        let parts = [("n_heads", Some(shape.n_heads)), ("d_ff", dense), ("d_ff_expert", of_experts)];
        let parts = parts.map(|(field, size)| (field, size.unwrap_or(0)));
        // Heads of keys and values divide among the ranks, or the ranks among copies of them.
        let kv_heads = shape.n_kv_heads;
        let fits = |t: u32| t > 0 && (kv_heads.is_multiple_of(t) || t.is_multiple_of(kv_heads));
        let undivided = parts.into_iter().find(|(_, size)| t == 0 || !size.is_multiple_of(t));
        let why = match undivided {
            Some((field, size)) => format!("{t} does not divide model.{field} = {size}"),
            None if fits(t) => return Ok(()),
            None => format!("{t} neither divides model.n_kv_heads = {kv_heads} nor is a multiple of it"),
        };
        let all = parts.into_iter().fold(0, |a, (_, size)| gcd(a, size));
        let works: Vec<String> =
            (1..=all).filter(|d| all.is_multiple_of(*d) && fits(*d)).map(|d| d.to_string()).collect();
        let message = format!("{why}; what divides all of this model: {}", works.join(", "));
        Err(Indivisible { field: "parallel.tensor", message })
    }

    /// Whether every layer's experts divide among the ranks that they are spread over, and the replicas into groups of those.
    fn check_experts(&self, shape: &Shape) -> Result<(), Indivisible> {
        let (ranks, replicas) = (self.expert, self.data);
        let fault = |message: String| Err(Indivisible { field: "parallel.expert", message });
        if ranks == 1 {
            return Ok(());
        }
        let Some(mixture) = shape.experts else {
            return fault(format!(
                "expected a model with experts to spread over {ranks} ranks, found none in family {}; use parallel.expert: 1, or give \
                 model.n_experts",
                shape.family
            ));
        };
        let count = mixture.count;
        if ranks == 0 || !count.is_multiple_of(ranks) {
            let works: Vec<String> = (1..=count).filter(|n| count.is_multiple_of(*n)).map(|n| n.to_string()).collect();
            return fault(format!(
                "{ranks} does not divide model.n_experts = {count}; what does: {}",
                works.join(", ")
            ));
        }
        if !replicas.is_multiple_of(ranks) {
            return fault(format!(
                "{ranks} does not divide the {replicas} replicas (parallel.data) that experts are spread over; use a multiple of {ranks} \
                 of them"
            ));
        }
        Ok(())
    }
}

/// What a model has whose gradients, or whose meaning, would be of all heads together.
fn split_by_nobody(shape: &Shape) -> Option<&'static str> {
    let parts = shape.parts();
    if shape.latent.is_some() {
        return Some("latents of keys and values");
    }
    (parts.positions == Positions::Alibi).then_some("slopes of scores by head (ALiBi)")
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::super::super::shape::{Family, ShapeSpec};
    use super::*;

    #[test]
    fn what_does_not_divide_is_refused_with_what_does() {
        let spec = ShapeSpec {
            d_model: Some(64),
            n_heads: Some(8),
            n_kv_heads: Some(4),
            d_ff: Some(96),
            ..ShapeSpec::default()
        };
        let shape = Shape::new(Family::Llama, &spec).unwrap();
        let check = |data, tensor, batch| Parallel { data, tensor, ..Parallel::replicas(1) }.check(&shape, batch);
        assert_eq!(check(2, 4, 6), Ok(()));
        assert_eq!(check(1, 8, 1), Ok(()), "two ranks hold each head of keys and values");
        assert_eq!(
            check(1, 16, 1).unwrap_err().message,
            "16 does not divide model.n_heads = 8; what divides all of this model: 1, 2, 4, 8"
        );
        let odd = ShapeSpec { n_heads: Some(6), n_kv_heads: Some(2), head_dim: Some(8), ..spec };
        let odd = Shape::new(Family::Llama, &odd).unwrap();
        assert_eq!(
            Parallel { tensor: 3, ..Parallel::replicas(1) }.check(&odd, 1).unwrap_err().message,
            "3 neither divides model.n_kv_heads = 2 nor is a multiple of it; what divides all of this model: 1, 2, 6"
        );
        assert_eq!(
            check(4, 2, 6).unwrap_err().message,
            "6 sequences do not divide among parallel.data = 4; use 8, or exclude the pair"
        );
        assert!(check(0, 1, 6).is_err() && check(1, 0, 6).is_err());
    }

    #[test]
    fn experts_that_cannot_be_spread_so_are_refused_with_what_can() {
        let of = |family, expert: u32, data| {
            let spec = ShapeSpec { n_experts: (family == Family::Mixtral).then_some(12), ..ShapeSpec::default() };
            let shape = Shape::new(family, &spec).unwrap();
            Parallel { expert, ..Parallel::replicas(data) }.check(&shape, 24).map_err(|e| (e.field, e.message))
        };
        for (expert, data) in [(1, 1), (2, 2), (3, 6), (12, 12), (4, 8)] {
            assert_eq!(of(Family::Mixtral, expert, data), Ok(()));
        }
        let refused = |family, expert, data| {
            let (field, message) = of(family, expert, data).unwrap_err();
            assert_eq!(field, "parallel.expert");
            message
        };
        assert!(
            refused(Family::Mixtral, 8, 8)
                .starts_with("8 does not divide model.n_experts = 12; what does: 1, 2, 3, 4, 6, 12")
        );
        assert!(refused(Family::Mixtral, 0, 1).starts_with("0 does not divide model.n_experts = 12"));
        assert!(refused(Family::Mixtral, 3, 4).contains("use a multiple of 3"));
        let dense = refused(Family::Llama, 2, 2);
        assert!(dense.contains("found none in family llama") && dense.contains("parallel.expert: 1"), "{dense}");
    }
}
