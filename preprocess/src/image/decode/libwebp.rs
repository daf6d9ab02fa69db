//! Decoder for lossy, opaque WebP that uses libwebp, which scales down while it decodes.

use std::error::Error;

use resize::Channels;
use webpx::Decoder;

use super::{
    Decode, DecodeFailure, DecodeJob, DecodedImage,
    scale::{largest_denominator, scaled_size},
    working_row_bytes,
};
use crate::image::{
    crop::CropWindow,
    header::{Coding, ImageHeader, WebPHeader, webp},
    scratch::Scratch,
    size::{pixel_count, to_usize},
};

/// The decoder of libwebp.
pub(super) struct LibwebpDecoder;

/// Returns the size to decode to.
///
/// libwebp can scale to any size. This decoder scales to 1/2, 1/4 or 1/8 only, so that each decoded pixel is
/// the average of whole source pixels.
fn decoded_size(header: &ImageHeader, target_size: (u32, u32)) -> (u32, u32) {
    scaled_size(header, largest_denominator(header.width, header.height, target_size))
}

impl Decode for LibwebpDecoder {
    fn name(&self) -> &'static str {
        "libwebp"
    }

    /// Accepts opaque images only. Scaling an image with alpha would let the colours of transparent pixels
    /// bleed into their neighbours.
    fn accepts(&self, header: &ImageHeader) -> bool {
        matches!(
            header.coding,
            Coding::WebP(WebPHeader { is_lossless: false, has_alpha: false, is_animated: false, .. })
        )
    }

    /// Counts the decoded pixels, a copy of the pixels, and the working rows.
    fn max_bytes(&self, header: &ImageHeader, target_size: (u32, u32)) -> u64 {
        let (width, height) = decoded_size(header, target_size);
        pixel_count(width, height) * 3 * 2 + working_row_bytes(header)
    }

    fn decode(&self, job: &DecodeJob<'_>, scratch: &mut Scratch) -> Result<DecodedImage, DecodeFailure> {
        let try_next = |error: Box<dyn Error + Send + Sync>| DecodeFailure::TryNextDecoder(error);
        let (width, height) = decoded_size(job.header, job.target_size);
        let mut decoder = Decoder::new(job.bytes).map_err(|error| try_next(error.to_string().into()))?;
        if (decoder.info().width, decoder.info().height) != (job.header.width, job.header.height) {
            return Err(try_next("the decoder found a different size than the header states".into()));
        }
        if (width, height) != (job.header.width, job.header.height) {
            decoder = decoder.scale(width, height);
        }
        let (pixels, decoded_width, decoded_height) =
            decoder.decode_rgb_raw().map_err(|error| try_next(error.to_string().into()))?;
        let expected_len = to_usize(pixel_count(width, height) * 3);
        if (decoded_width, decoded_height) != (width, height) || pixels.len() != expected_len {
            return Err(try_next("the decoded size differs from the requested size".into()));
        }
        scratch.replace_pixels(pixels);
        let metadata = webp::read_metadata(job.bytes);
        Ok(DecodedImage {
            width,
            height,
            channels: Channels::Rgb,
            crop: CropWindow::whole(width, height),
            orientation: metadata.orientation,
            icc_profile: metadata.icc_profile,
        })
    }
}
