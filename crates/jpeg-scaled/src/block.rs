//! Decodes the coefficients of a block.

use crate::{
    Error,
    bit_reader::BitReader,
    header::Band,
    huffman::{AC_LOOKUP_BITS, AcTable, DcTable, extend},
    idct::{BlockGroup, LANES},
    zigzag::ZIGZAG,
};

/// Maximum number of look-ups between two refills of the bit reader.
const LOOKUPS_PER_REFILL: u32 = BitReader::MIN_BITS_AFTER_REFILL / AC_LOOKUP_BITS;

/// Decodes the difference between the DC coefficients of a block and of the component's previous block.
#[inline(always)]
pub(crate) fn decode_dc_difference(
    reader: &mut BitReader,
    bytes: &[u8],
    table: &DcTable,
) -> Result<i16, Error> {
    reader.refill(bytes);
    let entry = table.look_up(reader.peek());
    if entry.bit_count > 0 {
        reader.consume(entry.bit_count.into());
        return Ok(entry.difference);
    }
    let (next_reader, difference) = decode_long_dc_difference(*reader, table);
    *reader = next_reader;
    difference
}

/// Decodes a difference whose code word and value are too long for a look-up.
#[cold]
#[inline(never)]
fn decode_long_dc_difference(mut reader: BitReader, table: &DcTable) -> (BitReader, Result<i16, Error>) {
    let Some((code_word_length, value_length)) = table.find_code_word(reader.peek()) else {
        return (reader, Err(Error::Corrupt("an unknown DC code word")));
    };
    reader.consume(code_word_length);
    let difference = read_value(&mut reader, value_length);
    (reader, Ok(difference))
}

/// Decodes the AC coefficients of `band` of a block. Returns the number of following blocks that have no
/// coefficients in this band, which is always 0 in a sequential file.
///
/// Calls `store` at least once for each coefficient that is not zero, with the position in zigzag order and
/// the coefficient. Also calls `store` for the last zero of a run of 16 zeros.
#[inline(always)]
pub(crate) fn decode_ac<const IS_PROGRESSIVE: bool>(
    reader: &mut BitReader,
    bytes: &[u8],
    table: &AcTable,
    band: Band,
    mut store: impl FnMut(usize, i16),
) -> Result<u32, Error> {
    // Position of the next coefficient in zigzag order. The DC coefficient has position 0.
    let mut position = band.start;
    'refill: loop {
        reader.refill(bytes);
        for _ in 0..LOOKUPS_PER_REFILL {
            let entry = table.look_up(reader.peek());
            let next_position = position + entry.position_increment();
            // `next_position > band.end` covers three rare cases: the end of the block, a code word that is
            // not in the look-up table, and corrupt data. The hot path needs only one branch.
            if next_position > band.end {
                // The block is complete. The entry belongs to the next block.
                if position == band.end {
                    return Ok(0);
                }
                if entry.is_end_of_block() {
                    reader.consume(entry.bit_count());
                    return Ok(0);
                }
                // The last coefficient of the band completes the block: no end-of-block code word follows it,
                // and the bits that look like one belong to the next block.
                if entry.is_coefficient_and_end() && position + entry.zeros_before_first() + 1 < band.end {
                    reader.consume(entry.bit_count());
                    store(position + entry.zeros_before_first(), entry.first_coefficient());
                    return Ok(0);
                }
                let (next_reader, decoded) = decode_single_ac::<IS_PROGRESSIVE>(*reader, bytes, table);
                *reader = next_reader;
                match decoded? {
                    SingleAc::Coefficient { zeros, value } if position + zeros < band.end => {
                        store(position + zeros, value);
                        position += zeros + 1;
                    }
                    SingleAc::Coefficient { .. } => {
                        return Err(Error::Corrupt("a block has too many coefficients"));
                    }
                    SingleAc::EndOfBlocks { following_count } => return Ok(following_count),
                }
                continue 'refill;
            }
            reader.consume(entry.bit_count());
            // If the entry has only one coefficient, both calls store it. That is faster than a branch.
            store(position + entry.zeros_before_first(), entry.first_coefficient());
            store(next_position - 1, entry.last_coefficient());
            position = next_position;
        }
    }
}

