//! Latent attention: blocks of heads from one layout to another, and attention over a cache of latents, of a few queries and of stretches
//! of prompts.

use super::super::CacheFormat;
use super::super::backend::few_bits_on_host::as_kept;
use super::super::backend::{Backend, BlockCopy, Blocks, CacheElement, Category, LatentDims};
use super::Size;
use super::bounds::{Format, UNIT, sum};
use super::case::{Allowed, Case, Known, by, changed, given, result, scaled};
use super::decode::of_scales;
use Category::{Activations, KvCache, Weights};

/// Batch, tokens, heads, and positions before them; rank, rotated and other elements of a head, and a value's width.
type Sizes = [(usize, usize, usize, usize); 2];

/// One query and several, more heads than a block has and fewer, whole vectors and others, contexts of one part and of many, more
/// latents than one turn of the threads has, and stretches.
const SHORT: [Sizes; 14] = [
    [(1, 1, 1, 0), (12, 4, 7, 6)],
    [(3, 1, 16, 40), (12, 4, 7, 6)],
    [(2, 5, 3, 7), (24, 8, 16, 8)],
    [(1, 1, 9, 300), (64, 16, 32, 72)],
    [(9, 1, 4, 70), (32, 8, 8, 16)],
    [(17, 1, 2, 65), (16, 2, 10, 5)],
    [(1, 2, 3, 65), (13, 4, 5, 3)],
    [(1, 1, 2, 130), (520, 8, 8, 8)],
    [(1, 1, 18, 100), (512, 64, 8, 8)],
    [(2, 2, 3, 5), (512, 64, 8, 8)],
    [(2, 15, 2, 1), (16, 8, 8, 8)],
    [(1, 16, 3, 5), (12, 4, 7, 6)],
    [(2, 40, 5, 30), (16, 8, 24, 16)],
    [(1, 20, 2, 120), (40, 64, 128, 128)],
];

/// Of real layers' order.
const LARGE: [Sizes; 3] = [
    [(1, 1, 4, 1500), (512, 64, 128, 128)],
    [(8, 1, 2, 400), (512, 64, 128, 128)],
    [(1, 20, 1, 600), (512, 64, 128, 128)],
];

pub(super) fn list<B: Backend + 'static>(size: Size, to: &mut Vec<Case<B>>) {
    for (n, heads, len) in [(1, 1, 3), (5, 4, 6), (33, 3, 16), (300, 2, 64)] {
        let own = Blocks { first: 0, row: heads * len, head: len };
        let wide = Blocks { first: 2, row: 3 * heads * (len + 5), head: len + 5 };
        let apart = Blocks { first: 8, row: 3 * heads * (len + 8), head: len + 8 };
        let shared = Blocks { first: 1, row: len + 1, head: 0 };
        let of_all = Blocks { first: 16, row: len + 16, head: 0 };
        for (from, to_blocks) in
            [(own, wide), (wide, own), (own, apart), (shared, wide), (of_all, apart), (wide, shared), (apart, of_all)]
        {
            to.push(copy_blocks(BlockCopy { n, heads, len, from, to: to_blocks }));
        }
    }
    let large: &[Sizes] = if size == Size::Full { &LARGE } else { &[] };
    for [(batch, tokens, heads, position), (rank, rope, nope, value)] in SHORT.iter().chain(large).copied() {
        let (scale, capacity) = (1.0 / ((rope + nope) as f32).sqrt(), 2 * (position + tokens) + 3);
        let d =
            LatentDims { batch, tokens, heads, rank, rope, nope, value, scale, capacity, element: CacheElement::F32 };
        to.push(attention(d, position, CacheFormat::Dtype));
    }
}

/// Over caches of few bits.
pub(super) fn few_bits<B: Backend + 'static>(to: &mut Vec<Case<B>>) {
    for [(batch, tokens, heads, position), (rank, rope, nope, value)] in SHORT {
        let (scale, capacity) = (1.0 / ((rope + nope) as f32).sqrt(), position + tokens + 3);
        let element = CacheElement::F32;
        let d = LatentDims { batch, tokens, heads, rank, rope, nope, value, scale, capacity, element };
        to.extend([CacheFormat::Int8, CacheFormat::F8].map(|format| attention(d, position, format)));
    }
}

/// What is not written stays.
fn copy_blocks<B: Backend + 'static>(d: BlockCopy) -> Case<B> {
    let len = |of: Blocks| of.first + d.n * of.row;
    let allowed = if d.sums() { Allowed::Sum(d.heads) } else { Allowed::Exactly };
    let slots = vec![given(len(d.from), Activations), changed("copy_blocks", len(d.to), Activations, allowed)];
    let BlockCopy { n, heads, len, from, to } = d;
    let shape = format!("{n} rows of {heads} x {len}, {} apart to {} apart", from.head, to.head);
    Case::new("copy_blocks", shape, n * heads * len, slots, move |on: &B, b| {
        if let [from, to] = b {
            on.copy_blocks(from, to, d);
        }
        Ok(())
    })
}

