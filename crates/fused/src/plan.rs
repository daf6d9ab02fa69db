//! What a chain computes, step by step.

/// A convolution and the clamp after it. Its weights are `[output channels][channels of a group][kernel
/// rows][kernel columns]`, then the bias `[output channels]`, in the chain's weights.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Conv {
    /// Channels of the input.
    pub channels: usize,
    /// Channels of the output.
    pub output_channels: usize,
    /// Height and width of the kernel.
    pub kernel: usize,
    /// Step of the kernel.
    pub stride: usize,
    /// Zeros around the input: top, left, bottom, right.
    pub pads: [usize; 4],
    /// Smallest and largest value that comes out.
    pub clamp: [f32; 2],
}

/// A step of a chain, from one feature map to the next.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Step {
    /// Every output channel sees every input channel. On a plane of one pixel, a fully connected layer.
    Dense(Conv),
    /// Every channel by itself.
    Depthwise(Conv),
    /// Expand (1×1, dense) → depthwise → project (1×1, dense) (+ the block's input, before the clamp).
    InvertedResidual {
        /// Absent where the depthwise convolution reads the input itself.
        expand: Option<Conv>,
        /// The convolution by channel.
        depthwise: Conv,
        /// The convolution to the block's output.
        project: Conv,
        /// Whether the block's input is added.
        add_input: bool,
    },
    /// The mean of each channel.
    GlobalAveragePool,
    /// A plane of one pixel becomes a row.
    Flatten,
}

/// A chain of steps.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Channels, height and width of an image at the beginning.
    pub input: [usize; 3],
    /// Whether a constant is added to each of its channels before the steps, which padding is not part of.
    /// The constants are the first of the chain's weights.
    pub shifted: bool,
    /// What is done to it.
    pub steps: Vec<Step>,
}

impl Conv {
    /// Weights without the bias, in groups of `channels_of_group` channels.
    pub(crate) fn weights_len(&self, channels_of_group: usize) -> usize {
        self.output_channels * channels_of_group * self.kernel * self.kernel
    }

    fn output(&self, size: usize, before: usize, after: usize) -> usize {
        (size + before + after).saturating_sub(self.kernel) / self.stride.max(1) + 1
    }

    /// `[channels, height, width]` after this convolution of an image of `input`.
    pub(crate) fn shape(&self, [_, height, width]: [usize; 3]) -> [usize; 3] {
        let [top, left, bottom, right] = self.pads;
        [self.output_channels, self.output(height, top, bottom), self.output(width, left, right)]
    }

    /// Whether it looks at one pixel only and at each of them.
    pub(crate) fn is_pointwise(&self) -> bool {
        self.kernel == 1 && self.stride == 1 && self.pads == [0; 4]
    }
}

impl Step {
    /// `[channels, height, width]` after this step.
    pub(crate) fn shape(&self, input: [usize; 3]) -> [usize; 3] {
        match self {
            Self::Dense(conv) | Self::Depthwise(conv) => conv.shape(input),
            Self::InvertedResidual { depthwise, project, .. } => project.shape(depthwise.shape(input)),
            Self::GlobalAveragePool => [input[0], 1, 1],
            Self::Flatten => input,
        }
    }

    /// Its convolutions in the order of their weights, with the channels of a group.
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
    /// Numbers in the chain's weights.
    #[must_use]
    pub fn weights_len(&self) -> usize {
        let convolutions = self.steps.iter().flat_map(Step::convolutions);
        let of_steps: usize =
            convolutions.map(|(conv, group)| conv.weights_len(group) + conv.output_channels).sum();
        self.shift_len() + of_steps
    }

    /// Constants that are added to the channels of an image.
    pub(crate) fn shift_len(&self) -> usize {
        if self.shifted { self.input[0] } else { 0 }
    }

    /// `[channels, height, width]` at the end.
    #[must_use]
    pub fn output(&self) -> [usize; 3] {
        self.steps.iter().fold(self.input, |shape, step| step.shape(shape))
    }

    /// Whether the end is a row for each image, and not a plane for each channel.
    #[must_use]
    pub fn is_flat(&self) -> bool {
        self.steps.contains(&Step::Flatten)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_and_weights_follow_the_steps() {
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
        assert_eq!(stem.shape(plan.input), [8, 5, 4]);
        assert_eq!(plan.output(), [4, 1, 1]);
        assert!(plan.is_flat());
        assert_eq!(plan.weights_len(), 3 + (8 * 3 * 9 + 8) + (8 * 9 + 8) + (4 * 8 + 4));
    }
}