/// Decodes the AC coefficients of a block of a sequential file into lane `lane` of `group`. The lane must
/// contain zeros.
#[inline(always)]
pub(crate) fn decode_ac_into(
    reader: &mut BitReader,
    bytes: &[u8],
    table: &AcTable,
    group: &mut BlockGroup,
    lane: usize,
) -> Result<(), Error> {
    let flat_group = group.as_flattened_mut().as_flattened_mut();
    decode_ac::<false>(reader, bytes, table, Band::AC, |position, coefficient| {
        flat_group[coefficient_index(position, lane)] = coefficient;
    })?;
    // Few blocks have the coefficient of the highest frequency.
    if flat_group[coefficient_index(63, lane)] != 0 {
        return check_variety(group, lane);
    }
    Ok(())
}

const UNIFORM_BLOCK: Error = Error::Corrupt("all AC coefficients of a block are equal");

/// Returns an error if all AC coefficients of a block are equal.
///
/// Such blocks do not occur in pictures. Zero bytes in damaged data decode to them, if the first code word of
/// the table has a value.
#[cold]
#[inline(never)]
fn check_variety(group: &BlockGroup, lane: usize) -> Result<(), Error> {
    let coefficients = group.as_flattened().iter().map(|lanes| lanes[lane % LANES]);
    let last = group[7][7][lane % LANES];
    if coefficients.skip(1).all(|coefficient| coefficient == last) {
        return Err(UNIFORM_BLOCK);
    }
    Ok(())
}

/// Returns the index in a flattened group of the coefficient at `position` in zigzag order of a block.
#[inline(always)]
pub(crate) fn coefficient_index(position: usize, lane: usize) -> usize {
    // The masks and the remainder do not change the values, but let the compiler omit the bounds check.
    usize::from(ZIGZAG[position & 63] & 63) * LANES + lane % LANES
}

/// Skips the AC coefficients of a block of a sequential file, with the same checks as [`decode_ac_into`].
#[inline(always)]
pub(crate) fn skip_ac(reader: &mut BitReader, bytes: &[u8], table: &AcTable) -> Result<(), Error> {
    // Bits that differ between any two coefficients, and a bit for each coefficient that is not zero.
    let (mut first, mut different_bits, mut nonzero) = (0, 0, 0u64);
    decode_ac::<false>(reader, bytes, table, Band::AC, |position, coefficient| {
        first = if nonzero == 0 { coefficient } else { first };
        different_bits |= first ^ coefficient;
        nonzero |= u64::from(coefficient != 0) << (position & 63);
    })?;
    if nonzero == Band::AC.mask() && different_bits == 0 {
        return Err(UNIFORM_BLOCK);
    }
    Ok(())
}

/// The meaning of a code word and the bits after it.
enum SingleAc {
    /// A number of zeros and the coefficient after them.
    Coefficient { zeros: usize, value: i16 },
    /// The end of this block and of a number of following blocks.
    EndOfBlocks { following_count: u32 },
}

/// Decodes a single code word of any length and the value after it.
#[inline(never)]
fn decode_single_ac<const IS_PROGRESSIVE: bool>(
    mut reader: BitReader,
    bytes: &[u8],
    table: &AcTable,
) -> (BitReader, Result<SingleAc, Error>) {
    reader.refill(bytes);
    // A code word without a value is a run of 16 zeros if its number of zeros is 15. Otherwise, it ends the
    // block. In a progressive file, the number of zeros is then the number of bits that count further blocks.
    let decoded = match table.find_code_word(reader.peek()) {
        Some((code_word_length, zeros, value_length)) if value_length > 0 || zeros == 15 => {
            reader.consume(code_word_length);
            Ok(SingleAc::Coefficient { zeros, value: read_value(&mut reader, value_length) })
        }
        Some((code_word_length, count_length, _)) if IS_PROGRESSIVE || count_length == 0 => {
            reader.consume(code_word_length);
            #[expect(clippy::cast_possible_truncation, reason = "less than 16")]
            let following_count = read_block_count(&mut reader, count_length as u32);
            Ok(SingleAc::EndOfBlocks { following_count })
        }
        _ => Err(Error::Corrupt("an unknown AC code word")),
    };
    (reader, decoded)
}

/// Reads the number of blocks that end after the current block. The number is stored in `length` bits, at most
/// 14.
#[inline(always)]
pub(crate) fn read_block_count(reader: &mut BitReader, length: u32) -> u32 {
    let block_count = 1 << length | reader.take_bits(length);
    block_count - 1
}

/// Reads the value after a code word. The value has `length` bits, at most 15.
#[inline(always)]
fn read_value(reader: &mut BitReader, length: u32) -> i16 {
    #[expect(clippy::cast_possible_truncation, reason = "at most 15 bits")]
    let bits = reader.take_bits(length) as u16;
    extend(bits, length)
}
