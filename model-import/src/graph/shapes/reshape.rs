//! Infers the output shape of a Reshape, and finds the batch in it.

use super::dim::Dim::{Known, Unknown};
use super::dim::{Dim, product};

/// Returns the output shape of a Reshape.
///
/// In `target`, 0 stands for the input's dimension on the same axis, and -1 for the dimension to be inferred.
///
/// A graph that was exported with batch size 1 has a fixed target, in which the batch is invisible. The
/// number of elements before the batch stays the same, so it tells which axes can contain the batch. Of
/// several such axes, one of size 1 is preferred, then the axis of -1. The last axis usually holds the
/// features, so it is chosen last.
///
/// Returns `None` if no axis of the output can contain the batch.
pub(super) fn infer_reshape(input: &[Dim], target: &[Dim], zero_is_a_size: bool) -> Option<Vec<Dim>> {
    let with_zeros_replaced: Option<Vec<Dim>> = target
        .iter()
        .enumerate()
        .map(
            |(axis, dim)| {
                if *dim == Known(0) && !zero_is_a_size { input.get(axis).copied() } else { Some(*dim) }
            },
        )
        .collect();
    let target = with_zeros_replaced?;
    let inferred_axis = target.iter().position(|dim| *dim == Known(-1));
    let total = match product(input) {
        Unknown => None,
        total => total.size_per_image(),
    };
    let Some(total) = total else {
        return Some(target.into_iter().map(|dim| if dim == Known(-1) { Unknown } else { dim }).collect());
    };
    let mut sizes: Vec<i64> = target.iter().map(|dim| dim.size_per_image()).collect::<Option<_>>()?;
    if let Some(axis) = inferred_axis {
        let others = sizes.iter().enumerate().filter(|(other, _)| *other != axis);
        let others = checked_product(others.map(|(_, size)| *size))?;
        if others <= 0 || total % others != 0 {
            return None;
        }
        sizes[axis] = total / others;
    }
    if checked_product(sizes.iter().copied()) != Some(total) {
        return None;
    }
    let known = |sizes: &[i64]| sizes.iter().copied().map(Known).collect::<Vec<_>>();
    let Some(input_axis) = input.iter().position(|dim| dim.has_batch()) else {
        return Some(known(&sizes));
    };
    let (elements_before, _) = product(&input[..=input_axis]).batch_parts()?;
    let candidates = find_batch_axes(&sizes, elements_before);
    let is_split_off = |(axis, before, _): &&(usize, i64, i64)| sizes[*axis] == 1 && *before == 1;
    let (axis, before, after) = candidates
        .iter()
        .find(|(axis, ..)| target[*axis].has_batch())
        .or_else(|| candidates.iter().filter(is_split_off).find(|(axis, ..)| *axis == input_axis))
        .or_else(|| candidates.iter().find(is_split_off))
        .or_else(|| candidates.iter().find(|(axis, ..)| Some(*axis) == inferred_axis))
        .or_else(|| candidates.iter().rfind(|(axis, ..)| axis + 1 < sizes.len()))
        .or_else(|| candidates.last())?;
    let mut shape = known(&sizes);
    shape[*axis] = Dim::batches(*before, *after);
    Some(shape)
}

fn checked_product(sizes: impl IntoIterator<Item = i64>) -> Option<i64> {
    sizes.into_iter().try_fold(1_i64, i64::checked_mul)
}

/// Returns the axes that can contain the batch, each with the numbers of elements before and after the batch.
fn find_batch_axes(sizes: &[i64], elements_before: i64) -> Vec<(usize, i64, i64)> {
    let mut prefix = 1_i64;
    let mut axes = Vec::new();
    for (axis, size) in sizes.iter().enumerate() {
        if prefix > 0 && elements_before % prefix == 0 {
            let before = elements_before / prefix;
            if before > 0 && size % before == 0 {
                axes.push((axis, before, size / before));
            }
        }
        // The numbers of elements of a shape fit in an i64, except before an axis without elements.
        prefix = prefix.saturating_mul(*size);
    }
    axes
}

/// Returns the constant target of a Reshape to `shape` that works for any batch size.
///
/// Returns `None` if a size is unknown.
#[must_use]
pub fn reshape_target(shape: &[Dim]) -> Option<Vec<i64>> {
    let target: Vec<i64> = shape
        .iter()
        .map(|dim| match dim {
            Known(size) if *size > 0 => Some(*size),
            dim if dim.has_batch() => Some(-1),
            _ => None,
        })
        .collect::<Option<_>>()?;
    (target.iter().filter(|size| **size == -1).count() <= 1).then_some(target)
}

#[cfg(test)]
mod tests {
    use super::super::dim::Dim::{Batch, Batches};
    use super::*;

    fn reshape(input: &[Dim], target: &[i64]) -> Option<Vec<Dim>> {
        let target: Vec<Dim> = target.iter().copied().map(Known).collect();
        infer_reshape(input, &target, false)
    }

    #[test]
    fn reshape_keeps_the_batch_if_the_other_dimensions_hold_one_image() {
        let input = [Batch, Known(3), Known(4)];
        assert_eq!(reshape(&input, &[1, -1]), Some(vec![Batch, Known(12)]));
        assert_eq!(reshape(&input, &[-1, 12]), Some(vec![Batch, Known(12)]));
        assert_eq!(reshape(&input, &[0, 4, 3]), Some(vec![Batch, Known(4), Known(3)]));
        // Each image of 12 elements becomes three rows of 4.
        let rows = Batches { before: 1, after: 3 };
        assert_eq!(reshape(&input, &[-1, 4]), Some(vec![rows, Known(4)]));
        assert_eq!(reshape(&input, &[3, -1]), Some(vec![rows, Known(4)]));
        assert_eq!(reshape(&input, &[5, -1]), None);
        assert_eq!(reshape(&input, &[i64::MAX, 4, -1]), None);
        assert_eq!(reshape(&input, &[i64::MAX, 4, 3]), None);
    }

    #[test]
    fn batch_is_followed_through_the_reshapes_of_multihead_attention() {
        // The legacy attention has the tokens first: 5 tokens, 2 heads of 4 features.
        let heads = Batches { before: 1, after: 2 };
        assert_eq!(reshape(&[Known(5), Batch, Known(8)], &[5, 2, 4]), Some(vec![Known(5), heads, Known(4)]));
        let rows = Batches { before: 5, after: 1 };
        assert_eq!(reshape(&[Known(5), heads, Known(4)], &[5, 8]), Some(vec![rows, Known(8)]));
        assert_eq!(reshape(&[rows, Known(8)], &[5, 1, 8]), Some(vec![Known(5), Batch, Known(8)]));
        assert_eq!(reshape(&[Batch, Known(8)], &[1, 1, 8]), Some(vec![Batch, Known(1), Known(8)]));
    }

    #[test]
    fn target_for_any_batch_has_one_open_dimension() {
        assert_eq!(reshape_target(&[Known(5), Batches { before: 1, after: 2 }]), Some(vec![5, -1]));
        assert_eq!(reshape_target(&[Batch, Unknown]), None);
    }
}
