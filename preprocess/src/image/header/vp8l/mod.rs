//! Computes the memory that a decoder needs for the prefix codes of a lossless WebP (VP8L).
//!
//! An image is divided into blocks. A second, smaller image, the entropy image, assigns each block one of up
//! to 65,536 groups of five prefix codes. A decoder builds lookup tables for all groups before it decodes the
//! first pixel. image-webp can need more than 20 kilobytes for a group that a file codes in less than 100
//! bytes, so that an image of one pixel could need more than a gigabyte. The first bytes of the file do not
//! show how much memory the image needs.
//!
//! This module therefore reads the stream up to the last prefix code and adds up the lengths of the tables.
//! The number of groups is the largest value in the entropy image plus one, so this module does not store the
//! pixels of the entropy image.

mod bit_reader;
#[cfg(test)]
mod tests;

use self::bit_reader::BitReader;
pub(super) use self::bit_reader::CorruptStream;
use crate::image::size::pixel_count;

/// Prefix code of the symbols of one alphabet.
enum PrefixCode {
    /// A single symbol, coded in no bits.
    Single(u16),
    /// Two symbols of one bit each.
    Two(u16, u16),
    /// Length in bits of the code of each symbol. The length of an unused symbol is 0.
    Lengths(Vec<u8>),
}

/// Number of literals, which are the first symbols of the first alphabet.
const LITERALS: u16 = 256;
/// Number of symbols of the first alphabet without a colour cache: the literals, then the lengths of copies.
const LITERALS_AND_LENGTHS: u16 = LITERALS + 24;
/// Number of symbols of the other alphabets of a group: red, blue, alpha, distance.
const OTHER_ALPHABET_SIZES: [u16; 4] = [256, 256, 256, 40];
/// Maximum length of a code in bits.
const MAX_CODE_BITS: usize = 15;

/// Returns the number of bytes that image-webp allocates for the prefix codes of a `width` × `height` image.
///
/// `stream` starts after the signature and the size.
pub(super) fn table_bytes(stream: &[u8], width: u32, height: u32) -> Result<u64, CorruptStream> {
    let mut bits = BitReader::new(stream);
    let width = skip_transforms(&mut bits, width, height)?;
    let cache_symbols = read_cache_symbols(&mut bits)?;
    let mut group_count = 1;
    if bits.read(1)? == 1 {
        let block_bits = bits.read(3)? + 2;
        let entropy_size = (block_count(width, block_bits), block_count(height, block_bits));
        group_count = u64::from(read_largest_value(&mut bits, entropy_size)?) + 1;
        if group_count > pixel_count(entropy_size.0, entropy_size.1) {
            // There are more groups than blocks. No encoder writes groups that no block uses.
            return Err(CorruptStream);
        }
    }
    let mut bytes = 0;
    for _ in 0..group_count {
        bytes += GROUP_BYTES;
        for alphabet_size in alphabet_sizes(cache_symbols) {
            bytes += PrefixCode::read(&mut bits, alphabet_size)?.table_bytes();
        }
    }
    Ok(bytes)
}

/// Number of bytes of a group without its tables: five trees of 56 bytes, counted three times.
///
/// While the list of groups grows, the old list and a new one of twice its length exist at the same time.
const GROUP_BYTES: u64 = 3 * 5 * 56;

/// Returns the number of symbols of each of the five alphabets of a group.
fn alphabet_sizes(cache_symbols: u16) -> impl Iterator<Item = u16> {
    std::iter::once(LITERALS_AND_LENGTHS + cache_symbols).chain(OTHER_ALPHABET_SIZES)
}

/// Returns the number of blocks of 2^`bits` pixels along a side.
fn block_count(side: u32, bits: u32) -> u32 {
    side.div_ceil(1 << bits)
}

/// Skips the transforms, which decoders apply after decoding. Returns the width of the coded image.
fn skip_transforms(bits: &mut BitReader<'_>, mut width: u32, height: u32) -> Result<u32, CorruptStream> {
    const PREDICTOR: u32 = 0;
    const COLOUR: u32 = 1;
    const PALETTE: u32 = 3;
    let mut seen_transforms = [false; 4];
    while bits.read(1)? == 1 {
        let transform = bits.read(2)?;
        if std::mem::replace(&mut seen_transforms[transform as usize], true) {
            return Err(CorruptStream);
        }
        match transform {
            PREDICTOR | COLOUR => {
                let block_bits = bits.read(3)? + 2;
                let transform_size = (block_count(width, block_bits), block_count(height, block_bits));
                read_largest_value(bits, transform_size)?;
            }
            PALETTE => {
                let colours = bits.read(8)? + 1;
                read_largest_value(bits, (colours, 1))?;
                // With few colours, several pixels are packed into one coded pixel.
                width = match colours {
                    0..=2 => block_count(width, 3),
                    3..=4 => block_count(width, 2),
                    5..=16 => block_count(width, 1),
                    _ => width,
                };
            }
            _ => {}
        }
    }
    Ok(width)
}

