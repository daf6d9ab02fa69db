//! Decodes the entropy-coded data MCU by MCU.

mod progressive;
mod sequential;

use crate::{
    Error,
    bit_reader::BitReader,
    coefficients::CoefficientRows,
    header::{MAX_BLOCKS_PER_MCU, MAX_COMPONENTS, ParsedHeaders, Pass},
    huffman::HuffmanTables,
    plane::{McuGrid, Plane},
    segments::{EOI, find_marker},
};

const LEFT_OVER_DATA: Error = Error::Corrupt("entropy-coded data is left over after the last MCU");

/// Maximum number of bytes that may be left over after the last MCU before a marker.
///
/// Some encoders write a few bytes too many. More bytes are a sign of damage: the decoder read other code words
/// than the encoder wrote, so that the MCUs after them are displaced.
const MAX_STRAY_BYTES: usize = 8;

/// A block of an MCU.
#[derive(Clone, Copy, Default)]
struct McuBlock {
    /// Index of the component to which the block belongs.
    component_index: usize,
    /// Column of the block among the component's blocks in the MCU.
    column: usize,
    /// Row of the block among the component's blocks in the MCU.
    row: usize,
    /// Number of the component's blocks per MCU in the horizontal direction.
    blocks_across: usize,
    /// Index of the component's DC table in [`HuffmanTables`].
    dc_table_index: usize,
    /// Index of the component's AC table or refinement table in [`HuffmanTables`].
    ac_table_index: usize,
}

/// A decoder of a scan, which is the entropy-coded data of some or all components.
pub(crate) struct ScanDecoder<'a> {
    bytes: &'a [u8],
    pass: Pass,
    reader: BitReader,
    /// The blocks of an MCU in the order of the file. The first `block_count` are valid.
    blocks: [McuBlock; MAX_BLOCKS_PER_MCU],
    block_count: usize,
    /// Number of MCUs in a row.
    column_count: usize,
    /// Number of rows of MCUs of this scan per row of MCUs of the picture. Greater than 1 if the scan's only
    /// component has several rows of blocks per MCU of the picture.
    rows_per_picture_row: usize,
    /// Number of rows of MCUs that are not decoded yet.
    remaining_row_count: usize,
    /// DC coefficient of the previous block of each component.
    previous_dc: [i16; MAX_COMPONENTS],
    /// Number of the next blocks that have no coefficients of their own in an AC scan.
    end_of_block_run: u32,
    /// Number of MCUs between two restart markers, or [`u32::MAX`] if the scan has no restart markers.
    restart_interval: u32,
    /// Number of MCUs before the next restart marker.
    mcus_until_restart: u32,
    /// Number of the next restart marker, 0 to 7.
    next_restart_number: u8,
}

impl<'a> ScanDecoder<'a> {
    /// Creates a decoder that begins at the first MCU of the current scan of `headers`. Adds the scan's
    /// Huffman tables to `tables`.
    pub(crate) fn new(
        bytes: &'a [u8],
        headers: &ParsedHeaders,
        tables: &mut HuffmanTables,
        grid: &McuGrid,
    ) -> Result<Self, Error> {
        let restart_interval =
            if headers.restart_interval == 0 { u32::MAX } else { headers.restart_interval };
        let pass = headers.scan.pass;
        let (column_count, row_count, rows_per_picture_row) = match headers.only_scan_component() {
            Some(component) => {
                let (across, down) = grid.block_counts(component);
                (across, down, component.blocks_down)
            }
            None => (grid.column_count, grid.row_count, 1),
        };
        let mut scan = Self {
            bytes,
            pass,
            reader: BitReader::new(headers.entropy_coded_start),
            blocks: [McuBlock::default(); MAX_BLOCKS_PER_MCU],
            block_count: 0,
            column_count,
            rows_per_picture_row,
            remaining_row_count: row_count,
            previous_dc: [0; MAX_COMPONENTS],
            end_of_block_run: 0,
            restart_interval,
            mcus_until_restart: restart_interval,
            next_restart_number: 0,
        };
        for (component_index, component) in headers.scan_components() {
            let dc_table_index = match pass {
                Pass::Sequential | Pass::DcFirst { .. } => tables.dc.add(headers.dc_table(component)?)?,
                _ => 0,
            };
            let ac_table_index = match pass {
                Pass::Sequential | Pass::AcFirst { .. } => tables.ac.add(headers.ac_table(component)?)?,
                Pass::AcRefinement { .. } => tables.refinement.add(headers.ac_table(component)?)?,
                Pass::DcFirst { .. } | Pass::DcRefinement { .. } => 0,
            };
            let (blocks_across, blocks_down) = headers.blocks_per_mcu(component);
            for row in 0..blocks_down {
                for column in 0..blocks_across {
                    scan.blocks[scan.block_count] = McuBlock {
                        component_index,
                        column,
                        row,
                        blocks_across,
                        dc_table_index,
                        ac_table_index,
                    };
                    scan.block_count += 1;
                }
            }
        }
        Ok(scan)
    }

