//! Infers the shapes of the values in a graph, and the elements of values that do not depend on the image.
//!
//! The first dimension of the image input is the batch. The inference follows the batch through the graph, even
//! if the graph was exported with a fixed batch size of 1.
//!
//! The output of an operator that is not known here has an unknown shape, and a graph pass that needs an
//! unknown shape leaves the node unchanged. burn-onnx later infers the shapes of all operators that it supports.

use std::collections::HashMap;

use onnx_proto::{GraphProto, NodeProto, TensorProto, ValueInfoProto};

use super::proto::{self, NodeExt};

mod dim;
mod evaluate;
mod operators;
mod reshape;
mod value;
mod windows;

pub use dim::{Dim, product, resolve_axes, resolve_axis};
pub(super) use dim::{format_dims, format_shape};
pub use reshape::reshape_target;

use Dim::{Batch, Known, Unknown};
use value::Value;

/// Shapes of the values in a graph, keyed by the value's name.
#[derive(Debug, Default)]
pub struct Shapes {
    shapes: HashMap<String, Vec<Dim>>,
}

impl Shapes {
    /// Infers the shapes of the values of a graph.
    ///
    /// The first dimension of the input `input_name` is the batch, even if the graph declares a fixed batch
    /// size.
    #[must_use]
    pub fn infer(graph: &GraphProto, input_name: &str) -> Self {
        let mut inference = Inference::new(&graph.initializer, &graph.input, input_name);
        for node in &graph.node {
            inference.visit(node);
        }
        Self { shapes: inference.shapes }
    }

    /// Returns the shape of a value, or `None` if its rank is unknown.
    #[must_use]
    pub fn shape(&self, name: &str) -> Option<&[Dim]> {
        self.shapes.get(name).map(Vec::as_slice)
    }
}

/// An inference that visits the nodes of a graph in order.
pub(super) struct Inference<'a> {
    constants: HashMap<&'a str, &'a TensorProto>,
    shapes: HashMap<String, Vec<Dim>>,
    /// Elements of the values that nodes computed.
    values: HashMap<String, Value>,
    /// Number of elements that nodes may still compute.
    free_element_count: usize,
}

/// Maximum number of elements of all values that are evaluated.
const MAX_TOTAL_ELEMENT_COUNT: usize = 1 << 26;

/// The part of an axis that a Slice keeps.
struct SliceRange {
    axis: usize,
    start: Dim,
    end: Dim,
    step: i64,
}

impl SliceRange {
    /// Returns the first index and the number of elements on an axis of a known length.
    fn resolve(&self, length: i64) -> Option<(i64, i64)> {
        if length < 0 {
            return None;
        }
        let from_front = |index: i64| if index < 0 { index.saturating_add(length) } else { index };
        let (start, end) = (from_front(self.start.known()?), from_front(self.end.known()?));
        if self.step > 0 {
            let (start, end) = (start.clamp(0, length), end.clamp(0, length));
            Some((start, (end - start).max(0).checked_add(self.step - 1)? / self.step))
        } else {
            let (start, end) = (start.clamp(-1, length - 1), end.clamp(-1, length - 1));
            let step = self.step.checked_neg().filter(|step| *step > 0)?;
            Some((start.max(0), (start - end).max(0).checked_add(step - 1)? / step))
        }
    }
}

impl<'a> Inference<'a> {
    /// Starts an inference with the constants and the inputs of a graph.
    pub(super) fn new(constants: &'a [TensorProto], inputs: &[ValueInfoProto], input_name: &str) -> Self {
        let mut shapes = HashMap::new();
        for tensor in constants {
            shapes.insert(tensor.name.clone(), tensor.dims.iter().copied().map(Known).collect());
        }
        for info in inputs {
            let (_, dims) = proto::tensor_type(info);
            let mut dims: Vec<Dim> = dims.into_iter().map(|dim| dim.map_or(Unknown, Known)).collect();
            if info.name == input_name
                && let Some(first) = dims.first_mut()
            {
                *first = Batch;
            }
            shapes.insert(info.name.clone(), dims);
        }
        let constants = constants.iter().map(|tensor| (tensor.name.as_str(), tensor)).collect();
        Self { constants, shapes, values: HashMap::new(), free_element_count: MAX_TOTAL_ELEMENT_COUNT }
    }

    /// Infers the shapes and the elements of a node's outputs.
    pub(super) fn visit(&mut self, node: &NodeProto) {
        if let Some(value) = self.evaluate(node)
            && let Some(output) = node.output.first()
            && let Some(free) = self.free_element_count.checked_sub(value.len())
        {
            self.free_element_count = free;
            self.insert(output, value);
        } else if let Some(shapes) = self.infer_shapes(node) {
            self.shapes.extend(node.output.iter().cloned().zip(shapes));
        }
    }

