//! Summarises a graph before and after simplification.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use onnx_proto::GraphProto;

use super::ending::Ending;
use super::layout::Layout;
use super::proto;
use super::types::InputValues;

/// Element types float16 and bfloat16 of `TensorProto.DataType`.
const HALF_TYPES: [i32; 2] = [10, 16];

/// Precision of the numbers with which the original graph computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// float32 or float64.
    Full,
    /// float16 or bfloat16.
    Half,
    /// Quantized in the QDQ format.
    Quantized,
}

impl Precision {
    /// Returns the precision of an original graph.
    pub(super) fn of(graph: &GraphProto) -> Self {
        let is_quantized = |name: &str| matches!(name, "QuantizeLinear" | "DequantizeLinear");
        let is_half = |element_type: i32| HALF_TYPES.contains(&element_type);
        if graph.node.iter().any(|node| is_quantized(&node.op_type)) {
            Self::Quantized
        } else if graph.initializer.iter().any(|tensor| is_half(tensor.data_type))
            || graph.input.iter().any(|input| is_half(proto::tensor_type(input).0))
        {
            Self::Half
        } else {
            Self::Full
        }
    }
}

/// Facts about a graph: its input, output and operators.
#[derive(Debug, Clone)]
pub struct Report {
    /// Name of the input.
    pub input_name: String,
    /// Number of channels of the input image.
    pub channels: usize,
    /// Height of the input image in pixels.
    pub height: usize,
    /// Width of the input image in pixels.
    pub width: usize,
    /// Layout of the original input.
    pub layout: Layout,
    /// Range of the values that the network expects at its input.
    pub input_values: InputValues,
    /// Element type of the original input, of ONNX's `TensorProto.DataType`.
    pub input_element_type: i32,
    /// Precision of the original graph. The simplified graph always computes with float32.
    pub precision: Precision,
    /// Name of the output.
    pub output_name: String,
    /// Operation that computes the output.
    pub ending: Ending,
    /// Number of outputs per image.
    pub class_count: usize,
    /// Reason why the graph accepts only one image at a time. `None` if it accepts any batch size.
    pub batch_obstacle: Option<String>,
    /// Version of the standard operator set.
    pub opset: i64,
    /// Number of nodes per operator in the original graph, keyed by the operator's name.
    pub original_node_counts: BTreeMap<String, usize>,
    /// Number of nodes per operator in the simplified graph, keyed by the operator's name.
    pub simplified_node_counts: BTreeMap<String, usize>,
    /// Number of weights in the simplified graph.
    pub parameter_count: usize,
}

/// Counts the nodes of a graph per operator.
pub(super) fn count_operators(graph: &GraphProto) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for node in &graph.node {
        *counts.entry(node.op_type.clone()).or_default() += 1;
    }
    counts
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { channels, height, width, .. } = self;
        let input_shape = match self.layout {
            Layout::ChannelsFirst => format!("[batch, {channels}, {height}, {width}]"),
            Layout::ChannelsLast => {
                format!("[batch, {height}, {width}, {channels}], converted to channels-first")
            }
        };
        writeln!(out, "input       {} {input_shape}", self.input_name)?;
        if self.input_values == InputValues::Bytes {
            writeln!(out, "values      0 to 255, which the graph normalises itself")?;
        }
        writeln!(
            out,
            "output      {} [batch, {}], which is the result of {}",
            self.output_name, self.class_count, self.ending
        )?;
        match &self.batch_obstacle {
            None => writeln!(out, "batch       dynamic")?,
            Some(reason) => writeln!(out, "batch       only 1: {reason}")?,
        }
        writeln!(out, "opset       {}", self.opset)?;
        writeln!(out, "parameters  {}", self.parameter_count)?;
        writeln!(out, "operators   {}", format_counts(&self.original_node_counts))?;
        write!(out, "simplified  {}", format_counts(&self.simplified_node_counts))
    }
}

/// Formats the total and the counts as `66 = Add 10, Clip 35, …`.
fn format_counts(counts: &BTreeMap<String, usize>) -> String {
    let mut text = format!("{} =", counts.values().sum::<usize>());
    for (index, (operator, count)) in counts.iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        // Writing to a String cannot fail.
        let _ = write!(text, "{comma} {operator} {count}");
    }
    text
}
