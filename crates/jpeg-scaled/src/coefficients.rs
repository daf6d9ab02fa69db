//! Stores the coefficients of a progressive file for one row of MCUs at a time.

use crate::{
    header::Component,
    idct::{BlockGroup, EMPTY_GROUP, LANES},
    plane::Plane,
    zigzag::ZIGZAG,
};

/// The coefficients of a component in the current row of MCUs. Every scan adds its part to them.
#[derive(Default)]
pub(crate) struct CoefficientRows {
    /// The groups, row by row.
    groups: Vec<BlockGroup>,
    /// For each block, row by row, a bit per coefficient in zigzag order. The bit is set if the coefficient is
    /// not zero. Only refinement scans need it.
    nonzero: Vec<u64>,
    /// Number of groups in a row.
    group_count: usize,
    /// The bit of each coefficient that the inverse DCT reads, in zigzag order.
    needed: u64,
}

/// A row of blocks.
pub(crate) struct BlockRow<'a> {
    pub(crate) groups: &'a mut [BlockGroup],
    /// See [`CoefficientRows::nonzero`].
    pub(crate) nonzero: &'a mut [u64],
    /// See [`CoefficientRows::needed`].
    pub(crate) needed: u64,
}

impl CoefficientRows {
    /// Returns the number of bytes that the rows take.
    pub(crate) fn allocated_bytes(&self) -> usize {
        self.groups.capacity() * size_of::<BlockGroup>() + self.nonzero.capacity() * size_of::<u64>()
    }

    /// Prepares the rows for the blocks of `component`, which are transformed to the samples of `plane`. All
    /// coefficients are zero afterwards. Keeps the memory of the previous picture.
    pub(crate) fn prepare(&mut self, component: &Component, plane: &Plane) {
        self.group_count = plane.group_count();
        self.needed = needed_coefficients(plane.block_side());
        // Decoding of the previous picture may have failed and left coefficients behind.
        self.groups.clear();
        self.groups.resize(component.blocks_down * self.group_count, EMPTY_GROUP);
        self.nonzero.clear();
        self.nonzero.resize(component.blocks_down * self.group_count * LANES, 0);
    }

    /// Returns row `block_row` of the row of MCUs.
    #[inline(always)]
    pub(crate) fn row(&mut self, block_row: usize) -> BlockRow<'_> {
        let blocks_per_row = self.group_count * LANES;
        BlockRow {
            groups: &mut self.groups[block_row * self.group_count..][..self.group_count],
            nonzero: &mut self.nonzero[block_row * blocks_per_row..][..blocks_per_row],
            needed: self.needed,
        }
    }

    /// Transforms all coefficients to samples of `plane`. All coefficients are zero afterwards.
    #[inline(always)]
    pub(crate) fn transform(&mut self, plane: &mut Plane) {
        for (block_row, groups) in self.groups.chunks_exact_mut(self.group_count).enumerate() {
            plane.transform_row(groups, block_row);
        }
        self.nonzero.fill(0);
    }

    /// Returns the address and the capacity of a buffer that is kept for the next picture.
    #[cfg(test)]
    pub(crate) fn buffer_location(&self) -> (*const u8, usize) {
        (self.nonzero.as_ptr().cast(), self.nonzero.capacity())
    }
}

/// Returns the bit of each coefficient that the inverse DCT to `block_side` × `block_side` samples reads.
fn needed_coefficients(block_side: usize) -> u64 {
    let is_needed = |frequency: u8| match block_side {
        1 => frequency == 0,
        2 => frequency == 0 || !frequency.is_multiple_of(2),
        4 => frequency != 4,
        _ => true,
    };
    let bits = (0..).zip(ZIGZAG).map(|(position, index): (u32, u8)| {
        u64::from(is_needed(index / 8) && is_needed(index % 8)) << position
    });
    bits.sum()
}
