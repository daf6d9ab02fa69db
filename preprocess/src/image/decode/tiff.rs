//! Decoder for TIFF that uses the `tiff` crate and decodes at full size.
//!
//! The `tiff` crate decompresses the samples, and this module converts them to colours. The crate does not know
//! palettes and grey with alpha, and does not report if the colours are multiplied with the alpha channel. This
//! module therefore reads the directory itself, and changes it so that the crate returns every sample of a pixel
//! without a conversion.

use std::{
    error::Error,
    io::{self, Read, Seek, SeekFrom},
};

use tiff::{ColorType, TiffError, decoder::Decoder};

use super::{
    Decode, DecodeFailure, DecodeJob, DecodedImage, corrupt, opaque, patched_file::PatchedFile, size_mismatch,
};
use crate::image::{
    crop::CropWindow,
    error::ImageError,
    exif,
    header::{
        Coding, ImageHeader, JpegHeader, JpegProcess, TiffHeader,
        tiff::{Directory, JPEG_COMPRESSION, read_jpeg_header, tag},
    },
    metadata::MAX_ICC_PROFILE_BYTES,
    scratch::Scratch,
    size::to_usize,
};

/// Maximum number of bytes that the decoder allocates for its tables and for a tile, besides the samples.
const TABLE_BYTES: u64 = 2 << 20;

/// Maximum number of bytes of a tile in a plane. The tiles of real files are smaller.
const MAX_PLANAR_TILE_BYTES: u64 = 1 << 20;

/// Maximum length in bytes of the tables that all JPEGs of a file share. Real tables have at most 3 KB.
const MAX_JPEG_TABLE_BYTES: usize = 8 << 10;

/// Maximum number of JPEGs in a file. A picture of 50 megapixels in tiles of 64×64 has fewer.
///
/// Each JPEG is joined with the tables. Without a limit, a file of 20 MB whose strips all refer to the same few bytes
/// would keep a core busy for minutes.
const MAX_JPEGS: usize = 16 << 10;

/// The decoder of the `tiff` crate.
pub(super) struct TiffDecoder;

impl Decode for TiffDecoder {
    fn name(&self) -> &'static str {
        "tiff"
    }

    fn accepts(&self, _: &ImageHeader) -> bool {
        true
    }

    /// Counts the samples as stored, a row of samples with 8 bits, tables, and the larger one of two numbers: the
    /// bytes for a JPEG, which are free when all samples are decoded, and the pixels, which are allocated then.
    fn max_bytes(&self, header: &ImageHeader, _: (u32, u32)) -> u64 {
        let Coding::Tiff(tiff) = header.coding else { return u64::MAX };
        let samples_per_row = u64::from(header.width).saturating_mul(tiff.samples_per_pixel.into());
        // The rows of separate planes are rounded up to whole bytes separately.
        let stored_row_bytes = samples_per_row
            .saturating_mul(tiff.bits_per_sample.into())
            .div_ceil(8)
            .saturating_add(tiff.samples_per_pixel.into());
        stored_row_bytes
            .saturating_mul(header.height.into())
            .saturating_add(header.pixel_count().saturating_mul(channel_count(&tiff)).max(tiff.jpeg_bytes))
            .saturating_add(samples_per_row)
            .saturating_add(TABLE_BYTES + tiff.entry_value_bytes)
    }

    fn decode(&self, job: &DecodeJob<'_>, scratch: &mut Scratch) -> Result<DecodedImage, DecodeFailure> {
        let ImageHeader { width, height, .. } = *job.header;
        let Coding::Tiff(tiff) = job.header.coding else {
            return Err(corrupt(job, "the file is not a TIFF").into());
        };
        let directory =
            Directory::read(job.bytes).ok_or_else(|| corrupt(job, "the directory is incomplete"))?;
        let tile_size = directory.chunk_size((width, height));
        let layout =
            SampleLayout::read(&directory, &tiff, tile_size).map_err(|reason| unsupported(job, reason))?;
        if directory.value(tag::COMPRESSION) == Some(JPEG_COMPRESSION) {
            check_jpegs(job, &directory, &layout)?;
        }
        let samples = read_samples(job, &directory, &layout)?;
        let pixels = scratch.zeroed_pixels(to_usize(job.header.pixel_count() * channel_count(&tiff)));
        layout.convert(&samples, to_usize(width.into()), pixels);
        let icc_profile = directory.data(tag::ICC_PROFILE);
        Ok(DecodedImage {
            width,
            height,
            is_grey: !tiff.has_colour,
            crop: CropWindow::whole(width, height),
            // The directory of a TIFF has the format of an EXIF block.
            orientation: exif::read_orientation(Some(job.bytes)),
            icc_profile: icc_profile
                .filter(|profile| profile.len() <= MAX_ICC_PROFILE_BYTES)
                .map(<[u8]>::to_vec),
        })
    }
}

