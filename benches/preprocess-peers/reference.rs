//! What a picture should become: Lanczos3 over all of its pixels, in float64, not rounded.

use std::{f64::consts::PI, ops::Range};

use image::RgbImage;

/// Half the width of the filter, in pixels of the smaller picture.
const SUPPORT: f64 = 3.0;
const CHANNELS: usize = 3;

/// A smaller picture.
pub(crate) struct Reference {
    /// Width and height in pixels.
    pub(crate) size: (u32, u32),
    /// Red, green and blue of each pixel, 0 to 255.
    rgb: Vec<f64>,
}

impl Reference {
    /// `picture` made smaller, as Pillow does it: the filter is stretched by as much as the picture
    /// shrinks, and cut off and weighted anew at its edges.
    pub(crate) fn of(picture: &RgbImage, size: (u32, u32)) -> Self {
        let [from_width, from_height, width, height] =
            [picture.width(), picture.height(), size.0, size.1].map(|side| side as usize);
        let mut narrow = Vec::with_capacity(width * from_height * CHANNELS);
        let columns = windows(from_width, width);
        for row in picture.as_raw().chunks_exact(from_width * CHANNELS) {
            for (columns, weights) in &columns {
                let pixels = row[columns.start * CHANNELS..columns.end * CHANNELS].chunks_exact(CHANNELS);
                let mut sums = [0.0; CHANNELS];
                for (pixel, weight) in pixels.zip(weights) {
                    sums.iter_mut().zip(pixel).for_each(|(sum, &value)| *sum += weight * f64::from(value));
                }
                narrow.extend(sums);
            }
        }
        let mut rgb = Vec::with_capacity(width * height * CHANNELS);
        for (rows, weights) in windows(from_height, height) {
            let mut sums = vec![0.0; width * CHANNELS];
            let rows = narrow[rows.start * width * CHANNELS..].chunks_exact(width * CHANNELS);
            for (row, weight) in rows.zip(weights) {
                sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += weight * value);
            }
            rgb.extend(sums.into_iter().map(|sum| sum.clamp(0.0, 255.0)));
        }
        Self { size, rgb }
    }

    /// How near `rgb` comes to this: peak signal to noise in dB.
    pub(crate) fn psnr(&self, rgb: &[u8]) -> f64 {
        assert_eq!(rgb.len(), self.rgb.len(), "pixels of another picture");
        let squares =
            rgb.iter().zip(&self.rgb).map(|(&value, expected)| (f64::from(value) - expected).powi(2));
        let mean = squares.sum::<f64>() / self.rgb.len() as f64;
        10.0 * (255.0 * 255.0 / mean).log10()
    }
}

/// For each pixel of a side of `to` pixels, the pixels of the side of `from` that it is made of, and by
/// which weights.
fn windows(from: usize, to: usize) -> Vec<(Range<usize>, Vec<f64>)> {
    let scale = from as f64 / to as f64;
    // Not narrower than a pixel where nothing shrinks.
    let stretch = scale.max(1.0);
    let window = |at: usize| {
        let centre = (at as f64 + 0.5) * scale;
        let near = |&pixel: &usize| (pixel as f64 + 0.5 - centre).abs() < SUPPORT * stretch;
        let first = (0..from).find(near).unwrap();
        let pixels = first..first + (first..from).take_while(near).count();
        let weights = pixels.clone().map(|pixel| lanczos((pixel as f64 + 0.5 - centre) / stretch));
        let sum: f64 = weights.clone().sum();
        (pixels, weights.map(|weight| weight / sum).collect())
    };
    (0..to).map(window).collect()
}

fn lanczos(x: f64) -> f64 {
    if x == 0.0 {
        return 1.0;
    }
    let sinc = |x: f64| (PI * x).sin() / (PI * x);
    sinc(x) * sinc(x / SUPPORT)
}
