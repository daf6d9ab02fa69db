//! WebP: the chunks up to the pixels, and how these are coded.

use super::{
    Coding, Header,
    fields::{le16, le24, le32},
    jpeg::{MAX_PROFILE_BYTES, Metadata},
    vp8l::{self, Broken},
};

/// How the pixels of a WebP are coded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WebP {
    /// Without loss; otherwise as a frame of VP8.
    pub lossless: bool,
    /// Some of it may be transparent.
    pub alpha: bool,
    /// An animation; its first frame is used.
    pub animated: bool,
    /// Bytes of the tables of its prefix codes.
    pub(in crate::image) table_bytes: u64,
}

const FOURTEEN_BITS: u32 = 0x3FFF;
/// `RIFF`, the length of the file, `WEBP`.
const FILE_HEAD_BYTES: usize = 12;

/// What there is at the outermost level, or in a frame of an animation.
struct Picture {
    width: u32,
    height: u32,
    lossless: bool,
    alpha: bool,
    table_bytes: u64,
}

/// An extended file says its size twice, and decoders ask for memory by either: the two must agree.
pub(super) fn read(bytes: &[u8]) -> Result<Option<Header>, &'static str> {
    let chunks = Chunks::of(bytes);
    let Some((name, canvas)) = chunks.clone().next() else { return Ok(None) };
    if name != b"VP8X" {
        return Ok(picture(chunks)?.map(|picture| picture.header(false)));
    }
    let Some((flags, width, height)) = extended(canvas) else { return Ok(None) };
    let found = match flags.animated {
        true => first_frame(chunks)?,
        // image-webp would take a frame's pixels for the picture's.
        false if chunks.clone().any(|(name, _)| name == b"ANMF") => {
            return Err("it has a frame and is no animation");
        }
        false => picture(chunks)?,
    };
    let Some(found) = found else { return Err("it ends before its pixels") };
    let fits = match flags.animated {
        true => found.width <= width && found.height <= height,
        false => (found.width, found.height) == (width, height),
    };
    if !fits {
        return Err("its header and its pixels disagree about its size");
    }
    let found = Picture { width, height, alpha: flags.alpha || found.alpha, ..found };
    Ok(Some(found.header(flags.animated)))
}

/// What a WebP says beside its pixels. What is too long counts as not there.
pub(in crate::image) fn metadata(bytes: &[u8]) -> Metadata<'_> {
    let chunk = |wanted: &[u8; 4]| Chunks::of(bytes).find(|&(name, _)| name == wanted).map(|(_, data)| data);
    let profile = chunk(b"ICCP").filter(|profile| profile.len() <= MAX_PROFILE_BYTES);
    Metadata { exif: chunk(b"EXIF"), profile: profile.map(<[u8]>::to_vec) }
}

impl Picture {
    fn header(&self, animated: bool) -> Header {
        let Self { width, height, lossless, alpha, table_bytes } = *self;
        Header { width, height, coding: Coding::WebP(WebP { lossless, alpha, animated, table_bytes }) }
    }
}

struct Flags {
    animated: bool,
    alpha: bool,
}

fn extended(chunk: &[u8]) -> Option<(Flags, u32, u32)> {
    const ANIMATED: u8 = 2;
    const ALPHA: u8 = 16;
    let flags = *chunk.first()?;
    let flags = Flags { animated: flags & ANIMATED != 0, alpha: flags & ALPHA != 0 };
    Some((flags, le24(chunk, 4)? + 1, le24(chunk, 7)? + 1))
}

/// The first frame of an animation, if it says the same size as its pixels.
fn first_frame(mut chunks: Chunks<'_>) -> Result<Option<Picture>, &'static str> {
    const FRAME_HEAD_BYTES: usize = 16;
    let Some((_, frame)) = chunks.find(|&(name, _)| name == b"ANMF") else { return Ok(None) };
    let (Some(width), Some(height)) = (le24(frame, 6), le24(frame, 9)) else { return Ok(None) };
    let picture = picture(Chunks { rest: frame.get(FRAME_HEAD_BYTES..).unwrap_or_default() })?;
    Ok(picture.filter(|picture| (picture.width, picture.height) == (width + 1, height + 1)))
}

/// The first picture, and the first alpha that a lossy one may have, wherever it stands.
fn picture(chunks: Chunks<'_>) -> Result<Option<Picture>, &'static str> {
    let alpha = chunks.clone().find(|&(name, _)| name == b"ALPH").map(|(_, data)| data);
    let mut pixels = chunks.filter(|&(name, _)| name == b"VP8 " || name == b"VP8L");
    let found = match pixels.next() {
        Some((b"VP8L", data)) => lossless(data, alpha.is_some()),
        Some((_, data)) => lossy(data, alpha),
        None => None,
    };
    found.transpose().map_err(|Broken| "its prefix codes are broken")
}

fn lossy(data: &[u8], alpha: Option<&[u8]>) -> Option<Result<Picture, Broken>> {
    /// The method of compression in the first byte of alpha.
    const METHOD: u8 = 3;
    const LOSSLESS: u8 = 1;
    let (width, height) = (le16(data, 6)? & FOURTEEN_BITS, le16(data, 8)? & FOURTEEN_BITS);
    let table_bytes = match alpha {
        Some([first, stream @ ..]) if first & METHOD == LOSSLESS => vp8l::table_bytes(stream, width, height),
        _ => Ok(0),
    };
    let picture =
        |table_bytes| Picture { width, height, lossless: false, alpha: alpha.is_some(), table_bytes };
    Some(table_bytes.map(picture))
}

fn lossless(data: &[u8], alpha: bool) -> Option<Result<Picture, Broken>> {
    const HEAD_BYTES: usize = 5;
    let bits = le32(data, 1)?;
    let side = |bits: u32| (bits & FOURTEEN_BITS) + 1;
    let (width, height) = (side(bits), side(bits >> 14));
    let alpha = alpha || bits & (1 << 28) != 0;
    let table_bytes = vp8l::table_bytes(data.get(HEAD_BYTES..)?, width, height);
    Some(table_bytes.map(|table_bytes| Picture { width, height, lossless: true, alpha, table_bytes }))
}

/// Name and data of each chunk; ends where one is cut short. Alpha that is cut short decoders begin with
/// all the same.
#[derive(Clone)]
struct Chunks<'a> {
    rest: &'a [u8],
}

impl<'a> Chunks<'a> {
    /// At the outermost level.
    fn of(bytes: &'a [u8]) -> Self {
        Self { rest: bytes.get(FILE_HEAD_BYTES..).unwrap_or_default() }
    }
}

impl<'a> Iterator for Chunks<'a> {
    type Item = (&'a [u8; 4], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        const HEAD_BYTES: usize = 8;
        let name = self.rest.first_chunk()?;
        let length = usize::try_from(le32(self.rest, 4)?).ok()?;
        let end = HEAD_BYTES.checked_add(length)?;
        let data = match self.rest.get(HEAD_BYTES..end) {
            None if name == b"ALPH" => self.rest.get(HEAD_BYTES..)?,
            data => data?,
        };
        // Chunks begin at even positions.
        self.rest = self.rest.get(end + length % 2..).unwrap_or_default();
        Some((name, data))
    }
}
