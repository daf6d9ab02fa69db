//! PNG: the chunks before the pixels.

use super::{Coding, Header, fields::be32};

const SIGNATURE_BYTES: usize = 8;

/// How the pixels of a PNG are coded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Png {
    /// Bits of a sample, or of an index into the palette.
    pub bits: u8,
    /// Red, green and blue, or a palette; otherwise grey.
    pub colour: bool,
    /// Some of it may be transparent.
    pub alpha: bool,
    /// Sent in seven passes.
    pub interlaced: bool,
    /// An animation; its first frame is used.
    pub animated: bool,
    /// It brings an ICC profile.
    pub profile: bool,
}

pub(super) fn read(bytes: &[u8]) -> Option<Header> {
    /// The bits of the colour type.
    const COLOUR: u8 = 2;
    const ALPHA: u8 = 4;
    let mut chunks = Chunks::of(bytes);
    let (_, header) = chunks.next().filter(|&(name, _)| name == b"IHDR")?;
    let &[bits, colour_type, _, _, interlace] = header.get(8..13)? else { return None };
    let mut png = Png {
        bits,
        colour: colour_type & COLOUR != 0,
        alpha: colour_type & ALPHA != 0,
        interlaced: interlace != 0,
        animated: false,
        profile: false,
    };
    for (name, _) in chunks {
        match name {
            b"tRNS" => png.alpha = true,
            b"acTL" => png.animated = true,
            b"iCCP" => png.profile = true,
            _ => {}
        }
    }
    Some(Header { width: be32(header, 0)?, height: be32(header, 4)?, coding: Coding::Png(png) })
}

/// The first chunk of that name before the pixels.
pub(in crate::image) fn chunk<'a>(bytes: &'a [u8], wanted: &[u8; 4]) -> Option<&'a [u8]> {
    Chunks::of(bytes).find(|&(name, _)| name == wanted).map(|(_, data)| data)
}

/// Name and data of the chunks before the pixels; ends early where the file does.
struct Chunks<'a> {
    rest: &'a [u8],
}

impl<'a> Chunks<'a> {
    fn of(bytes: &'a [u8]) -> Self {
        Self { rest: bytes.get(SIGNATURE_BYTES..).unwrap_or_default() }
    }
}

impl<'a> Iterator for Chunks<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        const HEAD_BYTES: usize = 8;
        const CHECKSUM_BYTES: usize = 4;
        let length = usize::try_from(be32(self.rest, 0)?).ok()?;
        let name = self.rest.get(4..HEAD_BYTES).filter(|&name| name != b"IDAT")?;
        let end = HEAD_BYTES.checked_add(length)?;
        let data = self.rest.get(HEAD_BYTES..end)?;
        self.rest = self.rest.get(end + CHECKSUM_BYTES..).unwrap_or_default();
        Some((name, data))
    }
}
