//! Implements vectors of four lanes with NEON.

use std::arch::aarch64::*;

use super::Vector;

/// Four lanes in a NEON register.
#[derive(Clone, Copy)]
pub(crate) struct F32x4(float32x4_t);

impl Vector for F32x4 {
    type Half = Self;

    const LANES: usize = 4;
    const REGISTERS: usize = 32;
    const MAX_PANEL_VECTORS: usize = 4;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        // SAFETY: the caller guarantees that the CPU supports NEON.
        Self(unsafe { vdupq_n_f32(value) })
    }

    #[inline(always)]
    unsafe fn half(self) -> Self {
        self
    }

    #[inline(always)]
    unsafe fn load(source: *const f32) -> Self {
        // SAFETY: the caller guarantees that the CPU supports NEON and that four lanes are readable.
        Self(unsafe { vld1q_f32(source) })
    }

    // NEON has no masked loads and stores, so lanes are loaded and stored one by one or in pairs.
    #[inline(always)]
    unsafe fn load_first(source: *const f32, lane_count: usize) -> Self {
        debug_assert!(lane_count < Self::LANES);
        // SAFETY: the caller guarantees that the CPU supports NEON and that `lane_count` lanes are readable.
        // Every arm reads only these lanes.
        Self(unsafe {
            match lane_count {
                0 => vdupq_n_f32(0.0),
                1 => vld1q_lane_f32::<0>(source, vdupq_n_f32(0.0)),
                2 => vcombine_f32(vld1_f32(source), vdup_n_f32(0.0)),
                _ => vcombine_f32(vld1_f32(source), vld1_lane_f32::<0>(source.add(2), vdup_n_f32(0.0))),
            }
        })
    }

    #[inline(always)]
    unsafe fn store(self, target: *mut f32) {
        // SAFETY: the caller guarantees that the CPU supports NEON and that four lanes are writable.
        unsafe { vst1q_f32(target, self.0) }
    }

    #[inline(always)]
    unsafe fn store_first(self, target: *mut f32, lane_count: usize) {
        debug_assert!(lane_count < Self::LANES);
        // SAFETY: the caller guarantees that the CPU supports NEON and that `lane_count` lanes are writable.
        // Every arm writes only these lanes.
        unsafe {
            match lane_count {
                0 => {}
                1 => vst1q_lane_f32::<0>(target, self.0),
                2 => vst1_f32(target, vget_low_f32(self.0)),
                _ => {
                    vst1_f32(target, vget_low_f32(self.0));
                    vst1q_lane_f32::<2>(target.add(2), self.0);
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, addend: Self) -> Self {
        // SAFETY: the caller guarantees that the CPU supports NEON.
        Self(unsafe { vfmaq_f32(addend.0, self.0, factor.0) })
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: the caller guarantees that the CPU supports NEON.
        Self(unsafe { vaddq_f32(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        // SAFETY: the caller guarantees that the CPU supports NEON.
        Self(unsafe { vmulq_f32(self.0, other.0) })
    }

    // `vmaxq_f32` and `vminq_f32` would not do: they return NaN if either operand is NaN, but the trait
    // requires `other`.
    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        // SAFETY: the caller guarantees that the CPU supports NEON.
        Self(unsafe { vbslq_f32(vcgtq_f32(self.0, other.0), self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        // SAFETY: the caller guarantees that the CPU supports NEON.
        Self(unsafe { vbslq_f32(vcltq_f32(self.0, other.0), self.0, other.0) })
    }
}
