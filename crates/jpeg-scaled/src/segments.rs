//! Splits a file into its marker segments.

use crate::Error;

/// Marker of the start of the image.
pub(crate) const SOI: u8 = 0xD8;
/// Marker of the end of the image.
pub(crate) const EOI: u8 = 0xD9;
/// Marker of a scan header, which precedes the entropy-coded data of a scan.
pub(crate) const SOS: u8 = 0xDA;

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

    /// Returns true if the next byte begins a marker or is a fill byte.
    pub(crate) fn is_at_marker(&self) -> bool {
        self.bytes.get(self.position) == Some(&0xFF)
    }

    /// Returns the next marker, after any number of fill bytes (0xFF). Skips bytes that belong to no segment,
    /// which some cameras write, as libjpeg does.
    fn next_marker(&mut self) -> Result<u8, Error> {
        loop {
            let rest = &self.bytes[self.position..];
            let start = rest.iter().position(|&byte| byte == 0xFF).ok_or(Error::Truncated)?;
            let fill_count = rest[start..].iter().position(|&byte| byte != 0xFF).ok_or(Error::Truncated)?;
            let marker = rest[start + fill_count];
            self.position += start + fill_count + 1;
            if marker != 0 {
                return Ok(marker);
            }
        }
    }
}

/// Returns the index of the first marker at or after `position` that is not a restart marker, or the length of
/// `bytes` if there is none. The index is that of the marker's byte 0xFF.
///
/// This is the end of the entropy-coded data that begins at `position`.
pub(crate) fn find_marker(bytes: &[u8], mut position: usize) -> usize {
    while let Some(rest) = bytes.get(position..) {
        let Some(offset) = find_ff(rest) else { break };
        position += offset;
        match bytes.get(position + 1) {
            // Stuffing or a restart marker.
            Some(0 | 0xD0..=0xD7) => position += 2,
            // The marker after a fill byte may be a restart marker.
            Some(0xFF) => position += 1,
            Some(_) => return position,
            None => break,
        }
    }
    bytes.len()
}

/// Returns the index of the first byte 0xFF.
fn find_ff(bytes: &[u8]) -> Option<usize> {
    let (words, _) = bytes.as_chunks::<8>();
    let skipped = words.iter().take_while(|word| !contains_ff(u64::from_be_bytes(**word))).count();
    let offset = bytes[8 * skipped..].iter().position(|&byte| byte == 0xFF)?;
    Some(8 * skipped + offset)
}

/// Returns true if any byte of `word` is 0xFF.
#[inline(always)]
pub(crate) fn contains_ff(word: u64) -> bool {
    const LOWEST_BITS: u64 = 0x0101_0101_0101_0101;
    const HIGHEST_BITS: u64 = LOWEST_BITS << 7;
    // A byte 0xFF of `word` is zero in `!word`. Subtracting 1 from a zero byte sets the byte's highest bit,
    // which is also set in `word`.
    (!word).wrapping_sub(LOWEST_BITS) & word & HIGHEST_BITS != 0
}
