//! Which elements an optimizer's step says nothing about: those whose gradient is rounding noise.
//!
//! In f32 a gradient, theirs and ours, is off by a few units of 2^-24 of the largest of all. Adam divides a gradient by its own size, so that
//! an element's step, the learning rate, is off by what its gradient is off by, of the element's gradient: where that alone would be
//! beyond the tolerance of the parameter's scale, the element is noise. It may go the other way, and what follows is the gradient of
//! another model then: after a step in which an element was left out, small gradients are known only as far as one weight of a tensor
//! matters. In bf16 and TF32 it is what the format allows a gradient to
//! be off by: the tolerance, of the scale that its tensor is compared on. An element below that may have either sign, and Adam's first
//! step is the sign times the learning rate: a step the wrong way is as far off in TF32 as in bf16, and no tolerance that shrinks with
//! the format is meant for it. An element above has the sign of theirs, or the gradients themselves are beyond their tolerance.

use super::FLOOR;
use super::tolerance::TOLERANCE;
use crate::transformer::Dtype;
use crate::transformer::checkpoint::place::Place;

/// A gradient below this share of the largest one is rounding noise in f32 whatever is done with it.
const NOISE: f32 = 1e-6;

/// What a gradient is off by in f32, of the largest: eight deviations of a sum's rounding, as operations are held to.
const OFF: f32 = 8.0 / (1 << 24) as f32;

/// What an element may be moved by, and what it is compared on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Steps {
    /// Learning rate times steps.
    pub moved: f32,
    /// The scale that the parameter is compared on.
    pub scale: f32,
    /// How many elements the parameter has.
    pub len: usize,
    /// Whether an element was left out in a step before.
    pub after_noise: bool,
}

/// What is noise in a tensor whose gradients are compared on this scale within a tolerance, the largest of all gradients being `of_all`.
pub(super) fn below(dtype: Dtype, tolerance: f64, steps: Steps, scale: f32, of_all: f32) -> f32 {
    let of_step = steps.moved * OFF / (TOLERANCE as f32 * steps.scale);
    // One of so many weights is another one by up to twice what it was moved by.
    let of_others = if steps.after_noise { 2.0 * steps.moved / steps.scale / (steps.len as f32).sqrt() } else { 0.0 };
    let of_f32 = NOISE.max(of_step).max(of_others) * of_all;
    match dtype {
        Dtype::F32 => of_f32,
        Dtype::Tf32 | Dtype::Bf16 => of_f32.max(tolerance as f32 * scale),
    }
}

/// Marks elements of our gradients that are below what `below` says of their tensor's scale and of the largest of all. An exact zero
/// (a token that does not occur) is no noise: both frameworks leave the element alone.
pub(super) fn mark<'a>(
    gradients: &[Vec<f32>],
    places: impl Iterator<Item = &'a Place>,
    below: impl Fn(&Place, f32, f32) -> f32,
    marks: &mut Vec<Vec<bool>>,
) {
    marks.resize_with(gradients.len(), Vec::new);
    for (marks, gradient) in marks.iter_mut().zip(gradients) {
        marks.resize(gradient.len(), false);
    }
    let of_all = gradients.iter().flatten().fold(0.0f32, |m, g| m.max(g.abs()));
    for place in places {
        let (marks, gradient) = (&mut marks[place.parameter], &gradients[place.parameter]);
        let positions = || (0..place.len()).map(|i| place.position(i));
        // As the gradients themselves are compared.
        let scale = positions().fold(FLOOR as f32 * of_all, |m, at| m.max(gradient[at].abs()));
        let below = below(place, scale, of_all);
        for at in positions() {
            marks[at] |= gradient[at] != 0.0 && gradient[at].abs() < below;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tolerance::of_gradients;
    use super::*;
    use crate::transformer::WeightFormat;
    use crate::transformer::shape::{Family, Shape, ShapeSpec};

    #[test]
    fn noise_is_of_the_format_and_of_the_tensor() {
        let shape = Shape::new(Family::Gpt2, &ShapeSpec::default()).unwrap();
        let steps = Steps { moved: 1e-3, scale: 100.0, len: 100, after_noise: false };
        let of = |dtype, scale| below(dtype, of_gradients(dtype, WeightFormat::Dtype, &shape, 34), steps, scale, 1.0);
        assert_eq!([of(Dtype::F32, 1.0), of(Dtype::F32, 1e-3)], [NOISE; 2]);
        // A step that is 3 percent of the parameter's scale has to be right to 1/300, and a gradient is off by a share of the largest.
        let small =
            below(Dtype::F32, TOLERANCE, Steps { moved: 3e-3, scale: 0.1, len: 100, after_noise: false }, 1.0, 1.0);
        assert!((small / (0.03 / 1e-4 * OFF) - 1.0).abs() < 1e-5, "{small}");
        assert!(of(Dtype::Tf32, 1.0) > 1e-2 && of(Dtype::Bf16, 1.0) > 3.9 * of(Dtype::Tf32, 1.0));
        assert!((of(Dtype::Tf32, 0.5) / of(Dtype::Tf32, 1.0) - 0.5).abs() < 1e-6);
    }

    #[test]
    fn elements_are_marked_by_their_own_tensor_and_stay_marked() {
        let of =
            |row| Place { parameter: 0, row, rows: 3, columns: 1, transposed: false, by_heads: None, by_experts: None };
        let (first, second) = (of(0), of(3));
        let mut marks = Vec::new();
        let gradients = [vec![1.0, 0.0, -0.05, 0.01, -0.0005, 0.005]];
        mark(&gradients, [first, second].iter(), |_, scale, _| 0.1 * scale, &mut marks);
        assert_eq!(marks, [[false, false, true, false, true, false]]);
        mark(&[vec![1.0; 6]], [first, second].iter(), |_, scale, _| 0.1 * scale, &mut marks);
        assert_eq!(marks, [[false, false, true, false, true, false]]);
    }
}
