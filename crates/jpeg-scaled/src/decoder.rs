//! Decodes a file to pixels.

use pulp::{Arch, NullaryFnOnce};

use crate::{
    ColourSpace, Error, JpegHeader, Scale, colour,
    header::{Component, ParsedHeaders},
    huffman::HuffmanTables,
    plane::{McuGrid, Plane},
    scan::ScanDecoder,
};

/// A decoder that keeps its memory from one picture to the next.
///
/// The memory holds the pixels and one row of MCUs of a picture. It grows to the size that the largest
/// picture so far needed. The samples of a file with several scans are freed after decoding.
pub struct Decoder {
    tables: HuffmanTables,
    planes: [Plane; 3],
    pixels: Vec<u8>,
}

impl Default for Decoder {
    fn default() -> Self {
        Self { tables: HuffmanTables::EMPTY, planes: [Plane::EMPTY; 3], pixels: Vec::new() }
    }
}

/// A decoded picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Picture<'a> {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// The pixels, row by row from the top and without padding between the rows.
    ///
    /// A pixel is three bytes, red, green and blue. If the file's colour space is [`ColourSpace::Grey`], a
    /// pixel is one byte.
    pub pixels: &'a [u8],
}

impl Decoder {
    /// Decodes a file to RGB, or to grey if the file's colour space is [`ColourSpace::Grey`].
    ///
    /// Allocates memory for the size in the header, even if the file has too little data for that size.
    /// A caller that limits memory should first check the size with [`JpegHeader::read`]. A file with several
    /// scans also needs memory for all samples, which [`Scale::max_sample_bytes`] states.
    ///
    /// Bytes after the end marker are ignored. The end marker may be missing.
    ///
    /// # Errors
    /// Returns an [`Error`] if the file is not supported, is corrupt, or ends before its last pixel.
    ///
    /// # Examples
    /// Decodes a picture of 45×37 pixels at half its size:
    ///
    /// ```
    /// use jpeg_scaled::{Decoder, Scale};
    ///
    /// let file = include_bytes!("../tests/reference/420.jpg");
    /// let mut decoder = Decoder::default();
    /// let picture = decoder.decode(file, Scale::Half)?;
    /// assert_eq!((picture.width, picture.height), (23, 19));
    /// assert_eq!(picture.pixels.len(), 3 * 23 * 19);
    /// # Ok::<(), jpeg_scaled::Error>(())
    /// ```
    pub fn decode(&mut self, bytes: &[u8], scale: Scale) -> Result<Picture<'_>, Error> {
        let mut pixels = std::mem::take(&mut self.pixels);
        let decoded = self.decode_into(bytes, scale, &mut pixels);
        self.pixels = pixels;
        let (width, height) = decoded?;
        Ok(Picture { width, height, pixels: &self.pixels })
    }

    /// Decodes a file as [`Self::decode`] does, but into `pixels`. Returns the width and height of the
    /// picture.
    ///
    /// Clears `pixels` first, and grows it if its capacity is too small.
    ///
    /// # Errors
    /// Returns an [`Error`] in the same cases as [`Self::decode`]. `pixels` then contains a part of the
    /// picture.
    pub fn decode_into(
        &mut self,
        bytes: &[u8],
        scale: Scale,
        pixels: &mut Vec<u8>,
    ) -> Result<(u32, u32), Error> {
        let Self { tables, planes, .. } = self;
        pixels.clear();
        let headers = ParsedHeaders::read(bytes)?;
        let call = DecodeCall { tables, planes, bytes, headers, scale, pixels };
        if !call.headers.header.has_several_scans {
            return Arch::new().dispatch(call);
        }
        let decoded = Arch::new().dispatch(DecodeSeveralScansCall(call));
        planes.iter_mut().for_each(Plane::free_samples);
        decoded
    }
}

