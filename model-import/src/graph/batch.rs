//! Makes a graph accept any batch size, and replaces values that do not depend on the image by constants.
//!
//! Many graphs are exported with batch size 1, which is then a constant of the graph. This pass rewrites the
//! nodes that contain the constant:
//!
//! - A Reshape gets a constant target with -1 on the axis that contains the batch.
//! - A Gather of all elements of an image in their order, as which torch writes `as_strided`, becomes a Reshape.
//! - An Expand, Tile or ConstantOfShape to the batch size reads the batch size from the image.
//! - A Concat of images with a constant, such as a class token, gets the constant once per image.
//! - A Squeeze without axes gets the axes that it removes for one image.
//! - A Resize to constant sizes gets the scales instead.
//!
//! [`find_obstacle`] then finds the first node that still mixes the images of a batch.

use std::collections::HashSet;

use onnx_proto::{GraphProto, NodeProto, TensorProto};

use super::proto::{self, NodeExt, int_tensor};
use super::shapes::{Dim, Inference, format_shape, reshape_target, resolve_axis};

use Dim::{Batch, Known};

/// Rewrites a graph for any batch size, and removes nodes whose output is constant.
///
/// `input_name` is the name of the graph's image input.
pub fn make_dynamic(graph: &mut GraphProto, input_name: &str) {
    let nodes = std::mem::take(&mut graph.node);
    let names = nodes.iter().flat_map(|node| &node.output);
    let names = names.chain(graph.initializer.iter().map(|tensor| &tensor.name));
    let names = names.chain(graph.input.iter().map(|input| &input.name));
    let mut rewriter = Rewriter {
        names: names.cloned().collect(),
        inference: Inference::new(&graph.initializer, &graph.input, input_name),
        input_name,
        nodes: Vec::with_capacity(nodes.len()),
        constants: Vec::new(),
        batch_size: None,
    };
    let outputs: HashSet<&String> = graph.output.iter().map(|output| &output.name).collect();
    for node in nodes {
        let is_output = node.output.iter().any(|name| outputs.contains(name));
        rewriter.rewrite(node, is_output);
    }
    let Rewriter { nodes, constants, .. } = rewriter;
    graph.node = nodes;
    graph.initializer.extend(constants);
}

/// Returns the reason why a graph accepts only one image at a time, or `None` if it accepts any batch size.
#[must_use]
pub fn find_obstacle(graph: &GraphProto, input_name: &str) -> Option<String> {
    let mut inference = Inference::new(&graph.initializer, &graph.input, input_name);
    for node in &graph.node {
        inference.visit(node);
        let (Some(output), operator) = (node.output.first(), &node.op_type) else { continue };
        let has_batch =
            |shape: Option<&[Dim]>| shape.is_some_and(|dims| dims.iter().any(|dim| dim.has_batch()));
        let reads_images = node.input.iter().any(|name| has_batch(inference.shape(name)));
        if !reads_images || inference.has_value(output) {
            continue;
        }
        let name = if node.name.is_empty() { output } else { &node.name };
        if normalises_over_batch(&inference, node) {
            return Some(format!("the {operator} {name:?} normalises over the images of a batch"));
        }
        match inference.shape(output) {
            None => {
                return Some(format!("the output shape of the {operator} {name:?} is not known for a batch"));
            }
            Some(shape) if !has_batch(Some(shape)) => {
                return Some(format!(
                    "the {operator} {name:?} joins the images of a batch: its output is {}",
                    format_shape(shape)
                ));
            }
            Some(_) => {}
        }
    }
    let output = graph.output.first()?;
    match inference.shape(&output.name) {
        Some([Batch, ..]) => None,
        Some(shape) => Some(format!("the output {:?} has the shape {}", output.name, format_shape(shape))),
        None => Some(format!("the shape of the output {:?} is not known", output.name)),
    }
}

/// Returns a message if a Squeeze without axes has removed the batch, and a later node relies on that.
///
/// Such a node normalises over the first axis. For a batch of one image, the first axis of the export holds the
/// features, but that of the rewritten graph holds the images.
///
/// `open_squeeze` is the result of [`find_open_squeeze`] before [`make_dynamic`].
///
/// # Errors
/// Returns a message that names both nodes.
pub fn check_open_squeeze(
    open_squeeze: Option<&str>,
    graph: &GraphProto,
    input_name: &str,
) -> Result<(), String> {
    let Some(squeeze) = open_squeeze else { return Ok(()) };
    let mut inference = Inference::new(&graph.initializer, &graph.input, input_name);
    for node in &graph.node {
        inference.visit(node);
        if normalises_over_batch(&inference, node) {
            return Err(format!(
                "the {} {:?} normalises over the first axis, from which the Squeeze {squeeze:?} without axes \
                 removes a batch of one image; give squeeze() the axes of height and width, and export the model \
                 again",
                node.op_type, node.name
            ));
        }
    }
    Ok(())
}

