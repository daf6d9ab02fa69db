//! Implements vectors of eight lanes with AVX2 and FMA.

use std::arch::x86_64::*;

use super::Vector;

/// Eight lanes in an AVX register.
#[derive(Clone, Copy)]
pub(crate) struct F32x8(pub(super) __m256);

/// A table of masks. The eight elements from index `8 - lane_count` on are the mask of the first `lane_count`
/// lanes.
static MASKS: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];

/// Returns the mask of the first `lane_count` lanes.
///
/// # Safety
/// The CPU supports AVX2, and `lane_count` is at most 8.
#[inline(always)]
unsafe fn mask_of_first(lane_count: usize) -> __m256i {
    debug_assert!(lane_count <= 8);
    // SAFETY: the caller guarantees that the CPU supports AVX2 and that `lane_count` is at most 8, so the
    // eight elements from index `8 - lane_count` on are inside the 16 elements of the table.
    unsafe { _mm256_loadu_si256(MASKS.as_ptr().add(8 - lane_count).cast()) }
}

impl Vector for F32x8 {
    type Half = Self;

    const LANES: usize = 8;
    const REGISTERS: usize = 16;
    const MAX_PANEL_VECTORS: usize = 2;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        // SAFETY: the caller guarantees that the CPU supports AVX2 and FMA.
        Self(unsafe { _mm256_set1_ps(value) })
    }

    #[inline(always)]
    unsafe fn half(self) -> Self {
        self
    }

    #[inline(always)]
    unsafe fn load(source: *const f32) -> Self {
        // SAFETY: the caller guarantees that the CPU supports AVX2 and FMA and that eight lanes are readable.
        Self(unsafe { _mm256_loadu_ps(source) })
    }

    #[inline(always)]
    unsafe fn load_first(source: *const f32, lane_count: usize) -> Self {
        // SAFETY: the caller guarantees that the CPU supports AVX2 and FMA and that `lane_count` lanes are
        // readable. Lanes outside the mask are not read.
        Self(unsafe { _mm256_maskload_ps(source, mask_of_first(lane_count)) })
    }

    #[inline(always)]
    unsafe fn store(self, target: *mut f32) {
        // SAFETY: the caller guarantees that the CPU supports AVX2 and FMA and that eight lanes are writable.
        unsafe { _mm256_storeu_ps(target, self.0) }
    }

    #[inline(always)]
    unsafe fn store_first(self, target: *mut f32, lane_count: usize) {
        // SAFETY: the caller guarantees that the CPU supports AVX2 and FMA and that `lane_count` lanes are
        // writable. Lanes outside the mask are not written.
        unsafe { _mm256_maskstore_ps(target, mask_of_first(lane_count), self.0) }
    }

    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, addend: Self) -> Self {
        // SAFETY: the caller guarantees that the CPU supports AVX2 and FMA.
        Self(unsafe { _mm256_fmadd_ps(self.0, factor.0, addend.0) })
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: the caller guarantees that the CPU supports AVX2 and FMA.
        Self(unsafe { _mm256_add_ps(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        // SAFETY: the caller guarantees that the CPU supports AVX2 and FMA.
        Self(unsafe { _mm256_mul_ps(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        // SAFETY: the caller guarantees that the CPU supports AVX2 and FMA.
        Self(unsafe { _mm256_max_ps(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        // SAFETY: the caller guarantees that the CPU supports AVX2 and FMA.
        Self(unsafe { _mm256_min_ps(self.0, other.0) })
    }
}
