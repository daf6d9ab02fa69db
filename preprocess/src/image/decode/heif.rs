//! Decoder for HEIC and AVIF that uses `heif-picture` and decodes at full size.

use heif_picture::{ColourSpace, Plan, Rectangle};
use image::metadata::Orientation;
use resize::Channels;

use super::{Decode, DecodeFailure, DecodeJob, DecodedImage, opaque, size_mismatch};
use crate::image::{
    crop::CropWindow,
    error::ImageError,
    format::Format,
    header::{Coding, ImageHeader, heif::image_error},
    scratch::Scratch,
    size::{pixel_count, to_usize},
};

/// The decoder of `heif-picture`.
pub(super) struct HeifDecoder {
    /// Name of the library that decodes the pixels.
    pub(super) name: &'static str,
}

impl Decode for HeifDecoder {
    fn name(&self) -> &'static str {
        self.name
    }

    fn accepts(&self, _: &ImageHeader) -> bool {
        true
    }

    /// Counts the pixels, the alpha channel, and the memory for the part that needs most. Counts also the rows by which
    /// the intermediate image of the resizer is higher than the header states, if the decoded pixels are higher.
    fn max_bytes(&self, header: &ImageHeader, target_size: (u32, u32)) -> u64 {
        let Coding::Heif(heif) = header.coding else { return u64::MAX };
        let more_rows = heif.decoded_height.saturating_sub(header.height);
        let more_bytes = pixel_count(target_size.0, more_rows).saturating_mul(Channels::Rgb.count().into());
        heif.pixel_bytes.saturating_add(heif.decoder_bytes).saturating_add(more_bytes)
    }

    fn decode(&self, job: &DecodeJob<'_>, scratch: &mut Scratch) -> Result<DecodedImage, DecodeFailure> {
        let format = job.header.format();
        let plan = Plan::read(job.bytes).map_err(|error| image_error(error, format))?;
        let Rectangle { width, height, .. } = plan.crop();
        if (width, height) != (job.header.width, job.header.height) {
            return Err(size_mismatch(job).into());
        }
        let icc_profile = icc_profile(plan.colour_space(), format)?;
        let pixels = scratch.zeroed_pixels(plan.colour_bytes() + plan.alpha_bytes());
        let (colours, alpha) = pixels.split_at_mut(plan.colour_bytes());
        plan.decode(colours, alpha).map_err(|error| image_error(error, format))?;
        draw_on_white(&plan, colours, alpha);
        let (decoded_width, decoded_height) = plan.decoded_size();
        let window = plan.window();
        Ok(DecodedImage {
            width: decoded_width,
            height: decoded_height,
            channels: if plan.is_grey() { Channels::Grey } else { Channels::Rgb },
            crop: CropWindow {
                left: window.left,
                top: window.top,
                width: window.width,
                height: window.height,
            },
            // An orientation in EXIF describes how the picture was turned already.
            orientation: Orientation::from_exif(plan.orientation().to_exif())
                .unwrap_or(Orientation::NoTransforms),
            icc_profile,
        })
    }
}

/// Blends the colours with white. An alpha channel of another size is stretched to the size of the picture.
fn draw_on_white(plan: &Plan<'_>, colours: &mut [u8], alpha: &[u8]) {
    let (Some(alpha_size), Some((shown, target))) = (plan.alpha_size(), plan.alpha_windows()) else { return };
    let blend = if plan.is_premultiplied() {
        opaque::blend_premultiplied_with_white
    } else {
        opaque::blend_with_white
    };
    let channel_count = if plan.is_grey() { 1 } else { 3 };
    let [width, alpha_width] = [plan.decoded_size().0, alpha_size.0].map(|side| to_usize(side.into()));
    for (y, row) in colours.chunks_exact_mut(width * channel_count).enumerate() {
        let alpha_y = nearest_pixel(y, (target.top, target.height), (shown.top, shown.height));
        let alpha_row = alpha.get(alpha_y * alpha_width..).unwrap_or_default();
        for (x, pixel) in row.chunks_exact_mut(channel_count).enumerate() {
            let alpha_x = nearest_pixel(x, (target.left, target.width), (shown.left, shown.width));
            let opacity = alpha_row.get(alpha_x).copied().unwrap_or(u8::MAX);
            for colour in pixel {
                *colour = blend(*colour, opacity);
            }
        }
    }
}

/// Returns the pixel of a channel that is stretched from the span `from` to the span `to`, at the pixel `index`.
///
/// A span has a start and a length. Pixels outside the span `to` get the nearest pixel inside the span `from`.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the position is not negative and far below 2^32"
)]
fn nearest_pixel(index: usize, to: (f64, f64), from: (f64, f64)) -> usize {
    let offset = (index as f64 - to.0).max(0.0) * from.1 / to.1;
    // The last pixel contains the end of the span, or ends there.
    let last = (from.0 + from.1).ceil() - 1.0;
    (from.0 + offset).min(last) as usize
}

/// Number of the HDR transfer function PQ in ITU-T H.273.
const PQ: u16 = 16;

/// Returns the ICC profile of the pixels, or `None` for sRGB. A profile that is too long is ignored.
///
/// # Errors
/// Returns [`ImageError::UnsupportedFormat`] for PQ, whose colours would need tone mapping.
fn icc_profile(colour_space: ColourSpace<'_>, format: Format) -> Result<Option<Vec<u8>>, ImageError> {
    match colour_space {
        ColourSpace::Unspecified => Ok(None),
        ColourSpace::Icc(profile) => {
            Ok(Some(profile).filter(|profile| profile.len() <= srgb::MAX_PROFILE_BYTES).map(<[u8]>::to_vec))
        }
        ColourSpace::Cicp { transfer: PQ, .. } => {
            let format_name = format!("{format} with the HDR transfer function PQ");
            Err(ImageError::UnsupportedFormat { format_name })
        }
        ColourSpace::Cicp { primaries, transfer } => Ok(srgb::cicp_profile(primaries, transfer)),
    }
}
