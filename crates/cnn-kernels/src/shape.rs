//! Defines image sizes, windows, clamps, and the error for sizes that do not match.

use std::{fmt, ops::Range};

/// Error returned when sizes do not match. A function that returns this error has written nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ShapeError {
    /// The length of a slice does not match the sizes.
    Length {
        /// Name of the slice.
        slice_name: &'static str,
        /// Expected number of elements.
        expected: usize,
        /// Actual number of elements.
        actual: usize,
    },
    /// A size that must be positive is zero.
    Zero,
    /// The sizes exceed the address space.
    TooLarge,
    /// The kernel is larger than the padded image.
    KernelTooLarge,
    /// The depthwise convolution does not support the combination of kernel and stride.
    UnsupportedDepthwise {
        /// Height and width of the kernel.
        kernel: usize,
        /// Distance in pixels between neighbouring kernel positions.
        stride: usize,
    },
    /// A range of rows is not inside the output.
    RowRange {
        /// End of the range, exclusive.
        end: usize,
        /// Number of rows of the output.
        height: usize,
    },
    /// The operators of a block do not match each other. The message names the difference.
    Mismatch(&'static str),
}

impl fmt::Display for ShapeError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length { slice_name, expected, actual } => {
                write!(formatter, "{slice_name} should have {expected} elements but has {actual}")
            }
            Self::Zero => formatter.write_str("a size is zero but must be positive"),
            Self::TooLarge => formatter.write_str("the sizes exceed the address space"),
            Self::KernelTooLarge => formatter.write_str("the kernel is larger than the padded image"),
            Self::UnsupportedDepthwise { kernel, stride } => {
                write!(
                    formatter,
                    "a {kernel}x{kernel} depthwise convolution with stride {stride} is not supported"
                )
            }
            Self::RowRange { end, height } => {
                write!(formatter, "the row range ends at {end}, but the output has {height} rows")
            }
            Self::Mismatch(message) => formatter.write_str(message),
        }
    }
}

impl std::error::Error for ShapeError {}

/// Returns the product of `factors` if it is positive and memory can hold that many `f32`.
pub(crate) fn checked_volume(factors: &[usize]) -> Result<usize, ShapeError> {
    let product = factors.iter().try_fold(1_usize, |product, factor| product.checked_mul(*factor));
    match product {
        Some(0) => Err(ShapeError::Zero),
        // A slice has at most `isize::MAX` bytes. The limit is half of that, because callers may round the
        // number of elements up to whole vectors.
        Some(product) if product <= isize::MAX.unsigned_abs() / (2 * size_of::<f32>()) => Ok(product),
        _ => Err(ShapeError::TooLarge),
    }
}

/// Checks that the slice named `slice_name` has `expected` elements.
pub(crate) fn check_length(
    slice_name: &'static str,
    expected: usize,
    actual: usize,
) -> Result<(), ShapeError> {
    if expected == actual { Ok(()) } else { Err(ShapeError::Length { slice_name, expected, actual }) }
}

/// Checks that `rows` is a range of the `height` rows of an output.
pub(crate) fn check_rows(rows: &Range<usize>, height: usize) -> Result<(), ShapeError> {
    if rows.start <= rows.end && rows.end <= height {
        Ok(())
    } else {
        Err(ShapeError::RowRange { end: rows.end.max(rows.start), height })
    }
}

/// Bounds of an output value: `x` becomes `min(max(x, lo), hi)`, and NaN stays NaN.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Clamp {
    /// Lower bound.
    pub lo: f32,
    /// Upper bound.
    pub hi: f32,
}

impl Clamp {
    /// A clamp without bounds.
    pub const NONE: Self = Self { lo: f32::NEG_INFINITY, hi: f32::INFINITY };
    /// The ReLU, which sets negative values to zero.
    pub const RELU: Self = Self { lo: 0.0, hi: f32::INFINITY };
    /// The ReLU6, which limits values to the range of 0 to 6.
    pub const RELU6: Self = Self { lo: 0.0, hi: 6.0 };
}

/// Height and width in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Number of rows.
    pub height: usize,
    /// Number of pixels per row.
    pub width: usize,
}

impl Size {
    /// Returns the total number of pixels.
    #[must_use]
    pub fn pixel_count(self) -> usize {
        self.height * self.width
    }
}

/// Padding around an image, in rows or columns of zeros.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pads {
    /// Number of rows above the image.
    pub top: usize,
    /// Number of columns to the left of the image.
    pub left: usize,
    /// Number of rows below the image.
    pub bottom: usize,
    /// Number of columns to the right of the image.
    pub right: usize,
}

impl Pads {
    /// Creates padding of `pixels` rows or columns on each of the four sides.
    #[must_use]
    pub fn all(pixels: usize) -> Self {
        Self { top: pixels, left: pixels, bottom: pixels, right: pixels }
    }
}

/// A square kernel that moves over a padded image, and the size of the output image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    input: Size,
    kernel: usize,
    stride: usize,
    pads: Pads,
    output: Size,
}