/// Where rows of latents and rotated keys are: those before, and those of the queries.
#[derive(Clone, Copy)]
struct Rows<'a> {
    of: [&'a [f32]; 4],
    position: usize,
    d: LatentDims,
}

impl Rows<'_> {
    /// The latent and the rotated key of a position of a sequence.
    fn at(&self, sequence: usize, position: usize) -> [&[f32]; 2] {
        let (from, r) = match position.checked_sub(self.position) {
            None => (0, sequence * self.position + position),
            Some(own) => (2, sequence * self.d.tokens + own),
        };
        [(from, self.d.rank), (from + 1, self.d.rope)].map(|(from, len)| &self.of[from][r * len..][..len])
    }
}

/// The product of two rows, and of their magnitudes.
fn products(a: &[f32], b: &[f32]) -> [f64; 2] {
    let each = a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b));
    each.fold([0.0; 2], |[sum, magnitudes], x| [sum + x, magnitudes + x.abs()])
}

/// What a backend may round or cut on the way.
#[derive(Clone, Copy)]
struct Roundings {
    /// Of what a query comes to along the latents, where it meets these.
    absorbed: f64,
    /// Of keys and values that are stored, where they are made; of both factors of the products that make them, and of scales.
    made: f64,
    factors: f64,
    /// Of probabilities, and of weighted latents as the factors that values are made of.
    p: f64,
    weighted: f64,
}

impl Roundings {
    fn of(format: Format, d: LatentDims) -> Self {
        let made = d.tokens > 1;
        let where_made = |u: f64| if made { u } else { 0.0 };
        // Factors that were given are of the format already, but for what tensor cores cut; what comes of few bits is not.
        let cut = if format.on_the_way() == 0.0 { 2.0 * format.factor() } else { 0.0 };
        let cut = if d.element.is_scaled() { cut + format.on_the_way() } else { cut };
        Self {
            absorbed: format.on_the_way(),
            made: where_made(format.stored(Activations)),
            factors: where_made(cut) + of_scales(d.element),
            p: format.on_the_way(),
            weighted: format.factor(),
        }
    }
}

/// A query of a head over one position: the score, the magnitudes of all its terms, those of what the query comes to along the latent, and
/// those of the key that is made.
#[derive(Clone, Copy, Default)]
struct Score {
    value: f64,
    terms: f64,
    absorbed: f64,
    made: f64,
}

