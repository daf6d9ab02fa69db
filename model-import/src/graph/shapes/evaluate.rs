//! Evaluates nodes whose inputs are constants or are computed from shapes.

use onnx_proto::NodeProto;

use super::super::proto::{self, NodeExt};
use super::Inference;
use super::dim::Dim::{Known, Unknown};
use super::dim::{resolve_axes, resolve_axis};
use super::value::{
    Elements, MAX_ELEMENT_COUNT, Value, broadcast_dims, combine_floats, combine_integers, compare_floats,
    element_count, strided_indices, strides,
};

impl Inference<'_> {
    /// Returns the elements of a node's first output if they do not depend on the image.
    pub(super) fn evaluate(&self, node: &NodeProto) -> Option<Value> {
        match node.op_type.as_str() {
            "Shape" => {
                let shape = self.input_shape(node, 0)?;
                let start = resolve_axis(node.int("start").unwrap_or(0), shape.len());
                let end = node.int("end").map_or(shape.len(), |end| resolve_axis(end, shape.len()));
                return shape.get(start..end).map(|dims| Value::list(dims.into()));
            }
            "Size" => {
                let size = super::dim::product(self.input_shape(node, 0)?);
                return (size != Unknown).then(|| Value::list(vec![size])).and_then(|v| v.with_dims(vec![]));
            }
            _ => {}
        }
        let is_constant = |name: &String| self.has_value(name) || self.constants.contains_key(name.as_str());
        if !node.input.iter().all(|name| name.is_empty() || is_constant(name)) {
            return None;
        }
        let input = || self.value(node.input.first()?);
        match node.op_type.as_str() {
            "Identity" => input(),
            "Cast" => cast(input()?, node.int("to")?),
            "Unsqueeze" => {
                let axes = self.axes(node)?;
                let value = input()?;
                let rank = value.dims.len() + axes.len();
                let axes = resolve_axes(&axes, rank);
                let mut dims = value.dims.clone().into_iter();
                let dims = (0..rank).map(|axis| if axes.contains(&axis) { Some(1) } else { dims.next() });
                let dims = dims.collect::<Option<_>>()?;
                value.with_dims(dims)
            }
            "Squeeze" => {
                let value = input()?;
                let axes = self.axes(node).map(|axes| resolve_axes(&axes, value.dims.len()));
                let dims = value.dims.iter().enumerate().filter(|(axis, dim)| match &axes {
                    Some(axes) => !axes.contains(axis),
                    None => **dim != 1,
                });
                let dims = dims.map(|(_, dim)| *dim).collect();
                value.with_dims(dims)
            }
            "Reshape" => {
                let target = self.reshape_sizes(node)?;
                let dims: Vec<_> = self.input_shape(node, 0)?.into();
                let zero_is_a_size = node.int("allowzero").unwrap_or(0) != 0;
                let shape = super::reshape::infer_reshape(&dims, &target, zero_is_a_size)?;
                let dims =
                    shape.iter().map(|dim| usize::try_from(dim.known()?).ok()).collect::<Option<_>>()?;
                input()?.with_dims(dims)
            }
            "Transpose" => transpose(&input()?, node.ints("perm")),
            "Gather" => gather(&input()?, &self.value(node.input.get(1)?)?, node.int("axis").unwrap_or(0)),
            "Slice" => self.slice(node, &input()?),
            "Concat" => {
                let parts: Vec<Value> =
                    node.input.iter().map(|name| self.value(name)).collect::<Option<_>>()?;
                concat(&parts, node.int("axis")?)
            }
            "Expand" => {
                let target = self.value(node.input.get(1)?)?.known_integers()?;
                let target: Vec<usize> =
                    target.into_iter().map(|size| usize::try_from(size).ok()).collect::<Option<_>>()?;
                let value = input()?;
                value.broadcast_to(&broadcast_dims(&value.dims, &target)?)
            }
            "ConstantOfShape" => {
                let dims = input()?.known_integers()?;
                let dims: Vec<usize> =
                    dims.into_iter().map(|size| usize::try_from(size).ok()).collect::<Option<_>>()?;
                let fill = match node.attribute.iter().find(|attribute| attribute.name == "value") {
                    Some(attribute) => Value::read(attribute.t.as_ref()?)?.with_dims(vec![])?,
                    None => Value {
                        element_type: proto::FLOAT,
                        dims: vec![],
                        elements: Elements::Floats(vec![0.0]),
                    },
                };
                fill.broadcast_to(&dims)
            }
            "Range" => {
                let bound = |index: usize| {
                    let value = self.value(node.input.get(index)?)?;
                    value.known_integers()?.first().copied()
                };
                let (start, limit, delta) = (bound(0)?, bound(1)?, bound(2)?);
                let count = limit.checked_sub(start)?.checked_div(delta)?;
                if delta == 0 || usize::try_from(count).is_ok_and(|count| count > MAX_ELEMENT_COUNT) {
                    return None;
                }
                let steps = std::iter::successors(Some(start), |number| number.checked_add(delta));
                let in_range = |number: &i64| if delta > 0 { *number < limit } else { *number > limit };
                let mut list = Value::list(steps.take_while(in_range).map(Known).collect());
                list.element_type = self.value(node.input.first()?)?.element_type;
                Some(list)
            }
            "Where" => {
                let [condition, left, right] =
                    [0, 1, 2].map(|index| node.input.get(index).and_then(|name| self.value(name)));
                choose(&condition?, &left?, &right?)
            }
            "Not" | "Neg" | "Sqrt" | "Floor" | "Ceil" | "Reciprocal" | "Abs" | "Exp" | "Sigmoid" => {
                apply(&node.op_type, input()?)
            }
            "ScatterND" if node.text("reduction").is_none_or(|reduction| reduction == "none") => {
                scatter(input()?, &self.value(node.input.get(1)?)?, self.value(node.input.get(2)?)?)
            }
            "ReduceProd" | "ReduceSum" => reduce_list(node, &input()?),
            "Add" | "Sub" | "Mul" | "Div" | "Mod" | "Pow" | "Max" | "Min" | "Equal" | "Less"
            | "LessOrEqual" | "Greater" | "GreaterOrEqual" | "And" | "Or" => {
                if node.input.len() != 2 {
                    return None;
                }
                combine(&node.op_type, &input()?, &self.value(&node.input[1])?)
            }
            _ => None,
        }
    }

    fn slice(&self, node: &NodeProto, value: &Value) -> Option<Value> {
        let mut positions: Vec<Vec<usize>> = value.dims.iter().map(|dim| (0..*dim).collect()).collect();
        for range in self.slice_ranges(node, value.dims.len())? {
            let (first, count) = range.resolve(i64::try_from(value.dims[range.axis]).ok()?)?;
            let position = |index: i64| usize::try_from(first + index * range.step).ok();
            positions[range.axis] = (0..count).map(position).collect::<Option<_>>()?;
        }
        let mut indices = vec![0];
        for (positions, stride) in positions.iter().zip(strides(&value.dims)) {
            let along_axis = |index: usize| positions.iter().map(move |position| index + position * stride);
            indices = indices.into_iter().flat_map(along_axis).collect();
        }
        value.pick(positions.iter().map(Vec::len).collect(), &indices)
    }
}