/// Returns the name of a Squeeze that removes every axis of size 1.
#[must_use]
pub fn find_open_squeeze(graph: &GraphProto) -> Option<String> {
    let is_open =
        |node: &&NodeProto| node.op_type == "Squeeze" && node.ints("axes").is_none() && node.input.len() < 2;
    graph.node.iter().find(is_open).map(|node| node.name.clone())
}

/// Returns true if a node keeps the shape of its input, but computes with several images at once.
fn normalises_over_batch(inference: &Inference<'_>, node: &NodeProto) -> bool {
    let Some(shape) = node.input.first().and_then(|name| inference.shape(name)) else { return false };
    let axis = resolve_axis(node.int("axis").unwrap_or(-1), shape.len());
    let axes = match node.op_type.as_str() {
        "Softmax" | "LogSoftmax" | "Hardmax" | "LpNormalization" => axis..axis + 1,
        "LayerNormalization" | "RMSNormalization" => axis..shape.len(),
        "CumSum" => {
            let axis = node.input.get(1).and_then(|name| inference.integers(name));
            match axis.as_deref() {
                Some(&[Known(axis)]) => {
                    let axis = resolve_axis(axis, shape.len());
                    axis..axis + 1
                }
                _ => 0..shape.len(),
            }
        }
        _ => return false,
    };
    shape.get(axes).is_some_and(|dims| dims.iter().any(|dim| dim.has_batch()))
}

/// The state of [`make_dynamic`].
struct Rewriter<'a> {
    inference: Inference<'a>,
    input_name: &'a str,
    /// Names of all values.
    names: HashSet<String>,
    nodes: Vec<NodeProto>,
    constants: Vec<TensorProto>,
    /// Name of the value that holds the batch size, once a node needs it.
    batch_size: Option<String>,
}

