//! Eight lanes: AVX2 and FMA.

use std::arch::x86_64::*;

use super::Vector;

/// Eight lanes: AVX2 and FMA.
#[derive(Clone, Copy)]
pub(crate) struct F32x8(pub(super) __m256);

/// A window of eight over this, `lanes` before its middle, is the mask of the first `lanes` lanes.
static MASKS: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];

/// The mask of the first `lanes` lanes.
///
/// # Safety
/// The CPU has AVX2, and `lanes` is at most 8.
#[inline(always)]
unsafe fn first(lanes: usize) -> __m256i {
    debug_assert!(lanes <= 8);
    // SAFETY: by the contract above, eight elements from `8 - lanes` on are inside the table.
    unsafe { _mm256_loadu_si256(MASKS.as_ptr().add(8 - lanes).cast()) }
}

impl Vector for F32x8 {
    type Half = Self;

    const LANES: usize = 8;
    const REGISTERS: usize = 16;
    const PANEL: usize = 2;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        // SAFETY: the caller's CPU has AVX2 and FMA.
        Self(unsafe { _mm256_set1_ps(value) })
    }

    #[inline(always)]
    unsafe fn half(self) -> Self {
        self
    }

    #[inline(always)]
    unsafe fn load(source: *const f32) -> Self {
        // SAFETY: the caller's CPU has AVX2 and FMA, and eight lanes are readable.
        Self(unsafe { _mm256_loadu_ps(source) })
    }

    #[inline(always)]
    unsafe fn load_first(source: *const f32, lanes: usize) -> Self {
        // SAFETY: the caller's CPU has AVX2 and FMA; lanes outside the mask are not read.
        Self(unsafe { _mm256_maskload_ps(source, first(lanes)) })
    }

    #[inline(always)]
    unsafe fn store(self, target: *mut f32) {
        // SAFETY: the caller's CPU has AVX2 and FMA, and eight lanes are writable.
        unsafe { _mm256_storeu_ps(target, self.0) }
    }

    #[inline(always)]
    unsafe fn store_first(self, target: *mut f32, lanes: usize) {
        // SAFETY: the caller's CPU has AVX2 and FMA; lanes outside the mask are not written.
        unsafe { _mm256_maskstore_ps(target, first(lanes), self.0) }
    }

    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, addend: Self) -> Self {
        // SAFETY: the caller's CPU has AVX2 and FMA.
        Self(unsafe { _mm256_fmadd_ps(self.0, factor.0, addend.0) })
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: the caller's CPU has AVX2 and FMA.
        Self(unsafe { _mm256_add_ps(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        // SAFETY: the caller's CPU has AVX2 and FMA.
        Self(unsafe { _mm256_mul_ps(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        // SAFETY: the caller's CPU has AVX2 and FMA.
        Self(unsafe { _mm256_max_ps(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        // SAFETY: the caller's CPU has AVX2 and FMA.
        Self(unsafe { _mm256_min_ps(self.0, other.0) })
    }
}