/// Converts the elements to another type, of which only integers, truth values and float32 are supported.
#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "Cast rounds as `as` does")]
fn cast(value: Value, target: i64) -> Option<Value> {
    let element_type = i32::try_from(target).ok()?;
    let is_integer = matches!(element_type, proto::INT64 | proto::INT32 | proto::BOOL);
    let elements = match value.elements {
        Elements::Integers(integers) if element_type == proto::BOOL => Elements::Integers(
            integers
                .into_iter()
                .map(|dim| dim.known().map_or(Unknown, |n| Known(i64::from(n != 0))))
                .collect(),
        ),
        Elements::Integers(integers) if is_integer => Elements::Integers(integers),
        Elements::Integers(integers) if element_type == proto::FLOAT => {
            let known: Vec<i64> = integers.iter().map(|dim| dim.known()).collect::<Option<_>>()?;
            Elements::Floats(known.into_iter().map(|number| number as f32).collect())
        }
        Elements::Floats(floats) if element_type == proto::FLOAT => Elements::Floats(floats),
        Elements::Floats(floats) if element_type == proto::BOOL => {
            Elements::Integers(floats.into_iter().map(|number| Known(i64::from(number != 0.0))).collect())
        }
        Elements::Floats(floats) if is_integer => {
            Elements::Integers(floats.into_iter().map(|number| Known(number as i64)).collect())
        }
        _ => return None,
    };
    Some(Value { element_type, dims: value.dims, elements })
}

