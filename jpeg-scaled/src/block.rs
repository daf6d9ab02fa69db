//! From bits to the coefficients of a block.

use crate::{
    Error,
    bits::BitReader,
    huffman::{Codes, Entry, LOOK_AHEAD, extend},
    idct::{Band, EMPTY_BAND, LANES},
    zigzag::ZIGZAG,
};

/// Whole coefficients that may be taken before the bits must be refilled.
const PER_REFILL: u32 = BitReader::REFILLED / LOOK_AHEAD;

/// Takes a difference of the DC coefficient.
#[inline(always)]
pub(crate) fn decode_dc(reader: &mut BitReader, bytes: &[u8], codes: &Codes) -> Result<i16, Error> {
    reader.refill(bytes);
    let entry = codes.look_up(reader.peek());
    if entry.is_coefficient() {
        reader.take(entry.bits());
        return Ok(entry.coefficient());
    }
    let (rest, difference) = dc_slowly(*reader, codes, entry)?;
    *reader = rest;
    Ok(difference)
}

#[cold]
#[inline(never)]
fn dc_slowly(mut reader: BitReader, codes: &Codes, entry: Entry) -> Result<(BitReader, i16), Error> {
    let (length, size) = codes.code(reader.peek(), entry).ok_or(Error::Corrupt("an unknown DC code"))?;
    reader.take(length);
    let difference = take_number(&mut reader, u32::from(size));
    Ok((reader, difference))
}

/// Takes the AC coefficients of a block into its lane of `band`, where zeros are.
#[inline(always)]
pub(crate) fn decode_ac(
    reader: &mut BitReader,
    bytes: &[u8],
    codes: &Codes,
    band: &mut Band,
    lane: usize,
) -> Result<(), Error> {
    let band = band.as_flattened_mut().as_flattened_mut();
    // Where the next coefficient would be stored.
    let mut next = 1;
    'refill: loop {
        reader.refill(bytes);
        for _ in 0..PER_REFILL {
            let entry = codes.look_up(reader.peek());
            let at = next + entry.step();
            // One comparison finds the end of the block, codes that are longer, and damage.
            let Some(&place) = ZIGZAG.get(at) else {
                if next == 64 {
                    return Ok(());
                }
                if entry.is_end() {
                    reader.take(entry.bits());
                    return Ok(());
                }
                let (rest, run, coefficient) = ac_slowly(*reader, bytes, codes, entry)?;
                *reader = rest;
                let place =
                    ZIGZAG.get(next + run).ok_or(Error::Corrupt("a block has too many coefficients"))?;
                band[LANES * usize::from(place & 63) + lane % LANES] = coefficient;
                next += run + 1;
                continue 'refill;
            };
            reader.take(entry.bits());
            band[LANES * usize::from(place & 63) + lane % LANES] = entry.coefficient();
            next = at + 1;
        }
    }
}

/// Steps over the AC coefficients.
#[inline(always)]
pub(crate) fn skip_ac(reader: &mut BitReader, bytes: &[u8], codes: &Codes) -> Result<(), Error> {
    let mut ignored = EMPTY_BAND;
    decode_ac(reader, bytes, codes, &mut ignored, 0)
}

/// Takes a coefficient that a look-up does not give: the zeros before it, and itself.
#[inline(never)]
fn ac_slowly(
    mut reader: BitReader,
    bytes: &[u8],
    codes: &Codes,
    entry: Entry,
) -> Result<(BitReader, usize, i16), Error> {
    const UNKNOWN: Error = Error::Corrupt("an unknown AC code");
    if entry.is_coefficient() {
        return Err(Error::Corrupt("a block has too many coefficients"));
    }
    reader.refill(bytes);
    let (length, symbol) = codes.code(reader.peek(), entry).ok_or(UNKNOWN)?;
    reader.take(length);
    let (run, size) = (usize::from(symbol >> 4), u32::from(symbol & 15));
    match (run, size) {
        (15, 0) | (_, 1..) => {}
        _ => return Err(UNKNOWN),
    }
    let coefficient = take_number(&mut reader, size);
    Ok((reader, run, coefficient))
}

/// Takes a number of `size` bits, at most 15.
#[inline(always)]
fn take_number(reader: &mut BitReader, size: u32) -> i16 {
    let bits = ((reader.peek() >> 48) as u16).checked_shr(16 - size).unwrap_or(0);
    reader.take(size);
    extend(bits, size)
}
