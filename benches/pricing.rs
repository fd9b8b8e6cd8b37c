//! Pricing a million result rows: `cargo bench --bench pricing`. Rows are made, priced and dropped one by one, so that memory does
//! not grow with their number.

use centime::internal::comparison::against_api;
use centime::internal::cost::{Estimate, Factors, Pricing, Speed, change, priced, use_cases};
use centime::internal::hardware::built_in;
use centime::{Share, TokensPerSecond, UsdPerHour, UsdPerMillionTokens};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;

const ROWS: u64 = 1_000_000;

/// Throughput of a row: anything between 1 and 1e6 tokens a second.
fn rate(row: u64) -> f64 {
    1.0 + (row.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 44) as f64 * 0.953_674
}

fn pricing(c: &mut Criterion) {
    let hour = UsdPerHour::of(55.04).expect("a price");
    let pricing = Pricing::new(hour, Share(0.6)).expect("a price");
    let cost = |rate: f64| pricing.of(TokensPerSecond(rate)).expect("a cost").get();
    let mut group = c.benchmark_group("a million rows");
    group.throughput(Throughput::Elements(ROWS)).sample_size(10);
    group.bench_function("cost with its interval", |b| {
        b.iter(|| {
            for row in 0..ROWS {
                let t = rate(row);
                let throughput = Estimate::with_interval(t, 0.99 * t, 1.01 * t).expect("an estimate");
                black_box(throughput.decreasing(cost));
            }
        });
    });
    let chat = &use_cases(&[])[0];
    group.bench_function("a request with its interval", |b| {
        b.iter(|| {
            for row in 0..ROWS {
                let of = |x: f64| Estimate::with_interval(x, 0.99 * x, 1.01 * x).expect("an estimate");
                black_box(priced(chat, &of(0.1 + rate(row)), &of(0.4 + rate(row + 1))));
            }
        });
    });
    group.bench_function("decomposition into six factors", |b| {
        let of = |t: f64| Factors {
            price: 55.04,
            devices: 8.0,
            utilisation: 0.6,
            flops_per_token: 1e9,
            speed: Speed::Split { peak: 1e15, mfu: t / 2e6 },
        };
        b.iter(|| (0..ROWS).for_each(|row| drop(black_box(change(&of(rate(row)), &of(rate(row + 1)))))));
    });
    let api = &built_in().expect("our price book").apis[0];
    let asked = UsdPerMillionTokens::of(0.6).expect("a price");
    group.bench_function("break-even utilisation", |b| {
        b.iter(|| {
            for row in 0..ROWS {
                black_box(against_api((0, 0), hour, rate(row), api, asked));
            }
        });
    });
    group.finish();
}

criterion_group!(benches, pricing);
criterion_main!(benches);
