//! The way from a feature map to a row of classes, in one form and for any batch.
//!
//! Exporters write it in many ways: ReduceMean, AveragePool of the whole plane, Squeeze, Reshape to a
//! constant that has batch 1 in it, Reshape to what Shape/Gather/Unsqueeze/Concat compute, a Transpose of
//! a 1x1 plane before it. Here they become GlobalAveragePool and Flatten, or a Reshape whose constant
//! shape leaves the batch open.

use onnx_ir::{GraphProto, NodeProto};

use super::proto::{self, NodeExt, int_tensor};
use super::shapes::{self, Dim, Shapes};

use Dim::{Batch, Known};

/// Rewrites every such node; `input` is the graph's image input.
pub fn rewrite(graph: &mut GraphProto, input: &str) {
    let shapes = Shapes::infer(graph, input);
    let mut index = 0;
    while index < graph.node.len() {
        index += match graph.node[index].op_type.as_str() {
            "ReduceMean" => reduce_mean(graph, index, &shapes),
            "AveragePool" => whole_plane_pool(graph, index, &shapes),
            "Squeeze" | "Reshape" => to_flatten(graph, index, &shapes),
            _ => 1,
        };
    }
}

/// Lets a graph whose output is `[batch, classes, 1, 1]` end with a Flatten.
pub fn flatten_output(graph: &mut GraphProto, input: &str) {
    let [output] = graph.output.as_slice() else {
        return;
    };
    let name = output.name.clone();
    let shapes = Shapes::infer(graph, input);
    let Some([Batch, Known(_), Known(1), Known(1)]) = shapes.shape(&name) else {
        return;
    };
    let plane = proto::fresh_name(graph, &name);
    for node in &mut graph.node {
        for value in node.output.iter_mut().chain(&mut node.input) {
            if *value == name {
                value.clone_from(&plane);
            }
        }
    }
    graph.node.push(proto::node("Flatten", &[&plane], &[&name]).with_int("axis", 1));
}

/// Mean over the plane of `[batch, channels, height, width]`, or over that of its transpose
/// `[batch, height, width, channels]` when the dimensions are dropped. Gives the number of nodes to
/// go on by.
fn reduce_mean(graph: &mut GraphProto, index: usize, shapes: &Shapes) -> usize {
    let node = &graph.node[index];
    let keeps = node.int("keepdims").unwrap_or(1) != 0;
    let (Some(axes), Some(value)) = (proto::axes(graph, node), node.input.first().cloned()) else {
        return 1;
    };
    let (source, perm) = untransposed(graph, &value, keeps);
    let Some(rank @ 4) = shapes.shape(&source).map(<[Dim]>::len) else {
        return 1;
    };
    let mut axes: Vec<i64> =
        shapes::positions(&axes, rank).into_iter().filter_map(|axis| perm.get(axis).copied()).collect();
    axes.sort_unstable();
    if axes != [2, 3] {
        return 1;
    }
    let output = graph.node[index].output[0].clone();
    if keeps {
        graph.node[index] = proto::node("GlobalAveragePool", &[&source], &[&output]);
        return 1;
    }
    let pooled = proto::fresh_name(graph, &format!("{output}_pooled"));
    graph.node[index] = proto::node("GlobalAveragePool", &[&source], &[&pooled]);
    graph.node.insert(index + 1, proto::node("Flatten", &[&pooled], &[&output]).with_int("axis", 1));
    2
}