/// Decodes a file with one scan, row of MCUs by row of MCUs.
///
/// `pulp` compiles [`NullaryFnOnce::call`] for several sets of vector instructions and runs the version for
/// this CPU. A function that `call` uses is compiled for these vector instructions only if it is inlined into
/// `call`, so every function on the hot path is `#[inline(always)]`.
struct DecodeCall<'a> {
    tables: &'a mut HuffmanTables,
    planes: &'a mut [Plane; 3],
    bytes: &'a [u8],
    /// The headers of the first scan.
    headers: ParsedHeaders<'a>,
    scale: Scale,
    pixels: &'a mut Vec<u8>,
}

impl NullaryFnOnce for DecodeCall<'_> {
    type Output = Result<(u32, u32), Error>;

    #[inline(always)]
    fn call(self) -> Self::Output {
        let Self { tables, planes, bytes, headers, scale, pixels } = self;
        let JpegHeader { width, height, colour_space, .. } = headers.header;
        let (width, height) = (scale.apply(width), scale.apply(height));
        let grid = McuGrid::new(&headers.header, headers.components(), scale);
        let planes = &mut planes[..headers.components().len()];
        for (plane, component) in planes.iter_mut().zip(headers.components()) {
            plane.prepare(component, headers.quantization_steps(component)?, &grid)?;
            set_huffman_tables(tables, &headers, component)?;
        }
        let stride = colour_space.channels() * width as usize;
        reserve_pixels(pixels, stride * height as usize);
        let mut scan = ScanDecoder::new(bytes, &headers);
        for mcu_row in 0..grid.row_count {
            scan.decode_row(tables, planes, grid.column_count)?;
            // The last pixel row of a row of MCUs needs samples of the next row of MCUs. It is written after
            // the next row of MCUs is decoded.
            let ready_row_count = if mcu_row + 1 == grid.row_count {
                height as usize
            } else {
                (mcu_row + 1) * grid.picture_rows_per_mcu_row() - 1
            };
            let first_row = pixels.len() / stride;
            pixels.resize(ready_row_count * stride, 0);
            let new_rows = pixels[first_row * stride..].chunks_exact_mut(stride);
            for (row, row_pixels) in (first_row..).zip(new_rows) {
                write_row(planes, row, mcu_row, colour_space, row_pixels);
            }
            planes.iter_mut().for_each(Plane::advance);
        }
        scan.check_end()?;
        Ok((width, height))
    }
}

/// Decodes a file with several scans: first the samples of all components, then the pixels.
///
/// A type of its own, so that the code for files with one scan is compiled separately.
struct DecodeSeveralScansCall<'a>(DecodeCall<'a>);

impl NullaryFnOnce for DecodeSeveralScansCall<'_> {
    type Output = Result<(u32, u32), Error>;

    #[inline(always)]
    fn call(self) -> Self::Output {
        let DecodeCall { tables, planes, bytes, mut headers, scale, pixels } = self.0;
        let JpegHeader { width, height, colour_space, .. } = headers.header;
        let (width, height) = (scale.apply(width), scale.apply(height));
        let grid = McuGrid::new(&headers.header, headers.components(), scale);
        // A component has at most one scan, so there are at most three scans.
        loop {
            for (index, component) in headers.scan_components() {
                planes[index].prepare_whole(component, headers.quantization_steps(component)?, &grid)?;
                set_huffman_tables(tables, &headers, component)?;
            }
            let (column_count, row_count) = match headers.only_scan_component() {
                Some(component) => grid.block_counts(component),
                None => (grid.column_count, grid.row_count),
            };
            let mut scan = ScanDecoder::new(bytes, &headers);
            for mcu_row in 0..row_count {
                for (index, component) in headers.scan_components() {
                    let (_, blocks_down) = headers.blocks_per_mcu(component);
                    planes[index].begin_at_block_row(mcu_row * blocks_down);
                }
                scan.decode_row(tables, planes, column_count)?;
            }
            if headers.is_last_scan() {
                scan.check_end()?;
                break;
            }
            headers.read_next_scan(bytes, scan.end()?)?;
        }
        let stride = colour_space.channels() * width as usize;
        reserve_pixels(pixels, stride * height as usize);
        pixels.resize(stride * height as usize, 0);
        let planes = &mut planes[..headers.components().len()];
        for (row, row_pixels) in pixels.chunks_exact_mut(stride).enumerate() {
            write_row(planes, row, 0, colour_space, row_pixels);
        }
        Ok((width, height))
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

/// Prepares the Huffman tables of `component`.
fn set_huffman_tables(
    tables: &mut HuffmanTables,
    headers: &ParsedHeaders,
    component: &Component,
) -> Result<(), Error> {
    // The table indices of a corrupt file may be out of range. In that case, `dc_table` or `ac_table` returns
    // an error before the index is used on `tables`.
    let dc_table = headers.dc_table(component)?;
    tables.dc[component.dc_table_index].set(dc_table)?;
    let ac_table = headers.ac_table(component)?;
    tables.ac[component.ac_table_index].set(ac_table)
}

/// Writes row `row` of the picture to `row_pixels`.
///
/// `mcu_row` is the row of MCUs whose samples the planes hold. `row` must lie in this row of MCUs, or be the
/// last row of the picture that lies in the row of MCUs before it. If the planes hold the whole picture,
/// `mcu_row` is 0 and `row` can be any row.
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
                ColourSpace::Rgb => colour::interleave_rgb_row(first, second, third, row_pixels),
                // `Grey` is only here to complete the match: a grey file has one plane.
                ColourSpace::YCbCr | ColourSpace::Grey => {
                    colour::convert_ycbcr_row(first, second, third, row_pixels)
                }
            }
        }
        [only, ..] => row_pixels.copy_from_slice(&only.picture_row(row, mcu_row)[..row_pixels.len()]),
        [] => {}
    }
}

