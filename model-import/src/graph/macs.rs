//! Counts the multiply-adds of a graph, and those that the fused path computes.
//!
//! Almost all the time of a network is spent in convolutions and matrix products, so only these are counted. A
//! depthwise or fully connected layer is one of them.

use std::collections::HashSet;

use onnx_proto::{GraphProto, NodeProto};

use super::fuse;
use super::proto::{self, NodeExt as _};
use super::shapes::{Dim, Shapes};

/// The multiply-adds of a graph for one image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MacReport {
    /// Multiply-adds of all layers whose shapes are known.
    pub total: u64,
    /// Multiply-adds of the layers that the fused path computes.
    pub fused: u64,
    /// The layers that the fused path does not compute, those with the most multiply-adds first.
    pub unfused: Vec<UnfusedLayer>,
    /// The layers whose multiply-adds are not known, with the reason.
    pub unknown: Vec<String>,
}

/// A layer that the fused path does not compute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnfusedLayer {
    /// Operator and name.
    pub layer: String,
    /// Multiply-adds for one image.
    pub macs: u64,
    /// The property that keeps the layer off the fused path.
    pub reason: String,
}

/// Counts the multiply-adds of a simplified graph. `input_name` is the name of its image input.
#[must_use]
pub fn count(graph: &GraphProto, input_name: &str) -> MacReport {
    let shapes = Shapes::infer(graph, input_name);
    let mut fused_graph = graph.clone();
    fuse::fuse(&mut fused_graph, input_name);
    let layers_left: HashSet<&str> = fused_graph
        .node
        .iter()
        .filter(|node| node.domain != fuse::DOMAIN)
        .filter_map(|node| node.output.first().map(String::as_str))
        .collect();
    let mut report = MacReport::default();
    for node in graph.node.iter().filter(|node| is_layer(node)) {
        let layer = describe(node);
        let Some(macs) = count_macs(graph, &shapes, node) else {
            report.unknown.push(format!("{layer}: {}", explain_unknown(graph, &shapes, node)));
            continue;
        };
        report.total += macs;
        if node.output.first().is_some_and(|output| layers_left.contains(output.as_str())) {
            report.unfused.push(UnfusedLayer { layer, macs, reason: explain_unfused(graph, &shapes, node) });
        } else {
            report.fused += macs;
        }
    }
    report.unfused.sort_by_key(|layer| std::cmp::Reverse(layer.macs));
    report
}

/// Returns true for an operator that computes sums of products.
fn is_layer(node: &NodeProto) -> bool {
    matches!(node.op_type.as_str(), "Conv" | "ConvTranspose" | "Einsum" | "Gemm" | "MatMul")
}

fn describe(node: &NodeProto) -> String {
    let name = if node.name.is_empty() { node.output.first() } else { Some(&node.name) };
    format!("{} {:?}", node.op_type, name.map(String::as_str).unwrap_or_default())
}

/// Returns the multiply-adds of a layer for one image, or `None` if a shape is not known.
fn count_macs(graph: &GraphProto, shapes: &Shapes, node: &NodeProto) -> Option<u64> {
    let input_shape = read_sizes(shapes, node.input.first()?);
    let output_count = || multiply(&read_sizes(shapes, node.output.first()?)?);
    let products_per_value = match node.op_type.as_str() {
        // Each value of the input meets each weight of its channel.
        "ConvTranspose" => {
            let weights = &proto::initializer(graph, node.input.get(1)?)?.dims;
            return multiply(&input_shape?)?.checked_mul(multiply(weights.get(1..)?)?);
        }
        "Conv" => multiply(read_sizes(shapes, node.input.get(1)?)?.get(1..)?)?,
        "Gemm" if node.int("transA").unwrap_or(0) != 0 => to_count(*input_shape?.first()?)?,
        "Gemm" | "MatMul" => to_count(*input_shape?.last()?)?,
        _ => return None,
    };
    output_count()?.checked_mul(products_per_value)
}

/// Returns the shape of a value for a batch of one image.
fn read_sizes(shapes: &Shapes, value: &str) -> Option<Vec<i64>> {
    let size = |dim: &Dim| match dim {
        Dim::Known(size) => Some(*size),
        Dim::Batch => Some(1),
        _ => None,
    };
    shapes.shape(value)?.iter().map(size).collect()
}

fn multiply(sizes: &[i64]) -> Option<u64> {
    sizes.iter().try_fold(1_u64, |product, size| product.checked_mul(to_count(*size)?))
}

fn to_count(size: i64) -> Option<u64> {
    u64::try_from(size).ok()
}

