//! Everything else, by the decoders of the `image` crate, at its whole size.

use std::{error::Error, io::Cursor};

use image::{ColorType, ImageDecoder, ImageFormat, ImageReader, metadata::Orientation};

use super::{
    Decode, Decoded, Job, Refusal, corrupt, disagreement, length, opaque, opaque::Layout, working_rows, zune,
};
use crate::image::{
    Format, Header, ImageError,
    header::{Coding, WebP, jpeg::MAX_PROFILE_BYTES, webp},
    resize::Window,
    scratch::Scratch,
};

/// What a decoder may take for compressed strips and tables.
const TABLES_BYTES: u64 = 32 << 20;

pub(super) struct General;

/// Memory for each pixel, in bytes.
struct PerPixel {
    /// What `image` writes.
    pixels: u64,
    /// What its decoder holds besides.
    besides: u64,
}

impl Decode for General {
    fn name(&self) -> &'static str {
        "image"
    }

    fn takes(&self, _: &Header) -> bool {
        true
    }

    /// What each pixel takes, as found in the code of `image` 0.25, image-webp 0.2 and tiff 0.11; for
    /// TIFF strips and tables besides.
    fn bytes(&self, header: &Header, _: (u32, u32)) -> u64 {
        let PerPixel { pixels, besides } = per_pixel(header);
        let pixels = header.pixels().saturating_mul(pixels + besides);
        pixels.saturating_add(working_rows(header) + tables(header) + metadata(header))
    }

    fn decode(&self, job: &Job<'_>, scratch: &mut Scratch) -> Result<Decoded, Refusal> {
        let Header { width, height, .. } = *job.header;
        let refused = |error| refusal(job.header.format(), error);
        let mut reader = ImageReader::with_format(Cursor::new(job.bytes), image_format(job.header.format()));
        reader.limits(limits(job.header));
        let mut decoder = reader.into_decoder().map_err(refused)?;
        if decoder.dimensions() != (width, height) {
            return Err(disagreement(job));
        }
        let bytes = decoder.total_bytes();
        if bytes > job.header.pixels().saturating_mul(per_pixel(job.header).pixels) {
            return Err(ImageError::TooMuchMemory.into());
        }
        // Metadata that cannot be read is no reason to refuse the picture.
        let (orientation, profile) = match job.header.format() {
            Format::WebP => {
                let metadata = webp::metadata(job.bytes);
                (zune::orientation(metadata.exif), metadata.profile)
            }
            _ => (
                decoder.orientation().unwrap_or(Orientation::NoTransforms),
                decoder.icc_profile().ok().flatten(),
            ),
        };
        let colour = decoder.color_type();
        let pixels = scratch.pixels(length(bytes));
        decoder.read_image(pixels).map_err(refused)?;
        Ok(Decoded {
            width,
            height,
            grey: to_8_bits(job, pixels, colour)?,
            window: Window::whole(width, height),
            orientation,
            profile: profile.filter(|profile| profile.len() <= MAX_PROFILE_BYTES),
        })
    }
}

fn image_format(format: Format) -> ImageFormat {
    match format {
        Format::Jpeg => ImageFormat::Jpeg,
        Format::Png => ImageFormat::Png,
        Format::WebP => ImageFormat::WebP,
        Format::Gif => ImageFormat::Gif,
        Format::Bmp => ImageFormat::Bmp,
        Format::Tiff => ImageFormat::Tiff,
    }
}

fn per_pixel(header: &Header) -> PerPixel {
    let (pixels, besides) = match header.coding {
        // Canvas and frame, and while there is no canvas yet what the frame is decoded from.
        Coding::WebP(WebP { animated: true, .. }) => (4, 9),
        // Tables for one block of 4×4 pixels or more; opaque pixels are decoded with alpha first.
        Coding::WebP(WebP { lossless: true, alpha, .. }) => {
            if alpha {
                (4, 1)
            } else {
                (3, 5)
            }
        }
        // Planes at 1.5 bytes a pixel, rounded up; alpha is a picture without loss of its own.
        Coding::WebP(WebP { lossless: false, alpha, .. }) => {
            if alpha {
                (4, 8)
            } else {
                (3, 2)
            }
        }
        // A frame that does not fill the canvas, and its indices.
        Coding::Gif(_) => (4, 5),
        Coding::Bmp => (4, 0),
        // Decoded in one piece, then copied. Fewer than 8 bits, and CMYK, become 8 and RGB.
        Coding::Tiff(tiff) => {
            let written = u64::from(tiff.samples) * u64::from(tiff.bits.div_ceil(8));
            (written, written)
        }
        Coding::Jpeg(_) | Coding::Png(_) => (4, 4),
    };
    PerPixel { pixels, besides }
}

fn tables(header: &Header) -> u64 {
    match header.coding {
        Coding::Tiff(_) => TABLES_BYTES,
        Coding::WebP(webp) => webp.table_bytes,
        _ => 0,
    }
}

/// What a decoder takes before it knows of limits.
fn metadata(header: &Header) -> u64 {
    match header.coding {
        Coding::Tiff(tiff) => tiff.value_bytes,
        // Kept as it comes, in memory that doubles as it fills.
        Coding::Gif(gif) => 3 * gif.metadata_bytes,
        _ => 0,
    }
}

/// What the decoder may take; our own buffer is besides it.
fn limits(header: &Header) -> image::Limits {
    let mut limits = image::Limits::default();
    limits.max_image_width = Some(header.width);
    limits.max_image_height = Some(header.height);
    let besides = header.pixels().saturating_mul(per_pixel(header).besides);
    limits.max_alloc = Some(besides.saturating_add(tables(header)));
    limits
}

fn refusal(format: Format, error: image::ImageError) -> ImageError {
    let source: Box<dyn Error + Send + Sync> = Box::new(error);
    match source.downcast_ref::<image::ImageError>() {
        Some(image::ImageError::Limits(_)) => ImageError::TooMuchMemory,
        Some(image::ImageError::Unsupported(_)) => ImageError::UnsupportedFeature { format, source },
        _ => ImageError::Corrupt { format, source },
    }
}

/// Opaque pixels with 8 bits; whether they are grey.
fn to_8_bits(job: &Job<'_>, pixels: &mut [u8], colour: ColorType) -> Result<bool, ImageError> {
    let layout = match colour {
        ColorType::L8 | ColorType::L16 => Layout::Grey,
        ColorType::La8 | ColorType::La16 => Layout::GreyAlpha,
        ColorType::Rgb8 | ColorType::Rgb16 | ColorType::Rgb32F => Layout::Rgb,
        ColorType::Rgba8 | ColorType::Rgba16 | ColorType::Rgba32F => Layout::Rgba,
        _ => return Err(corrupt(job, "its colours are of no known kind")),
    };
    match colour {
        ColorType::L16 | ColorType::La16 | ColorType::Rgb16 | ColorType::Rgba16 => {
            opaque::from_16_bits(pixels);
        }
        ColorType::Rgb32F | ColorType::Rgba32F => opaque::from_floats(pixels),
        _ => {}
    }
    let eight_bits = length(job.header.pixels() * layout.bytes());
    Ok(opaque::make_opaque(&mut pixels[..eight_bits], layout))
}
