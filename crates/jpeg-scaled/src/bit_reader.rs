//! Reads the entropy-coded data bit by bit.
//!
//! After each data byte 0xFF, a JPEG file has a zero byte, which distinguishes the 0xFF from a marker. The
//! reader removes these zero bytes, called stuffing.

use crate::segments::contains_ff;

/// Maximum total number of bits of a Huffman code word (16) and the value after it (15).
const MAX_CODE_WORD_AND_VALUE_BITS: u32 = 16 + 15;

/// A reader that returns the bits up to the next marker or the end of the file, and then zeros.
///
/// The zeros are counted, so that [`Self::is_overrun`] can detect that some of them were consumed.
///
/// The type is `Copy` so that the reader stays in registers while a row of MCUs is decoded. The functions
/// for the rare cases are not inlined. A reference would force the reader into memory, so these functions
/// receive a copy and return the changed copy.
#[derive(Clone, Copy)]
pub(crate) struct BitReader {
    /// Index of the next byte to load into `bits`.
    position: usize,
    /// The next bits, beginning at the most significant one. Only the first `bit_count` bits are valid. The
    /// bits below them are zero, or are the data bits that follow. The next refill ORs the same data into
    /// them, which does not change them.
    bits: u64,
    /// Number of valid bits in `bits`, padding included.
    bit_count: u32,
    /// Number of zeros that were added after the last bit of the data. They are at the end of the valid bits.
    padding_bit_count: u32,
}

impl BitReader {
    /// Minimum number of valid bits after [`BitReader::refill`].
    pub(crate) const MIN_BITS_AFTER_REFILL: u32 = 56;

    /// Creates a reader that starts at the byte with index `position`.
    pub(crate) fn new(position: usize) -> Self {
        Self { position, bits: 0, bit_count: 0, padding_bit_count: 0 }
    }

    /// Returns the next bits, left-aligned, without consuming them.
    #[inline(always)]
    pub(crate) fn peek(&self) -> u64 {
        self.bits
    }

    /// Consumes the next `count` bits, which must be valid.
    #[inline(always)]
    pub(crate) fn consume(&mut self, count: u32) {
        // Shift instructions use the count modulo 64. With the mask, the compiler needs no check of the
        // count.
        self.bits <<= count & 63;
        self.bit_count = self.bit_count.wrapping_sub(count);
    }

    /// Loads bytes until at least [`BitReader::MIN_BITS_AFTER_REFILL`] bits are valid.
    #[inline(always)]
    pub(crate) fn refill(&mut self, bytes: &[u8]) {
        match bytes.get(self.position..).and_then(|rest| rest.first_chunk::<8>()) {
            // If none of the next eight bytes is 0xFF, they contain neither stuffing nor a marker, and can be
            // loaded at once.
            Some(next) if !contains_ff(u64::from_be_bytes(*next)) => {
                self.bits |= u64::from_be_bytes(*next) >> (self.bit_count & 63);
                // Only the bytes that fit completely count as loaded.
                self.position += ((63 - self.bit_count) >> 3) as usize;
                // 56 is 0b111000, so this OR gives the number from 56 to 63 that has the same remainder
                // modulo 8: the count after these bytes.
                self.bit_count |= Self::MIN_BITS_AFTER_REFILL;
            }
            _ => *self = self.refill_bytewise(bytes),
        }
    }

    /// Loads bytes one by one and removes the stuffing. Pads with zeros at a marker or at the end of the
    /// file.
    #[cold]
    #[inline(never)]
    fn refill_bytewise(mut self, bytes: &[u8]) -> Self {
        // The fast path of `refill` may have set bits below the valid ones.
        self.bits &= !(u64::MAX.checked_shr(self.bit_count).unwrap_or(0));
        while self.bit_count < Self::MIN_BITS_AFTER_REFILL {
            let byte = match (bytes.get(self.position), bytes.get(self.position + 1)) {
                (Some(0xFF), Some(0)) => {
                    self.position += 2;
                    0xFF
                }
                (None, _) | (Some(0xFF), _) => {
                    self.padding_bit_count += 8;
                    0
                }
                (Some(&byte), _) => {
                    self.position += 1;
                    byte
                }
            };
            self.bits |= u64::from(byte) << (56 - self.bit_count);
            self.bit_count += 8;
        }
        self
    }

    /// Returns true if padding was consumed, which means that the data has fewer bits than were read.
    #[inline(always)]
    pub(crate) fn is_overrun(&self) -> bool {
        self.padding_bit_count > self.bit_count
    }

    /// Returns true if the next code word or its value may consist partly of padding.
    pub(crate) fn is_nearly_overrun(&self) -> bool {
        self.padding_bit_count > 0 && self.bit_count < self.padding_bit_count + MAX_CODE_WORD_AND_VALUE_BITS
    }

    /// Returns true if the reader stopped at a restart marker.
    pub(crate) fn is_at_restart_marker(&self, bytes: &[u8]) -> bool {
        let rest = bytes.get(self.position..).unwrap_or_default();
        let marker = rest.iter().find(|&&byte| byte != 0xFF);
        marker.is_some_and(|marker| (0xD0..=0xD7).contains(marker))
    }

    /// Returns the next `count` bits, at most 32, and consumes them. They must be valid.
    #[inline(always)]
    pub(crate) fn take_bits(&mut self, count: u32) -> u32 {
        // Two shifts, because a shift by 64 is not possible.
        #[expect(clippy::cast_possible_truncation, reason = "at most 32 bits remain")]
        let bits = (self.bits >> 1 >> ((63 - count) & 63)) as u32;
        self.consume(count);
        bits
    }

    /// Returns the index of the next byte to load, and the number of whole bytes before it that were loaded
    /// but not consumed. The index is that of a marker if the reader stopped at one.
    pub(crate) fn position_and_unread_byte_count(&self) -> (usize, usize) {
        let unread_bit_count = self.bit_count.saturating_sub(self.padding_bit_count);
        (self.position, (unread_bit_count / 8) as usize)
    }
}
