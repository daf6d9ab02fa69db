//! Reads bits from bytes, the lowest bit of each byte first.

/// The stream violates the format or ends too early.
#[derive(Debug)]
pub(in crate::image::header) struct CorruptStream;

/// Reads a byte slice bit by bit.
pub(super) struct BitReader<'a> {
    rest: &'a [u8],
    /// The next `buffered_count` bits, the first one lowest. The higher bits are zeros.
    buffer: u64,
    /// Number of bits in the buffer.
    buffered_count: u32,
}

impl<'a> BitReader<'a> {
    /// Maximum number of bits that one call can read.
    const MAX_BITS: u32 = 32;

    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, buffer: 0, buffered_count: 0 }
    }

    /// Returns the number of bits that have not been read.
    pub(super) fn remaining_bits(&self) -> usize {
        8 * self.rest.len() + self.buffered_count as usize
    }

    /// Returns the next `count` bits without consuming them. Bits past the end of the slice are zeros.
    pub(super) fn peek(&mut self, count: u32) -> u32 {
        debug_assert!(count <= Self::MAX_BITS);
        if self.buffered_count < count {
            self.refill();
        }
        let mask = (1u64 << count) - 1;
        u32::try_from(self.buffer & mask).unwrap_or_default()
    }

    /// Skips `count` bits that [`Self::peek`] has returned.
    ///
    /// # Errors
    /// Returns [`CorruptStream`] if some of the bits are past the end of the slice.
    pub(super) fn skip(&mut self, count: u32) -> Result<(), CorruptStream> {
        self.buffered_count = self.buffered_count.checked_sub(count).ok_or(CorruptStream)?;
        self.buffer >>= count;
        Ok(())
    }

    /// Reads the next `count` bits.
    pub(super) fn read(&mut self, count: u32) -> Result<u32, CorruptStream> {
        let value = self.peek(count);
        self.skip(count)?;
        Ok(value)
    }

    pub(super) fn read_u16(&mut self, count: u32) -> Result<u16, CorruptStream> {
        u16::try_from(self.read(count)?).map_err(|_| CorruptStream)
    }

    pub(super) fn read_u8(&mut self, count: u32) -> Result<u8, CorruptStream> {
        u8::try_from(self.read(count)?).map_err(|_| CorruptStream)
    }

    /// Appends whole bytes to the buffer until it has more than [`Self::MAX_BITS`] bits or the slice ends.
    fn refill(&mut self) {
        while self.buffered_count <= Self::MAX_BITS {
            let Some((&byte, rest)) = self.rest.split_first() else { return };
            self.rest = rest;
            self.buffer |= u64::from(byte) << self.buffered_count;
            self.buffered_count += 8;
        }
    }
}
