//! The way from a file to pixels.

use pulp::{Arch, NullaryFnOnce};

use crate::{
    Colour, Error, Header, Scale, colour,
    header::{Component, Tables},
    lookup::{AcTable, DcTable},
    plane::{Grid, Plane},
    scan::Scan,
};

/// Memory that is used again from picture to picture: a decoder.
///
/// Grows to the largest picture it has decoded: the pixels that are given out, and a row of MCUs.
pub struct Workspace {
    codes: HuffmanTables,
    planes: [Plane; 3],
    pixels: Vec<u8>,
}

impl Default for Workspace {
    fn default() -> Self {
        Self { codes: HuffmanTables::EMPTY, planes: [Plane::EMPTY; 3], pixels: Vec::new() }
    }
}

/// The tables that the components of a picture use.
pub(crate) struct HuffmanTables {
    pub(crate) dc: [DcTable; 4],
    pub(crate) ac: [AcTable; 4],
}

impl HuffmanTables {
    const EMPTY: Self = Self { dc: [DcTable::EMPTY; 4], ac: [AcTable::EMPTY; 4] };

    /// Makes the tables of a component ready.
    fn set(&mut self, tables: &Tables, component: &Component) -> Result<(), Error> {
        // A file that leaves them out means those of the standard's annex, as films do.
        const MISSING: Error = Error::Unsupported("a file without Huffman tables");
        const BAD_NUMBER: Error = Error::Corrupt("a Huffman table has a wrong number");
        let &Component { dc, ac, .. } = component;
        let lengths = tables.dc_codes.get(dc).ok_or(BAD_NUMBER)?.as_ref().ok_or(MISSING)?;
        self.dc[dc].set(lengths)?;
        let lengths = tables.ac_codes.get(ac).ok_or(BAD_NUMBER)?.as_ref().ok_or(MISSING)?;
        self.ac[ac].set(lengths)
    }
}

/// A decoded picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Picture<'a> {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Red, green and blue of each pixel, 8 bits each, row by row from the top without gaps; where the
    /// file's colour is [`Colour::Grey`], one byte of that.
    pub pixels: &'a [u8],
}

impl Workspace {
    /// Decodes a file to RGB, whatever its own colours, or to grey if it has none. Nothing but the header decides how much memory
    /// is asked for, so look at [`Header::read`] first; it is used only as far as there are pixels.
    ///
    /// What follows the end marker is ignored, and the end marker may be missing.
    ///
    /// # Errors
    /// [`Error`]. A file without all of its pixels is one.
    pub fn decode(&mut self, bytes: &[u8], scale: Scale) -> Result<Picture<'_>, Error> {
        let mut pixels = std::mem::take(&mut self.pixels);
        let decoded = self.decode_into(bytes, scale, &mut pixels);
        self.pixels = pixels;
        let (width, height) = decoded?;
        Ok(Picture { width, height, pixels: &self.pixels })
    }

    /// As [`Self::decode`], with the pixels in memory of the caller: `pixels` is cleared first and grows
    /// where it is too small. Gives the picture's width and height.
    ///
    /// # Errors
    /// [`Error`]; `pixels` then holds a part of the picture.
    pub fn decode_into(
        &mut self,
        bytes: &[u8],
        scale: Scale,
        pixels: &mut Vec<u8>,
    ) -> Result<(u32, u32), Error> {
        let Self { codes, planes, .. } = self;
        Arch::new().dispatch(Decoding { codes, planes, bytes, scale, pixels })
    }
}

/// A call of [`Workspace::decode_into`], as a value: pulp runs it with the vector instructions that the
/// processor has. They reach as far as functions are inlined, so those where the time is spent all are.
struct Decoding<'a> {
    codes: &'a mut HuffmanTables,
    planes: &'a mut [Plane; 3],
    bytes: &'a [u8],
    scale: Scale,
    pixels: &'a mut Vec<u8>,
}

