//! Runs a chain, the consecutive layers that a [`Plan`] lists, with the kernels of the crate `cnn-kernels`.
//!
//! This module packs the weights, reuses memory between images and divides the work between threads.

mod packing;

use std::{
    ops::Range,
    sync::{Mutex, PoisonError},
};

use burn::{
    backend::{DType, Flex, tensor::FloatTensor},
    tensor::Shape,
};
use cnn_kernels::{
    AlignedBuffer, Depthwise, FirstConv, InvertedResidual, Isa, PackedConv1x1, ShapeError,
    global_average_pool,
};
use rayon::prelude::*;

use self::packing::Packer;
use crate::plan::Plan;

type FlexTensor = FloatTensor<Flex>;

/// Number of elements that [`transpose`] writes per block. A block takes 16 KiB, which fits into the
/// first-level cache.
const TRANSPOSE_BLOCK_LEN: usize = 4 << 10;
/// Number of pixels to which [`CpuChain::add_shift`] adds the shift at a time. A vector register holds at
/// most 16 values, so the values of 16 pixels fill whole registers for any number of channels.
const SHIFT_BLOCK_PIXELS: usize = 16;

/// The order of an image's values in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ImageLayout {
    /// `[channels][height][width]`, the order of burn.
    Planar,
    /// `[height][width][channels]`, the order of the CPU kernels.
    Interleaved,
}

/// A chain whose weights are packed for the kernels.
#[derive(Debug)]
pub(crate) struct CpuChain {
    isa: Isa,
    /// `[channels, height, width]`.
    input_shape: [usize; 3],
    /// `[channels, height, width]`.
    output_shape: [usize; 3],
    /// True if the output tensor has the shape `[batch, channels]`, without height and width.
    is_flat: bool,
    /// The shift: the constants that the plan adds to the input channels, repeated for
    /// [`SHIFT_BLOCK_PIXELS`] pixels. Empty if the plan adds none.
    shift: Vec<f32>,
    steps: Vec<PackedStep>,
    /// Number of elements of the largest feature map, input and output included.
    map_len: usize,
    /// Number of elements of scratch memory per thread.
    scratch_len: usize,
    /// Workspaces that are not in use. [`Self::run_image`] removes one and puts it back afterwards. It
    /// allocates a workspace only if none of these is large enough.
    free_workspaces: Mutex<Vec<Workspace>>,
}

/// A step with packed weights.
#[derive(Debug)]
struct PackedStep {
    operator: Operator,
    /// Number of elements of the input.
    input_len: usize,
    /// Number of units of the output. A unit is the smallest part that can be computed separately: a pixel, a
    /// row or the whole output.
    unit_count: usize,
    /// Number of elements per unit.
    unit_len: usize,
}

/// The operator of `cnn-kernels` that computes a step.
#[derive(Debug)]
enum Operator {
    FirstConv(FirstConv),
    Conv1x1(PackedConv1x1),
    Depthwise(Depthwise),
    InvertedResidual(Box<InvertedResidual>),
    GlobalAveragePool,
}

/// The memory for computing one image.
#[derive(Debug)]
struct Workspace {
    /// The input and the output of the current step. Their roles are swapped after each step.
    maps: [AlignedBuffer; 2],
    /// Scratch memory, which is divided equally between the threads that work on the image.
    scratch: AlignedBuffer,
}

