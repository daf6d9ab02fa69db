//! Stores the decoded samples of a component, and upsamples them to rows of the picture.

use crate::{
    Error, Scale,
    header::{Component, JpegHeader, QuantizationSteps},
    idct::{self, BlockGroup, EMPTY_GROUP, LANES},
};

/// Maximum absolute value of a DC coefficient. Samples of 8 bits have DC coefficients from -1024 to 1016. Some
/// encoders exceed this range by up to a quarter, to sharpen the edges of white areas.
const MAX_DC: u32 = 1536;

/// Layout of the MCUs of a picture, shared by all components.
#[derive(Clone, Copy, Debug)]
pub(crate) struct McuGrid {
    /// Maximum number of blocks per MCU in the horizontal direction, over all components.
    max_blocks_across: usize,
    /// Maximum number of blocks per MCU in the vertical direction, over all components.
    max_blocks_down: usize,
    /// Side in samples of a decoded block of a component that is not subsampled.
    block_side: usize,
    /// Width of the file's picture in pixels.
    width: usize,
    /// Height of the file's picture in pixels.
    height: usize,
    /// Number of MCUs in a row.
    pub(crate) column_count: usize,
    /// Number of rows of MCUs.
    pub(crate) row_count: usize,
}

impl McuGrid {
    pub(crate) fn new(header: &JpegHeader, components: &[Component], scale: Scale) -> Self {
        let max = |factor: fn(&Component) -> usize| components.iter().map(factor).max().unwrap_or(1);
        let (max_blocks_across, max_blocks_down) =
            (max(|component| component.blocks_across), max(|component| component.blocks_down));
        let (width, height) = (header.width as usize, header.height as usize);
        Self {
            max_blocks_across,
            max_blocks_down,
            block_side: scale.block_side(),
            width,
            height,
            column_count: width.div_ceil(8 * max_blocks_across),
            row_count: height.div_ceil(8 * max_blocks_down),
        }
    }

    /// Returns the number of blocks that cover `component`, horizontally and vertically.
    ///
    /// A scan with only this component has exactly these blocks. A scan with several components pads each of
    /// them to whole MCUs.
    pub(crate) fn block_counts(&self, component: &Component) -> (usize, usize) {
        (
            (self.width * component.blocks_across).div_ceil(8 * self.max_blocks_across),
            (self.height * component.blocks_down).div_ceil(8 * self.max_blocks_down),
        )
    }

    /// Returns the number of rows of the decoded picture per row of MCUs.
    pub(crate) fn picture_rows_per_mcu_row(&self) -> usize {
        self.max_blocks_down * self.block_side
    }
}

/// A method of increasing the number of samples along one side to the number of pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Upsampling {
    /// Replaces each sample by this many copies. `Repeat(1)` leaves the samples as they are.
    Repeat(usize),
    /// Doubles the number of samples. Each new sample is ¾ of the nearest sample and ¼ of the next nearest:
    /// libjpeg's "fancy upsampling".
    Triangle,
}

/// The samples of a component, for one row of MCUs at a time.
pub(crate) struct Plane {
    /// Side of a decoded block in samples.
    block_side: usize,
    /// Width of the whole component in samples.
    width: usize,
    /// Height of the whole component in samples.
    height: usize,
    /// Number of rows of samples per row of MCUs.
    rows_per_mcu_row: usize,
    /// Number of samples from the start of one row of `samples` to the start of the next.
    stride: usize,
    /// Method that increases the number of samples in a row.
    horizontal: Upsampling,
    /// Method that increases the number of rows.
    vertical: Upsampling,
    steps: QuantizationSteps,
    /// Maximum absolute value of a DC coefficient divided by its quantiser step.
    max_dc: u32,
    /// One group per row of blocks in an MCU. A group holds the coefficients that are decoded but not
    /// transformed yet, and zeros elsewhere.
    groups: [BlockGroup; 4],
    /// Row of the component's blocks in `samples` where the MCUs that are decoded begin. Always 0 in a scan
    /// with several components.
    first_block_row: usize,
    /// The last row of samples of the previous row of MCUs, followed by the rows of samples of the current
    /// row of MCUs.
    samples: Vec<u8>,
    /// An upsampled row, as wide as the picture.
    upsampled_row: Vec<u8>,
    /// Weighted sums of two rows of samples. The weights are 3 and 1, so a sum is four times an interpolated
    /// sample. If both width and height are doubled, libjpeg does not round these sums. It rounds only once,
    /// after the width is doubled.
    vertical_sums: Vec<u16>,
}

