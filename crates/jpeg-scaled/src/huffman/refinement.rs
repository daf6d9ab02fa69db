//! Decodes the code words of scans that refine AC coefficients.

use super::{
    codebook::{CodeWord, Codebook},
    lookup::decode_all_indices,
    stored_table::StoredTable,
    table_set::LookupTable,
};
use crate::Error;

/// Number of bits that index a refinement table.
const LOOKUP_BITS: u32 = 10;

/// A table that decodes the code words of a refinement scan, each together with the sign bit after it.
pub(crate) struct RefinementTable {
    entries: [RefinementEntry; 1 << LOOKUP_BITS],
    codebook: Codebook,
}

/// An entry of a [`RefinementTable`], which represents one of:
/// - a coefficient that becomes 1 or -1, after a run of coefficients that stay zero
/// - a run of 16 coefficients that stay zero
/// - the end of the block, together with the number of bits that count further blocks
/// - a code word that the table cannot decode, because it is invalid or too long
///
/// The fields are packed into 32 bits, from the lowest bit up:
///
/// | bits | field |
/// |--:|---|
/// | 8 | number of bits to consume |
/// | 4 | number of coefficients that stay zero, or number of bits that count further blocks |
/// | 2 | `END` or `NOT_FOUND`, or zero if the entry is neither |
/// | 2 | unused |
/// | 16 | the coefficient: 1, -1, or 0 after a run of 16 |
#[derive(Clone, Copy)]
pub(crate) struct RefinementEntry(u32);

impl RefinementEntry {
    const END: u32 = 1 << 12;
    const NOT_FOUND: u32 = 1 << 13;

    fn new(bit_count: u8, zero_count: u8, flags: u32, coefficient: i16) -> Self {
        let coefficient = u32::from(coefficient.cast_unsigned());
        Self(u32::from(bit_count) | u32::from(zero_count) << 8 | flags | coefficient << 16)
    }

    /// Returns the number of bits to consume.
    #[inline(always)]
    pub(crate) fn bit_count(self) -> u32 {
        self.0 & 0xFF
    }

    /// Returns the number of coefficients that stay zero before the coefficient of this entry. If the entry is
    /// the end of the block, returns the number of bits that count further blocks.
    #[inline(always)]
    pub(crate) fn zero_count(self) -> u32 {
        self.0 >> 8 & 15
    }

    /// Returns true if the entry has a coefficient or is a run of 16 zeros.
    #[inline(always)]
    pub(crate) fn is_in_block(self) -> bool {
        self.0 & (Self::END | Self::NOT_FOUND) == 0
    }

    /// Returns true if the entry is the end of the block.
    #[inline(always)]
    pub(crate) fn is_end_of_block(self) -> bool {
        self.0 & Self::END != 0
    }

    /// Returns the coefficient: 1, -1 or, for a run of 16 zeros, 0.
    #[inline(always)]
    pub(crate) fn coefficient(self) -> i16 {
        (self.0 >> 16) as i16
    }
}

impl LookupTable for RefinementTable {
    const EMPTY: Self = Self {
        entries: [RefinementEntry(RefinementEntry::NOT_FOUND); 1 << LOOKUP_BITS],
        codebook: Codebook::EMPTY,
    };

    fn set(&mut self, stored_table: &StoredTable) -> Result<(), Error> {
        self.codebook.set(stored_table)?;
        let decoded = decode_all_indices::<{ 1 << LOOKUP_BITS }>(&self.codebook);
        for (entry, coded) in self.entries.iter_mut().zip(decoded) {
            *entry = coded
                .and_then(|coded| to_entry(coded.bit_count, coded.symbol, coded.value))
                .unwrap_or(RefinementEntry(RefinementEntry::NOT_FOUND));
        }
        Ok(())
    }
}

impl RefinementTable {
    /// Returns the entry for the next bits, which are left-aligned in `bits`.
    #[inline(always)]
    pub(crate) fn look_up(&self, bits: u64) -> RefinementEntry {
        self.entries[(bits >> (64 - LOOKUP_BITS)) as usize]
    }

    /// Returns the entry for the next bits, which begin with a code word of any length, or `None` if the code
    /// word is invalid.
    #[cold]
    #[inline(never)]
    pub(crate) fn find(&self, bits: u64) -> Option<RefinementEntry> {
        let CodeWord { length, symbol } = self.codebook.find(bits)?;
        let is_positive = bits << length >> 63 == 1;
        let (sign_length, value) = match symbol & 15 {
            0 => (0, 0),
            _ => (1, if is_positive { 1 } else { -1 }),
        };
        to_entry(u8::try_from(length + sign_length).ok()?, symbol, value)
    }
}

/// Returns the entry for a code word with `symbol`, or `None` if the symbol is invalid.
fn to_entry(bit_count: u8, symbol: u8, value: i16) -> Option<RefinementEntry> {
    let zero_count = symbol >> 4;
    match (zero_count, symbol & 15) {
        (_, 1) | (15, 0) => Some(RefinementEntry::new(bit_count, zero_count, 0, value)),
        (_, 0) => Some(RefinementEntry::new(bit_count, zero_count, RefinementEntry::END, 0)),
        _ => None,
    }
}
