//! Converts the element types of a graph to float32.
//!
//! Constants of float16, bfloat16 and float64 become float32, and so do the values that are computed from them.
//! An input of bytes (uint8) becomes float32 with the same values, 0 to 255, if the graph converts the bytes to
//! floating-point numbers itself.

use std::collections::{HashMap, HashSet};

use onnx_proto::{GraphProto, NodeProto, TensorProto};

use super::proto::{self, BOOL, FLOAT, INT64, NodeExt};

/// The element type uint8: `TensorProto.DataType.UINT8`.
pub const UINT8: i32 = 2;
/// The element type float16: `TensorProto.DataType.FLOAT16`.
pub const FLOAT16: i32 = 10;
/// The element type float64: `TensorProto.DataType.DOUBLE`.
pub const DOUBLE: i32 = 11;
const BFLOAT16: i32 = 16;

/// Range of the values that the network expects at its input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InputValues {
    /// Floating-point numbers, normalised as `model.toml` states.
    Normalised,
    /// The numbers 0 to 255 of the picture, which the graph normalises itself.
    Bytes,
}

/// Converts the constants and the inputs of a graph to float32, and makes a Cast without effect an Identity.
///
/// # Errors
/// Returns a message if an input of bytes is not cast to floating-point numbers.
pub fn convert_to_float32(graph: &mut GraphProto) -> Result<InputValues, String> {
    let mut input_values = InputValues::Normalised;
    for index in 0..graph.input.len() {
        let (element_type, dims) = proto::tensor_type(&graph.input[index]);
        if element_type == UINT8 {
            let name = graph.input[index].name.clone();
            check_bytes_are_cast(graph, &name)?;
            input_values = InputValues::Bytes;
        }
        if element_type == UINT8 || is_wide_or_narrow_float(element_type) {
            graph.input[index] = proto::value_info(&graph.input[index].name, &dims);
        }
    }
    for tensor in &mut graph.initializer {
        convert_tensor(tensor);
    }
    for attribute in graph.node.iter_mut().flat_map(|node| &mut node.attribute) {
        if attribute.name == "to" && i32::try_from(attribute.i).is_ok_and(is_wide_or_narrow_float) {
            attribute.i = FLOAT.into();
        }
        if let Some(tensor) = attribute.t.as_mut() {
            convert_tensor(tensor);
        }
    }
    replace_casts_without_effect(graph);
    Ok(input_values)
}

fn is_wide_or_narrow_float(element_type: i32) -> bool {
    matches!(element_type, FLOAT16 | BFLOAT16 | DOUBLE)
}

/// Checks that every use of an input of bytes is a Cast, after nodes that only rearrange the values.
fn check_bytes_are_cast(graph: &GraphProto, input_name: &str) -> Result<(), String> {
    let mut bytes = HashSet::from([input_name]);
    // The nodes are in order, so a value is found before the nodes that read it.
    for node in &graph.node {
        if !node.input.iter().any(|name| bytes.contains(name.as_str())) {
            continue;
        }
        match node.op_type.as_str() {
            "Transpose" | "Reshape" | "Identity" | "Squeeze" | "Unsqueeze" | "Slice" | "Gather" => {
                bytes.extend(node.output.iter().map(String::as_str));
            }
            "Cast" | "Shape" => {}
            operator => {
                return Err(format!(
                    "the input {input_name:?} has element type {UINT8} (uint8), but the {operator} {:?} reads the \
                     bytes before a Cast to float32; export the model with a float32 input",
                    node.name
                ));
            }
        }
    }
    Ok(())
}

/// Converts a tensor of float16, bfloat16 or float64 to float32.
fn convert_tensor(tensor: &mut TensorProto) {
    let values: Vec<f32> = match tensor.data_type {
        FLOAT16 => half_bits(tensor).into_iter().map(half_to_f32).collect(),
        BFLOAT16 => half_bits(tensor).into_iter().map(|bits| f32::from_bits(u32::from(bits) << 16)).collect(),
        DOUBLE => doubles(tensor).into_iter().map(super::conv_weights::to_f32).collect(),
        _ => return,
    };
    *tensor = proto::float_tensor(&tensor.name, &tensor.dims, &values);
}

