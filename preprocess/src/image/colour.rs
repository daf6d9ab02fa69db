//! Conversion of colours to sRGB, the colour space that classify assumes for every image.
//!
//! Many phones write images in Display P3. If such an image is read as sRGB without a conversion, its colours
//! are paler than intended. The conversion runs after resizing, when there are few pixels.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use moxcms::{ColorProfile, DataColorSpace, Layout, Transform8BitExecutor, TransformOptions};

/// Converts the colours of images with one particular ICC profile to sRGB.
///
/// A converter is kept from one image to the next, because making a converter takes longer than using it, and
/// most images have the same profile as the previous image.
pub(super) struct SrgbConverter {
    icc_profile: Vec<u8>,
    is_grey: bool,
    /// `None` if the profile changes no colour or cannot be used.
    transform: Option<Arc<Transform8BitExecutor>>,
}

impl SrgbConverter {
    fn new(icc_profile: &[u8], is_grey: bool) -> Self {
        let transform = create_transform(icc_profile, is_grey);
        Self { icc_profile: icc_profile.to_vec(), is_grey, transform }
    }

    /// Returns the approximate number of allocated bytes.
    pub(super) fn allocated_bytes(&self) -> usize {
        /// Estimated length of a transform, which mainly consists of lookup tables.
        const TRANSFORM_BYTES: usize = 256 << 10;
        self.icc_profile.capacity() + TRANSFORM_BYTES
    }
}

/// Converts RGB or grey `pixels` to sRGB, with three bytes per pixel.
///
/// Uses the matrix and curves of an RGB profile, or the curve of a grey profile. A profile of another kind or
/// a damaged profile is ignored, and the pixels are treated as sRGB. `kept_converter` is the converter of the
/// previous image. The converter is replaced when this image has a different profile.
pub(super) fn convert_to_srgb(
    pixels: &mut Vec<u8>,
    is_grey: bool,
    icc_profile: Option<&[u8]>,
    kept_converter: &mut Option<SrgbConverter>,
) {
    // An untrusted profile may cause a panic in moxcms. The image is then treated as sRGB.
    let converted =
        catch_unwind(AssertUnwindSafe(|| try_convert(pixels, is_grey, icc_profile?, kept_converter)));
    match converted {
        Ok(Some(converted)) => *pixels = converted,
        _ if is_grey => *pixels = pixels.iter().flat_map(|&level| [level; 3]).collect(),
        _ => {}
    }
}

/// Returns the converted pixels, or `None` if the profile changes no colour or cannot be used.
fn try_convert(
    pixels: &[u8],
    is_grey: bool,
    icc_profile: &[u8],
    kept_converter: &mut Option<SrgbConverter>,
) -> Option<Vec<u8>> {
    let converter = match kept_converter.take() {
        Some(kept) if kept.icc_profile == icc_profile && kept.is_grey == is_grey => kept,
        _ => SrgbConverter::new(icc_profile, is_grey),
    };
    let transform = kept_converter.insert(converter).transform.as_ref()?;
    let mut converted = vec![0; pixels.len() / source_layout(is_grey).channels() * 3];
    transform.transform(pixels, &mut converted).ok()?;
    Some(converted)
}

fn source_layout(is_grey: bool) -> Layout {
    if is_grey { Layout::Gray } else { Layout::Rgb }
}

/// Returns the transform to sRGB, or `None` if the profile changes no colour or cannot be used.
fn create_transform(icc_profile: &[u8], is_grey: bool) -> Option<Arc<Transform8BitExecutor>> {
    let profile = ColorProfile::new_from_slice(icc_profile).ok()?;
    let is_usable = match profile.color_space {
        DataColorSpace::Rgb => !is_grey && profile.is_matrix_shaper(),
        DataColorSpace::Gray => is_grey,
        _ => false,
    };
    if !is_usable {
        return None;
    }
    let srgb = ColorProfile::new_srgb();
    let options = TransformOptions::default();
    let transform =
        profile.create_transform_8bit(source_layout(is_grey), &srgb, Layout::Rgb, options).ok()?;
    // `changes_colours` tests RGB colours only, so the transform of a grey profile is always kept.
    (is_grey || changes_colours(&*transform)).then_some(transform)
}

/// Returns true if the transform changes any of 216 sample colours (six levels per channel) by more than one
/// level.
///
/// Many cameras embed sRGB profiles whose numbers differ slightly from the standard. The transforms of these
/// profiles change nothing visible and are skipped.
fn changes_colours(transform: &Transform8BitExecutor) -> bool {
    let levels = || (0..=u8::MAX).step_by(51);
    let colours: Vec<u8> = levels()
        .flat_map(|red| levels().flat_map(move |green| levels().flat_map(move |blue| [red, green, blue])))
        .collect();
    let mut converted = vec![0; colours.len()];
    transform.transform(&colours, &mut converted).is_ok()
        && colours.iter().zip(&converted).any(|(before, after)| before.abs_diff(*after) > 1)
}
