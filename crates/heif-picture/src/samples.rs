//! Converts the samples of a decoded picture to grey or RGB with 8 bits per channel.

use heifer_hevc_dec::recon::Frame;

use crate::error::Error;

/// The relation between the samples and the colours (ITU-T H.273).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Matrix {
    /// `MatrixCoefficients`. 2 means unspecified.
    pub(crate) coefficients: u16,
    /// True if the samples use all values, false if black is 16 and white is 235, with 8 bits.
    pub(crate) is_full_range: bool,
}

impl Matrix {
    /// Returns the weights of red and blue in the brightness. Returns `None` if the samples are green, blue and red.
    fn weights(self) -> Result<Option<(f64, f64)>, Error> {
        Ok(Some(match self.coefficients {
            0 => return Ok(None),
            1 => (0.2126, 0.0722),
            // Unspecified: BT.601, as in a JPEG.
            2 | 5 | 6 => (0.299, 0.114),
            4 => (0.30, 0.11),
            7 => (0.212, 0.087),
            9 => (0.2627, 0.0593),
            other => return Err(Error::unsupported(format!("the colour matrix {other}"))),
        }))
    }
}

/// A sample of a plane, of at most 16 bits.
pub(crate) trait Sample: Copy {
    /// Returns the sample as a number.
    fn value(self) -> i32;
}

#[cfg(feature = "avif")]
impl Sample for u8 {
    fn value(self) -> i32 {
        self.into()
    }
}

impl Sample for u16 {
    fn value(self) -> i32 {
        self.into()
    }
}

/// A sample in the byte order of the processor.
#[cfg(feature = "avif")]
impl Sample for [u8; 2] {
    fn value(self) -> i32 {
        u16::from_ne_bytes(self).into()
    }
}

/// The planes of a decoded picture.
#[derive(Clone, Copy)]
pub(crate) struct Planes<'a, S> {
    /// The brightness and the two chroma planes, row by row. A grey picture has only the brightness.
    pub(crate) samples: [&'a [S]; 3],
    /// Samples from the start of a row to the start of the next, for each plane.
    pub(crate) strides: [usize; 3],
    /// Samples per row of each plane.
    pub(crate) widths: [usize; 3],
    /// Width and height of the picture in pixels.
    pub(crate) size: (u32, u32),
    /// Bits per sample of the brightness and of the chroma, 8 to 16.
    pub(crate) bits: [u8; 2],
    /// True if the picture has no chroma.
    pub(crate) is_grey: bool,
    /// True if the samples of a grey picture use all values, whatever range the file states.
    pub(crate) has_full_range_if_grey: bool,
    /// True if a chroma sample covers two columns.
    pub(crate) halves_width: bool,
    /// True if a chroma sample covers two rows.
    pub(crate) halves_height: bool,
    /// The matrix that the coded data states.
    pub(crate) matrix: Matrix,
}

impl<'a> From<&'a Frame> for Planes<'a, u16> {
    fn from(frame: &'a Frame) -> Self {
        let widths = frame.widths.map(|width| width as usize);
        Self {
            samples: [0, 1, 2].map(|plane: usize| &*frame.planes[plane]),
            strides: widths,
            widths,
            size: (frame.widths[0], frame.heights[0]),
            bits: frame.bit_depth,
            is_grey: frame.chroma_format == 0,
            // libheif stores grey pictures and alpha channels in this way, and reads them in the same way.
            has_full_range_if_grey: true,
            halves_width: matches!(frame.chroma_format, 1 | 2),
            halves_height: frame.chroma_format == 1,
            matrix: Matrix { coefficients: frame.matrix_coeffs.into(), is_full_range: frame.full_range },
        }
    }
}

impl<'a, S> Planes<'a, S> {
    /// Returns a row of samples, or no sample if the row does not exist.
    fn row(&self, plane: usize, y: usize) -> &'a [S] {
        let start = y.checked_mul(self.strides[plane]);
        let row =
            start.and_then(|start| self.samples[plane].get(start..start.checked_add(self.widths[plane])?));
        row.unwrap_or_default()
    }
}

