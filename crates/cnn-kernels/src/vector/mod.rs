//! A register of `f32` lanes: what a kernel is written over, once for every instruction set.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;

#[cfg(target_arch = "x86_64")]
pub(crate) use avx2::F32x8;
#[cfg(target_arch = "x86_64")]
pub(crate) use avx512::F32x16;
#[cfg(target_arch = "aarch64")]
pub(crate) use neon::F32x4;
pub(crate) use portable::Portable;

/// A register of `f32` lanes.
///
/// Everything here is `#[inline(always)]`, and so is everything between it and the function with
/// `#[target_feature]` in [`crate::isa`]: only there do the intrinsics become single instructions.
///
/// # Safety of the functions
/// Each may be called only where the CPU has the instructions of the type; those with a pointer also
/// want the lanes that they touch to be readable (or writable) there. No alignment is asked for.
pub(crate) trait Vector: Copy {
    /// A register of half as many lanes, for columns that fill no more than that; the type itself where
    /// nothing is gained by one.
    type Half: Vector;

    /// Lanes in a register.
    const LANES: usize;
    /// Vectors that the kernels may hold in registers at once.
    const REGISTERS: usize;
    /// Vectors in the widest panel of packed weights.
    const PANEL: usize;

    /// The same value in every lane.
    unsafe fn splat(value: f32) -> Self;
    /// The first lanes, as many as [`Self::Half`] has.
    unsafe fn half(self) -> Self::Half;
    /// All lanes from `source`.
    unsafe fn load(source: *const f32) -> Self;
    /// The first `lanes` lanes from `source`, the others zero; `lanes` is below [`Self::LANES`].
    unsafe fn load_first(source: *const f32, lanes: usize) -> Self;
    /// All lanes to `target`.
    unsafe fn store(self, target: *mut f32);
    /// The first `lanes` lanes to `target`, nothing else; `lanes` is below [`Self::LANES`].
    unsafe fn store_first(self, target: *mut f32, lanes: usize);
    /// `self * factor + addend`.
    unsafe fn mul_add(self, factor: Self, addend: Self) -> Self;
    /// `self + other`.
    unsafe fn add(self, other: Self) -> Self;
    /// `self * other`.
    unsafe fn mul(self, other: Self) -> Self;
    /// `self > other ? self : other`, lane by lane: `other` where either is NaN.
    unsafe fn max(self, other: Self) -> Self;
    /// `self < other ? self : other`, lane by lane: `other` where either is NaN.
    unsafe fn min(self, other: Self) -> Self;
}

#[cfg(test)]
mod tests;
