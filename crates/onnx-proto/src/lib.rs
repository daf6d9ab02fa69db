//! The protobuf messages of ONNX files.
//!
//! `src/generated.rs` is generated from `src/onnx.proto`, and a test compares the two. It is committed because the
//! generator takes longer to compile than the rest of the program `model-import`. The crate onnx-ir contains the same
//! messages, but it depends on parts of burn.

#[expect(
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    clippy::cast_possible_truncation,
    clippy::missing_panics_doc,
    clippy::panic,
    unreachable_pub,
    reason = "protobuf-codegen generates this module"
)]
#[rustfmt::skip]
mod generated;

pub use generated::attribute_proto::AttributeType;
pub use generated::tensor_proto::{DataLocation, DataType};
pub use generated::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, StringStringEntryProto,
    TensorProto, TensorShapeProto, TypeProto, ValueInfoProto,
};
pub use protobuf::Message;
