//! From bits to the coefficients of a block.

use crate::{
    Error,
    bits::BitReader,
    huffman::extend,
    idct::{Band, LANES},
    lookup::{AC_BITS, AcTable, DcTable},
    zigzag::ZIGZAG,
};

/// Look-ups between two refills of the bits.
const PER_REFILL: u32 = BitReader::REFILLED / AC_BITS;

/// Takes a difference of the DC coefficient.
#[inline(always)]
pub(crate) fn decode_dc(reader: &mut BitReader, bytes: &[u8], table: &DcTable) -> Result<i16, Error> {
    reader.refill(bytes);
    let entry = table.look_up(reader.peek());
    if entry.bits > 0 {
        reader.take(entry.bits.into());
        return Ok(entry.difference);
    }
    let (rest, difference) = dc_slowly(*reader, table);
    *reader = rest;
    difference
}

/// Takes a difference that a look-up does not give.
#[cold]
#[inline(never)]
fn dc_slowly(mut reader: BitReader, table: &DcTable) -> (BitReader, Result<i16, Error>) {
    let Some((length, size)) = table.code(reader.peek()) else {
        return (reader, Err(Error::Corrupt("an unknown DC code")));
    };
    reader.take(length);
    let difference = take_number(&mut reader, size);
    (reader, Ok(difference))
}

/// Takes the AC coefficients of a block. `store` gets each one that is not zero, and some that are,
/// with its place in the stored order.
#[inline(always)]
fn decode_ac(
    reader: &mut BitReader,
    bytes: &[u8],
    table: &AcTable,
    mut store: impl FnMut(usize, i16),
) -> Result<(), Error> {
    // Where the next coefficient would be stored.
    let mut next = 1;
    'refill: loop {
        reader.refill(bytes);
        for _ in 0..PER_REFILL {
            let entry = table.look_up(reader.peek());
            let after = next + entry.passed();
            // One comparison finds the end of the block, what is not looked up, and damage.
            if after > 64 {
                if next == 64 {
                    return Ok(());
                }
                if entry.is_end() {
                    reader.take(entry.bits());
                    return Ok(());
                }
                // The last coefficient of all is not followed by an end.
                if entry.is_coefficient_and_end() && next + entry.zeros() < 63 {
                    reader.take(entry.bits());
                    store(next + entry.zeros(), entry.first());
                    return Ok(());
                }
                let (rest, found) = ac_slowly(*reader, bytes, table);
                *reader = rest;
                match found? {
                    Some((zeros, coefficient)) if next + zeros < 64 => {
                        store(next + zeros, coefficient);
                        next += zeros + 1;
                    }
                    Some(_) => return Err(Error::Corrupt("a block has too many coefficients")),
                    None => return Ok(()),
                }
                continue 'refill;
            }
            reader.take(entry.bits());
            store(next + entry.zeros(), entry.first());
            store(after - 1, entry.last());
            next = after;
        }
    }
}

/// Takes the AC coefficients of a block into its lane of `band`, where zeros are.
#[inline(always)]
pub(crate) fn take_ac(
    reader: &mut BitReader,
    bytes: &[u8],
    table: &AcTable,
    band: &mut Band,
    lane: usize,
) -> Result<(), Error> {
    let band = band.as_flattened_mut().as_flattened_mut();
    decode_ac(reader, bytes, table, |at, coefficient| {
        band[usize::from(ZIGZAG[at & 63] & 63) * LANES + lane % LANES] = coefficient;
    })
}

/// Steps over the AC coefficients of a block.
#[inline(always)]
pub(crate) fn skip_ac(reader: &mut BitReader, bytes: &[u8], table: &AcTable) -> Result<(), Error> {
    decode_ac(reader, bytes, table, |_, _| {})
}

/// Zeros, and the coefficient after them; none is the end of the block.
type RunAndCoefficient = Option<(usize, i16)>;

/// Takes one code, and the coefficient after it, whatever they are.
#[inline(never)]
fn ac_slowly(
    mut reader: BitReader,
    bytes: &[u8],
    table: &AcTable,
) -> (BitReader, Result<RunAndCoefficient, Error>) {
    reader.refill(bytes);
    let found = match table.code(reader.peek()) {
        Some((length, 0, 0)) => {
            reader.take(length);
            Ok(None)
        }
        Some((length, zeros, size)) if size > 0 || zeros == 15 => {
            reader.take(length);
            Ok(Some((zeros, take_number(&mut reader, size))))
        }
        _ => Err(Error::Corrupt("an unknown AC code")),
    };
    (reader, found)
}

/// Takes a number of `size` bits, at most 15.
#[inline(always)]
fn take_number(reader: &mut BitReader, size: u32) -> i16 {
    let bits = ((reader.peek() >> 48) as u16).checked_shr(16 - size).unwrap_or(0);
    reader.take(size);
    extend(bits, size)
}
