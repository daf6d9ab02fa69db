//! Writes the rows of a decoded picture.

use crate::{
    ColourSpace, Error, JpegHeader, Scale, colour,
    plane::{McuGrid, Plane},
};

/// A buffer for the pixels of a picture.
pub(crate) enum PixelBuffer<'a> {
    /// An empty buffer, which grows.
    Growing(&'a mut Vec<u8>),
    /// A buffer that must have the length of the pixels.
    Fixed(&'a mut [u8]),
}

/// Writes the rows of a picture in order.
pub(crate) struct PictureWriter<'a> {
    pixels: PixelBuffer<'a>,
    /// Number of rows that are written.
    row_count: usize,
    /// Width and height of the decoded picture.
    pub(crate) size: (u32, u32),
    /// Number of bytes in a row.
    stride: usize,
    colour_space: ColourSpace,
    grid: &'a McuGrid,
}

impl<'a> PictureWriter<'a> {
    /// Creates a writer. Reserves memory for the picture if `pixels` grows.
    pub(crate) fn new(
        header: &JpegHeader,
        scale: Scale,
        grid: &'a McuGrid,
        mut pixels: PixelBuffer<'a>,
    ) -> Result<Self, Error> {
        let JpegHeader { width, height, colour_space, .. } = *header;
        let (width, height) = (scale.apply(width), scale.apply(height));
        let stride = colour_space.channel_count() * width as usize;
        let length = stride * height as usize;
        match &mut pixels {
            PixelBuffer::Growing(pixels) => reserve_pixels(pixels, length),
            PixelBuffer::Fixed(pixels) if pixels.len() == length => {}
            PixelBuffer::Fixed(_) => {
                return Err(Error::Corrupt("the pixels do not have the expected length"));
            }
        }
        Ok(Self { pixels, row_count: 0, size: (width, height), stride, colour_space, grid })
    }

    /// Writes the rows of the picture that are ready after the row of MCUs `mcu_row`, whose samples the planes
    /// hold. Prepares the planes for the next row of MCUs.
    #[inline(always)]
    pub(crate) fn write_mcu_row(&mut self, planes: &mut [Plane], mcu_row: usize) {
        // The last pixel row of a row of MCUs needs samples of the next row of MCUs. It is written after the
        // next row of MCUs is decoded.
        let ready_row_count = if mcu_row + 1 == self.grid.row_count {
            self.size.1 as usize
        } else {
            (mcu_row + 1) * self.grid.picture_rows_per_mcu_row() - 1
        };
        let (first_row, end) = (self.row_count, ready_row_count * self.stride);
        let pixels = match &mut self.pixels {
            PixelBuffer::Growing(pixels) => {
                pixels.resize(end, 0);
                &mut pixels[..]
            }
            PixelBuffer::Fixed(pixels) => &mut pixels[..end],
        };
        let new_rows = pixels[first_row * self.stride..].chunks_exact_mut(self.stride);
        for (row, row_pixels) in (first_row..).zip(new_rows) {
            write_row(planes, row, mcu_row, self.colour_space, row_pixels);
        }
        self.row_count = ready_row_count;
        planes.iter_mut().for_each(Plane::advance);
    }
}

/// Grows the capacity of `pixels`, which must be empty, to at least `len` bytes.
fn reserve_pixels(pixels: &mut Vec<u8>, len: usize) {
    if pixels.capacity() < len {
        // Frees the old memory before the new memory is allocated, so that both never exist at once.
        *pixels = Vec::new();
        pixels.reserve_exact(len);
    }
}

/// Writes row `row` of the picture to `row_pixels`.
///
/// `mcu_row` is the row of MCUs whose samples the planes hold. `row` must lie in this row of MCUs, or be the
/// last row of the picture that lies in the row of MCUs before it.
#[inline(always)]
fn write_row(
    planes: &mut [Plane],
    row: usize,
    mcu_row: usize,
    colour_space: ColourSpace,
    row_pixels: &mut [u8],
) {
    match planes {
        [first, second, third] => {
            let [first, second, third] = [first, second, third].map(|plane| plane.picture_row(row, mcu_row));
            match colour_space {
                ColourSpace::Rgb => colour::interleave_row([first, second, third], row_pixels),
                // The other colour spaces are only here to complete the match: they have other numbers of
                // planes.
                ColourSpace::YCbCr | ColourSpace::Grey | ColourSpace::Cmyk | ColourSpace::Ycck => {
                    colour::convert_ycbcr_row(first, second, third, row_pixels)
                }
            }
        }
        [first, second, third, fourth] => {
            let samples = [first, second, third, fourth].map(|plane| plane.picture_row(row, mcu_row));
            colour::interleave_row(samples, row_pixels);
        }
        [only, ..] => row_pixels.copy_from_slice(&only.picture_row(row, mcu_row)[..row_pixels.len()]),
        [] => {}
    }
}
