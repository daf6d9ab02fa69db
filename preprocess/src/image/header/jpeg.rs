//! JPEG: its marker segments, through all scans to the end.

use std::num::NonZeroU32;

use super::{Coding, Header, fields::be16};

/// Longest ICC profile that is read, in bytes. Printers' profiles are larger; no camera's are.
pub(in crate::image) const MAX_PROFILE_BYTES: usize = 1 << 20;

/// How the pixels of a JPEG are coded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Jpeg {
    /// By what process.
    pub process: Process,
    /// Components: 1 for grey, 3 for colour, 4 for CMYK.
    pub components: u8,
    /// Bits of a sample.
    pub bits: u8,
    /// Scans, as far as they were counted.
    pub scans: u32,
    /// The end marker is there, and before it a scan for every component and, in a progressive picture,
    /// for the last bit of every coefficient. Decoders fill what is missing with grey, or leave it coarse,
    /// and say nothing, so an upload that was cut off would pass as a picture.
    ///
    /// What is missing inside of a scan cannot be seen here: only decoding tells. The decoders refuse it
    /// all but in one case: zune-jpeg, which decodes progressive pictures without the feature `turbo`,
    /// does not see a cut inside of the last scan, which as a rule brings the last bit of brightness.
    pub whole: bool,
    /// Samples of all components, each rounded up to whole MCUs: what a decoder must keep until the
    /// last scan.
    pub(in crate::image) samples: u64,
    /// Bytes of its segments, which decoders copy.
    pub(in crate::image) segment_bytes: u64,
}

/// The process that a JPEG is coded by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Process {
    /// Row by row, with 8 bits and Huffman codes.
    Baseline,
    /// In several scans, each of which refines the picture.
    Progressive,
    /// Arithmetic codes, more bits, without loss: what hardly anything writes.
    Other,
}

const SOF0: u8 = 0xC0;
const SOF2: u8 = 0xC2;
const SOF15: u8 = 0xCF;
const EOI: u8 = 0xD9;
const SOS: u8 = 0xDA;
const APP1: u8 = 0xE1;
const APP2: u8 = 0xE2;

pub(super) fn read(bytes: &[u8], max_scans: u32) -> Result<Option<Header>, &'static str> {
    let mut frame: Option<Header> = None;
    let mut brought = Brought::default();
    let (mut scans, mut whole, mut segment_bytes) = (0, false, 0);
    for Segment { marker, payload } in Segments::of(bytes) {
        segment_bytes += payload.len() as u64;
        match marker {
            EOI => {
                whole = brought.everything();
                break;
            }
            // Pixels before any frame header.
            SOS if frame.is_none() => return Ok(None),
            SOS => {
                brought.scan(payload);
                scans += 1;
                if scans > max_scans {
                    break;
                }
            }
            // DHT, JPG and DAC share the range of frame headers.
            SOF0..=SOF15 if !matches!(marker, 0xC4 | 0xC8 | 0xCC) => {
                if frame.is_some() {
                    return Err("it has two frame headers");
                }
                frame = Some(read_frame(marker, payload).ok_or("its frame header is broken")?);
                brought.expect(marker, payload);
            }
            _ => {}
        }
    }
    let Some(Header { width, height, coding: Coding::Jpeg(jpeg) }) = frame else { return Ok(None) };
    let jpeg = Jpeg { scans, whole, segment_bytes, ..jpeg };
    Ok(Some(Header { width, height, coding: Coding::Jpeg(jpeg) }))
}

/// What the frame header says; scans and end are still to come.
fn read_frame(marker: u8, payload: &[u8]) -> Option<Header> {
    let &[bits, _, _, _, _, components] = payload.get(..6)? else { return None };
    let process = match marker {
        0xC0 | 0xC1 if bits == 8 => Process::Baseline,
        SOF2 => Process::Progressive,
        _ => Process::Other,
    };
    let (height, width) = (be16(payload, 1)?, be16(payload, 3)?);
    // How many samples a component has in an MCU, across and down.
    let factors: Vec<(u32, u32)> = (0..usize::from(components))
        .map(|index| payload.get(7 + 3 * index).map(|&both| (u32::from(both >> 4), u32::from(both & 15))))
        .collect::<Option<_>>()?;
    let across = factors.iter().map(|&(across, _)| across).max().and_then(NonZeroU32::new)?;
    let down = factors.iter().map(|&(_, down)| down).max().and_then(NonZeroU32::new)?;
    const BLOCK: u64 = 8;
    let mcus = u64::from(width).div_ceil(BLOCK * u64::from(across.get()))
        * u64::from(height).div_ceil(BLOCK * u64::from(down.get()));
    let blocks_of_an_mcu: u64 = factors.iter().map(|&(across, down)| u64::from(across * down)).sum();
    let samples = mcus * blocks_of_an_mcu * BLOCK * BLOCK;
    let jpeg = Jpeg { process, components, bits, scans: 0, whole: false, samples, segment_bytes: 0 };
    Some(Header { width, height, coding: Coding::Jpeg(jpeg) })
}

