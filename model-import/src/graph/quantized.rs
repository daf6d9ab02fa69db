//! Converts quantized graphs to float32.
//!
//! In the QDQ format, QuantizeLinear and DequantizeLinear surround operators on float32. This pass computes the
//! dequantized weights. It replaces the quantization of a value by a Clip to the range of the quantized numbers.
//! The Clip is necessary, because quantization tools remove an activation whose bounds are those of the range.
//! The values are then not rounded, so the outputs differ from those of int8 arithmetic by the rounding.
//!
//! Formats with operators on integers are refused.

use std::collections::HashMap;

use onnx_proto::{GraphProto, NodeProto, TensorProto};

use super::proto::{self, NodeExt, float_tensor};
use super::types::UINT8;

const INT8: i32 = 3;
const UINT16: i32 = 4;
const INT16: i32 = 5;

/// Converts a graph in the QDQ format to float32.
///
/// `opset` is the version of the standard operator set.
///
/// # Errors
/// Returns a message if the graph has another quantized format, or quantizes in a way that is not supported.
pub fn dequantize(graph: &mut GraphProto, opset: i64) -> Result<(), String> {
    refuse_integer_operators(graph)?;
    if !graph.node.iter().any(|node| is_quantize(node) || is_dequantize(node)) {
        return Ok(());
    }
    fold_constants(graph)?;
    scale_input_bytes(graph)?;
    let scales = read_activation_scales(graph)?;
    let mut index = 0;
    while index < graph.node.len() {
        let node = &graph.node[index];
        if is_quantize(node) {
            let range = range_of(graph, node)?;
            graph.node[index] = clip(graph, node.clone(), range, opset);
        } else if is_dequantize(node) {
            let scale = read_scale(graph, node)?;
            if scales.get(&node.input[0]) != Some(&scale) {
                return Err(format!(
                    "the DequantizeLinear {:?} does not have the scale and the zero point of the QuantizeLinear \
                     before it; {}",
                    name_of(node),
                    ADVICE
                ));
            }
            let node = &mut graph.node[index];
            node.op_type = "Identity".into();
            node.input.truncate(1);
            node.attribute.clear();
        }
        index += 1;
    }
    Ok(())
}

const ADVICE: &str = "export the float32 model, or quantize it with onnxruntime.quantization.quantize_static(…, \
                      quant_format=QuantFormat.QDQ)";

fn is_quantize(node: &NodeProto) -> bool {
    node.op_type == "QuantizeLinear"
}

fn is_dequantize(node: &NodeProto) -> bool {
    node.op_type == "DequantizeLinear"
}

fn name_of(node: &NodeProto) -> &str {
    if node.name.is_empty() { node.output.first().map_or("", String::as_str) } else { &node.name }
}

fn refuse_integer_operators(graph: &GraphProto) -> Result<(), String> {
    for node in &graph.node {
        let operator = node.op_type.as_str();
        let format = match operator {
            "ConvInteger"
            | "MatMulInteger"
            | "DynamicQuantizeLinear"
            | "DynamicQuantizeMatMul"
            | "DynamicQuantizeLSTM"
            | "MatMulIntegerToFloat"
            | "MatMulNBits" => "dynamic quantization",
            "QGemm" | "QAttention" | "QMoE" => "the QOperator format",
            _ if operator.starts_with("QLinear") => "the QOperator format",
            _ => continue,
        };
        return Err(format!(
            "the node {:?} is a {operator} of {format}, which computes with integers and is not supported; {ADVICE}",
            name_of(node)
        ));
    }
    Ok(())
}

/// Replaces the DequantizeLinear of an input of bytes, as TFLite files have, by Cast, Sub and Mul.
fn scale_input_bytes(graph: &mut GraphProto) -> Result<(), String> {
    let is_bytes = |input: &&onnx_proto::ValueInfoProto| proto::tensor_type(input).0 == UINT8;
    let inputs: Vec<String> = graph.input.iter().filter(is_bytes).map(|input| input.name.clone()).collect();
    let mut index = 0;
    while index < graph.node.len() {
        let node = graph.node[index].clone();
        index += 1;
        if !is_dequantize(&node) || node.input.first().is_none_or(|input| !inputs.contains(input)) {
            continue;
        }
        let Scale { scales, zero_points } = read_scale(graph, &node)?;
        let (&[scale], &[zero_point]) = (scales.as_slice(), zero_points.as_slice()) else { continue };
        let output = &node.output[0];
        let [zero_name, scale_name] = [("zero", zero_point), ("scale", scale)].map(|(suffix, value)| {
            let name = proto::fresh_name(graph, &format!("{output}_{suffix}"));
            graph.initializer.push(float_tensor(&name, &[], &[value]));
            name
        });
        let [cast, shifted] =
            ["cast", "shifted"].map(|suffix| proto::fresh_name(graph, &format!("{output}_{suffix}")));
        let nodes = [
            proto::node("Cast", &[&node.input[0]], &[&cast]).with_int("to", proto::FLOAT.into()),
            proto::node("Sub", &[&cast, &zero_name], &[&shifted]),
            proto::node("Mul", &[&shifted, &scale_name], &[output]),
        ];
        graph.node.splice(index - 1..index, nodes);
    }
    Ok(())
}

