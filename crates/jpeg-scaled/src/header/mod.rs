//! Parses the marker segments before the entropy-coded data of each scan.

mod scan;
mod tables;

pub(crate) use self::scan::{Band, Pass, ScanHeader};
use self::{
    scan::Progress,
    tables::{parse_huffman_tables, parse_quantization_tables, parse_restart_interval},
};
use crate::{
    Error,
    huffman::{
        StoredTable,
        standard_tables::{CHROMINANCE_AC, CHROMINANCE_DC, LUMINANCE_AC, LUMINANCE_DC},
    },
    segments::{EOI, SOI, SOS, Segment, Segments, find_marker},
};

/// Maximum number of components of a picture.
pub(crate) const MAX_COMPONENTS: usize = 4;

/// Maximum number of blocks in an MCU, over all components of a scan. The standard sets this limit.
pub(crate) const MAX_BLOCKS_PER_MCU: usize = 10;

/// Size and colour space of a picture, read without decoding it.
///
/// ```
/// use jpeg_scaled::{ColourSpace, JpegHeader};
///
/// let file = include_bytes!("../../tests/reference/420.jpg");
/// let header = JpegHeader::read(file)?;
/// assert_eq!((header.width, header.height), (45, 37));
/// assert_eq!(header.colour_space, ColourSpace::YCbCr);
/// assert!(!header.is_progressive);
/// # Ok::<(), jpeg_scaled::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JpegHeader {
    /// Width in pixels, at least 1.
    pub width: u32,
    /// Height in pixels, at least 1.
    pub height: u32,
    /// The colour space in which the file stores its samples.
    pub colour_space: ColourSpace,
    /// True if the file is progressive: each scan has a part of the coefficients.
    pub is_progressive: bool,
}

/// Colour space in which a file stores its samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColourSpace {
    /// One component: luminance.
    Grey,
    /// Three components: luminance and two colour differences.
    YCbCr,
    /// Three components: red, green, blue.
    Rgb,
    /// Four components: cyan, magenta, yellow, black. Files usually store the samples inverted, as Adobe's
    /// programs write them.
    Cmyk,
    /// Four components: luminance and two colour differences, which encode the inverse of cyan, magenta and
    /// yellow, and black. Files usually store the samples inverted.
    Ycck,
}

impl ColourSpace {
    /// Returns the number of bytes of a decoded pixel.
    #[must_use]
    pub fn channel_count(self) -> usize {
        match self {
            Self::Grey => 1,
            Self::YCbCr | Self::Rgb => 3,
            Self::Cmyk | Self::Ycck => 4,
        }
    }
}

impl JpegHeader {
    /// Parses the segments before the first scan, without allocating memory.
    ///
    /// # Errors
    /// Returns an [`Error`] if a segment before the first scan is not supported, corrupt or
    /// incomplete.
    pub fn read(bytes: &[u8]) -> Result<Self, Error> {
        Ok(ParsedHeaders::read(bytes)?.header)
    }
}

/// A component of the picture, from the frame header and the header of the current scan.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Component {
    id: u8,
    /// Number of the component's blocks per MCU in the horizontal direction.
    pub(crate) blocks_across: usize,
    /// Number of the component's blocks per MCU in the vertical direction.
    pub(crate) blocks_down: usize,
    /// Number of the component's quantisation table.
    quantization_table_number: usize,
    /// Number of the component's Huffman table for DC coefficients.
    dc_table_number: usize,
    /// Number of the component's Huffman table for AC coefficients.
    ac_table_number: usize,
}

/// Quantiser step of each coefficient, in row-major order.
pub(crate) type QuantizationSteps = [i16; 64];

/// The Huffman tables of one class, by their number.
type TableSlots<'a> = [Option<StoredTable<'a>>; 4];

/// The contents of all segments before the entropy-coded data of the current scan.
pub(crate) struct ParsedHeaders<'a> {
    pub(crate) header: JpegHeader,
    /// The components, of which the first `component_count` are valid.
    components: [Component; MAX_COMPONENTS],
    component_count: usize,
    /// The header of the current scan.
    pub(crate) scan: ScanHeader,
    /// The bits that the scans up to the current one contain.
    progress: Progress,
    quantization_tables: [Option<QuantizationSteps>; 4],
    dc_tables: TableSlots<'a>,
    ac_tables: TableSlots<'a>,
    /// Number of MCUs between two restart markers, or 0 if the scan has no restart markers.
    pub(crate) restart_interval: u32,
    /// Index of the first entropy-coded byte of the current scan.
    pub(crate) entropy_coded_start: usize,
}

/// The markers from which the colour space is inferred.
#[derive(Default)]
struct ColourMarkers {
    /// True if the file has a JFIF segment.
    jfif: bool,
    /// The colour transform in Adobe's APP14 segment. 0 means RGB.
    adobe_transform: Option<u8>,
}

const HUFFMAN_TABLE_MISSING: Error = Error::Corrupt("a Huffman table is missing");
const BAD_HUFFMAN_TABLE_NUMBER: Error = Error::Corrupt("a Huffman table number is out of range");

