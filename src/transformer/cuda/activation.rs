//! The functions between the products of a feed-forward layer.

use super::super::shape::Activation;
use super::device::{Address, Arg, Device, Real};
use super::launch::{Kernel, THREADS, at, blocks, blocks_over_rows, int};

/// As the kernels number them.
pub(super) fn number(kind: Activation) -> Arg {
    Arg::I32(match kind {
        Activation::GeluTanh => 0,
        Activation::GeluErf => 1,
        Activation::Relu => 2,
        Activation::SwiGlu => 3,
        Activation::GeGlu => 4,
        Activation::ClampedSwiGlu => 5,
    })
}

fn run(
    on: &dyn Device,
    real: Real,
    name: &'static str,
    kind: Activation,
    (pre, other): (Address, Address),
    n: usize,
    f: usize,
) {
    let grid = if kind.gated() {
        blocks_over_rows(on, real, n, f)
    } else {
        blocks(on, (n * f).div_ceil(16 / real.size()), THREADS as usize)
    };
    let args = [number(kind), at(pre), at(other), int(n), int(f)];
    Kernel { on, file: "activation", name, real }.run(grid, THREADS, &args);
}

/// `out [n, F] = f(pre)`; `pre` is `[n, F]`, or `[n, 2 F]` (gate, up) where it is gated.
pub(super) fn activation(
    on: &dyn Device,
    real: Real,
    kind: Activation,
    pre: Address,
    out: Address,
    n: usize,
    f: usize,
) {
    run(on, real, "activation", kind, (pre, out), n, f);
}

/// `pre` becomes its gradient: `f'(pre) dout`.
pub(super) fn activation_backward(
    on: &dyn Device,
    real: Real,
    kind: Activation,
    pre: Address,
    dout: Address,
    n: usize,
    f: usize,
) {
    run(on, real, "activation_backward", kind, (pre, dout), n, f);
}

#[cfg(test)]
mod tests {
    use super::super::super::backend::Backend;
    use super::super::super::cpu::naive::Naive;
    use super::super::host::{HostDevice, array, close, random, rounded};
    use super::*;

    #[test]
    fn activations_and_their_gradients_agree() {
        let Some(on) = HostDevice::new() else { return };
        for kind in Activation::ALL.iter().copied() {
            for (n, f) in [(1, 1), (3, 7), (5, 8), (2, 31), (7, 64), (3, 1033), (4, 2072)] {
                for real in [Real::F32, Real::Bf16] {
                    let what = format!("{kind:?} {n} x {f} {real:?}");
                    let inner = kind.inner(f);
                    let spread: Vec<f32> = random(n * inner, 1).iter().map(|x| 3.0 * x).collect();
                    let (pre, dout) = (rounded(real, spread), rounded(real, random(n * f, 2)));
                    let (pre_at, dout_at) = (on.put(real, &pre), on.put(real, &dout));
                    let out = on.put(real, &vec![0.0; n * f]);
                    activation(&on, real, kind, pre_at, out, n, f);
                    activation_backward(&on, real, kind, pre_at, dout_at, n, f);
                    on.wait().unwrap();
                    let (mut want_pre, mut want) = (array(&pre), array(&vec![0.0; n * f]));
                    Naive.activation(kind, &array(&pre), &mut want, n, f);
                    Naive.activation_backward(kind, &mut want_pre, &array(&dout), n, f);
                    close(&format!("{what}, out"), real, &on.get(real, out, n * f), &want);
                    close(&format!("{what}, gradient"), real, &on.get(real, pre_at, n * inner), &want_pre);
                }
            }
        }
    }

    /// No infinity on the way makes NaN of what has a limit.
    #[test]
    fn activations_of_large_numbers_are_their_limits() {
        let Some(on) = HostDevice::new() else { return };
        let x = [-1e4, -200.0, -90.0, -44.5, -0.0, 0.0, 44.5, 90.0, 1e4];
        for kind in [Activation::Relu, Activation::GeluTanh, Activation::GeluErf] {
            let (pre, out) = (on.put(Real::F32, &x), on.put(Real::F32, &[0.0; 9]));
            let ones = on.put(Real::F32, &[1.0; 9]);
            activation(&on, Real::F32, kind, pre, out, 1, 9);
            activation_backward(&on, Real::F32, kind, pre, ones, 1, 9);
            on.wait().unwrap();
            let (out, slope) = (on.get(Real::F32, out, 9), on.get(Real::F32, pre, 9));
            for (i, x) in x.iter().enumerate() {
                assert!((out[i] - x.max(0.0)).abs() < 1e-6, "{kind:?} of {x} is {}", out[i]);
                let step = if *x > 0.0 { 1.0 } else { 0.0 };
                assert!((slope[i] - step).abs() < 1e-6 || *x == 0.0, "{kind:?}' of {x} is {}", slope[i]);
            }
        }
    }
}
