//! Header of a PNG, which consists of the chunks before the pixels.

use super::{Coding, ImageHeader, endian::read_be32};

const SIGNATURE_BYTES: usize = 8;

/// The parts of a PNG header that determine the cost of decoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PngHeader {
    /// True for RGB and for a palette, false for grey.
    pub has_colour: bool,
    /// True if pixels can be transparent.
    pub has_alpha: bool,
    /// True for an animation. The default image of an animation is decoded.
    pub is_animated: bool,
}

pub(super) fn read_header(bytes: &[u8]) -> Option<ImageHeader> {
    /// Bit of the colour type that is set for colour.
    const COLOUR: u8 = 2;
    /// Bit of the colour type that is set for an alpha channel.
    const ALPHA: u8 = 4;
    let mut chunks = Chunks::new(bytes);
    let (_, header) = chunks.next().filter(|&(name, _)| name == b"IHDR")?;
    // Width and height take the first eight bytes. A complete header has 13 bytes.
    let &[_, colour_type, _, _, _] = header.get(8..13)? else { return None };
    let mut png = PngHeader {
        has_colour: colour_type & COLOUR != 0,
        has_alpha: colour_type & ALPHA != 0,
        is_animated: false,
    };
    for (name, _) in chunks {
        match name {
            b"tRNS" => png.has_alpha = true,
            b"acTL" => png.is_animated = true,
            _ => {}
        }
    }
    Some(ImageHeader {
        width: read_be32(header, 0)?,
        height: read_be32(header, 4)?,
        coding: Coding::Png(png),
    })
}

/// Searches the chunks before the pixels. Returns the data of the first chunk whose name is `wanted_name`.
pub(in crate::image) fn find_chunk<'a>(bytes: &'a [u8], wanted_name: &[u8; 4]) -> Option<&'a [u8]> {
    Chunks::new(bytes).find(|&(name, _)| name == wanted_name).map(|(_, data)| data)
}

/// Iterates over the names and data of the chunks before the pixels. The iterator ends early if the file is
/// cut off.
struct Chunks<'a> {
    rest: &'a [u8],
}

impl<'a> Chunks<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes.get(SIGNATURE_BYTES..).unwrap_or_default() }
    }
}

impl<'a> Iterator for Chunks<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        const CHUNK_HEADER_BYTES: usize = 8;
        const CHECKSUM_BYTES: usize = 4;
        let length = usize::try_from(read_be32(self.rest, 0)?).ok()?;
        let name = self.rest.get(4..CHUNK_HEADER_BYTES).filter(|&name| name != b"IDAT")?;
        let end = CHUNK_HEADER_BYTES.checked_add(length)?;
        let data = self.rest.get(CHUNK_HEADER_BYTES..end)?;
        self.rest = self.rest.get(end + CHECKSUM_BYTES..).unwrap_or_default();
        Some((name, data))
    }
}