    /// Decodes the part of the scan that lies in the next row of MCUs of the picture.
    ///
    /// The samples of a sequential scan are in `planes` afterwards. The coefficients of a progressive scan are
    /// added to `coefficients`.
    #[inline(always)]
    pub(crate) fn decode_picture_row(
        &mut self,
        tables: &HuffmanTables,
        planes: &mut [Plane],
        coefficients: &mut [CoefficientRows],
    ) -> Result<(), Error> {
        let row_count = self.rows_per_picture_row.min(self.remaining_row_count);
        self.remaining_row_count -= row_count;
        for row in 0..row_count {
            match self.pass {
                Pass::Sequential => {
                    for block in &self.blocks[..self.block_count] {
                        planes[block.component_index].begin_at_block_row(row);
                    }
                    self.decode_row(tables, planes)?;
                }
                Pass::DcFirst { shift } => {
                    self.decode_dc_first_row(tables, planes, coefficients, row, shift)?
                }
                Pass::DcRefinement { bit } => self.decode_dc_refinement_row(coefficients, row, bit)?,
                Pass::AcFirst { band, shift } => {
                    self.decode_ac_first_row(tables, coefficients, row, band, shift)?;
                }
                Pass::AcRefinement { band, bit } => {
                    self.decode_ac_refinement_row(tables, coefficients, row, band, bit)?;
                }
            }
        }
        Ok(())
    }

    /// Returns the reader for the next MCU. Reads the restart marker if one must be next.
    #[inline(always)]
    fn begin_mcu(&mut self, mut reader: BitReader) -> Result<BitReader, Error> {
        if self.mcus_until_restart == 0 {
            reader = self.read_restart_marker(reader)?;
        }
        self.mcus_until_restart -= 1;
        Ok(reader)
    }

    /// Returns `decoded`, unless the data ended before it was decoded.
    #[inline(always)]
    fn check_overrun<T>(&self, reader: &BitReader, decoded: Result<T, Error>) -> Result<T, Error> {
        match decoded {
            Ok(_) if reader.is_overrun() => Err(self.overrun_error(reader)),
            // Padding after the data may form an invalid code word. The cause of the error is then that the
            // data ends too early.
            Err(_) if reader.is_nearly_overrun() => Err(self.overrun_error(reader)),
            decoded => decoded,
        }
    }

    /// Returns the error for data that ends too early. If the data ends at a restart marker, the file has
    /// more data after the marker and is corrupt rather than truncated.
    #[cold]
    fn overrun_error(&self, reader: &BitReader) -> Error {
        if reader.is_at_restart_marker(self.bytes) {
            Error::Corrupt("a restart marker comes before the end of the restart interval")
        } else {
            Error::Truncated
        }
    }

    /// Reads the restart marker that must be next. Returns a reader that begins after the marker.
    #[cold]
    #[inline(never)]
    fn read_restart_marker(&mut self, reader: BitReader) -> Result<BitReader, Error> {
        self.check_end_of_block_run()?;
        let (position, unread_byte_count) = reader.position_and_unread_byte_count();
        let rest = self.bytes.get(position..).unwrap_or_default();
        let Some(marker_offset) =
            rest.array_windows().position(|&[first, second]| first == 0xFF && second != 0xFF)
        else {
            return Err(Error::Truncated);
        };
        match rest[marker_offset + 1] {
            _ if unread_byte_count + count_stray_bytes(&rest[..marker_offset]) > MAX_STRAY_BYTES => {
                return Err(LEFT_OVER_DATA);
            }
            marker if marker == 0xD0 + self.next_restart_number => {}
            EOI => return Err(Error::Truncated),
            _ => return Err(Error::Corrupt("a marker other than the expected restart marker")),
        }
        self.previous_dc = [0; MAX_COMPONENTS];
        self.mcus_until_restart = self.restart_interval;
        self.next_restart_number = (self.next_restart_number + 1) % 8;
        Ok(BitReader::new(position + marker_offset + 2))
    }

    /// Checks that the scan ends after the last MCU. Returns the index of the marker after it, or the length of the
    /// file if no marker follows.
    ///
    /// If the end marker is missing after the last scan, any data may follow, such as the data that some
    /// phones append.
    pub(crate) fn check_end(&self, is_last_scan: bool) -> Result<usize, Error> {
        self.check_end_of_block_run()?;
        let (position, unread_byte_count) = self.reader.position_and_unread_byte_count();
        let marker_position = find_marker(self.bytes, position);
        let stray_byte_count = unread_byte_count + count_stray_bytes(&self.bytes[position..marker_position]);
        let is_trailer = is_last_scan && self.bytes.get(marker_position + 1) != Some(&EOI);
        if stray_byte_count > MAX_STRAY_BYTES && !is_trailer {
            return Err(LEFT_OVER_DATA);
        }
        Ok(marker_position)
    }

    /// Checks that the last run of blocks without coefficients ends with the current MCU.
    fn check_end_of_block_run(&self) -> Result<(), Error> {
        if self.end_of_block_run > 0 {
            return Err(Error::Corrupt("a run of blocks is longer than its scan"));
        }
        Ok(())
    }
}

/// Returns the number of bytes in front of a marker that look like left-over data.
///
/// Some encoders pad the data with zeros. Any number of bytes 0xFF may precede a marker.
fn count_stray_bytes(before_marker: &[u8]) -> usize {
    let fill_byte_count = before_marker.iter().rev().take_while(|&&byte| byte == 0xFF).count();
    let stray = &before_marker[..before_marker.len() - fill_byte_count];
    stray.iter().filter(|&&byte| byte != 0).count()
}
