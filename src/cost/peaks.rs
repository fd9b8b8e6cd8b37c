//! What the GPUs of a trial can do at most: as probed on them, or as their datasheets say, and which of the two.

use super::metric::Context;
use crate::hardware::book::Book;
use crate::hardware::device::{Device, NumberFormat};
use crate::hardware::gpu::Gpu;
use crate::transformer::{BackendKind, Dtype};

/// Where a limit comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Probed,
    Datasheet,
}

impl Source {
    /// The word that stands wherever a share of the limit is shown.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Probed => "probed",
            Self::Datasheet => "datasheet",
        }
    }
}

/// The catalog's name of a trial's format; formats are called alike in both.
fn format(dtype: Dtype) -> Option<NumberFormat> {
    NumberFormat::ALL.into_iter().find(|f| f.name() == dtype.name())
}

/// GPUs that the trial ran on: the first ones that it could see. `None` on other backends, or where they are not known.
pub(crate) fn gpus<'a>(c: &Context<'a>) -> Option<&'a [Gpu]> {
    let trial = &c.record.cell.trial;
    let used = c.gpus.get(..trial.devices as usize)?;
    (trial.backend == BackendKind::Cuda && !used.is_empty()).then_some(used)
}

/// A limit of all of the trial's GPUs together. Probed ones and datasheets are not mixed.
fn together(
    (gpus, book): (&[Gpu], &Book),
    probed: impl Fn(&Gpu) -> Option<f64>,
    datasheet: impl Fn(&Device) -> Option<f64>,
) -> Option<(f64, Source)> {
    let sum = |of: &dyn Fn(&Gpu) -> Option<f64>| gpus.iter().map(of).sum::<Option<f64>>();
    let positive = |x: &f64| x.is_finite() && *x > 0.0;
    if let Some(limit) = sum(&probed).filter(positive) {
        return Some((limit, Source::Probed));
    }
    let limit = sum(&|gpu| datasheet(book.device_of_driver(&gpu.name)?)).filter(positive)?;
    Some((limit, Source::Datasheet))
}

/// FLOP/s of the trial's GPUs for its number format.
pub(crate) fn flops(c: &Context) -> Option<(f64, Source)> {
    let format = format(c.record.cell.trial.workload.dtype)?;
    together((gpus(c)?, c.book), |g| g.probed.as_ref()?.of(format), |d| d.peaks.of(format))
}

/// Bytes a second of the memory of the trial's GPUs.
pub(crate) fn bandwidth(c: &Context) -> Option<(f64, Source)> {
    together((gpus(c)?, c.book), |g| g.probed.as_ref()?.copy_bytes_per_second, |d| d.memory_bytes_per_second)
}

/// What the shares of a trial are of: probed unless the trial ran on GPUs that nobody probed.
pub(crate) fn source(c: &Context) -> Source {
    match flops(c).or_else(|| bandwidth(c)) {
        Some((_, source)) => source,
        None => Source::Probed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cost::evaluate::evaluate;
    use crate::cost::metrics::{FLOPS_PER_SECOND, MBU, MFU, PEAK_FLOPS};
    use crate::fixture;
    use crate::hardware::gpu::Probed;

    #[test]
    fn a_datasheet_stands_in_until_the_gpu_was_probed() {
        let mut run = fixture::gpus();
        let of = |run: &crate::results::run::Run| {
            let context = Context::of(run, &run.records[0], fixture::book());
            (flops(&context), bandwidth(&context), source(&context))
        };
        // One H100 SXM: 989.4 TFLOP/s dense in bf16, 3.35 TB/s.
        let (f, b, from) = of(&run);
        assert!(
            (f.unwrap().0 / 989.4e12 - 1.0).abs() < 0.01 && (b.unwrap().0 / 3.35e12 - 1.0).abs() < 0.01,
            "{f:?} {b:?}"
        );
        assert_eq!(from, Source::Datasheet);
        let figured = &evaluate(&run, fixture::book())[0];
        let (rate, mfu) = (figured.get(&FLOPS_PER_SECOND).unwrap().value, figured.get(&MFU).unwrap().value);
        assert!((mfu - rate / f.unwrap().0).abs() < 1e-9);
        run.environment.gpus[0].probed =
            Some(Probed { flops_per_second: vec![("bf16".into(), 700e12)], copy_bytes_per_second: Some(2.9e12) });
        assert_eq!(of(&run), (Some((700e12, Source::Probed)), Some((2.9e12, Source::Probed)), Source::Probed));
        assert_eq!(evaluate(&run, fixture::book())[0].get(&PEAK_FLOPS).unwrap().value, 700e12);
    }

    #[test]
    fn a_gpu_that_nobody_knows_and_a_trial_on_more_than_there_are_have_no_peak() {
        let mut run = fixture::gpus();
        run.environment.gpus[0].name = "NVIDIA X1".into();
        let none = |run: &crate::results::run::Run| {
            let figured = &evaluate(run, fixture::book())[0];
            figured.get(&MFU).is_none() && figured.get(&MBU).is_none() && figured.get(&FLOPS_PER_SECOND).is_some()
        };
        assert!(none(&run));
        run = fixture::gpus();
        run.environment.gpus.clear();
        assert!(none(&run));
    }
}
