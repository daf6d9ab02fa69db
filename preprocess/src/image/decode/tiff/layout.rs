//! The [`SampleLayout`] of a TIFF, which converts its samples to pixels.

use tiff::ColorType;

use super::super::opaque;
use crate::image::{
    header::{
        TiffHeader,
        tiff::{Directory, JPEG_COMPRESSION, tag},
    },
    size::to_usize,
};

/// Maximum number of bytes of a tile in a plane. The tiles of real files are smaller.
const MAX_PLANAR_TILE_BYTES: u64 = 1 << 20;

/// Position and meaning of the samples of an image.
pub(super) struct SampleLayout {
    colours: Colours,
    alpha: Alpha,
    depth: Depth,
    samples_per_pixel: usize,
    /// True if each sample of all pixels is stored in a plane of its own.
    pub(super) is_planar: bool,
    /// True if the first pixel of a byte is in its lowest bit.
    pub(super) has_reversed_bits: bool,
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
pub(in crate::image::decode) fn cmyk_to_rgb([cyan, magenta, yellow, black]: [u8; 4]) -> [u8; 3] {
    [cyan, magenta, yellow].map(|ink| {
        let light = u32::from(u8::MAX - ink) * u32::from(u8::MAX - black);
        u8::try_from((light + 127) / 255).unwrap_or(u8::MAX)
    })
}

/// Converts a colour with the coefficients of JFIF, which are also the default of TIFF.
pub(in crate::image::decode) fn ycbcr_to_rgb([luma, blue, red]: [u8; 3]) -> [u8; 3] {
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
    pub(super) fn read(
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
    pub(super) fn samples_per_texel(&self) -> usize {
        if self.is_planar { 1 } else { self.samples_per_pixel }
    }

    /// Returns the number of bytes of a row, or of a row in one plane.
    pub(super) fn row_bytes(&self, width: u64) -> u64 {
        (width * self.samples_per_texel() as u64).saturating_mul(self.depth.bits().into()).div_ceil(8)
    }

    /// Returns the number of bytes of all samples.
    pub(super) fn stored_bytes(&self, width: u32, height: u32) -> u64 {
        let plane_count = self.samples_per_pixel / self.samples_per_texel().max(1);
        self.row_bytes(width.into()).saturating_mul(height.into()).saturating_mul(plane_count as u64)
    }

    /// Returns the type under which the `tiff` crate reads the samples.
    pub(super) fn sample_type(&self) -> ColorType {
        let bit_depth = self.depth.bits();
        match u16::try_from(self.samples_per_pixel).unwrap_or(u16::MAX) {
            1 => ColorType::Gray(bit_depth),
            num_samples => ColorType::Multiband { bit_depth, num_samples },
        }
    }

    /// Converts all samples to opaque grey or RGB pixels.
    pub(super) fn convert(&self, samples: &[u8], width: usize, pixels: &mut [u8]) {
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
