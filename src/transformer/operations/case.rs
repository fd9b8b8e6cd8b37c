//! One entry of the list: an operation at a shape, the buffers that it works on, and how far each result may be off.

use super::super::backend::{Backend, Category};
use super::super::error::SessionError;
use super::super::random::Stream;
use super::bounds::{Format, sum};
use std::cell::OnceCell;

/// What a case does on a backend.
type Run<B> =
    Box<dyn Fn(&B, &mut [<B as super::super::backend::Alloc>::Buffer]) -> Result<(), SessionError> + Send + Sync>;

/// What results may be off by before they are stored.
type Off = Box<dyn Fn(&Known<'_>) -> Vec<f64> + Send + Sync>;

/// An operation at a shape.
pub(super) struct Case<B: Backend> {
    /// The method of [`Backend`] that it is about; results may name others.
    pub operation: &'static str,
    pub shape: String,
    /// Multiply-adds of the oracle, roughly: the longest are begun first.
    pub work: usize,
    pub slots: Vec<Slot>,
    pub run: Run<B>,
}

impl<B: Backend> Case<B> {
    pub(super) fn new(
        operation: &'static str,
        shape: String,
        work: usize,
        slots: Vec<Slot>,
        run: impl Fn(&B, &mut [B::Buffer]) -> Result<(), SessionError> + Send + Sync + 'static,
    ) -> Self {
        Self { operation, shape, work, slots, run: Box::new(run) }
    }

    /// The numbers that its buffers start with.
    pub(super) fn before(&self, format: Format) -> Vec<Vec<f32>> {
        (1..).zip(&self.slots).map(|(stream, slot)| slot.numbers(stream, format)).collect()
    }

    /// Its buffers after it has run on a backend from these numbers; empty where nothing is compared.
    pub(super) fn after(&self, on: &B, before: &[Vec<f32>]) -> Result<Vec<Vec<f32>>, SessionError> {
        let mut buffers = Vec::new();
        for (slot, numbers) in self.slots.iter().zip(before) {
            let mut buffer = on.alloc(slot.len, slot.category)?;
            on.upload(numbers, &mut buffer);
            buffers.push(buffer);
        }
        (self.run)(on, &mut buffers)?;
        let mut after = Vec::new();
        for (slot, buffer) in self.slots.iter().zip(&buffers) {
            let mut numbers = vec![0.0; if matches!(slot.role, Role::Room) { 0 } else { slot.len }];
            on.download(buffer, 0, &mut numbers);
            after.push(numbers);
        }
        on.check()?;
        Ok(after)
    }
}

/// A buffer of a case.
pub(super) struct Slot {
    pub len: usize,
    pub category: Category,
    start: Start,
    pub role: Role,
}

/// What a buffer holds at first.
enum Start {
    /// Normal numbers of this deviation.
    Normal(f32),
    /// NaN: what an operation forgets to write is found.
    Unwritten,
    These(Vec<f32>),
}

/// What a buffer is to its operation.
pub(super) enum Role {
    /// Only read: it must be the same afterwards, bit for bit.
    Given,
    /// Means nothing afterwards.
    Room,
    /// Compared, under this method's name.
    Result(&'static str, Allowed),
}

/// How far a result may be off.
pub(super) enum Allowed {
    /// Not at all.
    Exactly,
    /// A sum of so many products or numbers at most, linear in every input that it depends on; and its storage.
    Sum(usize),
    /// What the function says, and the storage.
    By(Off),
}

/// What a bound is computed from: the buffers before and after the oracle's run.
pub(super) struct Known<'a> {
    pub format: Format,
    pub before: &'a [Vec<f32>],
    pub after: &'a [Vec<f32>],
    pub categories: &'a [Category],
    /// The oracle's results on the absolute values of all inputs, computed when a bound asks.
    pub on_magnitudes: &'a dyn Fn() -> Vec<Vec<f32>>,
    pub magnitudes: OnceCell<Vec<Vec<f32>>>,
}

impl Known<'_> {
    /// What the numbers of a buffer may be off by, sums of so many terms each, before they are stored.
    pub(super) fn sums(&self, buffer: usize, terms: usize) -> Vec<f64> {
        let all = self.magnitudes.get_or_init(|| (self.on_magnitudes)());
        all.get(buffer).into_iter().flatten().map(|m| sum(terms) * f64::from(m.abs())).collect()
    }

    /// [`Known::sums`] of products that are rounded to their format before something of the magnitude `added` (by number) is added.
    pub(super) fn sums_before(&self, buffer: usize, terms: usize, added: impl Fn(usize) -> f32) -> Vec<f64> {
        let u = self.format.stored(self.categories[buffer]);
        let product = |i: usize| f64::from(self.after[buffer][i].abs()) + f64::from(added(i).abs());
        let sums = self.sums(buffer, terms).into_iter().enumerate();
        sums.map(|(i, off)| off + u * (product(i) + off)).collect()
    }

    /// What they are off by once they are stored.
    pub(super) fn stored(&self, buffer: usize, off: Vec<f64>) -> Vec<f64> {
        let u = self.format.stored(self.categories[buffer]);
        // Numbers below 2^-126 may be flushed to zero.
        let least = f64::from(f32::MIN_POSITIVE);
        off.iter().zip(&self.after[buffer]).map(|(off, x)| off + u * (f64::from(x.abs()) + off) + least).collect()
    }

    /// [`Known::sums`] and [`Known::stored`].
    pub(super) fn stored_sums(&self, buffer: usize, terms: usize) -> Vec<f64> {
        self.stored(buffer, self.sums(buffer, terms))
    }
}

