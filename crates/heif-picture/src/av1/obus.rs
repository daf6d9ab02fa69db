//! Splits an AV1 stream into its OBUs (open bitstream units).

use crate::{error::Error, item_data::Cursor};

/// Maximum number of OBUs (open bitstream units) of an item. Each takes time. A picture in several layers has a few.
const MAX_OBUS: usize = 1024;

/// Bits of the first byte of an OBU.
const HAS_EXTENSION: u8 = 4;
const HAS_LENGTH: u8 = 2;

/// The header of an OBU.
pub(super) struct ObuHeader {
    first_byte: u8,
    /// The second byte, which names a layer.
    extension: Option<u8>,
    pub(super) kind: u8,
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
pub(super) struct Obus<'a, 'extents> {
    pub(super) cursor: Cursor<'a, 'extents>,
    count: usize,
}

impl<'a, 'extents> Obus<'a, 'extents> {
    pub(super) fn new(cursor: Cursor<'a, 'extents>) -> Self {
        Self { cursor, count: 0 }
    }

    pub(super) fn next_header(&mut self) -> Result<Option<ObuHeader>, Error> {
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
