//! Header of a WebP: the size of the image, and the coding of its pixels.

use exif_orientation::OrientationSources;

use super::{
    Coding, ImageHeader,
    endian::{read_le16, read_le24, read_le32},
    vp8l::{self, CorruptStream},
};
use crate::image::{exif, metadata::Metadata};

/// The parts of a WebP header that determine the cost of decoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WebPHeader {
    /// True for lossless coding (VP8L), false for a VP8 frame.
    pub is_lossless: bool,
    /// True if pixels can be transparent.
    pub has_alpha: bool,
    /// True for an animation. The first frame of an animation is decoded.
    pub is_animated: bool,
    /// Number of bytes that image-webp allocates for tables of prefix codes.
    pub(in crate::image) table_bytes: u64,
}

/// Mask of the 14 bits that store a side of a bitstream.
const SIDE_MASK: u32 = 0x3FFF;
/// Number of bytes before the first chunk: `RIFF`, the length of the file, and `WEBP`.
const FILE_HEADER_BYTES: usize = 12;

/// Header of a bitstream, which stores the pixels of a still image or of one frame of an animation.
struct BitstreamHeader {
    width: u32,
    height: u32,
    is_lossless: bool,
    has_alpha: bool,
    table_bytes: u64,
}

/// Reads the header of a file. Returns `None` if the header states no size.
///
/// An extended file states its size twice, in the extended header and in the bitstream. The two sizes must
/// agree, because some decoders allocate memory for the first size and some for the second. Only a frame of
/// an animation may be smaller than the size in the extended header.
pub(super) fn read_header(bytes: &[u8]) -> Result<Option<ImageHeader>, &'static str> {
    let chunks = Chunks::new(bytes);
    let Some((name, first_chunk)) = chunks.clone().next() else { return Ok(None) };
    if name != b"VP8X" {
        return Ok(read_bitstream(chunks)?.map(|bitstream| bitstream.into_header(false)));
    }
    let Some((flags, width, height)) = read_extended_header(first_chunk) else { return Ok(None) };
    let bitstream = match flags.is_animated {
        true => read_first_frame(chunks)?,
        // image-webp would decode the animation frame instead of the still image.
        false if chunks.clone().any(|(name, _)| name == b"ANMF") => {
            return Err("the file has an animation frame but is not an animation");
        }
        false => read_bitstream(chunks)?,
    };
    let Some(bitstream) = bitstream else { return Err("the header of the pixels is missing or damaged") };
    let sizes_agree = match flags.is_animated {
        true => bitstream.width <= width && bitstream.height <= height,
        false => (bitstream.width, bitstream.height) == (width, height),
    };
    if !sizes_agree {
        return Err("the header and the pixels state different sizes");
    }
    let has_alpha = flags.has_alpha || bitstream.has_alpha;
    Ok(Some(BitstreamHeader { width, height, has_alpha, ..bitstream }.into_header(flags.is_animated)))
}

/// Reads the orientation and the ICC profile. A profile above the length limit is ignored.
pub(in crate::image) fn read_metadata(bytes: &[u8]) -> Metadata {
    let profile = find_profile(bytes).filter(|profile| profile.len() <= srgb::MAX_PROFILE_BYTES);
    let sources = OrientationSources { exif: find_chunk(bytes, b"EXIF"), xmp: find_chunk(bytes, b"XMP ") };
    Metadata {
        orientation: exif::to_orientation(sources.orientation()),
        icc_profile: profile.map(<[u8]>::to_vec),
    }
}

/// Returns the chunk with the ICC profile.
pub(in crate::image) fn find_profile(bytes: &[u8]) -> Option<&[u8]> {
    find_chunk(bytes, b"ICCP")
}

fn find_chunk<'a>(bytes: &'a [u8], wanted_name: &[u8; 4]) -> Option<&'a [u8]> {
    Chunks::new(bytes).find(|&(name, _)| name == wanted_name).map(|(_, data)| data)
}

impl BitstreamHeader {
    fn into_header(self, is_animated: bool) -> ImageHeader {
        let Self { width, height, is_lossless, has_alpha, table_bytes } = self;
        let webp = WebPHeader { is_lossless, has_alpha, is_animated, table_bytes };
        ImageHeader { width, height, coding: Coding::WebP(webp) }
    }
}

/// Flags of an extended header.
struct Flags {
    is_animated: bool,
    has_alpha: bool,
}

/// Reads the flags of an extended header, and the width and height of the image.
fn read_extended_header(chunk: &[u8]) -> Option<(Flags, u32, u32)> {
    const ANIMATED_FLAG: u8 = 2;
    const ALPHA_FLAG: u8 = 16;
    let flags = *chunk.first()?;
    let flags = Flags { is_animated: flags & ANIMATED_FLAG != 0, has_alpha: flags & ALPHA_FLAG != 0 };
    // The file stores each side minus one.
    Some((flags, read_le24(chunk, 4)? + 1, read_le24(chunk, 7)? + 1))
}