impl Slot {
    fn new(len: usize, category: Category, start: Start, role: Role) -> Self {
        Self { len, category, start, role }
    }

    fn numbers(&self, stream: u64, format: Format) -> Vec<f32> {
        let mut numbers = vec![f32::NAN; self.len];
        match &self.start {
            Start::Unwritten => return numbers,
            Start::Normal(deviation) => Stream::new(13, stream).fill_normal(&mut numbers, *deviation),
            Start::These(these) => numbers.copy_from_slice(these),
        }
        numbers.iter_mut().for_each(|x| *x = format.round(self.category, *x));
        numbers
    }
}

/// Normal numbers that are only read.
pub(super) fn given(len: usize, category: Category) -> Slot {
    Slot::new(len, category, Start::Normal(1.0), Role::Given)
}

/// The same of another deviation.
pub(super) fn scaled(len: usize, category: Category, deviation: f32) -> Slot {
    Slot::new(len, category, Start::Normal(deviation), Role::Given)
}

/// These numbers, only read.
pub(super) fn these(category: Category, numbers: Vec<f32>) -> Slot {
    Slot::new(numbers.len(), category, Start::These(numbers), Role::Given)
}

/// Normal numbers that may become anything.
pub(super) fn room(len: usize, category: Category) -> Slot {
    Slot::new(len, category, Start::Unwritten, Role::Room)
}

/// What an operation writes, every number of it.
pub(super) fn result(of: &'static str, len: usize, category: Category, allowed: Allowed) -> Slot {
    Slot::new(len, category, Start::Unwritten, Role::Result(of, allowed))
}

/// What an operation changes, from normal numbers.
pub(super) fn changed(of: &'static str, len: usize, category: Category, allowed: Allowed) -> Slot {
    Slot::new(len, category, Start::Normal(1.0), Role::Result(of, allowed))
}

/// The same from these.
pub(super) fn changed_from(of: &'static str, category: Category, from: Vec<f32>, allowed: Allowed) -> Slot {
    Slot::new(from.len(), category, Start::These(from), Role::Result(of, allowed))
}

/// A bound of its own.
pub(super) fn by(off: impl Fn(&Known<'_>) -> Vec<f64> + Send + Sync + 'static) -> Allowed {
    Allowed::By(Box::new(off))
}

/// Numbers below `bound`.
pub(super) fn below(len: usize, bound: u32, stream: u64) -> Vec<u32> {
    let mut s = Stream::new(23, stream);
    (0..len).map(|_| s.below(bound)).collect()
}

/// Normal numbers on the host.
pub(super) fn normal(len: usize, stream: u64) -> Vec<f32> {
    let mut numbers = vec![0.0; len];
    Stream::new(29, stream).fill_normal(&mut numbers, 1.0);
    numbers
}