impl Plane {
    pub(crate) const EMPTY: Self = Self {
        block_side: 0,
        width: 0,
        height: 0,
        rows_per_mcu_row: 0,
        stride: 0,
        horizontal: Upsampling::Repeat(1),
        vertical: Upsampling::Repeat(1),
        steps: [0; 64],
        max_dc: 0,
        groups: [EMPTY_GROUP; 4],
        first_block_row: 0,
        samples: Vec::new(),
        upsampled_row: Vec::new(),
        vertical_sums: Vec::new(),
    };

    /// Returns the number of bytes that the rows take.
    pub(crate) fn allocated_bytes(&self) -> usize {
        self.samples.capacity()
            + self.upsampled_row.capacity()
            + self.vertical_sums.capacity() * size_of::<u16>()
    }

    /// Prepares the plane for the samples of `component`. Keeps the memory of the previous picture, but not its
    /// samples.
    pub(crate) fn prepare(
        &mut self,
        component: &Component,
        steps: &QuantizationSteps,
        grid: &McuGrid,
    ) -> Result<(), Error> {
        let (mcu_width, mcu_height) =
            (grid.max_blocks_across * grid.block_side, grid.max_blocks_down * grid.block_side);
        // As in libjpeg, the blocks of a subsampled component are decoded to more samples where possible, so
        // that the component is not upsampled afterwards.
        let mut block_side = grid.block_side;
        while block_side < 8
            && mcu_width.is_multiple_of(2 * block_side * component.blocks_across)
            && mcu_height.is_multiple_of(2 * block_side * component.blocks_down)
        {
            block_side *= 2;
        }
        // Size of an MCU in samples of this component. `mcu_width` and `mcu_height` are the
        // size in pixels.
        let (sample_columns, sample_rows) =
            (block_side * component.blocks_across, block_side * component.blocks_down);
        if !mcu_width.is_multiple_of(sample_columns) || !mcu_height.is_multiple_of(sample_rows) {
            return Err(Error::Unsupported("a sampling ratio that is not a whole number"));
        }
        self.block_side = block_side;
        self.width = (grid.width * sample_columns).div_ceil(8 * grid.max_blocks_across);
        self.height = (grid.height * sample_rows).div_ceil(8 * grid.max_blocks_down);
        self.rows_per_mcu_row = sample_rows;
        self.stride = (grid.column_count * component.blocks_across).next_multiple_of(LANES) * block_side;
        // As in libjpeg, samples are repeated at 1/8 of the size. They are also repeated if a row that must
        // be doubled has only one or two samples.
        (self.horizontal, self.vertical) = match (mcu_width / sample_columns, mcu_height / sample_rows) {
            (2, 2) if grid.block_side > 1 && self.width > 2 => (Upsampling::Triangle, Upsampling::Triangle),
            (2, 1) if grid.block_side > 1 && self.width > 2 => (Upsampling::Triangle, Upsampling::Repeat(1)),
            (1, 2) if grid.block_side > 1 => (Upsampling::Repeat(1), Upsampling::Triangle),
            (times_across, times_down) => (Upsampling::Repeat(times_across), Upsampling::Repeat(times_down)),
        };
        self.steps = *steps;
        let dc_step = u32::from(steps[0].unsigned_abs().max(1));
        // The encoder rounded to the nearest multiple of the step.
        self.max_dc = (MAX_DC + dc_step / 2) / dc_step;
        // Decoding of the previous picture may have failed and left coefficients behind.
        self.groups = Self::EMPTY.groups;
        self.first_block_row = 0;
        self.samples.resize((1 + self.rows_per_mcu_row) * self.stride, 0);
        self.upsampled_row.resize(grid.column_count * mcu_width, 0);
        self.vertical_sums.resize(self.width, 0);
        Ok(())
    }

