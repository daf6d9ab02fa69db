//! Runs a chain with the backend's own operators, one after another.

use burn::{
    backend::{
        Backend,
        ops::{ConvOptions, PadMode},
        tensor::FloatTensor,
    },
    tensor::{Shape, Slice},
};

use crate::plan::{Conv, Plan, Step};

/// Kernels and bias of a convolution, in the shapes that burn's convolution expects.
#[derive(Clone, Debug)]
pub(crate) struct ConvWeights<B: Backend> {
    kernels: FloatTensor<B>,
    bias: FloatTensor<B>,
}

/// The weights of a chain as separate tensors.
#[derive(Clone, Debug)]
pub(crate) struct ChainWeights<B: Backend> {
    /// Constants that are added to the input channels, of shape `[1, channels, 1, 1]`; `None` if the plan
    /// adds none.
    shift: Option<FloatTensor<B>>,
    /// One entry per convolution, in the order of the steps.
    convolutions: Vec<ConvWeights<B>>,
}

/// Splits `weights`, which holds all weights of `plan`, into separate tensors.
pub(crate) fn split_weights<B: Backend>(plan: &Plan, weights: FloatTensor<B>) -> ChainWeights<B> {
    let mut offset = 0;
    let mut next_tensor = |shape: &[usize]| {
        let begin = offset;
        offset += shape.iter().product::<usize>();
        let range = Slice::from(begin..offset);
        B::float_reshape(B::float_slice(weights.clone(), &[range]), Shape::from(shape.to_vec()))
    };
    let shift = plan.shifted.then(|| next_tensor(&[1, plan.shift_len(), 1, 1]));
    let convolutions = plan.steps.iter().flat_map(Step::convolutions);
    let convolutions = convolutions
        .map(|(conv, channels_per_group)| ConvWeights {
            kernels: next_tensor(&[conv.output_channels, channels_per_group, conv.kernel, conv.kernel]),
            bias: next_tensor(&[conv.output_channels]),
        })
        .collect();
    ChainWeights { shift, convolutions }
}

/// Runs the steps of `plan` on `input` of shape `[batch, channels, height, width]`.
///
/// `weights` is the result of [`split_weights`] for `plan`.
pub(crate) fn run<B: Backend>(
    plan: &Plan,
    input: FloatTensor<B>,
    weights: &ChainWeights<B>,
) -> FloatTensor<B> {
    let input = match &weights.shift {
        Some(shift) => B::float_add(input, shift.clone()),
        None => input,
    };
    let mut convolutions = ConvolutionRunner { remaining_weights: weights.convolutions.iter() };
    plan.steps.iter().fold(input, |map, step| match step {
        Step::Conv(conv) => convolutions.run_conv(conv, map, None),
        Step::Depthwise(conv) => convolutions.run_depthwise(conv, map),
        Step::InvertedResidual { expand, depthwise, project, add_input } => {
            let residual = add_input.then(|| map.clone());
            let expanded = match expand {
                Some(expand) => convolutions.run_conv(expand, map, None),
                None => map,
            };
            let filtered = convolutions.run_depthwise(depthwise, expanded);
            convolutions.run_conv(project, filtered, residual)
        }
        Step::GlobalAveragePool => B::adaptive_avg_pool2d(map, [1, 1]),
        Step::Flatten => {
            let [batch, channels] = [shape_of::<B>(&map)[0], shape_of::<B>(&map)[1]];
            B::float_reshape(map, Shape::new([batch, channels]))
        }
    })
}

fn shape_of<B: Backend>(tensor: &FloatTensor<B>) -> Shape {
    burn::backend::TensorMetadata::shape(tensor)
}

/// Runs the convolutions of a chain in the order of their weights.
struct ConvolutionRunner<'a, B: Backend> {
    /// The weights of the convolutions that have not run yet.
    remaining_weights: std::slice::Iter<'a, ConvWeights<B>>,
}

impl<B: Backend> ConvolutionRunner<'_, B> {
    fn run_conv(
        &mut self,
        conv: &Conv,
        input: FloatTensor<B>,
        residual: Option<FloatTensor<B>>,
    ) -> FloatTensor<B> {
        self.run_grouped_conv(conv, 1, input, residual)
    }

    fn run_depthwise(&mut self, conv: &Conv, input: FloatTensor<B>) -> FloatTensor<B> {
        self.run_grouped_conv(conv, conv.input_channels, input, None)
    }

    /// Runs a convolution with `group_count` groups. The residual, if any, is added before the clamp.
    fn run_grouped_conv(
        &mut self,
        conv: &Conv,
        group_count: usize,
        input: FloatTensor<B>,
        residual: Option<FloatTensor<B>>,
    ) -> FloatTensor<B> {
        #[expect(clippy::expect_used, reason = "`split_weights` made one entry per convolution of the plan")]
        let ConvWeights { kernels, bias } =
            self.remaining_weights.next().expect("each convolution has weights").clone();
        let is_flat = shape_of::<B>(&input).num_dims() == 2;
        let input = if is_flat { add_spatial_dims::<B>(input) } else { input };
        let [top, left, bottom, right] = conv.pads;
        let (input, padding) = if (top, left) == (bottom, right) {
            (input, [top, left])
        } else {
            // burn's convolution pads opposite sides equally, so a separate operator adds unequal padding.
            let pads = [(0, 0), (0, 0), (top, bottom), (left, right)];
            (B::float_pad(input, &pads, PadMode::Constant(0.0)), [0, 0])
        };
        let options = ConvOptions::new([conv.stride; 2], padding, [1, 1], group_count);
        let mut output = B::conv2d(input, kernels, Some(bias), options);
        if is_flat {
            let batch = shape_of::<B>(&output)[0];
            output = B::float_reshape(output, Shape::new([batch, conv.output_channels]));
        }
        if let Some(residual) = residual {
            output = B::float_add(output, residual);
        }
        // Each bound is applied separately, because burn-flex's operator for both bounds is not vectorised.
        let [lo, hi] = conv.clamp;
        if lo > f32::NEG_INFINITY {
            output = B::float_clamp_min(output, lo.into());
        }
        if hi < f32::INFINITY {
            output = B::float_clamp_max(output, hi.into());
        }
        output
    }
}

/// Reshapes `[batch, channels]` to `[batch, channels, 1, 1]`, so that a fully connected layer can run as a
/// convolution.
fn add_spatial_dims<B: Backend>(input: FloatTensor<B>) -> FloatTensor<B> {
    let [batch, channels] = [shape_of::<B>(&input)[0], shape_of::<B>(&input)[1]];
    B::float_reshape(input, Shape::new([batch, channels, 1, 1]))
}
