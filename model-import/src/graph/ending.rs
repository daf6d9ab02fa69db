//! Recognises the activation that a graph ends in.

use std::fmt;

use onnx_proto::{GraphProto, NodeProto};

use super::proto::{self, NodeExt};

/// The last operation on the output's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// A softmax over the classes: the outputs are probabilities that add up to 1.
    Softmax,
    /// The logarithm of a softmax.
    LogSoftmax,
    /// A sigmoid: each output is a probability of its own.
    Sigmoid,
    /// A layer such as Gemm or Conv, whose outputs have no bounds.
    Linear,
    /// Any other operation. The outputs may be of any kind.
    Other,
}

impl fmt::Display for Ending {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Softmax => "a softmax",
            Self::LogSoftmax => "the logarithm of a softmax",
            Self::Sigmoid => "a sigmoid",
            Self::Linear => "a layer without an activation",
            Self::Other => "no known activation",
        })
    }
}

/// Recognises the operation that computes the value `output_name` of a graph.
///
/// Operators that only change the shape or the type of a value are skipped.
pub(super) fn recognise(graph: &GraphProto, output_name: &str) -> Ending {
    let Some(node) = find_producer(graph, output_name) else {
        return Ending::Other;
    };
    match node.op_type.as_str() {
        // A softmax over axis 0 compares the images of a batch with each other.
        "Softmax" if node.int("axis") != Some(0) => Ending::Softmax,
        "LogSoftmax" if node.int("axis") != Some(0) => Ending::LogSoftmax,
        "Sigmoid" => Ending::Sigmoid,
        "Gemm" | "Conv" | "MatMul" | "BatchNormalization" => Ending::Linear,
        "Add" if has_constant_operand(graph, node) => Ending::Linear,
        "Log" => match input(node, 0).map(|value| recognise(graph, value)) {
            Some(Ending::Softmax) => Ending::LogSoftmax,
            _ => Ending::Other,
        },
        "Exp" => match input(node, 0).map(|value| recognise(graph, value)) {
            Some(Ending::LogSoftmax) => Ending::Softmax,
            _ => Ending::Other,
        },
        "Clip" => recognise_clipped(graph, node),
        "Div" if divides_by_own_sum(graph, node) => Ending::Softmax,
        "Div" | "Reciprocal" if divides_by_one_plus_exp(graph, node) => Ending::Sigmoid,
        _ => Ending::Other,
    }
}

/// Recognises the operation before a Clip that leaves the meaning of the values as it is.
///
/// Such a Clip replaces the quantization of the value. A Clip of a layer's output that removes all negative
/// values is an activation.
fn recognise_clipped(graph: &GraphProto, clip: &NodeProto) -> Ending {
    let low = clip.float("min").or_else(|| {
        let bound = proto::initializer(graph, input(clip, 1)?).and_then(proto::floats)?;
        bound.first().copied()
    });
    match input(clip, 0).map_or(Ending::Other, |value| recognise(graph, value)) {
        Ending::Linear if low.is_some_and(|low| low >= 0.0) => Ending::Other,
        ending => ending,
    }
}

/// Returns the node that computes a value, without the nodes that keep the values as they are.
fn find_producer<'a>(graph: &'a GraphProto, name: &str) -> Option<&'a NodeProto> {
    let mut node = &graph.node[proto::producer(graph, name)?];
    // A graph has no cycles, so each step comes closer to the input.
    while matches!(
        node.op_type.as_str(),
        "Identity" | "Reshape" | "Flatten" | "Squeeze" | "Unsqueeze" | "Dropout" | "Cast"
    ) {
        node = &graph.node[proto::producer(graph, input(node, 0)?)?];
    }
    Some(node)
}

fn input(node: &NodeProto, index: usize) -> Option<&str> {
    node.input.get(index).map(String::as_str)
}

fn has_constant_operand(graph: &GraphProto, node: &NodeProto) -> bool {
    node.input.iter().any(|name| proto::initializer(graph, name).is_some())
}

/// Returns true if the node computes `exp(x) / sum(exp(x))`.
fn divides_by_own_sum(graph: &GraphProto, node: &NodeProto) -> bool {
    let (Some(dividend), Some(divisor)) = (input(node, 0), input(node, 1)) else { return false };
    let operator_of = |name: &str| find_producer(graph, name).map(|node| node.op_type.as_str());
    operator_of(dividend) == Some("Exp")
        && find_producer(graph, divisor)
            .is_some_and(|sum| sum.op_type == "ReduceSum" && input(sum, 0) == Some(dividend))
}

