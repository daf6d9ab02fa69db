//! The entropy-coded pixels: MCU after MCU into the planes.

use crate::{
    Error,
    bits::BitReader,
    block::{decode_dc, skip_ac, take_ac},
    header::{Component, Tables},
    idct::LANES,
    plane::Plane,
    workspace::HuffmanTables,
};

/// Most blocks in an MCU.
const MAX_BLOCKS: usize = 10;

/// A block of an MCU.
#[derive(Clone, Copy, Default)]
struct Block {
    /// Which component it belongs to.
    component: usize,
    /// Where it is in the MCU, counted in blocks.
    column: usize,
    row: usize,
    /// Blocks of its component across in an MCU.
    horizontal: usize,
    dc: usize,
    ac: usize,
}

/// The one scan of a picture, as far as it has been decoded.
pub(crate) struct Scan<'a> {
    bytes: &'a [u8],
    reader: BitReader,
    blocks: [Block; MAX_BLOCKS],
    count: usize,
    /// The DC coefficient of each component's block before.
    previous_dc: [i16; 3],
    /// MCUs between two restart markers; none for 0.
    restart_interval: u32,
    /// MCUs up to the next restart marker.
    until_restart: u32,
    /// 0 to 7: the number of the next restart marker.
    next_restart: u8,
}

impl<'a> Scan<'a> {
    /// At the first MCU.
    pub(crate) fn new(bytes: &'a [u8], tables: &Tables) -> Self {
        let mut scan = Self {
            bytes,
            reader: BitReader::new(tables.pixels_at),
            blocks: [Block::default(); MAX_BLOCKS],
            count: 0,
            previous_dc: [0; 3],
            restart_interval: tables.restart_interval,
            until_restart: tables.restart_interval,
            next_restart: 0,
        };
        for (number, component) in tables.components().iter().enumerate() {
            let &Component { horizontal, vertical, dc, ac, .. } = component;
            for row in 0..vertical {
                for column in 0..horizontal {
                    scan.blocks[scan.count] = Block { component: number, column, row, horizontal, dc, ac };
                    scan.count += 1;
                }
            }
        }
        scan
    }

    /// Decodes the next row of MCUs, of which there are `columns`.
    #[inline(always)]
    pub(crate) fn decode_row(
        &mut self,
        codes: &HuffmanTables,
        planes: &mut [Plane],
        columns: usize,
    ) -> Result<(), Error> {
        // In registers, which `self` is not.
        let mut reader = self.reader;
        for column in 0..columns {
            if self.restart_interval > 0 {
                if self.until_restart == 0 {
                    reader = self.restart(reader)?;
                }
                self.until_restart -= 1;
            }
            match self.decode_mcu(&mut reader, codes, planes, column) {
                Ok(()) if reader.overrun() => return Err(self.overrun(&reader)),
                Ok(()) => {}
                // What is wrong with bits that are made up is that they are.
                Err(_) if reader.nearly_overrun() => return Err(self.overrun(&reader)),
                Err(error) => return Err(error),
            }
        }
        self.reader = reader;
        for block in &self.blocks[..self.count] {
            let block_columns = columns * block.horizontal;
            if block.column == 0 && !block_columns.is_multiple_of(LANES) {
                planes[block.component].transform(block_columns - block_columns % LANES, block.row);
            }
        }
        Ok(())
    }

    /// Decodes the MCU that is `column` MCUs from the left.
    #[inline(always)]
    fn decode_mcu(
        &mut self,
        reader: &mut BitReader,
        codes: &HuffmanTables,
        planes: &mut [Plane],
        column: usize,
    ) -> Result<(), Error> {
        let bytes = self.bytes;
        for block in &self.blocks[..self.count] {
            let plane = &mut planes[block.component];
            let block_column = column * block.horizontal + block.column;
            let lane = block_column % LANES;
            let difference = decode_dc(reader, bytes, &codes.dc[block.dc & 3])?;
            let dc = self.previous_dc[block.component].wrapping_add(difference);
            self.previous_dc[block.component] = dc;
            let ac_codes = &codes.ac[block.ac & 3];
            plane.band(block.row)[0][0][lane] = dc;
            if plane.is_mean() {
                skip_ac(reader, bytes, ac_codes)?;
            } else {
                take_ac(reader, bytes, ac_codes, plane.band(block.row), lane)?;
            }
            if lane == LANES - 1 {
                plane.transform(block_column - lane, block.row);
            }
        }
        Ok(())
    }

    /// What is wrong where the bits end too early. More of them come after a restart marker.
    #[cold]
    fn overrun(&self, reader: &BitReader) -> Error {
        if reader.at_restart_marker(self.bytes) {
            Error::Corrupt("a restart marker stands where pixels should")
        } else {
            Error::Truncated
        }
    }

    /// Steps over the restart marker that must come here.
    #[cold]
    #[inline(never)]
    fn restart(&mut self, reader: BitReader) -> Result<BitReader, Error> {
        let (marker, at) = self.marker_after(reader)?;
        match marker {
            Some(marker) if marker == 0xD0 + self.next_restart => {}
            Some(0xD9) | None => return Err(Error::Truncated),
            Some(_) => return Err(Error::Corrupt("another marker stands where a restart marker should")),
        }
        self.previous_dc = [0; 3];
        self.until_restart = self.restart_interval;
        self.next_restart = (self.next_restart + 1) % 8;
        Ok(BitReader::new(at))
    }

    /// Sees to it that there was no more to decode.
    pub(crate) fn finish(&self) -> Result<(), Error> {
        match self.marker_after(self.reader)?.0 {
            Some(0xD9) | None => Ok(()),
            Some(_) => Err(Error::Unsupported("more than one scan")),
        }
    }

    /// The marker that follows the bits, and where it ends; none at the end of the file.
    fn marker_after(&self, reader: BitReader) -> Result<(Option<u8>, usize), Error> {
        const NO_MARKER: Error = Error::Unsupported("bytes between the pixels and a marker");
        let at = reader.end().ok_or(NO_MARKER)?;
        let rest = self.bytes.get(at..).unwrap_or_default();
        let Some(fill) = rest.iter().position(|&byte| byte != 0xFF) else { return Ok((None, at)) };
        match rest[fill] {
            marker if fill > 0 && marker != 0 => Ok((Some(marker), at + fill + 1)),
            _ => Err(NO_MARKER),
        }
    }
}
