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
        Ok(DecodedImage {
            width: decoded_width,
            height: decoded_height,
            channels: if plan.is_grey() { Channels::Grey } else { Channels::Rgb },
            crop: decoded_window(&plan),
            // An orientation in EXIF describes how the picture was turned already.
            orientation: Orientation::from_exif(plan.orientation().to_exif())
                .unwrap_or(Orientation::NoTransforms),
            icc_profile,
        })
    }
}

/// Returns the crop of a picture in decoded pixels, which can be stretched to the size that the file states.
fn decoded_window(plan: &Plan<'_>) -> CropWindow {
    let Rectangle { left, top, width, height } = plan.crop();
    let scaled = |start: u32, length: u32, stated: u32, decoded: u32| {
        let scale = f64::from(decoded) / f64::from(stated);
        // Rounding must not move the end behind the last pixel.
        let end = (f64::from(start + length) * scale).min(decoded.into());
        (f64::from(start) * scale, end - f64::from(start) * scale)
    };
    let (left, width) = scaled(left, width, plan.size().0, plan.decoded_size().0);
    let (top, height) = scaled(top, height, plan.size().1, plan.decoded_size().1);
    CropWindow { left, top, width, height }
}

/// Blends the colours with white. An alpha channel of another size is stretched to the size of the picture.
fn draw_on_white(plan: &Plan<'_>, colours: &mut [u8], alpha: &[u8]) {
    let Some(alpha_size) = plan.alpha_size() else { return };
    let blend = if plan.is_premultiplied() {
        opaque::blend_premultiplied_with_white
    } else {
        opaque::blend_with_white
    };
    let channel_count = if plan.is_grey() { 1 } else { 3 };
    let [width, height, alpha_width, alpha_height] =
        [plan.decoded_size().0, plan.decoded_size().1, alpha_size.0, alpha_size.1]
            .map(|side| to_usize(side.into()));
    for (y, row) in colours.chunks_exact_mut(width * channel_count).enumerate() {
        let alpha_row = alpha.get(y * alpha_height / height * alpha_width..).unwrap_or_default();
        for (x, pixel) in row.chunks_exact_mut(channel_count).enumerate() {
            let opacity = alpha_row.get(x * alpha_width / width).copied().unwrap_or(u8::MAX);
            for colour in pixel {
                *colour = blend(*colour, opacity);
            }
        }
    }
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
