//! One optimizer step over all parameters in one launch.

use super::super::OptimizerKind;
use super::super::backend::{Update, Updated};
use super::buffer::Buffer;
use super::device::{Address, Arg, Device, Real};
use super::launch::{Kernel, THREADS, at, int};

/// Elements that a block takes; as in the kernel.
const CHUNK: usize = 4096;

/// A parameter and what belongs to it, as they lie on the device. All f32, but for the shadow: the parameter rounded to what
/// products read, where that is not f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Item {
    pub parameter: Address,
    pub shadow: Option<Address>,
    pub gradient: Address,
    pub first: Option<Address>,
    pub second: Option<Address>,
    pub len: usize,
}

/// What the kernel reads of all items, as bytes for the device: made and written once, where addresses stay.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Table {
    /// `Item`s of the kernel: five pointers and a length, 8 bytes each.
    pub items: Vec<u8>,
    /// The first block of each item, and the end: `count + 1` of 8 bytes.
    pub first_blocks: Vec<u8>,
    pub count: usize,
    pub blocks: usize,
}

impl Item {
    /// A part of a parameter and what belongs to it, as addresses.
    pub(super) fn of(u: Updated<'_, Buffer>) -> Self {
        let from = |base: Address, size: usize| base + (u.part.start * size) as Address;
        Self {
            parameter: from(u.parameter.wide(), 4),
            shadow: u.parameter.shadow().map(|(_, narrow)| from(narrow, 2)),
            gradient: from(u.gradient.wide(), 4),
            first: u.first.map(|m| m.wide()),
            second: u.second.map(|m| m.wide()),
            len: u.part.len(),
        }
    }
}

impl Table {
    pub(super) fn of(items: &[Item]) -> Self {
        let mut table = Self::default();
        for item in items.iter().filter(|i| i.len > 0) {
            let or_null = Option::unwrap_or_default;
            let Item { parameter, shadow, gradient, first, second, len } = *item;
            let words = [parameter, or_null(shadow), gradient, or_null(first), or_null(second), len as u64];
            table.items.extend(words.iter().flat_map(|w| w.to_ne_bytes()));
            table.first_blocks.extend((table.blocks as u64).to_ne_bytes());
            table.blocks += len.div_ceil(CHUNK);
            table.count += 1;
        }
        table.first_blocks.extend((table.blocks as u64).to_ne_bytes());
        table
    }

    /// As it lies on the device: the items, and behind them their first blocks.
    pub(super) fn bytes(&self) -> Vec<u8> {
        [&self.items[..], &self.first_blocks].concat()
    }
}

/// What a step multiplies by: the kernel's `Step`, as bytes for the device. Corrections are worked in, in f64.
pub(super) fn constants(u: &Update, step: u32) -> [u8; 24] {
    let correction = |beta: f32| 1.0 - f64::from(beta).powi(step.min(i32::MAX as u32) as i32);
    let (c1, c2) = (correction(u.beta1), correction(u.beta2));
    let (rate, eps) = (f64::from(u.learning_rate), f64::from(u.eps));
    let (beta1, rate) = match u.kind {
        OptimizerKind::Sgd => (u.momentum, rate),
        OptimizerKind::Adam | OptimizerKind::Adamax | OptimizerKind::Adamw => (u.beta1, rate / c1),
    };
    let adam = matches!(u.kind, OptimizerKind::Adam | OptimizerKind::Adamw);
    // Keras's form, lr sqrt(c2) / c1 * m / (sqrt(v) + eps), is the usual one with eps / sqrt(c2).
    let eps = if adam && u.eps_before_correction { eps / c2.sqrt() } else { eps };
    let decayed = f64::from(u.learning_rate) * f64::from(u.weight_decay);
    let decay = if u.kind == OptimizerKind::Adamw { 1.0 - decayed } else { 1.0 };
    let all = [beta1, u.beta2, rate as f32, (1.0 / c2.sqrt()) as f32, eps as f32, decay as f32];
    let mut bytes = [0; 24];
    bytes.as_chunks_mut::<4>().0.iter_mut().zip(all).for_each(|(b, x)| *b = x.to_ne_bytes());
    bytes
}

