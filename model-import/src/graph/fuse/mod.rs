//! Fuses each chain, a sequence of layers such as convolutions, into one custom operator.
//!
//! In a chain, each layer reads only the output of the previous one. This pass makes every chain as long as
//! possible. The first node of a chain may add a constant to each channel. [`super::fold`] leaves such an
//! addition if the image is normalised before a convolution that pads. The rest of a chain consists of these
//! layers:
//!
//! - convolutions, depthwise or not, each with the activation after it;
//! - inverted residual blocks (1×1 expand → depthwise → 1×1 project), with or without the addition of the
//!   block's input;
//! - GlobalAveragePool, Flatten of a feature map with one pixel, and fully connected layers.
//!
//! The pass [`super::fold`] has already folded batch normalisation into the convolutions.
//!
//! A chain becomes one node with the operator [`CHAIN_OP`] of the domain [`DOMAIN`]. The node's attribute
//! `plan` is the Rust expression of a `fused::Plan`, which lists the layers as steps. The attribute `rank` is
//! the rank of the output. The node's second input is a constant with the weights of all layers.

mod conv;
#[cfg(test)]
mod tests;

use onnx_proto::{GraphProto, NodeProto};

use super::fold::read_per_channel_values;
use super::proto::{self, NodeExt, float_tensor};
use super::shapes::Shapes;
use super::tidy;
use conv::{Conv, UNBOUNDED, feature_map_shape, find_activation, read_conv};

/// Domain of the custom operator.
pub const DOMAIN: &str = "image-pipeline";
/// Name of the custom operator.
pub const CHAIN_OP: &str = "FusedChain";

/// Replaces every chain in a graph by one node. `input_name` is the name of the graph's image input.
pub fn fuse(graph: &mut GraphProto, input_name: &str) {
    let shapes = Shapes::infer(graph, input_name);
    let mut index = 0;
    while index < graph.node.len() {
        if let Some(chain) = Chain::find_longest(graph, &shapes, index) {
            chain.replace_nodes(graph, index);
        }
        index += 1;
    }
    tidy::remove_unused(graph);
}

/// A chain under construction.
struct Chain {
    /// Name of the input value.
    input: String,
    /// `[channels, height, width]` of the input.
    input_shape: [i64; 3],
    /// True if the chain begins with the addition of a constant to each channel.
    shifted: bool,
    /// Rust expressions of type `fused::Step`, one per step.
    step_sources: Vec<String>,
    /// The constants that are added to the channels, followed by the weights of the steps.
    weights: Vec<f32>,
    /// Name of the output value.
    output: String,
    /// True if the output is one row per image instead of a feature map.
    has_flat_output: bool,
    /// Indices of the nodes that the chain replaces.
    node_indices: Vec<usize>,
}

impl Chain {
    /// Returns the longest chain that begins with the node `first_index`, or `None` if no chain begins there.
    fn find_longest(graph: &GraphProto, shapes: &Shapes, first_index: usize) -> Option<Self> {
        let node = &graph.node[first_index];
        let (input, output, weights, node_indices) = match read_shift(graph, shapes, node) {
            Some((input, shift)) => (input, node.output[0].clone(), shift, vec![first_index]),
            None => (node.input.first()?.clone(), node.input.first()?.clone(), Vec::new(), Vec::new()),
        };
        let mut chain = Self {
            input_shape: feature_map_shape(shapes, &input)?,
            input,
            shifted: !node_indices.is_empty(),
            step_sources: Vec::new(),
            weights,
            output,
            has_flat_output: false,
            node_indices,
        };
        // The chain's input may have other users. The values between the steps may not, because the fused
        // node does not produce these values. Unless the chain begins with an addition, its first convolution
        // must be the node `first_index`, because other chains may begin at the input's other users.
        let shifted = chain.shifted;
        let may_be_first = |conv: &Conv| shifted || conv.node_indices.first() == Some(&first_index);
        if !chain.extend_by_block(graph, shapes, &may_be_first)
            && !chain.extend_by_layer(graph, shapes, &may_be_first)
        {
            return None;
        }
        let any_conv = |_: &Conv| true;
        while chain.extend_by_block(graph, shapes, &any_conv)
            || chain.extend_by_layer(graph, shapes, &any_conv)
            || chain.extend_by_pooling(graph, shapes)
        {}
        Some(chain)
    }

