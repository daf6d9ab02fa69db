//! Conversions between image sizes and lengths in memory.

/// Converts a number of bytes or pixels to a length in memory, saturating at `usize::MAX`.
///
/// The limits refuse larger images long before a buffer of that length is allocated.
pub(super) fn to_usize(count: u64) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

/// Returns the number of pixels of a `width` × `height` image.
pub(super) fn pixel_count(width: u32, height: u32) -> u64 {
    u64::from(width) * u64::from(height)
}
