//! By how much a picture is made smaller.

/// By how much a picture is made smaller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// As it is.
    Full,
    /// 1/2 of each side.
    Half,
    /// 1/4 of each side.
    Quarter,
    /// 1/8 of each side.
    Eighth,
}

impl Scale {
    /// Every scale, the largest picture first.
    pub const ALL: [Self; 4] = [Self::Full, Self::Half, Self::Quarter, Self::Eighth];

    /// Divides each side: 1, 2, 4 or 8.
    pub fn denominator(self) -> u32 {
        match self {
            Self::Full => 1,
            Self::Half => 2,
            Self::Quarter => 4,
            Self::Eighth => 8,
        }
    }

    /// The length in pixels that a side of `length` pixels has afterwards: rounded up, as libjpeg does.
    pub fn apply(self, length: u32) -> u32 {
        length.div_ceil(self.denominator())
    }

    /// The scale that makes the picture smallest with both sides at least as long as asked for, in
    /// pixels; [`Scale::Full`] where none does.
    pub fn smallest_at_least(size: (u32, u32), wanted: (u32, u32)) -> Self {
        let large_enough = |scale: &Self| scale.apply(size.0) >= wanted.0 && scale.apply(size.1) >= wanted.1;
        Self::ALL.into_iter().rfind(large_enough).unwrap_or(Self::Full)
    }

    /// Samples along each side of the square that an 8×8 block of the full resolution becomes.
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
    fn sides_are_rounded_up() {
        assert_eq!([1, 7, 8, 9, 16, 17].map(|side| Scale::Eighth.apply(side)), [1, 1, 1, 2, 2, 3]);
        assert_eq!([1, 2, 3].map(|side| Scale::Half.apply(side)), [1, 1, 2]);
    }

    #[test]
    fn the_smallest_picture_that_is_large_enough_is_chosen() {
        let scale = |size, wanted| Scale::smallest_at_least(size, (wanted, wanted));
        assert_eq!(scale((4096, 5000), 512), Scale::Eighth);
        assert_eq!(scale((4088, 5000), 512), Scale::Quarter);
        assert_eq!(scale((4089, 5000), 512), Scale::Eighth);
        assert_eq!(scale((5000, 1100), 512), Scale::Half);
        assert_eq!(scale((1022, 1022), 512), Scale::Full);
        assert_eq!(scale((100, 100), 512), Scale::Full);
    }
}
