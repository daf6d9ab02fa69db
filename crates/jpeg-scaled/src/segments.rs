//! Splits a file into its marker segments.

use memchr::memchr;

use crate::Error;

/// Marker of the start of the image.
pub(crate) const SOI: u8 = 0xD8;
/// Marker of the end of the image.
pub(crate) const EOI: u8 = 0xD9;
/// Marker of a scan header, which precedes the entropy-coded data of a scan.
pub(crate) const SOS: u8 = 0xDA;

/// Length in bytes of the length field of a segment, which counts itself.
const LENGTH_FIELD_BYTES: u16 = 2;

/// A marker and the data that belong to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment<'a> {
    /// The second byte of the marker. The first byte is always 0xFF.
    pub marker: u8,
    /// The bytes after the length field. A marker without a length has no payload.
    pub payload: &'a [u8],
}

impl<'a> Segment<'a> {
    /// Marker of the end of the image.
    pub const EOI: u8 = EOI;
    /// Marker of a scan header, which precedes the entropy-coded data of a scan.
    pub const SOS: u8 = SOS;

    /// Returns the EXIF data of a segment APP1.
    #[must_use]
    pub fn exif(&self) -> Option<&'a [u8]> {
        const APP1: u8 = 0xE1;
        self.payload.strip_prefix(b"Exif\0\0").filter(|_| self.marker == APP1)
    }

    /// Returns the content of a segment APP2 with a part of an ICC profile: a byte with the number of the part, which
    /// starts at 1, a byte with the number of parts, and the bytes of the part.
    #[must_use]
    pub fn icc_profile_part(&self) -> Option<&'a [u8]> {
        const APP2: u8 = 0xE2;
        self.payload.strip_prefix(b"ICC_PROFILE\0").filter(|_| self.marker == APP2)
    }
}

/// Iterates over the marker segments of a file, to its last byte.
///
/// Skips entropy-coded data and bytes that belong to no segment, which some cameras write, as decoders do. Also skips
/// the markers without a length, except [`Segment::EOI`], after which it continues. A length that is too short for its
/// own field counts as an empty payload. The iterator ends before a segment that is cut off.
///
/// The iterator does not allocate, and reads every byte at most once.
///
/// ```
/// use jpeg_scaled::{Segment, Segments};
///
/// let file = include_bytes!("../tests/reference/420-scans.jpg");
/// let scan_count = Segments::new(file).filter(|segment| segment.marker == Segment::SOS).count();
/// assert_eq!(scan_count, 2);
/// ```
pub struct Segments<'a> {
    bytes: &'a [u8],
    /// Index of the next byte to read, at most the length of `bytes`.
    position: usize,
}

impl<'a> Segments<'a> {
    /// Creates an iterator over the segments of a file, whose first two bytes are the start-of-image marker (SOI).
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self::resume(bytes, 2)
    }

    /// Iterates over the segments before the first scan, which contain the metadata.
    pub fn before_first_scan(bytes: &'a [u8]) -> impl Iterator<Item = Segment<'a>> {
        Self::new(bytes).take_while(|segment| !matches!(segment.marker, SOS | EOI))
    }

    /// Checks that `bytes` begins with the start-of-image marker (SOI), and creates an iterator that begins
    /// after it.
    pub(crate) fn after_start(bytes: &'a [u8]) -> Result<Self, Error> {
        match bytes {
            [0xFF, SOI, ..] => Ok(Self::new(bytes)),
            [] | [0xFF] => Err(Error::Truncated),
            _ => Err(Error::Corrupt("the file does not begin with the marker of a JPEG")),
        }
    }

    /// Creates an iterator that begins at the byte with index `position`, where a marker must be.
    pub(crate) fn resume(bytes: &'a [u8], position: usize) -> Self {
        Self { bytes, position: position.min(bytes.len()) }
    }

    /// Returns the next segment, whatever its marker. In contrast to the iterator, reports damage as an error.
    pub(crate) fn next_segment(&mut self) -> Result<Segment<'a>, Error> {
        match self.read_segment()? {
            (_, length) if length < LENGTH_FIELD_BYTES => {
                Err(Error::Corrupt("a segment is shorter than its length field"))
            }
            (segment, _) => Ok(segment),
        }
    }

    /// Returns the index of the byte after the last segment that was read.
    pub(crate) fn segment_end(&self) -> usize {
        self.position
    }

    /// Returns true if the next byte begins a marker or is a fill byte.
    pub(crate) fn is_at_marker(&self) -> bool {
        self.bytes.get(self.position) == Some(&0xFF)
    }

    /// Returns the next segment, whatever its marker, and its length as the file states it.
    fn read_segment(&mut self) -> Result<(Segment<'a>, u16), Error> {
        let marker = self.next_marker()?;
        if has_no_length(marker) {
            return Ok((Segment { marker, payload: &[] }, LENGTH_FIELD_BYTES));
        }
        let rest = &self.bytes[self.position..];
        let (length, _) = rest.split_first_chunk().ok_or(Error::Truncated)?;
        let length = u16::from_be_bytes(*length);
        let segment_bytes = usize::from(length.max(LENGTH_FIELD_BYTES));
        let payload = rest.get(usize::from(LENGTH_FIELD_BYTES)..segment_bytes).ok_or(Error::Truncated)?;
        self.position += segment_bytes;
        Ok((Segment { marker, payload }, length))
    }

    /// Returns the next marker, after any number of fill bytes (0xFF). Skips bytes that belong to no segment.
    fn next_marker(&mut self) -> Result<u8, Error> {
        loop {
            let rest = &self.bytes[self.position..];
            let start = memchr(0xFF, rest).ok_or(Error::Truncated)?;
            let fill_count = rest[start..].iter().position(|&byte| byte != 0xFF).ok_or(Error::Truncated)?;
            let marker = rest[start + fill_count];
            self.position += start + fill_count + 1;
            if marker != 0 {
                return Ok(marker);
            }
        }
    }
}

