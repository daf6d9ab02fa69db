//! Huffman codes, and tables that give a whole coefficient in one look-up.

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
}

/// Bits that are looked up at once.
pub(crate) const LOOK_AHEAD: u32 = 10;

/// What the next [`LOOK_AHEAD`] bits of a stream begin with, packed into 32 bits so that a table stays
/// in the innermost cache.
///
/// Bits 0 to 7: how many bits to take. Bits 8 to 15: how many coefficients to step over; from
/// [`Entry::NO_COEFFICIENT`] on there is no coefficient. Bits 16 to 31: the coefficient, or the symbol.
#[derive(Clone, Copy, Default)]
pub(crate) struct Entry(u32);

impl Entry {
    /// Steps at least this long leave the block: a coefficient never lies behind one.
    const NO_COEFFICIENT: u32 = 64;
    /// The end of the block.
    const END: u32 = Self::NO_COEFFICIENT;
    /// A code whose coefficient does not fit into the look-ahead.
    const CODE_ONLY: u32 = Self::NO_COEFFICIENT + 1;
    /// A code that does not fit, or none.
    const LONG: u32 = 0xFF;

    fn new(bits: u32, step: u32, value: u16) -> Self {
        Self(bits | step << 8 | u32::from(value) << 16)
    }

    /// Bits to take. (In the lowest byte, where a shift finds it without further ado.)
    #[inline(always)]
    pub(crate) fn bits(self) -> u32 {
        self.0 & 0xFF
    }

    /// Coefficients to step over before [`Entry::coefficient`]; more than a block has where there is none.
    #[inline(always)]
    pub(crate) fn step(self) -> usize {
        (self.0 >> 8 & 0xFF) as usize
    }

    /// Whether a code and the whole of its coefficient are in the look-ahead.
    #[inline(always)]
    pub(crate) fn is_coefficient(self) -> bool {
        self.step() < Self::NO_COEFFICIENT as usize
    }

    /// Whether it is the end of the block.
    #[inline(always)]
    pub(crate) fn is_end(self) -> bool {
        self.step() == Self::END as usize
    }

    /// The coefficient.
    #[inline(always)]
    pub(crate) fn coefficient(self) -> i16 {
        ((self.0 >> 16) as u16).cast_signed()
    }
}

/// What the symbols of a table mean.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// The number of bits of a difference.
    Dc,
    /// A run of zeros and the number of bits of the coefficient after it.
    Ac,
}

/// A Huffman table made ready for decoding.
pub(crate) struct Codes {
    /// By the next [`LOOK_AHEAD`] bits.
    entries: [Entry; 1 << LOOK_AHEAD],
    /// The codes of each length, for those that are longer than the look-ahead.
    by_length: [Codewords; 17],
    symbols: [u8; 256],
}

/// The codes of one length, which follow each other.
#[derive(Clone, Copy, Default)]
struct Codewords {
    first: u32,
    /// The first code of this length that is none any more.
    end: u32,
    /// Where in [`Codes::symbols`] the first one's symbol is.
    place: usize,
}

impl Codes {
    pub(crate) const EMPTY: Self = Self {
        entries: [Entry(0); 1 << LOOK_AHEAD],
        by_length: [Codewords { first: 0, end: 0, place: 0 }; 17],
        symbols: [0; 256],
    };

    /// Becomes the table of `lengths`.
    pub(crate) fn set(&mut self, lengths: &CodeLengths, class: Class) -> Result<(), Error> {
        self.entries.fill(Entry::new(0, Entry::LONG, 0));
        self.symbols[..lengths.symbols.len()].copy_from_slice(lengths.symbols);
        let (mut code, mut place) = (0, 0);
        for (length, &count) in (1..).zip(lengths.counts) {
            let symbols = &lengths.symbols[place..][..usize::from(count)];
            let first = code;
            for &symbol in symbols {
                if class == Class::Dc && symbol > 15 {
                    return Err(Error::Corrupt("a DC code stands for too many bits"));
                }
                // The code of ones alone is reserved.
                if code + 1 >= 1 << length {
                    return Err(Error::Corrupt("a Huffman table has more codes than fit"));
                }
                if length <= LOOK_AHEAD {
                    self.enter(code, length, symbol, class);
                }
                code += 1;
            }
            self.by_length[length as usize] = Codewords { first, end: code, place };
            place += symbols.len();
            code <<= 1;
        }
        Ok(())
    }

    /// Fills the entries that begin with `code`.
    fn enter(&mut self, code: u32, length: u32, symbol: u8, class: Class) {
        let rest_bits = LOOK_AHEAD - length;
        let start = (code as usize) << rest_bits;
        let entries = &mut self.entries[start..][..1 << rest_bits];
        let (run, size) = (u32::from(symbol >> 4), u32::from(symbol & 15));
        if size > rest_bits {
            return entries.fill(Entry::new(length, Entry::CODE_ONLY, u16::from(symbol)));
        }
        if class == Class::Ac && size == 0 {
            return entries.fill(match run {
                0 => Entry::new(length, Entry::END, 0),
                // Sixteen zeros are fifteen and a coefficient of zero.
                15 => Entry::new(length, 15, 0),
                _ => Entry::new(length, Entry::CODE_ONLY, u16::from(symbol)),
            });
        }
        for (rest, entry) in (0u16..).zip(entries) {
            let value = extend(rest >> (rest_bits - size), size);
            *entry = Entry::new(length + size, run, value.cast_unsigned());
        }
    }

    /// What the next bits, left-aligned in `bits`, begin with.
    #[inline(always)]
    pub(crate) fn look_up(&self, bits: u64) -> Entry {
        self.entries[(bits >> (64 - LOOK_AHEAD)) as usize]
    }

    /// The length and the symbol of the code that `bits` begins with, of any length. `entry` is what
    /// [`Codes::look_up`] gives, and no whole coefficient.
    pub(crate) fn code(&self, bits: u64, entry: Entry) -> Option<(u32, u8)> {
        if entry.0 >> 8 & 0xFF == Entry::CODE_ONLY {
            return Some((entry.bits(), entry.0.to_be_bytes()[1]));
        }
        (LOOK_AHEAD + 1..=16).find_map(|length| {
            let code = u32::try_from(bits >> (64 - length)).ok()?;
            let Codewords { first, end, place } = self.by_length[length as usize];
            let place = place + usize::try_from(code.checked_sub(first)?).ok()?;
            (code < end).then(|| self.symbols.get(place).map(|&symbol| (length, symbol)))?
        })
    }
}

/// The number that `bits` of `size` bits, at most 15, stand for: negative ones begin with a zero.
#[inline(always)]
pub(crate) fn extend(bits: u16, size: u32) -> i16 {
    let positive = size == 0 || bits >> (size - 1) == 1;
    if positive { bits.cast_signed() } else { bits.wrapping_sub((1 << size) - 1).cast_signed() }
}