/// Returns the number of channels of a decoded pixel, each of which has one byte.
fn channel_count(tiff: &TiffHeader) -> u64 {
    if tiff.has_colour { 3 } else { 1 }
}

fn unsupported(job: &DecodeJob<'_>, source: impl Into<Box<dyn Error + Send + Sync>>) -> ImageError {
    ImageError::UnsupportedFeature { format: job.header.format(), source: source.into() }
}

fn image_error(job: &DecodeJob<'_>, error: TiffError) -> ImageError {
    match error {
        TiffError::LimitsExceeded => ImageError::DecoderExceedsEstimate,
        TiffError::UnsupportedError(_) => unsupported(job, error),
        error => corrupt(job, error),
    }
}

/// Reads all samples as stored, in native byte order and without rows of padding.
fn read_samples(
    job: &DecodeJob<'_>,
    directory: &Directory<'_>,
    layout: &SampleLayout,
) -> Result<Vec<u8>, ImageError> {
    /// Length of the tag of an entry in bytes.
    const TAG_BYTES: usize = 2;
    /// Photometric interpretation of grey. The crate converts no sample of such an image.
    const BLACK_IS_ZERO: u16 = 1;
    let ImageHeader { width, height, .. } = *job.header;
    let to_image_error = |error| image_error(job, error);
    let photometric = directory
        .find(tag::PHOTOMETRIC)
        .ok_or_else(|| unsupported(job, "the directory does not state the kind of colours"))?;
    let file = BitOrderReader {
        inner: PatchedFile::new(
            job.bytes,
            photometric.offset + TAG_BYTES,
            directory.encode_short(BLACK_IS_ZERO),
        ),
        is_reversed: false,
    };
    let mut limits = tiff::decoder::Limits::default();
    // This limits the stated length of a strip or tile, which is wrong in some files. The only buffer of this
    // length is the one for a JPEG, and `check_jpegs` limits it.
    limits.intermediate_buffer_size = usize::MAX;
    let mut decoder = Decoder::new(file).map_err(to_image_error)?.with_limits(limits);
    let size = decoder.dimensions().map_err(to_image_error)?;
    let colours = decoder.colortype().map_err(to_image_error)?;
    let stored_bytes = to_usize(layout.stored_bytes(width, height));
    let decoded_bytes = decoder.image_buffer_layout().map_err(to_image_error)?.complete_len;
    if size != (width, height) {
        return Err(size_mismatch(job));
    }
    if colours != layout.sample_type() || decoded_bytes != stored_bytes {
        return Err(corrupt(job, "the directory contradicts itself"));
    }
    decoder.inner().is_reversed = layout.has_reversed_bits;
    let mut samples = vec![0; stored_bytes];
    if layout.is_planar && directory.is_tiled() {
        let tile_size = directory.chunk_size(size);
        read_planar_tiles(&mut decoder, layout, size, tile_size, &mut samples).map_err(to_image_error)?;
    } else {
        decoder.read_image_bytes(&mut samples).map_err(to_image_error)?;
    }
    Ok(samples)
}

