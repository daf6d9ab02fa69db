//! Generates and modifies files to decode.

use jpeg_encoder::{ColorType, Encoder, SamplingFactor};
use jpeg_scaled::{Decoder, Error, Picture, Scale};
use proptest::{prelude::*, sample::select, test_runner::Config};

use crate::scans::{SCAN_ORDERS, ScanOrder, with_scans};

/// A test picture, described by the settings with which it is drawn and encoded.
#[derive(Clone, Debug)]
pub(crate) struct TestPicture {
    pub(crate) width: u16,
    pub(crate) height: u16,
    /// Number of luminance blocks per MCU, horizontally and vertically, each 1 or 2. `None` makes the picture
    /// grey.
    pub(crate) sampling: Option<(u8, u8)>,
    pub(crate) quality: u8,
    /// Number of MCUs between restart markers, or 0 for a file without restart markers.
    pub(crate) restart_interval: u16,
    /// The scans of a picture that is not grey, or `None` for one scan.
    pub(crate) scans: Option<ScanOrder>,
    /// Amplitude of the noise that is added to the picture, 0 to 255.
    pub(crate) noise: u8,
    pub(crate) seed: u64,
}

/// Generates small pictures with every combination of settings.
pub(crate) fn test_pictures() -> impl Strategy<Value = TestPicture> {
    let sampling = select(vec![None, Some((1, 1)), Some((2, 1)), Some((1, 2)), Some((2, 2))]);
    let restart_interval = prop_oneof![Just(0), 1..8u16];
    let scans = prop_oneof![Just(None), select(&SCAN_ORDERS[..]).prop_map(Some)];
    let noise = select(vec![0, 8, 64, 255]);
    (1..70u16, 1..70u16, sampling, 1..101u8, restart_interval, scans, noise, any::<u64>()).prop_map(
        |(width, height, sampling, quality, restart_interval, scans, noise, seed)| TestPicture {
            width,
            height,
            sampling,
            quality,
            restart_interval,
            scans,
            noise,
            seed,
        },
    )
}

/// Returns a configuration with `case_count` test cases.
pub(crate) fn proptest_config(case_count: u32) -> Config {
    // proptest prints a failing case, so it need not be saved to a file.
    Config { cases: case_count, failure_persistence: None, ..Config::default() }
}

/// Returns the next pseudo-random number (xorshift).
pub(crate) fn next_random(state: &mut u64) -> u8 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    state.to_be_bytes()[0]
}

impl TestPicture {
    /// Draws the picture, which consists of waves, an edge and noise, and returns its RGB pixels.
    pub(crate) fn draw(&self) -> Vec<u8> {
        let mut random = self.seed | 1;
        let mut pixels = Vec::new();
        for y in 0..self.height {
            for x in 0..self.width {
                let (across, down) = (f32::from(x), f32::from(y));
                let edge = if x + 2 * y > self.width { 40.0 } else { 0.0 };
                for (wavelength, base) in [(9.0f32, 120.0f32), (17.0, 90.0), (31.0, 150.0)] {
                    let noise = f32::from(self.noise) * (f32::from(next_random(&mut random)) / 255.0 - 0.5);
                    let value = base
                        + edge
                        + 60.0 * (across / wavelength).sin() * (down / wavelength + 1.0).cos()
                        + noise;
                    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped")]
                    pixels.push(value.clamp(0.0, 255.0) as u8);
                }
            }
        }
        pixels
    }

    /// Encodes the picture to a file.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let file = self.encode_in_one_scan();
        match self.scans {
            Some(scans) if self.sampling.is_some() => with_scans(&file, scans, self.restart_interval),
            _ => file,
        }
    }

    /// Encodes the picture to a file with one scan.
    pub(crate) fn encode_in_one_scan(&self) -> Vec<u8> {
        let mut file = Vec::new();
        let mut encoder = Encoder::new(&mut file, self.quality);
        if let Some((across, down)) = self.sampling {
            encoder.set_sampling_factor(SamplingFactor::from_factors(across, down).unwrap());
        }
        if self.restart_interval > 0 {
            encoder.set_restart_interval(self.restart_interval);
        }
        let (mut pixels, mut colour) = (self.draw(), ColorType::Rgb);
        if self.sampling.is_none() {
            pixels = pixels.chunks(3).map(|pixel| pixel[0]).collect();
            colour = ColorType::Luma;
        }
        encoder.encode(&pixels, self.width, self.height, colour).unwrap();
        file
    }
}

/// Encodes [`usual_picture`].
pub(crate) fn usual_file() -> Vec<u8> {
    usual_picture().encode()
}

/// Returns a coloured picture of 45×37 pixels with the most common settings.
pub(crate) fn usual_picture() -> TestPicture {
    TestPicture {
        width: 45,
        height: 37,
        sampling: Some((2, 2)),
        quality: 85,
        restart_interval: 0,
        scans: None,
        noise: 40,
        seed: 1,
    }
}

/// Width, height and pixels.
pub(crate) type Pixels = (u32, u32, Vec<u8>);

/// Decodes a file to RGB with a new decoder.
pub(crate) fn decode(file: &[u8], scale: Scale) -> Result<Pixels, Error> {
    let mut decoder = Decoder::default();
    let picture = decoder.decode(file, scale)?;
    Ok((picture.width, picture.height, to_rgb(&picture)))
}

/// Returns the index of the 0xFF byte of the first segment with `marker`.
pub(crate) fn segment_position(file: &[u8], marker: u8) -> usize {
    let mut position = 2;
    while file[position + 1] != marker {
        position += 2 + usize::from(u16::from_be_bytes([file[position + 2], file[position + 3]]));
    }
    position
}

/// Returns the index of the first entropy-coded byte.
pub(crate) fn entropy_coded_start(file: &[u8]) -> usize {
    let position = segment_position(file, 0xDA);
    position + 2 + usize::from(u16::from_be_bytes([file[position + 2], file[position + 3]]))
}

/// Returns `file` with `bytes` inserted at index `position`.
pub(crate) fn with_inserted(file: &[u8], position: usize, bytes: &[u8]) -> Vec<u8> {
    [&file[..position], bytes, &file[position..]].concat()
}

/// Returns `file` without the first segment with `marker`.
pub(crate) fn without_segment(file: &[u8], marker: u8) -> Vec<u8> {
    let start = segment_position(file, marker);
    let length = usize::from(u16::from_be_bytes([file[start + 2], file[start + 3]]));
    [&file[..start], &file[start + 2 + length..]].concat()
}

/// Returns `file`, which has three components, with `ids` as component identifiers.
pub(crate) fn with_component_ids(file: &[u8], ids: [u8; 3]) -> Vec<u8> {
    let mut file = file.to_vec();
    let (frame_position, scan_position) = (segment_position(&file, 0xC0), segment_position(&file, 0xDA));
    for (index, id) in ids.into_iter().enumerate() {
        file[frame_position + 10 + 3 * index] = id;
        file[scan_position + 5 + 2 * index] = id;
    }
    file
}

/// Returns the pixels as RGB. A grey value becomes three equal values.
pub(crate) fn to_rgb(picture: &Picture<'_>) -> Vec<u8> {
    let pixel_count = picture.width as usize * picture.height as usize;
    match picture.pixels.len() / pixel_count {
        1 => picture.pixels.iter().flat_map(|&level| [level; 3]).collect(),
        _ => picture.pixels.to_vec(),
    }
}
