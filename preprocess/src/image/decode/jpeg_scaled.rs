//! The usual JPEGs, by jpeg-scaled: smaller while they decode where that will do, in safe Rust.

use jpeg_scaled::{Error, Scale};

use super::{Decode, Decoded, Job, Refusal, corrupt, disagreement, scale, working_rows, zune};
use crate::image::{
    Header,
    header::{Coding, jpeg},
    resize::Window,
    scratch::Scratch,
};

pub(super) struct JpegScaled;

/// The scale for a target.
fn scale_for(header: &Header, target: (u32, u32)) -> Scale {
    let denominator = scale::denominator(header.width, header.height, target);
    Scale::ALL.into_iter().find(|scale| scale.denominator() == denominator).unwrap_or(Scale::Full)
}

impl Decode for JpegScaled {
    fn name(&self) -> &'static str {
        "jpeg-scaled"
    }

    fn takes(&self, header: &Header) -> bool {
        let usual = matches!(header.coding, Coding::Jpeg(jpeg) if matches!(jpeg.components, 1 | 3));
        usual && header.is_baseline_jpeg()
    }

    /// The pixels as decoded and the rows in work. Segments are read where they are.
    fn bytes(&self, header: &Header, target: (u32, u32)) -> u64 {
        let (width, height) = size(header, target);
        let channels = if header.is_grey_jpeg() { 1 } else { 3 };
        u64::from(width) * u64::from(height) * channels + working_rows(header)
    }

    fn decode(&self, job: &Job<'_>, scratch: &mut Scratch) -> Result<Decoded, Refusal> {
        let scale = scale_for(job.header, job.target);
        let (width, height) = scratch.jpeg_scaled(job.bytes, scale).map_err(|error| match error {
            Error::Truncated => corrupt(job, error).into(),
            // What bends the rules is for a decoder that is less strict.
            Error::Corrupt(_) | Error::Unsupported(_) => Refusal::NotMine(error.into()),
        })?;
        if (width, height) != size(job.header, job.target) {
            return Err(disagreement(job));
        }
        let metadata = jpeg::metadata(job.bytes);
        Ok(Decoded {
            width,
            height,
            grey: job.header.is_grey_jpeg(),
            window: Window::scaled(job.header, scale.denominator()),
            orientation: zune::orientation(metadata.exif),
            profile: metadata.profile,
        })
    }
}

/// Size as decoded.
fn size(header: &Header, target: (u32, u32)) -> (u32, u32) {
    let denominator = scale::denominator(header.width, header.height, target);
    (header.width.div_ceil(denominator), header.height.div_ceil(denominator))
}
