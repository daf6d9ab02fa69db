//! Chains of convolutions that run as one operator.
//!
//! Recognised from any value on, as far as it goes: an addition of a constant to each channel (what a
//! padding convolution leaves of the input's normalisation), a convolution with the activation after it (dense of
//! any size, or by channel), the inverted residual (1×1 expand → by channel → 1×1 project, optional
//! addition of its input), GlobalAveragePool, Flatten of a plane of one pixel, and fully connected
//! layers. Batch norms are folded before. A chain becomes one node of the domain [`DOMAIN`], whose
//! attribute `plan` is the Rust expression of its `fused::Plan` and whose second input holds all weights.

mod conv;
#[cfg(test)]
mod tests;

use onnx_ir::{GraphProto, NodeProto};

use super::fold::per_channel_values;
use super::proto::{self, NodeExt, float_tensor};
use super::shapes::Shapes;
use super::tidy;
use conv::{Conv, UNBOUNDED, activation, conv, image};

/// Domain of the fused operators.
pub const DOMAIN: &str = "image-pipeline";
/// The one operator there is.
pub const CHAIN: &str = "FusedChain";

/// Replaces every chain in the graph whose image input is `input`.
pub fn fuse(graph: &mut GraphProto, input: &str) {
    let shapes = Shapes::infer(graph, input);
    let mut index = 0;
    while index < graph.node.len() {
        if let Some(chain) = Chain::starting(graph, &shapes, index) {
            chain.store(graph, index);
        }
        index += 1;
    }
    tidy::remove_dead(graph);
}

/// Steps that follow each other.
struct Chain {
    /// The value that goes in, and its `[channels, height, width]`.
    input: String,
    shape: [i64; 3],
    /// Whether a constant is added to each channel first.
    shifted: bool,
    /// Rust expressions of type `fused::Step`.
    steps: Vec<String>,
    weights: Vec<f32>,
    /// The value that comes out, and whether it is a row for each image.
    output: String,
    flat: bool,
    nodes: Vec<usize>,
}

impl Chain {
    /// The longest chain that begins with the node `first`.
    fn starting(graph: &GraphProto, shapes: &Shapes, first: usize) -> Option<Self> {
        let node = &graph.node[first];
        let (input, output, weights, nodes) = match shift(graph, shapes, node) {
            Some((input, shift)) => (input, node.output[0].clone(), shift, vec![first]),
            None => (node.input.first()?.clone(), node.input.first()?.clone(), Vec::new(), Vec::new()),
        };
        let mut chain = Self {
            shape: image(shapes, &input)?,
            input,
            shifted: !nodes.is_empty(),
            steps: Vec::new(),
            weights,
            output,
            flat: false,
            nodes,
        };
        // Whoever else uses the chain's input goes on doing so; what is between the steps is gone.
        let shifted = chain.shifted;
        let begins = |conv: &Conv| shifted || conv.nodes.first() == Some(&first);
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
        let Some((expand, depthwise, mut project)) = inverted_residual(graph, shapes, &input, may_begin)
        else {
            return false;
        };
        let add = addition(graph, shapes, &input, &project);
        let inner = proto::use_count(graph, &input) - usize::from(add.is_some());
        // At the chain's beginning others may use the input as well.
        if inner != 1 && !self.nodes.is_empty() {
            return false;
        }
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
        // At the chain's beginning others may use the input as well.
        let users = if self.nodes.is_empty() {
            users(graph, &self.output)
        } else {
            proto::only_user(graph, &self.output).into_iter().collect()
        };
        let mut convolutions = users.into_iter().filter_map(|user| conv(graph, shapes, user, &self.output));
        let Some(conv) = convolutions.find(|conv| may_begin(conv)) else {
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
            "fused::Plan {{ input: [{channels}, {height}, {width}], shifted: {}, steps: vec![{}] }}",
            self.shifted,
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

/// The image to whose channels a node adds constants, and the constants.
fn shift(graph: &GraphProto, shapes: &Shapes, node: &NodeProto) -> Option<(String, Vec<f32>)> {
    let [one, other] = node.input.as_slice() else {
        return None;
    };
    if node.op_type != "Add" {
        return None;
    }
    let added = |value: &String, constant: &String| {
        let [channels, ..] = image(shapes, value)?;
        Some((value.clone(), per_channel_values(graph, constant, usize::try_from(channels).ok()?)?))
    };
    added(one, other).or_else(|| added(other, one))
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
    let mut begin = users(graph, input).into_iter().filter_map(|user| conv(graph, shapes, user, input));
    let first = begin.find(|conv| may_begin(conv))?;
    let (expand, depthwise) = if first.is_pointwise() {
        let depthwise = next(&first.output)?;
        (Some(first), depthwise)
    } else {
        (None, first)
    };
    let project = depthwise.by_channel.then(|| next(&depthwise.output)).flatten()?;
    project.is_pointwise().then_some((expand, depthwise, project))
}

/// The node (and that of an activation after it) that adds `input` to what `project` gives, the clamp
/// after it, and the value that comes out.
fn addition(
    graph: &GraphProto,
    shapes: &Shapes,
    input: &str,
    project: &Conv,
) -> Option<(Vec<usize>, [f32; 2], String)> {
    // Add stretches what is of another shape; the block does not.
    if project.clamp != UNBOUNDED || image(shapes, input)? != image(shapes, &project.output)? {
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
