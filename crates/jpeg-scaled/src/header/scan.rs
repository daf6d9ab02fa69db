//! Parses scan headers, and tracks which bits of the coefficients the scans contain.

use super::{Component, MAX_BLOCKS_PER_MCU, MAX_COMPONENTS};
use crate::Error;

/// Maximum number of low bits that a scan can leave to later scans. libjpeg sets the same limit.
const MAX_MISSING_BITS: u8 = 13;

/// A range of coefficients in zigzag order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Band {
    /// Position of the first coefficient.
    pub(crate) start: usize,
    /// Position after the last coefficient, at most 64.
    pub(crate) end: usize,
}

impl Band {
    /// All AC coefficients.
    pub(crate) const AC: Self = Self { start: 1, end: 64 };

    /// Returns the band as a bit per coefficient.
    #[inline(always)]
    pub(crate) fn mask(self) -> u64 {
        u64::MAX << self.start & u64::MAX >> (64 - self.end)
    }
}

/// The part of the coefficients that a scan contains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pass {
    /// All bits of all coefficients. Every scan of a sequential file has this pass.
    Sequential,
    /// The DC coefficients without their lowest `shift` bits.
    DcFirst { shift: u32 },
    /// Bit number `bit` of the DC coefficients. 0 is the lowest bit.
    DcRefinement { bit: u32 },
    /// The AC coefficients in `band` without their lowest `shift` bits.
    AcFirst { band: Band, shift: u32 },
    /// Bit number `bit` of the absolute values of the AC coefficients in `band`.
    AcRefinement { band: Band, bit: u32 },
}

/// The contents of a scan header.
#[derive(Clone, Copy)]
pub(crate) struct ScanHeader {
    /// Indices of the scan's components, in the order of the scan. The first `component_count` are valid.
    component_indices: [usize; MAX_COMPONENTS],
    component_count: usize,
    pub(crate) pass: Pass,
}

impl ScanHeader {
    pub(super) const EMPTY: Self =
        Self { component_indices: [0; MAX_COMPONENTS], component_count: 0, pass: Pass::Sequential };

    /// Parses the payload of an SOS segment.
    ///
    /// Sets the numbers of the Huffman tables in `components`, which are the components of the frame.
    pub(super) fn parse(
        segment: &[u8],
        components: &mut [Component],
        is_progressive: bool,
    ) -> Result<Self, Error> {
        const BAD_LENGTH: Error = Error::Corrupt("the scan header has a wrong length");
        let [count, rest @ ..] = segment else { return Err(BAD_LENGTH) };
        if components.is_empty() {
            return Err(Error::Corrupt("the scan comes before the frame header"));
        }
        let count = usize::from(*count);
        if !(1..=components.len()).contains(&count) {
            return Err(Error::Corrupt("a scan has a wrong number of components"));
        }
        let Some((scan_components, &[start, end, approximation])) = rest.split_at_checked(2 * count) else {
            return Err(BAD_LENGTH);
        };
        let pass = if is_progressive { parse_pass(start, end, approximation)? } else { Pass::Sequential };
        let mut scan = Self { pass, ..Self::EMPTY };
        let mut block_count = 0;
        for &[id, table_numbers] in scan_components.as_chunks::<2>().0 {
            let is_new = |index: &usize| components[*index].id == id && !scan.indices().contains(index);
            let Some(index) = (0..components.len()).find(is_new) else {
                return Err(Error::Corrupt("a scan has an unknown component"));
            };
            let component = &mut components[index];
            (component.dc_table_number, component.ac_table_number) =
                (usize::from(table_numbers >> 4), usize::from(table_numbers & 15));
            block_count += component.blocks_across * component.blocks_down;
            scan.component_indices[scan.component_count] = index;
            scan.component_count += 1;
        }
        // The MCU of a scan with a single component is one block, whatever the sampling factors.
        if count > 1 && block_count > MAX_BLOCKS_PER_MCU {
            return Err(Error::Corrupt("an MCU has too many blocks"));
        }
        if count > 1 && matches!(pass, Pass::AcFirst { .. } | Pass::AcRefinement { .. }) {
            return Err(Error::Corrupt("a scan of AC coefficients has several components"));
        }
        Ok(scan)
    }

