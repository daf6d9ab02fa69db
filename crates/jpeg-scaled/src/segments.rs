//! Splits a file into its marker segments.

use crate::Error;

/// A reader of the marker segments of a file.
pub(crate) struct Segments<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Segments<'a> {
    /// Checks that `bytes` begins with the start-of-image marker (SOI), and creates a reader that begins
    /// after it.
    pub(crate) fn new(bytes: &'a [u8]) -> Result<Self, Error> {
        match bytes {
            [0xFF, 0xD8, ..] => Ok(Self { bytes, position: 2 }),
            [] | [0xFF] => Err(Error::Truncated),
            _ => Err(Error::Corrupt("the file does not begin with the marker of a JPEG")),
        }
    }

    /// Creates a reader that begins at the byte with index `position`, where a marker must be.
    pub(crate) fn resume(bytes: &'a [u8], position: usize) -> Self {
        Self { bytes, position: position.min(bytes.len()) }
    }

    /// Returns the next marker and its payload, which is empty for markers without a length.
    pub(crate) fn next_segment(&mut self) -> Result<(u8, &'a [u8]), Error> {
        let marker = self.next_marker()?;
        // TEM, RSTn, SOI and EOI have neither length nor payload.
        if matches!(marker, 0x01 | 0xD0..=0xD9) {
            return Ok((marker, &[]));
        }
        let rest = &self.bytes[self.position..];
        let (length, _) = rest.split_first_chunk::<2>().ok_or(Error::Truncated)?;
        let length = usize::from(u16::from_be_bytes(*length));
        if length < 2 {
            return Err(Error::Corrupt("a segment is shorter than its length field"));
        }
        let segment = rest.get(2..length).ok_or(Error::Truncated)?;
        self.position += length;
        Ok((marker, segment))
    }

    /// Returns the index of the byte after the last segment that was read.
    pub(crate) fn position(&self) -> usize {
        self.position
    }

    /// Returns the next marker, after any number of fill bytes (0xFF).
    fn next_marker(&mut self) -> Result<u8, Error> {
        let rest = &self.bytes[self.position..];
        let fill_count = rest.iter().position(|&byte| byte != 0xFF).ok_or(Error::Truncated)?;
        if fill_count == 0 || rest[fill_count] == 0 {
            return Err(Error::Unsupported("bytes between segments"));
        }
        self.position += fill_count + 1;
        Ok(rest[fill_count])
    }
}
