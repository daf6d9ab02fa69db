//! The constants of the compiled-in model: its input size, its classes and the geometry of its crop.

use crate::pixels::Geometry;

/// Constants that the build generates from the model's folder.
#[expect(clippy::allow_attributes, reason = "the number of labels depends on the model")]
#[allow(clippy::large_const_arrays, reason = "`labels` copies the array into a static once")]
pub mod spec {
    include!(concat!(env!("OUT_DIR"), "/model/spec.rs"));
}

/// Side of the network's square input, in pixels.
pub const CROP_SIDE: usize = spec::INPUT[1];
/// Number of classes, which is the number of network outputs per image.
pub const CLASSES: usize = spec::LABELS.len();
/// Resize and crop that turn an image into the network's input.
#[expect(clippy::cast_possible_truncation, reason = "the assertion below limits `CROP_SIDE`")]
pub const GEOMETRY: Geometry = Geometry { resize: spec::RESIZE, crop: CROP_SIDE as u32 };

/// Number of colour channels of the input: red, green and blue.
pub(super) const CHANNELS: usize = spec::INPUT[0];
/// Number of pixels of the network's input.
pub(super) const CROP_PIXEL_COUNT: usize = CROP_SIDE * CROP_SIDE;

// The code needs three channels, a square input, a side that fits in `u32`, and an input that is not larger
// than the resized image.
const _: () = assert!(
    CHANNELS == 3
        && spec::INPUT[2] == CROP_SIDE
        && CROP_SIDE < 65_536
        && CROP_SIDE as u64 <= spec::RESIZE as u64
);
