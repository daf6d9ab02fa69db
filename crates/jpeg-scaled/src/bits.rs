//! The bits of the entropy-coded pixels, without stuffing.

/// Most bits of a code and the number after it.
const MAX_CODE_AND_NUMBER: u32 = 16 + 15;

/// Reads bits up to the next marker or the end of the file, then zeros that are counted.
///
/// Kept in registers while a row of MCUs is decoded, so the way that is seldom taken gets a copy and
/// gives one back.
#[derive(Clone, Copy)]
pub(crate) struct BitReader {
    /// Where the byte is that comes into `bits` next.
    at: usize,
    /// The next bits, from the highest down. Below `count` of them are more of the same, or zeros.
    bits: u64,
    /// How many of `bits` are counted as taken from the file.
    count: u32,
    /// How many zeros came after the last bit of the file: all of them are at the end of `bits`.
    padding: u32,
}

impl BitReader {
    /// Fewest bits that are there after [`BitReader::refill`].
    pub(crate) const REFILLED: u32 = 56;

    /// Begins with the byte at `at`.
    pub(crate) fn new(at: usize) -> Self {
        Self { at, bits: 0, count: 0, padding: 0 }
    }

    /// The next bits, left-aligned.
    #[inline(always)]
    pub(crate) fn peek(&self) -> u64 {
        self.bits
    }

    /// Takes bits that have been looked at, at most as many as are there.
    #[inline(always)]
    pub(crate) fn take(&mut self, bits: u32) {
        // A processor takes a shift modulo 64 anyway: without the mask it would have to be checked.
        self.bits <<= bits & 63;
        self.count = self.count.wrapping_sub(bits);
    }

    /// Sees to it that there are at least [`BitReader::REFILLED`] bits.
    #[inline(always)]
    pub(crate) fn refill(&mut self, bytes: &[u8]) {
        match bytes.get(self.at..).and_then(|rest| rest.first_chunk::<8>()) {
            Some(next) if !has_ff(u64::from_be_bytes(*next)) => {
                self.bits |= u64::from_be_bytes(*next) >> (self.count & 63);
                self.at += ((63 - self.count) >> 3) as usize;
                self.count |= Self::REFILLED;
            }
            _ => *self = self.refill_slowly(bytes),
        }
    }

    /// Byte by byte: without stuffing, and with zeros from a marker or the end of the file on.
    #[cold]
    #[inline(never)]
    fn refill_slowly(mut self, bytes: &[u8]) -> Self {
        self.bits &= !(u64::MAX.checked_shr(self.count).unwrap_or(0));
        while self.count < Self::REFILLED {
            let byte = match (bytes.get(self.at), bytes.get(self.at + 1)) {
                (Some(0xFF), Some(0)) => {
                    self.at += 2;
                    0xFF
                }
                (None, _) | (Some(0xFF), _) => {
                    self.padding += 8;
                    0
                }
                (Some(&byte), _) => {
                    self.at += 1;
                    byte
                }
            };
            self.bits |= u64::from(byte) << (56 - self.count);
            self.count += 8;
        }
        self
    }

    /// Whether more bits were taken than the file has before the next marker.
    #[inline(always)]
    pub(crate) fn overrun(&self) -> bool {
        self.padding > self.count
    }

    /// Whether so few bits are left that any code may be one that was cut off.
    pub(crate) fn nearly_overrun(&self) -> bool {
        self.padding > 0 && self.count < self.padding + MAX_CODE_AND_NUMBER
    }

    /// Whether what stopped it is a restart marker.
    pub(crate) fn at_restart_marker(&self, bytes: &[u8]) -> bool {
        let rest = bytes.get(self.at..).unwrap_or_default();
        let marker = rest.iter().find(|&&byte| byte != 0xFF);
        marker.is_some_and(|marker| (0xD0..=0xD7).contains(marker))
    }

    /// Where the entropy-coded bytes end, after the last bit was taken; none where whole bytes are left.
    pub(crate) fn end(&self) -> Option<usize> {
        (self.count < self.padding + 8).then_some(self.at)
    }
}

/// Whether any byte of `word` is 0xFF.
#[inline(always)]
fn has_ff(word: u64) -> bool {
    const LOW: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = LOW << 7;
    // A byte of `!word` that is zero borrows from its highest bit, which is set in `word`.
    (!word).wrapping_sub(LOW) & word & HIGH != 0
}
