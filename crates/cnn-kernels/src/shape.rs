//! Defines sizes, windows and clamps, and the error for sizes that do not match.

use std::{fmt, ops::Range};

/// Error returned when sizes do not match. The function that returns the error has computed nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ShapeError {
    /// The length of a slice does not match the sizes.
    Length {
        /// Name of the slice.
        what: &'static str,
        /// Expected number of elements.
        expected: usize,
        /// Actual number of elements.
        actual: usize,
    },
    /// A size is zero that must be at least one.
    Zero,
    /// The sizes exceed the address space.
    TooLarge,
    /// The window is larger than the padded image.
    WindowTooLarge,
    /// The depthwise convolution does not support the kernel or stride.
    Unsupported {
        /// Height and width of the kernel.
        kernel: usize,
        /// Stride of the window.
        stride: usize,
    },
    /// A range of rows is not inside the output.
    Rows {
        /// End of the range.
        end: usize,
        /// Number of rows of the output.
        height: usize,
    },
    /// Two operators of a block do not match.
    Mismatch(&'static str),
}

impl fmt::Display for ShapeError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length { what, expected, actual } => {
                write!(formatter, "{what} should have {expected} elements and has {actual}")
            }
            Self::Zero => formatter.write_str("a size is zero"),
            Self::TooLarge => formatter.write_str("the sizes are larger than memory can be"),
            Self::WindowTooLarge => formatter.write_str("the window is larger than the padded image"),
            Self::Unsupported { kernel, stride } => {
                write!(formatter, "no depthwise kernel of {kernel}x{kernel} with stride {stride}")
            }
            Self::Rows { end, height } => {
                write!(formatter, "rows up to {end} of an output of {height} rows")
            }
            Self::Mismatch(what) => formatter.write_str(what),
        }
    }
}

impl std::error::Error for ShapeError {}

/// Returns the product of `factors`, checked to be positive and small enough for an array of `f32`.
pub(crate) fn checked_volume(factors: &[usize]) -> Result<usize, ShapeError> {
    let product = factors.iter().try_fold(1_usize, |product, factor| product.checked_mul(*factor));
    match product {
        Some(0) => Err(ShapeError::Zero),
        // A slice has at most isize::MAX bytes. Half of that size leaves room for padding to whole vectors.
        Some(product) if product <= isize::MAX.unsigned_abs() / (2 * size_of::<f32>()) => Ok(product),
        _ => Err(ShapeError::TooLarge),
    }
}

/// Checks that the slice named `what` has `expected` elements.
pub(crate) fn check_length(what: &'static str, expected: usize, actual: usize) -> Result<(), ShapeError> {
    if expected == actual { Ok(()) } else { Err(ShapeError::Length { what, expected, actual }) }
}

/// Checks that `rows` is a range inside `height` rows.
pub(crate) fn check_rows(rows: &Range<usize>, height: usize) -> Result<(), ShapeError> {
    if rows.start <= rows.end && rows.end <= height {
        Ok(())
    } else {
        Err(ShapeError::Rows { end: rows.end.max(rows.start), height })
    }
}

/// Bounds of an activation: `x` becomes `min(max(x, lo), hi)`, and NaN stays NaN.
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
    pub fn pixels(self) -> usize {
        self.height * self.width
    }
}

/// Padding around an image, as numbers of rows or columns of zeros.
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
    /// Creates the same padding on all four sides.
    #[must_use]
    pub fn all(pixels: usize) -> Self {
        Self { top: pixels, left: pixels, bottom: pixels, right: pixels }
    }
}

