//! Defines the trait [`Vector`], over which the kernels are generic, and a type that implements it for each
//! instruction set.

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

/// A vector of `f32` lanes in a register.
///
/// Implementations are `#[inline(always)]`, and so are their callers up to the `#[target_feature]` function
/// in `crate::isa`. An intrinsic becomes a single instruction only if it is inlined into that function.
///
/// # Safety of the functions
/// - Every function requires that the CPU supports the instructions of the type.
/// - A function that loads lanes requires that these lanes are readable at the pointer. A function that
///   stores lanes requires that these lanes are writable at the pointer. The pointer only needs the alignment
///   of an `f32`.
pub(crate) trait Vector: Copy {
    /// A vector of half as many lanes, or `Self` if half vectors are not faster on this instruction set.
    type Half: Vector;

    /// Number of lanes.
    const LANES: usize;
    /// Number of vectors that kernels may keep in registers at the same time.
    const REGISTERS: usize;
    /// Maximum number of vectors per row of a panel of packed weights.
    const MAX_PANEL_VECTORS: usize;

    /// Creates a vector with `value` in every lane.
    unsafe fn splat(value: f32) -> Self;
    /// Returns the first half of the lanes, or all lanes if [`Self::Half`] is `Self`.
    unsafe fn half(self) -> Self::Half;
    /// Loads all lanes from `source`.
    unsafe fn load(source: *const f32) -> Self;
    /// Loads the first `lane_count` lanes from `source` and sets the other lanes to zero. `lane_count` must
    /// be less than [`Self::LANES`].
    unsafe fn load_first(source: *const f32, lane_count: usize) -> Self;
    /// Stores all lanes to `target`.
    unsafe fn store(self, target: *mut f32);
    /// Stores only the first `lane_count` lanes to `target`. `lane_count` must be less than [`Self::LANES`].
    unsafe fn store_first(self, target: *mut f32, lane_count: usize);
    /// Returns `self * factor + addend`.
    unsafe fn mul_add(self, factor: Self, addend: Self) -> Self;
    /// Returns `self + other`.
    unsafe fn add(self, other: Self) -> Self;
    /// Returns `self * other`.
    unsafe fn mul(self, other: Self) -> Self;
    /// Returns `if self > other { self } else { other }` per lane, which is `other` if either is NaN.
    unsafe fn max(self, other: Self) -> Self;
    /// Returns `if self < other { self } else { other }` per lane, which is `other` if either is NaN.
    unsafe fn min(self, other: Self) -> Self;
}

#[cfg(test)]
mod tests;
