//! The scales at which a picture can be decoded.

/// Ratio of the decoded size to the size of the file's picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// The full size.
    Full,
    /// 1/2 of each side.
    Half,
    /// 1/4 of each side.
    Quarter,
    /// 1/8 of each side.
    Eighth,
}

impl Scale {
    /// Every scale, from the largest picture to the smallest.
    pub const ALL: [Self; 4] = [Self::Full, Self::Half, Self::Quarter, Self::Eighth];

    /// Returns the number by which each side is divided: 1, 2, 4 or 8.
    pub fn denominator(self) -> u32 {
        match self {
            Self::Full => 1,
            Self::Half => 2,
            Self::Quarter => 4,
            Self::Eighth => 8,
        }
    }

    /// Returns the decoded length in pixels of a side of `length` pixels, rounded up as in libjpeg.
    pub fn apply(self, length: u32) -> u32 {
        length.div_ceil(self.denominator())
    }

    /// Returns the scale of the smallest picture whose width and height are at least `min_size`.
    ///
    /// `size` is the size of the file's picture. Both sizes are width and height in pixels. Returns
    /// [`Scale::Full`] if `size` itself is smaller than `min_size`.
    ///
    /// ```
    /// use jpeg_scaled::Scale;
    ///
    /// assert_eq!(Scale::smallest_at_least((4000, 3000), (512, 512)), Scale::Quarter); // 1000×750
    /// assert_eq!(Scale::smallest_at_least((300, 200), (512, 512)), Scale::Full);
    /// ```
    pub fn smallest_at_least(size: (u32, u32), min_size: (u32, u32)) -> Self {
        let is_large_enough =
            |scale: &Self| scale.apply(size.0) >= min_size.0 && scale.apply(size.1) >= min_size.1;
        Self::ALL.into_iter().rfind(is_large_enough).unwrap_or(Self::Full)
    }

    /// Returns the number of samples along each side of the square to which an 8×8 block is decoded.
    pub(crate) fn block_side(self) -> usize {
        match self {
            Self::Full => 8,
            Self::Half => 4,
            Self::Quarter => 2,
            Self::Eighth => 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Scale;

    #[test]
    fn scaled_sides_are_rounded_up() {
        assert_eq!([1, 7, 8, 9, 16, 17].map(|side| Scale::Eighth.apply(side)), [1, 1, 1, 2, 2, 3]);
        assert_eq!([1, 2, 3].map(|side| Scale::Half.apply(side)), [1, 1, 2]);
    }

    #[test]
    fn the_smallest_picture_with_both_sides_large_enough_is_chosen() {
        let scale = |size, min_side| Scale::smallest_at_least(size, (min_side, min_side));
        assert_eq!(scale((4096, 5000), 512), Scale::Eighth);
        assert_eq!(scale((4088, 5000), 512), Scale::Quarter);
        assert_eq!(scale((4089, 5000), 512), Scale::Eighth);
        assert_eq!(scale((5000, 1100), 512), Scale::Half);
        assert_eq!(scale((1022, 1022), 512), Scale::Full);
        assert_eq!(scale((100, 100), 512), Scale::Full);
    }
}
