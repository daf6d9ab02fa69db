//! Decodes most coefficients with look-up tables. The next bits of the file are the index into a table.
//!
//! A look-up decodes a code word together with the value after it. If two such pairs are short enough, one
//! look-up decodes both. The [`Codebook`] decodes the code words that a look-up cannot decode.

use super::{
    codebook::{CodeWord, Codebook},
    stored_table::StoredTable,
    table_set::LookupTable,
};
use crate::Error;

/// Number of bits that index a DC table.
const DC_LOOKUP_BITS: u32 = 9;

/// Number of bits that index an AC table. With more bits, more look-ups would decode two pairs, but the
/// tables would displace other data from the first-level cache.
pub(crate) const AC_LOOKUP_BITS: u32 = 11;

/// A table that decodes differences of DC coefficients.
pub(crate) struct DcTable {
    entries: [DcEntry; 1 << DC_LOOKUP_BITS],
    codebook: Codebook,
}

/// A decoded difference. `bit_count` is 0 if the code word and the value together have more than
/// [`DC_LOOKUP_BITS`] bits.
#[derive(Clone, Copy)]
pub(crate) struct DcEntry {
    /// Total length in bits of the code word and the value after it.
    pub(crate) bit_count: u8,
    pub(crate) difference: i16,
}

impl LookupTable for DcTable {
    const EMPTY: Self = Self {
        entries: [DcEntry { bit_count: 0, difference: 0 }; 1 << DC_LOOKUP_BITS],
        codebook: Codebook::EMPTY,
    };

    fn set(&mut self, stored_table: &StoredTable) -> Result<(), Error> {
        self.codebook.set(stored_table)?;
        if stored_table.symbols().iter().any(|&symbol| symbol > 15) {
            return Err(Error::Corrupt("the value after a DC code word has more than 15 bits"));
        }
        let decoded = decode_all_indices::<{ 1 << DC_LOOKUP_BITS }>(&self.codebook);
        for (entry, coded_value) in self.entries.iter_mut().zip(decoded) {
            let (bit_count, difference) = coded_value.map_or((0, 0), |coded| (coded.bit_count, coded.value));
            *entry = DcEntry { bit_count, difference };
        }
        Ok(())
    }
}

impl DcTable {
    /// Returns the entry for the next bits, which are left-aligned in `bits`.
    #[inline(always)]
    pub(crate) fn look_up(&self, bits: u64) -> DcEntry {
        self.entries[(bits >> (64 - DC_LOOKUP_BITS)) as usize]
    }

    /// Returns the length in bits of the code word at the start of `bits` and the length in bits of the value
    /// after it.
    pub(crate) fn find_code_word(&self, bits: u64) -> Option<(u32, u32)> {
        self.codebook.find(bits).map(|code_word| (code_word.length, code_word.symbol.into()))
    }
}

/// A table that decodes AC coefficients and the runs of zeros before them.
pub(crate) struct AcTable {
    entries: [AcEntry; 1 << AC_LOOKUP_BITS],
    codebook: Codebook,
}

/// An entry of an [`AcTable`]. The bits that select the entry begin with one of:
/// - one or two coefficients, each after a run of zeros
/// - a coefficient, after a run of zeros, and the end of the block
/// - only the end of the block
/// - a code word that the table cannot decode, because it is invalid or too long together with its value
///
/// The fields are packed into 32 bits, from the lowest bit up:
///
/// | bits | field |
/// |--:|---|
/// | 8 | number of bits to consume |
/// | 8 | number of coefficients to advance by, or `END`, `COEFFICIENT_AND_END` or `NOT_FOUND` |
/// | 4 | number of zeros before the first coefficient |
/// | 6 | the first coefficient |
/// | 6 | the last coefficient, equal to the first if there is only one |
///
/// The number of bits is the lowest field because shift instructions use only the low bits of their operand.
/// The three constants are greater than 64, the number of coefficients in a block, so that one comparison
/// detects them.
#[derive(Clone, Copy)]
pub(crate) struct AcEntry(u32);

