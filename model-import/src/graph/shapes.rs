//! Infers the shapes of the values in a graph, and the integers that the graph computes from shapes.
//!
//! The inference covers only the operators that are usual in image classifiers. The output of any other
//! operator has an unknown shape, and the passes do not change nodes whose shapes they need but do not know.
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

/// The shapes of a graph's values, and the integers that the graph computes from shapes, by the value's name.
#[derive(Debug, Default)]
pub struct Shapes {
    shapes: HashMap<String, Vec<Dim>>,
    /// Elements of integer constants and of values computed from shapes.
    integers: HashMap<String, Vec<Dim>>,
}

impl Shapes {
    /// Infers the shapes of the values of a graph.
    ///
    /// The first dimension of `input` is the batch, even if the graph declares a fixed size for it.
    #[must_use]
    pub fn infer(graph: &GraphProto, input: &str) -> Self {
        let mut this = Self::default();
        for tensor in &graph.initializer {
            let dims = tensor.dims.iter().copied().map(Known).collect();
            this.shapes.insert(tensor.name.clone(), dims);
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
            if info.name == input
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
            if let Some(integers) = this.output_integers(graph, node) {
                this.integers.insert(output.clone(), integers);
            }
            if let Some(shape) = this.output_shape(graph, node) {
                this.shapes.insert(output.clone(), shape);
            }
        }
        this
    }

    /// Returns the shape of a value, or `None` if not even its rank is known.
    #[must_use]
    pub fn shape(&self, name: &str) -> Option<&[Dim]> {
        self.shapes.get(name).map(Vec::as_slice)
    }

    fn input(&self, node: &NodeProto, slot: usize) -> Option<&[Dim]> {
        self.shape(node.input.get(slot)?)
    }

    fn integers(&self, node: &NodeProto, slot: usize) -> Option<&[Dim]> {
        self.integers.get(node.input.get(slot)?).map(Vec::as_slice)
    }

    /// Returns the integers that a node computes from shapes.
    fn output_integers(&self, graph: &GraphProto, node: &NodeProto) -> Option<Vec<Dim>> {
        match node.op_type.as_str() {
            "Shape" => {
                let shape = self.input(node, 0)?;
                let start = position(node.int("start").unwrap_or(0), shape.len());
                let end = node.int("end").map_or(shape.len(), |end| position(end, shape.len()));
                shape.get(start..end).map(Into::into)
            }
            "Cast" | "Identity" | "Unsqueeze" | "Squeeze" => self.integers(node, 0).map(Into::into),
            "Gather" => {
                let integers = self.integers(node, 0)?;
                let indices = self.integers(node, 1)?;
                let pick = |index: &Dim| match index {
                    Known(index) => integers.get(position(*index, integers.len())).copied(),
                    _ => None,
                };
                indices.iter().map(pick).collect()
            }
            "Concat" => {
                let parts = (0..node.input.len()).map(|slot| self.integers(node, slot));
                parts.collect::<Option<Vec<_>>>().map(|parts| parts.concat())
            }
            "Slice" => {
                let integers = self.integers(node, 0)?;
                let (starts, ends) = slice_bounds(graph, node)?;
                let step_is_one = node.input.get(4).is_none_or(|steps| {
                    proto::initializer(graph, steps)
                        .and_then(proto::integers)
                        .is_some_and(|steps| steps == [1])
                });
                let (&[start], &[end], true) = (starts.as_slice(), ends.as_slice(), step_is_one) else {
                    return None;
                };
                integers.get(position(start, integers.len())..position(end, integers.len())).map(Into::into)
            }
            _ => None,
        }
    }

