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
}

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
    for entry in 0..usize::try_from(short(directory)?).ok()? {
        let at = directory.checked_add(2 + 12 * entry)?;
        let value = match short(at + 2)? {
            3 if long(at + 4)? > SHORTS_IN_AN_ENTRY => {
                short(usize::try_from(long(at + 8)?).ok()?).unwrap_or_default()
            }
            3 => short(at + 8)?,
            4 => long(at + 8)?,
            _ => continue,
        };
        match short(at)? {
            WIDTH => width = Some(value),
            HEIGHT => height = Some(value),
            BITS_PER_SAMPLE => bits = value,
            SAMPLES_PER_PIXEL => samples = value,
            _ => {}
        }
    }
    Some(Header { width: width?, height: height?, coding: Coding::Tiff(Tiff { samples, bits }) })
}
