//! Makes the graph's input channels-first.
//!
//! A graph that tf2onnx exported has an input `[batch, height, width, channels]`. The graph transposes this input to
//! channels-first, often after normalising the pixel values. A service can write `[batch, channels, height, width]`
//! just as fast, so this pass removes the Transpose. With one channel, tf2onnx writes a Reshape in its place.

use onnx_proto::{GraphProto, NodeProto};

use super::ImageSize;
use super::proto::{self, NodeExt};
use super::shapes::format_dims;

const RGB_CHANNELS: i64 = 3;
/// Numbers of channels that an image can have: grey, or three colours.
const CHANNEL_COUNTS: [i64; 2] = [RGB_CHANNELS, 1];

/// Order of the dimensions of the original graph's input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// `[batch, channels, height, width]`.
    ChannelsFirst,
    /// `[batch, height, width, channels]`; the simplified graph is channels-first.
    ChannelsLast,
}

/// Makes the input `input_name` channels-first and returns its original layout.
///
/// Open height and width become those of `size`. An open number of channels becomes [`RGB_CHANNELS`].
///
/// # Errors
/// Returns a message if the input is not an image of one or three channels, or if the input is channels-last and its
/// Transpose cannot be removed.
pub fn make_channels_first(
    graph: &mut GraphProto,
    input_name: &str,
    size: Option<ImageSize>,
) -> Result<Layout, String> {
    let input_index = graph
        .input
        .iter()
        .position(|input| input.name == input_name)
        .ok_or_else(|| format!("the input {input_name:?} is missing"))?;
    let (_, mut dims) = proto::tensor_type(&graph.input[input_index]);
    assume_open_channels(graph, input_name, &mut dims);
    let Some((layout, channels)) = find_channels(&dims) else {
        return Err(format!(
            "the input {input_name:?} has the shape {}, expected an image [batch, channels, height, width] or \
             [batch, height, width, channels] with 3 channels, or 1 for grey; export the model with an image as its \
             input",
            format_dims(&dims)
        ));
    };
    if layout == Layout::ChannelsFirst {
        for (dim, side) in dims[2..].iter_mut().zip(size.into_iter().flatten()) {
            *dim = dim.or(Some(side));
        }
        graph.input[input_index] = proto::value_info(input_name, &dims);
        return Ok(layout);
    }
    let path = find_path_to_transpose(graph, input_name, channels).ok_or_else(|| {
        format!(
            "the input {input_name:?} is channels-last ({}), but is not followed by a Transpose to \
             channels-first; export the model with channels first (tf2onnx: --inputs-as-nchw {input_name})",
            format_dims(&dims)
        )
    })?;
    let (normalisation_indices, transpose_index) = path;
    for index in normalisation_indices {
        reshape_constants(graph, index, channels)?;
    }
    let transpose = graph.node.remove(transpose_index);
    proto::replace_uses(graph, &transpose.output[0], &transpose.input[0]);
    let [height, width] = [0, 1].map(|axis| dims[axis + 1].or(size.map(|size| size[axis])));
    graph.input[input_index] = proto::value_info(input_name, &[dims[0], Some(channels), height, width]);
    Ok(Layout::ChannelsLast)
}

/// Returns the indices of the element-wise nodes between the input and the Transpose to channels-first, and
/// the index of that Transpose.
fn find_path_to_transpose(
    graph: &GraphProto,
    input_name: &str,
    channels: i64,
) -> Option<(Vec<usize>, usize)> {
    let mut value = input_name;
    let mut element_wise_indices = Vec::new();
    loop {
        let index = proto::only_user(graph, value)?;
        let node = &graph.node[index];
        match node.op_type.as_str() {
            "Transpose" if node.ints("perm") == Some(&[0, 3, 1, 2]) => {
                return Some((element_wise_indices, index));
            }
            "Reshape" if channels == 1 && reshapes_to_one_channel(graph, node) => {
                return Some((element_wise_indices, index));
            }
            "Mul" | "Add" | "Sub" | "Div" | "Clip" => {
                let other_inputs_are_constant = node
                    .input
                    .iter()
                    .all(|input| input == value || proto::initializer(graph, input).is_some());
                if !other_inputs_are_constant {
                    return None;
                }
            }
            _ => return None,
        }
        element_wise_indices.push(index);
        value = node.output.first()?;
    }
}

/// Sets an open number of channels to [`RGB_CHANNELS`].
fn assume_open_channels(graph: &GraphProto, input_name: &str, dims: &mut [Option<i64>]) {
    if find_channels(dims).is_some() {
        return;
    }
    let is_channels_last = find_path_to_transpose(graph, input_name, RGB_CHANNELS).is_some();
    match dims {
        [_, _, _, last @ None] if is_channels_last => *last = Some(RGB_CHANNELS),
        [_, second @ None, _, _] => *second = Some(RGB_CHANNELS),
        _ => {}
    }
}

/// Finds the channels among the dimensions of the input. Three channels are preferred to one, which may be a side.
fn find_channels(dims: &[Option<i64>]) -> Option<(Layout, i64)> {
    let &[_, second, _, last] = dims else { return None };
    CHANNEL_COUNTS.into_iter().find_map(|channels| {
        if second == Some(channels) {
            Some((Layout::ChannelsFirst, channels))
        } else if last == Some(channels) {
            Some((Layout::ChannelsLast, channels))
        } else {
            None
        }
    })
}

/// Returns true if the Reshape makes `[batch, height, width, 1]` a `[batch, 1, height, width]`.
///
/// Both have the same values in the same order.
fn reshapes_to_one_channel(graph: &GraphProto, reshape: &NodeProto) -> bool {
    let shape =
        reshape.input.get(1).and_then(|shape| proto::initializer(graph, shape)).and_then(proto::integers);
    matches!(shape.as_deref(), Some([_, 1, _, _]))
}

