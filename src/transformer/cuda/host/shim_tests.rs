//! The shim finds what it says it finds, and computes what a device would.

use super::super::device::{Address, Arg, Device, Epilogue, Launch, Matrix, Product, Real};
use super::{HostDevice, close, random};
use half::bf16;

fn launch(on: &HostDevice, kernel: &'static str, grid: u32, threads: u32, shared_bytes: u32, args: &[Arg]) {
    let grid = [grid, 1, 1];
    on.launch(&Launch { file: "host/shim_test", kernel, real: Real::F32, grid, threads, shared_bytes, args });
}

/// What the device says after a launch that must fail.
fn fault(on: &HostDevice, kernel: &'static str, shared_bytes: u32, args: &[Arg]) -> String {
    launch(on, kernel, 1, 64, shared_bytes, args);
    let said = on.wait().unwrap_err().to_string();
    on.wait().unwrap();
    said
}

fn says(said: &str, parts: &[&str]) {
    for part in parts {
        assert!(said.contains(part), "`{said}` does not say `{part}`");
    }
}

#[test]
fn an_access_outside_an_allocation_is_trapped_and_placed() {
    let Some(on) = HostDevice::new() else { return };
    let (small, out) = (on.put(Real::F32, &[0.0; 100]), on.put(Real::F32, &[0.0; 64]));
    let at = |index: i64| [Arg::Address(small), Arg::I64(index)];
    // Threads run forwards in the first block: 36 + 64 is the end, so the last one is over.
    says(
        &fault(&on, "write_at", 0, &at(37)),
        &["kernel write_at", "block (0, 0, 0), thread 63", "0 bytes after the end of the allocation of 400 bytes"],
    );
    let read = |index: i64| [Arg::Address(small), Arg::Address(out), Arg::I64(index)];
    says(&fault(&on, "read_at", 0, &read(100)), &["kernel read_at", "thread 0", "0 bytes after the end"]);
    says(&fault(&on, "read_at", 0, &read(-20_000)), &["kernel read_at", "thread 0", "bytes before the allocation"]);
    says(&fault(&on, "read_at", 0, &[Arg::Address(0), Arg::Address(out), Arg::I64(0)]), &["thread 0", "at (nil)"]);
    launch(&on, "read_at", 1, 64, 0, &read(36));
    on.wait().unwrap();
}

#[test]
fn a_write_beside_an_allocation_is_found_by_its_canaries() {
    let Some(on) = HostDevice::new() else { return };
    let odd = on.put(Real::F32, &[0.0; 65]);
    launch(&on, "write_at", 1, 64, 0, &[Arg::Address(odd), Arg::I64(4)]);
    says(&on.wait().unwrap_err().to_string(), &["0 bytes after the end", "260 bytes"]);
    on.release(odd, 65 * 4);
    says(&on.wait().unwrap_err().to_string(), &["0 bytes after the end"]);
    let next = on.put(Real::F32, &[0.0; 64]);
    launch(&on, "write_at", 1, 32, 0, &[Arg::Address(next), Arg::I64(-1)]);
    says(&on.wait().unwrap_err().to_string(), &["1 bytes before"]);
}

#[test]
fn misaligned_vectors_and_shared_memory_too_small_are_found() {
    let Some(on) = HostDevice::new() else { return };
    let to = on.put(Real::F32, &[0.0; 64]);
    says(&fault(&on, "misaligned", 0, &[Arg::Address(to), Arg::I64(1)]), &["kernel misaligned", "a misaligned access"]);
    says(
        &fault(&on, "past_shared", 400, &[Arg::Address(to), Arg::I32(101)]),
        &["thread 36", "400 bytes from the start of dynamic shared memory"],
    );
    says(&fault(&on, "past_static", 0, &[Arg::Address(to), Arg::I32(8)]), &["an index outside an array"]);
}

