//! Infers the shapes of the outputs of each operator.

use onnx_proto::NodeProto;

use super::super::proto::NodeExt;
use super::Inference;
use super::dim::Dim::{Known, Unknown};
use super::dim::{Dim, known_sizes, product, resolve_axes, resolve_axis};
use super::reshape::infer_reshape;
use super::windows::infer_windowed_shape;

impl Inference<'_> {
    /// Returns the shapes of a node's outputs, or `None` if the rank of an output is unknown.
    pub(super) fn infer_shapes(&self, node: &NodeProto) -> Option<Vec<Vec<Dim>>> {
        if node.op_type == "Split" {
            return self.infer_split(node);
        }
        self.infer_shape(node).map(|shape| vec![shape])
    }

    /// Returns the shape of a node's first output.
    fn infer_shape(&self, node: &NodeProto) -> Option<Vec<Dim>> {
        // Only these operators have an output of known rank although the shape of their input is unknown.
        if matches!(node.op_type.as_str(), "ConstantOfShape") {
            return self.integers(node.input.first()?);
        }
        let input = self.input_shape(node, 0)?;
        match node.op_type.as_str() {
            "Conv" => {
                let weights = self.input_shape(node, 1)?;
                let kernel = known_sizes(weights.get(2..)?)?;
                infer_windowed_shape(node, input, &kernel, *weights.first()?)
            }
            "MaxPool" | "AveragePool" | "LpPool" => {
                infer_windowed_shape(node, input, node.ints("kernel_shape")?, *input.get(1)?)
            }
            "GlobalAveragePool" | "GlobalMaxPool" => {
                let (batch_and_channels, spatial) = input.split_at_checked(2)?;
                Some([batch_and_channels, &vec![Known(1); spatial.len()]].concat())
            }
            "BatchNormalization"
            | "LayerNormalization"
            | "GroupNormalization"
            | "InstanceNormalization"
            | "LpNormalization"
            | "RMSNormalization"
            | "MeanVarianceNormalization"
            | "Clip"
            | "Relu"
            | "LeakyRelu"
            | "Elu"
            | "Selu"
            | "Celu"
            | "ThresholdedRelu"
            | "Sigmoid"
            | "Tanh"
            | "HardSigmoid"
            | "HardSwish"
            | "Swish"
            | "Mish"
            | "Softplus"
            | "Softsign"
            | "Gelu"
            | "Erf"
            | "Exp"
            | "Log"
            | "Sqrt"
            | "Reciprocal"
            | "Abs"
            | "Neg"
            | "Sign"
            | "Floor"
            | "Ceil"
            | "Round"
            | "Sin"
            | "Cos"
            | "LRN"
            | "Softmax"
            | "LogSoftmax"
            | "Hardmax"
            | "Identity"
            | "Dropout"
            | "Cast"
            | "CastLike"
            | "Not"
            | "CumSum"
            | "Trilu"
            | "QuantizeLinear"
            | "DequantizeLinear" => Some(input.into()),
            "PRelu" => Some(input.into()),
            "Add" | "Sub" | "Mul" | "Div" | "Pow" | "Mod" | "Max" | "Min" | "Sum" | "Mean" | "Equal"
            | "Less" | "LessOrEqual" | "Greater" | "GreaterOrEqual" | "And" | "Or" | "Xor" | "Where" => {
                (1..node.input.len()).try_fold(input.to_vec(), |shape, input_index| {
                    Some(broadcast_shape(&shape, self.input_shape(node, input_index)?))
                })
            }
            "Gemm" => {
                let weights = self.input_shape(node, 1)?;
                let output_axis = usize::from(node.int("transB").unwrap_or(0) == 0);
                let row_axis = usize::from(node.int("transA").unwrap_or(0) != 0);
                // A batch among the elements of a row would be summed up.
                let row_len = *input.get(1 - row_axis)?;
                let rows = if row_len.has_batch() { Unknown } else { *input.get(row_axis)? };
                Some(vec![rows, *weights.get(output_axis)?])
            }
            "MatMul" => infer_matmul(input, self.input_shape(node, 1)?),
            "Flatten" => {
                let axis = resolve_axis(node.int("axis").unwrap_or(1), input.len());
                Some(vec![product(&input[..axis]), product(&input[axis..])])
            }
            "Reshape" => {
                let zero_is_a_size = node.int("allowzero").unwrap_or(0) != 0;
                infer_reshape(input, &self.reshape_sizes(node)?, zero_is_a_size)
            }
            "Transpose" => match node.ints("perm") {
                Some(perm) => {
                    perm.iter().map(|axis| input.get(usize::try_from(*axis).ok()?).copied()).collect()
                }
                None => Some(input.iter().rev().copied().collect()),
            },
            "Squeeze" => {
                let is_removed: Box<dyn Fn(usize, Dim) -> bool> = match self.axes(node) {
                    Some(axes) => {
                        let axes = resolve_axes(&axes, input.len());
                        Box::new(move |axis, _| axes.contains(&axis))
                    }
                    None if node.input.len() < 2 => Box::new(|_, dim| dim == Known(1)),
                    None => return None,
                };
                let kept = input.iter().enumerate().filter(|(axis, dim)| !is_removed(*axis, **dim));
                Some(kept.map(|(_, dim)| *dim).collect())
            }
            "Unsqueeze" => {
                let axes = self.axes(node)?;
                let rank = input.len() + axes.len();
                let axes = resolve_axes(&axes, rank);
                let mut dims = input.iter();
                let dim_at = |axis| {
                    if axes.contains(&axis) { Some(Known(1)) } else { dims.next().copied() }
                };
                (0..rank).map(dim_at).collect()
            }
            "ReduceMean" | "ReduceSum" | "ReduceMax" | "ReduceMin" | "ReduceProd" | "ReduceL1"
            | "ReduceL2" | "ReduceSumSquare" | "ReduceLogSumExp" | "ReduceLogSum" => {
                let axes = match self.axes(node) {
                    Some(axes) => resolve_axes(&axes, input.len()),
                    None if node.input.len() < 2 => (0..input.len()).collect(),
                    None => return None,
                };
                Some(reduce_shape(node, input, &axes))
            }
            "ArgMax" | "ArgMin" => {
                let axis = resolve_axis(node.int("axis").unwrap_or(0), input.len());
                Some(reduce_shape(node, input, &[axis]))
            }
            "Concat" => {
                let axis = resolve_axis(node.int("axis")?, input.len());
                let parts: Vec<&[Dim]> = (0..node.input.len())
                    .map(|input_index| self.input_shape(node, input_index))
                    .collect::<Option<_>>()?;
                if parts.iter().any(|part| part.len() != input.len()) {
                    return None;
                }
                let mut sizes_on_axis = parts.iter().map(|part| part.get(axis)?.known());
                let sum = sizes_on_axis.try_fold(0_i64, |sum, size| sum.checked_add(size?));
                let size = sum.map_or(Unknown, Known);
                let mut shape: Vec<Dim> = (0..input.len())
                    .map(|axis| {
                        let agrees = parts.iter().all(|part| part[axis] == input[axis]);
                        if agrees { input[axis] } else { Unknown }
                    })
                    .collect();
                *shape.get_mut(axis)? = size;
                Some(shape)
            }
            "Slice" => {
                let mut shape = input.to_vec();
                for range in self.slice_ranges(node, input.len())? {
                    let dim = &mut shape[range.axis];
                    let keeps_all = range.start == Known(0)
                        && range.step == 1
                        && (range.end == *dim
                            || range.end.known().is_some_and(|end| end >= i64::from(i32::MAX)));
                    if !keeps_all {
                        *dim = match dim.known() {
                            Some(length) => range.resolve(length).map_or(Unknown, |(_, count)| Known(count)),
                            None => Unknown,
                        };
                    }
                }
                Some(shape)
            }
            "Gather" => {
                let axis = resolve_axis(node.int("axis").unwrap_or(0), input.len());
                let indices = self.input_shape(node, 1)?;
                // A selection from the axis of the batch mixes images.
                let is_lost = input.get(axis)?.has_batch();
                let indices = if is_lost { &vec![Unknown; indices.len()] } else { indices };
                Some([&input[..axis], indices, &input[axis + 1..]].concat())
            }
            "GatherElements" => self.input_shape(node, 1).map(Into::into),
            "Expand" => Some(broadcast_shape(input, &self.integers(node.input.get(1)?)?)),
            "Tile" => {
                let repeats = self.integers(node.input.get(1)?)?;
                let pairs = input.iter().zip(&repeats);
                Some(pairs.map(|(dim, repeat)| product(&[*repeat, *dim])).collect())
            }
            "Pad" => {
                let pads = match node.ints("pads") {
                    Some(pads) => pads.to_vec(),
                    None => self.input_integers(node, 1)?,
                };
                let axes = match self.input_integers(node, 3) {
                    Some(axes) => resolve_axes(&axes, input.len()),
                    None => (0..input.len()).collect(),
                };
                let mut shape = input.to_vec();
                for (index, axis) in axes.iter().enumerate() {
                    let padding = pads.get(index)?.checked_add(*pads.get(axes.len() + index)?)?;
                    let dim = shape.get_mut(*axis)?;
                    if padding != 0 {
                        let padded = dim.known().and_then(|size| size.checked_add(padding));
                        *dim = padded.map_or(Unknown, Known);
                    }
                }
                Some(shape)
            }
            "Resize" | "Upsample" => self.infer_resize(node, input),
            "DepthToSpace" | "SpaceToDepth" => {
                let block = node.int("blocksize")?;
                let &[batch, Known(channels), Known(height), Known(width)] = input else { return None };
                let area = block.checked_mul(block).filter(|area| *area > 0)?;
                let sizes = if node.op_type == "DepthToSpace" {
                    [channels / area, height.checked_mul(block)?, width.checked_mul(block)?]
                } else {
                    [channels.checked_mul(area)?, height.checked_div(block)?, width.checked_div(block)?]
                };
                Some([batch].into_iter().chain(sizes.map(Known)).collect())
            }
            _ => None,
        }
    }

    fn infer_split(&self, node: &NodeProto) -> Option<Vec<Vec<Dim>>> {
        let input = self.input_shape(node, 0)?;
        let axis = resolve_axis(node.int("axis").unwrap_or(0), input.len());
        let length = input.get(axis)?.known()?;
        let sizes = match node.ints("split").map(<[i64]>::to_vec).or_else(|| self.input_integers(node, 1)) {
            Some(sizes) => sizes,
            None => {
                let count = i64::try_from(node.output.len()).ok().filter(|count| *count > 0)?;
                let chunk = length.checked_add(count - 1)? / count;
                let rest = |index: i64| length.checked_sub(index.checked_mul(chunk)?);
                (0..count).map(|index| Some(chunk.min(rest(index)?))).collect::<Option<_>>()?
            }
        };
        let with_size = |size: i64| {
            let mut shape = input.to_vec();
            shape[axis] = Known(size);
            shape
        };
        Some(sizes.into_iter().map(with_size).collect())
    }

    fn infer_resize(&self, node: &NodeProto, input: &[Dim]) -> Option<Vec<Dim>> {
        let given = |index: usize| node.input.get(index).filter(|name| !name.is_empty());
        // The sizes and the scales may be those of some axes only.
        let axes = match node.ints("axes") {
            Some(axes) => resolve_axes(axes, input.len()),
            None => (0..input.len()).collect(),
        };
        let mut shape = input.to_vec();
        if let Some(sizes) = given(3) {
            let sizes = self.integers(sizes)?;
            let stretches = node.text("keep_aspect_ratio_policy").is_none_or(|policy| policy == "stretch");
            if sizes.len() != axes.len() || !stretches {
                return None;
            }
            for (axis, size) in axes.into_iter().zip(sizes) {
                let dim = shape.get_mut(axis)?;
                let keeps_batch = dim.has_batch() && size.size_per_image() == Some(1);
                *dim = if keeps_batch { *dim } else { size };
            }
            return Some(shape);
        }
        // Upsample has the scales as an attribute or as its second input, Resize as its second or third input.
        let name = given(2).or_else(|| given(1));
        let scales = match node.attribute.iter().find(|attribute| attribute.name == "scales") {
            Some(attribute) => attribute.floats.clone(),
            None => self.floats(name?)?,
        };
        if scales.len() != axes.len() {
            return None;
        }
        for (axis, scale) in axes.into_iter().zip(scales) {
            let dim = shape.get_mut(axis)?;
            *dim = scale_dim(*dim, scale);
        }
        Some(shape)
    }
}