/// A step over the items of a table whose bytes lie at `table`, with the [`constants`] at `step`. `clip` says where the sum of the
/// squares of all gradients lies, and which norm they are scaled down to.
pub(super) fn update(
    on: &dyn Device,
    real: Real,
    kind: OptimizerKind,
    (at_table, table): (Address, &Table),
    step: Address,
    clip: Option<(Address, f32)>,
) {
    if table.blocks == 0 {
        return;
    }
    let kind = match kind {
        OptimizerKind::Sgd => 0,
        OptimizerKind::Adam => 1,
        OptimizerKind::Adamax => 2,
        OptimizerKind::Adamw => 3,
    };
    let first_blocks = at_table + table.items.len() as Address;
    let (squares, largest) = clip.unwrap_or_default();
    let args = [at(at_table), at(first_blocks), int(table.count), Arg::I32(kind), at(step)];
    let args = [&args[..], &[at(squares), Arg::F32(largest)]].concat();
    Kernel { on, file: "optimizer", name: "update", real }.run(table.blocks as u32, THREADS, &args);
}

#[cfg(test)]
mod tests {
    use super::super::super::backend::{Backend, Clipping, Updated};
    use super::super::super::cpu::naive::Naive;
    use super::super::host::{HostDevice, array, close, random, rounded};
    use super::*;

    /// Around vectors of 4 and chunks of 4096.
    const LENGTHS: [usize; 8] = [1, 3, 4, 5, 1023, 4095, 4097, 12_289];

    struct Parameter {
        at: Item,
        p: Vec<f32>,
        g: Vec<f32>,
        m: Vec<f32>,
        v: Vec<f32>,
    }

    fn parameter(on: &HostDevice, real: Real, len: usize, moments: usize, stream: u64) -> Parameter {
        let [p, g, m, v] = [0, 1, 2, 3].map(|i| random(len, 10 * stream + i));
        let v: Vec<f32> = v.iter().map(|x| x.abs()).collect();
        let at = Item {
            parameter: on.put(Real::F32, &p),
            shadow: (real == Real::Bf16).then(|| on.put(real, &vec![0.0; len])),
            gradient: on.put(Real::F32, &g),
            first: (moments > 0).then(|| on.put(Real::F32, &m)),
            second: (moments > 1).then(|| on.put(Real::F32, &v)),
            len,
        };
        Parameter { at, p, g, m, v }
    }

    #[test]
    fn steps_of_every_kind_agree_over_parameters_of_any_length() {
        let Some(on) = HostDevice::new() else { return };
        for kind in OptimizerKind::ALL {
            for (momentum, eps_before_correction) in [(0.0, false), (0.9, true)] {
                let real = if eps_before_correction { Real::Bf16 } else { Real::F32 };
                let u =
                    Update { momentum, eps_before_correction, learning_rate: 0.01, eps: 1e-4, ..Update::new(*kind) };
                let moments = u.kind.moments(momentum);
                let all: Vec<Parameter> =
                    (1..).zip(LENGTHS).map(|(i, len)| parameter(&on, real, len, moments, i)).collect();
                let mut items: Vec<Item> = all.iter().map(|p| p.at).collect();
                items.insert(2, Item { len: 0, ..items[0] });
                let table = Table::of(&items);
                assert_eq!((table.count, table.blocks), (8, 5 + 1 + 2 + 4));
                let bytes = |b: &[u8]| {
                    let at = on.allocate(b.len()).unwrap();
                    on.write(b, at);
                    at
                };
                let place = bytes(&table.bytes());
                // Steps with gradients as they are, within the norm, and beyond it.
                let squares = 2.25f32;
                let clips = [None, Some(2.0f32), Some(0.125)];
                for (step, largest) in (1..).zip(clips) {
                    let clip = largest.map(|largest| (on.put(Real::F32, &[squares]), largest));
                    update(&on, real, u.kind, (place, &table), bytes(&constants(&u, step)), clip);
                }
                on.wait().unwrap();
                for Parameter { at, p, g, m, v } in all {
                    let [mut want, mut first, mut second] = [p, m, v].map(|x| array(&x));
                    let squares = array(&[squares]);
                    for (step, largest) in (1..).zip(clips) {
                        let clip = largest.map(|largest| Clipping { squares: &squares, largest });
                        let (first, second) =
                            ((moments > 0).then_some(&mut first), (moments > 1).then_some(&mut second));
                        let (part, gradient) = (0..at.len, array(&g));
                        let one = Updated { part, parameter: &mut want, gradient: &gradient, first, second };
                        Naive.update(&u, step, clip, one);
                    }
                    let what = format!("{u:?}, {} numbers", at.len);
                    let got = on.get(Real::F32, at.parameter, at.len);
                    close(&what, Real::F32, &got, &want);
                    if let Some(shadow) = at.shadow {
                        assert_eq!(on.get(real, shadow, at.len), rounded(real, got), "{what}");
                    }
                    for (moment, want) in [(at.first, first), (at.second, second)] {
                        if let Some(moment) = moment {
                            close(&what, Real::F32, &on.get(Real::F32, moment, at.len), &want);
                        }
                    }
                }
            }
        }
    }
}