    /// Extends the chain by an inverted residual block whose first convolution satisfies `may_be_first`.
    ///
    /// Returns false if no such block follows.
    fn extend_by_block(
        &mut self,
        graph: &GraphProto,
        shapes: &Shapes,
        may_be_first: &dyn Fn(&Conv) -> bool,
    ) -> bool {
        let input = self.output.clone();
        let Some((expand, depthwise, mut project)) =
            find_inverted_residual(graph, shapes, &input, may_be_first)
        else {
            return false;
        };
        let addition = find_residual_addition(graph, shapes, &input, &project);
        // The block uses its input in its first convolution, and in the addition if there is one. Only the
        // input of the whole chain may have other users.
        let uses_besides_addition = proto::use_count(graph, &input) - usize::from(addition.is_some());
        if uses_besides_addition != 1 && !self.node_indices.is_empty() {
            return false;
        }
        if let Some((node_indices, clamp, output)) = &addition {
            project.clamp = *clamp;
            project.output.clone_from(output);
            project.node_indices.extend(node_indices);
        }
        let expand_source =
            expand.as_ref().map_or("None".into(), |expand| format!("Some({})", expand.to_rust()));
        self.step_sources.push(format!(
            "fused::Step::InvertedResidual {{ expand: {expand_source}, depthwise: {}, project: {}, add_input: {} }}",
            depthwise.to_rust(),
            project.to_rust(),
            addition.is_some(),
        ));
        for conv in expand.into_iter().chain([depthwise, project]) {
            self.append(conv);
        }
        true
    }

    /// Extends the chain by one convolution or fully connected layer that satisfies `may_be_first`.
    ///
    /// Returns false if no such layer follows.
    fn extend_by_layer(
        &mut self,
        graph: &GraphProto,
        shapes: &Shapes,
        may_be_first: &dyn Fn(&Conv) -> bool,
    ) -> bool {
        // Only the input of the whole chain may have other users.
        let users = if self.node_indices.is_empty() {
            find_users(graph, &self.output)
        } else {
            proto::only_user(graph, &self.output).into_iter().collect()
        };
        let mut convolutions =
            users.into_iter().filter_map(|user| read_conv(graph, shapes, user, &self.output));
        let Some(conv) = convolutions.find(|conv| may_be_first(conv)) else {
            return false;
        };
        let kind = if conv.is_depthwise { "Depthwise" } else { "Conv" };
        self.step_sources.push(format!("fused::Step::{kind}({})", conv.to_rust()));
        self.append(conv);
        true
    }

    /// Extends the chain by a pooling or flattening node. Returns false if no such node follows.
    fn extend_by_pooling(&mut self, graph: &GraphProto, shapes: &Shapes) -> bool {
        let Some(index) = proto::only_user(graph, &self.output) else {
            return false;
        };
        let node = &graph.node[index];
        let shape = feature_map_shape(shapes, &self.output);
        let step = match (node.op_type.as_str(), shape) {
            ("GlobalAveragePool", Some(_)) => "GlobalAveragePool",
            ("Flatten", Some([_, 1, 1])) if node.int("axis").unwrap_or(1) == 1 => "Flatten",
            _ => return false,
        };
        self.has_flat_output |= step == "Flatten";
        self.step_sources.push(format!("fused::Step::{step}"));
        self.output.clone_from(&node.output[0]);
        self.node_indices.push(index);
        true
    }

    /// Appends the weights and nodes of a convolution, whose output becomes the output of the chain.
    fn append(&mut self, conv: Conv) {
        self.weights.extend(conv.weights);
        self.node_indices.extend(conv.node_indices);
        self.output = conv.output;
    }

