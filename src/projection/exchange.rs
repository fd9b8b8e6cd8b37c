//! What devices of a training step exchange, and how much of it computation does not hide.

use super::constants::Constants;
use super::kernels::LINK_LATENCY;
use super::training::{Driver, Recompute, Sharding, Training, TrainingEngine};

/// Share of a tensor-parallel collective that computation does not hide: Megatron-LM exposes all, user buffers of Transformer
/// Engine hide about half.
const TENSOR_EXPOSED: f64 = 0.7;
/// Share of a gradient reduction that the backward pass does not hide: PyTorch DDP (Li 2020), buckets overlap, the last one does
/// not.
const GRADIENT_EXPOSED: f64 = 0.5;

impl Training {
    /// Seconds of a layer's tensor-parallel sums that show: two forward, two backward, two more where the forward is run
    /// again. A sum of n bytes over p ranks moves 2 (p - 1) / p n (Thakur et al. 2005).
    pub(super) fn tensor_sums(&self, c: &Constants) -> f64 {
        if self.tensor <= 1.0 {
            return 0.0;
        }
        let inside = self.tensor <= self.device.link_devices.max(1.0);
        let link =
            if inside { self.device.link_bytes_per_second * c.link_share } else { self.network * c.network_share };
        let bytes = self.rows() * self.model.d_model * 2.0;
        let one = 2.0 * bytes * (self.tensor - 1.0) / self.tensor / link + LINK_LATENCY;
        let exposed = if self.sequence_parallel { TENSOR_EXPOSED } else { 1.0 };
        exposed * one * if self.recompute == Recompute::Full { 6.0 } else { 4.0 }
    }

    /// Seconds of a layer's exchange of tokens among the ranks that share experts, there and back, forward and backward.
    pub(super) fn expert_exchange(&self, c: &Constants) -> f64 {
        let (ranks, m) = (self.expert_parallel, &self.model);
        let Some(e) = m.experts.filter(|_| ranks > 1.0) else { return 0.0 };
        let inside = ranks * self.tensor <= self.island();
        let link =
            if inside { self.device.link_bytes_per_second * c.link_share } else { self.network * c.network_share };
        // Over the network a token goes once to each machine, and from there to its experts.
        let copies = if inside { e.active.min(ranks) } else { e.active.min(ranks * self.tensor / self.island()) };
        let bytes = self.rows() / self.tensor * copies * m.d_model * 2.0 * (ranks - 1.0) / ranks;
        let times = if self.recompute == Recompute::Full { 6.0 } else { 4.0 };
        c.expert_exposed * times * (bytes / link + LINK_LATENCY) * e.layers / m.layers
    }

    /// Keys and values that travel around the context-parallel ring, mostly hidden.
    pub(super) fn context_ring(&self, c: &Constants) -> f64 {
        if self.context <= 1.0 {
            return 0.0;
        }
        let bytes = self.rows() * 2.0 * self.model.d_kv() / self.tensor * 2.0;
        0.9 * bytes * (self.context - 1.0) / (self.device.link_bytes_per_second * c.link_share)
    }

    /// Activations between stages, all micro-batches of a step, the part that shows, and what sending and waiting takes.
    pub(super) fn hand_over(&self, c: &Constants) -> f64 {
        if self.pipeline <= 1.0 {
            return 0.0;
        }
        let inside = self.tensor * self.pipeline * self.context <= self.island();
        let link =
            if inside { self.device.link_bytes_per_second * c.link_share } else { self.network * c.network_share };
        let whole = 2.0 * self.rows() * self.model.d_model * 2.0;
        let (bytes, shown) = if self.blocking { (whole, 1.0) } else { (whole / self.tensor, 0.2) };
        let moved = shown * (self.accumulation + self.pipeline - 1.0) * self.interleave * bytes / link;
        // There and back of every micro-batch and chunk, and while the pipeline fills and drains.
        let calls = 2.0 * (self.accumulation * self.interleave + self.pipeline - 1.0);
        moved + if self.driver == Driver::Python { calls * c.hand_over } else { 0.0 }
    }

    /// Devices that talk over the fast link.
    fn island(&self) -> f64 {
        if self.device.link_devices > 8.0 { self.device.link_devices } else { self.devices_per_node }
    }

    /// Seconds that the exchange of gradients and weights adds to a step of `busy` seconds.
    pub(super) fn reductions(&self, busy: f64, c: &Constants) -> f64 {
        let ranks = self.data() * self.context;
        if ranks <= 1.0 {
            return 0.0;
        }
        let fast = self.device.link_bytes_per_second * c.link_share;
        let inside = self.devices <= self.island();
        let link = if inside {
            fast
        } else {
            // The ranks of a node share out its network cards.
            let cards = (self.devices_per_node.min(self.data()) / self.tensor).max(1.0);
            fast.min(self.network * c.network_share * cards)
        };
        let held = self.held_parameters();
        let bytes = 2.0 * held * (ranks - 1.0) / ranks;
        // A ring passes every rank; sums of a whole step are few, gathers are there for every layer.
        let hop = if inside { LINK_LATENCY / 8.0 } else { c.ring_latency };
        let ring = ranks * hop;
        let layers = self.model.layers / self.pipeline;
        let once = |times: f64, collectives: f64| times * (bytes / link + ring * collectives);
        match self.sharding {
            Sharding::Weights => {
                overlapped(busy, once(3.0 * self.accumulation, layers * self.gathers), c.shard_exposed)
            }
            Sharding::Gradients => overlapped(busy, once(2.0 * self.accumulation, 4.0), c.shard_exposed),
            Sharding::Optimizer => GRADIENT_EXPOSED * once(2.0, 4.0),
            Sharding::None if self.engine == TrainingEngine::Fused => (1.6 * GRADIENT_EXPOSED) * once(2.0, 1.0),
            Sharding::None => GRADIENT_EXPOSED * once(2.0, 4.0),
        }
    }
}

/// What an exchange adds to a computation that it overlaps with, all but a share of the shorter.
fn overlapped(busy: f64, exchange: f64, exposed: f64) -> f64 {
    (exchange - busy).max(0.0) + exposed * busy.min(exchange)
}
