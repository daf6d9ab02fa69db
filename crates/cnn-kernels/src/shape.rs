//! Sizes, windows and clamps, and what is wrong with those that do not fit.

use std::{fmt, ops::Range};

/// Why sizes do not go together. Nothing was computed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ShapeError {
    /// A slice is not as long as the sizes say.
    Length {
        /// The slice.
        what: &'static str,
        /// How many elements it should have.
        expected: usize,
        /// How many it has.
        actual: usize,
    },
    /// A size that cannot be zero is.
    Zero,
    /// The sizes are too large for this machine's memory.
    TooLarge,
    /// The window is larger than the padded image.
    WindowTooLarge,
    /// A depthwise kernel or stride without an implementation.
    Unsupported {
        /// Height and width of the kernel.
        kernel: usize,
        /// Step of the window.
        stride: usize,
    },
    /// Rows outside the image.
    Rows {
        /// The first row beyond those asked for.
        end: usize,
        /// Rows of the output.
        height: usize,
    },
    /// Two operators of a block do not fit together.
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

/// The product of `factors`, where an array of that many `f32` can exist.
pub(crate) fn volume(factors: &[usize]) -> Result<usize, ShapeError> {
    let product = factors.iter().try_fold(1_usize, |product, factor| product.checked_mul(*factor));
    match product {
        Some(0) => Err(ShapeError::Zero),
        // No slice is longer than isize::MAX bytes; half of it leaves room for padding to vectors.
        Some(product) if product <= isize::MAX.unsigned_abs() / (2 * size_of::<f32>()) => Ok(product),
        _ => Err(ShapeError::TooLarge),
    }
}

/// That `what` has `expected` elements.
pub(crate) fn check_length(what: &'static str, expected: usize, actual: usize) -> Result<(), ShapeError> {
    if expected == actual { Ok(()) } else { Err(ShapeError::Length { what, expected, actual }) }
}

/// That `rows` is a range within `height`.
pub(crate) fn check_rows(rows: &Range<usize>, height: usize) -> Result<(), ShapeError> {
    if rows.start <= rows.end && rows.end <= height {
        Ok(())
    } else {
        Err(ShapeError::Rows { end: rows.end.max(rows.start), height })
    }
}

/// The bounds of an activation: `x` becomes `min(max(x, lo), hi)`; NaN stays NaN.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Clamp {
    /// The smallest value that comes out.
    pub lo: f32,
    /// The largest value that comes out.
    pub hi: f32,
}

impl Clamp {
    /// Changes nothing.
    pub const NONE: Self = Self { lo: f32::NEG_INFINITY, hi: f32::INFINITY };
    /// Negative becomes zero.
    pub const RELU: Self = Self { lo: 0.0, hi: f32::INFINITY };
    /// To between 0 and 6.
    pub const RELU6: Self = Self { lo: 0.0, hi: 6.0 };
}

/// Height and width in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Rows.
    pub height: usize,
    /// Pixels in a row.
    pub width: usize,
}

impl Size {
    /// Pixels in all.
    #[must_use]
    pub fn pixels(self) -> usize {
        self.height * self.width
    }
}

/// Pixels of zeros around an image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pads {
    /// Rows above.
    pub top: usize,
    /// Columns to the left.
    pub left: usize,
    /// Rows below.
    pub bottom: usize,
    /// Columns to the right.
    pub right: usize,
}

impl Pads {
    /// The same on all four sides.
    #[must_use]
    pub fn all(pixels: usize) -> Self {
        Self { top: pixels, left: pixels, bottom: pixels, right: pixels }
    }
}

/// A square kernel that moves over a padded image, and the image that comes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    input: Size,
    kernel: usize,
    stride: usize,
    pads: Pads,
    output: Size,
}