/// Replaces QuantizeLinear and DequantizeLinear of constants by constants.
fn fold_constants(graph: &mut GraphProto) -> Result<(), String> {
    let mut index = 0;
    while index < graph.node.len() {
        let node = &graph.node[index];
        let constant = node.input.first().and_then(|input| proto::initializer(graph, input));
        let folded = match constant {
            Some(constant) if is_dequantize(node) || is_quantize(node) => {
                Some(convert_constant(graph, node, constant)?)
            }
            _ => None,
        };
        match folded {
            Some(tensor) => {
                graph.initializer.push(tensor);
                graph.node.remove(index);
            }
            None => index += 1,
        }
    }
    Ok(())
}

/// Quantizes or dequantizes a constant. The quantized numbers are kept as float32.
fn convert_constant(
    graph: &GraphProto,
    node: &NodeProto,
    constant: &TensorProto,
) -> Result<TensorProto, String> {
    let unsupported = || {
        format!(
            "the {} {:?} of the constant {:?} has a type or a shape that is not supported; {ADVICE}",
            node.op_type,
            name_of(node),
            constant.name
        )
    };
    let Scale { scales, zero_points } = read_scale(graph, node)?;
    let numbers = numbers(constant).ok_or_else(unsupported)?;
    let range = if is_quantize(node) { Some(quantized_range(graph, node)?) } else { None };
    let rank = constant.dims.len();
    let axis = super::shapes::resolve_axis(node.int("axis").unwrap_or(1), rank);
    let inner: i64 = constant.dims.get(axis + 1..).unwrap_or_default().iter().product();
    let (inner, channels) = (usize::try_from(inner).unwrap_or(0).max(1), scales.len());
    let is_blocked = node.int("block_size").is_some_and(|size| size != 0);
    let fits = channels == 1 || constant.dims.get(axis).copied() == i64::try_from(channels).ok();
    if is_blocked || !fits {
        return Err(unsupported());
    }
    let convert = |(index, number): (usize, f32)| {
        let channel = if channels == 1 { 0 } else { index / inner % channels };
        let zero_point = zero_points.get(channel).or(zero_points.first()).copied().unwrap_or(0.0);
        match range {
            Some((low, high)) => ((number / scales[channel]).round_ties_even() + zero_point).clamp(low, high),
            None => (number - zero_point) * scales[channel],
        }
    };
    let values: Vec<f32> = numbers.into_iter().enumerate().map(convert).collect();
    Ok(float_tensor(&node.output[0], &constant.dims, &values))
}

/// The scales and zero points of a quantization: one of each, or one per channel.
#[derive(Debug, Clone, PartialEq)]
struct Scale {
    scales: Vec<f32>,
    zero_points: Vec<f32>,
}

fn read_scale(graph: &GraphProto, node: &NodeProto) -> Result<Scale, String> {
    let read = |index: usize| {
        let name = node.input.get(index).filter(|name| !name.is_empty());
        name.map(|name| proto::initializer(graph, name).and_then(numbers)).unwrap_or_else(|| Some(Vec::new()))
    };
    match (read(1), read(2)) {
        (Some(scales), Some(mut zero_points)) if !scales.is_empty() => {
            if zero_points.is_empty() {
                zero_points = vec![0.0; scales.len()];
            }
            Ok(Scale { scales, zero_points })
        }
        _ => Err(format!(
            "the scale and the zero point of the {} {:?} are not constants; {ADVICE}",
            node.op_type,
            name_of(node)
        )),
    }
}

