//! Parses a Huffman table in the form in which a file stores it.

use crate::Error;

/// A Huffman table as stored in a DHT segment: the number of codes of each length, and their symbols.
#[derive(Clone, Copy)]
pub(crate) struct CodeLengths<'a> {
    /// Number of codes of each length, from 1 to 16 bits.
    counts: &'a [u8; 16],
    /// The symbols, in ascending order of their codes.
    symbols: &'a [u8],
}

impl<'a> CodeLengths<'a> {
    /// Splits a table off the start of `bytes`. Returns the table and the rest of the bytes.
    pub(crate) fn split_from(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), Error> {
        const BAD_LENGTH: Error = Error::Corrupt("a Huffman table has a wrong length");
        let (counts, rest) = bytes.split_first_chunk::<16>().ok_or(BAD_LENGTH)?;
        let total = counts.iter().map(|&count| usize::from(count)).sum();
        if total > 256 {
            return Err(Error::Corrupt("a Huffman table has too many codes"));
        }
        let (symbols, rest) = rest.split_at_checked(total).ok_or(BAD_LENGTH)?;
        Ok((Self { counts, symbols }, rest))
    }

    /// Returns the number of codes of each length, from 1 to 16 bits.
    pub(super) fn counts(&self) -> &[u8; 16] {
        self.counts
    }

    /// Returns the symbols, in ascending order of their codes.
    pub(super) fn symbols(&self) -> &[u8] {
        self.symbols
    }
}
