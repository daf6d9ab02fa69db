//! The inverted residual block in tiles.

use std::ops::Range;

use crate::{
    conv1x1::PackedConv1x1,
    depthwise::Depthwise,
    shape::{ShapeError, Window, check_length, check_rows, volume},
};

/// Bytes of scratch memory that a tile may use: half of a second-level cache of 1 MiB, the rest of which
/// the weights pass through.
const TILE_BYTES: usize = 512 << 10;

/// Expand (1×1) → depthwise → project (1×1) (+ input), the block of MobileNetV2 and its descendants.
///
/// The expanded tensor is several times as large as what goes in and comes out, and is needed only
/// nearby: it is made a few rows at a time, used, and overwritten, so that it never leaves the cache.
/// The rows that a kernel shares with the next tile are kept. The result is the same bits as that of
/// the three operators one after another.
#[derive(Clone, Debug)]
pub struct InvertedResidual {
    expand: Option<PackedConv1x1>,
    depthwise: Depthwise,
    project: PackedConv1x1,
    add_input: bool,
    /// Output rows of a tile.
    tile_rows: usize,
    /// Rows of the expanded tensor that are kept.
    ring: usize,
}

impl InvertedResidual {
    /// Puts the operators together. Without `expand` the depthwise convolution reads the input itself;
    /// with `add_input` the input is added to what `project` gives.
    ///
    /// # Errors
    /// The operators' channels do not follow from each other, or the input is to be added to an output
    /// of another shape.
    pub fn new(
        expand: Option<PackedConv1x1>,
        depthwise: Depthwise,
        project: PackedConv1x1,
        add_input: bool,
    ) -> Result<Self, ShapeError> {
        if expand.as_ref().is_some_and(|expand| expand.output_channels() != depthwise.channels()) {
            return Err(ShapeError::Mismatch("expand gives other channels than depthwise takes"));
        }
        if project.channels() != depthwise.channels() {
            return Err(ShapeError::Mismatch("project takes other channels than depthwise gives"));
        }
        let window = depthwise.window();
        let block = Self { expand, depthwise, project, add_input, tile_rows: 1, ring: 0 };
        if add_input && (window.input() != window.output() || block.channels() != block.output_channels()) {
            return Err(ShapeError::Mismatch("the input is not of the output's shape and cannot be added"));
        }
        volume(&[window.input().pixels(), block.channels()])?;
        volume(&[window.output().pixels(), block.output_channels()])?;
        Ok(block.with_tile_bytes(TILE_BYTES))
    }

    /// The same block in tiles that need at most `bytes` of scratch memory, or are a single row. The
    /// default is 512 KiB.
    #[must_use]
    pub fn with_tile_bytes(mut self, bytes: usize) -> Self {
        let window = self.window();
        let mut tiles = 1;
        loop {
            // As even as can be.
            self.tile_rows = window.output().height.div_ceil(tiles);
            let ring = (self.tile_rows - 1) * window.stride() + window.kernel();
            self.ring = ring.min(window.input().height);
            if self.scratch_len() * size_of::<f32>() <= bytes || self.tile_rows == 1 {
                return self;
            }
            tiles += 1;
        }
    }

    /// The window of the depthwise convolution.
    #[must_use]
    pub fn window(&self) -> Window {
        self.depthwise.window()
    }

    /// Channels of the input.
    #[must_use]
    pub fn channels(&self) -> usize {
        self.expand.as_ref().map_or(self.depthwise.channels(), PackedConv1x1::channels)
    }

    /// Channels of the output.
    #[must_use]
    pub fn output_channels(&self) -> usize {
        self.project.output_channels()
    }

    /// Elements of scratch memory that [`Self::run`] needs.
    #[must_use]
    pub fn scratch_len(&self) -> usize {
        self.ring_len() + self.tile_rows * self.window().output().width * self.depthwise.channels()
    }

    /// Elements of the kept rows of the expanded tensor.
    fn ring_len(&self) -> usize {
        let kept = if self.expand.is_some() { self.ring } else { 0 };
        kept * self.window().input().width * self.depthwise.channels()
    }

    /// Computes the output rows `rows` of the whole image `input` into `output`, which is those rows.
    /// What is in `scratch` before does not matter.
    ///
    /// # Errors
    /// `input` is not the whole image, `rows` are not inside the output, `output` is not as long as
    /// they are, or `scratch` is shorter than [`Self::scratch_len`]. Nothing is written then.
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
            scratch.ok_or(ShapeError::Length { what: "scratch", expected: self.scratch_len(), actual })?;
        let (ring, filtered) = scratch.split_at_mut(self.ring_len());

        let filtered_pitch = window.output().width * self.depthwise.channels();
        let mut expanded = 0;
        for (index, output_tile) in output.chunks_mut(self.tile_rows * output_pitch).enumerate() {
            let start = rows.start + index * self.tile_rows;
            let tile = start..rows.end.min(start + self.tile_rows);
            let filtered = &mut filtered[..tile.len() * filtered_pitch];
            match &self.expand {
                Some(expand) => {
                    let needed = window.input_rows(&tile);
                    self.expand_rows(expand, input, expanded.max(needed.start)..needed.end, ring)?;
                    expanded = needed.end;
                    self.depthwise.run_on_ring(ring, self.ring, tile.clone(), filtered)?;
                }
                None => self.depthwise.run(input, tile.clone(), filtered)?,
            }
            let residual = self.add_input.then(|| &input[tile.start * output_pitch..tile.end * output_pitch]);
            self.project.run(filtered, residual, output_tile)?;
        }
        Ok(())
    }

    /// Expands the input rows `rows` to their places in the ring.
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
            // Up to where the ring ends and begins anew.
            let place = rows.start % self.ring;
            let count = rows.len().min(self.ring - place);
            expand.run(
                &input[rows.start * pitch..(rows.start + count) * pitch],
                None,
                &mut ring[place * ring_pitch..(place + count) * ring_pitch],
            )?;
            rows.start += count;
        }
        Ok(())
    }
}
