//! Decodes rows of MCUs of a sequential scan into the planes.

use super::ScanDecoder;
use crate::{
    Error,
    bit_reader::BitReader,
    block::{decode_ac_into, decode_dc_difference, skip_ac},
    huffman::HuffmanTables,
    idct::LANES,
    plane::Plane,
};

impl ScanDecoder<'_> {
    /// Decodes the next row of MCUs.
    #[inline(always)]
    pub(crate) fn decode_row(&mut self, tables: &HuffmanTables, planes: &mut [Plane]) -> Result<(), Error> {
        // The compiler keeps a local copy in registers, but not a field of `self`.
        let mut reader = self.reader;
        for column in 0..self.column_count {
            reader = self.begin_mcu(reader)?;
            let decoded = self.decode_mcu(&mut reader, tables, planes, column);
            self.check_overrun(&reader, decoded)?;
        }
        self.reader = reader;
        // `decode_mcu` transforms only complete groups. The last group of a row of blocks may be incomplete.
        for block in &self.blocks[..self.block_count] {
            let blocks_per_row = self.column_count * block.blocks_across;
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
            let difference = decode_dc_difference(reader, bytes, &tables.dc[block.dc_table_index])?;
            let dc = self.previous_dc[block.component_index].wrapping_add(difference);
            self.previous_dc[block.component_index] = dc;
            plane.check_dc(dc.into())?;
            let ac_table = &tables.ac[block.ac_table_index];
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
}