#[cfg(test)]
mod tests {
    use pulp::NullaryFnOnce;

    use super::{DecodeCall, Decoder};
    use crate::{Scale, header::ParsedHeaders};

    /// Returns the address and the capacity of each of the decoder's buffers.
    fn buffer_locations(decoder: &Decoder) -> Vec<(*const u8, usize)> {
        let planes = decoder.planes.iter().flat_map(|plane| plane.buffers());
        planes.chain([&decoder.pixels]).map(|buffer| (buffer.as_ptr(), buffer.capacity())).collect()
    }

    #[test]
    fn a_second_picture_of_the_same_size_reuses_the_memory() {
        let file = include_bytes!("../tests/reference/420.jpg");
        for scale in Scale::ALL {
            let mut decoder = Decoder::default();
            decoder.decode(file, scale).unwrap();
            let locations = buffer_locations(&decoder);
            assert!(locations.iter().all(|&(_, capacity)| capacity > 0));
            decoder.decode(file, scale).unwrap();
            assert_eq!(buffer_locations(&decoder), locations);
        }
    }

    #[test]
    fn samples_of_a_file_with_several_scans_are_freed() {
        let file = include_bytes!("../tests/reference/420-scans.jpg");
        let mut decoder = Decoder::default();
        decoder.decode(file, Scale::Full).unwrap();
        assert!(decoder.planes.iter().all(|plane| plane.buffers()[0].capacity() == 0));
        decoder.decode(&file[..file.len() / 2], Scale::Full).unwrap_err();
        assert!(decoder.planes.iter().all(|plane| plane.buffers()[0].capacity() == 0));
    }

    /// Calling [`NullaryFnOnce::call`] directly, not through `pulp`, uses no optional vector instructions.
    #[test]
    fn pixels_are_equal_with_and_without_optional_vector_instructions() {
        let file = include_bytes!("../tests/reference/420.jpg");
        for scale in Scale::ALL {
            let Decoder { mut tables, mut planes, mut pixels } = Decoder::default();
            let (tables, planes) = (&mut tables, &mut planes);
            let headers = ParsedHeaders::read(file).unwrap();
            let call = DecodeCall { tables, planes, bytes: file, headers, scale, pixels: &mut pixels };
            let size = call.call().unwrap();
            let mut decoder = Decoder::default();
            let picture = decoder.decode(file, scale).unwrap();
            assert_eq!(size, (picture.width, picture.height));
            assert_eq!(pixels, picture.pixels);
        }
    }
}
