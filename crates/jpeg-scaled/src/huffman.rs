//! Huffman codes.

use crate::Error;

/// A Huffman table as the file has it.
#[derive(Clone, Copy)]
pub(crate) struct CodeLengths<'a> {
    /// How many codes there are of 1 to 16 bits.
    counts: &'a [u8; 16],
    /// The symbols, by ascending code.
    symbols: &'a [u8],
}

impl<'a> CodeLengths<'a> {
    /// Takes a table from the start of a DHT segment's rest.
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

    /// The symbols, by ascending code.
    pub(crate) fn symbols(&self) -> &[u8] {
        self.symbols
    }
}

/// All codes of a table, for those that a look-up does not find.
pub(crate) struct Codebook {
    /// By length in bits.
    by_length: [Codewords; 17],
    symbols: [u8; 256],
    /// The length and the symbol of the code that each number of [`SHORT`] bits begins with; length 0
    /// where there is none of so few bits.
    short: [(u8, u8); 1 << SHORT],
}

/// Bits of most codes that are not found in a look-up: it is the number after them that is long.
const SHORT: u8 = 8;

/// The codes of one length, which follow each other.
#[derive(Clone, Copy)]
struct Codewords {
    first: u32,
    /// The first code of this length that is none any more.
    end: u32,
    /// Where in [`Codebook::symbols`] the first one's symbol is.
    place: usize,
}

/// A code at the start of some bits.
#[derive(Clone, Copy)]
pub(crate) struct Code {
    /// In bits.
    pub(crate) length: u32,
    pub(crate) symbol: u8,
}

impl Codebook {
    pub(crate) const EMPTY: Self = Self {
        by_length: [Codewords { first: 0, end: 0, place: 0 }; 17],
        symbols: [0; 256],
        short: [(0, 0); 1 << SHORT],
    };

    /// Becomes the table of `lengths`.
    pub(crate) fn set(&mut self, lengths: &CodeLengths) -> Result<(), Error> {
        self.symbols[..lengths.symbols.len()].copy_from_slice(lengths.symbols);
        let (mut first, mut place) = (0, 0);
        for (length, &count) in (1..).zip(lengths.counts) {
            let end = first + u32::from(count);
            // The code of ones alone is reserved.
            if count > 0 && end >= 1 << length {
                return Err(Error::Corrupt("a Huffman table has more codes than fit"));
            }
            self.by_length[length] = Codewords { first, end, place };
            place += usize::from(count);
            first = end << 1;
        }
        let mut short = Self::EMPTY.short;
        for length in 1..=SHORT {
            let rest = SHORT - length;
            for (code, symbol) in self.of_length(length.into()) {
                short[(code << rest) as usize..][..1 << rest].fill((length, symbol));
            }
        }
        self.short = short;
        Ok(())
    }

    /// The codes of `length` bits, each with its symbol.
    pub(crate) fn of_length(&self, length: u32) -> impl Iterator<Item = (u32, u8)> {
        let Codewords { first, end, place } = self.by_length[length as usize];
        (first..end).zip(self.symbols[place..].iter().copied())
    }

    /// The code that `bits`, left-aligned, begins with.
    pub(crate) fn find(&self, bits: u64) -> Option<Code> {
        let (length, symbol) = self.short[(bits >> (64 - SHORT)) as usize];
        if length > 0 {
            return Some(Code { length: length.into(), symbol });
        }
        (u32::from(SHORT) + 1..=16).find_map(|length| {
            let code = u32::try_from(bits >> (64 - length)).ok()?;
            let Codewords { first, end, place } = self.by_length[length as usize];
            let place = place + usize::try_from(code.checked_sub(first)?).ok()?;
            (code < end).then(|| self.symbols.get(place).map(|&symbol| Code { length, symbol }))?
        })
    }
}

/// The number that `bits` of `size` bits, at most 15, stand for: negative ones begin with a zero.
#[inline(always)]
pub(crate) fn extend(bits: u16, size: u32) -> i16 {
    let positive = size == 0 || bits >> (size - 1) == 1;
    if positive { bits.cast_signed() } else { bits.wrapping_sub((1 << size) - 1).cast_signed() }
}