    /// Returns the number of groups that cover a row of the component's blocks.
    pub(crate) fn group_count(&self) -> usize {
        self.stride / (LANES * self.block_side)
    }

    /// Returns the byte buffers that are kept for the next picture.
    #[cfg(test)]
    pub(crate) fn buffers(&self) -> [&Vec<u8>; 2] {
        [&self.samples, &self.upsampled_row]
    }

    /// Sets the row of blocks, within the row of MCUs, where the MCUs that are decoded next begin.
    pub(crate) fn begin_at_block_row(&mut self, block_row: usize) {
        self.first_block_row = block_row;
    }

    /// Returns an error if `dc`, a DC coefficient divided by its quantiser step, is far out of range.
    ///
    /// After damage, the decoder reads wrong differences of DC coefficients, which add up. The blocks after the
    /// damage would become black or white.
    #[inline(always)]
    pub(crate) fn check_dc(&self, dc: i32) -> Result<(), Error> {
        if dc.unsigned_abs() > self.max_dc {
            return Err(Error::Corrupt("a DC coefficient is out of range"));
        }
        Ok(())
    }

    /// Returns the side of a decoded block in samples: 1, 2, 4 or 8.
    pub(crate) fn block_side(&self) -> usize {
        self.block_side
    }

    /// Returns true if each block is decoded to a single sample, which needs only the DC coefficient.
    pub(crate) fn needs_only_dc(&self) -> bool {
        self.block_side == 1
    }

    /// Returns the group for the coefficients of the blocks in row `block_row` of the MCU.
    #[inline(always)]
    pub(crate) fn group(&mut self, block_row: usize) -> &mut BlockGroup {
        // There are at most four rows. The mask lets the compiler omit the bounds check.
        &mut self.groups[block_row & 3]
    }

    /// Transforms the group of row `block_row` to samples. The first block of the group is in column
    /// `block_column` of the component's blocks.
    #[inline(always)]
    pub(crate) fn transform(&mut self, block_column: usize, block_row: usize) {
        let Self { block_side, stride, first_block_row, .. } = *self;
        let start = (1 + (first_block_row + block_row) * block_side) * stride + block_column * block_side;
        let output = &mut self.samples[start..];
        idct::transform(&mut self.groups[block_row], &self.steps, block_side, output, stride);
    }

    /// Transforms `groups` to the samples of row `block_row` of the component's blocks in the row of MCUs.
    #[inline(always)]
    pub(crate) fn transform_row(&mut self, groups: &mut [BlockGroup], block_row: usize) {
        let row_start = (1 + block_row * self.block_side) * self.stride;
        for (index, group) in groups.iter_mut().enumerate() {
            let output = &mut self.samples[row_start + index * LANES * self.block_side..];
            idct::transform(group, &self.steps, self.block_side, output, self.stride);
        }
    }

    /// Moves the last row of samples to the start, where interpolation expects it when the next row of MCUs
    /// is decoded.
    pub(crate) fn advance(&mut self) {
        let last_row_start = self.rows_per_mcu_row * self.stride;
        self.samples.copy_within(last_row_start.., 0);
    }

