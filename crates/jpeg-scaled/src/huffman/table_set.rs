//! Keeps the look-up tables of a picture.

use std::ops::Index;

use super::StoredTable;
use crate::Error;

/// A table that decodes code words with look-ups.
pub(crate) trait LookupTable {
    /// A table without code words.
    const EMPTY: Self;

    /// Replaces the contents of the table by those of `stored_table`.
    fn set(&mut self, stored_table: &StoredTable) -> Result<(), Error>;
}

/// Number of tables whose memory is kept for the next picture. More than the four tables that a scan can have
/// are only needed by files with several scans.
const MAX_KEPT_TABLES: usize = 8;

/// The tables of one class, which a picture's scans use at the same time.
pub(crate) struct TableSet<T> {
    /// The tables, of which only the first ones belong to the current picture.
    tables: Vec<T>,
    /// Address in the file's bytes of each table of the current picture.
    addresses: Vec<usize>,
}

impl<T> Default for TableSet<T> {
    fn default() -> Self {
        Self { tables: Vec::new(), addresses: Vec::new() }
    }
}

impl<T: LookupTable> TableSet<T> {
    pub(super) fn allocated_bytes(&self) -> usize {
        self.tables.capacity() * size_of::<T>() + self.addresses.capacity() * size_of::<usize>()
    }

    pub(super) fn clear(&mut self) {
        self.tables.truncate(MAX_KEPT_TABLES);
        self.tables.shrink_to(MAX_KEPT_TABLES);
        self.addresses.clear();
    }

    /// Adds a table of the current file and returns its index. Adds a table only once.
    pub(crate) fn add(&mut self, stored_table: &StoredTable) -> Result<usize, Error> {
        let address = stored_table.address();
        if let Some(index) = self.addresses.iter().position(|&other| other == address) {
            return Ok(index);
        }
        let index = self.addresses.len();
        if index == self.tables.len() {
            self.tables.push(T::EMPTY);
        }
        self.tables[index].set(stored_table)?;
        self.addresses.push(address);
        Ok(index)
    }
}

impl<T> Index<usize> for TableSet<T> {
    type Output = T;

    #[inline(always)]
    fn index(&self, index: usize) -> &T {
        &self.tables[index]
    }
}
