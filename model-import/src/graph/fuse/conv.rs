//! The convolutions and fully connected layers that the fused operators know.

use onnx_ir::{GraphProto, NodeProto};

use super::super::proto::{self, NodeExt};
use super::super::shapes::{Dim, Shapes};

use Dim::{Batch, Known};

/// A convolution and the activation after it.
pub(super) struct Conv {
    pub(super) channels: i64,
    pub(super) output_channels: i64,
    pub(super) kernel: i64,
    pub(super) stride: i64,
    /// Top, left, bottom, right.
    pub(super) pads: [i64; 4],
    pub(super) clamp: [f32; 2],
    pub(super) by_channel: bool,
    /// Weights, then the bias.
    pub(super) weights: Vec<f32>,
    /// The value that comes out.
    pub(super) output: String,
    pub(super) nodes: Vec<usize>,
}

impl Conv {
    pub(super) fn is_pointwise(&self) -> bool {
        self.kernel == 1 && self.stride == 1 && self.pads == [0; 4] && !self.by_channel
    }

    /// The Rust expression of type `fused::Conv`.
    pub(super) fn source(&self) -> String {
        let Self { channels, output_channels, kernel, stride, pads, clamp, .. } = self;
        let bound = |value: f32| {
            if value == f32::INFINITY {
                "f32::INFINITY".into()
            } else if value == f32::NEG_INFINITY {
                "f32::NEG_INFINITY".into()
            } else {
                format!("{value:?}")
            }
        };
        let clamp = clamp.map(bound).join(", ");
        format!(
            "fused::Conv {{ channels: {channels}, output_channels: {output_channels}, kernel: {kernel}, \
             stride: {stride}, pads: {pads:?}, clamp: [{clamp}] }}"
        )
    }
}

/// `[channels, height, width]` of a value that is an image.
pub(super) fn image(shapes: &Shapes, value: &str) -> Option<[i64; 3]> {
    match shapes.shape(value)? {
        [Batch, Known(channels), Known(height), Known(width)] => Some([*channels, *height, *width]),
        _ => None,
    }
}

pub(super) const UNBOUNDED: [f32; 2] = [f32::NEG_INFINITY, f32::INFINITY];

/// The node that clamps `value` before anybody else sees it, and to what.
pub(super) fn activation(graph: &GraphProto, value: &str) -> Option<(usize, [f32; 2])> {
    let index = proto::only_user(graph, value)?;
    let node = &graph.node[index];
    match node.op_type.as_str() {
        "Relu" => Some((index, [0.0, f32::INFINITY])),
        "Clip" => Some((index, [bound(graph, node, 1, "min")?, bound(graph, node, 2, "max")?])),
        _ => None,
    }
}

/// A bound of a Clip, an attribute before opset 11 and an input since.
fn bound(graph: &GraphProto, node: &NodeProto, slot: usize, name: &str) -> Option<f32> {
    let unbounded = UNBOUNDED[slot - 1];
    match node.input.get(slot).filter(|input| !input.is_empty()) {
        Some(input) => match proto::floats(proto::initializer(graph, input)?)?.as_slice() {
            [value] => Some(*value),
            _ => None,
        },
        None => Some(node.float(name).unwrap_or(unbounded)),
    }
}

/// The node `index` as a convolution of `value` with the activation after it, if the fused operators
/// know such a one.
pub(super) fn conv(graph: &GraphProto, shapes: &Shapes, index: usize, value: &str) -> Option<Conv> {
    let node = &graph.node[index];
    if node.input.first().is_none_or(|input| input != value) {
        return None;
    }
    let mut conv = match node.op_type.as_str() {
        "Conv" => convolution(graph, shapes, node, index)?,
        "Gemm" => fully_connected(graph, shapes, node, index)?,
        _ => return None,
    };
    if let Some((after, clamp)) = activation(graph, &conv.output) {
        conv.clamp = clamp;
        conv.output.clone_from(&graph.node[after].output[0]);
        conv.nodes.push(after);
    }
    Some(conv)
}