impl NullaryFnOnce for Decoding<'_> {
    type Output = Result<(u32, u32), Error>;

    #[inline(always)]
    fn call(self) -> Self::Output {
        let Self { codes, planes, bytes, scale, pixels } = self;
        let tables = Tables::read(bytes)?;
        let Header { width, height, colour } = tables.header;
        let (width, height) = (scale.apply(width), scale.apply(height));
        let grid = Grid::new(&tables.header, tables.components(), scale);
        let planes = &mut planes[..tables.components().len()];
        for (plane, component) in planes.iter_mut().zip(tables.components()) {
            plane.set(component, tables.quantization_of(component)?, &grid)?;
            codes.set(&tables, component)?;
        }
        let channels = if colour == Colour::Grey { 1 } else { 3 };
        let stride = channels * width as usize;
        pixels.clear();
        let len = stride * height as usize;
        if pixels.capacity() < len {
            // First the old one goes: the two are never there at once.
            *pixels = Vec::new();
            pixels.reserve_exact(len);
        }
        let mut scan = Scan::new(bytes, &tables);
        for mcu_row in 0..grid.rows {
            scan.decode_row(codes, planes, grid.columns)?;
            // The last row of the picture waits for its neighbour in the next row of MCUs.
            let ready = if mcu_row + 1 == grid.rows {
                height as usize
            } else {
                (mcu_row + 1) * grid.picture_rows() - 1
            };
            let first = pixels.len() / stride;
            pixels.resize(ready * stride, 0);
            for (row, to) in (first..).zip(pixels[first * stride..].chunks_exact_mut(stride)) {
                write_row(planes, row, mcu_row, colour, to);
            }
            planes.iter_mut().for_each(Plane::advance);
        }
        scan.finish()?;
        Ok((width, height))
    }
}

/// Writes row `row` of the picture.
#[inline(always)]
fn write_row(planes: &mut [Plane], row: usize, mcu_row: usize, colour: Colour, pixels: &mut [u8]) {
    match planes {
        [first, second, third] => {
            let [first, second, third] = [first, second, third].map(|plane| plane.picture_row(row, mcu_row));
            match colour {
                Colour::Rgb => colour::from_rgb(first, second, third, pixels),
                Colour::YCbCr | Colour::Grey => colour::from_ycbcr(first, second, third, pixels),
            }
        }
        [only, ..] => pixels.copy_from_slice(&only.picture_row(row, mcu_row)[..pixels.len()]),
        [] => {}
    }
}

#[cfg(test)]
mod tests {
    use pulp::NullaryFnOnce;

    use super::{Decoding, Workspace};
    use crate::Scale;

    /// Where the memory is, and how much of it there is.
    fn memory(workspace: &Workspace) -> Vec<(*const u8, usize)> {
        let planes = workspace.planes.iter().flat_map(|plane| plane.buffers());
        planes.chain([&workspace.pixels]).map(|buffer| (buffer.as_ptr(), buffer.capacity())).collect()
    }

    #[test]
    fn a_picture_of_the_same_size_is_decoded_in_the_same_memory() {
        let file = include_bytes!("../tests/reference/420.jpg");
        for scale in Scale::ALL {
            let mut workspace = Workspace::default();
            workspace.decode(file, scale).unwrap();
            let first = memory(&workspace);
            assert!(first.iter().all(|&(_, capacity)| capacity > 0));
            workspace.decode(file, scale).unwrap();
            assert_eq!(memory(&workspace), first);
        }
    }

    /// The other tests have those of the processor they run on.
    #[test]
    fn the_pixels_are_the_same_without_vector_instructions_that_not_every_processor_has() {
        let file = include_bytes!("../tests/reference/420.jpg");
        for scale in Scale::ALL {
            let Workspace { mut codes, mut planes, mut pixels } = Workspace::default();
            let (codes, planes) = (&mut codes, &mut planes);
            let size = Decoding { codes, planes, bytes: file, scale, pixels: &mut pixels }.call().unwrap();
            let mut workspace = Workspace::default();
            let picture = workspace.decode(file, scale).unwrap();
            assert_eq!(size, (picture.width, picture.height));
            assert_eq!(pixels, picture.pixels);
        }
    }
}