/// Returns the values of a constant as float32.
#[expect(clippy::cast_precision_loss, reason = "quantized numbers are small, and biases are rounded once")]
fn numbers(tensor: &TensorProto) -> Option<Vec<f32>> {
    let raw = &tensor.raw_data;
    if raw.is_empty() && matches!(tensor.data_type, INT8 | UINT8 | INT16 | UINT16) {
        return Some(tensor.int32_data.iter().map(|number| *number as f32).collect());
    }
    match tensor.data_type {
        UINT8 => Some(raw.iter().copied().map(f32::from).collect()),
        INT8 => Some(raw.iter().map(|byte| f32::from(i8::from_le_bytes([*byte]))).collect()),
        UINT16 => {
            Some(raw.as_chunks::<2>().0.iter().map(|bytes| u16::from_le_bytes(*bytes).into()).collect())
        }
        INT16 => Some(raw.as_chunks::<2>().0.iter().map(|bytes| i16::from_le_bytes(*bytes).into()).collect()),
        proto::INT32 => Some(proto::integers(tensor)?.into_iter().map(|number| number as f32).collect()),
        _ => proto::floats(tensor),
    }
}

/// Returns the smallest and the largest quantized number of a QuantizeLinear.
fn quantized_range(graph: &GraphProto, node: &NodeProto) -> Result<(f32, f32), String> {
    let zero_point = node.input.get(2).and_then(|name| proto::initializer(graph, name));
    let declared = node.int("output_dtype").and_then(|element_type| i32::try_from(element_type).ok());
    let element_type =
        zero_point.map(|tensor| tensor.data_type).or(declared.filter(|t| *t != 0)).unwrap_or(UINT8);
    match element_type {
        UINT8 => Ok((0.0, 255.0)),
        INT8 => Ok((-128.0, 127.0)),
        UINT16 => Ok((0.0, 65535.0)),
        INT16 => Ok((-32768.0, 32767.0)),
        _ => Err(format!(
            "the QuantizeLinear {:?} has element type {element_type} (of ONNX's TensorProto.DataType), expected 8 \
             or 16 bits; {ADVICE}",
            name_of(node)
        )),
    }
}

/// Returns the values that the smallest and the largest quantized number stand for.
fn range_of(graph: &GraphProto, node: &NodeProto) -> Result<(f32, f32), String> {
    let (low, high) = quantized_range(graph, node)?;
    let Scale { scales, zero_points } = read_scale(graph, node)?;
    let (&[scale], &[zero_point]) = (scales.as_slice(), zero_points.as_slice()) else {
        return Err(format!(
            "the QuantizeLinear {:?} has one scale per channel, expected one for all; {ADVICE}",
            name_of(node)
        ));
    };
    Ok(((low - zero_point) * scale, (high - zero_point) * scale))
}

/// Returns the scale of each quantized value: that of the QuantizeLinear from which the value comes.
///
/// Other nodes may only rearrange the quantized numbers.
fn read_activation_scales(graph: &GraphProto) -> Result<HashMap<String, Scale>, String> {
    let mut scales: HashMap<String, Scale> = HashMap::new();
    for node in &graph.node {
        if is_quantize(node) {
            scales.insert(node.output[0].clone(), read_scale(graph, node)?);
        } else if let Some(scale) = node.input.first().and_then(|input| scales.get(input)).cloned() {
            match node.op_type.as_str() {
                "DequantizeLinear" | "Shape" => {}
                "Transpose" | "Reshape" | "Flatten" | "Squeeze" | "Unsqueeze" | "MaxPool" | "Identity"
                | "Slice" | "Gather" | "Split" => {
                    scales.extend(node.output.iter().map(|output| (output.clone(), scale.clone())));
                }
                operator => {
                    return Err(format!(
                        "the {operator} {:?} computes with quantized numbers, which is not supported; {ADVICE}",
                        name_of(node)
                    ));
                }
            }
        }
    }
    Ok(scales)
}

/// Returns the Clip that replaces a QuantizeLinear.
///
/// A Relu before it becomes part of the Clip.
fn clip(graph: &mut GraphProto, quantize: NodeProto, (mut low, high): (f32, f32), opset: i64) -> NodeProto {
    let (mut input, output) = (quantize.input[0].clone(), quantize.output[0].clone());
    if let Some(producer) = proto::producer(graph, &input).map(|index| &graph.node[index])
        && producer.op_type == "Relu"
        && low <= 0.0
    {
        low = 0.0;
        input = producer.input[0].clone();
    }
    let clip = if opset < 11 {
        proto::node("Clip", &[&input], &[&output]).with_float("min", low).with_float("max", high)
    } else {
        let names = [("low", low), ("high", high)].map(|(bound, value)| {
            let name = proto::fresh_name(graph, &format!("{output}_{bound}"));
            graph.initializer.push(float_tensor(&name, &[], &[value]));
            name
        });
        proto::node("Clip", &[&input, &names[0], &names[1]], &[&output])
    };
    NodeProto { name: quantize.name, ..clip }
}

