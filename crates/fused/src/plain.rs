//! A chain by a backend's own operators.

use burn::{
    backend::{
        Backend,
        ops::{ConvOptions, PadMode},
        tensor::FloatTensor,
    },
    tensor::{Shape, Slice},
};

use crate::plan::{Conv, Plan, Step};

/// Weights and bias of a convolution, in the shapes that a backend takes.
#[derive(Clone, Debug)]
pub(crate) struct Weights<B: Backend> {
    kernel: FloatTensor<B>,
    bias: FloatTensor<B>,
}

/// All weights of a chain.
#[derive(Clone, Debug)]
pub(crate) struct AllWeights<B: Backend> {
    /// What is added to the channels of an image, `[1, channels, 1, 1]`.
    shift: Option<FloatTensor<B>>,
    /// In the order of the steps.
    convolutions: Vec<Weights<B>>,
}

/// The weights of `plan` from the tensor that has them all one after another.
pub(crate) fn split<B: Backend>(plan: &Plan, weights: FloatTensor<B>) -> AllWeights<B> {
    let mut taken = 0;
    let mut take = |shape: &[usize]| {
        let begin = taken;
        taken += shape.iter().product::<usize>();
        let range = Slice::from(begin..taken);
        B::float_reshape(B::float_slice(weights.clone(), &[range]), Shape::from(shape.to_vec()))
    };
    let shift = plan.shifted.then(|| take(&[1, plan.shift_len(), 1, 1]));
    let convolutions = plan.steps.iter().flat_map(Step::convolutions);
    let convolutions = convolutions
        .map(|(conv, channels)| Weights {
            kernel: take(&[conv.output_channels, channels, conv.kernel, conv.kernel]),
            bias: take(&[conv.output_channels]),
        })
        .collect();
    AllWeights { shift, convolutions }
}

/// The output of `plan` for `input` `[batch, channels, height, width]`, with its weights as [`split`]
/// gives them.
pub(crate) fn run<B: Backend>(plan: &Plan, input: FloatTensor<B>, weights: &AllWeights<B>) -> FloatTensor<B> {
    let input = match &weights.shift {
        Some(shift) => B::float_add(input, shift.clone()),
        None => input,
    };
    let mut weights = Remaining { weights: weights.convolutions.iter() };
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
            let [batch, channels] = [shape::<B>(&map)[0], shape::<B>(&map)[1]];
            B::float_reshape(map, Shape::new([batch, channels]))
        }
    })
}

fn shape<B: Backend>(tensor: &FloatTensor<B>) -> Shape {
    burn::backend::TensorMetadata::shape(tensor)
}

/// The weights of a chain, taken from front to back.
struct Remaining<'a, B: Backend> {
    weights: std::slice::Iter<'a, Weights<B>>,
}

impl<B: Backend> Remaining<'_, B> {
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
        #[expect(clippy::expect_used, reason = "the weights were split by the same steps")]
        let Weights { kernel, bias } = self.weights.next().expect("a convolution has weights").clone();
        // A row is a plane of one pixel to a convolution.
        let flat = shape::<B>(&input).num_dims() == 2;
        let input = if flat { with_plane::<B>(input) } else { input };
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
            let batch = shape::<B>(&output)[0];
            output = B::float_reshape(output, Shape::new([batch, conv.output_channels]));
        }
        if let Some(residual) = residual {
            output = B::float_add(output, residual);
        }
        // One bound at a time: burn-flex does both at once in a loop that is not vectorised.
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

fn with_plane<B: Backend>(rows: FloatTensor<B>) -> FloatTensor<B> {
    let [batch, channels] = [shape::<B>(&rows)[0], shape::<B>(&rows)[1]];
    B::float_reshape(rows, Shape::new([batch, channels, 1, 1]))
}
