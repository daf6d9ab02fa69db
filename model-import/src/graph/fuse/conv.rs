//! Reads the convolutions and fully connected layers that the crate `fused` supports.
//!
//! In a depthwise convolution, every output channel depends only on the input channel with the same index. In
//! any other supported convolution, it depends on every input channel.

use onnx_proto::{GraphProto, NodeProto};

use super::super::proto::{self, NodeExt};
use super::super::shapes::{Dim, Shapes};

use Dim::{Batch, Known};

/// A convolution or fully connected layer, with the activation after it.
pub(super) struct Conv {
    pub(super) input_channels: i64,
    pub(super) output_channels: i64,
    /// Height of the kernel, which equals its width.
    pub(super) kernel: i64,
    pub(super) stride: i64,
    /// Padding at the top, left, bottom and right.
    pub(super) pads: [i64; 4],
    /// Lower and upper bound of the activation.
    pub(super) clamp: [f32; 2],
    pub(super) is_depthwise: bool,
    /// The weights of the kernels, followed by one bias per output channel.
    pub(super) weights: Vec<f32>,
    /// Name of the output value.
    pub(super) output: String,
    /// Index of the convolution's node and, if there is an activation, the index of its node.
    pub(super) node_indices: Vec<usize>,
}

impl Conv {
    /// Returns true for a 1×1 convolution with stride 1 and without padding that is not depthwise.
    pub(super) fn is_pointwise(&self) -> bool {
        self.kernel == 1 && self.stride == 1 && self.pads == [0; 4] && !self.is_depthwise
    }

    /// Returns the Rust expression of the corresponding `fused::Conv`.
    pub(super) fn to_rust(&self) -> String {
        let Self { input_channels, output_channels, kernel, stride, pads, clamp, .. } = self;
        let format_bound = |value: f32| {
            if value == f32::INFINITY {
                "f32::INFINITY".into()
            } else if value == f32::NEG_INFINITY {
                "f32::NEG_INFINITY".into()
            } else {
                format!("{value:?}")
            }
        };
        let clamp = clamp.map(format_bound).join(", ");
        format!(
            "fused::Conv {{ input_channels: {input_channels}, output_channels: {output_channels}, \
             kernel: {kernel}, stride: {stride}, pads: {pads:?}, clamp: [{clamp}] }}"
        )
    }
}

/// Returns `[channels, height, width]` of a value, or `None` if the value is not a feature map.
pub(super) fn feature_map_shape(shapes: &Shapes, value: &str) -> Option<[i64; 3]> {
    match shapes.shape(value)? {
        [Batch, Known(channels), Known(height), Known(width)] => Some([*channels, *height, *width]),
        _ => None,
    }
}

/// The bounds of a convolution without an activation.
pub(super) const UNBOUNDED: [f32; 2] = [f32::NEG_INFINITY, f32::INFINITY];

/// Finds the Relu or Clip that is the only user of `value`, and returns its index and its bounds.
pub(super) fn find_activation(graph: &GraphProto, value: &str) -> Option<(usize, [f32; 2])> {
    let index = proto::only_user(graph, value)?;
    let node = &graph.node[index];
    match node.op_type.as_str() {
        "Relu" => Some((index, [0.0, f32::INFINITY])),
        "Clip" => {
            let lower = read_clip_bound(graph, node, 1, "min")?;
            let upper = read_clip_bound(graph, node, 2, "max")?;
            Some((index, [lower, upper]))
        }
        _ => None,
    }
}

/// Returns a bound of a Clip.
///
/// The bound is the attribute `name` before opset 11, and the input with the index `input_index` since then.
/// The index is 1 for the lower bound and 2 for the upper bound.
fn read_clip_bound(graph: &GraphProto, node: &NodeProto, input_index: usize, name: &str) -> Option<f32> {
    let default = UNBOUNDED[input_index - 1];
    match node.input.get(input_index).filter(|input| !input.is_empty()) {
        Some(input) => match proto::floats(proto::initializer(graph, input)?)?.as_slice() {
            [value] => Some(*value),
            _ => None,
        },
        None => Some(node.float(name).unwrap_or(default)),
    }
}

/// Reads the convolution or fully connected layer that is the node `index`, with the activation after it.
///
/// Returns `None` if the node is not such a layer, if its input is not `value`, or if the crate `fused` does
/// not support the layer.
pub(super) fn read_conv(graph: &GraphProto, shapes: &Shapes, index: usize, value: &str) -> Option<Conv> {
    let node = &graph.node[index];
    if node.input.first().is_none_or(|input| input != value) {
        return None;
    }
    let mut conv = match node.op_type.as_str() {
        "Conv" => read_convolution(graph, shapes, node, index)?,
        "Gemm" => read_fully_connected(graph, shapes, node, index)?,
        _ => return None,
    };
    if let Some((activation_index, clamp)) = find_activation(graph, &conv.output) {
        conv.clamp = clamp;
        conv.output.clone_from(&graph.node[activation_index].output[0]);
        conv.node_indices.push(activation_index);
    }
    Some(conv)
}