impl<'a> ParsedHeaders<'a> {
    /// Parses the segments up to the first scan.
    pub(crate) fn read(bytes: &'a [u8]) -> Result<Self, Error> {
        let mut segments = Segments::after_start(bytes)?;
        let mut headers = Self {
            header: JpegHeader {
                width: 0,
                height: 0,
                colour_space: ColourSpace::Grey,
                is_progressive: false,
            },
            components: [Component::default(); MAX_COMPONENTS],
            component_count: 0,
            scan: ScanHeader::EMPTY,
            progress: Progress::NONE,
            quantization_tables: [None; 4],
            // A file without tables relies on those of the standard.
            dc_tables: [Some(LUMINANCE_DC), Some(CHROMINANCE_DC), None, None],
            ac_tables: [Some(LUMINANCE_AC), Some(CHROMINANCE_AC), None, None],
            restart_interval: 0,
            entropy_coded_start: 0,
        };
        let mut markers = ColourMarkers::default();
        if !headers.parse_up_to_scan(&mut segments, &mut markers)? {
            return Err(Error::Corrupt("the file has no scan"));
        }
        headers.header.colour_space = headers.infer_colour_space(&markers);
        Ok(headers)
    }

    /// Parses the segments after the current scan, up to the next scan. Returns false if there is none.
    ///
    /// Tables replace the tables of earlier scans that have the same number.
    ///
    /// The picture is complete without a further scan in two cases: the scans so far contain every bit of
    /// every component, or they contain a part of every component and the end marker follows. The second case
    /// is a progressive file without its last refinements, which every viewer shows.
    pub(crate) fn read_next_scan(&mut self, bytes: &'a [u8]) -> Result<bool, Error> {
        let scan_end = find_marker(bytes, self.entropy_coded_start);
        if self.is_complete() {
            return check_no_further_scan(bytes, scan_end).map(|()| false);
        }
        let mut segments = Segments::resume(bytes, scan_end);
        if self.parse_up_to_scan(&mut segments, &mut ColourMarkers::default())? {
            return Ok(true);
        }
        if !self.header.is_progressive
            || !(0..self.component_count).all(|index| self.progress.contains(index))
        {
            return Err(Error::Truncated);
        }
        Ok(false)
    }

    /// Parses the segments up to the next scan. Returns false if the end marker comes before a scan.
    fn parse_up_to_scan(
        &mut self,
        segments: &mut Segments<'a>,
        markers: &mut ColourMarkers,
    ) -> Result<bool, Error> {
        loop {
            let Segment { marker, payload } = segments.next_segment()?;
            // Table B.1 of the standard lists the markers.
            match marker {
                0xC0..=0xC2 => {
                    self.header.is_progressive = marker == 0xC2;
                    self.parse_frame_header(payload)?;
                }
                0xC4 => parse_huffman_tables(payload, &mut self.dc_tables, &mut self.ac_tables)?,
                0xC3 | 0xC5..=0xCF => {
                    return Err(Error::Unsupported("arithmetic, lossless or hierarchical JPEG"));
                }
                SOS => {
                    let components = &mut self.components[..self.component_count];
                    self.scan = ScanHeader::parse(payload, components, self.header.is_progressive)?;
                    self.progress.add(&self.scan)?;
                    self.entropy_coded_start = segments.segment_end();
                    return Ok(true);
                }
                0xDB => parse_quantization_tables(payload, &mut self.quantization_tables)?,
                0xDD => self.restart_interval = parse_restart_interval(payload)?,
                0xE0 => markers.jfif |= payload.starts_with(b"JFIF\0") && payload.len() >= 14,
                0xEE if payload.starts_with(b"Adobe") && payload.len() >= 12 => {
                    markers.adobe_transform = payload.get(11).copied();
                }
                0xE1..=0xEF | 0xFE | 0xD0..=0xD7 => {}
                EOI => return Ok(false),
                _ => return Err(Error::Corrupt("an unexpected marker")),
            }
        }
    }

    /// Returns the components in the order of the file.
    pub(crate) fn components(&self) -> &[Component] {
        &self.components[..self.component_count]
    }

    /// Returns the components of the current scan in the order of the scan, each with its index in
    /// [`Self::components`].
    pub(crate) fn scan_components(&self) -> impl Iterator<Item = (usize, &Component)> {
        self.scan.indices().iter().filter_map(|&index| Some((index, self.components.get(index)?)))
    }

    /// Returns the component of the current scan, or `None` if the scan has several components.
    pub(crate) fn only_scan_component(&self) -> Option<&Component> {
        match *self.scan.indices() {
            [index] => self.components.get(index),
            _ => None,
        }
    }

    /// Returns the number of blocks of `component` in an MCU of the current scan, horizontally and vertically.
    ///
    /// The MCU of a scan with a single component is one block, whatever the sampling factors.
    pub(crate) fn blocks_per_mcu(&self, component: &Component) -> (usize, usize) {
        match self.only_scan_component() {
            Some(_) => (1, 1),
            None => (component.blocks_across, component.blocks_down),
        }
    }

