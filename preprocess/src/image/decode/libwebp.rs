//! The usual WebP, lossy and opaque, by libwebp, scaled down while it decodes.

use webpx::Decoder;

use super::{Decode, Decoded, Job, Refusal, length, scale, working_rows, zune};
use crate::image::{
    Header,
    header::{Coding, WebP, webp},
    resize::Window,
    scratch::Scratch,
};

pub(super) struct LibWebP;

/// libwebp scales to any size; halves, quarters and eighths are averages of whole pixels.
fn size(header: &Header, target: (u32, u32)) -> (u32, u32) {
    let denominator = scale::denominator(header.width, header.height, target);
    (header.width.div_ceil(denominator), header.height.div_ceil(denominator))
}

impl Decode for LibWebP {
    fn name(&self) -> &'static str {
        "libwebp"
    }

    /// With alpha the colours under transparent pixels would bleed into the others.
    fn takes(&self, header: &Header) -> bool {
        matches!(header.coding, Coding::WebP(WebP { lossless: false, alpha: false, animated: false, .. }))
    }

    /// The pixels as decoded, a copy of them, and the rows in work.
    fn bytes(&self, header: &Header, target: (u32, u32)) -> u64 {
        let (width, height) = size(header, target);
        u64::from(width) * u64::from(height) * 3 * 2 + working_rows(header)
    }

    fn decode(&self, job: &Job<'_>, scratch: &mut Scratch) -> Result<Decoded, Refusal> {
        let not_mine = |error: Box<dyn std::error::Error + Send + Sync>| Refusal::NotMine(error);
        let (width, height) = size(job.header, job.target);
        let mut decoder = Decoder::new(job.bytes).map_err(|error| not_mine(error.to_string().into()))?;
        if (decoder.info().width, decoder.info().height) != (job.header.width, job.header.height) {
            return Err(not_mine("it found another size".into()));
        }
        if (width, height) != (job.header.width, job.header.height) {
            decoder = decoder.scale(width, height);
        }
        let (pixels, decoded_width, decoded_height) =
            decoder.decode_rgb_raw().map_err(|error| not_mine(error.to_string().into()))?;
        let expected = length(u64::from(width) * u64::from(height) * 3);
        if (decoded_width, decoded_height) != (width, height) || pixels.len() != expected {
            return Err(not_mine("it decoded to another size".into()));
        }
        scratch.take(pixels);
        let metadata = webp::metadata(job.bytes);
        Ok(Decoded {
            width,
            height,
            grey: false,
            window: Window::whole(width, height),
            orientation: zune::orientation(metadata.exif),
            profile: metadata.profile,
        })
    }
}
