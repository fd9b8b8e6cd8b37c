//! Which instructions the kernels are made of: the best that this machine has, chosen once.

use std::sync::OnceLock;

/// An instruction path, from the plainest to the richest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Instructions {
    /// What every processor of the architecture has (on arm64: NEON).
    Portable,
    /// AVX2 and FMA.
    Avx2,
    /// AVX-512 (F, VL, BW, DQ).
    Avx512,
    /// AVX-512 with dot products of bf16 and of bytes (VNNI).
    Avx512Bf16,
    /// The same with products of tiles of bf16.
    Amx,
}

/// Names an instruction path to take instead of the best one: for tests, and for who doubts a path.
pub(crate) const VARIABLE: &str = "CENTIME_INSTRUCTIONS";

impl Instructions {
    pub(crate) const ALL: &'static [Self] = &[Self::Portable, Self::Avx2, Self::Avx512, Self::Avx512Bf16, Self::Amx];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
            Self::Avx512Bf16 => "avx512bf16",
            Self::Amx => "amx",
        }
    }

    /// Whether this machine has them.
    pub(crate) fn available(self) -> bool {
        match self {
            Self::Portable => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => {
                Self::Avx2.available()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
            }
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Bf16 => {
                // Every processor with the former has the latter, except where a hypervisor hides it.
                Self::Avx512.available()
                    && is_x86_feature_detected!("avx512bf16")
                    && is_x86_feature_detected!("avx512vnni")
            }
            #[cfg(target_arch = "x86_64")]
            Self::Amx => Self::Avx512Bf16.available() && crate::amx::available(),
            #[cfg(not(target_arch = "x86_64"))]
            _ => false,
        }
    }

    /// The best of this machine, or what [`VARIABLE`] names where the machine has it.
    pub(crate) fn taken() -> Self {
        static TAKEN: OnceLock<Instructions> = OnceLock::new();
        *TAKEN.get_or_init(|| {
            let wanted = std::env::var(VARIABLE).ok();
            let named = wanted.and_then(|w| Self::ALL.iter().copied().find(|i| i.name() == w && i.available()));
            let best = || Self::ALL.iter().copied().rfind(|i| i.available());
            named.or_else(best).unwrap_or(Self::Portable)
        })
    }
}

/// Runs `f` compiled for the instructions taken. What `f` calls has to be `#[inline(always)]`.
#[inline(always)]
pub(super) fn vectorised<R>(f: impl FnOnce() -> R) -> R {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx2,fma,bmi1,bmi2,lzcnt,popcnt,f16c")]
        fn with_avx2<R>(f: impl FnOnce() -> R) -> R {
            f()
        }
        #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx2,fma,bmi1,bmi2,lzcnt,popcnt,f16c")]
        fn with_avx512<R>(f: impl FnOnce() -> R) -> R {
            f()
        }
        match Instructions::taken() {
            // SAFETY: `taken` only names instructions that the machine has; every machine with AVX2 and FMA has the small
            // ones beside them.
            Instructions::Avx512 | Instructions::Avx512Bf16 | Instructions::Amx => return unsafe { with_avx512(f) },
            // SAFETY: as above.
            Instructions::Avx2 => return unsafe { with_avx2(f) },
            Instructions::Portable => {}
        }
    }
    f()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_is_there() {
        assert!(Instructions::taken().available());
        assert!(Instructions::Portable.available());
        assert_eq!(vectorised(|| 7), 7);
    }
}
