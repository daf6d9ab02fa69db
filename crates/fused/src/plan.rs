//! Defines the plan of a chain, which lists the chain's steps and their parameters.

/// A convolution and the clamp after it.
///
/// For each convolution, the chain's weights hold the kernels and then the bias. The kernels have the shape
/// `[output channels][channels per group][kernel rows][kernel columns]`, and the bias `[output channels]`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Conv {
    /// Number of input channels.
    pub channels: usize,
    /// Number of output channels.
    pub output_channels: usize,
    /// Height of the kernel, which equals its width.
    pub kernel: usize,
    /// Distance in pixels between two positions of the kernel, in both directions.
    pub stride: usize,
    /// Numbers of rows or columns of zeros around the input, at the top, left, bottom and right.
    pub pads: [usize; 4],
    /// Lower and upper bound of the output values.
    pub clamp: [f32; 2],
}

/// A step of a chain, which computes a feature map from the previous feature map.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Step {
    /// A convolution in which every output channel depends on every input channel; on a flat input, a fully
    /// connected layer.
    Dense(Conv),
    /// A convolution in which every output channel depends on one input channel only.
    Depthwise(Conv),
    /// Expand (1×1, dense) → depthwise → project (1×1, dense). The block's input may be added to the result
    /// before its clamp.
    InvertedResidual {
        /// The first convolution; `None` if the depthwise convolution reads the block's input.
        expand: Option<Conv>,
        /// The depthwise convolution.
        depthwise: Conv,
        /// The last convolution.
        project: Conv,
        /// True if the block's input is added to its output.
        add_input: bool,
    },
    /// The step computes the mean of each channel.
    GlobalAveragePool,
    /// The step removes the height and the width, which are both 1, so that each image becomes one row.
    Flatten,
}

/// The input shape and the steps of a chain.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Channels, height and width of the input.
    pub input: [usize; 3],
    /// True if a constant is added to each input channel before the first step. The constants are the first
    /// of the chain's weights. The constants are not added to the padding of the first step, which is zero.
    pub shifted: bool,
    /// The steps, in order.
    pub steps: Vec<Step>,
}

impl Conv {
    /// Returns the number of values of the kernels, which is the number of weights without the bias.
    pub(crate) fn weights_len(&self, channels_per_group: usize) -> usize {
        self.output_channels * channels_per_group * self.kernel * self.kernel
    }

    /// Returns the output size along one axis.
    fn output_size(&self, size: usize, before: usize, after: usize) -> usize {
        (size + before + after).saturating_sub(self.kernel) / self.stride.max(1) + 1
    }

    /// Returns `[channels, height, width]` of the output for an input of this shape.
    pub(crate) fn output_shape(&self, [_, height, width]: [usize; 3]) -> [usize; 3] {
        let [top, left, bottom, right] = self.pads;
        [self.output_channels, self.output_size(height, top, bottom), self.output_size(width, left, right)]
    }

    /// Returns true if each output pixel depends on one input pixel and no pixel is skipped.
    pub(crate) fn is_pointwise(&self) -> bool {
        self.kernel == 1 && self.stride == 1 && self.pads == [0; 4]
    }
}

impl Step {
    /// Returns `[channels, height, width]` of the output for an input of this shape.
    pub(crate) fn output_shape(&self, input: [usize; 3]) -> [usize; 3] {
        match self {
            Self::Dense(conv) | Self::Depthwise(conv) => conv.output_shape(input),
            Self::InvertedResidual { depthwise, project, .. } => {
                project.output_shape(depthwise.output_shape(input))
            }
            Self::GlobalAveragePool => [input[0], 1, 1],
            Self::Flatten => input,
        }
    }

    /// Returns the convolutions in the order of their weights, each with its number of channels per group.
    pub(crate) fn convolutions(&self) -> impl Iterator<Item = (Conv, usize)> {
        let dense = |conv: Conv| (conv, conv.channels);
        let convolutions = match *self {
            Self::Dense(conv) => [Some(dense(conv)), None, None],
            Self::Depthwise(conv) => [Some((conv, 1)), None, None],
            Self::InvertedResidual { expand, depthwise, project, .. } => {
                [expand.map(dense), Some((depthwise, 1)), Some(dense(project))]
            }
            Self::GlobalAveragePool | Self::Flatten => [None; 3],
        };
        convolutions.into_iter().flatten()
    }
}

impl Plan {
    /// Returns the number of values in the chain's weights.
    #[must_use]
    pub fn weights_len(&self) -> usize {
        let convolutions = self.steps.iter().flat_map(Step::convolutions);
        let steps_len: usize = convolutions
            .map(|(conv, channels_per_group)| conv.weights_len(channels_per_group) + conv.output_channels)
            .sum();
        self.shift_len() + steps_len
    }

    /// Returns the number of constants that are added to the input's channels.
    pub(crate) fn shift_len(&self) -> usize {
        if self.shifted { self.input[0] } else { 0 }
    }

    /// Returns true if the output is one row per image and not a feature map.
    #[must_use]
    pub fn is_flat(&self) -> bool {
        self.steps.contains(&Step::Flatten)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plan_adds_up_shapes_and_weights_of_its_steps() {
        let relu6 = [0.0, 6.0];
        let stem =
            Conv { channels: 3, output_channels: 8, kernel: 3, stride: 2, pads: [0, 0, 1, 1], clamp: relu6 };
        let depthwise = Conv { channels: 8, pads: [1; 4], stride: 1, ..stem };
        let project = Conv { channels: 8, output_channels: 4, kernel: 1, stride: 1, pads: [0; 4], ..stem };
        let block = Step::InvertedResidual { expand: None, depthwise, project, add_input: false };
        let plan = Plan {
            input: [3, 10, 9],
            shifted: true,
            steps: vec![Step::Dense(stem), block, Step::GlobalAveragePool, Step::Flatten],
        };
        assert_eq!(stem.output_shape(plan.input), [8, 5, 4]);
        let output = plan.steps.iter().fold(plan.input, |shape, step| step.output_shape(shape));
        assert_eq!(output, [4, 1, 1]);
        assert!(plan.is_flat());
        assert_eq!(plan.weights_len(), 3 + (8 * 3 * 9 + 8) + (8 * 9 + 8) + (4 * 8 + 4));
    }
}
