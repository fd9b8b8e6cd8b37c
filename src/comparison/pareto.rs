//! The Pareto front: what no other choice beats in both cost and latency.

/// Indices of the points that no other point beats, by the first coordinate ascending. Both coordinates are better when lower.
/// A point that is not finite is on no front; of equal points the first one stands for all.
pub(crate) fn front(points: &[(f64, f64)]) -> Vec<usize> {
    let mut order: Vec<usize> =
        (0..points.len()).filter(|&i| points[i].0.is_finite() && points[i].1.is_finite()).collect();
    order.sort_by(|&a, &b| {
        points[a].0.total_cmp(&points[b].0).then(points[a].1.total_cmp(&points[b].1)).then(a.cmp(&b))
    });
    let mut lowest = f64::INFINITY;
    order.retain(|&i| {
        let better = points[i].1 < lowest;
        lowest = lowest.min(points[i].1);
        better
    });
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_front_is_what_nothing_beats_in_both() {
        let points = [(1.0, 9.0), (2.0, 5.0), (3.0, 6.0), (4.0, 1.0), (4.0, 0.5), (f64::NAN, 0.0)];
        assert_eq!(front(&points), [0, 1, 4]);
        assert_eq!(front(&[]), Vec::<usize>::new());
        assert_eq!(front(&[(1.0, 1.0), (1.0, 1.0)]), [0]);
    }

    proptest! {
        #[test]
        fn every_point_is_on_the_front_or_beaten_by_one_that_is(points in prop::collection::vec((0.0..10.0f64, 0.0..10.0f64), 1..40)) {
            let on = front(&points);
            let covers = |f: &usize, p: &(f64, f64)| points[*f].0 <= p.0 && points[*f].1 <= p.1;
            for (i, p) in points.iter().enumerate() {
                prop_assert!(on.contains(&i) || on.iter().any(|f| covers(f, p)));
            }
            for &i in &on {
                prop_assert!(!on.iter().any(|&j| j != i && covers(&j, &points[i])));
            }
        }
    }
}
