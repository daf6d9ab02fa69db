//! Simplifies the classifier head, which pools and flattens the last feature map.
//!
//! In this module, a plane is the two-dimensional array of one channel's pixels. Exporters write a head in
//! many ways:
//!
//! - They pool with ReduceMean, or with an AveragePool over the whole plane.
//! - They flatten with Squeeze, or with a Reshape to a constant shape whose batch size is 1.
//! - They flatten with a Reshape to a shape that Shape, Gather, Unsqueeze and Concat compute.
//! - They put a Transpose to channels-last before one of these nodes.
//!
//! This pass turns such nodes into GlobalAveragePool and Flatten. Each `replace_…` function returns how far
//! [`simplify`] must advance its index to reach the next node to visit.

use onnx_proto::{GraphProto, NodeProto};

use super::proto::{self, NodeExt};
use super::shapes::{self, Dim, Shapes};

use Dim::{Batch, Known};

/// Simplifies the pooling and flattening nodes of a graph.
///
/// `input_name` is the name of the graph's image input.
pub fn simplify(graph: &mut GraphProto, input_name: &str) {
    let shapes = Shapes::infer(graph, input_name);
    let mut index = 0;
    while index < graph.node.len() {
        index += match graph.node[index].op_type.as_str() {
            "ReduceMean" => replace_reduce_mean(graph, index, &shapes),
            "AveragePool" => replace_average_pool(graph, index, &shapes),
            "Squeeze" | "Reshape" => replace_reshape(graph, index, &shapes),
            _ => 1,
        };
    }
}

/// Appends a Flatten to a graph whose output has the shape `[batch, classes, 1, 1]`.
///
/// `input_name` is the name of the graph's image input.
pub fn flatten_output(graph: &mut GraphProto, input_name: &str) {
    let [output] = graph.output.as_slice() else {
        return;
    };
    let output = output.name.clone();
    let shapes = Shapes::infer(graph, input_name);
    let Some([Batch, Known(_), Known(1), Known(1)]) = shapes.shape(&output) else {
        return;
    };
    // The graph's output keeps its name, so the value before Flatten gets a new one.
    let unflattened = proto::fresh_name(graph, &output);
    for node in &mut graph.node {
        for value in node.output.iter_mut().chain(&mut node.input) {
            if *value == output {
                value.clone_from(&unflattened);
            }
        }
    }
    graph.node.push(proto::node("Flatten", &[&unflattened], &[&output]).with_int("axis", 1));
}

/// Replaces a ReduceMean over height and width of `[batch, channels, height, width]` by GlobalAveragePool.
///
/// If the ReduceMean drops the reduced dimensions, its input may also be transposed to
/// `[batch, height, width, channels]`.
fn replace_reduce_mean(graph: &mut GraphProto, index: usize, shapes: &Shapes) -> usize {
    let node = &graph.node[index];
    let keeps_dims = node.int("keepdims").unwrap_or(1) != 0;
    let (Some(axes), Some(value)) = (proto::axes(graph, node), node.input.first().cloned()) else {
        return 1;
    };
    let (source, perm) = skip_transpose(graph, &value, keeps_dims);
    let Some(rank @ 4) = shapes.shape(&source).map(<[Dim]>::len) else {
        return 1;
    };
    // The axes in `axes` are those of `value`. The permutation converts them to axes of `source`.
    let mut source_axes: Vec<i64> =
        shapes::resolve_axes(&axes, rank).into_iter().filter_map(|axis| perm.get(axis).copied()).collect();
    source_axes.sort_unstable();
    if source_axes != [2, 3] {
        return 1;
    }
    let output = graph.node[index].output[0].clone();
    if keeps_dims {
        graph.node[index] = proto::node("GlobalAveragePool", &[&source], &[&output]);
        return 1;
    }
    let pooled = proto::fresh_name(graph, &format!("{output}_pooled"));
    graph.node[index] = proto::node("GlobalAveragePool", &[&source], &[&pooled]);
    graph.node.insert(index + 1, proto::node("Flatten", &[&pooled], &[&output]).with_int("axis", 1));
    2
}

