//! PNG, by image-png. Not through `image`, which inflates a colour profile of any length.

use std::io::{Cursor, Read};

use flate2::read::ZlibDecoder;
use image::metadata::Orientation;
use png::{ColorType, Decoder, DecodingError, Limits, Transformations};

use super::{Decode, Decoded, Job, Refusal, corrupt, disagreement, length, opaque, opaque::Layout};
use crate::image::{
    Header, ImageError,
    header::{Coding, jpeg::MAX_PROFILE_BYTES, png as chunks},
    resize::Window,
    scratch::Scratch,
};

/// Memory for everything but the pixels.
const TABLES_BYTES: usize = 1 << 20;

pub(super) struct Png;

impl Decode for Png {
    fn name(&self) -> &'static str {
        "image-png"
    }

    fn takes(&self, _: &Header) -> bool {
        true
    }

    /// The pixels with 8 bits, some rows with 16, tables and an ICC profile.
    fn bytes(&self, header: &Header, _: (u32, u32)) -> u64 {
        let Coding::Png(png) = header.coding else { return u64::MAX };
        let channels = if png.colour { 3 } else { 1 } + u64::from(png.alpha);
        let rows = u64::from(header.width) * 8 * 4;
        header.pixels() * channels + rows + (TABLES_BYTES + MAX_PROFILE_BYTES) as u64
    }

    fn decode(&self, job: &Job<'_>, scratch: &mut Scratch) -> Result<Decoded, Refusal> {
        let Header { width, height, .. } = *job.header;
        let refused = |error| refusal(job, error);
        let mut decoder = Decoder::new_with_limits(Cursor::new(job.bytes), Limits { bytes: TABLES_BYTES });
        decoder.set_ignore_text_chunk(true);
        // Inflated here instead, and not without a limit.
        decoder.set_ignore_iccp_chunk(true);
        decoder.set_transformations(Transformations::normalize_to_color8());
        let mut reader = decoder.read_info().map_err(refused)?;
        if (reader.info().width, reader.info().height) != (width, height) {
            return Err(disagreement(job));
        }
        let layout = match reader.output_color_type().0 {
            ColorType::Grayscale => Layout::Grey,
            ColorType::GrayscaleAlpha => Layout::GreyAlpha,
            ColorType::Rgb => Layout::Rgb,
            ColorType::Rgba => Layout::Rgba,
            ColorType::Indexed => return Err(corrupt(job, "it has no palette").into()),
        };
        let pixels = scratch.pixels(length(job.header.pixels() * layout.bytes()));
        let frame = reader.next_frame(pixels).map_err(refused)?;
        if (frame.width, frame.height) != (width, height) {
            return Err(disagreement(job));
        }
        let exif = reader.info().exif_metadata.as_deref();
        Ok(Decoded {
            width,
            height,
            grey: opaque::make_opaque(pixels, layout),
            window: Window::whole(width, height),
            orientation: exif.and_then(Orientation::from_exif_chunk).unwrap_or(Orientation::NoTransforms),
            profile: chunks::chunk(job.bytes, b"iCCP").and_then(profile),
        })
    }
}

fn refusal(job: &Job<'_>, error: DecodingError) -> ImageError {
    match error {
        DecodingError::LimitsExceeded => ImageError::TooMuchMemory,
        error => corrupt(job, error),
    }
}

/// The profile in an iCCP chunk: a name, zero, the method of compression, the profile compressed.
/// Nothing where it is broken or too long.
fn profile(chunk: &[u8]) -> Option<Vec<u8>> {
    let name_bytes = chunk.iter().position(|&byte| byte == 0)?;
    let compressed = chunk.get(name_bytes + 2..)?;
    let limit = MAX_PROFILE_BYTES as u64 + 1;
    let mut profile = Vec::new();
    ZlibDecoder::new(compressed).take(limit).read_to_end(&mut profile).ok()?;
    (profile.len() <= MAX_PROFILE_BYTES).then_some(profile)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::{Compression, write::ZlibEncoder};

    use super::*;

    #[test]
    fn a_profile_is_inflated_up_to_the_limit() {
        let chunk = |bytes: usize| {
            let mut chunk = ZlibEncoder::new(b"name\0\0".to_vec(), Compression::best());
            chunk.write_all(&vec![7; bytes]).unwrap();
            chunk.finish().unwrap()
        };
        assert_eq!(profile(&chunk(MAX_PROFILE_BYTES)).unwrap().len(), MAX_PROFILE_BYTES);
        assert_eq!(profile(&chunk(MAX_PROFILE_BYTES + 1)), None);
        assert_eq!(profile(b"name\0\0rubbish"), None);
        assert_eq!(profile(b"name"), None);
    }
}
