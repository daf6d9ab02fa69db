//! The samples of a component: a row of MCUs of them, and how they become rows of the picture.

use crate::{
    Error, Scale,
    header::{Component, Header, Quantization},
    idct::{self, Band, EMPTY_BAND, LANES},
};

/// What is the same for all components of a picture.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Grid {
    /// Most blocks across in an MCU, over all components.
    horizontal: usize,
    /// Most blocks down in an MCU, over all components.
    vertical: usize,
    /// Samples along the side of a block of the component with the most of them.
    side: usize,
    width: usize,
    height: usize,
    /// MCUs across.
    pub(crate) columns: usize,
    /// MCUs down.
    pub(crate) rows: usize,
}

impl Grid {
    pub(crate) fn new(header: &Header, components: &[Component], scale: Scale) -> Self {
        let most = |factor: fn(&Component) -> usize| components.iter().map(factor).max().unwrap_or(1);
        let (horizontal, vertical) =
            (most(|component| component.horizontal), most(|component| component.vertical));
        let (width, height) = (header.width as usize, header.height as usize);
        Self {
            horizontal,
            vertical,
            side: scale.block_side(),
            width,
            height,
            columns: width.div_ceil(8 * horizontal),
            rows: height.div_ceil(8 * vertical),
        }
    }

    /// Rows of the picture that a row of MCUs makes.
    pub(crate) fn picture_rows(&self) -> usize {
        self.vertical * self.side
    }
}

/// How samples become as many as the picture has pixels, along one side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Upsampling {
    /// Each is repeated so many times; once where there are enough of them.
    Repeat(usize),
    /// Twice as many, each ¾ of the nearest sample and ¼ of the next: libjpeg's "fancy upsampling".
    Triangle,
}

/// A component: a row of MCUs.
pub(crate) struct Plane {
    /// Samples along the side of a block.
    side: usize,
    /// Samples of the whole picture.
    width: usize,
    height: usize,
    /// Rows of samples that a row of MCUs makes.
    rows: usize,
    /// Samples from row to row of `samples`.
    stride: usize,
    across: Upsampling,
    down: Upsampling,
    steps: Quantization,
    /// For each row of blocks, those that wait to be transformed. Zeros otherwise.
    bands: [Band; 4],
    /// The last row of the row of MCUs before, and then `rows`.
    samples: Vec<u8>,
    /// A row as wide as the picture.
    line: Vec<u8>,
    /// A row of samples that are mixed from two rows, times four: where both sides are upsampled, libjpeg
    /// rounds but once.
    sums: Vec<u16>,
}

impl Plane {
    pub(crate) const EMPTY: Self = Self {
        side: 0,
        width: 0,
        height: 0,
        rows: 0,
        stride: 0,
        across: Upsampling::Repeat(1),
        down: Upsampling::Repeat(1),
        steps: [0; 64],
        bands: [EMPTY_BAND; 4],
        samples: Vec::new(),
        line: Vec::new(),
        sums: Vec::new(),
    };

    /// Becomes the plane of `component`; samples that are there already mean nothing.
    pub(crate) fn set(
        &mut self,
        component: &Component,
        steps: &Quantization,
        grid: &Grid,
    ) -> Result<(), Error> {
        let (across, down) = (grid.horizontal * grid.side, grid.vertical * grid.side);
        // A component of fewer samples gets larger blocks, rather than more samples afterwards.
        let mut side = grid.side;
        while side < 8
            && across.is_multiple_of(2 * side * component.horizontal)
            && down.is_multiple_of(2 * side * component.vertical)
        {
            side *= 2;
        }
        let (own_across, own_down) = (side * component.horizontal, side * component.vertical);
        if !across.is_multiple_of(own_across) || !down.is_multiple_of(own_down) {
            return Err(Error::Unsupported("a sampling that is no whole fraction"));
        }
        self.side = side;
        self.width = (grid.width * own_across).div_ceil(8 * grid.horizontal);
        self.height = (grid.height * own_down).div_ceil(8 * grid.vertical);
        self.rows = own_down;
        self.stride = (grid.columns * component.horizontal).next_multiple_of(LANES) * side;
        (self.across, self.down) = match (across / own_across, down / own_down) {
            (2, 2) if grid.side > 1 && self.width > 2 => (Upsampling::Triangle, Upsampling::Triangle),
            (2, 1) if grid.side > 1 && self.width > 2 => (Upsampling::Triangle, Upsampling::Repeat(1)),
            (1, 2) if grid.side > 1 => (Upsampling::Repeat(1), Upsampling::Triangle),
            (across, down) => (Upsampling::Repeat(across), Upsampling::Repeat(down)),
        };
        self.steps = *steps;
        // A picture that was given up may have left some.
        self.bands = Self::EMPTY.bands;
        self.samples.resize((1 + self.rows) * self.stride, 0);
        self.line.resize(grid.columns * across, 0);
        self.sums.resize(self.width, 0);
        Ok(())
    }