fn convolution(graph: &GraphProto, shapes: &Shapes, node: &NodeProto, index: usize) -> Option<Conv> {
    let [channels, height, width] = image(shapes, node.input.first()?)?;
    let [output_channels, output_height, output_width] = image(shapes, node.output.first()?)?;
    let weights = proto::initializer(graph, node.input.get(1)?)?;
    let [outputs, in_group, kernel, kernel_width] = *weights.dims.as_slice() else {
        return None;
    };
    let values = proto::floats(weights)?;
    let groups = node.int("group").unwrap_or(1);
    let strides = node.ints("strides").unwrap_or(&[1, 1]).to_vec();
    let [stride, stride_width] = *strides.as_slice() else {
        return None;
    };
    let dilated = node.ints("dilations").is_some_and(|dilations| dilations.iter().any(|by| *by != 1));
    let by_channel = groups > 1;
    let known = values.len() == count(&weights.dims)
        && kernel == kernel_width
        && stride == stride_width
        && !dilated
        && outputs == output_channels
        && if by_channel {
            groups == channels
                && outputs == channels
                && in_group == 1
                && matches!((kernel, stride), (3 | 5, 1 | 2))
        } else {
            groups == 1 && in_group == channels
        };
    if !known {
        return None;
    }
    let pads = pads(node, [height, width], [output_height, output_width], kernel, stride)?;
    Some(Conv {
        channels,
        output_channels,
        kernel,
        stride,
        pads,
        clamp: UNBOUNDED,
        by_channel,
        weights: with_bias(graph, node, values, outputs)?,
        output: node.output[0].clone(),
        nodes: vec![index],
    })
}

/// Zeros at the top, left, bottom and right, however the node says it.
fn pads(node: &NodeProto, input: [i64; 2], output: [i64; 2], kernel: i64, stride: i64) -> Option<[i64; 4]> {
    let given = match node.ints("pads") {
        Some([top, left, bottom, right]) => [*top, *left, *bottom, *right],
        Some(_) => return None,
        None => [0; 4],
    };
    // All that is needed for the output's size, the odd one at the end or at the beginning.
    let same = |at_end: bool| {
        let total = |axis: usize| ((output[axis] - 1) * stride + kernel - input[axis]).max(0);
        let [height, width] = [total(0), total(1)];
        let (top, left) =
            if at_end { (height / 2, width / 2) } else { (height - height / 2, width - width / 2) };
        [top, left, height - top, width - left]
    };
    let pads = match node.text("auto_pad").as_deref() {
        None | Some("" | "NOTSET") => given,
        Some("VALID") => [0; 4],
        Some("SAME_UPPER") => same(true),
        Some("SAME_LOWER") => same(false),
        Some(_) => return None,
    };
    let steps = |axis: usize, before: i64, after: i64| (input[axis] + before + after - kernel) / stride + 1;
    let [top, left, bottom, right] = pads;
    let fits = pads.iter().all(|pad| *pad >= 0)
        && input.iter().all(|size| *size > 0)
        && [steps(0, top, bottom), steps(1, left, right)] == output;
    fits.then_some(pads)
}

/// Gemm of a row with a constant matrix: a 1×1 convolution of a plane of one pixel.
fn fully_connected(graph: &GraphProto, shapes: &Shapes, node: &NodeProto, index: usize) -> Option<Conv> {
    let [Batch, Known(channels)] = shapes.shape(node.input.first()?)? else {
        return None;
    };
    let matrix = proto::initializer(graph, node.input.get(1)?)?;
    let [rows, columns] = *matrix.dims.as_slice() else {
        return None;
    };
    let values = proto::floats(matrix)?;
    let complete = values.len() == count(&matrix.dims);
    let (outputs, weights) = match node.int("transB").unwrap_or(0) {
        0 => (columns, transposed(&values, usize::try_from(columns).ok()?)),
        _ => (rows, values),
    };
    let plain = complete
        && node.int("transA").unwrap_or(0) == 0
        && node.float("alpha").unwrap_or(1.0) == 1.0
        && node.float("beta").unwrap_or(1.0) == 1.0
        && rows * columns == channels * outputs;
    if !plain {
        return None;
    }
    Some(Conv {
        channels: *channels,
        output_channels: outputs,
        kernel: 1,
        stride: 1,
        pads: [0; 4],
        clamp: UNBOUNDED,
        by_channel: false,
        weights: with_bias(graph, node, weights, outputs)?,
        output: node.output[0].clone(),
        nodes: vec![index],
    })
}

/// Values of a tensor of these dimensions.
fn count(dims: &[i64]) -> usize {
    dims.iter().product::<i64>().try_into().unwrap_or(usize::MAX)
}

fn transposed(values: &[f32], columns: usize) -> Vec<f32> {
    let row = |column: usize| values.iter().skip(column).step_by(columns).copied();
    (0..columns).flat_map(row).collect()
}

/// `weights` and the node's third input behind them, one value for each output; zeros if it has none.
fn with_bias(graph: &GraphProto, node: &NodeProto, mut weights: Vec<f32>, outputs: i64) -> Option<Vec<f32>> {
    let outputs = usize::try_from(outputs).ok()?;
    let bias: Vec<f32> = match node.input.get(2).filter(|name| !name.is_empty()) {
        Some(name) => proto::floats(proto::initializer(graph, name)?)?,
        None => vec![0.0; outputs],
    };
    (bias.len() == outputs).then(|| {
        weights.extend(bias);
        weights
    })
}