    /// Replaces the node `first_index` by the chain's node and removes the other nodes of the chain.
    fn replace_nodes(mut self, graph: &mut GraphProto, first_index: usize) {
        let weights_name = proto::fresh_name(graph, &format!("{}_weights", self.output));
        let weight_count = i64::try_from(self.weights.len()).unwrap_or(0);
        graph.initializer.push(float_tensor(&weights_name, &[weight_count], &self.weights));
        let [channels, height, width] = self.input_shape;
        let plan = format!(
            "fused::Plan {{ input: [{channels}, {height}, {width}], shifted: {}, steps: vec![{}] }}",
            self.shifted,
            self.step_sources.join(", ")
        );
        let mut node = proto::node(CHAIN_OP, &[&self.input, &weights_name], &[&self.output])
            .with_text("plan", &plan)
            .with_int("rank", if self.has_flat_output { 2 } else { 4 });
        node.domain = DOMAIN.into();
        graph.node[first_index] = node;
        self.node_indices.retain(|index| *index != first_index);
        self.node_indices.sort_unstable();
        for index in self.node_indices.into_iter().rev() {
            graph.node.remove(index);
        }
    }
}

/// Returns the name of the feature map and the constants, if a node adds a constant to each channel of a
/// feature map.
fn read_shift(graph: &GraphProto, shapes: &Shapes, node: &NodeProto) -> Option<(String, Vec<f32>)> {
    let [left, right] = node.input.as_slice() else {
        return None;
    };
    if node.op_type != "Add" {
        return None;
    }
    let read_operands = |value: &String, constant: &String| {
        let [channels, ..] = feature_map_shape(shapes, value)?;
        Some((value.clone(), read_per_channel_values(graph, constant, usize::try_from(channels).ok()?)?))
    };
    read_operands(left, right).or_else(|| read_operands(right, left))
}

/// Returns the indices of the nodes that use a value.
fn find_users(graph: &GraphProto, value: &str) -> Vec<usize> {
    let uses = |node: &NodeProto| node.input.iter().any(|input| input == value);
    (0..graph.node.len()).filter(|index| uses(&graph.node[*index])).collect()
}

/// Returns the expand, depthwise and project convolutions of an inverted residual block that reads `input`.
///
/// `may_be_first` returns true for a convolution that may be the first one of the block. The addition of the
/// block's input is not part of the result; see [`find_residual_addition`].
fn find_inverted_residual(
    graph: &GraphProto,
    shapes: &Shapes,
    input: &str,
    may_be_first: &dyn Fn(&Conv) -> bool,
) -> Option<(Option<Conv>, Conv, Conv)> {
    let next = |value: &str| read_conv(graph, shapes, proto::only_user(graph, value)?, value);
    let mut candidates =
        find_users(graph, input).into_iter().filter_map(|user| read_conv(graph, shapes, user, input));
    let first = candidates.find(|conv| may_be_first(conv))?;
    let (expand, depthwise) = if first.is_pointwise() {
        let depthwise = next(&first.output)?;
        (Some(first), depthwise)
    } else {
        (None, first)
    };
    let project = depthwise.is_depthwise.then(|| next(&depthwise.output)).flatten()?;
    project.is_pointwise().then_some((expand, depthwise, project))
}

/// Finds the node that adds the block's input to the output of `project`, and the activation after that node.
///
/// Returns the indices of these nodes, the bounds of the activation and the name of the last node's output.
/// If no activation follows, returns only the index of the addition, and [`UNBOUNDED`].
fn find_residual_addition(
    graph: &GraphProto,
    shapes: &Shapes,
    block_input: &str,
    project: &Conv,
) -> Option<(Vec<usize>, [f32; 2], String)> {
    // The fused block has no activation between `project` and the addition. Unlike Add, it does not broadcast
    // operands of different shapes.
    if project.clamp != UNBOUNDED
        || feature_map_shape(shapes, block_input)? != feature_map_shape(shapes, &project.output)?
    {
        return None;
    }
    let index = proto::only_user(graph, &project.output)?;
    let node = &graph.node[index];
    let operand = |input_index: usize| node.input.get(input_index).map(String::as_str);
    let operands = [operand(0)?, operand(1)?];
    let adds_block_input = node.op_type == "Add"
        && (operands == [block_input, project.output.as_str()]
            || operands == [project.output.as_str(), block_input]);
    if !adds_block_input || node.input.len() != 2 {
        return None;
    }
    let output = &node.output[0];
    Some(match find_activation(graph, output) {
        Some((activation_index, clamp)) => {
            (vec![index, activation_index], clamp, graph.node[activation_index].output[0].clone())
        }
        None => (vec![index], UNBOUNDED, output.clone()),
    })
}