    /// Returns true if the scans up to the current one contain every bit of every component.
    pub(crate) fn is_complete(&self) -> bool {
        self.progress.is_complete(self.component_count)
    }

    /// Returns the quantiser steps of `component`.
    pub(crate) fn quantization_steps(&self, component: &Component) -> Result<&QuantizationSteps, Error> {
        let table = self.quantization_tables.get(component.quantization_table_number);
        table.and_then(Option::as_ref).ok_or(Error::Corrupt("a quantisation table is missing"))
    }

    /// Returns the Huffman table for the DC coefficients of `component`.
    pub(crate) fn dc_table(&self, component: &Component) -> Result<&StoredTable<'a>, Error> {
        let table = self.dc_tables.get(component.dc_table_number).ok_or(BAD_HUFFMAN_TABLE_NUMBER)?;
        table.as_ref().ok_or(HUFFMAN_TABLE_MISSING)
    }

    /// Returns the Huffman table for the AC coefficients of `component`.
    pub(crate) fn ac_table(&self, component: &Component) -> Result<&StoredTable<'a>, Error> {
        let table = self.ac_tables.get(component.ac_table_number).ok_or(BAD_HUFFMAN_TABLE_NUMBER)?;
        table.as_ref().ok_or(HUFFMAN_TABLE_MISSING)
    }

    /// Parses a frame header (SOF0, SOF1 or SOF2).
    fn parse_frame_header(&mut self, segment: &[u8]) -> Result<(), Error> {
        const BAD_LENGTH: Error = Error::Corrupt("the frame header has a wrong length");
        if self.component_count != 0 {
            return Err(Error::Corrupt("the file has two frame headers"));
        }
        let [precision, height_high, height_low, width_high, width_low, count, components @ ..] = segment
        else {
            return Err(BAD_LENGTH);
        };
        if *precision != 8 {
            return Err(Error::Unsupported("a precision other than 8 bits"));
        }
        self.header.height = u32::from(u16::from_be_bytes([*height_high, *height_low]));
        self.header.width = u32::from(u16::from_be_bytes([*width_high, *width_low]));
        if self.header.height == 0 {
            return Err(Error::Unsupported("a height that follows the scan"));
        }
        if self.header.width == 0 {
            return Err(Error::Corrupt("the width is zero"));
        }
        if !matches!(count, 1 | 3 | 4) {
            return Err(Error::Unsupported("a number of components other than 1, 3 and 4"));
        }
        self.component_count = usize::from(*count);
        let (components, []) = components.as_chunks::<3>() else { return Err(BAD_LENGTH) };
        if components.len() != self.component_count {
            return Err(BAD_LENGTH);
        }
        for (component, &[id, factors, table_number]) in self.components.iter_mut().zip(components) {
            let (blocks_across, blocks_down) = (usize::from(factors >> 4), usize::from(factors & 15));
            if !(1..=4).contains(&blocks_across) || !(1..=4).contains(&blocks_down) {
                return Err(Error::Corrupt("a sampling factor is out of range"));
            }
            *component = Component {
                id,
                blocks_across,
                blocks_down,
                quantization_table_number: usize::from(table_number),
                ..Component::default()
            };
        }
        if let [only] = &mut self.components[..self.component_count] {
            // With one component, the file stores the blocks row by row, whatever the sampling factors.
            (only.blocks_across, only.blocks_down) = (1, 1);
        }
        Ok(())
    }

    /// Infers the colour space by the rules of libjpeg, which other decoders follow as well.
    fn infer_colour_space(&self, markers: &ColourMarkers) -> ColourSpace {
        let [first, second, third, _] = self.components;
        match markers.adobe_transform {
            _ if self.component_count == 1 => ColourSpace::Grey,
            None | Some(0) if self.component_count == 4 => ColourSpace::Cmyk,
            _ if self.component_count == 4 => ColourSpace::Ycck,
            _ if markers.jfif => ColourSpace::YCbCr,
            Some(0) => ColourSpace::Rgb,
            None if [first.id, second.id, third.id] == *b"RGB" => ColourSpace::Rgb,
            _ => ColourSpace::YCbCr,
        }
    }
}

/// Checks that no scan follows the scans of a complete picture. `position` is the end of the last scan.
///
/// Anything else may follow, such as nothing or the data that some phones append without an end marker.
pub(crate) fn check_no_further_scan(bytes: &[u8], position: usize) -> Result<(), Error> {
    let mut segments = Segments::resume(bytes, position);
    while segments.is_at_marker() {
        match segments.next_segment() {
            Ok(Segment { marker: SOS, .. }) => return Err(Error::Corrupt("a scan follows the last scan")),
            Ok(Segment { marker: SOI | EOI, .. }) | Err(_) => break,
            Ok(_) => {}
        }
    }
    Ok(())
}
