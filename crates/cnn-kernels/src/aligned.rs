//! Allocates memory that is aligned to cache lines.

use std::ops::{Deref, DerefMut};

const FLOATS_PER_CACHE_LINE: usize = 16;

/// The contents of a cache line.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct CacheLine([f32; FLOATS_PER_CACHE_LINE]);

/// A buffer of a fixed number of `f32`, aligned to a cache line.
///
/// The operators accept any slice. They are faster with aligned feature maps and scratch memory, because then
/// no vector extends over two cache lines.
#[derive(Clone)]
pub struct AlignedBuffer {
    lines: Vec<CacheLine>,
    len: usize,
}

impl AlignedBuffer {
    /// Allocates a buffer of `len` zeros.
    #[must_use]
    pub fn zeroed(len: usize) -> Self {
        Self {
            lines: vec![CacheLine([0.0; FLOATS_PER_CACHE_LINE]); len.div_ceil(FLOATS_PER_CACHE_LINE)],
            len,
        }
    }
}

impl Deref for AlignedBuffer {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        // SAFETY: `lines` is contiguous and initialised, a `CacheLine` has exactly the layout of its 16
        // floats (`repr(C)`, no padding), and `zeroed` allocated enough lines for `len` floats.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.len) }
    }
}

impl DerefMut for AlignedBuffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        // SAFETY: the conditions are the same as in `deref`. The slice is unique because `self` is borrowed
        // mutably.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.len) }
    }
}

impl std::fmt::Debug for AlignedBuffer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("AlignedBuffer").field("len", &self.len).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffer_is_aligned_to_a_cache_line_and_has_the_requested_length() {
        for len in [0, 1, 15, 16, 17, 1000] {
            let mut buffer = AlignedBuffer::zeroed(len);
            assert_eq!(buffer.len(), len);
            assert_eq!(buffer.as_ptr().addr() % 64, 0);
            buffer.fill(1.0);
            assert!(buffer.iter().all(|value| *value == 1.0));
        }
    }
}
