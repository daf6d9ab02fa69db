//! Infers the shapes of the values in a graph, and the integers that the graph computes from shapes.
//!
//! The inference covers only the operators that are usual in image classifiers. The output of any other
//! operator has an unknown shape, and a graph pass that needs an unknown shape leaves the node unchanged.
//! burn-onnx later infers the shapes of all operators that it supports.

use std::collections::HashMap;

use onnx_ir::{GraphProto, NodeProto};

use super::proto::{self, NodeExt};

/// A dimension of a value, or an integer computed from dimensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dim {
    /// The batch size.
    Batch,
    /// A fixed number.
    Known(i64),
    /// An unknown number.
    Unknown,
}

use Dim::{Batch, Known, Unknown};

/// Shapes of the values in a graph, and elements of the integer values.
///
/// An integer value is a constant or is computed from shapes. Both maps are keyed by the value's name.
#[derive(Debug, Default)]
pub struct Shapes {
    shapes: HashMap<String, Vec<Dim>>,
    integers: HashMap<String, Vec<Dim>>,
}

impl Shapes {
    /// Infers the shapes of the values of a graph.
    ///
    /// The first dimension of the input `input_name` is the batch, even if the graph declares a fixed batch
    /// size.
    #[must_use]
    pub fn infer(graph: &GraphProto, input_name: &str) -> Self {
        let mut this = Self::default();
        for tensor in &graph.initializer {
            let dims = tensor.dims.iter().copied().map(Known).collect();
            this.shapes.insert(tensor.name.clone(), dims);
            // Graphs compute shapes from integers and lists of integers only.
            if tensor.dims.len() <= 1
                && let Some(integers) = proto::integers(tensor)
            {
                let integers = integers.into_iter().map(Known).collect();
                this.integers.insert(tensor.name.clone(), integers);
            }
        }
        for info in &graph.input {
            let (_, dims) = proto::tensor_type(info);
            let mut dims: Vec<Dim> = dims.into_iter().map(|dim| dim.map_or(Unknown, Known)).collect();
            if info.name == input_name
                && let Some(first) = dims.first_mut()
            {
                *first = Batch;
            }
            this.shapes.insert(info.name.clone(), dims);
        }
        for node in &graph.node {
            let Some(output) = node.output.first() else {
                continue;
            };
            if let Some(integers) = this.infer_integers(graph, node) {
                this.integers.insert(output.clone(), integers);
            }
            if let Some(shape) = this.infer_shape(graph, node) {
                this.shapes.insert(output.clone(), shape);
            }
        }
        this
    }

    /// Returns the shape of a value, or `None` if its rank is unknown.
    #[must_use]
    pub fn shape(&self, name: &str) -> Option<&[Dim]> {
        self.shapes.get(name).map(Vec::as_slice)
    }

    fn input_shape(&self, node: &NodeProto, input_index: usize) -> Option<&[Dim]> {
        self.shape(node.input.get(input_index)?)
    }

    fn input_integers(&self, node: &NodeProto, input_index: usize) -> Option<&[Dim]> {
        self.integers.get(node.input.get(input_index)?).map(Vec::as_slice)
    }

