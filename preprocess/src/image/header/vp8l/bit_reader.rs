//! A reader of single bits, which starts with the lowest bit of each byte.

/// The stream breaks the rules of the format or ends too early.
#[derive(Debug)]
pub(in crate::image::header) struct CorruptStream;

/// Reads a byte slice bit by bit.
pub(super) struct BitReader<'a> {
    rest: &'a [u8],
    /// The next `count` bits. The higher bits are zeros.
    next: u64,
    count: u32,
}

impl<'a> BitReader<'a> {
    /// Maximum number of bits read at once.
    const MAX_BITS: u32 = 32;

    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, next: 0, count: 0 }
    }

    /// Returns the number of bits that have not been read.
    pub(super) fn remaining(&self) -> usize {
        8 * self.rest.len() + self.count as usize
    }

    /// Returns the next `bits` bits without consuming them. Bits past the end of the slice are zeros.
    pub(super) fn peek(&mut self, bits: u32) -> u32 {
        debug_assert!(bits <= Self::MAX_BITS);
        if self.count < bits {
            self.refill();
        }
        let mask = (1u64 << bits) - 1;
        u32::try_from(self.next & mask).unwrap_or_default()
    }

    /// Skips bits that [`Self::peek`] has returned.
    pub(super) fn skip(&mut self, bits: u32) -> Result<(), CorruptStream> {
        self.count = self.count.checked_sub(bits).ok_or(CorruptStream)?;
        self.next >>= bits;
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
        while self.count <= Self::MAX_BITS {
            let Some((&byte, rest)) = self.rest.split_first() else { return };
            self.rest = rest;
            self.next |= u64::from(byte) << self.count;
            self.count += 8;
        }
    }
}