    /// Adds a constant list of integers.
    pub(super) fn insert_integers(&mut self, name: &str, integers: &[i64]) {
        self.insert(name, Value::list(integers.iter().copied().map(Known).collect()));
    }

    /// Adds a small constant.
    pub(super) fn insert_constant(&mut self, tensor: &TensorProto) {
        if let Some(value) = Value::read(tensor) {
            self.insert(&tensor.name, value);
        }
    }

    fn insert(&mut self, name: &str, value: Value) {
        let dims = value.dims.iter().map(|dim| i64::try_from(*dim).map_or(Unknown, Known)).collect();
        self.shapes.insert(name.into(), dims);
        self.values.insert(name.into(), value);
    }

    /// Returns the shape of a value, or `None` if its rank is unknown.
    pub(super) fn shape(&self, name: &str) -> Option<&[Dim]> {
        self.shapes.get(name).map(Vec::as_slice)
    }

    /// Returns true if the elements of a value are known or computed from shapes.
    pub(super) fn has_value(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    /// Returns the constant that a node computes, if the node is not needed at run time.
    pub(super) fn constant(&self, name: &str) -> Option<TensorProto> {
        self.values.get(name)?.to_tensor(name)
    }

    /// Returns the integers of a constant or of a value that is computed from shapes.
    pub(super) fn integers(&self, name: &str) -> Option<Vec<Dim>> {
        Some(self.value(name)?.integers()?.to_vec())
    }

    /// Returns the floating-point numbers of a constant or of a value that is computed from shapes.
    pub(super) fn floats(&self, name: &str) -> Option<Vec<f32>> {
        match self.value(name)?.elements {
            value::Elements::Floats(floats) => Some(floats),
            value::Elements::Integers(_) => None,
        }
    }

    fn value(&self, name: &str) -> Option<Value> {
        match self.values.get(name) {
            Some(value) => Some(value.clone()),
            None => Value::read(self.constants.get(name)?),
        }
    }

    fn input_shape(&self, node: &NodeProto, input_index: usize) -> Option<&[Dim]> {
        self.shape(node.input.get(input_index)?)
    }

    /// Returns the known integers at an input of a node. Returns `None` if the input is left out, too.
    fn input_integers(&self, node: &NodeProto, input_index: usize) -> Option<Vec<i64>> {
        self.value(node.input.get(input_index)?)?.known_integers()
    }

    /// Returns the axes of a Squeeze, Unsqueeze or reduction, which are an attribute or the second input.
    fn axes(&self, node: &NodeProto) -> Option<Vec<i64>> {
        node.ints("axes").map(<[i64]>::to_vec).or_else(|| self.input_integers(node, 1))
    }

    /// Returns the target of a Reshape, which is an attribute or the second input.
    fn reshape_sizes(&self, node: &NodeProto) -> Option<Vec<Dim>> {
        match node.ints("shape") {
            Some(shape) => Some(shape.iter().copied().map(Known).collect()),
            None => self.integers(node.input.get(1)?),
        }
    }

    /// Returns the ranges of a Slice, which are attributes before opset 10 and inputs since then.
    fn slice_ranges(&self, node: &NodeProto, rank: usize) -> Option<Vec<SliceRange>> {
        let known = |numbers: &[i64]| numbers.iter().copied().map(Known).collect::<Vec<Dim>>();
        let (starts, ends) = match (node.ints("starts"), node.ints("ends")) {
            (Some(starts), Some(ends)) => (known(starts), known(ends)),
            _ => (self.integers(node.input.get(1)?)?, self.integers(node.input.get(2)?)?),
        };
        let is_given = |index: usize| node.input.get(index).is_some_and(|name| !name.is_empty());
        let axes = match node.ints("axes") {
            Some(axes) => axes.to_vec(),
            None if is_given(3) => self.input_integers(node, 3)?,
            None => (0..i64::try_from(starts.len()).ok()?).collect(),
        };
        let steps = if is_given(4) { self.input_integers(node, 4)? } else { vec![1; starts.len()] };
        let axes = resolve_axes(&axes, rank);
        let lengths = [starts.len(), ends.len(), steps.len()];
        if lengths != [axes.len(); 3] || axes.iter().any(|axis| *axis >= rank) {
            return None;
        }
        let bounds = starts.into_iter().zip(ends).zip(steps);
        let ranges = axes.into_iter().zip(bounds);
        Some(ranges.map(|(axis, ((start, end), step))| SliceRange { axis, start, end, step }).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::super::proto::{NodeExt as _, float_tensor, node};
    use super::super::testing::build_graph;
    use super::*;

    const IMAGE: [Option<i64>; 4] = [Some(1), Some(3), Some(224), Some(225)];

    fn shape_after(constants: Vec<onnx_proto::TensorProto>, node: NodeProto) -> Option<Vec<Dim>> {
        let graph = build_graph(&IMAGE, constants, vec![node]);
        Shapes::infer(&graph, "x").shape("y").map(Into::into)
    }

    #[test]
    fn convolution_and_pooling_shapes_depend_on_pads_strides_and_dilations() {
        let weights = || vec![float_tensor("w", &[8, 3, 3, 3], &[0.0; 216])];
        let conv = || node("Conv", &["x", "w"], &["y"]);
        let feature_map = |height, width| Some(vec![Batch, Known(8), Known(height), Known(width)]);
        assert_eq!(shape_after(weights(), conv()), feature_map(222, 223));
        let strided = conv().with_ints("strides", &[2, 2]).with_ints("pads", &[0, 0, 1, 1]);
        assert_eq!(shape_after(weights(), strided), feature_map(112, 112));
        assert_eq!(shape_after(weights(), conv().with_ints("dilations", &[2, 1])), feature_map(220, 223));
        let pool =
            node("MaxPool", &["x"], &["y"]).with_ints("kernel_shape", &[2, 2]).with_ints("strides", &[2, 2]);
        assert_eq!(shape_after(vec![], pool.clone()), Some(vec![Batch, Known(3), Known(112), Known(112)]));
        assert_eq!(
            shape_after(vec![], pool.with_int("ceil_mode", 1)),
            Some(vec![Batch, Known(3), Known(112), Known(113)])
        );
    }

    #[test]
    fn number_of_evaluated_elements_is_bounded() {
        let count = 4;
        let constants = vec![proto::int_tensor("size", &[1], &[count])];
        let inputs = [proto::value_info("x", &IMAGE)];
        let mut inference = Inference::new(&constants, &inputs, "x");
        inference.free_element_count = 10;
        let values: Vec<bool> = (0..3)
            .map(|index| {
                let name = format!("v{index}");
                inference.visit(&node("ConstantOfShape", &["size"], &[&name]));
                inference.has_value(&name)
            })
            .collect();
        assert_eq!(values, [true, true, false]);
    }

    #[test]
    fn sizes_that_overflow_are_unknown() {
        let huge = i64::MAX;
        let pool = node("MaxPool", &["x"], &["y"]).with_ints("kernel_shape", &[2, 2]);
        let unknown = Some(vec![Batch, Known(3), Unknown, Known(224)]);
        for (name, values) in [("strides", [huge, 1]), ("dilations", [huge, 1])] {
            let pool = pool.clone().with_ints(name, &values).with_int("ceil_mode", 1);
            assert_eq!(shape_after(vec![], pool), unknown);
        }
        let pool = pool.with_ints("pads", &[huge, 0, 0, 0]);
        assert_eq!(shape_after(vec![], pool), unknown);
        let ints =
            |name: &str, data: &[i64]| proto::int_tensor(name, &[i64::try_from(data.len()).unwrap()], data);
        let pads = vec![ints("p", &[0, 0, huge, 0, 0, 0, 0, 0])];
        assert_eq!(
            shape_after(pads, node("Pad", &["x", "p"], &["y"])),
            Some(vec![Batch, Known(3), Unknown, Known(225)])
        );
        let slice = ["s", "e", "a", "t"].map(|name| ints(name, &[if name == "t" { huge } else { 2 }]));
        assert_eq!(
            shape_after(slice.into(), node("Slice", &["x", "s", "e", "a", "t"], &["y"])),
            Some(vec![Batch, Known(3), Known(0), Known(225)])
        );
    }

    #[test]
    fn resize_of_some_axes_keeps_the_others() {
        let resize = || node("Resize", &["x", "", "", "sizes"], &["y"]);
        let sizes =
            |data: &[i64]| vec![proto::int_tensor("sizes", &[i64::try_from(data.len()).unwrap()], data)];
        let expected = Some(vec![Batch, Known(3), Known(10), Known(20)]);
        assert_eq!(shape_after(sizes(&[10, 20]), resize().with_ints("axes", &[2, 3])), expected);
        assert_eq!(shape_after(sizes(&[1, 3, 10, 20]), resize()), expected);
        assert_eq!(shape_after(sizes(&[10, 20]), resize()), None);
        assert_eq!(shape_after(sizes(&[]), resize()), None);
    }

    #[test]
    fn output_of_an_unknown_operator_has_no_shape() {
        assert_eq!(shape_after(vec![], node("Mystery", &["x"], &["y"])), None);
    }

    #[test]
    fn negative_axes_count_from_the_end() {
        let unsqueeze = node("Unsqueeze", &["x"], &["y"]).with_ints("axes", &[0, -1]);
        let expected = vec![Known(1), Batch, Known(3), Known(224), Known(225), Known(1)];
        assert_eq!(shape_after(vec![], unsqueeze), Some(expected));
        assert_eq!(resolve_axis(-1, 4), 3);
        assert_eq!(resolve_axis(9, 4), 4);
    }
}