#[test]
fn threads_that_part_at_a_barrier_are_named() {
    let Some(on) = HostDevice::new() else { return };
    let to = on.put(Real::F32, &[0.0; 64]);
    says(
        &fault(&on, "end_early", 0, &[Arg::Address(to), Arg::I32(40)]),
        &["thread 0 waits at __syncthreads", "thread 40 has ended", "diverge"],
    );
    says(&fault(&on, "wait_apart", 0, &[Arg::Address(to)]), &["thread 0 waits", "thread 32 waits", "diverge"]);
    says(
        &fault(&on, "shuffle_apart", 0, &[Arg::Address(to)]),
        &["thread 0 waits at __shfl_xor_sync", "thread 5 waits for the block at __syncthreads"],
    );
}

#[test]
fn a_missing_barrier_shows() {
    let Some(on) = HostDevice::new() else { return };
    let before = random(256, 1);
    for barrier in [1, 0] {
        let x = on.put(Real::F32, &before);
        launch(&on, "reverse", 4, 64, 256, &[Arg::Address(x), Arg::I32(barrier)]);
        on.wait().unwrap();
        let after = on.get(Real::F32, x, 256);
        let reversed: Vec<f32> = before.chunks(64).flat_map(|c| c.iter().rev().copied()).collect();
        assert_eq!(after == reversed, barrier == 1);
    }
}

#[test]
fn arguments_and_launches_that_do_not_fit_are_refused() {
    let Some(on) = HostDevice::new() else { return };
    let to = on.put(Real::F32, &[0.0; 64]);
    says(&fault(&on, "write_at", 0, &[Arg::Address(to), Arg::I32(0)]), &["takes arguments of types pl", "given pi"]);
    says(&fault(&on, "write_at", 0, &[Arg::Address(to)]), &["given p"]);
    says(&fault(&on, "no_such_kernel", 0, &[]), &["exports no no_such_kernel"]);
    launch(&on, "write_at", 0, 64, 0, &[Arg::Address(to), Arg::I64(0)]);
    says(&on.wait().unwrap_err().to_string(), &["cannot be launched"]);
    launch(&on, "write_at", 1, 48, 0, &[Arg::Address(to), Arg::I64(0)]);
    says(&on.wait().unwrap_err().to_string(), &["cannot be launched"]);
    let mut out = [0u8; 8];
    on.read(to + 252, &mut out);
    says(&on.wait().unwrap_err().to_string(), &["read: 8 bytes", "not within one allocation"]);
}

#[test]
fn memory_is_counted_and_runs_out() {
    let Some(on) = HostDevice::with_memory(1000) else { return };
    let a = on.allocate(600).unwrap();
    assert_eq!(on.in_use(), 600);
    says(&on.allocate(401).unwrap_err().to_string(), &["out of memory", "401", "400 free"]);
    on.release(a, 600);
    assert_eq!(on.in_use(), 0);
    on.release(a, 600);
    says(&on.wait().unwrap_err().to_string(), &["not allocated"]);
}

#[test]
fn lanes_exchange_as_on_a_device() {
    let Some(on) = HostDevice::new() else { return };
    let to = on.put_words(&[0; 256]);
    launch(&on, "shuffles", 1, 32, 0, &[Arg::Address(to)]);
    on.wait().unwrap();
    let got = on.get_words(to, 256);
    let thirds = (0..32).filter(|l| l % 3 == 0).fold(0u32, |all, l| all | 1 << l);
    for l in 0..32u32 {
        let down = if l + 4 < 32 { l + 4 } else { l };
        let half = if l < 16 { l ^ 1 } else { 0 };
        let want = [7, l / 8 * 8 + 3, l ^ 5, down, if l < 4 { l } else { l - 4 }, thirds, half, 1];
        for (i, w) in want.iter().enumerate() {
            assert_eq!(got[32 * i + l as usize], *w, "shuffle {i}, lane {l}");
        }
    }
}