#[cfg(test)]
mod tests {
    use super::super::proto::node;
    use super::super::testing::{build_graph, constant_values, operators};
    use super::*;

    fn bytes(name: &str, data_type: i32, dims: &[i64], data: &[u8]) -> TensorProto {
        TensorProto {
            name: name.into(),
            dims: dims.to_vec(),
            data_type,
            raw_data: data.to_vec().into(),
            ..Default::default()
        }
    }

    fn constants() -> Vec<TensorProto> {
        vec![
            float_tensor("scale", &[], &[0.5]),
            bytes("zero", UINT8, &[], &[10]),
            bytes("w", INT8, &[2, 2], &[1, 2, 3, 0xff]),
            float_tensor("w_scale", &[2], &[0.5, 2.0]),
            bytes("w_zero", INT8, &[2], &[0, 1]),
        ]
    }

    #[test]
    fn weights_are_dequantized_per_channel() {
        let dequantize_weights =
            node("DequantizeLinear", &["w", "w_scale", "w_zero"], &["wf"]).with_int("axis", 0);
        let nodes = vec![dequantize_weights, node("MatMul", &["x", "wf"], &["y"])];
        let mut graph = build_graph(&[None, Some(2)], constants(), nodes);
        dequantize(&mut graph, 13).unwrap();
        assert_eq!(operators(&graph), ["MatMul"]);
        assert_eq!(constant_values(&graph, "wf"), [0.5, 1.0, 4.0, -4.0]);
    }

    #[test]
    fn quantized_values_are_clipped_to_the_range_and_keep_their_relu() {
        let nodes = vec![
            node("Relu", &["x"], &["r"]),
            node("QuantizeLinear", &["r", "scale", "zero"], &["q"]),
            node("Flatten", &["q"], &["f"]),
            node("DequantizeLinear", &["f", "scale", "zero"], &["y"]),
        ];
        let mut graph = build_graph(&[None, Some(2)], constants(), nodes);
        dequantize(&mut graph, 13).unwrap();
        assert_eq!(operators(&graph), ["Relu", "Clip", "Flatten", "Identity"]);
        let input = graph.node[1].input.clone();
        assert_eq!(input[0], "x");
        assert_eq!([&input[1], &input[2]].map(|name| constant_values(&graph, name)[0]), [0.0, 122.5]);
    }

    #[test]
    fn bytes_at_the_input_are_scaled() {
        let nodes = vec![
            node("DequantizeLinear", &["x", "scale", "zero"], &["a"]),
            node("QuantizeLinear", &["a", "scale", "zero"], &["b"]),
            node("DequantizeLinear", &["b", "scale", "zero"], &["y"]),
        ];
        let mut graph = build_graph(&[None, Some(2)], constants(), nodes);
        graph.input[0].type_.mut_or_insert_default().mut_tensor_type().elem_type = UINT8;
        dequantize(&mut graph, 13).unwrap();
        assert_eq!(operators(&graph), ["Cast", "Sub", "Mul", "Clip", "Identity"]);
        let [zero, scale] =
            [1, 2].map(|index: usize| constant_values(&graph, &graph.node[index].input[1])[0]);
        assert_eq!([zero, scale], [10.0, 0.5]);
    }

    #[test]
    fn integer_arithmetic_is_refused_with_the_export_that_works() {
        for operator in ["QLinearConv", "ConvInteger", "DynamicQuantizeLinear"] {
            let mut graph = build_graph(&[None], vec![], vec![node(operator, &["x"], &["y"])]);
            let error = dequantize(&mut graph, 13).unwrap_err();
            assert!(error.contains(operator) && error.contains("QuantFormat.QDQ"), "{error}");
        }
        let nodes =
            vec![node("QuantizeLinear", &["x", "scale", "zero"], &["q"]), node("Add", &["q", "q"], &["y"])];
        let error = dequantize(&mut build_graph(&[None], constants(), nodes), 13).unwrap_err();
        assert!(error.contains("the Add \"y\""), "{error}");
    }
}
