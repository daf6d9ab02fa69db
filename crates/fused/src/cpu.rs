//! Runs a chain with the CPU kernels.
//!
//! This module packs the weights, plans the memory and divides the work between threads.

use std::{
    ops::Range,
    sync::{Mutex, PoisonError},
};

use burn::{
    backend::{DType, Flex, tensor::FloatTensor},
    tensor::Shape,
};
use cnn_kernels::{
    AlignedBuffer, Clamp, Depthwise, FirstConv, InvertedResidual, Isa, PackedConv1x1, Pads, ShapeError, Size,
    Window, global_average_pool,
};
use rayon::prelude::*;

use crate::plan::{Conv, Plan, Step};

type FlexTensor = FloatTensor<Flex>;

/// Number of elements per block of a transposition. A block takes 16 KiB, which fit the first-level cache.
const TRANSPOSE_BLOCK: usize = 4 << 10;
/// Number of pixels that are shifted at a time. The values of 16 pixels fill whole vector registers for any
/// number of channels.
const SHIFTED_PIXELS: usize = 16;

/// Order of the values of an image in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    /// `[channels][height][width]`.
    Planes,
    /// `[height][width][channels]`, the order of the CPU kernels.
    Pixels,
}

/// A chain with packed weights.
#[derive(Debug)]
pub(crate) struct CpuChain {
    isa: Isa,
    /// `[channels, height, width]` of the input.
    input: [usize; 3],
    /// `[channels, height, width]` of the output.
    output: [usize; 3],
    /// True if the output is one row per image and not a feature map.
    flat: bool,
    /// Constants to add to the channels of [`SHIFTED_PIXELS`] pixels; empty if the plan has no shift.
    shift: Vec<f32>,
    stages: Vec<Stage>,
    /// Number of elements of the largest feature map.
    map_len: usize,
    /// Number of elements of scratch memory per thread.
    scratch_len: usize,
    /// Workspaces that no image uses at the moment. Each image takes a workspace and returns it afterwards. A
    /// workspace is allocated only if more images run at the same time than ever before.
    workspaces: Mutex<Vec<Workspace>>,
}

/// A step with packed weights.
#[derive(Debug)]
struct Stage {
    operator: Operator,
    input_len: usize,
    /// Number of parts of the output, rows or pixels, that can be computed independently.
    unit_count: usize,
    unit_len: usize,
}

#[derive(Debug)]
enum Operator {
    Dense(FirstConv),
    Pointwise(PackedConv1x1),
    Depthwise(Depthwise),
    Block(Box<InvertedResidual>),
    Pool,
}

/// The memory to run one image.
#[derive(Debug)]
struct Workspace {
    /// The feature maps before and after a stage.
    maps: [AlignedBuffer; 2],
    /// Scratch memory of all threads that work on the image.
    scratch: AlignedBuffer,
}

