//! Bytes to opaque RGB pixels. This is the one place where a decoder is chosen.

use std::{
    error::Error,
    io::Cursor,
    panic::{AssertUnwindSafe, catch_unwind},
};

use image::{
    DynamicImage, ImageDecoder, ImageFormat, ImageReader, RgbImage, RgbaImage, metadata::Orientation,
};

use super::{Format, Header, ImageError, Limits, header};

/// A decoded image: opaque 8-bit RGB.
pub(super) struct Decoded {
    /// The whole picture.
    pub(super) pixels: RgbImage,
    /// How the picture must still be turned. Left to the caller, because turning is cheap once the
    /// picture is small.
    pub(super) orientation: Orientation,
}

/// Decodes `bytes`, whose `header` has been read and let in. Every format goes to the `image` crate;
/// a decoder that is better at one format takes its place in this match.
///
/// # Errors
/// [`ImageError::Corrupt`], [`ImageError::UnsupportedFeature`], [`ImageError::TooMuchMemory`].
pub(super) fn decode(bytes: &[u8], header: &Header, limits: &Limits) -> Result<Decoded, ImageError> {
    let format = match header.format {
        Format::Jpeg if !header::jpeg_is_whole(bytes) => {
            return Err(ImageError::Corrupt { format: header.format, source: "it ends too early".into() });
        }
        Format::Jpeg => ImageFormat::Jpeg,
        Format::Png => ImageFormat::Png,
        Format::WebP => ImageFormat::WebP,
        Format::Gif => ImageFormat::Gif,
        Format::Bmp => ImageFormat::Bmp,
        Format::Tiff => ImageFormat::Tiff,
    };
    // Decoders are other people's code fed with strangers' bytes; some have panicked on them
    // (zune-jpeg 0.5, its issue 409). For the sender that is just another corrupt image.
    catch_unwind(AssertUnwindSafe(|| with_image_crate(bytes, format, header, limits))).unwrap_or_else(|_| {
        Err(ImageError::Corrupt { format: header.format, source: "the decoder panicked".into() })
    })
}

fn with_image_crate(
    bytes: &[u8],
    format: ImageFormat,
    header: &Header,
    limits: &Limits,
) -> Result<Decoded, ImageError> {
    let refused = |error| refusal(header.format, error);
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    reader.limits(limits.for_decoder());
    let mut decoder = reader.into_decoder().map_err(refused)?;
    if decoder.dimensions() != (header.width, header.height) {
        let source = "its header and its pixels disagree about its size".into();
        return Err(ImageError::Corrupt { format: header.format, source });
    }
    if decoder.total_bytes() > limits.decoder_bytes() {
        return Err(ImageError::TooMuchMemory);
    }
    // Metadata that cannot be read is no reason to refuse the picture.
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let image = DynamicImage::from_decoder(decoder).map_err(refused)?;
    Ok(Decoded { pixels: opaque_rgb(image), orientation })
}

fn refusal(format: Format, error: image::ImageError) -> ImageError {
    let source: Box<dyn Error + Send + Sync> = Box::new(error);
    match source.downcast_ref::<image::ImageError>() {
        Some(image::ImageError::Limits(_)) => ImageError::TooMuchMemory,
        Some(image::ImageError::Unsupported(_)) => ImageError::UnsupportedFeature { format, source },
        _ => ImageError::Corrupt { format, source },
    }
}

/// 8-bit RGB; transparency shows white. Done before resizing: the colours that hide under
/// transparent pixels would bleed into their neighbours otherwise.
fn opaque_rgb(image: DynamicImage) -> RgbImage {
    if image.color().has_alpha() { over_white(&image.into_rgba8()) } else { image.into_rgb8() }
}

fn over_white(image: &RgbaImage) -> RgbImage {
    let mut opaque = RgbImage::new(image.width(), image.height());
    for (to, from) in opaque.pixels_mut().zip(image.pixels()) {
        let [red, green, blue, alpha] = from.0;
        to.0 = [red, green, blue].map(|colour| blend(colour, alpha));
    }
    opaque
}

/// `colour` at opacity `alpha` over white, rounded to nearest.
fn blend(colour: u8, alpha: u8) -> u8 {
    let (colour, alpha) = (u32::from(colour), u32::from(alpha));
    let mixed = (colour * alpha + 255 * (255 - alpha) + 127) / 255;
    u8::try_from(mixed).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::blend;

    #[test]
    fn blending_is_exact_at_both_ends_and_rounds_between() {
        for colour in 0..=255 {
            assert_eq!(blend(colour, 255), colour);
            assert_eq!(blend(colour, 0), 255);
        }
        assert_eq!(blend(0, 128), 127);
        assert_eq!(blend(100, 51), 224);
    }
}