impl AcEntry {
    /// Position increment of an entry that is only the end of the block.
    const END: u32 = 65;
    /// Position increment of an entry that is a coefficient and the end of the block.
    const COEFFICIENT_AND_END: u32 = 66;
    /// Position increment of an entry for bits that the table cannot decode.
    const NOT_FOUND: u32 = 67;

    /// The entry for bits that the table cannot decode.
    const NONE: Self = Self(Self::NOT_FOUND << 8);

    fn new(bit_count: u8, position_increment: u32, zero_count: u8, first: i16, last: i16) -> Self {
        let low_six_bits = |value: i16| u32::from(value.cast_unsigned() & 63);
        Self(
            u32::from(bit_count)
                | position_increment << 8
                | u32::from(zero_count) << 16
                | low_six_bits(first) << 20
                | low_six_bits(last) << 26,
        )
    }

    /// Returns the number of bits to consume.
    #[inline(always)]
    pub(crate) fn bit_count(self) -> u32 {
        self.0 & 0xFF
    }

    /// Returns the number of coefficients to advance by, zeros included. The number is at least 65 if the
    /// block ends with this entry or if the table cannot decode the bits.
    #[inline(always)]
    pub(crate) fn position_increment(self) -> usize {
        (self.0 >> 8 & 0xFF) as usize
    }

    /// Returns true if the entry is only the end of the block.
    #[inline(always)]
    pub(crate) fn is_end_of_block(self) -> bool {
        self.position_increment() == Self::END as usize
    }

    /// Returns true if the block ends after [`AcEntry::first_coefficient`].
    #[inline(always)]
    pub(crate) fn is_coefficient_and_end(self) -> bool {
        self.position_increment() == Self::COEFFICIENT_AND_END as usize
    }

    /// Returns the number of zeros before the first coefficient.
    #[inline(always)]
    pub(crate) fn zeros_before_first(self) -> usize {
        (self.0 >> 16 & 15) as usize
    }

    /// Returns the first coefficient.
    #[inline(always)]
    pub(crate) fn first_coefficient(self) -> i16 {
        ((self.0 << 6).cast_signed() >> 26) as i16
    }

    /// Returns the last coefficient, which equals the first if the entry has only one.
    #[inline(always)]
    pub(crate) fn last_coefficient(self) -> i16 {
        (self.0.cast_signed() >> 26) as i16
    }
}

impl LookupTable for AcTable {
    const EMPTY: Self = Self { entries: [AcEntry::NONE; 1 << AC_LOOKUP_BITS], codebook: Codebook::EMPTY };

    fn set(&mut self, stored_table: &StoredTable) -> Result<(), Error> {
        self.codebook.set(stored_table)?;
        let decoded = decode_all_indices::<{ 1 << AC_LOOKUP_BITS }>(&self.codebook);
        for (index, entry) in self.entries.iter_mut().enumerate() {
            let Some(first) = decoded[index] else {
                *entry = AcEntry::NONE;
                continue;
            };
            // `rest` holds the bits of the index after the first code word and value, followed by zeros in
            // place of the bits that are not part of the index.
            let rest = (index << first.bit_count) % decoded.len();
            let second = decoded[rest]
                .filter(|second| u32::from(first.bit_count + second.bit_count) <= AC_LOOKUP_BITS);
            *entry = first.to_entry(second);
        }
        Ok(())
    }
}

impl AcTable {
    /// Returns the entry for the next bits, which are left-aligned in `bits`.
    #[inline(always)]
    pub(crate) fn look_up(&self, bits: u64) -> AcEntry {
        self.entries[(bits >> (64 - AC_LOOKUP_BITS)) as usize]
    }

    /// Finds the code word at the start of `bits`. Returns its length in bits, the number of zeros before the
    /// coefficient, and the length in bits of the value after the code word.
    pub(crate) fn find_code_word(&self, bits: u64) -> Option<(u32, usize, u32)> {
        let CodeWord { length, symbol } = self.codebook.find(bits)?;
        Some((length, usize::from(symbol >> 4), u32::from(symbol & 15)))
    }
}