    /// Returns the elements of a node's output if the node computes integers from shapes.
    fn infer_integers(&self, graph: &GraphProto, node: &NodeProto) -> Option<Vec<Dim>> {
        match node.op_type.as_str() {
            "Shape" => {
                let shape = self.input_shape(node, 0)?;
                let start = resolve_axis(node.int("start").unwrap_or(0), shape.len());
                let end = node.int("end").map_or(shape.len(), |end| resolve_axis(end, shape.len()));
                shape.get(start..end).map(Into::into)
            }
            "Cast" | "Identity" | "Unsqueeze" | "Squeeze" => self.input_integers(node, 0).map(Into::into),
            "Gather" => {
                let integers = self.input_integers(node, 0)?;
                let indices = self.input_integers(node, 1)?;
                let element_at = |index: &Dim| match index {
                    Known(index) => integers.get(resolve_axis(*index, integers.len())).copied(),
                    _ => None,
                };
                indices.iter().map(element_at).collect()
            }
            "Concat" => {
                let parts = (0..node.input.len()).map(|input_index| self.input_integers(node, input_index));
                parts.collect::<Option<Vec<_>>>().map(|parts| parts.concat())
            }
            "Slice" => {
                let integers = self.input_integers(node, 0)?;
                let (starts, ends) = read_slice_bounds(graph, node)?;
                let step_is_one = node.input.get(4).is_none_or(|steps| {
                    proto::initializer(graph, steps)
                        .and_then(proto::integers)
                        .is_some_and(|steps| steps == [1])
                });
                let (&[start], &[end], true) = (starts.as_slice(), ends.as_slice(), step_is_one) else {
                    return None;
                };
                integers
                    .get(resolve_axis(start, integers.len())..resolve_axis(end, integers.len()))
                    .map(Into::into)
            }
            _ => None,
        }
    }

    /// Returns the shape of a node's first output.
    fn infer_shape(&self, graph: &GraphProto, node: &NodeProto) -> Option<Vec<Dim>> {
        let input = self.input_shape(node, 0)?;
        match node.op_type.as_str() {
            "Conv" => {
                let weights = self.input_shape(node, 1)?;
                let kernel = known_sizes(weights.get(2..)?)?;
                infer_windowed_shape(node, input, &kernel, *weights.first()?)
            }
            "MaxPool" | "AveragePool" => {
                infer_windowed_shape(node, input, node.ints("kernel_shape")?, *input.get(1)?)
            }
            "GlobalAveragePool" | "GlobalMaxPool" => {
                let (batch_and_channels, spatial) = input.split_at_checked(2)?;
                Some([batch_and_channels, &vec![Known(1); spatial.len()]].concat())
            }
            "BatchNormalization" | "Clip" | "Relu" | "LeakyRelu" | "PRelu" | "Elu" | "Sigmoid" | "Tanh"
            | "HardSigmoid" | "HardSwish" | "Swish" | "Gelu" | "Erf" | "Exp" | "Sqrt" | "Neg" | "LRN"
            | "Softmax" | "LogSoftmax" | "Identity" | "Dropout" | "Cast" => Some(input.into()),
            "Add" | "Sub" | "Mul" | "Div" | "Pow" | "Max" | "Min" => {
                broadcast_shape(input, self.input_shape(node, 1)?)
            }
            "Gemm" => {
                let weights = self.input_shape(node, 1)?;
                let output_axis = usize::from(node.int("transB").unwrap_or(0) == 0);
                let row_axis = usize::from(node.int("transA").unwrap_or(0) != 0);
                Some(vec![*input.get(row_axis)?, *weights.get(output_axis)?])
            }
            "MatMul" => {
                let [_, columns] = self.input_shape(node, 1)? else {
                    return None;
                };
                let (_, rows) = input.split_last()?;
                Some([rows, &[*columns]].concat())
            }
            "Flatten" => {
                let axis = resolve_axis(node.int("axis").unwrap_or(1), input.len());
                Some(vec![product(&input[..axis]), product(&input[axis..])])
            }
            "Reshape" => {
                let target = match node.ints("shape") {
                    Some(shape) => shape.iter().copied().map(Known).collect(),
                    None => self.input_integers(node, 1)?.to_vec(),
                };
                infer_reshape(input, &target)
            }
            "Transpose" => {
                let perm = node.ints("perm")?;
                perm.iter().map(|axis| input.get(usize::try_from(*axis).ok()?).copied()).collect()
            }
            "Squeeze" => {
                let axes = resolve_axes(&proto::axes(graph, node)?, input.len());
                let kept = input.iter().enumerate().filter(|(axis, _)| !axes.contains(axis));
                Some(kept.map(|(_, dim)| *dim).collect())
            }
            "Unsqueeze" => {
                let axes = proto::axes(graph, node)?;
                let rank = input.len() + axes.len();
                let axes = resolve_axes(&axes, rank);
                let mut dims = input.iter();
                let dim_at = |axis| {
                    if axes.contains(&axis) { Some(Known(1)) } else { dims.next().copied() }
                };
                (0..rank).map(dim_at).collect()
            }
            "ReduceMean" => {
                let axes = resolve_axes(&proto::axes(graph, node)?, input.len());
                let keeps_dims = node.int("keepdims").unwrap_or(1) != 0;
                let dims = input.iter().enumerate().filter_map(|(axis, dim)| {
                    if axes.contains(&axis) { keeps_dims.then_some(Known(1)) } else { Some(*dim) }
                });
                Some(dims.collect())
            }
            "Concat" => {
                let axis = resolve_axis(node.int("axis")?, input.len());
                let parts: Vec<&[Dim]> = (0..node.input.len())
                    .map(|input_index| self.input_shape(node, input_index))
                    .collect::<Option<_>>()?;
                let sizes_on_axis = parts.iter().map(|part| match part.get(axis) {
                    Some(Known(size)) => Some(*size),
                    _ => None,
                });
                let mut shape = input.to_vec();
                *shape.get_mut(axis)? = sizes_on_axis.sum::<Option<i64>>().map_or(Unknown, Known);
                Some(shape)
            }
            _ => None,
        }
    }
}

