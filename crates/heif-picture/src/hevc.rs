//! The HEVC stream of an item: its configuration, its NAL units and the sizes in its parameter sets.

use std::borrow::Cow;

use heifer_hevc_dec::{
    nal::NalUnit,
    params::{ParameterSets, Sps},
    recon::Frame,
};

use crate::{
    boxes::Reader,
    coding::{MAX_CONFIG_BYTES, MAX_SIDE},
    error::Error,
    item_data::{Cursor, ItemData},
    slices::{Slices, begins_picture},
};

/// Maximum number of NAL units of an item. Each takes time. HEVC allows 600 slices in a picture.
const MAX_NAL_UNITS: usize = 2048;

/// Maximum number of sequence parameter sets of an item, and of picture parameter sets. They have as many ids. Parsing
/// a set of a few bytes can take microseconds, and many items can share the same data.
const MAX_SPS: u32 = 16;
const MAX_PPS: u32 = 64;

/// Maximum length in bytes of a parameter set. The largest ones have scaling lists and take 2 KB.
const MAX_PARAMETER_SET_BYTES: usize = 8 << 10;

/// Types of NAL units.
const SPS: u8 = 33;
const PPS: u8 = 34;
const VPS: u8 = 32;

/// The box `hvcC`, which configures the decoder.
#[derive(Clone, Copy)]
pub(crate) struct Config<'a> {
    /// Lengths in bytes of the length in front of each NAL unit of the item.
    length_size: usize,
    /// The parameter sets.
    arrays: &'a [u8],
}

/// The properties of a coded picture according to its parameter sets.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct CodedPicture {
    /// Number of pixels that are coded, which is the maximum of all parameter sets.
    pub(crate) pixels: u64,
    /// Width and height of the pixels that are shown, according to the last parameter set.
    pub(crate) shown_size: (u32, u32),
    pub(crate) is_grey: bool,
    /// True if only a part of the coded pixels is shown. The decoder copies this part.
    pub(crate) is_cropped: bool,
    /// Number of samples per pixel, times two.
    pub(crate) half_samples_per_pixel: u64,
    /// Primaries and transfer function, which are 2 if unspecified.
    pub(crate) colours: Option<(u16, u16)>,
    sps_count: u32,
    pps_count: u32,
}

impl CodedPicture {
    fn add(&mut self, sps: &Sps) -> Result<(), Error> {
        if sps.separate_colour_plane_flag {
            return Err(Error::unsupported("separate colour planes"));
        }
        if sps.pic_width_in_luma_samples.max(sps.pic_height_in_luma_samples) > MAX_SIDE {
            return Err(Error::unsupported(format!("a coded picture with a side above {MAX_SIDE} pixels")));
        }
        let pixels = u64::from(sps.pic_width_in_luma_samples) * u64::from(sps.pic_height_in_luma_samples);
        let half_samples_per_pixel = match sps.chroma_format_idc {
            0 => 2,
            1 => 3,
            2 => 4,
            _ => 6,
        };
        *self = Self {
            pixels: self.pixels.max(pixels),
            shown_size: sps.output_size(),
            is_cropped: self.is_cropped || sps.conf_win_offsets != [0; 4],
            is_grey: sps.chroma_format_idc == 0,
            half_samples_per_pixel: self.half_samples_per_pixel.max(half_samples_per_pixel),
            colours: sps
                .vui
                .as_ref()
                .map(|vui| (vui.colour_primaries.into(), vui.transfer_characteristics.into())),
            ..*self
        };
        Ok(())
    }

    /// Counts a unit if it is a parameter set, before it is parsed.
    fn count_unit(&mut self, kind: u8) -> Result<(), Error> {
        let (count, max_count) = match kind {
            SPS => (&mut self.sps_count, MAX_SPS),
            PPS => (&mut self.pps_count, MAX_PPS),
            _ => return Ok(()),
        };
        *count += 1;
        if *count > max_count {
            return Err(Error::unsupported(format!("more than {max_count} parameter sets of a kind")));
        }
        Ok(())
    }