    /// Returns the indices of the scan's components, in the order of the scan.
    pub(crate) fn indices(&self) -> &[usize] {
        &self.component_indices[..self.component_count]
    }
}

/// Parses the last three bytes of a progressive file's scan header.
fn parse_pass(start: u8, last: u8, approximation: u8) -> Result<Pass, Error> {
    let (missing_before, missing_after) = (approximation >> 4, approximation & 15);
    let is_refinement = missing_before > 0;
    if start > last || last > 63 || (start == 0 && last > 0) {
        return Err(Error::Corrupt("a scan has a wrong range of coefficients"));
    }
    if missing_after > MAX_MISSING_BITS || (is_refinement && missing_after + 1 != missing_before) {
        return Err(Error::Corrupt("a scan has a wrong range of bits"));
    }
    let band = Band { start: start.into(), end: usize::from(last) + 1 };
    let bits = missing_after.into();
    Ok(match (start, is_refinement) {
        (0, false) => Pass::DcFirst { shift: bits },
        (0, true) => Pass::DcRefinement { bit: bits },
        (_, false) => Pass::AcFirst { band, shift: bits },
        (_, true) => Pass::AcRefinement { band, bit: bits },
    })
}

/// The bits of the coefficients that the scans so far contain.
#[derive(Clone, Copy)]
pub(super) struct Progress {
    /// Number of low bits of each coefficient that the scans so far leave out, or [`Progress::ALL_BITS`].
    /// The coefficients of a component are in zigzag order.
    missing_bits: [[u8; 64]; MAX_COMPONENTS],
}

impl Progress {
    /// Number of missing bits of a coefficient that no scan contains.
    const ALL_BITS: u8 = u8::MAX;

    pub(super) const NONE: Self = Self { missing_bits: [[Self::ALL_BITS; 64]; MAX_COMPONENTS] };

    /// Adds a scan.
    ///
    /// Returns an error if the scan repeats bits of an earlier scan, or if bits before its own are missing.
    pub(super) fn add(&mut self, scan: &ScanHeader) -> Result<(), Error> {
        let (band, before, after) = match scan.pass {
            Pass::Sequential => (Band { start: 0, end: 64 }, Self::ALL_BITS.into(), 0),
            Pass::DcFirst { shift } => (Band { start: 0, end: 1 }, Self::ALL_BITS.into(), shift),
            Pass::DcRefinement { bit } => (Band { start: 0, end: 1 }, bit + 1, bit),
            Pass::AcFirst { band, shift } => (band, Self::ALL_BITS.into(), shift),
            Pass::AcRefinement { band, bit } => (band, bit + 1, bit),
        };
        for &index in scan.indices() {
            let missing_bits = &mut self.missing_bits[index];
            if band.start > 0 && missing_bits[0] == Self::ALL_BITS {
                return Err(Error::Corrupt("the AC coefficients of a component precede its DC coefficients"));
            }
            for missing_bits in &mut missing_bits[band.start..band.end] {
                if u32::from(*missing_bits) != before {
                    return Err(Error::Corrupt("a scan repeats or omits bits of coefficients"));
                }
                // At most `MAX_MISSING_BITS`.
                *missing_bits = u8::try_from(after).unwrap_or(Self::ALL_BITS);
            }
        }
        Ok(())
    }

    /// Returns true if the component with index `component_index` is in a scan.
    pub(super) fn contains(&self, component_index: usize) -> bool {
        self.missing_bits[component_index][0] != Self::ALL_BITS
    }

    /// Returns true if no bit of the first `component_count` components is missing.
    pub(super) fn is_complete(&self, component_count: usize) -> bool {
        self.missing_bits[..component_count].as_flattened().iter().all(|&missing_bits| missing_bits == 0)
    }
}
