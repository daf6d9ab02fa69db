//! Channels first at the graph's input.
//!
//! tf2onnx exports take `[batch, height, width, 3]` and begin with a Transpose, often behind the
//! normalisation. The service makes `[batch, 3, height, width]` at no cost, so the Transpose goes.

use onnx_ir::GraphProto;

use super::proto::{self, NodeExt};
use super::{CHANNELS, Layout};

/// Makes the input `name` channels-first and says what it was.
///
/// # Errors
/// It is channels-last without a Transpose that can be taken away, or neither.
pub fn channels_first(graph: &mut GraphProto, name: &str) -> Result<Layout, String> {
    let position = graph.input.iter().position(|input| input.name == name).ok_or("the input is gone")?;
    let (_, dims) = proto::tensor_type(&graph.input[position]);
    let channels = Some(CHANNELS);
    match dims.as_slice() {
        [_, first, ..] if dims.len() == 4 && *first == channels => {
            return Ok(Layout::ChannelsFirst);
        }
        [_, _, _, last] if *last == channels => {}
        _ => {
            return Err(format!(
                "input {name:?} has the shape {}; an image is [batch, {CHANNELS}, height, width] or [batch, height, width, {CHANNELS}]",
                super::show_dims(&dims)
            ));
        }
    }
    let (normalisation, transpose) = path_to_transpose(graph, name).ok_or_else(|| {
        format!(
            "input {name:?} is channels-last ({}) and no Transpose follows it; export the model with channels first (tf2onnx: --inputs-as-nchw {name})",
            super::show_dims(&dims)
        )
    })?;
    for index in normalisation {
        turn_constants(graph, index)?;
    }
    let (source, output) = (graph.node[transpose].input[0].clone(), graph.node[transpose].output[0].clone());
    graph.node.remove(transpose);
    proto::replace_uses(graph, &output, &source);
    graph.input[position] = proto::value_info(name, &[dims[0], dims[3], dims[1], dims[2]]);
    Ok(Layout::ChannelsLast)
}

/// The element-wise nodes between the input and its Transpose, and the Transpose.
fn path_to_transpose(graph: &GraphProto, input: &str) -> Option<(Vec<usize>, usize)> {
    let mut value = input;
    let mut passed = Vec::new();
    loop {
        let index = proto::only_user(graph, value)?;
        let node = &graph.node[index];
        match node.op_type.as_str() {
            "Transpose" if node.ints("perm") == Some(&[0, 3, 1, 2]) => {
                return Some((passed, index));
            }
            "Mul" | "Add" | "Sub" | "Div" => {
                let others_are_constant = node
                    .input
                    .iter()
                    .all(|input| input == value || proto::initializer(graph, input).is_some());
                if !others_are_constant {
                    return None;
                }
            }
            _ => return None,
        }
        passed.push(index);
        value = node.output.first()?;
    }
}

/// Gives an element-wise node its constants in the new layout: `[.., 3]` becomes `[1, 3, 1, 1]`.
fn turn_constants(graph: &mut GraphProto, index: usize) -> Result<(), String> {
    for slot in 0..graph.node[index].input.len() {
        let Some(constant) = proto::initializer(graph, &graph.node[index].input[slot]) else {
            continue;
        };
        let count: i64 = constant.dims.iter().product();
        if count == 1 {
            continue;
        }
        if count != CHANNELS || constant.dims.last() != Some(&CHANNELS) {
            return Err(format!(
                "constant {:?} of the input's normalisation has the shape {:?}, not one value or one for each channel",
                constant.name, constant.dims
            ));
        }
        let mut turned = constant.clone();
        turned.name = proto::fresh_name(graph, &constant.name);
        turned.dims = vec![1, CHANNELS, 1, 1];
        graph.node[index].input[slot].clone_from(&turned.name);
        graph.initializer.push(turned);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::proto::{float_tensor, node, tensor_type};
    use super::super::testing::{graph, operators};
    use super::*;

    const LAST: [Option<i64>; 4] = [None, Some(8), Some(6), Some(3)];

    #[test]
    fn the_transpose_goes_and_constants_turn() {
        let nodes = vec![
            node("Mul", &["x", "scale"], &["a"]),
            node("Sub", &["a", "one"], &["b"]),
            node("Transpose", &["b"], &["c"]).with_ints("perm", &[0, 3, 1, 2]),
            node("Relu", &["c"], &["y"]),
        ];
        let constants = vec![float_tensor("scale", &[3], &[1.0, 2.0, 3.0]), float_tensor("one", &[], &[1.0])];
        let mut graph = graph(&LAST, constants, nodes);
        assert_eq!(channels_first(&mut graph, "x"), Ok(Layout::ChannelsLast));
        assert_eq!(operators(&graph), ["Mul", "Sub", "Relu"]);
        assert_eq!(tensor_type(&graph.input[0]).1, [None, Some(3), Some(8), Some(6)]);
        let turned = proto::initializer(&graph, &graph.node[0].input[1]).unwrap();
        assert_eq!(turned.dims, [1, 3, 1, 1]);
        assert_eq!(graph.node[1].input, ["a", "one"]);
        assert_eq!(graph.node[2].input, ["b"]);
    }

    #[test]
    fn channels_first_stays_as_it_is() {
        let nodes = vec![node("Relu", &["x"], &["y"])];
        let mut graph = graph(&[Some(1), Some(3), Some(8), Some(6)], vec![], nodes);
        assert_eq!(channels_first(&mut graph, "x"), Ok(Layout::ChannelsFirst));
    }

    #[test]
    fn other_inputs_are_refused_with_their_shape() {
        let refused = |dims: &[Option<i64>]| {
            let mut graph = graph(dims, vec![], vec![node("Relu", &["x"], &["y"])]);
            channels_first(&mut graph, "x").unwrap_err()
        };
        let error = refused(&LAST);
        assert!(
            error.contains("channels-last ([?, 8, 6, 3])") && error.contains("--inputs-as-nchw"),
            "{error}"
        );
        assert!(refused(&[None, Some(1), Some(8), Some(8)]).contains("[?, 1, 8, 8]"));
        assert!(refused(&[None, Some(3)]).contains("[?, 3]"));
    }
}
