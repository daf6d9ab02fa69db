//! Lossless WebP: what the tables of its prefix codes take.
//!
//! A picture is divided into blocks, and a picture of its own, the entropy image, says which of up to
//! 65,536 groups of five codes each block uses. A decoder makes tables of all groups before the first
//! pixel: image-webp up to some ten kilobytes for each, of which a file needs some ten bytes. A picture of
//! one pixel could so take more than a gigabyte, and nothing in the first bytes of the file says so. So
//! the stream is read here up to the last code, and the tables are added up. No pixels are kept: which
//! groups there are follows from the largest value in the entropy image.

#[cfg(test)]
mod tests;

use super::bits::Bits;

/// Lengths of the codes of one alphabet.
enum Code {
    /// One symbol, which takes no bits.
    Single(u16),
    /// Two symbols of one bit each.
    Two(u16, u16),
    /// The length of each symbol's code.
    Lengths(Vec<u8>),
}

/// Why the stream cannot be read: it breaks the rules or ends early.
#[derive(Debug)]
pub(super) struct Broken;

/// Symbols of literals and of lengths; with a cache of colours there are more.
const LITERALS: u16 = 256;
const LITERALS_AND_LENGTHS: u16 = LITERALS + 24;
/// Symbols of each code of a group but the first: red, blue, alpha, distances.
const OTHER_ALPHABETS: [u16; 4] = [256, 256, 256, 40];
const LONGEST_CODE: usize = 15;

/// Bytes of the tables for a picture of that size. `stream` begins after the signature and the size.
pub(super) fn table_bytes(stream: &[u8], width: u32, height: u32) -> Result<u64, Broken> {
    let mut bits = Bits::of(stream);
    let width = skip_transforms(&mut bits, width, height)?;
    let cache = cache_symbols(&mut bits)?;
    let mut groups = 1;
    if bits.take(1)? == 1 {
        let block_bits = bits.take(3)? + 2;
        let blocks = (blocks(width, block_bits), blocks(height, block_bits));
        groups = u64::from(largest_value(&mut bits, blocks)?) + 1;
        if groups > pixels(blocks) {
            // No encoder numbers more groups than it has blocks.
            return Err(Broken);
        }
    }
    let mut bytes = 0;
    for _ in 0..groups {
        bytes += GROUP_BYTES;
        for alphabet in alphabets(cache) {
            bytes += Code::read(&mut bits, alphabet)?.table_bytes();
        }
    }
    Ok(bytes)
}

/// Five trees of 56 bytes, three times: while the list of groups grows, it is there twice, and the new one
/// is twice as long.
const GROUP_BYTES: u64 = 3 * 5 * 56;

fn alphabets(cache: u16) -> impl Iterator<Item = u16> {
    std::iter::once(LITERALS_AND_LENGTHS + cache).chain(OTHER_ALPHABETS)
}

/// Blocks along a side.
fn blocks(side: u32, bits: u32) -> u32 {
    side.div_ceil(1 << bits)
}

fn pixels((width, height): (u32, u32)) -> u64 {
    u64::from(width) * u64::from(height)
}

/// Steps over what is done to the pixels after they are decoded; gives the width that is coded.
fn skip_transforms(bits: &mut Bits<'_>, mut width: u32, height: u32) -> Result<u32, Broken> {
    const PREDICTOR: u32 = 0;
    const COLOUR: u32 = 1;
    const PALETTE: u32 = 3;
    let mut seen = [false; 4];
    while bits.take(1)? == 1 {
        let transform = bits.take(2)?;
        if std::mem::replace(&mut seen[transform as usize], true) {
            return Err(Broken);
        }
        match transform {
            PREDICTOR | COLOUR => {
                let block_bits = bits.take(3)? + 2;
                largest_value(bits, (blocks(width, block_bits), blocks(height, block_bits)))?;
            }
            PALETTE => {
                let colours = bits.take(8)? + 1;
                largest_value(bits, (colours, 1))?;
                // Several pixels in one where there are few colours.
                width = match colours {
                    0..=2 => blocks(width, 3),
                    3..=4 => blocks(width, 2),
                    5..=16 => blocks(width, 1),
                    _ => width,
                };
            }
            _ => {}
        }
    }
    Ok(width)
}

