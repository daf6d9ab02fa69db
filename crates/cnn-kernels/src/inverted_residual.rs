//! Computes inverted residual blocks in tiles that stay in the cache.

use std::ops::Range;

use crate::{
    conv1x1::PackedConv1x1,
    depthwise::Depthwise,
    shape::{ShapeError, Window, check_length, check_rows, checked_volume},
};

/// Default maximum size in bytes of a tile's scratch memory. It is half of a second-level cache of 1 MiB. The
/// other half is for the weights.
const DEFAULT_MAX_TILE_BYTES: usize = 512 << 10;

/// The inverted residual block of MobileNetV2: 1×1 expansion, depthwise convolution, 1×1 projection, and an
/// optional addition of the input.
///
/// The result of the expansion is several times larger than the input and the output. It is therefore
/// computed in tiles of a few rows that stay in the cache. Each tile overwrites the previous one, except for
/// the rows that both need. The result is bit-identical to running the three operators one after another.
#[derive(Clone, Debug)]
pub struct InvertedResidual {
    expand: Option<PackedConv1x1>,
    depthwise: Depthwise,
    project: PackedConv1x1,
    add_input: bool,
    /// Number of output rows per tile.
    rows_per_tile: usize,
    /// Number of expanded rows that the ring buffer holds.
    ring_row_count: usize,
}

impl InvertedResidual {
    /// Combines the operators into a block.
    ///
    /// If `expand` is `None`, the depthwise convolution reads the input of the block. If `add_input` is true,
    /// the input is added to the result of `project` before the clamp of `project`.
    ///
    /// # Errors
    /// Returns an error if the number of channels differs between the output of an operator and the input of
    /// the next one, or if `add_input` is true and the input's shape differs from the output's.
    pub fn new(
        expand: Option<PackedConv1x1>,
        depthwise: Depthwise,
        project: PackedConv1x1,
        add_input: bool,
    ) -> Result<Self, ShapeError> {
        if expand.as_ref().is_some_and(|expand| expand.output_channels() != depthwise.channels()) {
            return Err(ShapeError::Mismatch(
                "the output channels of expand differ from the channels of depthwise",
            ));
        }
        if project.input_channels() != depthwise.channels() {
            return Err(ShapeError::Mismatch(
                "the input channels of project differ from the channels of depthwise",
            ));
        }
        let window = depthwise.window();
        let block = Self { expand, depthwise, project, add_input, rows_per_tile: 1, ring_row_count: 0 };
        if add_input
            && (window.input() != window.output() || block.input_channels() != block.output_channels())
        {
            return Err(ShapeError::Mismatch(
                "the input cannot be added because its shape differs from the output's shape",
            ));
        }
        checked_volume(&[window.input().pixel_count(), block.input_channels()])?;
        checked_volume(&[window.output().pixel_count(), block.output_channels()])?;
        Ok(block.with_max_tile_bytes(DEFAULT_MAX_TILE_BYTES))
    }

    /// Sets the maximum size in bytes of a tile's scratch memory, which is 512 KiB by default.
    ///
    /// A tile has at least one row, even if that row needs more memory.
    #[must_use]
    pub fn with_max_tile_bytes(mut self, max_bytes: usize) -> Self {
        let window = self.window();
        let mut tile_count = 1;
        loop {
            // Divides the rows evenly, so that the last tile is not much smaller than the others.
            self.rows_per_tile = window.output().height.div_ceil(tile_count);
            let ring_row_count = (self.rows_per_tile - 1) * window.stride() + window.kernel();
            self.ring_row_count = ring_row_count.min(window.input().height);
            if self.scratch_len() * size_of::<f32>() <= max_bytes || self.rows_per_tile == 1 {
                return self;
            }
            tile_count += 1;
        }
    }

    /// Returns the kernel size, stride, padding and image sizes of the depthwise convolution.
    #[must_use]
    pub fn window(&self) -> Window {
        self.depthwise.window()
    }

    /// Returns the number of input channels.
    #[must_use]
    pub fn input_channels(&self) -> usize {
        self.expand.as_ref().map_or(self.depthwise.channels(), PackedConv1x1::input_channels)
    }

