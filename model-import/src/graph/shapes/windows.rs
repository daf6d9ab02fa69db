//! Infers the output shapes of operators that move a window over height and width.

use onnx_proto::NodeProto;

use super::super::proto::NodeExt;
use super::dim::Dim;
use super::dim::Dim::{Known, Unknown};

/// A window on one axis.
struct Window {
    kernel: i64,
    stride: i64,
    dilation: i64,
    /// Padding before and after the elements.
    pads: [i64; 2],
}

impl Window {
    /// Returns the number of positions on `size` elements, or `None` if a number is too large.
    fn count_positions(&self, size: i64, is_same_padded: bool, rounds_up: bool) -> Option<i64> {
        let stride = self.stride;
        if is_same_padded {
            return Some(size.checked_add(stride - 1)? / stride);
        }
        let [before, after] = self.pads;
        let size_and_start = size.checked_add(before)?;
        // The window covers `window_len` elements of the padded input. `travel` is the largest distance by
        // which it can move from its first position.
        let window_len = self.kernel.checked_sub(1)?.checked_mul(self.dilation)?.checked_add(1)?;
        let travel = size_and_start.checked_add(after)?.checked_sub(window_len)?;
        if !rounds_up {
            return (travel / stride).checked_add(1);
        }
        let last = travel.checked_add(stride - 1)? / stride;
        // A window that begins in the padding at the end is left out.
        let is_left_out = last.checked_mul(stride)? >= size_and_start;
        last.checked_add(i64::from(!is_left_out))
    }
}

/// Returns the output shape of a convolution or a pooling node.
pub(super) fn infer_windowed_shape(
    node: &NodeProto,
    input: &[Dim],
    kernel: &[i64],
    channels: Dim,
) -> Option<Vec<Dim>> {
    let (batch, spatial) = (input.first()?, input.get(2..)?);
    let axis_count = spatial.len();
    let ones_or = |name: &str| node.ints(name).map_or_else(|| vec![1; axis_count], <[i64]>::to_vec);
    let (strides, dilations) = (ones_or("strides"), ones_or("dilations"));
    let pads = node.ints("pads").map_or_else(|| vec![0; 2 * axis_count], <[i64]>::to_vec);
    let lengths_match =
        [kernel.len(), strides.len(), dilations.len()] == [axis_count; 3] && pads.len() == 2 * axis_count;
    if !lengths_match || strides.iter().any(|stride| *stride <= 0) {
        return None;
    }
    let is_same_padded = node.text("auto_pad").is_some_and(|mode| mode.starts_with("SAME"));
    let rounds_up = node.int("ceil_mode").unwrap_or(0) != 0;
    let output_sizes = spatial.iter().enumerate().map(|(axis, dim)| {
        let Known(size) = *dim else { return Unknown };
        let window = Window {
            kernel: kernel[axis],
            stride: strides[axis],
            dilation: dilations[axis],
            pads: [pads[axis], pads[axis_count + axis]],
        };
        window.count_positions(size, is_same_padded, rounds_up).map_or(Unknown, Known)
    });
    Some([*batch, channels].into_iter().chain(output_sizes).collect())
}
