//! Parses the marker segments before the entropy-coded data of each scan.

use crate::{Error, huffman::StoredTable, segments::Segments, zigzag::ZIGZAG};

/// Maximum number of blocks in an MCU, over all components of a scan. The standard sets this limit.
pub(crate) const MAX_BLOCKS_PER_MCU: usize = 10;

/// Size and colour space of a picture, read without decoding it.
///
/// ```
/// use jpeg_scaled::{ColourSpace, JpegHeader};
///
/// let file = include_bytes!("../tests/reference/420.jpg");
/// let header = JpegHeader::read(file)?;
/// assert_eq!((header.width, header.height), (45, 37));
/// assert_eq!(header.colour_space, ColourSpace::YCbCr);
/// assert!(!header.has_several_scans);
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
    /// True if the first scan lacks a component, so that other scans must follow.
    ///
    /// The decoder then holds all samples until the last scan. [`Scale::max_sample_bytes`] states their size.
    ///
    /// [`Scale::max_sample_bytes`]: crate::Scale::max_sample_bytes
    pub has_several_scans: bool,
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
}

impl ColourSpace {
    /// Returns the number of bytes of a decoded pixel.
    pub(crate) fn channels(self) -> usize {
        if self == Self::Grey { 1 } else { 3 }
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

/// A component of the picture, from the frame header and the scan header.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Component {
    id: u8,
    /// Number of the component's blocks per MCU in the horizontal direction.
    pub(crate) blocks_across: usize,
    /// Number of the component's blocks per MCU in the vertical direction.
    pub(crate) blocks_down: usize,
    /// Index of the component's quantisation table.
    quantization_table_index: usize,
    /// Index of the component's Huffman table for DC coefficients.
    pub(crate) dc_table_index: usize,
    /// Index of the component's Huffman table for AC coefficients.
    pub(crate) ac_table_index: usize,
}

/// Quantiser step of each coefficient, in row-major order.
pub(crate) type QuantizationSteps = [i16; 64];

/// The contents of all segments before the entropy-coded data of the current scan.
pub(crate) struct ParsedHeaders<'a> {
    pub(crate) header: JpegHeader,
    /// The components, of which the first `component_count` are valid.
    components: [Component; 3],
    component_count: usize,
    /// Indices of the components of the current scan, of which the first `scan_component_count` are valid.
    scan_component_indices: [usize; 3],
    scan_component_count: usize,
    /// True for each component that the current scan or an earlier scan contains.
    is_scanned: [bool; 3],
    quantization_tables: [Option<QuantizationSteps>; 4],
    dc_tables: [Option<StoredTable<'a>>; 4],
    ac_tables: [Option<StoredTable<'a>>; 4],
    /// Number of MCUs between two restart markers, or 0 if the file has no restart markers.
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

// Files without Huffman tables, such as frames of Motion JPEG, rely on the tables in annex K of the standard,
// which this crate does not contain.
const HUFFMAN_TABLE_MISSING: Error = Error::Unsupported("a file without Huffman tables");
const BAD_HUFFMAN_TABLE_NUMBER: Error = Error::Corrupt("a Huffman table number is out of range");

impl<'a> ParsedHeaders<'a> {
    /// Parses the segments up to the first scan.
    pub(crate) fn read(bytes: &'a [u8]) -> Result<Self, Error> {
        let mut segments = Segments::new(bytes)?;
        let mut headers = Self {
            header: JpegHeader {
                width: 0,
                height: 0,
                colour_space: ColourSpace::Grey,
                has_several_scans: false,
            },
            components: [Component::default(); 3],
            component_count: 0,
            scan_component_indices: [0; 3],
            scan_component_count: 0,
            is_scanned: [false; 3],
            quantization_tables: [None; 4],
            dc_tables: [None; 4],
            ac_tables: [None; 4],
            restart_interval: 0,
            entropy_coded_start: 0,
        };
        let mut markers = ColourMarkers::default();
        if !headers.parse_up_to_scan(&mut segments, &mut markers)? {
            return Err(Error::Corrupt("the file has no scan"));
        }
        headers.header.colour_space = headers.infer_colour_space(&markers);
        headers.header.has_several_scans = !headers.is_last_scan();
        Ok(headers)
    }

    /// Parses the segments from the byte with index `position` up to the next scan.
    ///
    /// Tables replace the tables of earlier scans that have the same number.
    pub(crate) fn read_next_scan(&mut self, bytes: &'a [u8], position: usize) -> Result<(), Error> {
        let mut segments = Segments::resume(bytes, position);
        if self.parse_up_to_scan(&mut segments, &mut ColourMarkers::default())? {
            Ok(())
        } else {
            // The scan of a component is missing.
            Err(Error::Truncated)
        }
    }

    /// Parses the segments up to the next scan. Returns false if the end marker comes before a scan.
    fn parse_up_to_scan(
        &mut self,
        segments: &mut Segments<'a>,
        markers: &mut ColourMarkers,
    ) -> Result<bool, Error> {
        loop {
            let (marker, segment) = segments.next_segment()?;
            // Table B.1 of the standard lists the markers.
            match marker {
                0xC0 | 0xC1 => self.parse_frame_header(segment)?,
                0xC2 => return Err(Error::Unsupported("progressive JPEG")),
                0xC4 => self.parse_huffman_tables(segment)?,
                0xC3 | 0xC5..=0xCF => {
                    return Err(Error::Unsupported("arithmetic, lossless or hierarchical JPEG"));
                }
                0xDA => {
                    self.parse_scan_header(segment)?;
                    self.entropy_coded_start = segments.position();
                    return Ok(true);
                }
                0xDB => self.parse_quantization_tables(segment)?,
                0xDD => self.restart_interval = parse_restart_interval(segment)?,
                0xE0 => markers.jfif |= segment.starts_with(b"JFIF\0") && segment.len() >= 14,
                0xEE if segment.starts_with(b"Adobe") && segment.len() >= 12 => {
                    markers.adobe_transform = segment.get(11).copied();
                }
                0xE1..=0xEF | 0xFE => {}
                0xD9 => return Ok(false),
                _ => return Err(Error::Unsupported("an unexpected marker")),
            }
        }
    }

    /// Returns the components in the order of the file.
    pub(crate) fn components(&self) -> &[Component] {
        &self.components[..self.component_count]
    }

    /// Returns the components of the current scan in the order of the file, each with its index in
    /// [`Self::components`].
    pub(crate) fn scan_components(&self) -> impl Iterator<Item = (usize, &Component)> {
        let indices = &self.scan_component_indices[..self.scan_component_count];
        indices.iter().filter_map(|&index| Some((index, self.components.get(index)?)))
    }

    /// Returns the component of the current scan, or `None` if the scan has several components.
    pub(crate) fn only_scan_component(&self) -> Option<&Component> {
        let mut components = self.scan_components();
        let (_, first) = components.next()?;
        components.next().is_none().then_some(first)
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

    /// Returns true if the current scan and the scans before it contain every component.
    pub(crate) fn is_last_scan(&self) -> bool {
        self.is_scanned[..self.component_count].iter().all(|&is_scanned| is_scanned)
    }

    /// Returns the quantiser steps of `component`.
    pub(crate) fn quantization_steps(&self, component: &Component) -> Result<&QuantizationSteps, Error> {
        let table = self.quantization_tables.get(component.quantization_table_index).and_then(Option::as_ref);
        table.ok_or(Error::Corrupt("a quantisation table is missing"))
    }

    /// Returns the Huffman table for the DC coefficients of `component`.
    pub(crate) fn dc_table(&self, component: &Component) -> Result<&StoredTable<'a>, Error> {
        let table = self.dc_tables.get(component.dc_table_index).ok_or(BAD_HUFFMAN_TABLE_NUMBER)?;
        table.as_ref().ok_or(HUFFMAN_TABLE_MISSING)
    }

    /// Returns the Huffman table for the AC coefficients of `component`.
    pub(crate) fn ac_table(&self, component: &Component) -> Result<&StoredTable<'a>, Error> {
        let table = self.ac_tables.get(component.ac_table_index).ok_or(BAD_HUFFMAN_TABLE_NUMBER)?;
        table.as_ref().ok_or(HUFFMAN_TABLE_MISSING)
    }

    /// Parses the frame header (SOF0 or SOF1).
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
        if !matches!(count, 1 | 3) {
            return Err(Error::Unsupported("a number of components other than 1 and 3"));
        }
        self.component_count = usize::from(*count);
        let (components, []) = components.as_chunks::<3>() else { return Err(BAD_LENGTH) };
        if components.len() != self.component_count {
            return Err(BAD_LENGTH);
        }
        for (component, &[id, factors, table_index]) in self.components.iter_mut().zip(components) {
            let (blocks_across, blocks_down) = (usize::from(factors >> 4), usize::from(factors & 15));
            if !(1..=4).contains(&blocks_across) || !(1..=4).contains(&blocks_down) {
                return Err(Error::Corrupt("a sampling factor is out of range"));
            }
            *component = Component {
                id,
                blocks_across,
                blocks_down,
                quantization_table_index: usize::from(table_index),
                ..Component::default()
            };
        }
        if let [only] = &mut self.components[..self.component_count] {
            // With one component, the file stores the blocks row by row, whatever the sampling factors.
            (only.blocks_across, only.blocks_down) = (1, 1);
        }
        Ok(())
    }

    /// Parses a DQT segment, which contains any number of tables.
    fn parse_quantization_tables(&mut self, mut segment: &[u8]) -> Result<(), Error> {
        const BAD_LENGTH: Error = Error::Corrupt("a quantisation table has a wrong length");
        while let Some((&precision_and_number, rest)) = segment.split_first() {
            let slot = self.quantization_tables.get_mut(usize::from(precision_and_number & 15));
            let slot = slot.ok_or(Error::Corrupt("a quantisation table number is out of range"))?;
            let mut steps = [0; 64];
            match precision_and_number >> 4 {
                0 => {
                    let (stored, rest) = rest.split_first_chunk::<64>().ok_or(BAD_LENGTH)?;
                    for (&index, &step) in ZIGZAG.iter().zip(stored) {
                        steps[usize::from(index)] = i16::from(step);
                    }
                    segment = rest;
                }
                1 => {
                    let (stored, rest) = rest.split_first_chunk::<128>().ok_or(BAD_LENGTH)?;
                    for (&index, &step) in ZIGZAG.iter().zip(stored.as_chunks::<2>().0) {
                        let step = i16::try_from(u16::from_be_bytes(step));
                        let step = step.map_err(|_| Error::Unsupported("a quantiser step above 32767"))?;
                        steps[usize::from(index)] = step;
                    }
                    segment = rest;
                }
                _ => return Err(Error::Corrupt("the precision of a quantisation table is invalid")),
            }
            *slot = Some(steps);
        }
        Ok(())
    }

    /// Parses a DHT segment, which contains any number of tables.
    fn parse_huffman_tables(&mut self, mut segment: &'a [u8]) -> Result<(), Error> {
        while let Some((&class_and_number, rest)) = segment.split_first() {
            let tables = match class_and_number >> 4 {
                0 => &mut self.dc_tables,
                1 => &mut self.ac_tables,
                _ => return Err(Error::Corrupt("the class of a Huffman table is invalid")),
            };
            let slot = tables.get_mut(usize::from(class_and_number & 15));
            let slot = slot.ok_or(BAD_HUFFMAN_TABLE_NUMBER)?;
            let (table, rest) = StoredTable::split_from(rest)?;
            *slot = Some(table);
            segment = rest;
        }
        Ok(())
    }

    /// Parses the scan header (SOS).
    fn parse_scan_header(&mut self, segment: &[u8]) -> Result<(), Error> {
        const BAD_LENGTH: Error = Error::Corrupt("the scan header has a wrong length");
        let [count, rest @ ..] = segment else { return Err(BAD_LENGTH) };
        if self.component_count == 0 {
            return Err(Error::Corrupt("the scan comes before the frame header"));
        }
        let count = usize::from(*count);
        if !(1..=self.component_count).contains(&count) {
            return Err(Error::Corrupt("a scan has a wrong number of components"));
        }
        let Some((components, [start, end, approximation])) = rest.split_at_checked(2 * count) else {
            return Err(BAD_LENGTH);
        };
        if (*start, *end, *approximation) != (0, 63, 0) {
            return Err(Error::Unsupported("a scan of part of the coefficients"));
        }
        self.scan_component_count = 0;
        let mut block_count = 0;
        // A scan lists its components in the order of the frame header.
        let mut remaining = (0..).zip(self.components[..self.component_count].iter_mut());
        for &[id, table_indices] in components.as_chunks::<2>().0 {
            let Some((index, component)) = remaining.find(|(_, component)| component.id == id) else {
                return Err(Error::Unsupported("components in another order"));
            };
            if std::mem::replace(&mut self.is_scanned[index], true) {
                return Err(Error::Corrupt("a component has two scans"));
            }
            (component.dc_table_index, component.ac_table_index) =
                (usize::from(table_indices >> 4), usize::from(table_indices & 15));
            self.scan_component_indices[self.scan_component_count] = index;
            self.scan_component_count += 1;
            block_count += component.blocks_across * component.blocks_down;
        }
        // The MCU of a scan with a single component is one block, whatever the sampling factors.
        if count > 1 && block_count > MAX_BLOCKS_PER_MCU {
            return Err(Error::Corrupt("an MCU has too many blocks"));
        }
        Ok(())
    }

    /// Infers the colour space by the rules of libjpeg, which other decoders follow as well.
    fn infer_colour_space(&self, markers: &ColourMarkers) -> ColourSpace {
        let [first, second, third] = self.components;
        match markers.adobe_transform {
            _ if self.component_count == 1 => ColourSpace::Grey,
            _ if markers.jfif => ColourSpace::YCbCr,
            Some(0) => ColourSpace::Rgb,
            None if [first.id, second.id, third.id] == *b"RGB" => ColourSpace::Rgb,
            _ => ColourSpace::YCbCr,
        }
    }
}

/// Parses a DRI segment, which contains the restart interval in MCUs.
fn parse_restart_interval(segment: &[u8]) -> Result<u32, Error> {
    let &[high, low] = segment else { return Err(Error::Corrupt("a restart interval has a wrong length")) };
    Ok(u32::from(u16::from_be_bytes([high, low])))
}