impl Window {
    /// A kernel of `kernel` by `kernel` pixels that moves by `stride` over `input` with `pads` around.
    ///
    /// # Errors
    /// A size is zero, the kernel is larger than the padded image, or sizes overflow.
    pub fn new(input: Size, kernel: usize, stride: usize, pads: Pads) -> Result<Self, ShapeError> {
        volume(&[input.height, input.width, kernel, kernel, stride])?;
        let steps = |size: usize, before: usize, after: usize| {
            let padded = size.checked_add(before).and_then(|size| size.checked_add(after));
            let padded = padded.ok_or(ShapeError::TooLarge)?;
            let room = padded.checked_sub(kernel).ok_or(ShapeError::WindowTooLarge)?;
            Ok(room / stride + 1)
        };
        let output = Size {
            height: steps(input.height, pads.top, pads.bottom)?,
            width: steps(input.width, pads.left, pads.right)?,
        };
        volume(&[output.height, output.width])?;
        Ok(Self { input, kernel, stride, pads, output })
    }

    /// The image that the window moves over.
    #[must_use]
    pub fn input(&self) -> Size {
        self.input
    }

    /// The image that comes out, a pixel a step.
    #[must_use]
    pub fn output(&self) -> Size {
        self.output
    }

    /// Height and width of the kernel.
    #[must_use]
    pub fn kernel(&self) -> usize {
        self.kernel
    }

    /// Pixels from one step to the next.
    #[must_use]
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// The zeros around the input.
    #[must_use]
    pub fn pads(&self) -> Pads {
        self.pads
    }

    /// The kernel's rows that meet the image, not its padding, at output row `y`.
    pub(crate) fn kernel_rows(&self, y: usize) -> Range<usize> {
        taps(y * self.stride, self.kernel, self.pads.top, self.input.height)
    }

    /// The kernel's columns that meet the image, not its padding, at output column `x`.
    pub(crate) fn kernel_columns(&self, x: usize) -> Range<usize> {
        taps(x * self.stride, self.kernel, self.pads.left, self.input.width)
    }

    /// The input row under the kernel's row `tap` at output row `y`; `tap` is one of
    /// [`Self::kernel_rows`].
    pub(crate) fn input_row(&self, y: usize, tap: usize) -> usize {
        y * self.stride + tap - self.pads.top
    }

    /// The input column under the kernel's column `tap` at output column `x`; `tap` is one of
    /// [`Self::kernel_columns`].
    pub(crate) fn input_column(&self, x: usize, tap: usize) -> usize {
        x * self.stride + tap - self.pads.left
    }

    /// The input rows that the output rows `rows` look at.
    pub(crate) fn input_rows(&self, rows: &Range<usize>) -> Range<usize> {
        let start = (rows.start * self.stride).saturating_sub(self.pads.top);
        let end = (rows.end.saturating_sub(1) * self.stride + self.kernel).saturating_sub(self.pads.top);
        start.min(self.input.height)..end.min(self.input.height)
    }

    /// The output columns where the whole kernel is over the image.
    pub(crate) fn inner_columns(&self) -> Range<usize> {
        let start = self.pads.left.div_ceil(self.stride).min(self.output.width);
        let end = match (self.input.width + self.pads.left).checked_sub(self.kernel) {
            Some(room) => (room / self.stride + 1).min(self.output.width),
            None => 0,
        };
        start..end.max(start)
    }
}

/// The taps of a kernel that are inside of `size` when it begins at `begin` with `before` of padding.
fn taps(begin: usize, kernel: usize, before: usize, size: usize) -> Range<usize> {
    let end = (size + before).saturating_sub(begin).min(kernel);
    before.saturating_sub(begin).min(end)..end
}

#[cfg(test)]
mod tests {
    use super::*;

    const IMAGE: Size = Size { height: 5, width: 4 };

    #[test]
    fn padding_and_stride_give_the_size_that_onnx_gives() {
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
    fn windows_that_cannot_be_are_refused() {
        assert_eq!(Window::new(IMAGE, 6, 1, Pads::default()), Err(ShapeError::WindowTooLarge));
        assert_eq!(Window::new(IMAGE, 3, 0, Pads::default()), Err(ShapeError::Zero));
        assert_eq!(Window::new(IMAGE, 3, 1, Pads::all(usize::MAX)), Err(ShapeError::TooLarge));
    }

    #[test]
    fn a_window_wholly_in_the_padding_has_no_taps() {
        let window = Window::new(IMAGE, 3, 1, Pads::all(4)).unwrap();
        assert!(window.kernel_rows(0).is_empty());
        assert!(window.kernel_rows(window.output().height - 1).is_empty());
    }
}