/// Reads the tiles of all planes.
///
/// The function of the `tiff` crate for a whole image does not cut off the last row of tiles in the planes after
/// the first one, and panics.
fn read_planar_tiles<R: Read + Seek>(
    decoder: &mut Decoder<R>,
    layout: &SampleLayout,
    image_size: (u32, u32),
    tile_size: (u32, u32),
    samples: &mut [u8],
) -> Result<(), TiffError> {
    let [width, height, tile_width, tile_height] =
        [image_size.0, image_size.1, tile_size.0, tile_size.1].map(|side| to_usize(side.into()));
    let row_bytes = |width: usize| to_usize(layout.row_bytes(width as u64));
    let plane_bytes = row_bytes(width) * height;
    let (mut tile, mut tile_index) = (Vec::new(), 0);
    for plane in samples.chunks_exact_mut(plane_bytes) {
        for rows in plane.chunks_mut(row_bytes(width) * tile_height) {
            for left in (0..width).step_by(tile_width) {
                let (read_width, read_height) = decoder.chunk_data_dimensions(tile_index);
                let read_row_bytes = row_bytes(to_usize(read_width.into()));
                tile.resize(read_row_bytes * to_usize(read_height.into()), 0);
                decoder.read_chunk_bytes(tile_index, &mut tile)?;
                let start = row_bytes(left);
                for (row, tile_row) in
                    rows.chunks_exact_mut(row_bytes(width)).zip(tile.chunks_exact(read_row_bytes))
                {
                    for (to, from) in row.iter_mut().skip(start).zip(tile_row) {
                        *to = *from;
                    }
                }
                tile_index += 1;
            }
        }
    }
    Ok(())
}

/// Reads a file and can reverse the order of the bits in each byte.
struct BitOrderReader<R> {
    inner: R,
    is_reversed: bool,
}

impl<R: Read> Read for BitOrderReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer)?;
        if self.is_reversed {
            for byte in buffer.iter_mut().take(length) {
                *byte = byte.reverse_bits();
            }
        }
        Ok(length)
    }
}

impl<R: Seek> Seek for BitOrderReader<R> {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        self.inner.seek(position)
    }
}

/// Checks the headers of the JPEGs in the strips or tiles.
///
/// The `tiff` crate allocates memory for the size that a JPEG states, and does not compare this size with the
/// size of the strip or tile.
fn check_jpegs(
    job: &DecodeJob<'_>,
    directory: &Directory<'_>,
    layout: &SampleLayout,
) -> Result<(), ImageError> {
    /// Length of the markers at the start and at the end of a JPEG, which are left out where the tables are
    /// joined with the rest.
    const MARKER_BYTES: usize = 2;
    if directory.chunks().count() > MAX_JPEGS {
        return Err(unsupported(job, "the file consists of too many JPEGs"));
    }
    let tables = directory.data(tag::JPEG_TABLES);
    let (chunk_width, max_height) = directory.chunk_size((job.header.width, job.header.height));
    let total_bytes: u64 = directory.chunks().map(|(_, length)| u64::from(length)).sum();
    if total_bytes > job.bytes.len() as u64
        || tables.is_some_and(|tables| tables.len() > MAX_JPEG_TABLE_BYTES)
    {
        return Err(corrupt(job, "the strips or the tables are too long"));
    }
    for (offset, length) in directory.chunks() {
        let offset = to_usize(offset.into());
        let chunk = job.bytes.get(offset..offset.saturating_add(to_usize(length.into()))).unwrap_or_default();
        let jpeg = match tables {
            Some(tables) => [
                tables.get(..tables.len().saturating_sub(MARKER_BYTES)).unwrap_or_default(),
                chunk.get(MARKER_BYTES..).unwrap_or_default(),
            ]
            .concat(),
            None => chunk.to_vec(),
        };
        let Some(ImageHeader { width, height, coding: Coding::Jpeg(header) }) = read_jpeg_header(&jpeg)
        else {
            return Err(corrupt(job, "a strip is no JPEG"));
        };
        let JpegHeader { process, scan_count, component_count, is_complete, .. } = header;
        // zune-jpeg decodes two components, which are grey with alpha, to wrong samples.
        if process != JpegProcess::Baseline || scan_count > 1 || component_count == 2 {
            return Err(unsupported(job, "a strip is a JPEG with several scans or of a rare kind"));
        }
        if width != chunk_width
            || height > max_height
            || usize::from(component_count) != layout.samples_per_texel()
            || !is_complete
        {
            return Err(corrupt(job, "a strip is a JPEG of another size, or is incomplete"));
        }
    }
    Ok(())
}

