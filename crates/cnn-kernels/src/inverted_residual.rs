//! Computes the inverted residual block in tiles.

use std::ops::Range;

use crate::{
    conv1x1::PackedConv1x1,
    depthwise::Depthwise,
    shape::{ShapeError, Window, check_length, check_rows, checked_volume},
};

/// Maximum scratch memory of a tile in bytes. It is half of a second-level cache of 1 MiB; the other half is
/// for the weights.
const MAX_TILE_BYTES: usize = 512 << 10;

/// The inverted residual block of MobileNetV2: 1×1 expansion, depthwise convolution, 1×1 projection, and an
/// optional addition of the input.
///
/// The expanded tensor is several times larger than the input and the output. That tensor is computed in
/// tiles of a few rows that stay in the cache, and each tile overwrites the previous one except for the rows
/// that both need. The result is bit for bit the same as if the three operators ran one after another.
#[derive(Clone, Debug)]
pub struct InvertedResidual {
    expand: Option<PackedConv1x1>,
    depthwise: Depthwise,
    project: PackedConv1x1,
    add_input: bool,
    /// Number of output rows per tile.
    tile_rows: usize,
    /// Number of rows of the expanded tensor in the ring buffer.
    ring_rows: usize,
}

impl InvertedResidual {
    /// Combines the operators to a block.
    ///
    /// Without `expand`, the depthwise convolution reads the input of the block. With `add_input`, the input
    /// is added to the output of `project`.
    ///
    /// # Errors
    /// Returns an error if the channels of consecutive operators differ, or if `add_input` is true and input
    /// and output have different shapes.
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
        if project.channels() != depthwise.channels() {
            return Err(ShapeError::Mismatch(
                "the input channels of project differ from the channels of depthwise",
            ));
        }
        let window = depthwise.window();
        let block = Self { expand, depthwise, project, add_input, tile_rows: 1, ring_rows: 0 };
        if add_input && (window.input() != window.output() || block.channels() != block.output_channels()) {
            return Err(ShapeError::Mismatch(
                "the input cannot be added because its shape differs from the output",
            ));
        }
        checked_volume(&[window.input().pixels(), block.channels()])?;
        checked_volume(&[window.output().pixels(), block.output_channels()])?;
        Ok(block.with_tile_bytes(MAX_TILE_BYTES))
    }

    /// Sets the maximum scratch memory of a tile in bytes, which is 512 KiB by default.
    ///
    /// A tile has at least one row, even if one row needs more memory.
    #[must_use]
    pub fn with_tile_bytes(mut self, max_bytes: usize) -> Self {
        let window = self.window();
        let mut tiles = 1;
        loop {
            // The rows are distributed evenly, so that the last tile is not much smaller than the others.
            self.tile_rows = window.output().height.div_ceil(tiles);
            let ring_rows = (self.tile_rows - 1) * window.stride() + window.kernel();
            self.ring_rows = ring_rows.min(window.input().height);
            if self.scratch_len() * size_of::<f32>() <= max_bytes || self.tile_rows == 1 {
                return self;
            }
            tiles += 1;
        }
    }

    /// Returns the window of the depthwise convolution.
    #[must_use]
    pub fn window(&self) -> Window {
        self.depthwise.window()
    }

    /// Returns the number of input channels.
    #[must_use]
    pub fn channels(&self) -> usize {
        self.expand.as_ref().map_or(self.depthwise.channels(), PackedConv1x1::channels)
    }

    /// Returns the number of output channels.
    #[must_use]
    pub fn output_channels(&self) -> usize {
        self.project.output_channels()
    }

    /// Returns the number of elements of scratch memory that [`Self::run`] needs.
    #[must_use]
    pub fn scratch_len(&self) -> usize {
        self.ring_len() + self.tile_rows * self.window().output().width * self.depthwise.channels()
    }

    /// Returns the number of elements of the ring buffer, which is 0 without an expansion.
    fn ring_len(&self) -> usize {
        let rows = if self.expand.is_some() { self.ring_rows } else { 0 };
        rows * self.window().input().width * self.depthwise.channels()
    }

    /// Computes the output rows `rows` of the image `input` and writes them to `output`.
    ///
    /// `input` is the whole image; `output` has room for the rows in `rows` only. The contents of `scratch`
    /// are overwritten.
    ///
    /// # Errors
    /// Returns an error, and writes nothing, if the length of `input` or `output` is wrong, `rows` are not
    /// inside the output, or `scratch` is shorter than [`Self::scratch_len`].
    pub fn run(
        &self,
        input: &[f32],
        rows: Range<usize>,
        scratch: &mut [f32],
        output: &mut [f32],
    ) -> Result<(), ShapeError> {
        let window = self.window();
        check_length("input", window.input().pixels() * self.channels(), input.len())?;
        check_rows(&rows, window.output().height)?;
        let output_pitch = window.output().width * self.output_channels();
        check_length("output", rows.len() * output_pitch, output.len())?;
        let actual = scratch.len();
        let scratch = scratch.get_mut(..self.scratch_len());
        let scratch =
            scratch.ok_or(ShapeError::Length { slice: "scratch", expected: self.scratch_len(), actual })?;
        let (ring, filtered) = scratch.split_at_mut(self.ring_len());

        let filtered_pitch = window.output().width * self.depthwise.channels();
        let mut expanded_end = 0;
        for (index, output_tile) in output.chunks_mut(self.tile_rows * output_pitch).enumerate() {
            let start = rows.start + index * self.tile_rows;
            let tile = start..rows.end.min(start + self.tile_rows);
            let filtered = &mut filtered[..tile.len() * filtered_pitch];
            match &self.expand {
                Some(expand) => {
                    let needed = window.input_rows(&tile);
                    self.expand_rows(expand, input, expanded_end.max(needed.start)..needed.end, ring)?;
                    expanded_end = needed.end;
                    self.depthwise.run_on_ring(ring, self.ring_rows, tile.clone(), filtered)?;
                }
                None => self.depthwise.run(input, tile.clone(), filtered)?,
            }
            let residual = self.add_input.then(|| &input[tile.start * output_pitch..tile.end * output_pitch]);
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
        let (pitch, ring_pitch) = (width * expand.channels(), width * expand.output_channels());
        while !rows.is_empty() {
            // One call expands the consecutive rows up to the end of the ring buffer.
            let ring_row = rows.start % self.ring_rows;
            let count = rows.len().min(self.ring_rows - ring_row);
            expand.run(
                &input[rows.start * pitch..(rows.start + count) * pitch],
                None,
                &mut ring[ring_row * ring_pitch..(ring_row + count) * ring_pitch],
            )?;
            rows.start += count;
        }
        Ok(())
    }
}