impl Window {
    /// Creates a window with a kernel of `kernel` × `kernel` pixels that moves by `stride` pixels over
    /// `input`, padded by `pads`.
    ///
    /// # Errors
    /// Returns an error if a size is zero, the kernel is larger than the padded image, or the sizes overflow.
    pub fn new(input: Size, kernel: usize, stride: usize, pads: Pads) -> Result<Self, ShapeError> {
        checked_volume(&[input.height, input.width, kernel, kernel, stride])?;
        let position_count = |size: usize, pad_before: usize, pad_after: usize| {
            let padded = size.checked_add(pad_before).and_then(|size| size.checked_add(pad_after));
            let padded = padded.ok_or(ShapeError::TooLarge)?;
            let last_position = padded.checked_sub(kernel).ok_or(ShapeError::KernelTooLarge)?;
            Ok(last_position / stride + 1)
        };
        let output = Size {
            height: position_count(input.height, pads.top, pads.bottom)?,
            width: position_count(input.width, pads.left, pads.right)?,
        };
        checked_volume(&[output.height, output.width])?;
        Ok(Self { input, kernel, stride, pads, output })
    }

    /// Returns the size of the image over which the window moves.
    #[must_use]
    pub fn input(&self) -> Size {
        self.input
    }

    /// Returns the size of the output image, which has one pixel per kernel position.
    #[must_use]
    pub fn output(&self) -> Size {
        self.output
    }

    /// Returns the height of the kernel in pixels, which equals its width.
    #[must_use]
    pub fn kernel(&self) -> usize {
        self.kernel
    }

    /// Returns the distance in pixels between neighbouring kernel positions.
    #[must_use]
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// Returns the padding around the input.
    #[must_use]
    pub fn pads(&self) -> Pads {
        self.pads
    }

    /// Returns the kernel rows that are over the image, not over its padding, at output row `y`.
    pub(crate) fn kernel_rows(&self, y: usize) -> Range<usize> {
        range_over_image(y * self.stride, self.kernel, self.pads.top, self.input.height)
    }

    /// Returns the kernel columns that are over the image, not over its padding, at output column `x`.
    pub(crate) fn kernel_columns(&self, x: usize) -> Range<usize> {
        range_over_image(x * self.stride, self.kernel, self.pads.left, self.input.width)
    }

    /// Returns the input row under row `kernel_row` of the kernel at output row `y`. `kernel_row` must be one
    /// of [`Self::kernel_rows`].
    pub(crate) fn input_row(&self, y: usize, kernel_row: usize) -> usize {
        y * self.stride + kernel_row - self.pads.top
    }

    /// Returns the input column under column `kernel_column` of the kernel at output column `x`.
    /// `kernel_column` must be one of [`Self::kernel_columns`].
    pub(crate) fn input_column(&self, x: usize, kernel_column: usize) -> usize {
        x * self.stride + kernel_column - self.pads.left
    }

    /// Returns the input rows from which the output rows `rows` are computed.
    pub(crate) fn input_rows(&self, rows: &Range<usize>) -> Range<usize> {
        let start = (rows.start * self.stride).saturating_sub(self.pads.top);
        let end = (rows.end.saturating_sub(1) * self.stride + self.kernel).saturating_sub(self.pads.top);
        start.min(self.input.height)..end.min(self.input.height)
    }

    /// Returns the output columns at which the whole kernel is over the image.
    pub(crate) fn inner_columns(&self) -> Range<usize> {
        let start = self.pads.left.div_ceil(self.stride).min(self.output.width);
        let end = match (self.input.width + self.pads.left).checked_sub(self.kernel) {
            Some(last_position) => (last_position / self.stride + 1).min(self.output.width),
            None => 0,
        };
        start..end.max(start)
    }
}

/// Returns the kernel rows that are over the image, not over its padding. The function works the same way
/// for columns.
///
/// The kernel has `kernel` rows and the image `size` rows. The padding before the image has `padding` rows.
/// `position` is the first row under the kernel, counted from the start of the padding.
fn range_over_image(position: usize, kernel: usize, padding: usize, size: usize) -> Range<usize> {
    let end = (size + padding).saturating_sub(position).min(kernel);
    padding.saturating_sub(position).min(end)..end
}

#[cfg(test)]
mod tests {
    use super::*;

    const IMAGE: Size = Size { height: 5, width: 4 };

    #[test]
    fn output_size_follows_from_padding_and_stride_as_in_onnx() {
        let pads = Pads { top: 0, left: 1, bottom: 1, right: 2 };
        let window = Window::new(IMAGE, 3, 2, pads).unwrap();
        assert_eq!(window.output(), Size { height: 2, width: 3 });
        assert_eq!(window.inner_columns(), 1..2);
        assert_eq!(window.kernel_columns(0), 1..3);
        assert_eq!(window.kernel_columns(2), 0..1);
        assert_eq!(window.kernel_rows(1), 0..3);
        assert_eq!(window.input_rows(&(1..2)), 2..5);
    }

    #[test]
    fn windows_with_invalid_sizes_are_refused() {
        assert_eq!(Window::new(IMAGE, 6, 1, Pads::default()), Err(ShapeError::KernelTooLarge));
        assert_eq!(Window::new(IMAGE, 3, 0, Pads::default()), Err(ShapeError::Zero));
        assert_eq!(Window::new(IMAGE, 3, 1, Pads::all(usize::MAX)), Err(ShapeError::TooLarge));
    }

    #[test]
    fn kernel_completely_over_the_padding_has_no_rows_over_the_image() {
        let window = Window::new(IMAGE, 3, 1, Pads::all(4)).unwrap();
        assert!(window.kernel_rows(0).is_empty());
        assert!(window.kernel_rows(window.output().height - 1).is_empty());
    }
}