/// Symbols for the colours in the cache.
fn cache_symbols(bits: &mut Bits<'_>) -> Result<u16, Broken> {
    if bits.take(1)? == 0 {
        return Ok(0);
    }
    match bits.take(4)? {
        size @ 1..=11 => Ok(1 << size),
        _ => Err(Broken),
    }
}

/// Reads a picture with one group of codes; gives the largest value that red and green make together.
/// What is copied from before is never larger.
fn largest_value(bits: &mut Bits<'_>, size: (u32, u32)) -> Result<u16, Broken> {
    let cache = cache_symbols(bits)?;
    let codes: Vec<Code> =
        alphabets(cache).map(|alphabet| Code::read(bits, alphabet)).collect::<Result<_, _>>()?;
    if let [Code::Single(green @ ..LITERALS), Code::Single(red), Code::Single(_), Code::Single(_), _] =
        codes[..]
    {
        return Ok(red << 8 | green);
    }
    let tables: Vec<Table> = codes.iter().map(Table::of).collect();
    let [greens, reds, blues, alphas, distances] = &tables[..] else { return Err(Broken) };
    let mut largest = 0;
    let mut left = pixels(size);
    while left > 0 {
        let bits_left = bits.left();
        let symbol = greens.read(bits)?;
        let run = match symbol {
            ..LITERALS => {
                let red = reds.read(bits)?;
                blues.read(bits)?;
                alphas.read(bits)?;
                largest = largest.max(red << 8 | symbol);
                1
            }
            LITERALS..LITERALS_AND_LENGTHS => {
                let run = number(bits, symbol - LITERALS)?;
                let distance = distances.read(bits)?;
                number(bits, distance)?;
                run
            }
            _ => 1,
        };
        left = left.checked_sub(run.into()).ok_or(Broken)?;
        // What takes no bits comes again and again, for as many pixels as a header cares to promise.
        if bits.left() == bits_left {
            break;
        }
    }
    Ok(largest)
}

/// A length or distance, of which the symbol is the first part.
fn number(bits: &mut Bits<'_>, symbol: u16) -> Result<u32, Broken> {
    let symbol = u32::from(symbol);
    if symbol < 4 {
        return Ok(symbol + 1);
    }
    let more = (symbol - 2) >> 1;
    Ok(((2 + (symbol & 1)) << more) + bits.take(more)? + 1)
}

impl Code {
    fn read(bits: &mut Bits<'_>, alphabet: u16) -> Result<Self, Broken> {
        let simple = bits.take(1)? == 1;
        let code = if simple { Self::read_simple(bits)? } else { Self::read_lengths(bits, alphabet)? };
        let largest = match code {
            Self::Single(symbol) => symbol,
            Self::Two(first, second) => first.max(second),
            Self::Lengths(_) => 0,
        };
        if largest < alphabet { Ok(code) } else { Err(Broken) }
    }

    fn read_simple(bits: &mut Bits<'_>) -> Result<Self, Broken> {
        let two = bits.take(1)? == 1;
        let long = bits.take(1)? == 1;
        let first = bits.take16(if long { 8 } else { 1 })?;
        if two { Ok(Self::Two(first, bits.take16(8)?)) } else { Ok(Self::Single(first)) }
    }

