//! Experts that are spread over ranks (Lepikhin et al. 2020, GShard, section 3.2): each rank has some of every layer's, and sequences of
//! its own. Where a token goes its own rank finds; then rows go to the ranks of their experts, are multiplied there as any experts' rows
//! are, and come back weighted, to be added up. Gradients go the same ways.
//!
//! A row is a token and one of its experts. Rows leave in the order of the experts, those of one expert in that of the tokens, so that how
//! many each expert is sent says all about them. An expert has the rows of rank 0 first: the order that one rank would have that had
//! all sequences.
//!
//! For ranks whose buffers lie in host memory: a GPU would have to wait for its counts in the middle of each layer.

use super::super::backend::{Backend, Category, ExpertDims, ExpertsBackward};
use super::super::collective::{Collective, Counts};
use super::super::trace;
use super::activations::RoutedTokens;
use super::model::{LayerIndex, Model};
use super::post::{Post, Returning, room_for};
use std::sync::PoisonError;

/// The rows of a rank's tokens in the order in which they leave.
struct Leaving {
    /// `token * K + slot`
    order: Vec<usize>,
    /// How many each expert is sent, `[E]`.
    counts: Vec<u32>,
}

impl Leaving {
    /// From the experts that tokens go to, `[N, K]`.
    fn of(chosen: &[u32], experts: usize) -> Self {
        let expert = |chosen: &u32| (*chosen as usize).min(experts - 1);
        let mut counts = vec![0; experts];
        chosen.iter().for_each(|e| counts[expert(e)] += 1);
        let before = |next: &mut usize, n: &u32| {
            let first = *next;
            *next += *n as usize;
            Some(first)
        };
        let mut next: Vec<usize> = counts.iter().scan(0, before).collect();
        let mut order = vec![0; chosen.len()];
        for (place, e) in chosen.iter().enumerate() {
            let row = &mut next[expert(e)];
            order[*row] = place;
            *row += 1;
        }
        Self { order, counts }
    }

    /// The token of each row.
    fn tokens(&self, per_token: usize) -> Vec<usize> {
        self.order.iter().map(|place| place / per_token).collect()
    }

    /// The row of each token and slot.
    fn places(&self) -> Vec<usize> {
        let mut places = vec![0; self.order.len()];
        self.order.iter().enumerate().for_each(|(row, place)| places[*place] = row);
        places
    }
}

/// How many rows go to each rank of a group and come from it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Ways {
    out: Vec<usize>,
    home: Vec<usize>,
}

impl Ways {
    /// From how many rows each expert is sent by this rank, and how many this rank's experts are by each.
    fn of(sent: &[u32], arrived: &[u32], ranks: usize) -> Self {
        let by_rank = |counts: &[u32]| {
            let each = counts.chunks_exact((counts.len() / ranks).max(1));
            each.map(|counts| counts.iter().map(|n| *n as usize).sum()).collect()
        };
        Self { out: by_rank(sent), home: by_rank(arrived) }
    }

    /// Rows that come.
    fn arriving(&self) -> usize {
        self.home.iter().sum()
    }

    /// The same ways from experts to tokens.
    fn back(self) -> Self {
        Self { out: self.home, home: self.out }
    }

    /// Takes rows of so many numbers along.
    fn take<T>(&self, group: &dyn Collective<T>, from: &mut T, to: &mut T, width: usize) {
        let _span = trace::exchange(group.size(), "tokens");
        let [sent, received] = [&self.out, &self.home].map(|rows| rows.iter().map(|n| n * width).collect::<Vec<_>>());
        group.all_to_all(from, to, Counts { sent: &sent, received: &received });
    }
}

impl<B: Backend> Model<B> {
    /// What a token's experts say of `input [N, C]` in `said [N, C]`, wherever they are. `pre [R, inner]` and what arrived are kept for the
    /// way back; `hidden` is room.
    pub(super) fn experts_over_ranks(
        &self,
        layer: &LayerIndex,
        input: &B::Buffer,
        routed: &mut RoutedTokens<B::Buffer>,
        [pre, hidden, said]: [&mut B::Buffer; 3],
        (post, d): (&mut Post<B::Buffer>, ExpertDims),
    ) {
        let RoutedTokens { chosen, weights, arrived: Some(arrived), .. } = routed else { return };
        let Some(group) = self.spread.as_deref() else { return };
        let (on, ranks) = (&self.backend, group.size());
        let leaving = Leaving::of(&on.tokens(chosen, d.rows()), d.experts);
        on.put_tokens(&leaving.counts, &mut post.counts);
        let each = vec![d.experts / ranks; ranks];
        let told = Ways { out: each.clone(), home: each };
        told.take(group, &mut post.counts, &mut arrived.counts, 1);
        let mut counts = on.tokens(&arrived.counts, d.experts);
        let rows: usize = counts.iter().map(|n| *n as usize).sum();
        let room =
            [(&mut *pre, d.kind.inner(d.f)), (&mut *hidden, d.f), (&mut arrived.rows, d.c), (&mut post.here, d.c)];
        let beside = [(&mut arrived.experts, 1), (&mut arrived.weights, 1)];
        if !(self.has_room(rows, room, Category::Activations) && self.has_room(rows, beside, Category::Statistics)) {
            // Nothing is computed any more, and nobody waits for it.
            counts.fill(0);
            on.put_tokens(&counts, &mut arrived.counts);
        }
        let ways = Ways::of(&leaving.counts, &counts, ranks);
        on.take_rows(input, &mut post.own, &leaving.tokens(d.per_token), d.c);
        ways.take(group, &mut post.own, &mut arrived.rows, d.c);
        on.take_rows(weights, &mut post.beside, &leaving.order, 1);
        ways.take(group, &mut post.beside, &mut arrived.weights, 1);
        let each = (0..).zip(counts).map(|(i, n)| (i % (d.experts / ranks) as u32, n as usize));
        let of_rows: Vec<u32> = each.flat_map(|(expert, n)| std::iter::repeat_n(expert, n)).collect();
        on.put_tokens(&of_rows, &mut arrived.experts);
        let of = self.experts_of(layer, &arrived.experts, &arrived.weights, arrived_dims(d, ranks, of_rows.len()));
        on.experts(&arrived.rows, &of, pre, hidden, &mut post.here);
        ways.back().take(group, &mut post.here, &mut post.own, d.c);
        on.sum_rows(&post.own, said, &leaving.places(), (d.per_token, d.c));
    }

