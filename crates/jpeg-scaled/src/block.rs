//! Decodes the coefficients of a block.

use crate::{
    Error,
    bit_reader::BitReader,
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

/// Decodes the AC coefficients of a block.
///
/// Calls `store` at least once for each coefficient that is not zero, with the position in zigzag order and
/// the coefficient. Also calls `store` for the last zero of a run of 16 zeros.
#[inline(always)]
fn decode_ac(
    reader: &mut BitReader,
    bytes: &[u8],
    table: &AcTable,
    mut store: impl FnMut(usize, i16),
) -> Result<(), Error> {
    // Position of the next coefficient in zigzag order. The DC coefficient has position 0.
    let mut position = 1;
    'refill: loop {
        reader.refill(bytes);
        for _ in 0..LOOKUPS_PER_REFILL {
            let entry = table.look_up(reader.peek());
            let next_position = position + entry.position_increment();
            // `next_position > 64` covers three rare cases: the end of the block, a code word that is not in
            // the look-up table, and corrupt data. The hot path needs only one branch.
            if next_position > 64 {
                // The block is complete. The entry belongs to the next block.
                if position == 64 {
                    return Ok(());
                }
                if entry.is_end_of_block() {
                    reader.consume(entry.bit_count());
                    return Ok(());
                }
                // Coefficient 63 completes the block: no end-of-block code word follows it, and the bits that
                // look like one belong to the next block.
                if entry.is_coefficient_and_end() && position + entry.zeros_before_first() < 63 {
                    reader.consume(entry.bit_count());
                    store(position + entry.zeros_before_first(), entry.first_coefficient());
                    return Ok(());
                }
                let (next_reader, decoded) = decode_single_ac(*reader, bytes, table);
                *reader = next_reader;
                match decoded? {
                    Some((zeros, coefficient)) if position + zeros < 64 => {
                        store(position + zeros, coefficient);
                        position += zeros + 1;
                    }
                    Some(_) => return Err(Error::Corrupt("a block has too many coefficients")),
                    None => return Ok(()),
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

/// Decodes the AC coefficients of a block into lane `lane` of `group`. The lane must contain zeros.
#[inline(always)]
pub(crate) fn decode_ac_into(
    reader: &mut BitReader,
    bytes: &[u8],
    table: &AcTable,
    group: &mut BlockGroup,
    lane: usize,
) -> Result<(), Error> {
    let group = group.as_flattened_mut().as_flattened_mut();
    decode_ac(reader, bytes, table, |position, coefficient| {
        // The masks and the remainder do not change the values, but let the compiler omit the bounds check.
        group[usize::from(ZIGZAG[position & 63] & 63) * LANES + lane % LANES] = coefficient;
    })
}

/// Skips the AC coefficients of a block.
#[inline(always)]
pub(crate) fn skip_ac(reader: &mut BitReader, bytes: &[u8], table: &AcTable) -> Result<(), Error> {
    decode_ac(reader, bytes, table, |_, _| {})
}

/// A number of zeros and the coefficient after them, or `None` at the end of the block.
type ZerosAndCoefficient = Option<(usize, i16)>;

/// Decodes a single code word of any length and the value after it.
#[inline(never)]
fn decode_single_ac(
    mut reader: BitReader,
    bytes: &[u8],
    table: &AcTable,
) -> (BitReader, Result<ZerosAndCoefficient, Error>) {
    reader.refill(bytes);
    // A code word without a value ends the block if its number of zeros is 0. If that number is 15, the code
    // word is a run of 16 zeros.
    let decoded = match table.find_code_word(reader.peek()) {
        Some((code_word_length, 0, 0)) => {
            reader.consume(code_word_length);
            Ok(None)
        }
        Some((code_word_length, zeros, value_length)) if value_length > 0 || zeros == 15 => {
            reader.consume(code_word_length);
            Ok(Some((zeros, read_value(&mut reader, value_length))))
        }
        _ => Err(Error::Corrupt("an unknown AC code word")),
    };
    (reader, decoded)
}

/// Reads the value after a code word. The value has `length` bits, at most 15.
#[inline(always)]
fn read_value(reader: &mut BitReader, length: u32) -> i16 {
    let bits = ((reader.peek() >> 48) as u16).checked_shr(16 - length).unwrap_or(0);
    reader.consume(length);
    extend(bits, length)
}