/// Returns the reason why the multiply-adds of a layer are not known.
fn explain_unknown(graph: &GraphProto, shapes: &Shapes, node: &NodeProto) -> String {
    let has_unknown_shape =
        |node: &&NodeProto| node.output.first().is_some_and(|output| read_sizes(shapes, output).is_none());
    if !has_unknown_shape(&node) {
        return format!("the multiply-adds of {} are not counted", node.op_type);
    }
    // Shapes follow from earlier shapes, so the first unknown one is the cause.
    let cause = graph.node.iter().find(has_unknown_shape).map(describe).unwrap_or_default();
    format!("its shape is not known, because that of {cause} is not")
}

/// Returns the property that keeps a layer off the fused path.
fn explain_unfused(graph: &GraphProto, shapes: &Shapes, node: &NodeProto) -> String {
    let weights = node.input.get(1).and_then(|name| proto::initializer(graph, name));
    match (node.op_type.as_str(), weights) {
        ("Conv", Some(weights)) => explain_unfused_conv(shapes, node, &weights.dims),
        ("Gemm", Some(_))
            if node.float("alpha").unwrap_or(1.0) != 1.0 || node.float("beta").unwrap_or(1.0) != 1.0 =>
        {
            "alpha or beta is not 1".into()
        }
        ("Gemm", Some(_)) => "no fused layer precedes it, or its bias has an unusual shape".into(),
        ("Conv" | "Gemm", None) => "its weights are not constant".into(),
        ("MatMul", None) => "it multiplies two computed values, as attention does".into(),
        ("MatMul", Some(_)) => "matrix products other than Gemm are not fused".into(),
        (operator, _) => format!("{operator} is not fused"),
    }
}

fn explain_unfused_conv(shapes: &Shapes, node: &NodeProto, weight_dims: &[i64]) -> String {
    let [_, inputs_per_group, height, width] = *weight_dims else {
        return format!("its kernel has {} dimensions, expected 2", weight_dims.len().saturating_sub(2));
    };
    let groups = node.int("group").unwrap_or(1);
    let strides = node.ints("strides").unwrap_or(&[1, 1]);
    if height != width {
        return format!("its kernel of {height}x{width} is not square");
    }
    if strides.first() != strides.last() {
        return format!("its strides {strides:?} differ");
    }
    if node.ints("dilations").is_some_and(|dilations| dilations.iter().any(|dilation| *dilation != 1)) {
        return "its kernel is dilated".into();
    }
    if groups > 1 && inputs_per_group > 1 {
        return format!("it has {groups} groups of {inputs_per_group} channels");
    }
    if groups > 1 && !matches!((height, strides), (3 | 5, [1 | 2, _] | [])) {
        return format!("it is depthwise with a kernel of {height}x{width} and strides {strides:?}");
    }
    if groups > 1 {
        return "it is depthwise with several outputs per channel or an unusual padding".into();
    }
    match node.input.first().and_then(|input| read_sizes(shapes, input)) {
        Some(_) => "its padding or its bias is unusual".into(),
        None => "the shape of its input is not known".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::proto::{float_tensor, node};
    use super::super::testing::build_graph;
    use super::*;

    const IMAGE: [Option<i64>; 4] = [None, Some(3), Some(8), Some(6)];

    #[test]
    fn fused_and_unfused_convolutions_are_counted_from_their_shapes() {
        let constants = vec![
            float_tensor("first", &[4, 3, 3, 3], &[0.1; 108]),
            float_tensor("grouped", &[6, 2, 1, 1], &[0.1; 12]),
        ];
        let nodes = vec![
            node("Conv", &["x", "first"], &["a"]).with_ints("pads", &[1; 4]),
            node("Conv", &["a", "grouped"], &["y"]).with_int("group", 2),
        ];
        let report = count(&build_graph(&IMAGE, constants, nodes), "x");
        // 48 pixels: 4 channels of 27 products each, then 6 channels of 2 products each.
        assert_eq!((report.total, report.fused), (48 * (4 * 27 + 6 * 2), 48 * 4 * 27));
        assert_eq!(report.unfused[0].macs, 48 * 12);
        assert_eq!(report.unfused[0].layer, "Conv \"y\"");
        assert!(report.unfused[0].reason.contains("2 groups of 2 channels"), "{report:?}");
        assert_eq!(report.unknown, Vec::<String>::new());
    }

    #[test]
    fn layer_with_an_unknown_shape_is_named() {
        let constants = vec![float_tensor("kernel", &[4, 3, 1, 1], &[0.1; 12])];
        let nodes = vec![node("Mystery", &["x"], &["a"]), node("Conv", &["a", "kernel"], &["y"])];
        let report = count(&build_graph(&IMAGE, constants, nodes), "x");
        assert_eq!(report.total, 0);
        assert_eq!(report.unknown.len(), 1, "{report:?}");
        assert!(report.unknown[0].contains("Conv \"y\": its shape"), "{report:?}");
        assert!(report.unknown[0].contains("Mystery \"a\""), "{report:?}");
    }
}