/// Returns the input and the permutation of the Transpose to channels-last that produces `value`.
///
/// Returns `value` itself and the identity permutation if no such Transpose produces `value`, or if
/// `keeps_dims` is true. With `keeps_dims`, the output of the node that reads `value` must stay
/// channels-last, so the Transpose is still needed.
fn skip_transpose(graph: &GraphProto, value: &str, keeps_dims: bool) -> (String, Vec<i64>) {
    let to_channels_last = [0, 2, 3, 1];
    match proto::producer(graph, value).map(|index| &graph.node[index]) {
        Some(node)
            if !keeps_dims && node.op_type == "Transpose" && node.ints("perm") == Some(&to_channels_last) =>
        {
            (node.input[0].clone(), to_channels_last.to_vec())
        }
        _ => (value.into(), vec![0, 1, 2, 3]),
    }
}

/// Replaces an AveragePool whose window is the whole plane by GlobalAveragePool.
fn replace_average_pool(graph: &mut GraphProto, index: usize, shapes: &Shapes) -> usize {
    let node = &graph.node[index];
    let window_covers_plane = || {
        let [_, _, Known(height), Known(width)] = shapes.shape(node.input.first()?)? else {
            return None;
        };
        let has_pads = node.ints("pads").is_some_and(|pads| pads.iter().any(|pad| *pad != 0));
        let is_same_padded = node.text("auto_pad").is_some_and(|mode| mode.starts_with("SAME"));
        Some(node.ints("kernel_shape")? == [*height, *width] && !has_pads && !is_same_padded)
    };
    if window_covers_plane() == Some(true) {
        let (input, output) = (node.input[0].clone(), node.output[0].clone());
        graph.node[index] = proto::node("GlobalAveragePool", &[&input], &[&output]);
    }
    1
}

/// Replaces a Squeeze or Reshape by a Flatten if the node turns each image into one row.
fn replace_reshape(graph: &mut GraphProto, index: usize, shapes: &Shapes) -> usize {
    if let Some(node) = find_equivalent_flatten(graph, &graph.node[index], shapes) {
        graph.node[index] = node;
    }
    1
}

/// Returns the Flatten that is equivalent to a Squeeze or Reshape, if there is one.
fn find_equivalent_flatten(graph: &GraphProto, node: &NodeProto, shapes: &Shapes) -> Option<NodeProto> {
    let (value, output) = (node.input.first()?, node.output.first()?);
    let [Batch, Known(row_len)] = shapes.shape(output)? else {
        return None;
    };
    // The Transpose can be skipped if each plane is one pixel, because the order of the values then stays the
    // same.
    let (source, perm) = skip_transpose(graph, value, false);
    let plane_is_one_pixel = matches!(shapes.shape(&source), Some([Batch, _, Known(1), Known(1)]));
    let source = if perm == [0, 1, 2, 3] || plane_is_one_pixel { source } else { value.clone() };
    let [Batch, image_dims @ ..] = shapes.shape(&source)? else {
        return None;
    };
    (shapes::product(image_dims) == Known(*row_len))
        .then(|| proto::node("Flatten", &[&source], &[output]).with_int("axis", 1))
}

#[cfg(test)]
mod tests {
    use super::super::proto::{int_tensor, node};
    use super::super::testing::{build_graph, operators};
    use super::super::tidy;
    use super::*;

    const FEATURE_MAP: [Option<i64>; 4] = [Some(1), Some(8), Some(7), Some(7)];
    const POOLED: [Option<i64>; 4] = [None, Some(8), Some(1), Some(1)];

    fn simplify_nodes(
        dims: &[Option<i64>],
        constants: Vec<onnx_proto::TensorProto>,
        nodes: Vec<NodeProto>,
    ) -> GraphProto {
        let mut graph = build_graph(dims, constants, nodes);
        simplify(&mut graph, "x");
        tidy::remove_unused(&mut graph);
        graph
    }

    #[test]
    fn reshape_to_one_row_per_image_becomes_flatten() {
        for target in [[1, -1], [1, 8], [-1, 8], [0, -1]] {
            let constants = vec![int_tensor("shape", &[2], &target)];
            let graph = simplify_nodes(&POOLED, constants, vec![node("Reshape", &["x", "shape"], &["y"])]);
            assert_eq!(operators(&graph), ["Flatten"], "{target:?}");
            assert!(graph.initializer.is_empty());
        }
    }

    #[test]
    fn reshape_that_splits_or_joins_images_is_kept() {
        // One row per image would have 8 * 7 * 7 = 392 values.
        for target in [[-1, 8], [2, -1]] {
            let constants = vec![int_tensor("shape", &[2], &target)];
            let graph =
                simplify_nodes(&FEATURE_MAP, constants, vec![node("Reshape", &["x", "shape"], &["y"])]);
            assert_eq!(operators(&graph), ["Reshape"], "{target:?}");
            assert_eq!(graph.node[0].input, ["x", "shape"]);
        }
    }