/// Number of fractional bits of the factors and sums. Sums have at most 10 bits before the point.
const FRACTION_BITS: u32 = 20;

/// Chroma samples are interpolated to this multiple of their value.
const CHROMA_SCALE: i32 = 16;

/// Rows of a picture that become grey or RGB pixels, one at a time.
pub(crate) struct Rows<'a, S> {
    planes: Planes<'a, S>,
    brightness: Brightness,
    /// Factors of the chroma, or `None` if the samples are green, blue and red.
    chroma: Option<ChromaFactors>,
    /// Interpolated chroma of the current row, one value per pixel.
    chroma_rows: [Vec<i32>; 2],
    /// A row of chroma samples that is interpolated vertically only.
    narrow_row: Vec<i32>,
}

/// Converts samples to brightness. Black is 0.
#[derive(Clone, Copy)]
struct Brightness {
    black: i32,
    factor: i32,
}

/// Contributions of the two chroma samples to red, green and blue.
#[derive(Clone, Copy)]
struct ChromaFactors {
    red: i32,
    green: [i32; 2],
    blue: i32,
}

impl Brightness {
    fn new(bits: u8, is_full_range: bool) -> Self {
        let (black, range) =
            if is_full_range { (0, (1i32 << bits) - 1) } else { (16 << (bits - 8), 219 << (bits - 8)) };
        Self { black, factor: fixed(255.0 / f64::from(range)) }
    }

    fn of(self, sample: impl Sample) -> i32 {
        (sample.value() - self.black) * self.factor
    }
}

impl ChromaFactors {
    fn new(bits: u8, is_full_range: bool, (red, blue): (f64, f64)) -> Self {
        let range = if is_full_range { (1i32 << bits) - 1 } else { 224 << (bits - 8) };
        let factor = |weight: f64| 2.0 * (1.0 - weight) * 255.0 / f64::from(range) / f64::from(CHROMA_SCALE);
        let green = 1.0 - red - blue;
        Self {
            red: fixed(factor(red)),
            green: [fixed(factor(blue) * blue / green), fixed(factor(red) * red / green)],
            blue: fixed(factor(blue)),
        }
    }
}

/// Returns the factor in fixed point.
#[expect(clippy::cast_possible_truncation, reason = "a factor is less than 4")]
fn fixed(factor: f64) -> i32 {
    (factor * f64::from(1 << FRACTION_BITS)).round() as i32
}

/// Returns the nearest level to a number in fixed point.
fn level(number: i32) -> u8 {
    let rounded = (number + (1 << (FRACTION_BITS - 1))) >> FRACTION_BITS;
    u8::try_from(rounded.clamp(0, 255)).unwrap_or(u8::MAX)
}

impl<'a, S: Sample> Rows<'a, S> {
    /// Returns rows of which only the brightness is used, as in an alpha channel. The matrix may be unknown.
    pub(crate) fn grey(planes: Planes<'a, S>, matrix: Matrix) -> Self {
        let is_full_range = matrix.is_full_range || planes.is_grey && planes.has_full_range_if_grey;
        Self {
            planes,
            brightness: Brightness::new(planes.bits[0], is_full_range),
            chroma: None,
            chroma_rows: Default::default(),
            narrow_row: Vec::new(),
        }
    }

    /// Returns rows of a picture in colour.
    ///
    /// # Errors
    /// Returns [`Error::Unsupported`] when the matrix is unknown.
    pub(crate) fn rgb(planes: Planes<'a, S>, matrix: Matrix) -> Result<Self, Error> {
        let Planes { bits: [bits, chroma_bits], halves_width, .. } = planes;
        let weights = matrix.weights()?;
        if weights.is_none() && (halves_width || bits != chroma_bits) {
            return Err(Error::Corrupt("RGB samples are subsampled"));
        }
        let chroma = weights.map(|weights| ChromaFactors::new(chroma_bits, matrix.is_full_range, weights));
        Ok(Self { chroma, ..Self::grey(planes, matrix) })
    }

