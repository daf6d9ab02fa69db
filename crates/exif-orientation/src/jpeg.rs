//! The orientation of a JPEG, which the segments before its first scan can state.

use jpeg_scaled::{Segment, Segments};

use crate::OrientationSources;

/// Reads the orientation of a JPEG, which is a number from 1 to 8.
///
/// The first segment with EXIF data counts, and the last one with XMP, as in Pillow.
#[must_use]
pub fn read_jpeg_orientation(file: &[u8]) -> Option<u8> {
    let mut sources = OrientationSources::default();
    for segment in Segments::before_first_scan(file) {
        sources.exif = sources.exif.or_else(|| segment.exif());
        sources.xmp = xmp(&segment).or(sources.xmp);
    }
    sources.orientation()
}

/// Returns the XMP packet of a segment APP1.
fn xmp<'a>(segment: &Segment<'a>) -> Option<&'a [u8]> {
    const APP1: u8 = 0xE1;
    segment.payload.strip_prefix(b"http://ns.adobe.com/xap/1.0/\0").filter(|_| segment.marker == APP1)
}
