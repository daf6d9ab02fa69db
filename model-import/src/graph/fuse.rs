//! Chains of convolutions that run as one operator.
//!
//! Recognised from any value on, as far as it goes: a convolution with the activation after it (dense of
//! any size, or by channel), the inverted residual (1×1 expand → by channel → 1×1 project, optional
//! addition of its input), GlobalAveragePool, Flatten of a plane of one pixel, and fully connected
//! layers. Batch norms are folded before. A chain becomes one node of the domain [`DOMAIN`], whose
//! attribute `plan` is the Rust expression of its `fused::Plan` and whose second input holds all weights.

use onnx_ir::{GraphProto, NodeProto, TensorProto};

use super::proto::{self, NodeExt, float_tensor};
use super::shapes::{Dim, Shapes};
use super::tidy;

use Dim::{Batch, Known};

/// Domain of the fused operators.
pub const DOMAIN: &str = "image-pipeline";
/// The one operator there is.
pub const CHAIN: &str = "FusedChain";

/// Replaces every chain in the graph whose image input is `input`.
pub fn fuse(graph: &mut GraphProto, input: &str) {
    let shapes = Shapes::infer(graph, input);
    let mut index = 0;
    while index < graph.node.len() {
        let value = graph.node[index].input.first();
        if let Some(chain) = value.and_then(|value| Chain::from(graph, &shapes, value, index)) {
            chain.store(graph, index);
        }
        index += 1;
    }
    tidy::remove_dead(graph);
}

/// A convolution and the activation after it.
struct Conv {
    channels: i64,
    output_channels: i64,
    kernel: i64,
    stride: i64,
    /// Top, left, bottom, right.
    pads: [i64; 4],
    clamp: [f32; 2],
    by_channel: bool,
    /// Weights, then the bias.
    weights: Vec<f32>,
    /// The value that comes out.
    output: String,
    nodes: Vec<usize>,
}

/// Steps that follow each other.
struct Chain {
    /// The value that goes in, and its `[channels, height, width]`.
    input: String,
    shape: [i64; 3],
    /// Rust expressions of type `fused::Step`.
    steps: Vec<String>,
    weights: Vec<f32>,
    /// The value that comes out, and whether it is a row for each image.
    output: String,
    flat: bool,
    nodes: Vec<usize>,
}

impl Chain {
    /// The longest chain from `value` on that begins with the node `first`.
    fn from(graph: &GraphProto, shapes: &Shapes, value: &str, first: usize) -> Option<Self> {
        let mut chain = Self {
            input: value.into(),
            shape: image(shapes, value)?,
            steps: Vec::new(),
            weights: Vec::new(),
            output: value.into(),
            flat: false,
            nodes: Vec::new(),
        };
        // Whoever else uses the chain's input goes on doing so; what is between the steps is gone.
        let begins = |conv: &Conv| conv.nodes.first() == Some(&first);
        if !chain.block(graph, shapes, &begins) && !chain.single(graph, shapes, &begins) {
            return None;
        }
        let any = |_: &Conv| true;
        while chain.block(graph, shapes, &any)
            || chain.single(graph, shapes, &any)
            || chain.tail(graph, shapes)
        {}
        Some(chain)
    }

    /// Goes on by an inverted residual.
    fn block(&mut self, graph: &GraphProto, shapes: &Shapes, may_begin: &dyn Fn(&Conv) -> bool) -> bool {
        let input = self.output.clone();
        let Some((expand, depthwise, project)) = inverted_residual(graph, shapes, &input, may_begin) else {
            return false;
        };
        let add = addition(graph, &input, &project);
        let inner = proto::uses(graph, &input) - usize::from(add.is_some());
        // At the chain's beginning others may use the input as well.
        if inner != 1 && !self.nodes.is_empty() {
            return false;
        }
        let mut project = project;
        if let Some((node, clamp, after)) = &add {
            project.clamp = *clamp;
            project.output.clone_from(after);
            project.nodes.extend(node);
        }
        let expand_source =
            expand.as_ref().map_or("None".into(), |expand| format!("Some({})", expand.source()));
        self.steps.push(format!(
            "fused::Step::InvertedResidual {{ expand: {expand_source}, depthwise: {}, project: {}, add_input: {} }}",
            depthwise.source(),
            project.source(),
            add.is_some(),
        ));
        for conv in expand.into_iter().chain([depthwise, project]) {
            self.take(conv);
        }
        true
    }

