//! Metadata that changes how the decoded pixels are shown: the EXIF orientation and the ICC profile.

/// Maximum length of an ICC profile in bytes. Longer profiles are ignored.
///
/// Profiles of printers can be longer. Profiles of cameras and displays are shorter.
pub(super) const MAX_ICC_PROFILE_BYTES: usize = 1 << 20;

/// EXIF block and ICC profile of an upload.
#[derive(Debug, Default)]
pub(super) struct Metadata<'a> {
    /// The EXIF block, with or without the prefix `Exif\0\0`.
    pub(super) exif: Option<&'a [u8]>,
    /// The ICC profile. If the file stores the profile in several parts, these are joined.
    pub(super) icc_profile: Option<Vec<u8>>,
}
