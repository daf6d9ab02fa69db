//! Reads numbers of any number of bits.

use crate::error::Error;

/// Reads bits from the start of a slice, the highest bit of each byte first.
pub(crate) struct BitReader<'a> {
    bytes: &'a [u8],
    /// Number of bits that were read.
    position: usize,
}

impl<'a> BitReader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, position: 0 }
    }

    pub(crate) fn flag(&mut self) -> Result<bool, Error> {
        let byte = self.bytes.get(self.position / 8).ok_or(Error::Corrupt("a header ends too early"))?;
        let bit = byte >> (7 - self.position % 8) & 1;
        self.position += 1;
        Ok(bit != 0)
    }

    /// Reads a number of at most 32 bits.
    pub(crate) fn uint(&mut self, bit_count: u32) -> Result<u32, Error> {
        let mut number = 0;
        for _ in 0..bit_count {
            number = number << 1 | u32::from(self.flag()?);
        }
        Ok(number)
    }

    pub(crate) fn skip(&mut self, bit_count: u32) -> Result<(), Error> {
        for _ in 0..bit_count {
            self.flag()?;
        }
        Ok(())
    }

    /// Skips a number in the Exp-Golomb code.
    pub(crate) fn skip_golomb(&mut self) -> Result<(), Error> {
        let mut bit_count = 0;
        while !self.flag()? {
            bit_count += 1;
        }
        // AV1 has no further bits behind 32 zeros.
        if bit_count < 32 { self.skip(bit_count) } else { Ok(()) }
    }
}