/// A square kernel that moves over a padded image, and the size of the resulting image.
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
        let step_count = |size: usize, before: usize, after: usize| {
            let padded = size.checked_add(before).and_then(|size| size.checked_add(after));
            let padded = padded.ok_or(ShapeError::TooLarge)?;
            let room = padded.checked_sub(kernel).ok_or(ShapeError::WindowTooLarge)?;
            Ok(room / stride + 1)
        };
        let output = Size {
            height: step_count(input.height, pads.top, pads.bottom)?,
            width: step_count(input.width, pads.left, pads.right)?,
        };
        checked_volume(&[output.height, output.width])?;
        Ok(Self { input, kernel, stride, pads, output })
    }

    /// Returns the size of the image over which the window moves.
    #[must_use]
    pub fn input(&self) -> Size {
        self.input
    }

    /// Returns the size of the resulting image, which has one pixel per step.
    #[must_use]
    pub fn output(&self) -> Size {
        self.output
    }

    /// Returns the side of the kernel in pixels.
    #[must_use]
    pub fn kernel(&self) -> usize {
        self.kernel
    }

    /// Returns the distance between two steps in pixels.
    #[must_use]
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// Returns the padding around the input.
    #[must_use]
    pub fn pads(&self) -> Pads {
        self.pads
    }

    /// Returns the rows of the kernel that are over the image, not over its padding, at output row `y`.
    pub(crate) fn kernel_rows(&self, y: usize) -> Range<usize> {
        taps_over_image(y * self.stride, self.kernel, self.pads.top, self.input.height)
    }

    /// Returns the columns of the kernel that are over the image, not over its padding, at output column `x`.
    pub(crate) fn kernel_columns(&self, x: usize) -> Range<usize> {
        taps_over_image(x * self.stride, self.kernel, self.pads.left, self.input.width)
    }

    /// Returns the input row under row `tap` of the kernel at output row `y`. `tap` must be one of
    /// [`Self::kernel_rows`].
    pub(crate) fn input_row(&self, y: usize, tap: usize) -> usize {
        y * self.stride + tap - self.pads.top
    }

    /// Returns the input column under column `tap` of the kernel at output column `x`. `tap` must be one of
    /// [`Self::kernel_columns`].
    pub(crate) fn input_column(&self, x: usize, tap: usize) -> usize {
        x * self.stride + tap - self.pads.left
    }

    /// Returns the input rows that the output rows `rows` depend on.
    pub(crate) fn input_rows(&self, rows: &Range<usize>) -> Range<usize> {
        let start = (rows.start * self.stride).saturating_sub(self.pads.top);
        let end = (rows.end.saturating_sub(1) * self.stride + self.kernel).saturating_sub(self.pads.top);
        start.min(self.input.height)..end.min(self.input.height)
    }

    /// Returns the output columns at which the whole kernel is over the image.
    pub(crate) fn inner_columns(&self) -> Range<usize> {
        let start = self.pads.left.div_ceil(self.stride).min(self.output.width);
        let end = match (self.input.width + self.pads.left).checked_sub(self.kernel) {
            Some(room) => (room / self.stride + 1).min(self.output.width),
            None => 0,
        };
        start..end.max(start)
    }
}

/// Returns the rows or columns of a kernel that are over an image of `size` rows or columns.
///
/// `begin` is the position of the kernel, counted from the start of the padding of `before` rows or columns.
fn taps_over_image(begin: usize, kernel: usize, before: usize, size: usize) -> Range<usize> {
    let end = (size + before).saturating_sub(begin).min(kernel);
    before.saturating_sub(begin).min(end)..end
}

#[cfg(test)]
mod tests {
    use super::*;

    const IMAGE: Size = Size { height: 5, width: 4 };

    #[test]
    fn padding_and_stride_give_the_same_size_as_in_onnx() {
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
        assert_eq!(Window::new(IMAGE, 6, 1, Pads::default()), Err(ShapeError::WindowTooLarge));
        assert_eq!(Window::new(IMAGE, 3, 0, Pads::default()), Err(ShapeError::Zero));
        assert_eq!(Window::new(IMAGE, 3, 1, Pads::all(usize::MAX)), Err(ShapeError::TooLarge));
    }

    #[test]
    fn a_kernel_completely_over_the_padding_has_no_rows_over_the_image() {
        let window = Window::new(IMAGE, 3, 1, Pads::all(4)).unwrap();
        assert!(window.kernel_rows(0).is_empty());
        assert!(window.kernel_rows(window.output().height - 1).is_empty());
    }
}