    fn output_shape(&self, graph: &GraphProto, node: &NodeProto) -> Option<Vec<Dim>> {
        let input = self.input(node, 0)?;
        match node.op_type.as_str() {
            "Conv" => {
                let weights = self.input(node, 1)?;
                let kernel = known_sizes(weights.get(2..)?)?;
                windowed_shape(node, input, &kernel, *weights.first()?)
            }
            "MaxPool" | "AveragePool" => {
                windowed_shape(node, input, node.ints("kernel_shape")?, *input.get(1)?)
            }
            "GlobalAveragePool" | "GlobalMaxPool" => {
                let (head, plane) = input.split_at_checked(2)?;
                Some([head, &vec![Known(1); plane.len()]].concat())
            }
            "BatchNormalization" | "Clip" | "Relu" | "LeakyRelu" | "PRelu" | "Elu" | "Sigmoid" | "Tanh"
            | "HardSigmoid" | "HardSwish" | "Swish" | "Gelu" | "Erf" | "Exp" | "Sqrt" | "Neg" | "LRN"
            | "Softmax" | "LogSoftmax" | "Identity" | "Dropout" | "Cast" => Some(input.into()),
            "Add" | "Sub" | "Mul" | "Div" | "Pow" | "Max" | "Min" => {
                broadcast_shape(input, self.input(node, 1)?)
            }
            "Gemm" => {
                let weights = self.input(node, 1)?;
                let outputs = usize::from(node.int("transB").unwrap_or(0) == 0);
                let rows = usize::from(node.int("transA").unwrap_or(0) != 0);
                Some(vec![*input.get(rows)?, *weights.get(outputs)?])
            }
            "MatMul" => {
                let [_, columns] = self.input(node, 1)? else {
                    return None;
                };
                let (_, rows) = input.split_last()?;
                Some([rows, &[*columns]].concat())
            }
            "Flatten" => {
                let axis = position(node.int("axis").unwrap_or(1), input.len());
                Some(vec![product(&input[..axis]), product(&input[axis..])])
            }
            "Reshape" => {
                let target = match node.ints("shape") {
                    Some(shape) => shape.iter().copied().map(Known).collect(),
                    None => self.integers(node, 1)?.to_vec(),
                };
                infer_reshape(input, &target)
            }
            "Transpose" => {
                let perm = node.ints("perm")?;
                perm.iter().map(|axis| input.get(usize::try_from(*axis).ok()?).copied()).collect()
            }
            "Squeeze" => {
                let axes = positions(&proto::axes(graph, node)?, input.len());
                let kept = input.iter().enumerate().filter(|(axis, _)| !axes.contains(axis));
                Some(kept.map(|(_, dim)| *dim).collect())
            }
            "Unsqueeze" => {
                let axes = proto::axes(graph, node)?;
                let rank = input.len() + axes.len();
                let axes = positions(&axes, rank);
                let mut dims = input.iter();
                let next = |axis| {
                    if axes.contains(&axis) { Some(Known(1)) } else { dims.next().copied() }
                };
                (0..rank).map(next).collect()
            }
            "ReduceMean" => {
                let axes = positions(&proto::axes(graph, node)?, input.len());
                let keeps_dims = node.int("keepdims").unwrap_or(1) != 0;
                let dims = input.iter().enumerate().filter_map(|(axis, dim)| {
                    if axes.contains(&axis) { keeps_dims.then_some(Known(1)) } else { Some(*dim) }
                });
                Some(dims.collect())
            }
            "Concat" => {
                let axis = position(node.int("axis")?, input.len());
                let parts: Vec<&[Dim]> =
                    (0..node.input.len()).map(|slot| self.input(node, slot)).collect::<Option<_>>()?;
                let along = parts.iter().map(|part| match part.get(axis) {
                    Some(Known(size)) => Some(*size),
                    _ => None,
                });
                let mut shape = input.to_vec();
                *shape.get_mut(axis)? = along.sum::<Option<i64>>().map_or(Unknown, Known);
                Some(shape)
            }
            _ => None,
        }
    }
}

/// Returns the output shape of a Reshape.
///
/// If the input begins with the batch and the target begins with 1, the graph was exported with batch size 1.
/// The first dimension of the target is then the batch as well.
fn infer_reshape(input: &[Dim], target: &[Dim]) -> Option<Vec<Dim>> {
    let copied: Option<Vec<Dim>> = target
        .iter()
        .enumerate()
        .map(|(axis, dim)| if *dim == Known(0) { input.get(axis).copied() } else { Some(*dim) })
        .collect();
    let mut shape = copied?;
    let [Batch, image @ ..] = input else {
        return Some(shape.into_iter().map(|dim| if dim == Known(-1) { Unknown } else { dim }).collect());
    };
    let Known(elements) = product(image) else {
        return Some(shape.into_iter().map(|dim| if dim == Known(-1) { Unknown } else { dim }).collect());
    };
    let others = |shape: &[Dim]| {
        product(shape.iter().filter(|dim| **dim != Known(-1)).copied().collect::<Vec<_>>().as_slice())
    };
    let first_is_batch = match shape.first()? {
        Batch => true,
        // If the other dimensions hold all elements of one image, the first dimension can only be the batch.
        Known(1 | -1) => match others(&shape[1..]) {
            Known(rest) => {
                rest == elements
                    || (*shape.first()? == Known(1)
                        && shape[1..].contains(&Known(-1))
                        && rest != 0
                        && elements % rest == 0)
            }
            _ => false,
        },
        _ => false,
    };
    if first_is_batch {
        shape[0] = Batch;
        if let Some(open_axis) = shape.iter().position(|dim| *dim == Known(-1))
            && let Known(rest) = others(&shape[1..])
        {
            shape[open_axis] = if rest == 0 { Unknown } else { Known(elements / rest) };
        }
    }
    Some(shape.into_iter().map(|dim| if dim == Known(-1) { Unknown } else { dim }).collect())
}

