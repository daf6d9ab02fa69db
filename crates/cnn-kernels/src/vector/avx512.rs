//! Sixteen lanes: AVX-512F, and AVX-512VL for half of them.

use std::arch::x86_64::*;

use super::{F32x8, Vector};

/// Sixteen lanes: AVX-512F.
#[derive(Clone, Copy)]
pub(crate) struct F32x16(__m512);

/// The mask of the first `lanes` lanes.
#[inline(always)]
fn first(lanes: usize) -> __mmask16 {
    !(__mmask16::MAX << lanes)
}

impl Vector for F32x16 {
    // A CPU that splits such a register in two, as Zen 4 does, takes half the time for it.
    type Half = F32x8;

    const LANES: usize = 16;
    const REGISTERS: usize = 32;
    const PANEL: usize = 4;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        // SAFETY: the caller's CPU has AVX-512F.
        Self(unsafe { _mm512_set1_ps(value) })
    }

    #[inline(always)]
    unsafe fn half(self) -> F32x8 {
        // SAFETY: the caller's CPU has AVX-512F.
        F32x8(unsafe { _mm512_castps512_ps256(self.0) })
    }

    #[inline(always)]
    unsafe fn load(source: *const f32) -> Self {
        // SAFETY: the caller's CPU has AVX-512F, and sixteen lanes are readable.
        Self(unsafe { _mm512_loadu_ps(source) })
    }

    #[inline(always)]
    unsafe fn load_first(source: *const f32, lanes: usize) -> Self {
        // SAFETY: the caller's CPU has AVX-512F; lanes outside the mask are not read.
        Self(unsafe { _mm512_maskz_loadu_ps(first(lanes), source) })
    }

    #[inline(always)]
    unsafe fn store(self, target: *mut f32) {
        // SAFETY: the caller's CPU has AVX-512F, and sixteen lanes are writable.
        unsafe { _mm512_storeu_ps(target, self.0) }
    }

    #[inline(always)]
    unsafe fn store_first(self, target: *mut f32, lanes: usize) {
        // SAFETY: the caller's CPU has AVX-512F; lanes outside the mask are not written.
        unsafe { _mm512_mask_storeu_ps(target, first(lanes), self.0) }
    }

    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, addend: Self) -> Self {
        // SAFETY: the caller's CPU has AVX-512F.
        Self(unsafe { _mm512_fmadd_ps(self.0, factor.0, addend.0) })
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: the caller's CPU has AVX-512F.
        Self(unsafe { _mm512_add_ps(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        // SAFETY: the caller's CPU has AVX-512F.
        Self(unsafe { _mm512_mul_ps(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        // SAFETY: the caller's CPU has AVX-512F.
        Self(unsafe { _mm512_max_ps(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        // SAFETY: the caller's CPU has AVX-512F.
        Self(unsafe { _mm512_min_ps(self.0, other.0) })
    }
}
