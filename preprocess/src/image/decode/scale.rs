//! The scale for decoders that can scale an image down while they decode it.

use crate::image::header::ImageHeader;

/// Returns the largest of the denominators 8, 4 and 2 that leaves both sides at least twice as long as
/// `target`, or 1 if none of them does.
///
/// Resizing from at least twice the target size gives as good an image as resizing from the full size.
pub(super) fn largest_denominator(width: u32, height: u32, target: (u32, u32)) -> u32 {
    let is_long_enough = |side: u32, wanted: u32, denominator: u32| {
        u64::from(side.div_ceil(denominator)) >= 2 * u64::from(wanted)
    };
    [8, 4, 2]
        .into_iter()
        .find(|&denominator| {
            is_long_enough(width, target.0, denominator) && is_long_enough(height, target.1, denominator)
        })
        .unwrap_or(1)
}

/// Returns the size of an image decoded at 1/`denominator` of its size. Both sides are rounded up to whole
/// pixels.
pub(super) fn scaled_size(header: &ImageHeader, denominator: u32) -> (u32, u32) {
    (header.width.div_ceil(denominator), header.height.div_ceil(denominator))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scaled_sides_are_at_least_twice_the_target() {
        assert_eq!(largest_denominator(4000, 3000, (341, 256)), 4);
        assert_eq!(largest_denominator(5462, 4096, (341, 256)), 8);
        assert_eq!(largest_denominator(5440, 4080, (341, 256)), 4);
        assert_eq!(largest_denominator(1633, 1225, (341, 256)), 2);
        assert_eq!(largest_denominator(640, 480, (341, 256)), 1);
        assert_eq!(largest_denominator(100, 100, (100, 100)), 1);
        assert_eq!(largest_denominator(u32::MAX, u32::MAX, (u32::MAX, u32::MAX)), 1);
    }
}
