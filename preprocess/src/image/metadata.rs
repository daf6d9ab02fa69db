//! Metadata that changes how the decoded pixels are shown: the orientation and the ICC profile.

use image::metadata::Orientation;

use super::header::{
    Coding, ImageHeader,
    tiff::{self, Directory},
    webp,
};

/// Orientation and ICC profile of an upload.
#[derive(Debug)]
pub(super) struct Metadata {
    /// The orientation in EXIF or XMP.
    pub(super) orientation: Orientation,
    /// The ICC profile. If the file stores the profile in several parts, these are joined.
    pub(super) icc_profile: Option<Vec<u8>>,
}

/// Returns the maximum length of the ICC profile that decoding an upload returns, or 0 if there is no profile.
pub(super) fn max_profile_bytes(upload: &[u8], header: &ImageHeader) -> u64 {
    let length = match header.coding {
        Coding::Jpeg(_) => srgb::jpeg_profile_bytes(upload),
        Coding::Png(_) => srgb::png_profile_bytes(upload),
        Coding::WebP(_) => webp::find_profile(upload).map_or(0, |profile| profile.len() as u64),
        // The profile is a part of the metadata.
        Coding::Gif(gif) => gif.metadata_bytes.min(srgb::MAX_PROFILE_BYTES as u64),
        Coding::Tiff(_) => Directory::read(upload)
            .and_then(|directory| directory.data(tiff::tag::ICC_PROFILE))
            .map_or(0, |profile| profile.len() as u64),
        #[cfg(feature = "heic")]
        Coding::Heif(heif) => heif.profile_bytes,
        Coding::Bmp => 0,
    };
    // Longer profiles are ignored.
    if length > srgb::MAX_PROFILE_BYTES as u64 { 0 } else { length }
}
