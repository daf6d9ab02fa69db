//! Turns constants into initializers, and removes nodes that have no effect.

use std::collections::HashSet;

use onnx_proto::{GraphProto, NodeProto};

use super::proto::{self, float_tensor, int_tensor};

/// Turns Constant nodes into initializers, and removes initializers from the graph's inputs, where early
/// versions of the ONNX format list them.
pub fn collect_constants(graph: &mut GraphProto) {
    let mut kept = Vec::with_capacity(graph.node.len());
    for node in std::mem::take(&mut graph.node) {
        let name = node.output.first().cloned().unwrap_or_default();
        let value = match node.op_type.as_str() {
            "Constant" => node.attribute.iter().find_map(|attribute| match attribute.name.as_str() {
                "value" => attribute.t.as_ref().cloned(),
                "value_float" => Some(float_tensor("", &[], &[attribute.f])),
                "value_floats" => {
                    Some(float_tensor("", &[to_dim(attribute.floats.len())], &attribute.floats))
                }
                "value_int" => Some(int_tensor("", &[], &[attribute.i])),
                "value_ints" => Some(int_tensor("", &[to_dim(attribute.ints.len())], &attribute.ints)),
                _ => None,
            }),
            _ => None,
        };
        match value {
            Some(mut tensor) => {
                tensor.name = name;
                graph.initializer.push(tensor);
            }
            None => kept.push(node),
        }
    }
    graph.node = kept;
    let constants: HashSet<&String> = graph.initializer.iter().map(|tensor| &tensor.name).collect();
    graph.input.retain(|input| !constants.contains(&input.name));
}

fn to_dim(size: usize) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

/// Checks that the number of elements of each constant is not too large.
///
/// The passes multiply the dimensions of constants.
///
/// # Errors
/// Returns a message that names the constant.
pub fn check_constant_shapes(graph: &GraphProto) -> Result<(), String> {
    for tensor in &graph.initializer {
        let count = tensor.dims.iter().try_fold(1_i64, |product, dim| product.checked_mul((*dim).max(1)));
        let is_small = count.is_some_and(|count| count <= i64::from(i32::MAX));
        if !is_small || tensor.dims.iter().any(|dim| *dim < 0) {
            return Err(format!(
                "the constant {:?} has the shape {:?}, which is too large or negative; export the model again",
                tensor.name, tensor.dims
            ));
        }
    }
    Ok(())
}

/// Checks that each node reads only values that exist before it, and that no value is computed twice.
///
/// The passes follow values back to the node that computes them. In a graph with a cycle they would not end.
///
/// # Errors
/// Returns a message that names the node and the value.
pub fn check_order(graph: &GraphProto) -> Result<(), String> {
    let inputs = graph.input.iter().map(|info| info.name.as_str());
    let constants = graph.initializer.iter().map(|tensor| tensor.name.as_str());
    let mut known: HashSet<&str> = inputs.chain(constants).collect();
    for node in &graph.node {
        let found = format!("the {} {:?}", node.op_type, node.name);
        let is_unknown = |name: &&String| !name.is_empty() && !known.contains(name.as_str());
        if let Some(name) = node.input.iter().find(is_unknown) {
            return Err(format!(
                "{found} reads the value {name:?}, which is not an input, a constant or the output of an earlier \
                 node; the file is not a valid ONNX model: export the model again"
            ));
        }
        if node.output.is_empty() {
            return Err(format!(
                "{found} has no output; the file is not a valid ONNX model: export the model again"
            ));
        }
        for name in node.output.iter().filter(|name| !name.is_empty()) {
            if !known.insert(name) {
                return Err(format!(
                    "{found} computes the value {name:?}, which exists already; the file is not a valid ONNX \
                     model: export the model again"
                ));
            }
        }
    }
    Ok(())
}

/// Removes Identity nodes and Dropout nodes, which do nothing during inference.
pub fn remove_identities(graph: &mut GraphProto) {
    let mut index = 0;
    while index < graph.node.len() {
        if !(is_identity(graph, index) && bypass(graph, index)) {
            index += 1;
        }
    }
}

fn is_identity(graph: &GraphProto, index: usize) -> bool {
    let node = &graph.node[index];
    match node.op_type.as_str() {
        "Identity" => true,
        // A Dropout in training mode has an effect, and so has one whose second output, the mask, is used.
        "Dropout" => {
            let mask_is_used =
                node.output.iter().skip(1).any(|mask| !mask.is_empty() && proto::use_count(graph, mask) > 0);
            let in_training_mode = node.input.get(2).is_some_and(|mode| !mode.is_empty())
                && node.input.get(2).and_then(|mode| proto::initializer(graph, mode)).is_none_or(|mode| {
                    mode.raw_data.iter().any(|byte| *byte != 0)
                        || mode.int32_data.iter().any(|value| *value != 0)
                });
            !mask_is_used && !in_training_mode
        }
        _ => false,
    }
}

/// Removes a node with one input and one output, and connects the node's users to the node's input.
///
/// Returns false and changes nothing if the node connects an input, a constant or another output of the graph
/// directly to an output of the graph.
fn bypass(graph: &mut GraphProto, index: usize) -> bool {
    let node = &graph.node[index];
    let (Some(input), Some(output)) = (node.input.first().cloned(), node.output.first().cloned()) else {
        return false;
    };
    let is_output = |graph: &GraphProto, name: &str| graph.output.iter().any(|info| info.name == name);
    if is_output(graph, &output) {
        // The graph's output keeps its name: the node that produces the input now produces the output.
        let Some(source_index) = proto::producer(graph, &input) else {
            return false;
        };
        if is_output(graph, &input) {
            return false;
        }
        graph.node.remove(index);
        let source_index = source_index - usize::from(source_index > index);
        for name in &mut graph.node[source_index].output {
            if *name == input {
                name.clone_from(&output);
            }
        }
        proto::replace_uses(graph, &input, &output);
    } else {
        graph.node.remove(index);
        proto::replace_uses(graph, &output, &input);
    }
    true
}