/// A code word's symbol and the value after the code word.
#[derive(Clone, Copy)]
pub(super) struct CodedValue {
    /// Total length in bits of the code word and the value.
    pub(super) bit_count: u8,
    pub(super) symbol: u8,
    pub(super) value: i16,
}

impl CodedValue {
    fn zero_count(self) -> u8 {
        self.symbol >> 4
    }

    fn is_end_of_block(self) -> bool {
        self.symbol == 0
    }

    /// Returns true if an [`AcEntry`] can represent the value and the symbol is valid.
    ///
    /// Apart from the end of the block, the only valid symbol without a value is 0xF0, a run of 16 zeros.
    fn fits_entry(self) -> bool {
        (-32..32).contains(&self.value) && (self.symbol & 15 > 0 || self.symbol == 0xF0)
    }

    /// Returns the number of coefficients: the zeros and the coefficient after them.
    fn coefficient_count(self) -> u32 {
        u32::from(self.zero_count()) + 1
    }

    /// Returns the entry of this value and, if one entry can hold both, of the `second` value after it.
    fn to_entry(self, second: Option<Self>) -> AcEntry {
        let Self { bit_count, value, .. } = self;
        if self.is_end_of_block() {
            return AcEntry::new(bit_count, AcEntry::END, 0, 0, 0);
        }
        if !self.fits_entry() {
            return AcEntry::NONE;
        }
        match second {
            Some(second) if second.is_end_of_block() => AcEntry::new(
                bit_count + second.bit_count,
                AcEntry::COEFFICIENT_AND_END,
                self.zero_count(),
                value,
                value,
            ),
            Some(second) if second.fits_entry() => {
                let position_increment = self.coefficient_count() + second.coefficient_count();
                AcEntry::new(
                    bit_count + second.bit_count,
                    position_increment,
                    self.zero_count(),
                    value,
                    second.value,
                )
            }
            _ => AcEntry::new(bit_count, self.coefficient_count(), self.zero_count(), value, value),
        }
    }
}

/// Decodes the first code word and value of every index of a table with `ENTRY_COUNT` entries.
///
/// An element is `None` if the bits of its index are too few for the code word and the value, or begin with
/// an invalid code word.
pub(super) fn decode_all_indices<const ENTRY_COUNT: usize>(
    codebook: &Codebook,
) -> [Option<CodedValue>; ENTRY_COUNT] {
    let index_bit_count = ENTRY_COUNT.trailing_zeros();
    let mut decoded = [None; ENTRY_COUNT];
    for length in 1..=index_bit_count {
        for (code_word, symbol) in codebook.code_words_of_length(length) {
            let value_length = u32::from(symbol & 15);
            let Some(unused_bit_count) = index_bit_count.checked_sub(length + value_length) else { continue };
            for value_bits in 0..1 << value_length {
                let first_index = (code_word << value_length | u32::from(value_bits)) << unused_bit_count;
                #[expect(clippy::cast_possible_truncation, reason = "the sum is at most `index_bit_count`")]
                let bit_count = (length + value_length) as u8;
                let coded_value = CodedValue { bit_count, symbol, value: extend(value_bits, value_length) };
                decoded[first_index as usize..][..1 << unused_bit_count].fill(Some(coded_value));
            }
        }
    }
    decoded
}

/// Converts the bits of a value to the number that they represent. The value has `length` bits, at most 15.
///
/// This is the procedure EXTEND in section F.2.2.1 of the standard. The bits of a negative number begin with
/// a zero.
#[inline(always)]
pub(crate) fn extend(value_bits: u16, length: u32) -> i16 {
    let is_positive = length == 0 || value_bits >> (length - 1) == 1;
    if is_positive {
        value_bits.cast_signed()
    } else {
        value_bits.wrapping_sub((1 << length) - 1).cast_signed()
    }
}