fn transpose(value: &Value, perm: Option<&[i64]>) -> Option<Value> {
    let rank = value.dims.len();
    let perm: Vec<usize> = match perm {
        Some(perm) => perm.iter().map(|axis| usize::try_from(*axis).ok()).collect::<Option<_>>()?,
        None => (0..rank).rev().collect(),
    };
    let own_strides = strides(&value.dims);
    let dims: Vec<usize> = perm.iter().map(|axis| value.dims.get(*axis).copied()).collect::<Option<_>>()?;
    let axis_strides: Vec<usize> =
        perm.iter().map(|axis| own_strides.get(*axis).copied()).collect::<Option<_>>()?;
    let indices = strided_indices(&dims, 0, &axis_strides)?;
    value.pick(dims, &indices)
}

fn gather(value: &Value, indices: &Value, axis: i64) -> Option<Value> {
    let axis = resolve_axis(axis, value.dims.len());
    let length = *value.dims.get(axis)?;
    let (outer, inner) = (element_count(&value.dims[..axis])?, element_count(&value.dims[axis + 1..])?);
    let positions: Vec<usize> = indices
        .known_integers()?
        .into_iter()
        .map(|index| Some(resolve_axis(index, length)).filter(|index| *index < length))
        .collect::<Option<_>>()?;
    let dims = [&value.dims[..axis], &indices.dims, &value.dims[axis + 1..]].concat();
    element_count(&dims)?;
    let sources: Vec<usize> = (0..outer)
        .flat_map(|block| positions.iter().map(move |position| block * length + position))
        .flat_map(|row| (0..inner).map(move |column| row * inner + column))
        .collect();
    value.pick(dims, &sources)
}

/// Replaces the parts of a value at `indices`, as ScatterND does.
fn scatter(value: Value, indices: &Value, updates: Value) -> Option<Value> {
    let index_len = *indices.dims.last()?;
    let part_len = element_count(value.dims.get(index_len..)?)?;
    let (dims, axis_strides, length) = (value.dims.clone(), strides(&value.dims), value.len());
    let mut sources: Vec<usize> = (0..length).collect();
    for (update, index) in indices.known_integers()?.chunks(index_len.max(1)).enumerate() {
        let axes = index.iter().zip(&dims).zip(&axis_strides);
        let offset = axes.map(|((position, dim), stride)| {
            let position = resolve_axis(*position, *dim);
            (position < *dim).then_some(position * stride)
        });
        let offset = offset.sum::<Option<usize>>()?;
        let part = sources.get_mut(offset..offset + part_len)?;
        for (element, source) in part.iter_mut().enumerate() {
            *source = length + update * part_len + element;
        }
    }
    let update_len = updates.len();
    let parts = [value.with_dims(vec![length])?, updates.with_dims(vec![update_len])?];
    concat(&parts, 0)?.pick(dims, &sources)
}

fn concat(parts: &[Value], axis: i64) -> Option<Value> {
    let first = parts.first()?;
    let axis = resolve_axis(axis, first.dims.len());
    let inner = element_count(first.dims.get(axis + 1..)?)?;
    let outer = element_count(&first.dims[..axis])?;
    let fits = |part: &Value| {
        part.dims.len() == first.dims.len()
            && part.dims[..axis] == first.dims[..axis]
            && part.dims[axis + 1..] == first.dims[axis + 1..]
    };
    let length: usize = parts.iter().map(|part| part.dims.get(axis).copied()).sum::<Option<_>>()?;
    if !parts.iter().all(fits) || outer.checked_mul(length)?.checked_mul(inner)? > MAX_ELEMENT_COUNT {
        return None;
    }
    let mut dims = first.dims.clone();
    dims[axis] = length;
    let rows = |block: usize| parts.iter().map(move |part| (part, block * part.dims[axis] * inner));
    let elements = match &first.elements {
        Elements::Integers(_) => {
            let mut all = Vec::new();
            for (part, start) in (0..outer).flat_map(rows) {
                all.extend_from_slice(part.integers()?.get(start..start + part.dims[axis] * inner)?);
            }
            Elements::Integers(all)
        }
        Elements::Floats(_) => {
            let mut all = Vec::new();
            for (part, start) in (0..outer).flat_map(rows) {
                let Elements::Floats(floats) = &part.elements else { return None };
                all.extend_from_slice(floats.get(start..start + part.dims[axis] * inner)?);
            }
            Elements::Floats(all)
        }
    };
    Some(Value { element_type: first.element_type, dims, elements })
}