/// What the scans up to here have brought, as their headers say.
struct Brought {
    /// The numbers of the frame's components.
    components: Vec<u8>,
    progressive: bool,
    /// For each number that a component can have, a bit for each coefficient that is there in full.
    coefficients: [u64; 256],
}

impl Default for Brought {
    fn default() -> Self {
        Self { components: Vec::new(), progressive: false, coefficients: [0; 256] }
    }
}

impl Brought {
    /// Takes the components from a frame header that is whole.
    fn expect(&mut self, marker: u8, frame: &[u8]) {
        let [.., count] = frame.first_chunk::<6>().copied().unwrap_or_default();
        let components = frame.get(6..).unwrap_or_default().as_chunks::<3>().0;
        self.components = components.iter().take(count.into()).map(|&[number, ..]| number).collect();
        self.progressive = marker == SOF2;
    }

    /// Adds what a scan brings; nothing where its header is broken.
    fn scan(&mut self, header: &[u8]) {
        let (count, rest) = header.split_first().unwrap_or((&0, &[]));
        let (components, rest) = rest.split_at_checked(2 * usize::from(*count)).unwrap_or_default();
        let coefficients = match *rest {
            _ if !self.progressive => u64::MAX,
            // The lower half of the last byte says how many bits are still to come.
            [first @ ..64, last @ ..64, bits, ..] if bits & 15 == 0 => {
                (u64::MAX << first) & (u64::MAX >> (63 - last))
            }
            _ => 0,
        };
        for &[number, _] in components.as_chunks().0 {
            self.coefficients[usize::from(number)] |= coefficients;
        }
    }

    fn everything(&self) -> bool {
        self.components.iter().all(|&number| self.coefficients[usize::from(number)] == u64::MAX)
    }
}

/// What a JPEG says beside its pixels.
#[derive(Debug, Default)]
pub(in crate::image) struct Metadata<'a> {
    /// The EXIF block.
    pub(in crate::image) exif: Option<&'a [u8]>,
    /// The ICC profile, put together from its parts.
    pub(in crate::image) profile: Option<Vec<u8>>,
}

/// Reads the segments before the first scan for what they say of orientation and colour. What is
/// broken, or too long, counts as not there.
pub(in crate::image) fn metadata(bytes: &[u8]) -> Metadata<'_> {
    let mut exif = None;
    let mut parts: Vec<(u8, &[u8])> = Vec::new();
    for Segment { marker, payload } in Segments::of(bytes).take_while(|segment| segment.marker != SOS) {
        match marker {
            APP1 if exif.is_none() => exif = payload.strip_prefix(b"Exif\0\0"),
            APP2 => {
                if let Some([number, _, part @ ..]) = payload.strip_prefix(b"ICC_PROFILE\0") {
                    parts.push((*number, part));
                }
            }
            _ => {}
        }
    }
    Metadata { exif, profile: joined(parts) }
}

/// The parts of a profile in their order, which are numbered from 1.
fn joined(mut parts: Vec<(u8, &[u8])>) -> Option<Vec<u8>> {
    parts.sort_by_key(|&(number, _)| number);
    let complete = parts.iter().zip(1..=u8::MAX).all(|(&(number, _), expected)| number == expected);
    let bytes: usize = parts.iter().map(|(_, part)| part.len()).sum();
    let good = complete && parts.len() <= usize::from(u8::MAX) && (1..=MAX_PROFILE_BYTES).contains(&bytes);
    good.then(|| parts.into_iter().flat_map(|(_, part)| part).copied().collect())
}

struct Segment<'a> {
    marker: u8,
    payload: &'a [u8],
}

/// The marker segments. Entropy-coded data and rubbish between segments are stepped over, as decoders
/// do; ends early where the file does.
struct Segments<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Jpeg {
    /// Whether no row of pixels is ready before the last scan, so that decoders keep all samples.
    pub(in crate::image) fn comes_in_several_scans(&self) -> bool {
        self.process != Process::Baseline || self.scans > 1
    }
}

impl<'a> Segments<'a> {
    fn of(bytes: &'a [u8]) -> Self {
        const SOI_BYTES: usize = 2;
        Self { bytes, at: SOI_BYTES }
    }
}

impl<'a> Iterator for Segments<'a> {
    type Item = Segment<'a>;

