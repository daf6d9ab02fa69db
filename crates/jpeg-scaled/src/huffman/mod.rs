//! Represents a Huffman table in three forms: as a file stores it, as a codebook of all code words, and as an
//! array for fast look-ups.

mod codebook;
mod lookup;
mod refinement;
pub(crate) mod standard_tables;
mod stored_table;
mod table_set;

pub(crate) use lookup::{AC_LOOKUP_BITS, AcTable, DcTable, extend};
pub(crate) use refinement::RefinementTable;
pub(crate) use stored_table::StoredTable;
use table_set::TableSet;

/// The Huffman tables of all scans of a picture. The scans refer to the tables by index.
#[derive(Default)]
pub(crate) struct HuffmanTables {
    pub(crate) dc: TableSet<DcTable>,
    pub(crate) ac: TableSet<AcTable>,
    pub(crate) refinement: TableSet<RefinementTable>,
}

impl HuffmanTables {
    /// Returns the number of bytes that the tables take.
    pub(crate) fn allocated_bytes(&self) -> usize {
        self.dc.allocated_bytes() + self.ac.allocated_bytes() + self.refinement.allocated_bytes()
    }

    /// Removes all tables, but keeps the memory of the first few for the next picture.
    pub(crate) fn clear(&mut self) {
        self.dc.clear();
        self.ac.clear();
        self.refinement.clear();
    }
}
