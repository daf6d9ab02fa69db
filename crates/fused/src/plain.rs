//! Runs a chain as a sequence of a backend's own operators.

use burn::{
    backend::{
        Backend,
        ops::{ConvOptions, PadMode},
        tensor::FloatTensor,
    },
    tensor::{Shape, Slice},
};

use crate::plan::{Conv, Plan, Step};

/// Weights and bias of a convolution, in the shapes that burn's convolution expects.
#[derive(Clone, Debug)]
pub(crate) struct ConvWeights<B: Backend> {
    kernel: FloatTensor<B>,
    bias: FloatTensor<B>,
}

/// The weights of a chain, split by convolution.
#[derive(Clone, Debug)]
pub(crate) struct ChainWeights<B: Backend> {
    /// Constants to add to the channels of the input, `[1, channels, 1, 1]`.
    shift: Option<FloatTensor<B>>,
    /// One entry per convolution, in the order of the steps.
    convolutions: Vec<ConvWeights<B>>,
}

/// Splits the tensor that holds all weights of `plan` by convolution.
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
        .map(|(conv, channels)| ConvWeights {
            kernel: next_tensor(&[conv.output_channels, channels, conv.kernel, conv.kernel]),
            bias: next_tensor(&[conv.output_channels]),
        })
        .collect();
    ChainWeights { shift, convolutions }
}

/// Computes the output of `plan` for `input` `[batch, channels, height, width]`, with the weights of
/// [`split_weights`].
pub(crate) fn run<B: Backend>(
    plan: &Plan,
    input: FloatTensor<B>,
    weights: &ChainWeights<B>,
) -> FloatTensor<B> {
    let input = match &weights.shift {
        Some(shift) => B::float_add(input, shift.clone()),
        None => input,
    };
    let mut weights = RemainingWeights { weights: weights.convolutions.iter() };
    plan.steps.iter().fold(input, |map, step| match step {
        Step::Dense(conv) => weights.dense(conv, map, None),
        Step::Depthwise(conv) => weights.depthwise(conv, map),
        Step::InvertedResidual { expand, depthwise, project, add_input } => {
            let residual = add_input.then(|| map.clone());
            let expanded = match expand {
                Some(expand) => weights.dense(expand, map, None),
                None => map,
            };
            let filtered = weights.depthwise(depthwise, expanded);
            weights.dense(project, filtered, residual)
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

/// The weights of the convolutions that have not run yet.
struct RemainingWeights<'a, B: Backend> {
    weights: std::slice::Iter<'a, ConvWeights<B>>,
}

impl<B: Backend> RemainingWeights<'_, B> {
    fn dense(
        &mut self,
        conv: &Conv,
        input: FloatTensor<B>,
        residual: Option<FloatTensor<B>>,
    ) -> FloatTensor<B> {
        self.convolution(conv, 1, input, residual)
    }

    fn depthwise(&mut self, conv: &Conv, input: FloatTensor<B>) -> FloatTensor<B> {
        self.convolution(conv, conv.channels, input, None)
    }

    fn convolution(
        &mut self,
        conv: &Conv,
        groups: usize,
        input: FloatTensor<B>,
        residual: Option<FloatTensor<B>>,
    ) -> FloatTensor<B> {
        #[expect(clippy::expect_used, reason = "`split_weights` made one entry per convolution of the plan")]
        let ConvWeights { kernel, bias } = self.weights.next().expect("each convolution has weights").clone();
        let flat = shape_of::<B>(&input).num_dims() == 2;
        let input = if flat { add_plane::<B>(input) } else { input };
        let [top, left, bottom, right] = conv.pads;
        let (input, padding) = if (top, left) == (bottom, right) {
            (input, [top, left])
        } else {
            let pads = [(0, 0), (0, 0), (top, bottom), (left, right)];
            (B::float_pad(input, &pads, PadMode::Constant(0.0)), [0, 0])
        };
        let options = ConvOptions::new([conv.stride; 2], padding, [1, 1], groups);
        let mut output = B::conv2d(input, kernel, Some(bias), options);
        if flat {
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
fn add_plane<B: Backend>(rows: FloatTensor<B>) -> FloatTensor<B> {
    let [batch, channels] = [shape_of::<B>(&rows)[0], shape_of::<B>(&rows)[1]];
    B::float_reshape(rows, Shape::new([batch, channels, 1, 1]))
}