    #[test]
    fn reshape_to_a_computed_shape_becomes_flatten() {
        let constants = vec![int_tensor("zero", &[], &[0]), int_tensor("rest", &[1], &[-1])];
        let nodes = vec![
            node("Shape", &["x"], &["s"]),
            node("Gather", &["s", "zero"], &["n"]).with_int("axis", 0),
            node("Unsqueeze", &["n"], &["n1"]).with_ints("axes", &[0]),
            node("Concat", &["n1", "rest"], &["shape"]).with_int("axis", 0),
            node("Reshape", &["x", "shape"], &["y"]),
        ];
        assert_eq!(operators(&simplify_nodes(&FEATURE_MAP, constants, nodes)), ["Flatten"]);

        let constants = vec![
            int_tensor("from", &[1], &[0]),
            int_tensor("to", &[1], &[1]),
            int_tensor("rest", &[1], &[-1]),
        ];
        let nodes = vec![
            node("Shape", &["x"], &["s"]),
            node("Slice", &["s", "from", "to"], &["n"]),
            node("Cast", &["n"], &["n1"]).with_int("to", 7),
            node("Concat", &["n1", "rest"], &["shape"]).with_int("axis", 0),
            node("Reshape", &["x", "shape"], &["y"]),
        ];
        assert_eq!(operators(&simplify_nodes(&FEATURE_MAP, constants, nodes)), ["Flatten"]);
    }

    #[test]
    fn mean_and_pool_over_the_whole_plane_become_global_average_pool() {
        let mean = |axes: &[i64], keeps_dims| {
            node("ReduceMean", &["x"], &["y"]).with_ints("axes", axes).with_int("keepdims", keeps_dims)
        };
        let operators_after = |node| {
            let graph = simplify_nodes(&FEATURE_MAP, vec![], vec![node]);
            operators(&graph).join(" ")
        };
        assert_eq!(operators_after(mean(&[2, 3], 1)), "GlobalAveragePool");
        assert_eq!(operators_after(mean(&[-1, -2], 0)), "GlobalAveragePool Flatten");
        assert_eq!(operators_after(mean(&[1, 2], 0)), "ReduceMean");
        let pool = |kernel: &[i64]| node("AveragePool", &["x"], &["y"]).with_ints("kernel_shape", kernel);
        assert_eq!(operators_after(pool(&[7, 7])), "GlobalAveragePool");
        assert_eq!(operators_after(pool(&[3, 3])), "AveragePool");
    }

    #[test]
    fn transpose_before_the_head_is_removed_unless_it_changes_the_order_of_the_values() {
        let transpose = node("Transpose", &["x"], &["t"]).with_ints("perm", &[0, 2, 3, 1]);
        let mean = node("ReduceMean", &["t"], &["y"]).with_ints("axes", &[1, 2]).with_int("keepdims", 0);
        let graph = simplify_nodes(&FEATURE_MAP, vec![], vec![transpose.clone(), mean]);
        assert_eq!(operators(&graph), ["GlobalAveragePool", "Flatten"]);
        let squeeze = node("Squeeze", &["t"], &["y"]).with_ints("axes", &[1, 2]);
        let graph = simplify_nodes(&POOLED, vec![], vec![transpose.clone(), squeeze]);
        assert_eq!(operators(&graph), ["Flatten"]);
        assert_eq!(graph.node[0].input, ["x"]);
        // Transposing a larger plane changes the order of the values.
        let constants = vec![int_tensor("shape", &[2], &[-1, 392])];
        let graph = simplify_nodes(
            &FEATURE_MAP,
            constants,
            vec![transpose, node("Reshape", &["t", "shape"], &["y"])],
        );
        assert_eq!(operators(&graph), ["Transpose", "Flatten"]);
    }

    #[test]
    fn output_with_a_plane_of_one_pixel_is_flattened() {
        let mut graph = build_graph(&FEATURE_MAP, vec![], vec![node("GlobalAveragePool", &["x"], &["y"])]);
        flatten_output(&mut graph, "x");
        assert_eq!(operators(&graph), ["GlobalAveragePool", "Flatten"]);
        assert_eq!(graph.node[1].output, ["y"]);
        assert_eq!(graph.node[0].output, graph.node[1].input);
    }
}
