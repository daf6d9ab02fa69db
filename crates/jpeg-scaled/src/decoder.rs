//! Decodes a file to pixels.

use pulp::{Arch, NullaryFnOnce};

use crate::{
    Error, Scale,
    coefficients::CoefficientRows,
    header::{MAX_COMPONENTS, ParsedHeaders, check_no_further_scan},
    huffman::HuffmanTables,
    picture_writer::{PictureWriter, PixelBuffer},
    plane::{McuGrid, Plane},
    scan::ScanDecoder,
};

/// Maximum number of scans of a file, unless [`Decoder::set_max_scans`] changes it. Files have about ten.
const DEFAULT_MAX_SCANS: usize = 100;

/// A decoder that keeps its memory from one picture to the next.
///
/// The memory holds the pixels and one row of MCUs of a picture. It grows to the size that the largest
/// picture so far needed.
pub struct Decoder {
    tables: HuffmanTables,
    planes: [Plane; MAX_COMPONENTS],
    coefficients: [CoefficientRows; MAX_COMPONENTS],
    pixels: Vec<u8>,
    max_scans: usize,
}

impl Default for Decoder {
    fn default() -> Self {
        Self {
            tables: HuffmanTables::default(),
            planes: [Plane::EMPTY; MAX_COMPONENTS],
            coefficients: Default::default(),
            pixels: Vec::new(),
            max_scans: DEFAULT_MAX_SCANS,
        }
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
    /// A pixel is three bytes, red, green and blue. If the [`ColourSpace`] of the file is grey, a pixel is one
    /// byte. If it is CMYK or YCCK, a pixel is four bytes, the samples of the file.
    ///
    /// [`ColourSpace`]: crate::ColourSpace
    pub pixels: &'a [u8],
}

impl Decoder {
    /// Sets the maximum number of scans of a file. The default is 100.
    ///
    /// Every scan takes time and needs up to 50 KB of memory for its tables.
    pub fn set_max_scans(&mut self, max_scans: usize) {
        self.max_scans = max_scans;
    }

    /// Returns the number of bytes that the decoder keeps for the next picture, besides its own size.
    pub fn allocated_bytes(&self) -> usize {
        self.tables.allocated_bytes()
            + self.planes.iter().map(Plane::allocated_bytes).sum::<usize>()
            + self.coefficients.iter().map(CoefficientRows::allocated_bytes).sum::<usize>()
            + self.pixels.capacity()
    }

    /// Decodes a file to RGB, to grey, or to the samples of CMYK or YCCK, depending on the file's colour space.
    ///
    /// Allocates memory for the size in the header, even if the file has too little data for that size.
    /// A caller that limits memory should first check the size with [`JpegHeader::read`](crate::JpegHeader::read).
    ///
    /// Bytes after the end marker are ignored. The end marker may be missing if no data is missing, and other
    /// data may be in its place.
    ///
    /// # Errors
    /// Returns an [`Error`] if the file is not supported, is corrupt, ends before its last pixel, or has too
    /// many scans.
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
        pixels.clear();
        self.decode_to(bytes, scale, PixelBuffer::Growing(pixels))
    }

    /// Decodes a file as [`Self::decode`] does, but into `pixels`, which must have the length of the pixels.
    /// Returns the width and height of the picture.
    ///
    /// # Errors
    /// Returns an [`Error`] in the same cases as [`Self::decode`], and [`Error::Corrupt`] if the pixels of the
    /// file have another length. `pixels` then contains a part of the picture.
    pub fn decode_into_slice(
        &mut self,
        bytes: &[u8],
        scale: Scale,
        pixels: &mut [u8],
    ) -> Result<(u32, u32), Error> {
        self.decode_to(bytes, scale, PixelBuffer::Fixed(pixels))
    }

