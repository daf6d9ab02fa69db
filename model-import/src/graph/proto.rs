//! Reads and builds the protobuf messages of a graph. The message types come from the crate onnx-proto.

use onnx_proto::{AttributeProto, AttributeType, GraphProto, NodeProto, TensorProto, ValueInfoProto};

/// The element type float32: `TensorProto.DataType.FLOAT`.
pub const FLOAT: i32 = 1;
/// The element type int32: `TensorProto.DataType.INT32`.
pub const INT32: i32 = 6;
/// The element type int64: `TensorProto.DataType.INT64`.
pub const INT64: i32 = 7;
/// The element type of truth values: `TensorProto.DataType.BOOL`.
pub const BOOL: i32 = 9;

/// Methods that read and add the attributes of a node by name.
pub trait NodeExt: Sized {
    /// Returns an integer attribute.
    fn int(&self, name: &str) -> Option<i64>;
    /// Returns an attribute that is a list of integers.
    fn ints(&self, name: &str) -> Option<&[i64]>;
    /// Returns a float attribute.
    fn float(&self, name: &str) -> Option<f32>;
    /// Returns a string attribute.
    fn text(&self, name: &str) -> Option<String>;
    /// Adds an integer attribute.
    #[must_use]
    fn with_int(self, name: &str, value: i64) -> Self;
    /// Adds an attribute that is a list of integers.
    #[must_use]
    fn with_ints(self, name: &str, values: &[i64]) -> Self;
    /// Adds a float attribute.
    #[must_use]
    fn with_float(self, name: &str, value: f32) -> Self;
    /// Adds a string attribute.
    #[must_use]
    fn with_text(self, name: &str, value: &str) -> Self;
}

fn attribute<'a>(node: &'a NodeProto, name: &str) -> Option<&'a AttributeProto> {
    node.attribute.iter().find(|attribute| attribute.name == name)
}

fn with_attribute(
    mut node: NodeProto,
    name: &str,
    attribute_type: AttributeType,
    fill: impl FnOnce(&mut AttributeProto),
) -> NodeProto {
    let mut attribute =
        AttributeProto { name: name.into(), type_: attribute_type.into(), ..Default::default() };
    fill(&mut attribute);
    node.attribute.push(attribute);
    node
}

impl NodeExt for NodeProto {
    fn int(&self, name: &str) -> Option<i64> {
        attribute(self, name).map(|attribute| attribute.i)
    }

    fn ints(&self, name: &str) -> Option<&[i64]> {
        attribute(self, name).map(|attribute| attribute.ints.as_slice())
    }

    fn float(&self, name: &str) -> Option<f32> {
        attribute(self, name).map(|attribute| attribute.f)
    }

    fn text(&self, name: &str) -> Option<String> {
        attribute(self, name).map(|attribute| String::from_utf8_lossy(&attribute.s).into_owned())
    }

    fn with_int(self, name: &str, value: i64) -> Self {
        with_attribute(self, name, AttributeType::INT, |attribute| attribute.i = value)
    }

    fn with_ints(self, name: &str, values: &[i64]) -> Self {
        with_attribute(self, name, AttributeType::INTS, |attribute| {
            attribute.ints = values.to_vec();
        })
    }

    fn with_float(self, name: &str, value: f32) -> Self {
        with_attribute(self, name, AttributeType::FLOAT, |attribute| attribute.f = value)
    }

    fn with_text(self, name: &str, value: &str) -> Self {
        with_attribute(self, name, AttributeType::STRING, |attribute| {
            attribute.s = value.as_bytes().to_vec().into()
        })
    }
}

/// Builds a node without attributes, named after its first output.
#[must_use]
pub fn node(operator: &str, inputs: &[&str], outputs: &[&str]) -> NodeProto {
    NodeProto {
        op_type: operator.into(),
        name: outputs.first().copied().unwrap_or_default().into(),
        input: inputs.iter().copied().map(Into::into).collect(),
        output: outputs.iter().copied().map(Into::into).collect(),
        ..Default::default()
    }
}

