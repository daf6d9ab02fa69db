//! Infers the output shapes of operators that move a window over height and width.

use onnx_proto::NodeProto;

use super::super::proto::NodeExt;
use super::dim::Dim;
use super::dim::Dim::{Known, Unknown};

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
        let Known(size) = dim else { return Unknown };
        let stride = strides[axis];
        if is_same_padded {
            return Known((size + stride - 1) / stride);
        }
        // The window covers `window_len` elements of the padded input. `travel` is the largest distance by
        // which it can move from its first position.
        let window_len = dilations[axis] * (kernel[axis] - 1) + 1;
        let travel = size + pads[axis] + pads[axis_count + axis] - window_len;
        if !rounds_up {
            return Known(travel / stride + 1);
        }
        let count = (travel + stride - 1) / stride + 1;
        // A window that begins in the padding at the end is left out.
        Known(count - i64::from((count - 1) * stride >= size + pads[axis]))
    });
    Some([*batch, channels].into_iter().chain(output_sizes).collect())
}
