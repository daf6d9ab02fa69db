//! Represents the elements of small values that are known when the graph is converted.

use std::cmp::Ordering;

use onnx_proto::TensorProto;

use super::super::proto;
use super::dim::Dim;
use super::dim::Dim::{Known, Unknown};

/// Maximum number of elements of a value that is evaluated.
pub(super) const MAX_ELEMENT_COUNT: usize = 1 << 22;

/// The elements of a value.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Elements {
    /// Integers and truth values. An integer may be computed from the batch size.
    Integers(Vec<Dim>),
    /// Floating-point numbers.
    Floats(Vec<f32>),
}

/// A value whose elements are known.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Value {
    /// The element type: a `TensorProto.DataType`.
    pub(super) element_type: i32,
    pub(super) dims: Vec<usize>,
    pub(super) elements: Elements,
}

impl Value {
    /// Reads a constant.
    ///
    /// Returns `None` if the constant is too large or its type is not supported.
    pub(super) fn read(tensor: &TensorProto) -> Option<Self> {
        let dims: Vec<usize> =
            tensor.dims.iter().map(|dim| usize::try_from(*dim).ok()).collect::<Option<_>>()?;
        let count = element_count(&dims)?;
        let elements = match proto::integers(tensor) {
            Some(integers) => Elements::Integers(integers.into_iter().map(Known).collect()),
            None => Elements::Floats(proto::floats(tensor)?),
        };
        let value = Self { element_type: tensor.data_type, dims, elements };
        (value.len() == count).then_some(value)
    }

    /// Builds a list of int64 numbers.
    pub(super) fn list(integers: Vec<Dim>) -> Self {
        Self {
            element_type: proto::INT64,
            dims: vec![integers.len()],
            elements: Elements::Integers(integers),
        }
    }

