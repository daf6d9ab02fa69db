//! Four lanes in plain Rust, for any CPU.

use std::array::from_fn;

use super::Vector;

/// Four lanes in plain Rust: one register of every SIMD instruction set, where the compiler uses one.
///
/// Products and sums are rounded one by one: a fused multiply-add is a call into the C library
/// where the CPU has none.
#[derive(Clone, Copy)]
#[repr(align(16))]
pub(crate) struct Portable([f32; 4]);

impl Vector for Portable {
    type Half = Self;

    const LANES: usize = 4;
    const REGISTERS: usize = 8;
    const PANEL: usize = 2;

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
        // SAFETY: four elements are readable, and an array of `f32` is aligned as one `f32`.
        Self(unsafe { source.cast::<[f32; 4]>().read() })
    }

    #[inline(always)]
    unsafe fn load_first(source: *const f32, lanes: usize) -> Self {
        // SAFETY: `lanes` elements are readable.
        let source = unsafe { std::slice::from_raw_parts(source, lanes) };
        let mut all = [0.0; 4];
        for (lane, value) in all.iter_mut().zip(source) {
            *lane = *value;
        }
        Self(all)
    }

    #[inline(always)]
    unsafe fn store(self, target: *mut f32) {
        // SAFETY: four elements are writable, and an array of `f32` is aligned as one `f32`.
        unsafe { target.cast::<[f32; 4]>().write(self.0) }
    }

    #[inline(always)]
    unsafe fn store_first(self, target: *mut f32, lanes: usize) {
        for (lane, value) in self.0.iter().take(lanes).enumerate() {
            // SAFETY: `lanes` elements are writable.
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
