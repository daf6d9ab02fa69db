//! Detects the instruction sets of the CPU, and runs computations that are compiled for each of them.

use std::{fmt, str::FromStr};

#[cfg(target_arch = "aarch64")]
use crate::vector::F32x4;
#[cfg(target_arch = "x86_64")]
use crate::vector::{F32x8, F32x16};
use crate::vector::{Portable, Vector};

/// An instruction set that this machine's CPU supports.
///
/// An `Isa` proves that the CPU supports the instructions, because every function that creates one checks the
/// CPU: [`Isa::detect`], [`Isa::available`] and parsing a name (`"avx2".parse()`). Values are ordered by the
/// width of the vectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Isa(IsaKind);

/// An instruction set of the target architecture, which this machine's CPU may not support.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum IsaKind {
    Portable,
    #[cfg(target_arch = "aarch64")]
    Neon,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

/// All kinds, from narrow vectors to wide ones.
const ALL_KINDS: &[IsaKind] = &[
    IsaKind::Portable,
    #[cfg(target_arch = "aarch64")]
    IsaKind::Neon,
    #[cfg(target_arch = "x86_64")]
    IsaKind::Avx2,
    #[cfg(target_arch = "x86_64")]
    IsaKind::Avx512,
];

/// The names of the instruction sets of all architectures. With these names, the parser distinguishes an
/// unavailable instruction set from a misspelt name.
const ALL_NAMES: [&str; 4] = ["portable", "neon", "avx2", "avx512"];

impl IsaKind {
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

    /// Returns true if this machine's CPU supports the instruction set.
    fn is_available(self) -> bool {
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
    /// Plain Rust without intrinsics, which runs on every CPU.
    pub const PORTABLE: Self = Self(IsaKind::Portable);

    /// Returns the widest instruction set that this machine supports.
    #[must_use]
    pub fn detect() -> Self {
        Self::available().max().unwrap_or(Self::PORTABLE)
    }

    /// Returns all instruction sets that this machine supports, from narrow vectors to wide ones. The first
    /// is [`Isa::PORTABLE`].
    pub fn available() -> impl Iterator<Item = Self> {
        ALL_KINDS.iter().copied().filter(|kind| kind.is_available()).map(Self)
    }

    /// Returns the name: `portable`, `neon`, `avx2` or `avx512`.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.0.name()
    }

    /// Returns the number of `f32` lanes in a vector.
    pub(crate) fn lane_count(self) -> usize {
        match self.0 {
            IsaKind::Portable => Portable::LANES,
            #[cfg(target_arch = "aarch64")]
            IsaKind::Neon => F32x4::LANES,
            #[cfg(target_arch = "x86_64")]
            IsaKind::Avx2 => F32x8::LANES,
            #[cfg(target_arch = "x86_64")]
            IsaKind::Avx512 => F32x16::LANES,
        }
    }

    /// Returns the maximum number of vectors per row of a panel of packed weights.
    pub(crate) fn max_panel_vectors(self) -> usize {
        match self.0 {
            IsaKind::Portable => Portable::MAX_PANEL_VECTORS,
            #[cfg(target_arch = "aarch64")]
            IsaKind::Neon => F32x4::MAX_PANEL_VECTORS,
            #[cfg(target_arch = "x86_64")]
            IsaKind::Avx2 => F32x8::MAX_PANEL_VECTORS,
            #[cfg(target_arch = "x86_64")]
            IsaKind::Avx512 => F32x16::MAX_PANEL_VECTORS,
        }
    }