/// Position and meaning of the samples of an image.
struct SampleLayout {
    colours: Colours,
    alpha: Alpha,
    depth: Depth,
    samples_per_pixel: usize,
    /// True if each sample of all pixels is stored in a plane of its own.
    is_planar: bool,
    /// True if the first pixel of a byte is in its lowest bit.
    has_reversed_bits: bool,
}

/// Meaning of the first samples of a pixel.
enum Colours {
    Grey { is_inverted: bool },
    Palette(Vec<[u8; 3]>),
    Rgb,
    Cmyk,
    YCbCr,
}

/// Meaning of the sample after the colours.
#[derive(Clone, Copy)]
enum Alpha {
    /// There is no such sample, or it has another meaning.
    Opaque,
    /// The colours are independent of the alpha channel.
    Separate,
    /// The colours are multiplied with the alpha channel.
    Premultiplied,
}

/// Type of the samples.
#[derive(Clone, Copy)]
enum Depth {
    /// Unsigned integers of 1, 2, 4 or 8 bits.
    Packed(u8),
    Bits16,
    Bits32,
    /// Floats from 0 to 1.
    Float32,
}

impl Depth {
    fn bits(self) -> u8 {
        match self {
            Self::Packed(bits) => bits,
            Self::Bits16 => 16,
            Self::Bits32 | Self::Float32 => 32,
        }
    }
}

impl Colours {
    /// Returns the number of samples per pixel.
    fn sample_count(&self) -> usize {
        match self {
            Self::Grey { .. } | Self::Palette(_) => 1,
            Self::Rgb | Self::YCbCr => 3,
            Self::Cmyk => 4,
        }
    }
}

/// Converts the amounts of four inks, of which 0 means none, without a profile.
fn cmyk_to_rgb([cyan, magenta, yellow, black]: [u8; 4]) -> [u8; 3] {
    [cyan, magenta, yellow].map(|ink| {
        let light = u32::from(u8::MAX - ink) * u32::from(u8::MAX - black);
        u8::try_from((light + 127) / 255).unwrap_or(u8::MAX)
    })
}

/// Converts a colour with the coefficients of JFIF, which are also the default of TIFF.
fn ycbcr_to_rgb([luma, blue, red]: [u8; 3]) -> [u8; 3] {
    // The coefficients are multiplied with 65,536.
    let (blue, red) = (i32::from(blue) - 128, i32::from(red) - 128);
    [91_881 * red, -22_554 * blue - 46_802 * red, 116_130 * blue].map(|difference| {
        let level = i32::from(luma) + ((difference + (1 << 15)) >> 16);
        u8::try_from(level.clamp(0, 255)).unwrap_or_default()
    })
}

