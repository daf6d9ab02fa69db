//! Header of a JPEG, collected from all marker segments up to the end marker.

mod scan_coverage;

use jpeg_scaled::{Segment, Segments};

use self::scan_coverage::ScanCoverage;
use super::{Coding, ImageHeader, endian::read_be16};
use crate::image::{exif, metadata::Metadata};

/// The parts of a JPEG header that determine the cost of decoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JpegHeader {
    /// The coding process.
    pub process: JpegProcess,
    /// Number of components: 1 for grey, 3 for colour, 4 for CMYK.
    pub component_count: u8,
    /// Number of scans. If there are more scans than the limit, this is the limit plus one.
    pub scan_count: u32,
    /// True if there is an end marker and the scans before the end marker cover the image.
    ///
    /// The scans must cover every component and, in a progressive JPEG, the last bit of every coefficient. The
    /// markers do not show a cut inside a scan. jpeg-scaled makes checks of its own, so this value only matters
    /// for a JPEG inside a TIFF, because the `tiff` crate fills missing parts with grey.
    pub is_complete: bool,
}

/// Coding process of a JPEG.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JpegProcess {
    /// The image is coded row by row, with 8 bits per sample and Huffman coding.
    Baseline,
    /// The image is coded in several scans, each of which refines the image.
    Progressive,
    /// A rare process: arithmetic coding, lossless coding or more than 8 bits per sample.
    Other,
}

/// Frame header (start of frame) of a baseline JPEG.
const SOF0: u8 = 0xC0;
/// Frame header of an extended sequential JPEG. With 8-bit samples, it is decoded like a baseline JPEG.
const SOF1: u8 = 0xC1;
/// Frame header of a progressive JPEG.
const SOF2: u8 = 0xC2;
/// The last marker in the range of the frame headers.
const SOF15: u8 = 0xCF;
/// Huffman tables.
const DHT: u8 = 0xC4;
/// A marker that the format reserves for extensions.
const JPG: u8 = 0xC8;
/// Parameters of arithmetic coding.
const DAC: u8 = 0xCC;
/// Scan header.
const SOS: u8 = Segment::SOS;
/// End of image.
const EOI: u8 = Segment::EOI;

/// Reads the header of a file. Returns `None` if no frame header precedes the first scan.
///
/// Stops reading at the first scan above `max_scans`.
pub(super) fn read_header(bytes: &[u8], max_scans: u32) -> Result<Option<ImageHeader>, &'static str> {
    let mut frame: Option<ImageHeader> = None;
    let mut coverage = ScanCoverage::default();
    let (mut scan_count, mut is_complete) = (0, false);
    for Segment { marker, payload } in Segments::new(bytes) {
        match marker {
            EOI => {
                is_complete = coverage.is_complete();
                break;
            }
            // Without a frame header, the size of the image is unknown.
            SOS if frame.is_none() => return Ok(None),
            SOS => {
                coverage.add_scan(payload);
                scan_count += 1;
                if scan_count > max_scans {
                    break;
                }
            }
            // These three markers lie between SOF0 and SOF15, but are not frame headers.
            DHT | JPG | DAC => {}
            // A picture without an end marker can be followed by other data, such as a smaller JPEG.
            SOF0..=SOF15 if scan_count > 0 => break,
            SOF0..=SOF15 => {
                if frame.is_some() {
                    return Err("the file has two frame headers");
                }
                frame = Some(read_frame_header(marker, payload).ok_or("the frame header is damaged")?);
                coverage.set_frame(marker == SOF2, payload);
            }
            _ => {}
        }
    }
    let Some(ImageHeader { width, height, coding: Coding::Jpeg(jpeg) }) = frame else { return Ok(None) };
    let jpeg = JpegHeader { scan_count, is_complete, ..jpeg };
    Ok(Some(ImageHeader { width, height, coding: Coding::Jpeg(jpeg) }))
}

/// Reads a frame header. The caller fills in the fields that depend on other segments.
fn read_frame_header(marker: u8, payload: &[u8]) -> Option<ImageHeader> {
    let &[bits_per_sample, _, _, _, _, component_count] = payload.get(..6)? else { return None };
    let process = match marker {
        SOF0 | SOF1 if bits_per_sample == 8 => JpegProcess::Baseline,
        SOF2 => JpegProcess::Progressive,
        _ => JpegProcess::Other,
    };
    let (height, width) = (read_be16(payload, 1)?, read_be16(payload, 3)?);
    // Each component has three bytes: its identifier, its sampling factors and its quantization table.
    if component_count == 0 || payload.len() < 6 + 3 * usize::from(component_count) {
        return None;
    }
    let jpeg = JpegHeader { process, component_count, scan_count: 0, is_complete: false };
    Some(ImageHeader { width, height, coding: Coding::Jpeg(jpeg) })
}

