//! Reads bits from bytes, the lowest bit of each byte first.

/// The stream violates the format or ends too early.
#[derive(Debug)]
pub(in crate::image::header) struct CorruptStream;

/// Reads a byte slice bit by bit.
pub(super) struct BitReader<'a> {
    rest: &'a [u8],
    /// The next `buffered_bits` bits. The higher bits are zeros.
    buffer: u64,
    buffered_bits: u32,
}

impl<'a> BitReader<'a> {
    /// Maximum number of bits read at once.
    const MAX_BITS: u32 = 32;

    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, buffer: 0, buffered_bits: 0 }
    }

    /// Returns the number of bits that have not been read.
    pub(super) fn remaining(&self) -> usize {
        8 * self.rest.len() + self.buffered_bits as usize
    }

    /// Returns the next `bits` bits without consuming them. Bits past the end of the slice are zeros.
    pub(super) fn peek(&mut self, bits: u32) -> u32 {
        debug_assert!(bits <= Self::MAX_BITS);
        if self.buffered_bits < bits {
            self.refill();
        }
        let mask = (1u64 << bits) - 1;
        u32::try_from(self.buffer & mask).unwrap_or_default()
    }

    /// Skips bits that [`Self::peek`] has returned. Fails if some of them are past the end of the slice.
    pub(super) fn skip(&mut self, bits: u32) -> Result<(), CorruptStream> {
        self.buffered_bits = self.buffered_bits.checked_sub(bits).ok_or(CorruptStream)?;
        self.buffer >>= bits;
        Ok(())
    }

    pub(super) fn read(&mut self, bits: u32) -> Result<u32, CorruptStream> {
        let value = self.peek(bits);
        self.skip(bits)?;
        Ok(value)
    }

    pub(super) fn read_u16(&mut self, bits: u32) -> Result<u16, CorruptStream> {
        u16::try_from(self.read(bits)?).map_err(|_| CorruptStream)
    }

    pub(super) fn read_u8(&mut self, bits: u32) -> Result<u8, CorruptStream> {
        u8::try_from(self.read(bits)?).map_err(|_| CorruptStream)
    }

    fn refill(&mut self) {
        while self.buffered_bits <= Self::MAX_BITS {
            let Some((&byte, rest)) = self.rest.split_first() else { return };
            self.rest = rest;
            self.buffer |= u64::from(byte) << self.buffered_bits;
            self.buffered_bits += 8;
        }
    }
}
