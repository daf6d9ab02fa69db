//! Folds nodes that scale and shift channels into the convolution before or after them.
//!
//! BatchNormalization scales and shifts each channel, and so do Mul, Add, Sub and Div with a constant.
//! Successive nodes of these kinds are combined in f64 to one scale and one shift per channel. The folded
//! weights are rounded to f32 once.
//!
//! If such nodes follow a convolution, their scale and their shift are both folded into the convolution's
//! weights and biases.
//!
//! Such nodes before a convolution usually normalise the image. Their scale is folded into the convolution's
//! weights. Their shift can only be folded into its biases if the convolution does not pad, because the zeros
//! of the padding are not shifted. Otherwise, the shift remains in the graph as a single Add.

use onnx_proto::{GraphProto, NodeProto};

use super::conv_weights::{Affine, ConvWeights, to_f32, to_i64};
use super::proto::{self, NodeExt, float_tensor};

/// Folds the scales and shifts after each convolution into its weights.
pub fn fold_after_conv(graph: &mut GraphProto) {
    let mut index = 0;
    while index < graph.node.len() {
        if graph.node[index].op_type == "Conv" {
            fold_successors(graph, index);
        }
        index += 1;
    }
}

/// Folds the scales and shifts after the Conv node `conv_index` into its weights and biases.
fn fold_successors(graph: &mut GraphProto, conv_index: usize) {
    let Some(weights) = ConvWeights::read(graph, conv_index) else {
        return;
    };
    let channel_count = weights.output_channels();
    let mut affine = Affine::identity(channel_count);
    let mut folded_indices = Vec::new();
    let mut value = graph.node[conv_index].output[0].clone();
    while let Some(user_index) = proto::only_user(graph, &value) {
        let Some(next) = read_affine(graph, &graph.node[user_index], &value, channel_count) else {
            break;
        };
        affine = affine.then(&next);
        value.clone_from(&graph.node[user_index].output[0]);
        folded_indices.push(user_index);
    }
    if folded_indices.is_empty() {
        return;
    }
    weights.with_affine_after(&affine).store(graph, conv_index);
    graph.node[conv_index].output[0] = value;
    remove_nodes(graph, folded_indices);
}

/// Returns the scale and shift that a node applies to its input `value`.
///
/// Returns `None` if the node does anything else.
fn read_affine(graph: &GraphProto, node: &NodeProto, value: &str, channel_count: usize) -> Option<Affine> {
    if node.op_type == "BatchNormalization" {
        return read_batch_norm(graph, node, channel_count);
    }
    let (first, second) = (node.input.first()?, node.input.get(1)?);
    let value_is_first = first == value;
    let constant = if value_is_first { second } else { first };
    let constant: Vec<f64> =
        read_per_channel_values(graph, constant, channel_count)?.into_iter().map(f64::from).collect();
    let ones = vec![1.0; channel_count];
    let zeros = vec![0.0; channel_count];
    let negated = |values: &[f64]| values.iter().map(|value| -value).collect();
    let (scale, shift) = match (node.op_type.as_str(), value_is_first) {
        ("Mul", _) => (constant, zeros),
        ("Add", _) => (ones, constant),
        ("Sub", true) => (ones, negated(&constant)),
        ("Sub", false) => (negated(&ones), constant),
        ("Div", true) => (constant.iter().map(|value| 1.0 / value).collect(), zeros),
        _ => return None,
    };
    Some(Affine { scale, shift })
}

fn read_batch_norm(graph: &GraphProto, node: &NodeProto, channel_count: usize) -> Option<Affine> {
    let in_training_mode = node.int("training_mode").unwrap_or(0) != 0;
    // The outputs after the first are the mean and the variance.
    let statistics_are_used =
        node.output.iter().skip(1).any(|name| proto::use_count(graph, name) > 0 && !name.is_empty());
    // With `spatial = 0` (opset 7), every pixel has its own statistics.
    if in_training_mode || statistics_are_used || node.int("spatial") == Some(0) {
        return None;
    }
    let read = |input_index: usize| {
        let values = proto::floats(proto::initializer(graph, node.input.get(input_index)?)?)?;
        (values.len() == channel_count).then_some(values)
    };
    let (gamma, beta, mean, variance) = (read(1)?, read(2)?, read(3)?, read(4)?);
    let epsilon = f64::from(node.float("epsilon").unwrap_or(1e-5));
    let scale: Vec<f64> = gamma
        .iter()
        .zip(&variance)
        .map(|(gamma, variance)| f64::from(*gamma) / (f64::from(*variance) + epsilon).sqrt())
        .collect();
    let shift = beta
        .iter()
        .zip(mean.iter().zip(&scale))
        .map(|(beta, (mean, scale))| f64::from(*beta) - f64::from(*mean) * scale)
        .collect();
    Some(Affine { scale, shift })
}

