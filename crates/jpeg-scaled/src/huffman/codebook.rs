//! Stores all code words of a Huffman table.

use super::stored_table::StoredTable;
use crate::Error;

/// All code words of a Huffman table. The codebook decodes the code words that the tables of
/// [`super::lookup`] do not contain.
pub(super) struct Codebook {
    /// The code words of each length. The index is the length in bits.
    ranges_by_length: [CodeWordRange; 17],
    /// The symbols, in ascending order of their code words.
    symbols: [u8; 256],
    /// Length and symbol of a code word. The index is [`MAX_SHORT_LENGTH`] bits that begin with the code
    /// word. The length is 0 if the code word is longer than [`MAX_SHORT_LENGTH`] or invalid.
    short_code_words: [(u8, u8); 1 << MAX_SHORT_LENGTH],
}

/// Maximum length in bits of the code words in [`Codebook::short_code_words`]. Most code words that are
/// missing from the look-up tables are short. They are missing because the value after them is long.
const MAX_SHORT_LENGTH: u8 = 8;

/// The code words of one length. As binary numbers, they are consecutive.
#[derive(Clone, Copy)]
struct CodeWordRange {
    /// The first code word.
    first: u32,
    /// The number after the last code word.
    end: u32,
    /// Index of the first code word's symbol in [`Codebook::symbols`].
    first_symbol_index: usize,
}

/// The length and the symbol of a code word.
#[derive(Clone, Copy)]
pub(super) struct CodeWord {
    /// Length in bits.
    pub(super) length: u32,
    pub(super) symbol: u8,
}

impl Codebook {
    pub(super) const EMPTY: Self = Self {
        ranges_by_length: [CodeWordRange { first: 0, end: 0, first_symbol_index: 0 }; 17],
        symbols: [0; 256],
        short_code_words: [(0, 0); 1 << MAX_SHORT_LENGTH],
    };

    /// Replaces all code words by those of `stored_table`.
    pub(super) fn set(&mut self, stored_table: &StoredTable) -> Result<(), Error> {
        self.symbols[..stored_table.symbols().len()].copy_from_slice(stored_table.symbols());
        let (mut first, mut first_symbol_index) = (0, 0);
        for (length, &count) in (1..).zip(stored_table.counts()) {
            let end = first + u32::from(count);
            // The standard reserves the code word that consists only of ones.
            if count > 0 && end >= 1 << length {
                return Err(Error::Corrupt("a Huffman table has too many code words of one length"));
            }
            self.ranges_by_length[length] = CodeWordRange { first, end, first_symbol_index };
            first_symbol_index += usize::from(count);
            first = end << 1;
        }
        let mut short_code_words = Self::EMPTY.short_code_words;
        for length in 1..=MAX_SHORT_LENGTH {
            let unused_bit_count = MAX_SHORT_LENGTH - length;
            for (code_word, symbol) in self.code_words_of_length(length.into()) {
                let first_index = (code_word << unused_bit_count) as usize;
                short_code_words[first_index..][..1 << unused_bit_count].fill((length, symbol));
            }
        }
        self.short_code_words = short_code_words;
        Ok(())
    }

    /// Returns the code words of `length` bits, each with its symbol.
    pub(super) fn code_words_of_length(&self, length: u32) -> impl Iterator<Item = (u32, u8)> {
        let CodeWordRange { first, end, first_symbol_index } = self.ranges_by_length[length as usize];
        (first..end).zip(self.symbols[first_symbol_index..].iter().copied())
    }

    /// Returns the code word at the start of `bits`, which are left-aligned, or `None` if there is none.
    pub(super) fn find(&self, bits: u64) -> Option<CodeWord> {
        let (length, symbol) = self.short_code_words[(bits >> (64 - MAX_SHORT_LENGTH)) as usize];
        if length > 0 {
            return Some(CodeWord { length: length.into(), symbol });
        }
        (u32::from(MAX_SHORT_LENGTH) + 1..=16).find_map(|length| {
            let number = u32::try_from(bits >> (64 - length)).ok()?;
            let CodeWordRange { first, end, first_symbol_index } = self.ranges_by_length[length as usize];
            let index = first_symbol_index + usize::try_from(number.checked_sub(first)?).ok()?;
            (number < end).then(|| self.symbols.get(index).map(|&symbol| CodeWord { length, symbol }))?
        })
    }
}