impl CpuChain {
    /// Packs the weights of a plan.
    ///
    /// # Panics
    /// Panics if the number of weights differs from [`Plan::weights_len`], or if the kernels do not support
    /// the plan.
    #[expect(
        clippy::panic,
        reason = "a burn operator cannot return an error, and generated code passes matching plans and weights"
    )]
    pub(crate) fn from_tensor(isa: Isa, plan: &Plan, weights: &FlexTensor) -> Self {
        let weights = weights.to_contiguous();
        let values = weights.as_slice::<f32>().unwrap_or_default();
        Self::new(isa, plan, values)
            .unwrap_or_else(|error| panic!("the weights do not fit the chain's plan: {error}"))
    }

    /// Packs `weights`, which must have [`Plan::weights_len`] elements.
    pub(crate) fn new(isa: Isa, plan: &Plan, weights: &[f32]) -> Result<Self, ShapeError> {
        let expected = plan.weights_len();
        if weights.len() != expected {
            return Err(ShapeError::Length { slice_name: "weights", expected, actual: weights.len() });
        }
        let (shift, weights) = weights.split_at(plan.shift_len());
        let mut packer = Packer { isa, remaining_weights: weights };
        let mut shape = plan.input;
        let mut steps = Vec::new();
        for step in &plan.steps {
            steps.extend(packer.pack_step(step, shape)?);
            shape = step.output_shape(shape);
        }
        let inputs = steps.iter().map(|step| step.input_len);
        let outputs = steps.iter().map(|step| step.unit_count * step.unit_len);
        let map_len = inputs.chain(outputs).chain([plan.input.iter().product()]).max().unwrap_or(0);
        let scratch_len = steps.iter().map(PackedStep::scratch_len).max().unwrap_or(0);
        // Rounds up to whole cache lines of 16 floats, so that the scratch memories of two threads never
        // share a cache line.
        let scratch_len = scratch_len.next_multiple_of(16);
        Ok(Self {
            isa,
            input_shape: plan.input,
            output_shape: shape,
            is_flat: plan.is_flat(),
            shift: shift.repeat(SHIFT_BLOCK_PIXELS),
            steps,
            map_len,
            scratch_len,
            free_workspaces: Mutex::default(),
        })
    }

    /// Computes the output for a batch of images of shape `[batch, channels, height, width]`.
    ///
    /// # Panics
    /// Panics if `input` does not have the plan's shape.
    #[expect(clippy::panic, reason = "a burn operator cannot return an error")]
    pub(crate) fn run_tensor(&self, input: &FlexTensor) -> FlexTensor {
        let [channels, height, width] = self.output_shape;
        let image_count = input.layout().shape()[0];
        let shape = if self.is_flat {
            Shape::new([image_count, channels])
        } else {
            Shape::new([image_count, channels, height, width])
        };
        let mut output = FlexTensor::zeros(shape, DType::F32);
        let contiguous;
        let (images, layout) = match interleaved_values(input) {
            Some(images) => (images, ImageLayout::Interleaved),
            None => {
                contiguous = input.to_contiguous();
                (contiguous.as_slice::<f32>().unwrap_or_default(), ImageLayout::Planar)
            }
        };
        if let Err(error) = self.run(images, layout, image_count, output.storage_mut()) {
            panic!(
                "the chain cannot run on a batch of {image_count} images with {} values in total: {error}",
                images.len()
            );
        }
        output
    }

    /// Computes the outputs for `image_count` images. The outputs are planar.
    fn run(
        &self,
        images: &[f32],
        layout: ImageLayout,
        image_count: usize,
        outputs: &mut [f32],
    ) -> Result<(), ShapeError> {
        let image_len: usize = self.input_shape.iter().product();
        let output_len: usize = self.output_shape.iter().product();
        check_len("input", image_count * image_len, images.len())?;
        check_len("output", image_count * output_len, outputs.len())?;
        let thread_count = rayon::current_num_threads();
        // Images run in parallel, one per thread, as long as enough remain for all threads. The remaining
        // images run one after another, each on all threads.
        let parallel_image_count = image_count / thread_count * thread_count;
        let (images, rest_images) = images.split_at(parallel_image_count * image_len);
        let (outputs, rest_outputs) = outputs.split_at_mut(parallel_image_count * output_len);
        let pairs = images.par_chunks(image_len).zip(outputs.par_chunks_mut(output_len));
        pairs.try_for_each(|(image, output)| self.run_image(image, layout, output, 1))?;
        let mut pairs = rest_images.chunks(image_len).zip(rest_outputs.chunks_mut(output_len));
        pairs.try_for_each(|(image, output)| self.run_image(image, layout, output, thread_count))
    }

    /// Computes the output for one image with `thread_count` threads.
    fn run_image(
        &self,
        image: &[f32],
        layout: ImageLayout,
        output: &mut [f32],
        thread_count: usize,
    ) -> Result<(), ShapeError> {
        let mut workspace = self.acquire_workspace(thread_count);
        let result = self.run_steps(image, layout, output, thread_count, &mut workspace);
        self.free_workspaces.lock().unwrap_or_else(PoisonError::into_inner).push(workspace);
        result
    }

    /// Runs all steps and writes the planar output to `output`.
    fn run_steps(
        &self,
        image: &[f32],
        layout: ImageLayout,
        output: &mut [f32],
        thread_count: usize,
        workspace: &mut Workspace,
    ) -> Result<(), ShapeError> {
        let Workspace { maps: [source, target], scratch } = workspace;
        let (mut source, mut target) = (source, target);
        let mut steps = self.steps.iter();
        match (layout, self.shift.is_empty()) {
            (ImageLayout::Planar, true) => transpose(image, self.input_shape[0], source),
            (ImageLayout::Planar, false) => {
                transpose(image, self.input_shape[0], target);
                self.add_shift(&target[..image.len()], source);
            }
            (ImageLayout::Interleaved, false) => self.add_shift(image, source),
            // The first step reads the image directly, without a copy.
            (ImageLayout::Interleaved, true) => match steps.next() {
                Some(step) => {
                    let step_output = &mut source[..step.unit_count * step.unit_len];
                    step.run(self.isa, image, step_output, scratch, thread_count)?;
                }
                None => source[..image.len()].copy_from_slice(image),
            },
        }
        for step in steps {
            let step_output = &mut target[..step.unit_count * step.unit_len];
            step.run(self.isa, &source[..step.input_len], step_output, scratch, thread_count)?;
            std::mem::swap(&mut source, &mut target);
        }
        // Converts the interleaved output to planar by transposing a matrix with one row per pixel.
        transpose(&source[..output.len()], output.len() / self.output_shape[0], output);
        Ok(())
    }

    /// Writes the sum of the interleaved `image` and the shift to `target`.
    fn add_shift(&self, image: &[f32], target: &mut [f32]) {
        let block_len = self.shift.len();
        for (image, target) in image.chunks(block_len).zip(target.chunks_mut(block_len)) {
            for ((value, shift), target) in image.iter().zip(&self.shift).zip(target) {
                *target = value + shift;
            }
        }
    }

    /// Returns a free workspace that is large enough, or allocates one.
    fn acquire_workspace(&self, thread_count: usize) -> Workspace {
        let scratch_len = self.scratch_len * thread_count;
        let mut free = self.free_workspaces.lock().unwrap_or_else(PoisonError::into_inner);
        match free.iter().position(|workspace| workspace.scratch.len() >= scratch_len) {
            Some(index) => free.swap_remove(index),
            None => Workspace {
                maps: [AlignedBuffer::zeroed(self.map_len), AlignedBuffer::zeroed(self.map_len)],
                scratch: AlignedBuffer::zeroed(scratch_len),
            },
        }
    }
}

