//! How far a decoder may scale down while it decodes.

/// The largest of 8, 4, 2 and 1 by which both sides can be divided and still are at least twice as long
/// as `target`: the resizer then has enough to choose from, and the result is as good as from the whole
/// picture.
pub(super) fn denominator(width: u32, height: u32, target: (u32, u32)) -> u32 {
    let enough = |side: u32, wanted: u32, denominator: u32| {
        u64::from(side.div_ceil(denominator)) >= 2 * u64::from(wanted)
    };
    [8, 4, 2].into_iter().find(|&by| enough(width, target.0, by) && enough(height, target.1, by)).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twice_the_target_is_left() {
        assert_eq!(denominator(4000, 3000, (341, 256)), 4);
        assert_eq!(denominator(5462, 4096, (341, 256)), 8);
        assert_eq!(denominator(5440, 4080, (341, 256)), 4);
        assert_eq!(denominator(1633, 1225, (341, 256)), 2);
        assert_eq!(denominator(640, 480, (341, 256)), 1);
        assert_eq!(denominator(100, 100, (100, 100)), 1);
        assert_eq!(denominator(u32::MAX, u32::MAX, (u32::MAX, u32::MAX)), 1);
    }
}