fn half_bits(tensor: &TensorProto) -> Vec<u16> {
    if tensor.raw_data.is_empty() {
        // The lower 16 bits of each int32 hold one number.
        let bits = |value: &i32| {
            let [low, high, ..] = value.to_le_bytes();
            u16::from_le_bytes([low, high])
        };
        return tensor.int32_data.iter().map(bits).collect();
    }
    tensor.raw_data.as_chunks::<2>().0.iter().map(|bytes| u16::from_le_bytes(*bytes)).collect()
}

fn doubles(tensor: &TensorProto) -> Vec<f64> {
    if tensor.raw_data.is_empty() {
        return tensor.double_data.clone();
    }
    tensor.raw_data.as_chunks::<8>().0.iter().map(|bytes| f64::from_le_bytes(*bytes)).collect()
}

/// Converts a float16 number to float32, which represents every float16 exactly.
fn half_to_f32(bits: u16) -> f32 {
    let sign = u32::from(bits >> 15) << 31;
    let (exponent, fraction) = (u32::from(bits >> 10) & 0x1f, u32::from(bits) & 0x3ff);
    match exponent {
        // Subnormal numbers are multiples of 2^-24.
        0 => {
            let magnitude = f32::from(bits & 0x3ff) * 2.0_f32.powi(-24);
            f32::from_bits(magnitude.to_bits() | sign)
        }
        31 => f32::from_bits(sign | 0x7f80_0000 | (fraction << 13)),
        _ => f32::from_bits(sign | ((exponent + 112) << 23) | (fraction << 13)),
    }
}

/// Turns each Cast of a value that has the target's type already into an Identity.
fn replace_casts_without_effect(graph: &mut GraphProto) {
    let mut types: HashMap<String, i32> =
        graph.initializer.iter().map(|tensor| (tensor.name.clone(), tensor.data_type)).collect();
    types.extend(graph.input.iter().map(|input| (input.name.clone(), proto::tensor_type(input).0)));
    for node in &mut graph.node {
        let element_type = output_type(node, &types);
        if node.op_type == "Cast"
            && element_type.is_some()
            && element_type == node.input.first().and_then(|input| types.get(input)).copied()
        {
            node.op_type = "Identity".into();
            node.attribute.clear();
        }
        if let Some(element_type) = element_type {
            types.extend(node.output.iter().map(|output| (output.clone(), element_type)));
        }
    }
}

/// Returns the element type of a node's outputs, or `None` if it is not known.
fn output_type(node: &NodeProto, types: &HashMap<String, i32>) -> Option<i32> {
    let input_type = |index: usize| types.get(node.input.get(index)?).copied();
    match node.op_type.as_str() {
        "Shape" | "Size" | "ArgMax" | "ArgMin" | "NonZero" => Some(INT64),
        "Equal" | "Less" | "LessOrEqual" | "Greater" | "GreaterOrEqual" | "Not" | "And" | "Or" | "Xor"
        | "IsNaN" | "IsInf" => Some(BOOL),
        "Cast" => i32::try_from(node.int("to")?).ok(),
        "CastLike" | "Where" => input_type(1),
        "ConstantOfShape" => {
            let value = node.attribute.iter().find(|attribute| attribute.name == "value");
            value.map_or(Some(FLOAT), |attribute| Some(attribute.t.as_ref()?.data_type))
        }
        "DequantizeLinear" => input_type(1),
        // These operators have several results of different types, or results of a type of their own.
        "QuantizeLinear" | "TopK" | "Unique" | "OneHot" | "EyeLike" | "MaxPool" if node.output.len() > 1 => {
            None
        }
        "QuantizeLinear" | "OneHot" | "EyeLike" => None,
        _ => input_type(0),
    }
}

#[cfg(test)]
mod tests {
    use super::super::proto::{node, value_info};
    use super::super::testing::{build_graph, constant_values, operators};
    use super::*;

    fn raw_tensor(data_type: i32, bytes: &[u8]) -> TensorProto {
        let count = if data_type == DOUBLE { bytes.len() / 8 } else { bytes.len() / 2 };
        TensorProto {
            name: "w".into(),
            dims: vec![i64::try_from(count).unwrap()],
            data_type,
            raw_data: bytes.to_vec().into(),
            ..Default::default()
        }
    }