/// Returns one value per channel of a constant that is broadcast to `[batch, channels, height, width]`.
///
/// A single value is repeated for each channel. Returns `None` if `name` is not a constant, or if the
/// constant varies along another dimension than the channels.
pub(super) fn read_per_channel_values(
    graph: &GraphProto,
    name: &str,
    channel_count: usize,
) -> Option<Vec<f32>> {
    let tensor = proto::initializer(graph, name)?;
    let values = proto::floats(tensor)?;
    // A constant with more dimensions than the feature map would add dimensions to the result.
    if tensor.dims.len() > 4 {
        return None;
    }
    if let [value] = values.as_slice() {
        return Some(vec![*value; channel_count]);
    }
    let varies_along_channels = matches!(tensor.dims.as_slice(), [1, _, 1, 1] | [_, 1, 1]);
    (varies_along_channels && values.len() == channel_count).then_some(values)
}

/// Folds the scales before each convolution into its weights.
///
/// Also folds the shifts into the biases if the convolution does not pad.
pub fn fold_before_conv(graph: &mut GraphProto) {
    // Each convolution is identified by the name of its output, because folding removes nodes and so changes
    // the indices of other nodes.
    let convolutions = graph.node.iter().filter(|node| node.op_type == "Conv");
    let outputs: Vec<String> = convolutions.flat_map(|node| node.output.first().cloned()).collect();
    for output in outputs {
        if let Some(index) = proto::producer(graph, &output) {
            fold_predecessors(graph, index);
        }
    }
}

/// Folds the scales before the Conv node `conv_index` into its weights.
///
/// Also folds the shifts if the convolution does not pad. If it pads, leaves them as a single Add.
fn fold_predecessors(graph: &mut GraphProto, conv_index: usize) {
    let Some(weights) = ConvWeights::read(graph, conv_index) else {
        return;
    };
    let channel_count = weights.input_channels();
    let mut affine = Affine::identity(channel_count);
    let mut folded_indices = Vec::new();
    let mut value = graph.node[conv_index].input[0].clone();
    while proto::only_user(graph, &value).is_some()
        && let Some(source_index) = proto::producer(graph, &value)
        && let Some((input, earlier)) = find_affine_input(graph, &graph.node[source_index], channel_count)
    {
        affine = earlier.then(&affine);
        folded_indices.push(source_index);
        value = input;
    }
    // The nodes were collected from the convolution backwards.
    let (Some(&first_index), Some(&last_index)) = (folded_indices.last(), folded_indices.first()) else {
        return;
    };
    let has_shift = affine.shift.iter().any(|shift| *shift != 0.0);
    if !has_shift || !has_padding(&graph.node[conv_index]) {
        weights.with_affine_before(&affine).store(graph, conv_index);
        graph.node[conv_index].input[0] = value;
        remove_nodes(graph, folded_indices);
        return;
    }
    // If the shift is a single Add already, nothing remains to be done. With a scale of 0, the division below
    // is impossible.
    let is_single_add = folded_indices.len() == 1 && affine.scale.iter().all(|scale| *scale == 1.0);
    if is_single_add || affine.scale.contains(&0.0) {
        return;
    }
    // The scale becomes part of the weights, so the Add must come before the scale:
    // `scale * x + shift = scale * (x + shift / scale)`.
    let pairs = affine.shift.iter().zip(&affine.scale);
    let offsets: Vec<f32> = pairs.map(|(shift, scale)| to_f32(shift / scale)).collect();
    let scale_only = Affine { shift: vec![0.0; channel_count], ..affine };
    weights.with_affine_before(&scale_only).store(graph, conv_index);
    let constant = proto::fresh_name(graph, &format!("{value}_offset"));
    graph.initializer.push(float_tensor(&constant, &[1, to_i64(channel_count), 1, 1], &offsets));
    let output = graph.node[last_index].output[0].clone();
    graph.node[first_index] = proto::node("Add", &[&value, &constant], &[&output]);
    folded_indices.retain(|index| *index != first_index);
    remove_nodes(graph, folded_indices);
}

fn remove_nodes(graph: &mut GraphProto, mut indices: Vec<usize>) {
    indices.sort_unstable();
    for index in indices.into_iter().rev() {
        graph.node.remove(index);
    }
}

