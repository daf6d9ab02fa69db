//! From marker to marker.

use crate::Error;

/// The marker segments of a file, one after the other.
pub(crate) struct Segments<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Segments<'a> {
    /// At the first segment after the start of the image.
    pub(crate) fn new(bytes: &'a [u8]) -> Result<Self, Error> {
        match bytes {
            [0xFF, 0xD8, ..] => Ok(Self { bytes, at: 2 }),
            [] | [0xFF] => Err(Error::Truncated),
            _ => Err(Error::Corrupt("it is no JPEG")),
        }
    }

    /// The next marker, and what its segment holds after the length; nothing where the marker stands alone.
    pub(crate) fn next(&mut self) -> Result<(u8, &'a [u8]), Error> {
        let marker = self.marker()?;
        // TEM, RSTn, SOI and EOI.
        if matches!(marker, 0x01 | 0xD0..=0xD9) {
            return Ok((marker, &[]));
        }
        let rest = &self.bytes[self.at..];
        let (length, _) = rest.split_first_chunk::<2>().ok_or(Error::Truncated)?;
        let length = usize::from(u16::from_be_bytes(*length));
        if length < 2 {
            return Err(Error::Corrupt("a segment has no length"));
        }
        let segment = rest.get(2..length).ok_or(Error::Truncated)?;
        self.at += length;
        Ok((marker, segment))
    }

    /// Where the next segment, or what follows the last one, begins.
    pub(crate) fn position(&self) -> usize {
        self.at
    }

    /// Any number of fill bytes may stand before a marker.
    fn marker(&mut self) -> Result<u8, Error> {
        let rest = &self.bytes[self.at..];
        let fill = rest.iter().position(|&byte| byte != 0xFF).ok_or(Error::Truncated)?;
        if fill == 0 || rest[fill] == 0 {
            return Err(Error::Unsupported("bytes between segments"));
        }
        self.at += fill + 1;
        Ok(rest[fill])
    }
}