    fn add_unit(&mut self, unit: &[u8]) -> Result<(), Error> {
        self.add(&Sps::parse(&NalUnit::parse(unit)?.rbsp)?)
    }
}

impl<'a> Config<'a> {
    /// Reads the content of a box `hvcC`.
    pub(crate) fn read(content: &'a [u8]) -> Result<Self, Error> {
        /// Length in bytes of the fields in front of `length_size`.
        const PROFILE_BYTES: usize = 21;
        if content.len() > MAX_CONFIG_BYTES {
            return Err(Error::Corrupt("a configuration is too long"));
        }
        let mut reader = Reader(content);
        reader.bytes(PROFILE_BYTES)?;
        let length_size = usize::from(reader.u8()? & 3) + 1;
        Ok(Self { length_size, arrays: reader.0 })
    }

    /// Calls `visit` with the type and the bytes of each parameter set.
    fn visit_units(&self, mut visit: impl FnMut(u8, &'a [u8]) -> Result<(), Error>) -> Result<(), Error> {
        let mut reader = Reader(self.arrays);
        let mut count = 0;
        for _ in 0..reader.u8()? {
            reader.u8()?;
            for _ in 0..reader.u16()? {
                let length = reader.u16()?;
                let unit = reader.bytes(length.into())?;
                count += 1;
                check_unit_count(count)?;
                if let Some(kind) = unit_kind(unit) {
                    visit(kind, unit)?;
                }
            }
        }
        Ok(())
    }

    /// Reads the sizes in the parameter sets of this configuration.
    pub(crate) fn coded_picture(&self) -> Result<CodedPicture, Error> {
        let mut picture = CodedPicture::default();
        self.visit_units(|kind, unit| {
            picture.count_unit(kind)?;
            if kind == SPS { picture.add_unit(unit) } else { Ok(()) }
        })?;
        Ok(picture)
    }

    /// Adds the sizes in the parameter sets among the data of an item.
    pub(crate) fn add_parameter_sets_in(
        &self,
        data: &ItemData<'_>,
        picture: &mut CodedPicture,
    ) -> Result<(), Error> {
        let mut units = Units { cursor: data.cursor(), length_size: self.length_size, count: 0 };
        while let Some(length) = units.next_length()? {
            let header = units.cursor.bytes(length.min(UNIT_HEADER_BYTES))?;
            let rest = length - header.len();
            let kind = unit_kind(&header);
            kind.map_or(Ok(()), |kind| picture.count_unit(kind))?;
            if kind.is_some_and(is_parameter_set) && length > MAX_PARAMETER_SET_BYTES {
                return Err(Error::Corrupt("a parameter set is too long"));
            }
            if kind == Some(SPS) {
                let unit = [&header, &*units.cursor.bytes(rest)?].concat();
                picture.add_unit(&unit)?;
            } else {
                units.cursor.skip(rest)?;
            }
        }
        Ok(())
    }

    /// Decodes the first picture. `max_pixels` is the number of pixels that its parameter sets state.
    pub(crate) fn decode(&self, data: &ItemData<'_>, max_pixels: u64) -> Result<Frame, Error> {
        let mut sets = ParameterSets::default();
        self.visit_units(|kind, unit| {
            if is_parameter_set(kind) {
                sets.add(&NalUnit::parse(unit)?)?;
            }
            Ok(())
        })?;
        let mut units = Units { cursor: data.cursor(), length_size: self.length_size, count: 0 };
        let first = loop {
            let unit = units.next_decoded()?.ok_or(Error::Corrupt("a coded picture has no slice"))?;
            let parsed = NalUnit::parse(&unit)?;
            if parsed.header.unit_type.is_slice() {
                break unit;
            }
            sets.add(&parsed)?;
        };
        let first = NalUnit::parse(&first)?;
        let mut slices = Slices::new(&sets, &first, max_pixels)?;
        slices.decode(&first)?;
        // Parameter sets behind the first slice are those of later pictures.
        while let Some(unit) = units.next_decoded()? {
            let unit = NalUnit::parse(&unit)?;
            if unit.header.unit_type.is_slice() {
                if begins_picture(&unit) {
                    break;
                }
                slices.decode(&unit)?;
            }
        }
        slices.finish()
    }
}

/// Length in bytes of the header of a NAL unit.
const UNIT_HEADER_BYTES: usize = 2;

/// Iterates over the NAL units of an item, each of which begins with its length.
struct Units<'a, 'extents> {
    cursor: Cursor<'a, 'extents>,
    length_size: usize,
    count: usize,
}

impl<'a> Units<'a, '_> {
    /// Returns the length of the next unit. The caller reads the unit itself.
    fn next_length(&mut self) -> Result<Option<usize>, Error> {
        if !self.cursor.has_more() {
            return Ok(None);
        }
        self.count += 1;
        check_unit_count(self.count)?;
        let length = self.cursor.bytes(self.length_size)?;
        Ok(Some(length.iter().fold(0, |length, &byte| length << 8 | usize::from(byte))))
    }

