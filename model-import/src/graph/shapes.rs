//! Shapes of the values in an image classification network, and the values of shape arithmetic.
//!
//! Small on purpose: the operators that such networks are made of. An operator that is not known here
//! gives values of unknown shape; the passes leave alone what they know nothing about, and burn-onnx has
//! an inference of its own.

use std::collections::HashMap;

use onnx_ir::{GraphProto, NodeProto};

use super::proto::{self, NodeExt};

/// One dimension of a value, or one number of shape arithmetic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dim {
    /// The number of images.
    Batch,
    /// A number.
    Known(i64),
    /// Anything.
    Unknown,
}

use Dim::{Batch, Known, Unknown};

/// What is known of the values of a graph.
#[derive(Debug, Default)]
pub struct Shapes {
    shapes: HashMap<String, Vec<Dim>>,
    numbers: HashMap<String, Vec<Dim>>,
}

impl Shapes {
    /// Infers what can be inferred, taking the first dimension of `input` for the batch, whatever the
    /// graph declares it to be.
    #[must_use]
    pub fn infer(graph: &GraphProto, input: &str) -> Self {
        let mut this = Self::default();
        for tensor in &graph.initializer {
            let dims = tensor.dims.iter().copied().map(Known).collect();
            this.shapes.insert(tensor.name.clone(), dims);
            if tensor.dims.len() <= 1
                && let Some(numbers) = proto::integers(tensor)
            {
                let numbers = numbers.into_iter().map(Known).collect();
                this.numbers.insert(tensor.name.clone(), numbers);
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
            if let Some(numbers) = this.arithmetic(graph, node) {
                this.numbers.insert(output.clone(), numbers);
            }
            if let Some(shape) = this.shape_of(graph, node) {
                this.shapes.insert(output.clone(), shape);
            }
        }
        this
    }

    /// Shape of a value, if its rank is known.
    #[must_use]
    pub fn shape(&self, name: &str) -> Option<&[Dim]> {
        self.shapes.get(name).map(Vec::as_slice)
    }

    fn input(&self, node: &NodeProto, slot: usize) -> Option<&[Dim]> {
        self.shape(node.input.get(slot)?)
    }

    fn numbers(&self, node: &NodeProto, slot: usize) -> Option<&[Dim]> {
        self.numbers.get(node.input.get(slot)?).map(Vec::as_slice)
    }

    /// The numbers a node computes from shapes.
    fn arithmetic(&self, graph: &GraphProto, node: &NodeProto) -> Option<Vec<Dim>> {
        match node.op_type.as_str() {
            "Shape" => {
                let shape = self.input(node, 0)?;
                let start = position(node.int("start").unwrap_or(0), shape.len());
                let end = node.int("end").map_or(shape.len(), |end| position(end, shape.len()));
                shape.get(start..end).map(Into::into)
            }
            "Cast" | "Identity" | "Unsqueeze" | "Squeeze" => self.numbers(node, 0).map(Into::into),
            "Gather" => {
                let numbers = self.numbers(node, 0)?;
                let indices = self.numbers(node, 1)?;
                let pick = |index: &Dim| match index {
                    Known(index) => numbers.get(position(*index, numbers.len())).copied(),
                    _ => None,
                };
                indices.iter().map(pick).collect()
            }
            "Concat" => {
                let parts = (0..node.input.len()).map(|slot| self.numbers(node, slot));
                parts.collect::<Option<Vec<_>>>().map(|parts| parts.concat())
            }
            "Slice" => {
                let numbers = self.numbers(node, 0)?;
                let (starts, ends) = slice_bounds(graph, node)?;
                let step_is_one = node.input.get(4).is_none_or(|steps| {
                    proto::initializer(graph, steps)
                        .and_then(proto::integers)
                        .is_some_and(|steps| steps == [1])
                });
                let (&[start], &[end], true) = (starts.as_slice(), ends.as_slice(), step_is_one) else {
                    return None;
                };
                numbers.get(position(start, numbers.len())..position(end, numbers.len())).map(Into::into)
            }
            _ => None,
        }
    }

    fn shape_of(&self, graph: &GraphProto, node: &NodeProto) -> Option<Vec<Dim>> {
        let input = self.input(node, 0)?;
        match node.op_type.as_str() {
            "Conv" => {
                let weights = self.input(node, 1)?;
                let kernel = known(weights.get(2..)?)?;
                windowed(node, input, &kernel, *weights.first()?)
            }
            "MaxPool" | "AveragePool" => windowed(node, input, node.ints("kernel_shape")?, *input.get(1)?),
            "GlobalAveragePool" | "GlobalMaxPool" => {
                let (head, plane) = input.split_at_checked(2)?;
                Some([head, &vec![Known(1); plane.len()]].concat())
            }
            "BatchNormalization" | "Clip" | "Relu" | "LeakyRelu" | "PRelu" | "Elu" | "Sigmoid" | "Tanh"
            | "HardSigmoid" | "HardSwish" | "Swish" | "Gelu" | "Erf" | "Exp" | "Sqrt" | "Neg" | "LRN"
            | "Softmax" | "LogSoftmax" | "Identity" | "Dropout" | "Cast" => Some(input.into()),
            "Add" | "Sub" | "Mul" | "Div" | "Pow" | "Max" | "Min" => broadcast(input, self.input(node, 1)?),
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
                    None => self.numbers(node, 1)?.to_vec(),
                };
                reshaped(input, &target)
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
                let keeps = node.int("keepdims").unwrap_or(1) != 0;
                let dims = input.iter().enumerate().filter_map(|(axis, dim)| {
                    if axes.contains(&axis) { keeps.then_some(Known(1)) } else { Some(*dim) }
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

/// The shape that a Reshape makes. A target that begins with 1 where the input begins with the batch
/// comes from an export at batch 1, and means the batch.
fn reshaped(input: &[Dim], target: &[Dim]) -> Option<Vec<Dim>> {
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
        // All the rest is one image's elements, so that the first is what is left: the batch.
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
        if let Some(open) = shape.iter().position(|dim| *dim == Known(-1))
            && let Known(rest) = others(&shape[1..])
        {
            shape[open] = if rest == 0 { Unknown } else { Known(elements / rest) };
        }
    }
    Some(shape.into_iter().map(|dim| if dim == Known(-1) { Unknown } else { dim }).collect())
}

/// Starts and ends of a Slice, which newer opsets have as inputs.
fn slice_bounds(graph: &GraphProto, node: &NodeProto) -> Option<(Vec<i64>, Vec<i64>)> {
    if let (Some(starts), Some(ends)) = (node.ints("starts"), node.ints("ends")) {
        return Some((starts.into(), ends.into()));
    }
    let constant = |slot: usize| proto::integers(proto::initializer(graph, node.input.get(slot)?)?);
    Some((constant(1)?, constant(2)?))
}

fn windowed(node: &NodeProto, input: &[Dim], kernel: &[i64], channels: Dim) -> Option<Vec<Dim>> {
    let (batch, plane) = (input.first()?, input.get(2..)?);
    let axes = plane.len();
    let attribute = |name: &str| node.ints(name).map_or_else(|| vec![1; axes], <[i64]>::to_vec);
    let (strides, dilations) = (attribute("strides"), attribute("dilations"));
    let pads = node.ints("pads").map_or_else(|| vec![0; 2 * axes], <[i64]>::to_vec);
    let complete = [kernel.len(), strides.len(), dilations.len()] == [axes; 3] && pads.len() == 2 * axes;
    if !complete || strides.contains(&0) {
        return None;
    }
    let same = node.text("auto_pad").is_some_and(|mode| mode.starts_with("SAME"));
    let ceil = node.int("ceil_mode").unwrap_or(0) != 0;
    let out = plane.iter().enumerate().map(|(axis, dim)| {
        let Known(size) = dim else { return Unknown };
        let stride = strides[axis];
        if same {
            return Known((size + stride - 1) / stride);
        }
        let span = dilations[axis] * (kernel[axis] - 1) + 1;
        let room = size + pads[axis] + pads[axes + axis] - span;
        Known((room + if ceil { stride - 1 } else { 0 }) / stride + 1)
    });
    Some([*batch, channels].into_iter().chain(out).collect())
}

fn broadcast(left: &[Dim], right: &[Dim]) -> Option<Vec<Dim>> {
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

fn known(dims: &[Dim]) -> Option<Vec<i64>> {
    dims.iter()
        .map(|dim| match dim {
            Known(size) => Some(*size),
            _ => None,
        })
        .collect()
}

/// The product of dimensions: one batch times ones is still the batch.
pub fn product(dims: &[Dim]) -> Dim {
    dims.iter().fold(Known(1), |product, dim| match (product, dim) {
        (Known(left), Known(right)) => Known(left * right),
        (Known(1), Batch) | (Batch, Known(1)) => Batch,
        _ => Unknown,
    })
}

/// A possibly negative axis or index, from the front; at most `length`.
#[must_use]
pub fn position(axis: i64, length: usize) -> usize {
    let from_front = if axis < 0 {
        length.saturating_sub(usize::try_from(axis.unsigned_abs()).unwrap_or(usize::MAX))
    } else {
        usize::try_from(axis).unwrap_or(usize::MAX)
    };
    from_front.min(length)
}

/// [`position`] of each.
#[must_use]
pub fn positions(axes: &[i64], length: usize) -> Vec<usize> {
    axes.iter().map(|axis| position(*axis, length)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::proto::{float_tensor, node};
    use super::super::testing::graph;
    use super::*;

    const IMAGE: [Option<i64>; 4] = [Some(1), Some(3), Some(224), Some(225)];

    fn shape_after(constants: Vec<onnx_ir::TensorProto>, node: NodeProto) -> Option<Vec<Dim>> {
        let graph = graph(&IMAGE, constants, vec![node]);
        Shapes::infer(&graph, "x").shape("y").map(Into::into)
    }

    #[test]
    fn windows_count_pads_strides_and_dilations() {
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
    fn unknown_operators_have_unknown_shapes() {
        assert_eq!(shape_after(vec![], node("Mystery", &["x"], &["y"])), None);
    }

    #[test]
    fn axes_count_from_both_ends() {
        let squeezed = node("Unsqueeze", &["x"], &["y"]).with_ints("axes", &[0, -1]);
        let expected = vec![Known(1), Batch, Known(3), Known(224), Known(225), Known(1)];
        assert_eq!(shape_after(vec![], squeezed), Some(expected));
        assert_eq!(position(-1, 4), 3);
        assert_eq!(position(9, 4), 4);
    }

    #[test]
    fn a_batch_of_one_in_a_reshape_means_the_batch() {
        let input = [Batch, Known(3), Known(4)];
        assert_eq!(reshaped(&input, &[Known(1), Known(-1)]), Some(vec![Batch, Known(12)]));
        assert_eq!(reshaped(&input, &[Known(-1), Known(12)]), Some(vec![Batch, Known(12)]));
        assert_eq!(reshaped(&input, &[Known(0), Known(4), Known(3)]), Some(vec![Batch, Known(4), Known(3)]));
        // Rows of parts of images are not one row for each image.
        assert_eq!(reshaped(&input, &[Known(-1), Known(4)]), Some(vec![Unknown, Known(4)]));
        assert_eq!(reshaped(&input, &[Known(3), Known(-1)]), Some(vec![Known(3), Unknown]));
    }
}