fn choose(condition: &Value, left: &Value, right: &Value) -> Option<Value> {
    let dims = broadcast_dims(&condition.dims, &broadcast_dims(&left.dims, &right.dims)?)?;
    let (condition, left, right) =
        (condition.broadcast_to(&dims)?, left.broadcast_to(&dims)?, right.broadcast_to(&dims)?);
    let conditions = condition.known_integers()?.into_iter().map(|number| number != 0);
    fn select<T: Copy>(conditions: impl Iterator<Item = bool>, left: &[T], right: &[T]) -> Vec<T> {
        let pairs = left.iter().zip(right);
        conditions
            .zip(pairs)
            .map(|(condition, (left, right))| if condition { *left } else { *right })
            .collect()
    }
    let elements = match (&left.elements, &right.elements) {
        (Elements::Integers(left), Elements::Integers(right)) => {
            Elements::Integers(select(conditions, left, right))
        }
        (Elements::Floats(left), Elements::Floats(right)) => {
            Elements::Floats(select(conditions, left, right))
        }
        _ => return None,
    };
    Some(Value { element_type: left.element_type, dims, elements })
}

fn combine(operator: &str, left: &Value, right: &Value) -> Option<Value> {
    let dims = broadcast_dims(&left.dims, &right.dims)?;
    let (left, right) = (left.broadcast_to(&dims)?, right.broadcast_to(&dims)?);
    let is_comparison =
        matches!(operator, "Equal" | "Less" | "LessOrEqual" | "Greater" | "GreaterOrEqual" | "And" | "Or");
    let elements = match (&left.elements, &right.elements) {
        (Elements::Integers(left), Elements::Integers(right)) => Elements::Integers(
            left.iter().zip(right).map(|(left, right)| combine_integers(operator, *left, *right)).collect(),
        ),
        (Elements::Floats(left), Elements::Floats(right)) if is_comparison => {
            let truths = left.iter().zip(right).map(|(left, right)| compare_floats(operator, *left, *right));
            Elements::Integers(truths.map(|truth| Some(Known(truth?.into()))).collect::<Option<_>>()?)
        }
        (Elements::Floats(left), Elements::Floats(right)) => {
            let numbers = left.iter().zip(right).map(|(left, right)| combine_floats(operator, *left, *right));
            Elements::Floats(numbers.collect::<Option<_>>()?)
        }
        _ => return None,
    };
    Some(Value { element_type: if is_comparison { proto::BOOL } else { left.element_type }, dims, elements })
}

fn apply(operator: &str, value: Value) -> Option<Value> {
    let elements = match (operator, value.elements) {
        ("Not", Elements::Integers(integers)) => Elements::Integers(
            integers
                .into_iter()
                .map(|dim| dim.known().map_or(Unknown, |number| Known(i64::from(number == 0))))
                .collect(),
        ),
        ("Neg", Elements::Integers(integers)) => Elements::Integers(
            integers
                .into_iter()
                .map(|dim| dim.known().and_then(i64::checked_neg).map_or(Unknown, Known))
                .collect(),
        ),
        (_, Elements::Integers(_)) => return None,
        (_, Elements::Floats(floats)) => {
            let compute: fn(f32) -> f32 = match operator {
                "Neg" => |number| -number,
                "Sqrt" => f32::sqrt,
                "Floor" => f32::floor,
                "Ceil" => f32::ceil,
                "Reciprocal" => f32::recip,
                "Abs" => f32::abs,
                "Exp" => f32::exp,
                "Sigmoid" => |number| 1.0 / (1.0 + (-number).exp()),
                _ => return None,
            };
            Elements::Floats(floats.into_iter().map(compute).collect())
        }
    };
    Some(Value { element_type: value.element_type, dims: value.dims, elements })
}

/// Sums or multiplies the integers of a list.
fn reduce_list(node: &NodeProto, value: &Value) -> Option<Value> {
    let operator = if node.op_type == "ReduceProd" { "Mul" } else { "Add" };
    let start = Known(i64::from(operator == "Mul"));
    if value.dims.len() != 1 {
        return None;
    }
    let reduced =
        value.integers()?.iter().fold(start, |left, right| combine_integers(operator, left, *right));
    let dims = if node.int("keepdims").unwrap_or(1) != 0 { vec![1] } else { vec![] };
    let mut list = Value::list(vec![reduced]).with_dims(dims)?;
    list.element_type = value.element_type;
    Some(list)
}