impl PackedStep {
    /// Returns the number of elements of scratch memory that each thread needs.
    fn scratch_len(&self) -> usize {
        match &self.operator {
            Operator::InvertedResidual(block) => block.scratch_len(),
            _ => 0,
        }
    }

    /// Computes the whole output with `thread_count` threads.
    fn run(
        &self,
        isa: Isa,
        input: &[f32],
        output: &mut [f32],
        scratch: &mut [f32],
        thread_count: usize,
    ) -> Result<(), ShapeError> {
        if thread_count == 1 || self.unit_count == 1 {
            return self.run_units(isa, input, 0..self.unit_count, scratch, output);
        }
        // Each thread computes one part of the output.
        let units_per_part = self.unit_count.div_ceil(thread_count);
        let scratch_len = scratch.len() / thread_count;
        let parts = output.par_chunks_mut(units_per_part * self.unit_len).enumerate();
        // `par_chunks_mut` panics if the chunk size is 0.
        if scratch_len == 0 {
            return parts.try_for_each(|(part, output)| {
                self.run_part(isa, input, part * units_per_part, &mut [], output)
            });
        }
        parts.zip(scratch.par_chunks_mut(scratch_len)).try_for_each(|((part, output), scratch)| {
            self.run_part(isa, input, part * units_per_part, scratch, output)
        })
    }

    /// Computes consecutive units, beginning with `first_unit`, until `output` is full.
    fn run_part(
        &self,
        isa: Isa,
        input: &[f32],
        first_unit: usize,
        scratch: &mut [f32],
        output: &mut [f32],
    ) -> Result<(), ShapeError> {
        let units = first_unit..first_unit + output.len() / self.unit_len;
        self.run_units(isa, input, units, scratch, output)
    }

    /// Computes the units `units` and writes them to `output`, which has room for exactly these
    /// units.
    fn run_units(
        &self,
        isa: Isa,
        input: &[f32],
        units: Range<usize>,
        scratch: &mut [f32],
        output: &mut [f32],
    ) -> Result<(), ShapeError> {
        match &self.operator {
            Operator::FirstConv(conv) => conv.run(input, units, output),
            Operator::Conv1x1(conv) => {
                // A unit is a pixel.
                let input_range = units.start * conv.input_channels()..units.end * conv.input_channels();
                conv.run(&input[input_range], None, output)
            }
            Operator::Depthwise(conv) => conv.run(input, units, output),
            Operator::InvertedResidual(block) => block.run(input, units, scratch, output),
            Operator::GlobalAveragePool => global_average_pool(isa, input, output),
        }
    }
}

/// Returns the values of `input` if they are interleaved in memory, image after image.
///
/// `input` has the shape `[batch, channels, height, width]`. Its values are interleaved if it is a permuted
/// view of a contiguous tensor of shape `[batch, height, width, channels]`.
fn interleaved_values(input: &FlexTensor) -> Option<&[f32]> {
    let (begin, end) = input.layout().permute(&[0, 2, 3, 1]).contiguous_offsets()?;
    Some(&input.storage::<f32>()[begin..end])
}

/// Checks that the slice named `slice_name` has `expected` elements.
fn check_len(slice_name: &'static str, expected: usize, actual: usize) -> Result<(), ShapeError> {
    if expected == actual { Ok(()) } else { Err(ShapeError::Length { slice_name, expected, actual }) }
}

/// Transposes a matrix of `row_count` rows: `target[column][row] = source[row][column]`.
///
/// The function transposes one block of columns at a time. The block's part of `target` stays in the
/// first-level cache while the function reads the block's part of every row.
fn transpose(source: &[f32], row_count: usize, target: &mut [f32]) {
    let column_count = source.len() / row_count;
    let block_width = (TRANSPOSE_BLOCK_LEN / row_count).max(1);
    for (index, target) in target[..source.len()].chunks_mut(block_width * row_count).enumerate() {
        let first_column = index * block_width;
        for (row, source) in source.chunks_exact(column_count).enumerate() {
            let source = &source[first_column..column_count.min(first_column + block_width)];
            for (value, target_column) in source.iter().zip(target.chunks_exact_mut(row_count)) {
                target_column[row] = *value;
            }
        }
    }
}