/// Reads the orientation and the ICC profile from the segments before the first scan.
///
/// A profile that is incomplete or too long is ignored.
pub(in crate::image) fn read_metadata(bytes: &[u8]) -> Metadata {
    Metadata {
        orientation: exif::to_orientation(exif_orientation::read_jpeg_orientation(bytes)),
        icc_profile: srgb::read_jpeg_profile(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frame_header_without_all_of_its_components_is_refused() {
        let frame = [8, 0, 17, 0, 17, 3, 1, 0x22, 0, 2, 0x11, 0, 3, 0x11, 0];
        let Coding::Jpeg(jpeg) = read_frame_header(0xC0, &frame).unwrap().coding else {
            panic!("not a JPEG")
        };
        assert_eq!((jpeg.process, jpeg.component_count), (JpegProcess::Baseline, 3));
        assert!(read_frame_header(0xC0, &frame[..13]).is_none());
        assert!(read_frame_header(0xC0, &[8, 0, 17, 0, 17, 0]).is_none());
    }

    #[test]
    fn jpeg_is_complete_when_its_scans_cover_every_coefficient() {
        let frame = |marker, component_count| {
            [&[marker, 0, 14, 8, 0, 8, 0, 8, component_count][..], &[1, 0x11, 0, 9, 0x11, 0]].concat()
        };
        let scan = |components: &[u8], spectrum: [u8; 3]| {
            let components: Vec<u8> = components.iter().flat_map(|&number| [number, 0]).collect();
            let length = u8::try_from(6 + components.len()).unwrap();
            let count = u8::try_from(components.len() / 2).unwrap();
            [&[0xFF, SOS, 0, length, count][..], &components, &spectrum, &[5, 5]].concat()
        };
        let is_complete = |marker, component_count, scans: &[Vec<u8>]| {
            let frame = frame(marker, component_count);
            let file = [&[0xFF, 0xD8, 0xFF][..], &frame, &scans.concat(), &[0xFF, EOI]].concat();
            let Coding::Jpeg(jpeg) = read_header(&file, 32).unwrap().unwrap().coding else {
                panic!("not a JPEG")
            };
            assert_eq!(jpeg.scan_count as usize, scans.len());
            jpeg.is_complete
        };
        let whole_spectrum = [0, 63, 0];
        assert!(is_complete(SOF0, 2, &[scan(&[1, 9], whole_spectrum)]));
        assert!(is_complete(SOF0, 2, &[scan(&[9], whole_spectrum), scan(&[1], whole_spectrum)]));
        assert!(!is_complete(SOF0, 2, &[scan(&[1], whole_spectrum)]));
        assert!(
            is_complete(SOF0, 1, &[scan(&[1], whole_spectrum)]),
            "bytes after the last component are ignored"
        );
        // In a baseline scan, decoders ignore the spectral selection, which is the range of coefficients.
        assert!(
            is_complete(SOF0, 1, &[scan(&[1], [0, 0, 0])])
                && is_complete(SOF0, 1, &[scan(&[1], [7, 255, 255])])
        );

        // For both components, one scan has coefficient 0 (DC) without its last bit, and another scan adds
        // this bit. The other coefficients of component 1 are split into two ranges, with one scan each. For
        // the other coefficients of component 9, one scan leaves out the last bits, and another adds them.
        let dc_without_last_bit = scan(&[1, 9], [0, 0, 0x01]);
        let dc_last_bit = scan(&[1, 9], [0, 0, 0x10]);
        let [low_range, high_range] = [[1, 5, 0], [6, 63, 0]].map(|spectrum| scan(&[1], spectrum));
        let [without_last_bits, last_bits] = [0x02, 0x20].map(|bits| scan(&[9], [1, 63, bits]));
        let scans = [dc_without_last_bit, low_range, without_last_bits, last_bits, high_range, dc_last_bit];
        assert!(is_complete(SOF2, 2, &scans));
        for missing in 0..scans.len() {
            let others = [&scans[..missing], &scans[missing + 1..]].concat();
            // A missing first scan of a coefficient is not detected, because only the last bit of each
            // coefficient is tracked.
            let is_detected = !matches!(missing, 0 | 2);
            assert_eq!(is_complete(SOF2, 2, &others), !is_detected, "without scan {missing}");
        }
        assert!(!is_complete(SOF2, 1, &[scan(&[1], [0, 64, 0])]));
        assert!(!is_complete(SOF2, 1, &[]));
    }
}