impl SampleLayout {
    /// Reads the layout from the directory of an image.
    ///
    /// # Errors
    /// Returns the reason why the image is not supported.
    fn read(
        directory: &Directory<'_>,
        tiff: &TiffHeader,
        tile_size: (u32, u32),
    ) -> Result<Self, &'static str> {
        let is_jpeg = directory.value(tag::COMPRESSION) == Some(JPEG_COMPRESSION);
        let samples_per_pixel = to_usize(tiff.samples_per_pixel.into());
        // The values of these entries are defined in TIFF 6.0.
        let is_planar = samples_per_pixel > 1 && directory.value(tag::PLANAR_CONFIGURATION) == Some(2);
        let (unsigned_or_unknown, float) = ([1, 4], 3);
        let format = directory.value(tag::SAMPLE_FORMAT).unwrap_or(1);
        let depth = match tiff.bits_per_sample {
            bits @ (1 | 2 | 4 | 8) if unsigned_or_unknown.contains(&format) => {
                Depth::Packed(u8::try_from(bits).unwrap_or_default())
            }
            16 if unsigned_or_unknown.contains(&format) => Depth::Bits16,
            32 if unsigned_or_unknown.contains(&format) => Depth::Bits32,
            32 if format == float => Depth::Float32,
            _ => return Err("the samples have a rare type"),
        };
        let colours = match directory.value(tag::PHOTOMETRIC) {
            Some(0) => Colours::Grey { is_inverted: true },
            Some(1) => Colours::Grey { is_inverted: false },
            Some(2) => Colours::Rgb,
            Some(3) => Colours::Palette(read_palette(directory, tiff.bits_per_sample)?),
            Some(5) => Colours::Cmyk,
            Some(6) => Colours::YCbCr,
            _ => return Err("the colours are of a rare kind"),
        };
        if samples_per_pixel < colours.sample_count() {
            return Err("the pixels have fewer samples than their colours need");
        }
        let has_alpha = samples_per_pixel > colours.sample_count();
        let alpha = match directory.value(tag::EXTRA_SAMPLES) {
            Some(1) if has_alpha => Alpha::Premultiplied,
            Some(2) if has_alpha => Alpha::Separate,
            // Some programs write RGBA without this entry.
            None if matches!(colours, Colours::Rgb) && samples_per_pixel == 4 => Alpha::Separate,
            _ => Alpha::Opaque,
        };
        match (&colours, alpha) {
            (Colours::Palette(_) | Colours::Cmyk | Colours::YCbCr, Alpha::Premultiplied) => {
                return Err("only grey and RGB can be multiplied with alpha");
            }
            (Colours::YCbCr, _) if is_planar => return Err("YCbCr is stored in planes"),
            // The default are components of half the width and height, which only a JPEG decoder enlarges.
            (Colours::YCbCr, _) if !is_jpeg && !directory.values(tag::CHROMA_SUBSAMPLING).eq([1, 1]) => {
                return Err("the chroma has a lower resolution");
            }
            _ => {}
        }
        let needs_8_bits = is_jpeg || matches!(colours, Colours::YCbCr);
        match depth {
            _ if needs_8_bits && depth.bits() != 8 => return Err("the samples have a rare type"),
            // The largest value of grey images with 32 bits, which are usually measurements, is unknown.
            Depth::Bits32 | Depth::Float32 if !matches!(colours, Colours::Rgb) => {
                return Err("only RGB may have 32 bits per sample");
            }
            _ => {}
        }
        let tile_row_bits = u64::from(tile_size.0) * u64::from(depth.bits());
        let tile_bytes = (tile_row_bits / 8).saturating_mul(tile_size.1.into());
        let has_usable_tiles =
            tile_row_bits.is_multiple_of(8) && (1..=MAX_PLANAR_TILE_BYTES).contains(&tile_bytes);
        if is_planar && directory.is_tiled() && !has_usable_tiles {
            return Err("the tiles of planes are too large or have rows of partial bytes");
        }
        Ok(Self {
            colours,
            alpha,
            depth,
            samples_per_pixel,
            is_planar,
            // The order does not apply to the bytes of a JPEG.
            has_reversed_bits: !is_jpeg && directory.value(tag::FILL_ORDER) == Some(2),
        })
    }

    /// Returns the number of samples of a pixel that are stored together.
    fn samples_per_texel(&self) -> usize {
        if self.is_planar { 1 } else { self.samples_per_pixel }
    }

    /// Returns the number of bytes of a row, or of a row in one plane.
    fn row_bytes(&self, width: u64) -> u64 {
        (width * self.samples_per_texel() as u64).saturating_mul(self.depth.bits().into()).div_ceil(8)
    }

    /// Returns the number of bytes of all samples.
    fn stored_bytes(&self, width: u32, height: u32) -> u64 {
        let plane_count = self.samples_per_pixel / self.samples_per_texel().max(1);
        self.row_bytes(width.into()).saturating_mul(height.into()).saturating_mul(plane_count as u64)
    }

    /// Returns the type under which the `tiff` crate reads the samples.
    fn sample_type(&self) -> ColorType {
        let bit_depth = self.depth.bits();
        match u16::try_from(self.samples_per_pixel).unwrap_or(u16::MAX) {
            1 => ColorType::Gray(bit_depth),
            num_samples => ColorType::Multiband { bit_depth, num_samples },
        }
    }

    /// Converts all samples to opaque grey or RGB pixels.
    fn convert(&self, samples: &[u8], width: usize, pixels: &mut [u8]) {
        let row_bytes = to_usize(self.row_bytes(width as u64)).max(1);
        let row_count = samples.len() / row_bytes;
        let rows_per_plane = if self.is_planar { row_count / self.samples_per_pixel } else { row_count };
        let channel_count = if matches!(self.colours, Colours::Grey { .. }) { 1 } else { 3 };
        let mut levels = vec![0; width * self.samples_per_pixel];
        for (y, output) in pixels.chunks_exact_mut(width * channel_count).enumerate() {
            // The row in each plane.
            let mut rows = samples.chunks_exact(row_bytes).skip(y).step_by(rows_per_plane.max(1));
            if self.is_planar {
                for (plane, row) in rows.enumerate() {
                    self.convert_to_8_bits(
                        row,
                        levels.iter_mut().skip(plane).step_by(self.samples_per_pixel),
                    );
                }
                self.write_row(&levels, output);
            } else if let Some(row) = rows.next() {
                if matches!(self.depth, Depth::Packed(8)) {
                    self.write_row(row, output);
                } else {
                    self.convert_to_8_bits(row, levels.iter_mut());
                    self.write_row(&levels, output);
                }
            }
        }
    }

    /// Converts a row of samples with 8 bits to opaque pixels.
    fn write_row(&self, levels: &[u8], output: &mut [u8]) {
        let needs_no_change = matches!(self.alpha, Alpha::Opaque) && levels.len() == output.len();
        match &self.colours {
            Colours::Grey { is_inverted: false } | Colours::Rgb if needs_no_change => {
                output.copy_from_slice(levels);
            }
            Colours::Grey { is_inverted: false } => self.write_pixels(levels, output, |grey: [u8; 1]| grey),
            Colours::Grey { is_inverted: true } => {
                self.write_pixels(levels, output, |[grey]| [u8::MAX - grey]);
            }
            Colours::Palette(palette) => self.write_pixels(levels, output, |[index]| {
                palette.get(usize::from(index)).copied().unwrap_or_default()
            }),
            Colours::Rgb => self.write_pixels(levels, output, |rgb: [u8; 3]| rgb),
            Colours::Cmyk => self.write_pixels(levels, output, cmyk_to_rgb),
            Colours::YCbCr => self.write_pixels(levels, output, ycbcr_to_rgb),
        }
    }

    /// Converts `levels` to pixels with `convert`, and blends them with white.
    fn write_pixels<const SAMPLES: usize, const CHANNELS: usize>(
        &self,
        levels: &[u8],
        output: &mut [u8],
        convert: impl Fn([u8; SAMPLES]) -> [u8; CHANNELS],
    ) {
        let pixels = levels.chunks_exact(self.samples_per_pixel);
        for (pixel, output) in pixels.zip(output.as_chunks_mut().0) {
            let Some((&colours, rest)) = pixel.split_first_chunk() else { continue };
            let (colours, alpha) = (convert(colours), rest.first().copied().unwrap_or(u8::MAX));
            *output = match self.alpha {
                Alpha::Opaque => colours,
                Alpha::Separate => colours.map(|colour| opaque::blend_with_white(colour, alpha)),
                Alpha::Premultiplied => {
                    colours.map(|colour| opaque::blend_premultiplied_with_white(colour, alpha))
                }
            };
        }
    }

    /// Converts a row of samples to `levels` of 8 bits. Indices of a palette keep their values.
    fn convert_to_8_bits<'a>(&self, samples: &[u8], levels: impl Iterator<Item = &'a mut u8>) {
        match self.depth {
            Depth::Packed(bits) => {
                let factor = match self.colours {
                    Colours::Palette(_) => 1,
                    _ => u8::MAX / (u8::MAX >> (8 - bits)),
                };
                let samples = samples
                    .iter()
                    .flat_map(|&byte| (0..8 / bits).map(move |index| byte << (index * bits) >> (8 - bits)));
                for (level, sample) in levels.zip(samples) {
                    *level = sample * factor;
                }
            }
            Depth::Bits16 => {
                for (level, &sample) in levels.zip(samples.as_chunks().0) {
                    *level = round_u16(u16::from_ne_bytes(sample));
                }
            }
            Depth::Bits32 => {
                for (level, &sample) in levels.zip(samples.as_chunks().0) {
                    *level = round_u32(u32::from_ne_bytes(sample));
                }
            }
            Depth::Float32 => {
                for (level, &sample) in levels.zip(samples.as_chunks().0) {
                    *level = round_f32(f32::from_ne_bytes(sample));
                }
            }
        }
    }
}

