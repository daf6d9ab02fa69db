//! Reads the header of a JPEG and decodes the JPEG with jpeg-scaled.

use image::metadata::Orientation;
use jpeg_scaled::{ColourSpace, Decoder, Error, Scale};
use platform::buffer::ZeroedBuffer;
use resize::Channels;

use super::{ImageError, Picture, Pixels, to_orientation};

/// Number of rows of coefficients that the decoder holds per component at the same time. The largest MCU
/// (minimum coded unit) has 32 rows.
const WORKING_ROWS: u64 = 64;

/// Properties of a JPEG, read from its segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct JpegHeader {
    /// Width in pixels.
    pub(super) width: u32,
    /// Height in pixels.
    pub(super) height: u32,
    colour_space: ColourSpace,
    is_progressive: bool,
    /// Maximum number of scans that [`Self::decode`] accepts.
    max_scans: u32,
    /// Orientation in EXIF or XMP.
    orientation: Orientation,
    /// Length of the ICC profile in bytes, or 0 for none.
    pub(super) profile_bytes: u64,
}

impl JpegHeader {
    /// Reads the segments that precede the pixels. [`Self::decode`] refuses more than `max_scans` scans.
    pub(super) fn read(bytes: &[u8], max_scans: u32) -> Result<Self, Error> {
        let jpeg_scaled::JpegHeader { width, height, colour_space, is_progressive } =
            jpeg_scaled::JpegHeader::read(bytes)?;
        Ok(Self {
            width,
            height,
            colour_space,
            is_progressive,
            max_scans,
            orientation: to_orientation(exif_orientation::read_jpeg_orientation(bytes)),
            profile_bytes: srgb::jpeg_profile_bytes(bytes),
        })
    }

    /// Returns the maximum number of bytes that [`Self::decode`] allocates.
    ///
    /// Counts the pixels, the working rows, and the tables of the scans.
    pub(super) fn max_decoding_bytes(&self) -> u64 {
        let channel_count = self.colour_space.channel_count() as u64;
        let pixel_bytes = u64::from(self.width) * u64::from(self.height) * channel_count;
        let working_bytes = (u64::from(self.width) + 32) * WORKING_ROWS * 2 * channel_count;
        // A baseline JPEG has at most a scan per component.
        let max_scans = u64::from(self.max_scans);
        let max_scans = if self.is_progressive { max_scans } else { max_scans.min(channel_count) };
        pixel_bytes + working_bytes + max_scans * jpeg_scaled::MAX_TABLE_BYTES_PER_SCAN
    }

    /// Returns the channels of a decoded pixel.
    pub(super) fn channels(&self) -> Channels {
        srgb::jpeg_channels(self.colour_space)
    }

    /// Decodes the JPEG `bytes`, whose header is `self`, with `decoder`.
    ///
    /// # Errors
    /// Returns [`ImageError::NotAnImage`] when the JPEG cannot be decoded, for example because it is truncated.
    pub(super) fn decode(&self, bytes: &[u8], decoder: &mut Decoder) -> Result<Picture, ImageError> {
        let sample_count =
            u64::from(self.width) * u64::from(self.height) * self.colour_space.channel_count() as u64;
        let mut buffer = ZeroedBuffer::new(usize::try_from(sample_count).unwrap_or(usize::MAX));
        decoder.set_max_scans(usize::try_from(self.max_scans).unwrap_or(usize::MAX));
        decoder.decode_into_slice(bytes, Scale::Full, &mut buffer).map_err(ImageError::corrupt)?;
        srgb::convert_jpeg_samples_to_inks(&mut buffer, self.colour_space);
        Ok(Picture {
            pixels: Pixels { length: buffer.len(), buffer },
            channels: self.channels(),
            orientation: self.orientation,
            // Without a profile, the segments need not be searched again.
            icc_profile: (self.profile_bytes > 0).then(|| srgb::read_jpeg_profile(bytes)).flatten(),
        })
    }
}
