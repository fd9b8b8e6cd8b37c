//! A device as the projection sees it: what it can do, filled in from its datasheet where nobody measured.

use crate::hardware::device::{Device, NumberFormat};
use crate::hardware::machine::Probe;

/// What decides which constants apply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// NVIDIA or AMD with HBM.
    Datacenter,
    /// NVIDIA or AMD with GDDR memory.
    Card,
    /// A GPU that shares the system's memory.
    Soc,
    Tpu,
    Cpu,
}

/// Rates in FLOP/s and bytes/s of one device.
#[derive(Clone, Debug, PartialEq)]
pub struct Unit {
    /// As the catalog has it.
    pub name: String,
    /// Which constants apply.
    pub kind: Kind,
    /// The maker's name of the generation: "Hopper".
    pub architecture: String,
    /// Datasheet, 16-bit with 32-bit sums.
    pub peak: f64,
    /// 16-bit with 16-bit sums: twice `peak` on consumer cards.
    pub peak_narrow_sums: f64,
    /// What a tuned 16-bit product reaches.
    pub tuned: f64,
    /// The same in f8; `None` where the device has none.
    pub tuned_f8: Option<f64>,
    /// Datasheet in f4; `None` where the device has none.
    pub peak_f4: Option<f64>,
    /// FLOP/s in f32 without tensor cores.
    pub vector_f32: f64,
    /// What a tuned product in f32 reaches, without reduced precision inside.
    pub tuned_f32: f64,
    /// Of its memory: datasheet, or probed.
    pub bytes_per_second: f64,
    /// Size of its memory.
    pub memory_bytes: f64,
    /// One direction, to its neighbours in the machine.
    pub link_bytes_per_second: f64,
    /// Devices that the link joins.
    pub link_devices: f64,
    /// Thermal design power; `None` where unknown.
    pub watts: Option<f64>,
    /// Multiprocessors; `None` where unknown: no wave is counted.
    pub cores: Option<f64>,
    /// Cores of a CPU.
    pub threads: Option<f64>,
    /// Whether its limits were probed, and are not a data sheet's.
    pub probed: bool,
}

/// Share of the datasheet's peak that tuned products reach where nobody measured: A100 0.87, H100 0.80, B200 0.78.
const TUNED_16: f64 = 0.80;
/// The same of cards with GDDR memory, which lack the widest paths to their products: 0.85 to 0.95 (llmq's measurements).
const TUNED_CARD: f64 = 0.92;
/// Of cards whose products with 32-bit sums are held at half their rate.
const TUNED_HELD: f64 = 0.97;
/// Of a TPU's systolic arrays where memory keeps up, and rows and columns of a block that lies on the chip.
const TUNED_TPU: f64 = 0.97;
const TPU_BLOCK: f64 = 512.0;
/// The same in f8: H100 0.71, GB200 0.72, B200 0.76.
const TUNED_8: f64 = 0.74;
/// The same of f32 products on vector units.
const TUNED_32: f64 = 0.85;
/// First parts of the names of GPUs with GDDR memory.
const CARDS: &[&str] = &[
    "rtx", "gtx", "titan", "rx", "arc", "a2", "a10", "a10g", "a40", "l4", "l20", "l40", "l40s", "t4", "p40", "m60",
    "gb10", "jetson",
];
/// Memory of a CPU's machine where it is not said: it takes what it is given.
const CPU_MEMORY: f64 = 512e9;
/// Bytes/s that one thread of a CPU keeps in flight at most, and its share of a core's products.
const THREAD_BYTES: f64 = 18e9;
/// PCIe 4.0 x16 with its protocol, where a device has no link.
const NO_LINK: f64 = 25e9;

/// What the catalog lacks for a projection.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{device}: the catalog has no {missing}; add it in a file of your own and give it with --price-book")]
pub struct Unknown {
    pub device: String,
    pub missing: &'static str,
}

impl Unit {
    /// # Errors
    /// A figure that is missing from the catalog and cannot be inferred.
    pub fn of(d: &Device) -> Result<Self, Unknown> {
        let lacks = |missing| Unknown { device: d.name.clone(), missing };
        let (f16, bf16) = (d.peaks.of(NumberFormat::F16), d.peaks.of(NumberFormat::Bf16));
        let is_cpu = d.kind == "cpu";
        // A CPU without 16-bit products works in 32 bits.
        let wide = d.peaks.of(NumberFormat::F32).filter(|_| is_cpu);
        let peak = bf16.or(f16).or(wide).ok_or(lacks("16-bit peak"))?;
        let bytes_per_second = d.memory_bytes_per_second.ok_or(lacks("memory bandwidth"))?;
        let kind = match d.kind.as_str() {
            "cpu" => Kind::Cpu,
            "tpu" => Kind::Tpu,
            "soc" => Kind::Soc,
            _ if d.vendor == "Apple" => Kind::Soc,
            "gpu" if d.name.split('-').next().is_some_and(|family| CARDS.contains(&family)) => Kind::Card,
            _ => Kind::Datacenter,
        };
        let usual = match kind {
            // A block's bytes against its products: where memory is slow for the array, it waits.
            Kind::Tpu => TUNED_TPU * (1.0 + (peak / (TPU_BLOCK * bytes_per_second)).powi(3)).powf(-1.0 / 3.0),
            Kind::Card if d.peaks.of(NumberFormat::F16Accumulating).is_some_and(|p| p > 1.5 * peak) => TUNED_HELD,
            Kind::Card => TUNED_CARD,
            _ => TUNED_16,
        };
        let tuned = d.achieved.of(NumberFormat::Bf16).unwrap_or(peak * usual);
        let link = d.link.as_ref();
        let vector_f32 = d.peaks.of(NumberFormat::F32).unwrap_or(peak / 8.0);
        Ok(Self {
            name: d.name.clone(),
            kind,
            architecture: d.architecture.clone(),
            peak,
            peak_narrow_sums: d.peaks.of(NumberFormat::F16Accumulating).unwrap_or(peak),
            tuned,
            // What 8 bits reach where nobody measured is as far off as what 16 bits do, and on boards with HBM farther.
            tuned_f8: d.achieved.of(NumberFormat::F8).or_else(|| {
                let farther = if kind == Kind::Card { 1.0 } else { TUNED_8 / TUNED_16 };
                d.peaks.of(NumberFormat::F8).map(|p| p * farther * tuned / peak)
            }),
            peak_f4: d.peaks.of(NumberFormat::F4),
            vector_f32,
            tuned_f32: d.achieved.of(NumberFormat::F32).unwrap_or(vector_f32 * TUNED_32),
            bytes_per_second,
            memory_bytes: d.memory_bytes.or(is_cpu.then_some(CPU_MEMORY)).ok_or(lacks("memory size"))?,
            link_bytes_per_second: link.map_or(NO_LINK, |l| l.bytes_per_second),
            link_devices: link.and_then(|l| l.devices).map_or(1.0, f64::from),
            watts: d.tdp_watts,
            cores: d.cores.filter(|_| d.kind == "gpu").map(f64::from),
            threads: d.cores.filter(|_| is_cpu).map(f64::from),
            probed: false,
        })
    }

