//! Every kind of JPEG, by zune-jpeg, at its whole size.

use image::metadata::Orientation;
use zune_core::{bytestream::ZCursor, colorspace::ColorSpace, options::DecoderOptions};
use zune_jpeg::JpegDecoder;

use super::{Decode, Decoded, Job, Refusal, corrupt, disagreement, length, working_rows};
use crate::image::{
    Header, ImageError,
    header::{Coding, Jpeg, Process, jpeg},
    resize::Window,
    scratch::Scratch,
};

pub(super) struct Zune;

impl Decode for Zune {
    fn name(&self) -> &'static str {
        "zune-jpeg"
    }

    fn takes(&self, _: &Header) -> bool {
        true
    }

    /// The pixels, the rows in work, the segments; and all coefficients where rows are not ready before
    /// the last scan.
    fn bytes(&self, header: &Header, _: (u32, u32)) -> u64 {
        let Coding::Jpeg(jpeg) = header.coding else { return u64::MAX };
        let coefficients = if jpeg.comes_in_several_scans() { 2 * jpeg.samples } else { 0 };
        header.pixels() * channels(&jpeg) + coefficients + working_rows(header) + jpeg.segment_bytes
    }

    fn decode(&self, job: &Job<'_>, scratch: &mut Scratch) -> Result<Decoded, Refusal> {
        let header = job.header;
        let Coding::Jpeg(jpeg) = header.coding else {
            return Err(corrupt(job, "it is no JPEG").into());
        };
        if jpeg.process == Process::Other {
            let source = "arithmetic codes, samples of more than 8 bits, or no loss".into();
            return Err(ImageError::UnsupportedFeature { format: header.format(), source }.into());
        }
        let grey = jpeg.components == 1;
        let options = DecoderOptions::default()
            .jpeg_set_out_colorspace(if grey { ColorSpace::Luma } else { ColorSpace::RGB })
            .jpeg_set_max_scans(length(job.max_scans.into()))
            .set_max_width(length(header.width.into()))
            .set_max_height(length(header.height.into()))
            // It would not see missing pixels before an end marker either, only what cameras leave
            // between segments.
            .set_strict_mode(false);
        let mut decoder = JpegDecoder::new_with_options(ZCursor::new(job.bytes), options);
        decoder.decode_headers().map_err(|error| corrupt(job, error))?;
        if decoder.dimensions() != Some((length(header.width.into()), length(header.height.into()))) {
            return Err(disagreement(job));
        }
        let pixels = scratch.pixels(length(header.pixels() * channels(&jpeg)));
        if decoder.output_buffer_size() != Some(pixels.len()) {
            return Err(corrupt(job, "its components are not those of its header").into());
        }
        decoder.decode_into(pixels).map_err(|error| corrupt(job, error))?;
        let metadata = jpeg::metadata(job.bytes);
        Ok(Decoded {
            width: header.width,
            height: header.height,
            grey,
            window: Window::whole(header.width, header.height),
            orientation: orientation(metadata.exif),
            profile: metadata.profile,
        })
    }
}

/// Bytes a pixel as decoded.
fn channels(jpeg: &Jpeg) -> u64 {
    if jpeg.components == 1 { 1 } else { 3 }
}

/// Metadata that cannot be read is no reason to refuse the picture.
pub(super) fn orientation(exif: Option<&[u8]>) -> Orientation {
    exif.and_then(Orientation::from_exif_chunk).unwrap_or(Orientation::NoTransforms)
}
