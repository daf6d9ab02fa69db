//! The instruction sets that the kernels are made for, and the one door to each.

use std::{fmt, str::FromStr};

#[cfg(target_arch = "aarch64")]
use crate::vector::F32x4;
#[cfg(target_arch = "x86_64")]
use crate::vector::{F32x8, F32x16};
use crate::vector::{Portable, Vector};

/// An instruction set that this machine has.
///
/// A value is the proof: it comes from [`Isa::detect`], [`Isa::available`] or a name that was checked
/// against this machine (`"avx2".parse()`), so whatever holds one may use its instructions. The order
/// is from narrow to wide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Isa(Level);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Level {
    Portable,
    #[cfg(target_arch = "aarch64")]
    Neon,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

/// Every level of this architecture, narrow to wide.
const LEVELS: &[Level] = &[
    Level::Portable,
    #[cfg(target_arch = "aarch64")]
    Level::Neon,
    #[cfg(target_arch = "x86_64")]
    Level::Avx2,
    #[cfg(target_arch = "x86_64")]
    Level::Avx512,
];

/// The names of the levels of every architecture: a name that is known, but not here, is no slip of the
/// pen.
const NAMES: [&str; 4] = ["portable", "neon", "avx2", "avx512"];

impl Level {
    fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            #[cfg(target_arch = "aarch64")]
            Self::Neon => "neon",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => "avx512",
        }
    }

    fn is_here(self) -> bool {
        match self {
            Self::Portable => true,
            #[cfg(target_arch = "aarch64")]
            Self::Neon => std::arch::is_aarch64_feature_detected!("neon"),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vl"),
        }
    }
}

impl Isa {
    /// Plain Rust without intrinsics: every machine has it.
    pub const PORTABLE: Self = Self(Level::Portable);

    /// The widest that this machine has.
    #[must_use]
    pub fn detect() -> Self {
        Self::available().max().unwrap_or(Self::PORTABLE)
    }

    /// All that this machine has, narrow to wide; [`Isa::PORTABLE`] is always among them.
    pub fn available() -> impl Iterator<Item = Self> {
        LEVELS.iter().copied().filter(|level| level.is_here()).map(Self)
    }

    /// `portable`, `neon`, `avx2` or `avx512`.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.0.name()
    }

    /// Lanes of a register.
    pub(crate) fn lanes(self) -> usize {
        match self.0 {
            Level::Portable => Portable::LANES,
            #[cfg(target_arch = "aarch64")]
            Level::Neon => F32x4::LANES,
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => F32x8::LANES,
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => F32x16::LANES,
        }
    }

    /// Vectors in the widest panel of packed weights.
    pub(crate) fn panel(self) -> usize {
        match self.0 {
            Level::Portable => Portable::PANEL,
            #[cfg(target_arch = "aarch64")]
            Level::Neon => F32x4::PANEL,
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => F32x8::PANEL,
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => F32x16::PANEL,
        }
    }

    /// Runs `kernel` with this instruction set's vectors.
    ///
    /// # Safety
    /// As [`Kernel::run`], but for the instruction set, which is known to be there.
    pub(crate) unsafe fn run<K: Kernel>(self, kernel: K) {
        match self.0 {
            // SAFETY: plain Rust runs everywhere; the rest is the caller's promise.
            Level::Portable => unsafe { kernel.run::<Portable>() },
            // SAFETY: a value of this level exists only where the CPU has NEON.
            #[cfg(target_arch = "aarch64")]
            Level::Neon => unsafe { run_neon(kernel) },
            // SAFETY: a value of this level exists only where the CPU has AVX2 and FMA.
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => unsafe { run_avx2(kernel) },
            // SAFETY: a value of this level exists only where the CPU has AVX-512F and VL.
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => unsafe { run_avx512(kernel) },
        }
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// Why a name is not an instruction set to use here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IsaError {
    /// Nothing has this name.
    Unknown,
    /// This machine does not have it.
    Unavailable,
}

impl fmt::Display for IsaError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => write!(formatter, "not one of {}", NAMES.join(", ")),
            Self::Unavailable => formatter.write_str("this CPU does not have these instructions"),
        }
    }
}

impl std::error::Error for IsaError {}

impl FromStr for Isa {
    type Err = IsaError;

    fn from_str(name: &str) -> Result<Self, IsaError> {
        let missing = if NAMES.contains(&name) { IsaError::Unavailable } else { IsaError::Unknown };
        Self::available().find(|isa| isa.name() == name).ok_or(missing)
    }
}

/// Work written over a [`Vector`], with all that it reads and writes.
pub(crate) trait Kernel {
    /// Does the work. Implementations are `#[inline(always)]`.
    ///
    /// # Safety
    /// The CPU has the instructions of `V`, the packed data was packed for `V`, and every slice is as
    /// long as the kernel says.
    unsafe fn run<V: Vector>(self);
}

/// # Safety
/// As [`Kernel::run`] with NEON.
#[cfg(target_arch = "aarch64")]
#[target_feature(enable = "neon")]
unsafe fn run_neon<K: Kernel>(kernel: K) {
    // SAFETY: the caller's promise.
    unsafe { kernel.run::<F32x4>() }
}

/// # Safety
/// As [`Kernel::run`] with AVX2 and FMA.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn run_avx2<K: Kernel>(kernel: K) {
    // SAFETY: the caller's promise.
    unsafe { kernel.run::<F32x8>() }
}

/// # Safety
/// As [`Kernel::run`] with AVX-512F and VL.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vl")]
unsafe fn run_avx512<K: Kernel>(kernel: K) {
    // SAFETY: the caller's promise.
    unsafe { kernel.run::<F32x16>() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_detected_one_is_the_last_of_the_available() {
        assert_eq!(Isa::available().last(), Some(Isa::detect()));
        assert_eq!(Isa::available().next(), Some(Isa::PORTABLE));
    }

    #[test]
    fn a_name_gives_back_its_instruction_set() {
        for isa in Isa::available() {
            assert_eq!(isa.name().parse(), Ok(isa));
        }
        assert_eq!("sse9".parse::<Isa>(), Err(IsaError::Unknown));
    }

    #[test]
    fn the_name_of_another_architecture_is_known() {
        let foreign = if cfg!(target_arch = "aarch64") { "avx2" } else { "neon" };
        assert_eq!(foreign.parse::<Isa>(), Err(IsaError::Unavailable));
        assert!(LEVELS.iter().all(|level| NAMES.contains(&level.name())));
        assert_eq!(IsaError::Unknown.to_string(), "not one of portable, neon, avx2, avx512");
    }
}