    /// One of two equal parts of a chip.
    pub fn half(self) -> Self {
        let of = |x: Option<f64>| x.map(|x| x / 2.0);
        Self {
            peak: self.peak / 2.0,
            peak_narrow_sums: self.peak_narrow_sums / 2.0,
            tuned: self.tuned / 2.0,
            tuned_f8: of(self.tuned_f8),
            peak_f4: of(self.peak_f4),
            vector_f32: self.vector_f32 / 2.0,
            tuned_f32: self.tuned_f32 / 2.0,
            bytes_per_second: self.bytes_per_second / 2.0,
            memory_bytes: self.memory_bytes / 2.0,
            link_bytes_per_second: self.link_bytes_per_second / 2.0,
            link_devices: self.link_devices * 2.0,
            ..self
        }
    }

    /// A CPU of which so many threads work: products by cores, and bytes by what a thread keeps in flight.
    pub fn with_threads(self, threads: f64) -> Self {
        let Some(cores) = self.threads else { return self };
        let share = (threads / cores).min(1.0);
        Self {
            peak: self.peak * share,
            peak_narrow_sums: self.peak_narrow_sums * share,
            tuned: self.tuned * share,
            vector_f32: self.vector_f32 * share,
            tuned_f32: self.tuned_f32 * share,
            bytes_per_second: self.bytes_per_second.min(threads * THREAD_BYTES),
            ..self
        }
    }

    /// This machine's CPU, as its probe measured it.
    pub fn of_cpu(name: &str, probe: &Probe, memory_bytes: f64) -> Self {
        let f32_rate = probe.f32_flops_per_second;
        let half = probe.bf16_flops_per_second.unwrap_or(f32_rate);
        Self {
            name: name.into(),
            kind: Kind::Cpu,
            architecture: String::new(),
            peak: half,
            peak_narrow_sums: half,
            tuned: half,
            tuned_f8: None,
            peak_f4: None,
            vector_f32: f32_rate,
            tuned_f32: f32_rate,
            bytes_per_second: probe.read_bytes_per_second,
            memory_bytes,
            link_bytes_per_second: probe.read_bytes_per_second,
            link_devices: 1.0,
            watts: None,
            cores: None,
            threads: None,
            probed: true,
        }
    }

    /// Whether kernels of the generation before were not written for it.
    pub fn is_after_ampere(&self) -> bool {
        matches!(self.architecture.as_str(), "Hopper" | "Blackwell" | "Blackwell Ultra")
    }

    /// Whether its tensor cores take f32 with 19 bits.
    pub fn has_tf32(&self) -> bool {
        matches!(self.architecture.as_str(), "Ampere" | "Ada") || self.is_after_ampere()
    }

    /// Whether it is of that generation.
    pub fn is_hopper(&self) -> bool {
        self.architecture == "Hopper"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    fn unit(name: &str) -> Unit {
        Unit::of(fixture::book().device(name).unwrap()).unwrap()
    }

    #[test]
    fn devices_of_the_catalog_are_of_their_kinds() {
        for (name, kind) in [
            ("A100-80GB", Kind::Datacenter),
            ("v100-sxm2-16gb", Kind::Datacenter),
            ("RTX 4090", Kind::Card),
            ("rtx-pro-6000", Kind::Card),
            ("l4", Kind::Card),
            ("M2 Ultra 76-core GPU", Kind::Soc),
            ("mi300x", Kind::Datacenter),
            ("tpu-v4", Kind::Tpu),
        ] {
            assert_eq!(unit(name).kind, kind, "{name}");
        }
        assert!(
            unit("h100-sxm").is_hopper() && unit("b200").is_after_ampere() && !unit("a100-sxm-80gb").is_after_ampere()
        );
        assert_eq!(unit("rtx-4090").peak_narrow_sums, 330.3e12);
    }

    #[test]
    fn what_is_missing_is_named() {
        let d = fixture::book().device("k80").unwrap();
        assert!(Unit::of(d).unwrap_err().to_string().starts_with("k80: the catalog has no 16-bit peak"));
    }
}
