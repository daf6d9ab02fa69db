//! Reads and stores the weights of a convolution, and folds scales and shifts per channel into them.

use onnx_proto::GraphProto;

use super::proto::{self, NodeExt, float_tensor};

/// One affine function per channel: `y = scale * x + shift`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Affine {
    pub(super) scale: Vec<f64>,
    pub(super) shift: Vec<f64>,
}

impl Affine {
    pub(super) fn identity(channel_count: usize) -> Self {
        Self { scale: vec![1.0; channel_count], shift: vec![0.0; channel_count] }
    }

    /// Returns the function that applies `self` first and then `next`.
    pub(super) fn then(&self, next: &Self) -> Self {
        let scales = self.scale.iter().zip(&next.scale);
        let shifts = self.shift.iter().zip(next.scale.iter().zip(&next.shift));
        Self {
            scale: scales.map(|(first, second)| first * second).collect(),
            shift: shifts.map(|(first, (scale, shift))| first * scale + shift).collect(),
        }
    }
}

/// The weights and biases of a convolution, as f64.
pub(super) struct ConvWeights {
    /// The values of all kernels, laid out as `dims` states.
    weights: Vec<f64>,
    /// One bias per output channel.
    biases: Vec<f64>,
    /// `[output channels, input channels / groups, height, width]`.
    dims: Vec<i64>,
    group_count: usize,
}

impl ConvWeights {
    /// Reads the weights of the Conv node `index`.
    ///
    /// Returns `None` if the weights are not constants or the kernel does not have two dimensions.
    pub(super) fn read(graph: &GraphProto, index: usize) -> Option<Self> {
        let node = &graph.node[index];
        let tensor = proto::initializer(graph, node.input.get(1)?)?;
        let weights: Vec<f64> = proto::floats(tensor)?.into_iter().map(f64::from).collect();
        let output_channels = usize::try_from(*tensor.dims.first()?).ok()?;
        let biases = match node.input.get(2).filter(|name| !name.is_empty()) {
            Some(name) => {
                proto::floats(proto::initializer(graph, name)?)?.into_iter().map(f64::from).collect()
            }
            None => vec![0.0; output_channels],
        };
        let is_valid = tensor.dims.len() == 4 && tensor.dims.iter().product::<i64>() == to_i64(weights.len());
        (is_valid && output_channels > 0 && biases.len() == output_channels).then(|| Self {
            weights,
            biases,
            dims: tensor.dims.clone(),
            group_count: node.int("group").and_then(|groups| usize::try_from(groups).ok()).unwrap_or(1),
        })
    }

    pub(super) fn output_channels(&self) -> usize {
        self.biases.len()
    }

    fn input_channels_per_group(&self) -> usize {
        usize::try_from(self.dims[1]).unwrap_or(0)
    }

    pub(super) fn input_channels(&self) -> usize {
        self.input_channels_per_group() * self.group_count
    }

    /// Returns the weights of a convolution that equals this one followed by `affine`.
    pub(super) fn with_affine_after(mut self, affine: &Affine) -> Self {
        let weights_per_output = self.weights.len() / self.output_channels();
        for (weights, scale) in self.weights.chunks_mut(weights_per_output).zip(&affine.scale) {
            weights.iter_mut().for_each(|weight| *weight *= scale);
        }
        for (bias, (scale, shift)) in self.biases.iter_mut().zip(affine.scale.iter().zip(&affine.shift)) {
            *bias = *bias * scale + shift;
        }
        self
    }

    /// Returns the weights of a convolution that equals this one preceded by `affine`.
    ///
    /// If the convolution pads its input, every shift of `affine` must be 0. The zeros of the padding are
    /// inserted after `affine` and are not shifted, but a shift that is folded into the biases would have the
    /// effect of shifting them, too.
    pub(super) fn with_affine_before(mut self, affine: &Affine) -> Self {
        let inputs_per_group = self.input_channels_per_group();
        let outputs_per_group = self.output_channels() / self.group_count;
        let kernel_len = self.weights.len() / self.output_channels() / inputs_per_group;
        for (index, kernel) in self.weights.chunks_mut(kernel_len).enumerate() {
            let output_channel = index / inputs_per_group;
            let group = output_channel / outputs_per_group;
            let input_channel = group * inputs_per_group + index % inputs_per_group;
            self.biases[output_channel] += affine.shift[input_channel] * kernel.iter().sum::<f64>();
            kernel.iter_mut().for_each(|weight| *weight *= affine.scale[input_channel]);
        }
        self
    }

    /// Stores these weights as the inputs of the Conv node `index`.
    ///
    /// The new constants get new names, because other nodes may still use the old constants.
    pub(super) fn store(self, graph: &mut GraphProto, index: usize) {
        let output = graph.node[index].output[0].clone();
        let (weights, biases): (Vec<f32>, Vec<f32>) =
            (self.weights.into_iter().map(to_f32).collect(), self.biases.into_iter().map(to_f32).collect());
        let weight_name = proto::fresh_name(graph, &format!("{output}_weight"));
        graph.initializer.push(float_tensor(&weight_name, &self.dims, &weights));
        let bias_name = proto::fresh_name(graph, &format!("{output}_bias"));
        graph.initializer.push(float_tensor(&bias_name, &self.dims[..1], &biases));
        let input = graph.node[index].input[0].clone();
        graph.node[index].input = vec![input, weight_name, bias_name];
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the folded weights are rounded to f32 once, here")]
pub(super) fn to_f32(value: f64) -> f32 {
    value as f32
}

pub(super) fn to_i64(length: usize) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}