    /// Returns the number of output channels.
    #[must_use]
    pub fn output_channels(&self) -> usize {
        self.project.output_channels()
    }

    /// Returns the number of elements of scratch memory that [`Self::run`] needs.
    #[must_use]
    pub fn scratch_len(&self) -> usize {
        self.ring_len() + self.rows_per_tile * self.window().output().width * self.depthwise.channels()
    }

    /// Returns the number of elements of the ring buffer, which is 0 if the block has no expansion.
    fn ring_len(&self) -> usize {
        let row_count = if self.expand.is_some() { self.ring_row_count } else { 0 };
        row_count * self.window().input().width * self.depthwise.channels()
    }

    /// Computes the output rows `rows` of the image `input` and writes them to `output`.
    ///
    /// `input` holds the whole image, and `output` only the rows in `rows`. The contents of `scratch` are
    /// overwritten.
    ///
    /// # Errors
    /// Returns an error, and writes nothing, if the length of `input` or `output` is wrong, if `rows` is not
    /// a range of the output's rows, or if `scratch` is shorter than [`Self::scratch_len`].
    pub fn run(
        &self,
        input: &[f32],
        rows: Range<usize>,
        scratch: &mut [f32],
        output: &mut [f32],
    ) -> Result<(), ShapeError> {
        let window = self.window();
        check_length("input", window.input().pixel_count() * self.input_channels(), input.len())?;
        check_rows(&rows, window.output().height)?;
        let output_row_len = window.output().width * self.output_channels();
        check_length("output", rows.len() * output_row_len, output.len())?;
        let actual = scratch.len();
        let scratch = scratch.get_mut(..self.scratch_len());
        let scratch = scratch.ok_or(ShapeError::Length {
            slice_name: "scratch",
            expected: self.scratch_len(),
            actual,
        })?;
        let (ring, filtered) = scratch.split_at_mut(self.ring_len());

        let filtered_row_len = window.output().width * self.depthwise.channels();
        // Index of the row after the last expanded input row. The ring buffer contains the last expanded
        // rows.
        let mut expanded_end = 0;
        for (index, output_tile) in output.chunks_mut(self.rows_per_tile * output_row_len).enumerate() {
            let start = rows.start + index * self.rows_per_tile;
            let tile = start..rows.end.min(start + self.rows_per_tile);
            let filtered = &mut filtered[..tile.len() * filtered_row_len];
            match &self.expand {
                Some(expand) => {
                    let needed_rows = window.input_rows(&tile);
                    let new_rows = expanded_end.max(needed_rows.start)..needed_rows.end;
                    self.expand_rows(expand, input, new_rows, ring)?;
                    expanded_end = needed_rows.end;
                    self.depthwise.run_on_ring(ring, self.ring_row_count, tile.clone(), filtered)?;
                }
                None => self.depthwise.run(input, tile.clone(), filtered)?,
            }
            let residual =
                self.add_input.then(|| &input[tile.start * output_row_len..tile.end * output_row_len]);
            self.project.run(filtered, residual, output_tile)?;
        }
        Ok(())
    }

    /// Expands the input rows `rows` and writes them to the ring buffer.
    fn expand_rows(
        &self,
        expand: &PackedConv1x1,
        input: &[f32],
        mut rows: Range<usize>,
        ring: &mut [f32],
    ) -> Result<(), ShapeError> {
        let width = self.window().input().width;
        let (input_row_len, ring_row_len) =
            (width * expand.input_channels(), width * expand.output_channels());
        while !rows.is_empty() {
            // Each call expands the rows up to the end of the ring buffer, where the buffer wraps around.
            let ring_row = rows.start % self.ring_row_count;
            let row_count = rows.len().min(self.ring_row_count - ring_row);
            expand.run(
                &input[rows.start * input_row_len..(rows.start + row_count) * input_row_len],
                None,
                &mut ring[ring_row * ring_row_len..(ring_row + row_count) * ring_row_len],
            )?;
            rows.start += row_count;
        }
        Ok(())
    }
}