    /// The lengths are coded themselves, by a code whose lengths come first.
    fn read_lengths(bits: &mut Bits<'_>, alphabet: u16) -> Result<Self, Broken> {
        const ORDER: [usize; 19] = [17, 18, 0, 1, 2, 3, 4, 5, 16, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
        let mut outer = vec![0; ORDER.len()];
        let count = bits.take(4)? as usize + 4;
        for &symbol in ORDER.iter().take(count) {
            outer[symbol] = bits.take8(3)?;
        }
        let outer = Table::of(&Self::of_lengths(outer)?);

        let mut coded = alphabet;
        if bits.take(1)? == 1 {
            let size = 2 + 2 * bits.take(3)?;
            coded = bits.take16(size)?.checked_add(2).filter(|&coded| coded <= alphabet).ok_or(Broken)?;
        }
        let alphabet = usize::from(alphabet);
        let mut lengths = Vec::with_capacity(alphabet);
        let mut previous = 8;
        while lengths.len() < alphabet && coded > 0 {
            coded -= 1;
            let (length, run) = match outer.read(bits)? {
                16 => (previous, 3 + bits.take(2)?),
                17 => (0, 3 + bits.take(3)?),
                18 => (0, 11 + bits.take(7)?),
                length => (u8::try_from(length).map_err(|_| Broken)?, 1),
            };
            if length != 0 {
                previous = length;
            }
            lengths.resize(lengths.len() + run as usize, length);
        }
        if lengths.len() > alphabet {
            return Err(Broken);
        }
        Self::of_lengths(lengths)
    }

    /// Sees to it that every row of bits is one symbol or the beginning of one.
    fn of_lengths(lengths: Vec<u8>) -> Result<Self, Broken> {
        let mut used = lengths.iter().enumerate().filter(|&(_, &length)| length > 0);
        let (first, second) = (used.next().ok_or(Broken)?, used.next());
        if second.is_none() {
            return Ok(Self::Single(u16::try_from(first.0).map_err(|_| Broken)?));
        }
        const WHOLE: u32 = 1 << LONGEST_CODE;
        let parts = lengths.iter().filter(|&&length| length > 0).map(|&length| WHOLE >> length);
        if parts.sum::<u32>() == WHOLE { Ok(Self::Lengths(lengths)) } else { Err(Broken) }
    }

    /// What image-webp makes of it: a table of four bytes for each row of at most ten bits, and two nodes of
    /// sixteen bytes for each symbol with a longer code.
    fn table_bytes(&self) -> u64 {
        const TABLE_BITS: u8 = 10;
        const ENTRY: u64 = 4;
        const NODES: u64 = 2 * 16;
        const HEAP: u64 = 2 * 16;
        match self {
            Self::Single(_) => 0,
            Self::Two(..) => 2 * ENTRY + 2 * NODES + HEAP,
            Self::Lengths(lengths) => {
                let longest = lengths.iter().copied().max().unwrap_or(0);
                let long = lengths.iter().filter(|&&length| length > TABLE_BITS).count();
                (ENTRY << longest.min(TABLE_BITS)) + NODES * long as u64 + HEAP
            }
        }
    }
}

/// A code to read symbols with: for every row of bits, as they come, a symbol and how many bits it takes.
struct Table {
    bits: u32,
    symbols: Vec<(u16, u8)>,
}

impl Table {
    fn of(code: &Code) -> Self {
        let lengths = match code {
            &Code::Single(symbol) => return Self { bits: 0, symbols: vec![(symbol, 0)] },
            &Code::Two(first, second) => return Self { bits: 1, symbols: vec![(first, 1), (second, 1)] },
            Code::Lengths(lengths) => lengths,
        };
        let longest = lengths.iter().copied().max().unwrap_or(0);
        let mut symbols = vec![(0, 0); 1 << longest];
        // The next code, as the highest of 16 bits.
        let mut code: u32 = 0;
        for length in 1..=longest {
            for (symbol, _) in (0..).zip(lengths).filter(|&(_, &of)| of == length) {
                let first = (code.reverse_bits() >> 16) as usize;
                for entry in symbols.iter_mut().skip(first).step_by(1 << length) {
                    *entry = (symbol, length);
                }
                code += 1 << (16 - length);
            }
        }
        Self { bits: longest.into(), symbols }
    }

    fn read(&self, bits: &mut Bits<'_>) -> Result<u16, Broken> {
        let (symbol, length) = self.symbols[bits.peek(self.bits) as usize];
        bits.drop(length.into())?;
        Ok(symbol)
    }
}
