//! Implements vectors of sixteen lanes with AVX-512F and AVX-512VL.
//!
//! AVX-512VL gives the half vectors access to all 32 registers. Without it, they could use only 16.

use std::arch::x86_64::*;

use super::{F32x8, Vector};

/// Sixteen lanes in an AVX-512 register.
#[derive(Clone, Copy)]
pub(crate) struct F32x16(__m512);

/// Returns the mask of the first `lane_count` lanes. `lane_count` must be less than 16.
#[inline(always)]
fn mask_of_first(lane_count: usize) -> __mmask16 {
    !(__mmask16::MAX << lane_count)
}

impl Vector for F32x16 {
    // Some CPUs, such as Zen 4, execute a 512-bit instruction in two halves. On these CPUs, a
    // 256-bit instruction takes half the time.
    type Half = F32x8;

    const LANES: usize = 16;
    const REGISTERS: usize = 32;
    const MAX_PANEL_VECTORS: usize = 4;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        // SAFETY: the caller guarantees that the CPU supports AVX-512F.
        Self(unsafe { _mm512_set1_ps(value) })
    }

    #[inline(always)]
    unsafe fn half(self) -> F32x8 {
        // SAFETY: the caller guarantees that the CPU supports AVX-512F.
        F32x8(unsafe { _mm512_castps512_ps256(self.0) })
    }

    #[inline(always)]
    unsafe fn load(source: *const f32) -> Self {
        // SAFETY: the caller guarantees that the CPU supports AVX-512F and that sixteen lanes are readable.
        Self(unsafe { _mm512_loadu_ps(source) })
    }

    #[inline(always)]
    unsafe fn load_first(source: *const f32, lane_count: usize) -> Self {
        // SAFETY: the caller guarantees that the CPU supports AVX-512F and that `lane_count` lanes are
        // readable. Lanes outside the mask are not read.
        Self(unsafe { _mm512_maskz_loadu_ps(mask_of_first(lane_count), source) })
    }

    #[inline(always)]
    unsafe fn store(self, target: *mut f32) {
        // SAFETY: the caller guarantees that the CPU supports AVX-512F and that sixteen lanes are writable.
        unsafe { _mm512_storeu_ps(target, self.0) }
    }

    #[inline(always)]
    unsafe fn store_first(self, target: *mut f32, lane_count: usize) {
        // SAFETY: the caller guarantees that the CPU supports AVX-512F and that `lane_count` lanes are
        // writable. Lanes outside the mask are not written.
        unsafe { _mm512_mask_storeu_ps(target, mask_of_first(lane_count), self.0) }
    }

    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, addend: Self) -> Self {
        // SAFETY: the caller guarantees that the CPU supports AVX-512F.
        Self(unsafe { _mm512_fmadd_ps(self.0, factor.0, addend.0) })
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: the caller guarantees that the CPU supports AVX-512F.
        Self(unsafe { _mm512_add_ps(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        // SAFETY: the caller guarantees that the CPU supports AVX-512F.
        Self(unsafe { _mm512_mul_ps(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        // SAFETY: the caller guarantees that the CPU supports AVX-512F.
        Self(unsafe { _mm512_max_ps(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        // SAFETY: the caller guarantees that the CPU supports AVX-512F.
        Self(unsafe { _mm512_min_ps(self.0, other.0) })
    }
}
