//! Compares resized images with a reference image that is resized in floating point.

use jpeg_encoder::{ColorType, Encoder, SamplingFactor};

use super::{
    decode::{self, DecodeJob},
    plan::inspect,
    resize,
    scratch::Scratch,
};

const WIDTH: u16 = 2896;
const HEIGHT: u16 = 2172;

/// Returns pixels with sharp edges, smooth gradients and fine noise in full colour, as in a photo.
fn generate_photo() -> Vec<u8> {
    let mut state = 1u32;
    let mut grain = move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        f64::from(state >> 16) / 65_536.0 - 0.5
    };
    let mut pixels = Vec::with_capacity(usize::from(WIDTH) * usize::from(HEIGHT) * 3);
    for y in 0..HEIGHT {
        for x in 0..WIDTH {
            let (x, y) = (f64::from(x), f64::from(y));
            // Waves of increasing frequency and decreasing amplitude.
            let waves: f64 = (0..8)
                .map(|octave| {
                    let frequency = 0.002 * f64::from(1 << octave);
                    let angle = f64::from(octave) * 1.3;
                    let position = x * angle.cos() + y * angle.sin();
                    (position * frequency + angle).sin() * 60.0 / f64::from(octave + 1)
                })
                .sum();
            let disc = if (x - 900.0).hypot(y - 1000.0) < 600.0 { 50.0 } else { 0.0 };
            let noise = grain() * 8.0;
            for (base, gain) in [(110.0, 0.9), (120.0, 0.7), (100.0, 0.5)] {
                pixels.push(to_level(base + waves * gain + disc * (1.2 - gain) + noise));
            }
        }
    }
    pixels
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to 255")]
fn to_level(value: f64) -> u8 {
    value.clamp(0.0, 255.0).round() as u8
}

/// Returns the weights for resizing a row of `source_length` samples to `target_length` samples.
///
/// The result has one entry per resized sample: the index of the first source sample that contributes to it,
/// and the weights of this sample and the following samples. The filter is Lanczos with three lobes. To scale
/// an image down, the filter is widened by the scale.
fn filter_weights(source_length: usize, target_length: usize) -> Vec<(usize, Vec<f64>)> {
    const LOBES: f64 = 3.0;
    let sinc =
        |x: f64| if x == 0.0 { 1.0 } else { (std::f64::consts::PI * x).sin() / (std::f64::consts::PI * x) };
    let scale = source_length as f64 / target_length as f64;
    (0..target_length)
        .map(|index| {
            let centre = (index as f64 + 0.5) * scale;
            let reach = LOBES * scale;
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "inside the image")]
            let [first, end] = [(centre - reach).max(0.0), (centre + reach).min(source_length as f64)]
                .map(|position| position as usize);
            let mut weights: Vec<f64> = (first..end)
                .map(|source_index| {
                    let x = (source_index as f64 + 0.5 - centre) / scale;
                    if x.abs() < LOBES { sinc(x) * sinc(x / LOBES) } else { 0.0 }
                })
                .collect();
            let sum: f64 = weights.iter().sum();
            weights.iter_mut().for_each(|weight| *weight /= sum);
            (first, weights)
        })
        .collect()
}

/// Resizes in 64-bit floating point, without rounding.
fn resize_reference(
    pixels: &[u8],
    (width, height): (usize, usize),
    (target_width, target_height): (usize, usize),
) -> Vec<f64> {
    let column_weights = filter_weights(width, target_width);
    let row_weights = filter_weights(height, target_height);
    let target_row_len = target_width * 3;
    let mut narrowed = vec![0.0; height * target_row_len];
    for (row, narrowed_row) in pixels.chunks_exact(width * 3).zip(narrowed.chunks_exact_mut(target_row_len)) {
        for ((first, weights), pixel) in column_weights.iter().zip(narrowed_row.chunks_exact_mut(3)) {
            for (weight, from) in weights.iter().zip(row[first * 3..].chunks_exact(3)) {
                pixel.iter_mut().zip(from).for_each(|(to, &from)| *to += weight * f64::from(from));
            }
        }
    }
    let mut resized = vec![0.0; target_height * target_row_len];
    for ((first, weights), resized_row) in row_weights.iter().zip(resized.chunks_exact_mut(target_row_len)) {
        let source_rows = narrowed[first * target_row_len..].chunks_exact(target_row_len);
        for (weight, source_row) in weights.iter().zip(source_rows) {
            resized_row.iter_mut().zip(source_row).for_each(|(to, from)| *to += weight * from);
        }
    }
    resized
}

fn psnr(found: &[u8], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let squares: f64 = found
        .iter()
        .zip(expected)
        .map(|(&found, expected)| (f64::from(found) - expected.clamp(0.0, 255.0)).powi(2))
        .sum();
    10.0 * (255.0f64.powi(2) * found.len() as f64 / squares).log10()
}

/// Decodes a photo with each decoder and resizes it. Some decoders scale down while they decode.
///
/// For the reference, the `image` crate decodes the same photo at full size.
#[test]
fn resized_output_of_every_decoder_has_a_psnr_of_at_least_50_db() {
    let mut file = Vec::new();
    let mut encoder = Encoder::new(&mut file, 85);
    encoder.set_sampling_factor(SamplingFactor::R_4_2_0);
    encoder.encode(&generate_photo(), WIDTH, HEIGHT, ColorType::Rgb).unwrap();
    let full_size = image::load_from_memory(&file).unwrap().into_rgb8();

    let recipe = crate::Settings::default().recipe();
    let header = inspect(&file, &recipe.limits).unwrap();
    let target = resize::target_size(header.width, header.height, recipe.shorter_side);
    let to_usizes =
        |(width, height): (u32, u32)| (usize::try_from(width).unwrap(), usize::try_from(height).unwrap());
    let expected = resize_reference(full_size.as_raw(), to_usizes(full_size.dimensions()), to_usizes(target));
    for decoder in decode::decoders_for(&header) {
        let decibels = Scratch::with(0, |scratch| {
            let job = DecodeJob { bytes: &file, header: &header, target_size: target, max_scans: 1 };
            let decoded = decode::decode(decoder, &job, scratch).unwrap();
            resize::resize(&decoded, target, scratch).unwrap();
            psnr(&scratch.resized, &expected)
        });
        assert!(decibels >= 50.0, "{}: {decibels:.1} dB", decoder.name());
    }
}