/// Where a value comes from if it is made by a Transpose to channels-last, and that permutation.
fn untransposed(graph: &GraphProto, value: &str, keeps_dims: bool) -> (String, Vec<i64>) {
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

/// AveragePool whose window is the whole plane.
fn whole_plane_pool(graph: &mut GraphProto, index: usize, shapes: &Shapes) -> usize {
    let node = &graph.node[index];
    let is_whole = || {
        let [_, _, Known(height), Known(width)] = shapes.shape(node.input.first()?)? else {
            return None;
        };
        let pads = node.ints("pads").is_some_and(|pads| pads.iter().any(|pad| *pad != 0));
        let automatic = node.text("auto_pad").is_some_and(|mode| mode.starts_with("SAME"));
        Some(node.ints("kernel_shape")? == [*height, *width] && !pads && !automatic)
    };
    if is_whole() == Some(true) {
        let (input, output) = (node.input[0].clone(), node.output[0].clone());
        graph.node[index] = proto::node("GlobalAveragePool", &[&input], &[&output]);
    }
    1
}

/// Squeeze and Reshape that make one row of each image become Flatten; other Reshapes whose result is
/// known get a constant shape with the batch left open.
fn to_flatten(graph: &mut GraphProto, index: usize, shapes: &Shapes) -> usize {
    if let Some(node) = flattened(graph, &graph.node[index], shapes) {
        graph.node[index] = node;
    } else if graph.node[index].op_type == "Reshape"
        && let Some(target) = open_batch(&graph.node[index], shapes)
    {
        let output = graph.node[index].output[0].clone();
        let shape = proto::fresh_name(graph, &format!("{output}_shape"));
        graph.initializer.push(int_tensor(&shape, &[i64::try_from(target.len()).unwrap_or(0)], &target));
        let input = graph.node[index].input[0].clone();
        graph.node[index] = proto::node("Reshape", &[&input, &shape], &[&output]);
    }
    1
}

fn flattened(graph: &GraphProto, node: &NodeProto, shapes: &Shapes) -> Option<NodeProto> {
    let (value, output) = (node.input.first()?, node.output.first()?);
    let [Batch, Known(row)] = shapes.shape(output)? else {
        return None;
    };
    // Of a 1x1 plane the Transpose moves nothing.
    let (source, perm) = untransposed(graph, value, false);
    let plane_is_one = matches!(shapes.shape(&source), Some([Batch, _, Known(1), Known(1)]));
    let source = if perm == [0, 1, 2, 3] || plane_is_one { source } else { value.clone() };
    let [Batch, image @ ..] = shapes.shape(&source)? else {
        return None;
    };
    (shapes::product(image) == Known(*row))
        .then(|| proto::node("Flatten", &[&source], &[output]).with_int("axis", 1))
}

/// The shape constant that gives `[batch, known, …]` for any batch.
fn open_batch(node: &NodeProto, shapes: &Shapes) -> Option<Vec<i64>> {
    let [Batch, image @ ..] = shapes.shape(node.output.first()?)? else {
        return None;
    };
    let sizes = image.iter().map(|dim| match dim {
        Known(size) => Some(*size),
        _ => None,
    });
    std::iter::once(Some(-1)).chain(sizes).collect()
}

#[cfg(test)]
mod tests {
    use super::super::proto::node;
    use super::super::testing::{graph, operators};
    use super::super::tidy;
    use super::*;

    const PLANE: [Option<i64>; 4] = [Some(1), Some(8), Some(7), Some(7)];
    const PIXEL: [Option<i64>; 4] = [None, Some(8), Some(1), Some(1)];

    fn rewritten(
        dims: &[Option<i64>],
        constants: Vec<onnx_ir::TensorProto>,
        nodes: Vec<NodeProto>,
    ) -> GraphProto {
        let mut graph = graph(dims, constants, nodes);
        rewrite(&mut graph, "x");
        tidy::remove_dead(&mut graph);
        graph
    }

    #[test]
    fn reshape_to_a_batch_of_one_is_a_flatten() {
        for target in [[1, -1], [1, 8], [-1, 8], [0, -1]] {
            let constants = vec![int_tensor("shape", &[2], &target)];
            let graph = rewritten(&PIXEL, constants, vec![node("Reshape", &["x", "shape"], &["y"])]);
            assert_eq!(operators(&graph), ["Flatten"], "{target:?}");
            assert!(graph.initializer.is_empty());
        }
    }

    #[test]
    fn reshape_that_mixes_images_stays() {
        // [7 * 7 * 8] is one row for each image only if it is 392 long.
        for target in [[-1, 8], [2, -1]] {
            let constants = vec![int_tensor("shape", &[2], &target)];
            let graph = rewritten(&PLANE, constants, vec![node("Reshape", &["x", "shape"], &["y"])]);
            assert_eq!(operators(&graph), ["Reshape"], "{target:?}");
            assert_eq!(graph.node[0].input, ["x", "shape"]);
        }
    }

    #[test]
    fn computed_shapes_are_folded() {
        let constants = vec![int_tensor("zero", &[], &[0]), int_tensor("rest", &[1], &[-1])];
        let nodes = vec![
            node("Shape", &["x"], &["s"]),
            node("Gather", &["s", "zero"], &["n"]).with_int("axis", 0),
            node("Unsqueeze", &["n"], &["n1"]).with_ints("axes", &[0]),
            node("Concat", &["n1", "rest"], &["shape"]).with_int("axis", 0),
            node("Reshape", &["x", "shape"], &["y"]),
        ];
        assert_eq!(operators(&rewritten(&PLANE, constants, nodes)), ["Flatten"]);

        let constants = vec![
            int_tensor("from", &[1], &[0]),
            int_tensor("to", &[1], &[1]),
            int_tensor("rest", &[1], &[-1]),
        ];
        let nodes = vec![
            node("Shape", &["x"], &["s"]),
            node("Slice", &["s", "from", "to"], &["n"]),
            node("Cast", &["n"], &["n1"]),
            node("Concat", &["n1", "rest"], &["shape"]).with_int("axis", 0),
            node("Reshape", &["x", "shape"], &["y"]),
        ];
        assert_eq!(operators(&rewritten(&PLANE, constants, nodes)), ["Flatten"]);
    }

    #[test]
    fn other_reshapes_of_one_image_leave_the_batch_open() {
        let constants = vec![int_tensor("shape", &[5], &[1, 2, 4, 7, 7])];
        let graph = rewritten(&PLANE, constants, vec![node("Reshape", &["x", "shape"], &["y"])]);
        assert_eq!(operators(&graph), ["Reshape"]);
        let shape = proto::initializer(&graph, &graph.node[0].input[1]).unwrap();
        assert_eq!(proto::integers(shape), Some(vec![-1, 2, 4, 7, 7]));
    }

    #[test]
    fn means_of_the_plane_become_global_average_pooling() {
        let mean = |axes: &[i64], keeps| {
            node("ReduceMean", &["x"], &["y"]).with_ints("axes", axes).with_int("keepdims", keeps)
        };
        let operators_of = |node| {
            let graph = rewritten(&PLANE, vec![], vec![node]);
            operators(&graph).join(" ")
        };
        assert_eq!(operators_of(mean(&[2, 3], 1)), "GlobalAveragePool");
        assert_eq!(operators_of(mean(&[-1, -2], 0)), "GlobalAveragePool Flatten");
        assert_eq!(operators_of(mean(&[1, 2], 0)), "ReduceMean");
        let pool = |kernel: &[i64]| node("AveragePool", &["x"], &["y"]).with_ints("kernel_shape", kernel);
        assert_eq!(operators_of(pool(&[7, 7])), "GlobalAveragePool");
        assert_eq!(operators_of(pool(&[3, 3])), "AveragePool");
    }

    #[test]
    fn a_transpose_of_what_is_pooled_goes() {
        let transpose = node("Transpose", &["x"], &["t"]).with_ints("perm", &[0, 2, 3, 1]);
        let mean = node("ReduceMean", &["t"], &["y"]).with_ints("axes", &[1, 2]).with_int("keepdims", 0);
        let graph = rewritten(&PLANE, vec![], vec![transpose.clone(), mean]);
        assert_eq!(operators(&graph), ["GlobalAveragePool", "Flatten"]);
        let squeeze = node("Squeeze", &["t"], &["y"]).with_ints("axes", &[1, 2]);
        let graph = rewritten(&PIXEL, vec![], vec![transpose.clone(), squeeze]);
        assert_eq!(operators(&graph), ["Flatten"]);
        assert_eq!(graph.node[0].input, ["x"]);
        // Of a larger plane the Transpose does move something.
        let constants = vec![int_tensor("shape", &[2], &[-1, 392])];
        let graph = rewritten(&PLANE, constants, vec![transpose, node("Reshape", &["t", "shape"], &["y"])]);
        assert_eq!(operators(&graph), ["Transpose", "Flatten"]);
    }

    #[test]
    fn an_output_of_one_pixel_is_flattened() {
        let mut graph = graph(&PLANE, vec![], vec![node("GlobalAveragePool", &["x"], &["y"])]);
        flatten_output(&mut graph, "x");
        assert_eq!(operators(&graph), ["GlobalAveragePool", "Flatten"]);
        assert_eq!(graph.node[1].output, ["y"]);
        assert_eq!(graph.node[0].output, graph.node[1].input);
    }
}