    fn decode_to(&mut self, bytes: &[u8], scale: Scale, pixels: PixelBuffer) -> Result<(u32, u32), Error> {
        let Self { tables, planes, coefficients, max_scans, .. } = self;
        tables.clear();
        let headers = ParsedHeaders::read(bytes)?;
        let call = DecodeCall { tables, planes, bytes, headers, scale, pixels };
        if !call.headers.header.is_progressive && call.headers.is_complete() {
            return Arch::new().dispatch(call);
        }
        Arch::new().dispatch(DecodeSeveralScansCall { call, coefficients, max_scans: *max_scans })
    }
}

/// Decodes a sequential file with one scan, row of MCUs by row of MCUs.
///
/// `pulp` compiles [`NullaryFnOnce::call`] for several sets of vector instructions and runs the version for
/// this CPU. A function that `call` uses is compiled for these vector instructions only if it is inlined into
/// `call`, so every function on the hot path is `#[inline(always)]`.
struct DecodeCall<'a> {
    tables: &'a mut HuffmanTables,
    planes: &'a mut [Plane; MAX_COMPONENTS],
    bytes: &'a [u8],
    /// The headers of the first scan.
    headers: ParsedHeaders<'a>,
    scale: Scale,
    pixels: PixelBuffer<'a>,
}

impl NullaryFnOnce for DecodeCall<'_> {
    type Output = Result<(u32, u32), Error>;

    #[inline(always)]
    fn call(self) -> Self::Output {
        let Self { tables, planes, bytes, headers, scale, pixels } = self;
        let grid = McuGrid::new(&headers.header, headers.components(), scale);
        let planes = &mut planes[..headers.components().len()];
        for (plane, component) in planes.iter_mut().zip(headers.components()) {
            plane.prepare(component, headers.quantization_steps(component)?, &grid)?;
        }
        let mut scan = ScanDecoder::new(bytes, &headers, tables, &grid)?;
        let mut writer = PictureWriter::new(&headers.header, scale, &grid, pixels)?;
        for mcu_row in 0..grid.row_count {
            scan.decode_row(tables, planes)?;
            writer.write_mcu_row(planes, mcu_row);
        }
        check_no_further_scan(bytes, scan.check_end(true)?)?;
        Ok(writer.size)
    }
}

/// Decodes a file that is progressive or has several scans, row of MCUs by row of MCUs.
///
/// Every scan has a decoder of its own. For each row of MCUs, each of these decoders decodes its part of the
/// row, so that only one row of coefficients is in memory.
///
/// A type of its own, so that the code for files with one scan is compiled separately.
struct DecodeSeveralScansCall<'a> {
    call: DecodeCall<'a>,
    coefficients: &'a mut [CoefficientRows; MAX_COMPONENTS],
    max_scans: usize,
}

impl NullaryFnOnce for DecodeSeveralScansCall<'_> {
    type Output = Result<(u32, u32), Error>;

    #[inline(always)]
    fn call(self) -> Self::Output {
        let Self { call, coefficients, max_scans } = self;
        let DecodeCall { tables, planes, bytes, mut headers, scale, pixels } = call;
        let component_count = headers.components().len();
        let (planes, coefficients) = (&mut planes[..component_count], &mut coefficients[..component_count]);
        let grid = McuGrid::new(&headers.header, headers.components(), scale);
        let mut is_prepared = [false; MAX_COMPONENTS];
        let mut scans = Vec::new();
        loop {
            if scans.len() == max_scans {
                return Err(Error::Corrupt("the file has too many scans"));
            }
            for (index, component) in headers.scan_components() {
                // A component keeps the quantisation table that precedes its first scan.
                if !std::mem::replace(&mut is_prepared[index], true) {
                    planes[index].prepare(component, headers.quantization_steps(component)?, &grid)?;
                    if headers.header.is_progressive {
                        coefficients[index].prepare(component, &planes[index]);
                    }
                }
            }
            scans.push(ScanDecoder::new(bytes, &headers, tables, &grid)?);
            if !headers.read_next_scan(bytes)? {
                break;
            }
        }
        let mut writer = PictureWriter::new(&headers.header, scale, &grid, pixels)?;
        for mcu_row in 0..grid.row_count {
            for scan in &mut scans {
                scan.decode_picture_row(tables, planes, coefficients)?;
            }
            if headers.header.is_progressive {
                for (coefficients, plane) in coefficients.iter_mut().zip(&mut *planes) {
                    coefficients.transform(plane);
                }
            }
            writer.write_mcu_row(planes, mcu_row);
        }
        let last_scan = scans.len() - 1;
        for (index, scan) in scans.iter().enumerate() {
            scan.check_end(index == last_scan)?;
        }
        Ok(writer.size)
    }
}

