//! Represents dimensions that may be a multiple of the batch size.

/// A dimension of a value, or an integer computed from dimensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dim {
    /// The batch size.
    Batch,
    /// A multiple of the batch size. The axis joins an axis of `before` elements, the batch, and an axis of
    /// `after` elements, in this order.
    Batches {
        /// Number of elements before the batch.
        before: i64,
        /// Number of elements after the batch.
        after: i64,
    },
    /// A fixed number.
    Known(i64),
    /// An unknown number.
    Unknown,
}

use Dim::{Batch, Batches, Known, Unknown};

impl Dim {
    /// Returns the dimension that joins `before` elements, the batch and `after` elements.
    #[must_use]
    pub fn batches(before: i64, after: i64) -> Self {
        if (before, after) == (1, 1) { Batch } else { Batches { before, after } }
    }

    /// Returns the numbers of elements before and after the batch, if the dimension contains the batch.
    #[must_use]
    pub fn batch_parts(self) -> Option<(i64, i64)> {
        match self {
            Batch => Some((1, 1)),
            Batches { before, after } => Some((before, after)),
            Known(_) | Unknown => None,
        }
    }

    /// Returns true if the dimension is the batch size or a multiple of it.
    #[must_use]
    pub fn has_batch(self) -> bool {
        self.batch_parts().is_some()
    }

    /// Returns the fixed number, if the dimension is one.
    #[must_use]
    pub fn known(self) -> Option<i64> {
        if let Known(size) = self { Some(size) } else { None }
    }

    /// Returns the size of the dimension for a batch of one image.
    #[must_use]
    pub fn size_per_image(self) -> Option<i64> {
        match self {
            Known(size) => Some(size),
            Unknown => None,
            Batch => Some(1),
            Batches { before, after } => before.checked_mul(after),
        }
    }
}

/// Returns the product of successive dimensions.
///
/// The product is [`Unknown`] if a factor is, or if several factors contain the batch.
#[must_use]
pub fn product(dims: &[Dim]) -> Dim {
    let checked = |dim: Option<Dim>| dim.unwrap_or(Unknown);
    dims.iter().fold(Known(1), |product, dim| match (product, *dim) {
        (Known(left), Known(right)) => checked(left.checked_mul(right).map(Known)),
        (Known(left), right) => checked(
            right
                .batch_parts()
                .and_then(|(before, after)| Some(Dim::batches(left.checked_mul(before)?, after))),
        ),
        (left, Known(right)) => checked(
            left.batch_parts()
                .and_then(|(before, after)| Some(Dim::batches(before, after.checked_mul(right)?))),
        ),
        _ => Unknown,
    })
}

/// Returns the dimensions as numbers if all of them are known.
pub(super) fn known_sizes(dims: &[Dim]) -> Option<Vec<i64>> {
    dims.iter().map(|dim| dim.known()).collect()
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
pub(in super::super) fn format_dims(dims: &[Option<i64>]) -> String {
    let dims: Vec<Dim> = dims.iter().map(|dim| dim.map_or(Unknown, Known)).collect();
    format_shape(&dims)
}

/// Formats a shape as `[batch, 3, ?, ?]`.
pub(in super::super) fn format_shape(shape: &[Dim]) -> String {
    let dims: Vec<String> = shape
        .iter()
        .map(|dim| match dim {
            Batch => "batch".into(),
            Batches { before: 1, after } => format!("batch*{after}"),
            Batches { before, after: 1 } => format!("{before}*batch"),
            Batches { before, after } => format!("{before}*batch*{after}"),
            Known(size) => size.to_string(),
            Unknown => "?".into(),
        })
        .collect();
    format!("[{}]", dims.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn product_remembers_where_the_batch_is() {
        assert_eq!(product(&[Known(3), Batch, Known(4)]), Batches { before: 3, after: 4 });
        assert_eq!(product(&[Known(1), Batch]), Batch);
        assert_eq!(product(&[Batch, Batch]), Unknown);
        assert_eq!(product(&[Known(i64::MAX), Known(2)]), Unknown);
        assert_eq!(format_shape(&[Batches { before: 3, after: 4 }, Unknown]), "[3*batch*4, ?]");
    }
}