    /// Back from the gradient of what they say, `dout [N, C]`, to everything of `to`.
    pub(super) fn experts_over_ranks_backward(
        &self,
        layer: &LayerIndex,
        dout: &B::Buffer,
        routed: &RoutedTokens<B::Buffer>,
        to: ExpertsBackward<'_, B::Buffer>,
        (post, returning, d): (&mut Post<B::Buffer>, &mut Returning<B::Buffer>, ExpertDims),
    ) {
        let (Some(group), Some(arrived)) = (self.spread.as_deref(), &routed.arrived) else { return };
        let (on, ranks) = (&self.backend, group.size());
        let leaving = Leaving::of(&on.tokens(&routed.chosen, d.rows()), d.experts);
        let mut ways = Ways::of(&leaving.counts, &on.tokens(&arrived.counts, d.experts), ranks);
        let ExpertsBackward { pre, act, dup, ddown, dbiases, dx, dweights } = to;
        let (rows, Returning { dx: of_rows, dweights: of_weights }) = (ways.arriving(), returning);
        let room = [(&mut *act, d.f), (&mut *of_rows, d.c), (&mut post.here, d.c)];
        let beside = [(&mut *of_weights, 1)];
        if !(self.has_room(rows, room, Category::Activations) && self.has_room(rows, beside, Category::Statistics)) {
            ways.home.fill(0);
        }
        on.take_rows(dout, &mut post.own, &leaving.tokens(d.per_token), d.c);
        ways.take(group, &mut post.own, &mut post.here, d.c);
        let of = self.experts_of(layer, &arrived.experts, &arrived.weights, arrived_dims(d, ranks, ways.arriving()));
        let of_here = ExpertsBackward { pre, act, dup, ddown, dbiases, dx: of_rows, dweights: of_weights };
        on.experts_backward(&arrived.rows, &of, &post.here, of_here);
        let (back, places) = (ways.back(), leaving.places());
        back.take(group, of_rows, &mut post.own, d.c);
        on.sum_rows(&post.own, dx, &places, (d.per_token, d.c));
        back.take(group, of_weights, &mut post.beside, 1);
        on.take_rows(&post.beside, dweights, &places, 1);
    }

    /// Has room for so many rows of each of these widths, whatever was in it; `false` where there is none, which [`Model::check`] tells.
    fn has_room<const N: usize>(&self, rows: usize, of: [(&mut B::Buffer, usize); N], category: Category) -> bool {
        of.into_iter().all(|(buffer, width)| {
            if self.backend.numbers(buffer) >= rows * width {
                return true;
            }
            match self.backend.alloc(room_for(rows) * width, category) {
                Ok(larger) => *buffer = larger,
                Err(e) => *self.lacking.lock().unwrap_or_else(PoisonError::into_inner) = Some(e),
            }
            self.backend.numbers(buffer) >= rows * width
        })
    }
}

/// The layer as a rank's experts have it, of so many rows that came: a row goes to one of them.
fn arrived_dims(d: ExpertDims, ranks: usize, rows: usize) -> ExpertDims {
    ExpertDims { n: rows, per_token: 1, experts: d.experts / ranks, ..d }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_leave_in_the_order_of_their_experts_and_find_their_places_again() {
        // Four tokens, two experts each of six; 1 and 4 have none.
        let leaving = Leaving::of(&[5, 0, 2, 0, 0, 3, 3, 5], 6);
        assert_eq!(leaving.counts, [3, 0, 1, 2, 0, 2]);
        assert_eq!(leaving.order, [1, 3, 4, 2, 5, 6, 0, 7]);
        assert_eq!(leaving.tokens(2), [0, 1, 2, 1, 2, 3, 0, 3]);
        assert!(leaving.places().iter().enumerate().all(|(place, row)| leaving.order[*row] == place));
        // To three ranks of two experts each, and from them.
        let ways = Ways::of(&leaving.counts, &[0, 0, 2, 3, 0, 1], 3);
        assert_eq!((&ways.out[..], &ways.home[..], ways.arriving()), (&[3, 3, 2][..], &[0, 5, 1][..], 6));
        assert_eq!(ways.clone().back().back(), ways);
    }

    #[test]
    fn no_token_is_no_row() {
        let leaving = Leaving::of(&[], 4);
        assert_eq!((leaving.counts, leaving.order.len()), (vec![0; 4], 0));
    }
}