/// Returns the name of the input that a node scales and shifts, with the scale and the shift.
fn find_affine_input(graph: &GraphProto, node: &NodeProto, channel_count: usize) -> Option<(String, Affine)> {
    let value = node.input.iter().find(|input| proto::initializer(graph, input).is_none())?;
    Some((value.clone(), read_affine(graph, node, value, channel_count)?))
}

fn has_padding(conv: &NodeProto) -> bool {
    let is_same_padded = conv.text("auto_pad").is_some_and(|mode| mode.starts_with("SAME"));
    is_same_padded || conv.ints("pads").is_some_and(|pads| pads.iter().any(|pad| *pad != 0))
}

#[cfg(test)]
mod tests {
    use super::super::proto::node;
    use super::super::testing::{build_graph, constant_values, operators};
    use super::*;

    const IMAGE_DIMS: [Option<i64>; 4] = [None, Some(2), Some(4), Some(4)];

    fn batch_norm_constants() -> Vec<onnx_proto::TensorProto> {
        vec![
            float_tensor("w", &[2, 2, 1, 1], &[1.0, 2.0, 3.0, 4.0]),
            float_tensor("b", &[2], &[0.5, -0.5]),
            float_tensor("gamma", &[2], &[2.0, 3.0]),
            float_tensor("beta", &[2], &[0.1, 0.2]),
            float_tensor("mean", &[2], &[1.0, -1.0]),
            float_tensor("variance", &[2], &[3.75, 8.75]),
        ]
    }

    fn batch_norm(input: &str, output: &str) -> NodeProto {
        node("BatchNormalization", &[input, "gamma", "beta", "mean", "variance"], &[output])
            .with_float("epsilon", 0.25)
    }

    fn assert_close(actual: &[f32], expected: &[f32]) {
        assert_eq!(actual.len(), expected.len());
        for (actual, expected) in actual.iter().zip(expected) {
            assert!((actual - expected).abs() < 1e-6, "{actual} is not {expected}");
        }
    }

    #[test]
    fn batch_normalisation_after_a_convolution_is_folded() {
        // The square roots of `variance + epsilon` are 2 and 3. The scales are `gamma` divided by these
        // roots: 4 / 2 = 2 and 3 / 3 = 1. The shifts are `beta - mean * scale`: 0.1 - 1 * 2 = -1.9 and
        // 0.2 + 1 * 1 = 1.2.
        for inputs in [vec!["x", "w", "b"], vec!["x", "w"]] {
            let has_bias = inputs.len() == 3;
            let nodes = vec![node("Conv", &inputs, &["c"]), batch_norm("c", "y")];
            let mut graph = build_graph(&IMAGE_DIMS, batch_norm_constants(), nodes);
            graph.initializer[2] = float_tensor("gamma", &[2], &[4.0, 3.0]);
            fold_after_conv(&mut graph);
            assert_eq!(operators(&graph), ["Conv"]);
            assert_eq!(graph.node[0].output, ["y"]);
            let input = graph.node[0].input.clone();
            assert_close(&constant_values(&graph, &input[1]), &[2.0, 4.0, 3.0, 4.0]);
            // The new biases are `bias * scale + shift`.
            let expected = if has_bias { [-0.9, 0.7] } else { [-1.9, 1.2] };
            assert_close(&constant_values(&graph, &input[2]), &expected);
        }
    }

    #[test]
    fn mul_sub_div_and_add_after_a_convolution_are_folded() {
        let mut constants = batch_norm_constants();
        constants.push(float_tensor("scale", &[1, 2, 1, 1], &[2.0, 4.0]));
        constants.push(float_tensor("shift", &[2, 1, 1], &[1.0, 2.0]));
        constants.push(float_tensor("two", &[], &[2.0]));
        let nodes = vec![
            node("Conv", &["x", "w", "b"], &["c"]),
            node("Mul", &["scale", "c"], &["d"]),
            node("Sub", &["shift", "d"], &["e"]),
            node("Div", &["e", "two"], &["f"]),
            node("Add", &["f", "shift"], &["g"]),
            node("Relu", &["g"], &["y"]),
        ];
        let mut graph = build_graph(&IMAGE_DIMS, constants, nodes);
        fold_after_conv(&mut graph);
        assert_eq!(operators(&graph), ["Conv", "Relu"]);
        let input = graph.node[0].input.clone();
        assert_close(&constant_values(&graph, &input[1]), &[-1.0, -2.0, -6.0, -8.0]);
        assert_close(&constant_values(&graph, &input[2]), &[1.0, 4.0]);
    }

