use onnx_proto::{GraphProto, NodeProto, TensorProto};

use super::super::testing::{build_graph, constant_values, operators};
use super::*;

const SIDE: i64 = 8;

fn weight_tensor(name: &str, dims: [i64; 4]) -> TensorProto {
    let count = usize::try_from(dims.iter().product::<i64>()).unwrap();
    float_tensor(name, &dims, &vec![0.5; count])
}

fn conv_node(input: &str, weights: &str, output: &str) -> NodeProto {
    proto::node("Conv", &[input, weights], &[output])
}

fn depthwise(input: &str, weights: &str, output: &str, channels: i64) -> NodeProto {
    conv_node(input, weights, output).with_int("group", channels).with_ints("pads", &[1; 4])
}

fn relu(input: &str, output: &str) -> NodeProto {
    proto::node("Relu", &[input], &[output])
}

fn add(left: &str, right: &str, output: &str) -> NodeProto {
    proto::node("Add", &[left, right], &[output])
}

/// Returns the weights of a block that expands 3 channels to 6 and projects them to 3.
fn block_weights() -> Vec<TensorProto> {
    vec![weight_tensor("e", [6, 3, 1, 1]), weight_tensor("d", [6, 1, 3, 3]), weight_tensor("p", [3, 6, 1, 1])]
}

/// Returns the nodes of the block with these weights. Its input is `x` and its output `p0`.
fn block() -> Vec<NodeProto> {
    vec![
        conv_node("x", "e", "e0"),
        relu("e0", "e1"),
        depthwise("e1", "d", "d0", 6),
        relu("d0", "d1"),
        conv_node("d1", "p", "p0"),
    ]
}

fn fuse_nodes(constants: Vec<TensorProto>, nodes: Vec<NodeProto>) -> GraphProto {
    let mut graph = build_graph(&[None, Some(3), Some(SIDE), Some(SIDE)], constants, nodes);
    fuse(&mut graph, "x");
    graph
}

fn read_plan(graph: &GraphProto, index: usize) -> String {
    graph.node[index].text("plan").unwrap()
}

#[test]
fn residual_block_and_classifier_head_become_one_chain() {
    let mut nodes = block();
    nodes.extend([
        add("x", "p0", "a"),
        proto::node("GlobalAveragePool", &["a"], &["g"]),
        proto::node("Flatten", &["g"], &["f"]),
        proto::node("Gemm", &["f", "m", "b"], &["y"]),
    ]);
    let mut constants = block_weights();
    constants.push(float_tensor("m", &[3, 2], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]));
    constants.push(float_tensor("b", &[2], &[7.0, 8.0]));
    let graph = fuse_nodes(constants, nodes);
    assert_eq!(operators(&graph), [CHAIN_OP]);
    let conv_source = |channels, outputs, kernel, pad, clamp| {
        format!(
            "fused::Conv {{ input_channels: {channels}, output_channels: {outputs}, kernel: {kernel}, \
             stride: 1, pads: [{pad}, {pad}, {pad}, {pad}], clamp: [{clamp}, f32::INFINITY] }}"
        )
    };
    let (expand, depthwise) = (conv_source(3, 6, 1, 0, "0.0"), conv_source(6, 6, 3, 1, "0.0"));
    let (project, classes) =
        (conv_source(6, 3, 1, 0, "f32::NEG_INFINITY"), conv_source(3, 2, 1, 0, "f32::NEG_INFINITY"));
    assert_eq!(
        read_plan(&graph, 0),
        format!(
            "fused::Plan {{ input: [3, 8, 8], shifted: false, steps: vec![fused::Step::InvertedResidual {{ \
             expand: Some({expand}), depthwise: {depthwise}, project: {project}, add_input: true }}, \
             fused::Step::GlobalAveragePool, fused::Step::Flatten, fused::Step::Conv({classes})] }}"
        )
    );
    assert_eq!(graph.node[0].int("rank"), Some(2));
    let weights = constant_values(&graph, &graph.node[0].input[1]);
    // `fused` expects one row per output; without `transB`, Gemm stores one column per output.
    assert_eq!(weights[weights.len() - 8..], [1.0, 3.0, 5.0, 2.0, 4.0, 6.0, 7.0, 8.0]);
    // The weights and biases of expand, depthwise and project, and the eight values above.
    assert_eq!(weights.len(), (18 + 6) + (54 + 6) + (18 + 3) + 8);
}

#[test]
fn addition_of_a_value_that_is_not_the_input_is_not_fused_into_the_block() {
    let mut nodes = vec![conv_node("x", "q", "q0")];
    nodes.extend(block());
    nodes.push(add("q0", "p0", "y"));
    let mut constants = block_weights();
    constants.push(weight_tensor("q", [3, 3, 1, 1]));
    let graph = fuse_nodes(constants, nodes);
    assert_eq!(operators(&graph), [CHAIN_OP, CHAIN_OP, "Add"]);
    assert!(read_plan(&graph, 1).contains("add_input: false"));
}

#[test]
fn chain_may_begin_with_the_addition_of_a_constant_per_channel() {
    let per_channel = float_tensor("s", &[1, 3, 1, 1], &[1.0, 2.0, 3.0]);
    let scalar = float_tensor("s", &[], &[4.0]);
    for (constant, expected) in [(per_channel, [1.0, 2.0, 3.0]), (scalar, [4.0; 3])] {
        for operands in [["x", "s"], ["s", "x"]] {
            let nodes = vec![add(operands[0], operands[1], "z"), conv_node("z", "w", "y")];
            let graph = fuse_nodes(vec![constant.clone(), weight_tensor("w", [4, 3, 3, 3])], nodes);
            assert_eq!(operators(&graph), [CHAIN_OP]);
            assert_eq!(graph.node[0].input[0], "x");
            assert!(read_plan(&graph, 0).starts_with("fused::Plan { input: [3, 8, 8], shifted: true, steps"));
            assert_eq!(constant_values(&graph, &graph.node[0].input[1])[..3], expected);
        }
    }
}