/// Reshapes the constants of an element-wise node for channels-first, from `[.., channels]` to `[1, channels, 1, 1]`.
///
/// Constants with a single value are left unchanged.
fn reshape_constants(graph: &mut GraphProto, index: usize, channels: i64) -> Result<(), String> {
    for input_index in 0..graph.node[index].input.len() {
        let Some(constant) = proto::initializer(graph, &graph.node[index].input[input_index]) else {
            continue;
        };
        let value_count: i64 = constant.dims.iter().product();
        if value_count == 1 {
            continue;
        }
        if value_count != channels || constant.dims.last() != Some(&channels) {
            return Err(format!(
                "the constant {:?}, which normalises the input, has the shape {:?}, expected one value or \
                 one per channel; export the model with channels first",
                constant.name, constant.dims
            ));
        }
        let mut reshaped = constant.clone();
        reshaped.name = proto::fresh_name(graph, &constant.name);
        reshaped.dims = vec![1, channels, 1, 1];
        graph.node[index].input[input_index].clone_from(&reshaped.name);
        graph.initializer.push(reshaped);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::proto::{float_tensor, node, tensor_type};
    use super::super::testing::{build_graph, operators};
    use super::*;

    const CHANNELS_LAST: [Option<i64>; 4] = [None, Some(8), Some(6), Some(3)];

    #[test]
    fn transpose_after_the_input_is_removed_and_constants_are_reshaped() {
        let nodes = vec![
            node("Mul", &["x", "scale"], &["a"]),
            node("Sub", &["a", "one"], &["b"]),
            node("Clip", &["b", "one"], &["clipped"]),
            node("Transpose", &["clipped"], &["c"]).with_ints("perm", &[0, 3, 1, 2]),
            node("Relu", &["c"], &["y"]),
        ];
        let constants = vec![float_tensor("scale", &[3], &[1.0, 2.0, 3.0]), float_tensor("one", &[], &[1.0])];
        let mut graph = build_graph(&CHANNELS_LAST, constants, nodes);
        assert_eq!(make_channels_first(&mut graph, "x", None), Ok(Layout::ChannelsLast));
        assert_eq!(operators(&graph), ["Mul", "Sub", "Clip", "Relu"]);
        assert_eq!(tensor_type(&graph.input[0]).1, [None, Some(3), Some(8), Some(6)]);
        let reshaped = proto::initializer(&graph, &graph.node[0].input[1]).unwrap();
        assert_eq!(reshaped.dims, [1, 3, 1, 1]);
        assert_eq!(graph.node[1].input, ["a", "one"]);
        assert_eq!(graph.node[3].input, ["clipped"]);
    }

    #[test]
    fn channels_first_input_is_left_unchanged() {
        let nodes = vec![node("Relu", &["x"], &["y"])];
        let mut graph = build_graph(&[Some(1), Some(3), Some(8), Some(6)], vec![], nodes);
        assert_eq!(make_channels_first(&mut graph, "x", None), Ok(Layout::ChannelsFirst));
    }

    #[test]
    fn grey_input_may_be_channels_first_or_channels_last() {
        let relu = || vec![node("Relu", &["x"], &["y"])];
        let mut graph = build_graph(&[None, Some(1), Some(28), Some(20)], vec![], relu());
        assert_eq!(make_channels_first(&mut graph, "x", None), Ok(Layout::ChannelsFirst));
        let nodes = vec![
            node("Sub", &["x", "mean"], &["a"]),
            node("Transpose", &["a"], &["b"]).with_ints("perm", &[0, 3, 1, 2]),
            node("Relu", &["b"], &["y"]),
        ];
        let mean = float_tensor("mean", &[1], &[0.5]);
        let mut graph = build_graph(&[None, Some(28), Some(20), Some(1)], vec![mean], nodes);
        assert_eq!(make_channels_first(&mut graph, "x", None), Ok(Layout::ChannelsLast));
        assert_eq!(operators(&graph), ["Sub", "Relu"]);
        assert_eq!(tensor_type(&graph.input[0]).1, [None, Some(1), Some(28), Some(20)]);
    }

    #[test]
    fn reshape_of_a_grey_input_is_removed_like_a_transpose() {
        let nodes = vec![node("Reshape", &["x", "shape"], &["a"]), node("Relu", &["a"], &["y"])];
        let shape = proto::int_tensor("shape", &[4], &[-1, 1, 28, 20]);
        let mut graph = build_graph(&[None, Some(28), Some(20), Some(1)], vec![shape], nodes);
        assert_eq!(make_channels_first(&mut graph, "x", None), Ok(Layout::ChannelsLast));
        assert_eq!(operators(&graph), ["Relu"]);
        assert_eq!(graph.node[0].input, ["x"]);
    }

    #[test]
    fn input_that_is_not_an_image_is_refused_with_its_shape() {
        let error_for = |dims: &[Option<i64>]| {
            let mut graph = build_graph(dims, vec![], vec![node("Relu", &["x"], &["y"])]);
            make_channels_first(&mut graph, "x", None).unwrap_err()
        };
        let error = error_for(&CHANNELS_LAST);
        assert!(
            error.contains("channels-last ([?, 8, 6, 3])") && error.contains("--inputs-as-nchw"),
            "{error}"
        );
        assert!(error_for(&[None, Some(4), Some(8), Some(8)]).contains("[?, 4, 8, 8]"));
        assert!(error_for(&[None, Some(3)]).contains("[?, 3]"));
    }
}