    #[test]
    fn values_with_other_uses_and_constants_along_the_width_are_not_folded() {
        // The convolution's output has a second user.
        let nodes = vec![
            node("Conv", &["x", "w", "b"], &["c"]),
            batch_norm("c", "d"),
            node("Add", &["c", "d"], &["y"]),
        ];
        let mut shared = build_graph(&IMAGE_DIMS, batch_norm_constants(), nodes);
        fold_after_conv(&mut shared);
        assert_eq!(operators(&shared), ["Conv", "BatchNormalization", "Add"]);
        // Constants with the dimensions [2] and [1, 1, 1, 2] run along the width, not along the channels.
        for dims in [vec![2], vec![1, 1, 1, 2]] {
            let mut constants = batch_norm_constants();
            constants.push(float_tensor("columns", &dims, &[2.0, 4.0]));
            let nodes = vec![node("Conv", &["x", "w"], &["c"]), node("Mul", &["c", "columns"], &["y"])];
            let mut along_width = build_graph(&IMAGE_DIMS, constants, nodes);
            fold_after_conv(&mut along_width);
            assert_eq!(operators(&along_width), ["Conv", "Mul"]);
        }
        // The convolution's output is an output of the graph.
        let nodes = vec![node("Conv", &["x", "w", "b"], &["y"]), batch_norm("y", "z")];
        let mut output = build_graph(&IMAGE_DIMS, batch_norm_constants(), nodes);
        output.output.push(proto::value_info("z", &[]));
        fold_after_conv(&mut output);
        assert_eq!(operators(&output), ["Conv", "BatchNormalization"]);
    }

    fn normalised_graph(pads: &[i64]) -> GraphProto {
        let mut constants = batch_norm_constants();
        constants.push(float_tensor("scale", &[1, 2, 1, 1], &[2.0, 4.0]));
        constants.push(float_tensor("shift", &[1, 2, 1, 1], &[1.0, 2.0]));
        let nodes = vec![
            node("Mul", &["x", "scale"], &["a"]),
            node("Add", &["a", "shift"], &["b"]),
            node("Conv", &["b", "w", "b0"], &["y"]).with_ints("pads", pads),
        ];
        constants.push(float_tensor("b0", &[2], &[0.5, -0.5]));
        build_graph(&IMAGE_DIMS, constants, nodes)
    }

    #[test]
    fn shift_before_a_padding_convolution_remains_as_an_add() {
        let mut graph = normalised_graph(&[0, 0, 1, 1]);
        fold_before_conv(&mut graph);
        assert_eq!(operators(&graph), ["Add", "Conv"]);
        let (add, conv) = (graph.node[0].input.clone(), graph.node[1].input.clone());
        assert_eq!(add[0], "x");
        // The shifts 1 and 2 are divided by the scales 2 and 4.
        assert_close(&constant_values(&graph, &add[1]), &[0.5, 0.5]);
        assert_eq!(conv[0], "b");
        assert_close(&constant_values(&graph, &conv[1]), &[2.0, 8.0, 6.0, 16.0]);
        assert_close(&constant_values(&graph, &conv[2]), &[0.5, -0.5]);
        // A second run changes nothing.
        let once = graph.clone();
        fold_before_conv(&mut graph);
        assert_eq!(graph, once);
    }

    #[test]
    fn scale_and_shift_before_an_unpadded_convolution_are_folded() {
        let mut graph = normalised_graph(&[0, 0, 0, 0]);
        fold_before_conv(&mut graph);
        assert_eq!(operators(&graph), ["Conv"]);
        let conv = graph.node[0].input.clone();
        assert_eq!(conv[0], "x");
        assert_close(&constant_values(&graph, &conv[1]), &[2.0, 8.0, 6.0, 16.0]);
        // The new biases are `bias + weights * shifts`: 0.5 + 1 * 1 + 2 * 2 and -0.5 + 3 * 1 + 4 * 2.
        assert_close(&constant_values(&graph, &conv[2]), &[5.5, 10.5]);
    }

    #[test]
    fn scale_before_a_grouped_convolution_is_folded_into_the_weights_of_its_group() {
        let constants = vec![
            float_tensor("w", &[2, 1, 1, 1], &[3.0, 5.0]),
            float_tensor("scale", &[1, 2, 1, 1], &[2.0, 4.0]),
        ];
        let nodes = vec![
            node("Mul", &["x", "scale"], &["a"]),
            node("Conv", &["a", "w"], &["y"]).with_int("group", 2).with_ints("pads", &[1, 1, 1, 1]),
        ];
        let mut graph = build_graph(&IMAGE_DIMS, constants, nodes);
        fold_before_conv(&mut graph);
        assert_eq!(operators(&graph), ["Conv"]);
        let conv = graph.node[0].input.clone();
        assert_close(&constant_values(&graph, &conv[1]), &[6.0, 20.0]);
    }
}