impl CpuChain {
    /// Packs the weights of a plan.
    ///
    /// # Panics
    /// Panics if the number of weights differs from [`Plan::weights_len`].
    #[expect(
        clippy::panic,
        reason = "a burn operator cannot return an error; only weights of another model have another length"
    )]
    pub(crate) fn from_tensor(isa: Isa, plan: &Plan, weights: &FlexTensor) -> Self {
        let weights = weights.to_contiguous();
        let values = weights.as_slice::<f32>().unwrap_or_default();
        Self::new(isa, plan, values)
            .unwrap_or_else(|error| panic!("the weights do not fit the chain's plan: {error}"))
    }

    pub(crate) fn new(isa: Isa, plan: &Plan, weights: &[f32]) -> Result<Self, ShapeError> {
        let expected = plan.weights_len();
        if weights.len() != expected {
            return Err(ShapeError::Length { what: "weights", expected, actual: weights.len() });
        }
        let (shift, weights) = weights.split_at(plan.shift_len());
        let mut packer = Packer { isa, weights };
        let mut shape = plan.input;
        let mut stages = Vec::new();
        for step in &plan.steps {
            stages.extend(packer.pack_step(step, shape)?);
            shape = step.output_shape(shape);
        }
        let inputs = stages.iter().map(|stage| stage.input_len);
        let outputs = stages.iter().map(|stage| stage.unit_count * stage.unit_len);
        let map_len = inputs.chain(outputs).chain([plan.input.iter().product()]).max().unwrap_or(0);
        let scratch_len = stages.iter().map(Stage::scratch_len).max().unwrap_or(0);
        // Each thread's part consists of whole cache lines, so that no two threads write to the same line.
        let scratch_len = scratch_len.next_multiple_of(16);
        Ok(Self {
            isa,
            input: plan.input,
            output: shape,
            flat: plan.is_flat(),
            shift: shift.repeat(SHIFTED_PIXELS),
            stages,
            map_len,
            scratch_len,
            workspaces: Mutex::default(),
        })
    }

    /// Computes the outputs for a batch of images.
    ///
    /// # Panics
    /// Panics if `input` does not have the plan's shape.
    #[expect(clippy::panic, reason = "a burn operator cannot return an error")]
    pub(crate) fn run_tensor(&self, input: &FlexTensor) -> FlexTensor {
        let [channels, height, width] = self.output;
        let batch = input.layout().shape()[0];
        let shape = if self.flat {
            Shape::new([batch, channels])
        } else {
            Shape::new([batch, channels, height, width])
        };
        let mut output = FlexTensor::zeros(shape, DType::F32);
        let planes;
        let (images, order) = match pixel_order_values(input) {
            Some(images) => (images, Order::Pixels),
            None => {
                planes = input.to_contiguous();
                (planes.as_slice::<f32>().unwrap_or_default(), Order::Planes)
            }
        };
        if let Err(error) = self.run(images, order, batch, output.storage_mut()) {
            panic!("the chain cannot run on a batch of {batch} with {} values in all: {error}", images.len());
        }
        output
    }

    /// Computes the outputs for `batch` images.
    fn run(&self, images: &[f32], order: Order, batch: usize, outputs: &mut [f32]) -> Result<(), ShapeError> {
        let image_len: usize = self.input.iter().product();
        let output_len: usize = self.output.iter().product();
        check_len("input", batch * image_len, images.len())?;
        check_len("output", batch * output_len, outputs.len())?;
        let threads = rayon::current_num_threads();
        // Up to a multiple of the thread count, images run in parallel, one per thread. The remaining images
        // run one after another, each on all threads.
        let whole_images = batch / threads * threads;
        let (images, rest) = images.split_at(whole_images * image_len);
        let (outputs, rest_outputs) = outputs.split_at_mut(whole_images * output_len);
        let pairs = images.par_chunks(image_len).zip(outputs.par_chunks_mut(output_len));
        pairs.try_for_each(|(image, output)| self.run_image(image, order, output, 1))?;
        let mut pairs = rest.chunks(image_len).zip(rest_outputs.chunks_mut(output_len));
        pairs.try_for_each(|(image, output)| self.run_image(image, order, output, threads))
    }

    /// Computes the output for one image with `threads` threads.
    fn run_image(
        &self,
        image: &[f32],
        order: Order,
        output: &mut [f32],
        threads: usize,
    ) -> Result<(), ShapeError> {
        let mut workspace = self.acquire_workspace(threads);
        let result = self.run_stages(image, order, output, threads, &mut workspace);
        self.workspaces.lock().unwrap_or_else(PoisonError::into_inner).push(workspace);
        result
    }

    fn run_stages(
        &self,
        image: &[f32],
        order: Order,
        output: &mut [f32],
        threads: usize,
        workspace: &mut Workspace,
    ) -> Result<(), ShapeError> {
        let Workspace { maps: [source, target], scratch } = workspace;
        let (mut source, mut target) = (source, target);
        let mut stages = self.stages.iter();
        match (order, self.shift.is_empty()) {
            (Order::Planes, true) => transpose(image, self.input[0], source),
            (Order::Planes, false) => {
                transpose(image, self.input[0], target);
                self.add_shift(&target[..image.len()], source);
            }
            (Order::Pixels, false) => self.add_shift(image, source),
            // The first stage can read the image without a copy.
            (Order::Pixels, true) => match stages.next() {
                Some(stage) => {
                    let to = &mut source[..stage.unit_count * stage.unit_len];
                    stage.run(self.isa, image, to, scratch, threads)?;
                }
                None => source[..image.len()].copy_from_slice(image),
            },
        }
        for stage in stages {
            let to = &mut target[..stage.unit_count * stage.unit_len];
            stage.run(self.isa, &source[..stage.input_len], to, scratch, threads)?;
            std::mem::swap(&mut source, &mut target);
        }
        // Converts pixels to planes: a transposition in which pixels are the rows.
        transpose(&source[..output.len()], output.len() / self.output[0], output);
        Ok(())
    }

    /// Adds the shift to the channels of `image`, which is in pixel order.
    fn add_shift(&self, image: &[f32], target: &mut [f32]) {
        let block_len = self.shift.len();
        for (image, target) in image.chunks(block_len).zip(target.chunks_mut(block_len)) {
            for ((value, shift), target) in image.iter().zip(&self.shift).zip(target) {
                *target = value + shift;
            }
        }
    }

    /// Removes an unused workspace that is large enough, or allocates one.
    fn acquire_workspace(&self, threads: usize) -> Workspace {
        let scratch = self.scratch_len * threads;
        let mut free = self.workspaces.lock().unwrap_or_else(PoisonError::into_inner);
        match free.iter().position(|workspace| workspace.scratch.len() >= scratch) {
            Some(index) => free.swap_remove(index),
            None => Workspace {
                maps: [AlignedBuffer::zeroed(self.map_len), AlignedBuffer::zeroed(self.map_len)],
                scratch: AlignedBuffer::zeroed(scratch),
            },
        }
    }
}

