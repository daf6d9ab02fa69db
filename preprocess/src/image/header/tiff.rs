//! TIFF: size and depth, from the first directory.

use super::{
    Coding, Header,
    fields::{be16, be32, le16, le32},
};

/// How the pixels of a TIFF are coded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tiff {
    /// Samples a pixel: 1 for grey, 3 for RGB, 4 with alpha or for CMYK.
    pub samples: u32,
    /// Bits of a sample.
    pub bits: u32,
    /// Bytes of the values of its entries, as a decoder keeps them.
    pub(in crate::image) value_bytes: u64,
}

/// What tiff 0.11 takes for each value of an entry that it reads: 32 bytes for a value of any type, and
/// eight for what it makes of that.
const VALUE_BYTES: u64 = 40;

/// The tags whose values it reads, however many there are, before limits can be set.
const READ: [u32; 21] =
    [256, 257, 258, 259, 262, 273, 277, 278, 279, 284, 317, 320, 322, 323, 324, 325, 338, 339, 347, 529, 530];

pub(super) fn read(bytes: &[u8]) -> Option<Header> {
    const WIDTH: u32 = 256;
    const HEIGHT: u32 = 257;
    const BITS_PER_SAMPLE: u32 = 258;
    const SAMPLES_PER_PIXEL: u32 = 277;
    /// Values that take more than the four bytes of an entry are elsewhere.
    const SHORTS_IN_AN_ENTRY: u32 = 2;
    let big_endian = bytes.starts_with(b"MM");
    let short = |at| {
        if big_endian { be16(bytes, at) } else { le16(bytes, at) }
    };
    let long = |at| {
        if big_endian { be32(bytes, at) } else { le32(bytes, at) }
    };

    let directory = usize::try_from(long(4)?).ok()?;
    let (mut width, mut height) = (None, None);
    // What the format says of a directory that has no such entry.
    let (mut samples, mut bits) = (1, 1);
    let mut values = 0;
    for entry in 0..usize::try_from(short(directory)?).ok()? {
        let at = directory.checked_add(2 + 12 * entry)?;
        let (tag, count) = (short(at)?, long(at + 4)?);
        if READ.contains(&tag) {
            values += u64::from(count);
        }
        let value = match short(at + 2)? {
            3 if count > SHORTS_IN_AN_ENTRY => {
                short(usize::try_from(long(at + 8)?).ok()?).unwrap_or_default()
            }
            3 => short(at + 8)?,
            4 => long(at + 8)?,
            _ => continue,
        };
        match tag {
            WIDTH => width = Some(value),
            HEIGHT => height = Some(value),
            BITS_PER_SAMPLE => bits = value,
            SAMPLES_PER_PIXEL => samples = value,
            _ => {}
        }
    }
    let tiff = Tiff { samples, bits, value_bytes: values * VALUE_BYTES };
    Some(Header { width: width?, height: height?, coding: Coding::Tiff(tiff) })
}
