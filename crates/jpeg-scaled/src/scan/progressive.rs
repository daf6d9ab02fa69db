//! Decodes rows of MCUs of a progressive scan into the coefficients.

use super::ScanDecoder;
use crate::{
    Error,
    bit_reader::BitReader,
    block::{coefficient_index, decode_ac, decode_dc_difference, read_block_count},
    coefficients::CoefficientRows,
    header::Band,
    huffman::{HuffmanTables, RefinementTable},
    idct::{BlockGroup, LANES},
    plane::Plane,
};

impl ScanDecoder<'_> {
    /// Decodes the next row of MCUs of a first scan of DC coefficients. `row` is the row of blocks where the
    /// MCUs begin.
    #[inline(always)]
    pub(super) fn decode_dc_first_row(
        &mut self,
        tables: &HuffmanTables,
        planes: &[Plane],
        coefficients: &mut [CoefficientRows],
        row: usize,
        shift: u32,
    ) -> Result<(), Error> {
        let mut reader = self.reader;
        for column in 0..self.column_count {
            reader = self.begin_mcu(reader)?;
            for index in 0..self.block_count {
                let block = self.blocks[index];
                let table = &tables.dc[block.dc_table_index];
                let difference = decode_dc_difference(&mut reader, self.bytes, table);
                let difference = self.check_overrun(&reader, difference)?;
                let dc = self.previous_dc[block.component_index].wrapping_add(difference);
                self.previous_dc[block.component_index] = dc;
                // The bits that later scans add make a negative coefficient larger.
                let later_bits = if dc < 0 { (1 << shift) - 1 } else { 0 };
                planes[block.component_index].check_dc((i32::from(dc) << shift) + later_bits)?;
                let block_column = column * block.blocks_across + block.column;
                let groups = coefficients[block.component_index].row(row + block.row).groups;
                groups[block_column / LANES][0][0][block_column % LANES] = dc << shift;
            }
        }
        self.reader = reader;
        Ok(())
    }

    /// Decodes the next row of MCUs of a refinement scan of DC coefficients: one bit per block. `row` is the
    /// row of blocks where the MCUs begin.
    #[inline(always)]
    pub(super) fn decode_dc_refinement_row(
        &mut self,
        coefficients: &mut [CoefficientRows],
        row: usize,
        bit: u32,
    ) -> Result<(), Error> {
        let mut reader = self.reader;
        for column in 0..self.column_count {
            reader = self.begin_mcu(reader)?;
            // An MCU has at most ten blocks.
            reader.refill(self.bytes);
            for block in &self.blocks[..self.block_count] {
                let block_column = column * block.blocks_across + block.column;
                let groups = coefficients[block.component_index].row(row + block.row).groups;
                let is_set = i16::from(reader.take_bits(1) == 1);
                groups[block_column / LANES][0][0][block_column % LANES] |= is_set << bit;
            }
            self.check_overrun(&reader, Ok(()))?;
        }
        self.reader = reader;
        Ok(())
    }

    /// Decodes the next row of blocks of a first scan of AC coefficients. `row` is the row of blocks in the
    /// row of MCUs.
    #[inline(always)]
    pub(super) fn decode_ac_first_row(
        &mut self,
        tables: &HuffmanTables,
        coefficients: &mut [CoefficientRows],
        row: usize,
        band: Band,
        shift: u32,
    ) -> Result<(), Error> {
        let [block, ..] = self.blocks;
        let table = &tables.ac[block.ac_table_index];
        let blocks = coefficients[block.component_index].row(row);
        let mut reader = self.reader;
        let mut column = 0;
        while column < self.column_count {
            if self.end_of_block_run > 0 && self.mcus_until_restart > 0 {
                let remaining_count = u32::try_from(self.column_count - column).unwrap_or(u32::MAX);
                let skipped_count = self.end_of_block_run.min(self.mcus_until_restart).min(remaining_count);
                self.end_of_block_run -= skipped_count;
                self.mcus_until_restart -= skipped_count;
                column += skipped_count as usize;
                continue;
            }
            reader = self.begin_mcu(reader)?;
            let group = blocks.groups[column / LANES].as_flattened_mut().as_flattened_mut();
            let mut nonzero = 0;
            let decoded = decode_ac::<true>(&mut reader, self.bytes, table, band, |position, coefficient| {
                nonzero |= u64::from(coefficient != 0) << (position & 63);
                group[coefficient_index(position, column)] = coefficient << shift;
            });
            blocks.nonzero[column] |= nonzero;
            self.end_of_block_run = self.check_overrun(&reader, decoded)?;
            column += 1;
        }
        self.reader = reader;
        Ok(())
    }

    /// Decodes the next row of blocks of a refinement scan of AC coefficients. `row` is the row of blocks in
    /// the row of MCUs.
    #[inline(always)]
    pub(super) fn decode_ac_refinement_row(
        &mut self,
        tables: &HuffmanTables,
        coefficients: &mut [CoefficientRows],
        row: usize,
        band: Band,
        bit: u32,
    ) -> Result<(), Error> {
        let [block, ..] = self.blocks;
        let table = &tables.refinement[block.ac_table_index];
        let blocks = coefficients[block.component_index].row(row);
        let mut reader = self.reader;
        for column in 0..self.column_count {
            reader = self.begin_mcu(reader)?;
            let mut refinement = BlockRefinement {
                group: &mut blocks.groups[column / LANES],
                lane: column % LANES,
                nonzero: blocks.nonzero[column],
                needed: blocks.needed,
                bit,
            };
            let run = self.end_of_block_run;
            let decoded = refinement.decode(&mut reader, self.bytes, table, band, run);
            blocks.nonzero[column] = refinement.nonzero;
            self.end_of_block_run = self.check_overrun(&reader, decoded)?;
        }
        self.reader = reader;
        Ok(())
    }
}