    /// Returns the next unit that the decoder needs.
    fn next_decoded(&mut self) -> Result<Option<Cow<'a, [u8]>>, Error> {
        while let Some(length) = self.next_length()? {
            let unit = self.cursor.bytes(length)?;
            if unit_kind(&unit).is_some_and(is_decoded) {
                return Ok(Some(unit));
            }
        }
        Ok(None)
    }
}

fn check_unit_count(count: usize) -> Result<(), Error> {
    if count > MAX_NAL_UNITS {
        return Err(Error::unsupported(format!("a picture of more than {MAX_NAL_UNITS} units")));
    }
    Ok(())
}

/// Returns the type of a NAL unit. Returns `None` if the unit belongs to a further layer, such as the view of a
/// second eye, or has no header.
fn unit_kind(unit: &[u8]) -> Option<u8> {
    let &[first, second, ..] = unit else { return None };
    let layer = (first & 1) << 5 | second >> 3;
    (layer == 0).then_some(first >> 1 & 0x3F)
}

/// Returns true if the decoder needs NAL units of this type: slices and parameter sets.
fn is_decoded(kind: u8) -> bool {
    const FIRST_KIND_WITHOUT_SLICE: u8 = 32;
    kind < FIRST_KIND_WITHOUT_SLICE || is_parameter_set(kind)
}

fn is_parameter_set(kind: u8) -> bool {
    matches!(kind, VPS | SPS | PPS)
}

/// Returns the maximum number of bytes that decoding needs.
///
/// Counts two copies of a unit, which can be the whole stream: one if it lies in several extents, and one without the
/// bytes that prevent start codes. Counts also the samples with 16 bits, a copy of either the largest plane, for the
/// filters, or of all samples, for cropping them, and the tables for blocks of 4×4 pixels.
pub(crate) fn decoder_bytes(picture: &CodedPicture, stream_bytes: u64) -> u64 {
    const BYTES_PER_SAMPLE: u64 = 2;
    /// Measured and counted: 1.1 with blocks of 64×64 pixels, 1.42 with blocks of 16×16.
    const HALVES_OF_TABLE_BYTES_PER_PIXEL: u64 = 3;
    /// Tables of at most 64 picture parameter sets and thousands of units.
    const FIXED_BYTES: u64 = 3 << 20;
    let all_samples =
        (picture.pixels.saturating_mul(picture.half_samples_per_pixel) / 2).saturating_mul(BYTES_PER_SAMPLE);
    let copied_samples =
        if picture.is_cropped { all_samples } else { picture.pixels.saturating_mul(BYTES_PER_SAMPLE) };
    let table_bytes = picture.pixels.saturating_mul(HALVES_OF_TABLE_BYTES_PER_PIXEL) / 2;
    [all_samples, copied_samples, table_bytes, stream_bytes, stream_bytes, FIXED_BYTES]
        .into_iter()
        .fold(0, u64::saturating_add)
}
