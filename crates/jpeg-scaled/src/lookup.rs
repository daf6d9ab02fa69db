//! Tables that give whole coefficients, two at once where they are short, for the next bits.

use crate::{
    Error,
    huffman::{Code, CodeLengths, Codebook, extend},
};

/// Bits by which DC tables are looked up.
const DC_BITS: u32 = 9;

/// Bits by which AC tables are looked up. More find more pairs, and fill the innermost cache.
pub(crate) const AC_BITS: u32 = 11;

/// A table of differences of DC coefficients.
pub(crate) struct DcTable {
    entries: [DcEntry; 1 << DC_BITS],
    codes: Codebook,
}

/// A difference, and how many bits it takes; none for those that are longer than the look-up.
#[derive(Clone, Copy)]
pub(crate) struct DcEntry {
    pub(crate) bits: u8,
    pub(crate) difference: i16,
}

impl DcTable {
    pub(crate) const EMPTY: Self =
        Self { entries: [DcEntry { bits: 0, difference: 0 }; 1 << DC_BITS], codes: Codebook::EMPTY };

    /// Becomes the table of `lengths`.
    pub(crate) fn set(&mut self, lengths: &CodeLengths) -> Result<(), Error> {
        self.codes.set(lengths)?;
        if lengths.symbols().iter().any(|&symbol| symbol > 15) {
            return Err(Error::Corrupt("a DC code stands for too many bits"));
        }
        let found = coefficients::<{ 1 << DC_BITS }>(&self.codes);
        for (entry, coefficient) in self.entries.iter_mut().zip(found) {
            let (bits, difference) = coefficient.map_or((0, 0), |found| (found.bits, found.value));
            *entry = DcEntry { bits, difference };
        }
        Ok(())
    }

    /// What the next bits, left-aligned in `bits`, begin with.
    #[inline(always)]
    pub(crate) fn look_up(&self, bits: u64) -> DcEntry {
        self.entries[(bits >> (64 - DC_BITS)) as usize]
    }

    /// The length of the code that `bits` begins with, and how many bits of a difference follow it.
    pub(crate) fn code(&self, bits: u64) -> Option<(u32, u32)> {
        self.codes.find(bits).map(|code| (code.length, code.symbol.into()))
    }
}

/// A table of runs of zeros and the AC coefficients after them.
pub(crate) struct AcTable {
    entries: [AcEntry; 1 << AC_BITS],
    codes: Codebook,
}

/// What the next bits begin with: a coefficient, or two of them, each after some zeros; the end of the
/// block, or a coefficient and then that; or a code that is none of these.
///
/// All in 32 bits, from the lowest: 8 of how many bits are taken; 8 of how many coefficients are passed,
/// more than a block has where the block ends or the look-up does not help; 4 of how many zeros come
/// before the first coefficient; 6 of that, 6 of the last one. One coefficient is first and last.
#[derive(Clone, Copy)]
pub(crate) struct AcEntry(u32);

impl AcEntry {
    const END: u32 = 65;
    const COEFFICIENT_AND_END: u32 = 66;
    const OTHER: u32 = 67;

    /// Nothing that the look-up helps with.
    const NONE: Self = Self(Self::OTHER << 8);

    fn new(bits: u8, passed: u32, zeros: u8, first: i16, last: i16) -> Self {
        let six = |value: i16| u32::from(value.cast_unsigned() & 63);
        Self(u32::from(bits) | passed << 8 | u32::from(zeros) << 16 | six(first) << 20 | six(last) << 26)
    }

    /// Bits to take. (In the lowest byte, where a shift finds it without further ado.)
    #[inline(always)]
    pub(crate) fn bits(self) -> u32 {
        self.0 & 0xFF
    }

    /// Coefficients that are passed by the first one and the last one; at least 65 if those are not all
    /// that there is.
    #[inline(always)]
    pub(crate) fn passed(self) -> usize {
        (self.0 >> 8 & 0xFF) as usize
    }

    /// Whether the block ends here.
    #[inline(always)]
    pub(crate) fn is_end(self) -> bool {
        self.passed() == Self::END as usize
    }

    /// Whether the block ends after [`AcEntry::first`].
    #[inline(always)]
    pub(crate) fn is_coefficient_and_end(self) -> bool {
        self.passed() == Self::COEFFICIENT_AND_END as usize
    }

