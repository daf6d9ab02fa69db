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

/// Maximum number of bytes of the Huffman tables of a file with several scans, divided by the number of scans. The
/// tables of a file with a single scan need up to twice as much.
pub const MAX_TABLE_BYTES_PER_SCAN: u64 = 50 << 10;

// A scan with one component has a table of each class, and a growing vector may be half empty. A single scan has four
// tables of each class.
const _: () = assert!(2 * (size_of::<AcTable>() + size_of::<DcTable>()) as u64 <= MAX_TABLE_BYTES_PER_SCAN);
const _: () =
    assert!(4 * (size_of::<AcTable>() + size_of::<DcTable>()) as u64 <= 2 * MAX_TABLE_BYTES_PER_SCAN);

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