impl<'a> Iterator for Segments<'a> {
    type Item = Segment<'a>;

    fn next(&mut self) -> Option<Segment<'a>> {
        loop {
            match self.read_segment() {
                Ok((segment, _)) if segment.marker == EOI || !has_no_length(segment.marker) => {
                    return Some(segment);
                }
                Ok(_) => {}
                Err(_) => {
                    self.position = self.bytes.len();
                    return None;
                }
            }
        }
    }
}

/// Returns true for TEM, RSTn, SOI and EOI, which have neither a length nor a payload.
fn has_no_length(marker: u8) -> bool {
    matches!(marker, 0x01 | 0xD0..=EOI)
}

/// Returns the index of the first marker at or after `position` that is not a restart marker, or the length of
/// `bytes` if there is none. The index is that of the marker's byte 0xFF.
///
/// This is the end of the entropy-coded data that begins at `position`.
pub(crate) fn find_marker(bytes: &[u8], mut position: usize) -> usize {
    while let Some(rest) = bytes.get(position..) {
        let Some(offset) = memchr(0xFF, rest) else { break };
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

/// Returns true if any byte of `word` is 0xFF.
#[inline(always)]
pub(crate) fn contains_ff(word: u64) -> bool {
    const LOWEST_BITS: u64 = 0x0101_0101_0101_0101;
    const HIGHEST_BITS: u64 = LOWEST_BITS << 7;
    // A byte 0xFF of `word` is zero in `!word`. Subtracting 1 from a zero byte sets the byte's highest bit,
    // which is also set in `word`.
    (!word).wrapping_sub(LOWEST_BITS) & word & HIGHEST_BITS != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    const APP1: u8 = 0xE1;
    const APP2: u8 = 0xE2;

    fn segment(marker: u8, payload: &[u8]) -> Vec<u8> {
        let length = u16::try_from(payload.len() + 2).unwrap().to_be_bytes();
        [&[0xFF, marker][..], &length, payload].concat()
    }

    fn file(parts: &[&[u8]]) -> Vec<u8> {
        [&[0xFF, SOI][..], &parts.concat()].concat()
    }

    #[test]
    fn stuffed_bytes_and_restart_markers_in_a_scan_are_skipped() {
        let entropy_coded = [1, 0xFF, 0, 0xFF, 0xD0, 2, 0xFF, 0xFF, EOI];
        let file = file(&[&segment(SOS, b""), &entropy_coded, &segment(APP1, b"trailer")]);
        let markers: Vec<u8> = Segments::new(&file).map(|segment| segment.marker).collect();
        assert_eq!(markers, [SOS, EOI, APP1]);
    }

    #[test]
    fn metadata_are_found_only_before_the_first_scan_and_in_their_own_segments() {
        let metadata = [segment(APP1, b"Exif\0\0block"), segment(APP2, b"ICC_PROFILE\0\x01\x01part")];
        let other = [
            segment(APP2, b"Exif\0\0no"),
            segment(APP1, b"ICC_PROFILE\0\x01\x01no"),
            segment(APP2, b"MPF\0"),
        ];
        let found = |file: &[u8]| {
            let exif = Segments::before_first_scan(file).find_map(|segment| segment.exif());
            let part = Segments::before_first_scan(file).find_map(|segment| segment.icc_profile_part());
            (exif.map(<[u8]>::to_vec), part.map(<[u8]>::to_vec))
        };
        let both = (Some(b"block".to_vec()), Some(b"\x01\x01part".to_vec()));
        // Bytes between segments are skipped.
        assert_eq!(found(&file(&[&other.concat(), &[7, 7, 0xFF], &metadata.concat()])), both);
        for end in [segment(SOS, b"\x01"), vec![0xFF, EOI]] {
            assert_eq!(found(&file(&[&other.concat(), &end, &metadata.concat()])), (None, None));
        }
        assert_eq!(found(b""), (None, None));
    }

    #[test]
    fn length_below_two_is_an_empty_payload_for_the_iterator_and_damage_for_the_decoder() {
        for length in [0, 1] {
            let file = file(&[&[0xFF, APP2, 0, length], &segment(APP1, b"ab")]);
            let payloads: Vec<&[u8]> = Segments::new(&file).map(|segment| segment.payload).collect();
            assert_eq!(payloads, [&b""[..], b"ab"]);
            assert!(matches!(Segments::new(&file).next_segment(), Err(Error::Corrupt(_))));
        }
    }

    #[test]
    fn iterator_ends_before_a_segment_that_is_cut_off_and_does_not_resume() {
        let whole = file(&[&segment(APP1, b"ab"), &segment(APP2, b"\xFF\xE1\0\x02")]);
        let end_of_first = 2 + 6;
        for length in 0..whole.len() {
            let mut segments = Segments::new(&whole[..length]);
            assert_eq!(segments.next().is_some(), length >= end_of_first, "{length}");
            assert_eq!((segments.next(), segments.next()), (None, None), "{length}");
        }
    }
}
