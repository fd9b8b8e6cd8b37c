//! The machine's limits, measured: multiply-adds and bytes a second. MFU and MBU are shares of what is found here, so a probe
//! must not overstate: loops are timed whole, their results are used, and the median of the rounds counts.

use super::machine::{Machine, Probe};
use std::hint::black_box;
use std::sync::Barrier;
use std::time::Instant;

/// Rounds of each probe.
const ROUNDS: usize = 9;
/// Seconds of a compute round.
const ROUND_SECONDS: f64 = 0.04;

/// Probes in about two seconds.
pub(crate) fn probe(machine: &Machine) -> Probe {
    let cores = machine.cores.max(1) as usize;
    let steal = super::machine::CpuTimes::now();
    let one = compute(1, f32_burst);
    let all = compute(cores, f32_burst);
    let bf16 = bf16_available().then(|| median(&compute(cores, bf16_burst)));
    let bytes = buffer_bytes(machine);
    let read_one = read(1, bytes);
    let read_all = read(cores, bytes);
    Probe {
        f32_flops_per_second_one_core: median(&one),
        f32_flops_per_second: median(&all),
        bf16_flops_per_second: bf16,
        read_bytes_per_second_one_core: median(&read_one),
        read_bytes_per_second: median(&read_all).max(median(&read_one)),
        spread: spread(&all),
        steal_share: steal.and_then(|s| s.steal_since()),
    }
}

fn sorted(x: &[f64]) -> Vec<f64> {
    let mut x = x.to_vec();
    x.sort_by(f64::total_cmp);
    x
}

pub(super) fn median(x: &[f64]) -> f64 {
    crate::stats::median(x).unwrap_or(0.0)
}

/// (p90 - p10) / median
fn spread(x: &[f64]) -> f64 {
    let s = sorted(x);
    let at = |p: f64| s[((s.len() - 1) as f64 * p).round() as usize];
    if s.is_empty() { 0.0 } else { (at(0.9) - at(0.1)) / at(0.5) }
}

/// FLOP/s of `threads` threads together, a figure a round. `burst(n)` does n units of work and says how many FLOPs a unit is.
fn compute(threads: usize, burst: fn(u64) -> u64) -> Vec<f64> {
    let units = units_for(ROUND_SECONDS, burst);
    together(threads, ROUNDS, |_, _| burst(units) * units)
}

/// As many units as take about so long on one thread.
pub(super) fn units_for(round_seconds: f64, burst: fn(u64) -> u64) -> u64 {
    let mut units = 1000u64;
    loop {
        let start = Instant::now();
        burst(units);
        let seconds = start.elapsed().as_secs_f64();
        if seconds > round_seconds / 2.0 || units > 1 << 40 {
            return units;
        }
        units = (units as f64 * (round_seconds / seconds.max(1e-6)).min(16.0)) as u64;
    }
}

/// Runs `work` on all threads at once, so many times after one to warm up; what they did together over the time of the slowest, a
/// second. `work` is given the thread's number and the round's, from 0.
pub(super) fn together(threads: usize, times: usize, work: impl Fn(usize, usize) -> u64 + Sync) -> Vec<f64> {
    let barrier = Barrier::new(threads);
    let rounds: Vec<Vec<(f64, f64, u64)>> = std::thread::scope(|scope| {
        let epoch = Instant::now();
        let (barrier, work) = (&barrier, &work);
        let handles: Vec<_> = (0..threads)
            .map(|i| {
                scope.spawn(move || {
                    (0..=times)
                        .map(|round| {
                            barrier.wait();
                            let start = epoch.elapsed().as_secs_f64();
                            let done = work(i, round);
                            (start, epoch.elapsed().as_secs_f64(), done)
                        })
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        handles.into_iter().filter_map(|h| h.join().ok()).collect()
    });
    (1..=times)
        .map(|r| {
            let of_round = || rounds.iter().filter_map(move |t| t.get(r));
            let start = of_round().fold(f64::INFINITY, |m, t| m.min(t.0));
            let end = of_round().fold(0.0f64, |m, t| m.max(t.1));
            of_round().map(|t| t.2).sum::<u64>() as f64 / (end - start)
        })
        .collect()
}

/// Independent accumulators: more than the latency of a multiply-add times the units that do it.
const CHAINS: usize = 12;

macro_rules! burst {
    ($name:ident, $features:literal, $zero:expr, $step:expr, $lanes:expr) => {
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = $features)]
        fn $name(units: u64) -> u64 {
            use std::arch::x86_64::*;
            let mut sums = [$zero; CHAINS];
            let (a, b) = (black_box($zero), black_box($zero));
            for _ in 0..units {
                for s in &mut sums {
                    *s = $step(*s, a, b);
                }
            }
            black_box(sums);
            2 * CHAINS as u64 * $lanes
        }
    };
}
burst!(f32_avx512, "avx512f", _mm512_setzero_ps(), |s, a, b| _mm512_fmadd_ps(a, s, b), 16);
burst!(f32_avx2, "avx2,fma", _mm256_setzero_ps(), |s, a, b| _mm256_fmadd_ps(a, s, b), 8);

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
fn bf16_avx512(units: u64) -> u64 {
    use std::arch::x86_64::*;
    let mut sums = [_mm512_setzero_ps(); CHAINS];
    let a = _mm512_cvtne2ps_pbh(black_box(_mm512_setzero_ps()), black_box(_mm512_setzero_ps()));
    let b = _mm512_cvtne2ps_pbh(black_box(_mm512_setzero_ps()), black_box(_mm512_setzero_ps()));
    for _ in 0..units {
        for s in &mut sums {
            *s = _mm512_dpbf16_ps(*s, a, b);
        }
    }
    black_box(sums);
    4 * CHAINS as u64 * 16
}

pub(super) fn f32_burst(units: u64) -> u64 {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: the feature was detected on the line above.
            return unsafe { f32_avx512(units) };
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            // SAFETY: the features were detected on the line above.
            return unsafe { f32_avx2(units) };
        }
    }
    f32_portable(units)
}

