//! WebP: the chunks up to the pixels.

use super::{
    Coding, Header,
    fields::{le16, le24, le32},
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
}

/// An extended file says its size twice, and decoders ask for memory by either: the two must agree.
pub(super) fn read(bytes: &[u8]) -> Result<Option<Header>, &'static str> {
    let chunks = Chunks { rest: bytes.get(FILE_HEAD_BYTES..).unwrap_or_default() };
    let Some((name, canvas)) = chunks.clone().next() else { return Ok(None) };
    if name != b"VP8X" {
        return Ok(picture(chunks).map(|picture| picture.header(false)));
    }
    let Some((flags, width, height)) = extended(canvas) else { return Ok(None) };
    let found = match flags.animated {
        true => first_frame(chunks),
        false => picture(chunks),
    };
    let Some(found) = found else { return Err("it ends before its pixels") };
    let fits = match flags.animated {
        true => found.width <= width && found.height <= height,
        false => (found.width, found.height) == (width, height),
    };
    if !fits {
        return Err("its header and its pixels disagree about its size");
    }
    let alpha = flags.alpha || found.alpha;
    let webp = WebP { lossless: found.lossless, alpha, animated: flags.animated };
    Ok(Some(Header { width, height, coding: Coding::WebP(webp) }))
}

impl Picture {
    fn header(&self, animated: bool) -> Header {
        let webp = WebP { lossless: self.lossless, alpha: self.alpha, animated };
        Header { width: self.width, height: self.height, coding: Coding::WebP(webp) }
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
fn first_frame(mut chunks: Chunks<'_>) -> Option<Picture> {
    const FRAME_HEAD_BYTES: usize = 16;
    let (_, frame) = chunks.find(|&(name, _)| name == b"ANMF")?;
    let (width, height) = (le24(frame, 6)? + 1, le24(frame, 9)? + 1);
    let picture = picture(Chunks { rest: frame.get(FRAME_HEAD_BYTES..)? })?;
    ((picture.width, picture.height) == (width, height)).then_some(picture)
}

fn picture(chunks: Chunks<'_>) -> Option<Picture> {
    let mut alpha = false;
    for (name, data) in chunks {
        match name {
            b"ALPH" => alpha = true,
            b"VP8 " => {
                let (width, height) = (le16(data, 6)? & FOURTEEN_BITS, le16(data, 8)? & FOURTEEN_BITS);
                return Some(Picture { width, height, lossless: false, alpha });
            }
            b"VP8L" => {
                let bits = le32(data, 1)?;
                let side = |bits: u32| (bits & FOURTEEN_BITS) + 1;
                let alpha = bits & (1 << 28) != 0;
                return Some(Picture { width: side(bits), height: side(bits >> 14), lossless: true, alpha });
            }
            _ => {}
        }
    }
    None
}

/// Name and data of each chunk; ends where one is cut short.
#[derive(Clone)]
struct Chunks<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Chunks<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        const HEAD_BYTES: usize = 8;
        let name = self.rest.get(..4)?;
        let length = usize::try_from(le32(self.rest, 4)?).ok()?;
        let end = HEAD_BYTES.checked_add(length)?;
        let data = self.rest.get(HEAD_BYTES..end)?;
        // Chunks begin at even positions.
        self.rest = self.rest.get(end + length % 2..).unwrap_or_default();
        Some((name, data))
    }
}
