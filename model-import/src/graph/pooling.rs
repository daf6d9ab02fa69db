//! Rewrites the rounding mode of pooling nodes.
//!
//! With `ceil_mode`, the last window of a pooling may reach beyond the padding. burn-onnx accepts the attribute of
//! AveragePool only from opset 19 on. Padding at the end that is not counted has the same effect, in every opset.

use onnx_proto::{GraphProto, NodeProto, TensorProto};

use super::proto::{self, NodeExt};
use super::shapes::{Dim, Shapes};

/// Replaces `ceil_mode` of every AveragePool by padding at the end.
///
/// `input_name` is the name of the graph's image input.
pub fn replace_ceil_mode(graph: &mut GraphProto, input_name: &str) {
    let rounds_up = |node: &NodeProto| node.op_type == "AveragePool" && node.int("ceil_mode") == Some(1);
    if !graph.node.iter().any(rounds_up) {
        return;
    }
    let shapes = Shapes::infer(graph, input_name);
    let mut constants = Vec::new();
    let mut index = 0;
    while index < graph.node.len() {
        if rounds_up(&graph.node[index])
            && let Some(nodes) = pad_explicitly(graph, &graph.node[index], &shapes, &mut constants)
        {
            let added = nodes.len() - 1;
            graph.node.splice(index..=index, nodes);
            index += added;
        }
        index += 1;
    }
    graph.initializer.extend(constants);
}

/// Returns the nodes that are equivalent to an AveragePool with `ceil_mode`, and appends their constants.
fn pad_explicitly(
    graph: &GraphProto,
    node: &NodeProto,
    shapes: &Shapes,
    constants: &mut Vec<TensorProto>,
) -> Option<Vec<NodeProto>> {
    let (input, output) = (shapes.shape(node.input.first()?)?, shapes.shape(node.output.first()?)?);
    let kernel = node.ints("kernel_shape")?;
    let ones = vec![1; kernel.len()];
    let (strides, dilations) =
        (node.ints("strides").unwrap_or(&ones), node.ints("dilations").unwrap_or(&ones));
    let zeros = vec![0; 2 * kernel.len()];
    let pads = node.ints("pads").unwrap_or(&zeros);
    if input.len() != kernel.len() + 2 || pads.len() != zeros.len() {
        return None;
    }
    let mut new_pads = pads.to_vec();
    for axis in 0..kernel.len() {
        let (Dim::Known(size), Dim::Known(count)) = (input[axis + 2], output[axis + 2]) else {
            return None;
        };
        let window_len = dilations[axis] * (kernel[axis] - 1) + 1;
        let covered = (count - 1) * strides[axis] + window_len;
        let missing = covered - (size + pads[axis] + pads[kernel.len() + axis]);
        new_pads[kernel.len() + axis] += missing.max(0);
    }
    let needs_padding = new_pads != pads;
    let counts_padding = node.int("count_include_pad") == Some(1) && pads.iter().any(|pad| *pad != 0);
    let mut pool = node.clone();
    pool.attribute.retain(|attribute| attribute.name != "ceil_mode" && attribute.name != "pads");
    if !needs_padding || !counts_padding {
        if needs_padding {
            pool.attribute.retain(|attribute| attribute.name != "count_include_pad");
        }
        return Some(vec![pool.with_ints("pads", &new_pads)]);
    }
    // The original padding counts, and the added padding does not, so the former becomes a node of its own.
    let padded = proto::fresh_name(graph, &format!("{}_padded", node.output[0]));
    let half = kernel.len();
    let all_pads = [&[0, 0], &pads[..half], &[0, 0], &pads[half..]].concat();
    let pads_name = proto::fresh_name(graph, &format!("{padded}_pads"));
    let length = i64::try_from(all_pads.len()).ok()?;
    constants.push(proto::int_tensor(&pads_name, &[length], &all_pads));
    let pad = proto::node("Pad", &[&node.input[0], &pads_name], &[&padded]);
    let added: Vec<i64> = new_pads.iter().zip(pads).map(|(new, old)| new - old).collect();
    pool.attribute.retain(|attribute| attribute.name != "count_include_pad");
    pool.input[0] = padded;
    Some(vec![pad, pool.with_ints("pads", &added)])
}

#[cfg(test)]
mod tests {
    use super::super::proto::node;
    use super::super::testing::{build_graph, operators};
    use super::*;

    fn replace(pads: &[i64], counts_padding: i64) -> GraphProto {
        let pool = node("AveragePool", &["x"], &["y"])
            .with_ints("kernel_shape", &[3, 3])
            .with_ints("strides", &[2, 2])
            .with_ints("pads", pads)
            .with_int("count_include_pad", counts_padding)
            .with_int("ceil_mode", 1);
        // Height 7 is covered by windows of 3 with stride 2, width 8 is not.
        let mut graph = build_graph(&[None, Some(3), Some(7), Some(8)], vec![], vec![pool]);
        replace_ceil_mode(&mut graph, "x");
        graph
    }

    #[test]
    fn rounding_up_becomes_padding_at_the_end_that_is_not_counted() {
        let graph = replace(&[0; 4], 1);
        assert_eq!(operators(&graph), ["AveragePool"]);
        let pool = &graph.node[0];
        assert_eq!(pool.ints("pads"), Some([0, 0, 0, 1].as_slice()));
        assert_eq!((pool.int("ceil_mode"), pool.int("count_include_pad")), (None, None));
    }

    #[test]
    fn padding_that_is_counted_becomes_a_pad() {
        let graph = replace(&[1, 1, 1, 1], 1);
        assert_eq!(operators(&graph), ["Pad", "AveragePool"]);
        let pads = proto::initializer(&graph, &graph.node[0].input[1]).unwrap();
        assert_eq!(proto::integers(pads), Some(vec![0, 0, 1, 1, 0, 0, 1, 1]));
        assert_eq!(graph.node[1].ints("pads"), Some([0, 0, 0, 1].as_slice()));
    }
}