/// Returns the output shape of a Reshape.
///
/// In `target`, 0 stands for the input's dimension on the same axis, and -1 for the dimension to be inferred.
///
/// A target that begins with 1 or -1 keeps the batch if its other dimensions hold exactly one image. A
/// leading 1 comes from an export with batch size 1.
fn infer_reshape(input: &[Dim], target: &[Dim]) -> Option<Vec<Dim>> {
    let with_zeros_replaced: Option<Vec<Dim>> = target
        .iter()
        .enumerate()
        .map(|(axis, dim)| if *dim == Known(0) { input.get(axis).copied() } else { Some(*dim) })
        .collect();
    let mut shape = with_zeros_replaced?;
    let [Batch, image_dims @ ..] = input else {
        return Some(shape.into_iter().map(|dim| if dim == Known(-1) { Unknown } else { dim }).collect());
    };
    let Known(image_len) = product(image_dims) else {
        return Some(shape.into_iter().map(|dim| if dim == Known(-1) { Unknown } else { dim }).collect());
    };
    let product_without_inferred = |shape: &[Dim]| {
        product(shape.iter().filter(|dim| **dim != Known(-1)).copied().collect::<Vec<_>>().as_slice())
    };
    let first_is_batch = match shape.first()? {
        Batch => true,
        // If the other dimensions hold exactly one image, the first dimension can only be the batch.
        Known(1 | -1) => match product_without_inferred(&shape[1..]) {
            Known(rest_len) => {
                // After a leading 1, one of the other dimensions may have to be inferred. There is a fitting
                // size for it if `image_len` is divisible by the product of the remaining dimensions.
                rest_len == image_len
                    || (*shape.first()? == Known(1)
                        && shape[1..].contains(&Known(-1))
                        && rest_len != 0
                        && image_len % rest_len == 0)
            }
            _ => false,
        },
        _ => false,
    };
    if first_is_batch {
        shape[0] = Batch;
        if let Some(inferred_axis) = shape.iter().position(|dim| *dim == Known(-1))
            && let Known(rest_len) = product_without_inferred(&shape[1..])
        {
            shape[inferred_axis] = if rest_len == 0 { Unknown } else { Known(image_len / rest_len) };
        }
    }
    Some(shape.into_iter().map(|dim| if dim == Known(-1) { Unknown } else { dim }).collect())
}

/// Returns the starts and ends of a Slice, which are attributes before opset 10 and inputs since then.
fn read_slice_bounds(graph: &GraphProto, node: &NodeProto) -> Option<(Vec<i64>, Vec<i64>)> {
    if let (Some(starts), Some(ends)) = (node.ints("starts"), node.ints("ends")) {
        return Some((starts.into(), ends.into()));
    }
    let constant =
        |input_index: usize| proto::integers(proto::initializer(graph, node.input.get(input_index)?)?);
    Some((constant(1)?, constant(2)?))
}

