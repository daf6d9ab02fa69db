//! A chain by the CPU kernels: weights packed, memory planned, work split between threads.

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

/// Elements that are transposed at a time: 16 KiB.
const TRANSPOSED: usize = 4 << 10;
/// Pixels that are shifted at a time: however many channels they have, they fill whole registers.
const PIXELS: usize = 16;

/// How the values of an image lie in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    /// `[channels][height][width]`.
    Planes,
    /// `[height][width][channels]`, as the kernels have it.
    Pixels,
}

/// A chain that is ready to run.
#[derive(Debug)]
pub(crate) struct Prepared {
    isa: Isa,
    input: [usize; 3],
    output: [usize; 3],
    flat: bool,
    /// What is added to the channels of [`PIXELS`] pixels; empty if nothing is.
    shift: Vec<f32>,
    stages: Vec<Stage>,
    /// Elements of the largest feature map of an image.
    map_len: usize,
    /// Elements of scratch memory that a thread needs.
    scratch_len: usize,
    /// Memory that is not in use; taken for an image and given back, so that none is allocated once as
    /// many images have run at a time as ever will.
    workspaces: Mutex<Vec<Workspace>>,
}

/// A step with its weights packed.
#[derive(Debug)]
struct Stage {
    operator: Operator,
    input_len: usize,
    /// The output is this many units, any range of which can be computed by itself: rows, or pixels.
    units: usize,
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

/// Memory for one image at a time.
#[derive(Debug)]
struct Workspace {
    /// The feature maps before and after a step.
    maps: [AlignedBuffer; 2],
    /// For as many threads as work on the image.
    scratch: AlignedBuffer,
}

impl Prepared {
    /// # Panics
    /// When `weights` are not what the plan needs.
    #[expect(
        clippy::panic,
        reason = "a burn module has no other way to say that its record is of another model"
    )]
    pub(crate) fn of_tensor(isa: Isa, plan: &Plan, weights: &FlexTensor) -> Self {
        let weights = weights.to_contiguous();
        let values = weights.as_slice::<f32>().unwrap_or_default();
        Self::new(isa, plan, values).unwrap_or_else(|error| panic!("the chain's weights do not fit: {error}"))
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
            stages.extend(packer.stage(step, shape)?);
            shape = step.shape(shape);
        }
        let inputs = stages.iter().map(|stage| stage.input_len);
        let outputs = stages.iter().map(|stage| stage.units * stage.unit_len);
        let map_len = inputs.chain(outputs).chain([plan.input.iter().product()]).max().unwrap_or(0);
        let scratch_len = stages.iter().map(Stage::scratch_len).max().unwrap_or(0);
        // A whole number of cache lines, so that no two threads write to one.
        let scratch_len = scratch_len.next_multiple_of(16);
        Ok(Self {
            isa,
            input: plan.input,
            output: shape,
            flat: plan.is_flat(),
            shift: shift.repeat(PIXELS),
            stages,
            map_len,
            scratch_len,
            workspaces: Mutex::default(),
        })
    }

    /// # Panics
    /// When `input` does not have the plan's shape.
    #[expect(clippy::panic, reason = "an operator of burn has no other way to refuse an input")]
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
        let (images, order) = match pixels(input) {
            Some(images) => (images, Order::Pixels),
            None => {
                planes = input.to_contiguous();
                (planes.as_slice::<f32>().unwrap_or_default(), Order::Planes)
            }
        };
        if let Err(error) = self.run(images, order, batch, output.storage_mut()) {
            panic!("the chain cannot run on {batch} images of {} values: {error}", images.len());
        }
        output
    }

    /// The outputs for `batch` images.
    fn run(&self, images: &[f32], order: Order, batch: usize, outputs: &mut [f32]) -> Result<(), ShapeError> {
        let image_len: usize = self.input.iter().product();
        let output_len: usize = self.output.iter().product();
        check("input", batch * image_len, images.len())?;
        check("output", batch * output_len, outputs.len())?;
        let threads = rayon::current_num_threads();
        // Rounds in which every thread has an image, and the rest.
        let together = batch / threads * threads;
        let (images, rest) = images.split_at(together * image_len);
        let (outputs, rest_outputs) = outputs.split_at_mut(together * output_len);
        let pairs = images.par_chunks(image_len).zip(outputs.par_chunks_mut(output_len));
        pairs.try_for_each(|(image, output)| self.image(image, order, output, 1))?;
        let mut pairs = rest.chunks(image_len).zip(rest_outputs.chunks_mut(output_len));
        pairs.try_for_each(|(image, output)| self.image(image, order, output, threads))
    }

    /// One image by `threads` threads.
    fn image(
        &self,
        image: &[f32],
        order: Order,
        output: &mut [f32],
        threads: usize,
    ) -> Result<(), ShapeError> {
        let mut workspace = self.take_workspace(threads);
        let done = self.stages(image, order, output, threads, &mut workspace);
        self.workspaces.lock().unwrap_or_else(PoisonError::into_inner).push(workspace);
        done
    }

    fn stages(
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
                self.shift(&target[..image.len()], source);
            }
            (Order::Pixels, false) => self.shift(image, source),
            // The first stage reads it where it is.
            (Order::Pixels, true) => match stages.next() {
                Some(stage) => {
                    let to = &mut source[..stage.units * stage.unit_len];
                    stage.run(self.isa, image, to, scratch, threads)?;
                }
                None => source[..image.len()].copy_from_slice(image),
            },
        }
        for stage in stages {
            let to = &mut target[..stage.units * stage.unit_len];
            stage.run(self.isa, &source[..stage.input_len], to, scratch, threads)?;
            std::mem::swap(&mut source, &mut target);
        }
        // Back to a plane for each channel: the same as to pixels, with the two exchanged.
        transpose(&source[..output.len()], output.len() / self.output[0], output);
        Ok(())
    }

    /// `image`, pixel by pixel, with what is added to its channels.
    fn shift(&self, image: &[f32], target: &mut [f32]) {
        let stretch = self.shift.len();
        for (image, target) in image.chunks(stretch).zip(target.chunks_mut(stretch)) {
            for ((value, shift), target) in image.iter().zip(&self.shift).zip(target) {
                *target = value + shift;
            }
        }
    }

    fn take_workspace(&self, threads: usize) -> Workspace {
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

    fn run(
        &self,
        isa: Isa,
        input: &[f32],
        output: &mut [f32],
        scratch: &mut [f32],
        threads: usize,
    ) -> Result<(), ShapeError> {
        if threads == 1 || self.units == 1 {
            return self.range(isa, input, 0..self.units, scratch, output);
        }
        let units = self.units.div_ceil(threads);
        let scratch_len = scratch.len() / threads;
        let parts = output.par_chunks_mut(units * self.unit_len).enumerate();
        if scratch_len == 0 {
            return parts.try_for_each(|(part, output)| self.part(isa, input, part * units, &mut [], output));
        }
        parts
            .zip(scratch.par_chunks_mut(scratch_len))
            .try_for_each(|((part, output), scratch)| self.part(isa, input, part * units, scratch, output))
    }

    /// The units from `first` on, as many as `output` has.
    fn part(
        &self,
        isa: Isa,
        input: &[f32],
        first: usize,
        scratch: &mut [f32],
        output: &mut [f32],
    ) -> Result<(), ShapeError> {
        self.range(isa, input, first..first + output.len() / self.unit_len, scratch, output)
    }

    fn range(
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

/// Packs weights from front to back.
struct Packer<'a> {
    isa: Isa,
    weights: &'a [f32],
}

impl<'a> Packer<'a> {
    /// The stage of a step whose input is `[channels, height, width]`; `None` if nothing is to be done.
    fn stage(&mut self, step: &Step, input: [usize; 3]) -> Result<Option<Stage>, ShapeError> {
        let [channels, height, width] = step.shape(input);
        let (operator, units) = match step {
            Step::Dense(conv) if conv.is_pointwise() => {
                (Operator::Pointwise(self.pointwise(conv)?), height * width)
            }
            Step::Dense(conv) => {
                let (weights, bias) = self.take(conv, conv.channels);
                let window = window(conv, input)?;
                let conv = FirstConv::new(self.isa, window, conv.channels, weights, bias, clamp(conv))?;
                (Operator::Dense(conv), height)
            }
            Step::Depthwise(conv) => (Operator::Depthwise(self.depthwise(conv, input)?), height),
            Step::InvertedResidual { expand, depthwise, project, add_input } => {
                let expand = expand.as_ref().map(|expand| self.pointwise(expand)).transpose()?;
                let depthwise = self.depthwise(depthwise, input)?;
                let project = self.pointwise(project)?;
                let block = InvertedResidual::new(expand, depthwise, project, *add_input)?;
                (Operator::Block(Box::new(block)), height)
            }
            Step::GlobalAveragePool => (Operator::Pool, 1),
            Step::Flatten => return Ok(None),
        };
        let output_len = channels * height * width;
        Ok(Some(Stage { operator, input_len: input.iter().product(), units, unit_len: output_len / units }))
    }

    fn pointwise(&mut self, conv: &Conv) -> Result<PackedConv1x1, ShapeError> {
        let (weights, bias) = self.take(conv, conv.channels);
        PackedConv1x1::new(self.isa, conv.channels, weights, bias, clamp(conv))
    }

    fn depthwise(&mut self, conv: &Conv, input: [usize; 3]) -> Result<Depthwise, ShapeError> {
        let (weights, bias) = self.take(conv, 1);
        Depthwise::new(self.isa, window(conv, input)?, weights, bias, clamp(conv))
    }

    fn take(&mut self, conv: &Conv, channels_of_group: usize) -> (&'a [f32], &'a [f32]) {
        let (weights, rest) = self.weights.split_at(conv.weights_len(channels_of_group));
        let (bias, rest) = rest.split_at(conv.output_channels);
        self.weights = rest;
        (weights, bias)
    }
}

fn window(conv: &Conv, [_, height, width]: [usize; 3]) -> Result<Window, ShapeError> {
    let [top, left, bottom, right] = conv.pads;
    Window::new(Size { height, width }, conv.kernel, conv.stride, Pads { top, left, bottom, right })
}

fn clamp(conv: &Conv) -> Clamp {
    let [lo, hi] = conv.clamp;
    Clamp { lo, hi }
}

/// The images of a tensor `[batch, channels, height, width]`, if they lie in memory pixel by pixel.
fn pixels(input: &FlexTensor) -> Option<&[f32]> {
    let (begin, end) = input.layout().permute(&[0, 2, 3, 1]).contiguous_offsets()?;
    Some(&input.storage::<f32>()[begin..end])
}

fn check(what: &'static str, expected: usize, actual: usize) -> Result<(), ShapeError> {
    if expected == actual { Ok(()) } else { Err(ShapeError::Length { what, expected, actual }) }
}

/// `rows` rows become as many columns: `target[column][row] = source[row][column]`. A stretch of
/// columns at a time, whose part of the target stays in the first-level cache from row to row.
fn transpose(source: &[f32], rows: usize, target: &mut [f32]) {
    let columns = source.len() / rows;
    let stretch = (TRANSPOSED / rows).max(1);
    for (index, target) in target[..source.len()].chunks_mut(stretch * rows).enumerate() {
        let first = index * stretch;
        for (row, source) in source.chunks_exact(columns).enumerate() {
            let source = &source[first..columns.min(first + stretch)];
            for (value, pixel) in source.iter().zip(target.chunks_exact_mut(rows)) {
                pixel[row] = *value;
            }
        }
    }
}
