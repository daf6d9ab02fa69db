//! Computes the memory that a decoder needs for the prefix codes of a lossless WebP (VP8L).
//!
//! A prefix code gives each symbol of an alphabet a code word, which is a sequence of bits. Five prefix codes
//! form a group. An image is divided into blocks, and a second, smaller image, the entropy image, has one
//! pixel per block. The value of this pixel, from 0 to 65,535, is the number of the block's group.
//!
//! A decoder builds lookup tables for all groups before it decodes the first pixel. image-webp can need more
//! than 20 kilobytes for a group that takes less than 100 bytes in the file. A file of a few megabytes can
//! contain 65,536 groups, for which image-webp would need more than a gigabyte. The first bytes of the file
//! do not show how many groups there are.
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
    /// A single symbol, whose code word has no bits.
    Single(u16),
    /// Two symbols, whose code words have one bit each.
    Two(u16, u16),
    /// Length in bits of the code word of each symbol. The length of an unused symbol is 0.
    Lengths(Vec<u8>),
}

/// Number of literals, which are the first symbols of a group's first alphabet.
///
/// A literal is the green of a new pixel. The symbols after the literals repeat earlier pixels.
const LITERAL_COUNT: u16 = 256;
/// Number of symbols of the first alphabet without a colour cache: the literals, then 24 prefixes of the
/// lengths of copies.
const LITERAL_AND_LENGTH_COUNT: u16 = LITERAL_COUNT + 24;
/// Number of symbols of the other alphabets of a group: red, blue, alpha, distance.
const OTHER_ALPHABET_SIZES: [u16; 4] = [256, 256, 256, 40];
/// Maximum length of a code word in bits.
const MAX_CODE_WORD_BITS: usize = 15;

/// Returns the number of bytes that image-webp allocates for the prefix codes of a `width` × `height` image.
///
/// `stream` starts after the signature and the size.
pub(super) fn table_bytes(stream: &[u8], width: u32, height: u32) -> Result<u64, CorruptStream> {
    let mut reader = BitReader::new(stream);
    let width = skip_transforms(&mut reader, width, height)?;
    let cache_symbol_count = read_cache_symbol_count(&mut reader)?;
    let mut group_count = 1;
    if reader.read(1)? == 1 {
        let block_bits = reader.read(3)? + 2;
        let entropy_size = (block_count(width, block_bits), block_count(height, block_bits));
        group_count = u64::from(read_largest_value(&mut reader, entropy_size)?) + 1;
        if group_count > pixel_count(entropy_size.0, entropy_size.1) {
            // With more groups than blocks, some groups are unused. No encoder writes unused groups.
            return Err(CorruptStream);
        }
    }
    let mut bytes = 0;
    for _ in 0..group_count {
        bytes += GROUP_BYTES;
        for alphabet_size in alphabet_sizes(cache_symbol_count) {
            bytes += PrefixCode::read(&mut reader, alphabet_size)?.table_bytes();
        }
    }
    Ok(bytes)
}

/// Number of bytes of a group without its tables: five structs of 56 bytes, one for each prefix code, counted
/// three times.
///
/// When the list of groups is full, image-webp copies it to a list of twice its length. During the copy, both
/// lists exist, with three times the length of the full list.
const GROUP_BYTES: u64 = 3 * 5 * 56;

/// Returns the number of symbols of each of the five alphabets of a group. The colour cache adds
/// `cache_symbol_count` symbols to the first alphabet.
fn alphabet_sizes(cache_symbol_count: u16) -> impl Iterator<Item = u16> {
    std::iter::once(LITERAL_AND_LENGTH_COUNT + cache_symbol_count).chain(OTHER_ALPHABET_SIZES)
}

/// Returns the number of blocks along a side of `side` pixels. A block is 2^`block_bits` pixels long.
fn block_count(side: u32, block_bits: u32) -> u32 {
    side.div_ceil(1 << block_bits)
}