/// Returns the output shape of a convolution or a pooling node.
fn infer_windowed_shape(node: &NodeProto, input: &[Dim], kernel: &[i64], channels: Dim) -> Option<Vec<Dim>> {
    let (batch, spatial) = (input.first()?, input.get(2..)?);
    let axis_count = spatial.len();
    let ones_or = |name: &str| node.ints(name).map_or_else(|| vec![1; axis_count], <[i64]>::to_vec);
    let (strides, dilations) = (ones_or("strides"), ones_or("dilations"));
    let pads = node.ints("pads").map_or_else(|| vec![0; 2 * axis_count], <[i64]>::to_vec);
    let lengths_match =
        [kernel.len(), strides.len(), dilations.len()] == [axis_count; 3] && pads.len() == 2 * axis_count;
    if !lengths_match || strides.contains(&0) {
        return None;
    }
    let is_same_padded = node.text("auto_pad").is_some_and(|mode| mode.starts_with("SAME"));
    let rounds_up = node.int("ceil_mode").unwrap_or(0) != 0;
    let output_sizes = spatial.iter().enumerate().map(|(axis, dim)| {
        let Known(size) = dim else { return Unknown };
        let stride = strides[axis];
        if is_same_padded {
            return Known((size + stride - 1) / stride);
        }
        // The window covers `window_len` elements of the padded input. `travel` is the largest distance by
        // which it can move from its first position.
        let window_len = dilations[axis] * (kernel[axis] - 1) + 1;
        let travel = size + pads[axis] + pads[axis_count + axis] - window_len;
        Known((travel + if rounds_up { stride - 1 } else { 0 }) / stride + 1)
    });
    Some([*batch, channels].into_iter().chain(output_sizes).collect())
}

/// Returns the shape to which operators such as Add broadcast two operands.
fn broadcast_shape(left: &[Dim], right: &[Dim]) -> Option<Vec<Dim>> {
    let rank = left.len().max(right.len());
    let padded = |dims: &[Dim]| [vec![Known(1); rank - dims.len()], dims.to_vec()].concat();
    let pairs = padded(left).into_iter().zip(padded(right));
    Some(
        pairs
            .map(|pair| match pair {
                (Known(1), other) | (other, Known(1)) => other,
                (left, right) if left == right => left,
                _ => Unknown,
            })
            .collect(),
    )
}

/// Returns the dimensions as numbers if all of them are known.
fn known_sizes(dims: &[Dim]) -> Option<Vec<i64>> {
    dims.iter()
        .map(|dim| match dim {
            Known(size) => Some(*size),
            _ => None,
        })
        .collect()
}

/// Returns the product of dimensions.
///
/// The product is [`Known`] if all factors are known, [`Batch`] if one factor is the batch and the others are
/// 1, and [`Unknown`] otherwise.
pub fn product(dims: &[Dim]) -> Dim {
    dims.iter().fold(Known(1), |product, dim| match (product, dim) {
        (Known(left), Known(right)) => Known(left * right),
        (Known(1), Batch) | (Batch, Known(1)) => Batch,
        _ => Unknown,
    })
}

/// Converts an axis or index to the range `0..=length`. A negative value counts from the end.
#[must_use]
pub fn resolve_axis(axis: i64, length: usize) -> usize {
    let from_front = if axis < 0 {
        length.saturating_sub(usize::try_from(axis.unsigned_abs()).unwrap_or(usize::MAX))
    } else {
        usize::try_from(axis).unwrap_or(usize::MAX)
    };
    from_front.min(length)
}

/// Converts several axes as [`resolve_axis`] does.
#[must_use]
pub fn resolve_axes(axes: &[i64], length: usize) -> Vec<usize> {
    axes.iter().map(|axis| resolve_axis(*axis, length)).collect()
}