    /// Goes on by one convolution or fully connected layer.
    fn single(&mut self, graph: &GraphProto, shapes: &Shapes, may_begin: &dyn Fn(&Conv) -> bool) -> bool {
        let user = if self.nodes.is_empty() { None } else { proto::only_user(graph, &self.output) };
        let users = match user {
            Some(user) => vec![user],
            None if self.nodes.is_empty() => users(graph, &self.output),
            None => return false,
        };
        let convolutions = users.into_iter().filter_map(|user| conv(graph, shapes, user, &self.output));
        let Some(conv) = convolutions.into_iter().find(|conv| may_begin(conv)) else {
            return false;
        };
        let kind = if conv.by_channel { "Depthwise" } else { "Dense" };
        self.steps.push(format!("fused::Step::{kind}({})", conv.source()));
        self.take(conv);
        true
    }

    /// Goes on by pooling or flattening.
    fn tail(&mut self, graph: &GraphProto, shapes: &Shapes) -> bool {
        let Some(index) = proto::only_user(graph, &self.output) else {
            return false;
        };
        let node = &graph.node[index];
        let plane = image(shapes, &self.output);
        let step = match (node.op_type.as_str(), plane) {
            ("GlobalAveragePool", Some(_)) => "GlobalAveragePool",
            ("Flatten", Some([_, 1, 1])) if node.int("axis").unwrap_or(1) == 1 => "Flatten",
            _ => return false,
        };
        self.flat |= step == "Flatten";
        self.steps.push(format!("fused::Step::{step}"));
        self.output.clone_from(&node.output[0]);
        self.nodes.push(index);
        true
    }

    fn take(&mut self, conv: Conv) {
        self.weights.extend(conv.weights);
        self.nodes.extend(conv.nodes);
        self.output = conv.output;
    }

    /// Puts the chain's node where its first was, and removes the others.
    fn store(mut self, graph: &mut GraphProto, first: usize) {
        let weights = proto::fresh_name(graph, &format!("{}_weights", self.output));
        let length = i64::try_from(self.weights.len()).unwrap_or(0);
        graph.initializer.push(float_tensor(&weights, &[length], &self.weights));
        let [channels, height, width] = self.shape;
        let plan = format!(
            "fused::Plan {{ input: [{channels}, {height}, {width}], steps: vec![{}] }}",
            self.steps.join(", ")
        );
        let mut node = proto::node(CHAIN, &[&self.input, &weights], &[&self.output])
            .with_text("plan", &plan)
            .with_int("rank", if self.flat { 2 } else { 4 });
        node.domain = DOMAIN.into();
        graph.node[first] = node;
        self.nodes.retain(|index| *index != first);
        self.nodes.sort_unstable();
        for index in self.nodes.into_iter().rev() {
            graph.node.remove(index);
        }
    }
}

impl Conv {
    fn is_pointwise(&self) -> bool {
        self.kernel == 1 && self.stride == 1 && self.pads == [0; 4] && !self.by_channel
    }

