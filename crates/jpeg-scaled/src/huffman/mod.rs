//! Represents Huffman codes in three forms: as a file stores them, as a complete codebook, and as tables for
//! fast look-ups.

mod code_lengths;
mod codebook;
mod lookup;

pub(crate) use code_lengths::CodeLengths;
pub(crate) use lookup::{AC_LOOKUP_BITS, AcTable, DcTable, extend};

/// The Huffman tables of a picture. The components refer to the tables by index.
pub(crate) struct HuffmanTables {
    pub(crate) dc: [DcTable; 4],
    pub(crate) ac: [AcTable; 4],
}

impl HuffmanTables {
    pub(crate) const EMPTY: Self = Self { dc: [DcTable::EMPTY; 4], ac: [AcTable::EMPTY; 4] };
}
