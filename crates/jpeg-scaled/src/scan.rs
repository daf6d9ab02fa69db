//! Decodes the entropy-coded data MCU by MCU into the planes.

use crate::{
    Error,
    bit_reader::BitReader,
    block::{decode_ac_into, decode_dc_difference, skip_ac},
    header::{Component, MAX_BLOCKS_PER_MCU, ParsedHeaders},
    huffman::HuffmanTables,
    idct::LANES,
    plane::Plane,
};

const NO_MARKER: Error = Error::Unsupported("bytes between the entropy-coded data and the next marker");

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
    /// Index of the component's Huffman table for DC coefficients.
    dc_table_index: usize,
    /// Index of the component's Huffman table for AC coefficients.
    ac_table_index: usize,
}

/// A decoder of a scan, which is the entropy-coded data of some or all components.
pub(crate) struct ScanDecoder<'a> {
    bytes: &'a [u8],
    reader: BitReader,
    /// The blocks of an MCU in the order of the file. The first `block_count` are valid.
    blocks: [McuBlock; MAX_BLOCKS_PER_MCU],
    block_count: usize,
    /// DC coefficient of the previous block of each component.
    previous_dc: [i16; 3],
    /// Number of MCUs between two restart markers, or 0 if the file has no restart markers.
    restart_interval: u32,
    /// Number of MCUs before the next restart marker.
    mcus_until_restart: u32,
    /// Number of the next restart marker, 0 to 7.
    next_restart_number: u8,
}

impl<'a> ScanDecoder<'a> {
    /// Creates a decoder that begins at the first MCU of the current scan of `headers`.
    pub(crate) fn new(bytes: &'a [u8], headers: &ParsedHeaders) -> Self {
        let mut scan = Self {
            bytes,
            reader: BitReader::new(headers.entropy_coded_start),
            blocks: [McuBlock::default(); MAX_BLOCKS_PER_MCU],
            block_count: 0,
            previous_dc: [0; 3],
            restart_interval: headers.restart_interval,
            mcus_until_restart: headers.restart_interval,
            next_restart_number: 0,
        };
        for (component_index, component) in headers.scan_components() {
            let &Component { dc_table_index, ac_table_index, .. } = component;
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
        scan
    }

    /// Decodes the next row of MCUs. The row has `mcu_count` MCUs.
    #[inline(always)]
    pub(crate) fn decode_row(
        &mut self,
        tables: &HuffmanTables,
        planes: &mut [Plane],
        mcu_count: usize,
    ) -> Result<(), Error> {
        // The compiler keeps a local copy in registers, but not a field of `self`.
        let mut reader = self.reader;
        for column in 0..mcu_count {
            if self.restart_interval > 0 {
                if self.mcus_until_restart == 0 {
                    reader = self.read_restart_marker(reader)?;
                }
                self.mcus_until_restart -= 1;
            }
            match self.decode_mcu(&mut reader, tables, planes, column) {
                Ok(()) if reader.is_overrun() => return Err(self.overrun_error(&reader)),
                Ok(()) => {}
                // Padding after the data may form an invalid code word. The cause of the error is then that
                // the data ends too early.
                Err(_) if reader.is_nearly_overrun() => return Err(self.overrun_error(&reader)),
                Err(error) => return Err(error),
            }
        }
        self.reader = reader;
        // `decode_mcu` transforms only complete groups. The last group of a row of blocks may be incomplete.
        for block in &self.blocks[..self.block_count] {
            let blocks_per_row = mcu_count * block.blocks_across;
            if block.column == 0 && !blocks_per_row.is_multiple_of(LANES) {
                planes[block.component_index].transform(blocks_per_row - blocks_per_row % LANES, block.row);
            }
        }
        Ok(())
    }

    /// Decodes the MCU in column `column`.
    #[inline(always)]
    fn decode_mcu(
        &mut self,
        reader: &mut BitReader,
        tables: &HuffmanTables,
        planes: &mut [Plane],
        column: usize,
    ) -> Result<(), Error> {
        let bytes = self.bytes;
        for block in &self.blocks[..self.block_count] {
            let plane = &mut planes[block.component_index];
            let block_column = column * block.blocks_across + block.column;
            let lane = block_column % LANES;
            // Table indices are less than 4. The masks let the compiler omit the bounds checks.
            let difference = decode_dc_difference(reader, bytes, &tables.dc[block.dc_table_index & 3])?;
            let dc = self.previous_dc[block.component_index].wrapping_add(difference);
            self.previous_dc[block.component_index] = dc;
            let ac_table = &tables.ac[block.ac_table_index & 3];
            plane.group(block.row)[0][0][lane] = dc;
            if plane.needs_only_dc() {
                skip_ac(reader, bytes, ac_table)?;
            } else {
                decode_ac_into(reader, bytes, ac_table, plane.group(block.row), lane)?;
            }
            if lane == LANES - 1 {
                plane.transform(block_column - lane, block.row);
            }
        }
        Ok(())
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
        let (marker, end) = self.next_marker(reader)?;
        match marker {
            Some(marker) if marker == 0xD0 + self.next_restart_number => {}
            Some(0xD9) | None => return Err(Error::Truncated),
            Some(_) => return Err(Error::Corrupt("a marker other than the expected restart marker")),
        }
        self.previous_dc = [0; 3];
        self.mcus_until_restart = self.restart_interval;
        self.next_restart_number = (self.next_restart_number + 1) % 8;
        Ok(BitReader::new(end))
    }

    /// Returns the index of the byte after the last MCU.
    pub(crate) fn end(&self) -> Result<usize, Error> {
        self.reader.end_of_data().ok_or(NO_MARKER)
    }

    /// Checks that the file has no further scan after the last MCU.
    pub(crate) fn check_end(&self) -> Result<(), Error> {
        match self.next_marker(self.reader)?.0 {
            Some(0xD9) | None => Ok(()),
            Some(_) => Err(Error::Unsupported("more than one scan")),
        }
    }

    /// Returns the marker directly after the consumed bits and the index of the byte after it. The marker is
    /// `None` at the end of the file.
    fn next_marker(&self, reader: BitReader) -> Result<(Option<u8>, usize), Error> {
        let start = reader.end_of_data().ok_or(NO_MARKER)?;
        let rest = self.bytes.get(start..).unwrap_or_default();
        let Some(fill_count) = rest.iter().position(|&byte| byte != 0xFF) else { return Ok((None, start)) };
        match rest[fill_count] {
            marker if fill_count > 0 && marker != 0 => Ok((Some(marker), start + fill_count + 1)),
            _ => Err(NO_MARKER),
        }
    }
}
