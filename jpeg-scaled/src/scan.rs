//! The entropy-coded pixels: MCU after MCU into the planes.

use crate::{
    Error,
    bits::BitReader,
    block::{decode_ac, decode_dc, skip_ac},
    header::{Quantization, Tables},
    idct,
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
    /// Where its top left sample is in the first MCU of a row.
    at: usize,
    /// How much farther right that is in the next MCU.
    step: usize,
    /// Samples along its side.
    side: usize,
    dc: usize,
    ac: usize,
}

/// The one scan of a picture, as far as it has been decoded.
pub(crate) struct Scan<'a> {
    bytes: &'a [u8],
    reader: BitReader,
    blocks: [Block; MAX_BLOCKS],
    count: usize,
    quantization: [Quantization; 3],
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
    pub(crate) fn new(bytes: &'a [u8], tables: &Tables, planes: &[Plane]) -> Result<Self, Error> {
        let mut scan = Self {
            bytes,
            reader: BitReader::new(tables.pixels_at),
            blocks: [Block::default(); MAX_BLOCKS],
            count: 0,
            quantization: [[0; 64]; 3],
            previous_dc: [0; 3],
            restart_interval: tables.restart_interval,
            until_restart: tables.restart_interval,
            next_restart: 0,
        };
        for (number, (component, plane)) in tables.components().iter().zip(planes).enumerate() {
            scan.quantization[number] = *tables.quantization_of(component)?;
            for row in 0..component.vertical {
                for column in 0..component.horizontal {
                    scan.blocks[scan.count] = Block {
                        component: number,
                        at: plane.block_at(column, row),
                        step: component.horizontal * plane.side(),
                        side: plane.side(),
                        dc: component.dc,
                        ac: component.ac,
                    };
                    scan.count += 1;
                }
            }
        }
        Ok(scan)
    }

    /// Decodes the next row of MCUs, of which there are `columns`.
    pub(crate) fn decode_row(
        &mut self,
        codes: &HuffmanTables,
        planes: &mut [Plane],
        columns: usize,
    ) -> Result<(), Error> {
        let bytes = self.bytes;
        // In registers, which `self` is not.
        let mut reader = self.reader;
        for column in 0..columns {
            if self.restart_interval > 0 {
                if self.until_restart == 0 {
                    reader = self.restart(reader)?;
                }
                self.until_restart -= 1;
            }
            for block in &self.blocks[..self.count] {
                let plane = &mut planes[block.component];
                let steps = &self.quantization[block.component];
                let at = block.at + column * block.step;
                let difference = decode_dc(&mut reader, bytes, &codes.dc[block.dc & 3])?;
                let dc = self.previous_dc[block.component].wrapping_add(difference);
                self.previous_dc[block.component] = dc;
                if block.side == 1 {
                    skip_ac(&mut reader, bytes, &codes.ac[block.ac & 3])?;
                    plane.fill(at, idct::to_1(dc, steps[0]));
                    continue;
                }
                let mut coefficients = [0; 64];
                coefficients[0] = dc;
                let last = decode_ac(&mut reader, bytes, &codes.ac[block.ac & 3], &mut coefficients)?;
                match block.side {
                    _ if last == 0 => plane.fill(at, idct::to_1(dc, steps[0])),
                    2 => plane.put(at, &idct::to_2x2(&coefficients, steps)),
                    4 => plane.put(at, &idct::to_4x4(&coefficients, steps)),
                    _ => plane.put(at, &idct::to_8x8(&coefficients, steps)),
                }
            }
            if reader.overrun() {
                return Err(Error::Truncated);
            }
        }
        self.reader = reader;
        Ok(())
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