    /// Runs `kernel` with the vectors of this instruction set.
    ///
    /// # Safety
    /// The requirements of [`SimdKernel::run`] hold. The first requirement always holds, because an `Isa`
    /// exists only if the CPU supports the instruction set.
    pub(crate) unsafe fn run<K: SimdKernel>(self, kernel: K) {
        match self.0 {
            // SAFETY: plain Rust needs no CPU features. The caller guarantees that packed weights and slices
            // are valid for the kernel.
            IsaKind::Portable => unsafe { kernel.run::<Portable>() },
            // SAFETY: an `Isa` of this kind exists only if the CPU supports NEON. The caller guarantees that
            // packed weights and slices are valid for the kernel.
            #[cfg(target_arch = "aarch64")]
            IsaKind::Neon => unsafe { run_neon(kernel) },
            // SAFETY: an `Isa` of this kind exists only if the CPU supports AVX2 and FMA. The caller
            // guarantees that packed weights and slices are valid for the kernel.
            #[cfg(target_arch = "x86_64")]
            IsaKind::Avx2 => unsafe { run_avx2(kernel) },
            // SAFETY: an `Isa` of this kind exists only if the CPU supports AVX-512F and AVX-512VL. The
            // caller guarantees that packed weights and slices are valid for the kernel.
            #[cfg(target_arch = "x86_64")]
            IsaKind::Avx512 => unsafe { run_avx512(kernel) },
        }
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// Error returned when a name cannot be parsed as an available instruction set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IsaError {
    /// No instruction set has this name.
    Unknown,
    /// This machine does not support the instruction set.
    Unavailable,
}

impl fmt::Display for IsaError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => write!(formatter, "the known instruction sets are {}", ALL_NAMES.join(", ")),
            Self::Unavailable => formatter.write_str("this CPU does not support these instructions"),
        }
    }
}

impl std::error::Error for IsaError {}

impl FromStr for Isa {
    type Err = IsaError;

    fn from_str(name: &str) -> Result<Self, IsaError> {
        let error = if ALL_NAMES.contains(&name) { IsaError::Unavailable } else { IsaError::Unknown };
        Self::available().find(|isa| isa.name() == name).ok_or(error)
    }
}

/// A computation, with its input and output, that can run with any type of [`Vector`].
pub(crate) trait SimdKernel {
    /// Runs the computation.
    ///
    /// Implementations are `#[inline(always)]`, so that they are compiled with the instructions of `V`.
    ///
    /// # Safety
    /// - The CPU supports the instructions of `V`.
    /// - Packed weights were packed for `V`.
    /// - Every slice has the length that the computation requires.
    unsafe fn run<V: Vector>(self);
}

/// Runs `kernel` compiled with NEON.
///
/// # Safety
/// The requirements of [`SimdKernel::run`] hold. The CPU supports NEON.
#[cfg(target_arch = "aarch64")]
#[target_feature(enable = "neon")]
unsafe fn run_neon<K: SimdKernel>(kernel: K) {
    // SAFETY: the caller guarantees that the CPU supports these instructions and that packed weights and
    // slices are valid for the kernel.
    unsafe { kernel.run::<F32x4>() }
}

/// Runs `kernel` compiled with AVX2 and FMA.
///
/// # Safety
/// The requirements of [`SimdKernel::run`] hold. The CPU supports AVX2 and FMA.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn run_avx2<K: SimdKernel>(kernel: K) {
    // SAFETY: the caller guarantees that the CPU supports these instructions and that packed weights and
    // slices are valid for the kernel.
    unsafe { kernel.run::<F32x8>() }
}

/// Runs `kernel` compiled with AVX-512F and AVX-512VL.
///
/// # Safety
/// The requirements of [`SimdKernel::run`] hold. The CPU supports AVX-512F and AVX-512VL.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vl")]
unsafe fn run_avx512<K: SimdKernel>(kernel: K) {
    // SAFETY: the caller guarantees that the CPU supports these instructions and that packed weights and
    // slices are valid for the kernel.
    unsafe { kernel.run::<F32x16>() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn detected_instruction_set_is_the_widest_available() {
        assert_eq!(Isa::available().last(), Some(Isa::detect()));
        assert_eq!(Isa::available().next(), Some(Isa::PORTABLE));
    }

    #[test]
    fn name_parses_to_its_instruction_set() {
        for isa in Isa::available() {
            assert_eq!(isa.name().parse(), Ok(isa));
        }
        assert_eq!("sse9".parse::<Isa>(), Err(IsaError::Unknown));
    }

    #[test]
    fn instruction_set_of_another_architecture_is_unavailable_rather_than_unknown() {
        let foreign = if cfg!(target_arch = "aarch64") { "avx2" } else { "neon" };
        assert_eq!(foreign.parse::<Isa>(), Err(IsaError::Unavailable));
        assert!(ALL_KINDS.iter().all(|kind| ALL_NAMES.contains(&kind.name())));
        assert_eq!(
            IsaError::Unknown.to_string(),
            "the known instruction sets are portable, neon, avx2, avx512"
        );
    }
}