    /// Writes the start of a row with one byte per pixel. Ignores the chroma.
    pub(crate) fn write_grey(&self, y: usize, pixels: &mut [u8]) {
        for (pixel, &sample) in pixels.iter_mut().zip(self.planes.row(0, y)) {
            *pixel = level(self.brightness.of(sample));
        }
    }

    /// Writes the start of a row with three bytes per pixel.
    pub(crate) fn write_rgb(&mut self, y: usize, pixels: &mut [u8]) {
        let (pixels, _) = pixels.as_chunks_mut::<3>();
        let luma = self.planes.row(0, y);
        let Some(factors) = self.chroma else {
            let samples = luma.iter().zip(self.planes.row(1, y)).zip(self.planes.row(2, y));
            for (pixel, ((&green, &blue), &red)) in pixels.iter_mut().zip(samples) {
                *pixel = [red, green, blue].map(|sample| level(self.brightness.of(sample)));
            }
            return;
        };
        self.interpolate_chroma(y, pixels.len());
        let [blue_chroma, red_chroma] = &self.chroma_rows;
        for (((pixel, &sample), &cb), &cr) in pixels.iter_mut().zip(luma).zip(blue_chroma).zip(red_chroma) {
            let brightness = self.brightness.of(sample);
            *pixel = [
                level(brightness + cr * factors.red),
                level(brightness - cb * factors.green[0] - cr * factors.green[1]),
                level(brightness + cb * factors.blue),
            ];
        }
    }

    /// Interpolates the chroma for the first pixels of row `y`.
    ///
    /// A subsampled chroma sample lies in the middle between two rows or columns. A pixel therefore gets three
    /// quarters of the nearest sample and a quarter of the sample on its other side.
    fn interpolate_chroma(&mut self, y: usize, width: usize) {
        let Self { planes, chroma_rows, narrow_row, .. } = self;
        let [_, chroma_bits] = planes.bits;
        let middle = 1 << (chroma_bits - 1);
        let row_height = if planes.halves_height { 2 } else { 1 };
        for (plane, row) in chroma_rows.iter_mut().enumerate() {
            let nearest = planes.row(plane + 1, y / row_height);
            let other = if row_height == 2 { planes.row(plane + 1, neighbour(y)) } else { nearest };
            // At the edge of the picture, no sample is on the other side.
            let other = if other.is_empty() { nearest } else { other };
            let samples = nearest.iter().zip(other);
            narrow_row.clear();
            narrow_row.extend(samples.map(|(&near, &far)| 3 * near.value() + far.value() - 4 * middle));
            row.clear();
            if planes.halves_width {
                widen(narrow_row, row, width);
            } else {
                row.extend(narrow_row.iter().take(width).map(|sample| 4 * sample));
            }
        }
    }
}

/// Returns the index of the chroma sample on the other side of row or column `index`, or `usize::MAX` if there is none.
fn neighbour(index: usize) -> usize {
    if index.is_multiple_of(2) { (index / 2).wrapping_sub(1) } else { index / 2 + 1 }
}

/// Appends twice as many values as there are samples, at most `width`.
fn widen(samples: &[i32], row: &mut Vec<i32>, width: usize) {
    let (Some(&first), Some(&last)) = (samples.first(), samples.last()) else { return };
    let before = std::iter::once(&first).chain(samples);
    let after = samples.iter().skip(1).chain(std::iter::once(&last));
    for ((&before, &sample), &after) in before.zip(samples).zip(after) {
        row.push(3 * sample + before);
        row.push(3 * sample + after);
    }
    row.truncate(width);
}

#[cfg(test)]
mod tests {
    use super::*;

    const BT601: Matrix = Matrix { coefficients: 6, is_full_range: true };

    /// Returns a picture whose planes have these widths and samples.
    fn frame(chroma_format: u8, bits: u8, widths: [u32; 3], planes: [&[u16]; 3]) -> Frame {
        let heights = [0, 1, 2].map(|plane: usize| {
            u32::try_from(planes[plane].len()).unwrap().checked_div(widths[plane]).unwrap_or_default()
        });
        Frame {
            widths,
            heights,
            planes: planes.map(<[u16]>::to_vec),
            bit_depth: [bits; 2],
            chroma_format,
            full_range: true,
            matrix_coeffs: 2,
        }
    }