/// Returns the starts and ends of a Slice.
///
/// The starts and ends are attributes before opset 10, and inputs since opset 10.
fn slice_bounds(graph: &GraphProto, node: &NodeProto) -> Option<(Vec<i64>, Vec<i64>)> {
    if let (Some(starts), Some(ends)) = (node.ints("starts"), node.ints("ends")) {
        return Some((starts.into(), ends.into()));
    }
    let constant = |slot: usize| proto::integers(proto::initializer(graph, node.input.get(slot)?)?);
    Some((constant(1)?, constant(2)?))
}

/// Returns the output shape of a convolution or a pooling node.
fn windowed_shape(node: &NodeProto, input: &[Dim], kernel: &[i64], channels: Dim) -> Option<Vec<Dim>> {
    let (batch, plane) = (input.first()?, input.get(2..)?);
    let axes = plane.len();
    let attribute = |name: &str| node.ints(name).map_or_else(|| vec![1; axes], <[i64]>::to_vec);
    let (strides, dilations) = (attribute("strides"), attribute("dilations"));
    let pads = node.ints("pads").map_or_else(|| vec![0; 2 * axes], <[i64]>::to_vec);
    let complete = [kernel.len(), strides.len(), dilations.len()] == [axes; 3] && pads.len() == 2 * axes;
    if !complete || strides.contains(&0) {
        return None;
    }
    let is_same_padded = node.text("auto_pad").is_some_and(|mode| mode.starts_with("SAME"));
    let rounds_up = node.int("ceil_mode").unwrap_or(0) != 0;
    let output = plane.iter().enumerate().map(|(axis, dim)| {
        let Known(size) = dim else { return Unknown };
        let stride = strides[axis];
        if is_same_padded {
            return Known((size + stride - 1) / stride);
        }
        let span = dilations[axis] * (kernel[axis] - 1) + 1;
        let movable = size + pads[axis] + pads[axes + axis] - span;
        Known((movable + if rounds_up { stride - 1 } else { 0 }) / stride + 1)
    });
    Some([*batch, channels].into_iter().chain(output).collect())
}

/// Returns the shape to which Add and similar operators broadcast two operands.
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

/// Returns the product of dimensions. The product of the batch and ones is the batch.
pub fn product(dims: &[Dim]) -> Dim {
    dims.iter().fold(Known(1), |product, dim| match (product, dim) {
        (Known(left), Known(right)) => Known(left * right),
        (Known(1), Batch) | (Batch, Known(1)) => Batch,
        _ => Unknown,
    })
}

/// Converts an axis or index to a position of at most `length`. A negative axis counts from the end.
#[must_use]
pub fn position(axis: i64, length: usize) -> usize {
    let from_front = if axis < 0 {
        length.saturating_sub(usize::try_from(axis.unsigned_abs()).unwrap_or(usize::MAX))
    } else {
        usize::try_from(axis).unwrap_or(usize::MAX)
    };
    from_front.min(length)
}

/// Converts each axis with [`position`].
#[must_use]
pub fn positions(axes: &[i64], length: usize) -> Vec<usize> {
    axes.iter().map(|axis| position(*axis, length)).collect()
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
        let plane = |height, width| Some(vec![Batch, Known(8), Known(height), Known(width)]);
        assert_eq!(shape_after(weights(), conv()), plane(222, 223));
        let strided = conv().with_ints("strides", &[2, 2]).with_ints("pads", &[0, 0, 1, 1]);
        assert_eq!(shape_after(weights(), strided), plane(112, 112));
        assert_eq!(shape_after(weights(), conv().with_ints("dilations", &[2, 1])), plane(220, 223));
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
        let squeezed = node("Unsqueeze", &["x"], &["y"]).with_ints("axes", &[0, -1]);
        let expected = vec![Known(1), Batch, Known(3), Known(224), Known(225), Known(1)];
        assert_eq!(shape_after(vec![], squeezed), Some(expected));
        assert_eq!(position(-1, 4), 3);
        assert_eq!(position(9, 4), 4);
    }

    #[test]
    fn reshape_target_that_begins_with_1_keeps_the_batch() {
        let input = [Batch, Known(3), Known(4)];
        assert_eq!(infer_reshape(&input, &[Known(1), Known(-1)]), Some(vec![Batch, Known(12)]));
        assert_eq!(infer_reshape(&input, &[Known(-1), Known(12)]), Some(vec![Batch, Known(12)]));
        assert_eq!(
            infer_reshape(&input, &[Known(0), Known(4), Known(3)]),
            Some(vec![Batch, Known(4), Known(3)])
        );
        // Four values are only a part of an image, so the first dimension is not the batch.
        assert_eq!(infer_reshape(&input, &[Known(-1), Known(4)]), Some(vec![Unknown, Known(4)]));
        assert_eq!(infer_reshape(&input, &[Known(3), Known(-1)]), Some(vec![Known(3), Unknown]));
    }
}
