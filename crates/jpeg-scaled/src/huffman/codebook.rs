//! Stores all codes of a Huffman table.

use super::code_lengths::CodeLengths;
use crate::Error;

/// All codes of a Huffman table. The codebook decodes the codes that the look-up tables of [`super::lookup`]
/// do not contain.
pub(super) struct Codebook {
    /// The codes of each length. The index is the length in bits.
    by_length: [Codewords; 17],
    symbols: [u8; 256],
    /// Length and symbol of the code at the start of the next [`SHORT_BITS`] bits, which are the index. The
    /// length is 0 if the code is longer than [`SHORT_BITS`] or invalid.
    short_codes: [(u8, u8); 1 << SHORT_BITS],
}

/// Maximum length of the codes in [`Codebook::short_codes`]. Most codes that are missing from the look-up
/// tables are short; they are missing because the value after them is long.
const SHORT_BITS: u8 = 8;

/// The codes of one length, which are consecutive numbers.
#[derive(Clone, Copy)]
struct Codewords {
    first: u32,
    /// The number after the last code.
    end: u32,
    /// Index of the first code's symbol in [`Codebook::symbols`].
    first_symbol: usize,
}

/// A code and its symbol.
#[derive(Clone, Copy)]
pub(super) struct Code {
    /// Length in bits.
    pub(super) length: u32,
    pub(super) symbol: u8,
}

impl Codebook {
    pub(super) const EMPTY: Self = Self {
        by_length: [Codewords { first: 0, end: 0, first_symbol: 0 }; 17],
        symbols: [0; 256],
        short_codes: [(0, 0); 1 << SHORT_BITS],
    };

    /// Replaces the codes by the codes of `lengths`.
    pub(super) fn set(&mut self, lengths: &CodeLengths) -> Result<(), Error> {
        self.symbols[..lengths.symbols().len()].copy_from_slice(lengths.symbols());
        let (mut first, mut first_symbol) = (0, 0);
        for (length, &count) in (1..).zip(lengths.counts()) {
            let end = first + u32::from(count);
            // The standard reserves the code that consists only of ones.
            if count > 0 && end >= 1 << length {
                return Err(Error::Corrupt("a Huffman table has more codes than its code lengths allow"));
            }
            self.by_length[length] = Codewords { first, end, first_symbol };
            first_symbol += usize::from(count);
            first = end << 1;
        }
        let mut short_codes = Self::EMPTY.short_codes;
        for length in 1..=SHORT_BITS {
            let unused_bits = SHORT_BITS - length;
            for (code, symbol) in self.codes_of_length(length.into()) {
                short_codes[(code << unused_bits) as usize..][..1 << unused_bits].fill((length, symbol));
            }
        }
        self.short_codes = short_codes;
        Ok(())
    }

    /// Returns the codes of `length` bits, each with its symbol.
    pub(super) fn codes_of_length(&self, length: u32) -> impl Iterator<Item = (u32, u8)> {
        let Codewords { first, end, first_symbol } = self.by_length[length as usize];
        (first..end).zip(self.symbols[first_symbol..].iter().copied())
    }

    /// Returns the code at the start of `bits`, which are left-aligned, or `None` if there is none.
    pub(super) fn find(&self, bits: u64) -> Option<Code> {
        let (length, symbol) = self.short_codes[(bits >> (64 - SHORT_BITS)) as usize];
        if length > 0 {
            return Some(Code { length: length.into(), symbol });
        }
        (u32::from(SHORT_BITS) + 1..=16).find_map(|length| {
            let code = u32::try_from(bits >> (64 - length)).ok()?;
            let Codewords { first, end, first_symbol } = self.by_length[length as usize];
            let index = first_symbol + usize::try_from(code.checked_sub(first)?).ok()?;
            (code < end).then(|| self.symbols.get(index).map(|&symbol| Code { length, symbol }))?
        })
    }
}