#[cfg(test)]
mod tests {
    use pulp::NullaryFnOnce;

    use super::{DecodeCall, DecodeSeveralScansCall, Decoder};
    use crate::{
        Error, Scale, coefficients::CoefficientRows, header::ParsedHeaders, picture_writer::PixelBuffer,
    };

    const PROGRESSIVE: &[u8] = include_bytes!("../tests/reference/420-progressive.jpg");

    /// Returns the address and the capacity of each of the decoder's buffers.
    fn buffer_locations(decoder: &Decoder) -> Vec<(*const u8, usize)> {
        let planes = decoder.planes.iter().flat_map(|plane| plane.buffers());
        let bytes = planes.chain([&decoder.pixels]).map(|buffer| (buffer.as_ptr(), buffer.capacity()));
        let coefficients = decoder.coefficients.iter().map(CoefficientRows::buffer_location);
        bytes.chain(coefficients).filter(|&(_, capacity)| capacity > 0).collect()
    }

    #[test]
    fn a_second_picture_of_the_same_size_reuses_the_memory() {
        for file in [&include_bytes!("../tests/reference/420.jpg")[..], PROGRESSIVE] {
            for scale in Scale::ALL {
                let mut decoder = Decoder::default();
                decoder.decode(file, scale).unwrap();
                let locations = buffer_locations(&decoder);
                assert!(locations.len() > 3 * 2);
                decoder.decode(file, scale).unwrap();
                assert_eq!(buffer_locations(&decoder), locations);
            }
        }
    }

    #[test]
    fn slice_of_the_right_length_receives_the_same_pixels_and_any_other_is_refused() {
        let mut decoder = Decoder::default();
        let expected = decoder.decode(PROGRESSIVE, Scale::Half).unwrap().pixels.to_vec();
        let mut pixels = vec![1; expected.len()];
        assert_eq!(decoder.decode_into_slice(PROGRESSIVE, Scale::Half, &mut pixels), Ok((23, 19)));
        assert_eq!(pixels, expected);
        for length in [0, expected.len() - 1, expected.len() + 1] {
            let refused = decoder.decode_into_slice(PROGRESSIVE, Scale::Half, &mut vec![0; length]);
            assert!(matches!(refused, Err(Error::Corrupt(_))));
        }
    }

    /// Calling [`NullaryFnOnce::call`] directly, not through `pulp`, uses no optional vector instructions.
    #[test]
    fn pixels_are_equal_with_and_without_optional_vector_instructions() {
        for file in [&include_bytes!("../tests/reference/420.jpg")[..], PROGRESSIVE] {
            for scale in Scale::ALL {
                let Decoder { mut tables, mut planes, mut coefficients, mut pixels, max_scans } =
                    Decoder::default();
                let (tables, planes) = (&mut tables, &mut planes);
                let headers = ParsedHeaders::read(file).unwrap();
                let is_progressive = headers.header.is_progressive;
                let pixel_buffer = PixelBuffer::Growing(&mut pixels);
                let call = DecodeCall { tables, planes, bytes: file, headers, scale, pixels: pixel_buffer };
                let size = if is_progressive {
                    DecodeSeveralScansCall { call, coefficients: &mut coefficients, max_scans }.call()
                } else {
                    call.call()
                };
                let mut decoder = Decoder::default();
                let picture = decoder.decode(file, scale).unwrap();
                assert_eq!(size, Ok((picture.width, picture.height)));
                assert_eq!(pixels, picture.pixels);
            }
        }
    }
}
