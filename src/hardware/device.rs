//! A device of the catalog: what its maker says it can do.

use super::date::Date;

/// Number formats that peaks are quoted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NumberFormat {
    F32,
    Tf32,
    F16,
    /// f16 products that are added up in f16, on consumer cards twice as fast.
    F16Accumulating,
    Bf16,
    F8,
    F4,
    Int8,
}

impl NumberFormat {
    pub const ALL: [Self; 8] =
        [Self::F32, Self::Tf32, Self::F16, Self::F16Accumulating, Self::Bf16, Self::F8, Self::F4, Self::Int8];

    /// As the catalog's files write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Tf32 => "tf32",
            Self::F16 => "f16",
            Self::F16Accumulating => "f16_accumulating_f16",
            Self::Bf16 => "bf16",
            Self::F8 => "f8",
            Self::F4 => "f4",
            Self::Int8 => "int8",
        }
    }
}

/// Rates in FLOP/s (operations a second for int8), where they are known.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rates(pub Vec<(NumberFormat, f64)>);

impl Rates {
    pub fn of(&self, format: NumberFormat) -> Option<f64> {
        self.0.iter().find(|(f, _)| *f == format).map(|(_, rate)| *rate)
    }
}

/// How devices of a machine or pod talk to each other.
#[derive(Clone, Debug, PartialEq)]
pub struct Link {
    pub name: String,
    /// One direction.
    pub bytes_per_second: f64,
    /// Devices that it joins.
    pub devices: Option<u32>,
}

/// One device.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Device {
    /// What it is addressed by: `h100-sxm-80gb`.
    pub name: String,
    pub title: String,
    pub vendor: String,
    /// gpu, tpu, accelerator, cpu or soc.
    pub kind: String,
    pub architecture: String,
    pub aliases: Vec<String>,
    /// What drivers and operating systems call it.
    pub seen_as: Vec<String>,
    /// Dense peaks of the datasheet.
    pub peaks: Rates,
    /// What a tuned matrix product was measured to reach.
    pub achieved: Rates,
    pub cores: Option<u32>,
    pub memory_bytes: Option<f64>,
    pub memory_bytes_per_second: Option<f64>,
    pub link: Option<Link>,
    pub pcie: String,
    pub tdp_watts: Option<f64>,
    pub released: Option<Date>,
    /// Fields that no source at hand confirms; `everything` stands for all.
    pub unverified: Vec<String>,
    pub source: String,
    pub notes: String,
}

impl Device {
    /// Whether no source at hand confirms this field (a format's name for a peak).
    pub fn is_unverified(&self, field: &str) -> bool {
        let holds = |name: &str| self.unverified.iter().any(|u| u == name);
        holds("everything") || holds(field) || (holds("peaks") && NumberFormat::ALL.iter().any(|f| f.name() == field))
    }

    /// The peak that is quoted for training and serving: bf16, else f16, else f32.
    pub fn peak(&self) -> Option<(NumberFormat, f64)> {
        [NumberFormat::Bf16, NumberFormat::F16, NumberFormat::F32]
            .into_iter()
            .find_map(|f| Some((f, self.peaks.of(f)?)))
    }

    /// Whether a person who wrote `name` meant this device; letters' case and separators do not count.
    pub fn is_called(&self, name: &str) -> bool {
        let wanted = key(name);
        !wanted.is_empty() && std::iter::once(&self.name).chain(&self.aliases).any(|n| key(n) == wanted)
    }
    /// Whether every word of `name` that tells devices apart is one of this device's, and how many of its own are left over:
    /// "NVIDIA A100-SXM4-80GB" means a100-sxm-80gb.
    pub fn is_meant_by(&self, name: &str) -> Option<usize> {
        let wanted = words(name);
        let own = words(&self.name);
        let known =
            |w: &String| own.contains(w) || self.seen_as.iter().chain(&self.aliases).any(|n| words(n).contains(w));
        // A family alone ("RTX"), or a size of memory, means nothing yet.
        let number = |w: &String| w.chars().any(|c| c.is_ascii_digit()) && !w.ends_with("gb");
        let named = own.first().is_some_and(|family| wanted.contains(family)) && wanted.iter().any(number);
        (named && wanted.iter().all(known)).then(|| own.iter().filter(|w| !wanted.contains(w)).count())
    }
}

/// Words of makers, brands and memory that do not tell one device from another.
const PLAIN: &[&str] = &["nvidia", "geforce", "tesla", "amd", "radeon", "instinct", "google", "cloud", "apple", "gpu"];

/// The words that tell devices apart, without letter case: "A100-SXM4-80GB" gives a100, sxm, 80gb.
fn words(name: &str) -> Vec<String> {
    let lower = name.to_lowercase().replace(" gb", "gb");
    let parts = lower.split(|c: char| !c.is_alphanumeric()).filter(|w| !w.is_empty());
    let told = parts.filter(|w| !PLAIN.contains(w) && !w.starts_with("hbm") && !w.starts_with("gddr"));
    told.map(|w| if w.starts_with("sxm") { "sxm".into() } else { w.to_string() }).collect()
}

/// Letters and digits alone, in lower case.
pub(super) fn key(name: &str) -> String {
    name.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}