impl Stage {
    fn scratch_len(&self) -> usize {
        match &self.operator {
            Operator::Block(block) => block.scratch_len(),
            _ => 0,
        }
    }

    /// Computes the whole output with `threads` threads.
    fn run(
        &self,
        isa: Isa,
        input: &[f32],
        output: &mut [f32],
        scratch: &mut [f32],
        threads: usize,
    ) -> Result<(), ShapeError> {
        if threads == 1 || self.unit_count == 1 {
            return self.run_units(isa, input, 0..self.unit_count, scratch, output);
        }
        let units = self.unit_count.div_ceil(threads);
        let scratch_len = scratch.len() / threads;
        let parts = output.par_chunks_mut(units * self.unit_len).enumerate();
        if scratch_len == 0 {
            return parts
                .try_for_each(|(part, output)| self.run_part(isa, input, part * units, &mut [], output));
        }
        parts.zip(scratch.par_chunks_mut(scratch_len)).try_for_each(|((part, output), scratch)| {
            self.run_part(isa, input, part * units, scratch, output)
        })
    }

    /// Computes as many units as `output` has room for, beginning with `first`.
    fn run_part(
        &self,
        isa: Isa,
        input: &[f32],
        first: usize,
        scratch: &mut [f32],
        output: &mut [f32],
    ) -> Result<(), ShapeError> {
        self.run_units(isa, input, first..first + output.len() / self.unit_len, scratch, output)
    }

    fn run_units(
        &self,
        isa: Isa,
        input: &[f32],
        units: Range<usize>,
        scratch: &mut [f32],
        output: &mut [f32],
    ) -> Result<(), ShapeError> {
        match &self.operator {
            Operator::Dense(conv) => conv.run(input, units, output),
            Operator::Pointwise(conv) => {
                let pixels = units.start * conv.channels()..units.end * conv.channels();
                conv.run(&input[pixels], None, output)
            }
            Operator::Depthwise(conv) => conv.run(input, units, output),
            Operator::Block(block) => block.run(input, units, scratch, output),
            Operator::Pool => global_average_pool(isa, input, output),
        }
    }
}

/// Packs the weights of a plan step by step.
struct Packer<'a> {
    isa: Isa,
    /// The weights of the steps that are not packed yet.
    weights: &'a [f32],
}

