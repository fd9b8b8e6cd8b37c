//! Rows in and out of tables, the last rows of sequences, and the largest of a row.

use super::super::backend::{Backend, Category, IGNORED_TOKEN, Tokens};
use super::Size;
use super::case::{Allowed, Case, below, changed, given, normal, result, these};
use Category::{Activations, Gradients, Statistics, Weights};

pub(super) fn list<B: Backend + 'static>(size: Size, to: &mut Vec<Case<B>>) {
    // Rows, tokens of a sequence, words, width.
    let mut tables = vec![(1, 1, 1, 1), (6, 3, 7, 5), (64, 16, 9, 48), (65, 13, 300, 100)];
    let mut rows = vec![(1, 1), (3, 20), (17, 1000)];
    if size == Size::Full {
        tables.push((4100, 1025, 50257, 96));
        rows.extend([(1, 50257), (17, 50257), (3, 128_256)]);
    }
    for (n, tokens, v, c) in tables {
        to.extend([
            embed(n, tokens, v, c),
            embed_backward((n, tokens, v, c), 0, None),
            last_rows(n / tokens, tokens, c),
        ]);
    }
    to.extend(rows.into_iter().map(|(n, v)| largest(n, v)));
}

/// Words from the host, and words where the backend keeps them.
fn embed<B: Backend + 'static>(n: usize, tokens: usize, v: usize, c: usize) -> Case<B> {
    let mut ids = below(n, v as u32, 5);
    // One has no row in the table.
    ids.iter_mut().skip(2).take(1).for_each(|id| *id = IGNORED_TOKEN);
    let slots = vec![
        given(v * c, Weights),
        given((tokens + 2) * c, Weights),
        result("embed", n * c, Activations, Allowed::Sum(1)),
        result("embed_tokens", n * c, Activations, Allowed::Exactly),
        result("put_tokens", n, Statistics, Allowed::Exactly),
    ];
    Case::new("embed", format!("N {n} T {tokens} V {v} C {c}"), n * c, slots, move |on: &B, b| {
        if let [table, positions, out, placed, back] = b {
            on.embed(&ids, tokens, 2, table, Some(positions), out, c);
            let mut kept = on.alloc(n, Statistics)?;
            on.put_tokens(&ids, &mut kept);
            on.embed_tokens(Tokens::Placed(&kept), n, tokens, 0, table, None, placed, c);
            on.upload(&numbers(&on.tokens(&kept, n)), back);
        }
        Ok(())
    })
}

/// Rows of positions from `first` on; `ignored`: every so many tokens, one that has no row in the table's gradient.
pub(super) fn embed_backward<B: Backend + 'static>(
    (n, tokens, v, c): (usize, usize, usize, usize),
    first: usize,
    ignored: Option<usize>,
) -> Case<B> {
    let mut ids = below(n, v as u32, 5);
    ids.iter_mut().step_by(ignored.unwrap_or(n)).skip(1).for_each(|id| *id = IGNORED_TOKEN);
    // The last word is padding where some are ignored: it occurs.
    let padding = ignored.map(|_| v as u32 - 1);
    if let Some((every, padding)) = ignored.zip(padding) {
        ids.iter_mut().skip(1).step_by(3 * every).for_each(|id| *id = padding);
    }
    let often = (0..v as u32).map(|w| ids.iter().filter(|id| **id == w).count());
    let most = if v < 1000 { often.max().unwrap_or(0) } else { n };
    let slots = vec![
        given(n * c, Activations),
        changed("embed_backward", v * c, Gradients, Allowed::Sum(most + 1)),
        result("embed_backward", (tokens + 2) * c, Gradients, Allowed::Sum(n.div_ceil(tokens))),
        changed("embed_backward", v * c, Gradients, Allowed::Sum(most + 1)),
        changed("embed_backward_tokens", v * c, Gradients, Allowed::Sum(most + 1)),
    ];
    let from = if first > 0 { format!(" from {first}") } else { String::new() };
    Case::new("embed_backward", format!("N {n} T {tokens} V {v} C {c}{from}"), n * c, slots, move |on: &B, b| {
        if let [dout, table, positions, alone, placed] = b {
            on.embed_backward(&ids, tokens, first, dout, table, Some(positions), c);
            on.embed_backward(&ids, tokens, first, dout, alone, None, c);
            let mut kept = on.alloc(n, Statistics)?;
            on.put_tokens(&ids, &mut kept);
            on.embed_backward_tokens(Tokens::Placed(&kept), n, tokens, first, padding, dout, placed, None, c);
        }
        Ok(())
    })
}

fn last_rows<B: Backend + 'static>(batch: usize, tokens: usize, c: usize) -> Case<B> {
    let slots =
        vec![given(batch * tokens * c, Activations), result("last_rows", batch * c, Activations, Allowed::Exactly)];
    Case::new("last_rows", format!("B {batch} T {tokens} C {c}"), batch * c, slots, move |on: &B, b| {
        if let [x, out] = b {
            on.last_rows(x, out, batch, tokens, c);
        }
        Ok(())
    })
}

/// Of equals the first: every second row has its largest three times.
fn largest<B: Backend + 'static>(n: usize, v: usize) -> Case<B> {
    let mut logits = normal(n * v, 6);
    for row in logits.chunks_exact_mut(v).step_by(2) {
        let most = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        for at in [v / 3, v / 2, v - 1] {
            row[at] = most;
        }
    }
    let slots = vec![
        these(Statistics, logits),
        result("argmax", n, Statistics, Allowed::Exactly),
        result("argmax_into", n, Statistics, Allowed::Exactly),
    ];
    Case::new("argmax", format!("N {n} V {v}"), n * v, slots, move |on: &B, b| {
        if let [x, found, chosen] = b {
            on.upload(&numbers(&on.argmax(x, n, v)), found);
            let mut kept = on.alloc(n, Statistics)?;
            on.argmax_into(x, n, v, &mut kept);
            on.upload(&numbers(&on.tokens(&kept, n)), chosen);
        }
        Ok(())
    })
}

/// Words as numbers, exact below 2^24.
fn numbers(words: &[u32]) -> Vec<f32> {
    words.iter().map(|w| *w as f32).collect()
}