    #[test]
    fn constants_of_other_float_types_become_float32() {
        // 1, -2, the largest float16, the smallest subnormal float16, infinity.
        let half: Vec<u8> =
            [0x3c00_u16, 0xc000, 0x7bff, 0x0001, 0x7c00].iter().flat_map(|bits| bits.to_le_bytes()).collect();
        let brain: Vec<u8> = [0x3f80_u16, 0xc000].iter().flat_map(|bits| bits.to_le_bytes()).collect();
        let double: Vec<u8> = [1.5_f64, -0.25].iter().flat_map(|number| number.to_le_bytes()).collect();
        for (data_type, bytes, expected) in [
            (FLOAT16, half, vec![1.0, -2.0, 65504.0, 2.0_f32.powi(-24), f32::INFINITY]),
            (BFLOAT16, brain, vec![1.0, -2.0]),
            (DOUBLE, double, vec![1.5, -0.25]),
        ] {
            let mut graph = build_graph(&[None], vec![raw_tensor(data_type, &bytes)], vec![]);
            assert_eq!(convert_to_float32(&mut graph), Ok(InputValues::Normalised));
            assert_eq!(constant_values(&graph, "w"), expected);
        }
        let mut graph = build_graph(&[None], vec![], vec![]);
        graph.initializer.push(TensorProto { int32_data: vec![0x3c00], ..raw_tensor(FLOAT16, &[]) });
        convert_to_float32(&mut graph).unwrap();
        assert_eq!(constant_values(&graph, "w"), [1.0]);
    }

    fn graph_with_input(element_type: i32, nodes: Vec<NodeProto>) -> GraphProto {
        let mut graph = build_graph(&[None], vec![], nodes);
        let mut input = value_info("x", &[None, Some(3), Some(8), Some(8)]);
        input.type_.mut_or_insert_default().mut_tensor_type().elem_type = element_type;
        graph.input = vec![input];
        graph
    }

    #[test]
    fn half_precision_input_becomes_float32_and_its_casts_are_removed() {
        let cast = node("Cast", &["x"], &["a"]).with_int("to", FLOAT16.into());
        let to_integer = node("Cast", &["a"], &["y"]).with_int("to", INT64.into());
        let mut graph = graph_with_input(FLOAT16, vec![cast, to_integer]);
        assert_eq!(convert_to_float32(&mut graph), Ok(InputValues::Normalised));
        assert_eq!(operators(&graph), ["Identity", "Cast"]);
        assert_eq!(proto::tensor_type(&graph.input[0]).0, FLOAT);
    }

    #[test]
    fn bytes_that_are_used_on_many_ways_are_checked_once() {
        let names: Vec<String> = (0..64).map(|index| format!("v{index}")).collect();
        let mut nodes = vec![node("Identity", &["x"], &["v0"])];
        for pair in names.windows(2) {
            // Two nodes lead to each value, so there are 2^63 ways to the last one.
            let other = format!("{}_other", pair[1]);
            nodes.push(node("Identity", &[&pair[0]], &[&other]));
            nodes.push(node("Gather", &[&pair[0], &other], &[&pair[1]]));
        }
        nodes.push(node("Add", &["v63", "v63"], &["y"]));
        let error = convert_to_float32(&mut graph_with_input(UINT8, nodes)).unwrap_err();
        assert!(error.contains("the Add \"y\""), "{error}");
    }

    #[test]
    fn bytes_are_accepted_if_the_graph_casts_them() {
        let transpose = || node("Transpose", &["x"], &["t"]).with_ints("perm", &[0, 3, 1, 2]);
        let cast = node("Cast", &["t"], &["y"]).with_int("to", FLOAT.into());
        let mut graph = graph_with_input(UINT8, vec![transpose(), cast]);
        assert_eq!(convert_to_float32(&mut graph), Ok(InputValues::Bytes));
        assert_eq!(operators(&graph), ["Transpose", "Identity"]);
        let mut graph = graph_with_input(UINT8, vec![transpose(), node("Add", &["t", "t"], &["y"])]);
        let error = convert_to_float32(&mut graph).unwrap_err();
        assert!(error.contains("uint8") && error.contains("the Add \"y\""), "{error}");
    }
}
