//! Converts grey, RGB and CMYK pixels to sRGB, the colour space that the networks assume for every image.
//!
//! Many phones write images in Display P3, and print shops write CMYK. If such an image is read as sRGB without
//! its profile, its colours are paler or more garish than intended. Both services use this crate, so that they
//! see the same colours. They convert after resizing, when there are few pixels.
//!
//! The rendering intent is relative colorimetric without black-point compensation, which is the default of
//! libvips. Every kind of profile has the tables of this intent, and its white is the white of the paper.

mod cicp;
mod cmyk;
mod converter;
mod jpeg;
mod png;
mod profile;
#[cfg(feature = "testing")]
pub mod testing;

pub use self::{
    cicp::cicp_profile,
    cmyk::{cmyk_to_rgb, ycbcr_to_rgb},
    converter::{Converter, max_bytes},
    jpeg::{convert_jpeg_samples_to_inks, jpeg_channels, jpeg_profile_bytes, read_jpeg_profile},
    png::{has_png_profile, png_profile_bytes, read_png_profile},
};

/// Maximum length of an ICC profile in bytes. Longer profiles are ignored.
///
/// The profiles of cameras and displays have some kilobytes. Those of print shops have up to three megabytes.
/// The limit is not a setting: both services must show the same colours, and the same upload must always get the same
/// colours.
pub const MAX_PROFILE_BYTES: usize = 4 << 20;
