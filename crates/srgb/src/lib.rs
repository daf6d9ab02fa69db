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
mod embedded;
mod profile;
#[cfg(feature = "testing")]
pub mod testing;

pub use self::{
    cicp::cicp_profile,
    cmyk::{JpegInks, cmyk_to_rgb, convert_jpeg_samples_to_inks, ycbcr_to_rgb},
    converter::{Converter, max_bytes},
    embedded::{
        MAX_PROFILE_BYTES, jpeg_profile_bytes, png_profile_bytes, read_jpeg_profile, read_png_profile,
    },
};
