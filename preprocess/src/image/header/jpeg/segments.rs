//! Iterates over the marker segments of a JPEG.

use crate::image::header::endian::read_be16;

/// End of image.
pub(in crate::image) const EOI: u8 = 0xD9;
/// Start of scan.
pub(in crate::image) const SOS: u8 = 0xDA;

/// A marker segment: a marker and, for most markers, a length and a payload.
pub(in crate::image) struct Segment<'a> {
    /// The second byte of the marker. The first byte is always 0xFF.
    pub(in crate::image) marker: u8,
    /// The bytes after the length. The payload of [`EOI`] is empty.
    pub(in crate::image) payload: &'a [u8],
}

/// Iterates over the marker segments of a file.
///
/// The iterator skips entropy-coded data and unknown bytes between segments, as decoders do. The iterator
/// does not stop at [`EOI`], and ends early if the file is cut off.
pub(in crate::image) struct Segments<'a> {
    bytes: &'a [u8],
    /// Offset of the next byte to read.
    offset: usize,
}

impl<'a> Segments<'a> {
    pub(in crate::image) fn new(bytes: &'a [u8]) -> Self {
        const SOI_BYTES: usize = 2;
        Self { bytes, offset: SOI_BYTES }
    }
}

impl<'a> Iterator for Segments<'a> {
    type Item = Segment<'a>;

    fn next(&mut self) -> Option<Segment<'a>> {
        loop {
            self.offset += memchr::memchr(0xFF, self.bytes.get(self.offset..)?)?;
            // A marker may be preceded by any number of fill bytes 0xFF.
            self.offset += self.bytes.get(self.offset..)?.iter().position(|&byte| byte != 0xFF)?;
            let marker = *self.bytes.get(self.offset)?;
            self.offset += 1;
            match marker {
                // A byte 0xFF followed by zero is data and not a marker. The markers TEM, RSTn and SOI have
                // no payload and are skipped.
                0x00 | 0x01 | 0xD0..=0xD8 => {}
                EOI => return Some(Segment { marker, payload: &[] }),
                _ => {
                    // The length counts its own two bytes as well.
                    let length = usize::try_from(read_be16(self.bytes, self.offset)?).ok()?.max(2);
                    let payload = self.bytes.get(self.offset + 2..self.offset + length)?;
                    self.offset += length;
                    return Some(Segment { marker, payload });
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stuffed_bytes_and_restart_markers_in_a_scan_are_skipped() {
        let file =
            [&[0xFF, 0xD8, 0xFF, 0xDA, 0, 2][..], &[1, 0xFF, 0, 0xFF, 0xD0, 2, 0xFF, 0xFF, 0xD9]].concat();
        let markers: Vec<u8> = Segments::new(&file).map(|segment| segment.marker).collect();
        assert_eq!(markers, [SOS, EOI]);
    }
}
