//! The constants of the compiled-in model: its input size, its classes and the geometry of its crop.

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
/// Number of classes, which is the number of network outputs per image.
pub const CLASSES: usize = spec::LABELS.len();
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

// The sides must fit in `u32`, and the order of the channels must have as many channels as the network.
const _: () =
    assert!(CHANNELS == GEOMETRY.crop.channels.count() && INPUT_SHAPE[1] < 65_536 && INPUT_SHAPE[2] < 65_536);