/// Reads the size of the colour cache. Returns the number of symbols that it adds to the first alphabet.
fn read_cache_symbols(bits: &mut BitReader<'_>) -> Result<u16, CorruptStream> {
    if bits.read(1)? == 0 {
        return Ok(0);
    }
    match bits.read(4)? {
        size @ 1..=11 => Ok(1 << size),
        _ => Err(CorruptStream),
    }
}

/// Reads an entropy or transform image. Returns the largest value of a pixel.
///
/// Such an image is coded with a single group of prefix codes. Red is the high byte of a value, and green is
/// the low byte. Copies and cached colours repeat earlier pixels, so the largest value is that of a literal.
fn read_largest_value(bits: &mut BitReader<'_>, (width, height): (u32, u32)) -> Result<u16, CorruptStream> {
    let cache_symbols = read_cache_symbols(bits)?;
    let codes: Vec<PrefixCode> = alphabet_sizes(cache_symbols)
        .map(|alphabet_size| PrefixCode::read(bits, alphabet_size))
        .collect::<Result<_, _>>()?;
    if let [
        PrefixCode::Single(green @ ..LITERALS),
        PrefixCode::Single(red),
        PrefixCode::Single(_),
        PrefixCode::Single(_),
        _,
    ] = codes[..]
    {
        return Ok(red << 8 | green);
    }
    let tables: Vec<LookupTable> = codes.iter().map(LookupTable::new).collect();
    let [greens, reds, blues, alphas, distances] = &tables[..] else { return Err(CorruptStream) };
    let mut largest = 0;
    let mut pixels_left = pixel_count(width, height);
    while pixels_left > 0 {
        let bits_before = bits.remaining();
        let symbol = greens.read_symbol(bits)?;
        let run = match symbol {
            ..LITERALS => {
                let red = reds.read_symbol(bits)?;
                blues.read_symbol(bits)?;
                alphas.read_symbol(bits)?;
                largest = largest.max(red << 8 | symbol);
                1
            }
            LITERALS..LITERALS_AND_LENGTHS => {
                let run = read_number(bits, symbol - LITERALS)?;
                let distance = distances.read_symbol(bits)?;
                read_number(bits, distance)?;
                run
            }
            _ => 1,
        };
        pixels_left = pixels_left.checked_sub(run.into()).ok_or(CorruptStream)?;
        // If a symbol needs no bits, all remaining pixels repeat the symbol. There may be 2^60 of them, and
        // reading the symbol again would change nothing.
        if bits.remaining() == bits_before {
            break;
        }
    }
    Ok(largest)
}

/// Reads the extra bits of a length or distance whose prefix is `symbol`. Returns the length or distance.
fn read_number(bits: &mut BitReader<'_>, symbol: u16) -> Result<u32, CorruptStream> {
    let symbol = u32::from(symbol);
    if symbol < 4 {
        return Ok(symbol + 1);
    }
    let extra_bits = (symbol - 2) >> 1;
    Ok(((2 + (symbol & 1)) << extra_bits) + bits.read(extra_bits)? + 1)
}

impl PrefixCode {
    fn read(bits: &mut BitReader<'_>, alphabet_size: u16) -> Result<Self, CorruptStream> {
        let is_simple = bits.read(1)? == 1;
        let code =
            if is_simple { Self::read_simple(bits)? } else { Self::read_lengths(bits, alphabet_size)? };
        let largest_symbol = match code {
            Self::Single(symbol) => symbol,
            Self::Two(first, second) => first.max(second),
            Self::Lengths(_) => 0,
        };
        if largest_symbol < alphabet_size { Ok(code) } else { Err(CorruptStream) }
    }

    fn read_simple(bits: &mut BitReader<'_>) -> Result<Self, CorruptStream> {
        let has_second = bits.read(1)? == 1;
        let first_has_8_bits = bits.read(1)? == 1;
        let first = bits.read_u16(if first_has_8_bits { 8 } else { 1 })?;
        if has_second { Ok(Self::Two(first, bits.read_u16(8)?)) } else { Ok(Self::Single(first)) }
    }

