//! Decoder for TIFF that uses the `tiff` crate and decodes at full size.
//!
//! The `tiff` crate decompresses the samples, and this module converts them to colours. The crate does not know
//! palettes and grey with alpha, and does not report if the colours are multiplied with the alpha channel. This
//! module therefore reads the directory itself, and changes it so that the crate returns every sample of a pixel
//! without a conversion.

mod layout;

use std::{
    error::Error,
    io::{self, Read, Seek, SeekFrom},
};

use exif_orientation::OrientationSources;
use tiff::{TiffError, decoder::Decoder};

use self::layout::SampleLayout;
use super::{
    Decode, DecodeFailure, DecodeJob, DecodedImage, corrupt, patched_file::PatchedFile, size_mismatch,
};
use crate::image::{
    crop::CropWindow,
    error::ImageError,
    exif,
    header::{
        Coding, ImageHeader, JpegHeader, JpegProcess, TiffHeader,
        tiff::{Directory, JPEG_COMPRESSION, read_jpeg_header, tag},
    },
    scratch::Scratch,
    size::to_usize,
};

/// Maximum number of bytes that the decoder allocates for its tables and for a tile, besides the samples.
const TABLE_BYTES: u64 = 2 << 20;

/// Maximum length in bytes of the tables that all JPEGs of a file share. Real tables have at most 3 KB.
const MAX_JPEG_TABLE_BYTES: usize = 8 << 10;

/// Maximum number of JPEGs in a file. A picture of 64 megapixels in tiles of 64×64 has fewer.
///
/// Each JPEG is joined with the tables. Without a limit, a file of 32 MiB could list four million strips that all refer
/// to the same few bytes.
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
        // The directory of a TIFF has the format of an EXIF block.
        let sources = OrientationSources { exif: Some(job.bytes), xmp: directory.data(tag::XMP) };
        Ok(DecodedImage {
            width,
            height,
            channels: tiff.channels,
            crop: CropWindow::whole(width, height),
            orientation: exif::to_orientation(sources.orientation()),
            icc_profile: icc_profile
                .filter(|profile| profile.len() <= srgb::MAX_PROFILE_BYTES)
                .map(<[u8]>::to_vec),
        })
    }
}

/// Returns the number of channels of a decoded pixel, each of which has one byte.
fn channel_count(tiff: &TiffHeader) -> u64 {
    tiff.channels.count().into()
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
    let ImageHeader { width, height, .. } = *job.header;
    let to_image_error = |error| image_error(job, error);
    let file = BitOrderReader { inner: patched_file(job, directory, layout)?, is_reversed: false };
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

/// Returns the file with changes of its directory.
///
/// The `tiff` crate then returns the samples without a conversion, and reads two kinds of files as libtiff does: those
/// whose directories form a circle, and those that state more depths than samples.
fn patched_file<'a>(
    job: &DecodeJob<'a>,
    directory: &Directory<'_>,
    layout: &SampleLayout,
) -> Result<PatchedFile<'a>, ImageError> {
    /// Length of the tag of an entry in bytes.
    const TAG_BYTES: usize = 2;
    /// Photometric interpretation of grey. The crate converts no sample of such an image.
    const BLACK_IS_ZERO: u16 = 1;
    /// Offset of the next directory, which means that there is none.
    const NO_DIRECTORY: [u8; 4] = [0; 4];
    let photometric = directory
        .find(tag::PHOTOMETRIC)
        .ok_or_else(|| unsupported(job, "the directory does not state the kind of colours"))?;
    let mut file = PatchedFile::new(job.bytes)
        .with_patch(photometric.offset + TAG_BYTES, &directory.encode_short(BLACK_IS_ZERO))
        .with_patch(directory.next_directory_offset(), &NO_DIRECTORY);
    if let Some(depths) = directory.find(tag::BITS_PER_SAMPLE)
        && let Some(depth) = layout.depth_of_surplus_values(directory)
    {
        file = file.with_patch(depths.offset + TAG_BYTES, &directory.encode_short(depth));
    }
    Ok(file)
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
