//! Every kind of JPEG, by zune-jpeg, at its whole size.

use image::metadata::Orientation;
use jpeg_scaled::Scale;
use zune_core::{bytestream::ZCursor, colorspace::ColorSpace, options::DecoderOptions};
use zune_jpeg::JpegDecoder;

use super::{Decode, Decoded, Job, Refusal, corrupt, disagreement, length, working_rows};
use crate::image::{
    Header,
    header::{Coding, Jpeg, jpeg},
    resize::Window,
    scratch::Scratch,
};

pub(super) struct Zune;

impl Decode for Zune {
    fn name(&self) -> &'static str {
        "zune-jpeg"
    }

    fn takes(&self, _: &Header, _: (u32, u32)) -> bool {
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
        if header.is_baseline_jpeg() && jpeg.scans == 1 {
            one_scan(job, &jpeg, scratch)?;
        } else {
            // What is cut off between scans is a picture with less detail, and nothing tells.
            pixels(job, &jpeg, job.bytes, scratch)?;
        }
        let metadata = jpeg::metadata(job.bytes);
        Ok(Decoded {
            width: header.width,
            height: header.height,
            grey: jpeg.components == 1,
            window: Window::whole(header.width, header.height),
            orientation: orientation(metadata.exif),
            profile: metadata.profile,
        })
    }
}

/// Sees to it that the one scan was not cut off and ended with a marker all the same: from that marker on
/// zune-jpeg would decode zeros.
///
/// Counting the blocks of every file would cost a quarter of the time of a small one. So it is not shown
/// the marker: then it makes what is missing grey from the next row of MCUs on. Where the last row of
/// pixels is all of that grey, which may be the picture, or a last row of MCUs so short that zune-jpeg
/// reads over it, jpeg-scaled counts the blocks, and all is decoded again. What is missing of the last row
/// of MCUs alone is not seen.
fn one_scan(job: &Job<'_>, jpeg: &Jpeg, scratch: &mut Scratch) -> Result<(), Refusal> {
    const MISSING: u8 = 128;
    let row = length(u64::from(job.header.width) * channels(jpeg));
    let found = pixels(job, jpeg, &job.bytes[..jpeg.length.min(job.bytes.len())], scratch)?;
    if found.iter().rev().take(row).any(|&level| level != MISSING) {
        return Ok(());
    }
    match scratch.jpeg_scaled(job.bytes, Scale::Eighth) {
        Err(error @ jpeg_scaled::Error::Truncated) => Err(corrupt(job, error).into()),
        _ => pixels(job, jpeg, job.bytes, scratch).map(|_| ()),
    }
}

/// Decodes `bytes`, which are all of the file or its beginning.
fn pixels<'a>(
    job: &Job<'_>,
    jpeg: &Jpeg,
    bytes: &[u8],
    scratch: &'a mut Scratch,
) -> Result<&'a [u8], Refusal> {
    let header = job.header;
    let grey = jpeg.components == 1;
    let options = DecoderOptions::default()
        .jpeg_set_out_colorspace(if grey { ColorSpace::Luma } else { ColorSpace::RGB })
        .jpeg_set_max_scans(length(job.max_scans.into()))
        .set_max_width(length(header.width.into()))
        .set_max_height(length(header.height.into()))
        // It would not see missing pixels before an end marker either, only what cameras leave between
        // segments.
        .set_strict_mode(false);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    decoder.decode_headers().map_err(|error| corrupt(job, error))?;
    if decoder.dimensions() != Some((length(header.width.into()), length(header.height.into()))) {
        return Err(disagreement(job));
    }
    let pixels = scratch.pixels(length(header.pixels() * channels(jpeg)));
    if decoder.output_buffer_size() != Some(pixels.len()) {
        return Err(corrupt(job, "its components are not those of its header").into());
    }
    decoder.decode_into(pixels).map_err(|error| corrupt(job, error))?;
    Ok(pixels)
}

/// Bytes a pixel as decoded.
fn channels(jpeg: &Jpeg) -> u64 {
    if jpeg.components == 1 { 1 } else { 3 }
}

/// Metadata that cannot be read is no reason to refuse the picture.
pub(super) fn orientation(exif: Option<&[u8]>) -> Orientation {
    exif.and_then(Orientation::from_exif_chunk).unwrap_or(Orientation::NoTransforms)
}
