//! Represents a Huffman table in three forms: as a file stores it, as a codebook of all code words, and as an
//! array for fast look-ups.

mod codebook;
mod lookup;
mod stored_table;

pub(crate) use lookup::{AC_LOOKUP_BITS, AcTable, DcTable, extend};
pub(crate) use stored_table::StoredTable;

/// The Huffman tables of a picture. The components refer to the tables by index.
pub(crate) struct HuffmanTables {
    pub(crate) dc: [DcTable; 4],
    pub(crate) ac: [AcTable; 4],
}

impl HuffmanTables {
    pub(crate) const EMPTY: Self = Self { dc: [DcTable::EMPTY; 4], ac: [AcTable::EMPTY; 4] };
}