impl Rewriter<'_> {
    fn rewrite(&mut self, node: NodeProto, is_output: bool) {
        let rewritten = match node.op_type.as_str() {
            "Reshape" => self.rewrite_reshape(&node),
            "Gather" => self.rewrite_gather(&node),
            "Squeeze" => self.rewrite_squeeze(&node),
            "Expand" => self.rewrite_expand(&node),
            "Tile" => self.rewrite_tile(&node),
            "ConstantOfShape" => self.rewrite_constant_of_shape(&node),
            "Concat" => self.rewrite_concat(&node),
            "Resize" => self.rewrite_resize(&node),
            _ => None,
        };
        self.push(rewritten.unwrap_or(node), is_output);
    }

    /// Appends a node, or the constant that the node computes.
    fn push(&mut self, node: NodeProto, is_output: bool) {
        self.inference.visit(&node);
        let constant = match node.output.as_slice() {
            [output] if !is_output => self.inference.constant(output),
            _ => None,
        };
        match constant {
            Some(constant) => self.constants.push(constant),
            None => self.nodes.push(node),
        }
    }

    fn fresh_name(&mut self, base: &str) -> String {
        let names = (0..).map(|number| format!("{base}_{number}"));
        let name = names.into_iter().find(|name| !self.names.contains(name)).unwrap_or_default();
        self.names.insert(name.clone());
        name
    }

    /// Adds a list of integers as a constant, and returns its name.
    fn add_integers(&mut self, base: &str, integers: &[i64]) -> String {
        let name = self.fresh_name(base);
        let length = i64::try_from(integers.len()).unwrap_or(0);
        self.inference.insert_integers(&name, integers);
        self.constants.push(int_tensor(&name, &[length], integers));
        name
    }

    fn input_shape(&self, node: &NodeProto, index: usize) -> Option<Vec<Dim>> {
        self.inference.shape(node.input.get(index)?).map(<[Dim]>::to_vec)
    }

    /// Returns the shape of the output that the node would have.
    fn output_shape(&mut self, node: &NodeProto) -> Option<Vec<Dim>> {
        self.inference.visit(node);
        self.inference.shape(node.output.first()?).map(<[Dim]>::to_vec)
    }

    fn rewrite_reshape(&mut self, node: &NodeProto) -> Option<NodeProto> {
        let shape = self.output_shape(node)?;
        self.reshape_to(node, &shape)
    }

    /// Returns a Reshape of the node's first input to a shape that contains the batch.
    fn reshape_to(&mut self, node: &NodeProto, shape: &[Dim]) -> Option<NodeProto> {
        if !shape.iter().any(|dim| dim.has_batch()) {
            return None;
        }
        let (input, output) = (node.input.first()?, node.output.first()?);
        let target = self.add_integers(&format!("{output}_shape"), &reshape_target(shape)?);
        Some(NodeProto { name: node.name.clone(), ..proto::node("Reshape", &[input, &target], &[output]) })
    }

    /// Replaces a Gather that takes every element of an image in order, from the elements in one row.
    fn rewrite_gather(&mut self, node: &NodeProto) -> Option<NodeProto> {
        let &[elements] = self.inference.shape(node.input.first()?)? else { return None };
        let indices = self.inference.integers(node.input.get(1)?)?;
        let takes_all = (0..elements.size_per_image()?).map(Known).eq(indices);
        if !elements.has_batch() || !takes_all {
            return None;
        }
        let sizes: Vec<i64> =
            self.input_shape(node, 1)?.into_iter().map(Dim::known).collect::<Option<_>>()?;
        let sizes = self.add_integers(&format!("{}_sizes", node.output.first()?), &sizes);
        let reshape = proto::node("Reshape", &[&node.input[0], &sizes], &[&node.output[0]]);
        self.rewrite_reshape(&renamed(reshape, node))
    }

    fn rewrite_squeeze(&mut self, node: &NodeProto) -> Option<NodeProto> {
        let has_axes = node.ints("axes").is_some() || node.input.len() > 1;
        let shape = if has_axes { None } else { self.output_shape(node) };
        self.reshape_to(node, &shape?)
    }

    fn rewrite_expand(&mut self, node: &NodeProto) -> Option<NodeProto> {
        let input = self.input_shape(node, 0)?;
        let shape = self.output_shape(node)?;
        if input == shape {
            return Some(renamed(proto::node("Identity", &[&node.input[0]], &[&node.output[0]]), node));
        }
        self.expand_to(node, &node.input[0], &input, &shape)
    }

    fn rewrite_tile(&mut self, node: &NodeProto) -> Option<NodeProto> {
        let input = self.input_shape(node, 0)?;
        let shape = self.output_shape(node)?;
        let repeats_batch = input
            .iter()
            .zip(&shape)
            .all(|(input, output)| input == output || (*input, *output) == (Known(1), Batch));
        if repeats_batch { self.expand_to(node, &node.input[0], &input, &shape) } else { None }
    }

    fn rewrite_constant_of_shape(&mut self, node: &NodeProto) -> Option<NodeProto> {
        let shape = self.output_shape(node)?;
        if !shape.contains(&Batch) {
            return None;
        }
        let image_shape: Vec<Dim> =
            shape.iter().map(|dim| if *dim == Batch { Known(1) } else { *dim }).collect();
        let sizes: Vec<i64> = image_shape.iter().map(|dim| dim.known()).collect::<Option<_>>()?;
        let sizes = self.add_integers(&format!("{}_shape", node.output[0]), &sizes);
        let image = self.fresh_name(&node.output[0]);
        self.push(NodeProto { input: vec![sizes], output: vec![image.clone()], ..node.clone() }, false);
        self.expand_to(node, &image, &image_shape, &shape)
    }

    /// Repeats the parts of a Concat that are the same for every image.
    fn rewrite_concat(&mut self, node: &NodeProto) -> Option<NodeProto> {
        let shapes: Vec<Vec<Dim>> =
            (0..node.input.len()).map(|index| self.input_shape(node, index)).collect::<Option<_>>()?;
        let has_batch = |shape: &&Vec<Dim>| shape.contains(&Batch);
        let batch_axis = shapes.iter().find(has_batch)?.iter().position(|dim| *dim == Batch)?;
        if node.int("axis").and_then(|axis| usize::try_from(axis).ok()) == Some(batch_axis) {
            return None;
        }
        let mut node = node.clone();
        for (index, shape) in shapes.iter().enumerate() {
            if shape.get(batch_axis) == Some(&Known(1)) {
                let mut target = shape.clone();
                target[batch_axis] = Batch;
                let (part, repeated) = (node.input[index].clone(), self.fresh_name(&node.input[index]));
                let expand = proto::node("Expand", &[&part], &[&repeated]);
                let expand = self.expand_to(&expand, &part, shape, &target)?;
                self.push(expand, false);
                node.input[index] = repeated;
            }
        }
        Some(node)
    }

    /// Gives a Resize the scales instead of the sizes, which contain the batch size.
    fn rewrite_resize(&mut self, node: &NodeProto) -> Option<NodeProto> {
        let sizes = node.input.get(3).filter(|name| !name.is_empty())?;
        let sizes = self.inference.integers(sizes)?;
        let input = self.input_shape(node, 0)?;
        if !input.first()?.has_batch() || sizes.len() != input.len() || node.ints("axes").is_some() {
            return None;
        }
        let pairs = input.iter().zip(&sizes).skip(1);
        let scales: Vec<f32> =
            pairs.map(|(from, to)| scale_between(from.known()?, to.known()?)).collect::<Option<_>>()?;
        let scales = [vec![1.0], scales].concat();
        let name = self.fresh_name(&format!("{}_scales", node.output[0]));
        let length = i64::try_from(scales.len()).ok()?;
        let constant = proto::float_tensor(&name, &[length], &scales);
        self.inference.insert_constant(&constant);
        self.constants.push(constant);
        let regions = node.input.get(1).cloned().unwrap_or_default();
        Some(NodeProto { input: vec![node.input[0].clone(), regions, name], ..node.clone() })
    }

    /// Returns a node that expands `value` to a shape that contains the batch size.
    fn expand_to(
        &mut self,
        node: &NodeProto,
        value: &str,
        value_shape: &[Dim],
        shape: &[Dim],
    ) -> Option<NodeProto> {
        let is_supported = shape.iter().all(|dim| matches!(dim, Batch | Known(_)));
        let offset = shape.len().checked_sub(value_shape.len())?;
        let output = node.output.first()?;
        if !is_supported || !shape.contains(&Batch) {
            return None;
        }
        // An axis of the value that is the batch already needs no expansion.
        let needs_batch_size = shape
            .iter()
            .enumerate()
            .any(|(axis, dim)| *dim == Batch && (axis < offset || value_shape[axis - offset] != Batch));
        let target = if needs_batch_size {
            let batch_size = self.batch_size();
            let mut parts = Vec::new();
            let mut sizes = Vec::new();
            for dim in shape {
                match dim {
                    Known(size) => sizes.push(*size),
                    _ => {
                        if !sizes.is_empty() {
                            parts.push(
                                self.add_integers(&format!("{output}_sizes"), &std::mem::take(&mut sizes)),
                            );
                        }
                        parts.push(batch_size.clone());
                    }
                }
            }
            if !sizes.is_empty() {
                parts.push(self.add_integers(&format!("{output}_sizes"), &sizes));
            }
            let target = self.fresh_name(&format!("{output}_shape"));
            let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
            self.push(proto::node("Concat", &parts, &[&target]).with_int("axis", 0), false);
            target
        } else {
            let sizes: Vec<i64> = shape.iter().map(|dim| dim.known().unwrap_or(1)).collect();
            self.add_integers(&format!("{output}_shape"), &sizes)
        };
        Some(renamed(proto::node("Expand", &[value, &target], &[output]), node))
    }

    /// Returns the name of the value that holds the batch size, a list of one integer.
    fn batch_size(&mut self) -> String {
        if let Some(name) = &self.batch_size {
            return name.clone();
        }
        let (shape, batch_size) = (self.fresh_name("image_shape"), self.fresh_name("batch_size"));
        let first = self.add_integers("first_axis", &[0]);
        let input_name = self.input_name;
        self.push(proto::node("Shape", &[input_name], &[&shape]), false);
        self.push(proto::node("Gather", &[&shape, &first], &[&batch_size]).with_int("axis", 0), false);
        self.batch_size = Some(batch_size.clone());
        batch_size
    }
}

/// Returns the node with the name of the node that it replaces.
fn renamed(node: NodeProto, replaced: &NodeProto) -> NodeProto {
    NodeProto { name: replaced.name.clone(), ..node }
}

/// Returns the scale by which Resize makes `to` elements of `from`.
///
/// Resize rounds the product of size and scale down, so the quotient must not be too small.
#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "sizes are small")]
fn scale_between(from: i64, to: i64) -> Option<f32> {
    if from <= 0 || to <= 0 {
        return None;
    }
    let scale = to as f32 / from as f32;
    let gives = |scale: f32| (from as f32 * scale).floor() as i64 == to;
    [scale, scale.next_up()].into_iter().find(|scale| gives(*scale))
}

#[cfg(test)]
mod tests;
