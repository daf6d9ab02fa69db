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

/// Decodes a difference whose code and value are too long for a look-up.
#[cold]
#[inline(never)]
fn decode_long_dc_difference(mut reader: BitReader, table: &DcTable) -> (BitReader, Result<i16, Error>) {
    let Some((length, size)) = table.find_code(reader.peek()) else {
        return (reader, Err(Error::Corrupt("an unknown DC code")));
    };
    reader.consume(length);
    let difference = read_value(&mut reader, size);
    (reader, Ok(difference))
}

/// Decodes the AC coefficients of a block.
///
/// Calls `store` at least once for each coefficient that is not zero, with its position in zigzag order and
/// its value. Also calls `store` for the last zero of a run of 16 zeros.
#[inline(always)]
fn decode_ac(
    reader: &mut BitReader,
    bytes: &[u8],
    table: &AcTable,
    mut store: impl FnMut(usize, i16),
) -> Result<(), Error> {
    // Position of the next coefficient.
    let mut next = 1;
    'refill: loop {
        reader.refill(bytes);
        for _ in 0..LOOKUPS_PER_REFILL {
            let entry = table.look_up(reader.peek());
            let after = next + entry.position_increment();
            // `after > 64` covers three rare cases: the end of the block, a code that is not in the look-up
            // table, and corrupt data. The hot path needs only one branch.
            if after > 64 {
                // The block is complete. The entry belongs to the next block.
                if next == 64 {
                    return Ok(());
                }
                if entry.is_end_of_block() {
                    reader.consume(entry.bit_count());
                    return Ok(());
                }
                // Coefficient 63 completes the block: no end-of-block code follows it, and the bits that look
                // like one belong to the next block.
                if entry.is_coefficient_and_end() && next + entry.zeros_before_first() < 63 {
                    reader.consume(entry.bit_count());
                    store(next + entry.zeros_before_first(), entry.first_coefficient());
                    return Ok(());
                }
                let (next_reader, decoded) = decode_single_ac(*reader, bytes, table);
                *reader = next_reader;
                match decoded? {
                    Some((zeros, coefficient)) if next + zeros < 64 => {
                        store(next + zeros, coefficient);
                        next += zeros + 1;
                    }
                    Some(_) => return Err(Error::Corrupt("a block has too many coefficients")),
                    None => return Ok(()),
                }
                continue 'refill;
            }
            reader.consume(entry.bit_count());
            // If the entry has only one coefficient, both calls store it. That is faster than a branch.
            store(next + entry.zeros_before_first(), entry.first_coefficient());
            store(after - 1, entry.last_coefficient());
            next = after;
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

/// Decodes a single code of any length and the coefficient after it.
#[inline(never)]
fn decode_single_ac(
    mut reader: BitReader,
    bytes: &[u8],
    table: &AcTable,
) -> (BitReader, Result<ZerosAndCoefficient, Error>) {
    reader.refill(bytes);
    // A code without a value (size 0) is the end of the block, or a run of 16 zeros if its `zeros` is 15.
    let decoded = match table.find_code(reader.peek()) {
        Some((length, 0, 0)) => {
            reader.consume(length);
            Ok(None)
        }
        Some((length, zeros, size)) if size > 0 || zeros == 15 => {
            reader.consume(length);
            Ok(Some((zeros, read_value(&mut reader, size))))
        }
        _ => Err(Error::Corrupt("an unknown AC code")),
    };
    (reader, decoded)
}

/// Reads the value of `size` bits, at most 15, that follows a code.
#[inline(always)]
fn read_value(reader: &mut BitReader, size: u32) -> i16 {
    let bits = ((reader.peek() >> 48) as u16).checked_shr(16 - size).unwrap_or(0);
    reader.consume(size);
    extend(bits, size)
}