fn read_convolution(graph: &GraphProto, shapes: &Shapes, node: &NodeProto, index: usize) -> Option<Conv> {
    let [input_channels, height, width] = feature_map_shape(shapes, node.input.first()?)?;
    let [output_channels, output_height, output_width] = feature_map_shape(shapes, node.output.first()?)?;
    let weights = proto::initializer(graph, node.input.get(1)?)?;
    let [kernel_count, inputs_per_group, kernel, kernel_width] = *weights.dims.as_slice() else {
        return None;
    };
    let values = proto::floats(weights)?;
    let groups = node.int("group").unwrap_or(1);
    let strides = node.ints("strides").unwrap_or(&[1, 1]).to_vec();
    let [stride, stride_width] = *strides.as_slice() else {
        return None;
    };
    let is_dilated =
        node.ints("dilations").is_some_and(|dilations| dilations.iter().any(|dilation| *dilation != 1));
    let is_depthwise = groups > 1;
    let is_supported = values.len() == value_count(&weights.dims)
        && kernel == kernel_width
        && stride == stride_width
        && !is_dilated
        && kernel_count == output_channels
        && if is_depthwise {
            groups == input_channels
                && kernel_count == input_channels
                && inputs_per_group == 1
                && matches!((kernel, stride), (3 | 5, 1 | 2))
        } else {
            groups == 1 && inputs_per_group == input_channels
        };
    if !is_supported {
        return None;
    }
    let pads = read_pads(node, [height, width], [output_height, output_width], kernel, stride)?;
    Some(Conv {
        input_channels,
        output_channels,
        kernel,
        stride,
        pads,
        clamp: UNBOUNDED,
        is_depthwise,
        weights: append_bias(graph, node, values, output_channels)?,
        output: node.output[0].clone(),
        node_indices: vec![index],
    })
}

/// Returns the padding at the top, left, bottom and right, from `pads` or `auto_pad`.
///
/// Both sizes are `[height, width]`. Returns `None` if the padding does not lead to an output of
/// `output_size`.
fn read_pads(
    node: &NodeProto,
    input_size: [i64; 2],
    output_size: [i64; 2],
    kernel: i64,
    stride: i64,
) -> Option<[i64; 4]> {
    let explicit_pads = match node.ints("pads") {
        Some([top, left, bottom, right]) => [*top, *left, *bottom, *right],
        Some(_) => return None,
        None => [0; 4],
    };
    // SAME_UPPER and SAME_LOWER pad as much as the output's size requires. If the padding of an axis is odd,
    // SAME_UPPER puts the extra row or column at the bottom or right, and SAME_LOWER at the top or left.
    let same_pads = |extra_at_end: bool| {
        let [vertical, horizontal] =
            [0, 1].map(|axis: usize| ((output_size[axis] - 1) * stride + kernel - input_size[axis]).max(0));
        let before = |total: i64| if extra_at_end { total / 2 } else { total - total / 2 };
        let (top, left) = (before(vertical), before(horizontal));
        [top, left, vertical - top, horizontal - left]
    };
    let pads = match node.text("auto_pad").as_deref() {
        None | Some("" | "NOTSET") => explicit_pads,
        Some("VALID") => [0; 4],
        Some("SAME_UPPER") => same_pads(true),
        Some("SAME_LOWER") => same_pads(false),
        Some(_) => return None,
    };
    let padded_output_size =
        |axis: usize, before: i64, after: i64| (input_size[axis] + before + after - kernel) / stride + 1;
    let [top, left, bottom, right] = pads;
    let is_consistent = pads.iter().all(|pad| *pad >= 0)
        && input_size.iter().all(|size| *size > 0)
        && [padded_output_size(0, top, bottom), padded_output_size(1, left, right)] == output_size;
    is_consistent.then_some(pads)
}

/// Reads a fully connected layer, which is a Gemm with a constant matrix, as a 1×1 convolution.
///
/// Each row of the input belongs to one image. The convolution treats the row as a feature map of one pixel.
fn read_fully_connected(graph: &GraphProto, shapes: &Shapes, node: &NodeProto, index: usize) -> Option<Conv> {
    let [Batch, Known(input_channels)] = shapes.shape(node.input.first()?)? else {
        return None;
    };
    let matrix = proto::initializer(graph, node.input.get(1)?)?;
    let [rows, columns] = *matrix.dims.as_slice() else {
        return None;
    };
    let values = proto::floats(matrix)?;
    let values_match_dims = values.len() == value_count(&matrix.dims);
    let (output_channels, weights) = match node.int("transB").unwrap_or(0) {
        0 => (columns, transpose(&values, usize::try_from(columns).ok()?)),
        _ => (rows, values),
    };
    let is_supported = values_match_dims
        && node.int("transA").unwrap_or(0) == 0
        && node.float("alpha").unwrap_or(1.0) == 1.0
        && node.float("beta").unwrap_or(1.0) == 1.0
        && rows * columns == input_channels * output_channels;
    if !is_supported {
        return None;
    }
    Some(Conv {
        input_channels: *input_channels,
        output_channels,
        kernel: 1,
        stride: 1,
        pads: [0; 4],
        clamp: UNBOUNDED,
        is_depthwise: false,
        weights: append_bias(graph, node, weights, output_channels)?,
        output: node.output[0].clone(),
        node_indices: vec![index],
    })
}

/// Returns the number of values in a tensor with these dimensions.
fn value_count(dims: &[i64]) -> usize {
    dims.iter().product::<i64>().try_into().unwrap_or(usize::MAX)
}

fn transpose(values: &[f32], column_count: usize) -> Vec<f32> {
    let column_values = |column: usize| values.iter().skip(column).step_by(column_count).copied();
    (0..column_count).flat_map(column_values).collect()
}

/// Appends the bias, which is the node's third input, to `weights`. Appends zeros if the node has no bias.
fn append_bias(
    graph: &GraphProto,
    node: &NodeProto,
    mut weights: Vec<f32>,
    output_channels: i64,
) -> Option<Vec<f32>> {
    let output_channels = usize::try_from(output_channels).ok()?;
    let bias: Vec<f32> = match node.input.get(2).filter(|name| !name.is_empty()) {
        Some(name) => proto::floats(proto::initializer(graph, name)?)?,
        None => vec![0.0; output_channels],
    };
    (bias.len() == output_channels).then(|| {
        weights.extend(bias);
        weights
    })
}