#[test]
fn additions_with_which_no_chain_can_begin_are_not_fused() {
    let constants = || vec![float_tensor("s", &[1, 3, 1, 1], &[1.0; 3]), weight_tensor("w", [3, 3, 1, 1])];
    // The sum has two users.
    let nodes = vec![add("x", "s", "z"), conv_node("z", "w", "c"), add("c", "z", "y")];
    assert_eq!(operators(&fuse_nodes(constants(), nodes)), ["Add", CHAIN_OP, "Add"]);
    // No convolution follows.
    let nodes = vec![add("x", "s", "z"), proto::node("Sigmoid", &["z"], &["y"])];
    assert_eq!(operators(&fuse_nodes(constants(), nodes)), ["Add", "Sigmoid"]);
    // The constant has one value per column.
    let columns = vec![float_tensor("s", &[SIDE], &[1.0; 8]), weight_tensor("w", [3, 3, 1, 1])];
    assert_eq!(
        operators(&fuse_nodes(columns, vec![add("x", "s", "z"), conv_node("z", "w", "y")])),
        ["Add", CHAIN_OP]
    );
}

#[test]
fn addition_that_broadcasts_is_not_fused_into_the_block() {
    // The projected feature map has one pixel, which Add broadcasts over the input.
    let mut nodes = block();
    nodes[2] = conv_node("e1", "d", "d0").with_int("group", 6).with_ints("strides", &[2, 2]);
    nodes.push(add("x", "p0", "y"));
    let mut graph = build_graph(&[None, Some(3), Some(3), Some(3)], block_weights(), nodes);
    fuse(&mut graph, "x");
    assert_eq!(operators(&graph), [CHAIN_OP, "Add"]);
    assert!(read_plan(&graph, 0).contains("add_input: false"));
}

#[test]
fn chain_ends_at_a_value_with_a_second_use() {
    // The expanded feature map has a second user, so the block is not fused as a whole. One chain ends at
    // this feature map, and another one begins there.
    let mut nodes = block();
    nodes.push(proto::node("GlobalAveragePool", &["e1"], &["s"]));
    nodes.push(proto::node("Concat", &["p0", "s"], &["y"]));
    let graph = fuse_nodes(block_weights(), nodes);
    assert_eq!(operators(&graph), [CHAIN_OP, CHAIN_OP, "GlobalAveragePool", "Concat"]);
    assert_eq!(graph.node[0].output[0], "e1");
    assert_eq!(graph.node[1].input[0], "e1");

    // The block's output `p0` is also an output of the graph, so the chain must end there.
    let mut nodes = block();
    nodes.push(relu("p0", "z"));
    let mut graph = build_graph(&[None, Some(3), Some(SIDE), Some(SIDE)], block_weights(), nodes);
    graph.output = vec![proto::value_info("p0", &[]), proto::value_info("z", &[])];
    fuse(&mut graph, "x");
    assert_eq!(operators(&graph), [CHAIN_OP, "Relu"]);
}

#[test]
fn unsupported_convolutions_are_not_fused() {
    let dilated = conv_node("x", "w", "y").with_ints("dilations", &[2, 2]);
    assert_eq!(operators(&fuse_nodes(vec![weight_tensor("w", [3, 3, 3, 3])], vec![dilated])), ["Conv"]);
    let two_outputs_per_input = conv_node("x", "w", "y").with_int("group", 3);
    assert_eq!(
        operators(&fuse_nodes(vec![weight_tensor("w", [6, 1, 3, 3])], vec![two_outputs_per_input])),
        ["Conv"]
    );
    let depthwise_7x7 = conv_node("x", "w", "y").with_int("group", 3);
    assert_eq!(operators(&fuse_nodes(vec![weight_tensor("w", [3, 1, 7, 7])], vec![depthwise_7x7])), ["Conv"]);
    let non_square = conv_node("x", "w", "y");
    assert_eq!(operators(&fuse_nodes(vec![weight_tensor("w", [3, 3, 3, 1])], vec![non_square])), ["Conv"]);
}

#[test]
fn auto_pad_and_both_forms_of_clip_bounds_are_read() {
    let conv = conv_node("x", "w", "c").with_ints("strides", &[2, 2]).with_text("auto_pad", "SAME_UPPER");
    let clip = proto::node("Clip", &["c", "", "six"], &["y"]);
    let constants = vec![weight_tensor("w", [4, 3, 3, 3]), float_tensor("six", &[], &[6.0])];
    let graph = fuse_nodes(constants, vec![conv, clip]);
    let plan = read_plan(&graph, 0);
    assert!(plan.contains("pads: [0, 0, 1, 1], clamp: [f32::NEG_INFINITY, 6.0]"), "{plan}");

    let conv = same_lower_conv();
    let clip = proto::node("Clip", &["c"], &["y"]).with_float("min", 0.0).with_float("max", 6.0);
    let graph = fuse_nodes(vec![weight_tensor("w", [4, 3, 3, 3])], vec![conv, clip]);
    let plan = read_plan(&graph, 0);
    assert!(plan.contains("pads: [1, 1, 0, 0], clamp: [0.0, 6.0]"), "{plan}");
}

fn same_lower_conv() -> NodeProto {
    conv_node("x", "w", "c").with_ints("strides", &[2, 2]).with_text("auto_pad", "SAME_LOWER")
}