/// Reads the colours of a palette: the red levels of all colours, then the green ones, then the blue ones.
fn read_palette(directory: &Directory<'_>, bits_per_sample: u32) -> Result<Vec<[u8; 3]>, &'static str> {
    if bits_per_sample > 8 {
        return Err("the palette has more than 256 colours");
    }
    let colour_count = 1 << bits_per_sample;
    let levels: Vec<u32> = directory.values(tag::COLOUR_MAP).take(3 * colour_count).collect();
    if levels.len() < 3 * colour_count {
        return Err("the palette is incomplete");
    }
    // The levels have 16 bits. Some programs write levels of 8 bits.
    let shift = if levels.iter().all(|&level| level <= 255) { 0 } else { 8 };
    let level = |index: usize| {
        levels.get(index).and_then(|&level| u8::try_from(level >> shift).ok()).unwrap_or(u8::MAX)
    };
    let colours = (0..colour_count)
        .map(|index| [index, colour_count + index, 2 * colour_count + index].map(level))
        .collect();
    Ok(colours)
}

fn round_u16(sample: u16) -> u8 {
    // The largest sample is 65,535 = 257 · 255. Adding 128 rounds to the nearest level.
    u8::try_from((u32::from(sample) + 128) / 257).unwrap_or(u8::MAX)
}

fn round_u32(sample: u32) -> u8 {
    // The largest sample is 0x01010101 · 255.
    const SAMPLES_PER_LEVEL: u64 = 0x0101_0101;
    u8::try_from((u64::from(sample) + SAMPLES_PER_LEVEL / 2) / SAMPLES_PER_LEVEL).unwrap_or(u8::MAX)
}

/// Converts a float from 0 to 1.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the value is from 0 to 255")]
fn round_f32(sample: f32) -> u8 {
    (sample.clamp(0.0, 1.0) * 255.0).round() as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_of_16_and_32_bits_are_rounded_to_8_bits() {
        assert_eq!([0, 128, 129, 257, 65_535].map(round_u16), [0, 0, 1, 1, 255]);
        assert_eq!([0, 0x0080_8080, 0x0080_8081, 0x0101_0101, u32::MAX].map(round_u32), [0, 0, 1, 1, 255]);
        assert_eq!([-1.0, 0.5, 1.0, f32::NAN, 7.0].map(round_f32), [0, 128, 255, 0, 255]);
    }

    #[test]
    fn ycbcr_is_converted_with_the_coefficients_of_jfif() {
        assert_eq!(
            [[0, 128, 128], [255, 128, 128], [100, 128, 128]].map(ycbcr_to_rgb),
            [[0; 3], [255; 3], [100; 3]]
        );
        assert_eq!(
            [[76, 85, 255], [150, 44, 21], [29, 255, 107]].map(ycbcr_to_rgb),
            [[254, 0, 0], [0, 255, 1], [0, 0, 254]]
        );
    }
}
