//! Provides helpers for the unit tests of the graph passes.

use onnx_proto::{GraphProto, NodeProto, TensorProto};

use super::proto;

/// Builds a graph with input `x` of shape `dims` and output `y`.
pub(crate) fn build_graph(
    dims: &[Option<i64>],
    constants: Vec<TensorProto>,
    nodes: Vec<NodeProto>,
) -> GraphProto {
    GraphProto {
        input: vec![proto::value_info("x", dims)],
        output: vec![proto::value_info("y", &[])],
        initializer: constants,
        node: nodes,
        ..Default::default()
    }
}

/// Returns the operators of the nodes, in order.
pub(crate) fn operators(graph: &GraphProto) -> Vec<&str> {
    graph.node.iter().map(|node| node.op_type.as_str()).collect()
}

/// Returns the values of a constant.
pub(crate) fn constant_values(graph: &GraphProto, name: &str) -> Vec<f32> {
    proto::floats(proto::initializer(graph, name).unwrap()).unwrap()
}
