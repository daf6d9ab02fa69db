//! Describes a chain, which is a sequence of layers that runs as one operator.
//!
//! A step of a chain is one layer or one block of layers.

/// A convolution with square kernels, followed by a clamp.
///
/// In the weights of a chain, the kernels of a convolution have the shape `[output channels][channels per
/// group][kernel rows][kernel columns]`. The bias follows them and has the shape `[output channels]`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Conv {
    /// Number of input channels.
    pub input_channels: usize,
    /// Number of output channels.
    pub output_channels: usize,
    /// Height and width of each kernel.
    pub kernel: usize,
    /// Distance in pixels between neighbouring kernel positions, both vertically and horizontally.
    pub stride: usize,
    /// Number of rows or columns of zeros at the top, left, bottom and right of the input.
    pub pads: [usize; 4],
    /// Lower and upper bound of the clamp.
    pub clamp: [f32; 2],
}

/// A step of a chain. The input of a step is the output of the previous step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Step {
    /// A convolution in which every output channel depends on every input channel. On a flattened input, it
    /// is a fully connected layer.
    Conv(Conv),
    /// A convolution in which every output channel depends on one input channel only.
    Depthwise(Conv),
    /// The inverted residual block of MobileNetV2: 1×1 convolution → depthwise convolution → 1×1 convolution.
    InvertedResidual {
        /// The first 1×1 convolution, which increases the number of channels. If it is `None`, the depthwise
        /// convolution reads the block's input.
        expand: Option<Conv>,
        /// The depthwise convolution.
        depthwise: Conv,
        /// The last 1×1 convolution, which reduces the number of channels.
        project: Conv,
        /// True if the block's input is added to the result of `project` before the clamp of `project`.
        add_input: bool,
    },
    /// Computes the mean of each channel over all pixels.
    GlobalAveragePool,
    /// Removes height and width, both of which must be 1. The output is one row of channels per image.
    Flatten,
}

/// The input shape and the steps of a chain.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Channels, height and width of the input.
    pub input: [usize; 3],
    /// True if a constant is added to each input channel before the first step. The constants are the first
    /// values of the chain's weights. The first step pads the shifted input with zeros, not with the
    /// constants.
    pub shifted: bool,
    /// The steps, in order.
    pub steps: Vec<Step>,
}

impl Conv {
    /// Returns the number of values in all kernels, without the bias.
    pub(crate) fn kernels_len(&self, channels_per_group: usize) -> usize {
        self.output_channels * channels_per_group * self.kernel * self.kernel
    }

    /// Returns the output size along one axis, with `pad_before` and `pad_after` elements of padding at the
    /// two ends of the input.
    ///
    /// If the kernel is larger than the padded input or the stride is 0, the result is meaningless, but the
    /// function does not panic. The constructors of the CPU kernels refuse such a convolution.
    fn output_size(&self, input_size: usize, pad_before: usize, pad_after: usize) -> usize {
        (input_size + pad_before + pad_after).saturating_sub(self.kernel) / self.stride.max(1) + 1
    }

    /// Returns the shape of the output for an input of shape `input_shape`. Both shapes are
    /// `[channels, height, width]`.
    pub(crate) fn output_shape(&self, input_shape: [usize; 3]) -> [usize; 3] {
        let [_, height, width] = input_shape;
        let [top, left, bottom, right] = self.pads;
        [self.output_channels, self.output_size(height, top, bottom), self.output_size(width, left, right)]
    }

    /// Returns true for a 1×1 kernel with stride 1 and no padding, which computes each pixel separately.
    pub(crate) fn is_pointwise(&self) -> bool {
        self.kernel == 1 && self.stride == 1 && self.pads == [0; 4]
    }
}

impl Step {
    /// Returns the shape of the output for an input of shape `input_shape`. Both shapes are
    /// `[channels, height, width]`.
    pub(crate) fn output_shape(&self, input_shape: [usize; 3]) -> [usize; 3] {
        match self {
            Self::Conv(conv) | Self::Depthwise(conv) => conv.output_shape(input_shape),
            Self::InvertedResidual { depthwise, project, .. } => {
                project.output_shape(depthwise.output_shape(input_shape))
            }
            Self::GlobalAveragePool => [input_shape[0], 1, 1],
            Self::Flatten => input_shape,
        }
    }

    /// Returns the convolutions in the order of their weights, each with its number of channels per group.
    pub(crate) fn convolutions(&self) -> impl Iterator<Item = (Conv, usize)> {
        let ungrouped = |conv: Conv| (conv, conv.input_channels);
        let convolutions = match *self {
            Self::Conv(conv) => [Some(ungrouped(conv)), None, None],
            Self::Depthwise(conv) => [Some((conv, 1)), None, None],
            Self::InvertedResidual { expand, depthwise, project, .. } => {
                [expand.map(ungrouped), Some((depthwise, 1)), Some(ungrouped(project))]
            }
            Self::GlobalAveragePool | Self::Flatten => [None; 3],
        };
        convolutions.into_iter().flatten()
    }
}

impl Plan {
    /// Returns the number of values in the chain's weights: shift constants, kernels and biases.
    #[must_use]
    pub fn weights_len(&self) -> usize {
        let convolutions = self.steps.iter().flat_map(Step::convolutions);
        let steps_len: usize = convolutions
            .map(|(conv, channels_per_group)| conv.kernels_len(channels_per_group) + conv.output_channels)
            .sum();
        self.shift_len() + steps_len
    }

    /// Returns the number of constants that are added to the input's channels.
    pub(crate) fn shift_len(&self) -> usize {
        if self.shifted { self.input[0] } else { 0 }
    }

    /// Returns true if the output has the shape `[batch, channels]`, without height and width.
    #[must_use]
    pub fn is_flat(&self) -> bool {
        self.steps.contains(&Step::Flatten)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_shape_and_weights_len_follow_from_the_steps() {
        let relu6 = [0.0, 6.0];
        let stem = Conv {
            input_channels: 3,
            output_channels: 8,
            kernel: 3,
            stride: 2,
            pads: [0, 0, 1, 1],
            clamp: relu6,
        };
        let depthwise = Conv { input_channels: 8, pads: [1; 4], stride: 1, ..stem };
        let project =
            Conv { input_channels: 8, output_channels: 4, kernel: 1, stride: 1, pads: [0; 4], ..stem };
        let block = Step::InvertedResidual { expand: None, depthwise, project, add_input: false };
        let plan = Plan {
            input: [3, 10, 9],
            shifted: true,
            steps: vec![Step::Conv(stem), block, Step::GlobalAveragePool, Step::Flatten],
        };
        assert_eq!(stem.output_shape(plan.input), [8, 5, 4]);
        let output_shape = plan.steps.iter().fold(plan.input, |shape, step| step.output_shape(shape));
        assert_eq!(output_shape, [4, 1, 1]);
        assert!(plan.is_flat());
        assert_eq!(plan.weights_len(), 3 + (8 * 3 * 9 + 8) + (8 * 9 + 8) + (4 * 8 + 4));
    }
}