#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "sizes are small")]
fn scale_dim(dim: Dim, scale: f32) -> Dim {
    match dim {
        dim if (scale - 1.0).abs() < f32::EPSILON => dim,
        Known(size) => Known((size as f32 * scale).floor() as i64),
        _ => Unknown,
    }
}

fn reduce_shape(node: &NodeProto, input: &[Dim], axes: &[usize]) -> Vec<Dim> {
    let keeps_dims = node.int("keepdims").unwrap_or(1) != 0;
    let dims = input.iter().enumerate().filter_map(|(axis, dim)| {
        if axes.contains(&axis) { keeps_dims.then_some(Known(1)) } else { Some(*dim) }
    });
    dims.collect()
}

fn infer_matmul(left: &[Dim], right: &[Dim]) -> Option<Vec<Dim>> {
    let (left_outer, right_outer) =
        (left.get(..left.len().checked_sub(2)?)?, right.get(..right.len().checked_sub(2)?)?);
    let (&[rows, summed], &[other_summed, columns]) = (left.last_chunk()?, right.last_chunk()?);
    let mut shape = broadcast_shape(left_outer, right_outer);
    // A batch among the summed elements would mix images.
    let is_valid = summed == other_summed && !summed.has_batch();
    shape.extend(if is_valid { [rows, columns] } else { [Unknown, columns] });
    Some(shape)
}

/// Returns the shape to which operators such as Add broadcast two operands.
fn broadcast_shape(left: &[Dim], right: &[Dim]) -> Vec<Dim> {
    let rank = left.len().max(right.len());
    let padded = |dims: &[Dim]| [vec![Known(1); rank - dims.len()], dims.to_vec()].concat();
    let pairs = padded(left).into_iter().zip(padded(right));
    pairs
        .map(|pair| match pair {
            (Known(1), other) | (other, Known(1)) => other,
            (left, right) if left == right => left,
            _ => Unknown,
        })
        .collect()
}