/// Skips the transforms, which decoders apply to the decoded pixels. Returns the width of the coded image.
///
/// Most transforms have parameters that are stored as an image, which is skipped as well.
fn skip_transforms(reader: &mut BitReader<'_>, mut width: u32, height: u32) -> Result<u32, CorruptStream> {
    const PREDICTOR: u32 = 0;
    const COLOUR: u32 = 1;
    const PALETTE: u32 = 3;
    let mut seen_transforms = [false; 4];
    while reader.read(1)? == 1 {
        let transform = reader.read(2)?;
        if std::mem::replace(&mut seen_transforms[transform as usize], true) {
            return Err(CorruptStream);
        }
        match transform {
            PREDICTOR | COLOUR => {
                let block_bits = reader.read(3)? + 2;
                let transform_size = (block_count(width, block_bits), block_count(height, block_bits));
                read_largest_value(reader, transform_size)?;
            }
            PALETTE => {
                let colour_count = reader.read(8)? + 1;
                read_largest_value(reader, (colour_count, 1))?;
                // With few colours, 8, 4 or 2 pixels are packed into one coded pixel.
                width = match colour_count {
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

/// Reads the size of the colour cache. Returns the number of symbols that the cache adds to the first
/// alphabet.
fn read_cache_symbol_count(reader: &mut BitReader<'_>) -> Result<u16, CorruptStream> {
    if reader.read(1)? == 0 {
        return Ok(0);
    }
    match reader.read(4)? {
        size @ 1..=11 => Ok(1 << size),
        _ => Err(CorruptStream),
    }
}

/// Reads an entropy or transform image. Returns the largest value of a pixel.
///
/// Such an image is coded with a single group of prefix codes. Red is the high byte of a value, and green is
/// the low byte. Copies and cached colours repeat earlier pixels, so the largest value is that of a literal.
fn read_largest_value(reader: &mut BitReader<'_>, (width, height): (u32, u32)) -> Result<u16, CorruptStream> {
    let cache_symbol_count = read_cache_symbol_count(reader)?;
    let codes: Vec<PrefixCode> = alphabet_sizes(cache_symbol_count)
        .map(|alphabet_size| PrefixCode::read(reader, alphabet_size))
        .collect::<Result<_, _>>()?;
    if let [
        PrefixCode::Single(green @ ..LITERAL_COUNT),
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
        let bits_before = reader.remaining_bits();
        let symbol = greens.read_symbol(reader)?;
        let run_length = match symbol {
            ..LITERAL_COUNT => {
                let red = reds.read_symbol(reader)?;
                blues.read_symbol(reader)?;
                alphas.read_symbol(reader)?;
                largest = largest.max(red << 8 | symbol);
                1
            }
            LITERAL_COUNT..LITERAL_AND_LENGTH_COUNT => {
                let copy_length = read_number(reader, symbol - LITERAL_COUNT)?;
                let distance_prefix = distances.read_symbol(reader)?;
                read_number(reader, distance_prefix)?;
                copy_length
            }
            _ => 1,
        };
        pixels_left = pixels_left.checked_sub(run_length.into()).ok_or(CorruptStream)?;
        // If a symbol needs no bits, all remaining pixels repeat the symbol. Reading it again for each of
        // them would take long and change nothing.
        if reader.remaining_bits() == bits_before {
            break;
        }
    }
    Ok(largest)
}

/// Reads the extra bits that follow `prefix`. Returns the length or distance of a copy, which the prefix and
/// the extra bits stand for. The format defines the formula.
fn read_number(reader: &mut BitReader<'_>, prefix: u16) -> Result<u32, CorruptStream> {
    let prefix = u32::from(prefix);
    if prefix < 4 {
        return Ok(prefix + 1);
    }
    let extra_bits = (prefix - 2) >> 1;
    Ok(((2 + (prefix & 1)) << extra_bits) + reader.read(extra_bits)? + 1)
}

impl PrefixCode {
    /// Reads the prefix code of an alphabet of `alphabet_size` symbols.
    fn read(reader: &mut BitReader<'_>, alphabet_size: u16) -> Result<Self, CorruptStream> {
        let is_simple = reader.read(1)? == 1;
        let code =
            if is_simple { Self::read_simple(reader)? } else { Self::read_lengths(reader, alphabet_size)? };
        let largest_symbol = match code {
            Self::Single(symbol) => symbol,
            Self::Two(first, second) => first.max(second),
            Self::Lengths(_) => 0,
        };
        if largest_symbol < alphabet_size { Ok(code) } else { Err(CorruptStream) }
    }

    /// Reads a code of one or two symbols.
    fn read_simple(reader: &mut BitReader<'_>) -> Result<Self, CorruptStream> {
        let has_second = reader.read(1)? == 1;
        let first_has_8_bits = reader.read(1)? == 1;
        let first = reader.read_u16(if first_has_8_bits { 8 } else { 1 })?;
        if has_second { Ok(Self::Two(first, reader.read_u16(8)?)) } else { Ok(Self::Single(first)) }
    }

    /// Reads a code that is stored as the lengths of its code words.
    ///
    /// The stream first stores a second prefix code, and then the lengths, which are coded with the second
    /// code.
    fn read_lengths(reader: &mut BitReader<'_>, alphabet_size: u16) -> Result<Self, CorruptStream> {
        /// Symbols of the second code, in the order in which the lengths of their code words are stored.
        const ORDER: [usize; 19] = [17, 18, 0, 1, 2, 3, 4, 5, 16, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
        let mut second_lengths = vec![0; ORDER.len()];
        let stored_count = reader.read(4)? as usize + 4;
        for &symbol in ORDER.iter().take(stored_count) {
            second_lengths[symbol] = reader.read_u8(3)?;
        }
        let second_table = LookupTable::new(&Self::from_lengths(second_lengths)?);

        let mut reads_left = alphabet_size;
        if reader.read(1)? == 1 {
            let count_bits = 2 + 2 * reader.read(3)?;
            let read_count = reader.read_u16(count_bits)?.checked_add(2);
            reads_left = read_count.filter(|&count| count <= alphabet_size).ok_or(CorruptStream)?;
        }
        let alphabet_size = usize::from(alphabet_size);
        let mut lengths = Vec::with_capacity(alphabet_size);
        // The previous length that was not 0. By definition of the format, it is 8 before the first length.
        let mut previous = 8;
        while lengths.len() < alphabet_size && reads_left > 0 {
            reads_left -= 1;
            // The symbol 16 repeats `previous`. The symbols 17 and 18 are runs of zeros.
            let (length, run_length) = match second_table.read_symbol(reader)? {
                16 => (previous, 3 + reader.read(2)?),
                17 => (0, 3 + reader.read(3)?),
                18 => (0, 11 + reader.read(7)?),
                length => (u8::try_from(length).map_err(|_| CorruptStream)?, 1),
            };
            if length != 0 {
                previous = length;
            }
            lengths.resize(lengths.len() + run_length as usize, length);
        }
        if lengths.len() > alphabet_size {
            return Err(CorruptStream);
        }
        Self::from_lengths(lengths)
    }

    /// Creates a code from the lengths of its code words.
    ///
    /// The code must have a single symbol or be complete, which means that every long enough sequence of bits
    /// starts with exactly one code word.
    fn from_lengths(lengths: Vec<u8>) -> Result<Self, CorruptStream> {
        let mut used = lengths.iter().enumerate().filter(|&(_, &length)| length > 0);
        let (first, second) = (used.next().ok_or(CorruptStream)?, used.next());
        if second.is_none() {
            return Ok(Self::Single(u16::try_from(first.0).map_err(|_| CorruptStream)?));
        }
        // A share of 1/2^n of all sequences starts with a given code word of n bits. In a complete code, the
        // shares of all code words add up to the whole.
        const WHOLE: u32 = 1 << MAX_CODE_WORD_BITS;
        let shares = lengths.iter().filter(|&&length| length > 0).map(|&length| WHOLE >> length);
        if shares.sum::<u32>() == WHOLE { Ok(Self::Lengths(lengths)) } else { Err(CorruptStream) }
    }

    /// Returns the number of bytes that image-webp allocates for this code.
    ///
    /// image-webp allocates a table of 2^n entries of four bytes, where n is the length of the longest code
    /// word, but at most ten. For each code word of more than ten bits, it also allocates two nodes of
    /// sixteen bytes. For a code of two symbols, it allocates two entries and three nodes, which are counted
    /// as four.
    fn table_bytes(&self) -> u64 {
        const MAX_TABLE_BITS: u8 = 10;
        const ENTRY_BYTES: u64 = 4;
        const NODE_PAIR_BYTES: u64 = 2 * 16;
        /// Overhead of the allocator for the table and for the list of nodes.
        const HEAP_BYTES: u64 = 2 * 16;
        match self {
            Self::Single(_) => 0,
            Self::Two(..) => 2 * ENTRY_BYTES + 2 * NODE_PAIR_BYTES + HEAP_BYTES,
            Self::Lengths(lengths) => {
                let longest = lengths.iter().copied().max().unwrap_or(0);
                let lookup_bytes = ENTRY_BYTES << longest.min(MAX_TABLE_BITS);
                let long_word_count = lengths.iter().filter(|&&length| length > MAX_TABLE_BITS).count();
                lookup_bytes + NODE_PAIR_BYTES * long_word_count as u64 + HEAP_BYTES
            }
        }
    }
}

/// Lookup table for reading symbols.
struct LookupTable {
    /// Length of the longest code word in bits.
    index_bits: u32,
    /// One entry for each value of the next `index_bits` bits: the symbol whose code word these bits start
    /// with, and the length of this code word in bits.
    entries: Vec<(u16, u8)>,
}

impl LookupTable {
    fn new(code: &PrefixCode) -> Self {
        let lengths = match code {
            &PrefixCode::Single(symbol) => return Self { index_bits: 0, entries: vec![(symbol, 0)] },
            &PrefixCode::Two(first, second) => {
                return Self { index_bits: 1, entries: vec![(first, 1), (second, 1)] };
            }
            PrefixCode::Lengths(lengths) => lengths,
        };
        let longest = lengths.iter().copied().max().unwrap_or(0);
        let mut entries = vec![(0, 0); 1 << longest];
        // The code word of the next symbol, left-aligned in 16 bits.
        let mut code_word: u32 = 0;
        for length in 1..=longest {
            for (symbol, _) in (0..).zip(lengths).filter(|&(_, &symbol_length)| symbol_length == length) {
                // The first bit of a code word is the lowest bit of the index. The bits of the index above
                // the code word can have any value.
                let first_index = (code_word.reverse_bits() >> 16) as usize;
                for entry in entries.iter_mut().skip(first_index).step_by(1 << length) {
                    *entry = (symbol, length);
                }
                code_word += 1 << (16 - length);
            }
        }
        Self { index_bits: longest.into(), entries }
    }

    fn read_symbol(&self, reader: &mut BitReader<'_>) -> Result<u16, CorruptStream> {
        let (symbol, length) = self.entries[reader.peek(self.index_bits) as usize];
        reader.skip(length.into())?;
        Ok(symbol)
    }
}
