//! Conversions of image sizes to numbers of pixels and to lengths in memory.

/// Converts a number of bytes or pixels to a length in memory, saturating at `usize::MAX`.
///
/// No buffer of length `usize::MAX` is ever allocated, because the limits on uploads refuse an image of that
/// size first.
pub(super) fn to_usize(count: u64) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

/// Returns the number of pixels of a `width` × `height` image.
pub(super) fn pixel_count(width: u32, height: u32) -> u64 {
    u64::from(width) * u64::from(height)
}
