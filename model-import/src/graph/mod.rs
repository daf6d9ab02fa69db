//! An ONNX graph, cleaned up for code generation.
//!
//! [`clean`] runs the passes in the order in which each finds what it needs: constants in one place
//! ([`tidy`]), channels first ([`layout`]), one form of pooling and flattening with an open batch
//! ([`tails`], by the shapes that [`shapes`] infers), scales and shifts folded into convolutions
//! ([`fold`]), what nobody needs removed. Each pass is a function over the protobuf graph, and
//! changes nothing it does not fully understand: burn-onnx has the last word on operators.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::fs;
use std::path::Path;

use onnx_ir::{GraphProto, Message, ModelProto};

use crate::Error;

pub mod fold;
pub mod fuse;
mod conv_weights;
pub mod layout;
pub mod proto;
pub mod shapes;
pub mod head;
#[cfg(test)]
mod testing;
pub mod tidy;

use shapes::{Dim, Shapes};

/// Channels of an image at the network's input: red, green, blue.
pub const CHANNELS: i64 = 3;

/// Order of the dimensions that the original graph wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// `[batch, channels, height, width]`.
    ChannelsFirst,
    /// `[batch, height, width, channels]`; the cleaned graph is channels-first.
    ChannelsLast,
}

/// What is known of a graph and of its cleaning.
#[derive(Debug, Clone)]
pub struct Report {
    /// Name of the input.
    pub input: String,
    /// Height of the input image.
    pub height: usize,
    /// Width of the input image.
    pub width: usize,
    /// Layout of the original's input.
    pub layout: Layout,
    /// Name of the output.
    pub output: String,
    /// Numbers at the output for each image.
    pub classes: usize,
    /// Version of the standard operators.
    pub opset: i64,
    /// Nodes of the original by operator.
    pub before: BTreeMap<String, usize>,
    /// Nodes of the cleaned graph by operator.
    pub after: BTreeMap<String, usize>,
    /// Numbers in the weights of the cleaned graph.
    pub parameters: usize,
}

/// A cleaned graph.
#[derive(Debug)]
pub struct CleanedGraph {
    /// The model: input `[batch, 3, height, width]`, output `[batch, classes]`, batch symbolic.
    pub model: ModelProto,
    /// What is known of it.
    pub report: Report,
}

/// Reads an ONNX file and cleans it up.
///
/// # Errors
/// The file cannot be read, is no ONNX model, or is not an image classifier of the kind described at
/// [`clean`].
pub fn clean_file(onnx: &Path) -> Result<CleanedGraph, Error> {
    let bytes = fs::read(onnx).map_err(Error::io("read", onnx))?;
    let model = ModelProto::parse_from_bytes(&bytes).map_err(|error| error.to_string());
    model
        .map_err(|reason| format!("it is no ONNX model ({reason})"))
        .and_then(clean)
        .map_err(|reason| Error::UnsupportedGraph { onnx: onnx.into(), reason })
}

/// Cleans a graph up. It must have one float32 input that is an image of three channels and fixed
/// height and width, and one output that is a row of classes for each image.
///
/// # Errors
/// What the graph has instead, in words.
pub fn clean(mut model: ModelProto) -> Result<CleanedGraph, String> {
    let opset = model
        .opset_import
        .iter()
        .find(|import| import.domain.is_empty() || import.domain == "ai.onnx")
        .map(|import| import.version)
        .ok_or("it is no ONNX model: it does not say which version of the operators it uses")?;
    let graph = model.graph.as_mut().ok_or("it is an ONNX model without a graph")?;
    if graph.node.is_empty() {
        return Err("it is an ONNX model with an empty graph".into());
    }
    if let Some(tensor) = graph.initializer.iter().find(|tensor| !tensor.external_data.is_empty()) {
        return Err(format!(
            "its weights (for one, {:?}) are in another file; save it as one file",
            tensor.name
        ));
    }
    if tidy::has_control_flow(graph) {
        return Err("it has control flow (If, Loop or Scan), which an image classifier needs none of; export it for inference".into());
    }
    let before = count(graph);

    tidy::collect_constants(graph);
    let input = only_input(graph)?;
    let output = only_output(graph)?;
    tidy::remove_identities(graph);
    let layout = layout::channels_first(graph, &input)?;
    head::rewrite(graph, &input);
    head::flatten_output(graph, &input);
    fold::fold_after_conv(graph);
    fold::fold_before_conv(graph);
    tidy::remove_dead(graph);

    let (height, width) = image_size(graph, &input)?;
    let classes = row_size(graph, &input, &output)?;
    graph.input = vec![proto::value_info(&input, &[None, Some(CHANNELS), Some(height), Some(width)])];
    graph.output = vec![proto::value_info(&output, &[None, Some(classes)])];
    let floats = graph.initializer.iter().filter(|tensor| tensor.data_type == proto::FLOAT);
    let report = Report {
        parameters: floats.map(|tensor| size(tensor.dims.iter().product())).sum(),
        input,
        height: size(height),
        width: size(width),
        layout,
        output,
        classes: size(classes),
        opset,
        before,
        after: count(graph),
    };
    Ok(CleanedGraph { model, report })
}