/// Returns true if the node computes `1 / (1 + exp(x))`.
fn divides_by_one_plus_exp(graph: &GraphProto, node: &NodeProto) -> bool {
    let is_one = |name: &str| proto::initializer(graph, name).and_then(proto::floats) == Some(vec![1.0]);
    let divisor = match (node.op_type.as_str(), input(node, 0), input(node, 1)) {
        ("Reciprocal", Some(divisor), _) => divisor,
        ("Div", Some(dividend), Some(divisor)) if is_one(dividend) => divisor,
        _ => return false,
    };
    let Some(sum) = find_producer(graph, divisor).filter(|node| node.op_type == "Add") else { return false };
    let is_exp = |name: &str| find_producer(graph, name).is_some_and(|node| node.op_type == "Exp");
    sum.input.iter().any(|name| is_one(name)) && sum.input.iter().any(|name| is_exp(name))
}

#[cfg(test)]
mod tests {
    use super::super::proto::{float_tensor, node};
    use super::super::testing::build_graph;
    use super::*;

    fn ending_of(nodes: Vec<NodeProto>) -> Ending {
        let constants = vec![float_tensor("w", &[2, 3], &[0.5; 6]), float_tensor("one", &[], &[1.0])];
        recognise(&build_graph(&[None, Some(2)], constants, nodes), "y")
    }

    #[test]
    fn activation_is_recognised_through_operators_that_keep_the_values() {
        for (operator, expected) in [
            ("Softmax", Ending::Softmax),
            ("LogSoftmax", Ending::LogSoftmax),
            ("Sigmoid", Ending::Sigmoid),
            ("Relu", Ending::Other),
        ] {
            assert_eq!(ending_of(vec![node(operator, &["x"], &["y"])]), expected);
            let followed = ["Flatten", "Reshape", "Squeeze", "Identity", "Cast"]
                .map(|last| ending_of(vec![node(operator, &["x"], &["a"]), node(last, &["a"], &["y"])]));
            assert_eq!(followed, [expected; 5]);
        }
    }

    #[test]
    fn layer_without_an_activation_is_linear() {
        for operator in ["Gemm", "MatMul", "Conv", "Add"] {
            assert_eq!(ending_of(vec![node(operator, &["x", "w"], &["y"])]), Ending::Linear, "{operator}");
        }
        // The sum of two computed values may be an average of probabilities.
        let sum = vec![node("Softmax", &["x"], &["a"]), node("Add", &["a", "x"], &["y"])];
        assert_eq!(ending_of(sum), Ending::Other);
        assert_eq!(ending_of(vec![]), Ending::Other);
    }

    #[test]
    fn activation_is_recognised_before_the_clip_that_replaces_a_quantization() {
        let clipped = |operator: &str, low: f32| {
            ending_of(vec![
                node(operator, &["x", "w"], &["a"]),
                node("Clip", &["a"], &["b"]).with_float("min", low).with_float("max", 1.0),
                node("Reshape", &["b"], &["c"]),
                node("Clip", &["c"], &["y"]).with_float("min", low).with_float("max", 1.0),
            ])
        };
        assert_eq!(clipped("Softmax", 0.0), Ending::Softmax);
        assert_eq!(clipped("Sigmoid", 0.0), Ending::Sigmoid);
        assert_eq!(clipped("Gemm", -1.0), Ending::Linear);
        assert_eq!(clipped("Gemm", 0.0), Ending::Other);
        let two_inputs = vec![node("Gemm", &["x", "w"], &["a"]), node("Clip", &["a", "one"], &["y"])];
        assert_eq!(ending_of(two_inputs), Ending::Other);
    }

    #[test]
    fn softmax_over_the_batch_is_not_a_softmax_over_the_classes() {
        let axis = |axis| ending_of(vec![node("Softmax", &["x"], &["y"]).with_int("axis", axis)]);
        assert_eq!([axis(-1), axis(1), axis(0)], [Ending::Softmax, Ending::Softmax, Ending::Other]);
    }

    #[test]
    fn activation_that_is_written_out_is_recognised() {
        let softmax = vec![
            node("Exp", &["x"], &["e"]),
            node("ReduceSum", &["e"], &["s"]),
            node("Div", &["e", "s"], &["y"]),
        ];
        assert_eq!(ending_of(softmax), Ending::Softmax);
        let logarithm = vec![node("Softmax", &["x"], &["a"]), node("Log", &["a"], &["y"])];
        assert_eq!(ending_of(logarithm), Ending::LogSoftmax);
        let exponential = vec![node("LogSoftmax", &["x"], &["a"]), node("Exp", &["a"], &["y"])];
        assert_eq!(ending_of(exponential), Ending::Softmax);
        for last in [node("Reciprocal", &["d"], &["y"]), node("Div", &["one", "d"], &["y"])] {
            let exp = vec![node("Exp", &["x"], &["e"]), node("Add", &["e", "one"], &["d"]), last];
            assert_eq!(ending_of(exp), Ending::Sigmoid);
        }
        assert_eq!(ending_of(vec![node("Div", &["x", "w"], &["y"])]), Ending::Other);
    }
}
