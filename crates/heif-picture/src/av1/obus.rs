//! Splits an AV1 stream into its OBUs (open bitstream units), and finds those of the shown picture.

use super::sequence_header::SequenceHeader;
use crate::{bits::BitReader, error::Error, item_data::Cursor};

/// Maximum number of OBUs (open bitstream units) of an item. Each takes time. A picture in several layers has a few.
const MAX_OBUS: usize = 1024;

/// Maximum length in bytes of a sequence header. 32 operating points take 500.
const MAX_SEQUENCE_HEADER_BYTES: usize = 1 << 10;

/// Types of OBUs.
const SEQUENCE_HEADER: u8 = 1;
const TEMPORAL_DELIMITER: u8 = 2;
const FRAME_HEADER: u8 = 3;
const TILE_GROUP: u8 = 4;
const FRAME: u8 = 6;

/// Bits of the first byte of an OBU.
const HAS_EXTENSION: u8 = 4;
const HAS_LENGTH: u8 = 2;

/// Iterates over the OBUs that the decoder needs for one picture. The caller reads or skips the content of each.
///
/// Ends with the first frame that is shown, unless the stream has layers, because the shown frame of the highest layer
/// is the last one. Ignores whatever follows the shown frame, even if it is damaged.
///
/// Leaves out metadata: re_rav1d 0.1.3 panics if an OBU of metadata ends too early. Leaves out redundant frame headers,
/// too: re_rav1d decodes one without a frame header as a frame, which would not be counted in the cost.
pub(super) struct PictureObus<'a, 'extents> {
    obus: Obus<'a, 'extents>,
    /// True if every frame is shown, according to the last sequence header.
    is_still_picture: bool,
    /// True if any sequence header names more than one layer.
    has_layers: bool,
    /// True if a frame that is shown has begun.
    is_shown: bool,
}

/// An OBU that the decoder needs.
pub(super) struct PictureObu {
    pub(super) header: ObuHeader,
    pub(super) kind: ObuKind,
}

pub(super) enum ObuKind {
    SequenceHeader(SequenceHeader),
    /// The start of a frame, with or without its tiles.
    Frame,
    /// Further tiles, or a delimiter.
    Other,
}

impl<'a, 'extents> PictureObus<'a, 'extents> {
    pub(super) fn new(cursor: Cursor<'a, 'extents>) -> Self {
        Self { obus: Obus { cursor, count: 0 }, is_still_picture: false, has_layers: false, is_shown: false }
    }

    /// Returns the cursor, which is at the content of the last OBU.
    pub(super) fn cursor(&mut self) -> &mut Cursor<'a, 'extents> {
        &mut self.obus.cursor
    }

    /// Returns the next OBU. The caller has read or skipped the content of the last one.
    pub(super) fn next_obu(&mut self) -> Result<Option<PictureObu>, Error> {
        match self.read_next() {
            Err(_) if self.is_shown => Ok(None),
            result => result,
        }
    }

    fn read_next(&mut self) -> Result<Option<PictureObu>, Error> {
        while let Some(header) = self.obus.next_header()? {
            if header.length > self.obus.cursor.remaining_length() {
                return Err(Error::Corrupt("a unit ends too early"));
            }
            let kind = match header.kind {
                SEQUENCE_HEADER | TEMPORAL_DELIMITER | FRAME_HEADER | FRAME
                    if self.is_shown && !self.has_layers =>
                {
                    return Ok(None);
                }
                SEQUENCE_HEADER => ObuKind::SequenceHeader(self.read_sequence_header(header.length)?),
                FRAME_HEADER | FRAME => {
                    self.is_shown |= self.is_still_picture || self.is_frame_shown()?;
                    ObuKind::Frame
                }
                TEMPORAL_DELIMITER | TILE_GROUP => ObuKind::Other,
                _ => {
                    self.obus.cursor.skip(header.length)?;
                    continue;
                }
            };
            return Ok(Some(PictureObu { header, kind }));
        }
        Ok(None)
    }

    fn read_sequence_header(&mut self, length: usize) -> Result<SequenceHeader, Error> {
        if length > MAX_SEQUENCE_HEADER_BYTES {
            return Err(Error::Corrupt("a sequence header is too long"));
        }
        let header = SequenceHeader::read(&self.obus.cursor.clone().bytes(length)?)?;
        self.is_still_picture = header.is_still_picture;
        self.has_layers |= header.has_layers;
        Ok(header)
    }

    /// Reads from the start of a frame header if the frame is shown, or another one instead.
    fn is_frame_shown(&self) -> Result<bool, Error> {
        const FRAME_TYPE_BITS: u32 = 2;
        let start = self.obus.cursor.clone().bytes(1)?;
        let mut bits = BitReader::new(&start);
        let shows_existing_frame = bits.flag()?;
        bits.skip(FRAME_TYPE_BITS)?;
        Ok(shows_existing_frame || bits.flag()?)
    }
}

/// The header of an OBU.
pub(super) struct ObuHeader {
    first_byte: u8,
    /// The second byte, which names a layer.
    extension: Option<u8>,
    kind: u8,
    /// Length in bytes behind the header.
    pub(super) length: usize,
}

impl ObuHeader {
    /// Appends the header to a stream, always with a length.
    pub(super) fn write(&self, stream: &mut Vec<u8>) {
        stream.push(self.first_byte | HAS_LENGTH);
        stream.extend(self.extension);
        let mut rest = self.length;
        loop {
            let [lowest_byte, ..] = rest.to_le_bytes();
            rest >>= 7;
            if rest == 0 {
                stream.push(lowest_byte);
                return;
            }
            stream.push(lowest_byte | 0x80);
        }
    }
}

/// Iterates over the OBUs of a stream. The caller reads or skips the bytes behind each header.
struct Obus<'a, 'extents> {
    cursor: Cursor<'a, 'extents>,
    count: usize,
}

impl Obus<'_, '_> {
    fn next_header(&mut self) -> Result<Option<ObuHeader>, Error> {
        if !self.cursor.has_more() {
            return Ok(None);
        }
        self.count += 1;
        if self.count > MAX_OBUS {
            return Err(Error::unsupported(format!("a picture of more than {MAX_OBUS} units")));
        }
        let first_byte = self.byte()?;
        let extension = if first_byte & HAS_EXTENSION != 0 { Some(self.byte()?) } else { None };
        // An OBU without a length extends to the end.
        let length =
            if first_byte & HAS_LENGTH != 0 { self.leb128()? } else { self.cursor.remaining_length() };
        Ok(Some(ObuHeader { first_byte, extension, kind: first_byte >> 3 & 0xF, length }))
    }

    fn byte(&mut self) -> Result<u8, Error> {
        self.cursor.bytes(1)?.first().copied().ok_or(Error::Corrupt("a unit ends too early"))
    }

    /// Reads an integer of at most eight bytes, which have seven bits each.
    fn leb128(&mut self) -> Result<usize, Error> {
        let mut value = 0;
        for index in 0..8 {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7F) << (7 * index);
            if byte & 0x80 == 0 {
                return usize::try_from(value).map_err(|_| Error::Corrupt("a unit is too long"));
            }
        }
        Err(Error::Corrupt("the length of a unit has too many bytes"))
    }
}
