//! RGB pixels to the JPEG that is stored.
//!
//! Quality 95 with full colour resolution (4:4:4) is the default because what is stored is what gets
//! classified. Measured on 126 labelled photos with a shorter side of 256: how many change their
//! top-1 class when the picture goes through the JPEG, and by how much the probability of the class
//! moves (median), for MobileNetV2 / EfficientNet-Lite0; at most 3 % may change.
//!
//! | quality | chroma          | bytes  | top-1 changes | in %      | median change |
//! |--------:|-----------------|-------:|--------------:|----------:|--------------:|
//! |      85 | 4:2:0, averaged | 18,800 |        11 / 9 | 8.7 / 7.1 | 0.033 / 0.029 |
//! |      85 | 4:4:4           | 23,500 |         6 / 6 | 4.8 / 4.8 | 0.022 / 0.024 |
//! |      90 | 4:2:0, averaged | 23,400 |         7 / 4 | 5.6 / 3.2 | 0.024 / 0.023 |
//! |      90 | 4:4:4           | 29,600 |         2 / 4 | 1.6 / 3.2 | 0.011 / 0.015 |
//! |      92 | 4:2:0, averaged | 25,800 |         4 / 2 | 3.2 / 1.6 | 0.014 / 0.016 |
//! |      92 | 4:4:4           | 32,800 |         3 / 2 | 2.4 / 1.6 | 0.009 / 0.012 |
//! |      95 | 4:2:0, averaged | 33,200 |         2 / 3 | 1.6 / 2.4 | 0.011 / 0.016 |
//! |  **95** | **4:4:4**       | 42,800 |         1 / 1 | 0.8 / 0.8 | 0.006 / 0.009 |
//! |      97 | 4:2:0, averaged | 41,200 |         1 / 1 | 0.8 / 0.8 | 0.006 / 0.013 |
//! |      97 | 4:4:4           | 55,300 |         2 / 0 | 1.6 / 0.0 | 0.004 / 0.006 |
//!
//! At the same number of bytes full colour at a lower quality does as well as averaged colour at a
//! higher one or better, so there is no setting for it.

use image::RgbImage;
use jpeg_encoder::{ColorType, Encoder, EncodingError, SamplingFactor};

/// How colour is stored, for the recipe.
pub(super) const CHROMA: &str = "4:4:4";

/// Longest side a JPEG can have.
pub(super) const MAX_SIDE: u32 = 65_535;

/// Encodes `pixels` as a baseline JPEG of `quality` (1 to 100) into `jpeg`.
///
/// # Errors
/// When a side is longer than [`MAX_SIDE`].
pub(super) fn jpeg(pixels: &RgbImage, quality: u8, jpeg: &mut Vec<u8>) -> Result<(), EncodingError> {
    // A side that does not fit becomes 0, which the encoder refuses.
    let side = |length: u32| u16::try_from(length).unwrap_or(0);
    jpeg.clear();
    let mut encoder = Encoder::new(jpeg, quality);
    encoder.set_sampling_factor(SamplingFactor::R_4_4_4);
    encoder.encode(pixels.as_raw(), side(pixels.width()), side(pixels.height()), ColorType::Rgb)
}
