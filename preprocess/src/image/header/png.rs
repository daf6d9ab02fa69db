//! Header of a PNG, which consists of the chunks before the pixels.

use flate2::{Crc, Decompress, FlushDecompress, Status};

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

/// Returns the offset of the end of the compressed pixels. Returns `None` if the checksum of the compressed
/// pixels or of a chunk in front of them is wrong.
///
/// Ignores all later bytes, and the checksums of the chunks with pixels. Decompresses at most `max_bytes`
/// bytes.
pub(in crate::image) fn find_end_of_intact_pixels(bytes: &[u8], max_bytes: u64) -> Option<usize> {
    let mut chunks = Chunks::new(bytes);
    while let Some((name, data)) = chunks.next() {
        let mut checksum = Crc::new();
        checksum.update(name);
        checksum.update(data);
        let end = bytes.len() - chunks.rest.len();
        if read_be32(bytes, end.checked_sub(CHECKSUM_BYTES)?)? != checksum.sum() {
            return None;
        }
    }
    let pixels = || PixelChunks { file: bytes, offset: bytes.len() - chunks.rest.len() };
    let (end, _) = pixels().last()?;
    is_whole_zlib_stream(pixels().map(|(_, data)| data), max_bytes).then_some(end)
}

/// Returns true if the parts are a complete zlib stream with the right checksum.
fn is_whole_zlib_stream<'a>(parts: impl Iterator<Item = &'a [u8]>, max_bytes: u64) -> bool {
    let mut inflater = Decompress::new(true);
    let mut output = [0; 4096];
    for mut part in parts {
        // Output may remain after the last byte of a part, until it no longer fills the buffer.
        loop {
            let (read_before, written_before) = (inflater.total_in(), inflater.total_out());
            let status = inflater.decompress(part, &mut output, FlushDecompress::None);
            let read_bytes = usize::try_from(inflater.total_in() - read_before).unwrap_or(usize::MAX);
            part = part.get(read_bytes..).unwrap_or_default();
            let written_bytes = inflater.total_out() - written_before;
            match status {
                Ok(Status::StreamEnd) => return true,
                Ok(_) if inflater.total_out() <= max_bytes => {}
                _ => return false,
            }
            if part.is_empty() && written_bytes < output.len() as u64 {
                break;
            }
            if read_bytes == 0 && written_bytes == 0 {
                return false;
            }
        }
    }
    false
}

/// Iterates over the consecutive chunks with pixels. Returns the end and the data of each chunk. The data of the
/// last chunk may be cut off.
struct PixelChunks<'a> {
    file: &'a [u8],
    /// Offset of the next chunk.
    offset: usize,
}

impl<'a> Iterator for PixelChunks<'a> {
    type Item = (usize, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let length = usize::try_from(read_be32(self.file, self.offset)?).ok()?;
        let start = self.offset + CHUNK_HEADER_BYTES;
        self.file.get(self.offset + 4..start).filter(|&name| name == b"IDAT")?;
        let end = start.saturating_add(length).min(self.file.len());
        self.offset = end + CHECKSUM_BYTES;
        Some((end, self.file.get(start..end)?))
    }
}

/// Length in bytes of the length and the name at the start of a chunk.
const CHUNK_HEADER_BYTES: usize = 8;
/// Length in bytes of the checksum at the end of a chunk.
const CHECKSUM_BYTES: usize = 4;

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
        let length = usize::try_from(read_be32(self.rest, 0)?).ok()?;
        let name = self.rest.get(4..CHUNK_HEADER_BYTES).filter(|&name| name != b"IDAT")?;
        let end = CHUNK_HEADER_BYTES.checked_add(length)?;
        let data = self.rest.get(CHUNK_HEADER_BYTES..end)?;
        self.rest = self.rest.get(end + CHECKSUM_BYTES..).unwrap_or_default();
        Some((name, data))
    }
}
