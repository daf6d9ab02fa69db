//! Bits, the lowest of each byte first.

use super::vp8l::Broken;

pub(super) struct Bits<'a> {
    rest: &'a [u8],
    /// The next bits; above `count` they are zeros.
    next: u64,
    count: u32,
}

impl<'a> Bits<'a> {
    /// Most bits that are taken at once.
    const MOST: u32 = 32;

    pub(super) fn of(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, next: 0, count: 0 }
    }

    /// How many there are.
    pub(super) fn left(&self) -> usize {
        8 * self.rest.len() + self.count as usize
    }

    /// The next `bits`, without taking them; zeros where the bytes end before.
    pub(super) fn peek(&mut self, bits: u32) -> u32 {
        debug_assert!(bits <= Self::MOST);
        if self.count < bits {
            self.refill();
        }
        let mask = (1u64 << bits) - 1;
        u32::try_from(self.next & mask).unwrap_or_default()
    }

    pub(super) fn drop(&mut self, bits: u32) -> Result<(), Broken> {
        self.count = self.count.checked_sub(bits).ok_or(Broken)?;
        self.next >>= bits;
        Ok(())
    }

    pub(super) fn take(&mut self, bits: u32) -> Result<u32, Broken> {
        let value = self.peek(bits);
        self.drop(bits)?;
        Ok(value)
    }

    pub(super) fn take16(&mut self, bits: u32) -> Result<u16, Broken> {
        u16::try_from(self.take(bits)?).map_err(|_| Broken)
    }

    pub(super) fn take8(&mut self, bits: u32) -> Result<u8, Broken> {
        u8::try_from(self.take(bits)?).map_err(|_| Broken)
    }

    fn refill(&mut self) {
        while self.count <= Self::MOST {
            let Some((&byte, rest)) = self.rest.split_first() else { return };
            self.rest = rest;
            self.next |= u64::from(byte) << self.count;
            self.count += 8;
        }
    }
}
