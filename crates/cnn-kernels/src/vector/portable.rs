//! Implements vectors of four lanes in plain Rust, for any CPU.

use std::array::from_fn;

use super::Vector;

/// Four lanes in an array, which the compiler can keep in a register of any SIMD instruction set.
///
/// `mul_add` rounds the product and the sum separately, because `f32::mul_add` calls a slow library function
/// on CPUs without fused multiply-add.
#[derive(Clone, Copy)]
#[repr(align(16))]
pub(crate) struct Portable([f32; 4]);

impl Vector for Portable {
    type Half = Self;

    const LANES: usize = 4;
    // SSE has eight registers on 32-bit x86, the fewest of the common instruction sets.
    const REGISTERS: usize = 8;
    const MAX_PANEL_VECTORS: usize = 2;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        Self([value; 4])
    }

    #[inline(always)]
    unsafe fn half(self) -> Self {
        self
    }

    #[inline(always)]
    unsafe fn load(source: *const f32) -> Self {
        // SAFETY: the caller guarantees that four elements are readable. An array of `f32` has the alignment
        // of an `f32`.
        Self(unsafe { source.cast::<[f32; 4]>().read() })
    }

    #[inline(always)]
    unsafe fn load_first(source: *const f32, lane_count: usize) -> Self {
        // SAFETY: the caller guarantees that `lane_count` elements are readable.
        let source = unsafe { std::slice::from_raw_parts(source, lane_count) };
        let mut all = [0.0; 4];
        for (lane, value) in all.iter_mut().zip(source) {
            *lane = *value;
        }
        Self(all)
    }

    #[inline(always)]
    unsafe fn store(self, target: *mut f32) {
        // SAFETY: the caller guarantees that four elements are writable. An array of `f32` has the alignment
        // of an `f32`.
        unsafe { target.cast::<[f32; 4]>().write(self.0) }
    }

    #[inline(always)]
    unsafe fn store_first(self, target: *mut f32, lane_count: usize) {
        for (lane, value) in self.0.iter().take(lane_count).enumerate() {
            // SAFETY: the caller guarantees that `lane_count` elements are writable, and `take` keeps `lane`
            // below `lane_count`.
            unsafe { target.add(lane).write(*value) }
        }
    }

    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, addend: Self) -> Self {
        Self(from_fn(|lane| self.0[lane] * factor.0[lane] + addend.0[lane]))
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        Self(from_fn(|lane| self.0[lane] + other.0[lane]))
    }

    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        Self(from_fn(|lane| self.0[lane] * other.0[lane]))
    }

    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        Self(from_fn(|lane| if self.0[lane] > other.0[lane] { self.0[lane] } else { other.0[lane] }))
    }

    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        Self(from_fn(|lane| if self.0[lane] < other.0[lane] { self.0[lane] } else { other.0[lane] }))
    }
}