/// Arrays of eight that the compiler turns into the vectors that every target of it has.
fn f32_portable(units: u64) -> u64 {
    let mut sums = [[0.0f32; 8]; CHAINS];
    let (a, b) = (black_box([0.5f32; 8]), black_box([0.1f32; 8]));
    for _ in 0..units {
        for s in &mut sums {
            for i in 0..8 {
                s[i] = s[i] * a[i] + b[i];
            }
        }
    }
    black_box(sums);
    2 * CHAINS as u64 * 8
}

fn bf16_available() -> bool {
    #[cfg(target_arch = "x86_64")]
    return is_x86_feature_detected!("avx512bf16") && is_x86_feature_detected!("avx512bw");
    #[cfg(not(target_arch = "x86_64"))]
    false
}

fn bf16_burst(units: u64) -> u64 {
    if crate::amx::available() {
        return crate::amx::burst(units);
    }
    #[cfg(target_arch = "x86_64")]
    if bf16_available() {
        // SAFETY: the features were detected on the line above.
        return unsafe { bf16_avx512(units) };
    }
    f32_portable(units)
}

/// Several times the largest cache, at least 256 MiB, and never more than an eighth of memory.
fn buffer_bytes(machine: &Machine) -> usize {
    let largest = machine.caches.iter().map(|(_, b)| *b).max().unwrap_or(32 << 20);
    (largest * 8).max(256 << 20).min((machine.memory_bytes / 8).max(16 << 20)) as usize
}

/// Bytes a second that `threads` threads read together, each its own part of a buffer of `bytes`.
fn read(threads: usize, bytes: usize) -> Vec<f64> {
    let buffers = of_threads(threads, bytes);
    together(threads, ROUNDS, |i, _| read_part(&buffers[i], 0, 1))
}

/// A buffer for each thread, of so many bytes together.
fn of_threads(threads: usize, bytes: usize) -> Vec<Vec<u64>> {
    (0..threads).map(|i| on_huge_pages(bytes / 8 / threads, i as u64 + 1)).collect()
}

/// What the probe's threads read.
pub(super) fn buffers(machine: &Machine, threads: usize) -> Vec<Vec<u64>> {
    of_threads(threads, buffer_bytes(machine))
}

/// Reads one of so many parts of a buffer; how many bytes that are.
pub(super) fn read_part(buffer: &[u64], part: usize, parts: usize) -> u64 {
    let words = &buffer[part * buffer.len() / parts..(part + 1) * buffer.len() / parts];
    black_box(sum(words));
    words.len() as u64 * 8
}

fn sum(words: &[u64]) -> u64 {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx512f") {
        // SAFETY: the feature was detected on the line above.
        return unsafe { sum_avx512(words) };
    }
    sum_lanes(words)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn sum_avx512(words: &[u64]) -> u64 {
    sum_lanes(words)
}

/// So many times the word, on huge pages where the system gives them: with small ones the page tables would be the limit, and
/// not the memory.
fn on_huge_pages(words: usize, word: u64) -> Vec<u64> {
    let mut buffer: Vec<u64> = Vec::with_capacity(words);
    #[cfg(target_os = "linux")]
    {
        const HUGE_PAGE: usize = 2 << 20;
        let start = buffer.as_mut_ptr() as usize;
        let first = start.next_multiple_of(HUGE_PAGE);
        let len = (start + words * 8).saturating_sub(first) / HUGE_PAGE * HUGE_PAGE;
        if len > 0 {
            // SAFETY: the range is within the buffer, to which nothing refers yet; the advice changes no contents. A refusal
            // only means small pages.
            let _ = unsafe { rustix::mm::madvise(first as *mut _, len, rustix::mm::Advice::LinuxHugepage) };
        }
    }
    buffer.resize(words, word);
    buffer
}

/// Sixty-four independent sums over four streams at once: the reads, not the additions, are the limit, and one stream alone
/// does not keep as many of them under way as a core can.
#[inline(always)]
fn sum_lanes(words: &[u64]) -> u64 {
    let mut lanes = [0u64; 64];
    let mut add = |chunk: &[u64; 64]| {
        for (l, w) in lanes.iter_mut().zip(chunk) {
            *l = l.wrapping_add(*w);
        }
    };
    let (chunks, rest) = words.as_chunks::<64>();
    let (streams, left_over) = chunks.split_at(chunks.len() / 4 * 4);
    let mut quarters = streams.chunks_exact((streams.len() / 4).max(1));
    if let (Some(a), Some(b), Some(c), Some(d)) = (quarters.next(), quarters.next(), quarters.next(), quarters.next()) {
        for (((a, b), c), d) in a.iter().zip(b).zip(c).zip(d) {
            [a, b, c, d].into_iter().for_each(&mut add);
        }
    }
    left_over.iter().for_each(add);
    lanes.iter().chain(rest).fold(0, |s, w| s.wrapping_add(*w))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_is_read() {
        let words: Vec<u64> = (0..1000).collect();
        assert_eq!(sum(&words), 999 * 500);
        assert_eq!(sum_lanes(&words), 999 * 500);
    }

    #[test]
    fn a_machine_computes_and_reads_at_plausible_rates() {
        let rates = compute(1, f32_burst);
        assert!(rates.iter().all(|r| *r > 1e8 && *r < 1e13), "{rates:?}");
        let rates = read(1, 16 << 20);
        assert!(rates.iter().all(|r| *r > 1e8 && *r < 1e13), "{rates:?}");
    }
}