    /// Zeros before the first coefficient.
    #[inline(always)]
    pub(crate) fn zeros(self) -> usize {
        (self.0 >> 16 & 15) as usize
    }

    /// The first coefficient.
    #[inline(always)]
    pub(crate) fn first(self) -> i16 {
        ((self.0 << 6).cast_signed() >> 26) as i16
    }

    /// The last coefficient; the first one again where there is but one.
    #[inline(always)]
    pub(crate) fn last(self) -> i16 {
        (self.0.cast_signed() >> 26) as i16
    }
}

impl AcTable {
    pub(crate) const EMPTY: Self = Self { entries: [AcEntry::NONE; 1 << AC_BITS], codes: Codebook::EMPTY };

    /// Becomes the table of `lengths`.
    pub(crate) fn set(&mut self, lengths: &CodeLengths) -> Result<(), Error> {
        self.codes.set(lengths)?;
        let found = coefficients::<{ 1 << AC_BITS }>(&self.codes);
        for (index, entry) in self.entries.iter_mut().enumerate() {
            let Some(first) = found[index] else {
                *entry = AcEntry::NONE;
                continue;
            };
            // What is left of the index, and zeros where nothing is known.
            let rest = (index << first.bits) % found.len();
            let second = found[rest].filter(|second| u32::from(first.bits + second.bits) <= AC_BITS);
            *entry = first.entry(second);
        }
        Ok(())
    }

    /// What the next bits, left-aligned in `bits`, begin with.
    #[inline(always)]
    pub(crate) fn look_up(&self, bits: u64) -> AcEntry {
        self.entries[(bits >> (64 - AC_BITS)) as usize]
    }

    /// The length of the code that `bits` begins with, how many zeros it stands for, and how many bits
    /// of a coefficient follow it.
    pub(crate) fn code(&self, bits: u64) -> Option<(u32, usize, u32)> {
        let Code { length, symbol } = self.codes.find(bits)?;
        Some((length, usize::from(symbol >> 4), u32::from(symbol & 15)))
    }
}

/// A code and the number after it.
#[derive(Clone, Copy)]
struct Coefficient {
    bits: u8,
    symbol: u8,
    value: i16,
}

impl Coefficient {
    fn zeros(self) -> u8 {
        self.symbol >> 4
    }

    fn is_end(self) -> bool {
        self.symbol == 0
    }

    /// Whether an entry has room for it. The codes of zeros alone but two mean nothing.
    fn fits(self) -> bool {
        (-32..32).contains(&self.value) && (self.symbol & 15 > 0 || self.symbol == 0xF0)
    }

    fn passed(self) -> u32 {
        u32::from(self.zeros()) + 1
    }

    fn entry(self, second: Option<Self>) -> AcEntry {
        let Self { bits, value, .. } = self;
        if self.is_end() {
            return AcEntry::new(bits, AcEntry::END, 0, 0, 0);
        }
        if !self.fits() {
            return AcEntry::NONE;
        }
        match second {
            Some(second) if second.is_end() => {
                AcEntry::new(bits + second.bits, AcEntry::COEFFICIENT_AND_END, self.zeros(), value, value)
            }
            Some(second) if second.fits() => {
                let passed = self.passed() + second.passed();
                AcEntry::new(bits + second.bits, passed, self.zeros(), value, second.value)
            }
            _ => AcEntry::new(bits, self.passed(), self.zeros(), value, value),
        }
    }
}

/// What each number of so many bits begins with, if all of it is there.
fn coefficients<const NUMBERS: usize>(codes: &Codebook) -> [Option<Coefficient>; NUMBERS] {
    let width = NUMBERS.trailing_zeros();
    let mut found = [None; NUMBERS];
    for length in 1..=width {
        for (code, symbol) in codes.of_length(length) {
            let size = u32::from(symbol & 15);
            let Some(rest) = width.checked_sub(length + size) else { continue };
            for number in 0..1 << size {
                let (first, value) = ((code << size | u32::from(number)) << rest, extend(number, size));
                #[expect(clippy::cast_possible_truncation, reason = "it is at most `width`")]
                let bits = (length + size) as u8;
                found[first as usize..][..1 << rest].fill(Some(Coefficient { bits, symbol, value }));
            }
        }
    }
    found
}