    fn next(&mut self) -> Option<Segment<'a>> {
        loop {
            self.at += memchr::memchr(0xFF, self.bytes.get(self.at..)?)?;
            // Any number of 0xFF may stand before a marker.
            self.at += self.bytes.get(self.at..)?.iter().position(|&byte| byte != 0xFF)?;
            let marker = *self.bytes.get(self.at)?;
            self.at += 1;
            match marker {
                // Stuffing, TEM, RSTn and SOI stand alone.
                0x00 | 0x01 | 0xD0..=0xD8 => {}
                EOI => return Some(Segment { marker, payload: &[] }),
                _ => {
                    let length = usize::try_from(be16(self.bytes, self.at)?).ok()?.max(2);
                    let payload = self.bytes.get(self.at + 2..self.at + length)?;
                    self.at += length;
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
    fn a_profile_needs_all_of_its_parts() {
        assert_eq!(joined(vec![]), None);
        assert_eq!(joined(vec![(2, b"cd"), (1, b"ab")]).unwrap(), b"abcd");
        assert_eq!(joined(vec![(1, b"ab"), (3, b"cd")]), None);
        assert_eq!(joined(vec![(0, b"ab")]), None);
        let part = vec![0; MAX_PROFILE_BYTES];
        assert!(joined(vec![(1, &part)]).is_some());
        assert_eq!(joined(vec![(1, &part), (2, b"x")]), None);
    }

    #[test]
    fn samples_are_counted_in_whole_mcus() {
        // 4:2:0, 17×17: four MCUs of six blocks.
        let frame = [8, 0, 17, 0, 17, 3, 1, 0x22, 0, 2, 0x11, 0, 3, 0x11, 0];
        let Coding::Jpeg(jpeg) = read_frame(0xC0, &frame).unwrap().coding else { panic!("not a JPEG") };
        assert_eq!((jpeg.process, jpeg.components, jpeg.samples), (Process::Baseline, 3, 4 * 6 * 64));
        assert!(read_frame(0xC0, &frame[..13]).is_none());
    }

    #[test]
    fn whole_is_what_every_scan_of_is_there() {
        let frame =
            |marker, count| [&[marker, 0, 14, 8, 0, 8, 0, 8, count][..], &[1, 0x11, 0, 9, 0x11, 0]].concat();
        let scan = |components: &[u8], spectrum: [u8; 3]| {
            let components: Vec<u8> = components.iter().flat_map(|&number| [number, 0]).collect();
            let length = u8::try_from(6 + components.len()).unwrap();
            let count = u8::try_from(components.len() / 2).unwrap();
            [&[0xFF, SOS, 0, length, count][..], &components, &spectrum, &[5, 5]].concat()
        };
        let whole = |marker, count, scans: &[Vec<u8>]| {
            let file =
                [&[0xFF, 0xD8, 0xFF][..], &frame(marker, count), &scans.concat(), &[0xFF, EOI]].concat();
            let Coding::Jpeg(jpeg) = read(&file, 32).unwrap().unwrap().coding else { panic!("not a JPEG") };
            assert_eq!(jpeg.scans as usize, scans.len());
            jpeg.whole
        };
        let all = [0, 63, 0];
        assert!(whole(SOF0, 2, &[scan(&[1, 9], all)]));
        assert!(whole(SOF0, 2, &[scan(&[9], all), scan(&[1], all)]));
        assert!(!whole(SOF0, 2, &[scan(&[1], all)]));
        assert!(whole(SOF0, 1, &[scan(&[1], all)]), "what follows the last component is none");
        // Decoders of baseline pictures do not look at these.
        assert!(whole(SOF0, 1, &[scan(&[1], [0, 0, 0])]) && whole(SOF0, 1, &[scan(&[1], [7, 255, 255])]));

        let averages = scan(&[1, 9], [0, 0, 0x01]);
        let last_bit_of_averages = scan(&[1, 9], [0, 0, 0x10]);
        let [low, high] = [[1, 5, 0], [6, 63, 0]].map(|spectrum| scan(&[1], spectrum));
        let [coarse, fine] = [0x02, 0x20].map(|bits| scan(&[9], [1, 63, bits]));
        let scans = [averages, low, coarse, fine, high, last_bit_of_averages];
        assert!(whole(SOF2, 2, &scans));
        for missing in 0..scans.len() {
            let others = [&scans[..missing], &scans[missing + 1..]].concat();
            // The first of a coefficient's scans may be left out as far as this can see.
            let seen = !matches!(missing, 0 | 2);
            assert_eq!(whole(SOF2, 2, &others), !seen, "without {missing}");
        }
        assert!(!whole(SOF2, 1, &[scan(&[1], [0, 64, 0])]));
        assert!(!whole(SOF2, 1, &[]));
    }

    #[test]
    fn the_walk_steps_over_what_is_in_a_scan() {
        let file =
            [&[0xFF, 0xD8, 0xFF, 0xDA, 0, 2][..], &[1, 0xFF, 0, 0xFF, 0xD0, 2, 0xFF, 0xFF, 0xD9]].concat();
        let markers: Vec<u8> = Segments::of(&file).map(|segment| segment.marker).collect();
        assert_eq!(markers, [SOS, EOI]);
    }
}
