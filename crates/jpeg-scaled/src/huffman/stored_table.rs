//! Parses a Huffman table in the form in which a file stores it.

use crate::Error;

/// A Huffman table as stored in a DHT segment: the number of code words of each length, and their symbols.
#[derive(Clone, Copy)]
pub(crate) struct StoredTable<'a> {
    /// Number of code words of each length, from 1 to 16 bits.
    counts: &'a [u8; 16],
    /// The symbols, in ascending order of their code words.
    symbols: &'a [u8],
}

impl<'a> StoredTable<'a> {
    /// Creates a table. `symbols` must have as many elements as there are code words.
    pub(super) const fn new(counts: &'a [u8; 16], symbols: &'a [u8]) -> Self {
        Self { counts, symbols }
    }

    /// Splits a table off the start of `bytes`. Returns the table and the rest of the bytes.
    pub(crate) fn split_from(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), Error> {
        const BAD_LENGTH: Error = Error::Corrupt("a Huffman table has a wrong length");
        let (counts, rest) = bytes.split_first_chunk::<16>().ok_or(BAD_LENGTH)?;
        let symbol_count = counts.iter().map(|&count| usize::from(count)).sum();
        if symbol_count > 256 {
            return Err(Error::Corrupt("a Huffman table has too many code words"));
        }
        let (symbols, rest) = rest.split_at_checked(symbol_count).ok_or(BAD_LENGTH)?;
        Ok((Self { counts, symbols }, rest))
    }

    /// Returns the address of the table in the file's bytes, which distinguishes it from the file's other
    /// tables.
    pub(super) fn address(&self) -> usize {
        self.counts.as_ptr().addr()
    }

    /// Returns the number of code words of each length, from 1 to 16 bits.
    pub(super) fn counts(&self) -> &[u8; 16] {
        self.counts
    }

    /// Returns the symbols, in ascending order of their code words.
    pub(super) fn symbols(&self) -> &[u8] {
        self.symbols
    }
}