impl<'a> Packer<'a> {
    /// Packs a step whose input is `[channels, height, width]`. Returns `None` if the step changes no values.
    fn pack_step(&mut self, step: &Step, input: [usize; 3]) -> Result<Option<Stage>, ShapeError> {
        let [channels, height, width] = step.output_shape(input);
        let (operator, unit_count) = match step {
            Step::Dense(conv) if conv.is_pointwise() => {
                (Operator::Pointwise(self.pack_pointwise(conv)?), height * width)
            }
            Step::Dense(conv) => {
                let (weights, bias) = self.next_weights(conv, conv.channels);
                let window = window_of(conv, input)?;
                let conv = FirstConv::new(self.isa, window, conv.channels, weights, bias, clamp_of(conv))?;
                (Operator::Dense(conv), height)
            }
            Step::Depthwise(conv) => (Operator::Depthwise(self.pack_depthwise(conv, input)?), height),
            Step::InvertedResidual { expand, depthwise, project, add_input } => {
                let expand = expand.as_ref().map(|expand| self.pack_pointwise(expand)).transpose()?;
                let depthwise = self.pack_depthwise(depthwise, input)?;
                let project = self.pack_pointwise(project)?;
                let block = InvertedResidual::new(expand, depthwise, project, *add_input)?;
                (Operator::Block(Box::new(block)), height)
            }
            Step::GlobalAveragePool => (Operator::Pool, 1),
            Step::Flatten => return Ok(None),
        };
        let output_len = channels * height * width;
        Ok(Some(Stage {
            operator,
            input_len: input.iter().product(),
            unit_count,
            unit_len: output_len / unit_count,
        }))
    }

    fn pack_pointwise(&mut self, conv: &Conv) -> Result<PackedConv1x1, ShapeError> {
        let (weights, bias) = self.next_weights(conv, conv.channels);
        PackedConv1x1::new(self.isa, conv.channels, weights, bias, clamp_of(conv))
    }

    fn pack_depthwise(&mut self, conv: &Conv, input: [usize; 3]) -> Result<Depthwise, ShapeError> {
        let (weights, bias) = self.next_weights(conv, 1);
        Depthwise::new(self.isa, window_of(conv, input)?, weights, bias, clamp_of(conv))
    }

    /// Removes the weights and the bias of the next convolution.
    fn next_weights(&mut self, conv: &Conv, channels_per_group: usize) -> (&'a [f32], &'a [f32]) {
        let (weights, rest) = self.weights.split_at(conv.weights_len(channels_per_group));
        let (bias, rest) = rest.split_at(conv.output_channels);
        self.weights = rest;
        (weights, bias)
    }
}

fn window_of(conv: &Conv, [_, height, width]: [usize; 3]) -> Result<Window, ShapeError> {
    let [top, left, bottom, right] = conv.pads;
    Window::new(Size { height, width }, conv.kernel, conv.stride, Pads { top, left, bottom, right })
}

fn clamp_of(conv: &Conv) -> Clamp {
    let [lo, hi] = conv.clamp;
    Clamp { lo, hi }
}

/// Returns the values of a tensor `[batch, channels, height, width]` if they are in pixel order in memory.
fn pixel_order_values(input: &FlexTensor) -> Option<&[f32]> {
    let (begin, end) = input.layout().permute(&[0, 2, 3, 1]).contiguous_offsets()?;
    Some(&input.storage::<f32>()[begin..end])
}

fn check_len(what: &'static str, expected: usize, actual: usize) -> Result<(), ShapeError> {
    if expected == actual { Ok(()) } else { Err(ShapeError::Length { what, expected, actual }) }
}

/// Transposes a matrix of `rows` rows: `target[column][row] = source[row][column]`.
///
/// The function transposes one block of columns at a time. The block's part of `target` stays in the
/// first-level cache while the function reads all rows.
fn transpose(source: &[f32], rows: usize, target: &mut [f32]) {
    let columns = source.len() / rows;
    let block_columns = (TRANSPOSE_BLOCK / rows).max(1);
    for (index, target) in target[..source.len()].chunks_mut(block_columns * rows).enumerate() {
        let first = index * block_columns;
        for (row, source) in source.chunks_exact(columns).enumerate() {
            let source = &source[first..columns.min(first + block_columns)];
            for (value, pixel) in source.iter().zip(target.chunks_exact_mut(rows)) {
                pixel[row] = *value;
            }
        }
    }
}