    /// Reads a code that is stored as the code lengths of its symbols.
    ///
    /// The code lengths are coded with a second prefix code. The second code is stored first.
    fn read_lengths(bits: &mut BitReader<'_>, alphabet_size: u16) -> Result<Self, CorruptStream> {
        /// Symbols of the second code, in the order in which their code lengths are stored.
        const ORDER: [usize; 19] = [17, 18, 0, 1, 2, 3, 4, 5, 16, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
        let mut length_code = vec![0; ORDER.len()];
        let count = bits.read(4)? as usize + 4;
        for &symbol in ORDER.iter().take(count) {
            length_code[symbol] = bits.read_u8(3)?;
        }
        let length_table = LookupTable::new(&Self::from_lengths(length_code)?);

        let mut symbols_left = alphabet_size;
        if bits.read(1)? == 1 {
            let count_bits = 2 + 2 * bits.read(3)?;
            let count = bits.read_u16(count_bits)?.checked_add(2);
            symbols_left = count.filter(|&count| count <= alphabet_size).ok_or(CorruptStream)?;
        }
        let alphabet_size = usize::from(alphabet_size);
        let mut lengths = Vec::with_capacity(alphabet_size);
        // The format defines 8 as the length before the first.
        let mut previous = 8;
        while lengths.len() < alphabet_size && symbols_left > 0 {
            symbols_left -= 1;
            // The symbol 16 repeats the previous length. The symbols 17 and 18 are runs of zeros.
            let (length, run) = match length_table.read_symbol(bits)? {
                16 => (previous, 3 + bits.read(2)?),
                17 => (0, 3 + bits.read(3)?),
                18 => (0, 11 + bits.read(7)?),
                length => (u8::try_from(length).map_err(|_| CorruptStream)?, 1),
            };
            if length != 0 {
                previous = length;
            }
            lengths.resize(lengths.len() + run as usize, length);
        }
        if lengths.len() > alphabet_size {
            return Err(CorruptStream);
        }
        Self::from_lengths(lengths)
    }

    /// Creates a code from the code lengths of its symbols.
    ///
    /// The code must be complete, which means that every sequence of bits starts with exactly one code.
    fn from_lengths(lengths: Vec<u8>) -> Result<Self, CorruptStream> {
        let mut used = lengths.iter().enumerate().filter(|&(_, &length)| length > 0);
        let (first, second) = (used.next().ok_or(CorruptStream)?, used.next());
        if second.is_none() {
            return Ok(Self::Single(u16::try_from(first.0).map_err(|_| CorruptStream)?));
        }
        // A code of n bits is the start of 1/2^n of all sequences. In a complete code, these shares add up to
        // one.
        const COMPLETE: u32 = 1 << MAX_CODE_BITS;
        let shares = lengths.iter().filter(|&&length| length > 0).map(|&length| COMPLETE >> length);
        if shares.sum::<u32>() == COMPLETE { Ok(Self::Lengths(lengths)) } else { Err(CorruptStream) }
    }

    /// Returns the number of bytes that image-webp allocates for this code.
    ///
    /// image-webp allocates a table with four bytes for each sequence of up to ten bits, and two nodes of
    /// sixteen bytes for each symbol with a longer code.
    fn table_bytes(&self) -> u64 {
        const TABLE_BITS: u8 = 10;
        const ENTRY_BYTES: u64 = 4;
        const NODES_BYTES: u64 = 2 * 16;
        /// Overhead of the two allocations.
        const HEAP_BYTES: u64 = 2 * 16;
        match self {
            Self::Single(_) => 0,
            Self::Two(..) => 2 * ENTRY_BYTES + 2 * NODES_BYTES + HEAP_BYTES,
            Self::Lengths(lengths) => {
                let longest = lengths.iter().copied().max().unwrap_or(0);
                let long_code_count = lengths.iter().filter(|&&length| length > TABLE_BITS).count();
                (ENTRY_BYTES << longest.min(TABLE_BITS)) + NODES_BYTES * long_code_count as u64 + HEAP_BYTES
            }
        }
    }
}

/// Lookup table for reading symbols.
struct LookupTable {
    /// Length of the longest code in bits.
    bits: u32,
    /// One entry for each value of the next `bits` bits: the symbol, and the length of its code in bits.
    symbols: Vec<(u16, u8)>,
}

impl LookupTable {
    fn new(code: &PrefixCode) -> Self {
        let lengths = match code {
            &PrefixCode::Single(symbol) => return Self { bits: 0, symbols: vec![(symbol, 0)] },
            &PrefixCode::Two(first, second) => {
                return Self { bits: 1, symbols: vec![(first, 1), (second, 1)] };
            }
            PrefixCode::Lengths(lengths) => lengths,
        };
        let longest = lengths.iter().copied().max().unwrap_or(0);
        let mut symbols = vec![(0, 0); 1 << longest];
        // The next code, left-aligned in 16 bits.
        let mut next_code: u32 = 0;
        for length in 1..=longest {
            for (symbol, _) in (0..).zip(lengths).filter(|&(_, &own)| own == length) {
                let first = (next_code.reverse_bits() >> 16) as usize;
                for entry in symbols.iter_mut().skip(first).step_by(1 << length) {
                    *entry = (symbol, length);
                }
                next_code += 1 << (16 - length);
            }
        }
        Self { bits: longest.into(), symbols }
    }

    fn read_symbol(&self, bits: &mut BitReader<'_>) -> Result<u16, CorruptStream> {
        let (symbol, length) = self.symbols[bits.peek(self.bits) as usize];
        bits.skip(length.into())?;
        Ok(symbol)
    }
}