/// Builds a float32 tensor.
#[must_use]
pub fn float_tensor(name: &str, dims: &[i64], data: &[f32]) -> TensorProto {
    let bytes: Vec<u8> = data.iter().flat_map(|value| value.to_le_bytes()).collect();
    TensorProto {
        name: name.into(),
        dims: dims.to_vec(),
        data_type: FLOAT,
        raw_data: bytes.into(),
        ..Default::default()
    }
}

/// Builds an int64 tensor.
#[must_use]
pub fn int_tensor(name: &str, dims: &[i64], data: &[i64]) -> TensorProto {
    let bytes: Vec<u8> = data.iter().flat_map(|value| value.to_le_bytes()).collect();
    TensorProto {
        name: name.into(),
        dims: dims.to_vec(),
        data_type: INT64,
        raw_data: bytes.into(),
        ..Default::default()
    }
}

/// Returns the values of a float32 tensor, or `None` if the tensor has a different type.
#[must_use]
pub fn floats(tensor: &TensorProto) -> Option<Vec<f32>> {
    if tensor.data_type != FLOAT {
        return None;
    }
    if tensor.raw_data.is_empty() {
        return Some(tensor.float_data.clone());
    }
    let (values, _) = tensor.raw_data.as_chunks::<4>();
    Some(values.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
}

/// Builds a tensor of int64, int32 or truth values. Returns `None` for another element type.
#[must_use]
pub fn typed_int_tensor(name: &str, element_type: i32, dims: &[i64], data: &[i64]) -> Option<TensorProto> {
    let bytes: Vec<u8> = match element_type {
        INT64 => return Some(int_tensor(name, dims, data)),
        INT32 => {
            let values: Vec<i32> =
                data.iter().map(|value| i32::try_from(*value).ok()).collect::<Option<_>>()?;
            values.into_iter().flat_map(i32::to_le_bytes).collect()
        }
        BOOL => data.iter().map(|value| u8::from(*value != 0)).collect(),
        _ => return None,
    };
    Some(TensorProto {
        name: name.into(),
        dims: dims.to_vec(),
        data_type: element_type,
        raw_data: bytes.into(),
        ..Default::default()
    })
}

/// Returns the values of a tensor of int64, int32 or truth values, or `None` if the tensor has a different
/// type.
#[must_use]
pub fn integers(tensor: &TensorProto) -> Option<Vec<i64>> {
    let raw = &tensor.raw_data;
    match tensor.data_type {
        INT64 if raw.is_empty() => Some(tensor.int64_data.clone()),
        INT64 => Some(raw.as_chunks::<8>().0.iter().map(|bytes| i64::from_le_bytes(*bytes)).collect()),
        INT32 if raw.is_empty() => Some(tensor.int32_data.iter().copied().map(i64::from).collect()),
        BOOL if raw.is_empty() => {
            Some(tensor.int32_data.iter().map(|value| i64::from(*value != 0)).collect())
        }
        BOOL => Some(raw.iter().map(|byte| i64::from(*byte != 0)).collect()),
        INT32 => Some(raw.as_chunks::<4>().0.iter().map(|bytes| i32::from_le_bytes(*bytes).into()).collect()),
        _ => None,
    }
}

/// Returns the number of bytes of a tensor's raw data, or `None` if its element type or shape is not supported.
#[must_use]
pub fn byte_len(tensor: &TensorProto) -> Option<usize> {
    let element_len = match tensor.data_type {
        // uint8, int8 and truth values.
        2 | 3 | BOOL => 1,
        // uint16, int16, float16 and bfloat16.
        4 | 5 | 10 | 16 => 2,
        // uint32.
        FLOAT | INT32 | 12 => 4,
        // float64 and uint64.
        INT64 | 11 | 13 => 8,
        _ => return None,
    };
    tensor.dims.iter().try_fold(element_len, |len: usize, dim| len.checked_mul(usize::try_from(*dim).ok()?))
}

/// Builds the declaration of a graph's input or output. `None` stands for the symbolic batch dimension.
#[must_use]
pub fn value_info(name: &str, dims: &[Option<i64>]) -> ValueInfoProto {
    let mut info = ValueInfoProto { name: name.into(), ..Default::default() };
    let tensor = info.type_.mut_or_insert_default().mut_tensor_type();
    tensor.elem_type = FLOAT;
    let shape = tensor.shape.mut_or_insert_default();
    shape.dim.resize_with(dims.len(), Default::default);
    for (dim_proto, dim) in shape.dim.iter_mut().zip(dims) {
        match dim {
            Some(size) => dim_proto.set_dim_value(*size),
            None => dim_proto.set_dim_param("batch".into()),
        }
    }
    info
}

/// Returns the element type and the dimensions of a graph's input or output.
///
/// A dimension without a fixed size is `None`.
#[must_use]
pub fn tensor_type(info: &ValueInfoProto) -> (i32, Vec<Option<i64>>) {
    if !info.type_.has_tensor_type() {
        return (0, Vec::new());
    }
    let tensor = info.type_.tensor_type();
    let dims = tensor
        .shape
        .dim
        .iter()
        .map(|dim| dim.has_dim_value().then(|| dim.dim_value()).filter(|size| *size > 0));
    (tensor.elem_type, dims.collect())
}

/// Returns the initializer (constant) called `name`.
#[must_use]
pub fn initializer<'a>(graph: &'a GraphProto, name: &str) -> Option<&'a TensorProto> {
    graph.initializer.iter().find(|tensor| tensor.name == name)
}