/// Removes nodes and constants that no output depends on, and the declared shapes of intermediate values.
///
/// The declared shapes are wrong after simplification: they contain the batch size of the export.
pub fn remove_unused(graph: &mut GraphProto) {
    let mut used: HashSet<String> = graph.output.iter().map(|info| info.name.clone()).collect();
    let mut kept: Vec<_> = graph
        .node
        .drain(..)
        .rev()
        .filter(|node| {
            let is_used = node.output.iter().any(|output| used.contains(output));
            if is_used {
                used.extend(node.input.iter().cloned());
            }
            is_used
        })
        .collect();
    kept.reverse();
    graph.node = kept;
    graph.initializer.retain(|tensor| used.contains(&tensor.name));
    graph.value_info.clear();
}

/// Finds a node that contains a graph, such as If, Loop or Scan.
///
/// The graph passes cannot simplify a model with such a node, because they do not see which values the inner
/// graph uses.
#[must_use]
pub fn find_control_flow(graph: &GraphProto) -> Option<&NodeProto> {
    graph.node.iter().find(|node| {
        node.attribute.iter().any(|attribute| attribute.g.is_some() || !attribute.graphs.is_empty())
    })
}

#[cfg(test)]
mod tests {
    use super::super::proto::{NodeExt as _, node, value_info};
    use super::super::testing::{build_graph, operators};
    use super::*;

    #[test]
    fn constants_become_initializers_and_are_removed_from_the_inputs() {
        let mut constant = node("Constant", &[], &["two"]);
        constant = constant.with_float("value_float", 2.0);
        let weight = float_tensor("weight", &[1], &[3.0]);
        let mut graph =
            build_graph(&[None], vec![weight], vec![constant, node("Mul", &["x", "two"], &["y"])]);
        graph.input.push(value_info("weight", &[Some(1)]));
        collect_constants(&mut graph);
        assert_eq!(operators(&graph), ["Mul"]);
        assert_eq!(graph.input.len(), 1);
        assert_eq!(proto::floats(proto::initializer(&graph, "two").unwrap()), Some(vec![2.0]));
    }

    #[test]
    fn identity_and_dropout_are_removed_at_the_input_in_the_middle_and_at_the_output() {
        let nodes = vec![
            node("Identity", &["x"], &["a"]),
            node("Relu", &["a"], &["b"]),
            node("Dropout", &["b"], &["c", "mask"]),
            node("Relu", &["c"], &["d"]),
            node("Identity", &["d"], &["y"]),
        ];
        let mut graph = build_graph(&[None], vec![], nodes);
        remove_identities(&mut graph);
        assert_eq!(operators(&graph), ["Relu", "Relu"]);
        assert_eq!(graph.node[0].input, ["x"]);
        assert_eq!(graph.node[1].input, ["b"]);
        assert_eq!(graph.node[1].output, ["y"]);
    }

    #[test]
    fn dropout_with_used_mask_and_identity_from_input_to_output_are_kept() {
        let nodes = vec![node("Dropout", &["x"], &["a", "mask"]), node("Mul", &["a", "mask"], &["y"])];
        let mut with_mask = build_graph(&[None], vec![], nodes);
        remove_identities(&mut with_mask);
        assert_eq!(operators(&with_mask), ["Dropout", "Mul"]);
        let mut input_to_output = build_graph(&[None], vec![], vec![node("Identity", &["x"], &["y"])]);
        remove_identities(&mut input_to_output);
        assert_eq!(operators(&input_to_output), ["Identity"]);
    }

    #[test]
    fn constant_with_an_impossible_shape_is_refused() {
        let check = |dims: &[i64]| {
            check_constant_shapes(&build_graph(&[None], vec![float_tensor("w", dims, &[])], vec![]))
        };
        assert_eq!((check(&[]), check(&[0, 3])), (Ok(()), Ok(())));
        for dims in [[-1, 2, 3], [1 << 40, 1 << 40, 1], [0, 1 << 40, 1 << 40]] {
            assert!(check(&dims).unwrap_err().contains("the constant \"w\""));
        }
    }

    #[test]
    fn graph_with_a_cycle_is_refused() {
        let check = |nodes| check_order(&build_graph(&[None], vec![], nodes));
        assert_eq!(check(vec![node("Relu", &["x"], &["a"]), node("Clip", &["a", ""], &["y"])]), Ok(()));
        let error = check(vec![node("Flatten", &["y"], &["y"])]).unwrap_err();
        assert!(error.contains("the Flatten \"y\" reads the value \"y\""), "{error}");
        let error = check(vec![node("Relu", &["x"], &["y"]), node("Flatten", &["x"], &["x"])]).unwrap_err();
        assert!(error.contains("the Flatten \"x\" computes the value \"x\""), "{error}");
    }

    #[test]
    fn unused_nodes_and_constants_are_removed() {
        let nodes = vec![
            node("Relu", &["x"], &["y"]),
            node("Shape", &["x"], &["shape"]),
            node("Gather", &["shape", "zero"], &["batch"]),
        ];
        let mut graph = build_graph(&[None], vec![int_tensor("zero", &[], &[0])], nodes);
        remove_unused(&mut graph);
        assert_eq!(operators(&graph), ["Relu"]);
        assert!(graph.initializer.is_empty());
    }
}