/// Reads the header of the first frame of an animation. Returns `None` if there is no frame, or if the frame
/// header and the bitstream state different sizes.
fn read_first_frame(mut chunks: Chunks<'_>) -> Result<Option<BitstreamHeader>, &'static str> {
    const FRAME_HEADER_BYTES: usize = 16;
    let Some((_, frame)) = chunks.find(|&(name, _)| name == b"ANMF") else { return Ok(None) };
    let (Some(width), Some(height)) = (read_le24(frame, 6), read_le24(frame, 9)) else { return Ok(None) };
    let bitstream = read_bitstream(Chunks { rest: frame.get(FRAME_HEADER_BYTES..).unwrap_or_default() })?;
    // The frame header stores each side minus one.
    Ok(bitstream.filter(|bitstream| (bitstream.width, bitstream.height) == (width + 1, height + 1)))
}

/// Reads the header of the first bitstream.
///
/// The alpha channel of a lossy bitstream is in a separate chunk, which may come before or after the
/// bitstream. If there are several such chunks, the first one is used.
fn read_bitstream(chunks: Chunks<'_>) -> Result<Option<BitstreamHeader>, &'static str> {
    let alpha = chunks.clone().find(|&(name, _)| name == b"ALPH").map(|(_, data)| data);
    let mut bitstreams = chunks.filter(|&(name, _)| name == b"VP8 " || name == b"VP8L");
    let header = match bitstreams.next() {
        Some((b"VP8L", data)) => read_lossless(data, alpha.is_some()),
        Some((_, data)) => read_lossy(data, alpha),
        None => None,
    };
    header.transpose().map_err(|CorruptStream| "the prefix codes are damaged")
}

/// Reads the header of a lossy bitstream. Returns `None` if the header is cut off.
fn read_lossy(data: &[u8], alpha: Option<&[u8]>) -> Option<Result<BitstreamHeader, CorruptStream>> {
    /// Mask of the compression method in the first byte of the alpha chunk.
    const METHOD_MASK: u8 = 3;
    const LOSSLESS_METHOD: u8 = 1;
    // The width follows the frame tag and the start code.
    let (width, height) = (read_le16(data, 6)? & SIDE_MASK, read_le16(data, 8)? & SIDE_MASK);
    let table_bytes = match alpha {
        Some([first, stream @ ..]) if first & METHOD_MASK == LOSSLESS_METHOD => {
            vp8l::table_bytes(stream, width, height)
        }
        _ => Ok(0),
    };
    let has_alpha = alpha.is_some();
    Some(table_bytes.map(|table_bytes| BitstreamHeader {
        width,
        height,
        is_lossless: false,
        has_alpha,
        table_bytes,
    }))
}

/// Reads the header of a lossless bitstream. Returns `None` if the header is cut off.
fn read_lossless(data: &[u8], has_alpha_chunk: bool) -> Option<Result<BitstreamHeader, CorruptStream>> {
    /// Length in bytes of the signature, which has one byte, and of the sizes and flags.
    const HEADER_BYTES: usize = 5;
    const ALPHA_FLAG: u32 = 1 << 28;
    let sizes_and_flags = read_le32(data, 1)?;
    // The file stores each side minus one.
    let side = |bits: u32| (bits & SIDE_MASK) + 1;
    let (width, height) = (side(sizes_and_flags), side(sizes_and_flags >> 14));
    let has_alpha = has_alpha_chunk || sizes_and_flags & ALPHA_FLAG != 0;
    let table_bytes = vp8l::table_bytes(data.get(HEADER_BYTES..)?, width, height);
    Some(table_bytes.map(|table_bytes| BitstreamHeader {
        width,
        height,
        is_lossless: true,
        has_alpha,
        table_bytes,
    }))
}

/// Iterates over the names and data of the chunks. The iterator ends at a chunk that is cut off.
///
/// As an exception, an alpha chunk that is cut off is returned with the data up to the end of the file,
/// because decoders start to decode such a chunk.
#[derive(Clone)]
struct Chunks<'a> {
    rest: &'a [u8],
}

impl<'a> Chunks<'a> {
    /// Iterates over the chunks at the outermost level of a file.
    fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes.get(FILE_HEADER_BYTES..).unwrap_or_default() }
    }
}

impl<'a> Iterator for Chunks<'a> {
    type Item = (&'a [u8; 4], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        const CHUNK_HEADER_BYTES: usize = 8;
        let name = self.rest.first_chunk()?;
        let length = usize::try_from(read_le32(self.rest, 4)?).ok()?;
        let end = CHUNK_HEADER_BYTES.checked_add(length)?;
        let data = match self.rest.get(CHUNK_HEADER_BYTES..end) {
            None if name == b"ALPH" => self.rest.get(CHUNK_HEADER_BYTES..)?,
            data => data?,
        };
        // Chunks start at even offsets. A chunk of odd length is followed by a padding byte.
        self.rest = self.rest.get(end + length % 2..).unwrap_or_default();
        Some((name, data))
    }
}