/// A block to whose AC coefficients a bit is added.
struct BlockRefinement<'a> {
    group: &'a mut BlockGroup,
    /// Lane of the block in `group`.
    lane: usize,
    /// The bit of each coefficient that is not zero, in zigzag order.
    nonzero: u64,
    /// The bit of each coefficient that the inverse DCT reads, in zigzag order.
    needed: u64,
    /// Number of the bit that is added to the absolute values of the coefficients.
    bit: u32,
}

impl BlockRefinement<'_> {
    /// Decodes the block. Returns the number of following blocks in which no coefficient becomes nonzero.
    ///
    /// `end_of_block_run` is the number of blocks, from this one, in which no coefficient becomes nonzero.
    ///
    /// A code word is followed by a correction bit for each coefficient that is already nonzero and lies
    /// before the coefficient that the code word makes nonzero. The end of the block is followed by the
    /// correction bits of the coefficients that remain. A correction bit says whether the absolute value of
    /// its coefficient increases.
    #[inline(always)]
    fn decode(
        &mut self,
        reader: &mut BitReader,
        bytes: &[u8],
        table: &RefinementTable,
        band: Band,
        end_of_block_run: u32,
    ) -> Result<u32, Error> {
        let corrected = self.nonzero & band.mask();
        let mut remaining = band.mask();
        // The correction bits of the whole block. They are applied at once, because a loop per code word would
        // cost more mispredicted branches.
        let mut correction_bits = 0;
        let mut following_count = end_of_block_run.saturating_sub(1);
        while remaining != 0 && end_of_block_run == 0 {
            reader.refill(bytes);
            let mut entry = table.look_up(reader.peek());
            if !entry.is_in_block() {
                if !entry.is_end_of_block() {
                    entry = table.find(reader.peek()).ok_or(Error::Corrupt("an unknown AC code word"))?;
                }
                if entry.is_end_of_block() {
                    reader.consume(entry.bit_count());
                    following_count = read_block_count(reader, entry.zero_count());
                    break;
                }
            }
            reader.consume(entry.bit_count());
            // The run counts only the coefficients that are still zero.
            let candidates = without_lowest_bits(remaining & !self.nonzero, entry.zero_count());
            if candidates == 0 {
                return Err(Error::Corrupt("a block has too many coefficients"));
            }
            let position = candidates.trailing_zeros();
            let up_to_position = u64::MAX >> (63 - position);
            let count = (corrected & remaining & up_to_position).count_ones();
            correction_bits = correction_bits << count | read_correction_bits(reader, bytes, count);
            // The last coefficient of a run of 16 zeros is stored as zero.
            let coefficient = entry.coefficient();
            self.nonzero |= u64::from(coefficient != 0) << position;
            let index = coefficient_index(position as usize, self.lane);
            self.group.as_flattened_mut().as_flattened_mut()[index] = coefficient << self.bit;
            remaining &= !up_to_position;
        }
        if corrected == 0 {
            return Ok(following_count);
        }
        let count = (corrected & remaining).count_ones();
        reader.refill(bytes);
        correction_bits = correction_bits << count | read_correction_bits(reader, bytes, count);
        self.apply(corrected, correction_bits);
        Ok(following_count)
    }

    /// Applies the correction bits of the coefficients whose bits are set in `corrected`. The lowest correction
    /// bit belongs to the last coefficient.
    #[inline(always)]
    fn apply(&mut self, corrected: u64, correction_bits: u64) {
        let group = self.group.as_flattened_mut().as_flattened_mut();
        let mut remaining = corrected & self.needed;
        while remaining != 0 {
            let position = remaining.trailing_zeros();
            remaining &= remaining - 1;
            let later_count = (corrected >> position >> 1).count_ones();
            let is_increased = i16::from(correction_bits >> later_count & 1 == 1);
            let coefficient = &mut group[coefficient_index(position as usize, self.lane)];
            let sign = *coefficient >> 15 | 1;
            *coefficient = coefficient.wrapping_add(sign * (is_increased << self.bit));
        }
    }
}

/// Reads `count` correction bits, less than 64. At least 32 bits must be valid.
#[inline(always)]
fn read_correction_bits(reader: &mut BitReader, bytes: &[u8], count: u32) -> u64 {
    if count <= 32 {
        return reader.take_bits(count).into();
    }
    let first = u64::from(reader.take_bits(32));
    reader.refill(bytes);
    first << (count - 32) | u64::from(reader.take_bits(count - 32))
}

/// Returns `bits` without its lowest `count` set bits. `count` is at most 15.
#[inline(always)]
fn without_lowest_bits(mut bits: u64, count: u32) -> u64 {
    let without_lowest = |bits: u64| bits & bits.wrapping_sub(1);
    // Most runs are short. For them, selecting between computed values avoids mispredicted branches.
    for _ in 0..count / 4 {
        bits = without_lowest(without_lowest(without_lowest(without_lowest(bits))));
    }
    bits = if count & 1 == 0 { bits } else { without_lowest(bits) };
    if count & 2 == 0 { bits } else { without_lowest(without_lowest(bits)) }
}
