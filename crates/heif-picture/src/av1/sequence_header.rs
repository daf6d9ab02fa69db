//! The sequence header of an AV1 stream, which states the size and the format of its frames.

use crate::{bits::BitReader, error::Error, samples::Matrix};

/// The fields of a sequence header that this crate uses (AV1 specification, 5.5).
pub(super) struct SequenceHeader {
    /// True if the stream consists of one frame, which is shown and has a short header.
    pub(super) is_still_picture: bool,
    /// True if the frames of any operating point belong to more than one spatial layer.
    pub(super) has_layers: bool,
    pub(super) max_size: (u32, u32),
    /// The largest width and height of as many bits as those of `max_size` have.
    pub(super) max_sides: (u32, u32),
    pub(super) half_samples_per_pixel: u64,
    pub(super) has_wide_samples: bool,
    pub(super) has_small_superblocks: bool,
    pub(super) has_film_grain: bool,
    pub(super) has_superres: bool,
    /// Primaries and transfer function, if they are stated.
    pub(super) colours: Option<(u16, u16)>,
    pub(super) matrix: Matrix,
}

impl SequenceHeader {
    pub(super) fn read(bytes: &[u8]) -> Result<Self, Error> {
        let mut bits = BitReader::new(bytes);
        let profile = bits.uint(3)?;
        bits.skip(1)?;
        let is_reduced = bits.flag()?;
        let has_layers = if is_reduced {
            bits.skip(5)?;
            false
        } else {
            read_operating_points(&mut bits)?
        };
        let (width_bits, height_bits) = (bits.uint(4)? + 1, bits.uint(4)? + 1);
        let max_size = (bits.uint(width_bits)? + 1, bits.uint(height_bits)? + 1);
        if !is_reduced && bits.flag()? {
            // Lengths of frame ids.
            bits.skip(7)?;
        }
        let has_small_superblocks = !bits.flag()?;
        // Tools for intra prediction.
        bits.skip(2)?;
        if !is_reduced {
            skip_inter_tools(&mut bits)?;
        }
        let has_superres = bits.flag()?;
        // Two filters.
        bits.skip(2)?;
        let mut header = Self {
            is_still_picture: is_reduced,
            has_layers,
            max_size,
            max_sides: (1 << width_bits, 1 << height_bits),
            half_samples_per_pixel: 0,
            has_wide_samples: false,
            has_small_superblocks,
            has_film_grain: false,
            has_superres,
            colours: None,
            matrix: Matrix { coefficients: 2, is_full_range: false },
        };
        header.read_colours(&mut bits, profile)?;
        header.has_film_grain = bits.flag()?;
        Ok(header)
    }

    /// Reads `color_config` (AV1 specification, 5.5.2).
    fn read_colours(&mut self, bits: &mut BitReader<'_>, profile: u32) -> Result<(), Error> {
        /// `ColourPrimaries`, `TransferCharacteristics` and `MatrixCoefficients` of RGB samples in sRGB.
        const SRGB: [u16; 3] = [1, 13, 0];
        self.has_wide_samples = bits.flag()?;
        let has_12_bits = profile == 2 && self.has_wide_samples && bits.flag()?;
        let is_grey = profile != 1 && bits.flag()?;
        let mut numbers = [2; 3];
        if bits.flag()? {
            for number in &mut numbers {
                *number = u16::try_from(bits.uint(8)?).unwrap_or_default();
            }
            self.colours = Some((numbers[0], numbers[1]));
        }
        self.matrix.coefficients = numbers[2];
        if is_grey {
            self.matrix.is_full_range = bits.flag()?;
            self.half_samples_per_pixel = 2;
            return Ok(());
        }
        if numbers == SRGB {
            self.matrix.is_full_range = true;
            self.half_samples_per_pixel = 6;
        } else {
            self.matrix.is_full_range = bits.flag()?;
            let (halves_width, halves_height) = match profile {
                0 => (true, true),
                1 => (false, false),
                _ if has_12_bits => {
                    let halves_width = bits.flag()?;
                    (halves_width, halves_width && bits.flag()?)
                }
                _ => (true, false),
            };
            self.half_samples_per_pixel = match (halves_width, halves_height) {
                (true, true) => 3,
                (true, false) => 4,
                (false, _) => 6,
            };
            if halves_height {
                // The position of the chroma samples.
                bits.skip(2)?;
            }
        }
        // Whether the two chroma planes have different quantizers.
        bits.skip(1)
    }
}

/// Reads the timing information and the operating points of a sequence header.
///
/// Returns true if any operating point has more than one spatial layer.
fn read_operating_points(bits: &mut BitReader<'_>) -> Result<bool, Error> {
    let mut decoder_delay_bits = None;
    if bits.flag()? {
        bits.skip(64)?;
        if bits.flag()? {
            bits.skip_golomb()?;
        }
        if bits.flag()? {
            decoder_delay_bits = Some(bits.uint(5)? + 1);
            bits.skip(32 + 5 + 5)?;
        }
    }
    let has_display_delays = bits.flag()?;
    let mut has_layers = false;
    for _ in 0..=bits.uint(5)? {
        const FIRST_LEVEL_WITH_TIER: u32 = 8;
        const TEMPORAL_LAYER_BITS: u32 = 8;
        let spatial_layers = bits.uint(12)? >> TEMPORAL_LAYER_BITS;
        has_layers |= spatial_layers > 1;
        if bits.uint(5)? >= FIRST_LEVEL_WITH_TIER {
            bits.skip(1)?;
        }
        if let Some(delay_bits) = decoder_delay_bits
            && bits.flag()?
        {
            bits.skip(2 * delay_bits + 1)?;
        }
        if has_display_delays && bits.flag()? {
            bits.skip(4)?;
        }
    }
    Ok(has_layers)
}

/// Skips the tools for inter prediction and for screen content in a sequence header.
fn skip_inter_tools(bits: &mut BitReader<'_>) -> Result<(), Error> {
    bits.skip(4)?;
    let has_order_hints = bits.flag()?;
    if has_order_hints {
        bits.skip(2)?;
    }
    let chooses_screen_content = bits.flag()?;
    let may_have_screen_content = chooses_screen_content || bits.flag()?;
    if may_have_screen_content && !bits.flag()? {
        bits.skip(1)?;
    }
    if has_order_hints {
        bits.skip(3)?;
    }
    Ok(())
}