    /// The Rust expression of type `fused::Conv`.
    fn source(&self) -> String {
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
fn image(shapes: &Shapes, value: &str) -> Option<[i64; 3]> {
    match shapes.shape(value)? {
        [Batch, Known(channels), Known(height), Known(width)] => Some([*channels, *height, *width]),
        _ => None,
    }
}

fn users(graph: &GraphProto, value: &str) -> Vec<usize> {
    let uses = |node: &NodeProto| node.input.iter().any(|input| input == value);
    (0..graph.node.len()).filter(|index| uses(&graph.node[*index])).collect()
}

/// Expand, by channel, project from `input` on; the last has no activation of its own yet if the input
/// is added to it.
fn inverted_residual(
    graph: &GraphProto,
    shapes: &Shapes,
    input: &str,
    may_begin: &dyn Fn(&Conv) -> bool,
) -> Option<(Option<Conv>, Conv, Conv)> {
    let next = |value: &str| conv(graph, shapes, proto::only_user(graph, value)?, value);
    let begin = users(graph, input).into_iter().filter_map(|user| conv(graph, shapes, user, input));
    let first = begin.into_iter().find(|conv| may_begin(conv))?;
    let (expand, depthwise) =
        if first.is_pointwise() { (Some(next(&first.output)?), first) } else { (None, first) };
    // With an expansion the pair is the other way round.
    let (expand, depthwise) = match expand {
        Some(second) => (Some(depthwise), second),
        None => (None, depthwise),
    };
    let project = depthwise.by_channel.then(|| next(&depthwise.output)).flatten()?;
    project.is_pointwise().then_some((expand, depthwise, project))
}

/// The node (and that of an activation after it) that adds `input` to what `project` gives, the clamp
/// after it, and the value that comes out.
fn addition(graph: &GraphProto, input: &str, project: &Conv) -> Option<(Vec<usize>, [f32; 2], String)> {
    if project.clamp != UNBOUNDED {
        return None;
    }
    let index = proto::only_user(graph, &project.output)?;
    let node = &graph.node[index];
    let other = |slot: usize| node.input.get(slot).map(String::as_str);
    let operands = [other(0)?, other(1)?];
    let adds = node.op_type == "Add"
        && (operands == [input, project.output.as_str()] || operands == [project.output.as_str(), input]);
    if !adds || node.input.len() != 2 {
        return None;
    }
    let output = &node.output[0];
    Some(match activation(graph, output) {
        Some((after, clamp)) => (vec![index, after], clamp, graph.node[after].output[0].clone()),
        None => (vec![index], UNBOUNDED, output.clone()),
    })
}

const UNBOUNDED: [f32; 2] = [f32::NEG_INFINITY, f32::INFINITY];

/// The node that clamps `value` before anybody else sees it, and to what.
fn activation(graph: &GraphProto, value: &str) -> Option<(usize, [f32; 2])> {
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
fn conv(graph: &GraphProto, shapes: &Shapes, index: usize, value: &str) -> Option<Conv> {
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
    let groups = node.int("group").unwrap_or(1);
    let strides = node.ints("strides").unwrap_or(&[1, 1]).to_vec();
    let [stride, stride_width] = *strides.as_slice() else {
        return None;
    };
    let dilated = node.ints("dilations").is_some_and(|dilations| dilations.iter().any(|by| *by != 1));
    let by_channel = groups > 1;
    let known = kernel == kernel_width
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
        weights: with_bias(graph, node, proto::floats(weights)?, outputs)?,
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
    let (outputs, weights) = match node.int("transB").unwrap_or(0) {
        0 => (columns, transposed(&values, usize::try_from(columns).ok()?)),
        _ => (rows, values),
    };
    let plain = node.int("transA").unwrap_or(0) == 0
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

fn transposed(values: &[f32], columns: usize) -> Vec<f32> {
    let row = |column: usize| values.iter().skip(column).step_by(columns).copied();
    (0..columns).flat_map(row).collect()
}

/// `weights` and the node's third input behind them, one value for each output; zeros if it has none.
fn with_bias(graph: &GraphProto, node: &NodeProto, mut weights: Vec<f32>, outputs: i64) -> Option<Vec<f32>> {
    let outputs = usize::try_from(outputs).ok()?;
    let bias: Vec<f32> = match node.input.get(2).filter(|name| !name.is_empty()) {
        Some(name) => {
            let tensor: &TensorProto = proto::initializer(graph, name)?;
            proto::floats(tensor)?
        }
        None => vec![0.0; outputs],
    };
    (bias.len() == outputs).then(|| {
        weights.extend(bias);
        weights
    })
}

#[cfg(test)]
mod tests;
