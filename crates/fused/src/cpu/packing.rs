//! Packs the weights of a plan for the kernels.

use cnn_kernels::{
    Clamp, Depthwise, FirstConv, InvertedResidual, Isa, PackedConv1x1, Pads, ShapeError, Size, Window,
};

use super::{Operator, PackedStep};
use crate::plan::{Conv, Step};

/// Packs the weights of a plan, one step at a time.
pub(super) struct Packer<'a> {
    pub(super) isa: Isa,
    /// The weights of the convolutions that are not packed yet.
    pub(super) remaining_weights: &'a [f32],
}

impl<'a> Packer<'a> {
    /// Packs a step for an input of shape `[channels, height, width]`.
    ///
    /// Returns `None` for a step that only reshapes its input and therefore needs no computation.
    pub(super) fn pack_step(
        &mut self,
        step: &Step,
        input_shape: [usize; 3],
    ) -> Result<Option<PackedStep>, ShapeError> {
        let [channels, height, width] = step.output_shape(input_shape);
        let (operator, unit_count) = match step {
            Step::Conv(conv) if conv.is_pointwise() => {
                (Operator::Conv1x1(self.pack_conv1x1(conv)?), height * width)
            }
            Step::Conv(conv) => {
                let (weights, bias) = self.take_weights(conv, conv.input_channels);
                let window = window_of(conv, input_shape)?;
                let conv =
                    FirstConv::new(self.isa, window, conv.input_channels, weights, bias, clamp_of(conv))?;
                (Operator::FirstConv(conv), height)
            }
            Step::Depthwise(conv) => (Operator::Depthwise(self.pack_depthwise(conv, input_shape)?), height),
            Step::InvertedResidual { expand, depthwise, project, add_input } => {
                let expand = expand.as_ref().map(|expand| self.pack_conv1x1(expand)).transpose()?;
                let depthwise = self.pack_depthwise(depthwise, input_shape)?;
                let project = self.pack_conv1x1(project)?;
                let block = InvertedResidual::new(expand, depthwise, project, *add_input)?;
                (Operator::InvertedResidual(Box::new(block)), height)
            }
            Step::GlobalAveragePool => (Operator::GlobalAveragePool, 1),
            Step::Flatten => return Ok(None),
        };
        let output_len = channels * height * width;
        Ok(Some(PackedStep {
            operator,
            input_len: input_shape.iter().product(),
            unit_count,
            unit_len: output_len / unit_count,
        }))
    }

    fn pack_conv1x1(&mut self, conv: &Conv) -> Result<PackedConv1x1, ShapeError> {
        let (weights, bias) = self.take_weights(conv, conv.input_channels);
        PackedConv1x1::new(self.isa, conv.input_channels, weights, bias, clamp_of(conv))
    }

    fn pack_depthwise(&mut self, conv: &Conv, input_shape: [usize; 3]) -> Result<Depthwise, ShapeError> {
        let (weights, bias) = self.take_weights(conv, 1);
        Depthwise::new(self.isa, window_of(conv, input_shape)?, weights, bias, clamp_of(conv))
    }

    /// Removes and returns the kernels and the bias of the next convolution.
    fn take_weights(&mut self, conv: &Conv, channels_per_group: usize) -> (&'a [f32], &'a [f32]) {
        let (kernels, rest) = self.remaining_weights.split_at(conv.kernels_len(channels_per_group));
        let (bias, rest) = rest.split_at(conv.output_channels);
        self.remaining_weights = rest;
        (kernels, bias)
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
