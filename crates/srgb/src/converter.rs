//! Conversion of pixels by a profile, or without one.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use moxcms::{
    ColorProfile, DataColorSpace, Layout, RenderingIntent, Transform8BitExecutor, TransformOptions,
};
use resize::Channels;

use crate::{cmyk::cmyk_to_rgb, profile};

/// Converts pixels to sRGB.
///
/// Keeps the transform of the last profile, because making a transform takes longer than using it, and most images
/// have the same profile as the previous image.
#[derive(Default)]
pub struct Converter {
    kept: Option<ProfileTransform>,
}

/// The transform of a profile for pixels with particular channels.
struct ProfileTransform {
    icc_profile: Vec<u8>,
    channels: Channels,
    /// `None` if the profile changes no colour or cannot be used.
    transform: Option<Arc<Transform8BitExecutor>>,
}

/// Returns the maximum number of bytes that a conversion by a profile of `profile_bytes` bytes allocates, and that
/// [`Converter`] keeps. The pixels are not included.
///
/// Counts a copy of the profile, a copy with fewer tags, the parsed table, the table as floats, and the table of the
/// transform.
pub fn max_bytes(profile_bytes: u64, channels: Channels) -> u64 {
    /// A table entry of one byte becomes a float of four bytes.
    const BYTES_PER_PROFILE_BYTE: u64 = 8;
    profile_bytes * BYTES_PER_PROFILE_BYTE + transform_bytes(channels) as u64
}

/// Returns the maximum number of bytes that making a transform takes, besides copies of the profile.
///
/// CMYK has a table of 17⁴ colours, and RGB one of 33³ colours. While a table is computed, each of its colours has up
/// to seven floats, and each curve has 65,536.
fn transform_bytes(channels: Channels) -> usize {
    match channels {
        Channels::Grey => 1 << 20,
        Channels::Rgb => 3 << 20,
        Channels::Cmyk => 5 << 20,
    }
}

impl Converter {
    /// Converts pixels to sRGB, with three bytes per pixel.
    ///
    /// A profile for other channels, a damaged profile and a profile of an unknown kind are ignored: RGB and grey
    /// pixels are then taken to be sRGB, and CMYK is converted with a simple formula. This is what browsers do.
    pub fn convert(&mut self, pixels: Vec<u8>, channels: Channels, icc_profile: Option<&[u8]>) -> Vec<u8> {
        // A crafted profile may cause a panic in moxcms. The profile is then ignored.
        let converted = icc_profile.and_then(|icc_profile| {
            catch_unwind(AssertUnwindSafe(|| self.try_convert(&pixels, channels, icc_profile))).ok().flatten()
        });
        converted.unwrap_or_else(|| convert_without_profile(pixels, channels))
    }

    /// Returns the approximate number of allocated bytes.
    pub fn allocated_bytes(&self) -> usize {
        self.kept.as_ref().map_or(0, |kept| kept.icc_profile.capacity() + transform_bytes(kept.channels) / 2)
    }

    /// Returns the converted pixels, or `None` if the profile changes no colour or cannot be used.
    fn try_convert(&mut self, pixels: &[u8], channels: Channels, icc_profile: &[u8]) -> Option<Vec<u8>> {
        let kept = match self.kept.take() {
            Some(kept) if kept.icc_profile == icc_profile && kept.channels == channels => kept,
            _ => ProfileTransform {
                icc_profile: icc_profile.to_vec(),
                channels,
                transform: create_transform(icc_profile, channels),
            },
        };
        let transform = self.kept.insert(kept).transform.as_ref()?;
        let mut converted = vec![0; pixels.len() / usize::from(channels.count()) * 3];
        transform.transform(pixels, &mut converted).ok()?;
        Some(converted)
    }
}

fn convert_without_profile(pixels: Vec<u8>, channels: Channels) -> Vec<u8> {
    match channels {
        Channels::Grey => pixels.into_iter().flat_map(|level| [level; 3]).collect(),
        Channels::Rgb => pixels,
        Channels::Cmyk => pixels.as_chunks().0.iter().flat_map(|&inks| cmyk_to_rgb(inks)).collect(),
    }
}

/// Returns the transform to sRGB, or `None` if the profile changes no colour or cannot be used.
fn create_transform(icc_profile: &[u8], channels: Channels) -> Option<Arc<Transform8BitExecutor>> {
    let profile = ColorProfile::new_from_slice(&profile::reduce(icc_profile, channels)?).ok()?;
    let has_table = profile.lut_a_to_b_colorimetric.is_some();
    let (layout, is_usable) = match channels {
        Channels::Grey => (Layout::Gray, profile.color_space == DataColorSpace::Gray),
        Channels::Rgb => {
            let has_curves = profile.is_matrix_shaper() && profile.pcs == DataColorSpace::Xyz;
            (Layout::Rgb, profile.color_space == DataColorSpace::Rgb && (has_table || has_curves))
        }
        Channels::Cmyk => (Layout::Rgba, profile.color_space == DataColorSpace::Cmyk && has_table),
    };
    if !is_usable {
        return None;
    }
    let options = TransformOptions {
        rendering_intent: RenderingIntent::RelativeColorimetric,
        ..TransformOptions::default()
    };
    let transform =
        profile.create_transform_8bit(layout, &ColorProfile::new_srgb(), Layout::Rgb, options).ok()?;
    (channels != Channels::Rgb || changes_colours(&*transform)).then_some(transform)
}

/// Returns true if the transform changes any of 216 sample colours (six levels per channel) by more than one level.
///
/// Many cameras embed sRGB profiles whose numbers differ slightly from the standard. The transforms of these profiles
/// change nothing visible and are skipped.
fn changes_colours(transform: &Transform8BitExecutor) -> bool {
    let levels = || (0..=u8::MAX).step_by(51);
    let colours: Vec<u8> = levels()
        .flat_map(|red| levels().flat_map(move |green| levels().flat_map(move |blue| [red, green, blue])))
        .collect();
    let mut converted = vec![0; colours.len()];
    transform.transform(&colours, &mut converted).is_ok()
        && colours.iter().zip(&converted).any(|(before, after)| before.abs_diff(*after) > 1)
}