    fn rgb(frame: &Frame, matrix: Matrix, y: usize) -> Vec<[u8; 3]> {
        let mut pixels = vec![[0; 3]; frame.widths[0] as usize];
        Rows::rgb(Planes::from(frame), matrix).unwrap().write_rgb(y, pixels.as_flattened_mut());
        pixels
    }

    #[test]
    fn levels_of_every_depth_and_range_become_black_and_white() {
        for bits in [8, 10, 12, 16] {
            let (white, middle) = (u16::MAX >> (16 - bits), 1 << (bits - 1));
            let chroma = [middle; 2];
            let full = frame(3, bits, [2; 3], [&[0, white], &chroma, &chroma]);
            assert_eq!(rgb(&full, BT601, 0), [[0; 3], [255; 3]], "{bits} bits");
            let limited = frame(3, bits, [2; 3], [&[16 << (bits - 8), 235 << (bits - 8)], &chroma, &chroma]);
            let matrix = Matrix { coefficients: 1, is_full_range: false };
            assert_eq!(rgb(&limited, matrix, 0), [[0; 3], [255; 3]], "{bits} bits, limited");
        }
    }

    #[test]
    fn colours_follow_the_matrix() {
        // Pure red, according to the equations of BT.601 and BT.709.
        let red = |y, cb| frame(3, 8, [1; 3], [&[y], &[cb], &[255]]);
        assert_eq!(rgb(&red(76, 85), BT601, 0), [[254, 0, 0]]);
        let bt709 = Matrix { coefficients: 1, is_full_range: true };
        assert_eq!(rgb(&red(54, 99), bt709, 0), [[254, 0, 0]]);
        // The planes are green, blue and red.
        let identity = Matrix { coefficients: 0, is_full_range: true };
        assert_eq!(rgb(&frame(3, 8, [1; 3], [&[1], &[2], &[3]]), identity, 0), [[3, 1, 2]]);
        assert!(
            Rows::rgb(Planes::from(&red(0, 0)), Matrix { coefficients: 8, is_full_range: true })
                .is_err_and(|e| e.is_unsupported())
        );
        let subsampled = frame(1, 8, [2, 1, 1], [&[0; 4], &[0], &[0]]);
        assert!(Rows::rgb(Planes::from(&subsampled), identity).is_err());
    }

    #[test]
    fn chroma_is_interpolated_between_its_rows_and_columns() {
        // The red chroma is 128 on the left and above, and 228 on the right and below.
        let wide = frame(2, 8, [4, 2, 2], [&[100; 4], &[128, 128], &[128, 228]]);
        let expected = [0.0, 0.25, 0.75, 1.0].map(|share| 100.0 + share * 1.402 * 100.0);
        for (found, expected) in rgb(&wide, BT601, 0).iter().zip(expected) {
            assert!((f64::from(found[0]) - expected).abs() <= 0.6, "{found:?} {expected}");
        }
        let high = frame(1, 8, [2, 1, 1], [&[100; 8], &[128, 128], &[128, 228]]);
        for (y, expected) in expected.into_iter().enumerate() {
            let found = rgb(&high, BT601, y);
            assert!((f64::from(found[0][0]) - expected).abs() <= 0.6, "{found:?} {expected}");
            assert_eq!(found[0], found[1]);
        }
    }

    #[test]
    fn extreme_samples_do_not_overflow() {
        for bits in [8, 16] {
            let samples = [0, u16::MAX >> (16 - bits)];
            for (y, cb, cr) in [(0, 0, 0), (1, 1, 1), (0, 1, 0), (1, 0, 1), (0, 0, 1), (1, 1, 0)] {
                let [y, cb, cr] = [y, cb, cr].map(|index: usize| [samples[index]]);
                for is_full_range in [false, true] {
                    for coefficients in [1, 6, 9] {
                        rgb(
                            &frame(3, bits, [1; 3], [&y, &cb, &cr]),
                            Matrix { coefficients, is_full_range },
                            0,
                        );
                    }
                }
            }
        }
    }
}