/// Returns the number of times that a value is an input of a node or an output of the graph.
#[must_use]
pub fn use_count(graph: &GraphProto, name: &str) -> usize {
    let inputs = graph.node.iter().flat_map(|node| &node.input);
    let outputs = graph.output.iter().map(|output| &output.name);
    inputs.chain(outputs).filter(|used| *used == name).count()
}

/// Returns the index of the only node that uses a value.
///
/// Returns `None` if the value has several uses, or is not an input of any node.
#[must_use]
pub fn only_user(graph: &GraphProto, name: &str) -> Option<usize> {
    if use_count(graph, name) != 1 {
        return None;
    }
    graph.node.iter().position(|node| node.input.iter().any(|input| input == name))
}

/// Returns the index of the node that produces a value.
#[must_use]
pub fn producer(graph: &GraphProto, name: &str) -> Option<usize> {
    graph.node.iter().position(|node| node.output.iter().any(|output| output == name))
}

/// Replaces the value `old_name` by `new_name` in the inputs of every node.
pub fn replace_uses(graph: &mut GraphProto, old_name: &str, new_name: &str) {
    for input in graph.node.iter_mut().flat_map(|node| &mut node.input) {
        if input == old_name {
            *input = new_name.into();
        }
    }
}

/// Returns a name that begins with `base` and that no value of the graph has yet.
#[must_use]
pub fn fresh_name(graph: &GraphProto, base: &str) -> String {
    let is_taken = |name: &str| {
        initializer(graph, name).is_some()
            || producer(graph, name).is_some()
            || graph.input.iter().any(|input| input.name == name)
    };
    (0..).map(|number| format!("{base}_{number}")).find(|name| !is_taken(name)).unwrap_or_default()
}

/// Returns the axes of a Squeeze, Unsqueeze or ReduceMean.
///
/// The axes are an attribute in older opsets, and the node's second input in newer ones.
#[must_use]
pub fn axes(graph: &GraphProto, node: &NodeProto) -> Option<Vec<i64>> {
    if let Some(axes) = node.ints("axes") {
        return Some(axes.to_vec());
    }
    integers(initializer(graph, node.input.get(1)?)?)
}