    /// Returns row `row` of the picture, upsampled. `mcu_row` is the row of MCUs whose samples the plane
    /// holds.
    ///
    /// The last picture row in a row of MCUs needs samples of the next row of MCUs, so it must be requested
    /// when the plane holds the next row of MCUs. The last row of the whole picture is an exception.
    #[inline(always)]
    pub(crate) fn picture_row(&mut self, row: usize, mcu_row: usize) -> &[u8] {
        let nearest = match self.vertical {
            Upsampling::Repeat(times) => row / times,
            Upsampling::Triangle => row / 2,
        };
        // `samples` begins one row before the row of MCUs.
        let offset = |sample_row: usize| (sample_row + 1 - mcu_row * self.rows_per_mcu_row) * self.stride;
        let mut samples = &self.samples[offset(nearest)..][..self.stride];
        if self.vertical == Upsampling::Triangle {
            let (next_nearest, bias) = if row.is_multiple_of(2) {
                (nearest.saturating_sub(1), 1)
            } else {
                ((nearest + 1).min(self.height - 1), 2)
            };
            let next_samples = &self.samples[offset(next_nearest)..][..self.stride];
            if self.horizontal == Upsampling::Triangle {
                for ((sum, &near), &far) in self.vertical_sums.iter_mut().zip(samples).zip(next_samples) {
                    *sum = 3 * u16::from(near) + u16::from(far);
                }
                upsample_sums(&self.vertical_sums, &mut self.upsampled_row);
                return &self.upsampled_row;
            }
            for ((to, &near), &far) in self.upsampled_row.iter_mut().zip(samples).zip(next_samples) {
                *to = interpolate(near, far, bias);
            }
            return &self.upsampled_row;
        }
        match self.horizontal {
            Upsampling::Repeat(1) => {}
            Upsampling::Repeat(times) => {
                for (to, &sample) in self.upsampled_row.chunks_exact_mut(times).zip(samples) {
                    to.fill(sample);
                }
                samples = &self.upsampled_row;
            }
            Upsampling::Triangle => {
                upsample_samples(&samples[..self.width], &mut self.upsampled_row);
                samples = &self.upsampled_row;
            }
        }
        samples
    }
}

/// Returns ¾ of `near` plus ¼ of `far`.
///
/// libjpeg rounds halves down for the new sample before `near` (`bias` is 1) and up for the new sample after
/// `near` (`bias` is 2).
#[inline(always)]
fn interpolate(near: u8, far: u8, bias: u16) -> u8 {
    // The sum fits in the low byte.
    let [sum, _] = ((3 * u16::from(near) + u16::from(far) + bias) >> 2).to_le_bytes();
    sum
}

/// Doubles the number of samples in a row.
#[inline(always)]
fn upsample_samples(samples: &[u8], row: &mut [u8]) {
    let new_sample = |near: u8, far: u8, bias: u16| u16::from(interpolate(near, far, bias));
    double_samples(samples, row, |before, sample, after| {
        [new_sample(sample, before, 1), new_sample(sample, after, 2)]
    });
}

/// Doubles the number of samples in a row. `sums` holds the samples multiplied by four.
///
/// Each new sample combines four samples with the weights 9/16, 3/16, 3/16 and 1/16. libjpeg rounds halves up
/// for the new sample before the nearest sum (`bias` is 8) and down for the new sample after it (`bias` is
/// 7).
#[inline(always)]
fn upsample_sums(sums: &[u16], row: &mut [u8]) {
    let new_sample = |near: u16, far: u16, bias: u16| (3 * near + far + bias) >> 4;
    double_samples(sums, row, |before, sum, after| [new_sample(sum, before, 8), new_sample(sum, after, 7)]);
}

/// Computes two samples from each element of `values` and its two neighbours. `values` must have at least two
/// elements.
///
/// The first value also serves as the value before it, and the last value as the value after it. The results
/// of `two_samples` must be less than 256.
#[inline(always)]
fn double_samples<T: Copy>(values: &[T], row: &mut [u8], two_samples: impl Fn(T, T, T) -> [u16; 2]) {
    // Writing both samples as one number lets the compiler vectorise the loop.
    let pair = |before, value, after| {
        let [left, right] = two_samples(before, value, after);
        (left | right << 8).to_le_bytes()
    };
    let (&[first, second, ..], &[.., next_to_last, last]) = (values, values) else { return };
    let [first_pair, pairs @ .., last_pair] = &mut row.as_chunks_mut().0[..values.len()] else { return };
    *first_pair = pair(first, first, second);
    let inner = values.iter().zip(&values[1..]).zip(&values[2..]);
    for (to, ((&before, &value), &after)) in pairs.iter_mut().zip(inner) {
        *to = pair(before, value, after);
    }
    *last_pair = pair(next_to_last, last, last);
}