fn size(value: i64) -> usize {
    usize::try_from(value).unwrap_or(0)
}

fn count(graph: &GraphProto) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for node in &graph.node {
        *counts.entry(node.op_type.clone()).or_default() += 1;
    }
    counts
}

fn only_input(graph: &GraphProto) -> Result<String, String> {
    let [input] = graph.input.as_slice() else {
        let names: Vec<&str> = graph.input.iter().map(|input| input.name.as_str()).collect();
        return Err(format!("it has {} inputs {names:?}; an image classifier has one", names.len()));
    };
    if proto::tensor_type(input).0 != proto::FLOAT {
        return Err(format!("its input {:?} is not of float32", input.name));
    }
    Ok(input.name.clone())
}

fn only_output(graph: &GraphProto) -> Result<String, String> {
    let [output] = graph.output.as_slice() else {
        let names: Vec<&str> = graph.output.iter().map(|output| output.name.as_str()).collect();
        return Err(format!("it has {} outputs {names:?}; an image classifier has one", names.len()));
    };
    Ok(output.name.clone())
}

fn image_size(graph: &GraphProto, input: &str) -> Result<(i64, i64), String> {
    let info = graph.input.iter().find(|info| info.name == input);
    let dims = info.map(|info| proto::tensor_type(info).1).unwrap_or_default();
    match dims.as_slice() {
        [_, _, Some(height), Some(width)] => Ok((*height, *width)),
        _ => Err(format!(
            "its input {input:?} has the shape {}: height and width must be fixed numbers",
            show_dims(&dims)
        )),
    }
}

fn row_size(graph: &GraphProto, input: &str, output: &str) -> Result<i64, String> {
    let shapes = Shapes::infer(graph, input);
    let inferred = shapes.shape(output);
    if let Some([Dim::Batch | Dim::Unknown, Dim::Known(classes)]) = inferred {
        return Ok(*classes);
    }
    // An operator whose shape is not inferred here: what the graph declares has to do.
    let declared = graph.output.first().map(|info| proto::tensor_type(info).1).unwrap_or_default();
    match (inferred, declared.as_slice()) {
        (None, [_, Some(classes)]) => Ok(*classes),
        (None, _) => Err(format!(
            "its output {output:?} has the shape {}; an image classifier has [batch, classes]",
            show_dims(&declared)
        )),
        (Some(dims), _) => Err(format!(
            "its output {output:?} has the shape {}; an image classifier has [batch, classes]",
            show_shape(dims)
        )),
    }
}

/// `[?, 3, 224, 224]`.
fn show_dims(dims: &[Option<i64>]) -> String {
    let dims: Vec<Dim> = dims.iter().map(|dim| dim.map_or(Dim::Unknown, Dim::Known)).collect();
    show_shape(&dims)
}

fn show_shape(dims: &[Dim]) -> String {
    let dims: Vec<String> = dims
        .iter()
        .map(|dim| match dim {
            Dim::Batch => "batch".into(),
            Dim::Known(size) => size.to_string(),
            Dim::Unknown => "?".into(),
        })
        .collect();
    format!("[{}]", dims.join(", "))
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { height, width, .. } = self;
        let shape = match self.layout {
            Layout::ChannelsFirst => format!("[batch, {CHANNELS}, {height}, {width}]"),
            Layout::ChannelsLast => {
                format!("[batch, {height}, {width}, {CHANNELS}], made channels-first")
            }
        };
        writeln!(out, "input       {} {shape}", self.input)?;
        writeln!(out, "output      {} [batch, {}]", self.output, self.classes)?;
        writeln!(out, "opset       {}", self.opset)?;
        writeln!(out, "parameters  {}", self.parameters)?;
        writeln!(out, "operators   {}", operators(&self.before))?;
        write!(out, "cleaned     {}", operators(&self.after))
    }
}

/// `66 = Add 10, Clip 35, …`.
fn operators(counts: &BTreeMap<String, usize>) -> String {
    let mut text = format!("{} =", counts.values().sum::<usize>());
    for (index, (operator, count)) in counts.iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        // Writing to a String cannot fail.
        let _ = write!(text, "{comma} {operator} {count}");
    }
    text
}
