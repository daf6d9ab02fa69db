//! The constants of the compiled-in model: its input size, its classes and the geometry of its crop.

use contract::ModelId;

use super::head::{Head, OutputKind};
use crate::pixels::{CropShape, Geometry};

/// Constants that the build generates from the model's folder.
#[expect(clippy::allow_attributes, reason = "the number of labels depends on the model")]
#[allow(clippy::large_const_arrays, reason = "`labels` copies the array into a static once")]
pub mod spec {
    use crate::{
        model::Normalisation,
        pixels::{ChannelOrder, Filter, Resize},
    };

    include!(concat!(env!("OUT_DIR"), "/model/spec.rs"));
}

/// Shape of one image at the network's input: channels, height and width.
pub const INPUT_SHAPE: [usize; 3] = spec::INPUT;
/// Number of classes, which is 0 for a model of embeddings.
pub const CLASSES: usize = spec::LABELS.len();
/// Head of the compiled-in model.
pub static HEAD: Head = Head {
    kind: spec::OUTPUT_KIND,
    output_count: spec::OUTPUT_COUNT,
    needs_sigmoid: spec::OUTPUT_NEEDS_SIGMOID,
    threshold: spec::THRESHOLD,
    labels: &LABELS,
};

/// WordNet id and label of each class, in a static so that there is only one copy of the table.
static LABELS: [(&str, &str); CLASSES] = spec::LABELS;
/// Resize and crop that turn an image into the network's input.
#[expect(clippy::cast_possible_truncation, reason = "the assertion below limits the sides")]
pub const GEOMETRY: Geometry = Geometry {
    resize: spec::RESIZE,
    filter: spec::FILTER,
    crop: CropShape {
        height: INPUT_SHAPE[1] as u32,
        width: INPUT_SHAPE[2] as u32,
        channels: spec::CHANNEL_ORDER,
    },
};

/// Number of colour channels of the input.
pub(super) const CHANNELS: usize = INPUT_SHAPE[0];

/// Returns the identity of the compiled-in model.
pub fn compiled_model() -> ModelId {
    ModelId::new(spec::NAME, spec::ONNX_SHA256)
}

// The sides must fit in `u32`, and the order of the channels must have as many channels as the network.
const _: () =
    assert!(CHANNELS == GEOMETRY.crop.channels.count() && INPUT_SHAPE[1] < 65_536 && INPUT_SHAPE[2] < 65_536);

// A longer embedding would not fit in its record.
const _: () = assert!(
    !matches!(spec::OUTPUT_KIND, OutputKind::Embedding)
        || spec::OUTPUT_COUNT <= contract::MAX_EMBEDDING_LENGTH
);