#[test]
fn blocks_reduce_their_numbers() {
    let Some(on) = HostDevice::new() else { return };
    for threads in [32, 96, 1024] {
        let x = random(2 * threads, 3);
        let (from, to) = (on.put(Real::F32, &x), on.put(Real::F32, &[0.0; 6]));
        launch(&on, "reductions", 2, threads as u32, 0, &[Arg::Address(from), Arg::Address(to)]);
        on.wait().unwrap();
        let got = on.get(Real::F32, to, 6);
        for (block, x) in x.chunks(threads).enumerate() {
            let sum = x.iter().map(|x| f64::from(*x)).sum::<f64>() as f32;
            let largest = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            close("sum", Real::F32, &got[3 * block..][..3], &[sum, largest, sum]);
            assert_eq!(got[3 * block + 1], largest);
        }
    }
}

/// `half` rounds as IEEE 754 says, and the GPU's instruction does; NaN is 0x7fff on the GPU.
#[test]
fn bf16_is_rounded_to_nearest_even() {
    let Some(on) = HostDevice::new() else { return };
    let mut x: Vec<f32> = (0..5000u32).map(|i| f32::from_bits(i.wrapping_mul(0x9e37_79b9))).collect();
    x.extend(
        [0x3f80_8000u32, 0x3f81_8000, 0x3f80_8001, 0x0000_8000, 0x0001_8000, 0x7f7f_ffff, 0x8000_0000]
            .map(f32::from_bits),
    );
    x.extend([f32::INFINITY, f32::NEG_INFINITY, f32::NAN]);
    let (from, to) = (on.put(Real::F32, &x), on.put_words(&vec![0; x.len()]));
    launch(&on, "round_to_bf16", 1, 64, 0, &[Arg::Address(from), Arg::Address(to), Arg::I32(x.len() as i32)]);
    on.wait().unwrap();
    for (x, bits) in x.iter().zip(on.get_words(to, x.len())) {
        let want = if x.is_nan() { 0x7fff } else { u32::from(bf16::from_f32(*x).to_bits()) };
        assert_eq!(bits, 0x3f80_0000 | want, "{x:e}");
    }
}

#[test]
fn products_follow_their_description() {
    let Some(on) = HostDevice::new() else { return };
    let (n, k, m) = (3, 5, 4);
    let (a, b, bias, plus) = (random(n * k, 1), random(k * m, 2), random(m, 3), random(n * m, 4));
    let want: Vec<f32> = (0..n * m)
        .map(|i| (0..k).map(|j| a[i / m * k + j] * b[j * m + i % m]).sum::<f32>() + bias[i % m] + plus[i])
        .collect();
    let turn = |x: &[f32], rows: usize, columns: usize| -> Vec<f32> {
        (0..rows * columns).map(|i| x[i % rows * columns + i / rows]).collect()
    };
    let matrix = |address: Address, stride, transposed| Matrix { address, format: Real::F32, stride, transposed };
    let put = |x: &[f32]| on.put(Real::F32, x);
    let (straight_a, transposed_a) = (matrix(put(&a), k, false), matrix(put(&turn(&a, n, k)), n, true));
    let (straight_b, transposed_b) = (matrix(put(&b), m, false), matrix(put(&turn(&b, k, m)), k, true));
    let (bias, pre) = (put(&bias), put(&vec![0.0; n * m]));
    for (a, b) in
        [(straight_a, straight_b), (transposed_a, straight_b), (straight_a, transposed_b), (transposed_a, transposed_b)]
    {
        for epilogue in [Epilogue::Nothing, Epilogue::Gelu { pre }] {
            // `plus` may be the result itself.
            let to = matrix(put(&plus), m, false);
            let (bias, plus) = (Some(bias), Some(to.address));
            on.product(&Product { n, k, m, a, b, to, bias, plus, epilogue, tf32: false });
            on.wait().unwrap();
            let got = on.get(Real::F32, if epilogue == Epilogue::Nothing { to.address } else { pre }, n * m);
            close("product", Real::F32, &got, &want);
        }
    }
    let mixed = Matrix { format: Real::Bf16, ..straight_b };
    let to = matrix(pre, m, false);
    let (bias, plus, epilogue) = (None, None, Epilogue::Nothing);
    on.product(&Product { n, k, m, a: straight_a, b: mixed, to, bias, plus, epilogue, tf32: false });
    says(&on.wait().unwrap_err().to_string(), &["a product that no device does"]);
}
