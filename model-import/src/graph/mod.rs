//! Simplifies an ONNX graph for code generation.
//!
//! In a graph, every tensor is called a value, and nodes refer to values by name. A constant value is stored
//! as an initializer of the graph.
//!
//! A pass is a function that changes the protobuf graph in place. A pass does not change a node that it does
//! not fully understand; burn-onnx then accepts or rejects that node. [`simplify`] runs these passes. Each
//! pass relies on the earlier ones:
//!
//! 1. [`tidy`] turns Constant nodes into initializers and removes nodes that do nothing.
//! 2. [`quantized`] and [`types`] convert weights and values to float32.
//! 3. [`layout`] makes the input channels-first and gives it its height and width.
//! 4. [`batch`] makes the graph accept any batch size and evaluates what does not depend on the image. This pass
//!    and the next two use the shapes that [`shapes`] infers.
//! 5. [`pooling`] replaces the rounding mode of pooling by padding.
//! 6. [`head`] rewrites pooling and flattening at the end of the network.
//! 7. [`fold`] merges scales and shifts per channel into convolutions.
//! 8. [`tidy`] removes unused nodes and constants.
//!
//! [`fuse`] is not part of [`simplify`]: code generation applies [`fuse`] to the simplified graph.

use std::path::Path;

use onnx_proto::{GraphProto, ModelProto};

use crate::Error;

pub mod batch;
mod conv_weights;
mod ending;
pub mod external;
pub mod fold;
pub mod fuse;
pub mod head;
pub mod layout;
pub mod macs;
pub mod node_names;
pub mod pooling;
pub mod proto;
pub mod quantized;
mod report;
pub mod shapes;
#[cfg(test)]
mod testing;
pub mod tidy;
pub mod types;

pub use ending::Ending;
pub use layout::Layout;
pub use report::{Precision, Report};
pub use types::InputValues;

use report::count_operators;
use shapes::{Dim, Shapes, format_dims, format_shape};

/// A simplified graph.
#[derive(Debug)]
pub struct SimplifiedGraph {
    /// The model, with the input `[batch, channels, height, width]` and the output `[batch, classes]`. The batch is
    /// symbolic, unless the report has a [`Report::batch_obstacle`].
    pub model: ModelProto,
    /// Facts about the original and the simplified graph.
    pub report: Report,
}

/// Height and width of an image in pixels.
pub type ImageSize = [i64; 2];

/// Maximum number of outputs per image. An invalid file may declare any number.
const MAX_CLASS_COUNT: i64 = 1_000_000;

/// Settings for the simplification of a graph.
#[derive(Debug, Clone, Default)]
pub struct SimplifyOptions {
    /// Name of the output to keep. `None` requires that the graph has only one output.
    pub output_name: Option<String>,
    /// Size of the image for a graph whose height and width are open.
    pub image_size: Option<ImageSize>,
}

/// Reads an ONNX file and simplifies its graph.
///
/// # Errors
/// Returns [`Error::Io`] if the file cannot be read, and [`Error::UnsupportedGraph`] if the file is not an
/// ONNX model or its graph does not have the form that [`simplify`] requires.
pub fn simplify_file(onnx_path: &Path, options: &SimplifyOptions) -> Result<SimplifiedGraph, Error> {
    let model = external::read_model(onnx_path)?;
    simplify(model, options).map_err(|reason| Error::UnsupportedGraph { onnx_path: onnx_path.into(), reason })
}

/// Simplifies a graph.
///
/// The graph must have one input, an image of one or three channels, and an output with one row of values per image.
/// `options` chooses one of several outputs and states an open height and width.
///
/// # Errors
/// Returns a message if the graph has a different form. The message states the form that was found and the
/// form that is expected.
pub fn simplify(mut model: ModelProto, options: &SimplifyOptions) -> Result<SimplifiedGraph, String> {
    let opset = model
        .opset_import
        .iter()
        .find(|import| import.domain.is_empty() || import.domain == "ai.onnx")
        .map(|import| import.version)
        .ok_or(
            "the file is not a valid ONNX model: `opset_import` has no version of the standard operators; \
             check that the file is complete, or export the model again",
        )?;
    let graph = model
        .graph
        .as_mut()
        .ok_or("the ONNX model has no graph; check that the file is complete, or export the model again")?;
    if graph.node.is_empty() {
        return Err("the graph of the ONNX model has no nodes; export the model again".into());
    }
    if let Some(node) = tidy::find_control_flow(graph) {
        return Err(format!(
            "the node {:?} is a {} that contains a graph, but control flow is not supported; \
             export the model for inference only",
            node.name, node.op_type
        ));
    }
    let original_node_counts = count_operators(graph);

    tidy::collect_constants(graph);
    tidy::check_order(graph)?;
    tidy::check_constant_shapes(graph)?;
    let precision = Precision::of(graph);
    let input_element_type = graph.input.first().map_or(proto::FLOAT, |input| proto::tensor_type(input).0);
    quantized::dequantize(graph, opset)?;
    let input_values = types::convert_to_float32(graph)?;
    let input_name = read_single_input(graph)?;
    let output_name = choose_output(graph, options.output_name.as_deref())?;
    tidy::remove_identities(graph);
    tidy::remove_unused(graph);
    let layout = layout::make_channels_first(graph, &input_name, options.image_size)?;
    let open_squeeze = batch::find_open_squeeze(graph);
    batch::make_dynamic(graph, &input_name);
    batch::check_open_squeeze(open_squeeze.as_deref(), graph, &input_name)?;
    tidy::remove_identities(graph);
    tidy::remove_unused(graph);
    pooling::replace_ceil_mode(graph, &input_name);
    head::simplify(graph, &input_name);
    head::flatten_output(graph, &input_name);
    fold::fold_after_conv(graph);
    fold::fold_before_conv(graph);
    tidy::remove_unused(graph);

    let (channels, height, width) = read_image_size(graph, &input_name)?;
    let class_count = find_class_count(graph, &input_name, &output_name)?;
    if class_count > MAX_CLASS_COUNT {
        return Err(format!(
            "the output {output_name:?} has {class_count} values per image, but at most {MAX_CLASS_COUNT} are \
             supported; choose another output, or export a smaller network"
        ));
    }
    let batch_obstacle = batch::find_obstacle(graph, &input_name);
    let batch = batch_obstacle.as_ref().map(|_| 1);
    graph.input = vec![proto::value_info(&input_name, &[batch, Some(channels), Some(height), Some(width)])];
    graph.output = vec![proto::value_info(&output_name, &[batch, Some(class_count)])];
    let floats = graph.initializer.iter().filter(|tensor| tensor.data_type == proto::FLOAT);
    let report = Report {
        parameter_count: floats.map(|tensor| to_usize(tensor.dims.iter().product())).sum(),
        input_name,
        channels: to_usize(channels),
        height: to_usize(height),
        width: to_usize(width),
        layout,
        input_values,
        input_element_type,
        precision,
        ending: ending::recognise(graph, &output_name),
        output_name,
        class_count: to_usize(class_count),
        batch_obstacle,
        opset,
        original_node_counts,
        simplified_node_counts: count_operators(graph),
    };
    Ok(SimplifiedGraph { model, report })
}