/// Formats dimensions as `[?, 3, 224, 224]`.
pub(super) fn format_dims(dims: &[Option<i64>]) -> String {
    let dims: Vec<Dim> = dims.iter().map(|dim| dim.map_or(Unknown, Known)).collect();
    format_shape(&dims)
}

/// Formats a shape as `[batch, 3, ?, ?]`.
pub(super) fn format_shape(shape: &[Dim]) -> String {
    let dims: Vec<String> = shape
        .iter()
        .map(|dim| match dim {
            Batch => "batch".into(),
            Known(size) => size.to_string(),
            Unknown => "?".into(),
        })
        .collect();
    format!("[{}]", dims.join(", "))
}

#[cfg(test)]
mod tests {
    use super::super::proto::{float_tensor, node};
    use super::super::testing::build_graph;
    use super::*;

    const IMAGE: [Option<i64>; 4] = [Some(1), Some(3), Some(224), Some(225)];

    fn shape_after(constants: Vec<onnx_ir::TensorProto>, node: NodeProto) -> Option<Vec<Dim>> {
        let graph = build_graph(&IMAGE, constants, vec![node]);
        Shapes::infer(&graph, "x").shape("y").map(Into::into)
    }

    #[test]
    fn convolution_and_pooling_shapes_depend_on_pads_strides_and_dilations() {
        let weights = || vec![float_tensor("w", &[8, 3, 3, 3], &[0.0; 216])];
        let conv = || node("Conv", &["x", "w"], &["y"]);
        let feature_map = |height, width| Some(vec![Batch, Known(8), Known(height), Known(width)]);
        assert_eq!(shape_after(weights(), conv()), feature_map(222, 223));
        let strided = conv().with_ints("strides", &[2, 2]).with_ints("pads", &[0, 0, 1, 1]);
        assert_eq!(shape_after(weights(), strided), feature_map(112, 112));
        assert_eq!(shape_after(weights(), conv().with_ints("dilations", &[2, 1])), feature_map(220, 223));
        let pool =
            node("MaxPool", &["x"], &["y"]).with_ints("kernel_shape", &[2, 2]).with_ints("strides", &[2, 2]);
        assert_eq!(shape_after(vec![], pool.clone()), Some(vec![Batch, Known(3), Known(112), Known(112)]));
        assert_eq!(
            shape_after(vec![], pool.with_int("ceil_mode", 1)),
            Some(vec![Batch, Known(3), Known(112), Known(113)])
        );
    }

    #[test]
    fn output_of_an_unknown_operator_has_no_shape() {
        assert_eq!(shape_after(vec![], node("Mystery", &["x"], &["y"])), None);
    }

    #[test]
    fn negative_axes_count_from_the_end() {
        let unsqueeze = node("Unsqueeze", &["x"], &["y"]).with_ints("axes", &[0, -1]);
        let expected = vec![Known(1), Batch, Known(3), Known(224), Known(225), Known(1)];
        assert_eq!(shape_after(vec![], unsqueeze), Some(expected));
        assert_eq!(resolve_axis(-1, 4), 3);
        assert_eq!(resolve_axis(9, 4), 4);
    }

    #[test]
    fn reshape_keeps_the_batch_if_the_other_dimensions_hold_one_image() {
        let input = [Batch, Known(3), Known(4)];
        assert_eq!(infer_reshape(&input, &[Known(1), Known(-1)]), Some(vec![Batch, Known(12)]));
        assert_eq!(infer_reshape(&input, &[Known(-1), Known(12)]), Some(vec![Batch, Known(12)]));
        assert_eq!(
            infer_reshape(&input, &[Known(0), Known(4), Known(3)]),
            Some(vec![Batch, Known(4), Known(3)])
        );
        // Each image of 12 elements becomes three rows of 4, so the first dimension is not the batch.
        assert_eq!(infer_reshape(&input, &[Known(-1), Known(4)]), Some(vec![Unknown, Known(4)]));
        assert_eq!(infer_reshape(&input, &[Known(3), Known(-1)]), Some(vec![Known(3), Unknown]));
    }
}