/// A score is scale (sum over j of q[j] (w[j] c) + q' k'), made in two sums, of nope terms and of R + P, either of which may come first,
/// with [`Roundings`] between them. A share p of the softmax is off by that twice, the second time by its denominator. The result is the
/// sum of p v, v = w c: off by p's errors, by the sums over positions and over R, and by roundings of v, or of the sum of p c.
fn errors(inputs: &[Vec<f32>], position: usize, d: LatentDims, format: Format) -> Vec<f64> {
    let kept = |i: usize, width| inputs[i].chunks(width).flat_map(|x| as_kept(x, d.element)).collect::<Vec<f32>>();
    let [latent, rotated, next, next_rotated] =
        [(0, d.rank), (1, d.rope), (2, d.rank), (3, d.rope)].map(|(i, w)| kept(i, w));
    let rows = Rows { of: [&latent, &rotated, &next, &next_rotated], position, d };
    let (queries, w, u) = (&inputs[4], &inputs[5], Roundings::of(format, d));
    let of_sums = sum(d.nope) + sum(d.rank + d.rope) + 32.0 * UNIT + u.factors;
    let mut all = Vec::with_capacity(d.rows() * d.heads * d.value);
    for (r, query) in queries.chunks_exact(d.heads * d.head_dim()).enumerate() {
        let (sequence, seen) = (r / d.tokens, position + r % d.tokens + 1);
        for (h, query) in query.chunks_exact(d.head_dim()).enumerate() {
            let row = |part: usize| &w[(h * d.kv_head() + part) * d.rank..][..d.rank];
            let mut absorbed = vec![0.0f64; d.rank];
            for (j, q) in query[d.rope..].iter().enumerate() {
                absorbed.iter_mut().zip(row(j)).for_each(|(a, w)| *a += f64::from(*q) * f64::from(*w));
            }
            let score = |s: usize| {
                let [latent, rotated] = rows.at(sequence, s);
                let [value, of_rotated] = products(&query[..d.rope], rotated);
                let of_query: f64 = absorbed.iter().zip(latent).map(|(a, c)| (a * f64::from(*c)).abs()).sum();
                let mut all = Score { value, terms: of_rotated, absorbed: of_rotated + of_query, made: of_rotated };
                for (j, q) in query[d.rope..].iter().enumerate() {
                    let [key, magnitudes] = products(row(j), latent).map(|x| x * f64::from(*q));
                    all.value += key;
                    all.terms += magnitudes.abs();
                    all.made += key.abs();
                }
                all
            };
            let scores: Vec<Score> = (0..seen).map(score).collect();
            let (scale, longest) = (f64::from(d.scale), scores.iter().copied().reduce(larger).unwrap_or_default());
            let roundings = (u.absorbed * longest.absorbed).max(u.made * longest.made);
            let off = scale * (of_sums * longest.terms + roundings);
            let most = scores.iter().map(|s| s.value * scale).fold(f64::NEG_INFINITY, f64::max);
            let shares: Vec<f64> = scores.iter().map(|s| (s.value * scale - most).exp()).collect();
            let total: f64 = shares.iter().sum();
            let of_share = (2.0 * off).exp_m1() + u.p + u.made + 32.0 * UNIT;
            let of_terms = sum(seen) + sum(d.rank) + u.factors;
            let (mut result, mut weighted) = (vec![0.0; d.value], vec![0.0f64; d.rank]);
            for (s, share) in shares.iter().enumerate() {
                let (p, latent) = (share / total, rows.at(sequence, s)[0]);
                weighted.iter_mut().zip(latent).for_each(|(to, c)| *to += p * f64::from(*c));
                for (j, e) in result.iter_mut().enumerate() {
                    let [value, magnitudes] = products(row(d.nope + j), latent);
                    *e += p * (of_share * value.abs() + of_terms * magnitudes);
                }
            }
            for (j, e) in result.iter_mut().enumerate() {
                let terms = row(d.nope + j).iter().zip(&weighted);
                *e += u.weighted * terms.map(|(w, c)| (f64::from(*w) * c).abs()).sum::<f64>();
            }
            all.extend(result);
        }
    }
    all
}

/// Of two scores' magnitudes the larger each.
fn larger(a: Score, b: Score) -> Score {
    Score {
        value: a.value.max(b.value),
        terms: a.terms.max(b.terms),
        absorbed: a.absorbed.max(b.absorbed),
        made: a.made.max(b.made),
    }
}

/// Latents of what is before go into the cache, then those of the queries, whose attention is computed.
fn attention<B: Backend + 'static>(d: LatentDims, position: usize, cache: CacheFormat) -> Case<B> {
    let before = LatentDims { tokens: position, ..d };
    let off = by(move |b: &Known<'_>| {
        errors(b.before, position, LatentDims { element: b.format.element(cache), ..d }, b.format)
    });
    let slots = vec![
        given(before.rows() * d.rank, Activations),
        given(before.rows() * d.rope, Activations),
        given(d.rows() * d.rank, Activations),
        given(d.rows() * d.rope, Activations),
        given(d.rows() * d.heads * d.head_dim(), Activations),
        scaled(d.heads * d.kv_head() * d.rank, Weights, 1.0 / (d.rank as f32).sqrt()),
        result("latent_attention", d.rows() * d.heads * d.value, Activations, off),
    ];
    let LatentDims { batch, tokens, heads, rank, rope, nope, value, .. } = d;
    let of_cache = if cache == CacheFormat::Dtype { String::new() } else { format!(", cache {cache}") };
    let sizes = format!("R {rank} P {rope} nope {nope} value {value}{of_cache}");
    let shape = format!("B {batch} T {tokens} H {heads} after {position}, {sizes}");
    let work = d.rows() * heads * (position + tokens) * d.kv_head() * rank;
    Case::new("latent_attention", shape, work, slots, move |on: &B, b| {
        if let [latent, rotated, next, next_rotated, queries, w, out] = b {
            let d = LatentDims { element: CacheElement::of(on.dtype(), cache), ..d };
            // The oracle keeps what numbers of few bits come to in whole ones.
            let words = if d.element.is_scaled() { d.words().max(d.cache_len()) } else { d.words() };
            let mut cache = on.alloc(words, KvCache)?;
            if position > 0 {
                on.latent_append(latent, rotated, &mut cache, 0, LatentDims { tokens: position, ..d });
            }
            on.latent_append(next, next_rotated, &mut cache, position, d);
            on.latent_attention(queries, w, &cache, out, position, d);
        }
        Ok(())
    })
}