fn to_usize(size: i64) -> usize {
    usize::try_from(size).unwrap_or(0)
}

/// Returns the name of the graph's only input.
fn read_single_input(graph: &GraphProto) -> Result<String, String> {
    let [input] = graph.input.as_slice() else {
        let names: Vec<&str> = graph.input.iter().map(|input| input.name.as_str()).collect();
        return Err(format!(
            "the graph has {} inputs, {names:?}, but an image classifier has one; \
             export the model with the image as its only input",
            names.len()
        ));
    };
    let (element_type, _) = proto::tensor_type(input);
    if element_type != proto::FLOAT {
        return Err(format!(
            "the input {:?} has element type {element_type} (of ONNX's TensorProto.DataType), expected {} \
             (float32); export the model with a float32 input",
            input.name,
            proto::FLOAT
        ));
    }
    Ok(input.name.clone())
}

/// Keeps one output of the graph and the nodes that compute it, and returns the output's name.
///
/// `chosen_name` is the name of the output to keep. `None` requires that there is only one.
fn choose_output(graph: &mut GraphProto, chosen_name: Option<&str>) -> Result<String, String> {
    let names: Vec<String> = graph.output.iter().map(|output| output.name.clone()).collect();
    let name = match (chosen_name, names.as_slice()) {
        (None, [name]) => name,
        (None, []) => return Err("the graph has no outputs; export the model again".into()),
        (None, names) => {
            return Err(format!(
                "the graph has {} outputs, {names:?}, but only one is used; choose it with key `output.name` of \
                 model.toml, such as name = {:?} in the section [output]",
                names.len(),
                names[0]
            ));
        }
        (Some(chosen), names) => names.iter().find(|name| *name == chosen).ok_or_else(|| {
            format!(
                "key `output.name` is {chosen:?}, but the graph has no such output; its outputs are {names:?}"
            )
        })?,
    };
    if names.len() > 1 {
        graph.output.retain(|output| output.name == *name);
        // The passes fold a node only if nothing else uses its output.
        tidy::remove_unused(graph);
    }
    Ok(name.clone())
}

/// Returns the number of channels, the height and the width of the input image.
fn read_image_size(graph: &GraphProto, input_name: &str) -> Result<(i64, i64, i64), String> {
    let info = graph.input.iter().find(|info| info.name == input_name);
    let dims = info.map(|info| proto::tensor_type(info).1).unwrap_or_default();
    match dims.as_slice() {
        [_, Some(channels), Some(height), Some(width)] => Ok((*channels, *height, *width)),
        _ => Err(format!(
            "the input {input_name:?} has the shape {}, in which height and width are open; state them as key \
             `input.crop` of model.toml, or export the model with a fixed image size",
            format_dims(&dims)
        )),
    }
}

/// Returns the number of outputs per image.
fn find_class_count(graph: &GraphProto, input_name: &str, output_name: &str) -> Result<i64, String> {
    let shapes = Shapes::infer(graph, input_name);
    let inferred = shapes.shape(output_name);
    if let Some([_, Dim::Known(classes)]) = inferred {
        return Ok(*classes);
    }
    // If the output's shape cannot be inferred, the shape that the graph declares is used.
    let declared = graph.output.first().map(|info| proto::tensor_type(info).1).unwrap_or_default();
    let actual = match (inferred, declared.as_slice()) {
        (None, [_, Some(classes)]) => return Ok(*classes),
        (None, _) => format_dims(&declared),
        (Some(shape), _) => format_shape(shape),
    };
    Err(format!(
        "the output {output_name:?} has the shape {actual}, but an image classifier has [batch, classes]; \
         export the model with one row of class scores per image"
    ))
}