    /// The memory of bytes that is kept for the next picture.
    #[cfg(test)]
    pub(crate) fn buffers(&self) -> [&Vec<u8>; 2] {
        [&self.samples, &self.line]
    }

    /// Whether a block has but one sample, its mean.
    pub(crate) fn is_mean(&self) -> bool {
        self.side == 1
    }

    /// The coefficients of the blocks that wait in row `row`, counted in blocks, for those beside them.
    #[inline(always)]
    pub(crate) fn band(&mut self, row: usize) -> &mut Band {
        &mut self.bands[row & 3]
    }

    /// Makes samples of the blocks that wait in row `row`; the first one is at `column`. Both are
    /// counted in blocks.
    #[inline(always)]
    pub(crate) fn transform(&mut self, column: usize, row: usize) {
        let at = (1 + row * self.side) * self.stride + column * self.side;
        idct::transform(&mut self.bands[row], &self.steps, self.side, &mut self.samples[at..], self.stride);
    }

    /// Makes room for the next row of MCUs.
    pub(crate) fn advance(&mut self) {
        let last = self.rows * self.stride;
        self.samples.copy_within(last.., 0);
    }

    /// The samples of the picture's row `row`, for `mcu_row` the row of MCUs that is there: its own
    /// rows but for the last one, and the last one of the row of MCUs before.
    #[inline(always)]
    pub(crate) fn picture_row(&mut self, row: usize, mcu_row: usize) -> &[u8] {
        let own = match self.down {
            Upsampling::Repeat(times) => row / times,
            Upsampling::Triangle => row / 2,
        };
        // In `samples`: the row of MCUs begins one row down.
        let place = |own: usize| (own + 1 - mcu_row * self.rows) * self.stride;
        let mut samples = &self.samples[place(own)..][..self.stride];
        if self.down == Upsampling::Triangle {
            let (next, bias) = if row.is_multiple_of(2) {
                (own.saturating_sub(1), 1)
            } else {
                ((own + 1).min(self.height - 1), 2)
            };
            let next = &self.samples[place(next)..][..self.stride];
            if self.across == Upsampling::Triangle {
                for ((sum, &near), &far) in self.sums.iter_mut().zip(samples).zip(next) {
                    *sum = 3 * u16::from(near) + u16::from(far);
                }
                widen_sums(&self.sums, &mut self.line);
                return &self.line;
            }
            for ((to, &near), &far) in self.line.iter_mut().zip(samples).zip(next) {
                *to = mix(near, far, bias);
            }
            return &self.line;
        }
        match self.across {
            Upsampling::Repeat(1) => {}
            Upsampling::Repeat(times) => {
                for (to, &sample) in self.line.chunks_exact_mut(times).zip(samples) {
                    to.fill(sample);
                }
                samples = &self.line;
            }
            Upsampling::Triangle => {
                widen(&samples[..self.width], &mut self.line);
                samples = &self.line;
            }
        }
        samples
    }
}

/// ¾ and ¼. libjpeg rounds a half down before the sample (`bias` 1) and up after it (2).
#[inline(always)]
fn mix(near: u8, far: u8, bias: u16) -> u8 {
    let [low, _] = ((3 * u16::from(near) + u16::from(far) + bias) >> 2).to_le_bytes();
    low
}

/// Twice as many samples; the outermost ones are those of the edge.
#[inline(always)]
fn widen(samples: &[u8], line: &mut [u8]) {
    let mixed = |near: u8, far: u8, bias: u16| u16::from(mix(near, far, bias));
    double(samples, line, |before, sample, after| [mixed(sample, before, 1), mixed(sample, after, 2)]);
}

/// As [`widen`], of samples times four. Each comes from four samples in the parts 9, 3, 3 and 1 of 16;
/// libjpeg rounds a half up before the sample and down after it.
#[inline(always)]
fn widen_sums(sums: &[u16], line: &mut [u8]) {
    let mixed = |near: u16, far: u16, bias: u16| (3 * near + far + bias) >> 4;
    double(sums, line, |before, sum, after| [mixed(sum, before, 8), mixed(sum, after, 7)]);
}

/// Makes two of each value, of which there are at least two, from it and those before and after it; beside
/// the outermost ones stand they themselves. What is made is in the range of a byte.
#[inline(always)]
fn double<T: Copy>(values: &[T], line: &mut [u8], two_of: impl Fn(T, T, T) -> [u16; 2]) {
    // Written as one number, which compilers make vector instructions of.
    let pair = |before, value, after| {
        let [left, right] = two_of(before, value, after);
        (left | right << 8).to_le_bytes()
    };
    let (&[first, second, ..], &[.., next_to_last, last]) = (values, values) else { return };
    let [first_pair, pairs @ .., last_pair] = &mut line.as_chunks_mut().0[..values.len()] else { return };
    *first_pair = pair(first, first, second);
    let inner = values.iter().zip(&values[1..]).zip(&values[2..]);
    for (to, ((&before, &value), &after)) in pairs.iter_mut().zip(inner) {
        *to = pair(before, value, after);
    }
    *last_pair = pair(next_to_last, last, last);
}
