//! Attention over a cache of few bits: of a token, and of a stretch of a prompt. The oracle attends as ever to what is left of keys and
//! values that have been stored in them.

use super::super::CacheFormat;
use super::super::backend::few_bits_on_host::rows_as_kept;
use super::super::backend::{AttentionDims, Backend, CacheDims, CacheElement, Category, Scores};
use super::Size;
use super::attention::text;
use super::case::{Case, Known, by, given, result, room};
use super::decode::{cached_as, of_query, of_scales, words};
use Category::{Activations, KvCache, Statistics};

const FORMATS: [CacheFormat; 2] = [CacheFormat::Int8, CacheFormat::F8];

/// Whole vectors of lanes, parts of them, and more than a block of them.
const HEAD_DIMS: [usize; 6] = [10, 64, 80, 96, 128, 192];

pub(super) fn list<B: Backend + 'static>(size: Size, to: &mut Vec<Case<B>>) {
    let of = |tokens, heads, kv_heads, head_dim, scores| AttentionDims {
        batch: 2,
        tokens,
        heads,
        kv_heads,
        head_dim,
        causal: true,
        scores,
    };
    let window = |w| Scores { window: Some(w), ..Scores::PLAIN };
    let others = [
        window(1),
        window(64),
        Scores { soft_cap: Some(2.0), scale: Some(0.3), ..window(40) },
        Scores { alibi: true, ..Scores::PLAIN },
    ];
    for format in FORMATS {
        for head_dim in HEAD_DIMS {
            for (tokens, heads, kv_heads) in [(1, 2, 2), (7, 3, 1), (63, 4, 2), (257, 8, 1)] {
                to.push(cached_as(of(tokens, heads, kv_heads, head_dim, Scores::PLAIN), format));
            }
            to.push(cached_as(of(130, 4, 2, head_dim, window(33)), format));
            to.push(after_cache(of(21, 4, 2, head_dim, Scores::PLAIN), 63, format));
        }
        for scores in others {
            to.push(cached_as(of(91, 4, 2, 64, scores), format));
            to.extend([1, 40].map(|before| after_cache(of(35, 4, 2, 16, scores), before, format)));
        }
        if size == Size::Full {
            to.extend([128, 192].map(|head_dim| cached_as(of(2049, 8, 2, head_dim, Scores::PLAIN), format)));
            to.push(after_cache(of(200, 8, 2, 128, window(300)), 700, format));
        }
    }
}

/// A prompt of `before` tokens is in the cache, which holds a window's where there is one; `d.tokens` more come after it, whose own keys
/// and values are as they were.
fn after_cache<B: Backend + 'static>(d: AttentionDims, before: usize, format: CacheFormat) -> Case<B> {
    let AttentionDims { batch, tokens, kv_heads, head_dim, .. } = d;
    let (width, out_width) = (d.qkv_width(), d.out_width());
    let (first, whole) = (AttentionDims { tokens: before, ..d }, AttentionDims { tokens: before + tokens, ..d });
    let off = move |part: usize| {
        by(move |b: &Known<'_>| {
            let element = b.format.element(format);
            let kept = rows_as_kept(&b.before[0], d, element);
            // Products take what comes of them as factors of their format.
            let (off, mut all) = (of_scales(element) + b.format.on_the_way(), Vec::new());
            for (sequence, t) in (0..batch).flat_map(|s| (0..tokens).map(move |t| (s, t))) {
                let row = |s: usize, column: usize| match s.checked_sub(before) {
                    None => kept[(sequence * before + s) * width + column..][..head_dim].to_vec(),
                    Some(own) => b.before[1][(sequence * tokens + own) * width + column..][..head_dim].to_vec(),
                };
                let query = &b.before[1][(sequence * tokens + t) * width..][..width];
                let both = of_query(query, row, whole.seen(before + t), d, off, b.format.on_the_way());
                all.extend_from_slice(&both[part]);
            }
            all
        })
    };
    let slots = vec![
        given(first.rows() * width, Activations),
        given(d.rows() * width, Activations),
        result("attention_after", d.rows() * out_width, Activations, off(0)),
        room(d.rows() * d.heads, Statistics),
    ];
    let shape = format!("{} after {before}, cache {format}", text(d));
    Case::new("attention_after", shape, 16 * d.rows() * whole.tokens * d.heads * head_dim, slots, move |on: &B, b| {
        if let [prompt, qkv, out, lse] = b {
            let capacity = d.scores.window.unwrap_or(usize::MAX).min(before + tokens);
            let element = CacheElement::of(on.dtype(), format);
            let c = CacheDims { batch, kv_heads, head_dim, capacity, element };
            let mut cache = on.alloc(words(c), KvCache)?;
            on.cache_append(prompt, &mut cache, 0, first, c);
            on.attention_after(qkv, &cache, out, lse, before, d, c);
        }
        Ok(())
    })
}
