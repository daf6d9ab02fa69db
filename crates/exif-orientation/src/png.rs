//! The orientation of a PNG, which its chunks before and after the pixels can state.

use std::{borrow::Cow, io::Read};

use flate2::{Crc, bufread::ZlibDecoder};

use crate::{OrientationSources, xmp::MAX_XMP_BYTES};

/// Maximum number of chunks that are searched. Files with 32 MiB of pixels in chunks of 8 KiB, which libpng writes,
/// have 4,096.
pub(crate) const MAX_CHUNKS: usize = 64 << 10;

/// Reads the orientation of a PNG, which is a number from 1 to 8.
///
/// The chunk eXIf may come after the pixels. ImageMagick writes it there. The first one counts. XMP is the text with
/// the keyword `XML:com.adobe.xmp`, and the last one counts, as in Pillow. Chunks with a wrong checksum are ignored.
#[must_use]
pub fn read_png_orientation(file: &[u8]) -> Option<u8> {
    let (mut exif, mut xmp) = (None, None);
    for chunk in Chunks::new(file).take(MAX_CHUNKS) {
        match chunk.name {
            b"eXIf" if exif.is_none() && chunk.is_intact() => exif = Some(chunk.data),
            b"iTXt" => {
                let text = Text::read(chunk.data).filter(|_| chunk.is_intact());
                xmp = text.or(xmp);
            }
            _ => {}
        }
    }
    let xmp = xmp.map(Text::inflate);
    OrientationSources { exif, xmp: xmp.as_deref() }.orientation()
}

/// The content of a text chunk with XMP.
enum Text<'a> {
    Plain(&'a [u8]),
    Compressed(&'a [u8]),
}

impl<'a> Text<'a> {
    /// Reads a chunk iTXt. Returns `None` if it has another keyword or an unknown compression method.
    fn read(data: &'a [u8]) -> Option<Self> {
        let (flags, rest) = data.strip_prefix(b"XML:com.adobe.xmp\0")?.split_first_chunk::<2>()?;
        // A language and a translated keyword precede the text.
        let text = rest.splitn(3, |&byte| byte == 0).nth(2)?;
        match *flags {
            [0, _] => Some(Self::Plain(text)),
            [_, 0] => Some(Self::Compressed(text)),
            _ => None,
        }
    }

    /// Returns the text, of which at most [`MAX_XMP_BYTES`] are decompressed. Damaged text is empty.
    fn inflate(self) -> Cow<'a, [u8]> {
        let compressed = match self {
            Self::Plain(text) => return text.into(),
            Self::Compressed(compressed) => compressed,
        };
        // Empty blocks take time, too.
        let compressed = compressed.get(..MAX_XMP_BYTES).unwrap_or(compressed);
        let mut text = Vec::with_capacity(MAX_XMP_BYTES);
        let mut inflater = ZlibDecoder::new(compressed).take(MAX_XMP_BYTES as u64);
        if inflater.read_to_end(&mut text).is_err() {
            text.clear();
        }
        text.into()
    }
}

struct Chunk<'a> {
    name: &'a [u8; 4],
    data: &'a [u8],
    checksum: u32,
}

impl Chunk<'_> {
    fn is_intact(&self) -> bool {
        let mut checksum = Crc::new();
        checksum.update(self.name);
        checksum.update(self.data);
        checksum.sum() == self.checksum
    }
}

/// Iterates over the chunks of a PNG. The iterator ends before a chunk that is cut off.
struct Chunks<'a> {
    rest: &'a [u8],
}

impl<'a> Chunks<'a> {
    fn new(file: &'a [u8]) -> Self {
        const SIGNATURE_BYTES: usize = 8;
        Self { rest: file.get(SIGNATURE_BYTES..).unwrap_or_default() }
    }
}

impl<'a> Iterator for Chunks<'a> {
    type Item = Chunk<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        let (length, rest) = self.rest.split_first_chunk()?;
        let (name, rest) = rest.split_first_chunk()?;
        let (data, rest) = rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
        let (checksum, rest) = rest.split_first_chunk()?;
        self.rest = rest;
        Some(Chunk { name, data, checksum: u32::from_be_bytes(*checksum) })
    }
}
