//! Rows in another order, and sums of them: those of tokens that go to experts elsewhere, and come back.

use super::super::backend::{Backend, Category};
use super::Size;
use super::case::{Allowed, Case, below, given, result};
use Category::{Activations, Statistics};

pub(super) fn list<B: Backend + 'static>(size: Size, to: &mut Vec<Case<B>>) {
    // Rows there, rows taken, rows of a sum, width.
    let mut all = vec![(1, 1, 1, 1), (5, 7, 1, 33), (40, 66, 3, 17), (300, 1001, 7, 1)];
    if size == Size::Full {
        all.push((4097, 16_392, 8, 768));
    }
    to.extend(all.into_iter().map(|(there, rows, each, width)| rows_of((there, rows), each, width)));
}

/// Some rows are taken often, and some never.
fn rows_of<B: Backend + 'static>((there, rows): (usize, usize), each: usize, width: usize) -> Case<B> {
    let places: Vec<usize> = below(rows, there as u32, 8).into_iter().map(|row| row as usize).collect();
    let summed = rows / each;
    let slots = vec![
        given(there * width, Activations),
        result("take_rows", rows * width, Activations, Allowed::Exactly),
        result("sum_rows", summed * width, Activations, Allowed::Sum(each)),
        given(there * width, Statistics),
        result("take_rows", rows * width, Statistics, Allowed::Exactly),
    ];
    let text = format!("{rows} of {there} rows of {width}, {each} a sum");
    Case::new("take_rows", text, rows * width, slots, move |on: &B, b| {
        if let [from, taken, sums, numbers, beside] = b {
            on.take_rows(from, taken, &places, width);
            on.sum_rows(from, sums, &places[..summed * each], (each, width));
            on.take_rows(numbers, beside, &places, width);
        }
        Ok(())
    })
}