    /// Returns the constant with these elements.
    ///
    /// Returns `None` if an element is unknown or depends on the batch size.
    pub(super) fn to_tensor(&self, name: &str) -> Option<TensorProto> {
        let dims: Vec<i64> = self.dims.iter().map(|dim| i64::try_from(*dim).ok()).collect::<Option<_>>()?;
        match &self.elements {
            Elements::Floats(floats) => Some(proto::float_tensor(name, &dims, floats)),
            Elements::Integers(integers) => {
                let integers: Vec<i64> = integers.iter().map(|dim| dim.known()).collect::<Option<_>>()?;
                proto::typed_int_tensor(name, self.element_type, &dims, &integers)
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        match &self.elements {
            Elements::Integers(integers) => integers.len(),
            Elements::Floats(floats) => floats.len(),
        }
    }

    /// Returns the integers, whatever the shape of the value is.
    pub(super) fn integers(&self) -> Option<&[Dim]> {
        match &self.elements {
            Elements::Integers(integers) => Some(integers),
            Elements::Floats(_) => None,
        }
    }

    /// Returns the integers if none of them is unknown or depends on the batch size.
    pub(super) fn known_integers(&self) -> Option<Vec<i64>> {
        self.integers()?.iter().map(|dim| dim.known()).collect()
    }

    /// Returns the value of the shape `dims` whose elements are those at `indices`.
    pub(super) fn pick(&self, dims: Vec<usize>, indices: &[usize]) -> Option<Self> {
        let elements = match &self.elements {
            Elements::Integers(integers) => Elements::Integers(
                indices.iter().map(|index| integers.get(*index).copied()).collect::<Option<_>>()?,
            ),
            Elements::Floats(floats) => Elements::Floats(
                indices.iter().map(|index| floats.get(*index).copied()).collect::<Option<_>>()?,
            ),
        };
        Some(Self { element_type: self.element_type, dims, elements })
    }

    /// Returns the same elements in another shape.
    pub(super) fn with_dims(self, dims: Vec<usize>) -> Option<Self> {
        (element_count(&dims)? == self.len()).then_some(Self { dims, ..self })
    }

    /// Returns the value broadcast to a shape.
    pub(super) fn broadcast_to(&self, dims: &[usize]) -> Option<Self> {
        let offset = dims.len().checked_sub(self.dims.len())?;
        let fits = self.dims.iter().zip(&dims[offset..]).all(|(own, wanted)| own == wanted || *own == 1);
        if !fits {
            return None;
        }
        let own_strides = strides(&self.dims);
        let axis_strides: Vec<usize> = (0..dims.len())
            .map(|axis| match axis.checked_sub(offset) {
                Some(own_axis) if self.dims[own_axis] != 1 => own_strides[own_axis],
                _ => 0,
            })
            .collect();
        self.pick(dims.to_vec(), &strided_indices(dims, 0, &axis_strides)?)
    }
}

/// Returns the shape to which the shapes of two values are broadcast.
pub(super) fn broadcast_dims(left: &[usize], right: &[usize]) -> Option<Vec<usize>> {
    let rank = left.len().max(right.len());
    let padded = |dims: &[usize]| [vec![1; rank - dims.len()], dims.to_vec()].concat();
    padded(left)
        .into_iter()
        .zip(padded(right))
        .map(|pair| match pair {
            (1, other) | (other, 1) => Some(other),
            (left, right) => (left == right).then_some(left),
        })
        .collect()
}

/// Returns the number of elements of a shape, or `None` if it is larger than [`MAX_ELEMENT_COUNT`].
///
/// The other axes of a shape without elements must not be larger, either.
pub(super) fn element_count(dims: &[usize]) -> Option<usize> {
    let count = dims.iter().try_fold(1_usize, |product, dim| product.checked_mul((*dim).max(1)))?;
    (count <= MAX_ELEMENT_COUNT).then(|| if dims.contains(&0) { 0 } else { count })
}

/// Returns the distances between neighbours on each axis of a row-major array.
pub(super) fn strides(dims: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; dims.len()];
    for axis in (1..dims.len()).rev() {
        strides[axis - 1] = strides[axis] * dims[axis];
    }
    strides
}

/// Returns the indices that a strided view of an array visits.
pub(super) fn strided_indices(dims: &[usize], start: usize, axis_strides: &[usize]) -> Option<Vec<usize>> {
    let count = element_count(dims)?;
    let mut indices = Vec::with_capacity(count);
    if count > 0 {
        indices.push(start);
    }
    for (dim, stride) in dims.iter().zip(axis_strides) {
        if count == 0 {
            break;
        }
        indices = indices.iter().flat_map(|index| (0..*dim).map(move |step| index + step * stride)).collect();
    }
    Some(indices)
}

/// Adds, subtracts, multiplies or otherwise combines two integers, of which one may contain the batch size.
pub(super) fn combine_integers(operator: &str, left: Dim, right: Dim) -> Dim {
    let factor = |dim: Dim| dim.batch_parts().and_then(|(before, after)| before.checked_mul(after));
    let truth = |condition: bool| Known(i64::from(condition));
    if let (Known(left), Known(right)) = (left, right) {
        let number = match operator {
            "Add" => left.checked_add(right),
            "Sub" => left.checked_sub(right),
            "Mul" => left.checked_mul(right),
            "Div" => left.checked_div(right),
            // The sign of the result is that of the divisor.
            "Mod" => left
                .checked_rem(right)
                .map(|rest| if rest != 0 && (rest < 0) != (right < 0) { rest + right } else { rest }),
            "Pow" => u32::try_from(right).ok().and_then(|exponent| left.checked_pow(exponent)),
            "Max" => Some(left.max(right)),
            "Min" => Some(left.min(right)),
            "Equal" => Some(i64::from(left == right)),
            "Less" => Some(i64::from(left < right)),
            "LessOrEqual" => Some(i64::from(left <= right)),
            "Greater" => Some(i64::from(left > right)),
            "GreaterOrEqual" => Some(i64::from(left >= right)),
            "And" => Some(i64::from(left != 0 && right != 0)),
            "Or" => Some(i64::from(left != 0 || right != 0)),
            _ => None,
        };
        return number.map_or(Unknown, Known);
    }
    let times_batch = |number: Option<i64>| number.map_or(Unknown, |number| Dim::batches(1, number));
    match (operator, left, right, factor(left), factor(right)) {
        ("Mul", _, Known(other), Some(own), None) | ("Mul", Known(other), _, None, Some(own))
            if other > 0 =>
        {
            times_batch(own.checked_mul(other))
        }
        ("Mul", _, Known(0), ..) | ("Mul", Known(0), ..) => Known(0),
        ("Add" | "Sub", kept, Known(0), ..) | ("Add", Known(0), kept, ..) => kept,
        ("Div", _, Known(divisor), Some(own), None) if divisor > 0 && own % divisor == 0 => {
            times_batch(Some(own / divisor))
        }
        ("Div", _, _, Some(own), Some(divisor)) if divisor > 0 && own % divisor == 0 => Known(own / divisor),
        ("Add", _, _, Some(left), Some(right)) => times_batch(left.checked_add(right)),
        // The batch size is positive, so it equals no other number such as -1.
        ("Equal", _, Known(other), Some(_), None) | ("Equal", Known(other), _, None, Some(_))
            if other < 1 =>
        {
            truth(false)
        }
        ("Equal", _, _, Some(left), Some(right)) => truth(left == right),
        ("Greater" | "GreaterOrEqual", _, Known(other), Some(_), None) if other < 1 => truth(true),
        ("Less" | "LessOrEqual", _, Known(other), Some(_), None) if other < 1 => truth(false),
        ("Max", kept, Known(other), Some(_), None) | ("Max", Known(other), kept, None, Some(_))
            if other <= 1 =>
        {
            kept
        }
        _ => Unknown,
    }
}

/// Adds, subtracts, multiplies or otherwise combines two floating-point numbers.
pub(super) fn combine_floats(operator: &str, left: f32, right: f32) -> Option<f32> {
    match operator {
        "Add" => Some(left + right),
        "Sub" => Some(left - right),
        "Mul" => Some(left * right),
        "Div" => Some(left / right),
        "Pow" => Some(left.powf(right)),
        "Max" => Some(left.max(right)),
        "Min" => Some(left.min(right)),
        _ => None,
    }
}

/// Compares two floating-point numbers.
pub(super) fn compare_floats(operator: &str, left: f32, right: f32) -> Option<bool> {
    match operator {
        "Equal" => Some(left.partial_cmp(&right) == Some(Ordering::Equal)),
        "Less" => Some(left < right),
        "LessOrEqual" => Some(left <= right),
        "Greater" => Some(left > right),
        "GreaterOrEqual" => Some(left >= right),
        _ => None,
    }
}
