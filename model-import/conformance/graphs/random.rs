//! Implements the pseudo-random number generator splitmix64, which gives the same numbers on every platform.

/// The state of the generator.
pub(crate) struct Random(u64);

impl Random {
    /// Creates a generator whose numbers depend only on the seed.
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Returns a number in `low..high`.
    pub(crate) fn float(&mut self, low: f32, high: f32) -> f32 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^= mixed >> 31;
        // Only the upper 16 bits are used, because an f32 represents them exactly.
        let [high_byte, low_byte, ..] = mixed.to_be_bytes();
        let unit = f32::from(u16::from_be_bytes([high_byte, low_byte])) / 65536.0;
        low + unit * (high - low)
    }

    /// Returns `count` numbers in `low..high`.
    pub(crate) fn floats(&mut self, count: usize, low: f32, high: f32) -> Vec<f32> {
        (0..count).map(|_| self.float(low, high)).collect()
    }
}
